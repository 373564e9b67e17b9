using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Tokenizers;
using Headroom.Tokenizers.Chat;
using Headroom.Training.Tasks.Sequences;

namespace Headroom.Tests.Chat;

/// <summary>
/// What of a rendered conversation assistants write: exactly their content with the token that ends it, in templates of
/// every style and over conversations of every kind.
/// </summary>
public sealed class MaskTests(ITestOutputHelper output)
{
    /// <summary>A byte-level vocabulary of nothing but bytes and the template's special tokens.</summary>
    internal static BpeTokenizer Bytes(string[] specials)
    {
        string[] pieces = [.. ByteAlphabet.Chars.Select(c => c.ToString()), .. specials];
        var vocab = pieces.Take(256).Index().ToDictionary(p => p.Item, p => p.Index);
        int[] bytes = [.. Enumerable.Range(0, 256)];
        return new BpeTokenizer(new TokenizerParts
        {
            Model = new BpeModel(vocab, [], bytes, byteLevel: true, ignoreMerges: false, -1, fuseUnk: false),
            ByteLevel = true,
            Pieces = pieces,
            Ids = pieces.Index().ToDictionary(p => p.Item, p => p.Index),
            Eos = 256,
            SpecialTokens = [],
            Added = { },
        }.With(specials));
    }

    public static IEnumerable<ITheoryDataRow> Templates() =>
        MaskTemplates.All.Select(t => new TheoryDataRow<MaskTemplate>(t));

    internal static JsonObject Message(string role, string content) => new() { ["role"] = role, ["content"] = content };

    // The spans as texts, one a message, reasoning apart.
    internal static string Learned(MarkedText marked, int message, bool reasoning = false) => string.Concat(
        marked.Turns.Where(t => t.Message == message && t.Reasoning == reasoning)
            .Select(t => marked.Text[t.Start..t.End]));

    [Theory]
    [MemberData(nameof(Templates))]
    internal void TheMaskIsContentAndEndOfTurn(MaskTemplate t)
    {
        var template = new ChatTemplate(t.Source, Bytes(t.Specials));
        JsonArray messages =
        [
            Message("user", "Ask one"), Message("assistant", "Answer one"), Message("user", "Answer one"),
            Message("assistant", "Ask two, and\nmore"),
        ];
        var marked = template.RenderMarked(messages);
        output.WriteLine(marked.Text);
        Assert.Equal(template.Render(messages, false), marked.Text);
        Assert.Equal("Answer one" + t.End, Learned(marked, 1));
        Assert.Equal("Ask two, and\nmore" + (t.LastEnd ?? t.End), Learned(marked, 3));
        Assert.All(marked.Turns, s => Assert.True(s.Message is 1 or 3));
        Assert.Equal(t.End.Length == 0 ? [1, 3] : t.LastEnd == "" ? [3] : [], marked.Unclosed);
    }

    /// <summary>Any conversation: text equal to the unmarked one, spans in order and apart, and made of what the
    /// assistant said; with the contents that mislead a search, such as answers that a user repeats.</summary>
    [Fact]
    public void AnyConversationIsMarkedRight()
    {
        string[] words =
        [
            "yes", "no", "Ada", "<|im_end|>", "</s>", "[INST]", "\n", "  ", "é", "😀", "中文", "user", "</tool_call>",
            "{{ x }}", "\\", "\"",
        ];
        for (int round = 0; round < 600; round++)
        {
            var random = new PhiloxRandom(11, (uint)round);
            string Text() => string.Concat(
                Enumerable.Range(0, 1 + random.Next(6)).Select(_ => words[random.Next(words.Length)]));
            var t = MaskTemplates.All[random.Next(MaskTemplates.All.Length)];
            var messages = new JsonArray();
            int first = random.Next(2), pairs = 1 + random.Next(4);
            if (first == 1) messages.Add(Message("system", "S"));
            string? before = null;
            for (int i = 0; i < pairs; i++)
            {
                messages.Add(Message("user", before != null && random.Next(3) == 0 ? before : Text()));
                messages.Add(Message("assistant", before = "A" + Text() + "Z"));
            }
            var template = new ChatTemplate(t.Source, Bytes(t.Specials));
            var marked = template.RenderMarked(messages);
            Assert.Equal(template.Render(messages, false), marked.Text);
            int at = 0;
            foreach (var s in marked.Turns)
            {
                Assert.True(at <= s.Start && s.Start < s.End && s.End <= marked.Text.Length);
                at = s.End;
            }
            for (int i = 0; i < pairs; i++)
            {
                int message = first + 2 * i + 1;
                string said = (string)messages[message]!["content"]!,
                    end = i == pairs - 1 ? t.LastEnd ?? t.End : t.End;
                Assert.Equal(t.Name + said + end, t.Name + Learned(marked, message));
            }
        }
    }

    [Fact]
    public void CallsOfToolsAreLearnedWithWhatOpensThem()
    {
        JsonArray messages =
        [
            Message("user", "Weather?"),
            new JsonObject
            {
                ["role"] = "assistant",
                ["content"] = "",
                ["tool_calls"] = new JsonArray(new JsonObject
                {
                    ["type"] = "function",
                    ["function"] = new JsonObject
                    {
                        ["name"] = "get",
                        ["arguments"] = new JsonObject { ["city"] = "Oslo", ["days"] = 3 },
                    },
                }),
            },
            Message("tool", "rain"), Message("assistant", "It rains."),
        ];
        foreach (var t in MaskTemplates.All.Where(t => t.Tools))
        {
            var marked = new ChatTemplate(t.Source, Bytes(t.Specials)).RenderMarked(messages);
            string called = t.Name == "mistral-tools"
                ? "[TOOL_CALLS] [{\"name\": \"get\", \"arguments\": {\"city\": \"Oslo\", \"days\": 3}}]"
                : "\n<tool_call>\n{\"name\": \"get\", \"arguments\": {\"city\": \"Oslo\", \"days\": 3}}\n</tool_call>";
            Assert.Equal(called + t.End, Learned(marked, 1));
            Assert.EndsWith("It rains." + t.End, Learned(marked, 3), StringComparison.Ordinal);
        }
    }

    /// <summary>
    /// A message that leaves no mark of its own (an empty answer of a tool) does not lend its end token.
    /// </summary>
    [Fact]
    public void TheEndIsNotThatOfAnotherMessage()
    {
        string[] specials = ["<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"];
        const string source = "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
            + "{% if m.tool_calls %}{{ m.tool_calls[0].function | tojson }}{{ '<|eom_id|>' }}{% else %}"
            + "{{ m.content + '<|eot_id|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}"
            + "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";
        var call = Message("assistant", "");
        call["tool_calls"] = new JsonArray(new JsonObject
        {
            ["type"] = "function",
            ["function"] = new JsonObject { ["name"] = "f", ["arguments"] = new JsonObject { ["x"] = 1 } },
        });
        var marked = new ChatTemplate(source, Bytes(specials)).RenderMarked([
            Message("user", "a"), call, Message("tool", ""), Message("assistant", "b")]);
        Assert.Equal("{\"name\": \"f\", \"arguments\": {\"x\": 1}}<|eom_id|>", Learned(marked, 1));
        Assert.Equal("b<|eot_id|>", Learned(marked, 3));
    }

    /// <summary>Content as parts is split at its thought like content as a text.</summary>
    [Fact]
    public void ThoughtsInPartsAreThoughtsToo()
    {
        var t = MaskTemplates.All.Single(t => t.Name == "chatml-parts");
        var answer = new JsonObject
        {
            ["role"] = "assistant",
            ["content"] = new JsonArray(new JsonObject { ["type"] = "text", ["text"] = "<think>x</think>B" }),
        };
        var marked = new ChatTemplate(t.Source, Bytes(t.Specials)).RenderMarked([Message("user", "A"), answer]);
        Assert.Equal("<think>x</think>", Learned(marked, 1, reasoning: true));
        Assert.Equal("B<|im_end|>", Learned(marked, 1));
    }

    /// <summary>
    /// Composed characters move places (Qwen's NFC), runs of them too; each token is where its text is.
    /// </summary>
    [Theory]
    [InlineData("qwen3", "e\u0301 cafe\u0301s, A\u030A x \u0958 y")]
    [InlineData("qwen3", "plain text 😀 and e\u0301\u0301")]
    [InlineData("llama2", "  two blanks, é 😀 and \u4E2D  end ")]
    [InlineData("llama3", "tabs\tand 日本語 👩‍🚀")]
    [InlineData("deepseek-llm-7b", "né 中文  x")]
    public void OffsetsAreThoseOfTheText(string model, string text)
    {
        var tokenizer = TokenizerLoader.Load(Shared.DataFile("tokenizers/" + model));
        var (ids, offsets) = tokenizer.EncodeWithOffsets(text);
        Assert.Equal(tokenizer.Encode(text), ids);
        int at = 0;
        for (int i = 0; i < ids.Length; i++)
        {
            var (start, end) = offsets[i];
            Assert.True(at <= start && start <= end && end <= text.Length, $"{i}: {start} to {end} after {at}");
            at = start;
            // What decodes by itself and is written as it stands is at its place.
            string piece = tokenizer.Decode([ids[i]]).Trim();
            if (piece.Length > 0 && piece.All(char.IsAsciiLetterOrDigit))
                Assert.Equal(piece, text[start..end].Trim());
        }
        Assert.Equal(text.Length, offsets[^1].End);
    }

    [Fact]
    public void ThoughtsAreSpansOfTheirOwn()
    {
        var t = MaskTemplates.All.Single(t => t.Thinks);
        var template = new ChatTemplate(t.Source, Bytes(t.Specials));
        var field = Message("assistant", "B");
        field["reasoning_content"] = "because";
        foreach (var answer in (JsonObject[])[field, Message("assistant", "<think>\nbecause\n</think>\n\nB")])
        {
            var marked = template.RenderMarked([Message("user", "A?"), answer]);
            Assert.Equal("<think>\nbecause\n</think>\n\n", Learned(marked, 1, reasoning: true));
            Assert.Equal("B<|im_end|>", Learned(marked, 1));
        }
        // An empty thought is given to the model, not written by it; and earlier thoughts are not in the text.
        var plain = template.RenderMarked([Message("user", "A?"), Message("assistant", "B")]);
        Assert.Contains("<think>\n\n</think>\n\nB", plain.Text, StringComparison.Ordinal);
        Assert.Equal("B<|im_end|>", Learned(plain, 1));
        Assert.Empty(Learned(plain, 1, reasoning: true));
        var earlier = template.RenderMarked([
            Message("user", "A?"), Message("assistant", "<think>x</think>B"), Message("user", "C?"),
            Message("assistant", "D")]);
        Assert.Equal("B<|im_end|>", Learned(earlier, 1));
        Assert.Equal("D<|im_end|>", Learned(earlier, 3));
    }

    [Theory]
    [InlineData("{{ m.content | upper }}", "ANSWER")]
    [InlineData("{{ m.content.title() }}", "Answer")]
    [InlineData("{{ m.content | replace('s', 'zz') }}", "anzzwer")]
    [InlineData("{{ m.content | reverse }}", "rewsna")]
    [InlineData("{{ m.content.center(12) }}", "answer")]
    [InlineData("{{ m.content.zfill(8) }}", "answer")]
    [InlineData("{{ (m.content * 2) }}", "answeranswer")]
    [InlineData("{{ m.content.removeprefix('an') }}", "swer")]
    [InlineData("{{ m.content.split('s') | join('-') }}", "an,wer")]
    [InlineData("{{ m.content.rsplit('s', 1)[1] }}", "wer")]
    [InlineData("{{ m.content.splitlines()[0] | indent(2, true) }}", "answer")]
    [InlineData("{{ [m.content] | string }}", "answer")]
    [InlineData("{{ m.content | tojson }}", "answer")]
    [InlineData("{{ m.content | list | join('.') }}", "a,n,s,w,e,r")]
    [InlineData("{{ m.content | first }}{{ m.content[-1] }}", "ar")]
    [InlineData("{{ m.content[::2] }}", "ase")]
    [InlineData("{{ dict(x=m.content).x }}", "answer")]
    [InlineData("{{ [m.content, 'q'] | map('trim') | join }}", "answer")]
    public void MarksGoThroughEveryOperation(string use, string learned)
    {
        string source = "{% for m in messages %}{% if m.role == 'assistant' %}<<" + use + ">>{% endif %}{% endfor %}";
        var marks = new Provenance();
        var messages = new MessageMarks(marks).Read([Message("user", "ask"), Message("assistant", "answer")]);
        string text = JinjaInterpreter.Render(
            JinjaParser.Parse(source), new PyDict { ["messages"] = messages }, DateTimeOffset.UnixEpoch, marks,
            out var found);
        string[] stretches = [.. found.Select(f => text[f.Start..f.End])];
        Assert.Equal(learned, string.Join(",", stretches));
        Assert.All(found, f => Assert.Equal((1, Origin.Content), (f.Message, f.Origin)));
    }

    /// <summary>What changes its length in a way that has no places.</summary>
    [Fact]
    public void WhatCannotBeFollowedIsRefusedByName()
    {
        string source = "{% for m in messages %}{{ m.content | upper }}{% endfor %}";
        var template = new ChatTemplate(source, Bytes(["</s>"]));
        var answer = Message("assistant", "<think>straße</think>groß");
        Assert.Equal("<THINK>STRASSE</THINK>GROSS", template.Render(new JsonArray(answer.DeepClone()), false));
        var e = Assert.Throws<HeadroomException>(() => template.RenderMarked([answer]));
        Assert.Contains("upper of a message's text", e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("llama3")]
    [InlineData("qwen3")]
    [InlineData("deepseek-v3")]
    [InlineData("smollm2")]
    public void RealTemplatesAndTokenizers(string model)
    {
        var tokenizer = TokenizerLoader.Load(Shared.DataFile("tokenizers/" + model));
        var template = ChatTemplate.Get(tokenizer);
        string[] said = ["Paris, naïve 😀 日本語.", "It is 4.\n"];
        JsonArray messages =
        [
            Message("user", "Paris?"), Message("assistant", said[0]), Message("user", "2+2"),
            Message("assistant", said[1]),
        ];
        var now = DateTimeOffset.UnixEpoch;
        var marked = template.RenderMarked(messages, now: now);
        Assert.Equal(template.Render(messages, false, now: now), marked.Text);
        var (ids, offsets) = tokenizer.EncodeWithOffsets(marked.Text);
        Assert.Equal(tokenizer.Encode(marked.Text), ids);
        string end = model switch
        {
            "llama3" => "<|eot_id|>",
            "deepseek-v3" => "<｜end▁of▁sentence｜>",
            _ => "<|im_end|>",
        };
        for (int i = 0; i < 2; i++)
        {
            string learned = Learned(marked, 2 * i + 1);
            string expected = model is "llama3" ? said[i].Trim() : said[i];
            Assert.Equal(expected.Trim() + end, learned.Replace(expected, expected.Trim(), StringComparison.Ordinal));
            var spans = TokenSpans.Find([.. marked.Turns.Where(t => t.Message == 2 * i + 1)], offsets);
            Assert.Equal(learned, string.Concat(spans.Select(s => tokenizer.Decode(ids.AsSpan(s.Start..s.End)))));
        }
    }
}

file static class PartsExtensions
{
    /// <summary>With special tokens behind the bytes.</summary>
    public static TokenizerParts With(this TokenizerParts parts, string[] specials)
    {
        foreach (var (i, s) in specials.Index()) parts.Added.Add(new AddedToken(256 + i, s));
        return parts;
    }
}
