using System.Runtime.Intrinsics;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>
/// Row-wise softmax of a logits chunk: cross-entropy with its gradient in place, or candidate logits with the
/// log-sum-exp.
/// </summary>
internal static unsafe class SoftmaxRows
{
    private struct Job
    {
        public Tensor Z, Labels, Weights, Losses, Scores;
        public float GradScale, Smoothing;
        public bool Gradient;
    }

    /// <summary>
    /// losses[i] = log-sum-exp - (1 - e) z[label] - e mean(z), e the label smoothing; with <paramref name="gradient"/>,
    /// z becomes gradScale * weights[i] * (softmax - (1 - e) onehot - e / V), weights none = 1. Zeros where the label
    /// is negative.
    /// </summary>
    public static void CrossEntropy(
        WorkerPool pool, Tensor z, Tensor labels, Tensor weights, float gradScale, float smoothing, Tensor losses,
        bool gradient)
    {
        var job = new Job
        {
            Z = z,
            Labels = labels,
            Weights = weights,
            Losses = losses,
            GradScale = gradScale,
            Smoothing = smoothing,
            Gradient = gradient,
        };
        pool.Run(&CrossEntropyRow, &job, z.Rows);
    }

    /// <summary>scores[i, c] = z[i, candidates[c]]; lse[i] = log-sum-exp of the row.</summary>
    public static void Pick(WorkerPool pool, Tensor z, Tensor candidates, Tensor scores, Tensor lse)
    {
        var job = new Job { Z = z, Labels = candidates, Scores = scores, Losses = lse };
        pool.Run(&PickRow, &job, z.Rows);
    }

    private static void CrossEntropyRow(void* context, int row, int worker)
    {
        ref var j = ref *(Job*)context;
        int n = j.Z.Columns, label = j.Labels.I[row];
        float* z = j.Z.F + (long)row * n;
        if (label < 0)
        {
            j.Losses.F[row] = 0;
            if (j.Gradient) new Span<float>(z, n).Clear();
            return;
        }
        float e = j.Smoothing, max = Max(z, n);
        float target = e == 0 ? z[label] : (1 - e) * z[label] + e * (Sum(z, n) / n);
        float sum = ExpSum(z, n, max, j.Gradient);
        j.Losses.F[row] = MathF.Log(sum) + max - target;
        if (!j.Gradient) return;
        float whole = j.Weights.IsNone ? j.GradScale : j.GradScale * j.Weights.F[row];
        // Without smoothing the subtraction changes no bit.
        float scale = whole / sum, each = whole * e / n;
        int i = 0;
        for (; i + 16 <= n; i += 16)
            (Vector512.Load(z + i) * Vector512.Create(scale) - Vector512.Create(each)).Store(z + i);
        for (; i < n; i++) z[i] = z[i] * scale - each;
        z[label] -= whole * (1 - e);
    }

    private static void PickRow(void* context, int row, int worker)
    {
        ref var j = ref *(Job*)context;
        int n = j.Z.Columns, c = (int)j.Labels.Count;
        float* z = j.Z.F + (long)row * n;
        for (int i = 0; i < c; i++) j.Scores.F[(long)row * c + i] = z[j.Labels.I[i]];
        float max = Max(z, n);
        j.Losses.F[row] = MathF.Log(ExpSum(z, n, max, false)) + max;
    }

    private static float Max(float* z, int n)
    {
        var m = Vector512.Create(float.NegativeInfinity);
        int i = 0;
        for (; i + 16 <= n; i += 16) m = Vector512.Max(m, Vector512.Load(z + i));
        float max = float.NegativeInfinity;
        for (int l = 0; l < 16; l++) max = MathF.Max(max, m[l]);
        for (; i < n; i++) max = MathF.Max(max, z[i]);
        return max;
    }

    private static float Sum(float* z, int n)
    {
        var sums = Vector512<float>.Zero;
        int i = 0;
        for (; i + 16 <= n; i += 16) sums += Vector512.Load(z + i);
        float sum = Vector512.Sum(sums);
        for (; i < n; i++) sum += z[i];
        return sum;
    }

    private static float ExpSum(float* z, int n, float max, bool store)
    {
        var sums = Vector512<float>.Zero;
        var m = Vector512.Create(max);
        int i = 0;
        for (; i + 16 <= n; i += 16)
        {
            var e = VectorMath.Exp(Vector512.Load(z + i) - m);
            sums += e;
            if (store) e.Store(z + i);
        }
        float sum = Vector512.Sum(sums);
        for (; i < n; i++)
        {
            float e = VectorMath.Exp(z[i] - max);
            sum += e;
            if (store) z[i] = e;
        }
        return sum;
    }
}
