using System.Text.Json.Nodes;
using Headroom.Training.Runs;
using Headroom.Training.Tasks;

namespace Headroom.Cli.Commands;

/// <summary>What train and duel print of metrics with --json.</summary>
internal static class ResultJson
{
    /// <summary>
    /// Adds the metrics that the task shows, each under its name (null where it has no value), what its name means
    /// under name_of where it means more, and every metric under metrics.
    /// </summary>
    public static JsonObject Metrics(TaskType type, RunResult? result, JsonObject json)
    {
        if (result != null && type.Shown.Count > 0)
            json[$"zero_shot_{type.Shown[0]}"] = Finite(
                result.ZeroShotMetrics.FirstOrDefault(m => m.Name == type.Shown[0]));
        foreach (string name in type.Shown)
        {
            var metric = result?.TunedMetrics.FirstOrDefault(m => m.Name == name);
            json[name] = Finite(metric);
            if (metric != null && metric.Label != metric.Kind.Label) json[name + "_of"] = metric.Label;
        }
        json["metrics"] = new JsonObject(
            (result?.TunedMetrics ?? []).Select(m => KeyValuePair.Create(m.Name, Finite(m))));
        return json;
    }

    private static JsonNode? Finite(Metric? m) => m != null && double.IsFinite(m.Value) ? m.Value : null;
}
