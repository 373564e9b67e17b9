using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Reports;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;
using Headroom.Training.Tasks;

namespace Headroom.Tests.Tasks;

/// <summary>
/// A task that src knows nothing of trains, is evaluated, picks its best adapter, is resumed, compared and reported.
/// </summary>
public sealed class SecondTaskTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-task-").FullName;

    public SecondTaskTests()
    {
        PlainTextType.Register();
        string Lines(string name, int n) =>
            string.Concat(
                Enumerable
                    .Range(0, n)
                    .Select(i => $"{name} {i}: the film by Marlow was {(i % 3 == 0 ? "long" : "short and ünlikely")}\n")
            );
        File.WriteAllText(Path.Combine(_folder, "train.txt"), Lines("first", 24));
        File.WriteAllText(Path.Combine(_folder, "test.txt"), Lines("second", 8));
    }

    private static string Model(string name) => Path.Combine(Shared.Checkout, "models", name);

    private Recipe Recipe(string name, params string[] sets) => RecipeLoader.Parse($"""
        name: {name}
        device: cpu
        models: [ {"{"} path: '{Model("llama-tiny")}' {"}"} ]
        lora: {"{"} r: 2, lora_dropout: 0.1 {"}"}
        data: {"{"} train: '{Path.Combine(_folder, "train.txt")}', test: '{Path.Combine(_folder, "test.txt")}', validation_fraction: 0.25 {"}"}
        task: {"{"} type: plain_text, max_seq_length: 32 {"}"}
        training: {"{"} max_steps: 6, per_device_train_batch_size: 4, learning_rate: 0.002, eval_strategy: steps, eval_steps: 2, save_steps: 1 {"}"}
        """, sets);

    private RunResult Train(Recipe recipe, bool resume = false, int stopAt = 0, Action<string>? say = null)
    {
        using var stop = new CancellationTokenSource();
        var host = new RunHost(
            Path.Combine(_folder, recipe.Name),
            resume,
            () => new CpuDevice(1),
            null,
            say ?? (_ => { }),
            (what, done, _, _) =>
        {
            if (what == "training" && done == stopAt) stop.Cancel();
        });
        return TrainRun.Run(recipe, null, recipe.Models[0], host, stop.Token);
    }

    private List<JsonNode> Events(string run, string kind) =>
        [
            .. File.ReadLines(Path.Combine(_folder, run, "events.jsonl"))
                .Select(l => JsonNode.Parse(l)!)
                .Where(e => (string?)e["event"] == kind),
        ];

    private static double Value(JsonNode e, string metric) =>
        (double)e["metrics"]!.AsArray().Single(m => (string?)m!["name"] == metric)!["value"]!;

    [Theory]
    [InlineData("loss_per_byte", -1)]
    [InlineData("bytes_per_nat", 1)]
    [InlineData("eval_loss", -1)]
    public void ItTrainsAndPicksItsBestBySignOfTheMetric(string metric, int sign)
    {
        var said = new List<string>();
        var result = Train(
            Recipe("whole", "training.metric_for_best_model=" + metric, "training.lr_scheduler_type=constant"),
            say: said.Add);
        Assert.True(result.Completed);
        var evals = Events("whole", "eval");
        Assert.Equal([2, 4, 6], evals.Select(e => (int)e["step"]!));
        int best = (int)evals.MaxBy(e => sign * Value(e, MetricKind.Plain(metric)))!["step"]!;
        Assert.Equal(best, (int)Events("whole", "run_end").Single()["best_step"]!);
        Assert.Contains(said, s =>
            s.Contains(
                $"best adapter: by {MetricKind.Plain(metric).Replace('_', ' ')} of the validation rows",
                StringComparison.Ordinal)
        );
        Assert.Contains(said, s =>
            s.StartsWith("step 2: validation loss ", StringComparison.Ordinal)
            && s.Contains(", loss per byte ", StringComparison.Ordinal)
        );
        Assert.Contains("note: Texts are plain.", said);
        Assert.Equal(Value(Events("whole", "test")[^1], "loss_per_byte"), result.Tuned!["loss_per_byte"].Value, 12);
        Assert.InRange(result.Tuned["loss"].Value, 0, result.ZeroShot!["loss"].Value); // it learned
        var type = TaskTypes.Find("plain_text")!; // what headroom eval prints
        Assert.Matches(
            @"^t: loss [\d.]+, loss per byte [\d.]+ \[[\d.]+, [\d.]+\], bytes per nat [\d.]+$",
            Assert.Single(type.Lines("t", result.Tuned)));
        Assert.Equal(result.Tuned["loss"].Value, Value(type.EvalJson(result.Tuned), "loss"));
    }

    [Fact]
    public void AResumedRunIsTheRunThatWasNotStopped()
    {
        var whole = Train(Recipe("whole"));
        Assert.False(Train(Recipe("cut"), stopAt: 3).Completed);
        var resumed = Train(Recipe("cut"), resume: true);
        Assert.Equal(whole.AdapterHash, resumed.AdapterHash);
        Assert.Equal(
            Events("whole", "step").Select(e => (double)e["loss"]!),
            Events("cut", "step").Select(e => (double)e["loss"]!));
        Assert.Equal(
            Events("whole", "eval").Select(e => e["metrics"]!.ToJsonString()),
            Events("cut", "eval").Select(e => e["metrics"]!.ToJsonString()));
        Assert.Equal(
            whole.ZeroShot!["bytes_per_nat"].Value, resumed.ZeroShotMetrics.Single(m => m.Name == "bytes_per_nat").Value
        ); // from the log
        var again = Train(Recipe("cut"), resume: true);
        Assert.True(again.WasFinished);
        Assert.Equal(resumed.Tuned!["loss"].Value, again.TunedMetrics[0].Value);
    }

    /// <summary>
    /// Both change what is learned, both come again after a resume, and evaluations are smoothed as training is.
    /// </summary>
    [Fact]
    public void SmoothedLabelsAndNoiseAreResumedExactly()
    {
        string smoothing = "training.label_smoothing_factor=0.1", noise = "training.neftune_noise_alpha=5";
        RunResult plain = Train(Recipe("plain")), smoothed = Train(Recipe("smoothed", smoothing)),
            whole = Train(Recipe("whole", smoothing, noise));
        Assert.False(Train(Recipe("cut", smoothing, noise), stopAt: 3).Completed);
        Assert.Equal(whole.AdapterHash, Train(Recipe("cut", smoothing, noise), resume: true).AdapterHash);
        Assert.Equal(3, new[] { plain, smoothed, whole }.Select(r => r.AdapterHash).Distinct().Count());
        double[] before = [.. new[] { plain, smoothed, whole }.Select(r => r.ZeroShot!["loss"].Value)];
        Assert.NotEqual(before[0], before[1]);
        Assert.Equal(before[1], before[2]); // noise is of training alone
    }

    [Fact]
    public void ItIsReported()
    {
        var result = Train(Recipe("whole"));
        var paths = Report.Write(Path.Combine(_folder, "whole"));
        string text = File.ReadAllText(paths.Markdown);
        Assert.Contains("reaches loss per byte ", text, StringComparison.Ordinal);
        Assert.Contains(
            "| model | stage | rows | loss | loss per byte | bytes per nat |", text, StringComparison.Ordinal);
        Assert.Contains(
            "| run | step | split | loss | loss per byte | bytes per nat |", text, StringComparison.Ordinal);
        Assert.Contains("## Bytes", text, StringComparison.Ordinal);
        foreach (string word in new[] { "accuracy", "F1", "McNemar", "onfusion" })
            Assert.DoesNotContain(word, text, StringComparison.Ordinal);
        var json = JsonNode.Parse(File.ReadAllText(paths.Json))!;
        Assert.Equal("plain_text", (string)json["task"]!);
        var metric = json["quality"]!.AsArray().Single(q => (string)q!["stage"]! == "tuned")!["metrics"]!
            .AsArray()
            .Single(m => (string)m!["name"]! == "loss_per_byte")!;
        var own = result.Tuned!["loss_per_byte"];
        Assert.Equal(
            (own.Value, own.Low!.Value, own.High!.Value, "lower"),
            ((double)metric["value"]!, (double)metric["low"]!, (double)metric["high"]!, (string)metric["better"]!));
    }

    /// <summary>Less is better: the model with the smaller loss a byte leads, over seeds too.</summary>
    [Fact]
    public void ADuelRanksBySmallerLoss()
    {
        var recipe = Recipe(
            "duel", $"models=[{{path: '{Model("llama-tiny")}'}}, {{path: '{Model("deepseek-tiny")}'}}]", "seeds=[1, 2]",
            "training.max_steps=2");
        string folder = Path.Combine(_folder, "duel");
        RunHost Host(string own, bool again) =>
            new(own, again, () => new CpuDevice(1), null, _ => { }, (_, _, _, _) => { });
        var duel = DuelRun.Run(recipe, null, folder, false, Host, TestContext.Current.CancellationToken);
        Assert.True(duel.Completed);
        var json = JsonNode.Parse(File.ReadAllText(Report.Write(folder).Json))!;
        string best = duel
            .Runs.GroupBy(r => r.Model)
            .MinBy(g => g.Average(r => r.Result!.Tuned!["loss_per_byte"].Value))!
            .Key;
        Assert.StartsWith($"{best} reaches loss per byte ", (string)json["headline"]!, StringComparison.Ordinal);
        Assert.Empty(json["paired_tests"]!.AsArray());
        var comparison = Assert.Single(json["seed_comparisons"]!.AsArray())!;
        Assert.Equal("loss per byte", (string)comparison["metric"]!);
        Assert.DoesNotContain(json["notes"]!.AsArray(), n => ((string)n!).Contains("paired", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData(
        "training.metric_for_best_model=f1", "metric_for_best_model 'f1' is unknown",
        "loss, loss_per_byte or bytes_per_nat")]
    [InlineData("task.labels={a: b, c: d}", "The task plain_text does not take task.labels", "task.type")]
    [InlineData("data.label_field=l", "The task plain_text does not take data.label_field", "task.type")]
    [InlineData("task.type=plain", "task.type 'plain' is unknown", "label_words")]
    public void WhatItDoesNotHaveIsRefused(string set, string what, string toDo)
    {
        var e = Assert.Throws<HeadroomException>(() => Recipe("x", set));
        Assert.Contains(what, e.Message, StringComparison.Ordinal);
        Assert.Contains(toDo, e.ToDo, StringComparison.Ordinal);
    }

    /// <summary>The log of a task that this version does not know is reported by its metrics.</summary>
    [Fact]
    public void ALogOfAnUnknownTaskIsReportedByItsMetrics()
    {
        string folder = Directory.CreateDirectory(Path.Combine(_folder, "unknown")).FullName;
        File.WriteAllLines(Path.Combine(folder, "events.jsonl"),
        [
            """{"event":"run_start","name":"n","model":"tiny","task":"dreams","seed":1,"total_steps":1}""",
            """{"event":"test","stage":"tuned","rows":4,"metrics":[{"name":"loss","value":1.5,"better":"lower"},{"name":"depth","value":0.25,"better":"higher","low":0.1,"high":0.5},{"name":"odd"}]}""",
            """{"event":"run_end","completed":true,"steps":1}""",
        ]);
        var paths = Report.Write(folder);
        Assert.Contains(
            "tiny reaches loss 1.500 after tuning", File.ReadAllText(paths.Markdown), StringComparison.Ordinal);
        Assert.Contains("0.250 [0.100, 0.500]", File.ReadAllText(paths.Markdown), StringComparison.Ordinal);
        Assert.Contains(
            "a metric has no name or no number of its own", File.ReadAllText(paths.Markdown), StringComparison.Ordinal);
    }

    public void Dispose() => Directory.Delete(_folder, true);
}
