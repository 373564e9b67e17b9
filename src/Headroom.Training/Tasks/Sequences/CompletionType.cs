using Headroom.Tokenizers.Chat;
using Headroom.Training.Data.Forms;

namespace Headroom.Training.Tasks.Sequences;

/// <summary>Prompts with completions, both texts or both messages; the completion is learned (TRL's form).</summary>
internal sealed class CompletionType : SequenceType
{
    public override string Name => "completion";
    public override IReadOnlyList<string> Keys => [.. base.Keys, "task.train_on_reasoning"];
    protected override string[] Needed => ["prompt", "completion"];
    protected override string[] More => ["tools", "chat_template_kwargs"];

    protected override Example ReadRow(ColumnReader row) =>
        row.HoldsList("prompt") || row.HoldsList("completion")
            ? ConversationReader.ReadPair(row, "prompt", "completion")
            : new Completion(row.OptionalText("prompt"), row.Text("completion"));

    public override Example ReadPrompt(ColumnReader row) =>
        row.HoldsList("prompt") ? ConversationReader.ReadPrompt(row, "prompt") : new Completion(row.Text("prompt"), "");

    // Rows of both kinds are of this form; a conversation of one message is a plain text to it.
    public override Example PromptOf(IReadOnlyList<ChatMessage> messages) => messages.Count == 1
        ? new Completion(messages[0].Content, "") : SequencePrompts.Conversation(messages);
}
