using Headroom.Inference;
using Headroom.Training.Data;
using Headroom.Training.Recipes;

namespace Headroom.Training.Tasks.Preferences;

/// <summary>
/// The loss of preferences as an objective. The reference is the same base with the adapters left out
/// (<see cref="Engine.Losses"/>); what it gives for the training rows is computed once before the first step.
/// </summary>
/// <param name="options">The formula and its numbers.</param>
internal sealed class PreferenceObjective(TaskOptions options) : IObjective
{
    private bool NeedsReference => options.LossType != PreferenceLossType.Orpo;

    /// <inheritdoc/>
    public void Prepare(Engine engine, IRowSource rows, EvaluationOptions o)
    {
        if (!NeedsReference) return;
        var scores = Measure(engine, rows, o, adapters: false);
        for (int i = 0; i < rows.Count; i++) ((PairRow)rows[i]).Reference = scores[i];
    }

    /// <inheritdoc/>
    public double Weigh(MicroBatch batch, ReadOnlySpan<float> losses, Span<float> weights)
    {
        var rows = batch.Rows;
        var scores = new PairScore[rows.Count];
        for (int i = 0, at = 0; i < scores.Length; i++) scores[i] = ((PairRow)rows[i]).Score(losses, ref at);
        var loss = Losses([.. rows.Cast<PairRow>()], scores);
        for (int i = 0, at = 0; i < scores.Length; i++) ((PairRow)rows[i]).Fill(loss[i], weights, ref at);
        return loss.Sum(l => l.Loss);
    }

    /// <summary>Losses of rows that are looked at together: KTO's divergence is a mean over them.</summary>
    public PairLoss[] Losses(IReadOnlyList<PairRow> rows, IReadOnlyList<PairScore> scores)
    {
        // As in TRL's KTO: the mean log ratio of answers to other prompts, not below 0, through which nothing is
        // learned.
        double divergence = options.LossType != PreferenceLossType.Kto ? 0
            : Math.Max(0, rows.Zip(scores, (r, s) => s.Second - r.Reference.Second).Average());
        return [.. rows.Zip(scores, (r, s) => r.Wanted is { } wanted
            ? PreferenceLoss.Single(options, wanted, s.First - r.Reference.First, divergence)
            : PreferenceLoss.Pair(options, s, r.Reference))];
    }

    /// <summary>Log probabilities of rows without training.</summary>
    /// <exception cref="NotFiniteException">One is NaN or infinite.</exception>
    public static PairScore[] Measure(Engine engine, IRowSource rows, EvaluationOptions o, bool adapters)
    {
        int n = rows.Count, batchRows = Math.Min(o.BatchRows, n);
        var batch = new MicroBatch(o.MaxTokens, 2 * batchRows);
        var scores = new PairScore[n];
        float[] losses = new float[o.MaxTokens];
        for (int first = 0, next; first < n; first = next)
        {
            batch.Clear();
            for (next = first; next < n && next - first < batchRows
                && batch.Tokens + rows[next].Ids.Length <= o.MaxTokens; next++)
                batch.Add(rows[next]);
            if (next == first)
                throw new ArgumentException($"row {first} is longer than {o.MaxTokens} tokens", nameof(rows));
            engine.Losses(batch.Host, losses, adapters: adapters);
            for (int i = first, at = 0; i < next; i++)
            {
                scores[i] = ((PairRow)rows[i]).Score(losses, ref at);
                if (!double.IsFinite(scores[i].First + scores[i].Second))
                    throw new NotFiniteException($"The loss of row {i + 1} of {n} is NaN or infinite.");
            }
            o.Progress?.Invoke(next, n);
        }
        return scores;
    }
}
