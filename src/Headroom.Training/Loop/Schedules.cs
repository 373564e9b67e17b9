using System.Globalization;
using Headroom.Core;
using Headroom.Training.Recipes;

namespace Headroom.Training.Loop;

/// <summary>
/// Arguments of a schedule beyond warm-up and length, as lr_scheduler_kwargs gives them; the defaults are
/// transformers'.
/// </summary>
internal sealed record ScheduleArguments
{
    /// <summary>Waves of cosine (0.5) or restarts (1); null = the default.</summary>
    public double? NumCycles { get; init; }
    /// <summary>Power of polynomial.</summary>
    public double Power { get; init; } = 1;
    /// <summary>End value of polynomial, a learning rate.</summary>
    public double LrEnd { get; init; } = 1e-7;
    /// <summary>inverse_sqrt time scale, updates; null = warm-up, or 10,000 without warm-up.</summary>
    public int? Timescale { get; init; }
    /// <summary>
    /// Smallest factor: min_lr_rate of the cosine schedules with a minimum (or min_lr over the learning rate),
    /// min_lr_ratio of warmup_stable_decay.
    /// </summary>
    public double MinRate { get; init; }
    /// <summary>Factor of the first update of cosine_warmup_with_min_lr; null = 1 / warm-up.</summary>
    public double? WarmupRate { get; init; }
    /// <summary>Last updates of warmup_stable_decay, in which the rate falls.</summary>
    public int NumDecaySteps { get; init; }
    /// <summary>Updates of warmup_stable_decay at the full rate; null = what warm-up and decay leave.</summary>
    public int? NumStableSteps { get; init; }
    /// <summary>Form of warmup_stable_decay's warm-up: linear, cosine or 1-sqrt.</summary>
    public string WarmupType { get; init; } = "linear";
    /// <summary>Form of warmup_stable_decay's decay.</summary>
    public string DecayType { get; init; } = "cosine";
}

/// <summary>
/// Learning-rate schedules of transformers (<c>optimization.py</c>): lr = base * f(s), s = number of updates already
/// done.
/// </summary>
internal static class Schedules
{
    /// <summary>
    /// The arguments that each schedule takes; those with a minimum need one of two, warmup_stable_decay its
    /// num_decay_steps.
    /// </summary>
    private static readonly Dictionary<SchedulerType, string[]> Takes = new()
    {
        [SchedulerType.Linear] = [],
        [SchedulerType.Cosine] = ["num_cycles"],
        [SchedulerType.Constant] = [],
        [SchedulerType.ConstantWithWarmup] = [],
        [SchedulerType.CosineWithRestarts] = ["num_cycles"],
        [SchedulerType.Polynomial] = ["lr_end", "power"],
        [SchedulerType.InverseSqrt] = ["timescale"],
        [SchedulerType.CosineWithMinLr] = ["min_lr", "min_lr_rate", "num_cycles"],
        [SchedulerType.CosineWarmupWithMinLr] = ["min_lr", "min_lr_rate", "warmup_lr_rate", "num_cycles"],
        [SchedulerType.WarmupStableDecay] =
        [
            "num_decay_steps", "num_stable_steps", "warmup_type", "decay_type", "min_lr_ratio", "num_cycles"],
    };

    private const string Key = "training.lr_scheduler_kwargs";
    private static readonly ScheduleArguments Defaults = new();

    /// <summary>Reads and checks lr_scheduler_kwargs.</summary>
    /// <param name="o">Names the schedule, its arguments and the learning rate.</param>
    /// <exception cref="HeadroomException">An argument is not one of the schedule's own or out of range, or one that it
    /// needs is missing.</exception>
    public static ScheduleArguments Arguments(TrainingOptions o)
    {
        string[] takes = Takes[o.LrSchedulerType];
        foreach (string name in o.LrSchedulerKwargs.Keys)
            if (!takes.Contains(name))
                throw new HeadroomException(
                    $"{Key}: {o.LrSchedulerType.Word()} takes no '{HeadroomException.Value(name)}'.",
                    takes.Length == 0 ? "Leave it out." : $"It takes {string.Join(", ", takes)}.");
        bool minimum = takes.Contains("min_lr"),
            lr = o.LrSchedulerKwargs.ContainsKey("min_lr"),
            rate = o.LrSchedulerKwargs.ContainsKey("min_lr_rate");
        if (minimum && lr == rate)
            throw new HeadroomException(
                $"training.lr_scheduler_type {o.LrSchedulerType.Word()} needs "
                    + $"{(lr ? "one of min_lr and min_lr_rate, not both" : "min_lr or min_lr_rate")}.",
                $"Write for example {Key}: {{ min_lr_rate: 0.1 }}.");
        if (o.LrSchedulerType == SchedulerType.WarmupStableDecay && !o.LrSchedulerKwargs.ContainsKey("num_decay_steps"))
            throw new HeadroomException(
                "training.lr_scheduler_type warmup_stable_decay needs num_decay_steps.",
                $"Write for example {Key}: {{ num_decay_steps: 100 }}.");
        bool restarts = o.LrSchedulerType == SchedulerType.CosineWithRestarts;
        var given = new Values(o.LrSchedulerKwargs);
        var a = new ScheduleArguments
        {
            NumCycles = restarts ? given.Whole("num_cycles", 1) : given.Number("num_cycles", 0, 1e6, openLow: true),
            Power = given.Number("power", 0, 1e3, openLow: true) ?? Defaults.Power,
            LrEnd = given.Number("lr_end", 0, double.MaxValue) ?? Defaults.LrEnd,
            Timescale = given.Whole("timescale", 1),
            MinRate =
                given.Number("min_lr", 0, o.LearningRate) / o.LearningRate
                ?? given.Number("min_lr_rate", 0, 1)
                ?? given.Number("min_lr_ratio", 0, 1)
                ?? 0,
            WarmupRate = given.Number("warmup_lr_rate", 0, 1),
            NumDecaySteps = given.Whole("num_decay_steps", 0) ?? 0,
            NumStableSteps = given.Whole("num_stable_steps", 0),
            WarmupType = given.Form("warmup_type") ?? Defaults.WarmupType,
            DecayType = given.Form("decay_type") ?? Defaults.DecayType,
        };
        if (o.LrSchedulerType == SchedulerType.Polynomial && a.LrEnd >= o.LearningRate)
            throw new HeadroomException(
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"training.lr_scheduler_type polynomial ends at lr_end {a.LrEnd}, which is not below "
                        + $"training.learning_rate {o.LearningRate}."
                ),
                $"Set a smaller lr_end in {Key}."
            );
        return a;
    }

    /// <summary>The values of lr_scheduler_kwargs; null where one is not given.</summary>
    private readonly struct Values(Dictionary<string, string> given)
    {
        private HeadroomException Wrong(string name, string todo) =>
            new($"{Key}: {name} cannot be '{HeadroomException.Value(given[name])}'.", todo);

        public double? Number(string name, double low, double high, bool openLow = false)
        {
            if (!given.TryGetValue(name, out string? text)) return null;
            bool ok =
                double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out double v)
                && double.IsFinite(v)
                && v >= low
                && v <= high
                && !(openLow && v == low);
            return ok
                ? v
                : throw Wrong(
                    name,
                    string.Create(
                        CultureInfo.InvariantCulture,
                        $"It takes a number "
                            + $"{(openLow ? $"above {low}" : $"from {low}")}{(high < double.MaxValue ? $" to {high}" : "")}."
                    )
                );
        }

        public int? Whole(string name, int least) => !given.TryGetValue(name, out string? text) ? null
            : int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int v) && v >= least
                ? v
            : throw Wrong(name, $"It takes a whole number of {least} or more.");

        public string? Form(string name) => !given.TryGetValue(name, out string? text) ? null
            : text is "linear" or "cosine" or "1-sqrt" ? text : throw Wrong(name, "It takes linear, cosine or 1-sqrt.");
    }

    /// <summary>
    /// f(s) for update number <paramref name="s"/> (from 0), <paramref name="warmup"/> warm-up updates of
    /// <paramref name="total"/>.
    /// </summary>
    /// <param name="type">lr_scheduler_type.</param>
    /// <param name="s">Updates done.</param>
    /// <param name="warmup">Warm-up updates.</param>
    /// <param name="total">All updates.</param>
    /// <param name="baseLr">Base learning rate; polynomial needs it for its end value.</param>
    /// <param name="a">The other arguments; null = their defaults.</param>
    public static double Factor(
        SchedulerType type, int s, int warmup, int total, double baseLr = 1, ScheduleArguments? a = null)
    {
        a ??= Defaults;
        if (type == SchedulerType.Constant) return 1;
        if (type == SchedulerType.WarmupStableDecay) return StableDecay(s, warmup, total, a);
        if (type == SchedulerType.CosineWarmupWithMinLr) return CosineBothWays(s, warmup, total, a);
        if (s < warmup) return (double)s / Math.Max(1, warmup);
        double p = (double)(s - warmup) / Math.Max(1, total - warmup);
        switch (type)
        {
            case SchedulerType.ConstantWithWarmup: return 1;
            case SchedulerType.Linear: return Math.Max(0, (double)(total - s) / Math.Max(1, total - warmup));
            case SchedulerType.Cosine: return Math.Max(0, Wave(a, p));
            case SchedulerType.CosineWithMinLr: return Math.Max(0, Above(Wave(a, p), a));
            case SchedulerType.CosineWithRestarts:
                return p >= 1 ? 0 : Math.Max(0, 0.5 * (1 + Math.Cos(Math.PI * ((a.NumCycles ?? 1) * p % 1))));
            case SchedulerType.Polynomial:
                if (s > total) return a.LrEnd / baseLr;
                double remaining = 1 - (double)(s - warmup) / (total - warmup);
                return ((baseLr - a.LrEnd) * Math.Pow(remaining, a.Power) + a.LrEnd) / baseLr;
            case SchedulerType.InverseSqrt:
                int scale = a.Timescale ?? (warmup > 0 ? warmup : 10_000);
                return 1 / Math.Sqrt(((double)s + scale - warmup) / scale);
            default: throw new ArgumentOutOfRangeException(nameof(type));
        }
    }

    private static double Wave(ScheduleArguments a, double p) =>
        0.5 * (1 + Math.Cos(Math.PI * (a.NumCycles ?? 0.5) * 2 * p));

    /// <summary>A factor of 0 to 1 over the smallest.</summary>
    private static double Above(double factor, ScheduleArguments a) => factor * (1 - a.MinRate) + a.MinRate;

    /// <summary>cosine_warmup_with_min_lr: the first update has a rate above 0, and the last one the minimum.</summary>
    private static double CosineBothWays(int s, int warmup, int total, ScheduleArguments a)
    {
        if (s < warmup)
            return a.WarmupRate is { } from
                ? from + (1 - from) * s / Math.Max(1, warmup - 1)
                : (s + 1.0) / Math.Max(1, warmup);
        return Math.Max(0, Above(Wave(a, (s - warmup + 1.0) / Math.Max(1, total - warmup)), a));
    }

    private static double StableDecay(int s, int warmup, int total, ScheduleArguments a)
    {
        int decay = warmup + (a.NumStableSteps ?? total - warmup - a.NumDecaySteps); // where it begins
        if (s < warmup)
        {
            double p = (double)s / Math.Max(1, warmup);
            return Math.Max(
                0,
                Above(
                    a.WarmupType switch
                    {
                        "linear" => p,
                        "cosine" => 0.5 * (1 - Math.Cos(Math.PI * p)),
                        _ => 1 - Math.Sqrt(1 - p),
                    },
                    a
                )
            );
        }
        if (s < decay) return 1;
        if (s >= (long)decay + a.NumDecaySteps) return a.MinRate;
        double q = (double)(s - decay) / Math.Max(1, a.NumDecaySteps);
        return Math.Max(
            0,
            Above(
                a.DecayType switch
                {
                    "linear" => 1 - q,
                    "cosine" => Wave(a, q),
                    _ => 1 - Math.Sqrt(q),
                },
                a
            )
        );
    }

    /// <summary>
    /// Warm-up updates: warmup_steps when given, else ceil(total * warmup_ratio), in double arithmetic as transformers
    /// does.
    /// </summary>
    public static int WarmupSteps(int warmupSteps, double warmupRatio, int total) =>
        warmupSteps > 0 ? warmupSteps : (int)Math.Ceiling(total * warmupRatio);
}
