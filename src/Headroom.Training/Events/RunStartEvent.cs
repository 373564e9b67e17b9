using System.Text.Json.Serialization;

namespace Headroom.Training.Events;

/// <summary>
/// A run begins: what of what is trained on what, by which plan, and the fields of manifest.json, which is read as one
/// of these by reports.
/// </summary>
internal sealed record RunStartEvent : LogEvent
{
    public string? Name { get; init; }
    /// <summary>Value of task.type; null in logs of versions that had label words only.</summary>
    public string? Task { get; init; }
    public string? Model { get; init; }
    public string? BaseSha256 { get; init; }
    public long? Seed { get; init; }
    public string? Device { get; init; }
    /// <summary>The base's, as its config.json calls it.</summary>
    public string? Architecture { get; init; }
    public long? Parameters { get; init; }
    public long? TrainableParameters { get; init; }
    /// <summary>By the last part of the module's path: q_proj, lm_head.</summary>
    [JsonConverter(typeof(LenientObject<IReadOnlyDictionary<string, long>>))]
    public IReadOnlyDictionary<string, long>? TrainableByModule { get; init; }
    /// <summary>Rows of an update.</summary>
    public long? EffectiveBatch { get; init; }
    /// <summary>Updates planned.</summary>
    public long? TotalSteps { get; init; }
    public long? StepsPerEpoch { get; init; }
    public long? TrainRows { get; init; }
    public long? ValidationRows { get; init; }
    public long? TestRows { get; init; }
    /// <summary>Texts that were longer than task.max_seq_length leaves room for.</summary>
    public long? CutTexts { get; init; }
    /// <summary>Text of the recipe as it was understood.</summary>
    public string? Recipe { get; init; }
    [JsonConverter(typeof(LenientObject<PlanFields>))]
    public PlanFields? Plan { get; init; }
    public string? Headroom { get; init; }
    [JsonConverter(typeof(LenientList<string>))]
    public IReadOnlyList<string>? Command { get; init; }
    public string? Created { get; init; }
    public string? ModelPath { get; init; }
    public string? ModelHub { get; init; }
    public string? Tokenizer { get; init; }
    [JsonConverter(typeof(LenientObject<IReadOnlyDictionary<string, string>>))]
    public IReadOnlyDictionary<string, string>? Config { get; init; }
    public string? ConfigSha256 { get; init; }
    public string? RecipeSha256 { get; init; }
    [JsonConverter(typeof(LenientObject<IReadOnlyDictionary<string, string>>))]
    public IReadOnlyDictionary<string, string>? RecipeValues { get; init; }
    public string? Driver { get; init; }
    public string? Precision { get; init; }
    [JsonConverter(typeof(LenientObject<IReadOnlyDictionary<string, string>>))]
    public IReadOnlyDictionary<string, string>? Resolved { get; init; }
    /// <summary>The encoded rows of each split.</summary>
    [JsonConverter(typeof(LenientObject<IReadOnlyDictionary<string, SplitFields>>))]
    public IReadOnlyDictionary<string, SplitFields>? Data { get; init; }
}

/// <summary>The memory plan of a run, bytes.</summary>
internal sealed record PlanFields
{
    public long? TotalBytes { get; init; }
    public long? ArenaBytes { get; init; }
    /// <summary>What lives as long as the model.</summary>
    public long? StaticBytes { get; init; }
    /// <summary>Of the libraries that the ops call.</summary>
    public long? WorkspaceBytes { get; init; }
    public string? PeakPhase { get; init; }
    /// <summary>Layers whose forward pass is done again in the backward pass.</summary>
    public int? RecomputeLayers { get; init; }
    public int? Layers { get; init; }
    /// <summary>Bytes of each phase beyond the static ones.</summary>
    [JsonConverter(typeof(LenientObject<IReadOnlyDictionary<string, long>>))]
    public IReadOnlyDictionary<string, long> Phases { get; init => field = value ?? field; } =
        new Dictionary<string, long>();
    /// <summary>What is alive at the peak of each phase.</summary>
    [JsonConverter(typeof(LenientList<PlanRowFields>))]
    public IReadOnlyList<PlanRowFields> Rows { get; init => field = value ?? field; } = [];
}

/// <summary>Buffers of a category at the peak of a phase.</summary>
internal sealed record PlanRowFields
{
    public string Phase { get; init => field = value ?? field; } = "static";
    public string Category { get; init => field = value ?? field; } = "other";
    /// <summary>How many.</summary>
    public int Buffers { get; init; }
    public long Bytes { get; init; }
}

/// <summary>The encoded rows of a split.</summary>
internal sealed record SplitFields(long? Rows, string? Sha256);
