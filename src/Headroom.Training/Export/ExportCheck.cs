using Headroom.Core;
using Headroom.Formats;
using Headroom.Models;

namespace Headroom.Training;

/// <summary>How far an export is from what it was made of, on the same tokens.</summary>
/// <param name="Positions">Positions compared; each has a logit for every token of the vocabulary.</param>
/// <param name="LargestDifference">Largest absolute difference of a logit.</param>
/// <param name="RelativeDifference">Root mean square of the differences / standard deviation of the reference's logits.</param>
/// <param name="Decided">Positions where the reference's best token leads by at least <see cref="ExportCheck.Gap"/>.</param>
/// <param name="Agreeing">Those of them where the export's best token is the same.</param>
public sealed record ExportComparison(int Positions, float LargestDifference, double RelativeDifference, int Decided, int Agreeing)
{
    /// <summary>Share of decided positions with the same best token; 1 when none is decided.</summary>
    public double Agreement => Decided == 0 ? 1 : (double)Agreeing / Decided;
}

/// <summary>Runs the same prompts through two models and compares every logit.</summary>
public static class ExportCheck
{
    /// <summary>A best token counts as decided when it leads by this much.</summary>
    public const float Gap = 0.3f;
    /// <summary>Most tokens of a prompt that are compared.</summary>
    public const int LongestPrompt = 32;

    /// <summary>What the prompts are when none are given.</summary>
    public static IReadOnlyList<string> Prompts { get; } =
        ["Once upon a time, there was a little girl who", "The capital of France is a city that", "I watched this film last night, and I have to say that it was", "To compute 12 + 30, first add the tens:"];

    /// <summary>
    /// Bounds by type: the largest relative difference and the smallest agreement that pass. Measured on SmolLM2-135M and the tiny models; a wrong row order or tokenizer
    /// is off by 1 and more. Four bits for a model that was stored in four bits before do not pass (SmolLM2's Q4_1 file as Q4_0 keeps 59 % of its decided tokens).
    /// </summary>
    public static (double Difference, double Agreement) Bounds(string type) => type switch
    {
        "f32" => (1e-3, 0.99),
        "f16" => (0.02, 0.97),
        "bf16" => (0.1, 0.95),
        "q8_0" => (0.1, 0.95),
        _ => (0.75, 0.6),
    };

    /// <summary>Logits of every token at every position of each prompt, one engine for all.</summary>
    public static List<float[]> Logits(IDevice device, IWeightSource source, ModelSettings settings, PeftAdapter? adapter, IReadOnlyList<int[]> prompts)
    {
        int vocab = source.Config.VocabSize, longest = prompts.Max(p => p.Length);
        using var engine = new Engine(device, source, settings, new BatchLimits(EvalTokens: longest, EvalSequences: longest, Candidates: vocab));
        if (adapter != null) Checkpoints.LoadAdapter(adapter, engine);
        var all = Enumerable.Range(0, vocab).ToArray();
        var result = new List<float[]>();
        foreach (int[] ids in prompts)
        {
            int[] rows = Enumerable.Range(0, ids.Length).ToArray();
            var logits = new float[(long)ids.Length * vocab];
            engine.Scores(new HostBatch(ids, rows, [0, ids.Length], rows, rows), all, logits, new float[ids.Length]);
            result.Add(logits);
        }
        return result;
    }

    /// <summary>Compares logits of the same prompts.</summary>
    public static ExportComparison Compare(IReadOnlyList<float[]> reference, IReadOnlyList<float[]> export, int vocab)
    {
        double sum = 0, squares = 0, error = 0;
        long count = 0;
        float largest = 0;
        int positions = 0, decided = 0, agreeing = 0;
        for (int p = 0; p < reference.Count; p++)
            for (int at = 0; at < reference[p].Length; at += vocab, positions++)
            {
                var a = reference[p].AsSpan(at, vocab);
                var b = export[p].AsSpan(at, vocab);
                int best = 0, other = 0;
                float second = float.NegativeInfinity;
                for (int v = 0; v < vocab; v++)
                {
                    float d = a[v] - b[v];
                    if (!(MathF.Abs(d) <= largest)) largest = float.IsNaN(d) ? float.PositiveInfinity : MathF.Abs(d);
                    error += (double)d * d;
                    sum += a[v];
                    squares += (double)a[v] * a[v];
                    if (v > 0 && a[v] > a[best]) (second, best) = (a[best], v);
                    else if (v > 0 && a[v] > second) second = a[v];
                    if (b[v] > b[other]) other = v;
                }
                count += vocab;
                if (a[best] - second < Gap) continue;
                decided++;
                if (best == other) agreeing++;
            }
        double deviation = Math.Sqrt(Math.Max(1e-30, squares / count - sum / count * (sum / count)));
        double relative = Math.Sqrt(error / count) / deviation;
        return new ExportComparison(positions, largest, double.IsNaN(relative) ? double.PositiveInfinity : relative, decided, agreeing);
    }
}
