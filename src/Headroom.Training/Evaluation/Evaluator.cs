using Headroom.Core;
using Headroom.Formats.Data;

namespace Headroom.Training;

/// <summary>Predictions over a set of rows, and the loss of the right label word.</summary>
/// <param name="Gold">Label index of each row.</param>
/// <param name="Predicted">Label word with the largest logit.</param>
/// <param name="Margin">Logit of label 1 less that of label 0 (binary tasks).</param>
/// <param name="Tiers">Tier of each row, or null.</param>
/// <param name="Loss">Mean -log softmax over the whole vocabulary of the right label word's first token.</param>
public sealed record Predictions(int[] Gold, int[] Predicted, float[] Margin, string?[] Tiers, double Loss)
{
    /// <summary>Share that is right.</summary>
    public double Accuracy => Gold.Length == 0 ? 0 : Gold.Zip(Predicted).Count(p => p.First == p.Second) / (double)Gold.Length;
    /// <summary>Counts [gold, predicted] of label indices 0 and 1: true negatives, false positives, false negatives, true positives.</summary>
    public int[] Confusion => [Count(0, 0), Count(0, 1), Count(1, 0), Count(1, 1)];
    /// <summary>Precision of label 1; 0 when it was never predicted.</summary>
    public double Precision => Ratio(Count(1, 1), Count(1, 1) + Count(0, 1));
    /// <summary>Recall of label 1.</summary>
    public double Recall => Ratio(Count(1, 1), Count(1, 1) + Count(1, 0));
    /// <summary>F1 of label 1.</summary>
    public double F1 => Ratio(2.0 * Count(1, 1), 2.0 * Count(1, 1) + Count(0, 1) + Count(1, 0));

    private int Count(int gold, int predicted)
    {
        int n = 0;
        for (int i = 0; i < Gold.Length; i++)
            if (Gold[i] == gold && Predicted[i] == predicted) n++;
        return n;
    }

    private static double Ratio(double a, double b) => b == 0 ? 0 : a / b;
}

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
    public static Predictions Run(Engine engine, IRowSource rows, int[] candidates, int batchRows, int maxTokens, Action<int, int>? progress = null)
    {
        int n = rows.Count, c = candidates.Length;
        batchRows = Math.Min(batchRows, n);
        var batch = new MicroBatch(maxTokens, batchRows);
        int[] gold = new int[n], predicted = new int[n];
        var margin = new float[n];
        var tiers = new string?[n];
        float[] scores = new float[batchRows * c], lse = new float[batchRows];
        double loss = 0;
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
                int best = 0;
                for (int k = 1; k < c; k++)
                    if (s[k] > s[best]) best = k;
                gold[first + i] = row.LabelIndex;
                predicted[first + i] = best;
                margin[first + i] = c > 1 ? s[1] - s[0] : 0;
                tiers[first + i] = row.Tier;
                loss += lse[i] - s[row.LabelIndex];
            }
            first += count;
            progress?.Invoke(first, n);
        }
        return new Predictions(gold, predicted, margin, tiers, n == 0 ? 0 : loss / n);
    }
}
