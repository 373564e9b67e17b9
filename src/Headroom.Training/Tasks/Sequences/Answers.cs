using Headroom.Core;
using Headroom.Inference;
using Headroom.Training.Data;
using Headroom.Training.Intervals;

namespace Headroom.Training.Tasks.Sequences;

/// <summary>An answer that a model gave, beside the one of the data.</summary>
/// <param name="Prompt">What it was given, as text.</param>
/// <param name="Expected">The data's answer.</param>
/// <param name="Answer">The model's, greedy.</param>
internal sealed record Answered(string Prompt, string Expected, string Answer);

/// <summary>Answers of a model to the prompts of rows, and how near they are to the data's.</summary>
internal static class Answers
{
    /// <summary>Share of answers that equal the data's but for blanks at their ends.</summary>
    public static readonly MetricKind ExactMatch = new("exact_match", Direction.Higher) { Unit = "share" };
    /// <summary>Mean F1 of the longest common subsequence of words (<see cref="Intervals.RougeL"/>).</summary>
    public static readonly MetricKind RougeL = new("rouge_l", Direction.Higher) { Label = "ROUGE-L" };
    /// <summary>F of character n-grams over all rows (<see cref="Intervals.ChrF"/>), 0 to 100.</summary>
    public static readonly MetricKind ChrF = new("chrf", Direction.Higher) { Label = "chrF" };

    private const uint Resample = 0x35000000; // stream of the random numbers

    /// <summary>The last answer of every row, made anew from what stands before it.</summary>
    /// <param name="generator">Over the engine that is evaluated; not disposed of.</param>
    /// <param name="rows">Rows with a learned span each.</param>
    /// <param name="most">Tokens of an answer, at most.</param>
    /// <param name="progress">Rows done, and all.</param>
    public static IReadOnlyList<Answered> Make(
        Generator generator, IRowSource rows, int most, Action<int, int>? progress)
    {
        var options = new GenerationOptions { MaxNewTokens = most };
        var answered = new List<Answered>(rows.Count);
        for (int i = 0; i < rows.Count; i++)
        {
            var row = rows[i];
            if (row.Spans.Count == 0 || row.Spans[^1].Start < 1) continue;
            var span = row.Spans[^1];
            int[] prompt = row.Ids[..span.Start], expected = row.Ids[span.Start..span.End];
            // The token that ends the turn is no part of the answer.
            if (expected.Length > 0 && generator.Ends(expected[^1])) expected = expected[..^1];
            var made = generator.Run(prompt, options);
            answered.Add(new(
                generator.Tokenizer.Decode(prompt), Text(generator, prompt, expected), made.Text));
            progress?.Invoke(i + 1, rows.Count);
        }
        return answered;
    }

    // Ids as they read behind a prompt: some tokenizers leave out the blank of a first piece.
    private static string Text(Generator generator, int[] prompt, int[] ids)
    {
        string before = generator.Tokenizer.Decode(prompt), all = generator.Tokenizer.Decode([.. prompt, .. ids]);
        return all.StartsWith(before, StringComparison.Ordinal)
            ? all[before.Length..] : generator.Tokenizer.Decode(ids);
    }

    /// <summary>Exact match with Wilson's interval, ROUGE-L with a normal one, chrF by a bootstrap over rows.</summary>
    public static IEnumerable<Metric> Score(IReadOnlyList<Answered> answers, ulong seed)
    {
        int n = answers.Count, exact = answers.Count(a => a.Answer.Trim() == a.Expected.Trim());
        double[] rouge = [.. answers.Select(a => Intervals.RougeL.Score(a.Answer, a.Expected))];
        int[][] counts = [.. answers.Select(a => Intervals.ChrF.Count(a.Answer, a.Expected))];
        yield return new Metric(ExactMatch, exact / (double)n, () => Statistics.Wilson(exact, n));
        yield return new Metric(
            RougeL, rouge.Average(), () => Statistics.OfMean(n, rouge.Sum(), rouge.Sum(r => r * r)));
        yield return new Metric(ChrF, Pooled(counts), () =>
        {
            var random = new PhiloxRandom(seed, Resample);
            var scores = new double[Statistics.Resamples];
            var drawn = new int[n][];
            for (int s = 0; s < scores.Length; s++)
            {
                for (int i = 0; i < n; i++) drawn[i] = counts[random.Next(n)];
                scores[s] = Pooled(drawn);
            }
            Array.Sort(scores);
            return Statistics.Percentile(Pooled(counts), scores);
        });
    }

    private static double Pooled(int[][] counts)
    {
        Span<long> sum = stackalloc long[3 * Intervals.ChrF.Orders];
        sum.Clear();
        foreach (int[] row in counts)
            for (int i = 0; i < sum.Length; i++)
                sum[i] += row[i];
        return Intervals.ChrF.Score(sum);
    }
}
