using System.Text.Json.Nodes;

namespace Headroom.EndToEnd;

/// <summary>
/// A plan says what it is for before it gives a figure: device, precision, rows and length, recompute.
/// </summary>
public class PlanTests
{
    [Fact]
    public void TheFirstLineSaysWhatItIsFor()
    {
        using var cli = new Cli();
        string model = Cli.Base("llama-tiny");
        var config = JsonNode.Parse(File.ReadAllText(Path.Combine(model, "config.json")))!;
        int layers = (int)config["num_hidden_layers"]!, positions = (int)config["max_position_embeddings"]!;
        var (exit, text, error) = cli.Run("plan", model, "--rows", "3", "--length", "64");
        Assert.True(exit == 0, error);
        Assert.StartsWith(
            $"planned for the CPU: float32, 3 rows x 64 tokens, 0 of {layers} layers recomputed; a GPU takes other "
                + $"bytes",
            text, StringComparison.Ordinal);
        Assert.DoesNotContain("positions", text, StringComparison.Ordinal);

        (exit, text, error) = cli.Run("plan", model, "--rows", "2", "--length", $"{positions + 1}");
        Assert.True(exit == 0, error);
        string[] lines = text.Split('\n');
        Assert.Contains($"2 rows x {positions + 1} tokens", lines[0], StringComparison.Ordinal);
        Assert.StartsWith(
            $"note: --length is {positions + 1}, beyond the {positions} positions", lines[1], StringComparison.Ordinal);

        (exit, text, error) = cli.Run("plan", model, "--rows", "2", "--length", $"{positions + 1}", "--json");
        Assert.True(exit == 0, error);
        Assert.Contains("beyond the", error, StringComparison.Ordinal);
        var json = JsonNode.Parse(text)!;
        Assert.Equal(
            ("cpu", "float32", 2, positions + 1, positions, 0, layers),
            (
                (string)json["device"]!, (string)json["precision"]!, (int)json["batch_rows"]!, (int)json["length"]!,
                (int)json["max_position_embeddings"]!, (int)json["recompute_layers"]!, (int)json["layers"]!)
        );
    }

    [Fact]
    public void SoDoesThatOfARecipe()
    {
        using var cli = new Cli();
        string recipe = cli.Recipe(Cli.Base("llama-tiny"));
        var (exit, text, error) = cli.Run("plan", recipe, "--device", "cpu");
        Assert.True(exit == 0, error);
        Assert.Matches(
            @"\A\S+, planned for CPU[^\n]*: float32, micro-batches of at most \d+ rows and \d+ tokens, \d+ of \d+ layers recomputed\n",
            text);
        (exit, text, error) = cli.Run("plan", recipe, "--device", "cpu", "--json");
        Assert.True(exit == 0, error);
        var json = JsonNode.Parse(text)![0]!;
        Assert.StartsWith("CPU", (string)json["device"]!, StringComparison.Ordinal);
        Assert.Equal("float32", (string)json["precision"]!);
        Assert.True((int)json["batch_rows"]! > 0 && (int)json["length"]! > 0);
    }
}
