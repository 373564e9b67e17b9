using Headroom.Tokenizers.Chat;
using Headroom.Training.Data.Forms;
using Headroom.Training.Recipes;

namespace Headroom.Training.Tasks.Sequences;

/// <summary>Conversations: what the assistant says is learned, turn by turn, with the token that ends each.</summary>
internal sealed class ConversationType : SequenceType
{
    // Of the two ways to write one, that of the file at hand.
    private const string Messages = "messages", Conversations = "conversations";

    public override string Name => "conversation";
    public override IReadOnlyList<string> Keys => [.. base.Keys, "task.train_on_reasoning", "task.last_turn_only"];
    protected override string[] Needed => [Messages];
    protected override string[] More => [Conversations, "system", "tools", "chat_template_kwargs"];

    protected override Example ReadRow(ColumnReader row) =>
        ConversationReader.Read(row, row.Find(Conversations) != null ? Conversations : Messages);

    public override Example ReadPrompt(ColumnReader row) =>
        ConversationReader.ReadPrompt(row, row.Find(Conversations) != null ? Conversations : Messages);

    public override Example PromptOf(IReadOnlyList<ChatMessage> messages) => SequencePrompts.Conversation(messages);

    public override string? Recognize(IReadOnlyCollection<string> columns, DataOptions data) =>
        base.Recognize(columns, data)
        ?? (columns.Contains(data.Column(Conversations)) ? $"{Name} ({data.Column(Conversations)})" : null);
}
