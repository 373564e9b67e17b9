using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats.Safetensors;

namespace Headroom.Formats.HuggingFace;

/// <summary>model.safetensors.index.json: which shard holds which tensor, and the bytes of all tensors.</summary>
internal sealed class SafetensorsIndex
{
    private const string Name = "model.safetensors.index.json", Whole = "model.safetensors";
    private readonly string _folder;
    private readonly Dictionary<string, string> _map = [];

    private SafetensorsIndex(string folder, string text)
    {
        _folder = folder;
        try
        {
            var json = JsonNode.Parse(text) as JsonObject ?? throw new JsonException("not an object");
            foreach (var (tensor, file) in json["weight_map"] as JsonObject ?? throw new JsonException("no weight_map"))
                _map.Add(tensor, (string?)file ?? throw new JsonException($"{tensor} has no file"));
            TotalSize = json["metadata"]?["total_size"] is { } n ? (long)n.GetValue<double>() : null;
        }
        catch (Exception e) when (Malformed.Is(e))
        {
            throw Damaged(e.Message.Split('\n')[0].TrimEnd('.'));
        }
        Shards = [.. _map.Values.Distinct().Order(StringComparer.Ordinal)];
        if (Shards.Count == 0) throw Damaged("it names no shard");
        if (Shards.FirstOrDefault(n => n != Path.GetFileName(n) || n is "." or "..") is { } bad)
            throw Damaged($"'{bad}' is not a file name");
        if (Shards.FirstOrDefault(n => !n.EndsWith(".safetensors", StringComparison.Ordinal)) is { } other)
            throw new HeadroomException(
                $"{Name} names {other}, which is no safetensors file.",
                "Pickled weights (.bin) are not read; use a safetensors checkpoint.");
        if (Shards.Where(n => !File.Exists(Path.Combine(folder, n))).ToList() is { Count: > 0 } missing)
            throw new HeadroomException(
                $"{missing.Count} of {Shards.Count} shards of {folder} are missing: "
                    + $"{string.Join(", ", missing.Take(3))}{(missing.Count > 3 ? ", ..." : "")}.",
                "Copy or download the whole model.");
    }

    /// <summary>The index of a folder; null when it has none, or holds the weights in one file.</summary>
    public static SafetensorsIndex? Load(string folder)
    {
        string path = Path.Combine(folder, Name);
        bool whole = File.Exists(Path.Combine(folder, Whole));
        if (File.Exists(path))
        {
            string text = SideFile.ReadText(path, SideFile.LargestIndex);
            // Beside a whole file, an index that does not speak of it is left over from another copy: transformers
            // takes the whole file and never opens the index (modeling_utils.py, _get_resolved_checkpoint_files).
            return whole && !text.Contains($"\"{Whole}\"", StringComparison.Ordinal)
                ? null
                : new SafetensorsIndex(folder, text);
        }
        if (
            !whole
            && Directory.Exists(folder)
            && Directory.EnumerateFiles(folder, "pytorch_model*.bin").FirstOrDefault() is { } pickle
        )
            throw new HeadroomException(
                $"{folder} holds its weights only as {Path.GetFileName(pickle)}, a PyTorch pickle, which can run code "
                    + $"when it is opened.",
                "Use a copy with safetensors, or convert it.");
        return null;
    }

    /// <summary>File names of the shards, in order.</summary>
    public IReadOnlyList<string> Shards { get; }

    /// <summary>
    /// total_size as announced, or null. Only shown beside the true bytes (inspect): published files with a wrong
    /// figure load everywhere, and each shard's own header already accounts for its every byte.
    /// </summary>
    public long? TotalSize { get; }

    /// <summary>Every tensor must be where the index says.</summary>
    public void Check(IReadOnlyDictionary<string, SafetensorsFile> where)
    {
        foreach (var (tensor, shard) in _map)
            if (!where.TryGetValue(tensor, out var file) || Path.GetFileName(file.Path) != shard)
                throw Damaged($"{tensor} is not in {shard}");
    }

    private HeadroomException Damaged(string why) =>
        new($"{Name} of {_folder} does not fit its shards: {why}.", "Download the model again.");
}
