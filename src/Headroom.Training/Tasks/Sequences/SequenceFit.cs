using System.Collections.Concurrent;
using Headroom.Training.Data;
using Headroom.Training.Recipes;

namespace Headroom.Training.Tasks.Sequences;

/// <summary>
/// Rows to the length they may have, by task.truncation. Of an answer no learned token is ever lost: a row that would
/// lose one is left out and counted. Safe for use from several threads.
/// </summary>
/// <param name="options">Length, truncation and stride.</param>
/// <param name="usual">The truncation where the options name none.</param>
/// <param name="bos">The token that opens a sequence; it stays in front of what is cut.</param>
internal sealed class SequenceFit(TaskOptions options, Truncation usual, int? bos)
{
    private readonly ConcurrentBag<string> _left = [];
    private int _cut, _windows;
    private long _lost;

    /// <summary>Rows that were cut, or became several.</summary>
    public int Cut => _cut;

    /// <summary>What was done, a sentence each.</summary>
    public IEnumerable<string> Notes()
    {
        int most = options.MaxSeqLength;
        if (!_left.IsEmpty)
            yield return $"{_left.Count} rows are longer than task.max_seq_length {most} and "
                + (How == Truncation.Drop ? "" : "would lose learned tokens: they ")
                + $"are left out (the first: {First(_left)}).";
        if (_cut > 0 && How == Truncation.Windows)
            yield return $"{_cut} texts are longer than task.max_seq_length {most}: they are read in {_windows} "
                + "windows.";
        else if (_cut > 0)
            yield return $"{_cut} rows were cut to {most} tokens"
                + (_lost > 0 ? $"; {_lost} tokens of them are not learned." : ", no learned token among what was cut.");
    }

    // Rows are encoded in any order; a shorter number comes before a longer one.
    private static string First(IEnumerable<string> places) =>
        places.OrderBy(w => w.Length).ThenBy(w => w, StringComparer.Ordinal).First();

    private Truncation How => options.Truncation ?? usual;

    /// <summary>The rows that a row becomes: itself, one that is cut, several windows, or none.</summary>
    /// <param name="ids">Tokens.</param>
    /// <param name="spans">What is learned of them.</param>
    /// <param name="answers">The spans belong to answers, of which nothing may be lost.</param>
    /// <param name="where">The row, for messages.</param>
    /// <param name="tier">Its tier, or null.</param>
    public IReadOnlyList<EncodedRow> Fit(
        int[] ids, IReadOnlyList<LabelSpan> spans, bool answers, string where, string? tier = null)
    {
        int most = options.MaxSeqLength, over = ids.Length - most;
        if (over <= 0) return [new EncodedRow(ids, spans) { Tier = tier }];
        if (How == Truncation.Windows) return Windows(ids, tier);
        bool left = How == Truncation.Left;
        int keep = left && ids[0] == bos ? 1 : 0; // the first token stays
        int from = left ? keep + over : 0, to = left ? ids.Length : most;
        long learned = spans.Sum(s => (long)(s.End - s.Start)),
            lost = learned - spans.Sum(s => (long)Math.Max(0, Math.Min(s.End, to) - Math.Max(s.Start, from)));
        if (How == Truncation.Drop || answers && lost > 0 || lost == learned)
        {
            _left.Add(where);
            return [];
        }
        Interlocked.Increment(ref _cut);
        Interlocked.Add(ref _lost, lost);
        int shift = from - keep;
        var kept = spans
            .Select(s => new LabelSpan(Math.Max(s.Start, from) - shift, Math.Min(s.End, to) - shift, s.Weight))
            .Where(s => s.Start < s.End);
        return [new EncodedRow([.. ids[..keep], .. ids[from..to]], [.. kept]) { Tier = tier }];
    }

    // Every token is learned once: what a window has in common with the one before is only read.
    private EncodedRow[] Windows(int[] ids, string? tier)
    {
        int keep = ids[0] == bos ? 1 : 0, room = options.MaxSeqLength - keep;
        int read = Math.Max(options.Stride, 1 - keep); // without a token before it a window's first is never learned
        var windows = new List<EncodedRow>();
        for (int from = keep; ; from += room - read)
        {
            int to = Math.Min(ids.Length, from + room), start = keep + (from == keep ? 0 : read);
            windows.Add(new EncodedRow([.. ids[..keep], .. ids[from..to]], Math.Max(1, start)) { Tier = tier });
            if (to == ids.Length) break;
        }
        Interlocked.Increment(ref _cut);
        Interlocked.Add(ref _windows, windows.Count);
        return [.. windows];
    }
}
