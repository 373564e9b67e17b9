// Blocks of GGUF files expanded to T just before their product, eight values a thread; the arithmetic is Headroom.Core.GgmlBlocks, rounding by rounding.
// Every field lies at an even address, so bytes are read in pairs.

DEV float half_at(const u8* p) { return to_f(*(const f16*)p); }

DEV void bytes8(const u8* p, u32* q)
{
#pragma unroll
    for (int k = 0; k < 4; k++)
    {
        u32 pair = ((const u16*)p)[k];
        q[2 * k] = pair & 255;
        q[2 * k + 1] = pair >> 8;
    }
}

// The 16 values of IQ4_NL, a byte each in two registers pairs.
DEV float iq4(u32 code) { return (float)(signed char)((code & 8 ? 0x7159453526190D01ull : 0xF6EADDCFBFAD9881ull) >> (8 * (code & 7))); }

// Scale and minimum of group j; b points at the 12 scale bytes of Q4_K or Q5_K.
DEV void scale_min(const u8* b, int j, u32& scale, u32& min)
{
    if (j < 4) { scale = b[j] & 63; min = b[j + 4] & 63; }
    else { scale = (b[j + 4] & 15) | ((b[j - 4] >> 6) << 4); min = (b[j + 4] >> 4) | ((b[j] >> 6) << 4); }
}

// Values i .. i + 7 of the block at b; i is a multiple of 8.
template <int TYPE> DEV void gguf8(const u8* b, int i, float* v)
{
    u32 q[8], r[8];
    if (TYPE == Q8_0)
    {
        float d = half_at(b);
        bytes8(b + 2 + i, q);
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] = __fmul_rn(d, (float)(signed char)q[k]);
    }
    else if (TYPE == Q2_K)
    {
        int half = i >> 7, shift = 2 * ((i >> 5) & 3), s = b[i >> 4];
        float d = __fmul_rn(half_at(b + 80), (float)(s & 15)), m = __fmul_rn(half_at(b + 82), (float)(s >> 4));
        bytes8(b + 16 + 32 * half + (i & 31), q);
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] = __fadd_rn(__fmul_rn(d, (float)((q[k] >> shift) & 3)), -m);
    }
    else if (TYPE == Q3_K)
    {
        int half = i >> 7, shift = 2 * ((i >> 5) & 3), s = i >> 4;
        const u8* packed = b + 96;
        int scale = (int)((s < 8 ? packed[s] & 15 : packed[s - 8] >> 4) | (((packed[8 + (s & 3)] >> (2 * (s >> 2))) & 3) << 4)) - 32;
        float d = __fmul_rn(half_at(b + 108), (float)scale);
        bytes8(b + 32 + 32 * half + (i & 31), q);
        bytes8(b + (i & 31), r);
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] = __fmul_rn(d, (float)((int)((q[k] >> shift) & 3) - ((r[k] >> (i >> 5)) & 1 ? 0 : 4)));
    }
    else if (TYPE == Q4_K || TYPE == Q5_K)
    {
        int g = i >> 5;
        u32 scale, min;
        scale_min(b + 4, g, scale, min);
        float d = __fmul_rn(half_at(b), (float)scale), m = __fmul_rn(half_at(b + 2), (float)min);
        bytes8(b + (TYPE == Q5_K ? 48 : 16) + 32 * (g >> 1) + (i & 31), q);
        if (TYPE == Q5_K) bytes8(b + 16 + (i & 31), r);
#pragma unroll
        for (int k = 0; k < 8; k++)
        {
            u32 c = (q[k] >> (4 * (g & 1))) & 15;
            if (TYPE == Q5_K) c |= ((r[k] >> g) & 1) << 4;
            v[k] = __fadd_rn(__fmul_rn(d, (float)c), -m);
        }
    }
    else if (TYPE == Q6_K)
    {
        int half = i >> 7, run = (i >> 5) & 3, l = i & 31;
        float d = __fmul_rn(half_at(b + 208), (float)(signed char)b[192 + (i >> 4)]);
        bytes8(b + 64 * half + 32 * (run & 1) + l, q);
        bytes8(b + 128 + 32 * half + l, r);
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] = __fmul_rn(d, (float)((int)(((q[k] >> (4 * (run >> 1))) & 15) | (((r[k] >> (2 * run)) & 3) << 4)) - 32));
    }
    else if (TYPE == IQ4_XS)
    {
        int g = i >> 5, l = i & 31;
        int scale = (int)(((b[4 + (g >> 1)] >> (4 * (g & 1))) & 15) | (((*(const u16*)(b + 2) >> (2 * g)) & 3) << 4)) - 32;
        float d = __fmul_rn(half_at(b), (float)scale);
        bytes8(b + 8 + 16 * g + (l & 15), q);
#pragma unroll
        for (int k = 0; k < 8; k++) v[k] = __fmul_rn(d, iq4((q[k] >> (l < 16 ? 0 : 4)) & 15));
    }
    else
    {
        const bool shifted = TYPE == Q4_1 || TYPE == Q5_1, five = TYPE == Q5_0 || TYPE == Q5_1;
        const u8* high = b + (shifted ? 4 : 2);
        float d = half_at(b), m = shifted ? half_at(b + 2) : 0.f;
        bytes8(high + (five ? 4 : 0) + (i & 15), q);
        u32 bits = five ? high[i >> 3] : 0;
#pragma unroll
        for (int k = 0; k < 8; k++)
        {
            u32 c = (q[k] >> (i < 16 ? 0 : 4)) & 15;
            if (five) c |= ((bits >> k) & 1) << 4;
            v[k] = shifted ? __fadd_rn(__fmul_rn((float)c, d), m) : __fmul_rn(TYPE == IQ4_NL ? iq4(c) : (float)((int)c - (five ? 16 : 8)), d);
        }
    }
}

// expand_*: n values of consecutive blocks. embed_*: the row of each token; rowBytes apart, h values each.
template <int TYPE, int VALUES, int BYTES> DEV void expand(const u8* src, T* dst, i64 n)
{
    i64 stride = (i64)gridDim.x * blockDim.x * 8;
    for (i64 at = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8; at < n; at += stride)
    {
        float v[8];
        gguf8<TYPE>(src + at / VALUES * BYTES, (int)(at % VALUES), v);
        store8(dst + at, v);
    }
}
template <int TYPE, int VALUES, int BYTES> DEV void embed(const int* ids, const u8* table, T* y, i64 rowBytes, int h)
{
    const u8* row = table + ids[blockIdx.x] * rowBytes;
    T* dst = y + (i64)blockIdx.x * h;
    for (int at = threadIdx.x * 8; at < h; at += blockDim.x * 8)
    {
        float v[8];
        gguf8<TYPE>(row + at / VALUES * BYTES, at % VALUES, v);
        store8(dst + at, v);
    }
}

#define GGUF_KERNELS(NAME, TYPE) \
    extern "C" __global__ void __launch_bounds__(256) expand_##NAME(const u8* src, T* dst, i64 n) { expand<TYPE, TYPE##_VALUES, TYPE##_BYTES>(src, dst, n); } \
    extern "C" __global__ void embed_##NAME(const int* ids, const u8* table, T* y, i64 rowBytes, int h) { embed<TYPE, TYPE##_VALUES, TYPE##_BYTES>(ids, table, y, rowBytes, h); }

GGUF_KERNELS(q4_0, Q4_0)
GGUF_KERNELS(q4_1, Q4_1)
GGUF_KERNELS(q5_0, Q5_0)
GGUF_KERNELS(q5_1, Q5_1)
GGUF_KERNELS(q8_0, Q8_0)
GGUF_KERNELS(q2_k, Q2_K)
GGUF_KERNELS(q3_k, Q3_K)
GGUF_KERNELS(q4_k, Q4_K)
GGUF_KERNELS(q5_k, Q5_K)
GGUF_KERNELS(q6_k, Q6_K)
GGUF_KERNELS(iq4_nl, IQ4_NL)
GGUF_KERNELS(iq4_xs, IQ4_XS)
