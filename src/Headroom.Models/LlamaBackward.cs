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
            if (Recomputes(i))
                s = LayerForward(i, s.Input, batch, dropout, null, default, keep: true, training: true);
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
        // One pass in place: gate and up become their gradients, the gradient of swiglu becomes swiglu, which only down's A still waits for.
        var act = Temp(MemoryCategory.Scratch, "swiglu", tokens, inter + Padding(layer.Down));
        AdaptedLinear down = layer.Down.BackwardPart(_memory, dropout, s.XaDown, dh, gradA: false);
        _ops.LinearGroupBackward(default, [down], act);
        _ops.SwiGluBackward(s.Gate, s.Up, act, s.Gate, s.Up, act);
        layer.Down.BackwardA(_ops, act, down);
        layer.Down.BackwardWeight(_ops, act, dh);
        _memory.Free(down.Dxa);
        _memory.Free(act);
        _memory.Free(s.XaDown);
        var x = Temp(MemoryCategory.Scratch, "norm output", tokens, hidden);
        var rstd = _memory.Alloc(MemoryCategory.Scratch, "rstd", DType.F32, Shape.Of(tokens));
        _ops.RmsNorm(s.Mid, layer.Norm2, Config.RmsNormEps, x, rstd);
        var dx = Temp(MemoryCategory.Scratch, "norm gradient", tokens, hidden + Padding(layer.Gate, layer.Up));
        layer.Gate.BackwardWeight(_ops, x, s.Gate);
        layer.Up.BackwardWeight(_ops, x, s.Up);
        AdaptedLinear gate = layer.Gate.BackwardPart(_memory, dropout, s.XaGate, s.Gate), up = layer.Up.BackwardPart(_memory, dropout, s.XaUp, s.Up);
        _ops.LinearGroupBackward(x, [gate, up], dx);
        _memory.Free(gate.Dxa);
        _memory.Free(up.Dxa);
        _ops.RmsNormBackward(s.Mid, layer.Norm2, s.Rstd2, dx, dh, layer.GradNorm2);
        _memory.Free(dx);
        _memory.Free(s.Gate);
        _memory.Free(s.Up);
        _memory.Free(s.XaGate);
        _memory.Free(s.XaUp);
        _memory.Free(s.Mid);
        _memory.Free(s.Rstd2);

        // Attention: mid = input + o(attention(rope(q), rope(k), v))
        var dO = Temp(MemoryCategory.Scratch, "attention gradient", tokens, s.O.Columns);
        layer.O.Backward(_ops, _memory, s.O, dropout, s.XaO, dh, dO);
        var dq = Temp(MemoryCategory.Scratch, "dq", tokens, s.Q.Columns);
        var dk = Temp(MemoryCategory.Scratch, "dk", tokens, s.K.Columns);
        var dv = Temp(MemoryCategory.Scratch, "dv", tokens, s.V.Columns);
        var delta = Temp32(MemoryCategory.Scratch, "delta", tokens, Config.NumAttentionHeads);
        _ops.AttentionBackward(s.Q, s.K, s.V, s.O, s.Lse, dO, batch.Offsets, layer.Attention, delta, dq, dk, dv, _cos, _sin);
        _memory.Free(delta);
        _memory.Free(dO);
        _memory.Free(s.Q);
        _memory.Free(s.K);
        _memory.Free(s.V);
        _memory.Free(s.O);
        _memory.Free(s.Lse);
        _memory.Free(s.XaO);
        _ops.RmsNorm(s.Input, layer.Norm1, Config.RmsNormEps, x, rstd);
        // Below the first layer nothing is trained when the base is frozen, so its input gradient is not computed.
        bool last = index == 0 && Settings.Mode != TrainMode.Full;
        dx = last ? default : Temp(MemoryCategory.Scratch, "norm gradient", tokens, hidden + Padding(layer.Q, layer.K, layer.V));
        layer.Q.BackwardWeight(_ops, x, dq);
        layer.K.BackwardWeight(_ops, x, dk);
        layer.V.BackwardWeight(_ops, x, dv);
        AdaptedLinear q = layer.Q.BackwardPart(_memory, dropout, s.XaQ, dq), k = layer.K.BackwardPart(_memory, dropout, s.XaK, dk), v = layer.V.BackwardPart(_memory, dropout, s.XaV, dv);
        _ops.LinearGroupBackward(x, [q, k, v], dx);
        _memory.Free(q.Dxa);
        _memory.Free(k.Dxa);
        _memory.Free(v.Dxa);
        if (!last) _ops.RmsNormBackward(s.Input, layer.Norm1, s.Rstd1, dx, dh, layer.GradNorm1);
        _memory.Free(dq);
        _memory.Free(dk);
        _memory.Free(dv);
        _memory.Free(x);
        _memory.Free(rstd);
        if (!last) _memory.Free(dx);
        _memory.Free(s.XaQ);
        _memory.Free(s.XaK);
        _memory.Free(s.XaV);
        _memory.Free(s.Rstd1);
    }
}
