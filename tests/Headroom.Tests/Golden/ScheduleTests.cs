using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;

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
            var type = Choices.Parse<SchedulerType>("key", Choices.Words(typeof(SchedulerType))
                .OrderByDescending(n => n.Length)
                .First(n => key.StartsWith(n, StringComparison.Ordinal)));
            var arguments = Schedules.Arguments(new()
            {
                LrSchedulerType = type,
                LearningRate = (double)entry["base_lr"]!,
                LrSchedulerKwargs = kwargs.ToDictionary(p => p.Key, p => p.Value!.ToString()),
            });
            double baseLr = (double)entry["base_lr"]!;
            double[] expected = entry["lr_by_step"]!.AsArray().Select(v => (double)v!).ToArray();
            for (int s = 0; s < expected.Length; s++)
            {
                double lr =
                    baseLr
                    * Schedules.Factor(
                        type, s, (int?)entry["num_warmup_steps"] ?? 0, (int?)entry["num_training_steps"] ?? 50, baseLr,
                        arguments);
                Assert.True(
                    Math.Abs(lr - expected[s]) <= 1e-12 * Math.Abs(expected[s]) + 1e-18,
                    $"{key} step {s}: {lr} against {expected[s]}");
            }
        }
    }

    private static readonly int[] Steps = [0, 1, 3, 4, 9, 13, 14, 17, 19];

    private static TrainingOptions Of(string name, string kwargs) => new()
    {
        LrSchedulerType = Choices.Parse<SchedulerType>("lr_scheduler_type", name),
        LearningRate = 2e-4,
        LrSchedulerKwargs = kwargs
                .Split(' ', StringSplitOptions.RemoveEmptyEntries)
                .Select(k => k.Split('='))
                .ToDictionary(k => k[0], k => k[1]),
    };

    /// <summary>
    /// Twenty updates, four of them warm-up, base 2e-4; f at <see cref="Steps"/> by the formulas of optimization.py in
    /// double arithmetic.
    /// </summary>
    [Theory]
    [InlineData(
        "warmup_stable_decay", "num_decay_steps=6", 0.0, 0.25, 0.75, 1.0, 1.0, 1.0, 1.0, 0.5, 0.06698729810778065)]
    [InlineData(
        "warmup_stable_decay",
        "num_decay_steps=6 num_stable_steps=7 warmup_type=cosine decay_type=1-sqrt min_lr_ratio=0.1",
        0.1, 0.2318019484660536, 0.8681980515339464, 1.0, 1.0, 0.48038475772933686, 0.36360389693210715, 0.1, 0.1)]
    [InlineData("warmup_stable_decay", "num_decay_steps=5 warmup_type=1-sqrt decay_type=linear min_lr_ratio=0.2",
        0.2, 0.30717967697244913, 0.6, 1.0, 1.0, 1.0, 1.0, 0.68, 0.36)]
    [InlineData("cosine_warmup_with_min_lr", "min_lr_rate=0.1",
        0.25,
        0.5,
        1.0,
        0.9913533761814537,
        0.7222075445642904,
        0.3777924554357096,
        0.2999933951411791,
        0.13425421036992097,
        0.1
    )]
    [InlineData("cosine_warmup_with_min_lr", "min_lr=2e-5 warmup_lr_rate=0.25 num_cycles=1.5",
        0.25,
        0.5,
        1.0,
        0.9241613255361454,
        0.1342542103699209,
        0.965745789630079,
        0.9913533761814537,
        0.3777924554357096,
        0.1
    )]
    [InlineData(
        "cosine_with_min_lr", "min_lr=5e-5", 0.0, 0.25, 0.75, 1.0, 0.8333388373823508, 0.5518411292439519,
        0.48149371286309134, 0.3131988953865455, 0.2572055198487886)]
    [InlineData(
        "polynomial", "power=2 lr_end=1e-5", 0.0, 0.25, 0.75, 1.0, 0.4990234375, 0.2318359375, 0.18359375, 0.0833984375,
        0.0537109375)]
    [InlineData(
        "inverse_sqrt", "timescale=50", 0.0, 0.25, 0.75, 1.0, 0.9534625892455922, 0.9205746178983235,
        0.9128709291752769, 0.8908708063747479, 0.8770580193070292)]
    [InlineData(
        "cosine", "num_cycles=1.25", 0.0, 0.25, 0.75, 1.0, 0.1134947733186315, 0.35485766137276875, 0.5975451610080642,
        0.9975923633360985, 0.735698368412999)]
    public void ArgumentsCount(string name, string kwargs, params double[] expected)
    {
        var o = Of(name, kwargs);
        var a = Schedules.Arguments(o);
        for (int i = 0; i < Steps.Length; i++)
            Assert.Equal(expected[i], Schedules.Factor(o.LrSchedulerType, Steps[i], 4, 20, 2e-4, a), 1e-12);
    }

    [Theory]
    [InlineData("cosine_with_min_lr", "", "needs min_lr or min_lr_rate")]
    [InlineData("cosine_with_min_lr", "num_cycles=0.5", "needs min_lr or min_lr_rate")]
    [InlineData("cosine_warmup_with_min_lr", "min_lr=1e-5 min_lr_rate=0.1", "one of min_lr and min_lr_rate, not both")]
    [InlineData("cosine_with_min_lr", "min_lr=1e-3", "min_lr cannot be '1e-3'")]
    [InlineData("cosine_with_min_lr", "min_lr_rate=1.5", "min_lr_rate cannot be '1.5'")]
    [InlineData("cosine_with_min_lr", "min_lr_rate=nan", "min_lr_rate cannot be 'nan'")]
    [InlineData("warmup_stable_decay", "", "needs num_decay_steps")]
    [InlineData("warmup_stable_decay", "num_decay_steps=2.5", "num_decay_steps cannot be '2.5'")]
    [InlineData("warmup_stable_decay", "num_decay_steps=2 decay_type=exp", "decay_type cannot be 'exp'")]
    [InlineData("polynomial", "lr_end=2e-4", "not below training.learning_rate")]
    [InlineData("polynomial", "power=0", "power cannot be '0'")]
    [InlineData("cosine_with_restarts", "num_cycles=1.5", "num_cycles cannot be '1.5'")]
    [InlineData("inverse_sqrt", "timescale=0", "timescale cannot be '0'")]
    [InlineData("linear", "min_lr=1e-5", "linear takes no 'min_lr'")]
    [InlineData("cosine", "min_lr_rate=0.1", "cosine takes no 'min_lr_rate'")]
    [InlineData("reduce_lr_on_plateau", "", "lr_scheduler_type 'reduce_lr_on_plateau' is unknown")]
    public void WhatAScheduleDoesNotTakeOrLacksIsRefused(string name, string kwargs, string why)
    {
        var e = Assert.Throws<HeadroomException>(() => Schedules.Arguments(Of(name, kwargs)));
        Assert.Contains(why, e.Message, StringComparison.Ordinal);
        Assert.NotEmpty(e.ToDo);
    }

    [Fact]
    public void RecipesGiveThem()
    {
        var recipe = RecipeLoader.Parse(
            "training: { lr_scheduler_type: cosine_with_min_lr, lr_scheduler_kwargs: { min_lr_rate: 0.1, num_cycles: "
                + "0.5 } }"
        );
        Assert.Equal(0.1, Schedules.Arguments(recipe.Training).MinRate);
        Assert.Equal(recipe.Training.LrSchedulerKwargs, RecipeLoader.Copy(recipe).Training.LrSchedulerKwargs);
        Assert.Throws<HeadroomException>(() =>
            RecipeLoader.Parse("training: { lr_scheduler_type: cosine_with_min_lr }")
        );
        Assert.Throws<HeadroomException>(() =>
            RecipeLoader.Parse(
                "training: { lr_scheduler_type: cosine }", ["training.lr_scheduler_kwargs={min_lr: 1e-5}"])
        );
    }
}
