using Headroom.Training.Events;
using Headroom.Training.Intervals;
using Headroom.Training.Tasks;

namespace Headroom.Reports;

/// <summary>Mean and standard deviation over the seeds of a group.</summary>
internal sealed record SeedSpread(
    string Group, string Stage, string Metric, IReadOnlyList<(long? Seed, double Value)> Values, double Mean, double Sd
);

/// <summary>
/// Exact McNemar test of two sets of predictions over the same rows; the kind is "tuned_vs_tuned", "tuned_vs_zero_shot"
/// or "tuned_vs_baseline".
/// </summary>
internal sealed record PairedTest(
    string Kind, ReportRow First, ReportRow Second, int Rows, int FirstOnly, int SecondOnly, double P, double Adjusted)
{
    public bool Significant => Adjusted < 0.05;
}

/// <summary>
/// Two models that were trained with the same seeds: one difference (first less second) of the tuned adapters a seed.
/// The interval and the p-value are over the seeds (<see cref="Statistics.OverSeeds"/>) and null where the differences
/// are all one value.
/// </summary>
internal sealed record SeedComparison(
    string First, string Second, MetricKind Kind, string Metric,
    IReadOnlyList<(long Seed, double Difference)> Differences, Interval? Mean, double? P, double? Adjusted)
{
    public bool? Significant => Adjusted is { } p ? p < 0.05 : null;
    /// <summary>The mean difference speaks for the first.</summary>
    public bool FirstIsBetter => Mean is { } m && (Kind.Direction == Direction.Higher ? m.Value > 0 : m.Value < 0);
}

/// <summary>
/// Two models that the validation rows rank the other way round than the test rows: means over the seeds, validation at
/// the step whose adapter was kept.
/// </summary>
internal sealed record Reversal(
    string First, string Second, string Metric, double TestFirst, double TestSecond, double ValidationFirst,
    double ValidationSecond);

/// <summary>One run with what is derived from its log.</summary>
internal sealed record RunEntry(
    string Label, string Group, int Colour, string Folder, RunSummary Summary, CurveStatistics Curve)
{
    public int StepsDone => Summary.Steps.Count == 0 ? 0 : Summary.Steps[^1].Step;
    /// <summary>The validation whose adapter the run kept: of run_end's best step, else the last one.</summary>
    public EvalPoint? Kept
    {
        get
        {
            long? best = Summary.End?.BestStep is > 0 and var b ? b : null;
            return Summary.Evals.LastOrDefault(e => e.Split == "validation" && (best == null || e.Step == best));
        }
    }

    public int SkippedSteps => Summary.Steps.Count(s => s.Skipped);
    // A run without run_end still has its steps: their sums stand in for the totals.
    public double? TrainSeconds => Summary.End?.TrainSeconds ?? Sum(s => s.Seconds);
    public long? Tokens => Summary.End?.Tokens ?? (long?)Sum(s => s.Tokens);
    public long? LabelTokens => Summary.End?.LabelTokens ?? (long?)Sum(s => s.LabelTokens);
    public double? TokensPerSecond =>
        Summary.TokensPerSecond ?? (Tokens is { } t && TrainSeconds is > 0 and var s ? t / s : null);
    public double? TrainableShare =>
        Summary.Start is { TrainableParameters: { } t, Parameters: > 0 and var p } ? t / (double)p : null;
    public bool OnCpu => Summary.Start?.Device?.StartsWith("CPU", StringComparison.Ordinal) == true;
    /// <summary>What run_start, else manifest.json, says; null where nothing is recorded.</summary>
    public string? Fact(Func<RunStartEvent, string?> of) =>
        new[] { Summary.Start, Summary.Manifest }
            .Select(s => s == null ? null : of(s))
            .FirstOrDefault(f => !string.IsNullOrEmpty(f));

    /// <summary>The command line, likewise.</summary>
    public string? Command => Fact(s => s.Command == null ? null : string.Join(' ', s.Command));

    /// <summary>SHA-256 of the encoded rows of a split, likewise.</summary>
    public string? DataHash(string split) => Fact(s => s.Data?.GetValueOrDefault(split)?.Sha256);

    public double? FinalLoss => Losses is { Length: > 0 } y ? CurveStatistics.Smooth(y)[^1] : null;
    public IEnumerable<KeyValuePair<string, long>> TrainableByModule =>
        Summary.Start?.TrainableByModule ?? Enumerable.Empty<KeyValuePair<string, long>>();

    private double[] Losses => Summary.Steps.Where(s => s.Loss != null).Select(s => s.Loss!.Value).ToArray();

    private double? Sum(Func<StepEvent, double?> value) =>
        Summary.Steps.Any(s => value(s) != null) ? Summary.Steps.Sum(s => value(s) ?? 0) : null;
}

/// <summary>
/// Everything the report says, before it is laid out; the page, the text and the numbers are made from this.
/// </summary>
internal sealed class ReportModel
{
    public required string Name { get; init; }
    /// <summary>The duel's own log, or null for a single run.</summary>
    public RunSummary? Duel { get; init; }
    public required IReadOnlyList<RunEntry> Runs { get; init; }
    /// <summary>The type of the task.</summary>
    public required TaskType Task { get; init; }
    public required IReadOnlyList<ReportRow> Quality { get; init; }
    public required IReadOnlyList<SeedSpread> Spreads { get; init; }
    public required IReadOnlyList<PairedTest> Tests { get; init; }
    /// <summary>Models over seeds, where there are two seeds or more.</summary>
    public required IReadOnlyList<SeedComparison> Comparisons { get; init; }
    /// <summary>Models that validation ranks the other way round.</summary>
    public required IReadOnlyList<Reversal> Reversals { get; init; }
    /// <summary>What is missing or could not be compared.</summary>
    public required IReadOnlyList<string> Notes { get; init; }
    public required IReadOnlyList<(string Of, string Text)> Recipes { get; init; }
    public required bool Completed { get; init; }
    /// <summary>A living process works on it.</summary>
    public bool Running => !Completed && (Duel?.Holder != null || Runs.Any(r => r.Summary.Running));
    public string Headline { get; set; } = "";

    /// <summary>One run of each group: plans do not depend on the seed.</summary>
    public IEnumerable<RunEntry> Groups => Runs.DistinctBy(r => r.Group);
}
