using System.Runtime.InteropServices;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>The CPU as a device: one arena from the C allocator, and <see cref="CpuOps"/> over it.</summary>
internal sealed unsafe partial class CpuDevice : IDevice, IDeviceLimits
{
    private const int Piece = 1 << 20, Reach = 16 << 20, HugePage = 2 << 20;
    private readonly CpuOps _ops;
    private readonly int _threads;
    private void* _arena;

    /// <summary>Uses <paramref name="threads"/> threads, 0 = all cores.</summary>
    public CpuDevice(int threads = 0)
    {
        _threads = threads > 0 ? threads : Environment.ProcessorCount;
        _ops = new CpuOps(_threads);
    }

    /// <inheritdoc/>
    public string Name => $"CPU, {_threads} threads";
    /// <inheritdoc/>
    public IOps Ops => _ops;
    /// <inheritdoc/>
    public long WorkspaceBytes => CpuOps.WorkspaceBytes(_threads);
    /// <inheritdoc/>
    public int LargestRank(int widest, DType compute) => LoraGradients.MaxRank;

    /// <inheritdoc/>
    public nint Reserve(long bytes, long later = 0)
    {
        if (_arena != null) throw new InvalidOperationException("the arena is reserved already");
        _arena = NativeMemory.AlignedAlloc((nuint)bytes, bytes >= HugePage ? (nuint)HugePage : 4096);
        // In pages of 2 MiB the kernel hands the memory over in half the time and a product misses fewer translations;
        // a system without them says no.
        if (OperatingSystem.IsLinux() && bytes >= HugePage)
            _ = Advise(_arena, (nuint)bytes / HugePage * HugePage, 14); // MADV_HUGEPAGE
        // Touch every page now: what the plan says must be there before the first step, not at step 50.
        nint arena = (nint)_arena;
        Lanes.Run(_threads, Lanes.Pieces(bytes, Reach), (_, piece) =>
        {
            long end = Math.Min(bytes, (piece + 1L) * Reach);
            for (long at = (long)piece * Reach; at < end; at += 4096) ((byte*)arena)[at] = 0;
        });
        return arena;
    }

    /// <inheritdoc/>
    public void Upload(ReadOnlySpan<byte> source, Tensor destination)
    {
        if (source.Length > destination.Bytes)
            throw new InvalidOperationException("upload is larger than its destination");
        if (source.Length <= Piece) source.CopyTo(new Span<byte>((void*)destination.Address, source.Length));
        else UploadLarge(source, destination);
    }

    // apart, since the lambda takes memory from the collector on entry
    private void UploadLarge(ReadOnlySpan<byte> source, Tensor destination)
    {
        fixed (byte* s = source)
        {
            nint from = (nint)s;
            int bytes = source.Length;
            Lanes.Run(_threads, Lanes.Pieces(bytes, Piece), (_, piece) =>
            {
                int at = piece * Piece, n = Math.Min(Piece, bytes - at);
                new ReadOnlySpan<byte>((byte*)from + at, n).CopyTo(new Span<byte>((byte*)destination.Address + at, n));
            });
        }
    }

    /// <inheritdoc/>
    public void Upload(RowReader read, Tensor destination)
    {
        long rowBytes = destination.DType.Bytes(destination.Columns);
        int rows = destination.Rows, step = (int)Math.Clamp(Piece / Math.Max(1, rowBytes), 1, Math.Max(1, rows));
        Lanes.Run(_threads, Lanes.Pieces(rows, step), (_, piece) =>
        {
            int first = piece * step, n = Math.Min(step, rows - first);
            read(first, n, new Span<byte>((byte*)destination.Address + first * rowBytes, checked((int)(n * rowBytes))));
        });
    }

    /// <inheritdoc/>
    public void Download(Tensor source, Span<byte> destination) =>
        new ReadOnlySpan<byte>((void*)source.Address, destination.Length).CopyTo(destination);

    [LibraryImport("libc", EntryPoint = "madvise")]
    private static partial int Advise(void* address, nuint bytes, int advice);

    /// <inheritdoc/>
    public void Dispose()
    {
        _ops.Dispose();
        if (_arena != null) NativeMemory.AlignedFree(_arena);
        _arena = null;
    }
}
