using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;

namespace Headroom.Formats;

/// <summary>A Hugging Face folder: config.json and model.safetensors, or shards with model.safetensors.index.json.</summary>
public sealed class CheckpointSource : IWeightSource
{
    private readonly Dictionary<string, SafetensorsFile> _where = [];
    private readonly List<SafetensorsFile> _files = [];
    private string? _hash;

    /// <summary>Opens and validates every shard.</summary>
    public CheckpointSource(string folder)
    {
        try
        {
            Config = HfConfig.Load(Path.Combine(folder, "config.json"));
            foreach (string name in ShardNames(folder))
            {
                var file = SafetensorsFile.Open(Path.Combine(folder, name));
                _files.Add(file);
                foreach (string tensor in file.Tensors.Keys) _where.TryAdd(tensor, file);
            }
            if (Config.TieWordEmbeddings && Has("lm_head.weight") && Has("model.embed_tokens.weight")
                && !SHA256.HashData(_where["lm_head.weight"].Bytes("lm_head.weight")).AsSpan().SequenceEqual(SHA256.HashData(_where["model.embed_tokens.weight"].Bytes("model.embed_tokens.weight"))))
                throw new HeadroomException("config.json ties the embeddings, but lm_head.weight differs from model.embed_tokens.weight.", "Set tie_word_embeddings to false, or use the original checkpoint.");
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public ModelConfig Config { get; }

    private static IEnumerable<string> ShardNames(string folder)
    {
        string index = Path.Combine(folder, "model.safetensors.index.json");
        if (!File.Exists(index)) return ["model.safetensors"];
        try
        {
            var map = JsonNode.Parse(File.ReadAllText(index))?["weight_map"] as JsonObject ?? throw new JsonException("no weight_map");
            var names = map.Select(kv => (string)kv.Value!).Distinct().Order(StringComparer.Ordinal).ToList();
            if (names.FirstOrDefault(n => n != Path.GetFileName(n)) is { } bad) throw new JsonException($"'{bad}' is not a file name");
            return names;
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw new HeadroomException($"model.safetensors.index.json is damaged: {e.Message}", "Download the model again.");
        }
    }

    /// <inheritdoc/>
    public bool Has(string hfName) => _where.ContainsKey(hfName);

    /// <inheritdoc/>
    public (int Rows, int Cols) ShapeOf(string hfName)
    {
        var shape = Find(hfName).Tensors[hfName].Shape;
        return shape.Length switch
        {
            1 => ((int)shape[0], 1),
            2 => ((int)shape[0], (int)shape[1]),
            _ => throw new HeadroomException($"{hfName} has {shape.Length} dimensions.", "A weight has one or two; use a checkpoint of a supported architecture."),
        };
    }

    /// <inheritdoc/>
    public void ReadRows(string hfName, int firstRow, int rowCount, Span<float> destination)
    {
        WeightShapes.Check(this, hfName);
        var (_, cols) = ShapeOf(hfName);
        Find(hfName).ReadF32(hfName, (long)firstRow * cols, destination[..(rowCount * cols)]);
    }

    /// <inheritdoc/>
    public DType SourceDType(string hfName) => Find(hfName).Tensors[hfName].DType switch { "BF16" => DType.BF16, "F16" => DType.F16, _ => DType.F32 };

    /// <inheritdoc/>
    public string Hash => _hash ??= FileHash.Of(_files.Select(f => f.Path));

    private SafetensorsFile Find(string hfName) => _where.GetValueOrDefault(hfName)
        ?? throw new HeadroomException($"The checkpoint has no tensor {hfName}.", "It is incomplete, or config.json belongs to another model.");

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (var f in _files) f.Dispose();
    }
}

/// <summary>Shapes that a configuration asks for, by Hugging Face name.</summary>
public static class WeightShapes
{
    /// <summary>[rows, columns] that the configuration expects; null for names it does not know.</summary>
    public static (int Rows, int Cols)? Expected(ModelConfig c, string hfName)
    {
        int q = c.NumAttentionHeads * c.HeadDim, kv = c.NumKeyValueHeads * c.HeadDim;
        string leaf = string.Join('.', hfName.Split('.')[^2..]);
        return leaf switch
        {
            "embed_tokens.weight" or "lm_head.weight" => (c.VocabSize, c.HiddenSize),
            "q_proj.weight" => (q, c.HiddenSize),
            "k_proj.weight" or "v_proj.weight" => (kv, c.HiddenSize),
            "o_proj.weight" => (c.HiddenSize, q),
            "gate_proj.weight" or "up_proj.weight" => (c.IntermediateSize, c.HiddenSize),
            "down_proj.weight" => (c.HiddenSize, c.IntermediateSize),
            "q_proj.bias" => (q, 1),
            "k_proj.bias" or "v_proj.bias" => (kv, 1),
            "o_proj.bias" or "down_proj.bias" or "input_layernorm.weight" or "post_attention_layernorm.weight" or "norm.weight" => (c.HiddenSize, 1),
            "gate_proj.bias" or "up_proj.bias" => (c.IntermediateSize, 1),
            _ => null,
        };
    }

    /// <summary>Throws when the checkpoint's shape is not the configuration's.</summary>
    public static void Check(IWeightSource source, string hfName)
    {
        var shape = source.ShapeOf(hfName);
        if (Expected(source.Config, hfName) is { } due && due != shape)
            throw new HeadroomException($"{hfName} is [{shape.Rows}, {shape.Cols}] where the configuration asks for [{due.Rows}, {due.Cols}].", "The weights and the configuration belong to different models.");
    }
}

/// <summary>SHA-256 over files.</summary>
public static class FileHash
{
    /// <summary>Lower-case hex SHA-256 of one file's content, or of the hashes of several in order.</summary>
    public static string Of(IEnumerable<string> paths)
    {
        var hashes = paths.Select(p =>
        {
            using var f = File.OpenRead(p);
            return SHA256.HashData(f);
        }).ToList();
        return Convert.ToHexStringLower(hashes.Count == 1 ? hashes[0] : SHA256.HashData(hashes.SelectMany(h => h).ToArray()));
    }
}
