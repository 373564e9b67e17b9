namespace Headroom.Core;

/// <summary>
/// Ops that do the projections of a group together, their LoRA pairs with them. A GPU puts every xa = dropout(x) A^T
/// into room behind the rows of x, so that [x, xa] [W, scaling B]^T is one product, and has every dxa come out in room
/// behind the rows of dx, as dy [W, scaling B] is one too. Call the extensions of <see cref="GroupedOps"/>, which do
/// one op at a time on other ops.
/// </summary>
internal interface IFusedProjections : IOps
{
    /// <summary>
    /// Columns of room wanted behind the rows of a group's input and of its gradient; they are the fused ops' own, and
    /// without them the results are the same. One product takes the pairs along where rows are whole groups of 64
    /// elements of 16 bits, and so is the room. A plan is made by these ops too and must give the device's answer, so
    /// the rule stands here, once.
    /// </summary>
    /// <param name="compute">Type of activations.</param>
    /// <param name="columns">Columns of the input.</param>
    /// <param name="ranks">Sum of the ranks of the group, each of which is adapted.</param>
    int Room(DType compute, int columns, int ranks) =>
        compute != DType.F32 && columns % 64 == 0 ? (ranks + 63) / 64 * 64 : 0;

    /// <inheritdoc cref="GroupedOps.LinearGroup"/>
    void LinearGroup(Tensor x, ReadOnlySpan<AdaptedLinear> group);
    /// <inheritdoc cref="GroupedOps.LinearGroupBackward"/>
    void LinearGroupBackward(Tensor x, ReadOnlySpan<AdaptedLinear> group, Tensor dx);
    /// <inheritdoc cref="GroupedOps.SwiGluGroupBackward"/>
    bool SwiGluGroupBackward(in AdaptedLinear down, in AdaptedLinear gate, in AdaptedLinear up, Tensor dAct);
}
