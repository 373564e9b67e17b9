namespace Headroom.Core;

/// <summary>
/// What the ops of several projections mean, one op at a time: for devices that do not do them together, and for those
/// groups that they do not.
/// </summary>
public static class GroupedOps
{
    /// <summary><see cref="IOps.LinearGroup"/>.</summary>
    public static void LinearGroup(IOps ops, Tensor x, ReadOnlySpan<AdaptedLinear> group)
    {
        foreach (ref readonly var p in group)
        {
            ops.Linear(x, p.W, p.Y);
            if (!p.B.IsNone) ops.LoraForward(x, p.A, p.B, p.Scaling, p.Dropout, p.Xa, p.Y);
            if (!p.Residual.IsNone) ops.Add(p.Residual, p.Y);
        }
    }

    /// <summary><see cref="IOps.LinearGroupBackward"/>.</summary>
    public static void LinearGroupBackward(IOps ops, Tensor x, ReadOnlySpan<AdaptedLinear> group, Tensor dx)
    {
        for (int i = 0; i < group.Length; i++)
        {
            ref readonly var p = ref group[i];
            if (!dx.IsNone) ops.LinearBackwardInput(p.Y, p.W, i > 0, dx);
            if (!p.A.IsNone) ops.LoraBackward(x, p.A, p.B, p.Scaling, p.Dropout, p.Xa, p.Y, p.Dxa, p.DA, p.DB, dx);
        }
    }

    /// <summary>
    /// <see cref="IOps.SwiGluGroupBackward"/> without the gradients of B of gate and up. In place: the gradient of act
    /// becomes act, which only down's A still waits for.
    /// </summary>
    public static void SwiGluGroupBackward(
        IOps ops, in AdaptedLinear down, in AdaptedLinear gate, in AdaptedLinear up, Tensor dAct)
    {
        ops.LinearGroupBackward(default, [down with { DA = default }], dAct);
        ops.SwiGluBackward(gate.Y, up.Y, dAct, gate.Y, up.Y, dAct);
        if (!down.DA.IsNone) ops.LoraBackwardA(dAct, down.Dropout, down.Dxa, down.DA);
    }
}
