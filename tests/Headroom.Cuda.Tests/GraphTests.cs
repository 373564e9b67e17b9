using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tests;
using Headroom.Training.Data;

namespace Headroom.Cuda.Tests;

/// <summary>Micro-steps replayed as CUDA graphs against the same ones issued launch by launch.</summary>
public class GraphTests
{
    private static readonly string[] All =
    [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    private const int Rows = 5, Longest = 150, Steps = 6;

    // Losses of every micro-step, and of an evaluation after each step.
    private sealed record Result(
        List<double> Losses, float[][] Grads, float[][] Weights, StepGraphs Graphs, string? Notice);

    private sealed record Options(
        DType Compute,
        int HeadDim = 64,
        int Recompute = 0,
        bool Answers = false,
        bool Ahead = true,
        bool Fork = false,
        int R = 16,
        string[]? Targets = null, TrainMode Mode = TrainMode.Adapters, bool Dora = false, bool Weighted = false);

    private static Engine Open(Options o, bool graphs, float smoothing = 0.1f)
    {
        var config = new ModelConfig
        {
            ModelType = "llama",
            HiddenSize = 256,
            IntermediateSize = 704,
            VocabSize = 1000,
            NumHiddenLayers = 3,
            NumAttentionHeads = 256 / o.HeadDim,
            NumKeyValueHeads = 256 / o.HeadDim / 2,
            HeadDim = o.HeadDim,
            RmsNormEps = 1e-5f,
        };
        bool full = o.Mode == TrainMode.Full;
        var settings = new ModelSettings(
            full ? WeightStorage.F32 : WeightStorage.NF4Double, full ? WeightStorage.F32 : WeightStorage.BF16, o.Mode,
            full ? null : new LoraConfig(o.R, 2 * o.R, 0.1f, o.Targets ?? All) { UseDora = o.Dora }, o.Recompute, 64,
            o.Compute)
        {
            LabelSmoothing = o.Weighted ? smoothing : 0,
            NeftuneNoiseAlpha = o.Weighted ? 5 : 0,
        };
        var device = TestDevice.OpenCuda(new CudaOptions(ExpandBytes: 4 << 20, ExpandAhead: o.Ahead, Graphs: graphs));
        var engine = new Engine(
            device, config, settings,
            new BatchLimits(Rows * Longest, Rows, o.Answers ? Rows * 3 : Rows * Longest, Rows * Longest, Rows,
                LabelWeights: o.Weighted));
        engine.FillRandom(5);
        engine.InitializeAdapters(3);
        var random = new PhiloxRandom(8);
        foreach (var p in engine.Model.Projections)
            if (!p.B.IsNone)
                engine.Write(
                    p.B, Enumerable.Range(0, (int)p.B.Count).Select(_ => random.NextNormal() * 0.02f).ToArray());
        return engine;
    }

    private static MicroBatch Batch(
        PhiloxRandom random, bool answers, int rows = Rows, int? length = null, bool weighted = false)
    {
        var batch = new MicroBatch(Rows * Longest, Rows);
        for (int r = 0; r < rows; r++)
        {
            int n = length ?? 10 + random.Next(Longest - 9);
            int[] ids = [.. Enumerable.Range(0, n).Select(_ => random.Next(1000))];
            batch.Add(new EncodedRow(
                ids, [new LabelSpan(answers ? n - 1 - random.Next(3) : 1, n, weighted ? 0.5f + r : 1)]));
        }
        return batch;
    }

    // Two full batches of one shape and ragged ones, in turns, with an evaluation and an update after each.
    private static Result Run(Options o, bool graphs = true, bool replay = true, Action<CudaDevice>? prepare = null)
    {
        using var engine = Open(o, graphs);
        var device = (CudaDevice)engine.Device;
        device.Graphs.On = replay;
        device.Graphs.Ahead = o.Fork;
        prepare?.Invoke(device);
        var random = new PhiloxRandom(21);
        MicroBatch[] batches =
        [
            Batch(random, o.Answers, length: Longest, weighted: o.Weighted),
            Batch(random, o.Answers, weighted: o.Weighted),
            Batch(random, o.Answers, length: Longest, weighted: o.Weighted),
            Batch(random, o.Answers, rows: 2, weighted: o.Weighted)];
        var losses = new List<double>();
        float[][] grads = [];
        uint micro = 0;
        for (int step = 0; step < Steps; step++)
        {
            int labels = batches.Sum(b => b.LabelCount);
            foreach (var b in batches)
                losses.Add(engine.MicroStep(b.Host, new Dropout(0.1f, 7, micro++, 0), 1f / (labels + step)));
            if (step == Steps - 1) grads = engine.Model.Trained.Select(p => engine.Read(p.Slot.Grad)).ToArray();
            engine.Update(new AdamWStep(1e-3, 0.9, 0.999, 1e-8, step + 1, 1));
            losses.Add(engine.Losses(batches[1].Host));
        }
        return new Result(
            losses, grads, engine.Model.Trained.Select(p => engine.Read(p.Slot.Weight)).ToArray(), device.Graphs,
            device.Notice);
    }

    /// <summary>What a fault's message would name.</summary>
    [Fact]
    public void TheOperationIssuedLastIsKnown()
    {
        using var engine = Open(new Options(DType.F16), true);
        var gpu = ((CudaDevice)engine.Device).Gpu;
        var batch = Batch(new PhiloxRandom(21), false, length: Longest);
        for (uint i = 0; i < 3; i++) engine.MicroStep(batch.Host, new Dropout(0.1f, 7, i, 0), 1);
        Assert.Equal($"a recorded micro-step of {batch.Tokens} tokens", gpu.LastOperation);
        engine.ZeroGradients();
        Assert.Equal("zero_all", gpu.LastOperation);
    }

    private static void EqualBits(Result a, Result b)
    {
        Assert.Equal(a.Losses, b.Losses);
        for (int i = 0; i < a.Weights.Length; i++)
            Assert.True(
                MemoryMarshal
                    .AsBytes(a.Weights[i].AsSpan())
                    .SequenceEqual(MemoryMarshal.AsBytes(b.Weights[i].AsSpan())),
                $"weights of tensor {i} differ"
            );
    }

    public static TheoryData<int> Cases => [.. Enumerable.Range(0, Variants.Length)];
    private static readonly Options[] Variants =
    [
        new(DType.BF16), new(DType.BF16, Fork: true), new(DType.BF16, Answers: true, Fork: true),
        new(DType.BF16, 128, -1, Answers: true), new(DType.F16, Recompute: 1),
        new(DType.BF16, 128, 2, Fork: true), new(DType.BF16, Ahead: false), new(DType.BF16, Dora: true, Fork: true),
        new(DType.F16, Recompute: -1, Dora: true, Targets: ["q_proj", "down_proj"]), new(DType.F32, Answers: true),
        new(DType.BF16, R: 8), new(DType.BF16, R: 64, Targets: ["q_proj", "v_proj", "down_proj"]),
        new(DType.F32, Mode: TrainMode.Full), new(DType.BF16, Weighted: true),
        new(DType.F16, Answers: true, Weighted: true)];

    [Theory, MemberData(nameof(Cases))]
    public void ReplayedMicroStepsAreTheIssuedOnesBitForBit(int variant)
    {
        var o = Variants[variant];
        Result replayed = Run(o), issued = Run(o, replay: false);
        Assert.Null(replayed.Notice);
        Assert.Equal(0, issued.Graphs.Records);
        // Of 24 micro-steps the first of a shape is issued; the full batches have one shape when all labels count, else
        // one or two.
        Assert.InRange(replayed.Graphs.Records, 3, 4);
        Assert.InRange(replayed.Graphs.Replays, 4 * Steps - 4, 4 * Steps - 3);
        EqualBits(issued, replayed);
    }

    [
        Theory, InlineData(DType.F32, true, 1e-4), InlineData(DType.F32, false, 1e-4),
        InlineData(DType.BF16, true, 2e-2), InlineData(DType.BF16, false, 2e-2)]
    internal void PaddedBatchesGiveTheirOwnLosses(DType compute, bool answers, double tolerance)
    {
        Result padded = Run(new Options(compute, Answers: answers)),
            alone = Run(new Options(compute, Answers: answers), graphs: false);
        Assert.Equal(0, alone.Graphs.Records);
        for (int i = 0; i < alone.Losses.Count; i++)
            Assert.Equal(alone.Losses[i], padded.Losses[i], Math.Abs(alone.Losses[i]) * tolerance);
        if (compute != DType.F32) return;
        for (int i = 0; i < alone.Grads.Length; i++)
        {
            float largest = alone.Grads[i].Max(Math.Abs),
                worst = alone.Grads[i].Zip(padded.Grads[i], (x, y) => Math.Abs(x - y)).Max();
            Assert.True(worst <= 2e-3f * largest, $"gradient of tensor {i}: {worst} of "
                + $"{largest}"); // after five updates
        }
    }

    /// <summary>
    /// Weights given between forward and backward pass are those of the batch, bit for bit, in a step that is issued
    /// between replayed ones; and losses of the base alone leave what is recorded as it was.
    /// </summary>
    [Theory, InlineData(DType.BF16, -1), InlineData(DType.F16, 0), InlineData(DType.F32, 0)]
    internal void WeightsGivenBetweenThePassesAreThoseOfTheBatch(DType compute, int recompute)
    {
        var o = new Options(compute, Recompute: recompute, Weighted: true);
        using var engine = Open(o, graphs: true, smoothing: 0);
        var batch = Batch(new PhiloxRandom(21), false, length: Longest, weighted: true);
        float[] weights = batch.Host.Weights.ToArray();
        var dropout = new Dropout(0.1f, 7, 3, 0);
        float[][] Step(bool given)
        {
            engine.ZeroGradients();
            if (given) engine.MicroStep(batch.Host, dropout, 0.01f, (_, w) => weights.CopyTo(w));
            else engine.MicroStep(batch.Host, dropout, 0.01f);
            return engine.Model.Trained.Select(p => engine.Read(p.Slot.Grad)).ToArray();
        }
        var expected = Step(false);
        for (int i = 0; i < 3; i++)
        {
            Assert.Equal(expected, Step(true));
            engine.Losses(batch.Host, adapters: false);
            Assert.Equal(expected, Step(false));
        }
        Assert.True(((CudaDevice)engine.Device).Graphs.Replays > 0);
    }

    [Fact]
    public void AFailureWhileRecordingIssuesTheMicroStepAndSaysSo()
    {
        var o = new Options(DType.BF16, Answers: true);
        var issued = Run(o, replay: false);
        // A call that a recorded stream refuses, and one of our own.
        Action<CudaDevice>[] faults =
        [
            d => d.Graphs.WhileRecording = d.Gpu.Main.Synchronize,
            d => d.Graphs.WhileRecording = () => throw new InvalidOperationException("a test")];
        foreach (var fault in faults)
        {
            var failed = Run(o, prepare: fault);
            Assert.Equal((0L, 0L), (failed.Graphs.Records, failed.Graphs.Replays));
            Assert.StartsWith("CUDA graphs are off", failed.Notice);
            EqualBits(issued, failed);
        }
        int records = 0;
        var late = Run(o, prepare: d => d.Graphs.WhileRecording = () =>
            {
                if (++records == 3)
                    throw new InvalidOperationException("a test");
            });
        Assert.Equal(2, late.Graphs.Records);
        Assert.StartsWith("CUDA graphs are off", late.Notice);
        EqualBits(issued, late);
    }

    [Fact]
    public void GraphsAreBoundedInNumberAndMemoryAndTheProcessStaysWithinItsPlan()
    {
        using var engine = Open(new Options(DType.BF16), graphs: true);
        var device = (CudaDevice)engine.Device;
        var graphs = device.Graphs;
        var random = new PhiloxRandom(4);
        // A seed is part of the shape: sixty shapes.
        for (int round = 0; round < 4; round++)
            for (int i = 0; i < 60; i++)
                engine.MicroStep(Batch(random, false, length: Longest).Host, new Dropout(0.1f, (ulong)i, 0, 0), 1e-4f);
        Assert.Null(graphs.Failure);
        Assert.InRange(graphs.Records, 1, StepGraphs.MostGraphs);
        var use = device.Memory();
        Assert.True(
            use.Process <= engine.Plan.TotalBytes + engine.Plan.TotalBytes / 100 + (64 << 20),
            $"process {use.Process >> 20} MiB, plan {engine.Plan.TotalBytes >> 20} MiB");
        long records = graphs.Records;
        for (int i = 0; i < 300; i++)
            // those before are idle now
            engine.MicroStep(Batch(random, false, length: Longest).Host, new Dropout(0.1f, 1000, 0, 0), 1e-4f);
        Assert.Equal(records + 1, graphs.Records);
    }
}
