using Headroom.Training.Recipes;
using Headroom.Training.Runs;

namespace Headroom.Tests.Data;

/// <summary>What is odd about a run but no error is said, and nothing is said of a sound one.</summary>
public sealed class RunNotesTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-notes").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private static string Model(string name)
    {
        for (var d = new DirectoryInfo(AppContext.BaseDirectory); d != null; d = d.Parent)
            if (Directory.Exists(Path.Combine(d.FullName, "models", name)))
                return Path.Combine(d.FullName, "models", name);
        throw new DirectoryNotFoundException(name);
    }

    private string Rows(string name, int count, Func<int, int>? label = null, int words = 3)
    {
        string path = Path.Combine(_folder, name + ".jsonl");
        File.WriteAllLines(path, Enumerable.Range(0, count).Select(i =>
                    $"{{\"text\":\"{name} "
                        + $"{string.Join(' ', Enumerable.Range(0, words).Select(w => $"w{i * 7 + w}"))}\","
                        + $"\"label\":{label?.Invoke(i) ?? i % 2}}}"
                )
        );
        return path;
    }

    private IReadOnlyList<string> Notes(Action<Recipe>? change = null, string model = "deepseek-tiny")
    {
        var recipe = new Recipe { Models = [new() { Path = Model(model) }], Device = DeviceChoice.Cpu };
        recipe.Data.Train = Rows("train", 40);
        recipe.Data.Test = Rows("test", 10);
        recipe.Training.PerDeviceTrainBatchSize = 4;
        change?.Invoke(recipe);
        RecipeLoader.Check(recipe);
        using var run = PreparedRun.Prepare(
            recipe, recipe.Models[0], () => new Headroom.Cpu.CpuDevice(), null, (_, _, _, _) => { });
        run.Device.Dispose();
        return run.Notes;
    }

    [Fact]
    public void OfASoundRunThereIsNothingToSay()
    {
        Assert.Empty(Notes());
        Assert.Empty(Notes(model: "llama-tiny"));
        Assert.Empty(Notes(r => (r.Data.ValidationFraction, r.Training.EvalStrategy) = (0.2, IntervalStrategy.Epoch)));
    }

    [Fact]
    public void EachOddityIsSaid()
    {
        void Said(string what, Action<Recipe> change) => Assert.Equal(what, Assert.Single(Notes(change)));
        Said(
            "The effective batch of 8 x 6 = 48 rows is larger than the 40 training rows: every update sees them all, "
                + "once.",
            r => (r.Training.PerDeviceTrainBatchSize, r.Training.GradientAccumulationSteps) = (8, 6));
        Said(
            "The effective batch of 1073741824 x 16 = 17179869184 rows is larger than the 40 training rows: every "
                + "update sees them all, once.",
            r => (r.Training.PerDeviceTrainBatchSize, r.Training.GradientAccumulationSteps) = (1 << 30, 16));
        Said(
            "The warm-up of 100 is as long as the run of 30 updates or longer: the learning rate ends at 29 % of "
                + "5E-05 and never falls.",
            r => r.Training.WarmupSteps = 100);
        Said(
            "The warm-up of 30 is as long as the run of 30 updates or longer: the learning rate ends at 97 % of 5E-05 "
                + "and never falls.",
            r => r.Training.WarmupRatio = 1);
        Said("lr_scheduler_type constant has no warm-up: the recipe's is left out (constant_with_warmup has one).", r =>
            (r.Training.LrSchedulerType, r.Training.WarmupSteps) = (SchedulerType.Constant, 3)
        );
        Said("All 40 training rows have the label '1': there is nothing to tell apart.", r =>
            r.Data.Train = Rows("train", 40, _ => 1)
        );
        Said("No training row has the label '2' of task.labels.", r => r.Task.Labels["2"] = " neither");
        Said("There are no validation rows and no test rows: nothing will be evaluated.", r => r.Data.Test = null);
        Said("The 8 validation rows will not be used: training.eval_strategy is no.", r =>
            r.Data.ValidationFraction = 0.2
        );
        Said("training.eval_steps is 500, the run has 24 updates: the 8 validation rows will not be used.", r =>
            (r.Data.ValidationFraction, r.Training.EvalStrategy) = (0.2, IntervalStrategy.Steps)
        );
        Said(
            "Warm-up, stable part and decay of warmup_stable_decay are 40 updates, the run has 30 updates: it does "
                + "not reach its end as written.",
            r =>
                (r.Training.LrSchedulerType, r.Training.LrSchedulerKwargs) = (
                    SchedulerType.WarmupStableDecay, new() { ["num_decay_steps"] = "40" })
        );
        Said(
            "The longest row has 600 tokens, beyond the 512 positions that the model was made for "
                + "(max_position_embeddings): it fits in this memory, but what the model makes of later tokens is not "
                + "known.",
            r => (r.Data.Train, r.Task.MaxSeqLength) = (Rows("train", 40, words: 400), 600));
    }

    [Fact]
    public void TokensThatAreNotThoseOfTheJoinedTextAreSaid()
    {
        var said = Assert.Single(
            Notes(r => (r.Task.Template, r.Task.Labels) = ("{text} wonder", new() { ["0"] = "ing", ["1"] = "ful" })));
        Assert.Contains("rows checked do not have the tokens of their joined text", said, StringComparison.Ordinal);
        Assert.Empty(
            Notes(r =>
                (r.Task.Template, r.Task.Labels) = (
                    "Review: {text}\nSentiment: ", new() { ["0"] = "negative", ["1"] = "positive" })
            )
        );
    }
}
