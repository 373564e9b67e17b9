// Softmax cross-entropy over rows of float32 logits. The gradient, of type T, overwrites the row's own memory (leading dimension
// in T = row bytes / sizeof(T)): a chunk is read by the whole block before its narrower result is written.

DEV void row_max_sum(const float* z, int v, float& max, float& sum)
{
    float m = -INFINITY_F, s = 0;
    for (int i = threadIdx.x; i < v; i += blockDim.x)
    {
        float x = z[i];
        if (x > m) { s = s * EXP(m - x) + 1.f; m = x; }
        else if (m > -INFINITY_F) s += EXP(x - m);
    }
    max = block_max(m);
    sum = block_sum(m == -INFINITY_F ? 0.f : s * EXP(m - max));
}

// Rows with a label below 0 do not count: loss and gradient 0. The scale is read from memory, so that a recorded micro-step can be replayed with another one.
// Weights null = 1. Without smoothing no bit is another than without that parameter.
extern "C" __global__ void cross_entropy(float* logits, const int* labels, const float* weights, const float* gradScale, float smoothing, float* losses,
    int v, int gradient)
{
    float* z = logits + (i64)blockIdx.x * v;
    int label = labels[blockIdx.x];
    if (label < 0)
    {
        if (threadIdx.x == 0) losses[blockIdx.x] = 0.f;
        if (gradient)
            for (int i = threadIdx.x; i < v; i += blockDim.x) from_f(0.f, ((T*)z)[i]);
        return;
    }
    float max, sum;
    row_max_sum(z, v, max, sum);
    float mean = 0;
    if (smoothing > 0.f)
    {
        float total = 0;
        for (int i = threadIdx.x; i < v; i += blockDim.x) total += z[i];
        mean = block_sum(total) / v;
    }
    if (threadIdx.x == 0)
        losses[blockIdx.x] = logf(sum) + max - (smoothing > 0.f ? (1.f - smoothing) * z[label] + smoothing * mean : z[label]);
    if (!gradient) return;
    __syncthreads();
    float scale = weights ? *gradScale * weights[blockIdx.x] : *gradScale;
    float k = scale / sum, hit = scale * (1.f - smoothing), each = scale * smoothing / v;
    T* d = (T*)z;
    for (int start = 0; start < v; start += blockDim.x)
    {
        int i = start + threadIdx.x;
        float g = 0;
        if (i < v) g = EXP(z[i] - max) * k - (i == label ? hit : 0.f) - each;
        __syncthreads();
        if (i < v) from_f(g, d[i]);
        __syncthreads();
    }
}

// scores[row, c] = z[candidates[c]]; lse over the whole row.
extern "C" __global__ void pick_scores(const float* logits, const int* candidates, int count, float* scores, float* lse, int v)
{
    const float* z = logits + (i64)blockIdx.x * v;
    float max, sum;
    row_max_sum(z, v, max, sum);
    if (threadIdx.x == 0) lse[blockIdx.x] = logf(sum) + max;
    for (int c = threadIdx.x; c < count; c += blockDim.x) scores[(i64)blockIdx.x * count + c] = z[candidates[c]];
}
