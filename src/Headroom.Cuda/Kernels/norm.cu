// RMSNorm, fused residual add, gradient; ldy: elements from one row of y to the next. One block a row; the second pass over a row hits the first-level cache.

DEV void norm_row(const T* x, const float* w, float eps, T* y, float* rstd, int h, float squares)
{
    float r = 1.f / sqrtf(block_sum(squares) / h + eps);
    if (threadIdx.x == 0) *rstd = r;
    if ((h & 7) == 0)
        for (int i = threadIdx.x * 8; i < h; i += blockDim.x * 8)
        {
            float v[8], g[8];
            load8(x + i, v); load8(w + i, g);
            for (int k = 0; k < 8; k++) v[k] = v[k] * r * g[k];
            store8(y + i, v);
        }
    else for (int i = threadIdx.x; i < h; i += blockDim.x) from_f(to_f(x[i]) * r * w[i], y[i]);
}

extern "C" __global__ void rms_norm(const T* x, const float* w, float eps, T* y, float* rstd, int h, int ldy)
{
    i64 at = (i64)blockIdx.x * h;
    x += at;
    float s = 0;
    if ((h & 7) == 0)
        for (int i = threadIdx.x * 8; i < h; i += blockDim.x * 8)
        {
            float v[8];
            load8(x + i, v);
            for (int k = 0; k < 8; k++) s += v[k] * v[k];
        }
    else for (int i = threadIdx.x; i < h; i += blockDim.x) s += to_f(x[i]) * to_f(x[i]);
    norm_row(x, w, eps, y + (i64)blockIdx.x * ldy, rstd + blockIdx.x, h, s);
}

// The norm is of the stored (rounded) sum, which is what the backward pass reads. Each thread reads back only what it wrote.
extern "C" __global__ void add_rms_norm(const T* x, const T* branch, const float* w, float eps, T* sum, T* y, float* rstd, int h, int ldy)
{
    i64 at = (i64)blockIdx.x * h;
    x += at; branch += at; sum += at;
    float s = 0;
    if ((h & 7) == 0)
        for (int i = threadIdx.x * 8; i < h; i += blockDim.x * 8)
        {
            float v[8], b[8];
            load8(x + i, v); load8(branch + i, b);
            for (int k = 0; k < 8; k++) { v[k] = to_f(make<T>(v[k] + b[k])); s += v[k] * v[k]; }
            store8(sum + i, v);
        }
    else for (int i = threadIdx.x; i < h; i += blockDim.x)
    {
        float v = to_f(make<T>(to_f(x[i]) + to_f(branch[i])));
        from_f(v, sum[i]);
        s += v * v;
    }
    norm_row(sum, w, eps, y + (i64)blockIdx.x * ldy, rstd + blockIdx.x, h, s);
}

// dx += rstd * (dy * w - x * rstd^2 * mean(dy * w * x)).
extern "C" __global__ void rms_norm_backward(const T* x, const float* w, const float* rstd, const T* dy, T* dx, int h, int ldy)
{
    i64 at = (i64)blockIdx.x * h;
    x += at; dy += (i64)blockIdx.x * ldy; dx += at;
    float r = rstd[blockIdx.x], dot = 0;
    bool wide = (h & 7) == 0;
    if (wide)
        for (int i = threadIdx.x * 8; i < h; i += blockDim.x * 8)
        {
            float v[8], g[8], u[8];
            load8(x + i, v); load8(w + i, g); load8(dy + i, u);
            for (int k = 0; k < 8; k++) dot += u[k] * g[k] * v[k];
        }
    else for (int i = threadIdx.x; i < h; i += blockDim.x) dot += to_f(dy[i]) * w[i] * to_f(x[i]);
    float c = block_sum(dot) / h * r * r * r;
    if (wide)
        for (int i = threadIdx.x * 8; i < h; i += blockDim.x * 8)
        {
            float v[8], g[8], u[8], d[8];
            load8(x + i, v); load8(w + i, g); load8(dy + i, u); load8(dx + i, d);
            for (int k = 0; k < 8; k++) d[k] += u[k] * g[k] * r - v[k] * c;
            store8(dx + i, d);
        }
    else for (int i = threadIdx.x; i < h; i += blockDim.x)
        from_f(to_f(dx[i]) + to_f(dy[i]) * w[i] * r - to_f(x[i]) * c, dx[i]);
}

// A thread a column, tokens in order.
extern "C" __global__ void rms_norm_weight(const T* x, const float* rstd, const T* dy, float* dw, int rows, int h, int ldy)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= h) return;
    float s = dw[i];
    for (int t = 0; t < rows; t++) s += to_f(dy[(i64)t * ldy + i]) * rstd[t] * to_f(x[(i64)t * h + i]);
    dw[i] = s;
}
