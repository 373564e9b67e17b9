using System.Numerics;
using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;

namespace Headroom.Training.Events;

/// <summary>A text, or a number or flag as one; null for anything else.</summary>
internal sealed class LenientText : JsonConverter<string?>
{
    public override string? Read(ref Utf8JsonReader reader, Type type, JsonSerializerOptions options)
    {
        if (reader.TokenType == JsonTokenType.String) return reader.GetString();
        using var value = JsonDocument.ParseValue(ref reader);
        return value.RootElement.ValueKind is JsonValueKind.Number or JsonValueKind.True or JsonValueKind.False
            ? value.RootElement.GetRawText() : null;
    }

    public override void Write(Utf8JsonWriter writer, string? value, JsonSerializerOptions options) =>
        writer.WriteStringValue(value);

    public override string ReadAsPropertyName(ref Utf8JsonReader reader, Type type, JsonSerializerOptions options) =>
        reader.GetString()!;

    public override void WriteAsPropertyName(Utf8JsonWriter writer, string value, JsonSerializerOptions options) =>
        writer.WritePropertyName(value);
}

/// <summary>True for true, false for anything else.</summary>
internal sealed class LenientFlag : JsonConverter<bool>
{
    public override bool HandleNull => true;

    public override bool Read(ref Utf8JsonReader reader, Type type, JsonSerializerOptions options)
    {
        reader.Skip();
        return reader.TokenType == JsonTokenType.True;
    }

    public override void Write(Utf8JsonWriter writer, bool value, JsonSerializerOptions options) =>
        writer.WriteBooleanValue(value);
}

/// <summary>A number, of a whole type without its fraction; null for anything else and where it is too large.</summary>
internal sealed class LenientNumber<T> : JsonConverter<T?> where T : struct, INumber<T>
{
    public override T? Read(ref Utf8JsonReader reader, Type type, JsonSerializerOptions options)
    {
        if (reader.TokenType == JsonTokenType.Number && reader.TryGetDouble(out double value)
            && Math.Abs(value) < Limit)
            return T.CreateTruncating(value);
        reader.Skip();
        return null;
    }

    public override void Write(Utf8JsonWriter writer, T? value, JsonSerializerOptions options)
    {
        if (value is not { } number || !T.IsFinite(number)) writer.WriteNullValue();
        else if (number is double real) writer.WriteNumberValue(real);
        else writer.WriteNumberValue(long.CreateChecked(number));
    }

    // A larger real number is not a measurement, and no axis holds it.
    private static double Limit => typeof(T) == typeof(double) ? 1e100 : typeof(T) == typeof(int) ? int.MaxValue : 9e15;
}

/// <summary>A whole number; zero for anything else.</summary>
internal sealed class LenientCount<T> : JsonConverter<T> where T : struct, IBinaryInteger<T>
{
    private static readonly LenientNumber<T> Number = new();

    public override bool HandleNull => true;

    public override T Read(ref Utf8JsonReader reader, Type type, JsonSerializerOptions options) =>
        Number.Read(ref reader, type, options) ?? T.Zero;

    public override void Write(Utf8JsonWriter writer, T value, JsonSerializerOptions options) =>
        Number.Write(writer, value, options);
}

/// <summary>Rows of an evaluation; -1 for what is no number of rows, so that this can be said.</summary>
internal sealed class RowsOrOdd : JsonConverter<long?>
{
    private static readonly LenientNumber<long> Number = new();

    public override long? Read(ref Utf8JsonReader reader, Type type, JsonSerializerOptions options) =>
        Number.Read(ref reader, type, options) is >= 0 and var rows ? rows : -1;

    public override void Write(Utf8JsonWriter writer, long? value, JsonSerializerOptions options) =>
        Number.Write(writer, value, options);
}

/// <summary>An object or map; null for anything else.</summary>
internal sealed class LenientObject<T> : JsonConverter<T> where T : class
{
    public override T? Read(ref Utf8JsonReader reader, Type type, JsonSerializerOptions options)
    {
        using var value = JsonDocument.ParseValue(ref reader);
        return value.RootElement.ValueKind == JsonValueKind.Object ? value.Deserialize(Info(options)) : null;
    }

    public override void Write(Utf8JsonWriter writer, T value, JsonSerializerOptions options) =>
        JsonSerializer.Serialize(writer, value, Info(options));

    private static JsonTypeInfo<T> Info(JsonSerializerOptions options) =>
        (JsonTypeInfo<T>)options.GetTypeInfo(typeof(T));
}

/// <summary>A list; null for anything else, and entries that are none are left out.</summary>
internal sealed class LenientList<T> : JsonConverter<IReadOnlyList<T>>
{
    public override IReadOnlyList<T>? Read(ref Utf8JsonReader reader, Type type, JsonSerializerOptions options)
    {
        using var value = JsonDocument.ParseValue(ref reader);
        if (value.RootElement.ValueKind != JsonValueKind.Array) return null;
        var list = new List<T>();
        foreach (var item in value.RootElement.EnumerateArray())
            try
            {
                if (item.Deserialize(Info(options)) is { } entry) list.Add(entry);
            }
            catch (JsonException)
            {
            }
        return list;
    }

    public override void Write(Utf8JsonWriter writer, IReadOnlyList<T> value, JsonSerializerOptions options)
    {
        writer.WriteStartArray();
        foreach (var item in value) JsonSerializer.Serialize(writer, item, Info(options));
        writer.WriteEndArray();
    }

    private static JsonTypeInfo<T> Info(JsonSerializerOptions options) =>
        (JsonTypeInfo<T>)options.GetTypeInfo(typeof(T));
}
