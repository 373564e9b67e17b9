using CsCheck;
using Headroom.Core;
using Headroom.Formats.Gguf;
using Headroom.Tokenizers;

namespace Headroom.Tests.Tokenizers;

/// <summary>
/// GGUF vocabularies that do not name their pre-tokenizer: told from the merges of a known model, else said loudly.
/// </summary>
public class GgufPreTests
{
    private static GgufMetadata Metadata(IEnumerable<KeyValuePair<string, object>> pairs)
    {
        var read = new GgufMetadata();
        foreach (var (key, value) in pairs) read[key] = value switch
        {
            uint v => (long)v,
            int[] v =>
            Array.ConvertAll(v, i => (long)i),
            float v => (double)v,
            _ => value
        };
        return read;
    }

    private static void SameIds(ITokenizer a, ITokenizer b)
    {
        foreach (string text in GgufVocabulary.Probes
            .Append("In 1999 it's 12345678 times 3.14159")) Assert.Equal(a.Encode(text), b.Encode(text));
        var gen = Gen.String[Gen.OneOf<char>(Gen.Char['0', '9'], Gen.Char['a', 'z'],
            Gen.OneOf(' ', '\n', '\'', '.', 'é', '中')), 0, 40];
        gen.Sample(t => Assert.Equal(a.Encode(t), b.Encode(t)), iter: 300, threads: 1);
    }

    [Theory]
    [InlineData("llama3/tokenizer.json.gz", "llama-bpe"), InlineData("qwen3/tokenizer.json.gz", "qwen2"),
        InlineData("deepseek-v3/tokenizer.json.gz", "deepseek-v3")]
    [InlineData("deepseek-llm-7b/tokenizer.json", "deepseek-llm"), InlineData("smollm2/tokenizer.json", "smollm")]
    public void AKnownVocabularyIsToldByItsMerges(string path, string pre)
    {
        path = Shared.DataFile("tokenizers/" + path);
        var original = TokenizerLoader.Load(path);
        var file = Metadata(GgufVocabulary.Build(path, original.VocabSize));
        Assert.Equal((pre, null), GgufPre.Find(file));
        file.Remove("tokenizer.ggml.pre");
        var (told, notice) = GgufPre.Find(file);
        Assert.Equal(pre, told);
        Assert.Contains(pre, notice, StringComparison.Ordinal);
        var read = new BpeTokenizer(GgufTokenizer.Read(file));
        Assert.Equal([notice!], read.Notices);
        SameIds(original, read);
        // Another model's special tokens on top change nothing; a merge less, and it is not sure.
        var merges = (string[])file["tokenizer.ggml.merges"];
        file["tokenizer.ggml.merges"] = merges[..^1];
        (told, notice) = GgufPre.Find(file);
        Assert.Null(told);
        Assert.StartsWith("WARNING", notice, StringComparison.Ordinal);
    }

    [Fact]
    public void TheCaseIsReadAsLlama3()
    {
        var read = TokenizerLoader.Load(Shared.CaseFile("gguf-no-pre/vocab.gguf"));
        Assert.Contains("llama-bpe", Assert.Single(read.Notices), StringComparison.Ordinal);
        Assert.Equal(["199", "9"], read.Encode("1999").Select(read.IdToToken));
        SameIds(TokenizerLoader.Load(Shared.DataFile("tokenizers/llama3/tokenizer.json.gz")), read);
        // A copy says what its source did not.
        Assert.Contains(GgufVocabulary.Build(Shared.CaseFile("gguf-no-pre/vocab.gguf"), 128256), p =>
            p is { Key: "tokenizer.ggml.pre", Value: "llama-bpe" });
    }

    /// <summary>Where nothing is known, words are cut as llama.cpp cuts them by default.</summary>
    [Theory]
    [InlineData("Hello, world 12345!", "Hello|,| world| |123|45|!")]
    [InlineData("it's <b>a+b</b>", "it|'|s| |<|b|>|a|+|b|</|b|>")]
    [InlineData("x  y\n\n1999 ", "x| | y|\n|\n|199|9| ")]
    public void DefaultRules(string text, string due)
    {
        List<(int Start, int Length)> parts = [(0, text.Length)];
        foreach (string rule in KnownSplits.ByName(null))
        {
            var next = new List<(int, int)>();
            foreach (var (start, length) in parts) SplitStep.Make(rule).Split(text, start, length, next);
            parts = next;
        }
        Assert.Equal(due, string.Join('|', parts.Select(p => text.Substring(p.Start, p.Length))));
    }

    [Fact]
    public void UnknownNamesAndTypesAreRefused()
    {
        var file = new GgufMetadata
        {
            ["tokenizer.ggml.model"] = "gpt2",
            ["tokenizer.ggml.tokens"] = new[] { "a", "b", "ab" },
            ["tokenizer.ggml.merges"] = new[] { "a b" },
            ["tokenizer.ggml.pre"] = "own-rules"
        };
        Assert.Contains("own-rules", Assert.Throws<HeadroomException>(() => GgufTokenizer.Read(file)).Message,
            StringComparison.Ordinal);
        file["tokenizer.ggml.pre"] = 7L;
        Assert.Throws<FormatException>(() => GgufTokenizer.Read(file));
        file["tokenizer.ggml.pre"] = "";
        Assert.StartsWith("WARNING", GgufTokenizer.Read(file).Notices[0], StringComparison.Ordinal);
        file["tokenizer.ggml.normalizer.lowercase"] = true;
        Assert.Contains("lowercase", Assert.Throws<HeadroomException>(() => GgufTokenizer.Read(file)).Message,
            StringComparison.Ordinal);
        Assert.Equal((null, null), GgufPre.Find(new GgufMetadata { ["tokenizer.ggml.model"] = "llama" }));
    }
}
