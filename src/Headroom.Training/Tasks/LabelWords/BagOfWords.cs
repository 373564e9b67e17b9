using System.Numerics;
using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Training.Recipes;

namespace Headroom.Training.Tasks.LabelWords;

/// <summary>
/// The baseline of every report: a logistic regression on which words occur (lower case, letters only), with L2 weight
/// decay, by AdaGrad; for more than two classes multinomial (softmax). The decay is the one of four that does best on
/// the validation rows, or on a held-out tenth of the training rows when there are none.
/// </summary>
internal static class BagOfWords
{
    /// <summary>Name in events and reports.</summary>
    public const string Name = "bag-of-words logistic regression";
    private const int Epochs = 20;
    private const uint EpochStream = 0x33000000, HeldOut = 0x33FFFFFF; // streams of the random numbers
    private static readonly double[] Decays = [1e-6, 1e-5, 1e-4, 1e-3];

    /// <summary>Fits on train and predicts test.</summary>
    /// <param name="train">Training rows.</param>
    /// <param name="validation">Rows to choose the decay by; may be empty.</param>
    /// <param name="test">Rows to predict.</param>
    /// <param name="labels">Label value to label word, two or more, as <see cref="TaskOptions.Labels"/>.</param>
    /// <param name="seed">Of the order of rows.</param>
    /// <param name="stop">Looked at between epochs; ends it with an <see cref="OperationCanceledException"/>.</param>
    public static Predictions Run(
        IReadOnlyList<DataRow> train, IReadOnlyList<DataRow> validation, IReadOnlyList<DataRow> test,
        IReadOnlyDictionary<string, string> labels, int seed, CancellationToken stop = default)
    {
        string[] values = [.. labels.Keys];
        int outputs = values.Length == 2 ? 1 : values.Length;
        int Index(DataRow r) => Array.IndexOf(values, r.Label);
        var vocabulary = new Dictionary<string, int>(StringComparer.Ordinal);
        var x = train.Select(r => Words(r, vocabulary, true)).ToArray();
        int[] y = [.. train.Select(Index)];
        int held = validation.Count > 0 ? 0 : Math.Max(1, x.Length / 10);
        int[] rows = Order(x.Length, seed);
        int[][] fx = [.. rows[held..].Select(i => x[i])];
        int[] fy = [.. rows[held..].Select(i => y[i])];
        int[][] vx =
            held == 0 ? [.. validation.Select(r => Words(r, vocabulary, false))] : [.. rows[..held].Select(i => x[i])];
        int[] vy = held == 0 ? [.. validation.Select(Index)] : [.. rows[..held].Select(i => y[i])];
        // Each decay is a fit of its own, so they run side by side; of equal ones the smallest counts.
        var right = new int[Decays.Length];
        Parallel.For(0, Decays.Length, d =>
        {
            var model = new Model(vocabulary.Count, outputs);
            model.Fit(fx, fy, Decays[d], seed, stop);
            for (int i = 0; i < vx.Length; i++)
                if (model.Predict(vx[i]) == vy[i]) right[d]++;
        });
        stop.ThrowIfCancellationRequested();
        var chosen = new Model(vocabulary.Count, outputs);
        chosen.Fit(x, y, Decays[Array.IndexOf(right, right.Max())], seed, stop);
        stop.ThrowIfCancellationRequested();
        var tx = test.Select(r => Words(r, vocabulary, false)).ToArray();
        float[]? margin = values.Length == 2 ? [.. tx.Select(w => (float)chosen.Scores(w)[0])] : null;
        return new Predictions(
            [.. labels.Values], [.. test.Select(Index)], [.. tx.Select(chosen.Predict)], margin,
            [.. test.Select(r => r.Tier)], double.NaN);
    }

    /// <summary>
    /// The training rows in the order by which the first are held out: drawn, since rows of a file often come one class
    /// after the other.
    /// </summary>
    internal static int[] Order(int rows, int seed)
    {
        int[] order = [.. Enumerable.Range(0, rows)];
        new PhiloxRandom((ulong)(uint)seed, HeldOut).Shuffle<int>(order);
        return order;
    }

    /// <summary>
    /// Weights of every word, one score a class; two classes need one score only, the log odds of the second.
    /// </summary>
    private sealed class Model(int words, int outputs)
    {
        private const double Rate = 0.1;
        // [word, output]; the last word is the intercept. AdaGrad's sums of squares begin a little above 0.
        private readonly double[] _weights = new double[(long)(words + 1) * outputs];
        private readonly double[] _squares = Squares((long)(words + 1) * outputs);
        private readonly double[] _scores = new double[outputs];

        public void Fit(ReadOnlySpan<int[]> x, int[] y, double decay, int seed, CancellationToken stop)
        {
            int[] order = [.. Enumerable.Range(0, x.Length)];
            double keep = decay * x.Length;
            for (int e = 0; e < Epochs && !stop.IsCancellationRequested; e++)
            {
                new PhiloxRandom((ulong)(uint)seed, EpochStream + (uint)e).Shuffle<int>(order);
                foreach (int i in order)
                {
                    var gradient = Gradient(x[i], y[i]);
                    foreach (int word in x[i]) Step(word, gradient, keep);
                    Step(words, gradient, 0);
                }
            }
        }

        public int Predict(int[] x)
        {
            var scores = Scores(x);
            if (outputs == 1) return scores[0] > 0 ? 1 : 0;
            int best = 0;
            for (int k = 1; k < scores.Length; k++)
                if (scores[k] > scores[best]) best = k;
            return best;
        }

        /// <summary>One score an output; overwritten by the next call.</summary>
        public ReadOnlySpan<double> Scores(int[] x)
        {
            Row(_weights, words).CopyTo(_scores);
            foreach (int word in x)
            {
                var row = Row(_weights, word);
                for (int k = 0; k < row.Length; k++) _scores[k] += row[k];
            }
            return _scores;
        }

        // Of -log p(y): p - 1 for the right class, p for the others.
        private ReadOnlySpan<double> Gradient(int[] x, int y)
        {
            Scores(x);
            if (outputs == 1)
            {
                _scores[0] = 1 / (1 + Math.Exp(-_scores[0])) - y;
                return _scores;
            }
            double largest = _scores.Max(), sum = 0;
            for (int k = 0; k < _scores.Length; k++) sum += _scores[k] = Math.Exp(_scores[k] - largest);
            for (int k = 0; k < _scores.Length; k++) _scores[k] /= sum;
            _scores[y]--;
            return _scores;
        }

        private void Step(int word, ReadOnlySpan<double> gradient, double keep)
        {
            Span<double> weights = Row(_weights, word), squares = Row(_squares, word);
            int k = 0;
            // every class by itself: the same values at any width
            for (int lanes = Vector<double>.Count; k <= weights.Length - lanes; k += lanes)
            {
                var w = new Vector<double>(weights[k..]);
                var g = new Vector<double>(gradient[k..]) + keep * w;
                var square = new Vector<double>(squares[k..]) + g * g;
                square.CopyTo(squares[k..]);
                (w - Rate * g / Vector.SquareRoot(square)).CopyTo(weights[k..]);
            }
            for (; k < weights.Length; k++)
            {
                double g = gradient[k] + keep * weights[k];
                squares[k] += g * g;
                weights[k] -= Rate * g / Math.Sqrt(squares[k]);
            }
        }

        private Span<double> Row(double[] table, int word) => table.AsSpan(checked(word * outputs), outputs);

        private static double[] Squares(long count)
        {
            var squares = new double[count];
            Array.Fill(squares, 1e-6);
            return squares;
        }
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
