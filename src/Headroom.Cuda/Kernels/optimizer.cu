// Multi-tensor norm and AdamW: blockIdx.y is the tensor, blocks along x stride over it.
#define THREADS OPTIMIZER_THREADS

extern "C" __global__ void sum_squares(const NormEntry* table, double* partial)
{
    __shared__ double part[THREADS];
    NormEntry e = table[blockIdx.y];
    double s = 0;
    i64 stride = (i64)gridDim.x * THREADS;
    for (i64 i = (i64)blockIdx.x * THREADS + threadIdx.x; i < e.count; i += stride) s += (double)e.x[i] * e.x[i];
    part[threadIdx.x] = s;
    for (int d = THREADS / 2; d > 0; d >>= 1)
    {
        __syncthreads();
        if (threadIdx.x < d) part[threadIdx.x] += part[threadIdx.x + d];
    }
    if (threadIdx.x == 0) partial[(i64)blockIdx.y * gridDim.x + blockIdx.x] = part[0];
}

extern "C" __global__ void sum_partials(const double* partial, int n, double* result)
{
    __shared__ double part[THREADS];
    double s = 0;
    for (int i = threadIdx.x; i < n; i += THREADS) s += partial[i];
    part[threadIdx.x] = s;
    for (int d = THREADS / 2; d > 0; d >>= 1)
    {
        __syncthreads();
        if (threadIdx.x < d) part[threadIdx.x] += part[threadIdx.x + d];
    }
    if (threadIdx.x == 0) *result = sqrt(part[0]);
}

// The order of torch's single-tensor AdamW, each operation rounded on its own as on the CPU.
extern "C" __global__ void adamw(const AdamEntry* table, AdamConstants k)
{
    AdamEntry e = table[blockIdx.y];
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < e.count; i += stride)
    {
        float g = __fmul_rn(e.g[i], k.scale), m = e.m[i], v;
        m = __fadd_rn(m, __fmul_rn(__fsub_rn(g, m), k.oneMinusBeta1));
        v = __fadd_rn(__fmul_rn(e.v[i], k.beta2), __fmul_rn(__fmul_rn(g, g), k.oneMinusBeta2));
        float denominator = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), k.root), k.eps);
        e.m[i] = m;
        e.v[i] = v;
        e.w[i] = __fsub_rn(__fmul_rn(e.w[i], e.decay), __fmul_rn(__fdiv_rn(m, denominator), e.size));
    }
}

extern "C" __global__ void zero_all(const NormEntry* table)
{
    NormEntry e = table[blockIdx.y];
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < e.count; i += stride) ((float*)e.x)[i] = 0.f;
}
