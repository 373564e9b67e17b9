using System.Text.Json.Serialization;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;

namespace Headroom.Training.Events;

/// <summary>A process goes on with a run.</summary>
/// <param name="Step">The step of the checkpoint it goes on from.</param>
/// <param name="TotalSteps">Updates of the whole run, which may be more than before.</param>
/// <param name="SecondsBefore">Seconds that processes worked on the run before; null in logs of versions that did not
/// say.</param>
/// <param name="Changed">What differs from the start and may.</param>
/// <param name="Command">The command line.</param>
internal sealed record ResumedEvent(
    int Step, long? TotalSteps, double? SecondsBefore,
    [property: JsonConverter(typeof(LenientList<ChangedValue>))] IReadOnlyList<ChangedValue>? Changed,
    [property: JsonConverter(typeof(LenientList<string>))] IReadOnlyList<string>? Command) : LogEvent;

/// <summary>A value that differs between a run and its resume.</summary>
internal sealed record ChangedValue(string? Key, string? Old, string? New);

/// <summary>Something the user should know.</summary>
internal sealed record NoticeEvent(int AtStep, string? Text) : LogEvent;

/// <summary>Memory of process and device, bytes.</summary>
internal sealed record MemoryEvent : LogEvent
{
    public int? Step { get; init; }
    public long? DeviceTotalBytes { get; init; }
    /// <summary>Of all processes.</summary>
    public long? DeviceUsedBytes { get; init; }
    public long? DeviceProcessBytes { get; init; }
    public long? ArenaBytes { get; init; }
    /// <summary>loaded, training or end.</summary>
    public string When { get; init => field = value ?? field; } = "";
    public long? ReservedBytes { get; init; }
    public long? ResidentBytes { get; init; }
    public long? PeakResidentBytes { get; init; }
    public long? ManagedBytes { get; init; }
}

/// <summary>An update.</summary>
internal sealed record StepEvent : LogEvent
{
    public int Step { get; init; }
    public double? Epoch { get; init; }
    /// <summary>Mean loss of the labelled tokens, nats.</summary>
    public double? Loss { get; init; }
    /// <summary>Global norm of the gradients before clipping.</summary>
    public double? GradNorm { get; init; }
    public double? LearningRate { get; init; }
    public long? Tokens { get; init; }
    public long? LabelTokens { get; init; }
    public double? Seconds { get; init; }
    /// <summary>The update was left out because its gradients were not finite.</summary>
    public bool Skipped { get; init; }
    /// <summary>Of fp16.</summary>
    public double? LossScale { get; init; }
}

/// <summary>The adapter of a step is about to be saved in best/.</summary>
/// <param name="Step">The step.</param>
/// <param name="Files">SHA-256 of its files by their path in the folder.</param>
internal sealed record BestEvent(
    int Step,
    [property: JsonConverter(typeof(LenientObject<IReadOnlyDictionary<string, string>>))]
    IReadOnlyDictionary<string, string>? Files) : LogEvent;

/// <summary>A checkpoint was written.</summary>
internal sealed record CheckpointEvent(int Step, string? Path) : LogEvent;

/// <summary>A checkpoint could not be written; the run goes on.</summary>
internal sealed record CheckpointFailedEvent(int Step, string? Error) : LogEvent;

/// <summary>A run reached its end.</summary>
internal sealed record RunEndEvent : LogEvent
{
    public bool Completed { get; init; }
    /// <summary>Before its last update, since evaluations brought nothing better; absent: no.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public bool? StoppedEarly { get; init; }
    public int? Steps { get; init; }
    /// <summary>Of every process that worked on the run.</summary>
    public double? Seconds { get; init; }
    /// <summary>Of the steps alone.</summary>
    public double? TrainSeconds { get; init; }
    public long? Tokens { get; init; }
    public long? LabelTokens { get; init; }
    public double? TokensPerSecond { get; init; }
    /// <summary>Of the trained tensors: <see cref="Checkpoints.TrainedHash"/>.</summary>
    public string? AdapterSha256 { get; init; }
    /// <summary>0 where no evaluation chose one.</summary>
    public int? BestStep { get; init; }
}

/// <summary>A run was stopped and can be resumed.</summary>
internal sealed record StoppedEvent(int AtStep) : LogEvent;

/// <summary>A run failed.</summary>
/// <param name="AtStep">Updates done.</param>
/// <param name="Call">The call of a device's library that failed, where one did.</param>
/// <param name="Error">What is wrong.</param>
/// <param name="ToDo">What to do.</param>
internal sealed record FailedEvent(
    int AtStep, [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Call, string? Error,
    string? ToDo) : LogEvent;

/// <summary>A duel begins. The log of a duel that goes on begins anew with it.</summary>
internal sealed record DuelStartEvent : LogEvent
{
    public string? Name { get; init; }
    /// <summary>Value of task.type; null in logs of versions that had label words only.</summary>
    public string? Task { get; init; }
    [JsonConverter(typeof(LenientList<string>))]
    public IReadOnlyList<string> Models { get; init => field = value ?? field; } = [];
    [JsonConverter(typeof(LenientList<int>))]
    public IReadOnlyList<int>? Seeds { get; init; }
    /// <summary>Text of the recipe as it was understood.</summary>
    public string? Recipe { get; init; }
    /// <summary>See <see cref="RecipeIdentity.Values"/>.</summary>
    [JsonConverter(typeof(LenientObject<IReadOnlyDictionary<string, string>>))]
    public IReadOnlyDictionary<string, string>? RecipeValues { get; init; }
    public string? Headroom { get; init; }
    [JsonConverter(typeof(LenientList<string>))]
    public IReadOnlyList<string>? Command { get; init; }
    /// <summary>Folders of the runs in that of the duel.</summary>
    [JsonConverter(typeof(LenientList<string>))]
    public IReadOnlyList<string> Runs { get; init => field = value ?? field; } = [];
}

/// <summary>A duel reached its end.</summary>
/// <param name="Seconds">Of the process that ended it.</param>
/// <param name="PeakResidentBytes">Of that process.</param>
internal sealed record DuelEndEvent(double? Seconds, long? PeakResidentBytes) : LogEvent;
