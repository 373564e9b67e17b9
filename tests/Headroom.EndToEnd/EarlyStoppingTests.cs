namespace Headroom.EndToEnd;

/// <summary>
/// A run that ends when evaluations bring nothing better: with its best adapter, the same after a kill.
/// </summary>
public class EarlyStoppingTests
{
    // A rate at which the loss soon rises again.
    private static readonly string[] Train =
    [
        "--set", "training.learning_rate=0.05", "--set", "training.eval_strategy=steps", "--set", "training.eval_steps=1",
        "--set", "training.max_steps=40", "--set", "data.validation=test.jsonl", "--set", "data.on_duplicate=allow",
        "--set", "training.metric_for_best_model=loss", "--set", "training.early_stopping_patience=3",
        "--set", "training.save_steps=1",
    ];

    [Fact]
    public void TheRunEndsEarlyAndAResumeSaysSo()
    {
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny"));
        var (exit, text, error) = cli.Run(["train", recipe, "--name", "whole", .. Train]);
        Assert.True(exit == 0, error);
        Assert.Contains("stopped early, 3 evaluations in a row brought nothing better", text, StringComparison.Ordinal);
        string events = File.ReadAllText(Path.Combine(cli.Folder, "runs", "whole", "events.jsonl"));
        Assert.Contains("\"stopped_early\":true", events, StringComparison.Ordinal);
        int steps = events.Split("\"event\":\"step\"").Length - 1;
        Assert.InRange(steps, 4, 39);
        var again = cli.Run(["train", recipe, "--name", "whole", .. Train, "--resume"]);
        Assert.True(again.Exit == 0, again.Error);
        Assert.Contains("is finished", again.Out, StringComparison.Ordinal);
        string report = File.ReadAllText(Path.Combine(cli.Folder, "runs", "whole", "report.md"));
        Assert.Contains($"stopped early, at step {steps} of at most 40", report, StringComparison.Ordinal);
        Assert.DoesNotContain("incomplete", report, StringComparison.Ordinal);

        string parts = Path.Combine(cli.Folder, "runs", "parts");
        using (var killed = cli.Start(["train", recipe, "--name", "parts", .. Train]))
        {
            while (!killed.HasExited && !Directory.Exists(Path.Combine(parts, "checkpoints", "checkpoint-3")))
                Thread.Sleep(5);
            killed.Kill();
            killed.WaitForExit();
        }
        var resumed = cli.Run(["train", recipe, "--name", "parts", .. Train, "--resume"]);
        Assert.True(resumed.Exit == 0, resumed.Error);
        byte[] Adapter(string run) =>
            File.ReadAllBytes(Path.Combine(cli.Folder, "runs", run, "best", "adapter_model.safetensors"));
        Assert.Equal(Adapter("whole"), Adapter("parts"));

        // More steps do not make it go on: its evaluations stay what they were.
        byte[] best = Adapter("whole");
        string[] more = ["--set", "training.max_steps=60", "--resume"];
        var longer = cli.Run(["train", recipe, "--name", "whole", .. Train, .. more]);
        Assert.True(longer.Exit == 0, longer.Error);
        Assert.Contains($"step {steps}: stopped early", longer.Out, StringComparison.Ordinal);
        Assert.Equal(best, Adapter("whole"));
    }

    [Theory]
    [InlineData("training.eval_strategy=no", "eval_strategy is no")]
    [InlineData("training.load_best_model_at_end=false", "load_best_model_at_end")]
    public void WhatItNeedsIsNamed(string set, string says)
    {
        using var cli = new Cli();
        var (exit, _, error) = cli.Run(["train", cli.Recipe(Cli.Base("llama-tiny")), .. Train, "--set", set]);
        Assert.Equal(2, exit);
        Assert.Contains(says, error, StringComparison.Ordinal);
    }
}
