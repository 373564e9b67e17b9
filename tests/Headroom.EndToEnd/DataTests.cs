using System.Text;
using System.Text.Json.Nodes;

namespace Headroom.EndToEnd;

/// <summary>Templates, data files and what is said of them, through the tool.</summary>
public class DataTests
{
    private static string Ev(Cli cli, string template, string labels)
    {
        string path = Path.Combine(cli.Folder, "ev.yaml");
        File.WriteAllText(path, $$"""
            name: ev
            device: cpu
            models: [ { path: {{Cli.Base("deepseek-tiny")}} } ]
            data: { train: embedded:reviews, max_test_rows: 80, max_train_rows: 50, max_eval_rows: 50 }
            task:
              template: "{{template}}"
              labels: {{labels}}
              max_seq_length: 128
            """);
        return path;
    }

    [Fact]
    public void ABlankAtTheTemplatesEndIsTheLabelWords()
    {
        using var cli = new Cli();
        var (exit, usual, error) = cli.Run(
            "eval", Ev(cli, "Review: {text}\\nSentiment:", "{ 0: ' negative', 1: ' positive' }"), "--json");
        Assert.True(exit == 0, error);
        var (_, blank, _) = cli.Run(
            "eval", Ev(cli, "Review: {text}\\nSentiment: ", "{ 0: negative, 1: positive }"), "--json");
        foreach (string figure in new[] { "rows", "loss", "accuracy", "f1", "confusion" })
            Assert.Equal(
                JsonNode.Parse(usual)![figure]!.ToJsonString(), JsonNode.Parse(blank)![figure]!.ToJsonString());
        var (_, joined, said) = cli.Run("eval", Ev(cli, "Review: {text} wonder", "{ 0: ing, 1: ful }"), "--json");
        Assert.NotEqual("", joined);
        Assert.Matches("note: \\d+ of 80 rows checked do not have the tokens of their joined text", said);
    }

    [Fact]
    public void OdditiesAreSaidBeforeTheFirstStepAndKept()
    {
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny"));
        string[] odd =
        [
            "--set", "training.gradient_accumulation_steps=32", "--set", "training.warmup_steps=50", "--set",
            "training.max_steps=2", "--set", "training.save_strategy=no"];
        string[] notes =
        [
            "note: The effective batch of 4 x 32 = 128 rows is larger than the 64 training rows",
            "note: The warm-up of 50 is as long as the run of 2 updates"];
        var (exit, text, error) = cli.Run([
            "train",
            recipe,
            "--name",
            "odd",
            "--set",
            "training.logging_steps=1",
            .. odd,
        ]);
        Assert.True(exit == 0, error);
        Assert.All(notes, n =>
            Assert.InRange(
                text.IndexOf(n, StringComparison.Ordinal), 0, text.IndexOf("step 1:", StringComparison.Ordinal))
        );
        var events = File.ReadLines(Path.Combine(cli.Folder, "runs", "odd", "events.jsonl"))
            .Select(l => JsonNode.Parse(l)!)
            .ToList();
        Assert.Equal(
            notes.Length,
            events.TakeWhile(e => (string?)e["event"] != "step").Count(e => (string?)e["event"] == "notice"));
        (_, text, _) = cli.Run(["plan", recipe, .. odd]);
        Assert.All(notes, n => Assert.Contains(n, text, StringComparison.Ordinal));
        (_, text, _) = cli.Run(["plan", recipe, "--json", .. odd]);
        Assert.Equal(notes.Length, JsonNode.Parse(text)![0]!["notes"]!.AsArray().Count);
        File.WriteAllText(
            recipe,
            File.ReadAllText(recipe)
                .Replace("models:", $"models:\n  - path: {Cli.Base("deepseek-tiny")}", StringComparison.Ordinal)
        );
        (exit, text, error) = cli.Run(["duel", recipe, "--name", "two", .. odd]);
        Assert.True(exit == 0, error);
        // Once of the duel, and once of each run.
        Assert.All(notes, n => Assert.Equal(3, text.Split(n).Length - 1));
    }

    [Fact]
    public void SeveralTextColumns()
    {
        using var cli = new Cli();
        string Pairs(int n, string name) =>
            "premise,hypothesis,label\n"
            + string.Concat(
                Enumerable
                    .Range(0, n)
                    .Select(i => $"\"{name} {i}, a man eats\",he is {(i % 2 == 1 ? "hungry" : "asleep")},{i % 2}.0\n")
            );
        string recipe = cli.Recipe(Cli.Base("deepseek-tiny"), train: "", test: "");
        File.WriteAllText(Path.Combine(cli.Folder, "train.csv"), Pairs(32, "first"));
        File.WriteAllText(Path.Combine(cli.Folder, "test.csv"), Pairs(8, "second"));
        string[] set =
        [
            "--set", "data.train=train.csv", "--set", "data.test=test.csv", "--set", "training.max_steps=2"];
        const string template = "task.template={premise}, so {hypothesis}. True?";
        var (exit, text, error) = cli.Run([
            "train",
            recipe,
            .. set,
            "--set",
            $"{template.Replace("=", "=\"", StringComparison.Ordinal)}\"",
        ]);
        Assert.True(exit == 0, error);
        Assert.Matches(
            "first example, masked: \"<\\|begin_of_sentence\\|>first \\d+, a man eats, so he is (hungry|asleep)\\. "
                + "True\\?\" learned: \" (positive|negative)\"",
            text);
        (exit, text, error) = cli.Run([
            "eval",
            recipe,
            .. set,
            "--set",
            $"{template.Replace("=", "=\"", StringComparison.Ordinal)}\"",
            "--adapter",
            Path.Combine("runs", "tiny", "best"),
        ]);
        Assert.True(exit == 0, error);
        Assert.Contains("on 8 test rows", text, StringComparison.Ordinal);
        (exit, _, error) = cli.Run([
            "train",
            recipe,
            .. set,
            "--name",
            "x",
            "--set",
            "task.template=\"{premise} {conclusion}\"",
        ]);
        Assert.Equal(2, exit);
        Assert.Contains("no field 'conclusion'", error, StringComparison.Ordinal);
        Assert.Contains("premise, hypothesis, label", error, StringComparison.Ordinal);
        (exit, _, error) = cli.Run([
            "train",
            recipe,
            .. set,
            "--name",
            "x",
            "--set",
            "task.template=\"{premise} {label}\"",
        ]);
        Assert.Equal(2, exit);
        Assert.Contains("'label', which is data.label_field", error, StringComparison.Ordinal);
        (exit, _, error) = cli.Run([
            "train", recipe, "--name", "x", "--set", "data.train=embedded:reviews", "--set",
            "task.template=\"{text} {hypothesis}\""]);
        Assert.Equal(2, exit);
        Assert.Contains("no column 'hypothesis'", error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("a.csv", "text,{0}\n{0},1\n", "no field 'label'")]
    [InlineData("a.csv", "{0},{0},{0}\n", "3 columns and no header")]
    [InlineData("a.csv", "text,label\nx,{0}\n", "row 1")]
    [InlineData("a.jsonl", "{{\"text\":\"x\",\"{0}\":1}}\n", "no field 'label'")]
    [InlineData("a.json", "[{{\"text\":\"x\",\"label\":\"{0}\"}}]", "row 1")]
    [InlineData("a.txt", "{0}\n{0}\n", "texts but no labels")]
    [InlineData("a.csv", "Satz;Stimmung\n{0};1\n", "row 1: 'Stimmung'")]
    public void ErrorsAreShortHoweverLongTheCells(string name, string text, string says)
    {
        using var cli = new Cli();
        string cell = string.Concat(Enumerable.Repeat("sehr lang 長い \u001b[31m 😀 ", 2000));
        File.WriteAllText(
            Path.Combine(cli.Folder, name),
            string.Format(
                System.Globalization.CultureInfo.InvariantCulture,
                text,
                name.Contains("json", StringComparison.Ordinal)
                    ? cell.Replace("\u001b", "\\u001b", StringComparison.Ordinal)
                    : cell
            )
        );
        var (exit, _, error) = cli.Run(
            "train", cli.Recipe(Cli.Base("llama-tiny")), "--set", $"data.train={name}", "--set",
            "task.type=label_words");
        Assert.True(exit == 2, error);
        Assert.Contains(says, error, StringComparison.Ordinal);
        Assert.InRange(Encoding.UTF8.GetByteCount(error), 20, 2048);
        Assert.DoesNotContain('\u001b', error);
        Assert.False(Directory.Exists(Path.Combine(cli.Folder, "runs")));
    }
}
