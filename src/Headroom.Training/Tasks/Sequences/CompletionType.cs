using Headroom.Formats.Data;
using Headroom.Tokenizers;
using Headroom.Training.Data.Forms;
using Headroom.Training.Recipes;

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

    protected override Func<DataRow, SequenceTokens> Encoder(TaskOptions task, ITokenizer tokenizer) =>
        new ExampleEncoder(task, tokenizer).Encode;
}
