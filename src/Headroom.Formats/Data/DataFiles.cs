using System.Globalization;
using System.Text;
using Headroom.Core;

namespace Headroom.Formats.Data;

/// <summary>One labelled text.</summary>
/// <param name="Text">The text as stored.</param>
/// <param name="Label">The label value as text: "0", "1", "pos", "true".</param>
/// <param name="Tier">Kind or difficulty of the row, when the file names one.</param>
/// <param name="Id">Identifier of the row, when the file names one.</param>
internal record DataRow(string Text, string Label, string? Tier = null, string? Id = null)
{
    /// <summary>
    /// The texts of <see cref="DataFileOptions.MoreFields"/>, in their order; null when there are none.
    /// </summary>
    public IReadOnlyList<string>? More { get; init; }

    /// <summary>All texts of the row: <see cref="Text"/> and <see cref="More"/>.</summary>
    public IReadOnlyList<string> Texts => More == null ? [Text] : [Text, .. More];
}

/// <summary>Which fields of a data file hold what.</summary>
internal sealed record DataFileOptions
{
    /// <summary>Field with the text.</summary>
    public string TextField { get; init; } = "text";
    /// <summary>Fields with further texts of a row, such as the second of a pair of sentences.</summary>
    public IReadOnlyList<string> MoreFields { get; init; } = [];
    /// <summary>Field with the label.</summary>
    public string LabelField { get; init; } = "label";
    /// <summary>Field with the tier; need not be there.</summary>
    public string TierField { get; init; } = "tier";
    /// <summary>Field with the identifier; need not be there.</summary>
    public string IdField { get; init; } = "id";
    /// <summary>
    /// csv and tsv: whether the first line names the columns; null looks for the fields in it. Without one, the columns
    /// are text, label.
    /// </summary>
    public bool? Header { get; init; }

    /// <summary>Every field of texts.</summary>
    internal IReadOnlyList<string> Texts => [TextField, .. MoreFields];
}

/// <summary>
/// Reads data files: JSON (lines or one array), CSV, TSV, plain text (each also in gzip or Zstandard), Parquet, folders
/// of these, and those of the Large Movie Review Dataset; as labelled texts or as records with their columns. Text is
/// UTF-8, or UTF-16 with a byte order mark.
/// </summary>
internal static partial class DataFiles
{
    /// <summary>
    /// The rows of a file or folder, in a stable order. The kind goes by the name: .jsonl, .json, .csv, .tsv, .txt,
    /// each with or without .gz or .zst, .parquet, a folder of files of one kind, or one with pos and neg. A * in the
    /// file name reads every file that matches, by name.
    /// </summary>
    /// <exception cref="HeadroomException">A file is missing, of no known kind, or holds what cannot be read; the line
    /// or row is named.</exception>
    public static IEnumerable<DataRow> Read(string path, DataFileOptions? options = null)
    {
        options ??= new();
        if (Directory.Exists(path))
        {
            if (!IsReviewFolder(path)) return FolderFiles(path).SelectMany(p => Read(p, options));
            NeedOnlyText(path, options);
            return ReadFolder(path);
        }
        if (!File.Exists(path) && Path.GetFileName(path).Contains('*'))
            return Pattern(path).SelectMany(p => Read(p, options));
        Need(path);
        return KindOf(path) switch
        {
            Kind.Json => ReadJson(path, options),
            Kind.Csv => ReadTable(
                path, CsvLines(path, [.. options.Texts, options.LabelField], options.Header), options),
            Kind.Tsv => ReadTable(path, TsvLines(path), options),
            Kind.Plain => ReadPlain(path, options),
            _ => ReadParquet(path, options),
        };
    }

    private static void Need(string path)
    {
        RegularFile.Check(path);
        if (!File.Exists(path))
            throw new HeadroomException($"Data file {path} does not exist", "Check the path in the configuration");
        GitLfs.Refuse(path);
    }

    private enum Kind : byte { Json, Csv, Tsv, Plain, Parquet }

    /// <summary>The kind of a file by its name; null for one that is no data file.</summary>
    private static Kind? FindKind(string path)
    {
        bool packed = Packed.Any(p => path.EndsWith(p, StringComparison.OrdinalIgnoreCase));
        return Path.GetExtension(packed ? Path.GetFileNameWithoutExtension(path) : path).ToLowerInvariant() switch
        {
            ".jsonl" or ".ndjson" or ".json" => Kind.Json,
            ".csv" => Kind.Csv,
            ".tsv" => Kind.Tsv,
            ".txt" => Kind.Plain,
            ".parquet" when !packed => Kind.Parquet,
            _ => null,
        };
    }

    private static readonly string[] Packed = [".gz", ".zst"];

    private static Kind KindOf(string path) =>
        FindKind(path)
        ?? throw new HeadroomException(
            $"{path}: data files ending in '{HeadroomException.Value(Path.GetExtension(path))}' are not supported",
            "Use .jsonl, .json, .csv, .tsv, .txt (also .gz and .zst), .parquet, or a folder of them, or one with pos "
                + "and neg");

    // Folders and plain text have no columns to choose from.
    private static void NeedOnlyText(string path, DataFileOptions options)
    {
        if (options.MoreFields.Count > 0)
            throw new HeadroomException(
                $"{path} has texts and labels only, no '{HeadroomException.Value(options.MoreFields[0])}'.",
                "Of task.template's columns it can fill one.");
    }

    // One with neither pos nor neg, but with such folders below or no data files, is told what folder is meant.
    private static bool IsReviewFolder(string path) =>
        ((string[])[path, .. Directory.GetDirectories(path)]).Any(d =>
            Directory.Exists(Path.Combine(d, "pos")) || Directory.Exists(Path.Combine(d, "neg")))
        || !FilesBelow(path).Any();

    private static IEnumerable<string> FilesBelow(string folder) =>
        Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories).Where(f => FindKind(f) != null);

    /// <summary>Every data file below a folder, by name; all are of one kind.</summary>
    private static string[] FolderFiles(string folder)
    {
        string[] files = [.. FilesBelow(folder).Order(StringComparer.Ordinal)];
        var kinds = files.GroupBy(f => FindKind(f)).Select(g => Path.GetRelativePath(folder, g.First())).ToList();
        return kinds.Count == 1 ? files : throw new HeadroomException(
            $"{folder} holds data files of several kinds ({HeadroomException.List(kinds)}).",
            "Name the files of one kind, such as folder/*.jsonl.");
    }

    private static string[] Pattern(string path)
    {
        string folder = Path.GetDirectoryName(Path.GetFullPath(path))!;
        string[] files = Directory.Exists(folder) ? Directory.GetFiles(folder, Path.GetFileName(path)) : [];
        if (files.Length == 0)
            throw new HeadroomException($"No data file matches {path}", "Check the path in the configuration");
        Array.Sort(files, StringComparer.Ordinal);
        return files;
    }

    /// <summary>
    /// The train or test part of an unpacked Large Movie Review Dataset: a folder with pos and neg, one text file a
    /// review; files sort by number.
    /// </summary>
    public static IEnumerable<DataRow> ReadFolder(string folder)
    {
        if (!Directory.Exists(Path.Combine(folder, "pos")) || !Directory.Exists(Path.Combine(folder, "neg")))
            throw new HeadroomException(
                $"{folder} has no pos and neg folders",
                "Name the train or test folder of an unpacked aclImdb, or a data file");
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
                    yield return new(
                        ReadText(file), side == "pos" ? "1" : "0", null,
                        $"{split}/{side}/{Path.GetFileNameWithoutExtension(file)}");
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
        catch (DecoderFallbackException)
        {
            throw new HeadroomException($"{file} is not UTF-8", "Convert the file to UTF-8");
        }
    }

    // no row that can be trained on is longer, and a packed file may hold any number of bytes
    private const int LongestLine = 64 << 20;

    private static readonly UTF8Encoding Utf8 = new(false, true);

    private static HeadroomException Bad(string path, long line, string what, string todo) =>
        new($"{path}, line {line}: {what}", todo);

    private static HeadroomException Missing(string path, long line, string name, IEnumerable<string> have) =>
        Bad(path, line, $"no field '{HeadroomException.Value(name)}'",
            $"Set data.text_field, data.label_field and the columns of task.template; fields here: "
                + $"{HeadroomException.List(have)}"
        );

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
