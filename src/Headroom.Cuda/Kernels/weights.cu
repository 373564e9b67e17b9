// Stored weights expanded to T just before their product.

// One element of storage kind 0 F32, 1 BF16, 2 F16, 3 INT8; a grid-stride loop of 8 elements a thread where the count allows.
extern "C" __global__ void expand_plain(const void* src, const float* absmax, int kind, T* dst, i64 n, int columns)
{
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride)
    {
        float v = kind == 0 ? ((const float*)src)[i] : kind == 1 ? to_f(((const bf16*)src)[i])
            : kind == 2 ? to_f(((const f16*)src)[i]) : (float)((const signed char*)src)[i] * (absmax[i / columns] / 127.f);
        from_f(v, dst[i]);
    }
}

// NF4: elements first .. first + n of the flattened weight, first a multiple of 8. Block sizes are powers of two (shift).
// absmax is a float per block, or (nested) map[code] * nestedAbsmax[block / 256] + offset in two roundings.
DEV float nf4_absmax(const void* absmax, const float* nested, const float* offset, const float* map, i64 block)
{
    if (!nested) return ((const float*)absmax)[block];
    return __fadd_rn(__fmul_rn(map[((const u8*)absmax)[block]], nested[block >> 8]), *offset);
}

DEV void expand8(u32 c, float a, const float* code, T* dst)
{
    float v[8];
#pragma unroll
    for (int k = 0; k < 4; k++)
    {
        u32 b = c >> (8 * k);
        v[2 * k] = __fmul_rn(code[(b >> 4) & 15], a);
        v[2 * k + 1] = __fmul_rn(code[b & 15], a);
    }
    store8(dst, v);
}

extern "C" __global__ void __launch_bounds__(256) expand_nf4(const u8* codes, const void* absmax, const float* nested, const float* offset, const float* tables,
    int shift, T* dst, i64 first, i64 n)
{
    __shared__ float code[16], map[256];
    if (threadIdx.x < 16) code[threadIdx.x] = tables[threadIdx.x];
    map[threadIdx.x] = tables[16 + threadIdx.x];
    __syncthreads();
    // Four independent pieces of eight elements a thread: enough loads in flight to keep the memory busy.
    i64 wave = (i64)gridDim.x * 256 * 8, at = ((i64)blockIdx.x * 256 + threadIdx.x) * 8;
    if (shift >= 3)
        for (; at + 3 * wave + 8 <= n; at += 4 * wave)
        {
            u32 c[4];
            float a[4];
#pragma unroll
            for (int u = 0; u < 4; u++) c[u] = *(const u32*)(codes + ((first + at + u * wave) >> 1));
#pragma unroll
            for (int u = 0; u < 4; u++) a[u] = nf4_absmax(absmax, nested, offset, map, (first + at + u * wave) >> shift);
#pragma unroll
            for (int u = 0; u < 4; u++) expand8(c[u], a[u], code, dst + at + u * wave);
        }
    for (; at < n; at += wave)
    {
        i64 e = first + at;
        if (at + 8 <= n && shift >= 3) expand8(*(const u32*)(codes + (e >> 1)), nf4_absmax(absmax, nested, offset, map, e >> shift), code, dst + at);
        else for (i64 k = 0; k < 8 && at + k < n; k++)
        {
            u8 b = codes[(e + k) >> 1];
            from_f(__fmul_rn(code[((e + k) & 1) == 0 ? b >> 4 : b & 15], nf4_absmax(absmax, nested, offset, map, (e + k) >> shift)), dst[at + k]);
        }
    }
}
