using System.IO.Compression;
using System.Text;
using Headroom.Core;
using Headroom.Formats.Data;
using Parquet.Serialization;

namespace Headroom.Tests.Formats;

/// <summary>Labelled texts from every kind of file, and what is refused with the line named.</summary>
public sealed class DataFileTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-data").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private string Save(string name, string text) => Save(name, Encoding.UTF8.GetBytes(text));

    private string Save(string name, byte[] bytes)
    {
        string path = Path.Combine(_folder, name);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        File.WriteAllBytes(path, bytes);
        return path;
    }

    private static byte[] Zip(byte[] bytes)
    {
        using var to = new MemoryStream();
        using (var gzip = new GZipStream(to, CompressionLevel.Fastest)) gzip.Write(bytes);
        return to.ToArray();
    }

    private static void Refuses(string path, string why, DataFileOptions? options = null)
    {
        var e = Assert.Throws<HeadroomException>(() => DataFiles.Read(path, options).ToList());
        Assert.Equal(2, e.ExitCode);
        Assert.Contains(why, e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', e.Message);
        Assert.NotEmpty(e.ToDo);
    }

    private static readonly DataRow[] Two =
    [
        new("a \"b\", c\u0085\u2028d", "0"), new("Grüße\r\nzwei", "1", "mixed", "x1")];
    private const string TwoJson =
        "{\"text\":\"a \\\"b\\\", c\u0085\u2028d\",\"label\":0}\r\n\n  "
            + "\n{\"id\":\"x1\",\"label\":\"1\",\"tier\":\"mixed\",\"text\":\"Gr\\u00fc\u00dfe\\r\\nzwei\","
            + "\"more\":[1]}";

    [Fact]
    public void JsonLinesPlainAndGzipped()
    {
        Assert.Equal(Two, DataFiles.Read(Save("a.jsonl", TwoJson)));
        Assert.Equal(
            Two, DataFiles.Read(Save("b.jsonl", [0xEF, 0xBB, 0xBF, .. Encoding.UTF8.GetBytes(TwoJson + "\n")])));
        Assert.Equal(Two, DataFiles.Read(Save("a.jsonl.gz", Zip(Encoding.UTF8.GetBytes(TwoJson)))));
        Assert.Equal([new DataRow("t", "true"), new DataRow("u", "1.50")],
            DataFiles.Read(
                Save("c.jsonl", "{\"review\":\"t\",\"y\":true}\n{\"review\":\"u\",\"y\":1.50}"),
                new() { TextField = "review", LabelField = "y" })
        );
        string longest = new('x', 300_000); // longer than any buffer
        Assert.Equal(
            longest,
            DataFiles
                .Read(Save("d.jsonl", $"{{\"text\":\"{longest}\",\"label\":1}}\n{{\"text\":\"y\",\"label\":1}}"))
                .First()
                .Text
        );
        Assert.Empty(DataFiles.Read(Save("empty.jsonl", "")));
    }

    [Fact]
    public void CsvWithQuotesAndTsv()
    {
        string csv = "label,id,text\r\n0,,\"a, \"\"b\"\"\r\nc\"\r\n\r\n1,7,plain\n1,,\"\"\n";
        Assert.Equal(
            [
                new DataRow("a, \"b\"\nc", "0", null, ""), new DataRow("plain", "1", null, "7"),
                new DataRow("", "1", null, "")],
            DataFiles.Read(Save("a.csv", csv))
        );
        Assert.Equal([new DataRow("x", "0"), new DataRow("y \"z", "1")], DataFiles.Read(Save("b.csv", "x,0\ny \"z,1")));
        Assert.Equal(
            [new DataRow("a, \"b\"", "0"), new DataRow("c", "1")], DataFiles.Read(Save("a.tsv", "a, \"b\"\t0\nc\t1"))
        ); // no header; the last line has no LF
        Assert.Equal([new DataRow("c", "1")], DataFiles.Read(Save("b.tsv.gz", Zip("label\ttext\n1\tc\n"u8.ToArray()))));
        Assert.Equal(
            [new DataRow("text", "label")], DataFiles.Read(Save("c.tsv", "text\tlabel"), new() { Header = false }));
    }

    private sealed class Row
    {
        public string text { get; set; } = "";
        public long label { get; set; }
        public string? tier { get; set; }
    }

    [Fact]
    public async Task Parquet()
    {
        string path = Path.Combine(_folder, "a.parquet");
        await ParquetSerializer.SerializeAsync<Row>(
            [
                new()
                {
                    text = "Grüße", label = 1, tier = "explicit",
                },
                new() { text = "b", label = 0 },
            ],
            path,
            cancellationToken: TestContext.Current.CancellationToken
        );
        Assert.Equal([new DataRow("Grüße", "1", "explicit"), new DataRow("b", "0")], DataFiles.Read(path));
        Refuses(path, "no column 'review'", new() { TextField = "review" });
        byte[] bytes = await File.ReadAllBytesAsync(path, TestContext.Current.CancellationToken);
        Refuses(Save("short.parquet", bytes[..^20]), "not readable as Parquet");
        Refuses(Save("other.parquet", "not parquet at all"), "not readable as Parquet");
    }

    [Fact]
    public void LargeMovieReviewFolders()
    {
        foreach (
            var (file, text) in new[]
            {
                ("neg/10_2.txt", "ten"), ("neg/9_1.txt", "nine"), ("pos/0_9.txt", "zero é"),
                ("pos/notes.md", "not a review"),
            }
        )
            Save("aclImdb/train/" + file, text);
        Assert.Equal(
            [
                new DataRow("nine", "0", null, "train/neg/9_1"), new DataRow("ten", "0", null, "train/neg/10_2"),
                new DataRow("zero é", "1", null, "train/pos/0_9")],
            DataFiles.Read(Path.Combine(_folder, "aclImdb", "train")));
        Refuses(Path.Combine(_folder, "aclImdb"), "no pos and neg");
        Refuses(
            Path.GetDirectoryName(
                Path.GetDirectoryName(Save("latin/pos/1_9.txt", [0xE9]).Replace("pos", "neg", StringComparison.Ordinal))
            )!,
            "no pos and neg"
        );
        Save("latin/neg/1_1.txt", "x");
        Refuses(Path.Combine(_folder, "latin"), "not UTF-8");
    }

    [Fact]
    public void NamesTheLineOfEveryFault()
    {
        const string good = "{\"text\":\"t\",\"label\":1}\n";
        Refuses(Save("a.jsonl", good + "{\"text\":"), "line 2: not JSON");
        Refuses(Save("b.jsonl", good + "[1]"), "line 2: not a JSON object");
        Refuses(Save("c.jsonl", good + good + "{\"review\":\"t\",\"label\":1}"), "line 3: no field 'text'");
        Refuses(Save("d.jsonl", "{\"text\":\"t\",\"label\":null}"), "line 1: no field 'label'");
        Refuses(Save("e.jsonl", "{\"text\":\"t\",\"label\":[1]}"), "field 'label' is an array");
        Refuses(Save("f.jsonl", [.. Encoding.UTF8.GetBytes("{\"label\":1,\"text\":\""), 0xE9, .. "\"}"u8]), "line 1");
        Refuses(Save("g.jsonl", "{\"text\":\"\\ud800\",\"label\":1}"), "not valid Unicode");
        Refuses(Save("h.csv", "text,label\nx,1,2\n"), "line 2: 3 columns");
        Refuses(Save("i.csv", "text,label\n\"x,1\n"), "line 2: a quote opened here");
        Refuses(Save("j.csv", "text,label\n\"x\"y,1\n"), "text after a closing quote");
        Refuses(Save("k.csv", "a,b,c\n"), "no header");
        Refuses(Save("l.tsv", [(byte)'a', 0xFF, (byte)'\t', (byte)'1']), "line 1: bytes that are not UTF-8");
        Refuses(Save("m.jsonl.gz", good), "not a sound gzip file");
        Refuses(Save("o.xml", good), "'.xml' are not supported");
        Refuses(Path.Combine(_folder, "missing.jsonl"), "does not exist");
    }

    [Fact]
    public void TruncatedGzipIsNotTakenForAShorterFile()
    {
        byte[] zip = Zip(
            Encoding.UTF8.GetBytes(
                string.Concat(
                    Enumerable
                        .Range(0, 5000)
                        .Select(i => $"{{\"text\":\"text {i * 7919 % 5003}\",\"label\":{i % 2}}}\n")
                )
            )
        );
        Assert.Equal(5000, DataFiles.Read(Save("whole.jsonl.gz", zip)).Count());
        for (int length = 1; length < zip.Length; length += zip.Length / 40)
            Refuses(Save("part.jsonl.gz", zip[..length]), "");
        foreach (int cut in new[] { 1, 4, 8, 9 }) Refuses(Save("tail.jsonl.gz", zip[..^cut]), "not a sound gzip file");
        Assert.Equal(
            10_001,
            DataFiles
                .Read(Save("members.jsonl.gz", [.. zip, .. Zip("{\"text\":\"t\",\"label\":1}\n"u8.ToArray()), .. zip]))
                .Count()
        ); // several members are one file
        Assert.Empty(DataFiles.Read(Save("empty.jsonl.gz", Zip([]))));
    }

    [Fact]
    public void OtherSeparatorsLineEndsAndEncodings()
    {
        DataRow[] two = [new("a, b; c", "0"), new("d\ne", "1")];
        foreach (char s in ",;\t|")
        {
            string rows = $"\"a, b; c\"{s}0\r\n\"d\r\ne\"{s}1\r\n", header = $"text{s}label\r\n";
            Assert.Equal(two, DataFiles.Read(Save("a.csv", header + rows)));
            Assert.Equal(two, DataFiles.Read(Save("b.csv", rows)));
            Assert.Equal(
                two,
                DataFiles.Read(
                    Save("c.csv", header.ToUpperInvariant() + rows.Replace("\r\n", "\n", StringComparison.Ordinal)))
            );
            Assert.Equal(
                two, DataFiles.Read(Save("d.csv", (header + rows).Replace("\r\n", "\r", StringComparison.Ordinal))));
            foreach (
                var encoding in new Encoding[]
                {
                    new UnicodeEncoding(false, true), new UnicodeEncoding(true, true), new UTF8Encoding(true),
                    new UTF32Encoding(false, true),
                }
            )
            {
                byte[] bytes = [.. encoding.GetPreamble(), .. encoding.GetBytes(header + rows)];
                Assert.Equal(two, DataFiles.Read(Save("e.csv", bytes)));
                Assert.Equal(two, DataFiles.Read(Save("e.csv.gz", Zip(bytes))));
            }
        }
        Assert.Equal([new DataRow("x", "0"), new DataRow("y", "1")], DataFiles.Read(Save("f.tsv", "x\t0\ry\t1\r")));
        Assert.Equal(
            [new DataRow("x", "0"), new DataRow("y", "1")],
            DataFiles.Read(Save("f.jsonl", "{\"text\":\"x\",\"label\":0}\r{\"text\":\"y\",\"label\":1}")));
        Assert.Equal(
            [new DataRow("x\ry", "0"), new DataRow("z", "1")], DataFiles.Read(Save("g.tsv", "x\ry\t0\nz\t1\n"))
        ); // a lone CR is text where lines end in LF
        byte[] wide = new UnicodeEncoding(false, true).GetBytes("\uFEFFtext,label\ngut 😀,1\n");
        Assert.Equal([new DataRow("gut 😀", "1")], DataFiles.Read(Save("h.csv", wide)));
        Refuses(Save("h.csv", wide[2..]), "line 1: it looks like UTF-16 without a byte order mark");
        Refuses(Save("h.csv", [.. wide, 0x3D, 0xD8, 0x41, 0x00]), "not UTF-16");
        Refuses(Save("h.csv.gz", Zip(wide)[..^9]), "not a sound gzip file");
        string long_ = string.Concat(Enumerable.Repeat("word ", 60_000));
        Assert.Equal(
            [new DataRow(long_, "0"), new DataRow(long_, "1")], DataFiles.Read(Save("i.tsv", $"{long_}\t0\r{long_}\t1"))
        );
        // more than is searched for a line end
        string many = string.Concat(Enumerable.Range(0, 120_000).Select(i => $"text {i},{i % 2}\r"));
        Assert.Equal(120_000, DataFiles.Read(Save("j.csv", many)).Count());
    }

    [Fact]
    public void HeadersAndColumns()
    {
        Refuses(Save("a.csv", "text,label,text\nx,1,y\n"), "line 1: 2 columns are named 'text'");
        Refuses(Save("b.csv", "Text,label,TEXT\nx,1,y\n"), "line 1: 2 columns are named 'text'");
        // as spelled
        Assert.Equal([new DataRow("x", "1")], DataFiles.Read(Save("c.csv", "text,label,Text,Label\nx,1,y,2\n")));
        Refuses(
            Save("d.jsonl", "{\"text\":\"a\",\"label\":1,\"text\":\"b\"}"), "line 1: field 'text' stands there twice");
        Refuses(Save("e.csv", "sentence,label\nx,1\n"), "line 1: no field 'text'");
        Refuses(
            Save("f.csv", "Sentence,Sentiment\nx,1\n"),
            "line 1: the first line seems to be a header (Sentence, Sentiment)");
        Refuses(Save("g.tsv", "phrase\tgold\nx\t1\n"), "line 1: the first line seems to be a header (phrase, gold)");
        Assert.Equal(2, DataFiles.Read(Save("h.csv", "review,rating\nx,1\n"), new() { Header = false }).Count());
        Refuses(Save("i.csv", "id;sentence;klasse\n1;x;2\n"), "line 1: 3 columns and no header that names 'text'");
        Refuses(Save("j.tsv", "text,label\nx,1\n"), "line 1: no tab in the first line");
        Refuses(Save("k.csv", "text\nx\n"), "line 1: no field 'label'");
        Refuses(Save("l.csv", "x\ny\n"), "line 1: 1 column and no header");
        Refuses(Save("m.csv", "text,label\nx\n"), "line 2: 1 columns where 2 are expected");
        Assert.Equal([new DataRow("x", "1")], DataFiles.Read(Save("n.csv", ",text,label\n0,x,1\n"))); // pandas' index
        // However long the cells are, the message is not.
        string cell = string.Concat(Enumerable.Repeat("ünïcödé 😀 ", 3000));
        foreach (
            string text in new[]
            {
                $"{cell},{cell},{cell}\n", string.Concat(Enumerable.Repeat("x,", 20_000)), $"text,{cell}\nx,1",
                $"text,label\n\"x\"{cell},1",
            }
        )
        {
            var e = Assert.Throws<HeadroomException>(() => DataFiles.Read(Save("o.csv", text)).ToList());
            Assert.InRange(Encoding.UTF8.GetByteCount(e.Message + e.ToDo), 10, 2000);
            Assert.DoesNotContain('\uFFFD', Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(e.Message + e.ToDo)));
        }
    }

    [Fact]
    public void JsonArraysAndWhatIsNoTable()
    {
        Assert.Equal(
            Two,
            DataFiles.Read(
                Save(
                    "a.json",
                    "\uFEFF \n[\n  " + TwoJson.Replace("\r\n\n  \n", ",\n", StringComparison.Ordinal) + "\n]\n")
            )
        );
        Assert.Equal(
            Two,
            DataFiles.Read(Save("a.jsonl", "[" + TwoJson.Replace("\r\n\n  \n", ",", StringComparison.Ordinal) + "]")));
        Assert.Empty(DataFiles.Read(Save("b.json", "[]")));
        string many =
            "["
            + string.Join(
                ",\n", Enumerable.Range(0, 5000).Select(i => $"{{\"text\": \"text {i}\", \"label\": {i % 2}}}"))
            + "]";
        Assert.Equal(5000, DataFiles.Read(Save("c.json", many)).Count());
        byte[] zip = Zip(Encoding.UTF8.GetBytes(many));
        Assert.Equal(5000, DataFiles.Read(Save("c.json.gz", zip)).Count());
        Refuses(Save("d.json.gz", zip[..(zip.Length / 2)]), "not a sound gzip file");
        Refuses(Save("d.json", many[..^200]), "not JSON");
        Refuses(Save("e.json", "[{\"text\":\"t\",\"label\":1}] x"), "not JSON");
        Refuses(Save("f.json", "[{\"text\":\"t\",\"label\":1}, 7]"), "row 2: not a JSON object");
        Refuses(
            Save("g.json", "[{\"text\":\"t\",\"label\":1},\n {\"text\":null,\"label\":1}]"),
            "row 2: no field 'text' (it is null)");
        Refuses(
            Save("h.json", "{\n \"version\": 1,\n \"data\": [\n {\"text\":\"t\",\"label\":1}]}"),
            "holds one JSON object over several lines (version, data)");
        Refuses(
            Save("i.jsonl", "{\"text\":\"t\",\"label\":1}\n{\"text\":NaN,\"label\":1}"),
            "line 2: not JSON (byte 8: NaN is no value there");
        Refuses(Save("j.jsonl", "{\"text\":\"t\",\"label\":null}"), "line 1: no field 'label' (it is null)");
    }

    [Fact]
    public void PlainText()
    {
        Assert.Equal(
            [new DataRow("a fine film", ""), new DataRow("so so", "")],
            DataFiles.Read(Save("a.txt", "a fine film\r\n\nso so\n")));
        Assert.Equal(
            [new DataRow("a fine film", "1"), new DataRow("so so", "0")],
            DataFiles.Read(Save("b.txt", "a fine film\t1\nso so\t0")));
        Assert.Equal(
            [new DataRow("a fine film", "1")],
            DataFiles.Read(Save("c.txt.gz", Zip("label\ttext\n1\ta fine film\n"u8.ToArray()))));
        Assert.Equal(
            [new DataRow("a fine film", "pos"), new DataRow("so so", "neg")],
            DataFiles.Read(Save("d.txt", "__label__pos a fine film\n__label__neg  so so\n")));
        Refuses(Save("e.txt", "__label__pos a\nb\n"), "line 2: no __label__");
        Refuses(Save("f.txt", "__label__pos __label__neg a\n"), "line 1: two labels");
        Refuses(Save("g.txt", "one\n"), "no 'hypothesis'", new() { MoreFields = ["hypothesis"] });
        Refuses(Save("h.txt", [(byte)'a', 0xE9]), "line 1: bytes that are not UTF-8");
    }

    [Fact]
    public async Task SeveralTextColumns()
    {
        var pair = new DataFileOptions { TextField = "premise", MoreFields = ["hypothesis"] };
        void Reads(string path)
        {
            var row = Assert.Single(DataFiles.Read(path, pair));
            Assert.Equal(["A man eats.", "He's \"hungry\""], row.Texts);
            Assert.Equal(("A man eats.", "1"), (row.Text, row.Label));
        }
        Reads(Save("a.csv", "hypothesis,label,premise\n\"He's \"\"hungry\"\"\",1,A man eats.\n"));
        Reads(Save("a.tsv", "premise\tlabel\thypothesis\nA man eats.\t1\tHe's \"hungry\"\n"));
        Reads(Save("a.jsonl", "{\"premise\":\"A man eats.\",\"hypothesis\":\"He's \\\"hungry\\\"\",\"label\":1}"));
        Reads(Save("a.json", "[{\"premise\":\"A man eats.\",\"hypothesis\":\"He's \\\"hungry\\\"\",\"label\":1}]"));
        string path = Path.Combine(_folder, "a.parquet");
        await ParquetSerializer.SerializeAsync<PairRow>(
            [
                new()
                {
                    premise = "A man eats.", hypothesis = "He's \"hungry\"", label = 1,
                },
            ],
            path,
            cancellationToken: TestContext.Current.CancellationToken
        );
        Reads(path);
        await ParquetSerializer.SerializeAsync<PairRow>(
            [new() { premise = "A", hypothesis = "B" }, new() { premise = "A" }], path,
            cancellationToken: TestContext.Current.CancellationToken);
        Refuses(path, "row 2: no 'hypothesis'", pair);
        Refuses(Save("b.csv", "premise,label\nx,1\n"), "line 1: no field 'hypothesis'", pair);
        Refuses(Save("b.csv", "x,1\n"), "no header that names 'hypothesis'", pair);
        Refuses(Save("b.jsonl", "{\"premise\":\"a\",\"label\":1}"), "line 1: no field 'hypothesis'", pair);
        Save("acl/pos/1_9.txt", "a");
        Save("acl/neg/1_1.txt", "b");
        Refuses(Path.Combine(_folder, "acl"), "no 'hypothesis'", pair);
    }

    private sealed class PairRow
    {
        public string premise { get; set; } = "";
        public string? hypothesis { get; set; }
        public double label { get; set; }
    }

    [Fact]
    public void TheSeparatorThatASpreadsheetStates()
    {
        Assert.Equal([new DataRow("a, b", "0"), new DataRow("c", "1")],
            DataFiles.Read(Save("sep.csv", "sep=;\ntext;label\na, b;0\nc;1\n")));
        Refuses(Save("odd.csv", "sep=#\ntext#label\n"), "the separator #");
    }
}
