// LoRA products on tensor cores with the dropout mask made in registers: nothing dropped is ever stored.
// The sum index of a product may be permuted freely, so each lane owns eight consecutive elements of a row (16 bytes, two Philox
// blocks) and feeds them to two mma steps; the other operand is read in the same permutation.
#define NT (RANK / 8)
#define KS (RANK / 16)
#define LORA_WARPS (RANK > 32 ? 8 : 16)

// Parameters are picked by a number known at run time: __grid_constant__ keeps them in constant memory, where a plain parameter would be
// copied to every thread's own memory first.
// One adapted projection's operands in a launch that serves several (q, k and v, or gate and up): fewer and fuller launches.
struct Part { const T* x; const float* m; const T* z; T* y; float* out; int n, transposed; float scale; int drop; Mask mask; };
struct Parts { Part part[6]; };

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

// Clears the dropped ones of eight packed elements; 1 / (1 - p) goes into the product's scale.
DEV void drop8(V4& v, u64 index, const Mask& mask)
{
    keep4(mask, index >> 2, v.x, v.y);
    keep4(mask, (index >> 2) + 1, v.z, v.w);
}

// y [rows, RANK] = scale * drop(x) M^T; M is [RANK, n], or [n, RANK] when transposed. A block takes MT * 16 rows, its warps share the
// columns: few rows when the batch is small, so that every processor has a block; more when M's traffic would count.
template <int MT> DEV void down(const Part& p, int rows)
{
    const T* __restrict__ x = p.x;
    const float* __restrict__ m = p.m;
    const int n = p.n, transposed = p.transposed, drop = p.drop;
    const float scale = p.scale;
    const Mask mask = p.mask;
    T* y = p.y;
    __shared__ float part[LORA_WARPS][16 * RANK];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3, row0 = blockIdx.x * 16 * MT;
    float acc[MT][NT][4];
#pragma unroll
    for (int i = 0; i < MT; i++)
#pragma unroll
        for (int t = 0; t < NT; t++)
#pragma unroll
            for (int e = 0; e < 4; e++) acc[i][t][e] = 0;
#pragma unroll 2
    for (int k0 = warp * 32; k0 < n; k0 += LORA_WARPS * 32)
    {
        int k = k0 + c * 8;
        V4 v[2 * MT];
#pragma unroll
        for (int i = 0; i < 2 * MT; i++)
        {
            int row = row0 + g + 8 * i;
            v[i] = { 0, 0, 0, 0 };
            if (row < rows) v[i] = *(const V4*)(x + (i64)row * n + k);
        }
        float b[NT][8];
#pragma unroll
        for (int t = 0; t < NT; t++)
        {
            if (transposed)
            {
#pragma unroll
                for (int j = 0; j < 8; j++) b[t][j] = m[(i64)(k + j) * RANK + t * 8 + g];
            }
            else load8(m + (i64)(t * 8 + g) * n + k, b[t]);
        }
        if (drop)
#pragma unroll
            for (int i = 0; i < 2 * MT; i++) drop8(v[i], (u64)(row0 + g + 8 * i) * n + k, mask);
#pragma unroll
        for (int t = 0; t < NT; t++)
        {
            u32 p0 = pack2(T(), b[t][0], b[t][1]), p1 = pack2(T(), b[t][2], b[t][3]), p2 = pack2(T(), b[t][4], b[t][5]), p3 = pack2(T(), b[t][6], b[t][7]);
#pragma unroll
            for (int i = 0; i < MT; i++)
            {
                u32 first[4] = { v[2 * i].x, v[2 * i + 1].x, v[2 * i].y, v[2 * i + 1].y }, second[4] = { v[2 * i].z, v[2 * i + 1].z, v[2 * i].w, v[2 * i + 1].w };
                mma16816(acc[i][t], first, p0, p1);
                mma16816(acc[i][t], second, p2, p3);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < MT; i++)
    {
        if (i > 0) __syncthreads();
#pragma unroll
        for (int t = 0; t < NT; t++)
#pragma unroll
            for (int e = 0; e < 4; e++) part[warp][(g + (e >> 1) * 8) * RANK + t * 8 + c * 2 + (e & 1)] = acc[i][t][e];
        __syncthreads();
        for (int o = threadIdx.x; o < 16 * RANK; o += LORA_WARPS * 32)
        {
            float s = 0;
#pragma unroll
            for (int w = 0; w < LORA_WARPS; w++) s += part[w][o]; // a fixed order
            int row = row0 + i * 16 + o / RANK;
            if (row < rows) from_f(drop ? s * scale * mask.keep : s * scale, y[(i64)row * RANK + o % RANK]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(LORA_WARPS * 32) lora_down16(const __grid_constant__ Parts parts, int rows)
{
    down<1>(parts.part[blockIdx.y], rows);
}

extern "C" __global__ void __launch_bounds__(LORA_WARPS * 32) lora_down32(const __grid_constant__ Parts parts, int rows)
{
    down<2>(parts.part[blockIdx.y], rows);
}

// y [rows, n] += mask * (scale * z M); M is [RANK, n], or [n, RANK] when transposed. A warp takes 32 columns and 64 rows, 16 rows at a time:
// the loop is kept rolled, because unrolled it took 240 registers and one block filled a processor (12 % occupancy, a third of the speed).
// With sum > 0 that many parts add to one y, which is read and written once; else blockIdx.z is the part.
extern "C" __global__ void __launch_bounds__(256, RANK > 16 ? 2 : 3) lora_up(const __grid_constant__ Parts parts, int rows, int sum)
{
    const Part& first = parts.part[sum > 0 ? 0 : blockIdx.z];
    T* y = first.y;
    const int n = first.n, count = sum > 0 ? sum : 1;
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3, col0 = (blockIdx.x * 8 + warp) * 32;
    if (col0 >= n) return;
    u32 b[KS][4][2];
#pragma unroll 1
    for (int tile = 0; tile < 4; tile++)
    {
        int row = blockIdx.y * 64 + tile * 16 + g;
        if (row - g >= rows) return;
        V4 old[2];
#pragma unroll
        for (int h = 0; h < 2; h++)
            if (row + h * 8 < rows) old[h] = *(const V4*)(y + (i64)(row + h * 8) * n + col0 + c * 8);
#pragma unroll 1
        for (int q = 0; q < count; q++)
        {
            const Part& part = parts.part[sum > 0 ? q : blockIdx.z];
            const float* __restrict__ m = part.m;
            if (tile == 0 || count > 1)
#pragma unroll
                for (int s = 0; s < KS; s++)
#pragma unroll
                    for (int j = 0; j < 4; j++)
                    {
                        int col = col0 + (g >> 1) * 8 + 2 * j + (g & 1), k = s * 16 + 2 * c;
#pragma unroll
                        for (int h = 0; h < 2; h++, k += 8)
                        {
                            float lo = part.transposed ? m[(i64)col * RANK + k] : m[(i64)k * n + col];
                            float hi = part.transposed ? m[(i64)col * RANK + k + 1] : m[(i64)(k + 1) * n + col];
                            b[s][j][h] = pack2(T(), lo, hi);
                        }
                    }
            float acc[4][4] = {};
#pragma unroll
            for (int s = 0; s < KS; s++)
            {
                const T* p = part.z + (i64)row * RANK + s * 16 + 2 * c;
                u32 a[4] = { 0, 0, 0, 0 };
                if (row < rows) { a[0] = *(const u32*)p; a[2] = *(const u32*)(p + 8); }
                if (row + 8 < rows) { a[1] = *(const u32*)(p + 8 * RANK); a[3] = *(const u32*)(p + 8 * RANK + 8); }
#pragma unroll
                for (int j = 0; j < 4; j++) mma16816(acc[j], a, b[s][j][0], b[s][j][1]);
            }
            const bool drop = part.drop != 0;
            const float scale = drop ? part.scale * part.mask.keep : part.scale;
            const u32 threshold = part.mask.threshold << 8;
#pragma unroll
            for (int h = 0; h < 2; h++)
            {
                u64 block = ((u64)(row + 8 * h) * n + col0 + c * 8) >> 2;
                u32 r[8];
                if (drop)
                {
                    philox((u32)block, (u32)(block >> 32), part.mask.site, part.mask.step, part.mask.key0, part.mask.key1, r);
                    philox((u32)(block + 1), (u32)((block + 1) >> 32), part.mask.site, part.mask.step, part.mask.key0, part.mask.key1, r + 4);
                }
                float v[8];
                unpack2(T(), old[h].x, v[0], v[1]); unpack2(T(), old[h].y, v[2], v[3]); unpack2(T(), old[h].z, v[4], v[5]); unpack2(T(), old[h].w, v[6], v[7]);
#pragma unroll
                for (int j = 0; j < 8; j++)
                    if (!drop || r[j] >= threshold) v[j] += acc[j >> 1][2 * h + (j & 1)] * scale;
                old[h].x = pack2(T(), v[0], v[1]); old[h].y = pack2(T(), v[2], v[3]); old[h].z = pack2(T(), v[4], v[5]); old[h].w = pack2(T(), v[6], v[7]);
            }
        }
#pragma unroll
        for (int h = 0; h < 2; h++)
            if (row + h * 8 < rows) *(V4*)(y + (i64)(row + h * 8) * n + col0 + c * 8) = old[h];
    }
}

// sum += scale * drop(x)^T z over the rows: [n, RANK] when transposed, else [RANK, n]. A block takes 32 columns, its warps share the rows;
// a lane has four columns (one Philox block) of four rows.
extern "C" __global__ void __launch_bounds__(LORA_WARPS * 32) lora_outer(const __grid_constant__ Parts parts, int rows)
{
    const Part& p = parts.part[blockIdx.y];
    const T* __restrict__ x = p.x;
    const T* __restrict__ z = p.z;
    const int n = p.n, transposed = p.transposed, drop = p.drop;
    const float scale = p.scale;
    const Mask mask = p.mask;
    float* out = p.out;
    if (blockIdx.x * 32 >= n) return;
    __shared__ float part[LORA_WARPS][16 * RANK];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3, col = blockIdx.x * 32 + g * 4;
    float acc[2][NT][4];
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int k = 0; k < NT; k++)
#pragma unroll
            for (int e = 0; e < 4; e++) acc[j][k][e] = 0;
#pragma unroll 2
    for (int t0 = warp * 16; t0 < rows; t0 += LORA_WARPS * 16)
    {
        V2 v[4];
        u32 b[NT][2];
#pragma unroll
        for (int i = 0; i < 4; i++)
        {
            int t = t0 + 2 * c + (i & 1) + (i >> 1) * 8;
            v[i] = { 0, 0 };
            if (t < rows) v[i] = *(const V2*)(x + (i64)t * n + col);
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
        if (drop)
#pragma unroll
            for (int i = 0; i < 4; i++)
                keep4(mask, ((u64)(t0 + 2 * c + (i & 1) + (i >> 1) * 8) * n + col) >> 2, v[i].x, v[i].y);
#pragma unroll
        for (int j = 0; j < 2; j++)
        {
            u32 w0 = j ? v[0].y : v[0].x, w1 = j ? v[1].y : v[1].x, w2 = j ? v[2].y : v[2].x, w3 = j ? v[3].y : v[3].x;
            u32 a[4] = { byte_perm(w0, w1, 0x5410), byte_perm(w0, w1, 0x7632), byte_perm(w2, w3, 0x5410), byte_perm(w2, w3, 0x7632) };
#pragma unroll
            for (int k = 0; k < NT; k++) mma16816(acc[j][k], a, b[k][0], b[k][1]);
        }
    }
#pragma unroll
    for (int j = 0; j < 2; j++)
    {
        if (j > 0) __syncthreads();
        // Row g of the tile is column 4 g + 2 j, row g + 8 the one after it.
#pragma unroll
        for (int k = 0; k < NT; k++)
#pragma unroll
            for (int e = 0; e < 4; e++) part[warp][(g * 2 + (e >> 1)) * RANK + k * 8 + c * 2 + (e & 1)] = acc[j][k][e];
        __syncthreads();
        for (int o = threadIdx.x; o < 16 * RANK; o += LORA_WARPS * 32)
        {
            float s = 0;
#pragma unroll
            for (int w = 0; w < LORA_WARPS; w++) s += part[w][o]; // a fixed order
            int row = o / RANK;
            if (drop) s *= mask.keep;
            i64 at = blockIdx.x * 32 + (row >> 1) * 4 + 2 * j + (row & 1);
            if (transposed) out[at * RANK + o % RANK] += scale * s;
            else out[(i64)(o % RANK) * n + at] += scale * s;
        }
    }
}
