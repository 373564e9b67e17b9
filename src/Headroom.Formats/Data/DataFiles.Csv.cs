using System.Text;
using Headroom.Core;

namespace Headroom.Formats.Data;

internal static partial class DataFiles
{
    private const string Separators = ",;\t|", FastText = "__label__";

    // What the columns of texts and labels are usually called: a first line with one of these is no row.
    private static readonly HashSet<string> TextNames = new(
        [
            "text", "sentence", "review", "review_text", "content", "comment", "message", "tweet", "headline",
            "document", "utterance", "query", "question", "phrase"],
        StringComparer.OrdinalIgnoreCase);
    private static readonly HashSet<string> LabelNames = new(
        [
            "label", "labels", "label_text", "gold_label", "sentiment", "class", "category", "target", "polarity",
            "rating", "score", "stars", "intent", "topic", "emotion", "y"],
        StringComparer.OrdinalIgnoreCase);

    /// <summary>A line a row, a tab between the columns, no quotes.</summary>
    private static IEnumerable<(long Line, string[] Cells)> TsvLines(string path)
    {
        bool first = true;
        foreach (var (number, buffer, length) in Lines(path))
        {
            if (length == 0) continue;
            string[] cells = Decode(path, number, buffer.AsSpan(0, length)).Split('\t');
            if (first && cells.Length == 1)
                throw Bad(
                    path, number, "no tab in the first line",
                    "Put tabs between the columns; a file with commas or semicolons ends in .csv");
            first = false;
            yield return (number, cells);
        }
    }

    private static IEnumerable<DataRow> ReadTable(
        string path, IEnumerable<(long Line, string[] Cells)> lines, DataFileOptions options)
    {
        Columns? columns = null;
        foreach (var (number, cells) in lines)
        {
            if (columns == null)
            {
                columns = Columns.From(path, number, cells, options, out bool header);
                if (header) continue;
            }
            yield return columns.Row(path, number, cells);
        }
    }

    /// <summary>
    /// Plain text: a row a line. With labels in fastText's way (__label__positive a fine film), or after a tab as in
    /// .tsv; else without.
    /// </summary>
    private static IEnumerable<DataRow> ReadPlain(string path, DataFileOptions options)
    {
        bool? marked = null;
        foreach (var (number, buffer, length) in Lines(path))
        {
            string line = Decode(path, number, buffer.AsSpan(0, length));
            if (string.IsNullOrWhiteSpace(line)) continue;
            if (marked == null && line.AsSpan().Count('\t') > 0 && !line.StartsWith(FastText, StringComparison.Ordinal))
            {
                foreach (var row in ReadTable(path, TsvLines(path), options)) yield return row;
                yield break;
            }
            if (marked == null) NeedOnlyText(path, options);
            marked ??= line.StartsWith(FastText, StringComparison.Ordinal);
            yield return marked == true ? Marked(path, number, line) : new(line, "");
        }
    }

    private static DataRow Marked(string path, long number, string line)
    {
        int end = line.AsSpan().IndexOfAny(' ', '\t');
        if (!line.StartsWith(FastText, StringComparison.Ordinal) || end < 0)
            throw Bad(
                path, number, $"no {FastText} and text", $"Begin every line with {FastText}, the label and a blank");
        string text = line[(end + 1)..].TrimStart(' ', '\t');
        if (text.StartsWith(FastText, StringComparison.Ordinal))
            throw Bad(path, number, "two labels", "Give each row one label");
        return new(text, line[FastText.Length..end]);
    }

    /// <summary>
    /// RFC 4180: quoted cells may hold separators, line ends (read as LF) and doubled quotes. The separator is that of
    /// the first line, or what sep= states there.
    /// </summary>
    private static IEnumerable<(long Line, string[] Cells)> CsvLines(
        string path, IReadOnlyCollection<string> names, bool? header)
    {
        var cells = new List<string>();
        var cell = new StringBuilder();
        bool quoted = false;
        char separator = '\0';
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
            if (separator == '\0')
            {
                if (Stated(path, number, line) is { } stated)
                {
                    separator = stated;
                    continue;
                }
                separator = Separator(line, names, header);
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
                    if (i < line.Length && line[i] != separator)
                        throw Bad(path, number, "text after a closing quote", "Double the quotes inside a quoted cell");
                }
                else
                {
                    int next = line.IndexOf(separator, i);
                    int to = next < 0 ? line.Length : next;
                    cell.Append(line, i, to - i);
                    i = to;
                }
                cells.Add(cell.ToString());
                cell.Clear();
                if (i >= line.Length) break;
                i++; // the separator
                if (i == line.Length) { cells.Add(""); break; }
            }
            if (quoted) continue;
            yield return (first, cells.ToArray());
            cells.Clear();
        }
        if (quoted)
            throw Bad(
                path, first, $"a quote opened here is still open at the end of the file (line {last})",
                "Close the quote");
    }

    /// <summary>
    /// The separator with which the first line names a field; else the one that makes two columns of it; else the one
    /// that makes most.
    /// </summary>
    private static char Separator(string line, IReadOnlyCollection<string> names, bool? header)
    {
        var by = Separators.Select(s => (Sign: s, Cells: Cells(line, s))).Where(s => s.Cells.Count > 0).ToList();
        if (by.Count == 0) return Separators[0];
        var named = by.Where(s =>
                header != false && s.Cells.Any(c => names.Contains(c.Trim(), StringComparer.OrdinalIgnoreCase))
            )
            .ToList();
        if (named.Count > 0) return named.MaxBy(s => s.Cells.Count).Sign;
        foreach (var (sign, cells) in by)
            if (cells.Count == 2) return sign;
        return by.MaxBy(s => s.Cells.Count).Sign;
    }

    // Spreadsheets write the separator into a line of its own above the header.
    private static char? Stated(string path, long number, string line)
    {
        if (!line.StartsWith("sep=", StringComparison.OrdinalIgnoreCase) || line.Length > 5) return null;
        return line.Length == 5 && Separators.Contains(line[4]) ? line[4]
            : throw Bad(
                path, number, $"the separator {HeadroomException.Value(line[4..])}",
                "Use a comma, a semicolon or a tab, or leave the line out");
    }

    /// <summary>
    /// The cells of a first line; none when a quote is closed before another sign than <paramref name="separator"/>.
    /// </summary>
    private static List<string> Cells(string line, char separator)
    {
        var cells = new List<string>();
        for (int i = 0; ;)
        {
            int end;
            if (i < line.Length && line[i] == '"')
            {
                int quote = i + 1;
                while ((quote = line.IndexOf('"', quote)) >= 0 && quote + 1 < line.Length && line[quote + 1] == '"')
                    quote += 2;
                end = quote < 0 ? line.Length : quote + 1; // an open quote goes on in the next line
                if (end < line.Length && line[end] != separator) return [];
                cells.Add(line[(i + 1)..(quote < 0 ? end : quote)]);
            }
            else
            {
                end = line.IndexOf(separator, i);
                if (end < 0) end = line.Length;
                cells.Add(line[i..end]);
            }
            if (end >= line.Length) return cells;
            i = end + 1;
        }
    }

    /// <summary>Which cells of a row hold what.</summary>
    private sealed class Columns(int[] texts, int label, int tier, int id, int count)
    {
        public static Columns From(string path, long line, string[] cells, DataFileOptions o, out bool header)
        {
            header = o.Header ?? o.Texts.Append(o.LabelField).Any(f => At(f) >= 0);
            if (!header) return Plain(path, line, cells, o);
            return new([.. o.Texts.Select(Need)], Need(o.LabelField), At(o.TierField), At(o.IdField), cells.Length);

            int Need(string field) => At(field) is var at && at >= 0 ? at : throw Missing(path, line, field, cells);

            int At(string field)
            {
                int[] Equal(StringComparison by) =>
                    [.. Enumerable.Range(0, cells.Length).Where(i => string.Equals(cells[i].Trim(), field, by))];
                int[] found = Equal(StringComparison.Ordinal);
                if (found.Length == 0) found = Equal(StringComparison.OrdinalIgnoreCase);
                return found.Length <= 1 ? found.FirstOrDefault(-1)
                    : throw Bad(
                        path, line, $"{found.Length} columns are named '{HeadroomException.Value(field)}'",
                        "Give each column a name of its own");
            }
        }

        private static Columns Plain(string path, long line, string[] cells, DataFileOptions o)
        {
            string columns = $"{cells.Length} column{(cells.Length == 1 ? "" : "s")}";
            if (cells.Length != 2 || o.MoreFields.Count > 0)
                throw Bad(
                    path, line,
                    $"{columns} and no header that names "
                        + $"'{HeadroomException.Value(o.MoreFields.FirstOrDefault(o.TextField))}'",
                    $"Add a header line, or set data.text_field and data.label_field to its names (the first line: "
                        + $"{HeadroomException.List(cells)}); without a header, give two columns: text, label"
                );
            if (o.Header == null && (TextNames.Contains(cells[0].Trim()) || LabelNames.Contains(cells[1].Trim())))
                throw Bad(
                    path,
                    line,
                    $"the first line seems to be a header ({HeadroomException.List(cells)}), but names no "
                        + $"'{o.TextField}' and no '{o.LabelField}'",
                    "Set data.text_field and data.label_field to its names, or data.header to false if it is a row");
            return new([0], 1, -1, -1, 2);
        }

        public DataRow Row(string path, long line, string[] cells)
        {
            if (cells.Length != count)
                throw Bad(
                    path, line, $"{cells.Length} columns where {count} are expected",
                    "Quote cells that hold the separator (csv), or remove it (tsv)");
            return new(cells[texts[0]], cells[label].Trim(), tier < 0 ? null : cells[tier], id < 0 ? null : cells[id])
            {
                More = texts.Length == 1 ? null : [.. texts[1..].Select(t => cells[t])],
            };
        }
    }
}
