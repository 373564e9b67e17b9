// Shared by all kernels. No CUDA headers: 16-bit types are their bits, conversions are PTX or bit arithmetic.
// constants.cuh and structs.cuh are made of host code (KernelHeader.cs): what both must agree on.
// ACT, one of the kinds, chooses the activation type T.
#include "constants.cuh"
#ifndef ACT
#define ACT KIND_F32
#endif
#define DEV __device__ __forceinline__
#define INFINITY_F __uint_as_float(0x7F800000u)

// float32 compute is held to float32 accuracy; 16-bit compute takes the fast exponential.
#if ACT == KIND_F32
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

#if ACT == KIND_BF16
typedef bf16 T;
#elif ACT == KIND_F16
typedef f16 T;
#else
typedef float T;
#endif
#include "structs.cuh"

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

// Philox4x32-10 (Salmon et al., SC 2011), as Headroom.Core.Philox. The micro-step's number and the keys of the rounds are words of the module and no
// arguments: a recorded micro-step can be replayed with others, and an instruction takes them from constant memory without a register or an addition.
extern "C" { __constant__ u32 dropout_step; __constant__ u32 dropout_keys[2 * PHILOX_ROUNDS]; }
// The four random words of block b: of elements 8 b .. 8 b + 7, two a word.
DEV void philox(u64 block, u32 site, u32* out)
{
    u32 c0 = (u32)block, c1 = (u32)(block >> 32), c2 = site, c3 = dropout_step;
#pragma unroll
    for (int r = 0; r < PHILOX_ROUNDS; r++)
    {
        u64 p0 = (u64)PHILOX_M0 * c0, p1 = (u64)PHILOX_M1 * c2; // one wide multiply each
        c0 = (u32)(p1 >> 32) ^ c1 ^ dropout_keys[2 * r]; c1 = (u32)p1; c2 = (u32)(p0 >> 32) ^ c3 ^ dropout_keys[2 * r + 1]; c3 = (u32)p0;
    }
    out[0] = c0; out[1] = c1; out[2] = c2; out[3] = c3;
}
// All ones in the halves of kept elements, the low half for the even one. The numbers are compared as positive floats, whose order is that of their bits
// (and what is no number is kept): one instruction a pair, in the pipe that the integer work of Philox leaves free.
DEV void mask_words(const Mask& m, u64 block, u32* keep)
{
    u32 r[4];
    philox(block, m.site, r);
#pragma unroll
    for (int i = 0; i < 4; i++)
        asm("{ .reg .b32 t; abs.f16x2 t, %1; set.geu.u32.f16x2 %0, t, %2; }" : "=r"(keep[i]) : "r"(r[i]), "r"(m.threshold));
}
// Multipliers of elements 8 * block .. 8 * block + 7: 0 or 1 / (1 - p).
DEV void mask8(const Mask& m, u64 block, float* f)
{
    u32 k[4];
    mask_words(m, block, k);
#pragma unroll
    for (int i = 0; i < 4; i++)
    {
        f[2 * i] = k[i] & 0xFFFFu ? m.keep : 0.f;
        f[2 * i + 1] = k[i] >> 16 ? m.keep : 0.f;
    }
}
DEV float mask1(const Mask& m, u64 index)
{
    float f[8];
    mask8(m, index >> 3, f);
    int lane = (int)(index & 7);
    float x = f[0];
#pragma unroll
    for (int i = 1; i < 8; i++) x = lane == i ? f[i] : x;
    return x;
}

// Of a block of NF4 codes: absmax is a float per block, or (nested) map[code] * nestedAbsmax[block >> NESTED_SHIFT] + offset in two roundings.
DEV float nf4_absmax(const void* absmax, const float* nested, const float* offset, const float* map, i64 block)
{
    if (!nested) return ((const float*)absmax)[block];
    return __fadd_rn(__fmul_rn(map[((const u8*)absmax)[block]], nested[block >> NESTED_SHIFT]), *offset);
}
