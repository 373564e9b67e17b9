// SwiGLU's gradient, and all that the adapters around it want of the same elements, in one pass over the rows: what down's adapter adds to the gradient of
// act = silu(gate) * up, the gradient of its A, which reads act, and those of B of gate and up, which read the gradients that come out. Apart, that is four launches that move
// 900 bytes for every 450 that this one moves, and a mask drawn twice. Rows and columns go as in lora_backward.cu: a warp takes 32 columns and walks down
// a share of the rows, 16 at a time, through a ring of its own in shared memory; a lane owns eight consecutive elements of a row.
#include "mma.cuh"
#include "lora.cuh"
#include "swiglu.cuh"
#define WARPS LORA_WALK_WARPS
#define ROWS LORA_WALK_ROWS
#define SLOTS LORA_WALK_SLOTS
#define BYTES LORA_WALK_BYTES // of ROWS rows of 32 columns

#if RANK == LORA_GROUP_RANK
// Part 0 is down's: x [rows, n] the gradient of act without its adapter's share, rows ldx apart; m its A [RANK, n]; z its dxa, or columns of x from tail on; out the gradient of A.
// Parts 1 and 2 are gate's and up's: y [rows, n] what they gave, which becomes its gradient; z their xa; out the gradient [n, RANK] of B. x is only read.
// out += scale * sums over the rows. A warp leaves its sums in partial; see lora.cuh.
extern "C" __global__ void __launch_bounds__(WARPS * 32, LORA_SWIGLU_BLOCKS) lora_swiglu(const __grid_constant__ Parts parts, int rows, int share, float* partial, u32* counters)
{
    constexpr int zBytes = ROWS * RANK * 2, zAt = 3 * BYTES, slotBytes = zAt + 3 * zBytes; // rows of gate, up and x, of each z
    extern __shared__ V4 memory[];
    const Part& p = parts.part[0];
    const int n = p.n, ldx = p.ldx;
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3, col0 = (blockIdx.x * WARPS + warp) * 32, col = col0 + c * 8;
    if (col0 >= n) return;
    const T* x = p.x;
    T *gate = parts.part[1].y, *up = parts.part[2].y;
    const T* z[3] = { p.tail >= 0 ? x + p.tail : p.z, parts.part[1].z, parts.part[2].z };
    const int ldz = p.tail >= 0 ? ldx : RANK, zRow = lane >> 1, zChunk = lane & 1;
    u8* local = (u8*)memory + warp * (SLOTS * slotBytes);
    u32 base = shared_address(local);
    int start = blockIdx.y * share, end = start + share < rows ? start + share : rows, steps = (end - start + ROWS - 1) / ROWS;
    auto load = [&](int step)
    {
        u32 slot = base + step % SLOTS * slotBytes;
        int row = start + step * ROWS;
#pragma unroll
        for (int h = 0; h < 2; h++) // every lane copies what it reads itself
        {
            bool there = row + g + h * 8 < end;
            i64 r = there ? row + g + h * 8 : 0;
            u32 to = slot + h * 512 + lane * 16;
            copy_async(to, gate + r * n + col, there);
            copy_async(to + BYTES, up + r * n + col, there);
            copy_async(to + 2 * BYTES, x + r * ldx + col, there);
        }
        bool there = row + zRow < end;
        i64 r = there ? row + zRow : 0;
#pragma unroll
        for (int q = 0; q < 3; q++) copy_async(slot + zAt + q * zBytes + z_at(zRow, zChunk), z[q] + r * (q ? RANK : ldz) + zChunk * 8, there);
    };
    for (int s = 0; s < SLOTS - 1; s++)
    {
        if (s < steps) load(s);
        commit();
    }
    u32 b[1][4][2];
    up_operand(p, n, col0, g, c, b);
    const bool drop = p.drop != 0;
    const float keep = drop ? p.mask.keep : 1.f;
    float sum[3][4][4] = {};
#pragma unroll 1
    for (int s = 0; s < steps; s++)
    {
        wait_async<SLOTS - 2>();
        __syncwarp(); // every z is whole, and the tile before has been read by all lanes
        if (s + SLOTS - 1 < steps) load(s + SLOTS - 1);
        commit();
        int slot = s % SLOTS * slotBytes, row = start + s * ROWS + g;
        u32 a[4], t[3][2][4];
        ldmatrix(a, base + slot + zAt + z_at((lane >> 3 & 1) * 8 + (lane & 7), lane >> 4));
        float acc[4][4] = {};
#pragma unroll
        for (int j = 0; j < 4; j++) mma16816(acc[j], a, b[0][j][0], b[0][j][1]);
#pragma unroll
        for (int h = 0; h < 2; h++)
        {
            const u8* at = local + slot + h * 512 + lane * 16;
            float v[8], w[8], d[8];
            load8((const T*)at, v); load8((const T*)(at + BYTES), w); load8((const T*)(at + 2 * BYTES), d);
            u32 k[4] = { ~0u, ~0u, ~0u, ~0u };
            if (drop) mask_words(p.mask, ((u64)(row + 8 * h) * n + col) >> 3, k);
#pragma unroll
            for (int j = 0; j < 8; j++)
            {
                if (k[j >> 1] & (j & 1 ? 0x80000000u : 0x8000u)) d[j] += acc[j >> 1][2 * h + (j & 1)] * keep;
                swiglu_grad(v[j], w[j], d[j], v[j], w[j], d[j]);
            }
            V4 dGate = { pair(v[0], v[1]), pair(v[2], v[3]), pair(v[4], v[5]), pair(v[6], v[7]) }, dUp = { pair(w[0], w[1]), pair(w[2], w[3]), pair(w[4], w[5]), pair(w[6], w[7]) };
            if (row + h * 8 < end)
            {
                *(V4*)(gate + (i64)(row + h * 8) * n + col) = dGate;
                *(V4*)(up + (i64)(row + h * 8) * n + col) = dUp;
            }
            u32 words[3][4] = { { pair(d[0], d[1]) & k[0], pair(d[2], d[3]) & k[1], pair(d[4], d[5]) & k[2], pair(d[6], d[7]) & k[3] },
                { dGate.x, dGate.y, dGate.z, dGate.w }, { dUp.x, dUp.y, dUp.z, dUp.w } };
#pragma unroll
            for (int q = 0; q < 3; q++)
#pragma unroll
                for (int j = 0; j < 4; j++) t[q][h][j] = transpose8(words[q][j]);
        }
#pragma unroll
        for (int q = 0; q < 3; q++)
        {
            u32 zt[4];
            ldmatrix_t(zt, base + slot + zAt + q * zBytes + z_at((lane >> 4) * 8 + (lane & 7), lane >> 3 & 1));
#pragma unroll
            for (int j = 0; j < 4; j++) mma16816(sum[q][j], zt, t[q][0][j], t[q][1][j]);
        }
    }
    if (!all_rows<3>(sum, col0 >> 5, lane, partial, counters)) return;
    add_ranks(p.out, n, g, col, p.scale * keep, sum[0]);
#pragma unroll
    for (int q = 1; q < 3; q++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) parts.part[q].out[(i64)(col + 2 * j + (e & 1)) * RANK + g + (e >> 1) * 8] += parts.part[q].scale * sum[q][j][e];
}
#endif
