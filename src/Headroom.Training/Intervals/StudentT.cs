namespace Headroom.Training.Intervals;

/// <summary>Student's t distribution, for intervals over few seeds.</summary>
internal static class StudentT
{
    /// <summary>Probability of a value beyond ±|t|.</summary>
    public static double TwoSided(double t, int freedom) => Math.Max(0, 1 - Within(Math.Abs(t), freedom));

    /// <summary>The t that 95 % of the values lie within.</summary>
    public static double Quantile95(int freedom)
    {
        double low = 0, high = 13; // 12.706 of one degree of freedom is the largest
        while (high - low > 1e-12)
        {
            double t = (low + high) / 2;
            if (Within(t, freedom) < 0.95) low = t;
            else high = t;
        }
        return high;
    }

    // Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4: for whole degrees of freedom a
    // finite sum.
    private static double Within(double t, int freedom)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(freedom, 1);
        double angle = Math.Atan2(t, Math.Sqrt(freedom)), cos = Math.Cos(angle), sin = Math.Sin(angle);
        bool odd = freedom % 2 == 1;
        double term = odd ? cos : 1, sum = 0;
        for (int i = odd ? 3 : 2; i <= freedom; i += 2)
        {
            sum += term;
            term *= cos * cos * (i - 1) / i;
        }
        return odd ? 2 / Math.PI * (angle + sin * sum) : sin * sum;
    }
}
