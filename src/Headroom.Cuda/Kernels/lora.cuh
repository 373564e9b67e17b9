// What the LoRA kernels share: operands, the mask of eight elements, tiles of z, partial sums.
#define NT (RANK / 8)
#define KS (RANK / 16)

// A launch's Parts are picked by a number known at run time: __grid_constant__ keeps them in constant memory, where a plain parameter would be
// copied to every thread's own memory first.

// Clears the dropped ones of eight packed elements; 1 / (1 - p) goes into the product's scale.
DEV void drop8(V4& v, u64 index, const Mask& mask)
{
    u32 k[4];
    mask_words(mask, index >> 3, k);
    v.x &= k[0]; v.y &= k[1]; v.z &= k[2]; v.w &= k[3];
}

// Where a 16-byte chunk of a row of z lies in a tile in shared memory, swizzled so that eight rows at one place lie in different banks.
DEV int z_at(int row, int chunk) { return row * (RANK * 2) + ((chunk ^ (row / (8 / NT) & (NT - 1))) << 4); }

// Reads past the first-level cache: another block wrote it.
DEV F4 load_other(const F4* p)
{
    F4 f;
    asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(f.x), "=f"(f.y), "=f"(f.z), "=f"(f.w) : "l"(p) : "memory");
    return f;
}

// Sums of the warps that share out the rows of 32 columns (number "columns" of them), blockIdx.y of gridDim.y: each leaves its own in partial; the last one adds them all up, in the order of
// their rows, and gets true. Its counter is zero again then.
template <int COUNT> DEV bool all_rows(float (*sum)[4][4], int columns, int lane, float* partial, u32* counters)
{
    if (gridDim.y == 1) return true;
    constexpr int each = COUNT * 4 * 32; // sums of a warp, four together
    F4* mine = (F4*)partial + ((i64)columns * gridDim.y + blockIdx.y) * each + lane;
    const F4* all = mine - (i64)blockIdx.y * each;
#pragma unroll
    for (int i = 0; i < COUNT * 4; i++) mine[i * 32] = { sum[i / 4][i % 4][0], sum[i / 4][i % 4][1], sum[i / 4][i % 4][2], sum[i / 4][i % 4][3] };
    __threadfence();
    __syncwarp();
    u32 before = lane == 0 ? atomicInc(counters + columns, gridDim.y - 1) : 0;
    if (__shfl_sync(0xFFFFFFFFu, before, 0) != gridDim.y - 1) return false;
    __threadfence();
#pragma unroll
    for (int i = 0; i < COUNT * 4; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) sum[i / 4][i % 4][e] = 0;
#pragma unroll 2
    for (int k = 0; k < (int)gridDim.y; k++)
#pragma unroll
        for (int i = 0; i < COUNT * 4; i++)
        {
            F4 f = load_other(all + (i64)k * each + i * 32);
            float* a = sum[i / 4][i % 4];
            a[0] += f.x; a[1] += f.y; a[2] += f.z; a[3] += f.w;
        }
    return true;
}

// out [RANK, n] += scale * a warp's sums: lane (g, c) has ranks g and g + 8 of the eight columns from col on.
DEV void add_ranks(float* out, int n, int g, int col, float scale, const float (*sum)[4])
{
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int i = 0; i < 2; i++)
        {
            F4 *to = (F4*)(out + (i64)(g + 8 * h) * n + col + 4 * i), f = *to;
            f.x += scale * sum[2 * i][2 * h]; f.y += scale * sum[2 * i][2 * h + 1]; f.z += scale * sum[2 * i + 1][2 * h]; f.w += scale * sum[2 * i + 1][2 * h + 1];
            *to = f;
        }
}

// The part's M as B fragments for the 32 columns from col0 on: lane (g, c) gets columns col0 + (g >> 1) * 8 + 2 j + (g & 1).
DEV void up_operand(const Part& p, int n, int col0, int g, int c, u32 (*b)[4][2])
{
    const float* __restrict__ m = p.m;
#pragma unroll
    for (int s = 0; s < KS; s++)
#pragma unroll
        for (int j = 0; j < 4; j++)
        {
            int col = col0 + (g >> 1) * 8 + 2 * j + (g & 1), k = s * 16 + 2 * c;
#pragma unroll
            for (int h = 0; h < 2; h++, k += 8)
            {
                float lo = p.transposed ? m[(i64)col * RANK + k] : m[(i64)k * n + col];
                float hi = p.transposed ? m[(i64)col * RANK + k + 1] : m[(i64)(k + 1) * n + col];
                b[s][j][h] = pair(lo, hi);
            }
        }
}
