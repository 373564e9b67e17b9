using System.Text.Json.Nodes;

namespace Headroom.EndToEnd;

/// <summary>headroom export, as a user runs it.</summary>
public class ExportTests
{
    [Theory, InlineData("gguf", "q8_0", "tiny.gguf"), InlineData("safetensors", "bf16", "merged")]
    public void ExportedModelGoesOnLikeItsBase(string format, string type, string name)
    {
        using var cli = new Cli();
        string model = Cli.Base("llama-tiny"), path = Path.Combine(cli.Folder, name);
        var (exit, text, error) = cli.Run("export", model, "--format", format, "--type", type, "--out", path, "--json");
        Assert.True(exit == 0, error);
        var json = JsonNode.Parse(text)!;
        Assert.True((double)json["agreement"]! >= 0.95 && (int)json["positions"]! > 20);
        var (again, _, why) = cli.Run(
            "generate", path, "--prompt", "The film was", "--max-new-tokens", "4", "--temperature", "0", "--device",
            "cpu", "--json");
        Assert.True(again == 0, why);
        Assert.Empty(Directory.GetFileSystemEntries(cli.Folder, ".*"));
    }

    /// <summary>"wooden" has two decided tokens on this model, and four bits change both.</summary>
    [Fact]
    public void WhatFourBitsCostIsRefusedUnlessItIsAccepted()
    {
        using var cli = new Cli();
        string path = Path.Combine(cli.Folder, "q4.gguf");
        string[] arguments =
        [
            "export", Cli.Base("deepseek-tiny"), "--type", "q4_0", "--out", path, "--prompt", "wooden"];
        var (exit, _, error) = cli.Run(arguments);
        Assert.Equal(1, exit);
        Assert.Contains("--accept-loss", error);
        Assert.Empty(Directory.GetFileSystemEntries(cli.Folder));
        var (again, text, why) = cli.Run([.. arguments, "--accept-loss"]);
        Assert.True(again == 0, why);
        Assert.Contains("token agreement 0.0 %", text);
        Assert.True(File.Exists(path));
    }

    /// <summary>A GGUF file is planned in its own types, to the byte of its matrices.</summary>
    [Fact]
    public void PlansAGgufFileInItsOwnTypes()
    {
        using var cli = new Cli();
        string path = Path.Combine(cli.Folder, "tiny.gguf");
        Assert.Equal(0, cli.Run("export", Cli.Base("llama-tiny"), "--type", "q4_0", "--out", path).Exit);
        var config = JsonNode.Parse(File.ReadAllText(Path.Combine(Cli.Base("llama-tiny"), "config.json")))!;
        long h = (int)config["hidden_size"]!,
            i = (int)config["intermediate_size"]!,
            layers = (int)config["num_hidden_layers"]!,
            vocab = (int)config["vocab_size"]!;
        long kv = (int)config["num_key_value_heads"]! * h / (int)config["num_attention_heads"]!;
        var (exit, text, error) = cli.Run("plan", path, "--json");
        Assert.True(exit == 0, error);
        long Bytes(string category) =>
            JsonNode.Parse(text)!["rows"]!
                .AsArray()
                .Where(r => (string?)r!["category"] == category)
                .Max(r => (long)r!["bytes"]!);
        long matrices = layers * (2 * h * h + 2 * h * kv + 3 * h * i) / 32 * 18;
        Assert.InRange(Bytes("BaseWeights"), matrices, matrices + layers * 40 * h); // norms, and room between buffers
        bool tied = (bool?)config["tie_word_embeddings"] ?? false;
        Assert.InRange(
            Bytes("Embeddings"), vocab * h / 32 * 34 + (tied ? 0 : vocab * h / 32 * 18),
            vocab * h / 32 * 34 * (tied ? 1 : 2) + 4096);
    }

    [Fact]
    public void BadRequestsLeaveNothing()
    {
        using var cli = new Cli();
        string model = Cli.Base("llama-tiny");
        foreach (string[] arguments in new string[][]
        {
            ["export", model, "--format", "safetensors", "--type", "q8_0", "--out", Path.Combine(cli.Folder, "a")],
            ["export", Path.Combine(cli.Folder, "none"), "--out", Path.Combine(cli.Folder, "b.gguf")],
            ["export", model, "--adapter", model, "--out", Path.Combine(cli.Folder, "c.gguf")],
            ["export", model, "--format", "adapter", "--out", Path.Combine(cli.Folder, "d")],
        })
        {
            var (exit, _, error) = cli.Run(arguments);
            Assert.Equal(2, exit);
            Assert.StartsWith("error: ", error);
        }
        Assert.Empty(Directory.GetFileSystemEntries(cli.Folder));
    }
}
