using Headroom.Core;

namespace Headroom.Cuda.Tests;

/// <summary>
/// Copies of every size through the page-locked memory, small and large ones in turns; NF4 from the stored bytes
/// against the CPU's.
/// </summary>
public sealed class StagingTests
{
    [Fact]
    public void CopiesOfEverySizeArrive()
    {
        using var rig = new Rig();
        var random = new Random(3);
        int[] sizes =
        [
            1, 255, 4096, 1 << 20, (1 << 20) + 1, 3 << 20, 7, (40 << 20) + 13, 1 << 19, (2 << 20) - 1, 65536];
        var sent = sizes.Select(n =>
        {
            var bytes = new byte[n];
            random.NextBytes(bytes);
            return bytes;
        }).ToArray();
        var tensors = sizes.Select(n => rig.Empty(DType.U8, n).Gpu).ToArray();
        // more than the ring and the slots hold, so that each is used again while copies run
        for (int round = 0; round < 3; round++)
        {
            for (int i = 0; i < sizes.Length; i++) rig.Device.Upload(sent[i], tensors[i]);
            for (int i = sizes.Length - 1; i >= 0; i--)
            {
                var back = new byte[sizes[i]];
                rig.Device.Download(tensors[i], back);
                Assert.True(back.AsSpan().SequenceEqual(sent[i]), $"{sizes[i]} bytes, round {round}");
                random.NextBytes(sent[i]);
            }
        }
    }

    [Theory, InlineData(1, 1), InlineData(5000, 4096), InlineData(3, 1_500_000), InlineData(100_000, 37)]
    public void RowsAreReadOnce(int rows, int columns)
    {
        using var rig = new Rig();
        var tensor = rig.Empty(DType.BF16, rows, columns).Gpu;
        var asked = new int[rows];
        rig.Device.Upload((first, count, to) =>
        {
            for (int r = first; r < first + count; r++) Interlocked.Increment(ref asked[r]);
            var values = System.Runtime.InteropServices.MemoryMarshal.Cast<byte, ushort>(to);
            for (int i = 0; i < values.Length; i++) values[i] = (ushort)(((long)first * columns + i) * 40503);
        }, tensor);
        Assert.All(asked, a => Assert.Equal(1, a));
        var back = new byte[tensor.Bytes];
        rig.Device.Download(tensor, back);
        var got = System.Runtime.InteropServices.MemoryMarshal.Cast<byte, ushort>(back);
        for (int i = 0; i < got.Length; i++)
            if (got[i] != (ushort)((long)i * 40503)) Assert.Fail($"element {i}");
        Assert.Equal(
            "no.",
            Assert
                .Throws<HeadroomException>(() =>
                    rig.Device.Upload((_, _, _) => throw new HeadroomException("no", "yes"), tensor)
                )
                .Message
        );
        rig.Device.Upload(back, tensor); // the device goes on after a reader's fault
    }

    [
        Theory, InlineData(DType.BF16, WeightStorage.NF4), InlineData(DType.BF16, WeightStorage.NF4Double),
        InlineData(DType.F16, WeightStorage.NF4Double), InlineData(DType.F16, WeightStorage.NF4)]
    internal void SixteenBitSourcesGiveTheBitsOfTheCpu(DType type, WeightStorage storage)
    {
        using var rig = new Rig();
        foreach (var (rows, cols) in new[] { (128, 352), (37, 88), (1030, 1030) })
        {
            var (cpu, gpu) = rig.Weight(storage, rows, cols);
            var source = rig.Normal(type, rows, cols, 0.05f); // the CPU's is float32 with the rounded values
            rig.Cpu.Quantize(source.Cpu, cpu);
            rig.Gpu.Quantize(source.Gpu, gpu);
            foreach (
                var (a, b, what) in new[]
                {
                    (cpu.Data, gpu.Data, "codes"), (cpu.Absmax, gpu.Absmax, "absmax"),
                    (cpu.NestedAbsmax, gpu.NestedAbsmax, "nested absmax"), (cpu.Offset, gpu.Offset, "offset"),
                }
            )
                if (!a.IsNone)
                    rig.EqualBits(new Pair(a, b), $"{what} of {rows} x {cols}");
        }
    }
}
