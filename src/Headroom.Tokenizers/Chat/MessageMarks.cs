using System.Text.Json.Nodes;

namespace Headroom.Tokenizers.Chat;

/// <summary>Messages as values of a template, their texts marked with where they come from.</summary>
/// <param name="marks">Knows them.</param>
internal sealed class MessageMarks(Provenance marks)
{
    /// <summary>What models write where a thought in their content ends.</summary>
    public const string ThoughtEnd = "</think>";

    // What models write of their thoughts beside the content, by the names that templates read.
    private static readonly string[] Thoughts = ["reasoning_content", "reasoning", "thinking", "thought", "tool_plan"];

    // What a template looks at and a model does not write.
    private static readonly string[] Plain = ["role", "name", "type", "tool_call_id"];

    /// <summary>The messages as a list of mappings.</summary>
    public List<object?> Read(JsonArray messages) => [.. messages.Select(Message)];

    private object? Message(JsonNode? node, int index)
    {
        if (node is not JsonObject message) return JinjaValues.From(node);
        bool assistant = message["role"] is JsonValue role && role.TryGetValue(out string? name)
            && name is "assistant" or "model";
        var values = new PyDict();
        foreach (var (key, value) in message)
            values[key] = Plain.Contains(key) ? JinjaValues.From(value)
                : !assistant ? Marked(value, index, Origin.Other)
                : Thoughts.Contains(key) ? Marked(value, index, Origin.Reasoning)
                : key is "tool_calls" or "function_call" ? Marked(value, index, Origin.Call)
                : key == "content" ? Content(value, index)
                : JinjaValues.From(value);
        return values;
    }

    // Names of an object too, since those of arguments are written out; a type is looked at and not written.
    private object? Marked(JsonNode? value, int index, Origin origin) =>
        Values(value, text => marks.Add(text, new Mark(0, text.Length, index, origin)));

    private object? Content(JsonNode? value, int index)
    {
        if (value is JsonArray parts) return parts.Select(p => Content(p, index)).ToList();
        if (value is JsonObject part && Thoughts.Any(part.ContainsKey)) return Marked(part, index, Origin.Reasoning);
        return Values(value, text =>
        {
            int thought = text.LastIndexOf(ThoughtEnd, StringComparison.Ordinal);
            if (thought < 0) return marks.Add(text, new Mark(0, text.Length, index, Origin.Content));
            thought += ThoughtEnd.Length;
            var first = new Mark(0, thought, index, Origin.Reasoning);
            return thought == text.Length ? marks.Add(text, first)
                : marks.Add(text, first, new Mark(thought, text.Length, index, Origin.Content));
        });
    }

    private static object? Values(JsonNode? value, Func<string, string> mark)
    {
        if (value is JsonArray list) return list.Select(v => Values(v, mark)).ToList();
        if (value is not JsonObject part || !part.ContainsKey("type")) return JinjaValues.From(value, mark);
        var values = new PyDict();
        foreach (var (key, inner) in part)
            values[key] = key == "type" ? JinjaValues.From(inner) : Values(inner, mark);
        return values;
    }
}
