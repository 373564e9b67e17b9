using Headroom.Core;

namespace Headroom.Models;

internal sealed partial class LlamaModel
{
    /// <summary>
    /// From dh, the gradient of the last residual stream (changed in place), to the gradient of every trained tensor.
    /// </summary>
    private void Backward(in BatchTensors batch, in Dropout dropout, Tensor dh)
    {
        for (int i = _layers.Length - 1; i >= 0; i--)
        {
            var s = _saved[i];
            if (Recomputes(i))
                s = LayerForward(i, s, batch, new LayerPass(dropout, Training: true, Keep: true), null, default);
            LayerBackward(i, batch, dropout, s, dh);
        }
        if (!_gradEmbedding.IsNone) _ops.EmbeddingBackward(batch.Ids, dh, _gradEmbedding);
    }

    // From the gradient of a layer's output to that of its input, in place. What was cheap to make was not kept: swiglu
    // and the norms' outputs are made again.
    private void LayerBackward(int index, in BatchTensors batch, in Dropout dropout, in Saved s, Tensor dh)
    {
        var (l, scratch, tokens) = (_layers[index], MemoryCategory.Scratch, dh.Rows);

        // next = mid + down(silu(gate) * up); gate and up become their gradients.
        bool added = l.Down.SwiGluBackward(l.GateUp, dropout, s.KeptDown, s.KeptGateUp, dh, s.Gate, s.Up);
        var x = NormAgain(s.Mid, l.Norm2);
        var dx = l.GateUp.Input(scratch, "norm gradient", tokens, training: true);
        l.GateUp.Backward(x, dropout, s.KeptGateUp, [s.Gate, s.Up], dx, gradB: !added);
        _ops.RmsNormBackward(s.Mid, l.Norm2, s.Rstd2, dx, dh, l.GradNorm2);

        // mid = input + o(attention(rope(q), rope(k), v)), some families with a norm of each head before rope
        var dO = l.O.Input(scratch, "attention gradient", tokens, training: true);
        l.O.Backward(s.O, dropout, s.KeptO, [dh], dO);
        var dq = l.Qkv.Output(0, scratch, "dq", tokens);
        var dk = l.Qkv.Output(1, scratch, "dk", tokens);
        var dv = l.Qkv.Output(2, scratch, "dv", tokens);
        var delta = Temp32(scratch, "delta", tokens, Config.NumAttentionHeads);
        var heads = l.NormsHeads ? Rotate(l, s.Q, s.K, apart: true) : new RotatedHeads(s.Q, s.K);
        _ops.AttentionBackward(
            heads.Q, heads.K, s.V, s.O, s.Lse, dO, batch.Offsets, l.Attention, delta, dq, dk, dv, _cos, _sin);
        if (l.NormsHeads) (dq, dk) = HeadNormBackward(l, s, heads, dq, dk);
        x = NormAgain(s.Input, l.Norm1);
        // Below the first layer nothing is trained when the base is frozen, so its input gradient is not computed.
        bool last = index == 0 && _gradEmbedding.IsNone && l.GradNorm1.IsNone;
        dx = last ? default : l.Qkv.Input(scratch, "norm gradient", tokens, training: true);
        l.Qkv.Backward(x, dropout, s.KeptQkv, [dq, dk, dv], dx);
        if (!last) _ops.RmsNormBackward(s.Input, l.Norm1, s.Rstd1, dx, dh, l.GradNorm1);
    }

    private Tensor NormAgain(Tensor input, Tensor weight)
    {
        var x = Temp(MemoryCategory.Scratch, "norm output", input.Rows, Config.HiddenSize);
        _ops.RmsNorm(input, weight, Config.RmsNormEps, x, Rstd(MemoryCategory.Scratch, input.Rows));
        return x;
    }
}
