// Flash attention for Hopper (compute capability 9.0, compiled for sm_90a): the math and the contract of flash.cu (causal, packed sequences,
// grouped queries, sliding window, head sizes 64 and 128, 16-bit T, nothing added in arrival order) on warpgroup products.
// A block is two consumer warpgroups of 64 rows each and one producer, whose one thread keeps a ring of shared tiles full by bulk tensor
// copies; mbarriers say full and empty. Scores, probabilities and their gradients stay in registers: the transposed scores of the key
// kernel are the left operand of its second products as they come.
#include "mma.cuh"
#include "hopper.cuh"
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
extern "C" __global__ void __launch_bounds__(HOPPER_THREADS, 1) flash_hopper_forward(const __grid_constant__ TensorMap mq, const __grid_constant__ TensorMap mk,
    const __grid_constant__ TensorMap mv, const int* offsets, int sequences, int tiles, int heads, int kvHeads, int window, float scale, T* o, i64 ldo, float* lse)
{
    extern __shared__ V4 memory[];
    __shared__ u64 bars[SLOTS * 2 + 1];
    Place at;
    if (!find_place(offsets, sequences, tiles, heads, blockIdx.x, true, at)) return;
    const int size = KEYS * HEAD * 2, queries = ROWS * HEAD * 2;
    Tiles shared(memory);
    u32 slots = shared.base + queries;
    Ring ring(shared_address(bars));
    if (threadIdx.x == 0) ring.init(1, 8);
    __syncthreads();
    int row0 = at.tile * ROWS, rows = at.length - row0 < ROWS ? at.length - row0 : ROWS, last = at.tile;
    int first = window > 0 && row0 - window + 1 > 0 ? (row0 - window + 1) / KEYS : 0;
    if (threadIdx.x >= 256)
    {
        few_registers();
        if (threadIdx.x == 256)
        {
            int column = at.head / (heads / kvHeads) * HEAD;
            barrier_expect(ring.staying(), queries);
            fetch_tile<ROWS>(shared.base, &mq, ring.staying(), at.head * HEAD, at.start + row0);
            auto fetch = [&](const TensorMap* map, int j)
            {
                ring.wait_empty();
                barrier_expect(ring.full(), size);
                fetch_tile<KEYS>(slots + ring.slot * size, map, ring.full(), column, at.start + j * KEYS);
                ring.next();
            };
            fetch(&mk, last); // in the order of use: the next keys before the values
            for (int j = last - 1; j >= first; j--) { fetch(&mk, j); fetch(&mv, j + 1); }
            fetch(&mv, first);
        }
    }
    else
    {
        many_registers();
        int wg = threadIdx.x >> 7, lane = threadIdx.x & 31, query = row0 + (threadIdx.x >> 5) * 16 + (lane >> 2), low = row0 + wg * 64;
        u32 qt = shared.base + wg * 8192;
        float acc[HEAD / 2], s[KEYS / 2], max[2] = { -INFINITY_F, -INFINITY_F }, sum[2] = { 0, 0 }, shrink[2], factor = scale * LOG2E;
        u32 p[KEYS / 16][4];
#pragma unroll
        for (int i = 0; i < HEAD / 2; i++) acc[i] = 0;
        auto softmax = [&](int j)
        {
            int key0 = j * KEYS;
            if (key0 + KEYS - 1 > low || (window > 0 && key0 <= low + 63 - window)) hide(s, query, key0, window, -INFINITY_F);
#pragma unroll
            for (int h = 0; h < 2; h++)
            {
                float m0 = max[h], m1 = s[h * 2 + 1], part0 = 0, part1 = 0;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++) { m0 = fmaxf(m0, s[n * 4 + h * 2]); m1 = fmaxf(m1, s[n * 4 + h * 2 + 1]); }
                float m = fmaxf(m0, m1);
                m = fmaxf(m, __shfl_xor_sync(0xFFFFFFFFu, m, 1));
                m = fmaxf(m, __shfl_xor_sync(0xFFFFFFFFu, m, 2));
                float zero = m == -INFINITY_F ? 0.f : m * factor;
                shrink[h] = ex2(max[h] * factor - zero);
                max[h] = m;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
                {
                    float& x = s[n * 4 + h * 2];
                    float& y = s[n * 4 + h * 2 + 1];
                    x = ex2(x * factor - zero);
                    y = ex2(y * factor - zero);
                    part0 += x;
                    part1 += y;
                }
                sum[h] = sum[h] * shrink[h] + (part0 + part1);
            }
        };
        auto keys = [&]() // starts the scores of the next keys; the ring moves on
        {
            ring.wait();
            scores<ROWS, KEYS>(s, qt, slots + ring.slot * size);
            u32 empty = ring.empty();
            ring.next();
            return empty;
        };
        auto values = [&](int j) // starts the second product of tile j
        {
            ring.wait();
            if ((j + 1) * KEYS > at.length) clear_rows<KEYS>(shared.local + queries + ring.slot * size, at.length - j * KEYS);
            product<KEYS>(acc, p, slots + ring.slot * size);
        };
        barrier_wait(ring.staying(), 0);
        u32 empty = keys();
        wgmma_wait<0>();
        settle(s);
        release(empty);
        softmax(last);
        as_operand(p, s);
        for (int j = last - 1; j >= first; j--) // the softmax of a tile runs beside the second product of the tile before
        {
            empty = keys();
            values(j + 1);
            wgmma_wait<1>();
            settle(s);
            release(empty);
            softmax(j);
            wgmma_wait<0>();
            settle(acc);
            settle(p);
            release(ring.empty());
            ring.next();
#pragma unroll
            for (int i = 0; i < HEAD / 2; i++) acc[i] *= shrink[i >> 1 & 1];
            as_operand(p, s);
        }
        values(first);
        wgmma_wait<0>();
        settle(acc);
        settle(p);
        float inverse[2];
#pragma unroll
        for (int h = 0; h < 2; h++)
        {
            sum[h] += __shfl_xor_sync(0xFFFFFFFFu, sum[h], 1);
            sum[h] += __shfl_xor_sync(0xFFFFFFFFu, sum[h], 2);
            inverse[h] = 1.f / sum[h];
            int row = query + h * 8;
            if ((lane & 3) == 0 && row < at.length) lse[(i64)(at.start + row) * heads + at.head] = max[h] * scale + logf(sum[h]);
        }
        store_rows(shared.local + wg * 8192, acc, inverse, o + (i64)(at.start + low) * ldo + (i64)at.head * HEAD, ldo, rows - wg * 64);
    }
}
#endif
