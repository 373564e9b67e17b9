using System.Runtime.InteropServices;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats.HuggingFace;
using Headroom.Formats.Safetensors;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tests.Models;
using Headroom.Training.Measure;

namespace Headroom.Tests.Formats;

/// <summary>
/// Weights taken from a file as they lie there give the bits that their float32 values give, in every storage; damage
/// is found on the way.
/// </summary>
public sealed class LoadingTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-loading-").FullName;

    private static readonly ModelConfig Config = TinyModel.Small() with
    {
        AttentionBias = true,
        AttentionOutputBias = true,
        IntermediateSize = 167,
    }; // NF4 blocks cross rows, the last one is partial

    public static IEnumerable<ITheoryDataRow> Cases()
    {
        var data = new TheoryData<string, WeightStorage, WeightStorage>();
        foreach (string type in (string[])["F32", "BF16", "F16", "F64"])
            foreach (
                var linear in new[]
                {
                WeightStorage.F32, WeightStorage.BF16, WeightStorage.F16, WeightStorage.Int8, WeightStorage.NF4,
                WeightStorage.NF4Double,
                }
            )
                data.Add(type, linear, linear == WeightStorage.BF16 ? WeightStorage.F32 : WeightStorage.BF16);
        return data;
    }

    /// <summary>
    /// A checkpoint of random weights in one type; <paramref name="change"/> may spoil a tensor's bytes.
    /// </summary>
    private void Write(string type, Action<string, byte[]>? change = null)
    {
        var values = new RandomSource(Config);
        SafetensorsWriter.Write(
            Path.Combine(_folder, "model.safetensors"),
            Config
                .MatrixNames()
                .Concat(Config.VectorNames())
                .Select(name =>
        {
            var (rows, cols) = values.ShapeOf(name);
            float[] v = values.Values(name);
            byte[] bytes = type switch
            {
                "F32" => MemoryMarshal.AsBytes(v.AsSpan()).ToArray(),
                "F64" => MemoryMarshal.AsBytes(Array.ConvertAll(v, x => (double)x).AsSpan()).ToArray(),
                "F16" => MemoryMarshal.AsBytes(Array.ConvertAll(v, x => (Half)x).AsSpan()).ToArray(),
                _ => MemoryMarshal
                    .AsBytes(
                        Array.ConvertAll(v, x => (ushort)(BitConverter.SingleToUInt32Bits(x) >> 16)).AsSpan())
                    .ToArray(),
            };
            change?.Invoke(name, bytes);
            return (name, type, cols == 1 ? new long[] { rows } : [rows, cols], bytes);
        }));
        File.WriteAllText(Path.Combine(_folder, "config.json"), HfConfig.Write(Config));
    }

    private static byte[] Bits(IWeightSource source, WeightStorage linear, WeightStorage embedding)
    {
        using var engine = new Engine(
            new CpuDevice(2), source, new ModelSettings(linear, embedding, TrainMode.None), new BatchLimits());
        using var all = new MemoryStream();
        foreach (
            var t in engine
                .Model.Projections.Select(p => p.Weight)
                .Append(engine.Model.EmbeddingTable)
                .Append(engine.Model.Head)
                .SelectMany(w => new[] { w.Data, w.Absmax, w.NestedAbsmax, w.Offset, w.Bias })
                .Concat(engine.Model.Norms.Select(n => n.Weight))
                .Where(t => !t.IsNone)
        )
        {
            var bytes = new byte[t.Bytes];
            engine.Device.Download(t, bytes);
            all.Write(bytes);
        }
        return all.ToArray();
    }

    [Theory, MemberData(nameof(Cases))]
    internal void StoredBytesGiveTheBitsOfTheirValues(string type, WeightStorage linear, WeightStorage embedding)
    {
        Write(type);
        using var source = new Watched(new CheckpointSource(_folder), raw: true);
        using var values = new Watched(new CheckpointSource(_folder), raw: false);
        Assert.Equal(Bits(values, linear, embedding), Bits(source, linear, embedding));
        Assert.Empty(values.Raw);
        if (type == "F64") Assert.Empty(source.Raw);
        else
            foreach (string name in Config.MatrixNames()) // every row of every matrix once
                Assert.Equal(Enumerable.Range(0, source.ShapeOf(name).Rows), source.Raw[name].Order());
    }

    [
        Theory, InlineData("F32", WeightStorage.NF4Double), InlineData("BF16", WeightStorage.NF4),
        InlineData("BF16", WeightStorage.BF16), InlineData("F16", WeightStorage.Int8)]
    internal void ValuesThatAreNotFiniteAreRefused(string type, WeightStorage linear)
    {
        const string spoiled = "model.layers.1.mlp.up_proj.weight";
        Write(type, (name, bytes) =>
        {
            if (name != spoiled) return;
            byte[] bad = type switch
            {
                "F32" => BitConverter.GetBytes(float.NaN),
                "F16" => BitConverter.GetBytes(Half.NegativeInfinity),
                _ => [0x80, 0x7F],
            };
            bad.CopyTo(bytes, bytes.Length - bad.Length);
        });
        using var source = new CheckpointSource(_folder);
        var e = Assert.Throws<HeadroomException>(() => Bits(source, linear, WeightStorage.F32));
        Assert.Contains(spoiled, e.Message, StringComparison.Ordinal);
    }

    /// <summary>
    /// A file that another program cuts short while it is open ends in an error, not in a fault of the memory map.
    /// </summary>
    [Fact]
    public void AFileThatBecomesShorterIsNamed()
    {
        Write("BF16");
        string path = Path.Combine(_folder, "model.safetensors");
        using var file = SafetensorsFile.Open(path);
        var last = file.Tensors.Values.MaxBy(t => t.End)!;
        var buffer = new byte[last.End - last.Begin];
        file.Read(last.Name, 0, buffer);
        Assert.Equal(file.Bytes(last.Name).ToArray(), buffer);
        Assert.Throws<ArgumentOutOfRangeException>(() => file.Read(last.Name, 1, buffer));
        Assert.Throws<ArgumentOutOfRangeException>(() => file.Read(last.Name, -1, buffer.AsSpan(1)));
        using (var cut = new FileStream(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
            cut.SetLength(cut.Length - 1);
        var e = Assert.Throws<HeadroomException>(() => file.Read(last.Name, 0, buffer));
        Assert.Contains("model.safetensors", e.Message, StringComparison.Ordinal);
        Assert.Equal(2, e.ExitCode);
    }

    [Fact]
    public void AWrongShapeIsRefusedOnTheWay()
    {
        Write("BF16");
        var json = JsonNode.Parse(File.ReadAllText(Path.Combine(_folder, "config.json")))!;
        json["intermediate_size"] = 166;
        File.WriteAllText(Path.Combine(_folder, "config.json"), json.ToJsonString());
        using var source = new CheckpointSource(_folder);
        Assert.Contains(
            "where the configuration asks for",
            Assert.Throws<HeadroomException>(() => Bits(source, WeightStorage.NF4, WeightStorage.F32)).Message,
            StringComparison.Ordinal);
    }

    [Fact]
    public void FloatsAreWrittenWithoutACopy()
    {
        var values = new float[1 << 22];
        for (int i = 0; i < values.Length; i++) values[i] = i;
        string path = Path.Combine(_folder, "large.safetensors");
        long before = GC.GetAllocatedBytesForCurrentThread();
        SafetensorsWriter.WriteF32(path, [("x", [values.Length], values)]);
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 1 << 20);
        using var file = SafetensorsFile.Open(path);
        Assert.Equal(values, file.ReadF32("x"));
    }

    [Fact]
    public void ASyntheticCheckpointLoadsAndIsMeasured()
    {
        string model = Path.Combine(_folder, "synthetic");
        long bytes = SyntheticCheckpoint.Write(model, Config, shardBytes: 100_000);
        using (var source = new CheckpointSource(model))
        {
            Assert.Equal(bytes, source.Stored.Bytes);
            Assert.Equal(bytes, source.AnnouncedBytes);
            Assert.InRange(source.Stored.Files, 2, 40);
            Assert.All(Config.MatrixNames(), n => Assert.Equal(DType.BF16, source.RawType(n)));
        }
        Thread.Sleep(200); // a file that changed just now is not remembered
        var said = new List<string>();
        var result = LoadBenchmark.Run(model, () => new CpuDevice(2), _folder, 2, said.Add);
        var times = result.Times.ToDictionary(t => t.What);
        Assert.All(times.Values, t => Assert.True(t.Seconds >= t.Best && t.Best > 0 && t.Bytes > 0, t.What));
        foreach (
            string what in (string[])
                [
                    "page cache, 1 thread", "SHA-256 alone", "load", "load, hash beside it",
                    "until the hash is known too", "quantized copy written", "second start, from the copy"]
        )
            Assert.True(times.ContainsKey(what), $"{what} is missing; it said: {string.Join("; ", said)}");
        Assert.InRange(times["second start, from the copy"].Bytes, 1, bytes - 1);
        // the load peak is the final size and one tensor
        Assert.InRange(result.StagingBytes, 1, result.LargestTensorBytes);
        Assert.Empty(Directory.GetDirectories(_folder, "*headroom-load*"));
    }

    public void Dispose() => Directory.Delete(_folder, true);

    /// <summary>A checkpoint that notes which rows are taken as they lie, or one that gives only values.</summary>
    private sealed class Watched(CheckpointSource inner, bool raw) : IWeightSource
    {
        public Dictionary<string, List<int>> Raw { get; } = [];
        public ModelConfig Config => inner.Config;
        public string Hash => inner.Hash;
        public bool Has(string hfName) => inner.Has(hfName);
        public (int Rows, int Cols) ShapeOf(string hfName) => inner.ShapeOf(hfName);

        public void ReadRows(string hfName, int firstRow, int rowCount, Span<float> destination) =>
            inner.ReadRows(hfName, firstRow, rowCount, destination);
        public DType SourceDType(string hfName) => inner.SourceDType(hfName);
        public DType? RawType(string hfName) => raw ? inner.RawType(hfName) : null;

        public void ReadRaw(string hfName, int firstRow, int rowCount, Span<byte> destination)
        {
            lock (Raw)
            {
                if (!Raw.TryGetValue(hfName, out var rows)) Raw[hfName] = rows = [];
                rows.AddRange(Enumerable.Range(firstRow, rowCount));
            }
            inner.ReadRaw(hfName, firstRow, rowCount, destination);
        }

        public void Dispose() => inner.Dispose();
    }
}
