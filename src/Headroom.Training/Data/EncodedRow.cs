namespace Headroom.Training.Data;

/// <summary>Tokens of a row that the loss counts, by position, never by id.</summary>
/// <param name="Start">Index of the first; the first token of a row is never a target, whatever stands here.</param>
/// <param name="End">Index behind the last.</param>
/// <param name="Weight">Factor of each token's loss, above 0; the loss of an update is sum(weight * loss) /
/// sum(weight).</param>
internal readonly record struct LabelSpan(int Start, int End, float Weight = 1);

/// <summary>A row as token ids with its labelled spans.</summary>
/// <param name="Ids">All tokens, labelled or not.</param>
/// <param name="Tier">Difficulty tier, or null.</param>
internal record EncodedRow(int[] Ids, string? Tier = null)
{
    private readonly IReadOnlyList<LabelSpan> _spans = [];

    /// <summary>A row with one span, from a token to the end.</summary>
    /// <param name="ids">All tokens.</param>
    /// <param name="start">Index of the first labelled token.</param>
    public EncodedRow(int[] ids, int start) : this(ids) => _spans = [new(start, ids.Length)];

    /// <summary>A row with any number of spans.</summary>
    /// <param name="ids">All tokens.</param>
    /// <param name="spans">In order, apart from one another.</param>
    /// <exception cref="ArgumentException">A span is not within the row, begins before the end of the one before it, or
    /// its weight is not a number above 0.</exception>
    public EncodedRow(int[] ids, IReadOnlyList<LabelSpan> spans) : this(ids)
    {
        int end = 0;
        foreach (var s in spans)
        {
            if (s.Start < end || s.End < s.Start || s.End > ids.Length)
                throw new ArgumentException(
                    $"the span {s.Start} to {s.End} is out of place in a row of {ids.Length} tokens",
                    nameof(spans));
            if (!(s.Weight > 0) || !float.IsFinite(s.Weight))
                throw new ArgumentException($"the weight of a span is {s.Weight}", nameof(spans));
            end = s.End;
        }
        _spans = spans;
    }

    /// <summary>Tokens of the first of two sequences that a row holds, one behind the other; 0 = it is one.</summary>
    public int Split { get; init; }

    /// <summary>Tokens of its longest sequence.</summary>
    public int Longest => Math.Max(Split, Ids.Length - Split);

    /// <summary>The labelled spans, in order.</summary>
    public virtual IReadOnlyList<LabelSpan> Spans => _spans;

    /// <summary>
    /// What of the row beside its ids changes numbers, for the hash of the rows: of each span start, end and weight.
    /// </summary>
    protected internal virtual int[] Marks =>
        [.. Spans.SelectMany(s => (int[])[s.Start, s.End, BitConverter.SingleToInt32Bits(s.Weight)])];
}
