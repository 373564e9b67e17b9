using Headroom.Training.Data;

namespace Headroom.Training.Tasks.Preferences;

/// <summary>Two answers as two sequences, one behind the other.</summary>
/// <param name="All">Tokens of both.</param>
/// <param name="Answers">Tokens of the answers, of the first before those of the second.</param>
internal sealed record PairRow(int[] All, IReadOnlyList<LabelSpan> Answers) : EncodedRow(All, Answers)
{
    /// <summary>Of KTO whether the first is wanted; null: the first is chosen, the second rejected.</summary>
    public bool? Wanted { get; init; }

    /// <summary>What the base gives; set before it is asked for, once.</summary>
    public PairScore Reference { get; set; }

    /// <summary>Sums of a row's losses; its labels are the next of a batch.</summary>
    /// <param name="losses">-log p of the batch's labels.</param>
    /// <param name="at">The row's first; moves behind its last.</param>
    public PairScore Score(ReadOnlySpan<float> losses, ref int at)
    {
        double first = 0, second = 0;
        int n = 0, m = 0;
        foreach (var span in Spans)
            for (int i = span.Start; i < span.End; i++, at++)
                if (i < Split) (first, n) = (first - losses[at], n + 1);
                else (second, m) = (second - losses[at], m + 1);
        return new(first, n, second, m);
    }

    /// <summary>Fills the weights of a row's labels.</summary>
    public void Fill(PairLoss loss, Span<float> weights, ref int at)
    {
        foreach (var span in Spans)
            for (int i = span.Start; i < span.End; i++, at++)
                weights[at] = (float)-(i < Split ? loss.First : loss.Second);
    }

    /// <inheritdoc/>
    protected internal override int[] Marks =>
        [Split, Wanted == null ? -1 : Wanted.Value ? 1 : 0, .. base.Marks];
}
