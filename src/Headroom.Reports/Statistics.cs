using Headroom.Core;
using Headroom.Training;

namespace Headroom.Reports;

/// <summary>A value with its 95 % interval.</summary>
public readonly record struct Interval(double Value, double Low, double High);

/// <summary>Precision, recall and F1 with their intervals, of a class or an average.</summary>
public sealed record ScoreIntervals(Interval Precision, Interval Recall, Interval F1);

/// <summary>Every figure of a confusion matrix with its 95 % interval.</summary>
/// <param name="Accuracy">Wilson's.</param>
/// <param name="Macro">Mean over the classes that occur; bootstrap over rows, as all that follows.</param>
/// <param name="Weighted">Mean by gold rows.</param>
/// <param name="Classes">By class.</param>
public sealed record ConfusionIntervals(Interval Accuracy, ScoreIntervals Macro, ScoreIntervals Weighted, IReadOnlyList<ScoreIntervals> Classes)
{
    /// <summary>As <see cref="ConfusionMatrix.Main"/>: of the positive class where there are two, else macro.</summary>
    public ScoreIntervals Main => Classes.Count == 2 ? Classes[1] : Macro;
}

/// <summary>The few statistics a comparison of classifiers needs.</summary>
public static class Statistics
{
    private const double Z95 = 1.959963984540054;

    /// <summary>Resamples of a bootstrap.</summary>
    public const int Resamples = 2000;

    /// <summary>Wilson's 95 % interval of a proportion; 0 to 1 where there is none.</summary>
    public static Interval Wilson(long successes, long n)
    {
        if (n == 0) return new Interval(0, 0, 1);
        double p = successes / (double)n, z2 = Z95 * Z95;
        double centre = (p + z2 / (2 * n)) / (1 + z2 / n);
        double half = Z95 / (1 + z2 / n) * Math.Sqrt(p * (1 - p) / n + z2 / (4.0 * n) / n);
        return new Interval(p, successes == 0 ? 0 : centre - half, successes == n ? 1 : centre + half);
    }

    /// <summary>
    /// Accuracy with Wilson's interval; precision, recall and F1 of every class and average with a percentile bootstrap over rows (B. Efron, "Bootstrap methods",
    /// 1979; 2.5 to 97.5 % of the resamples). Resample i uses Philox stream i: the result does not depend on threads. Where no resample differs (all or none of a
    /// class right), which says nothing about other rows, Wilson's interval takes its place: of right / predicted, right / gold, and for F1 = 2 J / (1 + J) of
    /// J = right / (rows that are or were called so); averages then take the mean of their classes' bounds.
    /// </summary>
    public static ConfusionIntervals Intervals(ConfusionMatrix m, ulong seed, int resamples = Resamples)
    {
        int figures = 3 * (m.Classes + 2);
        var samples = new double[figures][];
        for (int f = 0; f < figures; f++) samples[f] = new double[resamples];
        Parallel.For(0, m.Rows == 0 ? 0 : resamples, () => new long[m.Classes * m.Classes], (i, _, drawn) =>
        {
            Multinomial.Resample(m.Counts, drawn, new PhiloxRandom(seed, (uint)i));
            var resample = new ConfusionMatrix(drawn);
            for (int k = 0; k < m.Classes + 2; k++) (samples[3 * k][i], samples[3 * k + 1][i], samples[3 * k + 2][i]) = Figures(resample, k);
            return drawn;
        }, _ => { });
        Parallel.ForEach(samples, s => Array.Sort(s));
        var classes = Enumerable.Range(0, m.Classes).Select(c => OfClass(m, c, samples.AsSpan(3 * c, 3))).ToList();
        return new ConfusionIntervals(Wilson(m.Correct, m.Rows), OfAverage(m.Macro, samples.AsSpan(3 * m.Classes, 3), c => m.Occurs(c) ? 1 : 0, classes),
            OfAverage(m.Weighted, samples.AsSpan(3 * m.Classes + 3, 3), c => m.Gold(c), classes), classes);
    }

    // The classes, then macro and weighted.
    private static (double, double, double) Figures(ConfusionMatrix m, int k)
    {
        var s = k < m.Classes ? m.Of(k) : k == m.Classes ? m.Macro : m.Weighted;
        return (s.Precision, s.Recall, s.F1);
    }

    private static ScoreIntervals OfClass(ConfusionMatrix m, int c, ReadOnlySpan<double[]> sorted)
    {
        var s = m.Of(c);
        long right = m[c, c], gold = m.Gold(c), predicted = m.Predicted(c);
        var share = Wilson(right, gold + predicted - right);
        return new ScoreIntervals(Percentile(s.Precision, sorted[0]) ?? Wilson(right, predicted), Percentile(s.Recall, sorted[1]) ?? Wilson(right, gold),
            Percentile(s.F1, sorted[2]) ?? new Interval(s.F1, 2 * share.Low / (1 + share.Low), 2 * share.High / (1 + share.High)));
    }

    private static ScoreIntervals OfAverage(Scores s, ReadOnlySpan<double[]> sorted, Func<int, double> weight, List<ScoreIntervals> classes)
    {
        double all = Enumerable.Range(0, classes.Count).Sum(weight);
        Interval Mean(double value, Func<ScoreIntervals, Interval> of) => all == 0 ? new Interval(value, 0, 1)
            : new Interval(value, classes.Select((c, i) => weight(i) * of(c).Low).Sum() / all, classes.Select((c, i) => weight(i) * of(c).High).Sum() / all);
        return new ScoreIntervals(Percentile(s.Precision, sorted[0]) ?? Mean(s.Precision, c => c.Precision),
            Percentile(s.Recall, sorted[1]) ?? Mean(s.Recall, c => c.Recall), Percentile(s.F1, sorted[2]) ?? Mean(s.F1, c => c.F1));
    }

    /// <summary>Exact two-sided McNemar p-value: twice the smaller binomial tail of the discordant pairs, at most 1.</summary>
    public static double McNemarExact(int b, int c)
    {
        int n = b + c, k = Math.Min(b, c);
        if (b == c) return 1;
        double log = -n * Math.Log(2), sum = Math.Exp(log), largest = log; // log of C(n, i) / 2^n
        double scaled = 1;
        for (int i = 1; i <= k; i++)
        {
            log += Math.Log(n - i + 1) - Math.Log(i);
            scaled = scaled * Math.Exp(largest - log) + 1; // terms grow up to n / 2: the last is the largest
            largest = log;
            sum = scaled;
        }
        return k == 0 ? Math.Min(1, 2 * sum) : Math.Min(1, Math.Exp(Math.Log(2) + largest + Math.Log(scaled)));
    }

    /// <summary>Rows only <paramref name="first"/> has right, and rows only <paramref name="second"/> has right.</summary>
    public static (int FirstOnly, int SecondOnly) Discordant(int[] gold, int[] first, int[] second)
    {
        int b = 0, c = 0;
        for (int i = 0; i < gold.Length; i++)
        {
            bool x = first[i] == gold[i], y = second[i] == gold[i];
            if (x && !y) b++;
            else if (y && !x) c++;
        }
        return (b, c);
    }

    /// <summary>Holm's step-down adjustment, in the order given.</summary>
    public static double[] Holm(double[] p)
    {
        int[] order = Enumerable.Range(0, p.Length).OrderBy(i => p[i]).ToArray();
        var adjusted = new double[p.Length];
        double floor = 0;
        for (int k = 0; k < order.Length; k++) adjusted[order[k]] = floor = Math.Max(floor, Math.Min(1, (p.Length - k) * p[order[k]]));
        return adjusted;
    }

    /// <summary>
    /// Mean of differences between two models that were trained with the same seeds, one difference a seed, with Student's 95 % interval and the two-sided p-value
    /// of no difference (the paired t-test; C. Colas, O. Sigaud, P.-Y. Oudeyer, "How Many Random Seeds?", 2018). Null for fewer than two, or where they are all
    /// one value, which a t-test would take for certainty.
    /// </summary>
    public static (Interval Mean, double P)? OverSeeds(IReadOnlyList<double> differences)
    {
        if (differences.Count < 2) return null;
        var (mean, sd) = MeanSd(differences);
        double error = sd / Math.Sqrt(differences.Count);
        if (!(error > 1e-12)) return null; // rounding of equal differences
        double half = StudentT.Quantile95(differences.Count - 1) * error;
        return (new Interval(mean, mean - half, mean + half), StudentT.TwoSided(mean / error, differences.Count - 1));
    }

    /// <summary>Mean and sample standard deviation (0 for one value).</summary>
    public static (double Mean, double Sd) MeanSd(IReadOnlyList<double> values)
    {
        double mean = values.Average();
        return (mean, values.Count < 2 ? 0 : Math.Sqrt(values.Sum(v => (v - mean) * (v - mean)) / (values.Count - 1)));
    }

    /// <summary>Quantile of sorted values with linear interpolation (numpy's default).</summary>
    internal static double Quantile(ReadOnlySpan<double> sorted, double q)
    {
        double at = q * (sorted.Length - 1);
        int i = (int)at;
        return i + 1 < sorted.Length ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[i];
    }

    // Null where no resample differs.
    private static Interval? Percentile(double value, double[] sorted) =>
        Quantile(sorted, 0.025) is var low && Quantile(sorted, 0.975) is var high && low < high ? new Interval(value, low, high) : null;
}
