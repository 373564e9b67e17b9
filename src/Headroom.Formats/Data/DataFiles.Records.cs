using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;

namespace Headroom.Formats.Data;

/// <summary>A row of a data file as its columns.</summary>
/// <param name="Where">File and line or row, for messages.</param>
/// <param name="Fields">Columns in the order of the file; cells of tables are texts.</param>
internal sealed record DataRecord(string Where, JsonObject Fields);

/// <summary>What is read of a data file.</summary>
internal sealed record DataRecordOptions
{
    /// <summary>
    /// csv and tsv: whether the first line names the columns; null = it does. Without one, the columns are text, label.
    /// </summary>
    public bool? Header { get; init; }
    /// <summary>The columns that are wanted; null = all.</summary>
    public IReadOnlyCollection<string>? Columns { get; init; }
    /// <summary>
    /// Is told of a row that cannot be read, which is passed over where the file allows it; null: such a row is an
    /// error.
    /// </summary>
    public Action<HeadroomException>? OnBadRow { get; init; }
}

internal static partial class DataFiles
{
    /// <summary>
    /// The rows of a file or folder as records, in a stable order; files as in
    /// <see cref="Read(string, DataFileOptions?)"/>.
    /// </summary>
    /// <exception cref="HeadroomException">A file is missing, of no known kind, or holds what cannot be read; the line
    /// or row is named.</exception>
    public static IEnumerable<DataRecord> Records(string path, DataRecordOptions? options = null)
    {
        options ??= new();
        if (Directory.Exists(path))
            return IsReviewFolder(path)
                ? ReadFolder(path).Select((row, i) => TextRecord(path, i, row))
                : FolderFiles(path).SelectMany(p => Records(p, options));
        if (!File.Exists(path) && Path.GetFileName(path).Contains('*'))
            return Pattern(path).SelectMany(p => Records(p, options));
        Need(path);
        return KindOf(path) switch
        {
            Kind.Json => JsonRecords(path, options),
            Kind.Csv => TableRecords(path, CsvLines(path, options.Columns ?? [], options.Header), options),
            Kind.Tsv => TableRecords(path, TsvLines(path), options),
            Kind.Plain => ReadPlain(path, new()).Select((row, i) => TextRecord(path, i, row)),
            _ => ParquetRecords(path, options),
        };
    }

    /// <summary>The names of a file's columns: those of its first row, of Parquet those of its schema.</summary>
    /// <returns>None of a file without rows.</returns>
    /// <exception cref="HeadroomException">As <see cref="Records"/>.</exception>
    public static IReadOnlyList<string> ColumnNames(string path, DataRecordOptions? options = null) =>
        [.. Records(path, options).Take(1).SelectMany(r => r.Fields.Select(f => f.Key))];

    private static DataRecord TextRecord(string path, int index, DataRow row)
    {
        var fields = new JsonObject { ["text"] = row.Text };
        if (row.Label.Length > 0) fields["label"] = row.Label;
        return new($"{path}, row {index + 1}", fields);
    }

    private static IEnumerable<DataRecord> JsonRecords(string path, DataRecordOptions options)
    {
        foreach (var (where, row) in JsonObjects(path, options.OnBadRow))
        {
            DataRecord record;
            try
            {
                record = new(where, Fields(where, row, options.Columns));
            }
            catch (HeadroomException e) when (options.OnBadRow != null)
            {
                options.OnBadRow(e);
                continue;
            }
            yield return record;
        }
    }

    private static JsonObject Fields(string where, JsonElement row, IReadOnlyCollection<string>? wanted)
    {
        try
        {
            return Copy(row, wanted);
        }
        catch (InvalidOperationException) // what System.Text.Json says of bytes and escapes that are no Unicode
        {
            throw new HeadroomException($"{where}: a text or name is not valid Unicode", "Repair the text");
        }

        JsonObject Copy(JsonElement element, IReadOnlyCollection<string>? only)
        {
            var copy = new JsonObject();
            foreach (var property in element.EnumerateObject())
            {
                string name = property.Name;
                if (only?.Contains(name) == false) continue;
                if (!copy.TryAdd(name, Node(property.Value)))
                    throw new HeadroomException(
                        $"{where}: field '{HeadroomException.Value(name)}' stands there twice", "Name each field once");
            }
            return copy;
        }

        // Texts are read here and now, so that what is wrong with one is said with its place.
        JsonNode? Node(JsonElement element) => element.ValueKind switch
        {
            JsonValueKind.Object => Copy(element, null),
            JsonValueKind.Array => new JsonArray([.. element.EnumerateArray().Select(Node)]),
            JsonValueKind.String => JsonValue.Create(element.GetString()),
            JsonValueKind.Null => null,
            _ => JsonNode.Parse(element.GetRawText()),
        };
    }

    private static IEnumerable<DataRecord> TableRecords(
        string path, IEnumerable<(long Line, string[] Cells)> lines, DataRecordOptions options)
    {
        string[]? names = null;
        foreach (var (number, cells) in lines)
        {
            if (names == null)
            {
                names = Names(path, number, cells, options.Header);
                if (options.Header != false) continue;
            }
            if (cells.Length != names.Length)
            {
                var bad = Bad(
                    path, number, $"{cells.Length} columns where {names.Length} are expected",
                    "Quote cells that hold the separator (csv), or remove it (tsv)");
                if (options.OnBadRow == null) throw bad;
                options.OnBadRow(bad);
                continue;
            }
            var fields = new JsonObject();
            for (int i = 0; i < cells.Length; i++)
                if (options.Columns?.Contains(names[i]) != false)
                    fields[names[i]] = cells[i];
            yield return new($"{path}, line {number}", fields);
        }
    }

    private static string[] Names(string path, long number, string[] cells, bool? header)
    {
        if (header == false)
            return cells.Length == 2 ? ["text", "label"] : throw Bad(
                path, number, $"{cells.Length} columns without a header",
                "Put a line with their names before them and set data.header to true; without one there are two: text, "
                    + "label");
        string[] names = [.. cells.Select(c => c.Trim())];
        string? twice = names.GroupBy(n => n).FirstOrDefault(g => g.Count() > 1)?.Key;
        return twice == null ? names : throw Bad(
            path, number, $"several columns are named '{HeadroomException.Value(twice)}'",
            "Give each column a name of its own");
    }
}
