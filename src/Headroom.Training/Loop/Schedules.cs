using Headroom.Core;

namespace Headroom.Training;

/// <summary>Learning-rate schedules of transformers (<c>optimization.py</c>): lr = base * f(s), s = number of updates already done.</summary>
public static class Schedules
{
    /// <summary>Names that <see cref="Factor"/> knows.</summary>
    public static IReadOnlyList<string> Names { get; } =
        ["linear", "cosine", "constant", "constant_with_warmup", "cosine_with_restarts", "polynomial", "inverse_sqrt", "cosine_with_min_lr"];

    /// <summary>f(s) for update number <paramref name="s"/> (from 0), <paramref name="warmup"/> warm-up updates of <paramref name="total"/>.</summary>
    /// <param name="name">lr_scheduler_type.</param>
    /// <param name="s">Updates done.</param>
    /// <param name="warmup">Warm-up updates.</param>
    /// <param name="total">All updates.</param>
    /// <param name="baseLr">Base learning rate; polynomial needs it for its end value.</param>
    /// <param name="cycles">Waves of cosine (0.5) or restarts (1); null = the default.</param>
    /// <param name="power">Power of polynomial.</param>
    /// <param name="lrEnd">End value of polynomial.</param>
    /// <param name="timescale">inverse_sqrt time scale; null = warmup, or 10,000 without warm-up.</param>
    /// <param name="minRate">Smallest factor of cosine_with_min_lr.</param>
    public static double Factor(string name, int s, int warmup, int total, double baseLr = 1, double? cycles = null, double power = 1,
        double lrEnd = 1e-7, int? timescale = null, double minRate = 0)
    {
        if (name == "constant") return 1;
        if (s < warmup) return (double)s / Math.Max(1, warmup);
        double p = (double)(s - warmup) / Math.Max(1, total - warmup);
        switch (name)
        {
            case "constant_with_warmup": return 1;
            case "linear": return Math.Max(0, (double)(total - s) / Math.Max(1, total - warmup));
            case "cosine": return Math.Max(0, 0.5 * (1 + Math.Cos(Math.PI * (cycles ?? 0.5) * 2 * p)));
            case "cosine_with_min_lr":
                double f = 0.5 * (1 + Math.Cos(Math.PI * (cycles ?? 0.5) * 2 * p));
                return Math.Max(0, f * (1 - minRate) + minRate);
            case "cosine_with_restarts": return p >= 1 ? 0 : Math.Max(0, 0.5 * (1 + Math.Cos(Math.PI * ((cycles ?? 1) * p % 1))));
            case "polynomial":
                if (s > total) return lrEnd / baseLr;
                double remaining = 1 - (double)(s - warmup) / (total - warmup);
                return ((baseLr - lrEnd) * Math.Pow(remaining, power) + lrEnd) / baseLr;
            case "inverse_sqrt":
                int scale = timescale ?? (warmup > 0 ? warmup : 10_000);
                return 1 / Math.Sqrt((double)(s + scale - warmup) / scale);
            default:
                throw new HeadroomException($"Unknown lr_scheduler_type '{name}'.", "Use one of: " + string.Join(", ", Names) + ".");
        }
    }

    /// <summary>Warm-up updates: warmup_steps when given, else ceil(total * warmup_ratio), in double arithmetic as transformers does.</summary>
    public static int WarmupSteps(int warmupSteps, double warmupRatio, int total) =>
        warmupSteps > 0 ? warmupSteps : (int)Math.Ceiling(total * warmupRatio);
}
