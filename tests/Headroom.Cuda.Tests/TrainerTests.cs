using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tests;
using Headroom.Training.Data;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;

namespace Headroom.Cuda.Tests;

/// <summary>The trainer on a GPU: fp16 with loss scaling, exact resume, the process within its plan.</summary>
public class TrainerTests
{
    private static readonly string[] All =
    [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

    private sealed class RandomRows : IRowSource
    {
        private readonly EncodedRow[] _rows;

        public RandomRows(bool weighted = false)
        {
            var random = new PhiloxRandom(31);
            _rows = Enumerable
                .Range(0, 24)
                .Select(i => new EncodedRow(
                    Enumerable.Range(0, 20 + i * 3).Select(_ => random.Next(500)).ToArray(),
                    [new LabelSpan(1, 20 + i * 3, weighted ? 0.1f + i % 4 : 1)]))
                .ToArray();
        }

        public int Count => _rows.Length;
        public EncodedRow this[int index] => _rows[index];
    }

    private static Engine Open(DType compute, int hidden = 128)
    {
        var config = new ModelConfig
        {
            ModelType = "llama",
            HiddenSize = hidden,
            IntermediateSize = hidden * 3,
            VocabSize = 500,
            NumHiddenLayers = 2,
            NumAttentionHeads = hidden / 64,
            NumKeyValueHeads = hidden / 64,
            HeadDim = 64,
            RmsNormEps = 1e-5f,
        };
        var settings = new ModelSettings(
            WeightStorage.NF4Double, WeightStorage.F16, TrainMode.Adapters, new LoraConfig(16, 32, 0.1f, All), 0, 64,
            compute);
        var engine = new Engine(
            TestDevice.OpenCuda(), config, settings, new BatchLimits(400, 4, 400, LabelWeights: true));
        engine.FillRandom(2);
        engine.InitializeAdapters(2);
        return engine;
    }

    private static Trainer Trainer(Engine engine) => new(engine,
            new TrainingOptions
            {
                PerDeviceTrainBatchSize = 4,
                NumTrainEpochs = 2,
                LearningRate = 1e-3,
                WarmupSteps = 0,
                Seed = 5,
            },
            new RandomRows(),
            100
        );

    private static void Steps(Trainer trainer, int count, List<StepResult> results, bool weighted = false)
    {
        using var feed = new BatchFeed(
            new RandomRows(weighted),
            new TrainingOptions
            {
                PerDeviceTrainBatchSize = 4,
                NumTrainEpochs = 2,
                Seed = 5,
            },
            100,
            trainer.State.Step,
            trainer.TotalSteps
        );
        for (int i = 0; i < count; i++)
        {
            var window = feed.Next();
            results.Add(trainer.Step(window));
            feed.Recycle(window);
        }
    }

    private static byte[] Weights(Engine engine) =>
        engine
            .Model.Trained.SelectMany(t => MemoryMarshal.AsBytes(engine.Read(t.Slot.Weight).AsSpan()).ToArray())
            .ToArray();

    [Fact]
    public void AnOverflowSkipsTheUpdateHalvesTheScaleAndLeavesTheScheduleAlone()
    {
        using var engine = Open(DType.F16);
        var trainer = Trainer(engine);
        trainer.State = trainer.State with { LossScale = new LossScale(Math.Pow(2, 60), 0) };
        byte[] before = Weights(engine);
        var results = new List<StepResult>();
        Steps(trainer, 1, results);
        Assert.True(results[0].Skipped);
        Assert.Equal(Math.Pow(2, 59), trainer.State.LossScale!.Value.Scale);
        Assert.Equal((1, 1), (trainer.State.Step, trainer.State.SkippedSteps));
        Assert.Equal(before, Weights(engine));
        trainer.State = trainer.State with { LossScale = LossScale.Start };
        Steps(trainer, 1, results);
        Assert.False(results[1].Skipped);
        Assert.Equal(results[0].LearningRate, results[1].LearningRate);
        Assert.NotEqual(before, Weights(engine));
        Assert.InRange(results[1].GradNorm, 1e-4, 100); // unscaled
    }

    [Theory, InlineData(false), InlineData(true)]
    public void ScaledGradientsAreTheUnscaledOnes(bool weighted)
    {
        using Engine half = Open(DType.F16), full = Open(DType.F32);
        List<StepResult> a = [], b = [];
        Steps(Trainer(half), 6, a, weighted);
        Steps(Trainer(full), 6, b, weighted);
        for (int i = 0; i < a.Count; i++)
        {
            Assert.Equal(b[i].Loss, a[i].Loss, b[i].Loss * 0.01);
            Assert.Equal(b[i].GradNorm, a[i].GradNorm, b[i].GradNorm * 0.03);
        }
    }

    [Theory, InlineData(DType.F16), InlineData(DType.BF16)]
    internal void ResumeIsExact(DType compute)
    {
        string root = Path.Combine(Path.GetTempPath(), "headroom-" + Guid.NewGuid().ToString("N"));
        try
        {
            List<StepResult> whole = [], parts = [];
            using (var engine = Open(compute))
            {
                var trainer = Trainer(engine);
                Steps(trainer, 4, whole);
                if (compute == DType.F16)
                    trainer.State = trainer.State with { LossScale = new LossScale(4096, 1999) }; // about to grow
                Checkpoints.Save(root, engine, null, trainer.State);
                Steps(trainer, 4, whole);
                using var second = Open(compute);
                var resumed = Trainer(second);
                resumed.State = Checkpoints.Load(Checkpoints.Latest(root)!, second, "", "");
                Steps(resumed, 4, parts);
                Assert.Equal(trainer.State, resumed.State);
                Assert.Equal(whole.Skip(4), parts);
                Assert.Equal(Weights(engine), Weights(second));
                if (compute == DType.F16) Assert.Equal(8192, resumed.State.LossScale!.Value.Scale);
            }
        }
        finally
        {
            if (Directory.Exists(root)) Directory.Delete(root, true);
        }
    }

    [Fact]
    public void TheProcessStaysWithinItsPlanAndAllocatesNothingAfterTheFirstStep()
    {
        using var engine = Open(DType.BF16, 512);
        var device = (CudaDevice)engine.Device;
        var trainer = Trainer(engine);
        var results = new List<StepResult>();
        long loaded = 0, first = 0;
        foreach (int round in new[] { 0, 1, 2 })
        {
            trainer.State = default(TrainerState) with { RecipeHash = "", BaseHash = "" };
            Steps(trainer, 6, results);
            if (round == 0) loaded = device.Memory().Used; // every kernel of these shapes has been loaded
            if (round == 1) first = device.Memory().Used; // and every shape has its graph
        }
        Assert.True(device.Graphs.Records > 0);
        // what the plan counts for graphs
        Assert.InRange(first - loaded, 0, engine.Plan.WorkspaceBytes - device.WorkspaceBytes);
        var use = device.Memory();
        Assert.Equal(first, use.Used);
        long plan = engine.Plan.TotalBytes;
        Assert.True(use.Process >= use.Reserved, $"process {use.Process}, reserved {use.Reserved}");
        Assert.True(
            use.Process <= plan + plan / 100 + (64 << 20), $"process {use.Process >> 20} MiB, plan {plan >> 20} MiB");
    }

    [Fact]
    public void AnArenaThatDoesNotFitIsRefusedWithFreeAndNeededBytes()
    {
        using var device = TestDevice.OpenCuda();
        var e = Assert.Throws<HeadroomException>(() => device.Reserve(1L << 44));
        Assert.Equal(2, e.ExitCode);
        Assert.Contains("16777248 MiB", e.Message); // with 32 MiB for code
        Assert.Contains("free", e.Message);
    }
}
