using System.Runtime.CompilerServices;
using Headroom.Core;

namespace Headroom.Models;

/// <summary>How a layer's forward pass is run.</summary>
/// <param name="Dropout">Dropout of the micro-step.</param>
/// <param name="Training">Whether a backward pass follows: x A^T then stays even where the layer is recomputed.</param>
/// <param name="Keep">Whether the layer keeps its intermediate tensors for it.</param>
/// <param name="BaseAlone">Whether adapters have no part in it; never in training.</param>
internal readonly record struct LayerPass(Dropout Dropout, bool Training, bool Keep, bool BaseAlone = false)
{
    /// <summary>The row of the plan in which intermediate tensors are counted.</summary>
    public MemoryCategory Category => Keep ? MemoryCategory.SavedActivations : MemoryCategory.Scratch;
}

/// <summary>What an adapter keeps for its backward pass.</summary>
/// <param name="Xa">x A^T [T, r] of the dropped x, or none.</param>
/// <param name="U">DoRA: the output before its scaling [T, out], or none when it is not read again.</param>
/// <param name="IsKnown">Xa is there from the first forward pass of a recomputed layer.</param>
internal readonly record struct Kept(Tensor Xa, Tensor U, bool IsKnown = false);

/// <summary>What the adapters of a group keep.</summary>
[InlineArray(ProjectionGroup.Largest)]
internal struct GroupKept
{
    private Kept _first;
}

/// <summary>
/// Projections over one input: q, k and v; o; gate and up; down. It owns what goes with them: the room behind the rows
/// of the input that fused ops want, the dropped input of DoRA, what adapters keep for the backward pass, and the
/// scratch of their gradients.
/// </summary>
internal sealed class ProjectionGroup
{
    public const int Largest = 3;

    private readonly IOps _ops;
    private readonly IMemory _memory;
    private readonly DType _compute;
    private readonly bool _intoResidual, _dropsInput;
    private readonly Projection[] _members;
    private readonly int _in, _room;

    /// <param name="ops">The ops.</param>
    /// <param name="memory">Where buffers come from.</param>
    /// <param name="compute">Type of activations.</param>
    /// <param name="intoResidual">The output goes into the residual stream, whose gradient the backward pass must
    /// leave as it is.</param>
    /// <param name="members">The projections.</param>
    public ProjectionGroup(IOps ops, IMemory memory, DType compute, bool intoResidual, params Projection[] members)
    {
        (_ops, _memory, _compute) = (ops, memory, compute);
        (_intoResidual, _members, _in) = (intoResidual, members, members[0].Weight.In);
        _dropsInput = members.Any(p => p.DropsInput);
        if (ops is IFusedProjections fused && members.All(p => p.Rank > 0))
            _room = fused.Room(compute, _in, members.Sum(p => p.Rank));
    }

    /// <summary>The projections.</summary>
    public IReadOnlyList<Projection> Members => _members;

    /// <summary>
    /// True when the backward pass reads what the forward pass gave before it was scaled, so that a recomputed layer
    /// must make it too.
    /// </summary>
    public bool KeepsOutput => _members[0].IsDora;

    /// <summary>
    /// Columns of room behind the rows of the input; none where the products read the dropped input.
    /// </summary>
    public int Room(bool training) => training && _dropsInput ? 0 : _room;

    /// <summary>A buffer for the input, or its gradient: [T, in], with the room behind its rows.</summary>
    public Tensor Input(MemoryCategory category, string name, int tokens, bool training) =>
        _memory.Alloc(category, name, _compute, new Shape(tokens, _in + Room(training))).FirstColumns(_in);

    /// <summary>A buffer for the output of one projection, or its gradient: [T, out].</summary>
    public Tensor Output(int member, MemoryCategory category, string name, int tokens) =>
        _memory.Alloc(category, name, _compute, new Shape(tokens, _members[member].Weight.Out));

    /// <summary>
    /// Every output, plus <paramref name="residual"/> where there is one; an output that is none is wanted for what
    /// it keeps alone. A recomputed layer gives what its first pass kept in <paramref name="known"/>: x A^T is T r
    /// elements beside the layer's input of T hidden ones, so neither swiglu nor a product with A is done again.
    /// </summary>
    public GroupKept Forward(
        Tensor x, in LayerPass pass, in GroupKept known, ReadOnlySpan<Tensor> outputs, Tensor residual = default)
    {
        GroupKept kept = default;
        for (int i = 0; i < _members.Length; i++) kept[i] = _members[i].Keep(_memory, _compute, x.Rows, pass, known[i]);
        if (pass.Training && _dropsInput)
        {
            var dropped = Dropped(x.Rows);
            for (int i = 0; i < _members.Length; i++)
                _members[i].ForwardDropped(_ops, x, pass.Dropout, kept[i], outputs[i], residual, dropped);
            return kept;
        }
        Span<AdaptedLinear> parts = stackalloc AdaptedLinear[_members.Length];
        for (int i = 0; i < parts.Length; i++)
            parts[i] = pass.BaseAlone
                ? _members[i].BasePart(outputs[i], residual)
                : _members[i].ForwardPart(pass.Dropout, kept[i], outputs[i], residual);
        _ops.LinearGroup(x, parts);
        if (pass.BaseAlone) return kept;
        for (int i = 0; i < parts.Length; i++) _members[i].Scale(_ops, kept[i], outputs[i], residual);
        return kept;
    }

    /// <summary>
    /// From the gradients of the outputs, which DoRA overwrites unless they are the residual stream's, to those of
    /// everything trained, +=, and dx (skipped when none), the sum over the projections.
    /// </summary>
    public void Backward(
        Tensor x, in Dropout run, in GroupKept kept, ReadOnlySpan<Tensor> gradients, Tensor dx, bool gradB = true)
    {
        for (int i = 0; i < _members.Length; i++) _members[i].BackwardWeight(_ops, x, gradients[i]);
        Span<AdaptedLinear> parts = stackalloc AdaptedLinear[_members.Length];
        Backward(x, run, kept, gradients, dx, parts, gradA: true, gradB);
    }

    /// <summary>
    /// Of the group of down alone: from the gradient of its output to those of gate and up, in place of what they
    /// gave, and of what is trained of it. swiglu is made again on the way. True when gate's and up's gradients of B
    /// have been added, so that their group must leave them out.
    /// </summary>
    public bool SwiGluBackward(
        ProjectionGroup gateUp, in Dropout run, in GroupKept kept, in GroupKept keptGateUp, Tensor dy, Tensor gate,
        Tensor up)
    {
        var down = _members[0];
        var act = Input(MemoryCategory.Scratch, "swiglu", dy.Rows, training: true);
        bool added = false;
        if (down.IsDora)
        {
            Span<AdaptedLinear> parts = stackalloc AdaptedLinear[1];
            Backward(default, run, kept, [dy], act, parts, gradA: false, gradB: true);
            _ops.SwiGluBackward(gate, up, act, gate, up, act);
            down.BackwardA(_ops, act, parts[0]);
        }
        else
        {
            var part = down.BackwardPart(_memory, run, kept[0], dy, dy);
            added = _ops.SwiGluGroupBackward(
                part, gateUp._members[0].OutputPart(run, keptGateUp[0], gate),
                gateUp._members[1].OutputPart(run, keptGateUp[1], up), act);
        }
        down.BackwardWeight(_ops, act, dy);
        return added;
    }

    private void Backward(Tensor x, in Dropout run, in GroupKept kept, ReadOnlySpan<Tensor> gradients, Tensor dx,
        Span<AdaptedLinear> parts, bool gradA, bool gradB)
    {
        for (int i = 0; i < parts.Length; i++)
        {
            var (p, dy) = (_members[i], gradients[i]);
            var scaled = p.IsDora && _intoResidual
                ? _memory.Alloc(MemoryCategory.Scratch, "dora gradient", dy.DType, dy.Shape) : dy;
            parts[i] = p.BackwardPart(_memory, run, kept[i], dy, scaled, gradA, gradB);
            if (!_dropsInput) p.Unscale(_ops, kept[i], dy, scaled);
        }
        if (!_dropsInput)
        {
            _ops.LinearGroupBackward(x, parts, dx);
            return;
        }
        var dropped = dx.IsNone ? default : Dropped(gradients[0].Rows);
        for (int i = 0; i < parts.Length; i++)
            _members[i].BackwardDropped(_ops, x, kept[i], gradients[i], parts[i], dx, i > 0, dropped);
    }

    // Scratch of a group whose adapters need the dropped input as a tensor (DoRA with dropout).
    private Tensor Dropped(int tokens) =>
        _memory.Alloc(MemoryCategory.Scratch, "dropped input", _compute, new Shape(tokens, _in));
}
