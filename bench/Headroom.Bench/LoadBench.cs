using System.Diagnostics;
using System.Globalization;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats;
using Headroom.Models;
using Headroom.Training;

namespace Headroom.Bench;

/// <summary>
/// Reading of safetensors from the page cache: the file as bytes (what the page cache gives), its tensors as float32, a whole load into NF4, the same
/// with the hash beside it, and the load of the quantized copy. Interleaved, best of several. Without a model a bf16 one of the given size is made.
/// </summary>
public static class LoadBench
{
    public static int Run(string[] args)
    {
        string temporary = Directory.CreateTempSubdirectory("headroom-load-").FullName;
        try
        {
            string model = args.Length > 0 && Directory.Exists(args[0]) ? args[0] : Make(temporary, args.Length > 0 ? int.Parse(args[0], CultureInfo.InvariantCulture) : 512);
            using var source = new CheckpointSource(model);
            long bytes = source.Stored.Bytes;
            string copy = Path.Combine(temporary, "copy");
            using (var engine = Load(source)) QuantizedCheckpoint.Write(engine, source, copy);
            long copyBytes = new FileInfo(Path.Combine(copy, "model.safetensors")).Length;
            (string Name, long Bytes, Action Action)[] rows =
            [
                ("bytes read() from the page cache", bytes, () => ReadBytes(source.Files)),
                ("tensors as float32, 1 thread", bytes, () => ReadTensors(source)),
                ("sha256 of the file", bytes, () => BaseHashes.Compute(source.Files)),
                ("load into NF4", bytes, () => Load(source).Dispose()),
                ("load into NF4, hash beside it", bytes, () =>
                {
                    var hash = Task.Run(() => BaseHashes.Compute(source.Files));
                    Load(source).Dispose();
                    hash.Wait();
                }),
                ("load of the quantized copy", copyBytes, () =>
                {
                    using var quantized = new CheckpointSource(copy);
                    Load(quantized).Dispose();
                }),
            ];
            double[] best = [.. rows.Select(_ => double.MaxValue)];
            for (int round = 0; round < 5; round++)
                for (int i = 0; i < rows.Length; i++)
                {
                    long start = Stopwatch.GetTimestamp();
                    rows[i].Action();
                    best[i] = Math.Min(best[i], Stopwatch.GetElapsedTime(start).TotalSeconds);
                }
            string device = $"\"CPU, {Environment.ProcessorCount} threads, {StepBench.CpuName()}\"";
            var lines = new List<string> { "device,what,bytes,seconds,gb_per_s" };
            for (int i = 0; i < rows.Length; i++)
            {
                Console.WriteLine($"{rows[i].Name,-34} {rows[i].Bytes / 1e9,6:F2} GB  {best[i],7:F3} s  {rows[i].Bytes / 1e9 / best[i],6:F2} GB/s");
                lines.Add(string.Create(CultureInfo.InvariantCulture, $"{device},\"{rows[i].Name}\",{rows[i].Bytes},{best[i]:F3},{rows[i].Bytes / 1e9 / best[i]:F2}"));
            }
            Console.WriteLine($"the hash costs {best[4] / best[3] - 1:P1} of a load");
            Directory.CreateDirectory(Path.Combine("bench", "results"));
            File.WriteAllLines(Path.Combine("bench", "results", "cpu-load.csv"), lines);
            return 0;
        }
        finally
        {
            Directory.Delete(temporary, true);
        }
    }

    private static Engine Load(CheckpointSource source)
    {
        var device = new CpuDevice();
        return new Engine(device, source, RunSettings.Of(new Recipe(), source, device) with { Mode = TrainMode.None, Lora = null }, new BatchLimits());
    }

    private static void ReadBytes(IReadOnlyList<string> files)
    {
        var buffer = new byte[4 << 20];
        foreach (string f in files)
        {
            using var file = new FileStream(f, FileMode.Open, FileAccess.Read, FileShare.Read, 1);
            while (file.Read(buffer) > 0) { }
        }
    }

    private static void ReadTensors(CheckpointSource source)
    {
        var buffer = new float[1 << 20];
        foreach (string path in source.Files)
        {
            using var file = SafetensorsFile.Open(path);
            foreach (var t in file.Tensors.Values)
                for (long at = 0; at < t.Count; at += buffer.Length) file.ReadF32(t.Name, at, buffer.AsSpan(0, (int)Math.Min(buffer.Length, t.Count - at)));
        }
    }

    /// <summary>A Llama of hidden 2048 with as many layers as fit the size, random bf16 weights.</summary>
    private static string Make(string folder, int mib)
    {
        const int hidden = 2048, inter = 5632, vocab = 8192;
        long perLayer = (4L * hidden * hidden + 3L * hidden * inter) * 2;
        int layers = (int)Math.Max(1, ((long)mib << 20) / perLayer);
        var config = new ModelConfig
        {
            VocabSize = vocab, HiddenSize = hidden, IntermediateSize = inter, NumHiddenLayers = layers, NumAttentionHeads = 16, NumKeyValueHeads = 16, HeadDim = 128, TieWordEmbeddings = true,
        };
        var noise = new byte[8 << 20];
        var random = new PhiloxRandom(1);
        for (int i = 0; i < noise.Length; i += 2) BitConverter.TryWriteBytes(noise.AsSpan(i), (ushort)(BitConverter.SingleToUInt32Bits(random.NextNormal() * 0.02f) >> 16));
        SafetensorPart Part(string name, params long[] shape)
        {
            long bytes = shape.Aggregate(2L, (a, b) => a * b);
            return new SafetensorPart(name, "BF16", shape, bytes, file =>
            {
                for (long at = 0; at < bytes; at += noise.Length) file.Write(noise, 0, (int)Math.Min(noise.Length, bytes - at));
            });
        }
        var parts = new List<SafetensorPart> { Part("model.embed_tokens.weight", vocab, hidden), Part("model.norm.weight", hidden) };
        for (int i = 0; i < layers; i++)
        {
            string p = $"model.layers.{i}.";
            parts.AddRange([Part(p + "input_layernorm.weight", hidden), Part(p + "post_attention_layernorm.weight", hidden)]);
            foreach (string n in (string[])["q", "k", "v", "o"]) parts.Add(Part($"{p}self_attn.{n}_proj.weight", hidden, hidden));
            parts.AddRange([Part(p + "mlp.gate_proj.weight", inter, hidden), Part(p + "mlp.up_proj.weight", inter, hidden), Part(p + "mlp.down_proj.weight", hidden, inter)]);
        }
        SafetensorsWriter.Write(Path.Combine(folder, "model.safetensors"), parts);
        AtomicFile.WriteText(Path.Combine(folder, "config.json"), HfConfig.Write(config));
        return folder;
    }
}
