using Headroom.Reports;

namespace Headroom.Tests.Reports;

public class StatisticsTests
{
    [Theory] // statsmodels proportion_confint(method="wilson")
    [InlineData(8, 10, 0.4901625, 0.9433178)]
    [InlineData(0, 10, 0, 0.2775328)]
    [InlineData(10, 10, 0.7224672, 1)]
    public void Wilson(int k, int n, double low, double high)
    {
        var i = Statistics.Wilson(k, n);
        Assert.Equal((low, high), (Math.Round(i.Low, 7), Math.Round(i.High, 7)));
    }

    [Theory] // 2 * binom.cdf(min, b + c, 0.5), by hand
    [InlineData(10, 2, 0.03857421875)]
    [InlineData(2, 10, 0.03857421875)]
    [InlineData(0, 5, 0.0625)]
    [InlineData(0, 0, 1)]
    [InlineData(5, 5, 1)]
    [InlineData(3, 2, 1)]
    public void McNemar(int b, int c, double p) => Assert.Equal(p, Statistics.McNemarExact(b, c), 12);

    [Fact]
    public void McNemarOfLargeCountsIsNeitherZeroNorNaN()
    {
        // Normal approximation with continuity: z = 199 / sqrt(20000) = 1.4071, p = 0.1594.
        Assert.InRange(Statistics.McNemarExact(10100, 9900), 0.1588, 0.1600);
        Assert.InRange(Statistics.McNemarExact(3000, 1000), 1e-235, 1e-215);
    }

    [Fact]
    public void BootstrapIsSeededAndNearTheDeltaMethod()
    {
        int[] confusion = [450, 50, 50, 450];
        var a = Statistics.Bootstrap(confusion, 1);
        Assert.Equal(a, Statistics.Bootstrap(confusion, 1));
        Assert.NotEqual(a, Statistics.Bootstrap(confusion, 2));
        Assert.Equal(0.9, a.F1.Value, 12);
        // Precision 450 / 500: sd = sqrt(.9 * .1 / 500) = 0.0134.
        Assert.InRange(a.Precision.Low, 0.9 - 0.030, 0.9 - 0.023);
        Assert.InRange(a.Recall.High, 0.9 + 0.023, 0.9 + 0.030);
        Assert.InRange(a.F1.High - a.F1.Low, 0.034, 0.046);
    }

    [Fact]
    public void NothingPredictedGivesZeroNotNaN() => Assert.Equal(new Interval(0, 0, 0), Statistics.Bootstrap([10, 0, 5, 0], 3).F1);

    [Fact]
    public void HolmStepsDown() => Assert.Equal([0.03, 0.06, 0.06], Statistics.Holm([0.01, 0.04, 0.03]).Select(p => Math.Round(p, 12)));

    [Fact]
    public void CurveFindsLineCliffPlateauAndSpike()
    {
        static CurveStatistics Of(Func<int, double> f) => CurveStatistics.Of(Enumerable.Range(1, 200).Select(i => new StepPoint(i, f(i), 1 + 0.1 * (i % 2), 1e-4, 1, false)).ToArray());
        var line = Of(i => 3 - 0.01 * i);
        Assert.Equal(1, line.LinearityR2!.Value, 9);
        Assert.Null(line.PlateauStep);
        Assert.Null(line.CliffStep);
        Assert.Empty(line.Spikes!);
        Assert.Equal(1, line.GradientReversals!.Value, 9);
        Assert.Equal(0.1 / 1.05, line.GradientOscillation!.Value, 3);
        var cliff = Of(i => i < 60 ? 3 : 1);
        Assert.InRange(cliff.CliffStep!.Value, 35, 60);
        Assert.InRange(cliff.PlateauStep!.Value, 60, 90);
        Assert.Equal([150], Of(i => i == 150 ? 9 : 3 - 0.01 * i).Spikes!);
        Assert.Null(CurveStatistics.Of([]).LinearityR2);
    }
}
