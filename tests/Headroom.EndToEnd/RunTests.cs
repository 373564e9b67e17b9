using System.Diagnostics;
using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;

namespace Headroom.EndToEnd;

public class RunTests(ITestOutputHelper output)
{
    private static List<JsonNode> Events(string folder) =>
        [
            .. File.ReadLines(Path.Combine(folder, "events.jsonl"))
                .Where(l => l.EndsWith('}'))
                .Select(l => JsonNode.Parse(l)!),
        ];

    private static string Losses(List<JsonNode> events) =>
        string.Join(
            '\n',
            events.Where(e => (string?)e["event"] == "step").Select(e => $"{e["step"]} {e["loss"]} {e["grad_norm"]}"));

    private static string Hash(List<JsonNode> events) =>
        (string)events.Single(e => (string?)e["event"] == "run_end")["adapter_sha256"]!;

    [Fact]
    public void KilledAndResumedEqualsUninterrupted()
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("SIGKILL is sent on Linux only");
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny"));
        var (exit, _, error) = cli.Run("train", recipe, "--name", "whole");
        Assert.True(exit == 0, error);
        var whole = Events(Path.Combine(cli.Folder, "runs", "whole"));
        Assert.Equal(16, whole.Count(e => (string?)e["event"] == "step"));
        int seed = Random.Shared.Next();
        output.WriteLine($"seed {seed}");
        var random = new Random(seed);
        string folder = Path.Combine(cli.Folder, "runs", "killed"), log = Path.Combine(folder, "events.jsonl");
        for (int kill = 0; kill < 3; kill++)
        {
            int at = 3 + 4 * kill + random.Next(3);
            using var p = cli.Start(
                kill == 0 ? ["train", recipe, "--name", "killed"] : ["train", recipe, "--name", "killed", "--resume"]);
            p.OutputDataReceived += (_, _) => { };
            p.ErrorDataReceived += (_, _) => { };
            p.BeginOutputReadLine();
            p.BeginErrorReadLine();
            while (
                !p.HasExited
                && !(
                    File.Exists(log)
                    && File.ReadLines(log)
                        .Any(l =>
                            l.Contains($"\"step\":{at},", StringComparison.Ordinal)
                            && l.Contains("\"event\":\"step\"", StringComparison.Ordinal)
                        )
                )
            )
                Thread.Sleep(1);
            Assert.False(p.HasExited, $"ended before step {at}");
            p.Kill();
            p.WaitForExit();
            output.WriteLine($"killed at step {at} or later");
        }
        (exit, _, error) = cli.Run("train", recipe, "--name", "killed", "--resume");
        Assert.True(exit == 0, error);
        var killed = Events(folder);
        Assert.Equal(Losses(whole), Losses(killed));
        Assert.Equal(Hash(whole), Hash(killed));
    }

    [Theory, InlineData("-TERM"), InlineData("-HUP")]
    public void ToldToStopItWritesACheckpointAndGoesOn(string signal)
    {
        if (!OperatingSystem.IsLinux()) Assert.Skip("signals are sent on Linux only");
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("deepseek-tiny"));
        string[] all = ["--set", "training.save_strategy=epoch"];
        var (exit, _, error) = cli.Run(["train", recipe, "--name", "whole", .. all]);
        Assert.True(exit == 0, error);
        string folder = Path.Combine(cli.Folder, "runs", "stopped"), log = Path.Combine(folder, "events.jsonl");
        using (var p = cli.Start(["train", recipe, "--name", "stopped", .. all]))
        {
            p.BeginOutputReadLine();
            p.BeginErrorReadLine();
            while (
                !p.HasExited
                && !(
                    File.Exists(log)
                    && File.ReadLines(log).Any(l => l.Contains("\"event\":\"step\"", StringComparison.Ordinal))
                )
            )
                Thread.Sleep(1);
            using (
                var kill = Process.Start(
                    "kill", [signal, p.Id.ToString(System.Globalization.CultureInfo.InvariantCulture)])
            )
                kill.WaitForExit();
            Assert.True(p.WaitForExit(60_000), signal + " did not end it");
            Assert.Equal(1, p.ExitCode);
        }
        var stopped = Events(folder);
        int at = (int)stopped.Single(e => (string?)e["event"] == "stopped")["at_step"]!;
        Assert.True(
            File.Exists(Path.Combine(folder, "checkpoints", $"checkpoint-{at}", "trainer_state.json")),
            $"no checkpoint of step {at}");
        (exit, _, error) = cli.Run(["train", recipe, "--name", "stopped", "--resume", .. all]);
        Assert.True(exit == 0, error);
        var whole = Events(Path.Combine(cli.Folder, "runs", "whole"));
        Assert.Equal(Losses(whole), Losses(Events(folder)));
        Assert.Equal(Hash(whole), Hash(Events(folder)));
    }

    [Fact]
    public void BestHoldsTheAdapterOfTheBestEvaluation()
    {
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny"));
        string[] held = ["--set", "data.validation_fraction=0.25", "--set", "training.metric_for_best_model=loss"];
        // A learning rate that ruins the model late in the run, so that the best evaluation is an early one.
        var (exit, _, error) = cli.Run([
            "train",
            recipe,
            .. held,
            "--set",
            "training.eval_strategy=steps",
            "--set",
            "training.eval_steps=2",
            "--set",
            "training.learning_rate=0.05",
            "--set",
            "training.lr_scheduler_type=constant",
        ]);
        Assert.True(exit == 0, error);
        var events = Events(Path.Combine(cli.Folder, "runs", "tiny"));
        var evals = events.Where(e => (string?)e["event"] == "eval").ToArray();
        var best = evals.MinBy(e => (double)e["loss"]!)!;
        Assert.True(
            evals.Length >= 4 && (int)best["step"]! < (int)evals[^1]["step"]!,
            $"the best of {evals.Length} evaluations is at step {best["step"]}");
        Assert.Equal((int)best["step"]!, (int)events.Single(e => (string?)e["event"] == "run_end")["best_step"]!);
        (exit, string text, error) = cli.Run([
            "eval",
            recipe,
            .. held,
            "--adapter",
            Path.Combine("runs", "tiny", "best"),
            "--split",
            "validation",
            "--json",
        ]);
        Assert.True(exit == 0, error);
        Assert.Equal((double)best["loss"]!, (double)JsonNode.Parse(text)!["loss"]!, 9);
    }

    [Fact]
    public void ThePlanOfARecipeIsWhatTrainReserves()
    {
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny"));
        var (exit, text, error) = cli.Run("plan", recipe, "--json");
        Assert.True(exit == 0, error);
        long planned = (long)JsonNode.Parse(text)![0]!["total_bytes"]!;
        (exit, text, error) = cli.Run("train", recipe);
        Assert.True(exit == 0, error);
        Assert.Contains($"total: {planned:N0} bytes", text, StringComparison.Ordinal);
        var events = Events(Path.Combine(cli.Folder, "runs", "tiny"));
        Assert.Equal(planned, (long)events.First(e => (string?)e["event"] == "memory")["reserved_bytes"]!);
        (exit, text, error) = cli.Run("plan", recipe, "--vram", $"{planned - 1}", "--json");
        Assert.True(exit == 0, error);
        Assert.InRange((int)JsonNode.Parse(text)![0]!["recompute_layers"]!, 1, 4);
        (exit, _, error) = cli.Run("plan", recipe, "--vram", "1MiB");
        Assert.True(exit == 2 && error.Contains("biggest rows", StringComparison.Ordinal), error);
    }

    [Fact]
    public void EmbeddedDuelWritesItsReport()
    {
        using var cli = new Cli();
        var (exit, text, error) = cli.Run(
            "duel", "--json", "--set", "data.max_train_rows=64", "--set", "data.max_eval_rows=32", "--set",
            "data.max_test_rows=64");
        Assert.True(exit == 0, error);
        var result = JsonNode.Parse(text)!;
        Assert.Equal(2, result["runs"]!.AsArray().Count);
        string folder = Path.Combine(cli.Folder, "runs", "duel"),
            html = File.ReadAllText(Path.Combine(folder, "report.html"));
        foreach (string must in new[] { "llama-tiny", "deepseek-tiny", "bag-of-words", "McNemar", "<svg", "sarcasm" })
            Assert.Contains(must, html, StringComparison.Ordinal);
        Assert.DoesNotContain("src=", html, StringComparison.Ordinal);
        using var parsed = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "results.json")));
        foreach (var run in result["runs"]!.AsArray())
        {
            var events = Events(Path.Combine(cli.Folder, (string)run!["folder"]!));
            var plan = events.First(e => (string?)e["event"] == "run_start")["plan"]!;
            Assert.All(events.Where(e => (string?)e["event"] == "memory"), m =>
                Assert.Equal((long)plan["total_bytes"]!, (long)m["reserved_bytes"]!)
            );
        }
        (exit, _, error) = cli.Run("duel", "--json", "--set", "lora.target_modules=all-linear",
            "--set",
            "data.max_train_rows=32",
            "--set",
            "data.max_eval_rows=32",
            "--set",
            "data.max_test_rows=32"
        ); // takes the next free number
        Assert.True(exit == 0 && Directory.Exists(folder + "-2"), error);
    }

    /// <summary>
    /// Rows and tokenizers are read for the first look at every model and not again: when the first run begins they may
    /// be gone. A second seed reads the rows once more.
    /// </summary>
    [Theory, InlineData(1), InlineData(2)]
    public void ADuelReadsItsRowsOnce(int seeds)
    {
        using var cli = new Cli();
        string[] sets = ["training.max_steps=1"];
        var recipe = RecipeLoader.Load(
            cli.Recipe(cli.CopyBase("llama-tiny")),
            [.. sets, $"seeds=[{string.Join(", ", Enumerable.Range(5, seeds))}]"]);
        string train = recipe.Data.Train = Path.Combine(cli.Folder, "train.jsonl"),
            test = recipe.Data.Test = Path.Combine(cli.Folder, "test.jsonl");
        string tokenizer = Path.Combine(recipe.Models[0].Path, "tokenizer.json");
        recipe.Models[0].Name = "one";
        recipe.Models.Add(new ModelOptions { Path = recipe.Models[0].Path, Name = "two" });
        int opened = 0;
        RunHost Host(string folder, bool resume) => new(folder, resume, () =>
        {
            if (++opened == recipe.Models.Count)
            {
                File.Move(train, train + ".away");
                File.Move(test, test + ".away");
                File.Move(tokenizer, tokenizer + ".away");
            }
            return new Headroom.Cpu.CpuDevice(1);
        }, null, _ => { }, (_, _, _, _) => { });
        string folder = Path.Combine(cli.Folder, "runs", "duel");
        DuelResult Run(string to) => DuelRun.Run(recipe, "", to, false, Host, TestContext.Current.CancellationToken);
        if (seeds == 1)
        {
            Assert.Equal(["one", "two"], Run(folder).Runs.Select(r => r.Model));
            Assert.Equal(4, opened);
            return;
        }
        Assert.Throws<HeadroomException>(() => Run(folder)); // the second seed's splits are others
        Assert.All(new[] { "one-seed5", "two-seed5" }, r =>
            Assert.Contains(File.ReadLines(Path.Combine(folder, r, "events.jsonl")), l =>
                l.Contains("run_end", StringComparison.Ordinal)
            )
        );
        foreach (string f in new[] { train, test, tokenizer }) File.Move(f + ".away", f);
        opened = 9;
        var results = Run(folder + "2").Runs;
        Assert.Equal([("one", 5), ("two", 5), ("one", 6), ("two", 6)], results.Select(r => (r.Model, r.Seed)));
        // Each run of the duel is what train makes of its recipe, whichever rows it was given.
        foreach (var r in results)
        {
            var alone = RecipeLoader.Load(
                Path.Combine(cli.Folder, "recipe.yaml"), [.. sets, $"training.seed={r.Seed}"]);
            (alone.Data.Train, alone.Data.Test) = (train, test);
            var result = TrainRun.Run(
                alone, "", alone.Models[0], Host(Path.Combine(folder + "3", r.Model + r.Seed), false),
                TestContext.Current.CancellationToken);
            Assert.Equal(r.Result!.AdapterHash, result.AdapterHash);
        }
    }

    [Fact]
    public void TrainedAdapterEvaluatesAndGenerates()
    {
        using var cli = new Cli();
        string model = Cli.Base("deepseek-tiny"), recipe = cli.Recipe(model);
        var (exit, text, error) = cli.Run("train", recipe, "--json");
        Assert.True(exit == 0, error);
        double tuned = (double)JsonNode.Parse(text)!["accuracy"]!;
        (exit, text, error) = cli.Run("eval", recipe, "--adapter", Path.Combine("runs", "tiny", "best"), "--json");
        Assert.True(exit == 0, error);
        Assert.Equal(tuned, (double)JsonNode.Parse(text)!["accuracy"]!);
        (exit, text, error) = cli.Run(
            "generate", model, "--prompt", "The concert was", "--max-new-tokens", "12", "--json");
        Assert.True(exit == 0, error);
        Assert.InRange(JsonNode.Parse(text)!["ids"]!.AsArray().Count, 1, 12);
        string other = cli.Recipe(Cli.Base("llama-tiny"));
        (exit, _, error) = cli.Run("eval", other, "--adapter", Path.Combine("runs", "tiny", "best"));
        Assert.True(exit == 2 && error.Contains("another base", StringComparison.Ordinal), error);
    }
}
