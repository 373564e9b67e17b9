using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Headroom.Training.Events;

/// <summary>
/// One line of events.jsonl: an object with "event", the kind, first, then "time" and the fields of the kind. A kind
/// that this version does not know is read as this type.
/// </summary>
/// <remarks>
/// What is written here is read by every later version, and logs of earlier versions, of later ones and damaged ones
/// are read here: every field may be missing or hold anything, which is null (or zero, or empty) then.
/// </remarks>
[JsonPolymorphic(TypeDiscriminatorPropertyName = "event", IgnoreUnrecognizedTypeDiscriminators = true)]
[JsonDerivedType(typeof(RunStartEvent), "run_start")]
[JsonDerivedType(typeof(ResumedEvent), "resumed")]
[JsonDerivedType(typeof(NoticeEvent), "notice")]
[JsonDerivedType(typeof(MemoryEvent), "memory")]
[JsonDerivedType(typeof(StepEvent), "step")]
[JsonDerivedType(typeof(EvalEvent), "eval")]
[JsonDerivedType(typeof(EvalFailedEvent), "eval_failed")]
[JsonDerivedType(typeof(TestEvent), "test")]
[JsonDerivedType(typeof(BaselineEvent), "baseline")]
[JsonDerivedType(typeof(BestEvent), "best")]
[JsonDerivedType(typeof(CheckpointEvent), "checkpoint")]
[JsonDerivedType(typeof(CheckpointFailedEvent), "checkpoint_failed")]
[JsonDerivedType(typeof(RunEndEvent), "run_end")]
[JsonDerivedType(typeof(StoppedEvent), "stopped")]
[JsonDerivedType(typeof(FailedEvent), "failed")]
[JsonDerivedType(typeof(DuelStartEvent), "duel_start")]
[JsonDerivedType(typeof(DuelEndEvent), "duel_end")]
internal record LogEvent
{
    /// <summary>When it was written: UTC, ISO 8601 with seven digits of a second.</summary>
    [JsonPropertyOrder(-3)]
    public string? Time { get; init; }

    /// <summary><see cref="Time"/> as UTC; null where it is none.</summary>
    [JsonIgnore]
    public DateTime? At => DateTime.TryParse(
        Time, CultureInfo.InvariantCulture, DateTimeStyles.AdjustToUniversal | DateTimeStyles.AssumeUniversal,
        out var time) ? time : null;

    /// <summary>The line in UTF-8, without its end.</summary>
    internal virtual byte[] ToLine() => JsonSerializer.SerializeToUtf8Bytes(this, EventJson.Default.LogEvent);
}

/// <summary>Events from and to JSON. Numbers that are not finite are written as null.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    AllowOutOfOrderMetadataProperties = true,
    Converters =
    [
        typeof(LenientText), typeof(LenientFlag), typeof(LenientNumber<int>), typeof(LenientNumber<long>),
        typeof(LenientNumber<double>), typeof(LenientCount<int>), typeof(LenientCount<long>),
    ])]
[JsonSerializable(typeof(LogEvent))]
[JsonSerializable(typeof(PlanFields))]
[JsonSerializable(typeof(PlanRowFields))]
[JsonSerializable(typeof(MetricFields))]
[JsonSerializable(typeof(ChangedValue))]
[JsonSerializable(typeof(IReadOnlyDictionary<string, long>))]
[JsonSerializable(typeof(IReadOnlyDictionary<string, string>))]
[JsonSerializable(typeof(IReadOnlyDictionary<string, SplitFields>))]
internal sealed partial class EventJson : JsonSerializerContext;
