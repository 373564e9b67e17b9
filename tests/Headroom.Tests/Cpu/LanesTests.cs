using Headroom.Core;
using Headroom.Cpu;

namespace Headroom.Tests.Cpu;

/// <summary>Pieces on a few threads, threads of low priority, and uploads made of them.</summary>
public sealed class LanesTests
{
    [Theory, InlineData(1, 7), InlineData(3, 0), InlineData(4, 1), InlineData(5, 400)]
    public void EveryPieceRunsOnceAndALaneOneAtATime(int lanes, int pieces)
    {
        var counts = new int[pieces];
        var busy = new int[lanes];
        Lanes.Run(lanes, pieces, (lane, piece) =>
        {
            Assert.Equal(1, Interlocked.Increment(ref busy[lane]));
            Interlocked.Increment(ref counts[piece]);
            Thread.SpinWait(200);
            Interlocked.Decrement(ref busy[lane]);
        });
        Assert.All(counts, c => Assert.Equal(1, c));
    }

    [Theory, InlineData(1), InlineData(4)]
    public void AnExceptionComesOutAsItIs(int lanes)
    {
        int ran = 0;
        var e = Assert.Throws<HeadroomException>(() => Lanes.Run(lanes, 10_000, (_, piece) =>
        {
            if (piece == 3) throw new HeadroomException("Piece three is bad.", "Replace it.");
            Interlocked.Increment(ref ran);
        }));
        Assert.Equal("Piece three is bad.", e.Message);
        Assert.InRange(ran, 0, 9_998); // the rest is not begun
    }

    [Fact]
    public void LowPriorityIsTheWorkersAlone()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "nice values of threads are Linux's");
        static int Nice() =>
            int.Parse(
                File.ReadAllText("/proc/thread-self/stat").Split(')')[^1].Split(' ')[17],
                System.Globalization.CultureInfo.InvariantCulture);
        int before = Nice();
        var seen = new int[5];
        LowPriority.Run(5, i => seen[i] = Nice());
        Assert.All(seen, n => Assert.Equal(Math.Min(19, before + 10), n));
        Assert.Equal(before, Nice());
        Assert.Throws<HeadroomException>(() => LowPriority.Run(3, i => throw new HeadroomException($"{i}", "no")));
    }

    [Fact]
    public async Task HeldWorkWaitsForTheLastHolder()
    {
        using var many = LowPriority.Hold(64); // enough processors: nothing waits
        LowPriority.Step();
        var first = LowPriority.Hold(2);
        var second = LowPriority.Hold(2);
        var work = Task.Run(LowPriority.Step);
        first.Dispose();
        first.Dispose(); // counts once
        await Task.WhenAny(work, Task.Delay(100, TestContext.Current.CancellationToken));
        Assert.False(work.IsCompleted);
        second.Dispose();
        await work.WaitAsync(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken);
    }

    [Theory, InlineData(1, 1), InlineData(700, 3), InlineData(3, 700_001), InlineData(50_000, 64)]
    public unsafe void AnUploadAsksForEachRowOnce(int rows, int columns)
    {
        using var device = new CpuDevice(3);
        var tensor = new Tensor(device.Reserve((long)rows * columns * 2), DType.BF16, new Shape(rows, columns));
        var asked = new int[rows];
        device.Upload((first, count, to) =>
        {
            Assert.Equal(count * columns * 2, to.Length);
            for (int r = first; r < first + count; r++) Interlocked.Increment(ref asked[r]);
            var values = System.Runtime.InteropServices.MemoryMarshal.Cast<byte, ushort>(to);
            for (int i = 0; i < values.Length; i++) values[i] = (ushort)(((long)first * columns + i) * 40503);
        }, tensor);
        Assert.All(asked, a => Assert.Equal(1, a));
        for (long i = 0; i < tensor.Count; i++)
            if (((ushort*)tensor.Address)[i] != (ushort)(i * 40503)) Assert.Fail($"element {i}");
        Assert.Equal(
            "no.",
            Assert
                .Throws<HeadroomException>(() =>
                    device.Upload((_, _, _) => throw new HeadroomException("no", "yes"), tensor)
                )
                .Message
        );
    }
}
