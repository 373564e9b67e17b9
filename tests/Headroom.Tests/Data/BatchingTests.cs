using Headroom.Core;
using Headroom.Training.Data;
using Headroom.Training.Recipes;

namespace Headroom.Tests.Data;

/// <summary>Micro-batches by rows and by a budget of tokens.</summary>
public sealed class BatchingTests
{
    private static RowList Rows(IEnumerable<int> lengths) =>
        new([.. lengths.Select(n => new EncodedRow(new int[n], 1))]);

    private static int[] Lengths(ulong seed, int count, int most)
    {
        var random = new PhiloxRandom(seed, 7);
        return [.. Enumerable.Range(0, count).Select(_ => 2 + random.Next(most - 1))];
    }

    private static TrainingOptions Options(int budget, int accumulation = 1) =>
        new() { TokensPerDeviceBatch = budget, GradientAccumulationSteps = accumulation, NumTrainEpochs = 2, Seed = 5 };

    [Theory]
    [InlineData(1, 40)]
    [InlineData(2, 64)]
    [InlineData(3, 400)]
    public void EveryRowIsInOneBatchOfAnEpochAndNoneIsOverfull(ulong seed, int budget)
    {
        int[] lengths = Lengths(seed, 300, 40);
        var batching = new Batching(Rows(lengths), Options(budget), lengths.Max());
        var compositions = new HashSet<string>();
        for (int epoch = 0; epoch < 3; epoch++)
        {
            int[][] batches = batching.Epoch(epoch);
            Assert.Equal(batching.PerEpoch, batches.Length);
            Assert.Equal(Enumerable.Range(0, 300), batches.SelectMany(b => b).Order());
            Assert.All(batches, b => Assert.InRange(b.Sum(i => lengths[i]), 2, budget));
            Assert.Equal(batching.MostRows, batches.Max(b => b.Length));
            Assert.Equal(batching.MostTokens, batches.Max(b => b.Sum(i => lengths[i])));
            Assert.Equal(batches, new Batching(Rows(lengths), Options(budget), lengths.Max()).Epoch(epoch));
            compositions.Add(string.Join(';', batches.Select(b => string.Join(',', b))));
        }
        Assert.Equal(3, compositions.Count);
        Assert.Equal(batching.PerEpoch, batching.StepsPerEpoch);
        Assert.Equal(2 * batching.PerEpoch, batching.TotalSteps);
    }

    /// <summary>No packing needs fewer batches than all tokens take; best-fit decreasing needs at most 11/9 of the
    /// optimum and 4 more (Johnson 1973).</summary>
    [Fact]
    public void LittleOfTheBudgetIsLeft()
    {
        int[] lengths = Lengths(9, 2000, 500);
        var batching = new Batching(Rows(lengths), Options(2048), lengths.Max());
        double least = Math.Ceiling(lengths.Sum() / 2048.0);
        Assert.InRange(batching.PerEpoch, least, least * 11 / 9 + 4);
        Assert.InRange(batching.Filled, 0.97, 1);
        Assert.Equal(lengths.Sum() / (2048.0 * batching.PerEpoch), batching.Filled, 9);
    }

    [Fact]
    public void RowsInOrderStayInOrder()
    {
        int[] lengths = [3, 5, 2, 9, 1, 1];
        var options = Options(10);
        options.TrainSamplingStrategy = SamplingStrategy.Sequential;
        Assert.Equal([[0, 1, 2], [3, 4], [5]], new Batching(Rows(lengths), options, 9).Epoch(1));
    }

    [Fact]
    public void ARowLongerThanTheBudgetIsRefused()
    {
        var e = Assert.Throws<HeadroomException>(() => new Batching(Rows([5, 12]), Options(10), 12));
        Assert.Contains("tokens_per_device_batch is 10, the longest row has 12", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void ByRowsAsBefore()
    {
        int[] lengths = Lengths(4, 21, 9);
        var options = new TrainingOptions { PerDeviceTrainBatchSize = 4, GradientAccumulationSteps = 2, MaxSteps = 9 };
        var batching = new Batching(Rows(lengths), options, 9);
        Assert.Equal((6, 3, 9, 4), (batching.PerEpoch, batching.StepsPerEpoch, batching.TotalSteps, batching.MostRows));
        Assert.Equal(BatchFeed.Order(Rows(lengths), options, 2), batching.Epoch(2).SelectMany(b => b));
    }
}
