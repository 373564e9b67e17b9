using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;

namespace Headroom.Training.Data.Forms;

/// <summary>
/// Conversations in the two ways that data sets write them: messages with role and content (OpenAI's, which chat
/// templates take), and turns with from and value (ShareGPT's, read as LLaMA-Factory and Axolotl read them).
/// </summary>
internal static class ConversationReader
{
    private const string User = "user", Assistant = "assistant";

    // What the speakers of ShareGPT's turns, and of messages, are called.
    private static readonly Dictionary<string, string> Roles = new(StringComparer.OrdinalIgnoreCase)
    {
        ["system"] = "system",
        ["developer"] = "developer",
        ["user"] = User,
        ["human"] = User,
        ["assistant"] = Assistant,
        ["gpt"] = Assistant,
        ["chatgpt"] = Assistant,
        ["bing"] = Assistant,
        ["bard"] = Assistant,
        ["model"] = Assistant,
        ["bot"] = Assistant,
        ["tool"] = "tool",
        ["function"] = "tool",
        ["observation"] = "tool",
        ["ipython"] = "tool",
        ["function_call"] = Assistant,
    };

    /// <summary>A conversation in a column, with the tools and template variables in others.</summary>
    /// <param name="row">The record.</param>
    /// <param name="column">messages, conversations, prompt and so on.</param>
    public static Conversation Read(ColumnReader row, string column) =>
        Check(row, Parse(row, row.List(column), column));

    /// <summary>A prompt and an answer, each in messages; the answer's are learned.</summary>
    public static Conversation ReadPair(ColumnReader row, string prompt, string answer)
    {
        var (first, second) = (Parse(row, row.List(prompt), prompt), Parse(row, row.List(answer), answer));
        bool[] learned = [.. first.Learned.Select(_ => false), .. second.Learned];
        JsonNode[] all = [.. first.Messages.Concat(second.Messages).Select(m => m!.DeepClone())];
        return Check(row, first with { Messages = new JsonArray(all), Learned = learned });
    }

    /// <summary>A conversation up to where its assistant would answer: without a last turn of its own.</summary>
    public static Conversation ReadPrompt(ColumnReader row, string column)
    {
        var c = Parse(row, row.List(column), column);
        while (c.Messages.Count > 0 && (string)c.Messages[^1]!["role"]! == Assistant)
            c.Messages.RemoveAt(c.Messages.Count - 1);
        return c.Messages.Count > 0 ? c
            : throw row.Bad("nothing stands before the answer", "Give what is to be answered");
    }

    private static Conversation Parse(ColumnReader row, JsonArray turns, string column)
    {
        var messages = new JsonArray();
        var learned = new List<bool>();
        // ShareGPT keeps the system's words beside the turns.
        if (column == "conversations" && row.OptionalText("system") is { Length: > 0 } system)
        {
            messages.Add(new JsonObject { ["role"] = "system", ["content"] = system });
            learned.Add(false);
        }
        for (int i = 0; i < turns.Count; i++)
        {
            if (turns[i] is not JsonObject turn)
                throw row.Bad(
                    $"message {i + 1} is {ColumnReader.Kind(turns[i])}, not an object", "Give each as {role, content}");
            messages.Add(Message(row, turn, i + 1, out bool teaches));
            learned.Add(teaches);
        }
        return new Conversation(messages, learned) { Variables = Variables(row) };
    }

    private static JsonObject Message(ColumnReader row, JsonObject turn, int number, out bool teaches)
    {
        string roleKey = turn.ContainsKey("role") ? "role" : "from",
            contentKey = turn.ContainsKey("content") || !turn.ContainsKey("value") ? "content" : "value";
        string spoken = turn[roleKey] is JsonValue v && v.GetValueKind() == JsonValueKind.String
            ? v.GetValue<string>()
            : throw row.Bad(
                $"message {number} has no role ({HeadroomException.List(turn.Select(t => t.Key))})",
                "Give each message a role and a content");
        if (!Roles.TryGetValue(spoken, out string? role))
            throw row.Bad(
                $"message {number} has the role '{HeadroomException.Value(spoken)}'",
                "Use system, user, assistant or tool");
        var message = new JsonObject { ["role"] = role };
        if (string.Equals(spoken, "function_call", StringComparison.OrdinalIgnoreCase))
            message["tool_calls"] = Calls(row, ColumnReader.Unpacked(turn[contentKey]), number);
        else message["content"] = Content(row, turn[contentKey], number, HasMore(turn));
        foreach (var (key, value) in turn)
            if (key != roleKey && key != contentKey && key is not ("weight" or "train") && value != null)
                message[key] = key == "tool_calls" ? Calls(row, value, number) : value.DeepClone();
        teaches = role == Assistant && IsWanted(row, turn, number);
        bool silent = message["content"] is JsonValue said && string.IsNullOrWhiteSpace((string?)said);
        if (teaches && silent && !HasMore(turn))
            throw row.Bad(
                $"message {number} of the assistant is empty", "Give it something to say, or \"weight\": 0");
        return message;
    }

    // An assistant that thinks or calls a tool may say nothing beside.
    private static bool HasMore(JsonObject turn) =>
        turn["tool_calls"] is JsonArray { Count: > 0 } or JsonValue || turn["function_call"] != null
        || turn["reasoning_content"] != null;

    private static JsonNode? Content(ColumnReader row, JsonNode? content, int number, bool mayBeMissing)
    {
        switch (content)
        {
            case null:
                return mayBeMissing ? "" : throw row.Bad(
                    $"message {number} has no content", "Give each message a role and a content");
            case JsonArray parts:
                var text = new System.Text.StringBuilder();
                foreach (var part in parts)
                    text.Append(part is JsonObject o && Word(o["type"]) is "text" && Word(o["text"]) is { } said
                        ? said
                        : throw row.Bad(
                            $"message {number} has a part that is no text"
                                + (part is JsonObject p && Word(p["type"]) is { } type
                                    ? $" ({HeadroomException.Value(type)})" : ""),
                            "Give content as a string, or as parts {type: text, text: ...}"));
                return text.ToString();
            default:
                return row.Text($"content of message {number}", content, blank: true);
        }
    }

    // As templates want them: a list of {type: function, function: {name, arguments}} with arguments as an object
    // (transformers, "Tool use"); OpenAI's have them as JSON text.
    private static JsonArray Calls(ColumnReader row, JsonNode? value, int number)
    {
        var given = ColumnReader.Unpacked(value);
        var calls = new JsonArray();
        foreach (var item in given is JsonArray list ? list : [given?.DeepClone()])
        {
            var call = ColumnReader.Unpacked(item) as JsonObject;
            var function = call?["function"] as JsonObject ?? call;
            if (function == null || Word(function["name"]) is not { Length: > 0 })
                throw row.Bad(
                    $"message {number} has a tool call without a name",
                    "Give each as {type: function, function: {name, arguments}}");
            var whole = (JsonObject)call!.DeepClone();
            if (call["function"] == null) whole = new() { ["type"] = "function", ["function"] = whole };
            var inner = whole["function"]!.AsObject();
            inner["arguments"] = ColumnReader.Unpacked(inner["arguments"])?.DeepClone() ?? new JsonObject();
            calls.Add(whole);
        }
        return calls;
    }

    // weight of OpenAI's fine-tuning files, train of Axolotl's.
    private static bool IsWanted(ColumnReader row, JsonObject turn, int number)
    {
        foreach (string key in (string[])["weight", "train"])
            switch (turn[key])
            {
                case null: continue;
                case JsonValue v when v.TryGetValue(out bool flag): return flag;
                case JsonValue v when v.GetValueKind() == JsonValueKind.Number
                    && v.GetValue<double>() is 0 or 1:
                    return v.GetValue<double>() == 1;
                default:
                    throw row.Bad(
                        $"message {number} has the {key} {HeadroomException.Value(turn[key]!.ToJsonString())}",
                        "Use 0 or 1, or leave it out");
            }
        return true;
    }

    private static JsonObject? Variables(ColumnReader row)
    {
        JsonObject? variables = null;
        if (row.Find("tools") is { } tools)
            (variables ??= [])["tools"] = ColumnReader.Unpacked(tools) is JsonArray list ? list.DeepClone()
                : throw row.Bad($"tools is {ColumnReader.Kind(tools)}, not a list", "Give it as a list of functions");
        if (row.Find("chat_template_kwargs") is { } more)
            foreach (var (key, value) in ColumnReader.Unpacked(more) as JsonObject
                ?? throw row.Bad(
                    $"chat_template_kwargs is {ColumnReader.Kind(more)}, not an object", "Give it as an object"))
                (variables ??= [])[key] = value?.DeepClone();
        return variables;
    }

    private static Conversation Check(ColumnReader row, Conversation conversation) =>
        conversation.Learned.Contains(true) ? conversation : throw row.Bad(
            conversation.Messages.Any(m => (string)m!["role"]! == Assistant)
                ? "no message of an assistant is to be learned" : "no message of an assistant",
            "A conversation teaches what its assistant says: give it an answer, or drop the row");

    private static string? Word(JsonNode? value) =>
        value is JsonValue && value.GetValueKind() == JsonValueKind.String ? value.GetValue<string>() : null;
}
