using Headroom.Core;
using Headroom.Cuda.Interop;
using static Headroom.Cuda.KernelConstants;

namespace Headroom.Cuda;

internal sealed unsafe partial class CudaOps
{
    /// <summary>Off: the kernels every card runs. For tests and comparisons.</summary>
    internal bool HopperKernels { get; set; } = true;

    private bool Hopper(Tensor q, in AttentionShape s) => HopperKernels && _gpu.Hopper && Flash(q, s);

    private void HopperForward(Tensor q, Tensor k, Tensor v, Tensor offsets, in AttentionShape s, Tensor o, Tensor lse)
    {
        byte* maps = stackalloc byte[3 * TensorMapBytes + TensorMapBoundary];
        maps = Map(maps, q, 0);
        Map(maps, k, 1);
        Map(maps, v, 2);
        int shared = HopperShared(HopperRows, s.HeadDim), tiles = HopperTiles(q.Rows, offsets.Rows - 1);
        _gpu.LaunchOn(
            _gpu.Main, Allowed(K("flash_hopper.cu", q.DType, "flash_hopper_forward", s.HeadDim), shared),
            (tiles * s.NumHeads, 1), HopperThreads, shared,
            Arg.Struct(maps), Arg.Struct(maps + TensorMapBytes), Arg.Struct(maps + 2 * TensorMapBytes), offsets,
            offsets.Rows - 1, tiles, s.NumHeads, s.NumKeyValueHeads, s.SlidingWindow, s.Scale, o, (long)o.Stride, lse);
    }

    private void HopperBackward(
        Tensor q,
        Tensor k,
        Tensor v,
        Tensor lse,
        Tensor dO,
        Tensor offsets,
        in AttentionShape s,
        Tensor delta,
        Tensor dq,
        Tensor dk,
        Tensor dv,
        Tensor cos, Tensor sin)
    {
        byte* maps = stackalloc byte[4 * TensorMapBytes + TensorMapBoundary];
        maps = Map(maps, q, 0);
        Map(maps, k, 1);
        Map(maps, v, 2);
        Map(maps, dO, 3);
        int shared = HopperShared(2 * HopperRows, s.HeadDim), tiles = HopperTiles(q.Rows, offsets.Rows - 1);
        nint f = Allowed(K("flash_hopper_backward.cu", q.DType, "flash_hopper_backward", s.HeadDim), shared);
        _gpu.LaunchOn(_gpu.Main, f, (tiles * (s.NumHeads + s.NumKeyValueHeads), 1), HopperThreads, shared,
            Arg.Struct(maps),
            Arg.Struct(maps + TensorMapBytes),
            Arg.Struct(maps + 2 * TensorMapBytes),
            Arg.Struct(maps + 3 * TensorMapBytes),
            lse,
            delta,
            offsets,
            offsets.Rows - 1,
            tiles,
            s.NumHeads,
            s.NumKeyValueHeads,
            s.SlidingWindow,
            s.Scale,
            dq,
            dk,
            dv,
            cos,
            sin
        );
    }

    // Lengths are known on the device only; every sequence may end in a partial tile.
    private static int HopperTiles(int rows, int sequences) => rows / HopperRows + sequences;

    // The rows that stay, the ring of key tiles, and room to move the start to its boundary.
    private static int HopperShared(int staying, int head) =>
        (staying + HopperSlots * HopperKeys) * head * 2 + HopperBoundary;

    // Describes a 16-bit matrix to the bulk copies, in boxes of 64 x 64 elements, 128-byte swizzle; the aligned start
    // of the maps is returned.
    private static byte* Map(byte* maps, Tensor x, int index)
    {
        const int halfFloat = 6, bfloat16 = 9, swizzle128 = 3, promote128 = 2;
        maps = (byte*)(((nint)maps + TensorMapBoundary - 1) & ~(nint)(TensorMapBoundary - 1));
        ulong* sizes = stackalloc ulong[] { (ulong)x.Columns, (ulong)x.Rows };
        ulong stride = (ulong)x.Stride * 2;
        uint* box = stackalloc uint[] { HopperBox, HopperBox };
        uint* steps = stackalloc uint[] { 1, 1 };
        CudaException.Check(
            Driver.cuTensorMapEncodeTiled(
                maps + index * TensorMapBytes, x.DType == DType.BF16 ? bfloat16 : halfFloat, 2, x.Address, sizes,
                &stride, box, steps, 0, swizzle128, promote128, 0),
            nameof(Driver.cuTensorMapEncodeTiled)
        );
        return maps;
    }
}
