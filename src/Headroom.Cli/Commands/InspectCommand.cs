using System.CommandLine;
using System.Text.Json;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Hub;

namespace Headroom.Cli;

/// <summary>headroom inspect: the true architecture of a model, parameters and bytes.</summary>
internal static class InspectCommand
{
    public static Command Create()
    {
        var model = new Argument<string>("model") { Description = "A Hugging Face folder, config.json or .gguf file. Example: headroom inspect models/SmolLM2.gguf" };
        var json = new Option<bool>("--json") { Description = "Machine-readable output." };
        var command = new Command("inspect", "Print what a model really is: architecture, parameters, bytes.") { model, json };
        command.SetAction(r => Run(r.GetValue(model)!, r.GetValue(json)));
        return command;
    }

    private static int Run(string path, bool json)
    {
        using var session = new Session(json);
        var c = ModelPaths.Config(path, session);
        long attention = (long)c.HiddenSize * c.HeadDim * (2 * c.NumAttentionHeads + 2 * c.NumKeyValueHeads), mlp = 3L * c.HiddenSize * c.IntermediateSize;
        long linear = c.NumHiddenLayers * (attention + mlp), table = (long)c.VocabSize * c.HiddenSize, embeddings = c.TieWordEmbeddings ? table : 2 * table;
        long norms = (2L * c.NumHiddenLayers + 1) * c.HiddenSize;
        long nf4 = linear / 2 + linear / 64 + linear / 64 / 256 * 4;
        if (json)
        {
            Console.WriteLine(JsonSerializer.Serialize(new
            {
                architecture = c.Architecture, vocab_size = c.VocabSize, hidden_size = c.HiddenSize, intermediate_size = c.IntermediateSize,
                num_hidden_layers = c.NumHiddenLayers, num_attention_heads = c.NumAttentionHeads, num_key_value_heads = c.NumKeyValueHeads, head_dim = c.HeadDim,
                rope_theta = c.RopeTheta, rope_scaling = c.RopeScaling?.Type, sliding_window = c.SlidingWindow, tie_word_embeddings = c.TieWordEmbeddings,
                parameters = linear + embeddings + norms, linear_parameters = linear, embedding_parameters = embeddings, nf4_linear_bytes = nf4, embedding_bytes_16bit = embeddings * 2,
            }));
            return 0;
        }
        Console.WriteLine($"""
            {c.Architecture}: {c.NumHiddenLayers} layers, hidden {c.HiddenSize}, intermediate {c.IntermediateSize}
            attention: {c.NumAttentionHeads} heads of {c.HeadDim}, {c.NumKeyValueHeads} key/value heads, {(c.SlidingWindow is { } w ? $"sliding window {w}" : "full")}
            rope: theta {c.RopeTheta}, scaling {c.RopeScaling?.Type ?? "none"}; {c.MaxPositionEmbeddings} positions
            vocabulary {c.VocabSize}, embeddings {(c.TieWordEmbeddings ? "tied" : "not tied")}
            parameters {linear + embeddings + norms:N0}: linear {linear:N0}, embeddings {embeddings:N0}, norms {norms:N0}
            bytes: linear NF4 {Units.Bytes(nf4)} (16-bit {Units.Bytes(linear * 2)}), embeddings 16-bit {Units.Bytes(embeddings * 2)}
            """);
        return 0;
    }
}

/// <summary>Finds configurations without opening weights.</summary>
internal static class ModelPaths
{
    /// <summary>From a config.json, a folder that holds one, a .gguf file, or a hub name (config.json alone is downloaded).</summary>
    public static ModelConfig Config(string path, Session session)
    {
        if (HubName.IsMeant(path)) return HfConfig.Load(session.Hub.Config(path, session.Token).ConfigPath);
        if (path.EndsWith(".json", StringComparison.OrdinalIgnoreCase)) return HfConfig.Load(path);
        if (Directory.Exists(path)) return HfConfig.Load(Path.Combine(path, "config.json"));
        using var source = WeightSources.Open(path);
        return source.Config;
    }
}
