namespace Headroom.Training.Intervals;

/// <summary>A value with its 95 % interval.</summary>
public readonly record struct Interval(double Value, double Low, double High);

/// <summary>The few statistics a comparison of classifiers needs.</summary>
internal static class Statistics
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
    /// Exact two-sided McNemar p-value: twice the smaller binomial tail of the discordant pairs, at most 1.
    /// </summary>
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

    /// <summary>
    /// 95 % interval of a mean over rows that are drawn independently, normal: mean ± 1.96 standard errors. Null for
    /// fewer than two rows.
    /// </summary>
    /// <param name="n">Rows.</param>
    /// <param name="sum">Sum of the values.</param>
    /// <param name="squares">Sum of their squares.</param>
    public static Interval? OfMean(long n, double sum, double squares)
    {
        if (n < 2) return null;
        double mean = sum / n, half = Z95 * Math.Sqrt(Math.Max(0, squares / n - mean * mean) / (n - 1));
        return new Interval(mean, mean - half, mean + half);
    }

    /// <summary>
    /// A ratio of sums over n independent pairs with its normal 95 % interval (Cochran, Sampling Techniques, 6.3: the
    /// variance of sum(a) / sum(b) is n / (n - 1) * sum((a - ratio * b)^2) / sum(b)^2).
    /// </summary>
    /// <param name="pairs">Numerator and denominator of each.</param>
    /// <returns>Null of fewer than two pairs.</returns>
    public static Interval? OfRatio(IReadOnlyList<(double A, double B)> pairs)
    {
        if (pairs.Count < 2) return null;
        double b = pairs.Sum(p => p.B), ratio = pairs.Sum(p => p.A) / b, n = pairs.Count;
        double error = pairs.Sum(p => (p.A - ratio * p.B) * (p.A - ratio * p.B));
        double half = Z95 * Math.Sqrt(n / (n - 1) * error) / b;
        return new Interval(ratio, ratio - half, ratio + half);
    }

    /// <summary>
    /// Rows only <paramref name="first"/> has right, and rows only <paramref name="second"/> has right.
    /// </summary>
    public static (int FirstOnly, int SecondOnly) Discordant(ReadOnlySpan<bool> first, ReadOnlySpan<bool> second)
    {
        int b = 0, c = 0;
        for (int i = 0; i < first.Length; i++)
            if (first[i] && !second[i]) b++;
            else if (second[i] && !first[i]) c++;
        return (b, c);
    }

    /// <summary>Holm's step-down adjustment, in the order given.</summary>
    public static double[] Holm(double[] p)
    {
        int[] order = Enumerable.Range(0, p.Length).OrderBy(i => p[i]).ToArray();
        var adjusted = new double[p.Length];
        double floor = 0;
        for (int k = 0; k < order.Length; k++)
            adjusted[order[k]] = floor = Math.Max(floor, Math.Min(1, (p.Length - k) * p[order[k]]));
        return adjusted;
    }

    /// <summary>
    /// Mean of differences between two models that were trained with the same seeds, one difference a seed, with
    /// Student's 95 % interval and the two-sided p-value of no difference (the paired t-test; C. Colas, O. Sigaud,
    /// P.-Y. Oudeyer, "How Many Random Seeds?", 2018). Null for fewer than two, or where they are all
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
    public static double Quantile(ReadOnlySpan<double> sorted, double q)
    {
        double at = q * (sorted.Length - 1);
        int i = (int)at;
        return i + 1 < sorted.Length ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[i];
    }

    /// <summary>The percentile interval of sorted resamples; null where none differs.</summary>
    public static Interval? Percentile(double value, double[] sorted) =>
        Quantile(sorted, 0.025) is var low && Quantile(sorted, 0.975) is var high && low < high
            ? new Interval(value, low, high)
            : null;
}
