using System.Globalization;
using Headroom.Core;
using Headroom.Formats.Peft;
using Headroom.Inference;
using Headroom.Inference.Bases;
using Headroom.Inference.Export;
using Headroom.Models;

namespace Headroom.Training.Adapters;

/// <summary>
/// Where adapters start (PEFT <c>lora/layer.py</c>, reset_lora_parameters): random, or from the base's own singular
/// vectors. PiSSA (Meng et al., 2024) gives the adapter the leading triplets of each weight and takes them out of the
/// base; LoftQ (Li et al., 2023) gives it the leading triplets of what quantization loses.
/// </summary>
internal static class AdapterStart
{
    private const string Iterations = "pissa_niter_";

    /// <summary>The values of init_lora_weights; N is a number of iterations.</summary>
    public static IReadOnlyList<string> Names { get; } =
    ["true", "false", "gaussian", "pissa", Iterations + "N", "loftq"];

    /// <summary>True for a value of init_lora_weights that can be used.</summary>
    public static bool Known(string init) =>
        init is "true" or "false" or "gaussian" or "pissa" or "loftq"
        || init.StartsWith(Iterations, StringComparison.Ordinal) && NIter(init) is >= 0 and <= 1000;

    /// <summary>True when the start is made from the base's weights in full precision.</summary>
    public static bool TakesWeights(string init) =>
        init == "loftq" || init.StartsWith("pissa", StringComparison.Ordinal);

    /// <summary>
    /// Sets the adapters of an engine that holds the base of <paramref name="source"/> to their start. With PiSSA, and
    /// LoftQ of several iterations, the projections are stored anew; <see cref="Engine.Initial"/> then is what was
    /// taken out of them.
    /// </summary>
    /// <exception cref="HeadroomException">The base is quantized already, or a rank is too large.</exception>
    public static void Run(Engine engine, IWeightSource source, ulong seed, Action<long, long>? progress = null)
    {
        var lora = engine.Settings.Lora ?? throw new InvalidOperationException("no adapter");
        string init = lora.InitLoraWeights;
        if (!TakesWeights(init))
        {
            engine.InitializeAdapters(seed);
            return;
        }
        AdapterBase.Original(source, $"init_lora_weights: {init}");
        var adapted = engine.Model.Projections.Where(p => p.Rank > 0).ToList();
        long total = adapted.Sum(p => (long)p.Weight.Out * p.Weight.In), done = 0;
        var taken = new Dictionary<string, (long[], float[])>();
        float[] weight = [], work = [];
        for (int i = 0; i < adapted.Count; i++)
        {
            var p = adapted[i];
            int m = p.Weight.Out, n = p.Weight.In, count = checked(m * n);
            if (p.Rank > Math.Min(m, n))
                throw new HeadroomException(
                    $"The rank {p.Rank} of {p.Path} is larger than a side of its weight [{m}, {n}].",
                    $"With init_lora_weights: {init}, set lora.r to {Math.Min(m, n)} or less.");
            if (weight.Length < count) (weight, work) = (new float[count], new float[count]);
            source.ReadRows(p.Path + ".weight", 0, m, weight.AsSpan(0, count));
            var start = new ProjectionStart(engine, p, weight.AsMemory(0, count), work.AsMemory(0, count),
                lora.For(p.Path).Scaling, seed + (ulong)i, taken);
            var (a, b) = init == "loftq"
                ? start.Loftq(lora.LoftqConfig.LoftqIter)
                : start.Pissa(init == "pissa" ? null : NIter(init));
            engine.Write(p.A, a);
            engine.Write(p.B, b);
            p.StartMagnitude(engine.Device.Ops);
            progress?.Invoke(done += count, total);
        }
        if (taken.Count > 0) engine.Initial = new PeftAdapter { Lora = Plain(lora), Tensors = taken };
    }

    // What was taken out of the base is an adapter without anything of its training.
    private static LoraConfig Plain(LoraConfig lora) => lora with
    {
        LoraDropout = 0,
        UseDora = false,
        InitLoraWeights = "true",
        LoftqConfig = new(),
        ModulesToSave = [],
        EnsureWeightTying = false,
    };

    // The start of one projection's adapter: Weight [m, n] as the base has it, Work room of its size.
    private readonly record struct ProjectionStart(
        Engine Engine, Projection P, ReadOnlyMemory<float> Weight, Memory<float> Work, float Scaling, ulong Seed,
        Dictionary<string, (long[], float[])> Taken)
    {
        private int M => P.Weight.Out;
        private int N => P.Weight.In;

        public (float[] A, float[] B) Pissa(int? iterations)
        {
            var pair = Leading(Weight, iterations);
            TakeOut(pair);
            return pair;
        }

        public (float[] A, float[] B) Loftq(int iterations)
        {
            for (int t = 1; ; t++)
            {
                var pair = Leading(Error(), null);
                if (t >= iterations) return pair;
                TakeOut(pair);
            }
        }

        // Of what the device holds, so that it is the error of the very storage that is trained on.
        private Memory<float> Error()
        {
            var weight = Weight.Span;
            var work = Work.Span;
            Engine.ReadBase(P, work);
            for (int k = 0; k < work.Length; k++) work[k] = weight[k] - work[k];
            return Work;
        }

        private (float[] A, float[] B) Leading(ReadOnlyMemory<float> matrix, int? iterations) =>
            Pair(LowRank.Decompose(matrix, M, N, P.Rank, iterations, Seed), M, N, Scaling);

        // Stores the projection anew without the pair.
        private void TakeOut((float[] A, float[] B) pair)
        {
            Weight.Span.CopyTo(Work.Span);
            MergedSource.AddDelta(pair.A, pair.B, P.Rank, -Scaling, 0, M, N, Work.Span);
            Engine.WriteBase(P, Work.Span);
            Taken[P.Path + ".lora_A.weight"] = ([P.Rank, N], pair.A);
            Taken[P.Path + ".lora_B.weight"] = ([M, P.Rank], pair.B);
        }
    }

    // scaling * B A = U S V^T, the singular values shared out evenly. For LoftQ PEFT leaves the scaling out, and then
    // misses its aim unless alpha = r.
    private static (float[] A, float[] B) Pair(SingularTriplets t, int m, int n, float scaling)
    {
        int r = t.S.Length;
        float[] a = new float[(long)r * n], b = new float[(long)m * r];
        for (int k = 0; k < r; k++)
        {
            float root = MathF.Sqrt(t.S[k] / scaling);
            for (int j = 0; j < n; j++) a[k * n + j] = root * t.V[k * n + j];
            for (int i = 0; i < m; i++) b[i * r + k] = root * t.U[k * m + i];
        }
        return (a, b);
    }

    private static int NIter(string init) =>
        int.TryParse(init.AsSpan(Iterations.Length), NumberStyles.None, CultureInfo.InvariantCulture, out int n)
            ? n
            : -1;
}
