using Headroom.Core;
using Headroom.Cuda.Interop;
using Headroom.Cuda.Resources;

namespace Headroom.Cuda;

/// <summary>
/// Copies between pageable host memory and the device through page-locked memory, in the order of the main stream.
/// Small uploads go through a ring and return when their bytes are in it; small downloads have a place of their own
/// behind it, so that they wait once, for everything. Large copies go through slots of a few lanes: each lane has two,
/// and fills one while the other one's copy runs, so that reading, copying and the device's work
/// overlap; large uploads return when everything is read and issued.
/// </summary>
internal sealed unsafe class Staging : IDisposable
{
    private const int RingBytes = 4 << 20,
        SlotBytes = 2 << 20,
        Small = 1 << 20, // a batch's ids, the logits of a token
        MostLanes = 8;
    private readonly Gpu _gpu;
    private readonly PinnedMemory _ring = PinnedMemory.Allocate(RingBytes + Small);
    private PinnedMemory? _lanes; // made by the first large copy
    private CudaEvent[] _free = []; // of each slot: recorded behind the last copy from or to it
    private int[] _turn = [];
    private int _at;

    public Staging(Gpu gpu) => _gpu = gpu;

    public void Upload(ReadOnlySpan<byte> source, nint destination)
    {
        _gpu.OutsideRecord();
        if (source.Length > Small)
        {
            fixed (byte* s = source)
            {
                nint from = (nint)s;
                Upload(
                    (first, n, to) => new ReadOnlySpan<byte>((byte*)from + first, n).CopyTo(to), source.Length, 1,
                    destination);
            }
            return;
        }
        int room = (source.Length + 255) & ~255;
        if (_at + room > RingBytes)
        {
            _gpu.Main.Synchronize();
            _at = 0;
        }
        nint slot = _ring.Value + _at;
        source.CopyTo(new Span<byte>((void*)slot, source.Length));
        CudaException.Check(
            Driver.cuMemcpyHtoDAsync(destination, slot, (nuint)source.Length, _gpu.Main.Value),
            nameof(Driver.cuMemcpyHtoDAsync));
        _at += room;
    }

    /// <summary>
    /// Rows of <paramref name="rowBytes"/> bytes, read straight into the page-locked slots by several threads.
    /// </summary>
    public void Upload(RowReader read, int rows, long rowBytes, nint destination)
    {
        _gpu.OutsideRecord();
        if (rowBytes > SlotBytes) // a row longer than a slot is read whole, then copied as bytes
        {
            var row = new byte[rowBytes];
            for (int r = 0; r < rows; r++)
            {
                read(r, 1, row);
                Upload(row, destination + (nint)(r * rowBytes));
            }
            return;
        }
        int step = (int)Math.Min(SlotBytes / Math.Max(1, rowBytes), Math.Max(1, rows));
        Run(Lanes.Pieces(rows, step), (piece, slot) =>
        {
            int first = piece * step, n = Math.Min(step, rows - first), bytes = (int)(n * rowBytes);
            read(first, n, new Span<byte>((void*)slot, bytes));
            CudaException.Check(
                Driver.cuMemcpyHtoDAsync(destination + (nint)(first * rowBytes), slot, (nuint)bytes, _gpu.Main.Value),
                nameof(Driver.cuMemcpyHtoDAsync));
            return null;
        });
    }

    public void Download(nint source, Span<byte> destination)
    {
        _gpu.OutsideRecord();
        if (destination.Length > Small) DownloadLarge(source, destination);
        else
        {
            nint place = _ring.Value + RingBytes;
            CudaException.Check(
                Driver.cuMemcpyDtoHAsync(place, source, (nuint)destination.Length, _gpu.Main.Value),
                nameof(Driver.cuMemcpyDtoHAsync));
            _gpu.Main.Synchronize();
            new ReadOnlySpan<byte>((void*)place, destination.Length).CopyTo(destination);
        }
        _at = 0; // every upload is done too: the ring is free
    }

    // apart, since the lambda takes memory from the collector on entry
    private void DownloadLarge(nint source, Span<byte> destination)
    {
        int bytes = destination.Length;
        fixed (byte* d = destination)
        {
            nint to = (nint)d;
            Run(Lanes.Pieces(bytes, SlotBytes), (piece, slot) =>
            {
                int at = piece * SlotBytes, n = Math.Min(SlotBytes, bytes - at);
                CudaException.Check(
                    Driver.cuMemcpyDtoHAsync(slot, source + at, (nuint)n, _gpu.Main.Value),
                    nameof(Driver.cuMemcpyDtoHAsync));
                return () => new ReadOnlySpan<byte>((void*)slot, n).CopyTo(new Span<byte>((byte*)to + at, n));
            });
        }
    }

    /// <summary>
    /// Runs issue(piece, slot) for every piece on the lanes, each in a free slot; what it returns is run when its copy
    /// is done.
    /// </summary>
    private void Run(int pieces, Func<int, nint, Action?> issue)
    {
        int lanes = Lanes.Count(MostLanes);
        if (_lanes == null)
        {
            _lanes = PinnedMemory.Allocate(2L * lanes * SlotBytes);
            _free = [.. Enumerable.Range(0, 2 * lanes).Select(_ => CudaEvent.Create())];
            _turn = new int[lanes];
        }
        Lanes.Run(_turn.Length, pieces, (lane, piece) =>
        {
            _gpu.MakeCurrentOnce();
            int slot = 2 * lane + (_turn[lane] ^= 1);
            _free[slot].Synchronize();
            var then = issue(piece, _lanes.Value + slot * (nint)SlotBytes);
            _free[slot].Record(_gpu.Main);
            if (then == null) return;
            _free[slot].Synchronize();
            then();
        });
    }

    public void Dispose()
    {
        foreach (var e in _free) e.Dispose();
        _lanes?.Dispose();
        _ring.Dispose();
    }
}
