using Headroom.Core;
using Headroom.Tokenizers.Chat;
using Headroom.Training.Data.Forms;

namespace Headroom.Training.Tasks.LabelWords;

/// <summary>Texts as the prompts of label words.</summary>
/// <param name="encoder">Of the task.</param>
/// <param name="columns">Columns of the texts.</param>
internal sealed class LabelWordPrompts(LabelWordEncoder encoder, string[] columns) : IPrompts
{
    public IReadOnlyList<string> Labels => encoder.LabelValues;
    public IReadOnlyList<int> Candidates => encoder.Candidates;

    public int[] Encode(ColumnReader row) => encoder.Prompt([.. columns.Select(row.Text)]);

    public int[] Encode(IReadOnlyList<ChatMessage> messages) => columns.Length == 1
        ? encoder.Prompt(messages[^1].Content)
        : throw new HeadroomException(
            $"The prompt has the columns {HeadroomException.List(columns)}; one text does not fill them.",
            "Give rows with these columns (predict --in).");
}
