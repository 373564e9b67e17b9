using Headroom.Core;

namespace Headroom.Cuda;

internal sealed unsafe partial class CudaOps
{
    /// <inheritdoc/>
    public void Linear(Tensor x, in LinearWeight w, Tensor y)
    {
        using var _ = OpTimer.Op("linear");
        Linear(x, w, y, default);
    }

    // With a tail, [x, xa] [W, scaling B]^T: the room behind the rows of x holds every xa of the group. A residual is
    // read at the end of the product.
    private void Linear(Tensor x, in LinearWeight w, Tensor y, in WeightTail tail, Tensor residual = default)
    {
        _gpu.MakeCurrent();
        int step = _weights.RowsAtATime(w, x.DType, tail), width = w.In + tail.Pad;
        for (int row = 0; row < w.Out; row += step)
        {
            int n = Math.Min(step, w.Out - row);
            nint panel = _weights.Acquire(w, x.DType, row, n, backward: false, tail);
            _gemm.Run(
                false,
                true,
                x.Rows,
                n,
                width,
                1,
                x.Address,
                x.Stride,
                panel,
                width,
                x.DType,
                residual.IsNone ? 0 : 1,
                y.Address + (nint)y.DType.Bytes(row),
                w.Out,
                y.DType,
                residual.IsNone ? 0 : residual.Address + (nint)y.DType.Bytes(row));
            _weights.Release(w, x.DType);
        }
        if (!w.Bias.IsNone) _gpu.Launch(K("elements.cu", y.DType, "add_bias"), (y.Rows, 1), 256, w.Bias, y, w.Out);
    }

    /// <inheritdoc/>
    public void LinearBackwardInput(Tensor dy, in LinearWeight w, bool accumulate, Tensor dx)
    {
        using var _ = OpTimer.Op("linear_backward_input");
        BackwardInput(dy, w, accumulate, dx);
    }

    // With a tail, dy [W, scaling B]: the adapter's dxa comes out in the room behind the rows of dx.
    private void BackwardInput(
        Tensor dy, in LinearWeight w, bool accumulate, Tensor dx, in WeightTail tail = default)
    {
        _gpu.MakeCurrent();
        int step = _weights.RowsAtATime(w, dx.DType, tail), width = w.In + tail.Pad;
        for (int row = 0; row < w.Out; row += step)
        {
            int n = Math.Min(step, w.Out - row);
            nint panel = _weights.Acquire(w, dx.DType, row, n, backward: true, tail);
            _gemm.Run(
                false,
                false,
                dx.Rows,
                width,
                n,
                1,
                dy.Address + (nint)dx.DType.Bytes(row),
                dy.Stride,
                panel,
                width,
                dx.DType,
                accumulate || row > 0 ? 1 : 0,
                dx.Address, dx.Stride, dx.DType);
            _weights.Release(w, dx.DType);
        }
    }

    /// <inheritdoc/>
    public void LinearBackwardWeight(Tensor x, Tensor dy, Tensor dW, Tensor dBias)
    {
        using var _ = OpTimer.Op("linear_backward_weight");
        _gpu.MakeCurrent();
        BackwardWeight(x, dy, dW);
        if (!dBias.IsNone)
            _gpu.Launch(
                K("elements.cu", dy.DType, "bias_backward"), ((dy.Columns + 63) / 64, 1), 64, dy, dBias, dy.Rows,
                dy.Columns);
    }

    private void BackwardWeight(Tensor x, Tensor dy, Tensor dW) =>
        _gemm.Run(
            true, false, dW.Rows, dW.Columns, x.Rows, 1, dy.Address, dy.Stride, x.Address, x.Stride, x.DType, 1,
            dW.Address, dW.Columns, DType.F32);

    /// <inheritdoc/>
    public void LinearCrossEntropy(
        Tensor hidden, in LinearWeight head, Tensor labels, float gradScale, Tensor logits, Tensor losses,
        Tensor dHidden, Tensor dHead, Tensor weights = default, float labelSmoothing = 0)
    {
        using var _ = OpTimer.Op("linear_cross_entropy");
        _gpu.MakeCurrent();
        var act = hidden.DType;
        // The gradient of a row, in the activation type, takes the front of the row's own float memory.
        int gap = (int)(DType.F32.Bytes(head.Out) / act.Bytes(1)) - head.Out;
        for (int row = 0; row < hidden.Rows; row += logits.Rows)
        {
            int n = Math.Min(logits.Rows, hidden.Rows - row);
            Tensor h = hidden.Slice(row, n), z = logits.Head(n);
            Linear(h, head, z);
            bool gradient = !dHidden.IsNone || !dHead.IsNone;
            _gradScale.Set(BitConverter.SingleToUInt32Bits(gradScale));
            _gpu.Launch(
                K("loss.cu", act, "cross_entropy"), (n, 1), 1024, z, labels.Slice(row, n),
                weights.IsNone ? weights : weights.Slice(row, n), _gradScale.Address, labelSmoothing,
                losses.Slice(row, n), head.Out, gradient ? 1 : 0);
            var dz = new Tensor(z.Address, act, new Shape(n, head.Out), gap);
            if (!dHead.IsNone) BackwardWeight(h, dz, dHead); // before dHidden, which may be hidden
            if (!dHidden.IsNone) BackwardInput(dz, head, false, dHidden.Slice(row, n));
        }
    }

    /// <inheritdoc/>
    public void CandidateScores(
        Tensor hidden, in LinearWeight head, Tensor candidates, Tensor logits, Tensor scores, Tensor lse)
    {
        using var _ = OpTimer.Op("candidate_scores");
        for (int row = 0; row < hidden.Rows; row += logits.Rows)
        {
            int n = Math.Min(logits.Rows, hidden.Rows - row);
            var z = logits.Head(n);
            Linear(hidden.Slice(row, n), head, z);
            _gpu.Launch(
                K("loss.cu", hidden.DType, "pick_scores"), (n, 1), 1024, z, candidates, (int)candidates.Count,
                scores.Slice(row, n), lse.Slice(row, n), head.Out);
        }
    }

    /// <inheritdoc/>
    public void Quantize(Tensor src, in LinearWeight dst)
    {
        using var _ = OpTimer.Op("quantize");
        if (dst.Storage == WeightStorage.Gguf)
            throw new NotSupportedException("GGUF blocks are taken from their file as they are.");
        _gpu.MakeCurrent();
        _weights.Stale(); // its ring is scratch here
        int from = KernelConstants.Kind(src.DType);
        long n = src.Count;
        if (dst.Storage is WeightStorage.F32 or WeightStorage.BF16 or WeightStorage.F16)
        {
            _gpu.Launch(
                K("quantize.cu", DType.F32, "store_plain"), (_gpu.Blocks(n, 1024), 1), 256, src, from, dst.Data,
                KernelConstants.Kind(dst.Storage), n);
            return;
        }
        if (dst.Storage == WeightStorage.Int8)
        {
            _gpu.Launch(
                K("quantize.cu", DType.F32, "store_int8"), (dst.Out, 1), 256, src, from, dst.Data, dst.Absmax, dst.In);
            return;
        }
        int blocks = LinearWeight.Blocks(n, dst.BlockSize);
        bool nested = dst.Storage == WeightStorage.NF4Double;
        // The statistics before they are quantized themselves: nothing is expanded now.
        var (ring, room) = _weights.Ring;
        nint absmax = nested ? ring : dst.Absmax.Address;
        if (nested && blocks * 4L > room)
            throw new HeadroomException(
                $"A weight of {n} elements is too large to be quantized twice: its {blocks} blocks' statistics take "
                    + $"more than {room >> 20} MiB.",
                "Set bnb_4bit_use_double_quant to false.");
        _gpu.Launch(
            K("quantize.cu", DType.F32, "store_nf4"), ((blocks + 7) / 8, 1), 256, src, from, dst.Data, absmax, _tables,
            dst.BlockSize, n, (long)blocks);
        if (!nested) return;
        const int shared = 1 << KernelConstants.NestedShift; // blocks a statistic
        int size = blocks / 32, power = Math.Max(4, CeilLog2(size) / 4);
        _gpu.Launch(K("quantize.cu", DType.F32, "nested_mean"), (1, 1), 32, absmax, blocks, power, dst.Offset);
        _gpu.Launch(
            K("quantize.cu", DType.F32, "nested_codes"), ((blocks + shared - 1) / shared, 1), shared, absmax, blocks,
            dst.Offset, _tables, dst.NestedAbsmax, dst.Absmax);
    }

    private static int CeilLog2(int n) =>
        n <= 1 ? 0 : 32 - System.Numerics.BitOperations.LeadingZeroCount((uint)(n - 1));

    /// <inheritdoc/>
    public void Dequantize(in LinearWeight src, Tensor dst)
    {
        using var _ = OpTimer.Op("dequantize");
        _gpu.MakeCurrent();
        if (src.Storage == WeightStorage.F32) Copy(src.Data, dst);
        else _weights.ExpandTo(src, DType.F32, dst.Address);
    }

    /// <summary>The products' algorithms; for measurements.</summary>
    internal Gemm Products => _gemm;

    /// <summary>A stored weight in the type of <paramref name="dst"/>; for measurements.</summary>
    internal void Expand(in LinearWeight src, Tensor dst) => _weights.ExpandTo(src, dst.DType, dst.Address);
}
