using Headroom.Cuda.Interop;
using Headroom.Cuda.Resources;

namespace Headroom.Cuda;

/// <summary>
/// Copies between pageable host memory and the device through one page-locked ring. Uploads return when the bytes are in the ring;
/// the ring waits for the stream only when it is full. Downloads have a place of their own behind it, so that they wait once, for everything.
/// </summary>
internal sealed unsafe class Staging : IDisposable
{
    private const int RingBytes = 16 << 20, Piece = 4 << 20, DownloadBytes = 256 << 10;
    private readonly Gpu _gpu;
    private readonly PinnedMemory _ring = PinnedMemory.Allocate(RingBytes + DownloadBytes);
    private int _at;

    public Staging(Gpu gpu) => _gpu = gpu;

    public void Upload(ReadOnlySpan<byte> source, nint destination)
    {
        _gpu.OutsideRecord();
        while (!source.IsEmpty)
        {
            int n = Math.Min(source.Length, Piece), room = (n + 255) & ~255;
            if (_at + room > RingBytes)
            {
                _gpu.Main.Synchronize();
                _at = 0;
            }
            nint slot = _ring.Value + _at;
            source[..n].CopyTo(new Span<byte>((void*)slot, n));
            CudaException.Check(Driver.cuMemcpyHtoDAsync(destination, slot, (nuint)n, _gpu.Main.Value), nameof(Driver.cuMemcpyHtoDAsync));
            _at += room;
            destination += n;
            source = source[n..];
        }
    }

    public void Download(nint source, Span<byte> destination)
    {
        _gpu.OutsideRecord();
        bool large = destination.Length > DownloadBytes;
        if (large) _gpu.Main.Synchronize(); // every upload is done: the ring is free
        nint place = large ? _ring.Value : _ring.Value + RingBytes;
        while (!destination.IsEmpty)
        {
            int n = Math.Min(destination.Length, large ? RingBytes : DownloadBytes);
            CudaException.Check(Driver.cuMemcpyDtoHAsync(place, source, (nuint)n, _gpu.Main.Value), nameof(Driver.cuMemcpyDtoHAsync));
            _gpu.Main.Synchronize();
            _at = 0; // every upload is done too
            new ReadOnlySpan<byte>((void*)place, n).CopyTo(destination);
            source += n;
            destination = destination[n..];
        }
    }

    public void Dispose() => _ring.Dispose();
}
