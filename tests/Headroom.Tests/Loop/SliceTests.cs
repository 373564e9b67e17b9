using System.Security.Cryptography;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats.Safetensors;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tests.Models;
using Headroom.Training.Loop;

namespace Headroom.Tests.Loop;

/// <summary>
/// Trained tensors that are copied in slices of rows, as one of more than 2 GiB must be: values, files and hashes are
/// those of one copy.
/// </summary>
public sealed class SliceTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("headroom-").FullName;

    public void Dispose() => Directory.Delete(_root, true);

    // Keeps the largest copy of float32 values.
    private sealed class Measured : IDevice
    {
        private readonly CpuDevice _cpu = new(2);
        public int Largest { get; set; }
        public int Copies { get; set; }
        public string Name => _cpu.Name;
        public IOps Ops => _cpu.Ops;
        public long WorkspaceBytes => _cpu.WorkspaceBytes;
        public nint Reserve(long bytes, long later = 0) => _cpu.Reserve(bytes, later);
        public void Dispose() => _cpu.Dispose();

        public void Upload(ReadOnlySpan<byte> source, Tensor destination)
        {
            Note(source.Length, destination);
            _cpu.Upload(source, destination);
        }

        public void Download(Tensor source, Span<byte> destination)
        {
            Note(destination.Length, source);
            _cpu.Download(source, destination);
        }

        private void Note(int bytes, Tensor t)
        {
            Assert.Equal(t.Bytes, bytes);
            (Largest, Copies) = (Math.Max(Largest, bytes), Copies + 1);
        }
    }

    private static Engine Open(IDevice device, int steps)
    {
        var config = TinyModel.Small(1);
        var lora = TinyModel.Lora() with { ModulesToSave = ["lm_head", "norm"] };
        var batch = TinyModel.Batch(TinyModel.Rows(config, [20, 31]));
        var engine = TinyModel.Open(
            config, new ModelSettings(WeightStorage.NF4, WeightStorage.BF16, TrainMode.Adapters, lora, LogitsChunk: 16),
            batch.Tokens, batch.Sequences, device);
        for (int step = 0; step < steps; step++)
        {
            engine.MicroStep(batch.Host, default, 1f / batch.LabelCount);
            engine.Update(new AdamWStep(1e-2, 0.9, 0.999, 1e-8, step + 1, 1));
        }
        return engine;
    }

    private static string[] Files(string folder) =>
        [
            .. Directory
                .GetFiles(folder)
                .Order(StringComparer.Ordinal)
                .Select(f =>
                    Path.GetFileName(f) + " " + Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(f)))
                ),
        ];

    /// <summary>
    /// Rows of 96 columns are 384 bytes: slices of one row, of several with a rest, and of less than a row, which is a
    /// row.
    /// </summary>
    [Theory, InlineData(1), InlineData(384), InlineData(7 * 384 + 5), InlineData(65536)]
    public void BytesAndHashesAreThoseOfOneSlice(long sliceBytes)
    {
        var state = new TrainerState(2, 2, null, 0, "recipe", "base");
        var device = new Measured();
        using var whole = Open(new CpuDevice(2), 2);
        using var sliced = Open(device, 2);
        sliced.SliceBytes = sliceBytes;
        string one = Checkpoints.Save(Path.Combine(_root, "one"), whole, "tiny", state);
        (device.Largest, device.Copies) = (0, 0);
        string several = Checkpoints.Save(Path.Combine(_root, "several"), sliced, "tiny", state);
        Assert.InRange(device.Largest, 1, Math.Max(sliceBytes, 4 * 168)); // the longest row is that of down's A
        Assert.True(device.Copies > 3 * sliced.Model.Trained.Count);
        Assert.Equal(Files(one), Files(several));
        Assert.Equal(Checkpoints.TrainedHash(whole), Checkpoints.TrainedHash(sliced));

        using var loaded = Open(device = new Measured(), 0);
        loaded.SliceBytes = sliceBytes;
        (device.Largest, device.Copies) = (0, 0);
        Checkpoints.Load(several, loaded, "recipe", "base");
        Assert.InRange(device.Largest, 1, Math.Max(sliceBytes, 4 * 168));
        foreach (var (a, b) in whole.Model.Trained.Zip(loaded.Model.Trained))
            foreach (var (x, y) in new[] { (a.Slot.Weight, b.Slot.Weight), (a.Slot.M, b.Slot.M), (a.Slot.V, b.Slot.V) })
                Assert.Equal(whole.Read(x), loaded.Read(y));
    }

    [Fact]
    public void FilesAreReadInPieces()
    {
        string path = Path.Combine(_root, "f.safetensors");
        var values = Enumerable.Range(0, 103).Select(i => i * 0.5f).ToArray();
        SafetensorsWriter.Write(
            path,
            [
                ("a", "F32", [103], System.Runtime.InteropServices.MemoryMarshal.AsBytes(values.AsSpan()).ToArray()),
                (
                    "b",
                    "F16",
                    [103],
                    System
                        .Runtime.InteropServices.MemoryMarshal.AsBytes(Array.ConvertAll(values, v => (Half)v).AsSpan())
                        .ToArray()
                ),
            ]
        );
        using var file = SafetensorsFile.Open(path);
        foreach (string name in new[] { "a", "b" })
            foreach (int piece in new[] { 1, 10, 101, 103, 500 })
            {
                var got = new float[101];
                file.ReadF32(name, 2, got, piece);
                Assert.Equal(values[2..], got);
            }
    }

    [Fact]
    public void PiecesOfTwoGibibytesAreCounted()
    {
        Assert.Equal(1024, Lanes.Pieces(int.MaxValue, 2 << 20));
        Assert.Equal(1024, Lanes.Pieces(1L << 31, 2 << 20));
        Assert.Equal((0, 1, 1, 2), (Lanes.Pieces(0, 5), Lanes.Pieces(1, 5), Lanes.Pieces(5, 5), Lanes.Pieces(6, 5)));
    }
}
