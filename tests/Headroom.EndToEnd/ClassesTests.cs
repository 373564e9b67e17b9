using System.Text.Json.Nodes;

namespace Headroom.EndToEnd;

/// <summary>A task of three classes, from the recipe to the report.</summary>
public class ClassesTests
{
    private static readonly string[] Words = ["an awful", "a wonderful", "an ordinary"];

    private static string Rows(int n, string name) =>
        string.Concat(
            Enumerable
                .Range(0, n)
                .Select(i =>
                    $"{{\"text\": \"{name} {i}: {Words[i % 3]} film by Marlow\", \"label\": {i % 3}, \"tier\": "
                        + $"\"{(i % 2 == 0 ? "short" : "long")}\"}}\n"
                )
        );

    private static string Recipe(Cli cli)
    {
        string path = cli.Recipe(Cli.Base("llama-tiny"), train: Rows(48, "first"), test: Rows(18, "second"));
        // The label words of three classes stand below task.
        File.WriteAllText(
            path,
            File.ReadAllText(path)
                .Replace(
                    "  max_seq_length: 64",
                    "  max_seq_length: 64\n  labels: {\"0\": \" negative\", \"1\": \" positive\", \"2\": \" film\"}",
                    StringComparison.Ordinal)
        );
        return path;
    }

    [Fact]
    public void EveryFigureCountsThreeClassesAndBestIsByMacroF1()
    {
        using var cli = new Cli();
        string recipe = Recipe(cli);
        string[] held = ["--set", "data.validation_fraction=0.25"];
        // So fast that evaluations differ, and that the last one need not be the best.
        var (exit, text, error) = cli.Run([
            "train",
            recipe,
            .. held,
            "--set",
            "training.eval_strategy=steps",
            "--set",
            "training.eval_steps=1",
            "--set",
            "training.max_steps=8",
            "--set",
            "training.learning_rate=0.02",
            "--set", "training.lr_scheduler_type=constant"]);
        Assert.True(exit == 0, error);
        Assert.Contains("best adapter: by macro F1 of the validation rows", text, StringComparison.Ordinal);
        Assert.Matches(@"step 8: validation loss [\d.]+, accuracy [\d.]+, macro F1 [\d.]+", text);
        Assert.Matches(@"tuned: accuracy [\d.]+, macro F1 [\d.]+ on 18 test rows", text);
        string folder = Path.Combine(cli.Folder, "runs", "tiny");
        var events = File.ReadLines(Path.Combine(folder, "events.jsonl")).Select(l => JsonNode.Parse(l)!).ToList();
        var evals = events.Where(e => (string?)e["event"] == "eval").ToList();
        Assert.All(evals, e => Assert.Equal(MacroF1(Matrix(e["confusion"]!)), (double)e["f1"]!, 12));
        // The first of the best: only a strictly better one replaces it.
        var best = evals.MaxBy(e => (double)e["f1"]!)!;
        Assert.Equal((int)best["step"]!, (int)events.Single(e => (string?)e["event"] == "run_end")["best_step"]!);
        Assert.Equal([" negative", " positive", " film"], best["labels"]!.AsArray().Select(l => (string)l!));
        var test = events.Single(e => (string?)e["stage"] == "tuned");
        Assert.Equal(18, Matrix(test["confusion"]!).Sum(r => r.Sum()));

        (exit, string printed, error) = cli.Run([
            "eval",
            recipe,
            .. held,
            "--adapter",
            Path.Combine("runs", "tiny", "best"),
            "--json",
        ]);
        Assert.True(exit == 0, error);
        var eval = JsonNode.Parse(printed)!;
        Assert.Equal(test["confusion"]!.ToJsonString(), eval["confusion"]!.ToJsonString());
        Assert.Equal(MacroF1(Matrix(test["confusion"]!)), (double)eval["f1"]!, 12);
        Assert.Equal("macro", (string)eval["classes"]!["average"]!);
        Assert.Equal(6, (int)eval["classes"]!["by_class"]![2]!["rows"]!);
        Assert.Equal(["long", "short"], eval["tiers"]!.AsArray().Select(t => (string)t!["tier"]!));
        (exit, printed, error) = cli.Run(["eval", recipe, .. held, "--adapter", Path.Combine("runs", "tiny", "best")]);
        Assert.True(exit == 0, error);
        Assert.Matches(
            @"on 18 test rows: accuracy .*, macro precision .*, macro recall .*, macro F1 [\d.]+ \[", printed);
        Assert.Matches(@"  ' film': precision .*, recall .*, F1 .* on 6 rows", printed);

        var results = JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "results.json")))!;
        var tuned = results["quality"]!.AsArray().Single(q => (string)q!["stage"]! == "tuned")!;
        Assert.Equal((18, (double)eval["f1"]!), ((int)tuned["rows"]!, (double)tuned["f1"]!["value"]!));
        Assert.Contains(" macro F1 ", (string)results["headline"]!, StringComparison.Ordinal);
    }

    [Fact]
    public void TheEffectiveBatchIsCountedInSixtyFourBits()
    {
        using var cli = new Cli();
        string[] huge =
        [
            "--set", "training.per_device_train_batch_size=65536", "--set",
            "training.gradient_accumulation_steps=65536", "--set", "training.max_steps=1"];
        var (exit, text, error) = cli.Run(["train", Recipe(cli), .. huge]);
        Assert.True(exit == 0, error);
        Assert.Contains("effective batch 65536 x 65536 = 4294967296,", text, StringComparison.Ordinal);
        var start = File.ReadLines(Path.Combine(cli.Folder, "runs", "tiny", "events.jsonl"))
            .Select(l => JsonNode.Parse(l)!)
            .First(e => (string?)e["event"] == "run_start");
        Assert.Equal(1L << 32, (long)start["effective_batch"]!);
    }

    private static long[][] Matrix(JsonNode confusion) =>
        [.. confusion.AsArray().Select(r => r!.AsArray().Select(c => (long)c!).ToArray())];

    // 2 right / (gold + predicted), over the classes that occur.
    private static double MacroF1(long[][] m) =>
        Enumerable
            .Range(0, m.Length)
            .Select(c => (Right: m[c][c], All: m[c].Sum() + m.Sum(r => r[c])))
            .Where(c => c.All > 0)
            .Average(c => 2.0 * c.Right / c.All);
}
