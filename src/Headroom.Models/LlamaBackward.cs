using Headroom.Core;

namespace Headroom.Models;

public sealed partial class LlamaModel
{
    /// <summary>From dh, the gradient of the last residual stream (changed in place), to the gradient of every trained tensor.</summary>
    private void Backward(in BatchTensors batch, in Dropout dropout, Tensor dh)
    {
        for (int i = _layers.Length - 1; i >= 0; i--)
        {
            var s = _saved[i];
            if (Recomputes(i)) s = LayerForward(i, s, batch, dropout, null, default, keep: true, training: true);
            LayerBackward(i, batch, dropout, s, dh);
            _memory.Free(s.Input);
        }
        if (!_gradEmbedding.IsNone) _ops.EmbeddingBackward(batch.Ids, dh, _gradEmbedding);
        _memory.Free(dh);
        _memory.Free(_cos);
        _memory.Free(_sin);
    }

    private void LayerBackward(int index, in BatchTensors batch, in Dropout dropout, in Saved s, Tensor dh)
    {
        var layer = _layers[index];
        int tokens = dh.Rows, hidden = Config.HiddenSize, inter = Config.IntermediateSize;

        // MLP: next = mid + down(swiglu(gate, up)); swiglu and the norm's output are recomputed, never kept.
        var dropped = Dropped(true, tokens, inter, layer.Down);
        var act = Temp(MemoryCategory.Scratch, "swiglu", tokens, inter + Padding(dropped, layer.Down));
        Span<AdaptedLinear> parts = stackalloc AdaptedLinear[3];
        Pass gate = layer.Gate.BackwardPass(_memory, s.KeptGate, s.Gate), up = layer.Up.BackwardPass(_memory, s.KeptUp, s.Up);
        bool added = Projection.SwiGluBackward(_ops, _memory, dropout, layer.Down.BackwardPass(_memory, s.KeptDown, dh, keepDy: true), gate, up, act, dropped);
        (gate, up) = (gate with { GradB = !added }, up with { GradB = !added });
        _memory.Free(dropped);
        layer.Down.BackwardWeight(_ops, act, dh);
        _memory.Free(act);
        s.KeptDown.Free(_memory);
        var x = Temp(MemoryCategory.Scratch, "norm output", tokens, hidden);
        var rstd = _memory.Alloc(MemoryCategory.Scratch, "rstd", DType.F32, Shape.Of(tokens));
        _ops.RmsNorm(s.Mid, layer.Norm2, Config.RmsNormEps, x, rstd);
        dropped = Dropped(true, tokens, hidden, layer.Gate, layer.Up);
        var dx = Temp(MemoryCategory.Scratch, "norm gradient", tokens, hidden + Padding(dropped, layer.Gate, layer.Up));
        layer.Gate.BackwardWeight(_ops, x, s.Gate);
        layer.Up.BackwardWeight(_ops, x, s.Up);
        Projection.Backward(_ops, _memory, x, dropout, [gate, up], dx, dropped, parts);
        _memory.Free(dropped);
        Projection.Free(_memory, gate, parts[0]);
        Projection.Free(_memory, up, parts[1]);
        _ops.RmsNormBackward(s.Mid, layer.Norm2, s.Rstd2, dx, dh, layer.GradNorm2);
        _memory.Free(dx);
        _memory.Free(s.Gate);
        _memory.Free(s.Up);
        s.KeptGate.Free(_memory);
        s.KeptUp.Free(_memory);
        _memory.Free(s.Mid);
        _memory.Free(s.Rstd2);

        // Attention: mid = input + o(attention(rope(q), rope(k), v)), some families with a norm of each head before rope
        var dO = Temp(MemoryCategory.Scratch, "attention gradient", tokens, s.O.Columns); // with the same further columns
        layer.O.BackwardWeight(_ops, s.O, dh);
        var o = layer.O.BackwardPass(_memory, s.KeptO, dh, keepDy: true);
        dropped = Dropped(true, tokens, s.Q.Columns, layer.O);
        Projection.Backward(_ops, _memory, s.O, dropout, [o], dO, dropped, parts);
        _memory.Free(dropped);
        Projection.Free(_memory, o, parts[0]);
        var dq = Temp(MemoryCategory.Scratch, "dq", tokens, s.Q.Columns);
        var dk = Temp(MemoryCategory.Scratch, "dk", tokens, s.K.Columns);
        var dv = Temp(MemoryCategory.Scratch, "dv", tokens, s.V.Columns);
        var delta = Temp32(MemoryCategory.Scratch, "delta", tokens, Config.NumAttentionHeads);
        var heads = layer.NormsHeads ? Rotate(layer, s.Q, s.K, apart: true) : new RotatedHeads(s.Q, s.K);
        _ops.AttentionBackward(heads.Q, heads.K, s.V, s.O, s.Lse, dO, batch.Offsets, layer.Attention, delta, dq, dk, dv, _cos, _sin);
        if (layer.NormsHeads) (dq, dk) = HeadNormBackward(layer, s, heads, dq, dk);
        _memory.Free(delta);
        _memory.Free(dO);
        _memory.Free(s.Q);
        _memory.Free(s.K);
        _memory.Free(s.V);
        _memory.Free(s.O);
        _memory.Free(s.Lse);
        s.KeptO.Free(_memory);
        _ops.RmsNorm(s.Input, layer.Norm1, Config.RmsNormEps, x, rstd);
        // Below the first layer nothing is trained when the base is frozen, so its input gradient is not computed.
        bool last = index == 0 && _gradEmbedding.IsNone && layer.GradNorm1.IsNone;
        dropped = Dropped(true, tokens, hidden, layer.Q, layer.K, layer.V);
        dx = last ? default : Temp(MemoryCategory.Scratch, "norm gradient", tokens, hidden + Padding(dropped, layer.Q, layer.K, layer.V));
        layer.Q.BackwardWeight(_ops, x, dq);
        layer.K.BackwardWeight(_ops, x, dk);
        layer.V.BackwardWeight(_ops, x, dv);
        Pass q = layer.Q.BackwardPass(_memory, s.KeptQ, dq), k = layer.K.BackwardPass(_memory, s.KeptK, dk), v = layer.V.BackwardPass(_memory, s.KeptV, dv);
        Projection.Backward(_ops, _memory, x, dropout, [q, k, v], dx, dropped, parts);
        _memory.Free(dropped);
        Projection.Free(_memory, q, parts[0]);
        Projection.Free(_memory, k, parts[1]);
        Projection.Free(_memory, v, parts[2]);
        if (!last) _ops.RmsNormBackward(s.Input, layer.Norm1, s.Rstd1, dx, dh, layer.GradNorm1);
        _memory.Free(dq);
        _memory.Free(dk);
        _memory.Free(dv);
        _memory.Free(x);
        _memory.Free(rstd);
        _memory.Free(dx);
        s.KeptQ.Free(_memory);
        s.KeptK.Free(_memory);
        s.KeptV.Free(_memory);
        _memory.Free(s.Rstd1);
    }
}
