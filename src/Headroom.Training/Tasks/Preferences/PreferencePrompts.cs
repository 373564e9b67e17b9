using Headroom.Tokenizers.Chat;
using Headroom.Training.Data.Forms;
using Headroom.Training.Tasks.Sequences;

namespace Headroom.Training.Tasks.Preferences;

/// <summary>Prompts of preferences: texts, or messages.</summary>
/// <param name="encoder">Of the task.</param>
internal sealed class PreferencePrompts(ExampleEncoder encoder) : IPrompts
{
    public int[] Encode(ColumnReader row) => encoder.Prompt(
        row.HoldsList(PreferenceType.Prompt)
            ? ConversationReader.ReadPrompt(row, PreferenceType.Prompt)
            : new Completion(row.Text(PreferenceType.Prompt), ""));

    public int[] Encode(IReadOnlyList<ChatMessage> messages) =>
        encoder.Prompt(SequencePrompts.Conversation(messages));
}
