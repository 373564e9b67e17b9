// LoRA products on tensor cores with the dropout mask made in registers: nothing dropped is ever stored.
// The sum index of a product may be permuted freely, so each lane owns eight consecutive elements of a row (16 bytes, two Philox
// blocks) and feeds them to two mma steps; the other operand is read in the same permutation.
#define NT (RANK / 8)
#define KS (RANK / 16)
#define LORA_WARPS (RANK > 32 ? 8 : 16)

DEV void mma16816(float* c, const u32* a, u32 b0, u32 b1)
{
#if ACT == 1
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#endif
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

DEV u32 byte_perm(u32 a, u32 b, u32 s)
{
    u32 r;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(s));
    return r;
}

// Eight elements from a row, zero beyond the last row, dropped when asked; index is the element's number in the whole matrix.
DEV V4 load_dropped(const T* x, bool inside, u64 index, int drop, const Mask& mask)
{
    V4 v = { 0, 0, 0, 0 };
    if (!inside) return v;
    v = *(const V4*)(x + index);
    if (!drop) return v;
    float a[8], f[8];
    unpack2(T(), v.x, a[0], a[1]); unpack2(T(), v.y, a[2], a[3]); unpack2(T(), v.z, a[4], a[5]); unpack2(T(), v.w, a[6], a[7]);
    mask4(mask, index >> 2, f);
    mask4(mask, (index >> 2) + 1, f + 4);
    v.x = pack2(T(), a[0] * f[0], a[1] * f[1]); v.y = pack2(T(), a[2] * f[2], a[3] * f[3]);
    v.z = pack2(T(), a[4] * f[4], a[5] * f[5]); v.w = pack2(T(), a[6] * f[6], a[7] * f[7]);
    return v;
}

// y [rows, RANK] = scale * drop(x) M^T; M is [RANK, n], or [n, RANK] when transposed. A block takes 32 rows, its warps share the columns.
extern "C" __global__ void __launch_bounds__(LORA_WARPS * 32) lora_down(const T* x, const float* m, int transposed, int rows, int n, float scale, int drop, Mask mask, T* y)
{
    __shared__ float sum[32 * RANK];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3, row0 = blockIdx.x * 32;
    float acc[2][NT][4];
#pragma unroll
    for (int i = 0; i < 2 * NT * 4; i++) (&acc[0][0][0])[i] = 0;
    for (int k0 = warp * 32; k0 < n; k0 += LORA_WARPS * 32)
    {
        int k = k0 + c * 8;
        V4 v[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
        {
            int row = row0 + g + 8 * i;
            v[i] = load_dropped(x, row < rows, (u64)row * n + k, drop, mask);
        }
#pragma unroll
        for (int t = 0; t < NT; t++)
        {
            float b[8];
            if (transposed)
            {
#pragma unroll
                for (int j = 0; j < 8; j++) b[j] = m[(i64)(k + j) * RANK + t * 8 + g];
            }
            else load8(m + (i64)(t * 8 + g) * n + k, b);
            u32 p0 = pack2(T(), b[0], b[1]), p1 = pack2(T(), b[2], b[3]), p2 = pack2(T(), b[4], b[5]), p3 = pack2(T(), b[6], b[7]);
#pragma unroll
            for (int i = 0; i < 2; i++)
            {
                u32 first[4] = { v[2 * i].x, v[2 * i + 1].x, v[2 * i].y, v[2 * i + 1].y }, second[4] = { v[2 * i].z, v[2 * i + 1].z, v[2 * i].w, v[2 * i + 1].w };
                mma16816(acc[i][t], first, p0, p1);
                mma16816(acc[i][t], second, p2, p3);
            }
        }
    }
    // Warps add their part one after another: a fixed order.
    for (int w = 0; w < LORA_WARPS; w++)
    {
        if (warp == w)
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int t = 0; t < NT; t++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                    {
                        float* at = sum + (i * 16 + g + (e >> 1) * 8) * RANK + t * 8 + c * 2 + (e & 1);
                        *at = w == 0 ? acc[i][t][e] : *at + acc[i][t][e];
                    }
        __syncthreads();
    }
    for (int i = threadIdx.x; i < 32 * RANK; i += blockDim.x)
        if (row0 + i / RANK < rows) from_f(sum[i] * scale, y[(i64)row0 * RANK + i]);
}

// y [rows, n] += mask * (scale * z M); M is [RANK, n], or [n, RANK] when transposed. A warp takes 32 columns and 64 rows.
extern "C" __global__ void __launch_bounds__(256) lora_up(const T* z, const float* m, int transposed, int rows, int n, float scale, int drop, Mask mask, T* y)
{
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3, col0 = (blockIdx.x * 8 + warp) * 32;
    if (col0 >= n) return;
    u32 b[KS][4][2];
#pragma unroll
    for (int s = 0; s < KS; s++)
#pragma unroll
        for (int j = 0; j < 4; j++)
        {
            int col = col0 + (g >> 1) * 8 + 2 * j + (g & 1), k = s * 16 + 2 * c;
#pragma unroll
            for (int h = 0; h < 2; h++, k += 8)
            {
                float lo = transposed ? m[(i64)col * RANK + k] : m[(i64)k * n + col], hi = transposed ? m[(i64)col * RANK + k + 1] : m[(i64)(k + 1) * n + col];
                b[s][j][h] = pack2(T(), lo, hi);
            }
        }
    for (int tile = 0; tile < 4; tile++)
    {
        int row = blockIdx.y * 64 + tile * 16 + g;
        if (row - g >= rows) return;
        float acc[4][4];
#pragma unroll
        for (int i = 0; i < 16; i++) (&acc[0][0])[i] = 0;
#pragma unroll
        for (int s = 0; s < KS; s++)
        {
            const T* p = z + (i64)row * RANK + s * 16 + 2 * c;
            u32 a[4] = { 0, 0, 0, 0 };
            if (row < rows) { a[0] = *(const u32*)p; a[2] = *(const u32*)(p + 8); }
            if (row + 8 < rows) { a[1] = *(const u32*)(p + 8 * RANK); a[3] = *(const u32*)(p + 8 * RANK + 8); }
#pragma unroll
            for (int j = 0; j < 4; j++) mma16816(acc[j], a, b[s][j][0], b[s][j][1]);
        }
#pragma unroll
        for (int h = 0; h < 2; h++)
        {
            int r = row + 8 * h;
            if (r >= rows) continue;
            u64 index = (u64)r * n + col0 + c * 8;
            float f[8], v[8];
            load8(y + index, v);
            if (drop)
            {
                mask4(mask, index >> 2, f);
                mask4(mask, (index >> 2) + 1, f + 4);
            }
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int e = 0; e < 2; e++)
                {
                    float u = acc[j][2 * h + e] * scale;
                    v[2 * j + e] += drop ? u * f[2 * j + e] : u;
                }
            store8(y + index, v);
        }
    }
}

// sum += scale * drop(x)^T z over the rows: [n, RANK] when transposed, else [RANK, n]. A block takes 64 columns, its warps share the rows.
extern "C" __global__ void __launch_bounds__(LORA_WARPS * 32) lora_outer(const T* x, const T* z, int transposed, int rows, int n, float scale, int drop, Mask mask, float* out)
{
    __shared__ float sum[64 * (RANK + 1)];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3, col = blockIdx.x * 64 + g * 8;
    float acc[4][NT][4];
#pragma unroll
    for (int i = 0; i < 4 * NT * 4; i++) (&acc[0][0][0])[i] = 0;
    for (int t0 = warp * 16; t0 < rows; t0 += LORA_WARPS * 16)
    {
        V4 v[4];
        u32 b[NT][2];
#pragma unroll
        for (int i = 0; i < 4; i++)
        {
            int t = t0 + 2 * c + (i & 1) + (i >> 1) * 8;
            v[i] = load_dropped(x, t < rows, (u64)t * n + col, drop, mask);
        }
#pragma unroll
        for (int k = 0; k < NT; k++)
#pragma unroll
            for (int h = 0; h < 2; h++)
            {
                int t = t0 + 2 * c + h * 8;
                u32 lo = t < rows ? z[(i64)t * RANK + k * 8 + g].u : 0, hi = t + 1 < rows ? z[(i64)(t + 1) * RANK + k * 8 + g].u : 0;
                b[k][h] = lo | (hi << 16);
            }
#pragma unroll
        for (int j = 0; j < 4; j++)
        {
            u32 w0 = (&v[0].x)[j], w1 = (&v[1].x)[j], w2 = (&v[2].x)[j], w3 = (&v[3].x)[j];
            u32 a[4] = { byte_perm(w0, w1, 0x5410), byte_perm(w0, w1, 0x7632), byte_perm(w2, w3, 0x5410), byte_perm(w2, w3, 0x7632) };
#pragma unroll
            for (int k = 0; k < NT; k++) mma16816(acc[j][k], a, b[k][0], b[k][1]);
        }
    }
    for (int w = 0; w < LORA_WARPS; w++)
    {
        if (warp == w)
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int k = 0; k < NT; k++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                    {
                        float* at = sum + (g * 8 + 2 * j + (e >> 1)) * (RANK + 1) + k * 8 + c * 2 + (e & 1);
                        *at = w == 0 ? acc[j][k][e] : *at + acc[j][k][e];
                    }
        __syncthreads();
    }
    i64 col0 = (i64)blockIdx.x * 64;
    for (int i = threadIdx.x; i < 64 * RANK; i += blockDim.x)
    {
        if (transposed) out[(col0 + i / RANK) * RANK + i % RANK] += scale * sum[(i / RANK) * (RANK + 1) + i % RANK];
        else out[(i64)(i / 64) * n + col0 + i % 64] += scale * sum[(i % 64) * (RANK + 1) + i / 64];
    }
}
