using Headroom.Core;

namespace Headroom.Cuda;

internal sealed unsafe partial class CudaOps
{
    /// <inheritdoc/>
    public void LoraForward(Tensor x, Tensor a, Tensor b, float scaling, in Dropout dropout, Tensor xa, Tensor y)
    {
        using var _ = OpTimer.Op("lora");
        _gpu.MakeCurrent();
        if (TensorCoreLora(x.DType, b.Columns, x.Columns, b.Rows))
        {
            FusedForward(x, [new AdaptedLinear(default, a, b, scaling, dropout, xa, y)]);
            return;
        }
        if (!a.IsNone) LoraInput(x, a, dropout, xa);
        var act = x.DType;
        int r = b.Columns, outs = b.Rows;
        nint at = _scratch, b16 = Narrow(b, act, ref at);
        _gemm.Run(false, true, x.Rows, outs, r, scaling, xa.Address, r, b16, r, act, 1, y.Address, outs, y.DType);
    }

    /// <summary>The first half of <see cref="LoraForward"/>.</summary>
    internal void LoraInput(Tensor x, Tensor a, in Dropout dropout, Tensor xa)
    {
        _gpu.MakeCurrent();
        if (TensorCoreLora(x.DType, a.Rows, a.Columns, a.Columns))
        {
            Parts down = default;
            down[0] = DownPart(x, a, false, 1, dropout, xa);
            StepOf(dropout, "lora.cu", x.DType, a.Rows);
            LaunchDown(down, 1, x.Rows, a.Rows, x.DType);
            return;
        }
        var act = x.DType;
        int r = a.Rows, ins = a.Columns;
        nint at = _scratch, a16 = Narrow(a, act, ref at);
        int step = RowsInScratch(at, ins, act);
        for (int row = 0; row < x.Rows; row += step)
        {
            int n = Math.Min(step, x.Rows - row);
            nint dropped = Dropped(x, ins, row, n, dropout, at);
            _gemm.Run(false, true, n, r, ins, 1, dropped, ins, a16, ins, act, 0, xa.Slice(row, n).Address, r, act);
        }
    }

    /// <inheritdoc/>
    public void LoraBackward(
        Tensor x, Tensor a, Tensor b, float scaling, in Dropout dropout, Tensor xa, Tensor dy, Tensor dxa, Tensor dA,
        Tensor dB, Tensor dx)
    {
        using var _ = OpTimer.Op("lora_backward");
        _gpu.MakeCurrent();
        if (TensorCoreLora(dy.DType, a.Rows, a.Columns, b.Rows))
        {
            FusedBackward(x, [new AdaptedLinear(default, a, b, scaling, dropout, xa, dy, dxa, dA, dB)], dx);
            return;
        }
        LowRankGradients(dy, b, scaling, xa, dxa, dB);
        if (!dA.IsNone) LoraBackwardA(x, dropout, dxa, dA);
        if (dx.IsNone) return;
        var act = dy.DType;
        int r = a.Rows, ins = a.Columns;
        nint at = _scratch, a16 = Narrow(a, act, ref at);
        int step = RowsInScratch(at, ins, act);
        for (int row = 0; row < dy.Rows; row += step)
        {
            int n = Math.Min(step, dy.Rows - row);
            nint dxaRows = dxa.Slice(row, n).Address, dxRows = dx.Slice(row, n).Address;
            if (dropout.P <= 0)
            {
                _gemm.Run(false, false, n, ins, r, 1, dxaRows, r, a16, ins, act, 1, dxRows, dx.Stride, act);
                continue;
            }
            _gemm.Run(false, false, n, ins, r, 1, dxaRows, r, a16, ins, act, 0, at, ins, act);
            var mask = new Mask(dropout);
            StepOf(dropout, "elements.cu", act);
            long count = (long)n * ins;
            _gpu.Launch(
                K("elements.cu", act, "dropout_add"), (_gpu.Blocks(count, 1024), 1), 256, at, dxRows, (long)row * ins,
                count, Arg.Struct(&mask), ins, dx.Gap);
        }
    }

    private void LowRankGradients(Tensor dy, Tensor b, float scaling, Tensor xa, Tensor dxa, Tensor dB)
    {
        var act = dy.DType;
        int r = b.Columns, outs = b.Rows;
        nint at = _scratch, b16 = Narrow(b, act, ref at);
        _gemm.Run(false, false, dy.Rows, r, outs, scaling, dy.Address, outs, b16, r, act, 0, dxa.Address, r, act);
        _gemm.Run(
            true, false, outs, r, dy.Rows, scaling, dy.Address, outs, xa.Address, r, act, 1, dB.Address, r, DType.F32);
    }

    /// <inheritdoc/>
    public void LoraBackwardA(Tensor x, in Dropout dropout, Tensor dxa, Tensor dA)
    {
        using var _ = OpTimer.Op("lora_backward");
        _gpu.MakeCurrent();
        if (TensorCoreLora(x.DType, dA.Rows, dA.Columns, dA.Columns))
        {
            Parts outer = default;
            outer[0] = OuterPart(x, dA.Columns, dxa, 1, dropout, false, dA);
            StepOf(dropout, "lora_outer.cu", x.DType, dA.Rows);
            LaunchOuter(outer, 1, x.Rows, dA.Columns, x.DType, dA.Rows);
            return;
        }
        var act = x.DType;
        int r = dA.Rows, ins = dA.Columns, step = RowsInScratch(_scratch, ins, act);
        for (int row = 0; row < x.Rows; row += step)
        {
            int n = Math.Min(step, x.Rows - row);
            nint dropped = Dropped(x, ins, row, n, dropout, _scratch);
            _gemm.Run(
                true, false, r, ins, n, 1, dxa.Slice(row, n).Address, r, dropped, ins, act, 1, dA.Address, ins,
                DType.F32);
        }
    }

    // Scratch less room for a row of the input beside the copy of A or B (see Narrow).
    internal int LargestRank(int widest, DType compute) =>
        compute == DType.F32
            ? int.MaxValue
            : (int)
                Math.Min(int.MaxValue, (_scratchBytes - Math.Min(_scratchBytes / 16, 1 << 20)) / compute.Bytes(widest));

    private int RowsInScratch(nint at, int columns, DType act)
    {
        long rows = (_scratch + _scratchBytes - at) / act.Bytes(columns);
        return rows >= 1
            ? (int)Math.Min(rows, int.MaxValue)
            : throw new HeadroomException(
                $"A row of {columns} elements does not fit the scratch.", "Open the device with more scratch.");
    }

    // A parameter in the activation type, in scratch from "at" on.
    private nint Narrow(Tensor parameter, DType act, ref nint at)
    {
        if (act == DType.F32) return parameter.Address;
        nint to = at;
        at += (nint)Round(act.Bytes(parameter.Count));
        RowsInScratch(at, 1, act);
        long n = parameter.Count;
        _gpu.Launch(
            K("quantize.cu", DType.F32, "store_plain"), (_gpu.Blocks(n, 1024), 1), 256, parameter,
            KernelConstants.KindF32, to, KernelConstants.Kind(act), n);
        return to;
    }

    private nint Dropped(Tensor x, int columns, int row, int rows, in Dropout dropout, nint to)
    {
        nint from = x.Slice(row, rows).Address;
        if (x.Gap > 0)
        {
            _gpu.Launch(K("elements.cu", x.DType, "pack_rows"), (rows, 1), 256, from, to, columns, x.Stride);
            from = to;
        }
        if (dropout.P <= 0) return from;
        var mask = new Mask(dropout);
        StepOf(dropout, "elements.cu", x.DType);
        long count = (long)rows * columns;
        _gpu.Launch(
            K("elements.cu", x.DType, "dropout"), (_gpu.Blocks(count, 2048), 1), 256, from, to, (long)row * columns,
            count, Arg.Struct(&mask));
        return to;
    }

    // The fused kernels: 16-bit activations, rank 16, 32 or 64, wide enough rows.
    private bool TensorCoreLora(DType act, int r, int ins, int outs) =>
        FusedKernels
        && act != DType.F32
        && _gpu.Capability >= 80
        && r is 16 or 32 or 64
        && ins % 64 == 0
        && outs % 64 == 0;

    /// <summary>False runs the general kernels everywhere; for tests and measurements.</summary>
    internal bool FusedKernels { get; set; } = true;
}
