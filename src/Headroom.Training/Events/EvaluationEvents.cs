using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Headroom.Training.Intervals;
using Headroom.Training.Tasks;

namespace Headroom.Training.Events;

/// <summary>An evaluation: rows, the fields that are the task's own, and the metrics by name.</summary>
internal abstract record EvaluationEvent : LogEvent
{
    /// <summary>Rows; -1 where the log has something else.</summary>
    [JsonPropertyOrder(-2), JsonConverter(typeof(RowsOrOdd))]
    public long? Rows { get; init; }
    [JsonPropertyOrder(-1), JsonConverter(typeof(LenientList<MetricFields>))]
    public IReadOnlyList<MetricFields>? Metrics { get; init; }
    /// <summary>
    /// The task's own (<see cref="IEvaluationDetail.Fields"/>), which stand between rows and metrics; of a log the
    /// whole event.
    /// </summary>
    [JsonIgnore]
    public JsonObject Fields { get; init; } = [];

    /// <summary>The event with what an evaluation found.</summary>
    /// <param name="evaluation">What was found.</param>
    /// <param name="rows">With what is known of every row, and the intervals.</param>
    public EvaluationEvent With(Evaluation evaluation, bool rows) => this with
    {
        Rows = evaluation.Rows,
        Metrics = evaluation.ToFields(rows),
        Fields = evaluation.Detail?.Fields(rows) ?? [],
    };

    /// <summary>The evaluation, as far as the log can be used.</summary>
    public Evaluation Read(TaskType task)
    {
        var found = new List<Metric>();
        var odd = new List<string>();
        if (Rows < 0) odd.Add("rows is no number of rows");
        foreach (var m in Metrics ?? [])
        {
            if (m.Name is not { } name || m.Value is not { } value || found.Any(f => f.Name == name))
            {
                odd.Add("a metric has no name or no number of its own");
                continue;
            }
            var kind = task.Metrics.FirstOrDefault(k => k.Name == name)
                ?? new MetricKind(name, m.Better == "lower" ? Direction.Lower : Direction.Higher);
            Func<Interval?>? interval = m is { Low: { } low, High: { } high } ? () => new(value, low, high) : null;
            found.Add(new Metric(kind, value, interval, m.Label));
        }
        var read = new Evaluation
        {
            Rows = Rows < 0 ? null : Rows,
            Metrics = found,
            Odd = odd.Count == 0 ? null : string.Join("; ", odd.Distinct()),
        };
        return task.Read(read, Fields);
    }

    internal override byte[] ToLine()
    {
        var line = JsonSerializer.SerializeToNode(this, EventJson.Default.LogEvent)!.AsObject();
        int at = line.IndexOf("rows");
        foreach (var (key, value) in Fields) line.Insert(++at, key, value?.DeepClone());
        return Encoding.UTF8.GetBytes(line.ToJsonString());
    }
}

/// <summary>A metric of an evaluation.</summary>
internal sealed record MetricFields
{
    public string? Name { get; init; }
    public double? Value { get; init; }
    /// <summary>higher or lower.</summary>
    public string? Better { get; init; }
    /// <summary>In words, where that is not the name.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Label { get; init; }
    /// <summary>Lower end of the 95 % interval, where there is one.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public double? Low { get; init; }
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public double? High { get; init; }
}

/// <summary>An evaluation on the validation rows while training.</summary>
internal sealed record EvalEvent(double? Seconds, int Step, string? Split) : EvaluationEvent;

/// <summary>An evaluation that gave no numbers.</summary>
internal sealed record EvalFailedEvent(int Step, string? Split, string? Error) : LogEvent;

/// <summary>A model on the test rows.</summary>
internal sealed record TestEvent(double? Seconds, string? Stage) : EvaluationEvent
{
    /// <summary>Stage of the base, before training.</summary>
    public const string ZeroShot = "zero-shot";
    /// <summary>Stage of the trained model. A resumed run tests it anew.</summary>
    public const string Tuned = "tuned";
}

/// <summary>A baseline on the test rows.</summary>
internal sealed record BaselineEvent(string? Name) : EvaluationEvent;
