// Gradients of the adapters: sums over all rows of an outer product, [n, RANK] or [RANK, n]. Bound by reading x once, so everything serves that:
// a block takes 256 columns (rows of 512 contiguous bytes) of a share of the rows, through a ring of shared tiles filled by asynchronous copies.
#include "mma.cuh"
#include "lora.cuh"
#define WIDTH LORA_OUTER_COLUMNS // of a block: 32 for each of its eight warps
#define TILE LORA_OUTER_ROWS     // rows of a tile
#define SLOTS LORA_OUTER_SLOTS

// 16-byte chunks of a tile of x, swizzled as z_at.
DEV int x_at(int row, int chunk) { return row * (WIDTH * 2) + ((chunk ^ (row & 7)) << 4); }

// sum += scale * drop(x)^T z over the rows: [n, RANK] when transposed, else [RANK, n]. Blocks of one part and 256 columns leave their sums in
// partial; the one that ends last adds them up, in the order of their rows. Its counter is zero again then.
extern "C" __global__ void __launch_bounds__(WIDTH) lora_outer(const __grid_constant__ Parts parts, int rows, int share, float* partial, u32* counters)
{
    extern __shared__ V4 memory[];
    __shared__ int last;
    const Part& p = parts.part[blockIdx.x];
    const int n = p.n, ldx = p.ldx, col0 = blockIdx.y * WIDTH;
    if (col0 >= n) return;
    const T *x = p.x, *z = p.z;
    const bool drop = p.drop != 0;
    const int size = TILE * WIDTH * 2 + TILE * RANK * 2, zAt = TILE * WIDTH * 2;
    u8* local = (u8*)memory;
    u32 base = shared_address(memory);
    int tid = threadIdx.x, warp = tid >> 5, lane = tid & 31, first = blockIdx.z * share, end = first + share < rows ? first + share : rows;
    int steps = (end - first + TILE - 1) / TILE, chunk = tid & 31, column = col0 + chunk * 8;
    auto load = [&](int step)
    {
        u32 slot = base + step % SLOTS * size;
        int row0 = first + step * TILE;
#pragma unroll
        for (int i = 0; i < TILE / 8; i++)
        {
            int row = warp + i * 8;
            bool there = row0 + row < end && column < n;
            copy_async(slot + x_at(row, chunk), x + (there ? (i64)(row0 + row) * ldx + column : 0), there);
        }
        if (tid < TILE * NT)
        {
            int row = tid / NT, part = tid % NT;
            bool there = row0 + row < end;
            copy_async(slot + zAt + z_at(row, part), z + (there ? (i64)(row0 + row) * RANK + part * 8 : 0), there);
        }
    };
    float acc[2][NT][4];
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int t = 0; t < NT; t++)
#pragma unroll
            for (int e = 0; e < 4; e++) acc[m][t][e] = 0;
    for (int s = 0; s < SLOTS - 1; s++)
    {
        if (s < steps) load(s);
        commit();
    }
    for (int s = 0; s < steps; s++)
    {
        wait_async<SLOTS - 2>();
        int slot = s % SLOTS * size;
        if (drop) // every thread masks what it copied itself
#pragma unroll
            for (int i = 0; i < TILE / 8; i++)
            {
                int row = warp + i * 8;
                V4* v = (V4*)(local + slot + x_at(row, chunk));
                V4 w = *v;
                drop8(w, (u64)(first + s * TILE + row) * n + column, p.mask);
                *v = w;
            }
        __syncthreads(); // the tile is whole, and the one before has been read by all
        if (s + SLOTS - 1 < steps) load(s + SLOTS - 1);
        commit();
#pragma unroll
        for (int k = 0; k < TILE; k += 16)
        {
            u32 b[NT][2];
#pragma unroll
            for (int t = 0; t < NT; t += 2) ldmatrix_t(b[t], base + slot + zAt + z_at(k + (lane >> 3 & 1) * 8 + (lane & 7), t + (lane >> 4)));
#pragma unroll
            for (int m = 0; m < 2; m++)
            {
                u32 a[4];
                ldmatrix_t(a, base + slot + x_at(k + (lane >> 4) * 8 + (lane & 7), warp * 4 + m * 2 + (lane >> 3 & 1)));
#pragma unroll
                for (int t = 0; t < NT; t++) mma16816(acc[m][t], a, b[t][0], b[t][1]);
            }
        }
    }
    if (gridDim.z > 1)
    {
        const int each = 2 * NT * WIDTH; // sums of a block, four together
        F4* mine = (F4*)partial + (((i64)blockIdx.x * gridDim.y + blockIdx.y) * gridDim.z + blockIdx.z) * each + tid;
        const F4* all = mine - (i64)blockIdx.z * each;
#pragma unroll
        for (int i = 0; i < 2 * NT; i++) mine[i * WIDTH] = { acc[i / NT][i % NT][0], acc[i / NT][i % NT][1], acc[i / NT][i % NT][2], acc[i / NT][i % NT][3] };
        __threadfence();
        __syncthreads();
        if (tid == 0) last = atomicInc(counters + blockIdx.x * gridDim.y + blockIdx.y, gridDim.z - 1) == gridDim.z - 1;
        __syncthreads();
        if (!last) return;
        __threadfence();
#pragma unroll
        for (int i = 0; i < 2 * NT; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) acc[i / NT][i % NT][e] = 0;
#if RANK == 16 // many loads at a time: one block reads them all
#pragma unroll 6
#else
#pragma unroll 1
#endif
        for (int b = 0; b < (int)gridDim.z; b++)
#pragma unroll
            for (int i = 0; i < 2 * NT; i++)
            {
                F4 s = load_other(all + (i64)b * each + i * WIDTH);
                float* a = acc[i / NT][i % NT];
                a[0] += s.x; a[1] += s.y; a[2] += s.z; a[3] += s.w;
            }
    }
    float scale = drop ? p.scale * p.mask.keep : p.scale;
#pragma unroll
    for (int i = 0; i < 8 * NT; i++)
    {
        int e = i % 4, col = col0 + warp * 32 + i / (4 * NT) * 16 + (e >> 1) * 8 + (lane >> 2), rank = i / 4 % NT * 8 + (lane & 3) * 2 + (e & 1);
        if (col >= n) continue;
        float* out = p.transposed ? p.out + (i64)col * RANK + rank : p.out + (i64)rank * n + col;
        *out += scale * acc[i / (4 * NT)][i / 4 % NT][e];
    }
}
