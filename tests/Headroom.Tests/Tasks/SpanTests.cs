using Headroom.Core;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tests.Models;
using Headroom.Training.Data;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks;

namespace Headroom.Tests.Tasks;

/// <summary>
/// Several labelled spans in a row, with weights: what the batch holds, and what loss and gradient come of it.
/// </summary>
public class SpanTests
{
    private static readonly int[] Ids = [3, 1, 4, 1, 5, 9, 2, 6];

    private static MicroBatch Batch(params EncodedRow[] rows) => TinyModel.Batch(rows);

    [Fact]
    public void ABatchHoldsEverySpanButFirstTokens()
    {
        var batch = Batch(
            new EncodedRow(Ids, [new(0, 2), new(4, 5), new(7, 8)]), new EncodedRow(Ids[..3], 2),
            new EncodedRow(Ids[..2], []));
        Assert.Equal([0, 3, 6, 9], batch.Host.LabelRows.ToArray());
        Assert.Equal([1, 5, 6, 4], batch.Host.Labels.ToArray());
        Assert.Equal((13, 3, 4, 4.0), (batch.Tokens, batch.Sequences, batch.LabelCount, batch.LabelWeight));
        Assert.True(batch.Host.Weights.IsEmpty); // all are 1
    }

    [Fact]
    public void LabelsHaveTheWeightsOfTheirSpans()
    {
        var batch = Batch(
            new EncodedRow(Ids, [new(1, 3, 0.5f), new(4, 6)]), new EncodedRow(Ids[..4], [new(2, 3, 2), new(3, 4, 0.5f)])
        );
        Assert.Equal((6, 5.5), (batch.LabelCount, batch.LabelWeight));
        Assert.Equal([0.5f, 0.5f, 1, 1, 2, 0.5f], batch.Host.Weights.ToArray());
        Assert.Equal([1, 4, 5, 9, 4, 1], batch.Host.Labels.ToArray());
        Assert.Equal(12, batch.Host.Ids.Length);
        batch.Clear();
        batch.Add(new EncodedRow(Ids, [new(1, 3)]));
        Assert.True(batch.Host.Weights.IsEmpty);
    }

    [Fact]
    public void SpansOutOfPlaceAreRefused()
    {
        LabelSpan[][] wrong =
        [
            [new(0, 9)], [new(-1, 2)], [new(3, 2)], [new(1, 4), new(3, 5)], [new(1, 2, 0)], [new(1, 2, float.NaN)]];
        Assert.All(wrong, spans => Assert.Throws<ArgumentException>(() => new EncodedRow(Ids, spans)));
    }

    /// <summary>An update over weighted spans is the weighted sum of updates over each label alone.</summary>
    [Theory, InlineData(0f), InlineData(0.1f)]
    public void GradientsAreTheWeightedSum(float dropout)
    {
        EncodedRow Row(params LabelSpan[] spans) => new(Ids, spans);
        var options = new TrainingOptions
        {
            PerDeviceTrainBatchSize = 2,
            MaxSteps = 1,
            LearningRate = 1e-2,
            MaxGradNorm = 0,
            Seed = 3,
            LrSchedulerType = SchedulerType.Constant,
        };
        Engine Open(bool weights = false) =>
            TinyModel.Open(
                TinyModel.Smallest(),
                new ModelSettings(
                    WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters, TinyModel.Lora(dropout), 0, LogitsChunk: 8
                ),
                16,
                2,
                weights: weights
            );
        EncodedRow other = new(Ids[..5], 3);
        using var whole = Open(weights: true);
        var trainer = new Trainer(whole, options, new RowList([Row(new(1, 3, 0.25f), new(5, 7, 3)), other]), 8);
        StepResult result = default;
        Assert.True(
            trainer.Run(
                new TrainerHooks { OnStep = s => result = s }, null, null, TestContext.Current.CancellationToken)
        );

        using var parts = Open();
        Assert.Throws<InvalidOperationException>(() =>
            parts.MicroStep(Batch(Row(new(1, 3, 0.25f), new(5, 7, 3))).Host, default, 1)); // weights were not planned
        using var feed = new BatchFeed(new RowList([Row(new(1, 3), new(5, 7)), other]), options, 8, 0, 1);
        var batch = feed.Next()[0]; // in the order of the run
        double sum = 0, weights = 2 * 0.25 + 2 * 3 + 2;
        int[] offsets = batch.Host.Offsets.ToArray();
        bool rowIsFirst = offsets[1] == Ids.Length;
        int start = rowIsFirst ? 0 : offsets[1];
        for (int l = 0; l < batch.LabelCount; l++)
        {
            int at = batch.Host.LabelRows[l] - start;
            float weight = at is < 0 or >= 8 ? 1 : at < 3 ? 0.25f : 3;
            var one = new HostBatch(
                batch.Host.Ids, batch.Host.Positions, batch.Host.Offsets, batch.Host.LabelRows.Slice(l, 1),
                batch.Host.Labels.Slice(l, 1));
            sum += weight * parts.MicroStep(one, new Dropout(dropout, 3, 0, 0), (float)(weight / weights));
        }
        Assert.Equal(sum / weights, result.Loss, 5);
        Assert.Equal(6, result.LabelTokens);
        Assert.Equal(parts.GradientNorm(), result.GradNorm, 5);
    }

    [Fact]
    public void RowLossesAreThoseOfTheirSpans()
    {
        using var engine = TinyModel.Open(
            TinyModel.Smallest(),
            new ModelSettings(
                WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters, TinyModel.Lora(), 0, LogitsChunk: 8),
            20,
            3
        );
        EncodedRow[] rows = [new(Ids, [new(1, 3, 2), new(5, 8)]), new(Ids[..4], 1), new(Ids[..2], []), new(Ids, 4)];
        int told = 0;
        var all = RowLosses.Measure(engine, new RowList(rows), new(3, 20, Progress: (d, _) => told = d));
        Assert.Equal(4, told);
        Assert.Equal([7.0, 3, 0, 4], all.Select(l => l.Weight));
        var smoothed = RowLosses.Measure(engine, new RowList(rows), new(3, 20, LabelSmoothing: 0.2f));
        Assert.Equal(engine.Losses(Batch(rows[3]).Host, labelSmoothing: 0.2f), smoothed[3].Sum, 4);
        Assert.NotEqual(all[3].Sum, smoothed[3].Sum, 2);
        for (int i = 0; i < rows.Length; i++)
        {
            double expected = 0;
            foreach (var s in rows[i].Spans)
                for (int t = s.Start; t < s.End; t++)
                    expected += s.Weight * engine.Losses(Batch(new EncodedRow(rows[i].Ids, [new(t, t + 1)])).Host);
            Assert.Equal(expected, all[i].Sum, 4);
        }
    }
}
