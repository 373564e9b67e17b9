// The gradients of flash_hopper.cu, as the two halves of flash.cu: dq over query tiles, dk and dv over key tiles. The scores are made twice.
#include "mma.cuh"
#include "hopper.cuh"
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
struct Backward
{
    const TensorMap *q, *k, *v, *dO;
    const float *lse, *delta, *cos, *sin;
    int heads, kvHeads, window;
    float scale;
};

// Rotates a thread's two rows of a gradient back (the inverse of rope): column j of a head goes with column j + HEAD / 2, which is in the same thread.
DEV void rotate_back(const Backward& b, float (&acc)[HEAD / 2], int row, const Place& at)
{
    if (!b.cos) return;
    int c = threadIdx.x & 3;
#pragma unroll
    for (int h = 0; h < 2; h++)
    {
        if (row + h * 8 >= at.length) continue;
        i64 from = (i64)(at.start + row + h * 8) * (HEAD / 2) + 2 * c;
#pragma unroll
        for (int n = 0; n < HEAD / 16; n++)
#pragma unroll
            for (int e = 0; e < 2; e++)
            {
                float co = b.cos[from + n * 8 + e], si = b.sin[from + n * 8 + e];
                float &lo = acc[n * 4 + h * 2 + e], &hi = acc[(n + HEAD / 16) * 4 + h * 2 + e], x = lo, y = hi;
                lo = x * co + y * si;
                hi = y * co - x * si;
            }
    }
}

// dq of 128 queries of one head, over the keys they see.
DEV void query_producer(const Backward& b, const Place& at, Ring ring, const Tiles& shared)
{
    if (threadIdx.x != 256) return;
    const int size = KEYS * HEAD * 2, queries = ROWS * HEAD * 2;
    int row0 = at.tile * ROWS, first = b.window > 0 && row0 - b.window + 1 > 0 ? (row0 - b.window + 1) / KEYS : 0, column = at.head / (b.heads / b.kvHeads) * HEAD;
    barrier_expect(ring.staying(), 2 * queries);
    fetch_tile<ROWS>(shared.base, b.q, ring.staying(), at.head * HEAD, at.start + row0);
    fetch_tile<ROWS>(shared.base + queries, b.dO, ring.staying(), at.head * HEAD, at.start + row0);
    for (int n = 2 * at.tile + 1; n >= 2 * first; n--) // keys, values, keys, ...
    {
        ring.wait_empty();
        barrier_expect(ring.full(), size);
        fetch_tile<KEYS>(shared.base + 2 * queries + ring.slot * size, n & 1 ? b.k : b.v, ring.full(), column, at.start + (n >> 1) * KEYS);
        ring.next();
    }
}
DEV void query_consumer(const Backward& b, const Place& at, Ring ring, const Tiles& shared, T* dq)
{
    const int size = KEYS * HEAD * 2, queries = ROWS * HEAD * 2;
    int wg = threadIdx.x >> 7, row0 = at.tile * ROWS, low = row0 + wg * 64, query = row0 + (threadIdx.x >> 5) * 16 + ((threadIdx.x & 31) >> 2);
    int first = b.window > 0 && row0 - b.window + 1 > 0 ? (row0 - b.window + 1) / KEYS : 0;
    u32 qt = shared.base + wg * 8192, gt = qt + queries, slots = shared.base + 2 * queries;
    float acc[HEAD / 2], l[2], dl[2], factor = b.scale * LOG2E;
#pragma unroll
    for (int h = 0; h < 2; h++)
    {
        bool in = query + h * 8 < at.length;
        i64 n = (i64)(at.start + query + h * 8) * b.heads + at.head;
        l[h] = in ? b.lse[n] * LOG2E : 0.f;
        dl[h] = in ? b.delta[n] : 0.f;
    }
#pragma unroll
    for (int i = 0; i < HEAD / 2; i++) acc[i] = 0;
    barrier_wait(ring.staying(), 0);
    for (int j = at.tile; j >= first; j--)
    {
        float s[KEYS / 2], dp[KEYS / 2];
        u32 a[KEYS / 16][4], kt = slots + ring.slot * size, keys = ring.empty();
        int key0 = j * KEYS;
        ring.wait();
        if (key0 + KEYS > at.length) clear_rows<KEYS>(shared.local + 2 * queries + ring.slot * size, at.length - key0);
        scores<ROWS, KEYS>(s, qt, kt);
        ring.next();
        ring.wait();
        scores<ROWS, KEYS>(dp, gt, slots + ring.slot * size);
        wgmma_wait<1>();
        settle(s);
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) s[i] = ex2(s[i] * factor - l[i >> 1 & 1]);
        wgmma_wait<0>();
        settle(dp);
        release(ring.empty());
        ring.next();
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) s[i] *= dp[i] - dl[i >> 1 & 1];
        if (key0 + KEYS - 1 > low || (b.window > 0 && key0 <= low + 63 - b.window)) hide(s, query, key0, b.window, 0.f);
        as_operand(a, s);
        product<KEYS>(acc, a, kt);
        wgmma_wait<0>();
        settle(acc);
        settle(a);
        release(keys);
    }
    rotate_back(b, acc, query, at);
    float factors[2] = { b.scale, b.scale };
    i64 ldq = (i64)b.heads * HEAD;
    store_rows(shared.local + wg * 8192, acc, factors, dq + (i64)(at.start + low) * ldq + (i64)at.head * HEAD, ldq, at.length - low);
}

// dk and dv of 128 keys of one key/value head, over the queries that see them, QUERIES at a time, of all query heads of the group.
DEV int queries_end(const Place& at, int window)
{
    int end = at.tile * ROWS + ROWS - 1 + window;
    return window > 0 && end < at.length ? end : at.length;
}
DEV void key_producer(const Backward& b, const Place& at, Ring ring, const Tiles& shared, float (*stats)[2 * QUERIES])
{
    if (threadIdx.x >= 288) return;
    const int size = QUERIES * HEAD * 2, keys = ROWS * HEAD * 2;
    int lane = threadIdx.x & 31, key0 = at.tile * ROWS, end = queries_end(at, b.window), group = b.heads / b.kvHeads;
    if (lane == 0)
    {
        barrier_expect(ring.staying(), 2 * keys);
        fetch_tile<ROWS>(shared.base, b.k, ring.staying(), at.head * HEAD, at.start + key0);
        fetch_tile<ROWS>(shared.base + keys, b.v, ring.staying(), at.head * HEAD, at.start + key0);
    }
    for (int head = at.head * group; head < (at.head + 1) * group; head++)
        for (int query0 = key0; query0 < end; query0 += QUERIES)
        {
            float x[4];
#pragma unroll
            for (int i = 0; i < 2; i++)
            {
                int row = query0 + i * 32 + lane;
                i64 n = (i64)(at.start + row) * b.heads + head;
                x[i] = row < at.length ? b.lse[n] * LOG2E : 0.f;
                x[2 + i] = row < at.length ? b.delta[n] : 0.f;
            }
            ring.wait_empty();
#pragma unroll
            for (int i = 0; i < 4; i++) stats[ring.slot][i * 32 + lane] = x[i];
            if (lane > 0) barrier_arrive(ring.full()); // each lane for its statistics
            else
            {
                u32 to = shared.base + 2 * keys + ring.slot * 2 * size;
                barrier_expect(ring.full(), 2 * size);
                fetch_tile<QUERIES>(to, b.q, ring.full(), head * HEAD, at.start + query0);
                fetch_tile<QUERIES>(to + size, b.dO, ring.full(), head * HEAD, at.start + query0);
            }
            ring.next();
        }
}
DEV void key_consumer(const Backward& b, const Place& at, Ring ring, const Tiles& shared, const float (*stats)[2 * QUERIES], T* dk, T* dv)
{
    const int size = QUERIES * HEAD * 2, keys = ROWS * HEAD * 2;
    int wg = threadIdx.x >> 7, lane = threadIdx.x & 31, c = lane & 3, key0 = at.tile * ROWS, low = key0 + wg * 64, key = key0 + (threadIdx.x >> 5) * 16 + (lane >> 2);
    int end = queries_end(at, b.window), group = b.heads / b.kvHeads;
    u32 kt = shared.base + wg * 8192, vt = kt + keys, slots = shared.base + 2 * keys;
    float dka[HEAD / 2], dva[HEAD / 2], factor = b.scale * LOG2E;
#pragma unroll
    for (int i = 0; i < HEAD / 2; i++) dka[i] = dva[i] = 0;
    auto arrived = [&](int query0)
    {
        ring.wait();
        if (query0 + QUERIES > at.length)
            for (int i = 0; i < 2; i++) clear_rows<QUERIES>(shared.local + 2 * keys + (2 * ring.slot + i) * size, at.length - query0);
    };
    barrier_wait(ring.staying(), 0);
    for (int n = 0; n < group; n++)
    {
        int query0 = key0;
        if (wg == 1) // the first queries see none of the second warpgroup's keys
        {
            arrived(query0);
            release_all(ring.empty());
            ring.next();
            query0 += QUERIES;
        }
        for (; query0 < end; query0 += QUERIES)
        {
            u32 qt = slots + ring.slot * 2 * size, gt = qt + size;
            const float *ls = stats[ring.slot], *ds = ls + QUERIES;
            float s[QUERIES / 2], dp[QUERIES / 2];
            u32 pa[QUERIES / 16][4], sa[QUERIES / 16][4];
            arrived(query0);
            scores<ROWS, QUERIES>(s, kt, qt); // transposed: rows are keys
            scores<ROWS, QUERIES>(dp, vt, gt);
            wgmma_wait<1>();
            settle(s);
#pragma unroll
            for (int i = 0; i < QUERIES / 2; i++) s[i] = ex2(s[i] * factor - ls[(i >> 2) * 8 + 2 * c + (i & 1)]);
            if (query0 < low + 63 || query0 + QUERIES > at.length || (b.window > 0 && low <= query0 + QUERIES - 1 - b.window))
#pragma unroll
                for (int i = 0; i < QUERIES / 2; i++)
                {
                    int query = query0 + (i >> 2) * 8 + 2 * c + (i & 1), k = key + (i >> 1 & 1) * 8;
                    if (k > query || query >= at.length || (b.window > 0 && k <= query - b.window)) s[i] = 0;
                }
            as_operand(pa, s);
            product<QUERIES>(dva, pa, gt);
            wgmma_wait<1>();
            settle(dp);
#pragma unroll
            for (int i = 0; i < QUERIES / 2; i++) dp[i] = s[i] * (dp[i] - ds[(i >> 2) * 8 + 2 * c + (i & 1)]);
            as_operand(sa, dp);
            product<QUERIES>(dka, sa, qt);
            wgmma_wait<0>(); // left running into the next step they cost registers that are not there: ptxas then serializes every product
            settle(dka);
            settle(dva);
            settle(pa);
            settle(sa);
            release_all(ring.empty());
            ring.next();
        }
    }
    rotate_back(b, dka, key, at);
    float factors[2] = { b.scale, b.scale }, ones[2] = { 1, 1 };
    i64 ldk = (i64)b.kvHeads * HEAD, to = (i64)(at.start + low) * ldk + (i64)at.head * HEAD;
    store_rows(shared.local + wg * 8192, dka, factors, dk + to, ldk, at.length - low);
    store_rows(shared.local + keys + wg * 8192, dva, ones, dv + to, ldk, at.length - low);
}

// Both halves in one launch, so that the blocks over queries fill the processors while the last blocks over keys end.
extern "C" __global__ void __launch_bounds__(HOPPER_THREADS, 1) flash_hopper_backward(const __grid_constant__ TensorMap mq, const __grid_constant__ TensorMap mk,
    const __grid_constant__ TensorMap mv, const __grid_constant__ TensorMap mg, const float* lse, const float* delta, const int* offsets, int sequences,
    int tiles, int heads, int kvHeads, int window, float scale, T* dq, T* dk, T* dv, const float* cos, const float* sin)
{
    extern __shared__ V4 memory[];
    __shared__ u64 bars[SLOTS * 2 + 1];
    __shared__ float stats[SLOTS][2 * QUERIES]; // lse (base 2) and delta of the queries of a slot
    Backward b = { &mq, &mk, &mv, &mg, lse, delta, cos, sin, heads, kvHeads, window, scale };
    Place at;
    bool overKeys = blockIdx.x < tiles * kvHeads;
    if (!find_place(offsets, sequences, tiles, overKeys ? kvHeads : heads, overKeys ? blockIdx.x : blockIdx.x - tiles * kvHeads, !overKeys, at)) return;
    Tiles shared(memory);
    Ring ring(shared_address(bars));
    if (threadIdx.x == 0) ring.init(overKeys ? 32 : 1, overKeys ? 256 : 8);
    __syncthreads();
    if (threadIdx.x >= 256)
    {
        few_registers();
        if (overKeys) key_producer(b, at, ring, shared, stats);
        else query_producer(b, at, ring, shared);
    }
    else
    {
        many_registers();
        if (overKeys) key_consumer(b, at, ring, shared, stats, dk, dv);
        else query_consumer(b, at, ring, shared, dq);
    }
}
#endif
