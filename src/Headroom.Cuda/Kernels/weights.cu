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

extern "C" __global__ void __launch_bounds__(256) expand_nf4(const u8* codes, const void* absmax, const float* nested, const float* offset, const float* tables,
    int shift, T* dst, i64 first, i64 n)
{
    __shared__ float code[16], map[256];
    if (threadIdx.x < 16) code[threadIdx.x] = tables[threadIdx.x];
    map[threadIdx.x] = tables[16 + threadIdx.x];
    __syncthreads();
    i64 stride = (i64)gridDim.x * blockDim.x * 8;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8; i < n; i += stride)
    {
        i64 e = first + i;
        if (i + 8 <= n && shift >= 3)
        {
            u32 c = *(const u32*)(codes + (e >> 1));
            float a = nf4_absmax(absmax, nested, offset, map, e >> shift), v[8];
#pragma unroll
            for (int k = 0; k < 4; k++)
            {
                u32 b = c >> (8 * k);
                v[2 * k] = __fmul_rn(code[(b >> 4) & 15], a);
                v[2 * k + 1] = __fmul_rn(code[b & 15], a);
            }
            store8(dst + i, v);
        }
        else for (i64 k = 0; k < 8 && i + k < n; k++)
        {
            u8 b = codes[(e + k) >> 1];
            from_f(code[((e + k) & 1) == 0 ? b >> 4 : b & 15] * nf4_absmax(absmax, nested, offset, map, (e + k) >> shift), dst[i + k]);
        }
    }
}
