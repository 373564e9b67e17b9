using System.Text.Json.Nodes;
using Headroom.Tokenizers;
using Headroom.Tokenizers.Chat;
using static Headroom.Tests.Chat.MaskTests;

namespace Headroom.Tests.Chat;

/// <summary>Where thoughts, calls and ends of turns begin and end in templates that do it in their own way.</summary>
public sealed class MaskEdgeTests
{
    private const string Call =
        "<tool_call>\n{\"name\": \"get\", \"arguments\": {\"city\": \"Oslo\", \"days\": 3}}\n</tool_call>";

    private static JsonObject Calling(string content, string? thought = null)
    {
        var message = Message("assistant", content);
        message["tool_calls"] = new JsonArray(new JsonObject
        {
            ["type"] = "function",
            ["function"] = new JsonObject
            {
                ["name"] = "get",
                ["arguments"] = new JsonObject { ["city"] = "Oslo", ["days"] = 3 },
            },
        });
        if (thought != null) message["reasoning_content"] = thought;
        return message;
    }

    private static ChatTemplate Real(string model) =>
        ChatTemplate.Get(TokenizerLoader.Load(Shared.DataFile("tokenizers/" + model)));

    // Spans of the last message, its thoughts in brackets.
    private static string Shown(MarkedText marked, int message) => string.Concat(
        marked.Turns.Where(t => t.Message == message)
            .Select(t => t.Reasoning ? $"[{marked.Text[t.Start..t.End]}]" : marked.Text[t.Start..t.End]));

    /// <summary>The call is the assistant's with what opens it, whether or not a thought is learned; and an empty
    /// thought is not learned before a call either.</summary>
    [Fact]
    public void ThoughtsBeforeCalls()
    {
        var template = Real("qwen3");
        string Last(JsonObject answer) => Shown(template.RenderMarked([Message("user", "Q"), answer]), 1);
        Assert.Equal("[<think>\nwhy\n</think>\n\n]" + Call + "<|im_end|>", Last(Calling("", "why")));
        Assert.Equal(Call + "<|im_end|>", Last(Calling("")));
        Assert.Equal("Look:\n" + Call + "<|im_end|>", Last(Calling("Look:")));
        Assert.Equal(
            "[<think>\nwhy\n</think>\n\n]Look:\n" + Call + "<|im_end|>", Last(Calling("<think>\nwhy\n</think>\n\nLook:")));
    }

    [Fact]
    public void ThoughtsInContentBeforeCalls()
    {
        var template = new ChatTemplate(
            "{% for m in messages %}<|im_start|>{{ m.role + '\n' + m.content }}{% for c in m.tool_calls %}{{ '\n<tool_call>' + c.function.name }}"
                + "{% endfor %}<|im_end|>\n{% endfor %}",
            Bytes(["<|im_end|>", "<|im_start|>"]));
        var marked = template.RenderMarked([Message("user", "Q"), Calling("<think>why</think>")]);
        Assert.Equal("[<think>why</think>\n]<tool_call>get<|im_end|>", Shown(marked, 1));
    }

    [Fact]
    public void ThoughtsInParts()
    {
        var template = new ChatTemplate(
            "{% for m in messages %}<|im_start|>{{ m.role + '\n' }}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
                + "{% if p.type == 'thinking' %}<think>{{ p.thinking }}</think>{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}",
            Bytes(["<|im_end|>", "<|im_start|>"]));
        static JsonObject Part(string type, string key, string text) => new() { ["type"] = type, [key] = text };
        var answer = new JsonObject
        {
            ["role"] = "assistant",
            ["content"] = new JsonArray(Part("thinking", "thinking", "why"), Part("text", "text", "B")),
        };
        Assert.Equal(
            "[<think>why</think>]B<|im_end|>", Shown(template.RenderMarked([Message("user", "Q"), answer]), 1));
        var inText = new JsonObject
        {
            ["role"] = "assistant",
            ["content"] = new JsonArray(Part("text", "text", "<think>why</think>B")),
        };
        Assert.Equal(
            "[<think>why</think>]B<|im_end|>", Shown(template.RenderMarked([Message("user", "Q"), inText]), 1));
    }

    /// <summary>A template that refuses the conversation up to the call says nothing about where that opens.</summary>
    [Fact]
    public void TemplatesThatRefuseThePrompt()
    {
        var template = new ChatTemplate(
            "{% if messages[-1].role == 'user' %}{{ raise_exception('no') }}{% endif %}{% for m in messages %}"
                + "<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls %}<call>{{ c.function.name }}{% endfor %}<|im_end|>\n{% endfor %}",
            Bytes(["<|im_end|>", "<|im_start|>"]));
        var marked = template.RenderMarked([Message("user", "Q"), Calling("")]);
        Assert.Equal("get<|im_end|>", Shown(marked, 1));
    }

    /// <summary>Special tokens that the vocabulary looks for in the normalized text end a turn too.</summary>
    [Fact]
    public void EndTokensOfANormalizedText()
    {
        var tokenizer = TokenizerLoader.Load(Shared.DataFile("tokenizers/deepseek-llm-7b"));
        var template = new ChatTemplate(
            "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ 'User: ' + m.content + '\n\n' }}{% else %}{{ 'Assistant: ' + m.content + eos_token }}{% endif %}{% endfor %}",
            tokenizer);
        var marked = template.RenderMarked(
            [Message("user", "Q"), Message("assistant", "A"), Message("user", "R"), Message("assistant", "B")]);
        Assert.Empty(marked.Unclosed);
        Assert.Equal("A<｜end▁of▁sentence｜>", Learned(marked, 1));
        Assert.Equal("B<｜end▁of▁sentence｜>", Learned(marked, 3));
    }

    [Theory]
    [InlineData("{% set p = m.content.partition(' ') %}{{ p[1] + p[2] }}", " b c")]
    [InlineData("{% set p = m.content.rpartition(' ') %}{{ p[0] + p[1] }}", "a b ")]
    [InlineData("{{ m.content[1:-1] }}", " b ")]
    [InlineData("{{ m.content[-2:9] }}", " c")]
    [InlineData("{{ m.content[3:1] }}", "")]
    [InlineData("{{ (m.content ~ '😀')[1:] }}", " b c")]
    [InlineData("{{ messages[0].content.replace('ask', m.content) }}", "a b c")]
    public void MarksOfParts(string use, string learned)
    {
        string source = "{% for m in messages %}{% if m.role == 'assistant' %}<<" + use + ">>{% endif %}{% endfor %}";
        var marks = new Provenance();
        var messages = new MessageMarks(marks).Read([Message("user", "ask"), Message("assistant", "a b c")]);
        string text = JinjaInterpreter.Render(
            JinjaParser.Parse(source), new PyDict { ["messages"] = messages }, DateTimeOffset.UnixEpoch, marks,
            out var found);
        Assert.Equal(
            learned,
            string.Concat(found.Where(f => f.Origin == Origin.Content).Select(f => text[f.Start..f.End])));
    }

    /// <summary>A text of the template that takes in a message.</summary>
    [Fact]
    public void ReplacingInATextOfTheTemplate()
    {
        var template = new ChatTemplate(
            "{% for m in messages %}{{ 'said: X</s>' | replace('X', m.content) }}{% endfor %}", Bytes(["</s>"]));
        var marked = template.RenderMarked([Message("user", "b"), Message("assistant", "a")]);
        Assert.Equal("said: b</s>said: a</s>", marked.Text);
        Assert.Equal("a</s>", Learned(marked, 1));
    }
}
