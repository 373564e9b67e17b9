using System.Runtime.Intrinsics;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>RMSNorm, the residual add fused with it, and the gradient.</summary>
internal static unsafe class RmsNormKernels
{
    private const int Rows = 8, Columns = 64;

    private struct Context
    {
        public float* X, Branch, Weight, Sum, Y, Rstd, Dx, DWeight;
        public float Eps;
        public int Count, H;
    }

    /// <summary>branch and sum may be none: then the norm of x.</summary>
    public static void Forward(
        WorkerPool pool, Tensor x, Tensor branch, Tensor weight, float eps, Tensor sum, Tensor y, Tensor rstd)
    {
        var c = new Context
        {
            X = x.F,
            Branch = branch.F,
            Weight = weight.F,
            Sum = sum.F,
            Y = y.F,
            Rstd = rstd.F,
            Eps = eps,
            Count = x.Rows,
            H = x.Columns,
        };
        pool.Run(&ForwardPart, &c, (c.Count + Rows - 1) / Rows);
    }

    private static void ForwardPart(void* context, int part, int worker)
    {
        var c = (Context*)context;
        int end = Math.Min(c->Count, (part + 1) * Rows), h = c->H;
        for (int t = part * Rows; t < end; t++)
        {
            float* x = c->X + (long)t * h;
            if (c->Branch != null)
            {
                float* sum = c->Sum + (long)t * h;
                AddTo(x, c->Branch + (long)t * h, sum, h);
                x = sum;
            }
            c->Rstd[t] = Row(x, c->Weight, c->Eps, c->Y + (long)t * h, h);
        }
    }

    private static void AddTo(float* a, float* b, float* y, int n)
    {
        int i = 0;
        for (; i <= n - 8; i += 8) Vector256.Store(Vector256.Load(a + i) + Vector256.Load(b + i), y + i);
        for (; i < n; i++) y[i] = a[i] + b[i];
    }

    /// <summary>One row; returns rstd.</summary>
    public static float Row(float* x, float* weight, float eps, float* y, int n)
    {
        float rstd = 1f / MathF.Sqrt(VectorMath.Dot(x, x, n) / n + eps);
        int i = 0;
        for (; i <= n - 8; i += 8) Vector256.Store(Vector256.Load(x + i) * rstd * Vector256.Load(weight + i), y + i);
        for (; i < n; i++) y[i] = x[i] * rstd * weight[i];
        return rstd;
    }

    /// <summary>Scalar twin of <see cref="Row"/>.</summary>
    public static float RowScalar(float* x, float* weight, float eps, float* y, int n)
    {
        float rstd = 1f / MathF.Sqrt(VectorMath.DotScalar(x, x, n) / n + eps);
        for (int i = 0; i < n; i++) y[i] = x[i] * rstd * weight[i];
        return rstd;
    }

    public static void Backward(
        WorkerPool pool, Tensor x, Tensor weight, Tensor rstd, Tensor dy, Tensor dx, Tensor dWeight)
    {
        var c = new Context
        {
            X = x.F,
            Weight = weight.F,
            Rstd = rstd.F,
            Y = dy.F,
            Dx = dx.F,
            DWeight = dWeight.F,
            Count = x.Rows,
            H = x.Columns,
        };
        if (!dWeight.IsNone) pool.Run(&WeightPart, &c, (c.H + Columns - 1) / Columns);
        pool.Run(&BackwardPart, &c, (c.Count + Rows - 1) / Rows);
    }

    private static void BackwardPart(void* context, int part, int worker)
    {
        var c = (Context*)context;
        int end = Math.Min(c->Count, (part + 1) * Rows);
        for (int t = part * Rows; t < end; t++)
        {
            long at = (long)t * c->H;
            RowBackward(c->X + at, c->Weight, c->Rstd[t], c->Y + at, c->Dx + at, c->H);
        }
    }

    /// <summary>dx += rstd * (dy * w - x * rstd^2 * mean(dy * w * x)).</summary>
    public static void RowBackward(float* x, float* weight, float rstd, float* dy, float* dx, int n)
    {
        Vector256<float> s0 = default, s1 = default;
        int i = 0;
        for (; i <= n - 16; i += 16)
        {
            s0 = Vector256.FusedMultiplyAdd(
                Vector256.Load(dy + i) * Vector256.Load(weight + i), Vector256.Load(x + i), s0);
            s1 = Vector256.FusedMultiplyAdd(
                Vector256.Load(dy + i + 8) * Vector256.Load(weight + i + 8), Vector256.Load(x + i + 8), s1);
        }
        float dot = Vector256.Sum(s0 + s1);
        for (; i < n; i++) dot = MathF.FusedMultiplyAdd(dy[i] * weight[i], x[i], dot);
        float k = dot / n * rstd * rstd * rstd;
        var vr = Vector256.Create(rstd);
        var vk = Vector256.Create(-k);
        for (i = 0; i <= n - 8; i += 8)
        {
            var g = Vector256.FusedMultiplyAdd(
                Vector256.Load(dy + i) * Vector256.Load(weight + i), vr, Vector256.Load(x + i) * vk);
            Vector256.Store(Vector256.Load(dx + i) + g, dx + i);
        }
        for (; i < n; i++) dx[i] += MathF.FusedMultiplyAdd(dy[i] * weight[i], rstd, x[i] * -k);
    }

    /// <summary>Scalar twin of <see cref="RowBackward"/>.</summary>
    public static void RowBackwardScalar(float* x, float* weight, float rstd, float* dy, float* dx, int n)
    {
        float dot = 0;
        for (int i = 0; i < n; i++) dot += dy[i] * weight[i] * x[i];
        float k = dot / n * rstd * rstd * rstd;
        for (int i = 0; i < n; i++) dx[i] += dy[i] * weight[i] * rstd - x[i] * k;
    }

    /// <summary>A slice of columns, tokens in order: the sum does not depend on the number of threads.</summary>
    private static void WeightPart(void* context, int part, int worker)
    {
        var c = (Context*)context;
        int from = part * Columns, n = Math.Min(Columns, c->H - from);
        float* dw = c->DWeight + from;
        for (int t = 0; t < c->Count; t++)
        {
            float* x = c->X + (long)t * c->H + from, dy = c->Y + (long)t * c->H + from;
            float rstd = c->Rstd[t];
            int i = 0;
            for (; i <= n - 8; i += 8)
                Vector256.Store(
                    Vector256.FusedMultiplyAdd(
                        Vector256.Load(dy + i) * rstd, Vector256.Load(x + i), Vector256.Load(dw + i)),
                    dw + i
                );
            for (; i < n; i++) dw[i] = MathF.FusedMultiplyAdd(dy[i] * rstd, x[i], dw[i]);
        }
    }
}
