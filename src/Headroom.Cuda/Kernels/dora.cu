// DoRA (Liu et al., 2024): row norms of the adapted weight, the scaling of a product's columns and its gradient; dropout as a tensor.

// y = drop(x), or what it takes away, x - drop(x), when rest; += when accumulate. y may be x.
extern "C" __global__ void drop_part(const T* x, T* y, i64 n, int rest, int accumulate, Mask m)
{
    i64 stride = (i64)gridDim.x * blockDim.x * 8;
    bool aligned = (((u64)x | (u64)y) & 15) == 0;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8; i < n; i += stride)
    {
        float v[8], f[8], old[8] = {};
        bool whole = aligned && i + 8 <= n;
        mask8(m, (u64)i >> 3, f);
        if (whole)
        {
            load8(x + i, v);
            if (accumulate) load8(y + i, old);
        }
        else
            for (int k = 0; k < 8; k++)
            {
                v[k] = i + k < n ? to_f(x[i + k]) : 0.f;
                if (accumulate && i + k < n) old[k] = to_f(y[i + k]);
            }
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] = old[k] + (rest ? v[k] - v[k] * f[k] : v[k] * f[k]);
        if (whole) store8(y + i, v);
        else for (int k = 0; k < 8 && i + k < n; k++) from_f(v[k], y[i + k]);
    }
}

// y = scale * u + bias by columns, += when accumulate; y may be u. Whole octets eight at a time.
extern "C" __global__ void dora_forward(const T* u, const float* scale, const float* bias, int accumulate, T* y, int n)
{
    const T* r = u + (i64)blockIdx.x * n;
    T* d = y + (i64)blockIdx.x * n;
    if ((n & 7) == 0)
    {
        for (int i = threadIdx.x * 8; i < n; i += blockDim.x * 8)
        {
            float v[8], s[8], b[8] = {}, old[8] = {};
            load8(r + i, v); load8(scale + i, s);
            if (bias) load8(bias + i, b);
            if (accumulate) load8(d + i, old);
#pragma unroll
            for (int k = 0; k < 8; k++) v[k] = v[k] * s[k] + (b[k] + old[k]);
            store8(d + i, v);
        }
        return;
    }
    for (int i = threadIdx.x; i < n; i += blockDim.x) from_f(to_f(r[i]) * scale[i] + ((bias ? bias[i] : 0.f) + (accumulate ? to_f(d[i]) : 0.f)), d[i]);
}

// du = scale * dy, and into partial [gridDim.y, n] the column sums of dy * u over span rows. A block has DORA_COLUMNS, eight a lane; its eight warps share the rows.
extern "C" __global__ void __launch_bounds__(DORA_COLUMNS) dora_backward(const T* dy, const T* u, const float* scale, T* du, float* partial, int rows, int n, int span)
{
    __shared__ float sums[8][DORA_COLUMNS];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, col = blockIdx.x * DORA_COLUMNS + lane * 8;
    int start = blockIdx.y * span, end = start + span < rows ? start + span : rows;
    float s[8], acc[8] = {};
    bool whole = (n & 7) == 0;
#pragma unroll
    for (int k = 0; k < 8; k++) s[k] = col + k < n ? scale[col + k] : 0.f;
    if (col < n)
        for (int row = start + warp; row < end; row += 8)
        {
            i64 at = (i64)row * n + col;
            float g[8], v[8];
            if (whole) { load8(dy + at, g); load8(u + at, v); }
            else
                for (int k = 0; k < 8; k++)
                {
                    g[k] = col + k < n ? to_f(dy[at + k]) : 0.f;
                    v[k] = col + k < n ? to_f(u[at + k]) : 0.f;
                }
#pragma unroll
            for (int k = 0; k < 8; k++)
            {
                acc[k] += g[k] * v[k];
                g[k] *= s[k];
            }
            if (whole) store8(du + at, g);
            else for (int k = 0; k < 8 && col + k < n; k++) from_f(g[k], du[at + k]);
        }
#pragma unroll
    for (int k = 0; k < 8; k++) sums[warp][lane * 8 + k] = acc[k];
    __syncthreads();
    int column = blockIdx.x * DORA_COLUMNS + threadIdx.x;
    if (column >= n) return;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < 8; w++) sum += sums[w][threadIdx.x]; // a fixed order
    partial[(i64)blockIdx.y * n + column] = sum;
}

// magnitude += the sum over the parts, in order, / norm.
extern "C" __global__ void dora_magnitude(const float* partial, const float* norm, float* magnitude, int parts, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float sum = 0;
    for (int p = 0; p < parts; p++) sum += partial[(i64)p * n + i];
    magnitude[i] += sum / norm[i];
}

#define DORA_RANKS 32

// norm = length of a row of w + s * b a, 1 for a row of zeros; scale = magnitude / norm. w [rows, n], b [rows, r], a [r, n]. A block has 16 rows, a thread V columns of each at a
// time: an element of a is read once for 16 products. With eight rows and one column a thread this took 50 ms of an H100 for the 224 weights of a 7B model, r 16.
template <int V, bool NF4> DEV void dora_rows(const StoredRows& x, const float* a, const float* b, float s, const float* magnitude, float* norm, float* scale, int rows, int n, int r)
{
    __shared__ float factors[DORA_RANKS][DORA_ROWS];
    __shared__ float code[16];
    int row0 = blockIdx.x * DORA_ROWS;
    if (NF4 && threadIdx.x < 16) code[threadIdx.x] = x.tables[threadIdx.x];
    float squares[DORA_ROWS] = {};
    for (int base = 0; base < n; base += 256 * V)
    {
        int i = base + threadIdx.x * V;
        float delta[DORA_ROWS][V] = {};
        for (int k0 = 0; k0 < r; k0 += DORA_RANKS)
        {
            if (base == 0 || r > DORA_RANKS)
            {
                __syncthreads();
                for (int t = threadIdx.x; t < DORA_RANKS * DORA_ROWS; t += 256)
                {
                    int k = k0 + t % DORA_RANKS, row = row0 + t / DORA_RANKS;
                    factors[t % DORA_RANKS][t / DORA_RANKS] = k < r && row < rows ? b[(i64)row * r + k] : 0.f;
                }
                __syncthreads();
            }
            if (i >= n) continue;
            for (int k = 0; k < DORA_RANKS && k0 + k < r; k++)
            {
                float v[V];
                const float* at = a + (i64)(k0 + k) * n + i;
                if (V == 4) { F4 f = *(const F4*)at; v[0] = f.x; v[V == 4 ? 1 : 0] = f.y; v[V == 4 ? 2 : 0] = f.z; v[V == 4 ? 3 : 0] = f.w; }
                else v[0] = *at;
#pragma unroll
                for (int j = 0; j < DORA_ROWS; j++)
#pragma unroll
                    for (int c = 0; c < V; c++) delta[j][c] += factors[k][j] * v[c];
            }
        }
        if (i >= n) continue;
#pragma unroll
        for (int j = 0; j < DORA_ROWS; j++)
        {
            if (row0 + j >= rows) break;
            i64 at = (i64)(row0 + j) * n + i;
            float v[V];
            if (NF4)
            {
                i64 e = x.first + at; // four neighbours lie in one block
                u32 two = *(const u16*)(x.codes + (e >> 1));
                float m = nf4_absmax(x.absmax, x.nested, x.offset, x.tables + TABLES_MAP, e >> x.shift);
                v[0] = __fmul_rn(code[(two >> 4) & 15], m); v[V == 4 ? 1 : 0] = __fmul_rn(code[two & 15], m);
                v[V == 4 ? 2 : 0] = __fmul_rn(code[(two >> 12) & 15], m); v[V == 4 ? 3 : 0] = __fmul_rn(code[(two >> 8) & 15], m);
            }
            else
#pragma unroll
                for (int c = 0; c < V; c++) v[c] = x.w[at + c];
#pragma unroll
            for (int c = 0; c < V; c++)
            {
                float value = v[c] + s * delta[j][c];
                squares[j] += value * value;
            }
        }
    }
#pragma unroll
    for (int j = 0; j < DORA_ROWS; j++)
    {
        float sum = block_sum(squares[j]);
        if (threadIdx.x != 0 || row0 + j >= rows) continue;
        float length = sum == 0.f ? 1.f : sqrtf(sum);
        norm[row0 + j] = length;
        scale[row0 + j] = magnitude[row0 + j] / length;
    }
}

#define DORA_SCALE(NAME, V, NF4) \
    extern "C" __global__ void __launch_bounds__(256) NAME(StoredRows x, const float* a, const float* b, float s, const float* magnitude, float* norm, float* scale, int rows, int n, int r) \
    { \
        dora_rows<V, NF4>(x, a, b, s, magnitude, norm, scale, rows, n, r); \
    }
DORA_SCALE(dora_scale, 1, false)
DORA_SCALE(dora_scale4, 4, false)
DORA_SCALE(dora_scale_nf4, 4, true)
