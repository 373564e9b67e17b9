using System.Runtime.InteropServices;
using Headroom.Models;

namespace Headroom.Inference;

/// <summary>
/// The sizes that training micro-batches are computed at. A device that replays micro-steps of a known shape wants few
/// of them: ragged batches then get a last sequence more, whose tokens carry no label, up to the next of at most 64
/// numbers of tokens, and labels that do not count. Losses and gradients are those of the batch alone, but for the
/// order of sums in products of another size: a row's values depend on its own sequence only, dropout masks
/// on the row's number (the padding comes last), and the gradients of the padding's rows are zeros.
/// </summary>
/// <param name="limits">The largest micro-batch, which is never exceeded.</param>
/// <param name="pads">Off, a batch's own sizes.</param>
internal sealed class BatchPadding(BatchLimits limits, bool pads)
{
    /// <summary>
    /// Labels are padded to multiples of this where few rows have one; the head of 64 rows costs less than a launch
    /// takes to issue, or little more.
    /// </summary>
    private const int LabelGrain = 64;

    // 1/64 of the largest batch: on average half of that is wasted, and the lengths of text in batches of 16 spread
    // over 16 to 20 of these sizes.
    private readonly int _grain = Math.Max(64, (limits.TrainTokens / 64 + 63) / 64 * 64);

    /// <summary>Sequences that the plan must have room for.</summary>
    public static int Sequences(BatchLimits limits) => limits.TrainSequences + 1;

    /// <summary>Tokens, sequences and labels that a batch of these is computed at.</summary>
    public (int Tokens, int Sequences, int Labels) Pad(int tokens, int sequences, int labels)
    {
        if (!pads || tokens >= limits.TrainTokens || labels == 0)
            return (tokens, sequences, labels); // the largest batch is a shape that comes again as it is
        int to = Math.Min((tokens + _grain - 1) / _grain * _grain, limits.TrainTokens);
        // Where most tokens are labelled the padding's are too, so that both numbers grow together; else there are few,
        // and a few more cost little.
        bool dense = 2 * labels > tokens;
        int few = Math.Min((labels + LabelGrain - 1) / LabelGrain * LabelGrain, limits.TrainLabels),
            all = dense ? labels + (to - tokens) : Math.Max(labels, few);
        if (all > labels && to == tokens)
            to = Math.Min(to + _grain, limits.TrainTokens); // a label that does not count needs a row of the padding
        if (all > limits.TrainLabels) return (tokens, sequences, labels);
        return (to, Sequences(limits), all);
    }

    /// <summary>
    /// Writes a batch, padded to the sizes of <paramref name="b"/>, as <paramref name="host"/> is to be copied to
    /// <see cref="BatchTensors.All"/>.
    /// </summary>
    public static void Write(in HostBatch batch, in BatchTensors b, Span<int> host)
    {
        Span<int> ids = Part(host, b.Ids, b),
            positions = Part(host, b.Positions, b),
            offsets = Part(host, b.Offsets, b),
            rows = Part(host, b.LabelRows, b),
            labels = Part(host, b.Labels, b);
        int tokens = batch.Ids.Length, known = batch.LabelRows.Length;
        batch.Ids.CopyTo(ids);
        batch.Positions.CopyTo(positions);
        batch.Offsets.CopyTo(offsets);
        batch.LabelRows.CopyTo(rows);
        batch.Labels.CopyTo(labels);
        // The batch's own tokens again: they meet no value that the batch does not, so nothing overflows that would not
        // have done so anyway.
        for (int i = tokens; i < ids.Length; i++)
        {
            ids[i] = ids[i - tokens];
            positions[i] = i - tokens;
        }
        offsets[batch.Offsets.Length..].Fill(tokens); // without sequences that lack, which are empty
        offsets[^1] = ids.Length;
        for (int i = known; i < rows.Length; i++) rows[i] = Math.Min(tokens + i - known, ids.Length - 1);
        labels[batch.Labels.Length..].Fill(-1);
        if (b.Weights.IsNone) return;
        var weights = MemoryMarshal.Cast<int, float>(Part(host, b.Weights, b));
        batch.Weights.CopyTo(weights);
        weights[batch.Weights.Length..].Clear();
    }

    private static Span<int> Part(Span<int> host, Core.Tensor part, in BatchTensors b) =>
        host.Slice((int)((part.Address - b.All.Address) / sizeof(int)), part.Rows);
}
