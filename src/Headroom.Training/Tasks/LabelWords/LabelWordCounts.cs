using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Formats;
using Headroom.Training.Events;
using Headroom.Training.Intervals;

namespace Headroom.Training.Tasks.LabelWords;

/// <summary>
/// Counts and predictions of a test, baseline or eval event, checked against one another: a log may have been cut,
/// edited or written by another version (which counted labels 0 and 1 alone). What does not agree is left out and said.
/// </summary>
internal sealed class LabelWordCounts
{
    private const int MostClasses = 2000; // a table of the square of it is kept
    private readonly List<string> _odd = [];

    private LabelWordCounts() { }

    /// <summary>What cannot be used, as the end of a sentence; null when all can.</summary>
    public string? Odd => _odd.Count == 0 ? null : string.Join("; ", _odd);
    /// <summary>Rows that were scored.</summary>
    public long? Rows { get; private set; }
    /// <summary>Share that was right.</summary>
    public double? Accuracy { get; private set; }
    /// <summary>K x K counts.</summary>
    public ConfusionMatrix? Confusion { get; private set; }
    /// <summary>Label index of each row, with <see cref="Predicted"/> or not at all.</summary>
    public int[]? Gold { get; private set; }
    /// <summary>Predicted index of each row.</summary>
    public int[]? Predicted { get; private set; }
    /// <summary>Tier of each row.</summary>
    public string?[]? Tiers { get; private set; }

    /// <summary>
    /// A figure of the log where the counts it comes from cannot be checked; nothing where they were found to be odd.
    /// </summary>
    public double? Trusted(double? figure) => _odd.Count == 0 ? figure : null;

    public static LabelWordCounts Of(JsonObject e)
    {
        var c = new LabelWordCounts { Rows = e.Long("rows") };
        if (e["rows"] != null && c.Rows is null or < 0) c.Refuse("rows is no number of rows", () => c.Rows = null);
        var counts = c.Table(e["confusion"]);
        var labels = c.Words(e["labels"]);
        c.ReadRows(e, counts, labels);
        if (c.Gold != null)
        {
            // a class may be without a row
            int named = labels?.Length ?? (counts?.Sum() == c.Gold.Length ? (int)Math.Sqrt(counts.Length) : 2);
            int classes = Math.Max(named, Math.Max(c.Gold.Max(), c.Predicted!.Max()) + 1);
            c.Confusion = ConfusionMatrix.Of(c.Gold, c.Predicted, classes, labels?.Length == classes ? labels : null);
            if (counts != null && !c.Confusion.Counts.SequenceEqual(counts))
                c.Refuse("confusion is not what gold and predicted give; it was counted anew");
        }
        else if (counts != null)
        {
            var m = new ConfusionMatrix(counts);
            if (c.Rows is { } rows && rows != m.Rows)
                c.Refuse(
                    $"confusion holds {Show.Count(m.Rows)} rows, rows says {Show.Count(rows)}; figures of classes are "
                        + $"left out"
                );
            else c.Confusion = labels != null && labels.Length == m.Classes ? new ConfusionMatrix(counts, labels) : m;
        }
        if (labels != null && c.Confusion is { Labels: null })
            c.Refuse("labels has another number of words than there are classes");
        c.Rows = c.Confusion?.Rows ?? c.Rows;
        c.Accuracy = c.Confusion is { Rows: > 0 } whole ? whole.Accuracy : e.Share("accuracy");
        if (e["accuracy"] != null && c.Accuracy == null && c.Rows != 0) c.Refuse("accuracy is no share");
        return c;
    }

    /// <summary>The event's evaluation.</summary>
    public Evaluation ToEvaluation(JsonObject e)
    {
        long? correct = Confusion?.Correct ?? (Accuracy is { } a && Rows is { } n ? (long)Math.Round(a * n) : null);
        // A fixed seed: the same log gives the same report.
        var detail = new LabelWordDetail(Confusion, 1)
        {
            Gold = Gold,
            Predicted = Predicted,
            Tiers = Tiers,
            Correct = correct,
        };
        Interval? accuracy =
            correct is { } k && Rows is > 0 and { } rows ? Statistics.Wilson(k, rows)
            : Accuracy is { } share ? new Interval(share, double.NaN, double.NaN)
            : null;
        return new Evaluation
        {
            Rows = Rows,
            Detail = detail,
            Outcomes = detail.Outcomes,
            Odd = Odd,
            Metrics = LabelWordMetrics.Of(detail, accuracy, e.Number("loss"), LossInterval(e), name =>
                Trusted(e.Share(name))
            ),
        };
    }

    private static Interval? LossInterval(JsonObject e) =>
        (e["metrics"] as JsonArray ?? [])
            .OfType<JsonObject>()
            .FirstOrDefault(m => m.Text("name") == MetricKind.Loss.Name)
            is { } loss
        && loss.Number("value") is { } value
        && loss.Number("low") is { } low
        && loss.Number("high") is { } high
            ? new Interval(value, low, high)
            : null;

    private void ReadRows(JsonObject e, long[]? counts, string[]? labels)
    {
        if (e["gold"] == null && e["predicted"] == null) return;
        int[]? gold = Indices(e["gold"]), predicted = Indices(e["predicted"]);
        if (
            gold == null
            || predicted == null
            || gold.Length != predicted.Length
            || Rows is { } rows && rows != gold.Length
        )
        {
            Refuse("gold and predicted are not one class number for each row");
            return;
        }
        if (gold.Length == 0) return;
        if (labels != null && Math.Max(gold.Max(), predicted.Max()) >= labels.Length)
        {
            Refuse("gold or predicted names a class that labels does not have");
            return;
        }
        // Counts of two classes where there are more: the rows know better.
        (Gold, Predicted) = (gold, predicted);
        if (e["tiers"] is not JsonArray tiers) return;
        if (tiers.Count == gold.Length && tiers.All(t => t is null or JsonValue))
            Tiers = [.. tiers.Select(t => t?.ToString())];
        else Refuse("tiers is not one word for each row");
    }

    // K rows of K counts, or K * K counts in one row.
    private long[]? Table(JsonNode? node)
    {
        if (node == null) return null;
        var cells =
            node is not JsonArray a ? null
            : a.All(x => x is JsonArray row && row.Count == a.Count) ? a.SelectMany(x => x!.AsArray()).ToList()
            : a.ToList();
        int classes = cells == null ? 0 : (int)Math.Sqrt(cells.Count);
        long[]? counts =
            cells != null && classes is >= 2 and <= MostClasses && classes * classes == cells.Count
                ? Whole(cells, long.MaxValue / 1024 / cells.Count)
                : null;
        if (counts == null) Refuse("confusion is no table of counts");
        return counts;
    }

    private string[]? Words(JsonNode? node)
    {
        if (node == null) return null;
        if (
            node is JsonArray { Count: >= 2 and <= MostClasses } a
            && a.All(x => x is JsonValue v && v.GetValueKind() == JsonValueKind.String)
        )
            return [.. a.Select(x => (string)x!)];
        Refuse("labels are no words");
        return null;
    }

    private static int[]? Indices(JsonNode? node) =>
        node is JsonArray a && Whole(a, MostClasses - 1) is { } whole ? [.. whole.Select(v => (int)v)] : null;

    private static long[]? Whole(IList<JsonNode?> nodes, long most)
    {
        var whole = new long[nodes.Count];
        int i = 0;
        foreach (var node in nodes)
        {
            if (
                node is not JsonValue v
                || v.GetValueKind() != JsonValueKind.Number
                || v.GetValue<double>() is var d && !(d >= 0 && d <= most && d == Math.Floor(d))
            )
                return null;
            whole[i++] = (long)v.GetValue<double>();
        }
        return whole;
    }

    private void Refuse(string what, Action? then = null)
    {
        _odd.Add(what);
        then?.Invoke();
    }
}
