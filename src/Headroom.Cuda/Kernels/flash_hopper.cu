// Flash attention for Hopper (compute capability 9.0, compiled for sm_90a): the math and the contract of flash.cu (causal, packed sequences,
// grouped queries, sliding window, head sizes 64 and 128, 16-bit T, nothing added in arrival order) on warpgroup products.
// A block is two consumer warpgroups of 64 rows each and one producer, whose one thread keeps a ring of shared tiles full by bulk tensor
// copies; mbarriers say full and empty. Scores, probabilities and their gradients stay in registers: the transposed scores of the key
// kernel are the left operand of its second products as they come.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define ROWS 128             // rows of a block
#define PANELS (HEAD / 64)   // a shared tile is panels of 64 columns: rows of 128 bytes, 16-byte chunks swizzled by row & 7
#define LOG2E 1.4426950408889634f
#ifndef FWD_KEYS
#define FWD_KEYS 128
#endif
#ifndef FWD_SLOTS
#define FWD_SLOTS 4
#endif
#ifndef FWD_OVERLAP
#define FWD_OVERLAP 1
#endif
#ifndef DQ_KEYS
#define DQ_KEYS 128
#endif
#ifndef DQ_SLOTS
#define DQ_SLOTS 4
#endif
#ifndef DKV_STAGES
#define DKV_STAGES 3
#endif
#ifndef DKV_OVERLAP
#define DKV_OVERLAP 1
#endif
#ifndef WIDE
#define WIDE 1
#endif
#ifndef HEADS_AT_ONCE
#define HEADS_AT_ONCE 8
#endif
#if WIDE
#define THREADS 384
#else
#define THREADS 288
#endif

// ---- registers, barriers, copies

DEV float ex2(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
DEV u32 pair(float lo, float hi)
{
    u32 r;
#if ACT == 1
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
#endif
    return r;
}
DEV u32 shared_address(const void* p)
{
    u64 a;
    asm("cvta.to.shared.u64 %0, %1;" : "=l"(a) : "l"(p));
    return (u32)a;
}
// The producer gives registers to the consumers: 24 and 240 of 168 each.
DEV void few_registers()
{
#if WIDE
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;" ::: "memory");
#endif
}
DEV void many_registers()
{
#if WIDE
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;" ::: "memory");
#endif
}

DEV void barrier_init(u32 bar, int count) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(bar), "r"(count) : "memory"); }
DEV void barrier_expect(u32 bar, int bytes) { asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" :: "r"(bar), "r"(bytes) : "memory"); }
DEV void barrier_arrive(u32 bar) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(bar) : "memory"); }
DEV void barrier_wait(u32 bar, u32 parity)
{
    u32 done;
    do
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(done) : "r"(bar), "r"(parity) : "memory");
    while (!done);
}
DEV void barriers_ready() { asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async;" ::: "memory"); }
DEV void sync_threads(int barrier, int count) { asm volatile("bar.sync %0, %1;" :: "r"(barrier), "r"(count) : "memory"); }

struct alignas(64) TensorMap { u64 words[16]; };

// A tile of R rows and HEAD columns at (column, row) of a tensor, in boxes of 64 x 64. Rows past the tensor come as zeros.
template <int R> DEV void fetch_tile(u32 to, const TensorMap* map, u32 bar, int column, int row)
{
#pragma unroll
    for (int p = 0; p < PANELS; p++)
#pragma unroll
        for (int r = 0; r < R; r += 64)
            asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
                :: "r"(to + p * R * 128 + r * 128), "l"(map), "r"(bar), "r"(column + p * 64), "r"(row + r) : "memory");
}

// Zeroes rows [from, R) of a tile: rows of the next sequence, whose weight is zero but which may hold anything. All 256 consumers call it.
template <int R> DEV void clear_rows(u8* tile, int from)
{
    V4 zero = { 0, 0, 0, 0 };
    int chunks = (R - from) * 8;
    for (int p = 0; p < PANELS; p++)
        for (int i = threadIdx.x; i < chunks; i += 256) *(V4*)(tile + p * R * 128 + from * 128 + i * 16) = zero;
    asm volatile("fence.proxy.async;" ::: "memory");
    sync_threads(3, 256);
}

// A position in a ring of shared tiles with a full and an empty barrier each.
struct Ring
{
    u32 bars;
    int slots, slot;
    u32 phase;
    DEV Ring(u32 bars, int slots) : bars(bars), slots(slots), slot(0), phase(0) {}
    DEV u32 full() const { return bars + slot * 16; }
    DEV u32 empty() const { return bars + slot * 16 + 8; }
    DEV void next() { if (++slot == slots) { slot = 0; phase ^= 1; } }
    DEV void init() const { for (int i = 0; i < slots; i++) { barrier_init(bars + i * 16, 1); barrier_init(bars + i * 16 + 8, 8); } } // eight consumer warps
};
DEV void release(u32 empty) { if ((threadIdx.x & 31) == 0) barrier_arrive(empty); }

// ---- warpgroup products

#if ACT == 1
#define WG_TYPES ".f32.bf16.bf16 "
#else
#define WG_TYPES ".f32.f16.f16 "
#endif
#define D8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define D32 D8(0), D8(8), D8(16), D8(24)
#define D64 D32, D8(32), D8(40), D8(48), D8(56)
#define L32 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define L64 L32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// d (64 x N) = or += A B^T, both K-major tiles in shared memory.
DEV void wgmma(float (&d)[32], u64 a, u64 b, int add)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\nwgmma.mma_async.sync.aligned.m64n64k16" WG_TYPES "{" L32 "}, %32, %33, p, 1, 1, 0, 0;\n}" : D32 : "l"(a), "l"(b), "r"(add));
}
DEV void wgmma(float (&d)[64], u64 a, u64 b, int add)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\nwgmma.mma_async.sync.aligned.m64n128k16" WG_TYPES "{" L64 "}, %64, %65, p, 1, 1, 0, 0;\n}" : D64 : "l"(a), "l"(b), "r"(add));
}
// d (64 x N) += A B, A in registers, the rows of the shared tile B running along the sum.
DEV void wgmma(float (&d)[32], const u32* a, u64 b)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\nwgmma.mma_async.sync.aligned.m64n64k16" WG_TYPES "{" L32 "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}" : D32 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
}
DEV void wgmma(float (&d)[64], const u32* a, u64 b)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\nwgmma.mma_async.sync.aligned.m64n128k16" WG_TYPES "{" L64 "}, {%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}" : D64 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
}
DEV void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEV void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> DEV void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(N) : "memory"); }
// Keeps the compiler from moving uses of registers the tensor cores still write (or read) above the wait before this.
template <int N> DEV void settle(float (&d)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i]) :: "memory");
}
template <int N> DEV void settle(u32 (&a)[N][4])
{
#pragma unroll
    for (int i = 0; i < N * 4; i++) asm volatile("" : "+r"(a[i / 4][i % 4]) :: "memory");
}

// A tile in shared memory, 128-byte swizzle. K-major: only the stride of 8 rows counts. Row-summed: leading is the next 64 columns.
DEV u64 descriptor(u32 address, int leading) { return (u64)(address >> 4) | ((u64)(leading >> 4) << 16) | ((u64)(1024 >> 4) << 32) | ((u64)1 << 62); }

// d = A B^T over the head: 64 rows of a tile of RA rows, N rows of a tile of RB rows.
template <int RA, int RB, int N> DEV void scores(float (&d)[N], u32 a, u32 b)
{
    u64 da = descriptor(a, 16), db = descriptor(b, 16);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < HEAD / 16; k++) wgmma(d, da + ((k / 4 * RA * 128 + k % 4 * 32) >> 4), db + ((k / 4 * RB * 128 + k % 4 * 32) >> 4), k > 0);
    wgmma_commit();
}
// d += A B: A is 64 x K in registers, B a tile of K rows.
template <int K> DEV void product(float (&d)[HEAD / 2], u32 (&a)[K / 16][4], u32 b)
{
    u64 db = descriptor(b, K * 128);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < K / 16; k++) wgmma(d, a[k], db + (k * 2048 >> 4));
    wgmma_commit();
}
// Accumulators (64 x N) as the left operand of the next product.
template <int N> DEV void as_operand(u32 (&a)[N / 8][4], const float (&d)[N])
{
#pragma unroll
    for (int k = 0; k < N / 8; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) a[k][i] = pair(d[k * 8 + i * 2], d[k * 8 + i * 2 + 1]);
}

// ---- blocks

// The head and tile of this block. A few heads run side by side, so that their keys and values stay in the second-level cache.
DEV bool find_block(const int* offsets, int sequences, int tiles, int heads, bool lateFirst, int& head, int& start, int& length, int& tile)
{
    int most = heads < HEADS_AT_ONCE ? heads : HEADS_AT_ONCE, group = blockIdx.x / (tiles * most), rest = blockIdx.x % (tiles * most);
    int count = heads - group * most < most ? heads - group * most : most, index = rest / count;
    head = group * most + rest % count;
    for (int s = 0; s < sequences; s++)
    {
        start = offsets[s];
        length = offsets[s + 1] - start;
        int n = (length + ROWS - 1) / ROWS;
        if (index < n) { tile = lateFirst ? n - 1 - index : index; return true; }
        index -= n;
    }
    return false;
}

// A warpgroup's 64 rows, times a factor for each of a thread's two rows, through its part of a shared tile of ROWS rows; valid rows are stored.
DEV void store_rows(u8* tile, const float (&acc)[HEAD / 2], const float* factor, T* to, i64 stride, int valid)
{
    int lane = threadIdx.x & 31, row0 = (threadIdx.x >> 5 & 3) * 16, g = lane >> 2, c = lane & 3;
    const int chunks = HEAD / 8;
    sync_threads(1 + (threadIdx.x >> 7), 128); // the products of all four warps have read the tile
#pragma unroll
    for (int n = 0; n < chunks; n++)
#pragma unroll
        for (int h = 0; h < 2; h++)
        {
            int row = row0 + g + h * 8;
            *(u32*)(tile + (n >> 3) * (ROWS * 128) + row * 128 + (((n & 7) ^ (row & 7)) << 4) + c * 4) = pair(acc[n * 4 + h * 2] * factor[h], acc[n * 4 + h * 2 + 1] * factor[h]);
        }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < chunks / 2; i++)
    {
        int at = i * 32 + lane, row = row0 + at / chunks, n = at % chunks;
        if (row < valid) *(V4*)(to + row * stride + n * 8) = *(const V4*)(tile + (n >> 3) * (ROWS * 128) + row * 128 + (((n & 7) ^ (row & 7)) << 4));
    }
}

// Scores of keys the query must not see: key > query, or key <= query - window.
template <int N> DEV void hide(float (&s)[N], int query, int key0, int window, float value)
{
    int c = threadIdx.x & 3;
#pragma unroll
    for (int h = 0; h < 2; h++)
    {
        int right = query + h * 8 - key0 - 2 * c, left = window > 0 ? right - window : -0x40000000;
#pragma unroll
        for (int n = 0; n < N / 4; n++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                if (n * 8 + e > right || n * 8 + e <= left) s[n * 4 + h * 2 + e] = value;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) flash_hopper_forward(const __grid_constant__ TensorMap mq, const __grid_constant__ TensorMap mk,
    const __grid_constant__ TensorMap mv, const int* offsets, int sequences, int tiles, int heads, int kvHeads, int window, float scale, T* o, float* lse)
{
    extern __shared__ V4 memory[];
    __shared__ u64 bars[FWD_SLOTS * 2 + 1];
    int start, length, tile, head;
    if (!find_block(offsets, sequences, tiles, heads, true, head, start, length, tile)) return;
    const int size = FWD_KEYS * HEAD * 2, queries = ROWS * HEAD * 2;
    u32 raw = shared_address(memory), base = (raw + 1023) & ~1023u, slots = base + queries, bar = shared_address(bars), qbar = bar + FWD_SLOTS * 16;
    u8* local = (u8*)memory + (base - raw);
    Ring ring(bar, FWD_SLOTS);
    if (threadIdx.x == 0) { ring.init(); barrier_init(qbar, 1); barriers_ready(); }
    __syncthreads();
    int row0 = tile * ROWS, rows = length - row0 < ROWS ? length - row0 : ROWS;
    int first = window > 0 && row0 - window + 1 > 0 ? (row0 - window + 1) / FWD_KEYS : 0, last = (row0 + rows - 1) / FWD_KEYS;
    if (threadIdx.x >= 256)
    {
        few_registers();
        if (threadIdx.x == 256)
        {
            int column = head / (heads / kvHeads) * HEAD;
            barrier_expect(qbar, queries);
            fetch_tile<ROWS>(base, &mq, qbar, head * HEAD, start + row0);
            auto fetch = [&](const TensorMap* map, int j)
            {
                barrier_wait(ring.empty(), ring.phase ^ 1);
                barrier_expect(ring.full(), size);
                fetch_tile<FWD_KEYS>(slots + ring.slot * size, map, ring.full(), column, start + j * FWD_KEYS);
                ring.next();
            };
#if FWD_OVERLAP
            fetch(&mk, last); // in the order of use: the next keys before the values
            for (int j = last - 1; j >= first; j--) { fetch(&mk, j); fetch(&mv, j + 1); }
            fetch(&mv, first);
#else
            for (int j = last; j >= first; j--) { fetch(&mk, j); fetch(&mv, j); }
#endif
        }
    }
    else
    {
        many_registers();
        int wg = threadIdx.x >> 7, lane = threadIdx.x & 31, query = row0 + (threadIdx.x >> 5) * 16 + (lane >> 2);
        u32 qt = base + wg * 8192;
        float acc[HEAD / 2], s[FWD_KEYS / 2], max[2] = { -INFINITY_F, -INFINITY_F }, sum[2] = { 0, 0 }, shrink[2], factor = scale * LOG2E;
        u32 p[FWD_KEYS / 16][4];
#pragma unroll
        for (int i = 0; i < HEAD / 2; i++) acc[i] = 0;
        auto softmax = [&](int j)
        {
            int low = row0 + wg * 64, key0 = j * FWD_KEYS;
            if (key0 + FWD_KEYS - 1 > low || (window > 0 && key0 <= low + 63 - window)) hide(s, query, key0, window, -INFINITY_F);
#pragma unroll
            for (int h = 0; h < 2; h++)
            {
                float m0 = max[h], m1 = s[h * 2];
#pragma unroll
                for (int n = 0; n < FWD_KEYS / 8; n++) { m0 = fmaxf(m0, s[n * 4 + h * 2]); m1 = fmaxf(m1, s[n * 4 + h * 2 + 1]); }
                float m = fmaxf(m0, m1), part0 = 0, part1 = 0;
                m = fmaxf(m, __shfl_xor_sync(0xFFFFFFFFu, m, 1));
                m = fmaxf(m, __shfl_xor_sync(0xFFFFFFFFu, m, 2));
                float zero = m == -INFINITY_F ? 0.f : m * factor;
                shrink[h] = ex2(max[h] * factor - zero);
                max[h] = m;
#pragma unroll
                for (int n = 0; n < FWD_KEYS / 8; n++)
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
        auto rescale = [&]()
        {
#pragma unroll
            for (int i = 0; i < HEAD / 2; i++) acc[i] *= shrink[i >> 1 & 1];
        };
        auto values = [&](int j) // the place of the values of tile j, once they are there
        {
            barrier_wait(ring.full(), ring.phase);
            if ((j + 1) * FWD_KEYS > length) clear_rows<FWD_KEYS>(local + queries + ring.slot * size, length - j * FWD_KEYS);
            return slots + ring.slot * size;
        };
        barrier_wait(qbar, 0);
#if FWD_OVERLAP
        // The softmax of a tile runs beside the second product of the tile before.
        barrier_wait(ring.full(), ring.phase);
        scores<ROWS, FWD_KEYS>(s, qt, slots + ring.slot * size);
        wgmma_wait<0>();
        settle(s);
        release(ring.empty());
        ring.next();
        softmax(last);
        as_operand(p, s);
        for (int j = last - 1; j >= first; j--)
        {
            barrier_wait(ring.full(), ring.phase);
            u32 keys = ring.empty();
            scores<ROWS, FWD_KEYS>(s, qt, slots + ring.slot * size);
            ring.next();
            product<FWD_KEYS>(acc, p, values(j + 1));
            wgmma_wait<1>();
            settle(s);
            release(keys);
            softmax(j);
            wgmma_wait<0>();
            settle(acc);
            settle(p);
            release(ring.empty());
            ring.next();
            rescale();
            as_operand(p, s);
        }
        product<FWD_KEYS>(acc, p, values(first));
        wgmma_wait<0>();
        settle(acc);
        settle(p);
#else
        for (int j = last; j >= first; j--)
        {
            barrier_wait(ring.full(), ring.phase);
            scores<ROWS, FWD_KEYS>(s, qt, slots + ring.slot * size);
            wgmma_wait<0>();
            settle(s);
            release(ring.empty());
            ring.next();
            softmax(j);
            rescale();
            as_operand(p, s);
            product<FWD_KEYS>(acc, p, values(j));
            wgmma_wait<0>();
            settle(acc);
            settle(p);
            release(ring.empty());
            ring.next();
        }
#endif
        float inverse[2];
        i64 ldq = (i64)heads * HEAD;
#pragma unroll
        for (int h = 0; h < 2; h++)
        {
            sum[h] += __shfl_xor_sync(0xFFFFFFFFu, sum[h], 1);
            sum[h] += __shfl_xor_sync(0xFFFFFFFFu, sum[h], 2);
            inverse[h] = 1.f / sum[h];
            int row = query + h * 8;
            if ((lane & 3) == 0 && row < length) lse[(i64)(start + row) * heads + head] = max[h] * scale + logf(sum[h]);
        }
        store_rows(local + wg * 8192, acc, inverse, o + (i64)(start + row0 + wg * 64) * ldq + (i64)head * HEAD, ldq, rows - wg * 64);
    }
}

// delta = rowsum(dO * O), eight elements a thread.
extern "C" __global__ void __launch_bounds__(256) flash_hopper_delta(const T* o, const T* dO, float* delta, int count)
{
    const int lanes = HEAD / 8;
    i64 at = (i64)blockIdx.x * 256 + threadIdx.x, row = at / lanes;
    float s = 0;
    if (row < count)
    {
        float a[8], b[8];
        load8(o + at * 8, a);
        load8(dO + at * 8, b);
#pragma unroll
        for (int i = 0; i < 8; i++) s += a[i] * b[i];
    }
#pragma unroll
    for (int d = lanes / 2; d > 0; d >>= 1) s += __shfl_xor_sync(0xFFFFFFFFu, s, d);
    if (row < count && (threadIdx.x & (lanes - 1)) == 0) delta[row] = s;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) flash_hopper_dq(const __grid_constant__ TensorMap mq, const __grid_constant__ TensorMap mk,
    const __grid_constant__ TensorMap mv, const __grid_constant__ TensorMap mg, const float* lse, const float* delta, const int* offsets, int sequences,
    int tiles, int heads, int kvHeads, int window, float scale, T* dq)
{
    extern __shared__ V4 memory[];
    __shared__ u64 bars[DQ_SLOTS * 2 + 1];
    int start, length, tile, head;
    if (!find_block(offsets, sequences, tiles, heads, true, head, start, length, tile)) return;
    const int size = DQ_KEYS * HEAD * 2, queries = ROWS * HEAD * 2;
    u32 raw = shared_address(memory), base = (raw + 1023) & ~1023u, slots = base + 2 * queries, bar = shared_address(bars), qbar = bar + DQ_SLOTS * 16;
    u8* local = (u8*)memory + (base - raw);
    Ring ring(bar, DQ_SLOTS);
    if (threadIdx.x == 0) { ring.init(); barrier_init(qbar, 1); barriers_ready(); }
    __syncthreads();
    int row0 = tile * ROWS, rows = length - row0 < ROWS ? length - row0 : ROWS;
    int first = window > 0 && row0 - window + 1 > 0 ? (row0 - window + 1) / DQ_KEYS : 0, last = (row0 + rows - 1) / DQ_KEYS;
    if (threadIdx.x >= 256)
    {
        few_registers();
        if (threadIdx.x == 256)
        {
            int column = head / (heads / kvHeads) * HEAD;
            barrier_expect(qbar, 2 * queries);
            fetch_tile<ROWS>(base, &mq, qbar, head * HEAD, start + row0);
            fetch_tile<ROWS>(base + queries, &mg, qbar, head * HEAD, start + row0);
            for (int n = 2 * last + 1; n >= 2 * first; n--)
            {
                barrier_wait(ring.empty(), ring.phase ^ 1);
                barrier_expect(ring.full(), size);
                fetch_tile<DQ_KEYS>(slots + ring.slot * size, n & 1 ? &mk : &mv, ring.full(), column, start + (n >> 1) * DQ_KEYS);
                ring.next();
            }
        }
    }
    else
    {
        many_registers();
        int wg = threadIdx.x >> 7, lane = threadIdx.x & 31, query = row0 + (threadIdx.x >> 5) * 16 + (lane >> 2), low = row0 + wg * 64;
        u32 qt = base + wg * 8192, gt = qt + queries;
        float acc[HEAD / 2], l[2], dl[2], factor = scale * LOG2E;
#pragma unroll
        for (int h = 0; h < 2; h++)
        {
            bool in = query + h * 8 < length;
            i64 at = (i64)(start + query + h * 8) * heads + head;
            l[h] = in ? lse[at] * LOG2E : 0.f;
            dl[h] = in ? delta[at] : 0.f;
        }
#pragma unroll
        for (int i = 0; i < HEAD / 2; i++) acc[i] = 0;
        barrier_wait(qbar, 0);
        for (int j = last; j >= first; j--)
        {
            float s[DQ_KEYS / 2], dp[DQ_KEYS / 2];
            u32 a[DQ_KEYS / 16][4], kt = slots + ring.slot * size, keys = ring.empty();
            int key0 = j * DQ_KEYS;
            barrier_wait(ring.full(), ring.phase);
            if (key0 + DQ_KEYS > length) clear_rows<DQ_KEYS>(local + 2 * queries + ring.slot * size, length - key0);
            scores<ROWS, DQ_KEYS>(s, qt, kt);
            ring.next();
            barrier_wait(ring.full(), ring.phase);
            scores<ROWS, DQ_KEYS>(dp, gt, slots + ring.slot * size);
            wgmma_wait<1>();
            settle(s);
#pragma unroll
            for (int i = 0; i < DQ_KEYS / 2; i++) s[i] = ex2(s[i] * factor - l[i >> 1 & 1]);
            if (key0 + DQ_KEYS - 1 > low || (window > 0 && key0 <= low + 63 - window)) hide(s, query, key0, window, 0.f);
            wgmma_wait<0>();
            settle(dp);
            release(ring.empty());
            ring.next();
#pragma unroll
            for (int i = 0; i < DQ_KEYS / 2; i++) s[i] *= dp[i] - dl[i >> 1 & 1];
            as_operand(a, s);
            product<DQ_KEYS>(acc, a, kt);
            wgmma_wait<0>();
            settle(acc);
            settle(a);
            release(keys);
        }
        float factors[2] = { scale, scale };
        i64 ldq = (i64)heads * HEAD;
        store_rows(local + wg * 8192, acc, factors, dq + (i64)(start + row0 + wg * 64) * ldq + (i64)head * HEAD, ldq, rows - wg * 64);
    }
}

// A block owns 128 keys of one key/value head and walks the queries that see them, 64 at a time, over all query heads of the group.
extern "C" __global__ void __launch_bounds__(THREADS, 1) flash_hopper_dkv(const __grid_constant__ TensorMap mq, const __grid_constant__ TensorMap mk,
    const __grid_constant__ TensorMap mv, const __grid_constant__ TensorMap mg, const float* lse, const float* delta, const int* offsets, int sequences,
    int tiles, int heads, int kvHeads, int window, float scale, T* dk, T* dv)
{
    extern __shared__ V4 memory[];
    __shared__ u64 bars[DKV_STAGES * 2 + 1];
    __shared__ float stats[DKV_STAGES][128]; // lse (base 2) and delta of 64 queries
    int start, length, tile, kvHead;
    if (!find_block(offsets, sequences, tiles, kvHeads, false, kvHead, start, length, tile)) return;
    const int size = 64 * HEAD * 2, keys = ROWS * HEAD * 2;
    u32 raw = shared_address(memory), base = (raw + 1023) & ~1023u, slots = base + 2 * keys, bar = shared_address(bars), kbar = bar + DKV_STAGES * 16;
    u8* local = (u8*)memory + (base - raw);
    Ring ring(bar, DKV_STAGES);
    if (threadIdx.x == 0) { ring.init(); barrier_init(kbar, 1); barriers_ready(); }
    __syncthreads();
    int key0 = tile * ROWS, group = heads / kvHeads;
    int end = window > 0 && key0 + ROWS - 1 + window < length ? key0 + ROWS - 1 + window : length;
    int steps = (end - key0 + 63) / 64, total = steps * group;
    if (threadIdx.x >= 256)
    {
        few_registers();
        if (threadIdx.x < 288)
        {
            int lane = threadIdx.x & 31;
            if (lane == 0)
            {
                barrier_expect(kbar, 2 * keys);
                fetch_tile<ROWS>(base, &mk, kbar, kvHead * HEAD, start + key0);
                fetch_tile<ROWS>(base + keys, &mv, kbar, kvHead * HEAD, start + key0);
            }
            int head = kvHead * group, at = key0;
            for (int step = 0; step < total; step++)
            {
                float x[4];
#pragma unroll
                for (int i = 0; i < 2; i++)
                {
                    int row = at + i * 32 + lane;
                    i64 n = (i64)(start + row) * heads + head;
                    x[i] = row < length ? lse[n] * LOG2E : 0.f;
                    x[2 + i] = row < length ? delta[n] : 0.f;
                }
                barrier_wait(ring.empty(), ring.phase ^ 1);
#pragma unroll
                for (int i = 0; i < 4; i++) stats[ring.slot][i * 32 + lane] = x[i];
                __syncwarp();
                if (lane == 0)
                {
                    barrier_expect(ring.full(), 2 * size);
                    fetch_tile<64>(slots + ring.slot * 2 * size, &mq, ring.full(), head * HEAD, start + at);
                    fetch_tile<64>(slots + ring.slot * 2 * size + size, &mg, ring.full(), head * HEAD, start + at);
                }
                ring.next();
                at += 64;
                if (at >= end) { at = key0; head++; }
            }
        }
    }
    else
    {
        many_registers();
        int wg = threadIdx.x >> 7, lane = threadIdx.x & 31, c = lane & 3, low = key0 + wg * 64, key = key0 + (threadIdx.x >> 5) * 16 + (lane >> 2);
        u32 kt = base + wg * 8192, vt = kt + keys;
        float dka[HEAD / 2], dva[HEAD / 2], s[32], dp[32], factor = scale * LOG2E;
        u32 pa[4][4], sa[4][4];
#pragma unroll
        for (int i = 0; i < HEAD / 2; i++) dka[i] = dva[i] = 0;
        int at = key0, step = 0;
        // Waits for the next queries this warpgroup's keys can see and starts their scores; false at the end.
        auto begin = [&]() -> bool
        {
            for (; step < total; step++)
            {
                barrier_wait(ring.full(), ring.phase);
                if (at + 64 > length)
                {
                    clear_rows<64>(local + 2 * keys + ring.slot * 2 * size, length - at);
                    clear_rows<64>(local + 2 * keys + ring.slot * 2 * size + size, length - at);
                }
                if (at + 63 >= low) break;
                release(ring.empty());
                ring.next();
                at = at + 64 < end ? at + 64 : key0;
            }
            if (step == total) return false;
            scores<ROWS, 64>(s, kt, slots + ring.slot * 2 * size);
            scores<ROWS, 64>(dp, vt, slots + ring.slot * 2 * size + size);
            step++;
            return true;
        };
        barrier_wait(kbar, 0);
        u32 used = 0; // empty barrier of the stage whose products may still run
        bool more = begin();
        while (more)
        {
            u32 qt = slots + ring.slot * 2 * size, gt = qt + size, empty = ring.empty();
            const float* ls = stats[ring.slot];
            int at0 = at;
            ring.next();
            at = at + 64 < end ? at + 64 : key0;
            wgmma_wait<1>();
            settle(s);
#if DKV_OVERLAP
            settle(dka);
            settle(dva);
            settle(sa);
            settle(pa);
            if (used) release(used); // groups end in order
#endif
#pragma unroll
            for (int n = 0; n < 8; n++)
            {
                float x = ls[n * 8 + 2 * c], y = ls[n * 8 + 2 * c + 1];
#pragma unroll
                for (int h = 0; h < 4; h += 2)
                {
                    s[n * 4 + h] = ex2(s[n * 4 + h] * factor - x);
                    s[n * 4 + h + 1] = ex2(s[n * 4 + h + 1] * factor - y);
                }
            }
            if (at0 < low + 63 || at0 + 64 > length || (window > 0 && low <= at0 + 63 - window))
#pragma unroll
                for (int i = 0; i < 32; i++)
                {
                    int query = at0 + (i >> 2) * 8 + 2 * c + (i & 1), k = key + (i >> 1 & 1) * 8;
                    if (k > query || query >= length || (window > 0 && k <= query - window)) s[i] = 0;
                }
            as_operand(pa, s);
            product<64>(dva, pa, gt);
            wgmma_wait<1>();
            settle(dp);
#pragma unroll
            for (int n = 0; n < 8; n++)
            {
                float x = ls[64 + n * 8 + 2 * c], y = ls[64 + n * 8 + 2 * c + 1];
#pragma unroll
                for (int h = 0; h < 4; h += 2)
                {
                    dp[n * 4 + h] = s[n * 4 + h] * (dp[n * 4 + h] - x);
                    dp[n * 4 + h + 1] = s[n * 4 + h + 1] * (dp[n * 4 + h + 1] - y);
                }
            }
            as_operand(sa, dp);
            product<64>(dka, sa, qt);
#if DKV_OVERLAP
            used = empty;
            more = begin();
#else
            wgmma_wait<0>();
            settle(dka);
            settle(dva);
            settle(sa);
            settle(pa);
            release(empty);
            more = begin();
#endif
        }
#if DKV_OVERLAP
        wgmma_wait<0>();
        settle(dka);
        settle(dva);
        settle(sa);
        settle(pa);
#endif
        float factors[2] = { scale, scale }, ones[2] = { 1, 1 };
        i64 ldk = (i64)kvHeads * HEAD, to = (i64)(start + low) * ldk + (i64)kvHead * HEAD;
        store_rows(local + wg * 8192, dka, factors, dk + to, ldk, length - low);
        store_rows(local + keys + wg * 8192, dva, ones, dv + to, ldk, length - low);
    }
}
#endif
