using System.Text.Json.Nodes;
using Headroom.Formats.Data;

namespace Headroom.Training.Data.Forms;

/// <summary>A row that is more than a text with a label.</summary>
internal abstract record Example
{
    /// <summary>All of its texts, which tell it apart from other rows: of equal ones two are the same row.</summary>
    public abstract string Words { get; }
}

/// <summary>A conversation, as chat templates take it.</summary>
/// <param name="Messages">Objects with role, content and whatever else the template reads.</param>
/// <param name="Learned">For each message whether it is an assistant's that the row is to teach.</param>
internal sealed record Conversation(JsonArray Messages, IReadOnlyList<bool> Learned) : Example
{
    /// <summary>Variables of the template beside the messages: tools, and what chat_template_kwargs holds.</summary>
    public JsonObject? Variables { get; init; }

    /// <inheritdoc/>
    public override string Words => string.Join('\n', Messages.Select(m => Said(m!.AsObject())));

    // Calls of tools have no content; they are what was said then.
    private static string Said(JsonObject message) =>
        message["content"] is { } content && content.GetValueKind() == System.Text.Json.JsonValueKind.String
            && content.GetValue<string>() is { Length: > 0 } text
            ? text
            : message["tool_calls"]?.ToJsonString() ?? "";
}

/// <summary>A text that is learned as it is.</summary>
/// <param name="Text">The text.</param>
internal sealed record PlainText(string Text) : Example
{
    /// <inheritdoc/>
    public override string Words => Text;
}

/// <summary>A prompt and its answer, as plain texts that follow one another.</summary>
/// <param name="Prompt">What is given.</param>
/// <param name="Answer">What is learned, from its first character on.</param>
internal sealed record Completion(string Prompt, string Answer) : Example
{
    /// <inheritdoc/>
    public override string Words => Prompt + "\n" + Answer;
}

/// <summary>An instruction with its answer (the form of Stanford Alpaca).</summary>
/// <param name="Instruct">What is asked.</param>
/// <param name="Input">What it is asked about; may be empty.</param>
/// <param name="Output">The answer.</param>
/// <param name="System">What a system message says, or null.</param>
/// <param name="History">Earlier instructions with their answers.</param>
internal sealed record Instruction(
    string Instruct, string Input, string Output, string? System,
    IReadOnlyList<(string Instruct, string Output)> History) : Example
{
    /// <inheritdoc/>
    public override string Words => string.Join('\n', History.Select(h => h.Instruct + "\n" + h.Output)
        .Append(Instruct).Append(Input).Append(Output));

    /// <summary>
    /// As a conversation, for models with a chat template: instruction and input are what the user says.
    /// </summary>
    public Conversation ToConversation()
    {
        var messages = ToPrompt().Messages;
        messages.Add(Message("assistant", Output));
        return new Conversation(messages, [.. messages.Select(m => (string)m!["role"]! == "assistant")]);
    }

    /// <summary>The same without the answer.</summary>
    public Conversation ToPrompt()
    {
        var messages = new JsonArray();
        if (System is { Length: > 0 }) messages.Add(Message("system", System));
        foreach (var (instruct, output) in History)
        {
            messages.Add(Message("user", instruct));
            messages.Add(Message("assistant", output));
        }
        messages.Add(Message("user", Input.Length == 0 ? Instruct : Instruct + "\n" + Input));
        return new Conversation(messages, new bool[messages.Count]);
    }

    /// <summary>
    /// As a prompt, for models without a chat template: the two prompts of Stanford Alpaca's train.py.
    /// </summary>
    public Completion ToCompletion()
    {
        var prompt = new System.Text.StringBuilder();
        if (System is { Length: > 0 }) prompt.Append(System).Append("\n\n");
        foreach (var (instruct, output) in History) prompt.Append(Alpaca(instruct, "")).Append(output).Append("\n\n");
        return new Completion(prompt.Append(Alpaca(Instruct, Input)).ToString(), Output);
    }

    private static string Alpaca(string instruct, string input) => input.Length == 0
        ? "Below is an instruction that describes a task. Write a response that appropriately completes the "
            + $"request.\n\n### Instruction:\n{instruct}\n\n### Response:\n"
        : "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
            + $"response that appropriately completes the request.\n\n### Instruction:\n{instruct}\n\n### Input:\n"
            + $"{input}\n\n### Response:\n";

    private static JsonObject Message(string role, string content) => new() { ["role"] = role, ["content"] = content };
}

/// <summary>A row of a file with what was read of it.</summary>
/// <param name="Example">What it holds.</param>
/// <param name="Where">File and row, for messages.</param>
internal sealed record ExampleRow(Example Example, string Where) : DataRow(Example.Words, "");
