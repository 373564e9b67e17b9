using Headroom.Core;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tests;
using Headroom.Tests.Formats;
using Headroom.Training.Data;

namespace Headroom.Cuda.Tests;

/// <summary>Once warm, the work of a device takes nothing from the collector, launch by launch and replayed.</summary>
public class AllocationTests
{
    private const int Rows = 4, Length = 96, Vocabulary = 80_000; // logits of a token: 312 KiB

    internal sealed record Case(
        DType Compute, WeightStorage Linear = WeightStorage.NF4Double, int R = 16, int HeadDim = 64,
        bool Graphs = false, bool Dora = false, bool Plain = false, int Recompute = 1,
        TrainMode Mode = TrainMode.Adapters)
    {
        public override string ToString() =>
            $"{Compute} {Linear} r {R} head {HeadDim}{(Graphs ? " graphs" : "")}{(Dora ? " dora" : "")}"
            + $"{(Plain ? " plain" : "")} {Mode}";
    }

    private static readonly Case[] s_cases =
    [
        new(DType.BF16), new(DType.F16, HeadDim: 128), new(DType.F32), new(DType.BF16, Graphs: true),
        new(DType.F16, Graphs: true, Dora: true), new(DType.BF16, Dora: true), new(DType.BF16, R: 32),
        new(DType.BF16, R: 8), new(DType.BF16, HeadDim: 32), new(DType.BF16, Plain: true),
        new(DType.BF16, WeightStorage.Int8), new(DType.BF16, WeightStorage.BF16), new(DType.BF16, Recompute: 0),
        new(DType.BF16, WeightStorage.F32, Mode: TrainMode.Full)];

    public static IEnumerable<ITheoryDataRow> Cases => new TheoryData<Case>(s_cases);

    private static Engine Open(Case c)
    {
        var config = new ModelConfig
        {
            ModelType = "llama",
            HiddenSize = 256,
            IntermediateSize = 704,
            VocabSize = Vocabulary,
            NumHiddenLayers = 2,
            NumAttentionHeads = 256 / c.HeadDim,
            NumKeyValueHeads = 256 / c.HeadDim / 2,
            HeadDim = c.HeadDim,
            RmsNormEps = 1e-5f,
        };
        bool full = c.Mode == TrainMode.Full;
        string[] all = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
        var settings = new ModelSettings(
            c.Linear, full ? WeightStorage.F32 : WeightStorage.BF16, c.Mode,
            full ? null : new LoraConfig(c.R, 2 * c.R, 0.1f, all) { UseDora = c.Dora }, c.Recompute, 64, c.Compute);
        var device = TestDevice.OpenCuda(new CudaOptions(ExpandBytes: 4 << 20, Graphs: c.Graphs));
        var engine = new Engine(
            device, config, settings,
            new BatchLimits(
                Rows * Length, Rows, Rows * Length, Rows * Length, Rows, Candidates: 2, GenerateTokens: 64,
                PromptTokens: 16));
        if (c.Plain) ((CudaOps)device.Ops).FusedKernels = false;
        engine.FillRandom(5);
        engine.InitializeAdapters(3);
        return engine;
    }

    private static MicroBatch Batch(bool answers)
    {
        var batch = new MicroBatch(Rows * Length, Rows);
        for (int r = 0; r < Rows; r++)
        {
            int n = Length - 7 * r;
            batch.Add(new EncodedRow([.. Enumerable.Range(0, n).Select(i => 31 * i % 1000)], answers ? n - 1 : 1));
        }
        return batch;
    }

    [Theory, MemberData(nameof(Cases))]
    internal void WarmWorkTakesNothingFromTheCollector(Case c)
    {
        using var engine = Open(c);
        MicroBatch batch = Batch(answers: false), answers = Batch(answers: true);
        float[] scores = new float[2 * answers.LabelCount], lse = new float[answers.LabelCount],
            logits = new float[Vocabulary];
        int[] candidates = [3, 5], prompt = [1, 2, 3], one = [4];
        uint step = 0;
        void Train()
        {
            for (int i = 0; i < 2; i++) engine.MicroStep(batch.Host, new Dropout(0.1f, 1, step++, 0), 1e-4f * step);
            double norm = engine.GradientNorm();
            engine.Update(new AdamWStep(1e-4, 0.9, 0.999, 1e-8, (int)step, (float)(1 / (1 + norm))));
        }
        void Evaluate()
        {
            engine.Losses(batch.Host);
            engine.Scores(answers.Host, candidates, scores, lse);
        }
        // In turns, as a run has them: what one learns of the order of weights, the other does not undo.
        Assert.Equal((0, 0), Warm(Train, Evaluate));
        if (c.Graphs) Assert.True(((CudaDevice)engine.Device).Graphs.Replays > 0);
        var cache = engine.StartGeneration();
        engine.Decode(ref cache, prompt, logits);
        void Token() => engine.Decode(ref cache, one, logits);
        Assert.Equal((0, 0), Warm(Token, Token));
    }

    // Bytes of the fourth time.
    private static (long First, long Second) Warm(Action first, Action second)
    {
        for (int i = 0; i < 3; i++)
        {
            first();
            second();
        }
        long start = GC.GetAllocatedBytesForCurrentThread();
        first();
        long middle = GC.GetAllocatedBytesForCurrentThread();
        second();
        return (middle - start, GC.GetAllocatedBytesForCurrentThread() - middle);
    }

    /// <summary>Runs everywhere: names that are chosen by a number or a type are there, and arguments are no objects.
    /// </summary>
    [Fact]
    public void WhatALaunchIsMadeOfTakesNothing()
    {
        var gguf = GgmlSamples.Quantized
            .Select(t => new LinearWeight(WeightStorage.Gguf, 1, 256, default) { BlockType = t })
            .ToArray();
        long Bytes()
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            foreach (ref readonly var w in gguf.AsSpan()) Count(GgufKernels.Expand(w), GgufKernels.Embed(w));
            foreach (int tile in (ReadOnlySpan<int>)[16, 32, 64])
                for (int count = 1; count <= 3; count++) Count(CudaOps.DownKernel(tile, count), "");
            Arguments(default(Tensor), (nint)1, 2L, 3, 4f);
            return GC.GetAllocatedBytesForCurrentThread() - before;
        }
        Bytes();
        Assert.Equal(0, Bytes());
        Assert.Equal("expand_iq4_xs", GgufKernels.Expand(gguf.Single(w => w.BlockType == GgmlType.IQ4_XS)));
        Assert.Equal("lora_down32_3", CudaOps.DownKernel(32, 3));
    }

    private static int s_letters;

    private static void Count(string a, string b) => s_letters += a.Length + b.Length;

    private static unsafe void Arguments(params ReadOnlySpan<Arg> args)
    {
        fixed (Arg* p = args)
            for (int i = 0; i < args.Length; i++) s_letters += *(int*)Arg.Place(p + i);
    }
}
