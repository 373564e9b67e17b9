using Headroom.Core;

namespace Headroom.Inference.Export;

/// <summary>How far an export is from what it was made of, on the same tokens.</summary>
/// <param name="Positions">Positions compared; each has a logit for every token of the vocabulary.</param>
/// <param name="LargestDifference">Largest absolute difference of a logit.</param>
/// <param name="RelativeDifference">Root mean square of the differences / standard deviation of the reference's
/// logits.</param>
/// <param name="Decided">Positions where the reference's best token leads by at least
/// <see cref="ExportCheck.Gap"/>.</param>
/// <param name="Agreeing">Those of them where the export's best token is the same.</param>
internal sealed record ExportComparison(
    int Positions, float LargestDifference, double RelativeDifference, int Decided, int Agreeing)
{
    /// <summary>Share of decided positions with the same best token; 1 when none is decided.</summary>
    public double Agreement => Decided == 0 ? 1 : (double)Agreeing / Decided;
}

/// <summary>Runs the same prompts through two models and compares every logit.</summary>
internal static class ExportCheck
{
    /// <summary>A best token counts as decided when it leads by this much.</summary>
    public const float Gap = 0.3f;
    /// <summary>Most tokens of a prompt that are compared.</summary>
    public const int LongestPrompt = 32;

    /// <summary>What the prompts are when none are given: some 400 positions, so that a share of them means something.
    /// (On four prompts SmolLM2 as Q4_0 kept 55 %, on 954 decided tokens 74 %.)</summary>
    public static IReadOnlyList<string> Prompts { get; } =
    [
        "Once upon a time, there was a little girl who lived in a small house near the forest. Every morning she went "
            + "out to",
        "The capital of France is a city that has been the center of art, fashion and science for many hundreds of "
            + "years, and",
        "I watched this film last night, and I have to say that it was one of the best that I have seen in a long "
            + "time, because",
        "To compute 12 + 30, first add the tens: 10 + 30 = 40. Then add the ones: 2 + 0 = 2. The sum is 42, so",
        "Review: The acting is wooden and the plot makes no sense, but the music saves some of it.\nSentiment: "
            + "negative\n\nReview: A warm,",
        "Dear Sir or Madam, I am writing to you about the order that I placed on your website two weeks ago and that "
            + "has not",
        "def add(a, b):\n    return a + b\n\ndef multiply(a, b):\n    return a * b\n\nfor i in range(10):\n    print(",
        "The train left the station at nine in the evening. It was raining, and the old man in the corner did not "
            + "look up when",
        "Water boils at one hundred degrees when the pressure is that of the sea level. In the mountains it boils "
            + "earlier, since",
        "Question: What is the largest planet of the solar system?\nAnswer: Jupiter.\nQuestion: Which planet is "
            + "closest to the sun?\nAnswer:",
        "This is not a good movie. It is too long, the jokes are old, and nobody seems to know why they are there, "
            + "least of all the",
        "In the year 1492 a sailor from Genoa crossed the ocean with three ships because he thought that the way to "
            + "India was",
        "Take two eggs, a cup of flour and a little milk. Stir until there are no lumps, then let it rest for half an "
            + "hour before",
        "She opened the letter with shaking hands, read the first line, and sat down again. After all these years "
            + "he had",
        "The committee met on Tuesday to discuss the budget for the next year; most of the members agreed that the "
            + "school should",
        "One of the most beautiful things about this film is the way in which the director lets the actors take their "
            + "time, so that",
    ];

    /// <summary>
    /// Bounds by type: the largest relative difference and the smallest agreement that pass. A wrong row order or
    /// tokenizer is off by 1 and more. f32 rounds nothing, so there the arithmetic alone is the bound. Down to Q8_0
    /// rounding costs next to nothing, so whatever lies beyond is a fault. Four bits cost what they cost: the file is
    /// llama.cpp's own bit for bit, weights are 8.7 % off, and normal noise of that size in the weights
    /// costs the same (docs/measurements/formats.md). How much of the model that leaves is measured here, and up to a
    /// loss of 0.4 it is taken without a question.
    /// </summary>
    /// <param name="type">The type of the export.</param>
    /// <param name="rounding">What float32 arithmetic alone may make of it (<see cref="Rounding"/>), which no type
    /// takes away.</param>
    public static (double Difference, double Agreement) Bounds(string type, double rounding)
    {
        (double difference, double agreement) = type switch
        {
            "f32" => (0, 0.99),
            "f16" => (0.02, 0.97),
            "bf16" => (0.1, 0.95),
            "q8_0" => (0.1, 0.95),
            _ => (0.75, 0.6),
        };
        return (difference + rounding, agreement);
    }

    /// <summary>
    /// Relative difference of logits that float32 arithmetic may make between a base with its adapter beside it and the
    /// merged model. A product of n terms is off by about sqrt(n) 2^-24 of the size of its parts (independent
    /// roundings), so by that times <see cref="MergedSource.Cancellation"/> of its sum; the errors of all
    /// products add up as independent ones do, and what lies behind them makes them larger: norms, softmax and gates,
    /// for which a factor of 16 is taken.
    /// </summary>
    /// <param name="merged">The model that was merged.</param>
    public static double Rounding(MergedSource merged)
    {
        const double unit = 1.0 / (1 << 24), behind = 16;
        double squares = 0;
        foreach (string name in merged.Config.MatrixNames())
        {
            if (name == merged.Config.TableName() && !merged.Config.TieWordEmbeddings)
                continue; // looked up, not multiplied
            double cancellation = merged.Cancellation(name);
            squares += merged.ShapeOf(name).Cols * cancellation * cancellation;
        }
        return behind * unit * Math.Sqrt(squares);
    }

    /// <summary>The next better type that there is for files of both formats; null for f32.</summary>
    public static string? Better(string type) =>
        type switch
        {
            "q4_0" => "q8_0",
            "q8_0" => "f16",
            "f16" or "bf16" => "f32",
            _ => null,
        };

    /// <summary>
    /// Whether a model may lose by the type as such, so that an export beyond the bounds can still be what was asked
    /// for; not when its logits have nothing to do with the model's.
    /// </summary>
    public static bool IsLoss(string type, ExportComparison c) => type is "q4_0" && c.RelativeDifference < 1;

    /// <summary>
    /// Compares stored values with what was to be stored, on up to <paramref name="rows"/> rows of every tensor: none
    /// may be further off than its type's rounding, which follows from the block it lies in (half a step; a whole one
    /// at the end of Q4_0's range, which has no code for +8; the rounding of the scale itself).
    /// </summary>
    /// <param name="source">What was written.</param>
    /// <param name="export">The copy.</param>
    /// <param name="matrixType">The type of a matrix, by name and columns.</param>
    /// <param name="vectorType">The type of norms and biases.</param>
    /// <param name="rows">Rows compared, in pieces all over the tensor.</param>
    /// <returns>Root mean square of the differences / of the values of the matrices, and the first tensor with a value
    /// beyond its bound.</returns>
    public static (double RelativeError, string? Beyond) Weights(
        IWeightSource source, IWeightSource export, Func<string, int, GgmlType> matrixType, GgmlType vectorType,
        int rows = 128)
    {
        double error = 0, norm = 0;
        foreach (
            var (name, vector) in source
                .Config.MatrixNames()
                .Select(n => (n, false))
                .Concat(source.Config.VectorNames().Select(n => (n, true)))
        )
        {
            var (n, cols) = source.ShapeOf(name);
            if (!export.Has(name) || export.ShapeOf(name) != (n, cols)) return (double.PositiveInfinity, name);
            var type = vector ? vectorType : matrixType(name, cols);
            int piece = Math.Min(n, vector ? n : 16),
                pieces = Math.Max(1, Math.Min(n / piece, rows / piece)),
                block = type.Block().Values;
            float[] a = new float[piece * cols], b = new float[piece * cols];
            for (int p = 0; p < pieces; p++)
            {
                int first = pieces == 1 ? 0 : (int)((long)(n - piece) * p / (pieces - 1));
                source.ReadRows(name, first, piece, a);
                export.ReadRows(name, first, piece, b);
                for (int at = 0; at < a.Length; at += block)
                {
                    float most = 0;
                    for (int i = at; i < at + block; i++) most = MathF.Max(most, MathF.Abs(a[i]));
                    // float16 counts in steps of 2^-24 near zero; a scale is one of them too.
                    float bound = type switch
                    {
                        GgmlType.F32 => 0,
                        GgmlType.F16 => most / 2048 + 6e-8f,
                        GgmlType.BF16 => most / 256,
                        GgmlType.Q8_0 => most * (1f / 254 + 1f / 2048) + 127 * 6e-8f,
                        GgmlType.Q4_0 => most * (1f / 8 + 1f / 2048) + 8 * 6e-8f,
                        _ => throw new NotSupportedException($"{type} is not exported"),
                    };
                    for (int i = at; i < at + block; i++)
                    {
                        double d = (double)a[i] - b[i];
                        if (!(Math.Abs(d) <= bound * 1.00001)) return (double.PositiveInfinity, name);
                        if (vector) continue;
                        error += d * d;
                        norm += (double)a[i] * a[i];
                    }
                }
            }
        }
        return (Math.Sqrt(error / Math.Max(norm, 1e-300)), null);
    }

    /// <summary>Logits [T, V] of every position of each prompt, one engine for all.</summary>
    /// <param name="load">Loads the model for batches of a size.</param>
    /// <param name="vocab">Tokens V of its vocabulary.</param>
    /// <param name="prompts">Token ids.</param>
    public static List<float[]> Logits(Func<BatchLimits, Engine> load, int vocab, IReadOnlyList<int[]> prompts)
    {
        int longest = prompts.Max(p => p.Length);
        using var engine = load(new BatchLimits(EvalTokens: longest, EvalSequences: longest, Candidates: vocab));
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
        return new ExportComparison(
            positions, largest, double.IsNaN(relative) ? double.PositiveInfinity : relative, decided, agreeing);
    }
}
