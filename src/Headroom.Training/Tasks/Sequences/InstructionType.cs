using System.Text.Json.Nodes;
using Headroom.Tokenizers.Chat;
using Headroom.Training.Data.Forms;

namespace Headroom.Training.Tasks.Sequences;

/// <summary>
/// Instructions with an input and an output (Stanford Alpaca's form): a conversation of a model with a chat template,
/// of others Alpaca's prompt; the output is learned.
/// </summary>
internal sealed class InstructionType : SequenceType
{
    public override string Name => "instruction";
    public override IReadOnlyList<string> Keys => [.. base.Keys, "task.train_on_reasoning", "task.last_turn_only"];
    protected override string[] Needed => ["instruction", "output"];
    protected override string[] More => ["input", "system", "history"];

    protected override Example ReadRow(ColumnReader row) =>
        new Instruction(
            row.Text("instruction"), row.OptionalText("input"), row.Text("output"),
            row.OptionalText("system") is { Length: > 0 } system ? system : null, History(row));

    public override Example ReadPrompt(ColumnReader row) =>
        new Instruction(
            row.Text("instruction"), row.OptionalText("input"), "",
            row.OptionalText("system") is { Length: > 0 } system ? system : null, History(row));

    public override Example PromptOf(IReadOnlyList<ChatMessage> messages)
    {
        string? system = messages is [{ Role: "system" } first, ..] ? first.Content : null;
        var turns = messages.Skip(system == null ? 0 : 1).Select(m => m.Content).ToList();
        var history = turns.SkipLast(1).Chunk(2).Where(p => p.Length == 2).Select(p => (p[0], p[1]));
        return new Instruction(turns[^1], "", "", system, [.. history]);
    }

    private static List<(string, string)> History(ColumnReader row)
    {
        var history = new List<(string, string)>();
        if (row.Find("history") is not { } given) return history;
        if (ColumnReader.Unpacked(given) is JsonArray { Count: 0 }) return history;
        foreach (var pair in row.List("history"))
            history.Add(pair is JsonArray { Count: 2 } two
                ? (row.Text("history", two[0]), row.Text("history", two[1]))
                : throw row.Bad(
                    $"an item of 'history' is {ColumnReader.Kind(pair)}", "Give pairs: [[instruction, output], ...]"));
        return history;
    }
}
