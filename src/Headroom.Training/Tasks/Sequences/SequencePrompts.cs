using System.Text.Json.Nodes;
using Headroom.Tokenizers.Chat;
using Headroom.Training.Data.Forms;

namespace Headroom.Training.Tasks.Sequences;

/// <summary>Rows of a task that learns texts, up to where the model answers.</summary>
/// <param name="type">The task.</param>
/// <param name="encoder">Its encoder.</param>
internal sealed class SequencePrompts(SequenceType type, ExampleEncoder encoder) : IPrompts
{
    public int[] Encode(ColumnReader row) => encoder.Prompt(type.ReadPrompt(row));

    public int[] Encode(IReadOnlyList<ChatMessage> messages) => encoder.Prompt(type.PromptOf(messages));

    /// <summary>Messages of a conversation whose next turn is the model's.</summary>
    public static Conversation Conversation(IReadOnlyList<ChatMessage> messages) =>
        new(new JsonArray([.. messages.Select(m => (JsonNode)new JsonObject
        {
            ["role"] = m.Role,
            ["content"] = m.Content,
        })]), new bool[messages.Count]);
}
