using System.Text.Json.Nodes;

namespace Headroom.EndToEnd;

/// <summary>
/// Rows of every form, from the data set to predictions: what is learned is shown, trained, resumed and used.
/// </summary>
public class FormsTests
{
    private static readonly string[] Quick =
    [
        "--set", "training.max_steps=6", "--set", "training.save_steps=3", "--set", "training.eval_strategy=no",
        "--set", "training.save_strategy=steps", "--set", "data.max_test_rows=6", "--set", "data.max_eval_rows=6",
        "--set", "data.max_train_rows=80",
    ];

    private static Cli Copied()
    {
        var cli = new Cli();
        foreach (string folder in new[] { "recipes", "models" })
            ExamplesTests.CopyFolder(Path.Combine(AppContext.BaseDirectory, folder), Path.Combine(cli.Folder, folder));
        return cli;
    }

    private static string Run(Cli cli, params string[] words)
    {
        var (exit, text, error) = cli.Run(words);
        Assert.True(exit == 0, $"{string.Join(' ', words)}: exit {exit}\n{text}\n{error}");
        return text;
    }

    [Theory]
    [InlineData("chat", "conversations", "conversation (messages)")]
    [InlineData("instructions", "instructions", "instruction (instruction, output, input)")]
    [InlineData("text", "texts", "text (text)")]
    [InlineData("classes", "classes", null)]
    [InlineData("preferences", "preferences", "preference (prompt, chosen, rejected)")]
    public void EveryRecipeIsCheckedTrainedAndUsed(string recipe, string form, string? said)
    {
        using var cli = Copied();
        string path = $"recipes/{recipe}.yaml", run = $"runs/{recipe}";
        string made = Run(cli, "data", "example", form, $"examples/{form}");
        Assert.Contains("400 training", made, StringComparison.Ordinal);
        string check = Run(cli, "data", "check", path);
        Assert.Contains("train: 400 rows", check, StringComparison.Ordinal);
        Assert.Contains("learned of them", check, StringComparison.Ordinal);
        Assert.Contains("train and test share no row", check, StringComparison.Ordinal);
        string preview = Run(cli, "data", "preview", path, "--rows", "1");
        Assert.Contains("[", preview, StringComparison.Ordinal);
        string train = Run(cli, ["train", path, .. Quick]);
        if (said != null) Assert.Contains(said, train, StringComparison.Ordinal);
        Assert.Contains("6 updates", train, StringComparison.Ordinal);
        string answer = Run(cli, "predict", run, "--text", "Please send 2 red mugs.", "--max-new-tokens", "5");
        Assert.NotNull(JsonNode.Parse(answer)![form == "classes" ? "label" : "answer"]);
        Run(
            cli, "predict", run, "--in", $"examples/{form}/test.jsonl", "--out", "scored.jsonl", "--max-new-tokens",
            "3");
        Assert.Equal(120, File.ReadAllLines(Path.Combine(cli.Folder, "scored.jsonl")).Length);
        Run(
            cli, "eval", run, "--set", "data.max_test_rows=6", "--set", "task.max_seq_length=400", "--rows",
            "rows.jsonl");
        string[] rows = File.ReadAllLines(Path.Combine(cli.Folder, "rows.jsonl"));
        Assert.InRange(rows.Length, 6, 12); // of texts windows
        Assert.All(rows, (r, i) => Assert.Equal(i + 1, (int)JsonNode.Parse(r)!["row"]!));
        Run(cli, "chat", run, "--message", "hello", "--max-new-tokens", "3");
        Assert.True(File.Exists(Path.Combine(cli.Folder, run, "report.html")));
    }

    /// <summary>A budget of tokens, cut rows and masks do not change what a resume is.</summary>
    [Theory]
    [InlineData("chat", "conversations", "task.answer_tokens=0")]
    [InlineData("preferences", "preferences", "task.loss_type=sigmoid")]
    [InlineData("preferences", "preferences", "task.loss_type=kto")]
    public void AStoppedRunGoesOnBitForBit(string recipe, string form, string set)
    {
        using var cli = Copied();
        Run(cli, "data", "example", form, $"examples/{form}");
        string[] train = ["train", $"recipes/{recipe}.yaml", .. Quick, "--set", set];
        Run(cli, [.. train, "--name", "whole"]);
        string parts = Path.Combine(cli.Folder, "runs", "parts");
        using (var killed = cli.Start([.. train, "--name", "parts"]))
        {
            while (!killed.HasExited && !Directory.Exists(Path.Combine(parts, "checkpoints", "checkpoint-3")))
                Thread.Sleep(5);
            killed.Kill();
            killed.WaitForExit();
        }
        Run(cli, [.. train, "--name", "parts", "--resume"]);
        static byte[] Adapter(string run) => File.ReadAllBytes(Path.Combine(run, "best", "adapter_model.safetensors"));
        Assert.Equal(Adapter(Path.Combine(cli.Folder, "runs", "whole")), Adapter(parts));
    }

    [Theory]
    [InlineData("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", "no message of an assistant")]
    [InlineData("{\"messages\": [{\"role\": \"robot\", \"content\": \"a\"}]}", "'robot'")]
    [InlineData("{\"messages\": 7}", "not a list")]
    [InlineData("{\"prompt\": \"a\"}", "form of no task")]
    [InlineData("{\"prompt\": \"a\", \"completion\": null}", "'completion' is null")]
    [InlineData("{\"instruction\": \"a\", \"output\": \"\"}", "'output' is empty")]
    public void BadRowsEndInTwoLines(string row, string says)
    {
        using var cli = new Cli();
        string good = row.Contains("messages", StringComparison.Ordinal)
            ? "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, "
                + "{\"role\": \"assistant\", \"content\": \"b\"}]}"
            : row.Contains("instruction", StringComparison.Ordinal) ? "{\"instruction\": \"a\", \"output\": \"b\"}"
            : row.Contains("null", StringComparison.Ordinal) ? "{\"prompt\": \"a\", \"completion\": \"b\"}" : row;
        string[] task = ["--set", "task.chat_template=\"{{ messages[0].content }}{{ messages[1].content }}\""];
        string recipe = cli.Recipe(Cli.Base("llama-tiny"), train: $"{good}\n{row}\n");
        string[] words = ["train", recipe, "--set", "data.test=null", .. good == row ? [] : task];
        var (exit, _, error) = cli.Run(words);
        Assert.Equal(2, exit);
        Assert.Contains(says, error, StringComparison.Ordinal);
        Assert.Contains("train.jsonl", error, StringComparison.Ordinal);
        Assert.Equal(2, error.TrimEnd().Split('\n').Count(l => !l.StartsWith("device:", StringComparison.Ordinal)));
        Assert.False(Directory.Exists(Path.Combine(cli.Folder, "runs")));
        if (good == row) return;
        // Left out and counted, where that is asked for.
        var skipped = cli.Run([.. words, "--set", "data.on_bad_row=skip", "--set", "training.max_steps=1"]);
        Assert.True(skipped.Exit == 0, skipped.Error);
        Assert.Contains("1 of 2 train rows cannot be read and are left out", skipped.Out, StringComparison.Ordinal);
    }

    /// <summary>
    /// A run that starts from another's adapter: its shape is taken, its file belongs to the identity.
    /// </summary>
    [Fact]
    public void ARunMayStartFromAnAdapter()
    {
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny"));
        string[] train = ["train", recipe, "--set", "training.max_steps=4", "--set", "lora.lora_dropout=0"];
        string first = Run(
            cli, [.. train, "--name", "first", "--set", "lora.r=4", "--set", "lora.target_modules=[q_proj]"]);
        string[] given = [.. train, "--set", "lora.adapter=runs/first"], second = [.. given, "--name", "second"];
        string text = Run(cli, second);
        Assert.Contains("adapters start from", text, StringComparison.Ordinal);
        static string Figures(string of, string stage) =>
            of.Split('\n').Single(l => l.StartsWith(stage + ":", StringComparison.Ordinal))[(stage.Length + 1)..];
        // What the first run ended with is where the second begins.
        Assert.Equal(Figures(first, "tuned"), Figures(text, "zero-shot"));
        Assert.Contains("trainable", text, StringComparison.Ordinal);
        Assert.DoesNotContain("k_proj", text, StringComparison.Ordinal);
        Assert.Contains("is finished", Run(cli, [.. second, "--resume"]), StringComparison.Ordinal);
        var (exit, _, error) = cli.Run([.. given, "--name", "third", "--set", "lora.r=8"]);
        Assert.Equal(2, exit);
        Assert.Contains("lora.r is 8, the adapter", error, StringComparison.Ordinal);
    }

    [Fact]
    public void RowsThatWouldLoseLearnedTokensAreLeftOut()
    {
        using var cli = Copied();
        Run(cli, "data", "example", "conversations", "examples/conversations");
        string[] shorter = ["train", "recipes/chat.yaml", .. Quick, "--set", "task.answer_tokens=0", "--set"];
        string text = Run(cli, [.. shorter, "task.max_seq_length=182", "--set", "data.max_eval_rows=60"]);
        Assert.Matches("[0-9]+ rows are longer than task.max_seq_length 182 and would lose learned tokens", text);
        var (exit, _, error) = cli.Run([.. shorter, "task.max_seq_length=20", "--name", "x"]);
        Assert.Equal(2, exit);
        Assert.Contains("Not one of 80 rows fits", error, StringComparison.Ordinal);
    }
}
