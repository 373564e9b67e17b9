// Both gradients that a group's adapters give at their common x, in one pass over its rows: of every A, and what dx takes. Apart, each draws every
// dropout mask, and the integer work of that takes longer than the bytes; here a mask is drawn once, and x and dx go through the card once.
// A warp takes 32 columns and walks down a share of the rows, 16 at a time, through a ring of its own in shared memory, so no warp waits for another. As in
// lora.cu a lane owns eight consecutive elements of a row: the mask it draws serves dx as it lies, and the masked x as the transposed operand.
#include "mma.cuh"
#include "lora.cuh"
#define WARPS LORA_WALK_WARPS
#define ROWS LORA_WALK_ROWS
#define SLOTS LORA_WALK_SLOTS
#define BYTES LORA_WALK_BYTES // of ROWS rows of 32 columns

// For each of COUNT parts dA [RANK, n] += scale * z^T drop(x) and dx [rows, n] += drop(scale * z A); y is dx. Where a part has a tail, its z are columns
// of dx from there on and go to z, which is only written then. A warp leaves its sums for dA in partial; see lora.cuh.
template <int COUNT> DEV void backward(const Part* parts, int rows, int share, int ldy, float* partial, u32* counters)
{
    constexpr int zBytes = ROWS * RANK * 2, zAt = 2 * BYTES, slotBytes = zAt + COUNT * zBytes; // rows of dx, of x, of each z
    extern __shared__ V4 memory[];
    const int n = parts[0].n, ldx = parts[0].ldx;
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3, col0 = (blockIdx.x * WARPS + warp) * 32, col = col0 + c * 8;
    if (col0 >= n) return;
    const T* x = parts[0].x;
    T* y = parts[0].y;
    const bool tail = parts[0].tail >= 0;
    const int ldz = tail ? ldy : RANK, zRow = lane >> 1, zChunk = lane & 1;
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
            copy_async(slot + h * 512 + lane * 16, y + r * ldy + col, there);
            copy_async(slot + BYTES + h * 512 + lane * 16, x + r * ldx + col, there);
        }
        bool there = row + zRow < end;
        i64 at = (i64)(there ? row + zRow : 0) * ldz + zChunk * 8;
#pragma unroll
        for (int q = 0; q < COUNT; q++) copy_async(slot + zAt + q * zBytes + z_at(zRow, zChunk), (tail ? y + parts[q].tail : parts[q].z) + at, there);
    };
    for (int s = 0; s < SLOTS - 1; s++)
    {
        if (s < steps) load(s);
        commit();
    }
    u32 b[COUNT][KS][4][2];
    float sum[COUNT][4][4];
#pragma unroll
    for (int q = 0; q < COUNT; q++)
    {
        up_operand(parts[q], n, col0, g, c, b[q]);
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) sum[q][j][e] = 0;
    }
#pragma unroll 1
    for (int s = 0; s < steps; s++)
    {
        wait_async<SLOTS - 2>();
        __syncwarp(); // z is whole, and the tile before has been read by all lanes
        if (s + SLOTS - 1 < steps) load(s + SLOTS - 1);
        commit();
        int slot = s % SLOTS * slotBytes, row0 = start + s * ROWS, row = row0 + g;
        if (tail && col0 == 0 && row0 + zRow < end)
#pragma unroll
            for (int q = 0; q < COUNT; q++)
                *(V4*)((T*)parts[q].z + (i64)(row0 + zRow) * RANK + zChunk * 8) = *(const V4*)(local + slot + zAt + q * zBytes + z_at(zRow, zChunk));
        float v[2][8];
        u32 w[2][4];
#pragma unroll
        for (int h = 0; h < 2; h++)
        {
            load8((const T*)(local + slot + h * 512 + lane * 16), v[h]);
            V4 t = *(const V4*)(local + slot + BYTES + h * 512 + lane * 16);
            w[h][0] = t.x; w[h][1] = t.y; w[h][2] = t.z; w[h][3] = t.w;
        }
#pragma unroll
        for (int q = 0; q < COUNT; q++)
        {
            const Part& p = parts[q];
            u32 z = base + slot + zAt + q * zBytes, a[4], at[4];
            ldmatrix(a, z + z_at((lane >> 3 & 1) * 8 + (lane & 7), lane >> 4));
            ldmatrix_t(at, z + z_at((lane >> 4) * 8 + (lane & 7), lane >> 3 & 1));
            float acc[4][4] = {};
#pragma unroll
            for (int j = 0; j < 4; j++) mma16816(acc[j], a, b[q][0][j][0], b[q][0][j][1]);
            const bool drop = p.drop != 0;
            const float scale = drop ? p.scale * p.mask.keep : p.scale;
            u32 m[2][4];
#pragma unroll
            for (int h = 0; h < 2; h++)
            {
                u32 k[4] = { ~0u, ~0u, ~0u, ~0u };
                if (drop) mask_words(p.mask, ((u64)(row + 8 * h) * n + col) >> 3, k);
#pragma unroll
                for (int j = 0; j < 8; j++)
                    if (k[j >> 1] & (j & 1 ? 0x80000000u : 0x8000u)) v[h][j] += acc[j >> 1][2 * h + (j & 1)] * scale;
#pragma unroll
                for (int j = 0; j < 4; j++) m[h][j] = transpose8(w[h][j] & k[j]);
            }
#pragma unroll
            for (int j = 0; j < 4; j++) mma16816(sum[q][j], at, m[0][j], m[1][j]);
        }
#pragma unroll
        for (int h = 0; h < 2; h++)
            if (row + h * 8 < end)
                *(V4*)(y + (i64)(row + h * 8) * ldy + col) = { pair(v[h][0], v[h][1]), pair(v[h][2], v[h][3]), pair(v[h][4], v[h][5]), pair(v[h][6], v[h][7]) };
    }
    if (!all_rows<COUNT>(sum, col0 >> 5, lane, partial, counters)) return;
#pragma unroll
    for (int q = 0; q < COUNT; q++) add_ranks(parts[q].out, n, g, col, parts[q].drop ? parts[q].scale * parts[q].mask.keep : parts[q].scale, sum[q]);
}

#if RANK == LORA_GROUP_RANK
// At the end of the name how many parts.
#define BACKWARD(COUNT) \
    extern "C" __global__ void __launch_bounds__(WARPS * 32, LORA_BACKWARD_BLOCKS - COUNT) lora_backward##COUNT(const __grid_constant__ Parts parts, int rows, int share, int ldy, float* partial, u32* counters) \
    { \
        backward<COUNT>(parts.part, rows, share, ldy, partial, counters); \
    }
BACKWARD(1)
BACKWARD(2)
BACKWARD(3)
#endif
