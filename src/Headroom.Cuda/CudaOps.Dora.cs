using Headroom.Core;

namespace Headroom.Cuda;

public sealed unsafe partial class CudaOps
{
    private const int DoraColumns = 256, DoraRows = 64, DoraParts = 256; // of a block of dora_backward; partial sums at most

    /// <inheritdoc/>
    public void Drop(Tensor x, in Dropout dropout, bool rest, bool accumulate, Tensor y)
    {
        var mask = new Mask(dropout);
        _gpu.Launch(K("dora.cu", x.DType, "drop_part"), (_gpu.Blocks(x.Count, 2048), 1), 256, x, y, x.Count, rest ? 1 : 0, accumulate ? 1 : 0, Arg.Struct(&mask));
    }

    /// <inheritdoc/>
    public void DoraScale(in LinearWeight w, Tensor a, Tensor b, float scaling, Tensor magnitude, Tensor norm, Tensor scale)
    {
        _gpu.MakeCurrent();
        int step = _weights.RowsAtATime(w, DType.F32);
        for (int row = 0; row < w.Out; row += step)
        {
            int n = Math.Min(step, w.Out - row);
            nint values = _weights.Rows(w, DType.F32, row, n);
            _gpu.Launch(K("dora.cu", DType.F32, "dora_scale"), ((n + 7) / 8, 1), 256, values, a, b.Slice(row, n), scaling, magnitude.Slice(row, n), norm.Slice(row, n), scale.Slice(row, n),
                n, w.In, a.Rows);
        }
    }

    /// <inheritdoc/>
    public void DoraForward(Tensor u, Tensor scale, Tensor bias, bool accumulate, Tensor y) =>
        _gpu.Launch(K("dora.cu", u.DType, "dora_forward"), (u.Rows, 1), RowThreads(u.Columns), u, scale, bias, accumulate ? 1 : 0, y, u.Columns);

    /// <inheritdoc/>
    public void DoraBackward(Tensor dy, Tensor u, Tensor scale, Tensor norm, Tensor du, Tensor dMagnitude)
    {
        int rows = dy.Rows, n = dy.Columns;
        // The parts depend on the shape alone, so equal runs add in the same order.
        int most = (int)Math.Clamp(_scratchBytes / (4L * n), 1, DoraParts), span = Math.Max(DoraRows, (rows + most - 1) / most), parts = (rows + span - 1) / span;
        if (4L * n > _scratchBytes) throw new HeadroomException($"A row of {n} elements does not fit the scratch.", "Open the device with more scratch.");
        _gpu.Launch(K("dora.cu", dy.DType, "dora_backward"), ((n + DoraColumns - 1) / DoraColumns, parts), 256, dy, u, scale, du, _scratch, rows, n, span);
        _gpu.Launch(K("dora.cu", DType.F32, "dora_magnitude"), ((n + 255) / 256, 1), 256, _scratch, norm, dMagnitude, parts, n);
    }
}
