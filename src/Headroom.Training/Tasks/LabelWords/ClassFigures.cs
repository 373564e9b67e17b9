using System.Text.Json.Nodes;
using Headroom.Training.Intervals;

namespace Headroom.Training.Tasks.LabelWords;

/// <summary>Figures of classes as JSON, the same in results.json and in what headroom eval prints.</summary>
internal static class ClassFigures
{
    /// <summary>
    /// labels (null where they are not known), average (what precision, recall and F1 without another word are of:
    /// binary, the positive class, or macro), positive, matrix (K x K, gold by predicted), macro, weighted and by_class
    /// with intervals.
    /// </summary>
    public static JsonObject Json(ConfusionMatrix m, ConfusionIntervals i)
    {
        var classes = Enumerable.Range(0, m.Classes).ToList();
        return new JsonObject
        {
            ["labels"] = m.Labels == null ? null : new JsonArray([.. m.Labels.Select(l => (JsonNode?)l)]),
            ["average"] = m.IsBinary ? "binary" : "macro",
            ["positive"] = m.IsBinary ? m.Labels?[1] ?? "1" : null,
            ["matrix"] = new JsonArray([
                .. classes.Select(g => (JsonNode?)new JsonArray([.. classes.Select(p => (JsonNode?)m[g, p])])),
            ]),
            ["macro"] = Scores(i.Macro),
            ["weighted"] = Scores(i.Weighted),
            ["by_class"] = new JsonArray([.. classes.Select(c =>
            {
                var scores = Scores(i.Classes[c]);
                scores.Insert(0, "label", m.Labels?[c]);
                scores.Insert(1, "rows", m.Gold(c));
                scores.Insert(2, "predicted", m.Predicted(c));
                return (JsonNode?)scores;
            })]),
            ["undefined"] = new JsonArray([.. m.Undefined().Select(u => (JsonNode?)u)]),
        };
    }

    /// <summary>Fields of results.json for an evaluation on the test rows.</summary>
    public static JsonObject Report(Evaluation e)
    {
        var d = (LabelWordDetail)e.Detail!;
        return new JsonObject
        {
            ["correct"] = d.Correct,
            ["loss"] = e.Value("loss"),
            ["accuracy"] = Interval(e.Find("accuracy")),
            ["precision"] = Interval(e.Find("precision")),
            ["recall"] = Interval(e.Find("recall")),
            ["f1"] = Interval(e.Find("f1")),
            // Of two classes also by the names that everyone has for them.
            ["confusion"] = d.Confusion is { IsBinary: true } c
                ? new JsonObject
                {
                    ["tn"] = c[0, 0],
                    ["fp"] = c[0, 1],
                    ["fn"] = c[1, 0],
                    ["tp"] = c[1, 1],
                }
                : null,
            ["classes"] = d is { Confusion: { } m, Intervals: { } i } ? Json(m, i) : null,
            ["tiers"] = new JsonArray([.. d.ByTier.Select(t => (JsonNode?)new JsonObject
                        {
                            ["tier"] = t.Tier, ["rows"] = t.Confusion.Rows, ["correct"] = t.Confusion.Correct,
                            ["accuracy"] = Interval(Statistics.Wilson(t.Confusion.Correct, t.Confusion.Rows)),
                            ["f1"] = t.Confusion.Main.F1,
                        }
                ),
            ]),
        };
    }

    /// <summary>What headroom eval prints. What precision, recall and f1 are of is said by classes.average.</summary>
    public static JsonObject Eval(Evaluation e)
    {
        var d = (LabelWordDetail)e.Detail!;
        var (m, i) = (d.Confusion!, d.Intervals!);
        var classes = Json(m, i);
        return new JsonObject
        {
            ["rows"] = e.Rows,
            ["loss"] = double.IsFinite(d.Loss) ? d.Loss : null,
            ["accuracy"] = i.Accuracy.Value,
            ["accuracy_low"] = i.Accuracy.Low,
            ["accuracy_high"] = i.Accuracy.High,
            ["precision"] = m.Main.Precision,
            ["recall"] = m.Main.Recall,
            ["f1"] = m.Main.F1,
            ["f1_low"] = i.Main.F1.Low,
            ["f1_high"] = i.Main.F1.High,
            ["confusion"] = classes["matrix"]!.DeepClone(),
            ["classes"] = classes,
            ["tiers"] = new JsonArray([.. d.ByTier.Select(t => (JsonNode?)new JsonObject
            {
                            ["tier"] = t.Tier,
                            ["rows"] = t.Confusion.Rows,
                            ["accuracy"] = t.Confusion.Accuracy,
                            ["f1"] = t.Confusion.Main.F1,
            })]),
            ["metrics"] = e.ToJson(true)["metrics"]!.DeepClone(),
        };
    }

    private static JsonObject Scores(ScoreIntervals s) =>
        new()
        {
            ["precision"] = Interval(s.Precision),
            ["recall"] = Interval(s.Recall),
            ["f1"] = Interval(s.F1),
        };

    private static JsonObject Interval(Interval x) => new() { ["value"] = x.Value, ["low"] = x.Low, ["high"] = x.High };

    private static JsonObject? Interval(Metric? m) =>
        m == null ? null
        : m.Interval is { } i ? Interval(i)
        : new JsonObject
        {
            ["value"] = m.Value,
            ["low"] = null,
            ["high"] = null,
        };
}
