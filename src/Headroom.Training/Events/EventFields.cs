using System.Text.Json.Nodes;
using Headroom.Formats;

namespace Headroom.Training.Events;

/// <summary>Lenient access to fields of an event: a missing or odd field is null.</summary>
public static class EventFields
{
    /// <summary>A text, or a number or flag as one.</summary>
    public static string? Text(this JsonObject? o, string key) =>
        o?[key] is JsonValue v ? (v.TryGetValue(out string? s) ? s : v.ToJsonString()) : null;

    /// <summary>A number below 1e100.</summary>
    public static double? Number(this JsonObject? o, string key) =>
        o?[key] is JsonValue v
        && v.GetValueKind() == System.Text.Json.JsonValueKind.Number
        && v.GetValue<double>() is var d
        && Math.Abs(d) < 1e100
            ? d
            : null; // larger ones are not a measurement, and no axis holds them

    /// <summary>A whole number.</summary>
    public static long? Long(this JsonObject? o, string key) =>
        o.Number(key) is { } d && Math.Abs(d) < 9e15 ? (long)d : null;

    /// <summary>true or false.</summary>
    public static bool? Flag(this JsonObject? o, string key) =>
        o?[key] is JsonValue v && v.TryGetValue(out bool b) ? b : null;

    /// <summary>A number from 0 to 1.</summary>
    public static double? Share(this JsonObject? o, string key) =>
        o.Number(key) is >= 0 and <= 1 and var share ? share : null;

    /// <summary>A list of texts.</summary>
    public static string[] Texts(this JsonObject? o, string key) =>
        o?[key] is JsonArray a ? a.Select(x => x?.ToString() ?? "").ToArray() : [];
}
