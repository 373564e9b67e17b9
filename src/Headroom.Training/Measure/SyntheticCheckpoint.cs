using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.HuggingFace;
using Headroom.Formats.Safetensors;

namespace Headroom.Training.Measure;

/// <summary>Checkpoints of any architecture with random bf16 values, for measurements of loading.</summary>
internal static class SyntheticCheckpoint
{
    private const int Noise = 8 << 20; // bytes of values that are repeated

    /// <summary>
    /// Writes config.json, model-0000x-of-0000n.safetensors and their index: every weight bf16, normal with deviation
    /// 0.02. The values of one block are repeated from a place of each tensor's own, so nothing of a tensor's size is
    /// held. Throws <see cref="HeadroomException"/> when the folder cannot be written.
    /// </summary>
    /// <param name="folder">Folder to write to; made when it is not there.</param>
    /// <param name="config">The architecture.</param>
    /// <param name="shardBytes">A shard ends with the tensor that reaches this size.</param>
    /// <param name="stop">Ends it with an <see cref="OperationCanceledException"/>; whole shards stay, for the caller
    /// to remove.</param>
    /// <returns>Bytes of all tensors.</returns>
    public static long Write(
        string folder, ModelConfig config, long shardBytes = 5L << 30, CancellationToken stop = default)
    {
        Directory.CreateDirectory(folder);
        AtomicFile.WriteText(Path.Combine(folder, "config.json"), HfConfig.Write(config));
        config = HfConfig.Load(Path.Combine(folder, "config.json")); // as readers will see it
        var noise = new byte[Noise];
        var random = new PhiloxRandom(1);
        for (int i = 0; i < noise.Length; i += 2)
            BitConverter.TryWriteBytes(
                noise.AsSpan(i), (ushort)(BitConverter.SingleToUInt32Bits(random.NextNormal() * 0.02f) >> 16));
        var shards = new List<List<SafetensorPart>> { new() };
        long room = shardBytes, total = 0;
        foreach (string name in config.MatrixNames().Concat(config.VectorNames()))
        {
            var (rows, cols) = WeightShapes.Expected(config, name)
                ?? throw new InvalidOperationException($"{name} has no known shape");
            long bytes = 2L * rows * cols;
            if (room <= 0)
            {
                shards.Add([]);
                room = shardBytes;
            }
            int start = random.Next(Noise / 2) * 2;
            shards[^1]
                .Add(
                    new SafetensorPart(
                        name,
                        "BF16",
                        WeightShapes.IsVector(config, name) ? [rows] : [rows, cols],
                        bytes,
                        file =>
            {
                for (long left = bytes, at = start; left > 0; at = 0)
                {
                    stop.ThrowIfCancellationRequested();
                    int n = (int)Math.Min(left, Noise - at);
                    file.Write(noise, (int)at, n);
                    left -= n;
                }
            }));
            room -= bytes;
            total += bytes;
        }
        var map = new JsonObject();
        for (int s = 0; s < shards.Count; s++)
        {
            string file = $"model-{s + 1:D5}-of-{shards.Count:D5}.safetensors";
            SafetensorsWriter.Write(Path.Combine(folder, file), shards[s]);
            foreach (var part in shards[s]) map[part.Name] = file;
        }
        AtomicFile.WriteText(Path.Combine(folder, "model.safetensors.index.json"),
            new JsonObject
            {
                ["metadata"] = new JsonObject { ["total_size"] = total },
                ["weight_map"] = map,
            }.ToJsonString(new JsonSerializerOptions { WriteIndented = true })
        );
        return total;
    }
}
