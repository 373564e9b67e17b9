using Headroom.Core;
using static Headroom.Cuda.KernelConstants;

namespace Headroom.Cuda;

internal sealed unsafe partial class CudaOps
{
    /// <inheritdoc/>
    public void LoraLinear(Tensor x, in AdaptedLinear p)
    {
        using var _ = OpTimer.Op("linear");
        LinearGroup(x, new(in p));
    }

    /// <inheritdoc/>
    public void LinearGroup(Tensor x, ReadOnlySpan<AdaptedLinear> group)
    {
        if (Fusable(group))
        {
            FusedForward(x, group, products: true);
            return;
        }
        foreach (ref readonly var p in group)
        {
            Linear(x, p.W, p.Y, default, p.Residual);
            if (!p.B.IsNone) LoraForward(x, p.A, p.B, p.Scaling, p.Dropout, p.Xa, p.Y);
        }
    }

    /// <inheritdoc/>
    public void LinearGroupBackward(Tensor x, ReadOnlySpan<AdaptedLinear> group, Tensor dx)
    {
        if (Fusable(group))
        {
            FusedBackward(x, group, dx, products: true);
            return;
        }
        GroupedOps.OneByOne(this, x, group, dx);
    }

    private bool Fusable(ReadOnlySpan<AdaptedLinear> group)
    {
        foreach (ref readonly var p in group)
            if (
                p.B.IsNone
                || p.B.Columns != group[0].B.Columns
                || p.A.IsNone != group[0].A.IsNone
                || p.Dropout.Step != group[0].Dropout.Step
                || !TensorCoreLora(p.Y.DType, p.B.Columns, p.W.In, p.B.Rows)
            )
                return false;
        return group.Length is >= 1 and <= 3;
    }

    // Every xa in one launch, unless they are known; then the products, which take the adapters along when x has room
    // for every xa and the weights are expanded anyway. Else the adapters' outputs are added after their products.
    private void FusedForward(Tensor x, ReadOnlySpan<AdaptedLinear> group, bool products = false)
    {
        _gpu.MakeCurrent();
        Parts down = default, up = default;
        bool known = group[0].A.IsNone;
        int r = group[0].B.Columns, ins = x.Columns, count = group.Length, pad = x.Gap;
        bool tail = products && pad >= count * r;
        foreach (ref readonly var p in group) tail &= WeightExpander.TakesTail(p.W);
        if (!known)
        {
            for (int i = 0; i < count; i++)
            {
                down[i] = DownPart(x, group[i].A, false, 1, group[i].Dropout, group[i].Xa);
                if (tail) down[i].Tail = ins + i * r;
            }
            foreach (ref readonly var p in group) StepOf(p.Dropout, "lora.cu", x.DType, r);
            LaunchDown(down, count, x.Rows, r, x.DType, tail ? (ins + count * r, x.Stride) : default, shared: true);
        }
        else if (tail)
        {
            for (int i = 0; i < count; i++) down[i].Z = group[i].Xa.Address;
            down[0].Y = x.Address + (nint)x.DType.Bytes(ins);
            _gpu.Launch(
                K("lora.cu", x.DType, "lora_join", r), ((int)((x.Rows * (pad / 8L) + 255) / 256), 1), 256,
                Arg.Struct(&down), x.Rows, x.Stride, count, pad / 8);
        }
        for (int i = 0; i < count; i++)
        {
            ref readonly var p = ref group[i];
            if (products)
                Linear(x, p.W, p.Y, tail ? new WeightTail(p.B.Address, r, i * r, pad, p.Scaling) : default, p.Residual);
            up[0] = UpPart(p.Xa, p.B, true, p.Scaling, default, p.Y);
            if (!tail) LaunchUp(up, 1, x.Rows, p.Y.Columns, x.DType, r);
        }
    }

    // Every dB that is asked for; every dxa, which comes with the products when dx has room for it and the weights are
    // expanded anyway, else in a launch of its own; then every dA and the sum that dx takes: in one launch where
    // registers allow. Launches stand between products where they can: the next weight is expanded meanwhile.
    private void FusedBackward(Tensor x, ReadOnlySpan<AdaptedLinear> group, Tensor dx, bool products = false)
    {
        _gpu.MakeCurrent();
        Parts down = default, outerA = default, outerB = default, up = default, both = default;
        int r = group[0].A.Rows,
            ins = group[0].A.Columns,
            widest = 0,
            n = group.Length,
            rows = group[0].Y.Rows,
            outers = 0;
        int pad = dx.Gap, outersB = 0;
        bool tail = products && pad >= n * r;
        bool together = r == LoraGroupRank && !dx.IsNone;
        foreach (ref readonly var p in group)
        {
            tail &= WeightExpander.TakesTail(p.W);
            together &= !p.DA.IsNone;
        }
        var act = group[0].Y.DType;
        for (int i = 0; i < n; i++)
        {
            ref readonly var p = ref group[i];
            down[i] = DownPart(p.Y, p.B, true, p.Scaling, default, p.Dxa);
            if (!p.DA.IsNone) outerA[outers++] = OuterPart(x, ins, p.Dxa, 1, p.Dropout, false, p.DA);
            if (!p.DB.IsNone) outerB[outersB++] = OuterPart(p.Y, p.Y.Columns, p.Xa, p.Scaling, default, true, p.DB);
            if (!dx.IsNone) up[i] = UpPart(p.Dxa, p.A, false, 1, p.Dropout, dx);
            if (together)
            {
                both[i] = outerA[i];
                (both[i].M, both[i].Y, both[i].Tail) = (p.A.Address, dx.Address, tail ? ins + i * r : -1);
            }
            widest = Math.Max(widest, p.Y.Columns);
            StepOf(p.Dropout, "lora.cu", act, r);
            StepOf(p.Dropout, together ? "lora_backward.cu" : "lora_outer.cu", act, r);
        }
        for (int i = 0; i < n; i++)
        {
            ref readonly var p = ref group[i];
            if (products && !dx.IsNone)
                BackwardInput(
                    p.Y, p.W, i > 0, dx, tail ? new WeightTail(p.B.Address, r, i * r, pad, p.Scaling) : default
                );
            if (i == 0 && outersB > 0) LaunchOuter(outerB, outersB, rows, widest, act, r);
            if (i == 0 && !tail) LaunchDown(down, n, rows, r, act);
        }
        if (together)
        {
            LaunchBackward(both, n, rows, ins, dx.Stride, act, r);
            return;
        }
        if (tail)
        {
            down[0].X = dx.Address + (nint)act.Bytes(ins);
            _gpu.Launch(
                K("lora.cu", act, "lora_split", r), ((int)(((long)rows * n * r / 8 + 255) / 256), 1), 256,
                Arg.Struct(&down), rows, dx.Stride, n);
        }
        if (outers > 0) LaunchOuter(outerA, outers, rows, ins, act, r);
        if (!dx.IsNone) LaunchUp(up, n, rows, ins, act, r);
    }

    // Parts of one x are shared by a block when there are registers for that; rows a block grow once such blocks fill
    // the card.
    private void LaunchDown(
        Parts parts, int count, int rows, int r, DType act, (int From, int To) zeros = default, bool shared = false)
    {
        bool together = shared && count > 1 && r == LoraGroupRank;
        int groups = together ? 1 : count;
        long full = _gpu.Processors * 7L / 8; // most of a wave
        int tile = rows / 64L * groups >= full ? 64 : rows / 32L * groups >= full ? 32 : 16;
        int warps = r > LoraDownFewAbove ? LoraDownFewWarps : LoraDownWarps;
        _gpu.Launch(
            K("lora.cu", act, DownKernel(tile, together ? count : 1), r), ((rows + tile - 1) / tile, groups),
            32 * warps, Arg.Struct(&parts), rows, zeros.From, zeros.To);
    }

    /// <summary>The kernel of a tile of 16, 32 or 64 rows for so many parts of one x.</summary>
    internal static string DownKernel(int tile, int count) => (tile, count) switch
    {
        (16, 1) => "lora_down16",
        (32, 1) => "lora_down32",
        (_, 1) => "lora_down64",
        (16, 2) => "lora_down16_2",
        (32, 2) => "lora_down32_2",
        (_, 2) => "lora_down64_2",
        (16, _) => "lora_down16_3",
        (32, _) => "lora_down32_3",
        _ => "lora_down64_3",
    };

    // Rows are shared out until three blocks a processor are there. Parts come first in the grid: those of one x run
    // side by side and read it from the second-level cache.
    private void LaunchOuter(Parts parts, int count, int rows, int widest, DType act, int r)
    {
        const int columns = LoraOuterColumns, tile = LoraOuterRows;
        int slabs = (widest + columns - 1) / columns, shared = LoraOuterSlots * tile * (columns + r) * 2;
        int splits = Math.Clamp(
            Math.Min(3 * _gpu.Processors / (slabs * count), (rows + 4 * tile - 1) / (4 * tile)), 1,
            (int)Math.Max(1, _scratchBytes / ((long)slabs * count * columns * r * 4)));
        if ((long)slabs * count > OuterCounters) splits = 1;
        int share = ((rows + splits - 1) / splits + tile - 1) / tile * tile;
        splits = (rows + share - 1) / share;
        _gpu.LaunchOn(
            _gpu.Main, Allowed(K("lora_outer.cu", act, "lora_outer", r), shared), (count, slabs), splits, columns,
            shared, Arg.Struct(&parts), rows, share, _scratch, _counters);
    }

    // dA and dx of a group: 87 us less of a layer at 4,096 rows than in two launches, 1.2 to 2 % of a step.
    private void LaunchBackward(Parts parts, int count, int rows, int columns, int ldy, DType act, int r)
    {
        const int threads = 32 * LoraWalkWarps; // as many columns
        int slabs = (columns + threads - 1) / threads,
            share = RowsOfAWarp(rows, columns, slabs, LoraBackwardBlocks - count, count * r);
        string name = count switch { 1 => "lora_backward1", 2 => "lora_backward2", _ => "lora_backward3" };
        _gpu.LaunchOn(
            _gpu.Main, K("lora_backward.cu", act, name, r), (slabs, (rows + share - 1) / share), threads,
            WalkShared(2, count, r), Arg.Struct(&parts), rows, share, ldy, _scratch, _counters);
    }

    // The rings of a block's warps: tiles of so many matrices and low-rank factors.
    private static int WalkShared(int matrices, int factors, int r) =>
        LoraWalkWarps * LoraWalkSlots * (matrices * LoraWalkBytes + factors * LoraWalkRows * r * 2);

    // How many rows a warp of 32 columns walks down: every processor has as many blocks as the kernel's registers
    // allow, but a warp four tiles at least; partial sums, so many a column, fit the scratch.
    private int RowsOfAWarp(int rows, int columns, int slabs, int fit, int sums)
    {
        const int tile = LoraWalkRows;
        int splits = Math.Clamp(
            Math.Min(fit * _gpu.Processors / slabs, (rows + 4 * tile - 1) / (4 * tile)), 1,
            (int)Math.Max(1, _scratchBytes / ((long)columns * sums * 4)));
        if (columns / 32 > OuterCounters) splits = 1;
        return ((rows + splits - 1) / splits + tile - 1) / tile * tile;
    }

    // count parts into one y of so many columns.
    private void LaunchUp(Parts parts, int count, int rows, int columns, DType act, int r)
    {
        const int threads = 32 * LoraUpWarps; // as many columns
        int across = (columns + threads - 1) / threads;
        // about three waves of two blocks a processor
        int span = Math.Max(16, (int)((long)rows * across / (6L * _gpu.Processors) + 15) / 16 * 16);
        string name = count switch { 1 => "lora_up", 2 => "lora_up2", _ => "lora_up3" };
        _gpu.Launch(
            K("lora.cu", act, name, r), (across, (rows + span - 1) / span), threads, Arg.Struct(&parts), rows, span);
    }

    private static Part DownPart(Tensor x, Tensor m, bool transposed, float scale, in Dropout d, Tensor y) =>
        ProductPart(m, transposed, scale, d, y) with { X = x.Address, Ldx = x.Stride, Tail = -1 };

    private static Part UpPart(Tensor z, Tensor m, bool transposed, float scale, in Dropout d, Tensor y) =>
        ProductPart(m, transposed, scale, d, y) with { Z = z.Address, Ldx = y.Stride };

    // What a product of an adapter has in either direction.
    private static Part ProductPart(Tensor m, bool transposed, float scale, in Dropout d, Tensor y) => new()
    {
        M = m.Address,
        Y = y.Address,
        N = transposed ? m.Rows : m.Columns,
        Transposed = transposed ? 1 : 0,
        Scale = scale,
        Drop = d.P > 0 ? 1 : 0,
        Mask = new Mask(d),
    };

    private static Part OuterPart(
        Tensor x, int columns, Tensor z, float scale, in Dropout d, bool transposed, Tensor sum) =>
        new()
        {
            X = x.Address,
            Z = z.Address,
            Out = sum.Address,
            N = columns,
            Transposed = transposed ? 1 : 0,
            Scale = scale,
            Drop = d.P > 0 ? 1 : 0,
            Ldx = x.Stride,
            Mask = new Mask(d),
        };
}
