using Headroom.Core;

namespace Headroom.Training.Intervals;

/// <summary>
/// Draws of counts. Which rows a bootstrap draws matters to a confusion matrix only by their cell, so a resample of
/// n rows is one multinomial draw over the cells: exact, and as fast for a million rows as for a hundred.
/// </summary>
internal static class Multinomial
{
    private const double FewExpected = 10; // below, walking from 0 is fast; above, rejection's constants hold

    /// <summary>
    /// n draws with replacement from <paramref name="counts"/>, whose sum is n, by one binomial a cell given those
    /// before it.
    /// </summary>
    public static void Resample(ReadOnlySpan<long> counts, Span<long> drawn, PhiloxRandom random)
    {
        long left = 0;
        foreach (long c in counts) left += c;
        long rows = left;
        for (int i = 0; i < counts.Length; i++)
        {
            drawn[i] =
                left == 0 || rows == 0 ? 0
                : counts[i] >= rows ? left
                : Binomial(random, left, counts[i] / (double)rows);
            left -= drawn[i];
            rows -= counts[i];
        }
    }

    /// <summary>Successes among n tries of probability p.</summary>
    public static long Binomial(PhiloxRandom random, long n, double p) =>
        p > 0.5 ? n - Binomial(random, n, 1 - p)
        : p <= 0 || n == 0 ? 0
        : n * p < FewExpected ? Walk(random, n, p)
        : Reject(random, n, p);

    // Inversion: the probabilities of 0, 1, 2, ... are taken off a uniform number until it is used up.
    private static long Walk(PhiloxRandom random, long n, double p)
    {
        double u = Uniform(random), odds = p / (1 - p), each = Math.Exp(n * Math.Log(1 - p));
        long k = 0;
        while (u > each && k < n)
        {
            u -= each;
            each *= (n - k) / (k + 1.0) * odds;
            k++;
            if (each == 0) break; // beyond the last that a double knows
        }
        return k;
    }

    // Transformed rejection with squeeze: W. Hörmann, "The generation of binomial random variates" (1993), algorithm
    // BTRS, with its constants.
    private static long Reject(PhiloxRandom random, long n, double p)
    {
        double q = 1 - p,
            spread = Math.Sqrt(n * p * q),
            b = 1.15 + 2.53 * spread,
            a = -0.0873 + 0.0248 * b + 0.01 * p,
            centre = n * p + 0.5;
        double alpha = (2.83 + 5.1 / b) * spread,
            squeeze = 0.92 - 4.2 / b,
            odds = p / q,
            mode = Math.Floor((n + 1) * p);
        while (true)
        {
            double u = Uniform(random) - 0.5,
                v = Uniform(random),
                us = 0.5 - Math.Abs(u),
                k = Math.Floor((2 * a / us + b) * u + centre);
            if (us >= 0.07 && v <= squeeze) return (long)k;
            if (!(k >= 0 && k <= n)) continue;
            double bound =
                (mode + 0.5) * Math.Log((mode + 1) / (odds * (n - mode + 1)))
                + (n + 1) * Math.Log((n - mode + 1) / (n - k + 1))
                + (k + 0.5) * Math.Log(odds * (n - k + 1) / (k + 1))
                + Tail(mode)
                + Tail(n - mode)
                - Tail(k)
                - Tail(n - k);
            if (Math.Log(v * alpha / (a / (us * us) + b)) <= bound) return (long)k;
        }
    }

    // What Stirling's formula leaves of log k!.
    private static double Tail(double k)
    {
        if (k < Tails.Length) return Tails[(int)k];
        double x = k + 1, square = x * x;
        return (1.0 / 12 - (1.0 / 360 - 1.0 / 1260 / square) / square) / x;
    }

    private static readonly double[] Tails = [.. Enumerable.Range(0, 10).Select(k =>
    {
        double log = 0;
        for (int i = 2; i <= k; i++) log += Math.Log(i);
        return log - (0.5 * Math.Log(2 * Math.PI) + (k + 0.5) * Math.Log(k + 1.0) - (k + 1.0));
    })];

    // In (0, 1), of 53 bits.
    private static double Uniform(PhiloxRandom random) =>
        (((ulong)(random.NextUInt() >> 6) << 26 | random.NextUInt() >> 6) + 0.5) * (1.0 / (1UL << 52));
}
