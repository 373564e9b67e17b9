using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats.Gguf;
using Headroom.Formats.HuggingFace;
using Headroom.Formats.Safetensors;

namespace Headroom.Tests.Formats;

/// <summary>Sharded checkpoints and their index.</summary>
public sealed class CheckpointSourceTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-shards-").FullName;
    private const string One = "model-00001-of-00002.safetensors",
        Two = "model-00002-of-00002.safetensors",
        Index = "model.safetensors.index.json";

    /// <summary>A golden model cut into two shards.</summary>
    private void Shard(Action<JsonObject>? change = null)
    {
        using var file = SafetensorsFile.Open(Shared.GoldenFile("hf/llama-mha/model.safetensors"));
        File.Copy(Shared.GoldenFile("hf/llama-mha/config.json"), Path.Combine(_folder, "config.json"), true);
        var names = file.Tensors.Keys.Order().ToList();
        var map = new JsonObject();
        foreach (var (shard, part) in new[] { (One, names[..(names.Count / 2)]), (Two, names[(names.Count / 2)..]) })
        {
            SafetensorsWriter.Write(
                Path.Combine(_folder, shard),
                part.Select(n => (n, file.Tensors[n].DType, file.Tensors[n].Shape, file.Bytes(n).ToArray())));
            foreach (string n in part) map[n] = shard;
        }
        var index = new JsonObject
        {
            ["metadata"] = new JsonObject { ["total_size"] = file.Tensors.Values.Sum(t => t.End - t.Begin) },
            ["weight_map"] = map,
        };
        change?.Invoke(index);
        File.WriteAllText(Path.Combine(_folder, Index), index.ToJsonString());
    }

    private HeadroomException Refused() => Assert.Throws<HeadroomException>(() => WeightSources.Open(_folder));

    [Fact]
    public void ShardsAreOneModel()
    {
        Shard();
        using CheckpointSource shards = new(_folder), whole = new(Shared.GoldenFile("hf/llama-mha"));
        Assert.Equal((whole.Stored.Bytes, 2), shards.Stored);
        Assert.Equal(shards.Stored.Bytes, shards.AnnouncedBytes);
        foreach (
            string name in (string[])
                ["model.embed_tokens.weight", "model.layers.2.mlp.down_proj.weight", "lm_head.weight"]
        )
        {
            var (rows, cols) = whole.ShapeOf(name);
            float[] a = new float[rows * cols], b = new float[rows * cols];
            whole.ReadRows(name, 0, rows, a);
            shards.ReadRows(name, 0, rows, b);
            Assert.Equal(a, b);
        }
        Assert.Equal(BaseHashes.Compute(shards.Files), shards.Hash);
        Assert.NotEqual(whole.Hash, shards.Hash);
    }

    [Fact]
    public void SixteenBitValuesAtEveryOffset()
    {
        var bits = new ushort[200];
        for (int i = 0; i < bits.Length; i++) bits[i] = (ushort)(i * 331 + 7);
        string path = Path.Combine(_folder, "x.safetensors");
        SafetensorsWriter.Write(
            path, [("b", "BF16", [200], System.Runtime.InteropServices.MemoryMarshal.AsBytes(bits.AsSpan()).ToArray())]
        );
        using var file = SafetensorsFile.Open(path);
        for (int first = 0; first < 70; first += 3)
            for (int n = 0; first + n <= 200; n += 13)
            {
                var values = new float[n];
                file.ReadF32("b", first, values);
                for (int i = 0; i < n; i++)
                    Assert.Equal((uint)bits[first + i] << 16, BitConverter.SingleToUInt32Bits(values[i]));
            }
    }

    [Fact]
    public void AMissingShardIsNamed()
    {
        Shard();
        File.Delete(Path.Combine(_folder, Two));
        Assert.Contains(Two, Refused().Message, StringComparison.Ordinal);
    }

    [Fact]
    public void AnAbsentTensorIsNamed()
    {
        Shard(i => i["weight_map"]!["model.layers.9.extra.weight"] = One);
        Assert.Contains("model.layers.9.extra.weight is not in " + One, Refused().Message, StringComparison.Ordinal);
        Shard(i => i["weight_map"]!["model.norm.weight"] = One);
        Assert.Contains("model.norm.weight", Refused().Message, StringComparison.Ordinal);
    }

    [Fact]
    public void AWrongTotalIsShownNotRefused()
    {
        Shard(i => i["metadata"]!["total_size"] = 7);
        using var source = new CheckpointSource(_folder);
        Assert.Equal(7, source.AnnouncedBytes);
        Assert.NotEqual(7, source.Stored.Bytes);
    }

    [Theory]
    [InlineData("../model.safetensors", "not a file name")]
    [InlineData("pytorch_model-00001-of-00002.bin", "no safetensors file")]
    public void OtherFilesAreRefused(string file, string says)
    {
        Shard(i => i["weight_map"]!["model.norm.weight"] = file);
        Assert.Contains(says, Refused().Message, StringComparison.Ordinal);
    }

    [Theory]
    [
        InlineData(""), InlineData("{"), InlineData("[]"), InlineData("{\"weight_map\": []}"),
        InlineData("{\"weight_map\": {}}"), InlineData("{\"weight_map\": {\"a\": 1}}")]
    public void ADamagedIndexIsRefused(string text)
    {
        Shard();
        File.WriteAllText(Path.Combine(_folder, Index), text);
        Assert.Contains(Index, Refused().Message, StringComparison.Ordinal);
    }

    [Fact]
    public void OneTensorInTwoShardsIsRefused()
    {
        Shard();
        File.Copy(Path.Combine(_folder, One), Path.Combine(_folder, Two), true);
        Assert.Contains("two shards", Refused().Message, StringComparison.Ordinal);
    }

    [Fact]
    public void PicklesAreRefused()
    {
        File.Copy(Shared.GoldenFile("hf/llama-mha/config.json"), Path.Combine(_folder, "config.json"));
        File.WriteAllText(Path.Combine(_folder, "pytorch_model.bin"), "");
        Assert.Contains("pickle", Refused().Message, StringComparison.Ordinal);
    }

    public void Dispose() => Directory.Delete(_folder, true);
}
