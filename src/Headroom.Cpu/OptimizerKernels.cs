using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>Global gradient norm and AdamW.</summary>
internal static unsafe class OptimizerKernels
{
    private const int MaxChunks = 256;
    private const long MinChunk = 1 << 15;

    private struct NormContext
    {
        public float* X;
        public double* Partial;
        public long Count, Chunk;
    }

    /// <summary>Chunks depend on a tensor's size only and are added in order.</summary>
    [SkipLocalsInit]
    public static double GlobalNorm(WorkerPool pool, ReadOnlySpan<Tensor> tensors)
    {
        double* partial = stackalloc double[MaxChunks];
        double total = 0;
        foreach (var x in tensors)
        {
            var c = new NormContext
            {
                X = x.F,
                Partial = partial,
                Count = x.Count,
                Chunk = Math.Max(MinChunk, (x.Count + MaxChunks - 1) / MaxChunks),
            };
            int parts = (int)((c.Count + c.Chunk - 1) / c.Chunk);
            pool.Run(&NormPart, &c, parts);
            for (int i = 0; i < parts; i++) total += partial[i];
        }
        return Math.Sqrt(total);
    }

    private static void NormPart(void* context, int part, int worker)
    {
        var c = (NormContext*)context;
        long from = part * c->Chunk;
        c->Partial[part] = SumSquares(c->X + from, Math.Min(c->Chunk, c->Count - from));
    }

    /// <summary>Sum of squares in double.</summary>
    public static double SumSquares(float* x, long n)
    {
        Vector256<double> s0 = default, s1 = default;
        long i = 0;
        for (; i <= n - 8; i += 8)
        {
            var (low, high) = Vector256.Widen(Vector256.Load(x + i));
            s0 = Vector256.FusedMultiplyAdd(low, low, s0);
            s1 = Vector256.FusedMultiplyAdd(high, high, s1);
        }
        return Vector256.Sum(s0 + s1) + SumSquaresScalar(x + i, n - i);
    }

    /// <summary>Scalar twin of <see cref="SumSquares"/>.</summary>
    public static double SumSquaresScalar(float* x, long n)
    {
        double sum = 0;
        for (long i = 0; i < n; i++) sum += (double)x[i] * x[i];
        return sum;
    }

    /// <summary>The constants of one update of a tensor as the kernel uses them.</summary>
    internal readonly struct Constants(in AdamWStep step, in ParameterSlot slot)
    {
        public readonly float Scale = step.GradScale;
        public readonly float Decay = (float)(1.0 - step.LearningRate * slot.RateRatio * slot.WeightDecay);
        public readonly float OneMinusBeta1 = (float)(1.0 - step.Beta1);
        public readonly float Beta2 = (float)step.Beta2;
        public readonly float OneMinusBeta2 = (float)(1.0 - step.Beta2);
        public readonly float Root = (float)Math.Sqrt(1.0 - Math.Pow(step.Beta2, step.Step));
        public readonly float Eps = (float)step.Epsilon;
        public readonly float Size =
            (float)(step.LearningRate * slot.RateRatio / (1.0 - Math.Pow(step.Beta1, step.Step)));
    }

    private struct AdamContext
    {
        public ParameterSlot* Slots;
        public AdamWStep Step;
    }

    public static void AdamW(WorkerPool pool, ReadOnlySpan<ParameterSlot> slots, in AdamWStep step)
    {
        fixed (ParameterSlot* first = slots)
        {
            var c = new AdamContext { Slots = first, Step = step };
            pool.Run(&SlotPart, &c, slots.Length);
            for (int i = 0; i < slots.Length; i++)
            {
                if (first[i].Weight.Count <= MinChunk) continue;
                c.Slots = first + i;
                pool.Run(&ChunkPart, &c, (int)((first[i].Weight.Count + MinChunk - 1) / MinChunk));
            }
        }
    }

    // Small slots are one part each; large ones are cut by ChunkPart.
    private static void SlotPart(void* context, int part, int worker)
    {
        var c = (AdamContext*)context;
        var s = c->Slots + part;
        if (s->Weight.Count > MinChunk) return;
        Update(s->Weight.F, s->Grad.F, s->M.F, s->V.F, (int)s->Weight.Count, new Constants(c->Step, *s));
    }

    private static void ChunkPart(void* context, int part, int worker)
    {
        var c = (AdamContext*)context;
        var s = c->Slots;
        long from = part * MinChunk;
        Update(s->Weight.F + from, s->Grad.F + from, s->M.F + from, s->V.F + from,
            (int)Math.Min(MinChunk, s->Weight.Count - from), new Constants(c->Step, *s));
    }

    /// <summary>
    /// Decay, first moment, second moment, denominator, step: the order of torch's single-tensor AdamW.
    /// </summary>
    public static void Update(float* p, float* g, float* m, float* v, int n, in Constants k)
    {
        Vector256<float> eps = Vector256.Create(k.Eps), root = Vector256.Create(k.Root);
        int i = 0;
        for (; i <= n - 8; i += 8)
        {
            var grad = Vector256.Load(g + i) * k.Scale;
            var m0 = Vector256.Load(m + i);
            m0 += (grad - m0) * k.OneMinusBeta1;
            var v0 = Vector256.Load(v + i) * k.Beta2 + grad * grad * k.OneMinusBeta2;
            var denominator = Vector256.Sqrt(v0) / root + eps;
            Vector256.Store(m0, m + i);
            Vector256.Store(v0, v + i);
            Vector256.Store(Vector256.Load(p + i) * k.Decay - m0 / denominator * k.Size, p + i);
        }
        UpdateScalar(p + i, g + i, m + i, v + i, n - i, k);
    }

    /// <summary>Scalar twin of <see cref="Update"/>.</summary>
    public static void UpdateScalar(float* p, float* g, float* m, float* v, int n, in Constants k)
    {
        for (int i = 0; i < n; i++)
        {
            float grad = g[i] * k.Scale;
            m[i] += (grad - m[i]) * k.OneMinusBeta1;
            v[i] = v[i] * k.Beta2 + grad * grad * k.OneMinusBeta2;
            float denominator = MathF.Sqrt(v[i]) / k.Root + k.Eps;
            p[i] = p[i] * k.Decay - m[i] / denominator * k.Size;
        }
    }
}
