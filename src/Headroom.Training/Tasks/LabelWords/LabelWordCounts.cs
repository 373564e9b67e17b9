using System.Text.Json;
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

    private readonly Evaluation _logged;
    private readonly LabelWordFields _fields;

    /// <summary>Checks what a log holds of an evaluation.</summary>
    /// <param name="logged">Rows and metrics, and what of them was odd.</param>
    /// <param name="fields">The task's own fields.</param>
    public LabelWordCounts(Evaluation logged, LabelWordFields fields)
    {
        (_logged, _fields, Rows) = (logged, fields, logged.Rows);
        if (logged.Odd != null) Refuse(logged.Odd);
        long[]? counts = Table(fields.Confusion);
        string[]? labels = Words(fields.Labels);
        ReadRows(counts, labels);
        if (Gold != null) CountAnew(Gold, Predicted!, counts, labels);
        else if (counts != null) TakeCounts(counts, labels);
        if (labels != null && Confusion is { Labels: null })
            Refuse("labels has another number of words than there are classes");
        Rows = Confusion?.Rows ?? Rows;
        double? share = fields.Accuracy is { ValueKind: JsonValueKind.Number } a && a.TryGetDouble(out double d)
            && d is >= 0 and <= 1 ? d : null;
        Accuracy = Confusion is { Rows: > 0 } whole ? whole.Accuracy : share;
        if (fields.Accuracy != null && Accuracy == null && Rows != 0) Refuse("accuracy is no share");
    }

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

    private void CountAnew(int[] gold, int[] predicted, long[]? counts, string[]? labels)
    {
        // a class may be without a row
        int named = labels?.Length ?? (counts?.Sum() == gold.Length ? (int)Math.Sqrt(counts.Length) : 2);
        int classes = Math.Max(named, Math.Max(gold.Max(), predicted.Max()) + 1);
        Confusion = ConfusionMatrix.Count(gold, predicted, classes, labels?.Length == classes ? labels : null);
        if (counts != null && !Confusion.Counts.SequenceEqual(counts))
            Refuse("confusion is not what gold and predicted give; it was counted anew");
    }

    private void TakeCounts(long[] counts, string[]? labels)
    {
        var m = new ConfusionMatrix(counts);
        if (Rows is { } rows && rows != m.Rows)
            Refuse(
                $"confusion holds {Show.Count(m.Rows)} rows, rows says {Show.Count(rows)}; figures of classes are "
                    + $"left out"
            );
        else Confusion = labels != null && labels.Length == m.Classes ? new ConfusionMatrix(counts, labels) : m;
    }

    /// <summary>The event's evaluation.</summary>
    public Evaluation ToEvaluation()
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
            Metrics = LabelWordMetrics.Compute(
                detail, accuracy, _fields.Loss, _logged.Find(MetricKind.Loss.Name)?.Interval,
                name => Trusted(_fields.Share(name))),
        };
    }

    private void ReadRows(long[]? counts, string[]? labels)
    {
        if (_fields.Gold == null && _fields.Predicted == null) return;
        int[]? gold = Indices(_fields.Gold), predicted = Indices(_fields.Predicted);
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
        if (_fields.Tiers is not { ValueKind: JsonValueKind.Array } tiers) return;
        if (
            tiers.GetArrayLength() == gold.Length
            && tiers.EnumerateArray().All(t => t.ValueKind is not (JsonValueKind.Array or JsonValueKind.Object))
        )
            Tiers = [.. tiers.EnumerateArray().Select(t => t.ValueKind == JsonValueKind.Null ? null : t.ToString())];
        else Refuse("tiers is not one word for each row");
    }

    // K rows of K counts, or K * K counts in one row.
    private long[]? Table(JsonElement? table)
    {
        if (table is not { } rows) return null;
        List<JsonElement> cells = rows.ValueKind == JsonValueKind.Array ? [.. rows.EnumerateArray()] : [];
        if (cells.All(r => r.ValueKind == JsonValueKind.Array && r.GetArrayLength() == cells.Count))
            cells = [.. cells.SelectMany(r => r.EnumerateArray())];
        int classes = (int)Math.Sqrt(cells.Count);
        long[]? counts =
            classes is >= 2 and <= MostClasses && classes * classes == cells.Count
                ? Whole(cells, long.MaxValue / 1024 / cells.Count)
                : null;
        if (counts == null) Refuse("confusion is no table of counts");
        return counts;
    }

    private string[]? Words(JsonElement? list)
    {
        if (list is not { } words) return null;
        if (
            words.ValueKind == JsonValueKind.Array
            && words.GetArrayLength() is >= 2 and <= MostClasses
            && words.EnumerateArray().All(w => w.ValueKind == JsonValueKind.String)
        )
            return [.. words.EnumerateArray().Select(w => w.GetString()!)];
        Refuse("labels are no words");
        return null;
    }

    private static int[]? Indices(JsonElement? list) =>
        list is { ValueKind: JsonValueKind.Array } a && Whole([.. a.EnumerateArray()], MostClasses - 1) is { } whole
            ? [.. whole.Select(v => (int)v)] : null;

    private static long[]? Whole(List<JsonElement> cells, long most)
    {
        var whole = new long[cells.Count];
        int i = 0;
        foreach (var cell in cells)
        {
            if (
                cell.ValueKind != JsonValueKind.Number
                || cell.GetDouble() is var d && !(d >= 0 && d <= most && d == Math.Floor(d))
            )
                return null;
            whole[i++] = (long)d;
        }
        return whole;
    }

    private void Refuse(string what) => _odd.Add(what);
}
