using System.Globalization;

namespace Headroom.Training.Tasks.LabelWords;

/// <summary>
/// Precision, recall and F1, of one class or averaged over classes; 0 where nothing is divided by nothing.
/// </summary>
/// <param name="Precision">Right predictions / predictions.</param>
/// <param name="Recall">Right predictions / gold rows.</param>
/// <param name="F1">2 · right / (predictions + gold rows).</param>
/// <param name="Support">Gold rows.</param>
internal readonly record struct Scores(double Precision, double Recall, double F1, long Support);

/// <summary>
/// Counts of K classes, gold by predicted, and every figure that follows from them: the one place they are computed
/// for console, events, choice of the best adapter and reports. Definitions are those of scikit-learn
/// (<c>sklearn.metrics.classification_report</c> with <c>zero_division=0</c>): macro is the plain mean over the classes
/// that are among the gold labels or the predictions, weighted the mean by gold rows.
/// </summary>
internal sealed class ConfusionMatrix
{
    private readonly long[] _counts, _gold, _predicted; // [gold, predicted], sums of rows, sums of columns

    /// <summary>From counts.</summary>
    /// <param name="counts">K x K, row by row: gold label, then predicted label.</param>
    /// <param name="labels">The K label words, or null where they are not known.</param>
    /// <exception cref="ArgumentException">
    /// Fewer than two classes, no square, a negative count, or words of another number.
    /// </exception>
    public ConfusionMatrix(ReadOnlySpan<long> counts, IReadOnlyList<string>? labels = null)
    {
        Classes = (int)Math.Sqrt(counts.Length);
        if (Classes < 2 || Classes * Classes != counts.Length)
            throw new ArgumentException($"{counts.Length} counts are no square of two or more classes", nameof(counts));
        if (labels != null && labels.Count != Classes)
            throw new ArgumentException($"{labels.Count} label words for {Classes} classes", nameof(labels));
        Labels = labels;
        _counts = counts.ToArray();
        (_gold, _predicted) = (new long[Classes], new long[Classes]);
        for (int g = 0; g < Classes; g++)
            for (int p = 0; p < Classes; p++)
            {
                long n = _counts[g * Classes + p];
                if (n < 0) throw new ArgumentException($"a count is {n}", nameof(counts));
                _gold[g] += n;
                _predicted[p] += n;
                Rows += n;
                if (g == p) Correct += n;
            }
    }

    /// <summary>Counts predictions.</summary>
    /// <param name="gold">Label index of each row, from 0 to <paramref name="classes"/> - 1.</param>
    /// <param name="predicted">Predicted index of each row, likewise.</param>
    /// <param name="classes">K.</param>
    /// <param name="labels">The K label words, or null.</param>
    public static ConfusionMatrix Count(
        ReadOnlySpan<int> gold, ReadOnlySpan<int> predicted, int classes, IReadOnlyList<string>? labels = null)
    {
        var counts = new long[classes * classes];
        for (int i = 0; i < gold.Length; i++) counts[gold[i] * classes + predicted[i]]++;
        return new ConfusionMatrix(counts, labels);
    }

    /// <summary>K.</summary>
    public int Classes { get; }
    /// <summary>Label words by class; null in logs that do not have them.</summary>
    public IReadOnlyList<string>? Labels { get; }
    /// <summary>All rows.</summary>
    public long Rows { get; }
    /// <summary>Rows predicted right.</summary>
    public long Correct { get; }
    /// <summary>
    /// Two classes: the second is the positive one, and precision, recall and F1 without another word are its own.
    /// </summary>
    public bool IsBinary => Classes == 2;
    /// <summary>Rows of a gold and a predicted class.</summary>
    public long this[int gold, int predicted] => _counts[gold * Classes + predicted];
    /// <summary>The counts, row by row.</summary>
    public ReadOnlySpan<long> Counts => _counts;

    /// <summary>Share of rows that is right; NaN without rows.</summary>
    public double Accuracy => Correct / (double)Rows;
    /// <summary>Gold rows of a class.</summary>
    public long Gold(int c) => _gold[c];
    /// <summary>Predictions of a class.</summary>
    public long Predicted(int c) => _predicted[c];
    /// <summary>Whether a class is among the gold labels or the predictions: only then do averages count it.</summary>
    public bool Occurs(int c) => _gold[c] + _predicted[c] > 0;

    /// <summary>Scores of a class against all others.</summary>
    public Scores ForClass(int c)
    {
        double right = this[c, c];
        return new Scores(
            Ratio(right, _predicted[c]), Ratio(right, _gold[c]), Ratio(2 * right, _gold[c] + _predicted[c]), _gold[c]);
    }

    /// <summary>Mean over the classes that occur, each counting the same.</summary>
    public Scores Macro => Average(c => Occurs(c) ? 1 : 0);
    /// <summary>Mean over the classes, each counting by its gold rows.</summary>
    public Scores Weighted => Average(c => _gold[c]);
    /// <summary>
    /// Over all rows at once: as every row has one label and one prediction, all three are the accuracy.
    /// </summary>
    public Scores Micro => Rows == 0 ? default : new Scores(Accuracy, Accuracy, Accuracy, Rows);
    /// <summary>
    /// What "precision", "recall" and "F1" mean without another word: of the positive class for two classes,
    /// else macro.
    /// </summary>
    public Scores Main => IsBinary ? ForClass(1) : Macro;

    /// <summary>A class as text: its label word in quotes, or its number.</summary>
    public string Name(int c) =>
        Labels == null ? string.Create(CultureInfo.InvariantCulture, $"label {c}") : $"'{Labels[c]}'";

    /// <summary>Name of the F1 of <see cref="Main"/>: "F1 of ' positive'", or "macro F1".</summary>
    public string F1Name => IsBinary ? $"F1 of {Name(1)}" : "macro F1";

    /// <summary>What has no value by its definition and counts as 0, or is left out; one sentence for each.</summary>
    public IReadOnlyList<string> Undefined()
    {
        if (Rows == 0) return [];
        var said = new List<string>();
        Add(c => !Occurs(c), "no row has {0}, and none was predicted so: left out of the averages");
        Add(c => Occurs(c) && _gold[c] == 0, "no row has {0}: its recall counts as 0");
        Add(c => Occurs(c) && _predicted[c] == 0, "{0} was never predicted: its precision counts as 0");
        return said;

        void Add(Predicate<int> which, string sentence)
        {
            int[] found = [.. Enumerable.Range(0, Classes).Where(c => which(c))];
            if (found.Length > 0)
                said.Add(
                    string.Format(CultureInfo.InvariantCulture, sentence, string.Join(" or ", found.Select(Name))));
        }
    }

    private Scores Average(Func<int, double> weight)
    {
        double all = 0, precision = 0, recall = 0, f1 = 0;
        for (int c = 0; c < Classes; c++)
        {
            double w = weight(c);
            var s = ForClass(c);
            (all, precision, recall, f1) = (all + w, precision + w * s.Precision, recall + w * s.Recall, f1 + w * s.F1);
        }
        return new Scores(Ratio(precision, all), Ratio(recall, all), Ratio(f1, all), Rows);
    }

    private static double Ratio(double a, double b) => b == 0 ? 0 : a / b;
}
