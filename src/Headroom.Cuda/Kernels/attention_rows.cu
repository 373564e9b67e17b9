// Attention for any head size up to LARGEST_HEAD and any T: four warps a query row and head, each over every fourth key, merged at the end.
// The tensor-core kernels take over where their shapes allow. Rows of o and dO are ldo elements apart: they may have further columns.
#define WARPS ATTENTION_WARPS
#define MAX_PER_LANE (LARGEST_HEAD / 32)

DEV int sequence_of(const int* offsets, int sequences, int row)
{
    int low = 0, high = sequences - 1;
    while (low < high)
    {
        int mid = (low + high + 1) >> 1;
        if (offsets[mid] <= row) low = mid; else high = mid - 1;
    }
    return low;
}

DEV void load_row(const T* p, int d, int lane, float* v)
{
#pragma unroll
    for (int i = 0; i < MAX_PER_LANE; i++) v[i] = lane + i * 32 < d ? to_f(p[lane + i * 32]) : 0.f;
}
DEV float dot_row(const float* a, const float* b)
{
    float s = 0;
#pragma unroll
    for (int i = 0; i < MAX_PER_LANE; i++) s += a[i] * b[i];
    return warp_sum(s);
}

// offsets null: one sequence that starts at row 0 of k and v, query row i at position past + i.
extern "C" __global__ void attention_rows(const T* q, const T* k, const T* v, const int* offsets, int sequences, int past,
    int heads, int kvHeads, int d, int window, float scale, T* o, i64 ldo, float* lse)
{
    __shared__ float acc[WARPS][LARGEST_HEAD], maxes[WARPS], sums[WARPS];
    int row = blockIdx.x, head = blockIdx.y, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int start = offsets ? offsets[sequence_of(offsets, sequences, row)] : 0, last = offsets ? row : past + row;
    int first = window > 0 && last - window + 1 > start ? last - window + 1 : start;
    i64 ldq = (i64)heads * d, ldk = (i64)kvHeads * d, kv = (i64)(head / (heads / kvHeads)) * d;
    float qv[MAX_PER_LANE], kk[MAX_PER_LANE], out[MAX_PER_LANE], m = -INFINITY_F, s = 0;
    load_row(q + row * ldq + (i64)head * d, d, lane, qv);
#pragma unroll
    for (int i = 0; i < MAX_PER_LANE; i++) out[i] = 0;
    for (int j = first + warp; j <= last; j += WARPS)
    {
        load_row(k + j * ldk + kv, d, lane, kk);
        float x = dot_row(qv, kk) * scale, n = fmaxf(m, x), a = EXP(m - n), p = EXP(x - n);
        load_row(v + j * ldk + kv, d, lane, kk);
        s = s * a + p;
        m = n;
#pragma unroll
        for (int i = 0; i < MAX_PER_LANE; i++) out[i] = out[i] * a + p * kk[i];
    }
#pragma unroll
    for (int i = 0; i < MAX_PER_LANE; i++) acc[warp][lane + i * 32] = out[i];
    if (lane == 0) { maxes[warp] = m; sums[warp] = s; }
    __syncthreads();
    float all = -INFINITY_F, total = 0, f[WARPS];
    for (int w = 0; w < WARPS; w++) all = fmaxf(all, maxes[w]);
    for (int w = 0; w < WARPS; w++) { f[w] = maxes[w] == -INFINITY_F ? 0.f : EXP(maxes[w] - all); total += sums[w] * f[w]; }
    for (int i = threadIdx.x; i < d; i += blockDim.x)
    {
        float x = 0;
        for (int w = 0; w < WARPS; w++) x += acc[w][i] * f[w];
        from_f(x / total, o[row * ldo + (i64)head * d + i]);
    }
    if (lse && threadIdx.x == 0) lse[(i64)row * heads + head] = logf(total) + all;
}

// delta = rowsum(dO * O); `lanes` threads (a power of two) a (row, head), eight elements each.
extern "C" __global__ void attention_delta(const T* o, const T* dO, i64 ldo, float* delta, int count, int heads, int d, int lanes)
{
    i64 at = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / lanes;
    int first = (threadIdx.x & (lanes - 1)) * 8;
    float s = 0;
    if (at < count && first < d)
    {
        i64 from = (int)at / heads * ldo + (int)at % heads * d + first;
        const T *x = o + from, *y = dO + from;
        if (d % 8 == 0)
        {
            float a[8], b[8];
            load8(x, a);
            load8(y, b);
#pragma unroll
            for (int i = 0; i < 8; i++) s += a[i] * b[i];
        }
        else
            for (int i = 0; i < 8 && first + i < d; i++) s += to_f(x[i]) * to_f(y[i]);
    }
    for (int k = lanes / 2; k > 0; k >>= 1) s += __shfl_xor_sync(0xFFFFFFFFu, s, k);
    if (at < count && first == 0) delta[at] = s;
}

DEV void merge_rows(float (*acc)[LARGEST_HEAD], int warp, int lane, int d, const float* v, float f, T* dst)
{
    __syncthreads();
#pragma unroll
    for (int i = 0; i < MAX_PER_LANE; i++) acc[warp][lane + i * 32] = v[i];
    __syncthreads();
    for (int i = threadIdx.x; i < d; i += blockDim.x)
    {
        float x = 0;
        for (int w = 0; w < WARPS; w++) x += acc[w][i];
        from_f(x * f, dst[i]);
    }
}

extern "C" __global__ void attention_dq(const T* q, const T* k, const T* v, const float* lse, const T* dO, i64 ldo, const float* delta, const int* offsets,
    int sequences, int heads, int kvHeads, int d, int window, float scale, T* dq)
{
    __shared__ float acc[WARPS][LARGEST_HEAD];
    int row = blockIdx.x, head = blockIdx.y, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int start = offsets[sequence_of(offsets, sequences, row)];
    int first = window > 0 && row - window + 1 > start ? row - window + 1 : start;
    i64 ldq = (i64)heads * d, ldk = (i64)kvHeads * d, kv = (i64)(head / (heads / kvHeads)) * d, at = row * ldq + (i64)head * d;
    float qv[MAX_PER_LANE], g[MAX_PER_LANE], kk[MAX_PER_LANE], vv[MAX_PER_LANE], out[MAX_PER_LANE];
    load_row(q + at, d, lane, qv);
    load_row(dO + row * ldo + (i64)head * d, d, lane, g);
    float l = lse[(i64)row * heads + head], dl = delta[(i64)row * heads + head];
#pragma unroll
    for (int i = 0; i < MAX_PER_LANE; i++) out[i] = 0;
    for (int j = first + warp; j <= row; j += WARPS)
    {
        load_row(k + j * ldk + kv, d, lane, kk);
        load_row(v + j * ldk + kv, d, lane, vv);
        float p = EXP(dot_row(qv, kk) * scale - l), ds = p * (dot_row(g, vv) - dl);
#pragma unroll
        for (int i = 0; i < MAX_PER_LANE; i++) out[i] += ds * kk[i];
    }
    merge_rows(acc, warp, lane, d, out, scale, dq + at);
}

extern "C" __global__ void attention_dkv(const T* q, const T* k, const T* v, const float* lse, const T* dO, i64 ldo, const float* delta, const int* offsets,
    int sequences, int heads, int kvHeads, int d, int window, float scale, T* dk, T* dv)
{
    __shared__ float acc[WARPS][LARGEST_HEAD];
    int row = blockIdx.x, kvHead = blockIdx.y, warp = threadIdx.x >> 5, lane = threadIdx.x & 31, group = heads / kvHeads;
    int end = offsets[sequence_of(offsets, sequences, row) + 1];
    if (window > 0 && row + window < end) end = row + window;
    i64 ldq = (i64)heads * d, at = (i64)row * kvHeads * d + (i64)kvHead * d;
    float kk[MAX_PER_LANE], vv[MAX_PER_LANE], qv[MAX_PER_LANE], g[MAX_PER_LANE], ok[MAX_PER_LANE], ov[MAX_PER_LANE];
    load_row(k + at, d, lane, kk);
    load_row(v + at, d, lane, vv);
#pragma unroll
    for (int i = 0; i < MAX_PER_LANE; i++) { ok[i] = 0; ov[i] = 0; }
    int count = (end - row) * group;
    for (int n = warp; n < count; n += WARPS)
    {
        int i = row + n / group, head = kvHead * group + n % group;
        load_row(q + i * ldq + (i64)head * d, d, lane, qv);
        load_row(dO + i * ldo + (i64)head * d, d, lane, g);
        float p = EXP(dot_row(qv, kk) * scale - lse[(i64)i * heads + head]), ds = p * (dot_row(g, vv) - delta[(i64)i * heads + head]);
#pragma unroll
        for (int c = 0; c < MAX_PER_LANE; c++) { ov[c] += p * g[c]; ok[c] += ds * qv[c]; }
    }
    merge_rows(acc, warp, lane, d, ok, scale, dk + at);
    merge_rows(acc, warp, lane, d, ov, 1.f, dv + at);
}

// Plain attention of one sequence and head: the row of scores exists in memory. For comparison only.
extern "C" __global__ void attention_plain(const T* q, const T* k, const T* v, int start, int head, int heads, int kvHeads, int d, int window,
    float scale, float* scores, int columns, T* o, i64 ldo)
{
    int i = blockIdx.x, first = window > 0 && i - window + 1 > 0 ? i - window + 1 : 0;
    i64 ldq = (i64)heads * d, ldk = (i64)kvHeads * d, kv = (i64)(head / (heads / kvHeads)) * d;
    const T* qr = q + (start + i) * ldq + (i64)head * d;
    float* p = scores + (i64)i * columns;
    float m = -INFINITY_F, s = 0;
    for (int j = first + (int)threadIdx.x; j <= i; j += blockDim.x)
    {
        float x = 0;
        for (int c = 0; c < d; c++) x += to_f(qr[c]) * to_f(k[(start + j) * ldk + kv + c]);
        p[j] = x * scale;
        m = fmaxf(m, p[j]);
    }
    m = block_max(m);
    for (int j = first + (int)threadIdx.x; j <= i; j += blockDim.x) { p[j] = EXP(p[j] - m); s += p[j]; }
    s = block_sum(s);
    __syncthreads();
    for (int c = threadIdx.x; c < d; c += blockDim.x)
    {
        float x = 0;
        for (int j = first; j <= i; j++) x += p[j] * to_f(v[(start + j) * ldk + kv + c]);
        from_f(x / s, o[(start + i) * ldo + (i64)head * d + c]);
    }
}
