using System.Diagnostics;
using Headroom.Core;
using Headroom.Core.Families;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Training.Data;
using Headroom.Training.Loop;

namespace Headroom.Training.Measure;

/// <summary>What a step benchmark runs.</summary>
/// <param name="Rows">Sequences of a micro-batch.</param>
/// <param name="Length">Tokens of a sequence.</param>
/// <param name="RecomputeLayers">The first so many layers recompute; -1 = all.</param>
/// <param name="Compute">Type of activations.</param>
/// <param name="Steps">Timed steps, after three that are not.</param>
/// <param name="R">LoRA rank, on all seven projections.</param>
/// <param name="DropoutP">lora_dropout.</param>
/// <param name="Linear">Storage of the seven projections.</param>
/// <param name="AnswerOnly">Label only the last token of each sequence, as a classification task does.</param>
/// <param name="Ragged">Every step a new batch of sequences as long as film reviews are: lognormal around 225 tokens,
/// at most <paramref name="Length"/>.</param>
internal sealed record StepBenchmarkOptions(
    int Rows,
    int Length,
    int RecomputeLayers,
    DType Compute,
    int Steps = 5,
    int R = 16,
    float DropoutP = 0.1f,
    WeightStorage Linear = WeightStorage.NF4Double, bool AnswerOnly = false, bool Ragged = false)
{
    /// <summary>DoRA in place of LoRA.</summary>
    public bool UseDora { get; init; }

    /// <summary>
    /// Memory in which weights may stay expanded (<see cref="ModelSettings.ExpandedBytes"/>); more than they take is
    /// not reserved.
    /// </summary>
    public long ExpandedBytes { get; init; }

    /// <summary>Rows whose logits exist at a time; 0 = <see cref="ModelSettings.LogitsRows"/>.</summary>
    public int LogitsChunk { get; init; }
}

/// <summary>One op kind's time in a step against its floor.</summary>
/// <param name="Op">Name, as the plan counts it.</param>
/// <param name="Calls">Calls in a step.</param>
/// <param name="Milliseconds">Measured, each call alone.</param>
/// <param name="FloorMilliseconds">The larger of FLOPs over the product rate and fewest bytes over the copy rate, both
/// measured on this device.</param>
internal sealed record OpTime(string Op, int Calls, double Milliseconds, double FloorMilliseconds);

/// <summary>Result of a step benchmark.</summary>
/// <param name="TokensPerSecond">Of the median step; of all steps when they are ragged. Tokens of the batch, without
/// padding.</param>
/// <param name="StepMilliseconds">Median of whole steps: micro-step, norm, update; the mean when they are
/// ragged.</param>
/// <param name="Tflops">FLOPs of the step as the plan counts them (recompute included) over the median,
/// TFLOP/s.</param>
/// <param name="ProductTflops">Rate of a large dense product on this device, measured in the same run.</param>
/// <param name="CopyTbs">Copy rate, read + written, TB/s, measured in the same run.</param>
/// <param name="PlannedBytes">Everything the plan says that the process takes of the device.</param>
/// <param name="Memory">Measured afterwards; null on a CPU.</param>
/// <param name="Loss">Loss of the last step.</param>
/// <param name="Ops">Time per op, slowest first; empty when batches are ragged.</param>
internal sealed record StepBenchmarkResult(
    double TokensPerSecond,
    double StepMilliseconds,
    double Tflops,
    double ProductTflops,
    double CopyTbs,
    long PlannedBytes,
    MemoryUse? Memory, double Loss, IReadOnlyList<OpTime> Ops)
{
    /// <summary>
    /// Micro-steps that ran in all: those to warm up, the timed ones, and the one with every op timed alone.
    /// </summary>
    public required int MicroSteps { get; init; }

    /// <summary>Rate of the whole step over that of a large dense product.</summary>
    public double Utilisation => Tflops / ProductTflops;
}

/// <summary>
/// Whole QLoRA steps of any architecture with random weights and random tokens on any device; then one more step with
/// every op timed alone.
/// </summary>
internal static class StepBenchmark
{
    // Ragged batches warm up longer: a device that replays shapes has to meet them first.
    private const int WarmUp = 3, RaggedWarmUp = 96;

    /// <summary>
    /// Runs on a device that has reserved nothing yet; the device is closed afterwards. <paramref name="stepping"/> is
    /// told true before the first micro-step and false after the last one, so that a profile holds them and neither
    /// filling nor probes. <paramref name="stop"/>, which is looked at between steps, ends it with an
    /// <see cref="OperationCanceledException"/>.
    /// </summary>
    public static StepBenchmarkResult Run(
        IDevice device, ModelConfig config, StepBenchmarkOptions o, Action<string>? say = null,
        Action<bool>? stepping = null, CancellationToken stop = default)
    {
        var planned = Plan(device, config, o);
        using var engine = new Engine(device, planned);
        say?.Invoke($"planned {engine.Plan.TotalBytes / 1048576.0:F0} MiB; filling with random weights");
        engine.FillRandom(1);
        engine.InitializeAdapters(1);
        int warmUp = o.Ragged ? RaggedWarmUp : WarmUp;
        var steps = new Steps(engine, o, config.VocabSize, o.Ragged ? o.Steps + warmUp : 1, stop);
        stepping?.Invoke(true);
        var (times, timedTokens) = Time(device, steps, o.Steps, warmUp, say);
        var memory = device.ReadMemory();
        times.Sort();
        int tokens = o.Rows * o.Length;
        double median = o.Ragged ? times.Average() : times[times.Count / 2],
            share = (double)timedTokens / times.Count / tokens;
        var timer = TimeOps(device, steps, o);
        stepping?.Invoke(false);
        stop.ThrowIfCancellationRequested();
        double copy = CopyRate(device, engine.TemporaryBytes),
            product = ProductRate(device, engine.TemporaryBytes, o.Compute);
        var ops = timer
            .Times.Select(t => new OpTime(
                t.Key, t.Value.Calls, t.Value.Milliseconds, Floor(planned, t.Key, copy, product)))
            .OrderByDescending(t => t.Milliseconds)
            .ToList();
        return new StepBenchmarkResult(
            tokens * share / median * 1000, median, planned.Flops * share / median / 1e9, product, copy,
            engine.Plan.TotalBytes, memory, steps.Loss, ops)
        {
            MicroSteps = steps.Done,
        };
    }

    private static PlannedModel Plan(IDevice device, ModelConfig config, StepBenchmarkOptions o)
    {
        var settings = new ModelSettings(
            o.Linear,
            o.Compute == DType.F16 ? WeightStorage.F16 : WeightStorage.BF16,
            TrainMode.Adapters,
            new LoraConfig(o.R, 2 * o.R, o.DropoutP, ModelFamilies.Targets) { UseDora = o.UseDora },
            o.RecomputeLayers,
            o.LogitsChunk, o.Compute);
        settings = settings with
        {
            ExpandedBytes = Math.Min(o.ExpandedBytes, PlannedModel.ExpandableBytes(config, settings)),
        };
        int tokens = o.Rows * o.Length;
        var limits = new BatchLimits(tokens, o.Rows, o.AnswerOnly ? o.Rows : tokens);
        return o.RecomputeLayers < 0
            ? Budget.Fit(config, settings, limits, device.WorkspaceBytes, null, device, expanded: 0)
            : PlannedModel.Make(config, settings, limits, device.WorkspaceBytes, device);
    }

    // Milliseconds of each step after the warm-up, and the tokens that they computed.
    private static (List<double> Times, long Tokens) Time(
        IDevice device, Steps steps, int timed, int warmUp, Action<string>? say)
    {
        var times = new List<double>();
        long tokens = 0;
        for (int s = 0; s < timed + warmUp; s++)
        {
            int computed = steps.NextTokens;
            long start = Stopwatch.GetTimestamp();
            device.Clock.Time(steps.Run); // waits for the update
            double ms = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
            say?.Invoke($"step {s}: loss {steps.Loss:F4}, {ms:F1} ms, {computed / ms * 1000:F0} tokens/s");
            if (s < warmUp) continue;
            times.Add(ms);
            tokens += computed;
        }
        return (times, tokens);
    }

    // One more step; of ragged batches, which one step does not stand for, no op is timed.
    private static OpTimer TimeOps(IDevice device, Steps steps, StepBenchmarkOptions o)
    {
        var timer = new OpTimer(device.Clock);
        if (!o.Ragged) timer.Start();
        try
        {
            steps.Run();
        }
        finally
        {
            OpTimer.Stop();
        }
        return timer;
    }

    // Whole steps one after another over batches in turns.
    private sealed class Steps
    {
        private readonly Engine _engine;
        private readonly StepBenchmarkOptions _options;
        private readonly MicroBatch[] _batches;
        private readonly CancellationToken _stop;
        private double _scale;

        public Steps(Engine engine, StepBenchmarkOptions o, int vocabulary, int batches, CancellationToken stop)
        {
            (_engine, _options, _stop) = (engine, o, stop);
            var random = new PhiloxRandom(1);
            _batches = Enumerable.Range(0, batches).Select(_ => Batch(o, vocabulary, random)).ToArray();
            _scale = o.Compute == DType.F16 ? LossScale.Start.Scale : 1;
        }

        public int Done { get; private set; }
        public double Loss { get; private set; }
        public int NextTokens => Next.Tokens;
        private MicroBatch Next => _batches[Done % _batches.Length];

        public void Run()
        {
            _stop.ThrowIfCancellationRequested();
            var batch = Next;
            var dropout = new Dropout(_options.DropoutP, 1, (uint)Done, 0);
            Loss = _engine.MicroStep(batch.Host, dropout, (float)(_scale / batch.LabelCount)) / batch.LabelCount;
            double norm = _engine.GradientNorm() / _scale;
            if (double.IsFinite(norm))
                _engine.Update(
                    new AdamWStep(
                        1e-4, 0.9, 0.999, 1e-8, Done + 1, (float)(Math.Min(1, 1 / (norm + 1e-6)) / _scale)));
            else
            {
                _engine.ZeroGradients();
                _scale /= 2;
            }
            Done++;
        }
    }

    private static MicroBatch Batch(StepBenchmarkOptions o, int vocabulary, PhiloxRandom random)
    {
        const double median = 225, sigma = 0.65; // IMDB reviews, in tokens
        const int shortest = 16;
        var batch = new MicroBatch(o.Rows * o.Length, o.Rows);
        for (int r = 0; r < o.Rows; r++)
        {
            int length = o.Ragged
                ? (int)
                    Math.Clamp(median * Math.Exp(sigma * random.NextNormal()), Math.Min(shortest, o.Length), o.Length)
                : o.Length;
            batch.Add(
                new EncodedRow(
                    Enumerable.Range(0, length).Select(_ => random.Next(vocabulary)).ToArray(),
                    o.AnswerOnly ? length - 1 : 1)
            );
        }
        return batch;
    }

    private static double Floor(PlannedModel planned, string op, double copyTbs, double productTflops)
    {
        double flops = 0, bytes = 0;
        foreach (string name in OpTimer.Counted(op))
            if (planned.Counts.TryGetValue(name, out var c))
            {
                flops += c.Flops;
                bytes += c.Bytes;
            }
        return Math.Max(flops / productTflops / 1e9, bytes / copyTbs / 1e9);
    }

    private static double CopyRate(IDevice device, Tensor bytes)
    {
        int n = (int)Math.Min(bytes.Count / 2 / 4096 * 4096, 1 << 28);
        return 2.0 * n / Best(device, () => device.Ops.Copy(bytes.Slice(0, n), bytes.Slice(n, n))) / 1e9;
    }

    private static double ProductRate(IDevice device, Tensor bytes, DType type)
    {
        int n = 4096;
        while (type.Bytes(3L * n * n) > bytes.Count) n /= 2;
        if (type == DType.F32) n = Math.Min(n, 1024);
        long each = type.Bytes((long)n * n);
        Tensor At(int i) => new(bytes.Address + (nint)(i * each), type, new Shape(n, n));
        // Small random numbers: zeros would draw less power and run faster than a step can.
        var values = new ushort[each / 2];
        var random = new PhiloxRandom(7);
        for (int i = 0; i < values.Length; i++)
            values[i] =
                type == DType.F16
                    ? BitConverter.HalfToUInt16Bits((Half)(random.NextFloat() - 0.5f))
                    : (ushort)(BitConverter.SingleToUInt32Bits(random.NextFloat() - 0.5f) >> 16);
        foreach (int i in new[] { 0, 1 })
            device.Upload(System.Runtime.InteropServices.MemoryMarshal.AsBytes(values.AsSpan()), At(i));
        var w = new LinearWeight(
            type switch
            {
                DType.BF16 => WeightStorage.BF16,
                DType.F16 => WeightStorage.F16,
                _ => WeightStorage.F32,
            },
            n,
            n,
            At(1)
        );
        return 2.0 * n * n * n / Best(device, () => device.Ops.Linear(At(0), w, At(2))) / 1e9;
    }

    private static double Best(IDevice device, Action work)
    {
        double best = double.MaxValue;
        for (int i = 0; i < 12; i++) best = Math.Min(best, device.Clock.Time(work));
        return best;
    }
}
