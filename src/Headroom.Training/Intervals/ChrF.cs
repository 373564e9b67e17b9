namespace Headroom.Training.Intervals;

/// <summary>
/// chrF (Popović 2015) as sacrebleu computes it: character n-grams of order 1 to 6 without white space, F with beta 2
/// of precision and recall averaged over the orders that occur in both texts (its effective order), counts of a corpus
/// pooled. In 0 to 100.
/// </summary>
internal static class ChrF
{
    /// <summary>Orders of n-grams.</summary>
    public const int Orders = 6;

    /// <summary>n-grams of one pair, by order: those of the hypothesis, of the reference, and of both.</summary>
    /// <returns>3 * <see cref="Orders"/> counts.</returns>
    public static int[] Count(string hypothesis, string reference)
    {
        (string h, string r) = (Letters(hypothesis), Letters(reference));
        var counts = new int[3 * Orders];
        for (int n = 1; n <= Orders; n++)
        {
            var grams = new Dictionary<string, int>(StringComparer.Ordinal);
            int at = 3 * (n - 1);
            for (int i = 0; i + n <= r.Length; i++, counts[at + 1]++)
                grams[r.Substring(i, n)] = grams.GetValueOrDefault(r.Substring(i, n)) + 1;
            for (int i = 0; i + n <= h.Length; i++, counts[at]++)
                if (grams.GetValueOrDefault(h.Substring(i, n)) is var left and > 0)
                {
                    grams[h.Substring(i, n)] = left - 1;
                    counts[at + 2]++;
                }
        }
        return counts;
    }

    /// <summary>The score of pooled counts.</summary>
    /// <param name="counts">As <see cref="Count"/> has them.</param>
    /// <param name="beta">How many times more recall counts than precision.</param>
    public static double Score(ReadOnlySpan<long> counts, double beta = 2)
    {
        double precision = 0, recall = 0;
        int orders = 0;
        for (int n = 0; n < Orders; n++)
        {
            var (hypothesis, reference, both) = (counts[3 * n], counts[3 * n + 1], counts[3 * n + 2]);
            if (hypothesis == 0 || reference == 0) continue;
            precision += both / (double)hypothesis;
            recall += both / (double)reference;
            orders++;
        }
        if (orders == 0 || precision + recall == 0) return 0;
        (precision, recall) = (precision / orders, recall / orders);
        return 100 * (1 + beta * beta) * precision * recall / (beta * beta * precision + recall);
    }

    private static string Letters(string text) => string.Concat(text.Where(c => !char.IsWhiteSpace(c)));
}
