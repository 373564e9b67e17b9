using System.IO.Compression;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Tokenizers;

namespace Headroom.Tests.Tokenizers;

public sealed class TokenizerTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-tok-").FullName;
    public void Dispose() => Directory.Delete(_folder, true);

    private static readonly string[] Odd =
    [
        "", " ", "a", "  two  blanks ", "line\nline\r\n\ttab", "Straße 12345 — “x”",
        "日本語 한국어 \U0001F600\U0001F468\u200D\U0001F469", "e\u0301 \u0000\u0007", new string(' ', 200) + "x", "<s>",
        "3.14 ½ ²"];

    private static List<string> Reviews(int count)
    {
        using var gz = new GZipStream(
            File.OpenRead(Shared.DataFile("imdb-test-5k.jsonl.gz")), CompressionMode.Decompress);
        using var reader = new StreamReader(gz);
        var list = new List<string>();
        while (list.Count < count && reader.ReadLine() is { } line)
        {
            using var j = JsonDocument.Parse(line);
            list.Add(j.RootElement.GetProperty("text").GetString()!);
        }
        return list;
    }

    [Fact]
    public void SmolLm2JsonAndGgufAgree()
    {
        var json = TokenizerLoader.Load(Shared.DataFile("tokenizers/smollm2"));
        var gguf = TokenizerLoader.Load(
            Shared.DataFile("models/SmolLM2-135M-Instruct/SmolLM2-135M-Instruct.Q4_1.gguf"));
        Assert.Equal(49152, json.VocabSize);
        Assert.Equal(
            (json.VocabSize, json.BosId, json.EosId, json.AddBos), (gguf.VocabSize, gguf.BosId, gguf.EosId, gguf.AddBos)
        );
        Assert.NotNull(json.ChatTemplate);
        Assert.NotNull(gguf.ChatTemplate);
        foreach (string text in Reviews(300).Concat(Odd).Append("<|im_start|>user\nHi<|im_end|>\n"))
        {
            var ids = json.Encode(text);
            Assert.Equal(ids, gguf.Encode(text));
            Assert.Equal(text, json.Decode(ids));
        }
        Assert.Equal([1], json.Encode("<|im_start|>"));
        for (int i = 0; i < json.VocabSize; i++) Assert.Equal(json.IdToToken(i), gguf.IdToToken(i));
    }

    [Fact]
    public void LongWordsCostLittle()
    {
        var t = TokenizerLoader.Load(Shared.DataFile("tokenizers/deepseek-llm-7b"));
        var l = TokenizerLoader.Load(Shared.DataFile("tokenizers/llama2"));
        // A cost that grows with the square of a word's length would keep this test busy for hours.
        foreach (
            string s in (string[])
                [
                    new string('a', 300_000), new string(' ', 300_000) + "x", new string('\n', 100_000),
                    new string('=', 300_000)]
        )
        {
            Assert.Equal(s, t.Decode(t.Encode(s)));
            Assert.Equal(s, l.Decode(l.Encode(s)));
        }
    }

    [Fact]
    public void JsonAndModelOfLlama2AgreeOnReviews()
    {
        var json = TokenizerLoader.Load(Shared.DataFile("tokenizers/llama2/tokenizer.json"));
        var model = TokenizerLoader.Load(Shared.DataFile("tokenizers/llama2/tokenizer.model"));
        Assert.Equal((32000, 1, 2, true, false), (json.VocabSize, json.BosId, json.EosId, json.AddBos, json.AddEos));
        Assert.Equal(
            (32000, 1, 2, true, false), (model.VocabSize, model.BosId, model.EosId, model.AddBos, model.AddEos));
        foreach (string text in Reviews(300).Concat(Odd))
            Assert.Equal(json.Encode(text, true), model.Encode(text, true));
        Assert.Equal(1, json.Encode("x", true)[0]);
    }

    [Fact]
    public void Stories260K()
    {
        var t = TokenizerLoader.Load(Shared.DataFile("models/stories260K/hf"));
        Assert.Equal((512, 1, 2, true), (t.VocabSize, t.BosId, t.EosId, t.AddBos));
        using var golden = JsonDocument.Parse(File.ReadAllText(Shared.DataFile("models/stories260K/golden.json")));
        int[] ids = []; string? story = null;
        foreach (var p in golden.RootElement.EnumerateObject())
        {
            if (p.Value.ValueKind == JsonValueKind.Array && p.Value.GetArrayLength() == 257)
                ids = p.Value.EnumerateArray().Select(x => x.GetInt32()).ToArray();
            if (
                p.Value.ValueKind == JsonValueKind.String
                && p.Value.GetString()!.StartsWith("Once", StringComparison.Ordinal)
            )
                story = p.Value.GetString();
        }
        Assert.NotNull(story);
        Assert.Equal(257, ids.Length);
        Assert.Equal(story, t.Decode(ids[1..]));
        Assert.Equal(ids, t.Encode(story, true));
    }

    private static List<string> Stories()
    {
        string[] who = ["Lily", "Tom", "Ben", "Anna", "the cat"],
            what = ["found", "lost", "liked", "painted", "dropped"],
            which = ["a red ball", "the small boat", "3 apples", "a café menu", "the naïve robot"];
        var random = new Random(1);
        var list = new List<string>();
        for (int i = 0; i < 4000; i++)
            list.Add(
                $"{who[random.Next(5)]} {what[random.Next(5)]} {which[random.Next(5)]}.\nThen {who[random.Next(5)]} "
                    + $"{what[random.Next(5)]} it {random.Next(1000)} times."
            );
        return list;
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void TrainWriteLoad(bool byteLevel)
    {
        var texts = Stories();
        TrainedBpe Train() =>
            byteLevel
                ? BpeTrainer.TrainByteLevel(texts, 400, ["<|end|>", "<|pad|>"])
                : BpeTrainer.TrainSentencePieceStyle(texts, 400);
        var bpe = Train();
        var again = Train();
        Assert.Equal(bpe.Pieces, again.Pieces);
        Assert.Equal(bpe.Merges, again.Merges);
        Assert.True(bpe.Pieces.Count <= 400 && bpe.Merges.Count > 50);
        Assert.Equal(bpe.Pieces.Count, bpe.Pieces.Distinct().Count());
        TokenizerJson.Write(_folder, bpe);
        var t = TokenizerLoader.Load(_folder);
        Assert.Equal(bpe.Pieces.Count, t.VocabSize);
        for (int i = 0; i < t.VocabSize; i++) Assert.Equal(bpe.Pieces[i], t.IdToToken(i));
        Assert.Equal(byteLevel ? (null, 0, false) : (1, 2, true), (t.BosId, t.EosId, t.AddBos));
        foreach (string text in texts.Take(200).Concat(Odd))
            if (text != "<s>")
                Assert.Equal(text, t.Decode(t.Encode(text)));
        Assert.True(t.Encode(texts[0]).Length < texts[0].Length / 2);
        Assert.Equal(4, t.Encode(byteLevel ? "2026" : "x2026").Length - (byteLevel ? 0 : t.Encode("x").Length));
    }

    // They were written by it when the models were trained.
    [Theory]
    [InlineData("deepseek-tiny", true, "<|begin_of_sentence|>", "<|end_of_sentence|>")]
    [InlineData("llama-tiny", false, null, null)]
    public void ShippedTokenizersAreWrittenAgainByteForByte(string model, bool byteLevel, string? bos, string? eos)
    {
        string shipped = Path.Combine(Shared.Checkout, "models", model);
        var json = JsonNode.Parse(File.ReadAllText(Path.Combine(shipped, "tokenizer.json")))!;
        var bpe = new TrainedBpe(
            [.. json["model"]!["vocab"]!.AsObject().OrderBy(p => (int)p.Value!).Select(p => p.Key)],
            [.. json["model"]!["merges"]!.AsArray().Select(m => ((string)m![0]!, (string)m[1]!))],
            [.. json["added_tokens"]!.AsArray().Select(t => (string)t!["content"]!)], byteLevel);
        TokenizerJson.Write(_folder, bpe, bos, eos, addBos: true);
        foreach (string file in (string[])["tokenizer.json", "tokenizer_config.json"])
            Assert.Equal(
                File.ReadAllBytes(Path.Combine(shipped, file)), File.ReadAllBytes(Path.Combine(_folder, file)));
    }

    [Fact]
    public void SmallTextsTrainToo()
    {
        Assert.Equal(256, BpeTrainer.TrainByteLevel([], 300, []).Pieces.Count);
        Assert.Equal(260, BpeTrainer.TrainSentencePieceStyle([], 300).Pieces.Count);
        Assert.Throws<ArgumentOutOfRangeException>(() => BpeTrainer.TrainByteLevel([], 100, []));
    }

    private const string Tiny = """
        {"added_tokens":[{"id":8,"content":"[X]","lstrip":true,"rstrip":true,"normalized":false,"special":true},{"id":9,"content":"ab","single_word":true,"normalized":true,"special":false}],
        "normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"first"},"decoder":{"type":"Metaspace","replacement":"▁","prepend_scheme":"first"},
        "model":{"type":"BPE","unk_token":"?","fuse_unk":true,"vocab":{"?":0,"▁":1,"a":2,"b":3,"é":4,"▁a":5,"bb":6,"▁abb":7},"merges":["▁ a","b b","▁a bb"]}}
        """;

    [Fact]
    public void AddedTokensUnknownsAndNormalization()
    {
        string file = Path.Combine(_folder, "tokenizer.json");
        File.WriteAllText(file, Tiny);
        var t = TokenizerLoader.Load(file);
        Assert.Equal([7], t.Encode("abb"));
        Assert.Equal([9], t.Encode("ab"));
        Assert.Equal([5, 8, 3], t.Encode("a [X]  b"));
        Assert.Equal([1, 4, 0, 2], t.Encode("e\u0301zz\uD800a"));
        Assert.Equal("abb", t.Decode([7]));
        Assert.Null(t.TokenToId("nothing"));
        Assert.Equal("", t.IdToToken(10));
    }

    [Theory]
    [InlineData("")]
    [InlineData("{")]
    [InlineData("{}")]
    [InlineData("[]")]
    [InlineData("{\"model\":3}")]
    [InlineData("{\"model\":{\"type\":\"Unigram\"}}")]
    [InlineData("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":2000000000},\"merges\":[]}}")]
    [InlineData("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}")]
    [InlineData("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":\"x\"},\"merges\":[]}}")]
    [InlineData("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}")]
    [InlineData("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[1]}}")]
    [InlineData(
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":{\"type\":\"Split\","
            + "\"pattern\":{\"Regex\":\"(\"}}}"
    )]
    [InlineData("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":[]}")]
    [InlineData("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\\uD800\":0},\"merges\":[]}}")]
    [InlineData("GGUF")]
    [InlineData("plain text")]
    public void DamagedFilesAreRefused(string content)
    {
        string file = Path.Combine(_folder, "tokenizer.json");
        File.WriteAllText(file, content);
        var e = Assert.Throws<HeadroomException>(() => TokenizerLoader.Load(file));
        Assert.NotEmpty(e.ToDo);
        Assert.Throws<HeadroomException>(() => TokenizerLoader.Load(Path.Combine(_folder, "absent.json")));
    }

    [Fact]
    public void CutAndChangedFilesAreRefusedOrRead()
    {
        byte[] model = File.ReadAllBytes(Shared.DataFile("models/stories260K/tok512.model"));
        byte[] json = Encoding.UTF8.GetBytes(Tiny);
        var random = new Random(5);
        for (int i = 0; i < 600; i++)
        {
            byte[] bytes = (byte[])(i % 2 == 0 ? model : json).Clone();
            for (int k = random.Next(4); k >= 0; k--) bytes[random.Next(bytes.Length)] = (byte)random.Next(256);
            if (i % 3 == 0) bytes = bytes[..random.Next(bytes.Length)];
            string file = Path.Combine(_folder, "tokenizer.bin");
            File.WriteAllBytes(file, bytes);
            try
            {
                var t = TokenizerLoader.Load(file);
                t.Decode(t.Encode("once upon a time ab é", true));
            }
            catch (HeadroomException) { }
        }
    }
}
