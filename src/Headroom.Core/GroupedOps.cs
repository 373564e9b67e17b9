namespace Headroom.Core;

/// <summary>
/// Ops of a whole group of projections over one input: fused where the ops can (<see cref="IFusedProjections"/>), else
/// one op at a time.
/// </summary>
internal static class GroupedOps
{
    /// <summary><see cref="IOps.LoraLinear"/> of every projection. x [T, in].</summary>
    public static void LinearGroup(this IOps ops, Tensor x, ReadOnlySpan<AdaptedLinear> group)
    {
        using var _ = OpTimer.Op("linear");
        if (ops is IFusedProjections fused) fused.LinearGroup(x, group);
        else foreach (ref readonly var p in group) ops.LoraLinear(x, p);
    }

    /// <summary>
    /// Gradients of a group: adapters +=, dx [T, in] = the sum over the projections (skipped when none). Weight
    /// gradients of the base are not in it. x [T, in] may be none for projections without
    /// <see cref="AdaptedLinear.DA"/>.
    /// </summary>
    public static void LinearGroupBackward(
        this IOps ops, Tensor x, ReadOnlySpan<AdaptedLinear> group, Tensor dx)
    {
        using var _ = OpTimer.Op("linear_backward_input");
        if (ops is IFusedProjections fused) fused.LinearGroupBackward(x, group, dx);
        else OneByOne(ops, x, group, dx);
    }

    /// <summary>
    /// The gradient of an MLP's output on its way through down and SwiGLU: act = silu(gate) * up, d act as
    /// <see cref="LinearGroupBackward"/> gives it from down (adapter +=, no x), then gate.Y and up.Y [T, I], which hold
    /// what gate and up gave, become their gradients. dAct is scratch [T, I]; where down has no
    /// <see cref="AdaptedLinear.DA"/> it holds act afterwards. True when the gradients of B of gate and up have been
    /// added too (fused ops see what they need go by); then they must not be asked for again.
    /// </summary>
    public static bool SwiGluGroupBackward(
        this IOps ops, in AdaptedLinear down, in AdaptedLinear gate, in AdaptedLinear up, Tensor dAct)
    {
        using var _ = OpTimer.Op("down_swiglu_backward");
        if (ops is IFusedProjections fused) return fused.SwiGluGroupBackward(down, gate, up, dAct);
        OneByOne(ops, down, gate, up, dAct);
        return false;
    }

    /// <summary><see cref="LinearGroupBackward"/>, one op at a time.</summary>
    public static void OneByOne(IOps ops, Tensor x, ReadOnlySpan<AdaptedLinear> group, Tensor dx)
    {
        for (int i = 0; i < group.Length; i++)
        {
            ref readonly var p = ref group[i];
            if (!dx.IsNone) ops.LinearBackwardInput(p.Y, p.W, i > 0, dx);
            if (!p.A.IsNone) ops.LoraBackward(x, p.A, p.B, p.Scaling, p.Dropout, p.Xa, p.Y, p.Dxa, p.DA, p.DB, dx);
        }
    }

    /// <summary>
    /// <see cref="SwiGluGroupBackward"/>, one op at a time and without the gradients of B of gate and up. In place: the
    /// gradient of act becomes act, which only down's A still waits for.
    /// </summary>
    public static void OneByOne(
        IOps ops, in AdaptedLinear down, in AdaptedLinear gate, in AdaptedLinear up, Tensor dAct)
    {
        ops.LinearGroupBackward(default, [down with { DA = default }], dAct);
        ops.SwiGluBackward(gate.Y, up.Y, dAct, gate.Y, up.Y, dAct);
        if (!down.DA.IsNone) ops.LoraBackwardA(dAct, down.Dropout, down.Dxa, down.DA);
    }
}
