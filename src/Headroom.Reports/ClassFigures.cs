using System.Text.Json.Nodes;
using Headroom.Training;

namespace Headroom.Reports;

/// <summary>Figures of classes as JSON, the same in results.json and in what headroom eval prints.</summary>
public static class ClassFigures
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
            ["average"] = m.IsBinary ? "binary" : "macro", ["positive"] = m.IsBinary ? m.Labels?[1] ?? "1" : null,
            ["matrix"] = new JsonArray([.. classes.Select(g => (JsonNode?)new JsonArray([.. classes.Select(p => (JsonNode?)m[g, p])]))]),
            ["macro"] = Scores(i.Macro), ["weighted"] = Scores(i.Weighted),
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

    private static JsonObject Scores(ScoreIntervals s) => new()
    {
        ["precision"] = ReportJson.Interval(s.Precision, null), ["recall"] = ReportJson.Interval(s.Recall, null), ["f1"] = ReportJson.Interval(s.F1, null),
    };
}
