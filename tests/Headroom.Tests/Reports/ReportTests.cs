using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Reports;
using Headroom.Training.Intervals;

namespace Headroom.Tests.Reports;

public sealed class ReportTests : IDisposable
{
    private const string NoDifference = "no significant difference";
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-report-").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    [Fact]
    public void ARunAgreesWithItsLog()
    {
        // 100 rows, 50 of each label: tuned has 10 of each wrong, zero-shot says 0 throughout.
        WriteRun("", "tiny", 1, Predict(10, 10), Predict(0, 50), baseline: Predict(50, 0));
        var (html, markdown, json) = Write();
        var quality = json["quality"]!.AsArray();
        Assert.Equal(["zero-shot", "tuned", "baseline"], quality.Select(q => (string)q!["stage"]!));
        var tuned = quality[1]!;
        Assert.Equal(0.8, (double)tuned["accuracy"]!["value"]!, 12);
        // statsmodels proportion_confint(80, 100, method="wilson")
        Assert.Equal(0.7111708, (double)tuned["accuracy"]!["low"]!, 5);
        Assert.Equal(0.8666331, (double)tuned["accuracy"]!["high"]!, 5);
        Assert.Equal(0.8, (double)tuned["f1"]!["value"]!, 12);
        Assert.InRange((double)tuned["f1"]!["low"]!, 0.70, 0.75);
        Assert.Contains("| device memory of the process | 4.0 |", markdown);
        Assert.Contains("| device memory minus planned | 1.0 |", markdown);
        Assert.Equal(
            (40, 10, 10, 40),
            (
                (int)tuned["confusion"]!["tn"]!, (int)tuned["confusion"]!["fp"]!, (int)tuned["confusion"]!["fn"]!,
                (int)tuned["confusion"]!["tp"]!)
        );
        Assert.Equal(["easy", "hard"], tuned["tiers"]!.AsArray().Select(t => (string)t!["tier"]!));
        // Only tuned right: 40 of the label 1; only zero-shot right: 10 of the label 0.
        var test = json["paired_tests"]!.AsArray().Single(t => (string)t!["kind"]! == "tuned_vs_zero_shot")!;
        Assert.Equal((40, 10), ((int)test["only_first_right"]!, (int)test["only_second_right"]!));
        Assert.Equal(Statistics.McNemarExact(40, 10), (double)test["p"]!, 12);
        Assert.Equal(2 * Statistics.McNemarExact(40, 10), (double)test["p_holm"]!, 12);
        var run = json["runs"]![0]!;
        Assert.Equal(3 * 1048576, (long)run["memory"]!["planned_bytes"]!);
        Assert.Equal("train", (string)run["memory"]!["peak_phase"]!);
        Assert.Equal(
            (40, 4000, 16),
            ((int)run["cost"]!["steps"]!, (int)run["cost"]!["tokens"]!, (int)run["cost"]!["effective_batch"]!));
        Assert.Equal(40, run["curves"]!["loss"]!.AsArray().Count);
        Assert.True((bool)json["completed"]!);
        foreach (string text in new[] { html, markdown })
        {
            Assert.Contains("tiny reaches F1 0.800 [", text);
            Assert.Contains("0.800 [0.711, 0.867]", text);
            Assert.Contains("not measured", text);
            Assert.Contains("words: bag", text);
            Assert.DoesNotContain("Incomplete", text);
        }
    }

    [Theory]
    [InlineData(10, 10, true)]
    [InlineData(1, 1, false)]
    public void ADuelSaysWhetherTheModelsDiffer(int wrong0, int wrong1, bool same)
    {
        WriteRun("a", "alpha", 1, Predict(10, 10), Predict(0, 50));
        WriteRun("b", "beta", 1, Predict(wrong0, wrong1), Predict(0, 50));
        WriteDuel("a", "b");
        var (html, markdown, json) = Write();
        Assert.Equal(same, html.Contains(NoDifference));
        Assert.Equal(same, markdown.Contains(NoDifference));
        Assert.Equal(same, ((string)json["headline"]!).Contains(NoDifference));
        Assert.Equal("duel", (string)json["kind"]!);
        Assert.Equal(
            !same,
            (bool)json["paired_tests"]!.AsArray().Single(t => (string)t!["kind"]! == "tuned_vs_tuned")!["significant"]!
        );
        Assert.StartsWith(same ? "alpha reaches F1 0.800" : "beta reaches F1 0.980", (string)json["headline"]!);
    }

    [Fact]
    public void SeedsAreAveragedAndComparedSeedBySeed()
    {
        foreach (int seed in new[] { 1, 2 })
        {
            WriteRun($"a{seed}", "alpha", seed, Predict(10 * seed, 10 * seed), Predict(0, 50));
            WriteRun($"b{seed}", "beta", seed, Predict(5, 5), Predict(0, 50));
        }
        WriteDuel("a1", "a2", "b1", "b2");
        var (html, _, json) = Write();
        var spread = json["seed_spread"]!
            .AsArray()
            .Single(s =>
                (string)s!["group"]! == "alpha" && (string)s["stage"]! == "tuned" && (string)s["metric"]! == "accuracy"
            )!;
        Assert.Equal(0.7, (double)spread["mean"]!, 12);
        Assert.Equal(0.1 * Math.Sqrt(2), (double)spread["sd"]!, 12);
        Assert.Equal(2, json["paired_tests"]!.AsArray().Count(t => (string)t!["kind"]! == "tuned_vs_tuned"));
        Assert.Contains("alpha, seed 2", html);
        Assert.Contains("over 2 seeds", (string)json["headline"]!);
    }

    [Fact]
    public void DifferentRowsAreNotTested()
    {
        WriteRun("a", "alpha", 1, Predict(10, 10), Predict(0, 50));
        WriteRun("b", "beta", 1, Predict(10, 10), Predict(0, 50), rows: 80);
        WriteDuel("a", "b");
        var (html, _, json) = Write();
        Assert.DoesNotContain(json["paired_tests"]!.AsArray(), t => (string)t!["kind"]! == "tuned_vs_tuned");
        Assert.Contains("have no paired test", html);
        Assert.Contains("not compared by a paired test", (string)json["headline"]!);
    }

    [Fact]
    public void AnIncompleteRunSaysSo()
    {
        WriteRun("", "tiny", 1, null, Predict(0, 50), ended: false);
        File.AppendAllText(Path.Combine(_folder, "events.jsonl"), "{\"event\":\"step\",\"ste");
        var (html, markdown, json) = Write();
        Assert.StartsWith("Incomplete: stopped at step 40 of 40. tiny has F1 0.000", (string)json["headline"]!);
        Assert.Contains("Incomplete: stopped at step 40", html);
        Assert.Contains("Incomplete: stopped at step 40", markdown);
        Assert.False((bool)json["completed"]!);
        Assert.Equal(4000, (int)json["runs"]![0]!["cost"]!["tokens"]!); // from the steps
    }

    [Fact]
    public void ADuelWithAMissingRunIsIncomplete()
    {
        WriteRun("a", "alpha", 1, Predict(10, 10), Predict(0, 50));
        WriteDuel("a", "b");
        var (html, _, json) = Write();
        Assert.StartsWith("Incomplete: 1 of 2 runs completed", (string)json["headline"]!);
        Assert.Contains("Run b has no events.jsonl", html);
    }

    [Fact]
    public void ALogOfOneEventIsEnough()
    {
        File.WriteAllText(Path.Combine(_folder, "events.jsonl"), "{\"event\":\"run_start\",\"name\":\"bare\"}\n");
        var (html, _, json) = Write();
        Assert.StartsWith("Incomplete", (string)json["headline"]!);
        Assert.Contains("not measured", html);
    }

    [Fact]
    public void NamesAndRecipesAreEscaped()
    {
        WriteRun(
            "", "<script>alert('m')</script>", 1, Predict(10, 10), Predict(0, 50), name: "<script>n|n</script>",
            recipe: "a: <script>\n```\n# \"quoted\" & more");
        var (html, markdown, _) = Write();
        Assert.DoesNotContain("<script", html);
        Assert.Contains("&lt;script&gt;", html);
        Assert.Contains("a: &lt;script&gt;\n```\n# &quot;quoted&quot; &amp; more", html);
        Assert.Contains("````\na: <script>\n```", markdown);
        Assert.Contains("# &lt;script>n\\|n", markdown);
    }

    [Fact]
    public void ThePageNeedsNothingElse()
    {
        WriteRun("a", "alpha", 1, Predict(10, 10), Predict(0, 50), baseline: Predict(50, 0));
        WriteRun("b", "beta", 1, Predict(5, 5), Predict(0, 50));
        WriteDuel("a", "b");
        var (html, _, _) = Write();
        foreach (
            string word in new[] { "http", "src=", "<link", "@import", "url(", "<script", "href", "NaN", "Infinity" })
            Assert.DoesNotContain(word, html);
        Assert.Contains("prefers-color-scheme:dark", html);
        Assert.Equal(6, html.Split("<svg").Length - 1); // accuracy, loss, norm, rate, validation F1, memory
        Assert.Empty(
            Directory
                .GetFiles(_folder)
                .Select(Path.GetFileName)
                .Except(["events.jsonl", "report.html", "report.md", "results.json"])
        );
    }

    [Fact]
    public void NoLogIsAnError()
    {
        var e = Assert.Throws<HeadroomException>(() => Report.Write(_folder));
        Assert.Contains("events.jsonl", e.Message);
        Assert.NotEmpty(e.ToDo);
        File.WriteAllText(Path.Combine(_folder, "events.jsonl"), "");
        Assert.Throws<HeadroomException>(() => Report.Write(_folder));
    }

    private (string Html, string Markdown, JsonObject Json) Write()
    {
        var paths = Report.Write(_folder);
        return (
            File.ReadAllText(paths.Html), File.ReadAllText(paths.Markdown),
            JsonNode.Parse(File.ReadAllText(paths.Json))!.AsObject());
    }

    /// <summary>How many rows of label 0 and of label 1 are wrong.</summary>
    private static (int Wrong0, int Wrong1) Predict(int wrong0, int wrong1) => (wrong0, wrong1);

    private void WriteRun(
        string folder, string model, int seed, (int, int)? tuned, (int, int) zeroShot, (int, int)? baseline = null,
        bool ended = true, string name = "words: bag", string recipe = "name: x\n", int rows = 100)
    {
        const int mib = 1048576;
        var events = new List<JsonObject>
        {
            new()
            {
                ["event"] = "run_start",
                ["name"] = name,
                ["model"] = model,
                ["seed"] = seed,
                ["device"] = "GPU of a test",
                ["total_steps"] = 40,
                ["effective_batch"] = 16,
                ["recipe"] = recipe,
                ["parameters"] = 1000,
                ["trainable_parameters"] = 10,
                ["trainable_by_module"] = new JsonObject { ["q_proj"] = 10 },
                ["plan"] = new JsonObject
                {
                    ["total_bytes"] = 3 * mib,
                    ["arena_bytes"] = 3 * mib,
                    ["static_bytes"] = mib,
                    ["peak_phase"] = "train",
                    ["recompute_layers"] = 1,
                    ["layers"] = 2,
                    ["phases"] = new JsonObject { ["eval"] = mib, ["train"] = 2 * mib },
                    ["rows"] = new JsonArray(
                        PlanRow("static", "BaseWeights", mib), PlanRow("eval", "Scratch", mib),
                        PlanRow("train", "SavedActivations", 2 * mib - 64)),
                },
            },
            Test("test", zeroShot, rows, ("stage", "zero-shot")),
            new()
            {
                ["event"] = "memory", ["when"] = "loaded", ["reserved_bytes"] = 3 * mib,
                ["peak_resident_bytes"] = 5 * mib, ["device_process_bytes"] = 4 * mib,
            },
        };
        if (baseline is { } b) events.Add(Test("baseline", b, rows, ("name", "majority")));
        for (int i = 1; i <= 40; i++)
            events.Add(
                new()
                {
                    ["event"] = "step",
                    ["step"] = i,
                    ["loss"] = 4.0 / i,
                    ["grad_norm"] = 1 + i % 2,
                    ["learning_rate"] = 1e-4 * (40 - i),
                    ["tokens"] = 100,
                    ["label_tokens"] = 16,
                    ["seconds"] = 0.1,
                    ["skipped"] = false,
                }
            );
        events.Add(
            new()
            {
                ["event"] = "eval",
                ["step"] = 20,
                ["split"] = "validation",
                ["loss"] = 0.3,
                ["accuracy"] = 0.8,
                ["f1"] = 0.79,
            }
        );
        if (tuned is { } t) events.Add(Test("test", t, rows, ("stage", "tuned")));
        if (ended)
            events.Add(
                new()
                {
                    ["event"] = "run_end",
                    ["completed"] = true,
                    ["steps"] = 40,
                    ["seconds"] = 5.5,
                    ["train_seconds"] = 4,
                    ["tokens"] = 4000,
                    ["tokens_per_second"] = 1000,
                    ["adapter_sha256"] = "ab12",
                }
            );
        Log(folder, events);
    }

    /// <summary>
    /// A duel that is being made longer has no end, nor has a run in it: their old figures are not shown.
    /// </summary>
    [Fact]
    public void ADuelThatGoesOnShowsNoOldEnd()
    {
        WriteRun("a", "alpha", 1, Predict(10, 10), Predict(0, 50));
        WriteRun("b", "beta", 1, Predict(10, 10), Predict(0, 50));
        WriteDuel("a", "b");
        var (_, markdown, json) = Write();
        Assert.Contains("The whole duel: 12.5 s", markdown);
        Assert.True((bool)json["completed"]!);
        string log = Path.Combine(_folder, "events.jsonl");
        File.AppendAllText(log, File.ReadLines(log).First() + "\n");
        (_, markdown, json) = Write();
        Assert.False((bool)json["completed"]!);
        Assert.DoesNotContain("The whole duel: 12.5 s", markdown);
        Assert.Contains("The duel has no duel_end event: it was stopped.", markdown);
        File.AppendAllText(Path.Combine(_folder, "a", "events.jsonl"),
            "{\"event\":\"resumed\",\"step\":40,\"total_steps\":60}\n");
        (_, markdown, json) = Write();
        var stages = json["quality"]!.AsArray().Select(q => (string)q!["stage"]!);
        Assert.Equal(["zero-shot", "zero-shot", "tuned"], stages.Where(s => s is "zero-shot" or "tuned"));
        Assert.Contains("step 40 of 60", markdown);
        Assert.Equal([60, 40], json["runs"]!.AsArray().Select(r => (int)r!["cost"]!["total_steps"]!));
    }

    private static JsonObject PlanRow(string phase, string category, long bytes) =>
        new()
        {
            ["phase"] = phase,
            ["category"] = category,
            ["bytes"] = bytes,
        };

    private static JsonObject Test(
        string kind, (int Wrong0, int Wrong1) wrong, int rows, (string Key, string Value) stage)
    {
        int half = rows / 2;
        int[] gold = Enumerable.Range(0, rows).Select(i => i < half ? 0 : 1).ToArray();
        int[] predicted = Enumerable
            .Range(0, rows)
            .Select(i =>
                i < half ? (i < wrong.Wrong0 ? 1 : 0)
                : i - half < wrong.Wrong1 ? 0
                : 1
            )
            .ToArray();
        return new JsonObject
        {
            ["event"] = kind,
            [stage.Key] = stage.Value,
            ["rows"] = rows,
            ["seconds"] = 1.5,
            ["gold"] = new JsonArray([.. gold.Select(v => (JsonNode?)v)]),
            ["predicted"] = new JsonArray([.. predicted.Select(v => (JsonNode?)v)]),
            ["tiers"] = new JsonArray([.. gold.Select((_, i) => (JsonNode?)(i % 2 == 0 ? "easy" : "hard"))]),
        };
    }

    private void WriteDuel(params string[] runs) =>
        Log(
            "",
            [
                new()
                {
                    ["event"] = "duel_start", ["name"] = "words: bag", ["models"] = new JsonArray("alpha", "beta"),
                    ["seeds"] = new JsonArray(1), ["recipe"] = "name: x\n",
                    ["runs"] = new JsonArray([.. runs.Select(r => (JsonNode?)r)]),
                },
                new()
                {
                    ["event"] = "duel_end", ["seconds"] = 12.5, ["peak_resident_bytes"] = 7 << 20,
                },
            ]
        );

    private void Log(string folder, IEnumerable<JsonObject> events)
    {
        string path = Directory.CreateDirectory(Path.Combine(_folder, folder)).FullName;
        File.WriteAllLines(Path.Combine(path, "events.jsonl"), events.Select(e => e.ToJsonString()));
    }
}
