using Headroom.Tokenizers.Chat;
using Headroom.Training.Data;

namespace Headroom.Training.Tasks.Sequences;

/// <summary>Stretches of a text as spans of its tokens.</summary>
internal static class TokenSpans
{
    /// <summary>
    /// A token belongs to a stretch when one of its characters does: one that straddles the beginning (a blank that is
    /// glued to the first word) too, since whoever writes the word writes it.
    /// </summary>
    /// <param name="turns">In order, apart from one another.</param>
    /// <param name="offsets">Start and end of each token in the text.</param>
    public static IReadOnlyList<LabelSpan> Find(
        IReadOnlyList<TurnSpan> turns, IReadOnlyList<(int Start, int End)> offsets)
    {
        var spans = new List<LabelSpan>(turns.Count);
        int at = 0;
        foreach (var turn in turns)
        {
            while (at < offsets.Count && offsets[at].End <= turn.Start) at++;
            int start = at;
            while (at < offsets.Count && offsets[at].Start < turn.End) at++;
            if (at == start) continue;
            if (spans.Count > 0 && spans[^1].End >= start) spans[^1] = spans[^1] with { End = at };
            else spans.Add(new LabelSpan(start, at));
        }
        return spans;
    }
}
