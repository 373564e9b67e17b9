using Headroom.Core;
using Headroom.Training.Intervals;

namespace Headroom.Training.Tasks.LabelWords;

/// <summary>Precision, recall and F1 with their intervals, of a class or an average.</summary>
internal sealed record ScoreIntervals(Interval Precision, Interval Recall, Interval F1);

/// <summary>Every figure of a confusion matrix with its 95 % interval.</summary>
/// <param name="Accuracy">Wilson's.</param>
/// <param name="Macro">Mean over the classes that occur; bootstrap over rows, as all that follows.</param>
/// <param name="Weighted">Mean by gold rows.</param>
/// <param name="Classes">By class.</param>
internal sealed record ConfusionIntervals(
    Interval Accuracy, ScoreIntervals Macro, ScoreIntervals Weighted, IReadOnlyList<ScoreIntervals> Classes)
{
    /// <summary>As <see cref="ConfusionMatrix.Main"/>: of the positive class where there are two, else macro.</summary>
    public ScoreIntervals Main => Classes.Count == 2 ? Classes[1] : Macro;

    /// <summary>
    /// Accuracy with Wilson's interval; precision, recall and F1 of every class and average with a percentile bootstrap
    /// over rows (B. Efron, "Bootstrap methods", 1979; 2.5 to 97.5 % of the resamples). Resample i uses Philox stream
    /// i: the result does not depend on threads. Where no resample differs (all or none of a class right), which says
    /// nothing about other rows, Wilson's interval takes its place: of right / predicted, right / gold, and for F1 = 2
    /// J / (1 + J) of J = right / (rows that are or were called so); averages then take the mean of their classes'
    /// bounds.
    /// </summary>
    public static ConfusionIntervals Resample(ConfusionMatrix m, ulong seed, int resamples = Statistics.Resamples)
    {
        int figures = 3 * (m.Classes + 2);
        var samples = new double[figures][];
        for (int f = 0; f < figures; f++) samples[f] = new double[resamples];
        Parallel.For(0, m.Rows == 0 ? 0 : resamples, () => new long[m.Classes * m.Classes], (i, _, drawn) =>
        {
            Multinomial.Resample(m.Counts, drawn, new PhiloxRandom(seed, (uint)i));
            var resample = new ConfusionMatrix(drawn);
            for (int k = 0; k < m.Classes + 2; k++)
                (samples[3 * k][i], samples[3 * k + 1][i], samples[3 * k + 2][i]) = Figures(resample, k);
            return drawn;
        }, _ => { });
        Parallel.ForEach(samples, s => Array.Sort(s));
        var classes = Enumerable.Range(0, m.Classes).Select(c => OfClass(m, c, samples.AsSpan(3 * c, 3))).ToList();
        return new ConfusionIntervals(
            Statistics.Wilson(m.Correct, m.Rows),
            OfAverage(m.Macro, samples.AsSpan(3 * m.Classes, 3), c => m.Occurs(c) ? 1 : 0, classes),
            OfAverage(m.Weighted, samples.AsSpan(3 * m.Classes + 3, 3), c => m.Gold(c), classes), classes);
    }

    // The classes, then macro and weighted.
    private static (double, double, double) Figures(ConfusionMatrix m, int k)
    {
        var s = k < m.Classes ? m.ForClass(k) : k == m.Classes ? m.Macro : m.Weighted;
        return (s.Precision, s.Recall, s.F1);
    }

    private static ScoreIntervals OfClass(ConfusionMatrix m, int c, ReadOnlySpan<double[]> sorted)
    {
        var s = m.ForClass(c);
        long right = m[c, c], gold = m.Gold(c), predicted = m.Predicted(c);
        var share = Statistics.Wilson(right, gold + predicted - right);
        return new ScoreIntervals(
            Statistics.Percentile(s.Precision, sorted[0]) ?? Statistics.Wilson(right, predicted),
            Statistics.Percentile(s.Recall, sorted[1]) ?? Statistics.Wilson(right, gold),
            Statistics.Percentile(s.F1, sorted[2])
                ?? new Interval(s.F1, 2 * share.Low / (1 + share.Low), 2 * share.High / (1 + share.High))
        );
    }

    private static ScoreIntervals OfAverage(
        Scores s, ReadOnlySpan<double[]> sorted, Func<int, double> weight, List<ScoreIntervals> classes)
    {
        double all = Enumerable.Range(0, classes.Count).Sum(weight);
        Interval Mean(double value, Func<ScoreIntervals, Interval> of) => all == 0 ? new Interval(value, 0, 1)
                : new Interval(
                    value, classes.Select((c, i) => weight(i) * of(c).Low).Sum() / all,
                    classes.Select((c, i) => weight(i) * of(c).High).Sum() / all);
        return new ScoreIntervals(Statistics.Percentile(s.Precision, sorted[0]) ?? Mean(s.Precision, c => c.Precision),
            Statistics.Percentile(s.Recall, sorted[1]) ?? Mean(s.Recall, c => c.Recall),
            Statistics.Percentile(s.F1, sorted[2]) ?? Mean(s.F1, c => c.F1)
        );
    }
}
