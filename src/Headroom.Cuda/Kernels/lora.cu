// LoRA products on tensor cores with the dropout mask made in registers: nothing dropped is ever stored.
// The sum index of a product may be permuted freely, so each lane owns eight consecutive elements of a row (16 bytes, one Philox
// block) and feeds them to two mma steps; the other operand is read in the same permutation. The ranks of two mma tiles are interleaved
// (see rank_of), so that a lane reads four of them at once.
#include "mma.cuh"
#include "lora.cuh"
#define LORA_WARPS (RANK > LORA_DOWN_FEW_ABOVE ? LORA_DOWN_FEW_WARPS : LORA_DOWN_WARPS)

// The rank that column i of mma tile t stands for: tiles come in pairs of 16 ranks, dealt two and two.
DEV int rank_of(int t, int i) { return (t >> 1) * 16 + (i >> 1) * 4 + (t & 1) * 2 + (i & 1); }

// Eight elements of N rows, 8 rows apart; zeros beyond the ends.
template <int N> DEV void down_rows(V4* v, const T* x, int ldx, int row, int rows, int k, int n)
{
#pragma unroll
    for (int i = 0; i < N; i++, row += 8)
    {
        v[i] = { 0, 0, 0, 0 };
        if (row < rows && k < n) v[i] = *(const V4*)(x + (i64)row * ldx + k);
    }
}

// y [rows, RANK] = scale * drop(x) M^T for COUNT projections of one x; M is [RANK, n], or [n, RANK] when transposed. A block takes RG * MT * 16
// rows, RG groups of its warps share the columns of MT * 16: few rows when the batch is small, so that every processor has a block; more when
// M's traffic would count (the groups read the same part of M at about the same time, from the first-level cache).
// Columns fill .. fillTo of x's rows, beside the tails, become zero: they meet zeros in the product, but must not be NaN.
template <int MT, int COUNT, int RG> DEV void down(const Part* parts, int rows, int fill, int fillTo)
{
    constexpr int share = LORA_WARPS / RG;
    T* x = parts[0].x;
    const int n = parts[0].n, ldx = parts[0].ldx;
    __shared__ float sums[LORA_WARPS][16 * RANK];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3, first0 = blockIdx.x * 16 * MT * RG, row0 = first0 + warp / share * 16 * MT;
    float acc[COUNT][MT][NT][4];
#pragma unroll
    for (int q = 0; q < COUNT; q++)
#pragma unroll
        for (int i = 0; i < MT; i++)
#pragma unroll
            for (int t = 0; t < NT; t++)
#pragma unroll
                for (int e = 0; e < 4; e++) acc[q][i][t][e] = 0;
    V4 v[2 * MT], next[2 * MT];
    int k0 = warp % share * 32;
    down_rows<2 * MT>(next, x, ldx, row0 + g, rows, k0 + c * 8, n);
#pragma unroll 1
    for (; k0 < n; k0 += share * 32)
    {
        int k = k0 + c * 8;
#pragma unroll
        for (int i = 0; i < 2 * MT; i++) v[i] = next[i];
        down_rows<2 * MT>(next, x, ldx, row0 + g, rows, k + share * 32, n);
#pragma unroll
        for (int q = 0; q < COUNT; q++)
        {
            const Part& p = parts[q];
            const float* __restrict__ m = p.m;
            u32 b[NT][4];
            if (p.transposed)
            {
#pragma unroll
                for (int j = 0; j < 4; j++)
#pragma unroll
                    for (int t = 0; t < NT; t += 2)
                    {
                        F4 f = *(const F4*)(m + (i64)(k0 + (g >> 1) * 8 + 2 * j + (g & 1)) * RANK + t * 8 + 4 * c);
                        b[t][j] = transpose8(pair(f.x, f.y));
                        b[t + 1][j] = transpose8(pair(f.z, f.w));
                    }
            }
            else
#pragma unroll
                for (int t = 0; t < NT; t++)
                {
                    const float* r = m + (i64)rank_of(t, g) * n + k;
                    F4 f = *(const F4*)r, h = *(const F4*)(r + 4);
                    b[t][0] = pair(f.x, f.y); b[t][1] = pair(f.z, f.w); b[t][2] = pair(h.x, h.y); b[t][3] = pair(h.z, h.w);
                }
#pragma unroll
            for (int i = 0; i < MT; i++)
            {
                V4 lo = v[2 * i], hi = v[2 * i + 1];
                if (p.drop)
                {
                    u64 at = (u64)(row0 + g + 16 * i) * n + k;
                    drop8(lo, at, p.mask);
                    drop8(hi, at + 8ull * n, p.mask);
                }
                u32 first[4] = { lo.x, hi.x, lo.y, hi.y }, second[4] = { lo.z, hi.z, lo.w, hi.w };
#pragma unroll
                for (int t = 0; t < NT; t++)
                {
                    mma16816(acc[q][i][t], first, b[t][0], b[t][1]);
                    mma16816(acc[q][i][t], second, b[t][2], b[t][3]);
                }
            }
        }
    }
#pragma unroll
    for (int q = 0; q < COUNT; q++)
#pragma unroll
        for (int i = 0; i < MT; i++)
        {
            const Part& p = parts[q];
            if (q + i > 0) __syncthreads();
#pragma unroll
            for (int t = 0; t < NT; t++)
#pragma unroll
                for (int e = 0; e < 4; e++) sums[warp][(g + (e >> 1) * 8) * RANK + rank_of(t, 2 * c + (e & 1))] = acc[q][i][t][e];
            __syncthreads();
            for (int at = threadIdx.x; at < RG * 16 * RANK; at += LORA_WARPS * 32)
            {
                int group = at / (16 * RANK), o = at % (16 * RANK);
                float s = 0;
#pragma unroll
                for (int w = 0; w < share; w++) s += sums[group * share + w][o]; // a fixed order
                int row = first0 + group * 16 * MT + i * 16 + o / RANK;
                if (row >= rows) continue;
                T value = make<T>(p.drop ? s * p.scale * p.mask.keep : s * p.scale);
                p.y[(i64)row * RANK + o % RANK] = value;
                if (p.tail >= 0) x[(i64)row * ldx + p.tail + o % RANK] = value;
            }
        }
    int width = fillTo - fill;
    if (width > 0 && blockIdx.y == 0)
        for (int o = threadIdx.x; o < 16 * MT * RG * width; o += LORA_WARPS * 32)
            if (first0 + o / width < rows) x[(i64)(first0 + o / width) * ldx + fill + o % width].u = 0;
}

#define DOWN(NAME, MT, COUNT, RG) \
    extern "C" __global__ void __launch_bounds__(LORA_WARPS * 32) NAME(const __grid_constant__ Parts parts, int rows, int fill, int fillTo) \
    { \
        down<MT, COUNT, RG>(parts.part + (COUNT > 1 ? 0 : blockIdx.y), rows, fill, fillTo); \
    }
DOWN(lora_down16, 1, 1, 1)
DOWN(lora_down32, 2, 1, 1)
DOWN(lora_down64, 2, 1, 2)
#if RANK == LORA_GROUP_RANK
// Two or three projections that read one x, for which it is loaded once.
DOWN(lora_down16_2, 1, 2, 1)
DOWN(lora_down32_2, 1, 2, 2)
DOWN(lora_down64_2, 2, 2, 2)
DOWN(lora_down16_3, 1, 3, 1)
DOWN(lora_down32_3, 1, 3, 2)
DOWN(lora_down64_3, 2, 3, 2)
#endif

// y [rows, n] += the sum over COUNT parts of mask * (scale * z M); M is [RANK, n], or [n, RANK] when transposed. A warp takes 32 columns and
// walks down span rows, 16 at a time: M stays in registers, the next rows of y are on their way while these are worked on.
template <int COUNT> DEV void up(const Part* parts, int rows, int span)
{
    constexpr bool hold = RANK == LORA_GROUP_RANK || COUNT == 1;
    T* y = parts[0].y;
    const int n = parts[0].n, ldy = parts[0].ldx;
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3, col0 = (blockIdx.x * LORA_UP_WARPS + warp) * 32;
    if (col0 >= n) return;
    u32 b[hold ? COUNT : 1][KS][4][2];
    if (hold)
#pragma unroll
        for (int q = 0; q < COUNT; q++) up_operand(parts[q], n, col0, g, c, b[q]);
    int start = blockIdx.y * span, end = start + span < rows ? start + span : rows;
    V4 next[2];
#pragma unroll
    for (int h = 0; h < 2; h++)
        if (start + g + h * 8 < end) next[h] = *(const V4*)(y + (i64)(start + g + h * 8) * ldy + col0 + c * 8);
#pragma unroll 1
    for (int tile = start; tile < end; tile += 16)
    {
        int row = tile + g;
        float v[2][8];
#pragma unroll
        for (int h = 0; h < 2; h++)
        {
            unpack2(T(), next[h].x, v[h][0], v[h][1]); unpack2(T(), next[h].y, v[h][2], v[h][3]); unpack2(T(), next[h].z, v[h][4], v[h][5]); unpack2(T(), next[h].w, v[h][6], v[h][7]);
        }
#pragma unroll
        for (int h = 0; h < 2; h++)
            if (row + 16 + h * 8 < end) next[h] = *(const V4*)(y + (i64)(row + 16 + h * 8) * ldy + col0 + c * 8);
#pragma unroll
        for (int q = 0; q < COUNT; q++)
        {
            const Part& p = parts[q];
            if (!hold) up_operand(p, n, col0, g, c, b[0]);
            u32 (*m)[4][2] = b[hold ? q : 0];
            float acc[4][4] = {};
#pragma unroll
            for (int s = 0; s < KS; s++)
            {
                const T* z = p.z + (i64)row * RANK + s * 16 + 2 * c;
                u32 a[4] = { 0, 0, 0, 0 };
                if (row < end) { a[0] = *(const u32*)z; a[2] = *(const u32*)(z + 8); }
                if (row + 8 < end) { a[1] = *(const u32*)(z + 8 * RANK); a[3] = *(const u32*)(z + 8 * RANK + 8); }
#pragma unroll
                for (int j = 0; j < 4; j++) mma16816(acc[j], a, m[s][j][0], m[s][j][1]);
            }
            const bool drop = p.drop != 0;
            const float scale = drop ? p.scale * p.mask.keep : p.scale;
#pragma unroll
            for (int h = 0; h < 2; h++)
            {
                u32 k[4] = { ~0u, ~0u, ~0u, ~0u };
                if (drop) mask_words(p.mask, ((u64)(row + 8 * h) * n + col0 + c * 8) >> 3, k);
#pragma unroll
                for (int j = 0; j < 8; j++)
                    if (k[j >> 1] & (j & 1 ? 0x80000000u : 0x8000u)) v[h][j] += acc[j >> 1][2 * h + (j & 1)] * scale;
            }
        }
#pragma unroll
        for (int h = 0; h < 2; h++)
            if (row + h * 8 < end)
                *(V4*)(y + (i64)(row + h * 8) * ldy + col0 + c * 8) = { pair(v[h][0], v[h][1]), pair(v[h][2], v[h][3]), pair(v[h][4], v[h][5]), pair(v[h][6], v[h][7]) };
    }
}

// Each part into its own y: blockIdx.z is the part.
extern "C" __global__ void __launch_bounds__(LORA_UP_WARPS * 32, 2) lora_up(const __grid_constant__ Parts parts, int rows, int span) { up<1>(parts.part + blockIdx.z, rows, span); }
// Two or three parts into one y, which is read and written once.
extern "C" __global__ void __launch_bounds__(LORA_UP_WARPS * 32, 2) lora_up2(const __grid_constant__ Parts parts, int rows, int span) { up<2>(parts.part, rows, span); }
extern "C" __global__ void __launch_bounds__(LORA_UP_WARPS * 32, 2) lora_up3(const __grid_constant__ Parts parts, int rows, int span) { up<3>(parts.part, rows, span); }

// The further columns of a gradient's rows, [rows, count * RANK] from x on, to count matrices [rows, RANK]: the dxa that came with the product.
extern "C" __global__ void lora_split(const __grid_constant__ Parts parts, int rows, int ld, int count)
{
    int each = RANK / 8, at = blockIdx.x * blockDim.x + threadIdx.x, row = at / (count * each), octet = at % (count * each);
    if (row >= rows) return;
    const Part& p = parts.part[octet / each];
    *(V4*)(p.y + (i64)row * RANK + octet % each * 8) = *(const V4*)(parts.part[0].x + (i64)row * ld + octet * 8);
}

// The other way round: count matrices z [rows, RANK] to the further columns of x's rows, [rows, octets * 8] from y on, zeros behind them.
extern "C" __global__ void lora_join(const __grid_constant__ Parts parts, int rows, int ld, int count, int octets)
{
    int each = RANK / 8, at = blockIdx.x * blockDim.x + threadIdx.x, row = at / octets, octet = at % octets;
    if (row >= rows) return;
    V4 v = {};
    if (octet < count * each) v = *(const V4*)(parts.part[octet / each].z + (i64)row * RANK + octet % each * 8);
    *(V4*)(parts.part[0].y + (i64)row * ld + octet * 8) = v;
}
