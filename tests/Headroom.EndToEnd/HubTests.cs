using System.Text;
using System.Text.Json.Nodes;
using Headroom.Tests.Hub;

namespace Headroom.EndToEnd;

/// <summary>Models and data sets by hub name through the tool.</summary>
public class HubTests
{
    private const string Secret = "hf_thetokenthatisnevershown";

    private static FakeHub Serve(Cli cli)
    {
        var hub = new FakeHub();
        foreach (string f in Directory.EnumerateFiles(Cli.Base("llama-tiny")))
        {
            string key = "org/llama-tiny/" + Path.GetFileName(f);
            hub.Files[key] = File.ReadAllBytes(f);
            if (f.EndsWith(".safetensors", StringComparison.Ordinal)) hub.Large.Add(key);
        }
        cli.Environment["HF_ENDPOINT"] = hub.Endpoint;
        cli.Environment["HF_TOKEN"] = Secret;
        cli.Environment["NO_PROXY"] = "127.0.0.1";
        return hub;
    }

    [Fact]
    public void TrainsByName()
    {
        using var cli = new Cli();
        using var hub = Serve(cli);
        string Rows(int n, string name) =>
            string.Concat(
                Enumerable
                    .Range(0, n)
                    .Select(i =>
                        $"{{\"text\": \"{name} {i}: {(i % 2 == 1 ? "a wonderful" : "an awful")} film by Marlow\", "
                            + $"\"label\": {i % 2}}}\n"
                    )
            );
        hub.Files["datasets/some/reviews/train.jsonl"] = Encoding.UTF8.GetBytes(Rows(16, "first"));
        hub.Files["datasets/some/reviews/test.jsonl"] = Encoding.UTF8.GetBytes(Rows(8, "second"));
        string recipe = cli.Recipe("org/llama-tiny");
        string[] arguments =
        [
            "train", recipe, "--set", "data.train=some/reviews", "--set", "data.test=some/reviews", "--set",
            "training.max_steps=2", "--json"];
        var (exit, text, error) = cli.Run(arguments);
        Assert.True(exit == 0, error);
        Assert.DoesNotContain(Secret, text + error, StringComparison.Ordinal);
        string run = Path.Combine(cli.Folder, "runs", "tiny");
        var manifest = JsonNode.Parse(File.ReadAllText(Path.Combine(run, "manifest.json")))!;
        Assert.Equal(("llama-tiny", "org/llama-tiny"), ((string?)manifest["model"], (string?)manifest["model_hub"]));
        Assert.Contains(FakeHub.Commit, (string?)manifest["model_path"], StringComparison.Ordinal);
        Assert.Equal(
            "org/llama-tiny",
            (string?)
                JsonNode.Parse(File.ReadAllText(Path.Combine(run, "best", "adapter_config.json")))![
                    "base_model_name_or_path"]
        );
        foreach (string f in Directory.EnumerateFiles(run, "*", SearchOption.AllDirectories))
            Assert.DoesNotContain(Secret, File.ReadAllText(f), StringComparison.Ordinal);

        // Offline the same names work from the cache; a model that is not there says what to do.
        cli.Environment["HF_HUB_OFFLINE"] = "1";
        int before = hub.Requests.Count;
        (exit, text, error) = cli.Run(
            "generate", "org/llama-tiny", "--prompt", "The concert was", "--max-new-tokens", "4", "--device", "cpu",
            "--json");
        Assert.True(exit == 0, error);
        (exit, _, error) = cli.Run("generate", "org/other", "--prompt", "x", "--device", "cpu");
        Assert.True(exit == 2 && error.Contains("HF_HUB_OFFLINE", StringComparison.Ordinal), error);
        Assert.Equal(before, hub.Requests.Count);
    }

    [Fact]
    public void InspectsByNameWithoutTheWeights()
    {
        using var cli = new Cli();
        using var hub = Serve(cli);
        var (exit, text, error) = cli.Run("inspect", "org/llama-tiny", "--json");
        Assert.True(exit == 0, error);
        var json = JsonNode.Parse(text)!;
        Assert.Equal("LlamaForCausalLM", (string?)json["architecture"]);
        Assert.Equal(hub.Files["org/llama-tiny/model.safetensors"].Length, (long)json["checkpoint_bytes"]!);
        Assert.DoesNotContain(hub.Requests, r => r.Storage);
        (exit, _, error) = cli.Run("inspect", "org/nothing");
        Assert.True(
            exit == 2
                && error.Contains("Check the spelling", StringComparison.Ordinal)
                && error.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length == 2,
            error
        );
    }

    /// <summary>
    /// The plan of a recipe by hub name is that of the same model on disk, and takes the header of the weights from the
    /// hub, nothing more.
    /// </summary>
    [Theory, InlineData(false), InlineData(true)]
    public void PlansARecipeByNameWithoutTheWeights(bool shards)
    {
        using var cli = new Cli();
        using var hub = Serve(cli);
        const string key = "org/llama-tiny/model.safetensors";
        if (shards)
        {
            // Two shards: the file itself, and one whose header is longer than what is asked for at first.
            byte[] whole = hub.Files[key];
            hub.Files.Remove(key);
            hub.Files["org/llama-tiny/model-1.safetensors"] = whole;
            byte[] header = Encoding.UTF8.GetBytes(
                "{\"model.layers.0.self_attn.rotary_emb.inv_freq\":{\"dtype\":\"F32\",\"shape\":[1],"
                    + "\"data_offsets\":[0,4]}"
                    + new string(' ', 199_960)
                    + "}"
            );
            hub.Files["org/llama-tiny/model-2.safetensors"] =
            [
                .. BitConverter.GetBytes((long)header.Length),
                .. header,
                0,
                0,
                0,
                0,
            ];
            foreach (int i in new[] { 1, 2 }) hub.Large.Add($"org/llama-tiny/model-{i}.safetensors");
            var names = JsonNode
                .Parse(whole.AsSpan(8, (int)BitConverter.ToInt64(whole)))!
                .AsObject()
                .Select(p => p.Key)
                .Where(k => k != "__metadata__");
            var map = new JsonObject(
                names
                    .Select(n => KeyValuePair.Create(n, (JsonNode?)"model-1.safetensors"))
                    .Append(new("model.layers.0.self_attn.rotary_emb.inv_freq", "model-2.safetensors"))
            );
            hub.Files["org/llama-tiny/model.safetensors.index.json"] = Encoding.UTF8.GetBytes(
                new JsonObject
                {
                    ["metadata"] = new JsonObject { ["total_size"] = 1 },
                    ["weight_map"] = map,
                }.ToJsonString()
            );
        }
        var (exit, remote, error) = cli.Run("plan", cli.Recipe("org/llama-tiny"), "--json");
        Assert.True(exit == 0, error);
        var storage = hub.Requests.Where(r => r.Storage).ToList();
        Assert.Equal(shards ? 3 : 1, storage.Count);
        Assert.All(storage, r =>
            Assert.True(
                r.Range == "bytes=0-131071" || shards && r.Range!.StartsWith("bytes=0-2000", StringComparison.Ordinal),
                r.Range)
        );
        Assert.DoesNotContain(Directory.EnumerateFiles(cli.Folder, "*", SearchOption.AllDirectories), f =>
            new FileInfo(f).Length > 1 << 20
        );
        var (again, local, why) = cli.Run("plan", cli.Recipe(Cli.Base("llama-tiny")), "--json");
        Assert.True(again == 0, why);
        Assert.Equal(local, remote);
    }

    [Fact]
    public void QuantizedCheckpointsAndTheCache()
    {
        using var cli = new Cli();
        string model = Cli.Base("llama-tiny"), four = Path.Combine(cli.Folder, "four");
        var (exit, _, error) = cli.Run("quantize", model, four, "--device", "cpu");
        Assert.True(exit == 0, error);
        string[] ask =
        [
            "--prompt", "The concert was", "--max-new-tokens", "8", "--temperature", "0", "--device", "cpu", "--json"];
        string a = cli.Run(["generate", model, "--load-in-4bit", .. ask]).Out,
            b = cli.Run(["generate", four, .. ask]).Out;
        Assert.Equal(JsonNode.Parse(a)!["ids"]!.ToJsonString(), JsonNode.Parse(b)!["ids"]!.ToJsonString());
        string text = cli.Run("inspect", four).Out;
        Assert.Contains("bitsandbytes NF4, double-quantized", text, StringComparison.Ordinal);

        string recipe = cli.Recipe(cli.CopyBase("llama-tiny"));
        foreach (string f in Directory.EnumerateFiles(Path.Combine(cli.Folder, "base")))
            File.SetLastWriteTimeUtc(f, DateTime.UtcNow.AddHours(-1));
        string Losses(string name)
        {
            (exit, _, error) = cli.Run(
                "train", recipe, "--name", name, "--set", "quantization.cache=true", "--set", "training.max_steps=2");
            Assert.True(exit == 0, error);
            return string.Concat(
                File.ReadLines(Path.Combine(cli.Folder, "runs", name, "events.jsonl"))
                    .Select(l => JsonNode.Parse(l)!)
                    .Where(e => (string?)e["event"] == "step")
                    .Select(e => $"{e["loss"]} {e["grad_norm"]};")
            );
        }
        string first = Losses("first");
        Assert.Single(Directory.GetDirectories(Path.Combine(cli.Folder, "cache", "quantized")));
        Assert.Equal(first, Losses("second"));
        Assert.Contains("nf4-double", cli.Run("cache").Out, StringComparison.Ordinal);
        Assert.Contains("deleted", cli.Run("cache", "--clear").Out, StringComparison.Ordinal);
        Assert.False(Directory.Exists(Path.Combine(cli.Folder, "cache", "quantized")));
    }
}
