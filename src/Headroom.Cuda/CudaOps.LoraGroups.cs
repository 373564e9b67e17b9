using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Headroom.Core;

namespace Headroom.Cuda;

public sealed unsafe partial class CudaOps
{
    /// <summary>Operands of one projection, laid out as the kernels' Part.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct Part
    {
        public nint X, M, Z, Y, Out;
        public int N, Transposed;
        public float Scale;
        public int Drop;
        public Mask Mask;
    }

    [InlineArray(6)]
    private struct Parts
    {
        private Part _first;
    }

    /// <inheritdoc/>
    public void LinearGroup(Tensor x, ReadOnlySpan<AdaptedLinear> group)
    {
        if (Fusable(x, group))
        {
            FusedForward(x, group, products: true);
            return;
        }
        foreach (ref readonly var p in group)
        {
            Linear(x, p.W, p.Y);
            if (!p.A.IsNone) LoraForward(x, p.A, p.B, p.Scaling, p.Dropout, p.Xa, p.Y);
        }
    }

    /// <inheritdoc/>
    public void LinearGroupBackward(Tensor x, ReadOnlySpan<AdaptedLinear> group, Tensor dx)
    {
        if (Fusable(x, group))
        {
            FusedBackward(x, group, dx, products: true);
            return;
        }
        for (int i = 0; i < group.Length; i++)
        {
            ref readonly var p = ref group[i];
            if (!dx.IsNone) LinearBackwardInput(p.Y, p.W, i > 0, dx);
            if (!p.A.IsNone) LoraBackward(x, p.A, p.B, p.Scaling, p.Dropout, p.Xa, p.Y, p.Dxa, p.DA, p.DB, dx);
        }
    }

    private bool Fusable(Tensor x, ReadOnlySpan<AdaptedLinear> group)
    {
        foreach (ref readonly var p in group)
            if (p.A.IsNone || p.A.Rows != group[0].A.Rows || !TensorCoreLora(x, p.A, p.B.Rows)) return false;
        return group.Length is >= 1 and <= 3;
    }

    // Every xa in one launch, then the outputs. The launches stand between the products, because the next weight is expanded beside them.
    private void FusedForward(Tensor x, ReadOnlySpan<AdaptedLinear> group, bool products = false)
    {
        _gpu.MakeCurrent();
        Parts down = default, up = default;
        int widest = 0, r = group[0].A.Rows, waiting = 0;
        for (int i = 0; i < group.Length; i++) down[i] = DownPart(x, group[i].A, false, 1, group[i].Dropout, group[i].Xa);
        for (int i = 0; i < group.Length; i++)
        {
            ref readonly var p = ref group[i];
            if (products) Linear(x, p.W, p.Y);
            if (i == 0) LaunchDown(down, group.Length, x, r);
            up[waiting++] = UpPart(p.Xa, p.B, true, p.Scaling, default, p.Y);
            widest = Math.Max(widest, p.Y.Columns);
            if (i == 0 && group.Length > 1) continue;
            LaunchUp(up, waiting, x.Rows, widest, 0, x.DType, r);
            waiting = 0;
        }
    }

    // Every dxa, every dA and dB, and the sum that dx takes: three launches, each after a product as above.
    private void FusedBackward(Tensor x, ReadOnlySpan<AdaptedLinear> group, Tensor dx, bool products = false)
    {
        _gpu.MakeCurrent();
        Parts down = default, outer = default, up = default;
        int widest = x.Columns, r = group[0].A.Rows, n = group.Length, rows = x.Rows;
        for (int i = 0; i < n; i++)
        {
            ref readonly var p = ref group[i];
            down[i] = DownPart(p.Y, p.B, true, p.Scaling, default, p.Dxa);
            outer[i] = OuterPart(x, p.Dxa, 1, p.Dropout, false, p.DA);
            outer[n + i] = OuterPart(p.Y, p.Xa, p.Scaling, default, true, p.DB);
            if (!dx.IsNone) up[i] = UpPart(p.Dxa, p.A, false, 1, p.Dropout, dx);
            widest = Math.Max(widest, p.Y.Columns);
        }
        for (int i = 0; i < Math.Max(2, n); i++)
        {
            if (products && i < n && !dx.IsNone) LinearBackwardInput(group[i].Y, group[i].W, i > 0, dx);
            if (i == 0) LaunchDown(down, n, x, r);
            if (i == 1) _gpu.Launch(K("lora.cu", x.DType, "lora_outer", r), (widest / 32, 2 * n), r > 32 ? 256 : 512, Arg.Struct(&outer), rows);
        }
        if (!dx.IsNone) LaunchUp(up, n, rows, dx.Columns, n, x.DType, r);
    }

    private void LaunchDown(Parts parts, int count, Tensor x, int r)
    {
        // 32 rows a block once those blocks fill the card.
        int tile = x.Rows * count >= 32 * _gpu.Processors ? 32 : 16;
        _gpu.Launch(K("lora.cu", x.DType, tile == 32 ? "lora_down32" : "lora_down16", r), ((x.Rows + tile - 1) / tile, count), r > 32 ? 256 : 512,
            Arg.Struct(&parts), x.Rows);
    }

    private void LaunchUp(Parts parts, int count, int rows, int columns, int sum, DType act, int r) =>
        _gpu.LaunchOn(_gpu.Main, K("lora.cu", act, "lora_up", r), ((columns + 255) / 256, (rows + 63) / 64), sum > 0 ? 1 : count, 256, 0, Arg.Struct(&parts), rows, sum);

    private static Part DownPart(Tensor x, Tensor m, bool transposed, float scale, in Dropout d, Tensor y) => new()
    {
        X = x.Address, M = m.Address, Y = y.Address, N = x.Columns, Transposed = transposed ? 1 : 0, Scale = scale, Drop = d.P > 0 ? 1 : 0, Mask = new Mask(d),
    };

    private static Part UpPart(Tensor z, Tensor m, bool transposed, float scale, in Dropout d, Tensor y) => new()
    {
        Z = z.Address, M = m.Address, Y = y.Address, N = y.Columns, Transposed = transposed ? 1 : 0, Scale = scale, Drop = d.P > 0 ? 1 : 0, Mask = new Mask(d),
    };

    private static Part OuterPart(Tensor x, Tensor z, float scale, in Dropout d, bool transposed, Tensor sum) => new()
    {
        X = x.Address, Z = z.Address, Out = sum.Address, N = x.Columns, Transposed = transposed ? 1 : 0, Scale = scale, Drop = d.P > 0 ? 1 : 0, Mask = new Mask(d),
    };
}
