using System.Text.Json.Nodes;
using Headroom.Core;

namespace Headroom.Training.Tasks.LabelWords;

/// <summary>Counts of an evaluation of label words, and the predictions they come from where these are known.</summary>
/// <param name="confusion">K x K counts; null where a log has none.</param>
/// <param name="seed">Of the bootstrap.</param>
public sealed class LabelWordDetail(ConfusionMatrix? confusion, ulong seed) : IEvaluationDetail
{
    private readonly Lazy<ConfusionIntervals?> _intervals =
        new(() => confusion is { Rows: > 0 } ? ConfusionIntervals.Of(confusion, seed) : null);

    /// <summary>K x K counts.</summary>
    public ConfusionMatrix? Confusion => confusion;
    /// <summary>
    /// Every figure of the counts with its interval; found when it is first asked for. Null without rows.
    /// </summary>
    public ConfusionIntervals? Intervals => _intervals.Value;
    /// <summary>Label index of each row, with <see cref="Predicted"/> or not at all.</summary>
    public int[]? Gold { get; init; }
    /// <summary>Predicted index of each row.</summary>
    public int[]? Predicted { get; init; }
    /// <summary>Tier of each row; null when no row has one.</summary>
    public string?[]? Tiers { get; init; }
    /// <summary>Rows that are right; null where not known.</summary>
    public long? Correct { get; init; }
    /// <summary>Mean loss; NaN where not measured.</summary>
    public double Loss { get; init; } = double.NaN;

    /// <summary>Which rows are right, by their gold labels.</summary>
    public Outcomes? Outcomes => Gold is { Length: > 0 } gold && Predicted is { } predicted
        ? new(gold, [.. gold.Zip(predicted, (g, p) => g == p)]) : null;

    /// <summary>
    /// The predictions of each tier, in ordinal order of the tiers' names; rows without one are "(none)". Empty when no
    /// row has a tier.
    /// </summary>
    public IReadOnlyList<(string Tier, ConfusionMatrix Confusion)> ByTier =>
        Tiers is not { } tiers || Gold is not { } gold || Predicted is not { } predicted || confusion is not { } m
        || tiers.All(t => t == null) ? []
            :
            [
                .. Enumerable
                    .Range(0, tiers.Length)
                    .GroupBy(i => tiers[i] ?? "(none)")
                    .OrderBy(g => g.Key, StringComparer.Ordinal)
            .Select(g => (g.Key, ConfusionMatrix.Of(
                [.. g.Select(i => gold[i])], [.. g.Select(i => predicted[i])], m.Classes, m.Labels)))];

    // Beside the metrics by name: these fields are what versions before task types wrote, and logs of theirs are read
    // by them.
    void IEvaluationDetail.Write(JsonObject e, bool rows)
    {
        if (confusion is not { } m) return;
        if (!double.IsNaN(Loss)) e["loss"] = Finite(Loss);
        (e["accuracy"], e["precision"]) = (Finite(m.Accuracy), m.Main.Precision);
        (e["recall"], e["f1"]) = (m.Main.Recall, m.Main.F1);
        (e["average"], e["f1_macro"], e["f1_weighted"]) = (m.IsBinary ? "binary" : "macro", m.Macro.F1, m.Weighted.F1);
        if (m.Labels != null) e["labels"] = new JsonArray([.. m.Labels.Select(l => (JsonNode?)l)]);
        var classes = Enumerable.Range(0, m.Classes).ToList();
        e["confusion"] = new JsonArray(
            [.. classes.Select(g => (JsonNode?)new JsonArray([.. classes.Select(c => (JsonNode?)m[g, c])]))]);
        if (!rows || Gold == null || Predicted == null) return;
        (e["gold"], e["predicted"]) = (Array(Gold), Array(Predicted));
        e["tiers"] = Tiers == null ? null : new JsonArray([.. Tiers.Select(t => (JsonNode?)t)]);
    }

    private static JsonArray Array(int[] values) => new([.. values.Select(v => (JsonNode?)v)]);

    private static JsonNode? Finite(double v) => double.IsFinite(v) ? v : null;
}
