// Float to storage, bit-identical to bitsandbytes (its default CPU path and torch's order of summation).

DEV float value(const void* src, int kind, i64 i)
{
    return kind == KIND_F32 ? ((const float*)src)[i] : kind == KIND_BF16 ? to_f(((const bf16*)src)[i]) : to_f(((const f16*)src)[i]);
}

// From one of the kinds of floats to another.
extern "C" __global__ void store_plain(const void* src, int from, void* dst, int to, i64 n)
{
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride)
    {
        float v = value(src, from, i);
        if (to == KIND_F32) ((float*)dst)[i] = v;
        else if (to == KIND_BF16) from_f(v, ((bf16*)dst)[i]);
        else from_f(v, ((f16*)dst)[i]);
    }
}

extern "C" __global__ void store_int8(const void* src, int from, signed char* dst, float* absmax, int columns)
{
    i64 at = (i64)blockIdx.x * columns;
    float max = 0;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) max = fmaxf(max, fabsf(value(src, from, at + i)));
    max = block_max(max);
    if (threadIdx.x == 0) absmax[blockIdx.x] = max;
    float scale = max == 0.f ? 0.f : 127.f / max;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) dst[at + i] = (signed char)rintf(__fmul_rn(value(src, from, at + i), scale));
}

// A warp a block of codes. A partial last block divides; whole ones multiply by the reciprocal.
extern "C" __global__ void store_nf4(const void* src, int from, u8* codes, float* absmax, const float* tables, int size, i64 n, i64 blocks)
{
    __shared__ float thresholds[15];
    if (threadIdx.x < 15) thresholds[threadIdx.x] = (tables[threadIdx.x] + tables[threadIdx.x + 1]) / 2.f;
    __syncthreads();
    i64 b = (i64)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
    int lane = threadIdx.x & 31;
    if (b >= blocks) return;
    i64 first = b * size, end = first + size < n ? first + size : n;
    bool partial = end - first < size;
    float max = 0;
    for (i64 i = first + lane; i < end; i += 32) max = fmaxf(max, fabsf(value(src, from, i)));
    max = warp_max(max);
    if (partial) max = fmaxf(max, 1e-38f);
    if (lane == 0) absmax[b] = max;
    float divisor = fmaxf(max, 1e-38f), inverse = __fdiv_rn(1.f, divisor);
    for (i64 i = first + lane * 2; i < end; i += 64)
    {
        int code[2] = { 0, 7 };
        for (int k = 0; k < 2 && i + k < end; k++)
        {
            float x = value(src, from, i + k);
            x = partial ? __fdiv_rn(x, divisor) : __fmul_rn(x, inverse);
            x = fminf(fmaxf(x, -1.f), 1.f);
            code[k] = 0;
            for (int t = 0; t < 15; t++) code[k] += x > thresholds[t];
        }
        codes[i >> 1] = (u8)((code[0] << 4) | code[1]);
    }
}

// torch.mean of absmax: 4 interleaved vectors of 8 lanes are the 32 lanes of one warp; cascaded partial sums (SumKernel.cpp).
extern "C" __global__ void nested_mean(const float* absmax, int blocks, int power, float* offset)
{
    __shared__ float lanes[32];
    int lane = threadIdx.x, vectors = blocks / 8, size = vectors / 4, step = 1 << power, mask = step - 1, i = 0;
    float acc[4] = { 0, 0, 0, 0 };
    while (i + step <= size)
    {
#pragma unroll 16
        for (int j = 0; j < step; j++) acc[0] += absmax[(i64)(i + j) * 32 + lane];
        i += step;
        for (int level = 1; level < 4; level++)
        {
            acc[level] += acc[level - 1];
            acc[level - 1] = 0;
            if ((i & (mask << (level * power))) != 0) break;
        }
    }
    for (; i < size; i++) acc[0] += absmax[(i64)i * 32 + lane];
    for (int level = 1; level < 4; level++) acc[0] += acc[level];
    lanes[lane] = acc[0];
    __syncwarp();
    if (lane != 0) return;
    for (int v = size * 4; v < vectors; v++)
        for (int l = 0; l < 8; l++) lanes[l] += absmax[(i64)v * 8 + l];
    for (int r = 1; r < 4; r++)
        for (int l = 0; l < 8; l++) lanes[l] += lanes[r * 8 + l];
    float sum = 0;
    for (int k = vectors * 8; k < blocks; k++) sum += absmax[k];
    for (int l = 0; l < 8; l++) sum += lanes[l];
    *offset = __fdiv_rn(sum, (float)blocks);
}

// 2^NESTED_SHIFT blocks of statistics at a time: their largest distance from the offset, then codes by the 65,536-step look-up.
extern "C" __global__ void nested_codes(const float* absmax, int blocks, const float* offset, const float* tables, float* nested, u8* codes)
{
    const float* middle = tables + TABLES_MIDDLE;
    int i = (blockIdx.x << NESTED_SHIFT) + threadIdx.x;
    float d = i < blocks ? __fsub_rn(absmax[i], *offset) : 0.f, max = block_max(fabsf(d));
    if (threadIdx.x == 0) nested[blockIdx.x] = max;
    if (i >= blocks) return;
    if (max == 0.f) { codes[i] = 0; return; }
    float x = fminf(fmaxf(__fmul_rn(d, __fdiv_rn(1.f, max)), -1.f), 1.f);
    int step = (int)__fadd_rn(__fmul_rn(__fmul_rn(__fadd_rn(x, 1.f), 0.5f), 65535.f), 0.5f);
    float v = __fsub_rn(__fmul_rn(__fdiv_rn((float)step, 65535.f), 2.f), 1.f);
    int low = 0, high = 255;
    while (low < high)
    {
        int mid = (low + high) >> 1;
        if (middle[mid] < v) low = mid + 1; else high = mid;
    }
    codes[i] = (u8)low;
}

extern "C" __global__ void all_finite(const void* src, int from, i64 n, int* bad)
{
    i64 stride = (i64)gridDim.x * blockDim.x;
    int found = 0;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride)
        found |= (__float_as_uint(value(src, from, i)) & 0x7F800000u) == 0x7F800000u;
    if (found) *bad = 1; // every writer writes the same value
}
