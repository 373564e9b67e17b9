using System.Globalization;
using System.IO.Compression;
using System.Text;
using System.Text.Json;
using Headroom.Core;

namespace Headroom.Formats.Data;

/// <summary>One labelled text.</summary>
/// <param name="Text">The text as stored.</param>
/// <param name="Label">The label value as text: "0", "1", "pos", "true".</param>
/// <param name="Tier">Kind or difficulty of the row, when the file names one.</param>
/// <param name="Id">Identifier of the row, when the file names one.</param>
public sealed record DataRow(string Text, string Label, string? Tier = null, string? Id = null);

/// <summary>Which fields of a data file hold what.</summary>
public sealed record DataFileOptions
{
    /// <summary>Field with the text.</summary>
    public string TextField { get; init; } = "text";
    /// <summary>Field with the label.</summary>
    public string LabelField { get; init; } = "label";
    /// <summary>Field with the tier; need not be there.</summary>
    public string TierField { get; init; } = "tier";
    /// <summary>Field with the identifier; need not be there.</summary>
    public string IdField { get; init; } = "id";
    /// <summary>csv and tsv: whether the first line names the columns; null looks for the text field in it. Without one, the columns are text, label.</summary>
    public bool? Header { get; init; }
}

/// <summary>Reads labelled texts from JSON Lines, CSV, TSV (each also gzipped), Parquet, and the folders of the Large Movie Review Dataset.</summary>
public static partial class DataFiles
{
    /// <summary>The rows of a file or folder, in a stable order. The kind goes by the name: .jsonl, .csv, .tsv, each with or without .gz, .parquet, or a folder with pos and neg. A * in the file name reads every file that matches, by name.</summary>
    public static IEnumerable<DataRow> Read(string path, DataFileOptions? options = null)
    {
        options ??= new();
        if (Directory.Exists(path)) return ReadFolder(path);
        if (!File.Exists(path) && Path.GetFileName(path).Contains('*')) return Pattern(path).SelectMany(p => Read(p, options));
        RegularFile.Check(path);
        if (!File.Exists(path)) throw new HeadroomException($"data file {path} does not exist", "check the path in the configuration");
        GitLfs.Refuse(path);
        string name = path.EndsWith(".gz", StringComparison.OrdinalIgnoreCase) ? path[..^3] : path;
        return Path.GetExtension(name).ToLowerInvariant() switch
        {
            ".jsonl" or ".ndjson" or ".json" => ReadJsonLines(path, options),
            ".csv" => ReadCsv(path, options),
            ".tsv" => ReadTsv(path, options),
            ".parquet" => ReadParquet(path, options),
            var e => throw new HeadroomException($"{path}: data files ending in '{e}' are not supported", "use .jsonl, .csv, .tsv (also .gz), .parquet, or a folder with pos and neg"),
        };
    }

    private static string[] Pattern(string path)
    {
        string folder = Path.GetDirectoryName(Path.GetFullPath(path))!;
        string[] files = Directory.Exists(folder) ? Directory.GetFiles(folder, Path.GetFileName(path)) : [];
        if (files.Length == 0) throw new HeadroomException($"no data file matches {path}", "check the path in the configuration");
        Array.Sort(files, StringComparer.Ordinal);
        return files;
    }

    /// <summary>The train or test part of an unpacked Large Movie Review Dataset: a folder with pos and neg, one text file a review; files sort by number.</summary>
    public static IEnumerable<DataRow> ReadFolder(string folder)
    {
        if (!Directory.Exists(Path.Combine(folder, "pos")) || !Directory.Exists(Path.Combine(folder, "neg")))
            throw new HeadroomException($"{folder} has no pos and neg folders", "name the train or test folder of an unpacked aclImdb, or a data file");
        return Walk();

        IEnumerable<DataRow> Walk()
        {
            string split = Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder)));
            foreach (string side in (string[])["neg", "pos"])
            {
                string[] files = Directory.GetFiles(Path.Combine(folder, side), "*.txt");
                Array.Sort(files, static (a, b) =>
                {
                    int c = Number(a).CompareTo(Number(b));
                    return c != 0 ? c : string.CompareOrdinal(a, b);
                });
                foreach (string file in files)
                    yield return new(ReadText(file), side == "pos" ? "1" : "0", null, $"{split}/{side}/{Path.GetFileNameWithoutExtension(file)}");
            }
        }

        static long Number(string file)
        {
            var name = Path.GetFileName(file.AsSpan());
            int n = 0;
            while (n < name.Length && char.IsAsciiDigit(name[n])) n++;
            return long.TryParse(name[..n], out long v) ? v : long.MaxValue;
        }
    }

    private static string ReadText(string file)
    {
        RegularFile.Check(file);
        try { return File.ReadAllText(file, Utf8); }
        catch (DecoderFallbackException) { throw new HeadroomException($"{file} is not UTF-8", "convert the file to UTF-8"); }
    }

    private const int LongestLine = 64 << 20; // no row that can be trained on is longer, and a packed file may hold any number of bytes

    private static readonly UTF8Encoding Utf8 = new(false, true);

    private static HeadroomException Bad(string path, long line, string what, string todo) => new($"{path}, line {line}: {what}", todo);

    /// <summary>Lines end in LF alone (a CR before it is dropped): a text may hold U+0085, U+2028 or a lone CR.</summary>
    private static IEnumerable<(long Number, byte[] Buffer, int Length)> Lines(string path)
    {
        using Stream file = Open(path);
        byte[] buffer = new byte[1 << 16];
        int start = 0, end = 0, scanned = 0;
        long line = 0, total = 0;
        while (true)
        {
            int lf = Array.IndexOf(buffer, (byte)'\n', scanned, end - scanned);
            if (lf < 0)
            {
                scanned = end;
                if (start > 0)
                {
                    Buffer.BlockCopy(buffer, start, buffer, 0, end - start);
                    (scanned, end, start) = (scanned - start, end - start, 0);
                }
                if (end >= LongestLine) throw Bad(path, line + 1, $"the line is longer than {LongestLine >> 20} MiB", "put one row on each line; this may be a file of another kind");
                if (end == buffer.Length) Array.Resize(ref buffer, buffer.Length * 2);
                int n;
                try { n = file.Read(buffer, end, buffer.Length - end); }
                catch (InvalidDataException e) { throw Unsound(path, e); }
                total += n;
                if (n > 0) { end += n; continue; }
                if (file is GZipStream && !Gzip.IsWhole(path, total)) throw Unsound(path, null);
                if (end == start) yield break;
                lf = end;
            }
            line++;
            int skip = line == 1 && lf - start >= 3 && buffer[start] == 0xEF && buffer[start + 1] == 0xBB && buffer[start + 2] == 0xBF ? 3 : 0;
            int length = lf - start - skip;
            if (length > 0 && buffer[start + skip + length - 1] == '\r') length--;
            byte[] copy = new byte[length];
            Buffer.BlockCopy(buffer, start + skip, copy, 0, length);
            yield return (line, copy, length);
            if (lf >= end) yield break;
            start = scanned = lf + 1;
        }
    }

    private static HeadroomException Unsound(string path, Exception? e) =>
        new($"{path} is not a sound gzip file", "fetch it again, or drop .gz from its name if it is plain text", inner: e);

    private static Stream Open(string path)
    {
        RegularFile.Check(path);
        Stream file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, 1 << 16, FileOptions.SequentialScan);
        return path.EndsWith(".gz", StringComparison.OrdinalIgnoreCase) ? new GZipStream(file, CompressionMode.Decompress) : file;
    }

    private static string Decode(string path, long line, ReadOnlySpan<byte> bytes)
    {
        try { return Utf8.GetString(bytes); }
        catch (DecoderFallbackException e) { throw Bad(path, line, $"bytes that are not UTF-8 ({e.Message.Split('.')[0]})", "convert the file to UTF-8"); }
    }

    private static IEnumerable<DataRow> ReadJsonLines(string path, DataFileOptions options)
    {
        foreach (var (number, buffer, length) in Lines(path))
        {
            if (buffer.AsSpan(0, length).IndexOfAnyExcept((byte)' ', (byte)'\t') < 0) continue;
            yield return JsonRow(path, number, buffer.AsMemory(0, length), options);
        }
    }

    private static DataRow JsonRow(string path, long number, ReadOnlyMemory<byte> line, DataFileOptions options)
    {
        JsonDocument doc;
        try { doc = JsonDocument.Parse(line); }
        catch (JsonException e) { throw Bad(path, number, $"not JSON (byte {e.BytePositionInLine})", "put one JSON object on each line"); }
        using (doc)
        {
            if (doc.RootElement.ValueKind != JsonValueKind.Object) throw Bad(path, number, "not a JSON object", "put one JSON object on each line");
            string? Field(string name, bool need)
            {
                if (!doc.RootElement.TryGetProperty(name, out var v) || v.ValueKind == JsonValueKind.Null)
                    return need ? throw Missing(path, number, name, doc.RootElement.EnumerateObject().Select(p => p.Name)) : null;
                try
                {
                    return v.ValueKind switch
                    {
                        JsonValueKind.String => v.GetString(),
                        JsonValueKind.Number => v.GetRawText(),
                        JsonValueKind.True => "true",
                        JsonValueKind.False => "false",
                        _ => throw Bad(path, number, $"field '{name}' is a {v.ValueKind.ToString().ToLowerInvariant()}", "give it as a string or number"),
                    };
                }
                catch (InvalidOperationException) { throw Bad(path, number, $"field '{name}' is not valid Unicode", "repair the text"); }
            }
            return new(Field(options.TextField, true)!, Field(options.LabelField, true)!, Field(options.TierField, false), Field(options.IdField, false));
        }
    }

    private static HeadroomException Missing(string path, long line, string name, IEnumerable<string> have) =>
        Bad(path, line, $"no field '{name}'", $"set text_field and label_field; fields here: {string.Join(", ", have)}");

    private static IEnumerable<DataRow> ReadTsv(string path, DataFileOptions options)
    {
        Columns? columns = null;
        foreach (var (number, buffer, length) in Lines(path))
        {
            if (length == 0) continue;
            string[] cells = Decode(path, number, buffer.AsSpan(0, length)).Split('\t');
            if (columns == null)
            {
                columns = Columns.From(path, cells, options, out bool header);
                if (header) continue;
            }
            yield return columns.Row(path, number, cells);
        }
    }

    private static IEnumerable<DataRow> ReadCsv(string path, DataFileOptions options)
    {
        Columns? columns = null;
        foreach (var (number, cells) in Records(path))
        {
            if (columns == null)
            {
                columns = Columns.From(path, cells, options, out bool header);
                if (header) continue;
            }
            yield return columns.Row(path, number, cells);
        }
    }

    /// <summary>RFC 4180: quoted cells may hold commas, line ends and doubled quotes.</summary>
    private static IEnumerable<(long Line, string[] Cells)> Records(string path)
    {
        var cells = new List<string>();
        var cell = new StringBuilder();
        bool quoted = false;
        long first = 0, last = 0;
        foreach (var (number, buffer, length) in Lines(path))
        {
            last = number;
            string line = Decode(path, number, buffer.AsSpan(0, length));
            if (!quoted)
            {
                if (line.Length == 0) continue;
                first = number;
            }
            int i = 0;
            while (true)
            {
                if (!quoted && cell.Length == 0 && i < line.Length && line[i] == '"') { quoted = true; i++; }
                if (quoted)
                {
                    int q = line.IndexOf('"', i);
                    if (q < 0) { cell.Append(line, i, line.Length - i).Append('\n'); break; }
                    cell.Append(line, i, q - i);
                    i = q + 1;
                    if (i < line.Length && line[i] == '"') { cell.Append('"'); i++; continue; }
                    quoted = false;
                    if (i < line.Length && line[i] != ',') throw Bad(path, number, "text after a closing quote", "double the quotes inside a quoted cell");
                }
                else
                {
                    int comma = line.IndexOf(',', i);
                    int to = comma < 0 ? line.Length : comma;
                    cell.Append(line, i, to - i);
                    i = to;
                }
                cells.Add(cell.ToString());
                cell.Clear();
                if (i >= line.Length) break;
                i++; // the comma
                if (i == line.Length) { cells.Add(""); break; }
            }
            if (quoted) continue;
            yield return (first, cells.ToArray());
            cells.Clear();
        }
        if (quoted) throw Bad(path, first, $"a quote opened here is still open at the end of the file (line {last})", "close the quote");
    }

    private sealed class Columns(int text, int label, int tier, int id, int count)
    {
        public static Columns From(string path, string[] cells, DataFileOptions o, out bool header)
        {
            int At(string name) => Array.FindIndex(cells, c => string.Equals(c.Trim(), name, StringComparison.OrdinalIgnoreCase));
            header = o.Header ?? At(o.TextField) >= 0;
            if (!header)
            {
                if (cells.Length != 2) throw Bad(path, 1, $"{cells.Length} columns and no header that names '{o.TextField}'", "add a header line, or give two columns: text, label");
                return new(0, 1, -1, -1, 2);
            }
            int text = At(o.TextField), label = At(o.LabelField);
            if (text < 0) throw Missing(path, 1, o.TextField, cells);
            if (label < 0) throw Missing(path, 1, o.LabelField, cells);
            return new(text, label, At(o.TierField), At(o.IdField), cells.Length);
        }

        public DataRow Row(string path, long line, string[] cells)
        {
            if (cells.Length != count) throw Bad(path, line, $"{cells.Length} columns where {count} are expected", "quote cells that hold the separator (csv), or remove it (tsv)");
            return new(cells[text], cells[label].Trim(), tier < 0 ? null : cells[tier], id < 0 ? null : cells[id]);
        }
    }

    private static string Text(object? value) => value switch
    {
        null => "",
        string s => s,
        byte[] b => Encoding.UTF8.GetString(b),
        bool b => b ? "true" : "false",
        IFormattable f => f.ToString(null, CultureInfo.InvariantCulture),
        _ => value.ToString() ?? "",
    };
}
