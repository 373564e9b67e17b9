// Flash attention (Dao et al., 2022, 2023) on tensor cores for 16-bit T and head sizes 64 and 128 (HEAD): causal, packed sequences,
// grouped queries, sliding window. Tiles of 64 rows; four warps of 16 rows each. The backward pass is two kernels, one over query
// tiles (dq), one over key tiles (dk, dv): the scores are made twice, and nothing is added in arrival order. Rows of o and dO are ldo elements apart.
#include "mma.cuh"
#include "flash.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) flash_forward(const T* q, const T* k, const T* v, const int* offsets, int sequences,
    int heads, int kvHeads, int window, float scale, T* o, i64 ldo, float* lse)
{
    extern __shared__ V4 memory[];
    int start, length, tile, head = blockIdx.y, warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;
    if (!find_tile(offsets, sequences, blockIdx.x, true, start, length, tile)) return;
    i64 ldq = (i64)heads * HEAD, ldk = (i64)kvHeads * HEAD;
    const T* kh = k + start * ldk + (i64)(head / (heads / kvHeads)) * HEAD;
    const T* vh = v + start * ldk + (i64)(head / (heads / kvHeads)) * HEAD;
    u32 base = shared_address(memory);
    const u32 size = TILE * HEAD * 2;
    int row0 = tile * TILE, first = window > 0 && row0 - window + 1 > 0 ? (row0 - window + 1) / TILE : 0;

    // Queries pass through the first key tile's place into registers.
    u32 qa[DS][4];
    load_tile<TILE>(base, q + (start + row0) * ldq + (i64)head * HEAD, ldq, length - row0);
    commit();
    wait_async<0>();
    __syncthreads();
#pragma unroll
    for (int s = 0; s < DS; s++) a_operand(qa[s], base, warp * 16, s, lane);
    __syncthreads();

    load_tile<TILE>(base, kh + first * TILE * ldk, ldk, length - first * TILE);
    load_tile<TILE>(base + size, vh + first * TILE * ldk, ldk, length - first * TILE);
    commit();
    float acc[DT][4], max[2] = { -INFINITY_F, -INFINITY_F }, sum[2] = { 0, 0 }, factor = scale * LOG2E;
#pragma unroll
    for (int i = 0; i < DT * 4; i++) (&acc[0][0])[i] = 0;
    int query = row0 + warp * 16 + g;
    for (int j = first; j <= tile; j++)
    {
        u32 kt = base + ((j - first) & 1) * 2 * size, vt = kt + size;
        if (j < tile)
        {
            u32 next = base + ((j + 1 - first) & 1) * 2 * size;
            int at = (j + 1) * TILE;
            load_tile<TILE>(next, kh + at * ldk, ldk, length - at);
            load_tile<TILE>(next + size, vh + at * ldk, ldk, length - at);
            commit();
            wait_async<1>();
        }
        else wait_async<0>();
        __syncthreads();
        float s[8][4];
#pragma unroll
        for (int i = 0; i < 32; i++) (&s[0][0])[i] = 0;
#pragma unroll
        for (int d = 0; d < DS; d++)
#pragma unroll
            for (int n = 0; n < 4; n++)
            {
                u32 b[4];
                rows_operand(b, kt, n * 16, d, lane);
                mma16816(s[2 * n], qa[d], b[0], b[1]);
                mma16816(s[2 * n + 1], qa[d], b[2], b[3]);
            }
        bool edge = j == tile || (window > 0 && j * TILE <= row0 + TILE - 1 - window);
        if (edge)
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (!visible(query + (e >> 1) * 8, j * TILE + n * 8 + 2 * c + (e & 1), length, window)) s[n][e] = -INFINITY_F;
#pragma unroll
        for (int h = 0; h < 2; h++)
        {
            float m = max[h];
#pragma unroll
            for (int n = 0; n < 8; n++) m = fmaxf(m, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
            m = fmaxf(m, __shfl_xor_sync(0xFFFFFFFFu, m, 1));
            m = fmaxf(m, __shfl_xor_sync(0xFFFFFFFFu, m, 2));
            float safe = m == -INFINITY_F ? 0.f : m * factor, shrink = ex2(max[h] * factor - safe), part = 0;
            max[h] = m;
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int e = 2 * h; e < 2 * h + 2; e++)
                {
                    s[n][e] = ex2(s[n][e] * factor - safe);
                    part += s[n][e];
                }
            sum[h] = sum[h] * shrink + part;
#pragma unroll
            for (int n = 0; n < DT; n++) { acc[n][2 * h] *= shrink; acc[n][2 * h + 1] *= shrink; }
        }
#pragma unroll
        for (int n = 0; n < 4; n++)
        {
            u32 p[4];
            as_operand(p, s[2 * n], s[2 * n + 1]);
#pragma unroll
            for (int d = 0; d < DT; d += 2)
            {
                u32 b[4];
                columns_operand(b, vt, n * 16, d, lane);
                mma16816(acc[d], p, b[0], b[1]);
                mma16816(acc[d + 1], p, b[2], b[3]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int h = 0; h < 2; h++)
    {
        sum[h] += __shfl_xor_sync(0xFFFFFFFFu, sum[h], 1);
        sum[h] += __shfl_xor_sync(0xFFFFFFFFu, sum[h], 2);
        int row = query + h * 8;
        if (row >= length) continue;
        float inverse = 1.f / sum[h];
        T* to = o + (start + row) * ldo + (i64)head * HEAD;
#pragma unroll
        for (int d = 0; d < DT; d++) *(u32*)(to + d * 8 + 2 * c) = pack2(T(), acc[d][2 * h] * inverse, acc[d][2 * h + 1] * inverse);
        if (c == 0) lse[(i64)(start + row) * heads + head] = max[h] * scale + logf(sum[h]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) flash_dq(const T* q, const T* k, const T* v, const float* lse, const T* dO, i64 ldo, const float* delta,
    const int* offsets, int sequences, int heads, int kvHeads, int window, float scale, T* dq)
{
    extern __shared__ V4 memory[];
    int start, length, tile, head = blockIdx.y, warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;
    if (!find_tile(offsets, sequences, blockIdx.x, true, start, length, tile)) return;
    i64 ldq = (i64)heads * HEAD, ldk = (i64)kvHeads * HEAD;
    const T* kh = k + start * ldk + (i64)(head / (heads / kvHeads)) * HEAD;
    const T* vh = v + start * ldk + (i64)(head / (heads / kvHeads)) * HEAD;
    u32 base = shared_address(memory);
    const u32 size = TILE * HEAD * 2;
    int row0 = tile * TILE, first = window > 0 && row0 - window + 1 > 0 ? (row0 - window + 1) / TILE : 0, query = row0 + warp * 16 + g;

    u32 qa[DS][4], ga[DS][4];
    load_tile<TILE>(base, q + (start + row0) * ldq + (i64)head * HEAD, ldq, length - row0);
    load_tile<TILE>(base + size, dO + (start + row0) * ldo + (i64)head * HEAD, ldo, length - row0);
    commit();
    wait_async<0>();
    __syncthreads();
#pragma unroll
    for (int s = 0; s < DS; s++) { a_operand(qa[s], base, warp * 16, s, lane); a_operand(ga[s], base + size, warp * 16, s, lane); }
    __syncthreads();
    float l[2], dl[2], acc[DT][4], factor = scale * LOG2E;
#pragma unroll
    for (int h = 0; h < 2; h++)
    {
        bool in = query + h * 8 < length;
        i64 at = (i64)(start + query + h * 8) * heads + head;
        l[h] = in ? lse[at] * LOG2E : 0.f;
        dl[h] = in ? delta[at] : 0.f;
    }
#pragma unroll
    for (int i = 0; i < DT * 4; i++) (&acc[0][0])[i] = 0;
    load_tile<TILE>(base, kh + first * TILE * ldk, ldk, length - first * TILE);
    load_tile<TILE>(base + size, vh + first * TILE * ldk, ldk, length - first * TILE);
    commit();
    for (int j = first; j <= tile; j++)
    {
        u32 kt = base + ((j - first) & 1) * 2 * size, vt = kt + size;
        if (j < tile)
        {
            u32 next = base + ((j + 1 - first) & 1) * 2 * size;
            int at = (j + 1) * TILE;
            load_tile<TILE>(next, kh + at * ldk, ldk, length - at);
            load_tile<TILE>(next + size, vh + at * ldk, ldk, length - at);
            commit();
            wait_async<1>();
        }
        else wait_async<0>();
        __syncthreads();
        bool edge = j == tile || (window > 0 && j * TILE <= row0 + TILE - 1 - window);
#pragma unroll
        for (int n = 0; n < 4; n++)
        {
            float s[2][4] = {}, p[2][4] = {};
#pragma unroll
            for (int d = 0; d < DS; d++)
            {
                u32 b[4];
                rows_operand(b, kt, n * 16, d, lane);
                mma16816(s[0], qa[d], b[0], b[1]);
                mma16816(s[1], qa[d], b[2], b[3]);
                rows_operand(b, vt, n * 16, d, lane);
                mma16816(p[0], ga[d], b[0], b[1]);
                mma16816(p[1], ga[d], b[2], b[3]);
            }
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                {
                    float w = ex2(s[i][e] * factor - l[e >> 1]);
                    if (edge && !visible(query + (e >> 1) * 8, j * TILE + n * 16 + i * 8 + 2 * c + (e & 1), length, window)) w = 0;
                    s[i][e] = w * (p[i][e] - dl[e >> 1]);
                }
            u32 a[4];
            as_operand(a, s[0], s[1]);
#pragma unroll
            for (int d = 0; d < DT; d += 2)
            {
                u32 b[4];
                columns_operand(b, kt, n * 16, d, lane);
                mma16816(acc[d], a, b[0], b[1]);
                mma16816(acc[d + 1], a, b[2], b[3]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int h = 0; h < 2; h++)
    {
        int row = query + h * 8;
        if (row >= length) continue;
        T* to = dq + (start + row) * ldq + (i64)head * HEAD;
#pragma unroll
        for (int d = 0; d < DT; d++) *(u32*)(to + d * 8 + 2 * c) = pack2(T(), acc[d][2 * h] * scale, acc[d][2 * h + 1] * scale);
    }
}

// A block owns 64 keys of one key/value head and walks the queries that see them, QUERIES at a time, over all query heads of the group.
extern "C" __global__ void __launch_bounds__(THREADS) flash_dkv(const T* q, const T* k, const T* v, const float* lse, const T* dO, i64 ldo, const float* delta,
    const int* offsets, int sequences, int heads, int kvHeads, int window, float scale, T* dk, T* dv)
{
    extern __shared__ V4 memory[];
    int start, length, tile, kvHead = blockIdx.y, warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3, group = heads / kvHeads;
    if (!find_tile(offsets, sequences, blockIdx.x, false, start, length, tile)) return;
    i64 ldq = (i64)heads * HEAD, ldk = (i64)kvHeads * HEAD;
    u32 base = shared_address(memory);
    const u32 size = TILE * HEAD * 2, half = size / 2;
    float* stats = (float*)((char*)memory + 4 * size); // [buffer][lse, delta][QUERIES]
    int key0 = tile * TILE, key = key0 + warp * 16 + g;
    int end = window > 0 && key0 + TILE - 1 + window < length ? key0 + TILE - 1 + window : length;
    int steps = (end - key0 + QUERIES - 1) / QUERIES, total = steps * group;

    load_tile<TILE>(base, k + (start + key0) * ldk + (i64)kvHead * HEAD, ldk, length - key0);
    load_tile<TILE>(base + size, v + (start + key0) * ldk + (i64)kvHead * HEAD, ldk, length - key0);
    float dka[DT][4], dva[DT][4], factor = scale * LOG2E;
#pragma unroll
    for (int i = 0; i < DT * 4; i++) (&dka[0][0])[i] = (&dva[0][0])[i] = 0;

    auto fetch = [&](int step)
    {
        int buffer = step & 1, head = kvHead * group + step / steps, at = key0 + step % steps * QUERIES;
        u32 to = base + 2 * size + buffer * size;
        load_tile<QUERIES>(to, q + (start + at) * ldq + (i64)head * HEAD, ldq, length - at);
        load_tile<QUERIES>(to + half, dO + (start + at) * ldo + (i64)head * HEAD, ldo, length - at);
        commit();
        if (threadIdx.x < 2 * QUERIES)
        {
            int i = threadIdx.x & (QUERIES - 1);
            bool in = at + i < length;
            i64 n = (i64)(start + at + i) * heads + head;
            stats[buffer * 2 * QUERIES + threadIdx.x] = !in ? 0.f : threadIdx.x < QUERIES ? lse[n] * LOG2E : delta[n];
        }
    };
    fetch(0);
    for (int step = 0; step < total; step++)
    {
        if (step + 1 < total) { fetch(step + 1); wait_async<1>(); }
        else wait_async<0>();
        __syncthreads();
        int at = key0 + step % steps * QUERIES;
        u32 qt = base + 2 * size + (step & 1) * size, gt = qt + half;
        const float* ls = stats + (step & 1) * 2 * QUERIES;
        bool edge = at < key0 + TILE || at + QUERIES > length || window > 0;
        // Transposed scores: rows are keys, columns queries. The four column tiles share each load of the keys.
        float s[4][4] = {}, p[4][4] = {};
#pragma unroll
        for (int d = 0; d < DS; d++)
        {
            u32 a[4], b[4];
            a_operand(a, base, warp * 16, d, lane);
#pragma unroll
            for (int n = 0; n < 2; n++)
            {
                rows_operand(b, qt, n * 16, d, lane);
                mma16816(s[2 * n], a, b[0], b[1]);
                mma16816(s[2 * n + 1], a, b[2], b[3]);
            }
            a_operand(a, base + size, warp * 16, d, lane);
#pragma unroll
            for (int n = 0; n < 2; n++)
            {
                rows_operand(b, gt, n * 16, d, lane);
                mma16816(p[2 * n], a, b[0], b[1]);
                mma16816(p[2 * n + 1], a, b[2], b[3]);
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int e = 0; e < 4; e++)
            {
                int col = i * 8 + 2 * c + (e & 1);
                float w = ex2(s[i][e] * factor - ls[col]);
                if (edge && !visible(at + col, key + (e >> 1) * 8, length, window)) w = 0;
                s[i][e] = w;
                p[i][e] = w * (p[i][e] - ls[QUERIES + col]);
            }
#pragma unroll
        for (int n = 0; n < 2; n++)
        {
            u32 pa[4], sa[4];
            as_operand(pa, s[2 * n], s[2 * n + 1]);
            as_operand(sa, p[2 * n], p[2 * n + 1]);
#pragma unroll
            for (int d = 0; d < DT; d += 2)
            {
                u32 b[4];
                columns_operand(b, gt, n * 16, d, lane);
                mma16816(dva[d], pa, b[0], b[1]);
                mma16816(dva[d + 1], pa, b[2], b[3]);
                columns_operand(b, qt, n * 16, d, lane);
                mma16816(dka[d], sa, b[0], b[1]);
                mma16816(dka[d + 1], sa, b[2], b[3]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int h = 0; h < 2; h++)
    {
        int row = key + h * 8;
        if (row >= length) continue;
        i64 to = (start + row) * ldk + (i64)kvHead * HEAD;
#pragma unroll
        for (int d = 0; d < DT; d++)
        {
            *(u32*)(dk + to + d * 8 + 2 * c) = pack2(T(), dka[d][2 * h] * scale, dka[d][2 * h + 1] * scale);
            *(u32*)(dv + to + d * 8 + 2 * c) = pack2(T(), dva[d][2 * h], dva[d][2 * h + 1]);
        }
    }
}
