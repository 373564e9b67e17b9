using Headroom.Core;
using Headroom.Inference;
using Headroom.Training.Data;
using Headroom.Training.Intervals;

namespace Headroom.Training.Tasks.LabelWords;

/// <summary>Predictions over a set of rows, and the loss of the right label word.</summary>
/// <param name="Labels">The K label words, in the order of label indices.</param>
/// <param name="Gold">Label index of each row.</param>
/// <param name="Predicted">Label word with the largest logit; of equal ones the first.</param>
/// <param name="Margin">Two classes: logit of label 1 less that of label 0. Null for more.</param>
/// <param name="Tiers">Tier of each row, or null.</param>
/// <param name="Loss">Mean -log softmax over the whole vocabulary of the right label word's first token; NaN where
/// there is none.</param>
internal sealed record Predictions(
    IReadOnlyList<string> Labels, int[] Gold, int[] Predicted, float[]? Margin, string?[] Tiers, double Loss)
{
    /// <summary>K x K counts of gold and predicted labels, and all figures that follow from them.</summary>
    public ConfusionMatrix Confusion => field ??= ConfusionMatrix.Count(Gold, Predicted, Labels.Count, Labels);
    /// <summary>Share that is right.</summary>
    public double Accuracy => Confusion.Accuracy;
    /// <summary>Precision of label 1 where there are two, else macro; 0 when it was never predicted.</summary>
    public double Precision => Confusion.Main.Precision;
    /// <summary>Recall, likewise.</summary>
    public double Recall => Confusion.Main.Recall;
    /// <summary>F1, likewise.</summary>
    public double F1 => Confusion.Main.F1;

    /// <summary>95 % interval of the loss, or null.</summary>
    public Interval? LossInterval { get; init; }

    /// <summary>As an evaluation, with every metric.</summary>
    /// <param name="seed">Of the bootstrap of the intervals.</param>
    public Evaluation ToEvaluation(ulong seed = 1)
    {
        var m = Confusion;
        var detail = new LabelWordDetail(m, seed)
        {
            Gold = Gold,
            Predicted = Predicted,
            Tiers = Tiers.Any(t => t != null) ? Tiers : null,
            Correct = m.Correct,
            Loss = Loss,
        };
        var accuracy =
            m.Rows > 0 ? Statistics.Wilson(m.Correct, m.Rows) : new Interval(double.NaN, double.NaN, double.NaN);
        return new Evaluation
        {
            Rows = Gold.Length,
            Metrics = LabelWordMetrics.Compute(detail, accuracy, Loss, LossInterval),
            Detail = detail,
            Outcomes = detail.Outcomes,
        };
    }
}

/// <summary>Scores label words at the answer position, in constant memory.</summary>
internal static class LabelWordEvaluator
{
    /// <summary>
    /// Runs all rows in batches of at most <paramref name="batchRows"/> rows and <paramref name="maxTokens"/> tokens.
    /// </summary>
    /// <param name="engine">The model.</param>
    /// <param name="rows">Each a <see cref="LabelWordRow"/> that was encoded for evaluation.</param>
    /// <param name="labels">Label words, in the order of label indices.</param>
    /// <param name="candidates">First token of each.</param>
    /// <param name="batchRows">Most rows of a batch.</param>
    /// <param name="maxTokens">Most tokens of a batch.</param>
    /// <param name="progress">Is told of rows done, and of all.</param>
    /// <exception cref="NotFiniteException">A score of a label word, or a log-sum-exp, is NaN or infinite.</exception>
    public static Predictions Run(
        Engine engine, IRowSource rows, IReadOnlyList<string> labels, int[] candidates, int batchRows, int maxTokens,
        Action<int, int>? progress = null)
    {
        int n = rows.Count, c = candidates.Length;
        batchRows = Math.Min(batchRows, n);
        var batch = new MicroBatch(maxTokens, batchRows);
        int[] gold = new int[n], predicted = new int[n];
        var margin = c == 2 ? new float[n] : null;
        var tiers = new string?[n];
        float[] scores = new float[batchRows * c], lse = new float[batchRows];
        double loss = 0, squares = 0;
        int bad = 0, firstBad = 0;
        for (int first = 0; first < n;)
        {
            batch.Clear();
            int count = 0;
            while (first + count < n && count < batchRows && batch.Tokens + Row(first + count).AnswerStart <= maxTokens)
                Add(batch, Row(first + count++));
            if (count == 0)
                throw new ArgumentException($"row {first} is longer than maxTokens {maxTokens}", nameof(rows));
            engine.Scores(batch.Host, candidates, scores, lse);
            for (int i = 0; i < count; i++)
            {
                var row = Row(first + i);
                var s = scores.AsSpan(i * c, c);
                if (!float.IsFinite(lse[i]) || !Finite.All(s))
                    if (bad++ == 0) firstBad = first + i + 1;
                int best = 0;
                for (int k = 1; k < c; k++)
                    if (s[k] > s[best]) best = k;
                gold[first + i] = row.LabelIndex;
                predicted[first + i] = best;
                if (margin != null) margin[first + i] = s[1] - s[0];
                tiers[first + i] = row.Tier;
                double own = lse[i] - s[row.LabelIndex];
                loss += own;
                squares += own * own;
            }
            first += count;
            progress?.Invoke(first, n);
        }
        if (bad > 0)
            throw new NotFiniteException(
                $"The scores of {bad} of {n} rows are NaN or infinite (the first is row {firstBad}), so there is no "
                    + $"accuracy."
            );
        return new Predictions(labels, gold, predicted, margin, tiers, n == 0 ? double.NaN : loss / n)
        {
            LossInterval = Statistics.OfMean(n, loss, squares),
        };

        LabelWordRow Row(int i) => (LabelWordRow)rows[i];
    }

    private static void Add(MicroBatch batch, LabelWordRow row) =>
        batch.AddPrompt(
            row.Ids.AsSpan(0, row.AnswerStart), row.Ids.Length > row.AnswerStart ? row.Ids[row.AnswerStart] : 0);
}
