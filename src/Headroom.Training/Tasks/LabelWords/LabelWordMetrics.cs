using Headroom.Training.Intervals;

namespace Headroom.Training.Tasks.LabelWords;

/// <summary>
/// The metrics of label words, as scikit-learn and transformers' examples call them. f1, precision and recall alone are
/// of the positive class (the second label) where there are two, else macro.
/// </summary>
internal static class LabelWordMetrics
{
    private const string Share = "share";
    private static readonly string[] Figures = ["f1", "precision", "recall"];
    private static readonly string[] Averages = ["", "_macro", "_micro", "_weighted"];

    /// <summary>All of them.</summary>
    public static IReadOnlyList<MetricKind> Kinds { get; } =
    [
        MetricKind.Loss, new("accuracy", Direction.Higher) { Unit = Share },
        .. Figures.SelectMany(f => Averages.Select(a => f + a))
            .Select(n => new MetricKind(n, Direction.Higher) { Label = Describe(n, 0, null), Unit = Share }),
    ];

    /// <summary>What a name means: "F1 of ' positive'" or "macro F1" for f1.</summary>
    /// <param name="name">That of a kind.</param>
    /// <param name="classes">Number of classes; 0 = not known.</param>
    /// <param name="labels">The label words; the second is the positive class where there are two. Null = not
    /// known.</param>
    public static string Describe(string name, int classes, IReadOnlyList<string>? labels)
    {
        string figure = name.Split('_')[0], shown = figure == "f1" ? "F1" : figure;
        if (!Figures.Contains(figure)) return name;
        if (name.Length > figure.Length) return $"{name[(figure.Length + 1)..]} {shown}";
        return classes > 2 ? $"macro {shown}" : labels == null ? shown : $"{shown} of '{labels[1]}'";
    }

    /// <summary>Every metric that follows from counts, or that a log has where it has no counts.</summary>
    /// <param name="d">Counts, with their intervals.</param>
    /// <param name="accuracy">Share that is right with its interval; null = not known.</param>
    /// <param name="loss">Mean loss; null or NaN = not measured.</param>
    /// <param name="lossInterval">Its interval, or null.</param>
    /// <param name="logged">A figure of the log where there are no counts; null = none.</param>
    public static IReadOnlyList<Metric> Compute(
        LabelWordDetail d, Interval? accuracy, double? loss, Interval? lossInterval,
        Func<string, double?>? logged = null)
    {
        var metrics = new List<Metric>();
        var m = d.Confusion;
        foreach (var kind in Kinds)
        {
            string name = kind.Name, label = Describe(name, m?.Classes ?? 0, m?.Labels);
            if (kind == MetricKind.Loss)
            {
                if (loss is { } l && !double.IsNaN(l)) metrics.Add(new Metric(kind, l, () => lossInterval));
            }
            else if (name == "accuracy")
            {
                if (accuracy is { } a) metrics.Add(new Metric(kind, a.Value, () => double.IsNaN(a.Low) ? null : a));
            }
            else if (m != null)
                metrics.Add(
                    new(
                        kind, Figure(name, Average(name, m)), () => d.Intervals is { } i ? Interval(name, i, m) : null,
                        label)
                );
            else if (logged?.Invoke(name) is { } value) metrics.Add(new Metric(kind, value, null, label));
        }
        return metrics;
    }

    private static string AverageOf(string name) => name[(name.IndexOf('_') + 1)..];

    private static Scores Average(string name, ConfusionMatrix m) => AverageOf(name) switch
    {
        "macro" => m.Macro,
        "micro" => m.Micro,
        "weighted" => m.Weighted,
        _ => m.Main,
    };

    private static double Figure(string name, Scores s) =>
        name.Split('_')[0] switch { "f1" => s.F1, "precision" => s.Precision, _ => s.Recall };

    // Micro averages are the accuracy, as every row has one label and one prediction.
    private static Interval Interval(string name, ConfusionIntervals i, ConfusionMatrix m)
    {
        if (AverageOf(name) == "micro") return Statistics.Wilson(m.Correct, m.Rows);
        var s = AverageOf(name) switch { "macro" => i.Macro, "weighted" => i.Weighted, _ => i.Main };
        return name.Split('_')[0] switch { "f1" => s.F1, "precision" => s.Precision, _ => s.Recall };
    }
}
