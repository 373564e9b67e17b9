// Shared by all kernels. No CUDA headers: 16-bit types are their bits, conversions are PTX or bit arithmetic.
// ACT chooses the activation type T: 0 float, 1 bfloat16, 2 half.
#ifndef ACT
#define ACT 0
#endif
#define DEV __device__ __forceinline__
#define INFINITY_F __uint_as_float(0x7F800000u)

// float32 compute is held to float32 accuracy; 16-bit compute takes the fast exponential.
#if ACT == 0
#define EXP expf
#else
#define EXP __expf
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct bf16 { u16 u; };
struct f16 { u16 u; };
struct alignas(16) V4 { u32 x, y, z, w; };
struct alignas(16) F4 { float x, y, z, w; };
struct alignas(8) V2 { u32 x, y; };

#if ACT == 1
typedef bf16 T;
#elif ACT == 2
typedef f16 T;
#else
typedef float T;
#endif

DEV float to_f(float x) { return x; }
DEV float to_f(bf16 x) { return __uint_as_float((u32)x.u << 16); }
DEV float to_f(f16 x) { float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(x.u)); return f; }

DEV void from_f(float f, float& x) { x = f; }
DEV void from_f(float f, f16& x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(x.u) : "f"(f)); }
// Round to nearest even; NaN stays NaN.
DEV void from_f(float f, bf16& x)
{
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(x.u) : "f"(f));
#else
    u32 u = __float_as_uint(f);
    x.u = f != f ? (u16)0x7FC0 : (u16)((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
#endif
}
template <class A> DEV A make(float f) { A a; from_f(f, a); return a; }

// Two 16-bit values in a register, the first in the low half.
// Two single conversions: the paired instruction measured 35 % slower in the NF4 expansion on an H200 (50 against 37 us for 45 M elements).
DEV u32 pack2(bf16, float lo, float hi) { return (u32)make<bf16>(lo).u | ((u32)make<bf16>(hi).u << 16); }
DEV u32 pack2(f16, float lo, float hi) { return (u32)make<f16>(lo).u | ((u32)make<f16>(hi).u << 16); }
DEV void unpack2(bf16, u32 v, float& lo, float& hi) { lo = __uint_as_float(v << 16); hi = __uint_as_float(v & 0xFFFF0000u); }
DEV void unpack2(f16, u32 v, float& lo, float& hi) { f16 a, b; a.u = (u16)v; b.u = (u16)(v >> 16); lo = to_f(a); hi = to_f(b); }

// Eight elements at a 16-byte boundary.
DEV void load8(const float* p, float* v)
{
    F4 a = *(const F4*)p, b = *(const F4*)(p + 4);
    v[0] = a.x; v[1] = a.y; v[2] = a.z; v[3] = a.w; v[4] = b.x; v[5] = b.y; v[6] = b.z; v[7] = b.w;
}
template <class A> DEV void load8(const A* p, float* v)
{
    V4 a = *(const V4*)p;
    unpack2(A(), a.x, v[0], v[1]); unpack2(A(), a.y, v[2], v[3]); unpack2(A(), a.z, v[4], v[5]); unpack2(A(), a.w, v[6], v[7]);
}
DEV void store8(float* p, const float* v)
{
    F4 a, b;
    a.x = v[0]; a.y = v[1]; a.z = v[2]; a.w = v[3]; b.x = v[4]; b.y = v[5]; b.z = v[6]; b.w = v[7];
    *(F4*)p = a; *(F4*)(p + 4) = b;
}
template <class A> DEV void store8(A* p, const float* v)
{
    V4 a;
    a.x = pack2(A(), v[0], v[1]); a.y = pack2(A(), v[2], v[3]); a.z = pack2(A(), v[4], v[5]); a.w = pack2(A(), v[6], v[7]);
    *(V4*)p = a;
}

DEV float warp_sum(float x)
{
    for (int d = 16; d > 0; d >>= 1) x += __shfl_xor_sync(0xFFFFFFFFu, x, d);
    return x;
}
DEV float warp_max(float x)
{
    for (int d = 16; d > 0; d >>= 1) x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, d));
    return x;
}

// Sum over the block in a fixed order; every thread gets it. Blocks are whole warps, at most 1,024 threads.
DEV float block_sum(float x)
{
    __shared__ float part[32];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0) part[warp] = x;
    __syncthreads();
    return warp_sum(lane < warps ? part[lane] : 0.f);
}
DEV float block_max(float x)
{
    __shared__ float part[32];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
    x = warp_max(x);
    __syncthreads();
    if (lane == 0) part[warp] = x;
    __syncthreads();
    return warp_max(lane < warps ? part[lane] : -INFINITY_F);
}

// Philox4x32-10 (Salmon et al., SC 2011), as Headroom.Core.Philox.
struct Mask { u32 key0, key1, step, site, threshold; float keep; };
DEV void philox(u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1, u32* out)
{
#pragma unroll
    for (int r = 0; r < 10; r++)
    {
        u64 p0 = (u64)0xD2511F53u * c0, p1 = (u64)0xCD9E8D57u * c2; // one wide multiply each
        c0 = (u32)(p1 >> 32) ^ c1 ^ k0; c1 = (u32)p1; c2 = (u32)(p0 >> 32) ^ c3 ^ k1; c3 = (u32)p0;
        k0 += 0x9E3779B9u; k1 += 0xBB67AE85u;
    }
    out[0] = c0; out[1] = c1; out[2] = c2; out[3] = c3;
}
// Multipliers of elements 4 * block .. 4 * block + 3: 0 or 1 / (1 - p).
DEV void mask4(const Mask& m, u64 block, float* f)
{
    u32 r[4];
    philox((u32)block, (u32)(block >> 32), m.site, m.step, m.key0, m.key1, r);
#pragma unroll
    for (int i = 0; i < 4; i++) f[i] = (r[i] >> 8) >= m.threshold ? m.keep : 0.f;
}
// Keeps or clears four packed 16-bit elements; the factor 1 / (1 - p) is left to the caller.
DEV void keep4(const Mask& m, u64 block, u32& a, u32& b)
{
    u32 r[4], t = m.threshold << 8;
    philox((u32)block, (u32)(block >> 32), m.site, m.step, m.key0, m.key1, r);
    a &= (r[0] >= t ? 0x0000FFFFu : 0u) | (r[1] >= t ? 0xFFFF0000u : 0u);
    b &= (r[2] >= t ? 0x0000FFFFu : 0u) | (r[3] >= t ? 0xFFFF0000u : 0u);
}
DEV float mask1(const Mask& m, u64 index)
{
    float f[4];
    mask4(m, index >> 2, f);
    int lane = (int)(index & 3);
    return lane == 0 ? f[0] : lane == 1 ? f[1] : lane == 2 ? f[2] : f[3];
}

// Of a block of NF4 codes: absmax is a float per block, or (nested) map[code] * nestedAbsmax[block / 256] + offset in two roundings.
DEV float nf4_absmax(const void* absmax, const float* nested, const float* offset, const float* map, i64 block)
{
    if (!nested) return ((const float*)absmax)[block];
    return __fadd_rn(__fmul_rn(map[((const u8*)absmax)[block]], nested[block >> 8]), *offset);
}
