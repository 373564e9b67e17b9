// Stored weights expanded to T just before their product.

// Elements of a kind; INT8 with an absmax a row.
extern "C" __global__ void expand_plain(const void* src, const float* absmax, int kind, T* dst, i64 n, int columns)
{
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride)
    {
        float v = kind == KIND_F32 ? ((const float*)src)[i] : kind == KIND_BF16 ? to_f(((const bf16*)src)[i])
            : kind == KIND_F16 ? to_f(((const f16*)src)[i]) : (float)((const signed char*)src)[i] * (absmax[i / columns] / 127.f);
        from_f(v, dst[i]);
    }
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

// NF4: elements first .. first + n of the flattened weight, first a multiple of 8. Block sizes are powers of two (shift).
// A block takes EXPAND_OCTETS (blocks from "main" on: of the tail) and ends; a thread has EACH of them in flight.
#define EACH (EXPAND_OCTETS / EXPAND_THREADS)
extern "C" __global__ void __launch_bounds__(EXPAND_THREADS, 6) expand_nf4(const u8* codes, const void* absmax, const float* nested, const float* offset, const float* tables,
    int shift, T* dst, i64 first, i64 n, ColumnsBehind tail, int main)
{
    __shared__ float code[16];
    const float* map = tables + TABLES_MAP;
    if (threadIdx.x < 16) code[threadIdx.x] = tables[threadIdx.x];
    __syncthreads();
    if (shift < 3 || (n & 7) != 0)
    {
        for (i64 at = (i64)blockIdx.x * (EXPAND_OCTETS * 8) + threadIdx.x; at < n && at < (i64)(blockIdx.x + 1) * (EXPAND_OCTETS * 8); at += EXPAND_THREADS)
        {
            i64 e = first + at;
            u8 b = codes[e >> 1];
            from_f(__fmul_rn(code[(e & 1) == 0 ? b >> 4 : b & 15], nf4_absmax(absmax, nested, offset, map, e >> shift)), dst[at]);
        }
        return;
    }
    if ((int)blockIdx.x >= main)
    {
        int each = tail.pad >> 3;
        for (u32 o = (blockIdx.x - main) * EXPAND_OCTETS + threadIdx.x, k = 0; k < EACH; k++, o += EXPAND_THREADS)
        {
            int row = o / each;
            if (row >= tail.rows) return;
            int column = (int)(o - row * each) * 8, from = column - tail.column;
            float v[8] = {};
            if (from >= 0 && from < tail.rank)
            {
                load8(tail.b + (i64)row * tail.rank + from, v);
#pragma unroll
                for (int i = 0; i < 8; i++) v[i] *= tail.scale;
            }
            store8(dst + row * ((i64)tail.octets * 8 + tail.pad) + (i64)tail.octets * 8 + column, v);
        }
        return;
    }
    const u32* words = (const u32*)(codes + (first >> 1));
    u32 octets = (u32)(n >> 3), at = blockIdx.x * EXPAND_OCTETS + threadIdx.x, block0 = (u32)(first >> 3);
    u32 c[EACH];
    float a[EACH];
#pragma unroll
    for (u32 u = 0; u < EACH; u++)
        if (at + u * EXPAND_THREADS < octets) c[u] = words[at + u * EXPAND_THREADS];
#pragma unroll
    for (u32 u = 0; u < EACH; u++)
        if (at + u * EXPAND_THREADS < octets) a[u] = nf4_absmax(absmax, nested, offset, map, (block0 + at + u * EXPAND_THREADS) >> (shift - 3));
#pragma unroll
    for (u32 u = 0; u < EACH; u++)
    {
        u32 o = at + u * EXPAND_THREADS;
        if (o >= octets) return;
        i64 d = (i64)o * 8;
        if (tail.pad) d += (__umulhi(o, tail.magic) >> tail.shift) * tail.pad;
        expand8(c[u], a[u], code, dst + d);
    }
}
