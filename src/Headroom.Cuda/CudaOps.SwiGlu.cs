using Headroom.Core;
using static Headroom.Cuda.KernelConstants;

namespace Headroom.Cuda;

internal sealed unsafe partial class CudaOps
{
    /// <inheritdoc/>
    public void SwiGlu(Tensor gate, Tensor up, Tensor y)
    {
        using var _ = OpTimer.Op("swiglu");
        _gpu.Launch(
            K("elements.cu", y.DType, "swiglu"), (_gpu.Blocks(gate.Count, 2048), 1), 256, gate, up, y, gate.Count,
            y.Gap, Magic(gate.Columns / 8));
    }

    /// <inheritdoc/>
    public void SwiGluBackward(Tensor gate, Tensor up, Tensor dy, Tensor dGate, Tensor dUp, Tensor y = default)
    {
        using var _ = OpTimer.Op("swiglu_backward");
        _gpu.Launch(
            K("elements.cu", dy.DType, "swiglu_backward"), (_gpu.Blocks(gate.Count, 2048), 1), 256, gate, up, dy, dGate,
            dUp, y, gate.Count, dy.Gap, Magic(gate.Columns / 8));
    }

    /// <inheritdoc/>
    public bool SwiGluGroupBackward(in AdaptedLinear down, in AdaptedLinear gate, in AdaptedLinear up, Tensor dAct)
    {
        const int r = LoraGroupRank;
        if (
            down.DA.IsNone
            || down.DA.Rows != r
            || gate.DB.IsNone
            || gate.DB.Columns != r
            || up.DB.IsNone
            || !Fusable([down])
            || !Fusable([gate, up])
        )
        {
            GroupedOps.OneByOne(this, down, gate, up, dAct);
            return false;
        }
        _gpu.MakeCurrent();
        var act = dAct.DType;
        int rows = dAct.Rows, n = down.W.In, pad = dAct.Gap;
        bool tail = pad >= r && WeightExpander.TakesTail(down.W);
        BackwardInput(
            down.Y, down.W, false, dAct,
            tail ? new WeightTail(down.B.Address, r, 0, pad, down.Scaling) : default);
        Parts outer = default, parts = default;
        outer[0] = OuterPart(down.Y, down.Y.Columns, down.Xa, down.Scaling, default, true, down.DB);
        LaunchOuter(outer, 1, rows, down.Y.Columns, act, r);
        if (!tail)
        {
            Parts products = default;
            products[0] = DownPart(down.Y, down.B, true, down.Scaling, default, down.Dxa);
            LaunchDown(products, 1, rows, r, act);
        }
        parts[0] = OuterPart(dAct, n, down.Dxa, 1, down.Dropout, false, down.DA);
        (parts[0].M, parts[0].Tail) = (down.A.Address, tail ? n : -1);
        parts[1] = OuterPart(default, n, gate.Xa, gate.Scaling, default, true, gate.DB);
        parts[2] = OuterPart(default, n, up.Xa, up.Scaling, default, true, up.DB);
        (parts[1].Y, parts[2].Y) = (gate.Y.Address, up.Y.Address);
        StepOf(down.Dropout, "lora_swiglu.cu", act, r);
        const int threads = 32 * LoraWalkWarps; // as many columns
        int slabs = (n + threads - 1) / threads,
            share = RowsOfAWarp(rows, n, slabs, LoraSwigluBlocks, 3 * r),
            shared = WalkShared(3, 3, r);
        _gpu.LaunchOn(
            _gpu.Main, Allowed(K("lora_swiglu.cu", act, "lora_swiglu", r), shared), (slabs, (rows + share - 1) / share),
            threads, shared, Arg.Struct(&parts), rows, share, _scratch, _counters);
        return true;
    }
}
