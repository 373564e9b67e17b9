using System.Globalization;
using System.Text;
using System.Text.Json;
using Headroom.Core;
using Headroom.Formats.Data;

namespace Headroom.Tests.Formats;

/// <summary>
/// Random tables, written by writers of the test's own in every form, come back as they were; spoiled files are read or
/// refused by line, never worse.
/// </summary>
public sealed class DataPropertyTests : IDisposable
{
    private static readonly string[] Pieces =
    [
        "a", "word", "Ünïcödé", "😀", "ดี", " ", "  ", ",", ";", "|", "\"", "\"\"", "'", "\n", "\n\n", ".", "#", "{x}",
        "[", "\\", "\u2028", "\u0085", "0", "NaN", "null"];

    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-property").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private static string Text(Random random, bool tabs, bool lines)
    {
        var text = new StringBuilder("t"); // neither empty nor a number
        for (int n = random.Next(12); n > 0; n--)
        {
            string piece = Pieces[random.Next(Pieces.Length)];
            text.Append(!lines && piece[0] == '\n' ? "_" : piece);
            if (tabs && random.Next(9) == 0) text.Append('\t');
        }
        return text.ToString();
    }

    private static List<DataRow> Table(Random random, bool tabs, bool lines, bool pairs) =>
        [
            .. Enumerable
                .Range(0, random.Next(1, 9))
                .Select(_ => new DataRow(
                    Text(random, tabs, lines), random.Next(3).ToString(CultureInfo.InvariantCulture))
        {
            More = pairs ? [Text(random, tabs, lines)] : null,
        })];

    private static string Csv(Random random, List<DataRow> rows, char separator, string end, bool header)
    {
        bool pairs = rows[0].More != null, all = random.Next(2) == 0;
        string Cell(string s) =>
            all || s.IndexOfAny([separator, '"', '\n', '\r']) >= 0 || s.StartsWith(' ')
                ? "\"" + s.Replace("\"", "\"\"", StringComparison.Ordinal) + "\""
                : s;
        string Line(params string[] cells) => string.Join(separator, cells.Select(Cell)) + end;
        var text = new StringBuilder();
        if (header) text.Append(pairs ? Line("label", "text", "other", "id") : Line("label", "text", "id"));
        foreach (var r in rows)
            text.Append(
                !header ? Line(r.Text, r.Label)
                : pairs ? Line(r.Label, r.Text, r.More![0], "7")
                : Line(r.Label, r.Text, "7")
            );
        if (random.Next(2) == 0) text.Length -= end.Length;
        return text.ToString();
    }

    private static byte[] Bytes(Random random, string text) => random.Next(4) switch
    {
        0 => [.. Encoding.UTF8.Preamble, .. Encoding.UTF8.GetBytes(text)],
        1 => [0xFF, 0xFE, .. Encoding.Unicode.GetBytes(text)],
        2 => [0xFE, 0xFF, .. Encoding.BigEndianUnicode.GetBytes(text)],
        _ => Encoding.UTF8.GetBytes(text),
    };

    private void Same(List<DataRow> rows, string name, byte[] bytes, string what)
    {
        string path = Path.Combine(_folder, name);
        File.WriteAllBytes(path, bytes);
        var options = new DataFileOptions { MoreFields = rows[0].More == null ? [] : ["other"] };
        var read = DataFiles.Read(path, options).ToList();
        string Show(IEnumerable<DataRow> all) =>
            JsonSerializer.Serialize(all.Select(r => (string[])[.. r.Texts, r.Label]));
        Assert.True(
            Show(rows) == Show(read),
            $"{what}\nwritten {Show(rows)}\nread    {Show(read)}\nfile    "
                + $"{JsonSerializer.Serialize(Encoding.UTF8.GetString(bytes))}"
        );
    }

    [Fact]
    public void TablesComeBackFromEveryForm()
    {
        for (int seed = 0; seed < 300; seed++)
        {
            var random = new Random(seed);
            char separator = ",;\t|"[random.Next(4)];
            string end = random.Next(3) switch { 0 => "\r\n", 1 => "\n", _ => "\r" };
            bool pairs = random.Next(2) == 0, header = pairs || random.Next(3) > 0;
            // Without a header the first line has to show the separator, and CR ends lines only where there is no LF.
            var rows = Table(random, tabs: header, lines: header && end != "\r", pairs);
            if (!header) rows[0] = rows[0] with { Text = "plain" };
            Same(rows, "a.csv", Bytes(random, Csv(random, rows, separator, end, header)), $"csv {seed}");
            if (separator == '\t')
            {
                rows = Table(random, false, false, pairs);
                string tsv = string.Concat(
                    rows.Select(r => (pairs ? $"{r.Label}\t{r.More![0]}\t{r.Text}" : $"{r.Label}\t{r.Text}") + end));
                Same(
                    rows, "a.tsv", Bytes(random, (pairs ? "label\tother\ttext" : "label\ttext") + end + tsv),
                    $"tsv {seed}");
            }
            rows = Table(random, true, true, pairs);
            var json = new JsonSerializerOptions
            {
                WriteIndented = random.Next(2) == 0,
                Encoder =
                    random.Next(2) == 0 ? System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping : null,
            };
            var objects = rows.Select(r => new Dictionary<string, object?>
            {
                ["id"] = null,
                ["label"] = int.Parse(r.Label, CultureInfo.InvariantCulture),
                ["other"] = r.More?[0],
                ["text"] = r.Text,
                ["x"] = new[] { 1 },
            })
                .ToList();
            Same(rows, "a.json", Bytes(random, JsonSerializer.Serialize(objects, json)), $"json {seed}");
            Same(
                rows, "a.jsonl", Bytes(random, string.Join("\n", objects.Select(o => JsonSerializer.Serialize(o)))),
                $"jsonl {seed}");
        }
    }

    [Fact]
    public void SpoiledFilesAreReadOrRefusedInTwoShortLines()
    {
        int refused = 0;
        for (int seed = 0; seed < 1000; seed++)
        {
            var random = new Random(seed);
            var rows = Table(random, true, true, false);
            string name = ((string[])["a.csv", "a.tsv", "a.json", "a.jsonl", "a.txt"])[random.Next(5)];
            string text = name.Contains("json", StringComparison.Ordinal)
                ? JsonSerializer.Serialize(rows.Select(r => new { text = r.Text, label = r.Label }))
                : Csv(random, rows, ",;\t|"[random.Next(4)], "\n", true);
            byte[] bytes = Bytes(random, text);
            for (int n = random.Next(1, 4); n > 0; n--)
                bytes = random.Next(3) switch
                {
                    0 => bytes[..random.Next(bytes.Length)],
                    1 when bytes.Length > 0 => [.. bytes[..^1], (byte)random.Next(256), bytes[^1]],
                    _ => Flip(random, bytes),
                };
            string path = Path.Combine(_folder, name);
            File.WriteAllBytes(path, bytes);
            try
            {
                foreach (var row in DataFiles.Read(path)) Assert.NotNull(row.Text);
            }
            catch (HeadroomException e)
            {
                refused++;
                Assert.Equal(2, e.ExitCode);
                Assert.InRange(Encoding.UTF8.GetByteCount(e.Message) + Encoding.UTF8.GetByteCount(e.ToDo), 10, 2000);
                Assert.DoesNotContain(e.Message + e.ToDo, char.IsControl);
            }
        }
        Assert.InRange(refused, 100, 950); // some are refused, some are still tables
    }

    private static byte[] Flip(Random random, byte[] bytes)
    {
        byte[] copy = [.. bytes];
        if (copy.Length > 0) copy[random.Next(copy.Length)] = (byte)random.Next(256);
        return copy;
    }
}
