using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;

namespace Headroom.Formats;

/// <summary>
/// Values of a configuration file by key. Each is null where the key is absent or null, and throws
/// <see cref="FormatException"/> with the key and what it holds where that is of another kind.
/// </summary>
internal static class JsonValues
{
    private const int MostShown = 80; // characters of a value in a message
    private static readonly JsonSerializerOptions Plain = new()
    {
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    /// <summary>A value as JSON, bounded and printable.</summary>
    public static string Shown(JsonNode? value) =>
        HeadroomException.Value(value?.ToJsonString(Plain) ?? "null", MostShown);

    /// <summary>A number.</summary>
    public static double? Number(this JsonObject json, string key) => json[key] is { } v ? Number(key, v) : null;

    /// <summary>The value of a key as a number.</summary>
    public static double Number(string key, JsonNode? value) =>
        value?.GetValueKind() == JsonValueKind.Number ? value.GetValue<double>() : throw Odd(key, value, "no number");

    /// <summary>A whole number within 32 bits; 2.0 is one.</summary>
    public static int? Whole(this JsonObject json, string key) => json[key] is { } v ? Whole(key, v) : null;

    /// <summary>The value of a key as a whole number within 32 bits; 2.0 is one.</summary>
    public static int Whole(string key, JsonNode? value) =>
        value?.GetValueKind() == JsonValueKind.Number && value.GetValue<double>() is var v && v == (int)v ? (int)v
            : throw Odd(key, value, "no whole number of 32 bits");

    /// <summary>True or false.</summary>
    public static bool? Flag(this JsonObject json, string key) => json[key] switch
    {
        null => null,
        { } v when v.GetValueKind() is JsonValueKind.True or JsonValueKind.False => v.GetValue<bool>(),
        var other => throw Odd(key, other, "not true or false"),
    };

    /// <summary>A text.</summary>
    public static string? Text(this JsonObject json, string key) => json[key] switch
    {
        null => null,
        { } v when v.GetValueKind() == JsonValueKind.String => v.GetValue<string>(),
        var other => throw Odd(key, other, "no text"),
    };

    private static FormatException Odd(string key, JsonNode? value, string what) =>
        new($"{key} is {Shown(value)}, {what}");
}
