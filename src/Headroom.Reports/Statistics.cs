using Headroom.Core;

namespace Headroom.Reports;

/// <summary>A value with its 95 % interval.</summary>
public readonly record struct Interval(double Value, double Low, double High);

/// <summary>Bootstrap intervals of the metrics of label 1.</summary>
public sealed record BinaryIntervals(Interval Precision, Interval Recall, Interval F1);

/// <summary>The few statistics a comparison of classifiers needs.</summary>
public static class Statistics
{
    private const double Z95 = 1.959963984540054;

    /// <summary>Wilson's 95 % interval of a proportion.</summary>
    public static Interval Wilson(int successes, int n)
    {
        if (n == 0) return new Interval(0, 0, 1);
        double p = successes / (double)n, z2 = Z95 * Z95;
        double centre = (p + z2 / (2 * n)) / (1 + z2 / n);
        double half = Z95 / (1 + z2 / n) * Math.Sqrt(p * (1 - p) / n + z2 / (4.0 * n * n));
        return new Interval(p, successes == 0 ? 0 : centre - half, successes == n ? 1 : centre + half);
    }

    /// <summary>
    /// Percentile bootstrap over rows. The metrics depend on a row only through its cell of the confusion matrix
    /// [tn, fp, fn, tp], so a resample is n draws of a cell. Resample i uses Philox stream i: the result does not depend on threads.
    /// </summary>
    public static BinaryIntervals Bootstrap(int[] confusion, ulong seed, int resamples = 2000)
    {
        int tn = confusion[0], fp = confusion[1], fn = confusion[2], tp = confusion[3], n = tn + fp + fn + tp;
        double[] precision = new double[resamples], recall = new double[resamples], f1 = new double[resamples];
        Parallel.For(0, resamples, i =>
        {
            var random = new PhiloxRandom(seed, (uint)i);
            int a = 0, b = 0, c = 0; // tp, fp, fn of the resample
            for (int k = 0; k < n; k++)
            {
                int x = random.Next(n);
                if (x < tp) a++;
                else if (x < tp + fp) b++;
                else if (x < tp + fp + fn) c++;
            }
            (precision[i], recall[i], f1[i]) = (Ratio(a, a + b), Ratio(a, a + c), Ratio(2 * a, 2 * a + b + c));
        });
        return new BinaryIntervals(Percentile(Ratio(tp, tp + fp), precision), Percentile(Ratio(tp, tp + fn), recall), Percentile(Ratio(2 * tp, 2 * tp + fp + fn), f1));
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

    private static Interval Percentile(double value, double[] samples)
    {
        Array.Sort(samples);
        return new Interval(value, Quantile(samples, 0.025), Quantile(samples, 0.975));
    }

    private static double Ratio(double a, double b) => b == 0 ? 0 : a / b;
}
