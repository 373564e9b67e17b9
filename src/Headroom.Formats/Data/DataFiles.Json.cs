using System.Text.Json;
using Headroom.Core;

namespace Headroom.Formats.Data;

internal static partial class DataFiles
{
    private const int LargestObject = 64 << 20; // of a file that is looked at whole, to say what it holds

    private static IEnumerable<DataRow> ReadJson(string path, DataFileOptions options)
    {
        foreach (var (where, row) in JsonObjects(path, null))
            yield return JsonFields(row, options, (what, todo) => new($"{where}: {what}", todo));
    }

    /// <summary>
    /// One object a line; or one array of objects, which is told by its first sign and read element by element. Each is
    /// there until the next is asked for.
    /// </summary>
    /// <param name="path">The file.</param>
    /// <param name="bad">Is told of a line that is no object, which is passed over; null: it is an error.</param>
    private static IEnumerable<(string Where, JsonElement Row)> JsonObjects(string path, Action<HeadroomException>? bad)
    {
        bool first = true;
        foreach (var (number, buffer, length) in Lines(path))
        {
            var line = buffer.AsMemory(0, length);
            int at = line.Span.IndexOfAnyExcept((byte)' ', (byte)'\t');
            if (at < 0) continue;
            if (first && line.Span[at] == '[')
            {
                foreach (var row in JsonArray(path, bad)) yield return row;
                yield break;
            }
            JsonDocument document;
            try
            {
                document = JsonLine(path, number, line, first);
            }
            catch (HeadroomException e) when (bad != null)
            {
                bad(e);
                continue;
            }
            finally
            {
                first = false;
            }
            using (document) yield return ($"{path}, line {number}", document.RootElement);
        }
    }

    private static IEnumerable<(string Where, JsonElement Row)> JsonArray(string path, Action<HeadroomException>? bad)
    {
        using var file = Open(path);
        using var elements = JsonSerializer
            .DeserializeAsyncEnumerable<JsonElement>(file)
            .ToBlockingEnumerable()
            .GetEnumerator();
        for (long row = 1; Next(); row++)
        {
            if (elements.Current.ValueKind == JsonValueKind.Object)
            {
                yield return ($"{path}, row {row}", elements.Current);
                continue;
            }
            var fault = BadRow(path, row, "not a JSON object", "Give a list of objects, one a row");
            if (bad == null) throw fault;
            bad(fault);
        }
        file.NeedWhole();

        bool Next()
        {
            try { return elements.MoveNext(); }
            catch (JsonException e)
            {
                file.NeedWhole(); // a file that broke off is no JSON for that reason
                throw Bad(
                    path, (e.LineNumber ?? 0) + 1, $"not JSON (byte {e.BytePositionInLine})",
                    "Give a list of objects, one a row: [{...}, {...}]");
            }
        }
    }

    private static HeadroomException BadRow(string path, long row, string what, string todo) =>
        new($"{path}, row {row}: {what}", todo);

    private static JsonDocument JsonLine(string path, long number, ReadOnlyMemory<byte> line, bool first)
    {
        JsonDocument doc;
        try { doc = JsonDocument.Parse(line); }
        catch (JsonException e)
        {
            if (first && OneObject(path) is { } keys)
                throw new HeadroomException(
                    $"{path} holds one JSON object over several lines ({keys}), no rows.",
                    "Save the list of rows in it as a file of its own: [{...}, {...}], or one object a line.");
            string what = NoNumber(line.Span, (int)(e.BytePositionInLine ?? 0)) is { } value
                ? $": {value} is no value there; write null, or leave the row out"
                : "";
            throw Bad(
                path, number, $"not JSON (byte {e.BytePositionInLine}{what})", "Put one JSON object on each line");
        }
        if (doc.RootElement.ValueKind == JsonValueKind.Object) return doc;
        doc.Dispose();
        throw Bad(path, number, "not a JSON object", "Put one JSON object on each line");
    }

    /// <summary>What Python writes for a number that is none.</summary>
    private static string? NoNumber(ReadOnlySpan<byte> line, int at)
    {
        foreach (string value in (string[])["NaN", "Infinity", "-Infinity"])
            for (int i = Math.Max(0, at - value.Length); i <= at; i++)
                if (
                    i + value.Length <= line.Length
                    && line.Slice(i, value.Length).SequenceEqual(System.Text.Encoding.ASCII.GetBytes(value))
                )
                    return value;
        return null;
    }

    /// <summary>The keys of a file that is one object, or null.</summary>
    private static string? OneObject(string path)
    {
        using var file = Open(path);
        byte[] all = new byte[LargestObject];
        int length = file.ReadAtLeast(all, all.Length, throwOnEndOfStream: false);
        try
        {
            using var doc = JsonDocument.Parse(all.AsMemory(0, length));
            return doc.RootElement.ValueKind == JsonValueKind.Object ? Names(doc.RootElement) : null;
        }
        catch (JsonException) { return null; }
    }

    /// <summary>The names of an object's fields, for messages; one that is no Unicode is a question mark.</summary>
    private static string Names(JsonElement of) => HeadroomException.List(of.EnumerateObject().Select(p =>
    {
        try { return p.Name; }
        catch (InvalidOperationException) { return "?"; }
    }));

    private static DataRow JsonFields(
        JsonElement row, DataFileOptions options, Func<string, string, HeadroomException> bad)
    {
        string Need(string name) =>
            Field(name)
            ?? throw bad(
                $"no field '{HeadroomException.Value(name)}'{(row.EnumerateObject().Any(p => Is(p, name)) ? " (it is null)" : "")}",
                $"Set data.text_field, data.label_field and the columns of task.template; fields here: {Names(row)}");
        return new(Need(options.TextField), Need(options.LabelField), Field(options.TierField), Field(options.IdField))
        {
            More = options.MoreFields.Count == 0 ? null : [.. options.MoreFields.Select(Need)],
        };

        bool Is(JsonProperty property, string name)
        {
            try { return property.NameEquals(name); }
            catch (InvalidOperationException) { throw bad("a field's name is not valid Unicode", "Repair the file"); }
        }

        string? Field(string name)
        {
            JsonElement? found = null;
            foreach (var property in row.EnumerateObject())
            {
                if (!Is(property, name)) continue;
                if (found != null)
                    throw bad($"field '{HeadroomException.Value(name)}' stands there twice", "Name each field once");
                found = property.Value;
            }
            if (found is not { ValueKind: not JsonValueKind.Null } value) return null;
            try
            {
                return value.ValueKind switch
                {
                    JsonValueKind.String => value.GetString(),
                    JsonValueKind.Number => value.GetRawText(),
                    JsonValueKind.True => "true",
                    JsonValueKind.False => "false",
                    var kind => throw bad(
                        $"field '{HeadroomException.Value(name)}' is {JsonKinds.Named(kind)}",
                        "Give it as a string or number"),
                };
            }
            catch (InvalidOperationException)
            {
                throw bad($"field '{HeadroomException.Value(name)}' is not valid Unicode", "Repair the text");
            }
        }
    }
}
