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

    private static readonly DataRow[] Two = [new("a \"b\", c\u0085\u2028d", "0"), new("Grüße\r\nzwei", "1", "mixed", "x1")];
    private const string TwoJson = "{\"text\":\"a \\\"b\\\", c\u0085\u2028d\",\"label\":0}\r\n\n  \n{\"id\":\"x1\",\"label\":\"1\",\"tier\":\"mixed\",\"text\":\"Gr\\u00fc\u00dfe\\r\\nzwei\",\"more\":[1]}";

    [Fact]
    public void JsonLinesPlainAndGzipped()
    {
        Assert.Equal(Two, DataFiles.Read(Save("a.jsonl", TwoJson)));
        Assert.Equal(Two, DataFiles.Read(Save("b.jsonl", [0xEF, 0xBB, 0xBF, .. Encoding.UTF8.GetBytes(TwoJson + "\n")])));
        Assert.Equal(Two, DataFiles.Read(Save("a.jsonl.gz", Zip(Encoding.UTF8.GetBytes(TwoJson)))));
        Assert.Equal([new DataRow("t", "true"), new DataRow("u", "1.50")],
            DataFiles.Read(Save("c.jsonl", "{\"review\":\"t\",\"y\":true}\n{\"review\":\"u\",\"y\":1.50}"), new() { TextField = "review", LabelField = "y" }));
        string longest = new('x', 300_000); // longer than any buffer
        Assert.Equal(longest, DataFiles.Read(Save("d.jsonl", $"{{\"text\":\"{longest}\",\"label\":1}}\n{{\"text\":\"y\",\"label\":1}}")).First().Text);
        Assert.Empty(DataFiles.Read(Save("empty.jsonl", "")));
    }

    [Fact]
    public void CsvWithQuotesAndTsv()
    {
        string csv = "label,id,text\r\n0,,\"a, \"\"b\"\"\r\nc\"\r\n\r\n1,7,plain\n1,,\"\"\n";
        Assert.Equal([new DataRow("a, \"b\"\nc", "0", null, ""), new DataRow("plain", "1", null, "7"), new DataRow("", "1", null, "")], DataFiles.Read(Save("a.csv", csv)));
        Assert.Equal([new DataRow("x", "0"), new DataRow("y \"z", "1")], DataFiles.Read(Save("b.csv", "x,0\ny \"z,1")));
        Assert.Equal([new DataRow("a, \"b\"", "0"), new DataRow("c", "1")], DataFiles.Read(Save("a.tsv", "a, \"b\"\t0\nc\t1"))); // no header; the last line has no LF
        Assert.Equal([new DataRow("c", "1")], DataFiles.Read(Save("b.tsv.gz", Zip("label\ttext\n1\tc\n"u8.ToArray()))));
        Assert.Equal([new DataRow("text", "label")], DataFiles.Read(Save("c.tsv", "text\tlabel"), new() { Header = false }));
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
        await ParquetSerializer.SerializeAsync<Row>([new() { text = "Grüße", label = 1, tier = "explicit" }, new() { text = "b", label = 0 }], path, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Equal([new DataRow("Grüße", "1", "explicit"), new DataRow("b", "0")], DataFiles.Read(path));
        Refuses(path, "no column 'review'", new() { TextField = "review" });
        byte[] bytes = await File.ReadAllBytesAsync(path, TestContext.Current.CancellationToken);
        Refuses(Save("short.parquet", bytes[..^20]), "not readable as Parquet");
        Refuses(Save("other.parquet", "not parquet at all"), "not readable as Parquet");
    }

    [Fact]
    public void LargeMovieReviewFolders()
    {
        foreach (var (file, text) in new[] { ("neg/10_2.txt", "ten"), ("neg/9_1.txt", "nine"), ("pos/0_9.txt", "zero é"), ("pos/notes.md", "not a review") }) Save("aclImdb/train/" + file, text);
        Assert.Equal([new DataRow("nine", "0", null, "train/neg/9_1"), new DataRow("ten", "0", null, "train/neg/10_2"), new DataRow("zero é", "1", null, "train/pos/0_9")],
            DataFiles.Read(Path.Combine(_folder, "aclImdb", "train")));
        Refuses(Path.Combine(_folder, "aclImdb"), "no pos and neg");
        Refuses(Path.GetDirectoryName(Path.GetDirectoryName(Save("latin/pos/1_9.txt", [0xE9]).Replace("pos", "neg", StringComparison.Ordinal)))!, "no pos and neg");
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
        Refuses(Save("e.jsonl", "{\"text\":\"t\",\"label\":[1]}"), "field 'label' is a array");
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
        byte[] zip = Zip(Encoding.UTF8.GetBytes(string.Concat(Enumerable.Range(0, 5000).Select(i => $"{{\"text\":\"text {i * 7919 % 5003}\",\"label\":{i % 2}}}\n"))));
        Assert.Equal(5000, DataFiles.Read(Save("whole.jsonl.gz", zip)).Count());
        for (int length = 1; length < zip.Length; length += zip.Length / 40) Refuses(Save("part.jsonl.gz", zip[..length]), "");
        foreach (int cut in new[] { 1, 4, 8, 9 }) Refuses(Save("tail.jsonl.gz", zip[..^cut]), "not a sound gzip file");
        Assert.Equal(10_001, DataFiles.Read(Save("members.jsonl.gz", [.. zip, .. Zip("{\"text\":\"t\",\"label\":1}\n"u8.ToArray()), .. zip])).Count()); // several members are one file
        Assert.Empty(DataFiles.Read(Save("empty.jsonl.gz", Zip([]))));
    }
}
