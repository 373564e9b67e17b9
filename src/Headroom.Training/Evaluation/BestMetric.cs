namespace Headroom.Training;

/// <summary>
/// The figures that training.metric_for_best_model can name, as scikit-learn and transformers' examples call them.
/// </summary>
public static class BestMetric
{
    private const string Prefix = "eval_"; // transformers takes metric names with and without it
    private static readonly string[] Figures = ["f1", "precision", "recall"], Averages = ["", "_macro", "_micro", "_weighted"];

    /// <summary>
    /// All names. f1, precision and recall alone are of the positive class where there are two, else macro.
    /// </summary>
    public static IReadOnlyList<string> Names { get; } = ["loss", "accuracy", .. Figures.SelectMany(f => Averages.Select(a => f + a))];

    /// <summary>A name without transformers' prefix: eval_loss is loss.</summary>
    public static string Plain(string name) => name.StartsWith(Prefix, StringComparison.Ordinal) ? name[Prefix.Length..] : name;

    /// <summary>The figure of an evaluation, and whether greater is better.</summary>
    /// <exception cref="ArgumentException">There is no such metric; a checked recipe has none.</exception>
    public static (double Value, bool GreaterIsBetter) Of(string name, Predictions p) => Plain(name) switch
    {
        "loss" => (p.Loss, false),
        "accuracy" => (p.Accuracy, true),
        var f1 when f1.StartsWith("f1", StringComparison.Ordinal) => (Average(f1, p.Confusion).F1, true),
        var precision when precision.StartsWith("precision", StringComparison.Ordinal) => (Average(precision, p.Confusion).Precision, true),
        var recall when recall.StartsWith("recall", StringComparison.Ordinal) => (Average(recall, p.Confusion).Recall, true),
        _ => throw new ArgumentException($"there is no metric {name}", nameof(name)),
    };

    /// <summary>What a name means for a task: "F1 of ' positive'" or "macro F1" for f1.</summary>
    /// <param name="name">One of <see cref="Names"/>.</param>
    /// <param name="labels">The label words; the second is the positive class where there are two.</param>
    public static string Describe(string name, IReadOnlyList<string> labels)
    {
        string plain = Plain(name), figure = plain.Split('_')[0], shown = figure == "f1" ? "F1" : figure;
        if (plain is "loss" or "accuracy") return plain;
        if (plain.Length > figure.Length) return $"{plain[(figure.Length + 1)..]} {shown}";
        return labels.Count == 2 ? $"{shown} of '{labels[1]}'" : $"macro {shown}";
    }

    private static Scores Average(string name, ConfusionMatrix m) => name[(name.IndexOf('_') + 1)..] switch
    {
        "macro" => m.Macro,
        "micro" => m.Micro,
        "weighted" => m.Weighted,
        _ => m.Main,
    };
}
