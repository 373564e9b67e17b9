using System.Security.Cryptography;
using System.Text.Json.Nodes;
using Headroom.Cpu;
using Headroom.Inference;
using Headroom.Reports;
using Headroom.Training.Events;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;

namespace Headroom.EndToEnd;

/// <summary>
/// Runs that go on from their last checkpoint or are made longer: which adapter is in <c>best/</c>, what is tested,
/// and what a report says meanwhile.
/// </summary>
public sealed class LongerRunTests : IDisposable
{
    // A constant rate: the schedule of a longer run is the same for the steps of the shorter one. Only the last
    // checkpoint is there, so that best/ cannot be restored from another.
    private static readonly string[] Sets =
    [
        "data.validation_fraction=0.25", "training.lr_scheduler_type=constant", "training.warmup_ratio=0",
        "training.metric_for_best_model=loss", "training.eval_strategy=steps", "training.eval_steps=1",
        "training.save_strategy=steps", "training.save_steps=100", "lora.r=4",
    ];
    // A rate that changes the adapter and no answer: only a better evaluation is a new best, so the first one stays.
    private static readonly string[] EarlyBest =
        ["training.learning_rate=1e-6", "training.metric_for_best_model=accuracy"];
    private readonly Cli _cli = new();

    private string At(string name) => Path.Combine(_cli.Folder, "runs", name);

    /// <param name="name">The run's folder.</param>
    /// <param name="steps">Its length.</param>
    /// <param name="stopAt">The step after which it is told to stop.</param>
    /// <param name="sets">Keys of the recipe.</param>
    private RunResult Run(string name, int steps, int? stopAt = null, params string[] sets)
    {
        string path = _cli.Recipe(Cli.Base("llama-tiny"));
        var recipe = RecipeLoader.Load(path, [.. Sets, $"training.max_steps={steps}", .. sets]);
        recipe.Data.Train = Path.Combine(_cli.Folder, "train.jsonl");
        recipe.Data.Test = Path.Combine(_cli.Folder, "test.jsonl");
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        bool resume = Directory.Exists(At(name));
        var host = new RunHost(At(name), resume, () => new CpuDevice(1), null, _ => { }, (what, done, _, _) =>
        {
            if (what == "training" && done == stopAt) stop.Cancel();
        });
        var result = TrainRun.Run(recipe, null, recipe.Models[0], host, stop.Token);
        Assert.Equal(stopAt == null, result.Completed);
        return result;
    }

    private string Log(string name) => Path.Combine(At(name), "events.jsonl");

    private List<JsonNode> Events(string name, string kind) =>
        [.. File.ReadLines(Log(name)).Select(l => JsonNode.Parse(l)!).Where(e => (string?)e["event"] == kind)];

    private string Steps(string name) =>
        string.Join('\n', Events(name, "step").Select(e => $"{e["step"]} {e["loss"]}"));

    private string Best(string name)
    {
        static string Of(string file) => Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(file)));
        var files = Directory.GetFiles(Path.Combine(At(name), "best")).Order(StringComparer.Ordinal);
        return string.Join('\n', files.Select(f => $"{Path.GetFileName(f)} {Of(f)}"));
    }

    private int BestStep(string name) => (int)Events(name, "run_end").Single()["best_step"]!;

    private string Tuned(string name)
    {
        var test = Events(name, "test").Last(e => (string?)e["stage"] == "tuned").AsObject();
        foreach (string varies in (string[])["time", "seconds"]) test.Remove(varies);
        return test.ToJsonString();
    }

    private void Copy(string from, string to)
    {
        foreach (string f in Directory.GetFiles(At(from), "*", SearchOption.AllDirectories))
        {
            string target = Path.Combine(At(to), Path.GetRelativePath(At(from), f));
            Directory.CreateDirectory(Path.GetDirectoryName(target)!);
            File.Copy(f, target);
        }
    }

    /// <summary>What a kill leaves when the last adapter is in <c>best/</c> and not yet tested.</summary>
    private void CopyAsKilledAfterTheLastAdapter(string from, string to)
    {
        Copy(from, to);
        string[] lines = File.ReadAllLines(Log(to));
        int last = Array.FindLastIndex(lines, l => l.StartsWith("{\"event\":\"best\"", StringComparison.Ordinal));
        Assert.DoesNotContain(lines[..(last + 1)], l => l.Contains("\"tuned\"", StringComparison.Ordinal));
        File.WriteAllLines(Log(to), lines[..(last + 1)]);
    }

    private void Same(string expected, string actual)
    {
        Assert.Equal(Best(expected), Best(actual));
        Assert.Equal((Tuned(expected), BestStep(expected)), (Tuned(actual), BestStep(actual)));
        Assert.Equal(Steps(expected), Steps(actual));
    }

    /// <summary>
    /// With load_best_model_at_end false, best/ holds the last adapter at the end, which is not that of the best
    /// evaluation: a resume does not take it for damaged, and a run that is made longer ends with its own last one.
    /// </summary>
    [Fact]
    public void WithoutLoadBestModelAtEndTheLastAdapterIsKept()
    {
        string[] last = ["training.load_best_model_at_end=false", .. EarlyBest];
        string hash = Run("short", 4, null, last).AdapterHash;
        Assert.Equal(1, BestStep("short"));
        CopyAsKilledAfterTheLastAdapter("short", "killed");
        CopyAsKilledAfterTheLastAdapter("short", "longer");
        Assert.Equal(hash, Run("killed", 4, null, last).AdapterHash);
        Same("short", "killed");
        string whole = Run("whole", 6, null, last).AdapterHash;
        Assert.Equal(1, BestStep("whole"));
        foreach (string name in (string[])["short", "longer"]) // finished, and killed before its end
        {
            Run(name, 6, 5, last);
            Assert.Equal(whole, Run(name, 6, null, last).AdapterHash);
            Same("whole", name);
        }
        Directory.Delete(Path.Combine(At("whole"), "best"), true);
        Assert.True(Run("whole", 6, null, last).WasFinished);
        Assert.Equal(Best("short"), Best("whole")); // from the last checkpoint, not from the best one's step
    }

    /// <summary>
    /// Further steps are better: best/ and test are those of the longer run, stopped in between or not.
    /// </summary>
    [Fact]
    public void ALaterBestOfALongerRunReplacesTheOld()
    {
        string hash = Run("short", 4).AdapterHash, old = Best("short");
        string whole = Run("whole", 8).AdapterHash;
        Assert.True(BestStep("whole") > 4 && hash != whole, $"the best is at step {BestStep("whole")}");
        CopyAsKilledAfterTheLastAdapter("short", "stopped");
        Assert.Equal(whole, Run("short", 8).AdapterHash);
        Run("stopped", 8, 6);
        Assert.Equal(whole, Run("stopped", 8).AdapterHash);
        foreach (string name in (string[])["short", "stopped"])
        {
            Same("whole", name);
            Assert.NotEqual(old, Best(name));
        }
        Report.Write(At("short"));
        var results = JsonNode.Parse(File.ReadAllText(Path.Combine(At("short"), "results.json")))!;
        var tuned = results["quality"]!.AsArray().Single(q => (string)q!["stage"]! == "tuned")!;
        Assert.Equal((double)JsonNode.Parse(Tuned("whole"))!["accuracy"]!, (double)tuned["accuracy"]!["value"]!, 12);
    }

    /// <summary>Where no further step is better, best/ stays, and the test is made with it.</summary>
    [Fact]
    public void AnEarlyBestOfALongerRunStays()
    {
        string hash = Run("short", 4, null, EarlyBest).AdapterHash, old = Best("short");
        Assert.Equal(hash, Run("whole", 6, null, EarlyBest).AdapterHash); // of the adapter that was tested
        Assert.Equal(1, BestStep("whole"));
        Assert.Equal(hash, Run("short", 6, null, EarlyBest).AdapterHash);
        Same("whole", "short");
        Assert.Equal(old, Best("short"));
    }

    /// <summary>
    /// A run that is being made longer has no tuned model yet: neither where it was stopped, nor where a kill comes
    /// before its first event.
    /// </summary>
    [Fact]
    public void AReportOfARunThatIsBeingMadeLongerShowsNoOldTest()
    {
        Run("short", 4);
        Copy("short", "killed");
        (JsonNode Json, string Text) Written(string name)
        {
            var paths = Report.Write(At(name));
            return (JsonNode.Parse(File.ReadAllText(paths.Json))!, File.ReadAllText(paths.Markdown));
        }
        static IEnumerable<string> Stages(JsonNode json) =>
            json["quality"]!.AsArray().Select(q => (string)q!["stage"]!).Where(s => s is "zero-shot" or "tuned");
        Assert.Equal(["zero-shot", "tuned"], Stages(Written("short").Json));
        Run("short", 6, 5);
        var (json, text) = Written("short");
        Assert.Equal(["zero-shot"], Stages(json));
        Assert.False((bool)json["completed"]!);
        Assert.Contains("step 5 of 6", text, StringComparison.Ordinal);
        Assert.Contains("the tuned model was not tested", text, StringComparison.Ordinal);
        var cost = json["runs"]![0]!["cost"]!;
        Assert.Equal((5, 6), ((int)cost["steps"]!, (int)cost["total_steps"]!));
        EventLog.Cut(Log("killed"), Log("killed") + ".cut", 4); // the first thing that a resume does to the log
        Assert.Equal(["zero-shot"], Stages(Written("killed").Json));
        Run("short", 6);
        (json, text) = Written("short");
        Assert.Equal(["zero-shot", "tuned"], Stages(json));
        Assert.True((bool)json["completed"]!);
    }

    /// <summary>That no evaluation gave numbers is known after a resume too: no adapter is the best then.</summary>
    [Fact]
    public void AnEvaluationWithoutNumbersIsRememberedByAResume()
    {
        string[] never = ["training.eval_steps=100"];
        Run("sound", 6, 4, never);
        Copy("sound", "failed");
        File.AppendAllText(Log("failed"),
            "{\"event\":\"eval_failed\",\"step\":3,\"split\":\"validation\",\"error\":\"The scores are NaN.\"}\n");
        Run("sound", 6, null, never);
        for (int i = 0; i < 2; i++)
        {
            var e = Assert.Throws<NotFiniteException>(() => Run("failed", 6, null, never));
            Assert.Equal(("The scores are NaN.", 1), (e.Message, e.ExitCode));
            Assert.False(Directory.Exists(Path.Combine(At("failed"), "best")));
            Assert.Empty(Events("failed", "run_end"));
        }
    }

    public void Dispose() => _cli.Dispose();
}
