using Headroom.Core;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Training.Data;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;

namespace Headroom.Tests.Models;

/// <summary>
/// After warm-up neither a micro-step nor a whole optimizer step allocates managed memory, on the caller's thread or on
/// the workers.
/// </summary>
[Collection(nameof(AllocationTests))]
public class AllocationTests
{
    private const int Steps = 5;

    [Theory]
    [InlineData(WeightStorage.NF4Double, TrainMode.Adapters, 0, false)]
    [InlineData(WeightStorage.NF4Double, TrainMode.Adapters, -1, false)]
    [InlineData(WeightStorage.NF4Double, TrainMode.Adapters, 1, true)]
    [InlineData(WeightStorage.F32, TrainMode.Full, 0, false)]
    internal void MicroStep(WeightStorage storage, TrainMode mode, int recompute, bool dora)
    {
        var config = TinyModel.Small();
        var batch = TinyModel.Batch(TinyModel.Rows(config, [40, 7, 64]));
        using var engine = TinyModel.Open(
            config, Settings(storage, mode, recompute, dora), batch.Tokens, batch.Sequences);
        uint micro = 0;
        Check(() => engine.MicroStep(batch.Host, new Dropout(0.1f, 7, micro++, 0), 0.01f));
        Check(() => engine.Losses(batch.Host));
    }

    [Theory, InlineData(0.1f, 5f), InlineData(0f, 0f)]
    public void WeightedMicroStep(float smoothing, float alpha)
    {
        var config = TinyModel.Small();
        var batch = TinyModel.Batch(TinyModel.Rows(config, [40, 7, 64]));
        var settings = Settings(WeightStorage.NF4Double, TrainMode.Adapters, 0, false);
        using var engine = TinyModel.Open(
            config, settings with { LabelSmoothing = smoothing, NeftuneNoiseAlpha = alpha }, batch.Tokens,
            batch.Sequences, weights: true);
        uint micro = 0;
        float[] weights = [.. Enumerable.Range(0, batch.LabelCount).Select(i => i / 10f)];
        Check(() =>
        {
            var b = batch.Host;
            engine.MicroStep(
                new(b.Ids, b.Positions, b.Offsets, b.LabelRows, b.Labels, weights), new Dropout(0.1f, 7, micro++, 0),
                0.01f);
        });
        if (smoothing > 0) return;
        LabelWeigher weigh = (losses, w) => losses.CopyTo(w);
        Check(() => engine.MicroStep(batch.Host, new Dropout(0.1f, 7, micro++, 0), 0.01f, weigh));
        Check(() => engine.Losses(batch.Host, adapters: false));
    }

    [Theory]
    [InlineData(SchedulerType.Linear, TrainMode.Adapters, false)]
    [InlineData(SchedulerType.Linear, TrainMode.Adapters, true)]
    [InlineData(SchedulerType.Cosine, TrainMode.Full, false)]
    internal void TrainerStep(SchedulerType schedule, TrainMode mode, bool dora)
    {
        var config = TinyModel.Small();
        var rows = TinyModel.Rows(config, Enumerable.Range(0, 64).Select(i => 5 + i % 30).ToArray());
        var options = new TrainingOptions
        {
            PerDeviceTrainBatchSize = 2,
            GradientAccumulationSteps = 2,
            NumTrainEpochs = 50,
            LrSchedulerType = schedule,
            LearningRate = 1e-4,
        };
        using var engine = TinyModel.Open(
            config, Settings(mode == TrainMode.Full ? WeightStorage.F32 : WeightStorage.NF4Double, mode, 0, dora), 80, 2
        );
        var trainer = new Trainer(engine, options, new RowList(rows), 40);
        using var feed = new BatchFeed(new RowList(rows), options, 40, 0, trainer.TotalSteps);
        Window[] windows = [feed.Next(), feed.Next()]; // kept: the feed's thread, which may allocate, waits for them
        int n = 0;
        Check(() =>
        {
            if (trainer.Step(windows[n++ % 2]).Skipped) throw new InvalidOperationException("skipped");
        });
    }

    private static ModelSettings Settings(WeightStorage storage, TrainMode mode, int recompute, bool dora) =>
        new(
            storage, WeightStorage.F32, mode, mode == TrainMode.Adapters ? TinyModel.Lora(0.1f, dora: dora) : null,
            recompute, LogitsChunk: 32);

    private static void Check(Action step)
    {
        // Tiered compilation promotes methods while they run; the promoted code must be in place first.
        for (int i = 0; i < 40; i++) step();
        Thread.Sleep(200);
        for (int i = 0; i < 10; i++) step();
        // All threads are counted. The test runner's own threads may write a line now and then; a step that allocates
        // does so in every round.
        long least = long.MaxValue;
        for (int round = 0; round < 20 && least > 0; round++)
        {
            long before = GC.GetTotalAllocatedBytes(precise: true);
            for (int i = 0; i < Steps; i++) step();
            least = Math.Min(least, GC.GetTotalAllocatedBytes(precise: true) - before);
        }
        Assert.True(least == 0, $"{least / (double)Steps} bytes a step");
    }
}

/// <summary>Nothing else may run while allocations of the whole process are counted.</summary>
[CollectionDefinition(nameof(AllocationTests), DisableParallelization = true)]
public sealed class AllocationCollection;
