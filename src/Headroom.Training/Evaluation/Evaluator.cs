using Headroom.Core;
using Headroom.Formats.Data;

namespace Headroom.Training;

/// <summary>Predictions over a set of rows, and the loss of the right label word.</summary>
/// <param name="Labels">The K label words, in the order of label indices.</param>
/// <param name="Gold">Label index of each row.</param>
/// <param name="Predicted">Label word with the largest logit; of equal ones the first.</param>
/// <param name="Margin">Two classes: logit of label 1 less that of label 0. Null for more.</param>
/// <param name="Tiers">Tier of each row, or null.</param>
/// <param name="Loss">Mean -log softmax over the whole vocabulary of the right label word's first token; NaN where there is none.</param>
public sealed record Predictions(IReadOnlyList<string> Labels, int[] Gold, int[] Predicted, float[]? Margin, string?[] Tiers, double Loss)
{
    /// <summary>K x K counts of gold and predicted labels, and all figures that follow from them.</summary>
    public ConfusionMatrix Confusion => field ??= ConfusionMatrix.Of(Gold, Predicted, Labels.Count, Labels);
    /// <summary>Share that is right.</summary>
    public double Accuracy => Confusion.Accuracy;
    /// <summary>Precision of label 1 where there are two, else macro; 0 when it was never predicted.</summary>
    public double Precision => Confusion.Main.Precision;
    /// <summary>Recall, likewise.</summary>
    public double Recall => Confusion.Main.Recall;
    /// <summary>F1, likewise.</summary>
    public double F1 => Confusion.Main.F1;

    /// <summary>Accuracy and F1 in words, the F1 by its name.</summary>
    public string Text => FormattableString.Invariant($"accuracy {Accuracy:F4}, {Printable.Line(Confusion.F1Name)} {F1:F4}");

    /// <summary>The predictions of each tier, in ordinal order of the tiers' names; rows without one are "(none)". Empty when no row has a tier.</summary>
    public static IReadOnlyList<(string Tier, ConfusionMatrix Confusion)> ByTier(
        IReadOnlyList<string?> tiers, IReadOnlyList<int> gold, IReadOnlyList<int> predicted, int classes, IReadOnlyList<string>? labels) =>
        tiers.All(t => t == null) ? []
        : [.. Enumerable.Range(0, tiers.Count).GroupBy(i => tiers[i] ?? "(none)").OrderBy(g => g.Key, StringComparer.Ordinal)
            .Select(g => (g.Key, ConfusionMatrix.Of([.. g.Select(i => gold[i])], [.. g.Select(i => predicted[i])], classes, labels)))];
}

/// <summary>A model whose scores are NaN or infinite: there is no prediction in them, the largest of such numbers is any. Exit code 1.</summary>
/// <param name="what">One line: what is wrong.</param>
public sealed class NotFiniteException(string what)
    : HeadroomException(what, "Weights of the model or adapter are NaN or infinite, or its activations overflow: take another checkpoint, or with fp16 set training.precision to bf16 or fp32.", 1);

/// <summary>Scores label words at the answer position, in constant memory.</summary>
public static class Evaluator
{
    /// <summary>What is odd about an evaluation but no error, a sentence or two each; to be said before it.</summary>
    /// <param name="rows">Its rows.</param>
    /// <param name="encoder">The task.</param>
    /// <param name="longest">The longest of them, tokens.</param>
    /// <param name="config">The model.</param>
    public static IReadOnlyList<string> Notes(IReadOnlyList<DataRow> rows, TaskEncoder encoder, int longest, ModelConfig config) =>
        [.. encoder.Check(rows), .. RunNotes.Positions(longest, config)];

    /// <summary>Runs all rows in batches of at most <paramref name="batchRows"/> rows and <paramref name="maxTokens"/> tokens.</summary>
    /// <exception cref="NotFiniteException">A score of a label word, or a log-sum-exp, is NaN or infinite.</exception>
    public static Predictions Run(Engine engine, IRowSource rows, TaskEncoder task, int batchRows, int maxTokens, Action<int, int>? progress = null) =>
        Run(engine, rows, task.LabelWords, task.Candidates, batchRows, maxTokens, progress);

    internal static Predictions Run(
        Engine engine, IRowSource rows, IReadOnlyList<string> labels, int[] candidates, int batchRows, int maxTokens, Action<int, int>? progress = null)
    {
        int n = rows.Count, c = candidates.Length;
        batchRows = Math.Min(batchRows, n);
        var batch = new MicroBatch(maxTokens, batchRows);
        int[] gold = new int[n], predicted = new int[n];
        var margin = c == 2 ? new float[n] : null;
        var tiers = new string?[n];
        float[] scores = new float[batchRows * c], lse = new float[batchRows];
        double loss = 0;
        int bad = 0, firstBad = 0;
        for (int first = 0; first < n;)
        {
            batch.Clear();
            int count = 0;
            while (first + count < n && count < batchRows && batch.Tokens + rows[first + count].AnswerStart <= maxTokens) batch.AddPrompt(rows[first + count++]);
            if (count == 0) throw new ArgumentException($"row {first} is longer than maxTokens {maxTokens}", nameof(rows));
            engine.Scores(batch.Host, candidates, scores, lse);
            for (int i = 0; i < count; i++)
            {
                var row = rows[first + i];
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
                loss += lse[i] - s[row.LabelIndex];
            }
            first += count;
            progress?.Invoke(first, n);
        }
        if (bad > 0) throw new NotFiniteException($"The scores of {bad} of {n} rows are NaN or infinite (the first is row {firstBad}), so there is no accuracy.");
        return new Predictions(labels, gold, predicted, margin, tiers, n == 0 ? double.NaN : loss / n);
    }
}
