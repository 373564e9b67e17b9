using Headroom.Cuda.Interop;
using Headroom.Cuda.Resources;

namespace Headroom.Cuda;

/// <summary>
/// Copies between pageable host memory and the device through one page-locked ring. Uploads return when the bytes are in the ring;
/// the ring waits for the stream only when it is full.
/// </summary>
internal sealed unsafe class Staging : IDisposable
{
    private const int RingBytes = 16 << 20, Piece = 4 << 20;
    private readonly Gpu _gpu;
    private readonly PinnedMemory _ring = PinnedMemory.Allocate(RingBytes);
    private int _at;

    public Staging(Gpu gpu) => _gpu = gpu;

    public void Upload(ReadOnlySpan<byte> source, nint destination)
    {
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
        _gpu.Main.Synchronize(); // every upload is done too: the ring is free
        _at = 0;
        while (!destination.IsEmpty)
        {
            int n = Math.Min(destination.Length, RingBytes);
            CudaException.Check(Driver.cuMemcpyDtoHAsync(_ring.Value, source, (nuint)n, _gpu.Main.Value), nameof(Driver.cuMemcpyDtoHAsync));
            _gpu.Main.Synchronize();
            new ReadOnlySpan<byte>((void*)_ring.Value, n).CopyTo(destination);
            source += n;
            destination = destination[n..];
        }
    }

    public void Dispose() => _ring.Dispose();
}
