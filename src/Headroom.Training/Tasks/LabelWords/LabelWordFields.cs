using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;
using Headroom.Training.Events;

namespace Headroom.Training.Tasks.LabelWords;

/// <summary>
/// Fields of label words in an event of the log. Versions before task types wrote them alone, without metrics by name,
/// and logs of theirs are read by them. Of what a log may hold in another form, which is said, the value is kept as it
/// stands there.
/// </summary>
internal sealed record LabelWordFields
{
    /// <summary>Mean loss, nats; not written where it was not measured.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public double? Loss { get; init; }
    /// <summary>A share.</summary>
    public JsonElement? Accuracy { get; init; }
    public double? Precision { get; init; }
    public double? Recall { get; init; }
    public double? F1 { get; init; }
    /// <summary>What precision, recall and f1 are of: binary, the positive class, or macro.</summary>
    public string? Average { get; init; }
    public double? F1Macro { get; init; }
    public double? F1Weighted { get; init; }
    /// <summary>A word for each class.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public JsonElement? Labels { get; init; }
    /// <summary>K x K counts, gold by predicted; K * K in one row from earlier versions.</summary>
    public JsonElement? Confusion { get; init; }
    /// <summary>Class of each row.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public JsonElement? Gold { get; init; }
    /// <summary>Predicted class of each row.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public JsonElement? Predicted { get; init; }
    /// <summary>Tier of each row, or null for all of them.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public JsonElement? Tiers { get; init; }

    /// <summary>A figure by its metric's name, where it is a share.</summary>
    public double? Share(string metric) => metric switch
    {
        "precision" => Precision,
        "recall" => Recall,
        "f1" => F1,
        "f1_macro" => F1Macro,
        "f1_weighted" => F1Weighted,
        _ => null,
    } is >= 0 and <= 1 and var share ? share : null;

    /// <summary>As the fields of an event.</summary>
    public static JsonObject ToJson(LabelWordFields fields) =>
        JsonSerializer.SerializeToNode(fields, LabelWordJson.Default.LabelWordFields)!.AsObject();

    /// <summary>Of the fields of an event.</summary>
    public static LabelWordFields Read(JsonObject fields) =>
        fields.Deserialize(LabelWordJson.Default.LabelWordFields)!;

    /// <summary>A value as it is written.</summary>
    public static JsonElement Value<T>(T value) =>
        JsonSerializer.SerializeToElement(value, (JsonTypeInfo<T>)LabelWordJson.Default.GetTypeInfo(typeof(T))!);
}

/// <summary>Fields of label words from and to JSON.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    Converters = [typeof(LenientText), typeof(LenientNumber<double>)])]
[JsonSerializable(typeof(LabelWordFields))]
[JsonSerializable(typeof(double?))]
[JsonSerializable(typeof(string[]))]
[JsonSerializable(typeof(int[]))]
[JsonSerializable(typeof(long[][]))]
internal sealed partial class LabelWordJson : JsonSerializerContext;
