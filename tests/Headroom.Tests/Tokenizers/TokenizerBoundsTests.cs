using System.Diagnostics;
using System.Text;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Tokenizers;

namespace Headroom.Tests.Tokenizers;

/// <summary>
/// Small tokenizer files that ask for much: their work and memory are bounded, and the reason is said.
/// </summary>
public sealed class TokenizerBoundsTests
{
    private const long MostAllocated = 256 << 20;

    private static JsonObject File(params (string Key, JsonNode Value)[] more)
    {
        var json = new JsonObject
        {
            ["model"] = new JsonObject
            {
                ["type"] = "BPE",
                ["vocab"] = new JsonObject { ["a"] = 0, ["b"] = 1 },
                ["merges"] = new JsonArray(),
            },
        };
        foreach (var (key, value) in more)
            json[key] = value;
        return json;
    }

    private static JsonObject Replace(JsonObject pattern, string content) =>
        new()
        {
            ["type"] = "Replace",
            ["pattern"] = pattern,
            ["content"] = content,
        };

    private static JsonObject Doubling(string kind) => kind switch
    {
        "literal" => Replace(new() { ["String"] = "a" }, "aa"),
        "regex" => Replace(new() { ["Regex"] = "a" }, "aa"),
        _ => Replace(new() { ["Regex"] = "" }, new string('a', 3000)), // before every character
    };

    private static JsonObject Sequence(string items, int count, Func<JsonNode> item) =>
        new()
        {
            ["type"] = "Sequence",
            [items] = new JsonArray([.. Enumerable.Range(0, count).Select(_ => (JsonNode?)item())]),
        };

    private static Exception? Bounded(Action work)
    {
        long before = GC.GetAllocatedBytesForCurrentThread();
        var clock = Stopwatch.StartNew();
        var e = Record.Exception(work);
        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        Assert.True(allocated < MostAllocated, $"{allocated >> 20} MiB");
        Assert.True(clock.Elapsed < TimeSpan.FromSeconds(20), $"{clock.Elapsed}");
        return e;
    }

    private static BpeTokenizer Load(JsonObject json)
    {
        byte[] file = Encoding.UTF8.GetBytes(json.ToJsonString());
        Assert.True(file.Length < 16_000);
        return TokenizerLoader.FromBytes(file);
    }

    [Theory]
    [InlineData("literal", 40)]
    [InlineData("regex", 40)]
    public void ReplacementsThatGrow(string kind, int count)
    {
        // Of an added token while the file is read; of a text; of the pieces of an answer.
        var added = new JsonArray(
            new JsonObject
            {
                ["id"] = 2,
                ["content"] = "aaaa",
                ["normalized"] = true,
                ["special"] = false,
            }
        );
        var chain = () => Sequence("normalizers", count, () => Doubling(kind));
        foreach (
            var work in new Action[]
            {
                () => Load(File(("normalizer", chain()), ("added_tokens", added))),
                () => Load(File(("normalizer", chain()))).Encode(new string('a', 100_000)),
                () => Load(File(("decoder", Sequence("decoders", count, () => Doubling(kind))))).Decode([0, 0, 1, 0]),
            }
        )
        {
            var e = Assert.IsType<HeadroomException>(Bounded(work));
            Assert.Contains("replacements make", e.Message);
        }
    }

    [Fact]
    public void AnEmptyExpressionBeforeEachCharacter()
    {
        var growing = File(
            (
                "normalizer",
                Sequence("normalizers", 2, () => Replace(new() { ["Regex"] = "(?=a)" }, new string('a', 3000))))
        );
        Assert.IsType<HeadroomException>(Bounded(() => Load(growing).Encode(new string('a', 1000))));
    }

    [Fact]
    public void WhatModelsDoIsAllowed()
    {
        var marks = File(("normalizer", Sequence("normalizers", 3, () => Replace(new() { ["String"] = "b" }, "aab"))));
        Assert.Equal(7 * 10_000, Load(marks).Encode(string.Concat(Enumerable.Repeat("b", 10_000))).Length);
        var lines = File(("normalizer", Replace(new() { ["String"] = "\n" }, "aaaaaaaaaaaaaaaaaaaaaaaaa")));
        Assert.Equal(25 * 100_000, Load(lines).Encode(new string('\n', 100_000)).Length);
    }

    [Fact]
    public void ATemplateOfThousandsOfTokens()
    {
        var special = new JsonObject
        {
            ["x"] = new JsonObject
            {
                ["id"] = "x",
                ["ids"] = new JsonArray([.. Enumerable.Range(0, 1000).Select(_ => (JsonNode?)0)]),
            },
        };
        var single = new JsonArray([
            .. Enumerable
                .Range(0, 100)
                .Select(_ => (JsonNode?)new JsonObject { ["SpecialToken"] = new JsonObject { ["id"] = "x" } }),
        ]);
        var post = new JsonObject
        {
            ["type"] = "TemplateProcessing",
            ["single"] = single,
            ["special_tokens"] = special,
        };
        Assert.Contains(
            "more than 1024 tokens",
            Assert.IsType<HeadroomException>(Bounded(() => Load(File(("post_processor", post))))).Message);
    }

    [Fact]
    public void ExpressionsOfManyCharactersAboveTheFirstPlane()
    {
        var astral = new StringBuilder("[");
        for (int i = 0; i < 1000; i++) astral.Append(char.ConvertFromUtf32(0x10000 + i * 7));
        var split = new JsonObject
        {
            ["type"] = "Split",
            ["pattern"] = new JsonObject { ["Regex"] = astral.Append(']').ToString() },
            ["behavior"] = "Isolated",
        };
        Assert.True(
            Bounded(() => Load(File(("pre_tokenizer", split))).Encode("ab\U00010000a")) is null or HeadroomException);
    }

    [Theory]
    [InlineData("{\"a\": 0, \"b\": 2147483647}")]
    [InlineData("{\"a\": 0, \"b\": -1}")]
    [InlineData("{\"a\": 0, \"b\": 99999999999}")]
    public void IdsFarBeyondTheVocabulary(string vocab)
    {
        var json = File();
        json["model"]!["vocab"] = JsonNode.Parse(vocab);
        Assert.IsType<HeadroomException>(Bounded(() => Load(json)));
        var added = new JsonArray(new JsonObject { ["id"] = 2147483647, ["content"] = "x" });
        Assert.Contains(
            "2147483647", Assert.IsType<HeadroomException>(Bounded(() => Load(File(("added_tokens", added))))).Message);
    }
}
