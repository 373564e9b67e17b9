using Headroom.Core;
using Headroom.Reports;
using Headroom.Training.Events;
using Headroom.Training.Intervals;
using Headroom.Training.Tasks.LabelWords;

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
        var confusion = new ConfusionMatrix([450, 50, 50, 450]);
        var a = ConfusionIntervals.Resample(confusion, 1).Main;
        Assert.Equal(a, ConfusionIntervals.Resample(confusion, 1).Main);
        Assert.NotEqual(a, ConfusionIntervals.Resample(confusion, 2).Main);
        Assert.Equal(0.9, a.F1.Value, 12);
        // Precision 450 / 500: sd = sqrt(.9 * .1 / 500) = 0.0134.
        Assert.InRange(a.Precision.Low, 0.9 - 0.030, 0.9 - 0.023);
        Assert.InRange(a.Recall.High, 0.9 + 0.023, 0.9 + 0.030);
        Assert.InRange(a.F1.High - a.F1.Low, 0.034, 0.046);
    }

    [Fact]
    public void ABootstrapOfCountsIsOneOverRows()
    {
        // Three classes, drawn row by row as the definition says: the ends must agree within what 2,000 resamples leave
        // open (0.004 here).
        long[] counts = [60, 5, 3, 8, 40, 2, 4, 6, 22];
        var m = new ConfusionMatrix(counts);
        int[] cells = [.. Enumerable.Range(0, 9).SelectMany(c => Enumerable.Repeat(c, (int)counts[c]))];
        var random = new Random(5);
        double[] macro = new double[4000], recall = new double[4000];
        for (int i = 0; i < macro.Length; i++)
        {
            var drawn = new long[9];
            for (int k = 0; k < cells.Length; k++) drawn[cells[random.Next(cells.Length)]]++;
            var resample = new ConfusionMatrix(drawn);
            (macro[i], recall[i]) = (resample.Macro.F1, resample.ForClass(2).Recall);
        }
        Array.Sort(macro);
        Array.Sort(recall);
        var own = ConfusionIntervals.Resample(m, 3, 4000);
        Assert.InRange(own.Macro.F1.Low, macro[100] - 0.008, macro[100] + 0.008);
        Assert.InRange(own.Macro.F1.High, macro[3900] - 0.008, macro[3900] + 0.008);
        Assert.InRange(own.Classes[2].Recall.Low, recall[100] - 0.03, recall[100] + 0.03);
        Assert.InRange(own.Classes[2].Recall.High, recall[3900] - 0.03, recall[3900] + 0.03);
    }

    [Theory] // against the exact distribution: chi-square of 20,000 draws over the values that are expected 20 times or more
    [InlineData(5, 0.5)]
    [InlineData(40, 0.1)]
    [InlineData(40, 0.9)]
    [InlineData(30, 0.34)]
    [InlineData(1000, 0.4)]
    [InlineData(100000, 0.00002)]
    [InlineData(25000, 0.7)]
    public void BinomialDrawsFollowTheirDistribution(int n, double p)
    {
        const int draws = 20000;
        var random = new PhiloxRandom(7);
        var seen = new Dictionary<long, int>();
        for (int i = 0; i < draws; i++)
        {
            long k = Multinomial.Binomial(random, n, p);
            Assert.InRange(k, 0, n);
            seen[k] = seen.GetValueOrDefault(k) + 1;
        }
        double log = n * Math.Log(1 - p), square = 0, rest = draws;
        int bins = 0, others = draws;
        for (int k = 0; k <= n; k++)
        {
            double expected = draws * Math.Exp(log);
            if (expected >= 20)
            {
                square += Math.Pow(seen.GetValueOrDefault(k) - expected, 2) / expected;
                bins++;
                rest -= expected;
                others -= seen.GetValueOrDefault(k);
            }
            log += Math.Log((n - k) / (k + 1.0)) + Math.Log(p / (1 - p));
        }
        if (rest > 20) square += Math.Pow(others - rest, 2) / rest;
        Assert.True(square < bins + 5 * Math.Sqrt(2.0 * bins) + 5, $"chi-square {square:F1} of {bins} bins");
    }

    [Fact]
    public void ResamplesKeepTheirRows()
    {
        var drawn = new long[4];
        for (uint i = 0; i < 200; i++)
        {
            Multinomial.Resample([0, 3, 0, 4], drawn, new PhiloxRandom(1, i));
            Assert.Equal((0, 0, 7), (drawn[0], drawn[2], drawn.Sum()));
        }
        Multinomial.Resample([0, 0], drawn.AsSpan(0, 2), new PhiloxRandom(1));
        Assert.Equal([0, 0], drawn[..2]);
    }

    [Fact]
    public void WhereNoResampleDiffersTheIntervalIsWilsons()
    {
        // Ten of ten: [1, 1] would be certainty. statsmodels: proportion_confint(10, 10, method="wilson") = (0.7224672,
        // 1).
        var all = ConfusionIntervals.Resample(new ConfusionMatrix([12, 0, 0, 10]), 3);
        Assert.Equal(
            (1, 0.7224672, 1), (all.Main.Recall.Value, Math.Round(all.Main.Recall.Low, 7), all.Main.Recall.High));
        Assert.Equal(2 * 0.7224672 / 1.7224672, all.Main.F1.Low, 6);
        Assert.InRange(all.Macro.F1.Low, 0.83, 0.87);
        // Never predicted: nothing is known of its precision.
        var none = ConfusionIntervals.Resample(new ConfusionMatrix([10, 0, 5, 0]), 3).Main;
        Assert.Equal(new Interval(0, 0, 1), none.Precision);
        Assert.Equal((0, 0), (none.F1.Value, none.F1.Low));
        Assert.InRange(none.F1.High, 0.4, 0.7);
        Assert.False(double.IsNaN(none.Recall.High));
    }

    [Fact]
    public void AThirdClassThatIsWrongShowsInF1()
    {
        // The rows of labels 0 and 1 are all right and 47 % of all rows are not: F1 was 1.000 [1.000, 1.000] when two
        // labels were counted.
        var m = new ConfusionMatrix([27, 0, 0, 0, 26, 0, 24, 23, 0], ["a", "b", "c"]);
        var i = ConfusionIntervals.Resample(m, 1);
        Assert.Equal(0.53, m.Accuracy, 12);
        // By hand: F1 of a 2 * 27 / (27 + 51), of b 2 * 26 / (26 + 49), of c 0.
        Assert.Equal((54 / 78.0 + 52 / 75.0) / 3, i.Main.F1.Value, 12);
        Assert.True(i.Main.F1 is { Low: > 0.38 and < 0.44, High: > 0.47 and < 0.55 }, $"{i.Main.F1}");
        Assert.Equal("macro F1", m.F1Name);
    }

    [Fact]
    public void ManyRowsAndClassesTakeNoTime()
    {
        var large = new long[400];
        for (int c = 0; c < 400; c++) large[c] = c % 21 == 0 ? 1_000_000_000 : 3 + c % 7;
        var watch = System.Diagnostics.Stopwatch.StartNew();
        var i = ConfusionIntervals.Resample(new ConfusionMatrix(large), 1);
        Assert.True(watch.Elapsed.TotalSeconds < 20, $"{watch.Elapsed}"); // about 0.1 s; drawing rows would take days
        Assert.Equal(20, i.Classes.Count);
        Assert.All(i.Classes, c => Assert.InRange(c.F1.Value, c.F1.Low, c.F1.High));
    }

    [Theory] // tables of Student's t, two-sided 95 %
    [InlineData(1, 12.706204736)]
    [InlineData(2, 4.302652730)]
    [InlineData(3, 3.182446305)]
    [InlineData(4, 2.776445105)]
    [InlineData(9, 2.262157163)]
    [InlineData(30, 2.042272456)]
    public void StudentsT(int freedom, double t)
    {
        Assert.Equal(t, StudentT.Quantile95(freedom), 6);
        Assert.Equal(0.05, StudentT.TwoSided(-t, freedom), 7);
        Assert.Equal(1, StudentT.TwoSided(0, freedom), 12);
    }

    [Fact]
    public void OverSeedsIsThePairedTTest()
    {
        // scipy.stats.ttest_1samp([0.01, 0.03, 0.02, 0.05], 0): t = 3.22047; t.interval(0.95, 3) of mean and sem.
        var (mean, p) = Statistics.OverSeeds([0.01, 0.03, 0.02, 0.05])!.Value;
        Assert.Equal(0.0275, mean.Value, 12);
        Assert.Equal(0.00032469116, mean.Low, 9);
        Assert.Equal(0.05467530884, mean.High, 9);
        Assert.Equal(0.04856685656, p, 9);
        Assert.Null(Statistics.OverSeeds([0.1]));
        Assert.Null(Statistics.OverSeeds([0.1, 0.1, 0.1])); // no spread is no proof
    }

    [Fact]
    public void HolmStepsDown() =>
        Assert.Equal([0.03, 0.06, 0.06], Statistics.Holm([0.01, 0.04, 0.03]).Select(p => Math.Round(p, 12)));

    [Fact]
    public void CurveFindsLineCliffPlateauAndSpike()
    {
        static CurveStatistics Of(Func<int, double> f) =>
            CurveStatistics.Compute(
                Enumerable
                    .Range(1, 200)
                    .Select(i => new StepEvent { Step = i, Loss = f(i), GradNorm = 1 + 0.1 * (i % 2) })
                    .ToArray()
            );
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
        Assert.Null(CurveStatistics.Compute([]).LinearityR2);
    }
}
