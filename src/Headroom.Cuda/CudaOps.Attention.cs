using System.Numerics;
using System.Runtime.InteropServices;
using Headroom.Core;
using static Headroom.Cuda.KernelConstants;

namespace Headroom.Cuda;

internal sealed unsafe partial class CudaOps
{
    /// <inheritdoc/>
    public void Attention(Tensor q, Tensor k, Tensor v, Tensor offsets, in AttentionShape s, Tensor o, Tensor lse)
    {
        using var _ = OpTimer.Op("attention");
        _gpu.MakeCurrent();
        int sequences = offsets.Rows - 1;
        if (Hopper(q, s))
        {
            HopperForward(q, k, v, offsets, s, o, lse);
            return;
        }
        if (Flash(q, s))
        {
            nint f = FlashKernel(q.DType, "flash_forward", s.HeadDim, out int shared);
            _gpu.LaunchOn(_gpu.Main, f, (Tiles(q.Rows, sequences), s.NumHeads), FlashThreads, shared,
                q,
                k,
                v,
                offsets,
                sequences,
                s.NumHeads,
                s.NumKeyValueHeads,
                s.SlidingWindow,
                s.Scale,
                o,
                (long)o.Stride,
                lse
            );
            return;
        }
        CheckHead(s);
        _gpu.Launch(K("attention_rows.cu", q.DType, "attention_rows"), (q.Rows, s.NumHeads), RowwiseThreads,
            q,
            k,
            v,
            offsets,
            sequences,
            0,
            s.NumHeads,
            s.NumKeyValueHeads,
            s.HeadDim,
            s.SlidingWindow,
            s.Scale,
            o,
            (long)o.Stride,
            lse
        );
    }

    /// <inheritdoc/>
    public void AttentionBackward(
        Tensor q,
        Tensor k,
        Tensor v,
        Tensor o,
        Tensor lse,
        Tensor dO,
        Tensor offsets,
        in AttentionShape s,
        Tensor delta,
        Tensor dq,
        Tensor dk,
        Tensor dv,
        Tensor cos = default, Tensor sin = default)
    {
        using var _ = OpTimer.Op("attention_backward");
        _gpu.MakeCurrent();
        CheckHead(s);
        int count = q.Rows * s.NumHeads, lanes = (int)BitOperations.RoundUpToPowerOf2((uint)(s.HeadDim + 7) / 8);
        _gpu.Launch(
            K("attention_rows.cu", q.DType, "attention_delta"), ((int)(((long)count * lanes + 255) / 256), 1), 256, o,
            dO, (long)o.Stride, delta, count, s.NumHeads, s.HeadDim, lanes);
        if (Hopper(q, s))
        {
            HopperBackward(q, k, v, lse, dO, offsets, s, delta, dq, dk, dv, cos, sin); // turns dq and dk back itself
            return;
        }
        if (Flash(q, s)) FlashBackward(q, k, v, lse, dO, offsets, s, delta, dq, dk, dv);
        else RowwiseBackward(q, k, v, lse, dO, offsets, s, delta, dq, dk, dv);
        if (cos.IsNone) return;
        Rope(dq, cos, sin, s.HeadDim, inverse: true);
        Rope(dk, cos, sin, s.HeadDim, inverse: true);
    }

    private void FlashBackward(
        Tensor q, Tensor k, Tensor v, Tensor lse, Tensor dO, Tensor offsets, in AttentionShape s, Tensor delta,
        Tensor dq, Tensor dk, Tensor dv)
    {
        int sequences = offsets.Rows - 1, tiles = Tiles(q.Rows, sequences);
        nint fq = FlashKernel(q.DType, "flash_dq", s.HeadDim, out int shared),
            fkv = FlashKernel(q.DType, "flash_dkv", s.HeadDim, out int sharedKv);
        _gpu.LaunchOn(
            _gpu.Main, fq, (tiles, s.NumHeads), FlashThreads, shared, q, k, v, lse, dO, (long)dO.Stride, delta, offsets,
            sequences, s.NumHeads, s.NumKeyValueHeads, s.SlidingWindow, s.Scale, dq);
        _gpu.LaunchOn(
            _gpu.Main, fkv, (tiles, s.NumKeyValueHeads), FlashThreads, sharedKv, q, k, v, lse, dO, (long)dO.Stride,
            delta, offsets, sequences, s.NumHeads, s.NumKeyValueHeads, s.SlidingWindow, s.Scale, dk, dv);
    }

    private void RowwiseBackward(
        Tensor q, Tensor k, Tensor v, Tensor lse, Tensor dO, Tensor offsets, in AttentionShape s, Tensor delta,
        Tensor dq, Tensor dk, Tensor dv)
    {
        int sequences = offsets.Rows - 1;
        _gpu.Launch(
            K("attention_rows.cu", q.DType, "attention_dq"), (q.Rows, s.NumHeads), RowwiseThreads, q, k, v, lse, dO,
            (long)dO.Stride, delta, offsets, sequences, s.NumHeads, s.NumKeyValueHeads, s.HeadDim, s.SlidingWindow,
            s.Scale, dq);
        _gpu.Launch(
            K("attention_rows.cu", q.DType, "attention_dkv"), (q.Rows, s.NumKeyValueHeads), RowwiseThreads, q, k, v,
            lse, dO, (long)dO.Stride, delta, offsets, sequences, s.NumHeads, s.NumKeyValueHeads, s.HeadDim,
            s.SlidingWindow, s.Scale, dk, dv);
    }

    /// <inheritdoc/>
    public void AttentionMaterialized(
        Tensor q, Tensor k, Tensor v, Tensor offsets, in AttentionShape s, Tensor scores, Tensor o)
    {
        using var _ = OpTimer.Op("attention_materialized");
        _gpu.MakeCurrent();
        var starts = new int[offsets.Rows];
        _staging.Download(offsets.Address, MemoryMarshal.AsBytes(starts.AsSpan()));
        nint f = K("attention_rows.cu", q.DType, "attention_plain");
        for (int i = 0; i + 1 < starts.Length; i++)
            for (int head = 0; head < s.NumHeads; head++)
                _gpu.Launch(f, (starts[i + 1] - starts[i], 1), 128,
                q,
                k,
                v,
                starts[i],
                head,
                s.NumHeads,
                s.NumKeyValueHeads,
                s.HeadDim,
                s.SlidingWindow,
                s.Scale,
                scores,
                scores.Columns,
                o,
                (long)o.Stride
            );
    }

    /// <inheritdoc/>
    public void CachedAttention(Tensor q, Tensor kCache, Tensor vCache, int past, in AttentionShape s, Tensor o)
    {
        using var _ = OpTimer.Op("cached_attention");
        _gpu.MakeCurrent();
        CheckHead(s);
        _gpu.Launch(K("attention_rows.cu", q.DType, "attention_rows"), (q.Rows, s.NumHeads), RowwiseThreads,
            q,
            kCache,
            vCache,
            (nint)0,
            0,
            past,
            s.NumHeads,
            s.NumKeyValueHeads,
            s.HeadDim,
            s.SlidingWindow,
            s.Scale,
            o,
            (long)o.Stride,
            (nint)0
        );
    }

    // Of the kernels that go row by row.
    private const int RowwiseThreads = 32 * AttentionWarps;

    private bool Flash(Tensor q, in AttentionShape s) => FusedKernels
        && FlashKernels.Take(s.HeadDim, q.DType, _gpu.Capability);

    // Lengths are known on the device only; every sequence may end in a partial tile.
    private static int Tiles(int rows, int sequences) => rows / FlashTile + sequences;

    // Four tiles in shared memory; the key kernel also keeps two statistics of two steps' queries.
    private nint FlashKernel(DType act, string name, int head, out int shared)
    {
        shared = 4 * FlashTile * head * 2 + (name == "flash_dkv" ? 4 * FlashQueries * 4 : 0);
        return Allowed(K("flash.cu", act, name, head), shared);
    }

    // A kernel that may use so much shared memory.
    private nint Allowed(nint kernel, int shared)
    {
        if (_sharedSet.Add(kernel)) Gpu.AllowShared(kernel, shared);
        return kernel;
    }

    private readonly HashSet<nint> _sharedSet = [];

    private static void CheckHead(in AttentionShape s)
    {
        if (s.HeadDim > FlashKernels.LargestHead)
            throw new HeadroomException($"Head size {s.HeadDim} is not supported on CUDA.",
                $"The largest is {FlashKernels.LargestHead}; run with --device cpu.");
    }
}
