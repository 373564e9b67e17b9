using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Gguf;
using Headroom.Formats.HuggingFace;
using Headroom.Formats.Safetensors;
using Headroom.Tokenizers;

namespace Headroom.Inference.Export;

/// <summary>
/// A model as a Hugging Face folder: model.safetensors (or shards with an index), config.json, tokenizer files,
/// generation_config.json.
/// </summary>
internal static partial class CheckpointExporter
{
    private const long ShardBytes = 5_000_000_000; // transformers' default
    private const int ChunkElements = 1 << 20;
    private static readonly string[] Carried =
    [
        "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
        "vocab.json", "merges.txt", "chat_template.jinja", "generation_config.json"];

    /// <summary>Types of the weights: name, safetensors dtype, torch_dtype.</summary>
    public static IReadOnlyDictionary<string, (string DType, string Torch)> Types { get; } =
        new Dictionary<string, (string, string)>
        {
            ["bf16"] = ("BF16", "bfloat16"),
            ["f16"] = ("F16", "float16"),
            ["f32"] = ("F32", "float32"),
        };

    /// <summary>Writes the files into a folder, made when it is missing; each weight is rounded once.</summary>
    /// <param name="source">Weights.</param>
    /// <param name="basePath">The model the weights come from: a Hugging Face folder, whose other files are copied, or
    /// a .gguf file, whose tokenizer is written anew.</param>
    /// <param name="tokenizerPath">The tokenizer when it lies elsewhere, or null.</param>
    /// <param name="type">A key of <see cref="Types"/>.</param>
    /// <param name="folder">Where to.</param>
    /// <param name="progress">Elements done and in all; may throw to stop.</param>
    /// <param name="shardBytes">Most bytes of a shard.</param>
    /// <exception cref="HeadroomException">The model cannot be written so, or the disk does not take it.</exception>
    public static void Write(
        IWeightSource source, string basePath, string? tokenizerPath, string type, string folder,
        Action<long, long>? progress = null, long shardBytes = ShardBytes)
    {
        WeightNames.CheckClaimed(source);
        try
        {
            FileLayer.Current.CreateFolder(folder);
            WriteFiles(source, basePath, tokenizerPath, type, folder, progress, shardBytes);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new HeadroomException($"{folder} cannot be written: {e.Message}",
                "Choose another folder or free some space.", 1, e);
        }
    }

    private static void WriteFiles(
        IWeightSource source, string basePath, string? tokenizerPath, string type, string folder,
        Action<long, long>? progress, long shardBytes)
    {
        var (dtype, torch) = Types[type];
        int size = type == "f32" ? 4 : 2;
        var c = source.Config;
        var names = c.MatrixNames().Concat(c.VectorNames()).ToList();
        long total = names.Sum(n => Count(source, n)), done = 0;
        var shards = new List<List<string>> { new() };
        long filled = 0;
        foreach (string n in names)
        {
            long bytes = Count(source, n) * size;
            if (filled > 0 && filled + bytes > shardBytes)
            {
                shards.Add([]);
                filled = 0;
            }
            shards[^1].Add(n);
            filled += bytes;
        }
        var map = new JsonObject();
        for (int s = 0; s < shards.Count; s++)
        {
            string file =
                shards.Count == 1 ? "model.safetensors" : $"model-{s + 1:D5}-of-{shards.Count:D5}.safetensors";
            foreach (string n in shards[s]) map[n] = file;
            SafetensorsWriter.Write(Path.Combine(folder, file), shards[s].Select(n =>
            {
                var (rows, cols) = source.ShapeOf(n);
                return new SafetensorPart(
                    n, dtype, WeightShapes.IsVector(c, n) ? [rows] : [rows, cols], Count(source, n) * size,
                    f => Tensor(source, n, rows, cols, dtype, f, k => progress?.Invoke(done += k, total)));
            }));
        }
        if (shards.Count > 1)
            AtomicFile.WriteText(Path.Combine(folder, "model.safetensors.index.json"),
                new JsonObject
                {
                    ["metadata"] = new JsonObject { ["total_size"] = total * size },
                    ["weight_map"] = map,
                }.ToJsonString(new JsonSerializerOptions { WriteIndented = true }) + "\n"
            );
        AtomicFile.WriteText(Path.Combine(folder, "config.json"), Config(c, basePath, torch));
        OtherFiles(c, tokenizerPath ?? basePath, folder);
    }

    /// <summary>
    /// Whether a file in a folder (its path there, with /) is one that <see cref="Write"/> may have written.
    /// </summary>
    public static bool IsOwnFile(string name) =>
        Carried.Contains(name)
        || name is "config.json" or "model.safetensors" or "model.safetensors.index.json"
        || Shard().IsMatch(name);

    [GeneratedRegex(@"^model-\d{5}-of-\d{5}\.safetensors$")]
    private static partial Regex Shard();

    private static long Count(IWeightSource source, string name) =>
        source.ShapeOf(name) is var s ? (long)s.Rows * s.Cols : 0;

    private static void Tensor(
        IWeightSource source, string name, int rows, int cols, string dtype, Stream file, Action<long> step)
    {
        int chunk = WeightShapes.IsVector(source.Config, name) ? rows : Math.Max(1, ChunkElements / cols);
        var values = new float[Math.Min(chunk, rows) * cols];
        var bytes = new byte[values.Length * 4];
        for (int first = 0; first < rows; first += chunk)
        {
            int n = Math.Min(chunk, rows - first) * cols;
            source.ReadRows(name, first, n / cols, values.AsSpan(0, n));
            for (int i = 0; i < n; i++)
                if (!float.IsFinite(values[i]))
                    throw new HeadroomException(
                        $"{name} holds NaN or infinite values.",
                        "The checkpoint or the adapter is damaged; use another one.");
            var type = dtype switch { "BF16" => GgmlType.BF16, "F16" => GgmlType.F16, _ => GgmlType.F32 };
            var part = bytes.AsSpan(0, n * type.Block().Bytes);
            if (!GgmlWriter.TryQuantize(type, values.AsSpan(0, n), part))
                throw new HeadroomException(
                    $"{name} holds values that are too large for float16.", "Export with --type bf16 or f32.");
            file.Write(part);
            step(n);
        }
    }

    // The base's own config.json, which may hold keys that are not read here; its type changes, its quantization goes.
    private static string Config(ModelConfig c, string basePath, string torch)
    {
        string own = Path.Combine(basePath, "config.json");
        if (!File.Exists(own)) return HfConfig.Write(c, torch);
        var json = JsonNode.Parse(File.ReadAllText(own))!.AsObject();
        json.Remove("quantization_config");
        if (!c.TieWordEmbeddings && json.ContainsKey("tie_word_embeddings"))
            json["tie_word_embeddings"] = false; // an adapter may have untied them
        if (json.ContainsKey("dtype")) json["dtype"] = torch;
        if (json.ContainsKey("torch_dtype") || !json.ContainsKey("dtype")) json["torch_dtype"] = torch;
        return json.ToJsonString(new JsonSerializerOptions { WriteIndented = true }) + "\n";
    }

    private static void OtherFiles(ModelConfig c, string from, string folder)
    {
        if (Directory.Exists(from))
        {
            foreach (string name in Carried)
                if (File.Exists(Path.Combine(from, name)))
                    AtomicFile.Copy(Path.Combine(from, name), Path.Combine(folder, name));
        }
        else if (from.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase))
        {
            using var gguf = new GgufFile(from);
            TokenizerJson.WriteFromGguf(folder, gguf);
        }
        else if (File.Exists(from)) AtomicFile.Copy(from, Path.Combine(folder, Path.GetFileName(from)));
        string defaults = Path.Combine(folder, "generation_config.json");
        if (File.Exists(defaults)) return;
        var json = new JsonObject { ["_from_model_config"] = true };
        if (c.BosTokenId is { } bos) json["bos_token_id"] = bos;
        if (c.EosTokenIds.Length > 0)
            json["eos_token_id"] =
                c.EosTokenIds.Length == 1
                    ? c.EosTokenIds[0]
                    : new JsonArray(c.EosTokenIds.Select(e => (JsonNode)e).ToArray());
        if (c.PadTokenId is { } pad) json["pad_token_id"] = pad;
        AtomicFile.WriteText(defaults, json.ToJsonString(new JsonSerializerOptions { WriteIndented = true }) + "\n");
    }
}
