// Memory and element-wise ops over T.
#include "swiglu.cuh"

extern "C" __global__ void add(const T* x, T* y, i64 n)
{
    i64 stride = (i64)gridDim.x * blockDim.x * 8;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8; i < n; i += stride)
    {
        if (i + 8 <= n)
        {
            float a[8], b[8];
            load8(x + i, a); load8(y + i, b);
            for (int k = 0; k < 8; k++) b[k] += a[k];
            store8(y + i, b);
        }
        else for (i64 k = i; k < n; k++) from_f(to_f(x[k]) + to_f(y[k]), y[k]);
    }
}

extern "C" __global__ void gather_rows(const T* x, const int* rows, T* y, int n)
{
    const T* s = x + (i64)rows[blockIdx.x] * n;
    T* d = y + (i64)blockIdx.x * n;
    for (int i = threadIdx.x; i < n; i += blockDim.x) d[i] = s[i];
}

extern "C" __global__ void scatter_rows(const T* y, const int* rows, T* x, int n)
{
    const T* s = y + (i64)blockIdx.x * n;
    T* d = x + (i64)rows[blockIdx.x] * n;
    for (int i = threadIdx.x; i < n; i += blockDim.x) d[i] = s[i];
}

// Of a table of a kind; INT8 with an absmax a row.
extern "C" __global__ void embedding(const int* ids, const void* table, const float* absmax, int kind, T* y, int h)
{
    i64 row = ids[blockIdx.x];
    T* d = y + (i64)blockIdx.x * h;
    float scale = kind == KIND_INT8 ? absmax[row] / 127.f : 0.f;
    for (int i = threadIdx.x; i < h; i += blockDim.x)
    {
        i64 at = row * h + i;
        float v = kind == KIND_F32 ? ((const float*)table)[at] : kind == KIND_BF16 ? to_f(((const bf16*)table)[at])
            : kind == KIND_F16 ? to_f(((const f16*)table)[at]) : (float)((const signed char*)table)[at] * scale;
        from_f(v, d[i]);
    }
}

// NEFTune (EmbeddingNoise): y += u alpha / sqrt(length of the row's sequence * h), a block of four columns a thread and turn.
extern "C" __global__ void add_noise(T* y, const int* offsets, int sequences, float alpha, i64 site, int h)
{
    int row = blockIdx.x, first = 0, end = sequences; // the last sequence that begins at or before the row: empty ones come before it
    while (end - first > 1)
    {
        int middle = (first + end) / 2;
        if (offsets[middle] <= row) first = middle;
        else end = middle;
    }
    float most = alpha / sqrtf((float)(offsets[first + 1] - offsets[first]) * (float)h);
    T* d = y + (i64)row * h;
    for (int i = 4 * threadIdx.x; i < h; i += 4 * blockDim.x)
    {
        u32 r[4];
        philox((u64)row << 32 | (u32)i / 4, (u32)site, r);
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (i + k < h) from_f(to_f(d[i + k]) + most * ((float)(r[k] >> 8) * (1.f / (1 << 23)) - 1.f), d[i + k]);
    }
}

// The block of a token's first occurrence adds all its occurrences, in token order: no atomics.
extern "C" __global__ void embedding_backward(const int* ids, const T* dy, float* table, int tokens, int h)
{
    int t = blockIdx.x, id = ids[t], earlier = 0;
    for (int s = threadIdx.x; s < t; s += blockDim.x) earlier |= ids[s] == id;
    if (__syncthreads_or(earlier)) return;
    float* d = table + (i64)id * h;
    for (int s = t; s < tokens; s++)
    {
        if (ids[s] != id) continue;
        const T* g = dy + (i64)s * h;
        for (int i = threadIdx.x; i < h; i += blockDim.x) d[i] += to_f(g[i]);
    }
}

// Double precision, because the angle grows with the position; the angle itself is rounded to float as in the reference.
extern "C" __global__ void rope_table(const int* positions, const float* inv, float factor, float* co, float* si, int half)
{
    float p = (float)positions[blockIdx.x];
    for (int i = threadIdx.x; i < half; i += blockDim.x)
    {
        double s, c;
        sincos((double)__fmul_rn(p, inv[i]), &s, &c);
        co[(i64)blockIdx.x * half + i] = __fmul_rn((float)c, factor);
        si[(i64)blockIdx.x * half + i] = __fmul_rn((float)s, factor);
    }
}

extern "C" __global__ void rope(T* x, const float* co, const float* si, int heads, int half, float sign)
{
    i64 row = blockIdx.x;
    const float* c = co + row * half;
    const float* s = si + row * half;
    T* r = x + row * heads * 2 * half;
    if ((half & 7) == 0)
    {
        int per = half >> 3;
        for (int i = threadIdx.x; i < heads * per; i += blockDim.x)
        {
            int k = (i % per) * 8;
            T* a = r + (i64)(i / per) * 2 * half + k;
            float u[8], v[8], cv[8], sv[8];
            load8(a, u); load8(a + half, v); load8(c + k, cv); load8(s + k, sv);
            for (int j = 0; j < 8; j++)
            {
                float f = u[j], g = v[j], z = sign * sv[j];
                u[j] = f * cv[j] - g * z;
                v[j] = g * cv[j] + f * z;
            }
            store8(a, u); store8(a + half, v);
        }
        return;
    }
    for (int i = threadIdx.x; i < heads * half; i += blockDim.x)
    {
        int k = i % half;
        T* a = r + (i64)(i / half) * 2 * half + k;
        float f = to_f(a[0]), g = to_f(a[half]), z = sign * s[k];
        from_f(f * c[k] - g * z, a[0]);
        from_f(g * c[k] + f * z, a[half]);
    }
}

// Rows of y may be pad columns wider; magic = ceil(2^MAGIC_SHIFT / octets of a row) finds the row.
extern "C" __global__ void swiglu(const T* gate, const T* up, T* y, i64 n, int pad, u64 magic)
{
    i64 stride = (i64)gridDim.x * blockDim.x * 8;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8; i < n; i += stride)
    {
        if (i + 8 <= n)
        {
            float g[8], u[8];
            load8(gate + i, g); load8(up + i, u);
            for (int k = 0; k < 8; k++) g[k] = silu(g[k]) * u[k];
            store8(pad ? y + i + ((u64)(i >> 3) * magic >> MAGIC_SHIFT) * pad : y + i, g);
        }
        else for (i64 k = i; k < n; k++) from_f(silu(to_f(gate[k])) * to_f(up[k]), y[k]);
    }
}

// Rows of dy and y may be pad columns wider.
extern "C" __global__ void swiglu_backward(const T* gate, const T* up, const T* dy, T* dgate, T* dup, T* y, i64 n, int pad, u64 magic)
{
    i64 stride = (i64)gridDim.x * blockDim.x * 8;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8; i < n; i += stride)
    {
        if (i + 8 <= n)
        {
            float g[8], u[8], d[8];
            i64 wide = pad ? i + ((u64)(i >> 3) * magic >> MAGIC_SHIFT) * pad : i;
            load8(gate + i, g); load8(up + i, u); load8(dy + wide, d);
            for (int k = 0; k < 8; k++) swiglu_grad(g[k], u[k], d[k], g[k], u[k], d[k]);
            store8(dgate + i, g); store8(dup + i, u);
            if (y) store8(y + wide, d);
        }
        else for (i64 k = i; k < n; k++)
        {
            float a, b, z;
            swiglu_grad(to_f(gate[k]), to_f(up[k]), to_f(dy[k]), a, b, z);
            from_f(a, dgate[k]); from_f(b, dup[k]);
            if (y) from_f(z, y[k]);
        }
    }
}

extern "C" __global__ void add_bias(const float* bias, T* y, int n)
{
    T* r = y + (i64)blockIdx.x * n;
    for (int i = threadIdx.x; i < n; i += blockDim.x) from_f(to_f(r[i]) + bias[i], r[i]);
}

// Column sums in row order.
extern "C" __global__ void bias_backward(const T* dy, float* dbias, int rows, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float sum = dbias[i];
    for (int t = 0; t < rows; t++) sum += to_f(dy[(i64)t * n + i]);
    dbias[i] = sum;
}

// dst [rows, columns] = src, whose rows are ld elements apart.
extern "C" __global__ void pack_rows(const T* src, T* dst, int columns, int ld)
{
    for (int i = threadIdx.x; i < columns; i += blockDim.x) dst[(i64)blockIdx.x * columns + i] = src[(i64)blockIdx.x * ld + i];
}

// y = mask * x, elements numbered from first on (a multiple of 8 unless the count is small).
extern "C" __global__ void dropout(const T* x, T* y, i64 first, i64 n, Mask m)
{
    i64 stride = (i64)gridDim.x * blockDim.x * 8;
    bool aligned = (first & 7) == 0 && (((u64)x | (u64)y) & 15) == 0;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8; i < n; i += stride)
    {
        if (aligned && i + 8 <= n)
        {
            float v[8], f[8];
            load8(x + i, v);
            mask8(m, (u64)(first + i) >> 3, f);
            for (int k = 0; k < 8; k++) v[k] *= f[k];
            store8(y + i, v);
        }
        else for (i64 k = i; k < n && k < i + 8; k++) from_f(to_f(x[k]) * mask1(m, first + k), y[k]);
    }
}

// y += mask * x; rows of y may be pad columns wider than the columns of x.
extern "C" __global__ void dropout_add(const T* x, T* y, i64 first, i64 n, Mask m, int columns, int pad)
{
    i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride)
    {
        T& to = y[pad ? i + i / columns * pad : i];
        from_f(to_f(to) + to_f(x[i]) * mask1(m, first + i), to);
    }
}
