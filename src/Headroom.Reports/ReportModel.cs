using System.Text.Json.Nodes;

namespace Headroom.Reports;

/// <summary>Rows of one tier and how many of them were right.</summary>
internal sealed record TierCell(string Tier, int Rows, int Correct)
{
    public Interval Accuracy => Statistics.Wilson(Correct, Rows);
}

/// <summary>Predictions of one run's stage, or of a baseline, with intervals, which are null when the log has no counts to take them from.
/// The label is unique among the runs; runs that differ only in the seed share a group. The stage is "zero-shot", "tuned" or "baseline".</summary>
internal sealed record QualityRow(string Label, string Group, int Colour, long? Seed, string Stage, TestResult Result, int? Correct, Interval? Accuracy, BinaryIntervals? Intervals, IReadOnlyList<TierCell> Tiers)
{
    public string Name => Stage == "baseline" ? $"{Label} (baseline)" : $"{Label} {Stage}";
    public double? F1 => Intervals?.F1.Value ?? Result.F1;
    public double? AccuracyValue => Accuracy?.Value ?? Result.Accuracy;
    /// <summary>What models are ranked by.</summary>
    public double? Score => F1 ?? AccuracyValue;
}

/// <summary>Mean and standard deviation over the seeds of a group.</summary>
internal sealed record SeedSpread(string Group, string Stage, string Metric, IReadOnlyList<(long? Seed, double Value)> Values, double Mean, double Sd);

/// <summary>Exact McNemar test of two sets of predictions over the same rows; the kind is "tuned_vs_tuned", "tuned_vs_zero_shot" or "tuned_vs_baseline".</summary>
internal sealed record PairedTest(string Kind, QualityRow First, QualityRow Second, int Rows, int FirstOnly, int SecondOnly, double P, double Adjusted)
{
    public bool Significant => Adjusted < 0.05;
}

/// <summary>One run with what is derived from its log.</summary>
internal sealed record RunEntry(string Label, string Group, int Colour, string Folder, RunSummary Summary, CurveStatistics Curve)
{
    public int StepsDone => Summary.Steps.Count == 0 ? 0 : Summary.Steps[^1].Step;
    public int SkippedSteps => Summary.Steps.Count(s => s.Skipped);
    // A run without run_end still has its steps: their sums stand in for the totals.
    public double? TrainSeconds => Summary.End.Number("train_seconds") ?? Sum(s => s.Seconds);
    public long? Tokens => Summary.End.Long("tokens") ?? (long?)Sum(s => s.Tokens);
    public long? LabelTokens => Summary.End.Long("label_tokens") ?? (long?)Sum(s => s.LabelTokens);
    public double? TokensPerSecond => Summary.TokensPerSecond ?? (Tokens is { } t && TrainSeconds is > 0 and var s ? t / s : null);
    public double? TrainableShare => Summary.Start.Long("trainable_parameters") is { } t && Summary.Start.Long("parameters") is > 0 and var p ? t / (double)p : null;
    public bool OnCpu => Summary.Start.Text("device")?.StartsWith("CPU", StringComparison.Ordinal) == true;
    public double? FinalLoss => Losses is { Length: > 0 } y ? CurveStatistics.Smooth(y)[^1] : null;
    public IEnumerable<(string Module, long Count)> TrainableByModule =>
        Summary.Start["trainable_by_module"] is JsonObject o ? o.Select(x => (x.Key, o.Long(x.Key) ?? 0)) : [];

    private double[] Losses => Summary.Steps.Where(s => s.Loss != null).Select(s => s.Loss!.Value).ToArray();

    private double? Sum(Func<StepPoint, double?> value) => Summary.Steps.Any(s => value(s) != null) ? Summary.Steps.Sum(s => value(s) ?? 0) : null;
}

/// <summary>Everything the report says, before it is laid out; the page, the text and the numbers are made from this.</summary>
internal sealed class ReportModel
{
    public required string Name { get; init; }
    /// <summary>The duel's own log, or null for a single run.</summary>
    public RunSummary? Duel { get; init; }
    public required IReadOnlyList<RunEntry> Runs { get; init; }
    public required IReadOnlyList<QualityRow> Quality { get; init; }
    public required IReadOnlyList<SeedSpread> Spreads { get; init; }
    public required IReadOnlyList<PairedTest> Tests { get; init; }
    /// <summary>What is missing or could not be compared.</summary>
    public required IReadOnlyList<string> Notes { get; init; }
    public required IReadOnlyList<(string Of, string Text)> Recipes { get; init; }
    public required bool Completed { get; init; }
    public string Headline { get; set; } = "";

    /// <summary>One run of each group: plans do not depend on the seed.</summary>
    public IEnumerable<RunEntry> Groups => Runs.DistinctBy(r => r.Group);
}
