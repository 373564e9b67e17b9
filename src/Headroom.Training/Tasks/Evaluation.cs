using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Training.Events;

namespace Headroom.Training.Tasks;

/// <summary>
/// What a task knows of an evaluation beside its metrics; its own parts of log and report are made of it.
/// </summary>
internal interface IEvaluationDetail
{
    /// <summary>
    /// Its fields in an event of the log, which <see cref="TaskType.Read"/> takes back; none is called as a field that
    /// every event or evaluation has.
    /// </summary>
    /// <param name="rows">With what is known of every row, which a validation while training leaves out.</param>
    JsonObject Fields(bool rows);
}

/// <summary>
/// Which rows of an evaluation are right, so that two evaluations over the same rows can be compared pair by pair.
/// </summary>
/// <param name="Rows">Tells the rows apart from those of another set: two evaluations are compared where these are
/// equal.</param>
/// <param name="Right">Whether each is right.</param>
internal sealed record Outcomes(int[] Rows, bool[] Right);

/// <summary>Metrics of a model, or of a baseline, over some rows: just measured, or read from a log.</summary>
internal sealed record Evaluation
{
    /// <summary>Rows; null where a log does not say.</summary>
    public long? Rows { get; init; }
    /// <summary>Every metric that has a value.</summary>
    public required IReadOnlyList<Metric> Metrics { get; init; }
    /// <summary>What else the task knows, or null.</summary>
    public IEvaluationDetail? Detail { get; init; }
    /// <summary>Rows that are right, or null where that is no question or not known.</summary>
    public Outcomes? Outcomes { get; init; }
    /// <summary>
    /// What was found of every row, in their order, for headroom eval --rows; null of an evaluation that was read from
    /// a log.
    /// </summary>
    public Func<IEnumerable<JsonObject>>? EachRow { get; init; }
    /// <summary>What of a log could not be used, as the end of a sentence; null when all could.</summary>
    public string? Odd { get; init; }

    /// <summary>A metric by its name, without transformers' prefix; null when it has no value.</summary>
    public Metric? Find(string name) => Metrics.FirstOrDefault(m => m.Name == name);

    /// <summary>Value of a metric, or null.</summary>
    public double? Value(string name) => Find(name)?.Value;

    /// <summary>A metric that must be there.</summary>
    /// <exception cref="ArgumentException">There is none of this name; a checked recipe names none such.</exception>
    public Metric this[string name] =>
        Find(name) ?? throw new ArgumentException($"there is no metric {name}", nameof(name));

    /// <summary>Some of the metrics on one line, those that have a value.</summary>
    public string Text(IEnumerable<string> names) => string.Join(", ", names.Select(Find).OfType<Metric>());

    /// <summary>As fields of an event: rows, metrics, and those of the task.</summary>
    /// <param name="rows">With what is known of every row, and the intervals.</param>
    public JsonObject ToJson(bool rows)
    {
        var e = new JsonObject { ["rows"] = Rows };
        foreach (var (key, value) in Detail?.Fields(rows) ?? []) e[key] = value?.DeepClone();
        e["metrics"] = new JsonArray([
            .. ToFields(rows).Select(m => JsonSerializer.SerializeToNode(m, EventJson.Default.MetricFields)),
        ]);
        return e;
    }

    /// <summary>The metrics as fields of an event.</summary>
    /// <param name="intervals">With the intervals.</param>
    internal IReadOnlyList<MetricFields> ToFields(bool intervals) =>
    [
        .. Metrics.Select(m => new MetricFields
        {
            Name = m.Name,
            Value = m.Value,
            Better = m.Direction == Direction.Higher ? "higher" : "lower",
            Label = m.Label == m.Name ? null : m.Label,
            Low = intervals ? m.Low : null,
            High = intervals ? m.High : null,
        }),
    ];
}

/// <summary>How an evaluation is run.</summary>
/// <param name="BatchRows">Most rows of a batch.</param>
/// <param name="MaxTokens">Most tokens of a batch; no row is longer.</param>
/// <param name="Seed">Of the intervals that are found by drawing rows.</param>
/// <param name="Progress">Is told of rows done, and of all.</param>
/// <param name="LabelSmoothing">Of losses over labelled tokens (<see cref="RowLosses"/>); transformers' Trainer smooths
/// those of evaluations as those of training.</param>
internal sealed record EvaluationOptions(
    int BatchRows, int MaxTokens, ulong Seed = 1, Action<int, int>? Progress = null, float LabelSmoothing = 0);
