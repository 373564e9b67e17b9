using Headroom.Core;

namespace Headroom.Cuda;

internal sealed unsafe partial class CudaOps
{
    private const int DoraSpan = 64, DoraParts = 256; // least rows of a partial sum; partial sums at most

    /// <inheritdoc/>
    public void Drop(Tensor x, in Dropout dropout, bool rest, bool accumulate, Tensor y)
    {
        using var _ = OpTimer.Op("dropout");
        StepOf(dropout, "dora.cu", x.DType);
        var mask = new Mask(dropout);
        _gpu.Launch(
            K("dora.cu", x.DType, "drop_part"), (_gpu.Blocks(x.Count, 2048), 1), 256, x, y, x.Count, rest ? 1 : 0,
            accumulate ? 1 : 0, Arg.Struct(&mask));
    }

    /// <inheritdoc/>
    public void DoraScale(
        in LinearWeight w, Tensor a, Tensor b, float scaling, Tensor magnitude, Tensor norm, Tensor scale)
    {
        using var _ = OpTimer.Op("dora_scale");
        _gpu.MakeCurrent();
        // NF4 is read as it lies; other storages are expanded piece by piece.
        bool nf4 = w.Storage is WeightStorage.NF4 or WeightStorage.NF4Double && w.In % 4 == 0 && w.BlockSize % 4 == 0;
        string name = nf4 ? "dora_scale_nf4" : w.In % 4 == 0 ? "dora_scale4" : "dora_scale";
        int step = nf4 ? w.Out : _weights.RowsAtATime(w, DType.F32);
        for (int row = 0; row < w.Out; row += step)
        {
            int n = Math.Min(step, w.Out - row);
            var rows = new StoredRows
            {
                W = nf4 ? 0 : _weights.Rows(w, DType.F32, row, n),
                Codes = w.Data.Address,
                Absmax = w.Absmax.Address,
                Nested = w.NestedAbsmax.Address,
                Offset = w.Offset.Address,
                Tables = _tables,
                First = (long)row * w.In,
                Shift = System.Numerics.BitOperations.Log2((uint)w.BlockSize),
            };
            _gpu.Launch(
                K("dora.cu", DType.F32, name),
                ((n + KernelConstants.DoraRows - 1) / KernelConstants.DoraRows, 1),
                256,
                Arg.Struct(&rows),
                a,
                b.Slice(row, n),
                scaling,
                magnitude.Slice(row, n),
                norm.Slice(row, n), scale.Slice(row, n), n, w.In, a.Rows);
        }
    }

    /// <inheritdoc/>
    public void DoraForward(Tensor u, Tensor scale, Tensor bias, bool accumulate, Tensor y)
    {
        using var _ = OpTimer.Op("dora");
        _gpu.Launch(
            K("dora.cu", u.DType, "dora_forward"), (u.Rows, 1), RowThreads(u.Columns), u, scale, bias,
            accumulate ? 1 : 0, y, u.Columns);
    }

    /// <inheritdoc/>
    public void DoraBackward(Tensor dy, Tensor u, Tensor scale, Tensor norm, Tensor du, Tensor dMagnitude)
    {
        using var _ = OpTimer.Op("dora_backward");
        const int columns = KernelConstants.DoraColumns;
        int rows = dy.Rows, n = dy.Columns;
        // The parts depend on the shape alone, so equal runs add in the same order.
        int most = (int)Math.Clamp(_scratchBytes / (4L * n), 1, DoraParts),
            span = Math.Max(DoraSpan, (rows + most - 1) / most),
            parts = (rows + span - 1) / span;
        if (4L * n > _scratchBytes)
            throw new HeadroomException(
                $"A row of {n} elements does not fit the scratch.", "Open the device with more scratch.");
        _gpu.Launch(
            K("dora.cu", dy.DType, "dora_backward"), ((n + columns - 1) / columns, parts), columns, dy, u, scale,
            du, _scratch, rows, n, span);
        _gpu.Launch(
            K("dora.cu", DType.F32, "dora_magnitude"), ((n + 255) / 256, 1), 256, _scratch, norm, dMagnitude, parts, n);
    }
}
