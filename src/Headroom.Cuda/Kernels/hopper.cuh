// What the Hopper kernels share: mbarriers, bulk tensor copies into swizzled tiles, warpgroup products (wgmma), the blocks' places.
// Compiled for sm_90a; elsewhere nothing of it exists.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define ROWS HOPPER_ROWS   // rows of a block
#define PANELS (HEAD / 64) // a shared tile is panels of 64 columns: rows of 128 bytes, 16-byte chunks swizzled by row & 7
#define KEYS HOPPER_KEYS   // keys of a step over keys, QUERIES of a step over queries
#define QUERIES HOPPER_QUERIES
#define SLOTS HOPPER_SLOTS // shared tiles of KEYS (or two of QUERIES) rows in the ring
#ifndef HEADS_AT_ONCE
#define HEADS_AT_ONCE 8
#endif
#define LOG2E 1.4426950408889634f

// ---- registers, barriers, copies

// The producer gives registers to the consumers: 24 and 240 of 168 each.
DEV void few_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 24;" ::: "memory"); }
DEV void many_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 240;" ::: "memory"); }

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

struct alignas(TENSOR_MAP_BOUNDARY) TensorMap { u64 words[TENSOR_MAP_BYTES / 8]; };

// A tile of R rows and HEAD columns at (column, row) of a tensor, in boxes of HOPPER_BOX x HOPPER_BOX. Rows past the tensor come as zeros.
template <int R> DEV void fetch_tile(u32 to, const TensorMap* map, u32 bar, int column, int row)
{
#pragma unroll
    for (int p = 0; p < PANELS; p++)
#pragma unroll
        for (int r = 0; r < R; r += HOPPER_BOX)
            asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
                :: "r"(to + p * R * 128 + r * 128), "l"(map), "r"(bar), "r"(column + p * HOPPER_BOX), "r"(row + r) : "memory");
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

// A position in the ring of shared tiles: a full and an empty barrier each, then one barrier for the tiles that stay.
struct Ring
{
    u32 bars, phase;
    int slot;
    DEV Ring(u32 bars) : bars(bars), phase(0), slot(0) {}
    DEV u32 full() const { return bars + slot * 16; }
    DEV u32 empty() const { return bars + slot * 16 + 8; }
    DEV u32 staying() const { return bars + SLOTS * 16; }
    DEV void next() { if (++slot == SLOTS) { slot = 0; phase ^= 1; } }
    DEV void wait() const { barrier_wait(full(), phase); }
    DEV void wait_empty() const { barrier_wait(empty(), phase ^ 1); }
    DEV void init(int producers, int consumers) const
    {
        for (int i = 0; i < SLOTS; i++) { barrier_init(bars + i * 16, producers); barrier_init(bars + i * 16 + 8, consumers); }
        barrier_init(staying(), 1);
        barriers_ready();
    }
};
// A warp has done with a slot that only the copy engine fills.
DEV void release(u32 empty) { if ((threadIdx.x & 31) == 0) barrier_arrive(empty); }
// A thread has done with a slot that the producer's threads fill too: all 256 arrive, so that no store can pass a load. Costs nothing measurable.
DEV void release_all(u32 empty) { barrier_arrive(empty); }

// ---- warpgroup products

#if ACT == KIND_BF16
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

// A block's sequence, head and tile of rows. A few heads run side by side, so that their keys and values stay in the second-level cache;
// tiles with most work come first.
struct Place { int start, length, tile, head; };
DEV bool find_place(const int* offsets, int sequences, int tiles, int heads, int block, bool lateFirst, Place& p)
{
    int most = heads < HEADS_AT_ONCE ? heads : HEADS_AT_ONCE, group = block / (tiles * most), rest = block % (tiles * most);
    int count = heads - group * most < most ? heads - group * most : most, index = rest / count;
    p.head = group * most + rest % count;
    for (int s = 0; s < sequences; s++)
    {
        p.start = offsets[s];
        p.length = offsets[s + 1] - p.start;
        int n = (p.length + ROWS - 1) / ROWS;
        if (index < n) { p.tile = lateFirst ? n - 1 - index : index; return true; }
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

// Shared memory of a block: tiles at a boundary of HOPPER_BOUNDARY bytes (the swizzle counts from there), by address and by pointer.
struct Tiles
{
    u32 base;
    u8* local;
    DEV Tiles(V4* memory)
    {
        u32 raw = shared_address(memory);
        base = (raw + HOPPER_BOUNDARY - 1) & ~(u32)(HOPPER_BOUNDARY - 1);
        local = (u8*)memory + (base - raw);
    }
};
#endif
