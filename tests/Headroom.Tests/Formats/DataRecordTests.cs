using System.IO.Compression;
using System.Text;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats.Data;
using Parquet.Serialization;

namespace Headroom.Tests.Formats;

/// <summary>Rows of data files as their columns: every kind of file, and every way in which a row can be bad.</summary>
public sealed class DataRecordTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-records").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private string Save(string name, byte[] bytes)
    {
        string path = Path.Combine(_folder, name);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        File.WriteAllBytes(path, bytes);
        return path;
    }

    private string Save(string name, string text) => Save(name, Encoding.UTF8.GetBytes(text));

    private static string[] Texts(string path, DataRecordOptions? options = null) =>
        [.. DataFiles.Records(path, options).Select(r => r.Fields.ToJsonString(Plain))];

    private static readonly System.Text.Json.JsonSerializerOptions Plain = new()
    {
        Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    private const string Nested =
        """{"messages":[{"role":"user","content":"Grüße 😀"},{"role":"assistant","content":null}],"n":3,"x":1.5,"ok":true}""";

    // As this writer spells it.
    private static readonly string Normal = JsonNode.Parse(Nested)!.ToJsonString(Plain);

    [Theory]
    [InlineData("a.jsonl", Nested + "\n\n" + Nested + "\n")]
    [InlineData("a.ndjson", "\uFEFF" + Nested + "\r\n" + Nested)]
    [InlineData("a.json", "[" + Nested + ",\n" + Nested + "]")]
    public void NestedJsonIsReadAsItIs(string name, string text) =>
        Assert.Equal([Normal, Normal], Texts(Save(name, text)));

    [Theory]
    [InlineData("gz")]
    [InlineData("zst")]
    public void PackedFilesAreUnpackedAndMustBeWhole(string kind)
    {
        byte[] text = Encoding.UTF8.GetBytes(string.Concat(Enumerable.Repeat(Nested + "\n", 300)));
        var packed = new MemoryStream();
        using (Stream to = kind == "gz"
            ? new GZipStream(packed, CompressionLevel.Fastest) : new ZstdSharp.CompressionStream(packed))
            to.Write(text);
        byte[] bytes = packed.ToArray();
        Assert.Equal(Enumerable.Repeat(Normal, 300), Texts(Save($"a.jsonl.{kind}", bytes)));
        foreach (byte[] spoiled in (byte[][])[bytes[..^7], [.. bytes[..(bytes.Length / 2)]], "no archive"u8.ToArray()])
        {
            string path = Save($"b.jsonl.{kind}", spoiled);
            var e = Assert.Throws<HeadroomException>(() => Texts(path));
            Assert.Contains($"b.jsonl.{kind}", e.Message, StringComparison.Ordinal);
            Assert.Contains("not a sound", e.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void TablesAndLines()
    {
        Assert.Equal(
            ["""{"prompt":"a, \"b\"\nc","completion":"d"}""", """{"prompt":"","completion":"e"}"""],
            Texts(Save("a.csv", "prompt,completion\r\n\"a, \"\"b\"\"\nc\",d\r\n,e\r\n")));
        Assert.Equal(
            ["""{"instruction":"x","output":"y"}"""],
            Texts(
                Save("b.csv", "sep=;\ninstruction;input;output\nx;;y\n"),
                new() { Columns = ["instruction", "output"] }));
        Assert.Equal(["""{"a":"1","b":"\"2"}"""], Texts(Save("a.tsv", "a\tb\n1\t\"2\n")));
        Assert.Equal(
            ["""{"text":"1","label":"2"}"""], Texts(Save("c.tsv", "1\t2\n"), new() { Header = false }));
        Assert.Equal(["""{"text":"one"}""", """{"text":"two"}"""], Texts(Save("a.txt", "one\n\ntwo\n")));
        Assert.Equal(["""{"text":"good","label":"1"}"""], Texts(Save("b.txt", "__label__1 good\n")));
        Assert.Equal(
            ["""{"text":"a"}"""], Texts(Save("wide.jsonl", Encoding.Unicode.GetPreamble().Concat(
                Encoding.Unicode.GetBytes("{\"text\":\"a\"}\n")).ToArray())));
    }

    [Fact]
    public void FoldersAndPatternsAreReadByName()
    {
        Save("set/b/2.jsonl", "{\"n\":2}\n");
        Save("set/a/1.jsonl", "{\"n\":1}\n");
        Save("set/README.md", "no data");
        string folder = Path.Combine(_folder, "set");
        Assert.Equal(["{\"n\":1}", "{\"n\":2}"], Texts(folder));
        Assert.Equal(["{\"n\":2}"], Texts(Path.Combine(folder, "b", "*.jsonl")));
        Save("set/c.csv", "n\n3\n");
        var e = Assert.Throws<HeadroomException>(() => Texts(folder));
        Assert.Contains("several kinds", e.Message, StringComparison.Ordinal);
        Assert.Contains("c.csv", e.Message, StringComparison.Ordinal);
    }

    public sealed class Turn
    {
        public string? role { get; set; }
        public string? content { get; set; }
    }

    public sealed class Dialogue
    {
        public string? id { get; set; }
        public List<Turn>? messages { get; set; }
        public List<string>? tags { get; set; }
        public long n { get; set; }
        public double? x { get; set; }
        public bool ok { get; set; }
    }

    [Fact]
    public async Task NestedParquet()
    {
        string path = Path.Combine(_folder, "a.parquet");
        Dialogue[] rows =
        [
            new()
            {
                id = "é", messages = [new() { role = "user", content = "a" }, new() { role = "assistant" }],
                tags = ["x", "y"], n = 1L << 60, x = 0.25, ok = true,
            },
            new() { messages = [], tags = null, n = -1 },
            new() { id = "z", messages = [new() { role = "user", content = "" }], tags = [] },
        ];
        await ParquetSerializer.SerializeAsync(rows, path, cancellationToken: TestContext.Current.CancellationToken);
        var read = DataFiles.Records(path).ToList();
        Assert.Equal(3, read.Count);
        Assert.Equal($"{path}, row 2", read[1].Where);
        Assert.Equal(
            """{"id":"é","messages":[{"role":"user","content":"a"},{"role":"assistant"}],"tags":["x","y"],"n":1152921504606846976,"x":0.25,"ok":true}""",
            read[0].Fields.ToJsonString(Plain));
        Assert.Equal("[]", read[1].Fields["messages"]!.ToJsonString());
        Assert.Null(read[1].Fields["x"]);
        Assert.Equal(["id", "messages", "tags", "n", "x", "ok"], DataFiles.ColumnNames(path));
        Assert.Equal("""{"n":-1}""", Texts(path, new() { Columns = ["n"] })[1]);
        byte[] bytes = await File.ReadAllBytesAsync(path, TestContext.Current.CancellationToken);
        string spoiled = Save("b.parquet", bytes[..^9]);
        Assert.Contains("b.parquet", Assert.Throws<HeadroomException>(() => Texts(spoiled)).Message);
    }

    public static IEnumerable<ITheoryDataRow> BadRows()
    {
        yield return Row("a.jsonl", "{\"a\":1}\n{\"a\":\n{\"a\":2}\n", "line 2", true);
        yield return Row("a.jsonl", "{\"a\":1}\n[1]\n{\"a\":2}\n", "line 2", true);
        yield return Row("a.jsonl", "{\"a\":1}\nnull\n{\"a\":2}\n", "line 2", true);
        yield return Row("a.jsonl", "{\"a\":1}\n{\"a\":1,\"a\":2}\n{\"a\":2}\n", "'a' stands there twice", true);
        yield return Row("a.jsonl", "{\"a\":1}\n{\"a\":{\"b\":1,\"b\":2}}\n{\"a\":2}\n", "'b' stands there", true);
        yield return Row("a.jsonl", "{\"a\":1}\n{\"a\":\"\\ud800\"}\n{\"a\":2}\n", "line 2: a text or name", true);
        yield return Row("a.jsonl", "{\"a\":1}\n{\"a\":NaN}\n{\"a\":2}\n", "NaN is no value", true);
        yield return Row("a.jsonl", "{\"a\":1}\n" + new string('[', 5000) + "\n{\"a\":2}\n", "line 2", true);
        yield return Row("a.json", "[{\"a\":1}, 7, {\"a\":2}]", "row 2", true);
        yield return Row("a.json", "[{\"a\":1}, {\"a\":", "not JSON", false);
        yield return Row("a.csv", "a,b\n1,2\n1,2,3\n3,4\n", "line 3: 3 columns where 2", true);
        yield return Row("a.csv", "a,b\n1,2\n\"1,2\n", "still open", false);
        yield return Row("a.csv", "a,a\n1,2\n", "several columns are named 'a'", false);
        yield return Row("a.tsv", "a\tb\n1\t2\n1\n3\t4\n", "line 3: 1 columns where 2", true);
        yield return Row("a.tsv", "a,b\n", "no tab", false);
        static TheoryDataRow<string, string, string, bool> Row(string n, string t, string w, bool g) => new(n, t, w, g);
    }

    [Theory]
    [MemberData(nameof(BadRows))]
    internal void BadRowsAreNamedOrPassedOver(string name, string text, string says, bool goesOn)
    {
        string path = Save(name, text);
        var e = Assert.Throws<HeadroomException>(() => Texts(path));
        Assert.Contains(path, e.Message, StringComparison.Ordinal);
        Assert.Contains(says, e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', e.Message);
        var bad = new List<HeadroomException>();
        var options = new DataRecordOptions { OnBadRow = bad.Add };
        if (!goesOn)
        {
            Assert.Throws<HeadroomException>(() => Texts(path, options));
            return;
        }
        Assert.Equal(2, Texts(path, options).Length);
        Assert.Equal(e.Message, Assert.Single(bad).Message);
    }

    [Fact]
    public void InvalidUtf8IsABadRow()
    {
        string path = Save("a.jsonl", [.. "{\"a\":\"x\"}\n{\"a\":\""u8, 0xE9, .. "\"}\n{\"a\":\"y\"}\n"u8]);
        string message = Assert.Throws<HeadroomException>(() => Texts(path)).Message;
        Assert.Contains("line 2", message, StringComparison.Ordinal);
        int bad = 0;
        Assert.Equal(2, Texts(path, new() { OnBadRow = _ => bad++ }).Length);
        Assert.Equal(1, bad);
    }

    [Fact]
    public void LongLinesAreRead()
    {
        string text = new('x', 10 << 20);
        var record = Assert.Single(DataFiles.Records(Save("a.jsonl", $"{{\"a\":\"{text}\"}}\n")));
        Assert.Equal(text, (string?)record.Fields["a"]);
    }
}
