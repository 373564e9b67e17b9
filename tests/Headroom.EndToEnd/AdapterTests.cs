using System.Text.Json.Nodes;

namespace Headroom.EndToEnd;

/// <summary>Adapters beyond plain LoRA, from a recipe to an exported model.</summary>
public class AdapterTests
{
    [Theory]
    [InlineData("lora.use_dora=true", "lora.lora_dropout=0")]
    [InlineData("lora.use_dora=true", "training.gradient_checkpointing=true")]
    [InlineData("lora.modules_to_save=[lm_head, embed_tokens, norm]")]
    [InlineData("lora.init_lora_weights=pissa_niter_4", "lora.use_rslora=true")]
    [InlineData("lora.init_lora_weights=loftq", "lora.loftq_config={loftq_iter: 3}")]
    public void PlannedTrainedEvaluatedExported(params string[] options)
    {
        using var cli = new Cli();
        string model = Cli.Base("llama-tiny"),
            recipe = cli.Recipe(model),
            adapter = Path.Combine("runs", "tiny", "best");
        string[] sets = [.. options.SelectMany(o => new[] { "--set", o }), "--set", "lora.r=4"];
        var (exit, text, error) = cli.Run(["plan", recipe, "--json", .. sets]);
        Assert.True(exit == 0, error);
        long planned = (long)JsonNode.Parse(text)![0]!["total_bytes"]!;
        (exit, text, error) = cli.Run(["train", recipe, "--json", .. sets]);
        Assert.True(exit == 0, error);
        double tuned = (double)JsonNode.Parse(text)!["accuracy"]!;
        var events = File.ReadLines(Path.Combine(cli.Folder, "runs", "tiny", "events.jsonl"))
            .Select(l => JsonNode.Parse(l)!)
            .ToList();
        Assert.Equal(planned, (long)events.First(e => (string?)e["event"] == "memory")["reserved_bytes"]!);
        var losses = events.Where(e => (string?)e["event"] == "step").Select(e => (double)e["loss"]!).ToArray();
        Assert.True(losses[^4..].Average() < losses[..4].Average(), string.Join(' ', losses));
        (exit, text, error) = cli.Run(["eval", recipe, "--adapter", adapter, "--json", .. sets]);
        Assert.True(exit == 0, error);
        Assert.Equal(tuned, (double)JsonNode.Parse(text)!["accuracy"]!);
        (exit, text, error) = cli.Run(
            "generate", model, "--adapter", adapter, "--prompt", "The film was", "--max-new-tokens", "4",
            "--temperature", "0", "--device", "cpu", "--json");
        Assert.True(exit == 0, error);
        (exit, text, error) = cli.Run(
            "export", model, "--adapter", adapter, "--format", "safetensors", "--type", "f32", "--out", "merged",
            "--json");
        Assert.True(exit == 0, error);
        Assert.Equal(1.0, (double)JsonNode.Parse(text)!["agreement"]!);
        Assert.InRange((double)JsonNode.Parse(text)!["relative_difference"]!, 0, 1e-4);
        // For PEFT: nothing beside the adapter is needed, whatever its start took out of the base.
        (exit, _, error) = cli.Run("export", model, "--adapter", adapter, "--format", "adapter", "--out", "plain");
        Assert.True(exit == 0, error);
        Assert.Equal(
            ["adapter_config.json", "adapter_model.safetensors"],
            Directory.EnumerateFileSystemEntries(Path.Combine(cli.Folder, "plain")).Select(Path.GetFileName).Order());
        (exit, text, error) = cli.Run(
            "export", model, "--adapter", "plain", "--format", "safetensors", "--type", "f32", "--out", "again",
            "--json");
        Assert.True(exit == 0, error);
        Assert.Equal(1.0, (double)JsonNode.Parse(text)!["agreement"]!);
    }
}
