using System.Text.Json.Nodes;
using Headroom.Training;

namespace Headroom.Tests.Golden;

public class ScheduleTests
{
    [Fact]
    public void EveryScheduleMatchesTransformers()
    {
        var json = JsonNode.Parse(File.ReadAllText(Shared.GoldenFile("schedules.json")))!.AsObject();
        Assert.NotEmpty(json);
        foreach (var (key, entry) in json)
        {
            var kwargs = entry!["kwargs"]?["scheduler_specific_kwargs"] as JsonObject ?? [];
            string name = Schedules.Names.OrderByDescending(n => n.Length).First(n => key.StartsWith(n, StringComparison.Ordinal));
            double baseLr = (double)entry["base_lr"]!;
            double[] expected = entry["lr_by_step"]!.AsArray().Select(v => (double)v!).ToArray();
            for (int s = 0; s < expected.Length; s++)
            {
                double lr = baseLr * Schedules.Factor(name, s, (int?)entry["num_warmup_steps"] ?? 0, (int?)entry["num_training_steps"] ?? 50, baseLr,
                    (double?)kwargs["num_cycles"], (double?)kwargs["power"] ?? 1, (double?)kwargs["lr_end"] ?? 1e-7, (int?)kwargs["timescale"],
                    (double?)kwargs["min_lr_rate"] ?? 0);
                Assert.True(Math.Abs(lr - expected[s]) <= 1e-12 * Math.Abs(expected[s]) + 1e-18, $"{key} step {s}: {lr} against {expected[s]}");
            }
        }
    }
}
