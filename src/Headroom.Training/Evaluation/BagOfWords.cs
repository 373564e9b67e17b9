using Headroom.Core;
using Headroom.Formats.Data;

namespace Headroom.Training;

/// <summary>
/// The baseline of every report: a logistic regression on which words occur (lower case, letters only), with L2 weight decay, by AdaGrad. The decay is the
/// one of four that does best on the validation rows, or on a held-out tenth of the training rows when there are none.
/// </summary>
public static class BagOfWords
{
    /// <summary>Name in events and reports.</summary>
    public const string Name = "bag-of-words logistic regression";
    private const int Epochs = 20;
    private static readonly double[] Decays = [1e-6, 1e-5, 1e-4, 1e-3];

    /// <summary>Fits on train and predicts test; <paramref name="index"/> gives a row's label, 0 or 1.</summary>
    public static Predictions Run(IReadOnlyList<DataRow> train, IReadOnlyList<DataRow> validation, IReadOnlyList<DataRow> test, Func<string, int> index, int seed)
    {
        var vocabulary = new Dictionary<string, int>(StringComparer.Ordinal);
        var x = train.Select(r => Words(r, vocabulary, true)).ToArray();
        int[] y = [.. train.Select(r => index(r.Label))];
        int held = validation.Count > 0 ? 0 : Math.Max(1, x.Length / 10);
        int[][] vx = held == 0 ? [.. validation.Select(r => Words(r, vocabulary, false))] : x[^held..];
        int[] vy = held == 0 ? [.. validation.Select(r => index(r.Label))] : y[^held..];
        double best = -1, decay = Decays[0];
        foreach (double d in Decays)
        {
            var w = Fit(x.AsSpan(0, x.Length - held), y, vocabulary.Count, d, seed);
            double right = 0;
            for (int i = 0; i < vx.Length; i++)
                if (Score(w, vx[i]) > 0 == (vy[i] == 1)) right++;
            if (right > best) (best, decay) = (right, d);
        }
        var weights = Fit(x, y, vocabulary.Count, decay, seed);
        var margin = new float[test.Count];
        for (int i = 0; i < margin.Length; i++) margin[i] = (float)Score(weights, Words(test[i], vocabulary, false));
        return new Predictions([.. test.Select(r => index(r.Label))], [.. margin.Select(m => m > 0 ? 1 : 0)], margin, [.. test.Select(r => r.Tier)], double.NaN);
    }

    private static double[] Fit(ReadOnlySpan<int[]> x, int[] y, int words, double decay, int seed)
    {
        double[] w = new double[words + 1], square = new double[words + 1]; // the last is the intercept
        Array.Fill(square, 1e-6);
        int[] order = [.. Enumerable.Range(0, x.Length)];
        for (int e = 0; e < Epochs; e++)
        {
            new PhiloxRandom((ulong)(uint)seed, 0x33000000 + (uint)e).Shuffle<int>(order);
            foreach (int i in order)
            {
                double g = 1 / (1 + Math.Exp(-Score(w, x[i]))) - y[i];
                foreach (int f in x[i]) Step(f, g + decay * x.Length * w[f]);
                Step(words, g);
            }
        }
        return w;

        void Step(int f, double g)
        {
            square[f] += g * g;
            w[f] -= 0.1 * g / Math.Sqrt(square[f]);
        }
    }

    private static double Score(double[] w, int[] x)
    {
        double s = w[^1];
        foreach (int f in x) s += w[f];
        return s;
    }

    // The words of all its texts, in one bag.
    private static int[] Words(DataRow row, Dictionary<string, int> vocabulary, bool add) =>
        Words(row.More == null ? row.Text : string.Join('\n', row.Texts), vocabulary, add);

    private static int[] Words(string text, Dictionary<string, int> vocabulary, bool add)
    {
        var found = new HashSet<int>();
        var find = vocabulary.GetAlternateLookup<ReadOnlySpan<char>>();
        string lower = text.ToLowerInvariant();
        for (int i = 0; i < lower.Length;)
        {
            int start = i;
            while (i < lower.Length && (char.IsLetter(lower[i]) || lower[i] == '\'')) i++;
            if (i == start) { i++; continue; }
            var word = lower.AsSpan(start, i - start);
            if (find.TryGetValue(word, out int id)) found.Add(id);
            else if (add)
            {
                vocabulary.Add(word.ToString(), vocabulary.Count);
                found.Add(vocabulary.Count - 1);
            }
        }
        return [.. found.Order()];
    }
}
