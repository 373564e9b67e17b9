using Headroom.Inference;
using Headroom.Training.Data;

namespace Headroom.Training.Tasks;

/// <summary>Loss of a row's labelled tokens.</summary>
/// <param name="Sum">Sum of weight * loss, nats.</param>
/// <param name="Weight">Sum of the weights; 0 for a row without a label.</param>
internal readonly record struct RowLoss(double Sum, double Weight);

/// <summary>Losses of rows without training, for tasks whose metrics are made of them.</summary>
internal static class RowLosses
{
    /// <summary>The loss of every row, in batches; smoothed where the options say so.</summary>
    /// <exception cref="NotFiniteException">One is NaN or infinite.</exception>
    public static IReadOnlyList<RowLoss> Measure(Engine engine, IRowSource rows, EvaluationOptions options)
    {
        int n = rows.Count, batchRows = Math.Min(options.BatchRows, n), bad = 0, firstBad = 0;
        var batch = new MicroBatch(options.MaxTokens, batchRows);
        var losses = new RowLoss[n];
        float[] perLabel = new float[options.MaxTokens];
        for (int first = 0, next; first < n; first = next)
        {
            batch.Clear();
            for (next = first; next < n && next - first < batchRows && Fits(rows[next]); next++) batch.Add(rows[next]);
            if (next == first)
                throw new ArgumentException($"row {first} is longer than {options.MaxTokens} tokens", nameof(rows));
            if (batch.LabelCount > 0) engine.Losses(batch.Host, perLabel, options.LabelSmoothing);
            for (int i = first, at = 0; i < next; i++)
            {
                losses[i] = Measure(rows[i], perLabel, ref at);
                if (!double.IsFinite(losses[i].Sum) && bad++ == 0) firstBad = i + 1;
            }
            options.Progress?.Invoke(next, n);
        }
        if (bad > 0)
            throw new NotFiniteException(
                $"The losses of {bad} of {n} rows are NaN or infinite (the first is row {firstBad}).");
        return losses;

        bool Fits(EncodedRow row) => batch.Tokens + row.Ids.Length <= options.MaxTokens;
    }

    // The labels of a batch are those of its rows, in order.
    private static RowLoss Measure(EncodedRow row, float[] perLabel, ref int at)
    {
        double sum = 0, weight = 0;
        foreach (var span in row.Spans)
            for (int i = Math.Max(1, span.Start); i < span.End; i++, weight += span.Weight)
                sum += span.Weight * (double)perLabel[at++];
        return new RowLoss(sum, weight);
    }
}
