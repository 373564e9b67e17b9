using Headroom.Training.Data;

namespace Headroom.Training.Tasks.LabelWords;

/// <summary>A prompt with the label word that answers it.</summary>
/// <param name="Ids">Prompt and answer.</param>
/// <param name="AnswerStart">Index of the first labelled token, at least 1: the answer's, unless the loss counts the
/// prompt too.</param>
/// <param name="LabelIndex">Index of the label word.</param>
/// <param name="Tier">Difficulty tier, or null.</param>
internal sealed record LabelWordRow(int[] Ids, int AnswerStart, int LabelIndex, string? Tier = null)
    : EncodedRow(Ids, Tier)
{
    /// <inheritdoc/>
    public override IReadOnlyList<LabelSpan> Spans => [new(AnswerStart, Ids.Length)];

    /// <inheritdoc/>
    protected internal override int[] Marks => [AnswerStart, LabelIndex];
}
