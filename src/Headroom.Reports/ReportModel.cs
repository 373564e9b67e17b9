using System.Text.Json.Nodes;
using Headroom.Training;

namespace Headroom.Reports;

/// <summary>Counts of one tier's rows.</summary>
internal sealed record TierCell(string Tier, ConfusionMatrix Confusion)
{
    public long Rows => Confusion.Rows;
    public long Correct => Confusion.Correct;
    public Interval Accuracy => Statistics.Wilson(Correct, Rows);
}

/// <summary>Predictions of one run's stage, or of a baseline, with intervals, which are null when the log has no counts to take them from.
/// The label is unique among the runs; runs that differ only in the seed share a group. The stage is "zero-shot", "tuned" or "baseline".</summary>
internal sealed record QualityRow(string Label, string Group, int Colour, long? Seed, string Stage, TestResult Result, long? Correct, Interval? Accuracy, ConfusionIntervals? Intervals, IReadOnlyList<TierCell> Tiers)
{
    public string Name => Stage == "baseline" ? $"{Label} (baseline)" : $"{Label} {Stage}";
    public ConfusionMatrix? Confusion => Result.Confusion;
    public double? Precision => Confusion?.Main.Precision ?? Result.Precision;
    public double? Recall => Confusion?.Main.Recall ?? Result.Recall;
    public double? F1 => Confusion?.Main.F1 ?? Result.F1;
    public double? AccuracyValue => Accuracy?.Value ?? Result.Accuracy;
    /// <summary>What models are ranked by.</summary>
    public double? Score => F1 ?? AccuracyValue;
    /// <summary>Its name. A log without label words does not say whose F1 it is.</summary>
    public string ScoreName => F1 == null ? "accuracy" : Confusion is null or { IsBinary: true, Labels: null } ? "F1" : Show.Short(Confusion.F1Name, 60);
}

/// <summary>Mean and standard deviation over the seeds of a group.</summary>
internal sealed record SeedSpread(string Group, string Stage, string Metric, IReadOnlyList<(long? Seed, double Value)> Values, double Mean, double Sd);

/// <summary>Exact McNemar test of two sets of predictions over the same rows; the kind is "tuned_vs_tuned", "tuned_vs_zero_shot" or "tuned_vs_baseline".</summary>
internal sealed record PairedTest(string Kind, QualityRow First, QualityRow Second, int Rows, int FirstOnly, int SecondOnly, double P, double Adjusted)
{
    public bool Significant => Adjusted < 0.05;
}

/// <summary>
/// Two models that were trained with the same seeds: one difference (first less second) of the tuned adapters a seed. The interval and the p-value are over the
/// seeds (<see cref="Statistics.OverSeeds"/>) and null where the differences are all one value.
/// </summary>
internal sealed record SeedComparison(string First, string Second, string Metric, IReadOnlyList<(long Seed, double Difference)> Differences, Interval? Mean, double? P, double? Adjusted)
{
    public bool? Significant => Adjusted is { } p ? p < 0.05 : null;
}

/// <summary>Two models that the validation rows rank the other way round than the test rows: means over the seeds, validation at the step whose adapter was kept.</summary>
internal sealed record Reversal(string First, string Second, string Metric, double TestFirst, double TestSecond, double ValidationFirst, double ValidationSecond);

/// <summary>One run with what is derived from its log.</summary>
internal sealed record RunEntry(string Label, string Group, int Colour, string Folder, RunSummary Summary, CurveStatistics Curve)
{
    public int StepsDone => Summary.Steps.Count == 0 ? 0 : Summary.Steps[^1].Step;
    /// <summary>The validation whose adapter the run kept: of run_end's best step, else the last one.</summary>
    public EvalPoint? Kept
    {
        get
        {
            long? best = Summary.End.Long("best_step") is > 0 and var b ? b : null;
            return Summary.Evals.LastOrDefault(e => e.Split == "validation" && (best == null || e.Step == best));
        }
    }

    public int SkippedSteps => Summary.Steps.Count(s => s.Skipped);
    // A run without run_end still has its steps: their sums stand in for the totals.
    public double? TrainSeconds => Summary.End.Number("train_seconds") ?? Sum(s => s.Seconds);
    public long? Tokens => Summary.End.Long("tokens") ?? (long?)Sum(s => s.Tokens);
    public long? LabelTokens => Summary.End.Long("label_tokens") ?? (long?)Sum(s => s.LabelTokens);
    public double? TokensPerSecond => Summary.TokensPerSecond ?? (Tokens is { } t && TrainSeconds is > 0 and var s ? t / s : null);
    public double? TrainableShare => Summary.Start.Long("trainable_parameters") is { } t && Summary.Start.Long("parameters") is > 0 and var p ? t / (double)p : null;
    public bool OnCpu => Summary.Start.Text("device")?.StartsWith("CPU", StringComparison.Ordinal) == true;
    /// <summary>What run_start, else manifest.json, says under the first of these keys; a list is one line. Null where nothing is recorded.</summary>
    public string? Fact(params string[] keys)
    {
        foreach (var source in new[] { Summary.Start, Summary.Manifest })
            foreach (string key in keys)
                if ((source[key] is JsonArray list ? string.Join(' ', list.Select(x => x?.ToString())) : source.Text(key)) is { Length: > 0 } text) return text;
        return null;
    }

    /// <summary>SHA-256 of the encoded rows of a split, likewise.</summary>
    public string? DataHash(string split) =>
        new[] { Summary.Start, Summary.Manifest }.Select(s => ((s["data"] as JsonObject)?[split] as JsonObject).Text("sha256")).FirstOrDefault(h => !string.IsNullOrEmpty(h));

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
