using Headroom.Core;
using Headroom.Tokenizers.Chat;
using Headroom.Training.Data.Forms;

namespace Headroom.Training.Tasks;

/// <summary>
/// Rows without answers, as the prompts that a model was trained to answer. Safe for use from several threads.
/// </summary>
internal interface IPrompts
{
    /// <summary>Tokens of the prompt of a record; an answer that it has is not looked at.</summary>
    /// <exception cref="HeadroomException">A column is missing or of another kind.</exception>
    int[] Encode(ColumnReader row);

    /// <summary>Tokens of a conversation whose next turn is the model's.</summary>
    /// <exception cref="HeadroomException">The task has no such prompt.</exception>
    int[] Encode(IReadOnlyList<ChatMessage> messages);

    /// <summary>
    /// Label values that an answer is one of, in the order of <see cref="Candidates"/>; none where an answer is a text.
    /// </summary>
    IReadOnlyList<string> Labels => [];

    /// <summary>The token by which each label is told.</summary>
    IReadOnlyList<int> Candidates => [];
}
