using System.Collections;
using System.Globalization;
using System.Text.Json.Nodes;
using Headroom.Core;
using Parquet.Serialization;

namespace Headroom.Formats.Data;

internal static partial class DataFiles
{
    /// <summary>
    /// The rows of a Parquet file with whatever is nested in them: lists, structures and maps of texts, numbers and
    /// truth values. Pages are checked as those of flat columns are.
    /// </summary>
    private static IEnumerable<DataRecord> ParquetRecords(string path, DataRecordOptions options)
    {
        RegularFile.Check(path);
        using var file = File.OpenRead(path);
        var footer = Guard(path, () => ParquetFooter.Read(file, path));
        long row = 0, most = Math.Min(int.MaxValue, file.Length * 64);
        for (int g = 0; g < footer.Groups.Count; g++)
        {
            if (footer.Rows[g] > most) throw ParquetFooter.Bad(path, $"it claims {footer.Rows[g]} rows");
            foreach (var chunk in footer.Groups[g]) Guard(path, () => ParquetPages.Check(file, chunk, path));
            int group = g;
            file.Position = 0;
            var rows = Wait(path, async () =>
                (await ParquetSerializer.DeserializeUntypedAsync(file, null, group).ConfigureAwait(false)).Data);
            if (rows.Count != footer.Rows[g]) throw ParquetFooter.Bad(path, $"row group {g} gives {rows.Count} rows");
            foreach (var values in rows)
            {
                var fields = new JsonObject();
                string where = $"{path}, row {++row}";
                foreach (var (name, value) in values)
                    if (options.Columns?.Contains(name) != false)
                        fields[name] = Node(where, name, value);
                yield return new(where, fields);
            }
        }
    }

    private static JsonNode? Node(string where, string name, object? value) => value switch
    {
        null => null,
        string s => JsonValue.Create(s),
        ReadOnlyMemory<char> text => JsonValue.Create(text.ToString()),
        byte[] b => JsonValue.Create(Utf8Text(where, name, b)),
        ReadOnlyMemory<byte> b => JsonValue.Create(Utf8Text(where, name, b.Span)),
        bool b => JsonValue.Create(b),
        sbyte or byte or short or ushort or int or uint or long =>
            JsonValue.Create(Convert.ToInt64(value, CultureInfo.InvariantCulture)),
        ulong u => JsonValue.Create(u),
        float f => Number(where, name, f),
        double d => Number(where, name, d),
        decimal m => JsonValue.Create(m),
        DateTime t => JsonValue.Create(t.ToString("O", CultureInfo.InvariantCulture)),
        IDictionary map => new JsonObject(map.Keys.Cast<object>().Select(k =>
            KeyValuePair.Create(Text(k), Node(where, name, map[k])))),
        IEnumerable list => new JsonArray([.. list.Cast<object?>().Select(v => Node(where, name, v))]),
        _ => throw new HeadroomException(
            $"{where}: column '{HeadroomException.Value(name)}' has values of type {value.GetType().Name}",
            "Use texts, numbers, truth values, and lists and structures of them"),
    };

    private static JsonValue Number(string where, string name, double value) =>
        double.IsFinite(value) ? JsonValue.Create(value) : throw new HeadroomException(
            $"{where}: column '{HeadroomException.Value(name)}' holds {Text(value)}",
            "Write null there, or drop the row");

    private static string Utf8Text(string where, string name, ReadOnlySpan<byte> bytes)
    {
        try { return Utf8.GetString(bytes); }
        catch (System.Text.DecoderFallbackException)
        {
            throw new HeadroomException(
                $"{where}: column '{HeadroomException.Value(name)}' holds bytes that are no UTF-8",
                "Use columns of texts");
        }
    }
}
