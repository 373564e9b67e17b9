using Headroom.Tokenizers;
using Headroom.Tokenizers.Chat;
using Headroom.Training.Data.Forms;
using Headroom.Training.Recipes;

namespace Headroom.Training.Tasks.Sequences;

/// <summary>
/// Plain texts: every token is learned, with the token that ends a sequence. Long ones are read in windows.
/// </summary>
internal sealed class TextType : SequenceType
{
    public const string TypeName = "text";

    public override string Name => TypeName;
    public override IReadOnlyList<string> Keys =>
        ["data.text_field", "data.columns", "task.truncation", "task.stride"];
    protected override string[] Needed => ["text"];
    protected override Truncation UsualTruncation => Truncation.Windows;

    protected override Example ReadRow(ColumnReader row) => new PlainText(row.Text("text"));

    public override Example ReadPrompt(ColumnReader row) => new Completion(row.Text("text"), "");

    public override Example PromptOf(IReadOnlyList<ChatMessage> messages) => new Completion(messages[^1].Content, "");

    /// <summary>Ids with the token that ends a sequence behind them, once, where the tokenizer names one.</summary>
    internal static int[] Ended(ITokenizer tokenizer, int[] ids) =>
        tokenizer.EosId is { } eos && (ids.Length == 0 || ids[^1] != eos) ? [.. ids, eos] : ids;
}
