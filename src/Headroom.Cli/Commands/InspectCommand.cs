using System.CommandLine;
using System.Text.Json;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Gguf;
using Headroom.Formats.Hub;
using Headroom.Formats.HuggingFace;
using Headroom.Inference.Bases;
using Headroom.Tokenizers;

namespace Headroom.Cli.Commands;

/// <summary>headroom inspect: the true architecture of a model, parameters and bytes.</summary>
internal static class InspectCommand
{
    public static Command Create()
    {
        var model = new Argument<string>("model")
        {
            Description =
                "A Hugging Face folder, config.json, .gguf file, or hub name (no weights are downloaded). Example: "
                    + "headroom inspect models/llama-tiny",
        };
        var json = new Option<bool>("--json") { Description = "Machine-readable output." };
        var command = new Command(
            "inspect",
            "Print what a model really is: architecture, parameters, bytes, and what of it is not understood.")
        {
            model, json,
        };
        command.SetAction(r => Run(r.GetValue(model)!, r.GetValue(json)));
        return command;
    }

    private const int MostShown = 20; // tensors

    private static int Run(string path, bool json)
    {
        using var session = new Session(json);
        var (config, odd) = Read(path, session);
        var found = new Found(config, odd, Stored(path, session));
        if (json) PrintJson(found);
        else Print(found);
        return 0;
    }

    /// <summary>A model as it was found; bytes and files of its weights where they are at hand.</summary>
    private sealed record Found(ModelConfig Config, Odd Odd, (long Bytes, string Text)? Stored)
    {
        public long Parameters => Config.Parameters.Linear + Config.Parameters.Embeddings + Config.Parameters.Vectors;

        public long Nf4Bytes
        {
            get
            {
                long n = Config.Parameters.Linear; // 4 bits each, a byte for 64 of them, a float32 for 256 of those
                return n / 2 + n / 64 + n / 64 / 256 * 4;
            }
        }

        public int SlidingLayers => Enumerable.Range(0, Config.NumHiddenLayers).Count(Config.LayerSlides);
    }

    private static void PrintJson(Found m)
    {
        var c = m.Config;
        var (linear, embeddings, _) = c.Parameters;
        Console.WriteLine(JsonSerializer.Serialize(new
        {
            architecture = c.Architecture,
            vocab_size = c.VocabSize,
            hidden_size = c.HiddenSize,
            intermediate_size = c.IntermediateSize,
            num_hidden_layers = c.NumHiddenLayers,
            num_attention_heads = c.NumAttentionHeads,
            num_key_value_heads = c.NumKeyValueHeads,
            head_dim = c.HeadDim,
            rope_theta = c.RopeTheta,
            rope_scaling = c.RopeScaling?.Type,
            sliding_window = m.SlidingLayers > 0 ? c.SlidingWindow : null,
            sliding_layers = m.SlidingLayers,
            attention_bias = c.AttentionBias,
            head_norms = c.Family.NormsHeads,
            tie_word_embeddings = c.TieWordEmbeddings,
            quantized = c.Quantized?.ToString(),
            parameters = m.Parameters,
            linear_parameters = linear,
            embedding_parameters = embeddings,
            nf4_linear_bytes = m.Nf4Bytes,
            embedding_bytes_16bit = embeddings * 2,
            checkpoint_bytes = m.Stored?.Bytes,
            checkpoint = m.Stored?.Text,
            unknown_keys = m.Odd.Keys.ToDictionary(k => k.Key, k => k.Value),
            unclaimed_tensors = m.Odd.Tensors,
            notices = m.Odd.Notices,
        }));
    }

    private static void Print(Found m)
    {
        var c = m.Config;
        var (linear, embeddings, vectors) = c.Parameters;
        string window =
            m.SlidingLayers == 0
                ? "full"
                : $"sliding window {c.SlidingWindow} in "
                    + $"{(m.SlidingLayers == c.NumHiddenLayers ? "every layer" : $"{m.SlidingLayers} of {c.NumHiddenLayers} layers")}";
        Console.WriteLine($"""
            {c.Architecture}: {c.NumHiddenLayers} layers, hidden {c.HiddenSize}, intermediate {c.IntermediateSize}
            attention: {c.NumAttentionHeads} heads of {c.HeadDim}, {c.NumKeyValueHeads} key/value heads, {window}{(c.AttentionBias ? ", biases on q, k and v" : "")}{(c.Family.NormsHeads ? ", a norm of each query and key" : "")}
            rope: theta {c.RopeTheta}, scaling {(c.RopeScaling is { } r ? $"{r.Type} by {r.Factor}" : "none")}; {c.MaxPositionEmbeddings} positions
            vocabulary {c.VocabSize}, embeddings {(c.TieWordEmbeddings ? "tied" : "not tied")}
            parameters {m.Parameters:N0}: linear {linear:N0}, embeddings {embeddings:N0}, norms and biases {vectors:N0}
            bytes: linear NF4 {Units.Bytes(m.Nf4Bytes)} (16-bit {Units.Bytes(linear * 2)}), embeddings 16-bit {Units.Bytes(embeddings * 2)}
            """);
        if (c.Quantized is { } q)
            Console.WriteLine(
                $"quantized: bitsandbytes NF4, {(q == WeightStorage.NF4Double ? "double-quantized" : "flat")} "
                    + $"statistics"
            );
        if (m.Stored is { } s) Console.WriteLine($"checkpoint: {Units.Bytes(s.Bytes)}{s.Text}");
        foreach (var (key, value) in m.Odd.Keys)
            Console.WriteLine(Printable.Line($"not understood, and taken to change nothing: {key} = {value}"));
        foreach (string name in m.Odd.Tensors.Take(MostShown))
            Console.WriteLine(
                Printable.Line(
                    $"tensor that belongs to nothing in the model (train, generate and export refuse it): {name}")
            );
        int more = m.Odd.Tensors.Count - MostShown;
        if (more > 0) Console.WriteLine($"and {more} more such tensors");
        foreach (string line in m.Odd.Notices) Console.WriteLine(Printable.Line(line));
    }

    /// <summary>What of a model is shown because it is not understood, or was not clear.</summary>
    private sealed record Odd(IReadOnlyList<(string Key, string Value)> Keys, IReadOnlyList<string> Tensors,
        IReadOnlyList<string> Notices);

    /// <summary>
    /// The configuration, and what is odd about the files; weights are opened where they are at hand, and not read.
    /// </summary>
    private static (ModelConfig Config, Odd Odd) Read(string path, Session session)
    {
        string? json = HubName.IsMeant(path) ? session.Hub.Config(path, session.Token).ConfigPath
            : path.EndsWith(".json", StringComparison.OrdinalIgnoreCase) ? path
            : Directory.Exists(path) && !Directory.EnumerateFiles(path, "*.safetensors").Any()
                ? Path.Combine(path, "config.json") : null;
        if (json != null)
        {
            var config = HfConfig.Load(json);
            string text = File.ReadAllText(json);
            return (config, new Odd(HfConfig.Unknown(text), [], HfConfig.Notices(text)));
        }
        using var source = WeightSources.Any(path);
        var keys = source is GgufSource gguf ? gguf.UnknownKeys : HfConfig.Unknown(source.ConfigJson!);
        // A tokenizer in the same file is looked at for what the file does not say of it.
        var notices = source is GgufSource { HasTokenizer: true }
            ? source.Notices.Concat(TokenizerLoader.Load(path).Notices) : source.Notices;
        return (source.Config, new Odd(keys, source.Unclaimed, [.. notices]));
    }

    /// <summary>The weights as they lie on disk or on the hub; null for a lone config.json.</summary>
    private static (long Bytes, string Text)? Stored(string path, Session session)
    {
        if (HubName.IsMeant(path))
            return session.Hub.Config(path, session.Token).WeightBytes is { } remote ? (remote, " on the hub") : null;
        if (
            File.Exists(path)
            && !path.EndsWith(".json", StringComparison.OrdinalIgnoreCase)
            && !path.EndsWith(".safetensors", StringComparison.OrdinalIgnoreCase)
        )
            return (FileSize.Measure(path), " in one file");
        if (!Directory.Exists(path) || !Directory.EnumerateFiles(path, "*.safetensors").Any()) return null;
        using var source = new CheckpointSource(path);
        var (bytes, files) = source.Stored;
        string types = string.Join(", ", source.DTypes.Select(t => $"{t.DType} {Units.Bytes(t.Bytes)}"));
        return (
            bytes,
            $" in {files} file{(files == 1 ? "" : "s")} ({types})"
                + (
                    source.AnnouncedBytes is { } a && a != bytes
                        ? $"; the index announces {a:N0} bytes where there are {bytes:N0}"
                        : ""
                )
        );
    }
}

/// <summary>Finds configurations without opening weights.</summary>
internal static class ModelPaths
{
    /// <summary>Types of the matrices of a .gguf file; null for anything else.</summary>
    public static IReadOnlyDictionary<string, GgmlType>? BlockTypes(string path)
    {
        if (
            HubName.IsMeant(path)
            || Directory.Exists(path)
            || path.EndsWith(".json", StringComparison.OrdinalIgnoreCase)
        )
            return null;
        using var source = WeightSources.Open(path);
        return BaseSettings.BlockTypes(source);
    }

    /// <summary>
    /// From a config.json, a folder that holds one, a .gguf file, or a hub name (config.json alone is downloaded).
    /// </summary>
    public static ModelConfig Config(string path, Session session)
    {
        if (HubName.IsMeant(path)) return HfConfig.Load(session.Hub.Config(path, session.Token).ConfigPath);
        if (path.EndsWith(".json", StringComparison.OrdinalIgnoreCase)) return HfConfig.Load(path);
        if (Directory.Exists(path)) return HfConfig.Load(Path.Combine(path, "config.json"));
        using var source = WeightSources.Open(path);
        return source.Config;
    }
}
