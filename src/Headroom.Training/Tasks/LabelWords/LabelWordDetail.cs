using System.Text.Json.Nodes;

namespace Headroom.Training.Tasks.LabelWords;

/// <summary>Counts of an evaluation of label words, and the predictions they come from where these are known.</summary>
/// <param name="confusion">K x K counts; null where a log has none.</param>
/// <param name="seed">Of the bootstrap.</param>
internal sealed class LabelWordDetail(ConfusionMatrix? confusion, ulong seed) : IEvaluationDetail
{
    private readonly Lazy<ConfusionIntervals?> _intervals =
        new(() => confusion is { Rows: > 0 } ? ConfusionIntervals.Resample(confusion, seed) : null);

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
            .Select(g => (g.Key, ConfusionMatrix.Count(
                [.. g.Select(i => gold[i])], [.. g.Select(i => predicted[i])], m.Classes, m.Labels)))];

    JsonObject IEvaluationDetail.Fields(bool rows)
    {
        if (confusion is not { } m) return [];
        rows &= Gold != null && Predicted != null;
        long[][] counts = [.. Enumerable.Range(0, m.Classes)
            .Select(g => (long[])[.. Enumerable.Range(0, m.Classes).Select(p => m[g, p])])];
        return LabelWordFields.ToJson(new()
        {
            Loss = double.IsNaN(Loss) ? null : Loss,
            Accuracy = LabelWordFields.Value<double?>(double.IsFinite(m.Accuracy) ? m.Accuracy : null),
            Precision = m.Main.Precision,
            Recall = m.Main.Recall,
            F1 = m.Main.F1,
            Average = m.IsBinary ? "binary" : "macro",
            F1Macro = m.Macro.F1,
            F1Weighted = m.Weighted.F1,
            Labels = m.Labels == null ? null : LabelWordFields.Value<string?[]>([.. m.Labels]),
            Confusion = LabelWordFields.Value(counts),
            Gold = rows ? LabelWordFields.Value(Gold) : null,
            Predicted = rows ? LabelWordFields.Value(Predicted) : null,
            Tiers = rows ? LabelWordFields.Value(Tiers) : null,
        });
    }
}
