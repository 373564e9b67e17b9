using Headroom.Core;
using Headroom.Tokenizers;

namespace Headroom.Tests.Tokenizers;

/// <summary>Where in a text its tokens are.</summary>
public sealed class TokenOffsetTests
{
    private static TheoryDataRow<string, string, string> Row(string model, string text, string offsets) =>
        new(model, text, offsets);

    /// <summary>As Hugging Face's tokenizers has them (npm package tokenizers, the version of eng/fuzz).</summary>
    public static IEnumerable<ITheoryDataRow> Peer() =>
    [
        Row("llama2", "Hello world", "0-5 5-11"),
        Row("llama2", "  two  blanks ", "0-1 1-5 5-6 6-9 9-13 13-14"),
        Row("llama2", "\ud83d\ude00 caf\u00e9 na\u00efve", "0-2 0-2 0-2 0-2 0-2 2-4 4-7 7-10 10-11 11-13"),
        Row("llama2", "\u65e5\u672c\u8a9e\u3068\ud55c\uae00", "0-1 0-1 1-2 2-3 3-4 4-5 5-6 5-6 5-6"),
        Row("llama2", "a\tb\r\nc", "0-1 1-2 2-3 3-4 4-5 5-6"),
        Row("llama2", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! 123",
            "0-3 3-6 6-7 7-10 10-11 11-12 12-13 13-14 14-15 15-16"),
        Row("llama2", "<s>x</s> y<|im_end|>\n",
            "0-3 3-4 4-8 8-9 8-10 10-11 11-12 12-14 14-15 15-18 18-19 19-20 20-21"),
        Row("llama2", "\u0915\u093c\u0916 \ud83d\udc69\u200d\ud83d\udc69\u200d\ud83d\udc67",
            "0-1 0-1 1-2 2-3 3-4 4-6 4-6 4-6 4-6 6-7 7-9 7-9 7-9 7-9 9-10 10-12 10-12 10-12 10-12"),
        Row("llama2", "\u2581a \u2581 b", "0-1 0-2 2-4 4-6"),
        Row("llama2", "\u0000\u00fc \u00f8", "0-1 0-1 1-2 2-3 3-4"),
        Row("llama3", "Hello world", "0-5 5-11"),
        Row("llama3", "  two  blanks ", "0-1 1-5 5-6 6-13 13-14"),
        Row("llama3", "\ud83d\ude00 caf\u00e9 na\u00efve", "0-2 0-2 2-7 7-11 11-13"),
        Row("llama3", "\u65e5\u672c\u8a9e\u3068\ud55c\uae00", "0-2 2-3 3-4 4-5 5-6"),
        Row("llama3", "a\tb\r\nc", "0-1 1-3 3-5 5-6"),
        Row("llama3", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! 123",
            "0-2 2-4 4-6 6-7 7-11 11-12 12-13 13-16"),
        Row("llama3", "<s>x</s> y<|im_end|>\n", "0-2 2-4 4-6 6-7 7-8 8-10 10-11 11-12 12-14 14-18 18-19 19-21"),
        Row("llama3", "\u0915\u093c\u0916 \ud83d\udc69\u200d\ud83d\udc69\u200d\ud83d\udc67",
            "0-1 1-2 2-3 3-6 4-6 6-7 7-9 7-9 7-9 9-10 10-12 10-12 10-12"),
        Row("llama3", "\u2581a \u2581 b", "0-1 0-1 1-2 2-4 3-4 4-6"),
        Row("llama3", "\u0000\u00fc \u00f8", "0-1 1-2 2-4"),
        Row("qwen3", "Hello world", "0-5 5-11"),
        Row("qwen3", "  two  blanks ", "0-1 1-5 5-6 6-13 13-14"),
        Row("qwen3", "\ud83d\ude00 caf\u00e9 na\u00efve", "0-2 2-7 7-11 11-13"),
        Row("qwen3", "\u65e5\u672c\u8a9e\u3068\ud55c\uae00", "0-2 2-3 3-4 4-5 5-6"),
        Row("qwen3", "a\tb\r\nc", "0-1 1-3 3-5 5-6"),
        Row("qwen3", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! 123",
            "0-2 2-4 4-6 6-7 7-11 11-12 12-13 13-14 14-15 15-16"),
        Row("qwen3", "<s>x</s> y<|im_end|>\n", "0-2 2-4 4-6 6-7 7-8 8-10 10-20 20-21"),
        Row("qwen3", "\u0915\u093c\u0916 \ud83d\udc69\u200d\ud83d\udc69\u200d\ud83d\udc67",
            "0-1 1-2 1-2 2-3 3-6 4-6 6-7 6-7 7-9 9-10 9-10 10-12"),
        Row("qwen3", "\u2581a \u2581 b", "0-1 0-1 1-2 2-4 3-4 4-6"),
        Row("qwen3", "\u0000\u00fc \u00f8", "0-1 1-2 2-4"),
        Row("smollm2", "Hello world", "0-5 5-11"),
        Row("smollm2", "  two  blanks ", "0-1 1-5 5-6 6-13 13-14"),
        Row("smollm2", "\ud83d\ude00 caf\u00e9 na\u00efve", "0-2 0-2 0-2 2-7 7-10 10-13"),
        Row("smollm2", "\u65e5\u672c\u8a9e\u3068\ud55c\uae00", "0-1 0-1 1-2 2-3 2-3 2-3 3-4 3-4 4-5 4-5 5-6 5-6 5-6"),
        Row("smollm2", "a\tb\r\nc", "0-1 1-2 2-3 3-4 4-5 5-6"),
        Row("smollm2", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! 123",
            "0-1 0-1 1-3 3-4 4-6 6-7 7-9 9-10 10-11 11-12 12-13 13-14 14-15 15-16"),
        Row("smollm2", "<s>x</s> y<|im_end|>\n", "0-1 1-2 2-3 3-4 4-6 6-7 7-8 8-10 10-20 20-21"),
        Row("smollm2", "\u0915\u093c\u0916 \ud83d\udc69\u200d\ud83d\udc69\u200d\ud83d\udc67",
            "0-1 1-2 1-2 2-3 2-3 3-6 4-6 4-6 6-7 6-7 7-9 7-9 7-9 9-10 9-10 10-12 10-12 10-12"),
        Row("smollm2", "\u2581a \u2581 b", "0-1 0-1 1-2 2-4 3-4 4-6"),
        Row("smollm2", "\u0000\u00fc \u00f8", "0-1 1-2 2-4 3-4"),
        Row("deepseek-v3", "Hello world", "0-5 5-11"),
        Row("deepseek-v3", "  two  blanks ", "0-1 1-5 5-6 6-13 13-14"),
        Row("deepseek-v3", "\ud83d\ude00 caf\u00e9 na\u00efve", "0-2 0-2 2-7 7-13"),
        Row("deepseek-v3", "\u65e5\u672c\u8a9e\u3068\ud55c\uae00", "0-3 3-4 4-5 5-6"),
        Row("deepseek-v3", "a\tb\r\nc", "0-1 1-3 3-4 4-5 5-6"),
        Row("deepseek-v3", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! 123",
            "0-3 3-6 6-7 7-11 11-12 12-13 13-16"),
        Row("deepseek-v3", "<s>x</s> y<|im_end|>\n", "0-2 2-4 4-6 6-7 7-8 8-10 10-11 11-12 12-14 14-18 18-19 19-21"),
        Row("deepseek-v3", "\u0915\u093c\u0916 \ud83d\udc69\u200d\ud83d\udc69\u200d\ud83d\udc67",
            "0-1 1-2 2-3 3-6 4-6 6-7 7-9 7-9 9-10 10-12 10-12"),
        Row("deepseek-v3", "\u2581a \u2581 b", "0-1 0-1 1-2 2-4 3-4 4-6"),
        Row("deepseek-v3", "\u0000\u00fc \u00f8", "0-1 1-2 2-4"),
        Row("deepseek-llm-7b", "Hello world", "0-5 5-11"),
        Row("deepseek-llm-7b", "  two  blanks ", "0-1 1-5 5-6 6-13 13-14"),
        Row("deepseek-llm-7b", "\ud83d\ude00 caf\u00e9 na\u00efve", "0-2 0-2 2-6 6-7 7-10 10-11 11-13"),
        Row("deepseek-llm-7b", "\u65e5\u672c\u8a9e\u3068\ud55c\uae00", "0-2 2-3 2-3 3-4 4-5 5-6 5-6"),
        Row("deepseek-llm-7b", "a\tb\r\nc", "0-1 1-3 3-4 4-5 5-6"),
        Row("deepseek-llm-7b", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! 123",
            "0-3 3-6 6-7 7-11 11-12 12-13 13-14 14-15 15-16"),
        Row("deepseek-llm-7b", "<s>x</s> y<|im_end|>\n",
            "0-1 1-2 2-3 3-4 4-6 6-7 7-8 8-10 10-11 11-12 12-14 14-15 15-18 18-20 20-21"),
        Row("deepseek-llm-7b", "\u0915\u093c\u0916 \ud83d\udc69\u200d\ud83d\udc69\u200d\ud83d\udc67",
            "0-1 1-2 1-2 2-3 2-3 3-6 4-6 6-7 6-7 7-9 7-9 7-9 9-10 9-10 10-12 10-12 10-12"),
        Row("deepseek-llm-7b", "\u2581a \u2581 b", "0-1 0-1 1-2 2-3 3-4 3-4 4-6"),
        Row("deepseek-llm-7b", "\u0000\u00fc \u00f8", "0-1 1-2 2-3 3-4"),
    ];

    [Theory]
    [MemberData(nameof(Peer))]
    public void PlacesAreThoseOfThePeer(string model, string text, string offsets)
    {
        var (ids, places) = Tokenizer(model).EncodeWithOffsets(text);
        Assert.Equal(Tokenizer(model).Encode(text), ids);
        Assert.Equal(offsets, string.Join(" ", places.Select(p => $"{p.Start}-{p.End}")));
    }

    /// <summary>
    /// A composed character stands for the letter and its marks (the peer leaves the marks to no token), and one that
    /// becomes several stands in all tokens of these.
    /// </summary>
    [Theory]
    [InlineData("cafe\u0301 x", "0-2 2-5 5-7")]
    [InlineData("a\u0323\u0302b", "0-3 3-4")]
    [InlineData("\u1100\u1161\u11a8", "0-3")]
    [InlineData("\u0958", "0-1 0-1 0-1")]
    [InlineData("e\u0301\u0958", "0-2 2-3 2-3 2-3")]
    public void ComposedCharacters(string text, string offsets)
    {
        var places = Tokenizer("qwen3").EncodeWithOffsets(text).Offsets;
        Assert.Equal(offsets, string.Join(" ", places.Select(p => $"{p.Start}-{p.End}")));
    }

    /// <summary>
    /// The time of normalized texts grows about as their length, and a long one has the places of its parts.
    /// </summary>
    [Theory]
    [InlineData("cafe\u0301 nai\u0308ve x\u0958 ")]
    [InlineData("\u0323\u0301")]
    public void LongTextsThatNormalizingChanges(string part)
    {
        var tokenizer = Tokenizer("qwen3");
        string text = string.Concat(Enumerable.Repeat(part, 20_000));
        var (ids, places) = tokenizer.EncodeWithOffsets(text);
        Assert.Equal(tokenizer.Encode(text), ids);
        Covers(text, places);
        if (!part.EndsWith(' ')) return; // marks without a letter: about where they are
        var one = tokenizer.EncodeWithOffsets(" " + part + part).Offsets.Where(p => p.Start > part.Length).ToArray();
        var last = places[^one.Length..];
        int shift = last[^1].End - one[^1].End;
        Assert.Equal(one.Select(p => (p.Start + shift, p.End + shift)), last);
    }

    [Theory]
    [InlineData("llama2")]
    [InlineData("llama3")]
    [InlineData("qwen3")]
    [InlineData("smollm2")]
    [InlineData("deepseek-v3")]
    [InlineData("deepseek-llm-7b")]
    [InlineData("deepseek-llm-7b/ggml-vocab-deepseek-llm.gguf")]
    [InlineData("llama2/tokenizer.model")]
    public void AnyTextIsCovered(string model)
    {
        string[] bits =
        [
            "hello", " world", "  ", "\n", "\t", "é", "e\u0301", "😀", "👩‍👩‍👧", "日本語", "한글", "\u1100\u1161\u11a8",
            "\u0958", "<s>", "</s>", "<|im_end|>", "<｜end▁of▁sentence｜>", "▁", "1234", "\0", "ø", "\u3000", "'ll", "\r\n",
            "\uD800", "\uFFFD",
        ];
        var tokenizer = Tokenizer(model);
        for (uint i = 0; i < 400; i++)
        {
            var random = new PhiloxRandom(3, i);
            string text = string.Concat(
                Enumerable.Range(0, random.Next(12)).Select(_ => bits[random.Next(bits.Length)]));
            var (ids, places) = tokenizer.EncodeWithOffsets(text);
            Assert.Equal(tokenizer.Encode(text), ids);
            Assert.Equal(ids.Length, places.Length);
            Covers(text, places);
        }
    }

    // In order, nothing between them left out, and no half of a character.
    private static void Covers(string text, (int Start, int End)[] places)
    {
        int at = 0, start = 0;
        foreach (var p in places)
        {
            Assert.True(start <= p.Start && p.Start <= at && p.End >= at, $"{p} behind {at} of {text.Length}");
            Assert.False(p.End < text.Length && p.End > 0 && char.IsSurrogatePair(text, p.End - 1));
            (start, at) = (p.Start, p.End);
        }
        Assert.Equal(text.Length, at);
    }

    private static readonly Dictionary<string, ITokenizer> Loaded = [];

    private static ITokenizer Tokenizer(string model)
    {
        lock (Loaded)
        {
            if (!Loaded.TryGetValue(model, out var tokenizer))
                Loaded[model] = tokenizer = TokenizerLoader.Load(Shared.DataFile("tokenizers/" + model));
            return tokenizer;
        }
    }
}
