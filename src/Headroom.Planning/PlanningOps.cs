using Headroom.Core;

namespace Headroom.Planning;

/// <summary>FLOPs and bytes that one op kind was counted with.</summary>
internal sealed class OpCount
{
    /// <summary>Calls.</summary>
    public long Calls { get; set; }
    /// <summary>Floating-point operations (a multiply-add is two).</summary>
    public double Flops { get; set; }
    /// <summary>Fewest bytes moved: each input read once, each output written once.</summary>
    public double Bytes { get; set; }
}

/// <summary>
/// Computes nothing: checks shapes and dtypes (the only place that does), tells the memory what each op reads and
/// writes, from which lifetimes follow, and counts FLOPs and bytes per op.
/// A failed check is a fault of the model code, hence <see cref="InvalidOperationException"/>.
/// </summary>
internal sealed partial class PlanningOps(PlanningMemory memory) : IFusedProjections
{
    private readonly Dictionary<string, OpCount> _counts = [];
    private string? _within; // the op whose parts are counted
    private int _together; // within parts of an op that a device may do at once: their operands are alive together

    /// <summary>Counts by op name.</summary>
    public IReadOnlyDictionary<string, OpCount> Counts => _counts;
    /// <summary>Sum of all FLOPs.</summary>
    public double Flops => _counts.Values.Sum(c => c.Flops);
    /// <summary>Sets all counts to zero.</summary>
    public void ResetCounts() => _counts.Clear();

    /// <inheritdoc/>
    public void Zero(Tensor x) { Dense(x); Count("zero", 0, x); }
    /// <inheritdoc/>
    public void Copy(Tensor src, Tensor dst) { Same(src, dst); Count("copy", 0, src, dst); }
    /// <inheritdoc/>
    public void Add(Tensor x, Tensor y) { Same(x, y); Count("add", x.Count, x, y, y); }
    /// <inheritdoc/>
    public void ZeroAll(ReadOnlySpan<Tensor> tensors) { _together++; foreach (var x in tensors) Zero(x); End(); }
    /// <inheritdoc/>
    public void GatherRows(Tensor x, Tensor rows, Tensor y)
    {
        Act(x, x.Rows, y.Columns);
        Dense(y);
        Ints(rows, y.Rows);
        Count("gather", 0, y, y, rows);
    }

    /// <inheritdoc/>
    public void ScatterRows(Tensor y, Tensor rows, Tensor x)
    {
        Act(x, x.Rows, y.Columns);
        Dense(y);
        Ints(rows, y.Rows);
        Count("scatter", 0, y, x, rows);
    }

    /// <inheritdoc/>
    public void Embedding(Tensor ids, in LinearWeight table, Tensor y)
    {
        Ints(ids, y.Rows);
        Weight(table);
        Require(table.Storage is not (WeightStorage.NF4 or WeightStorage.NF4Double), "embedding tables are not NF4");
        Act(y, y.Rows, table.In);
        Count("embedding", 0, ids, y, y);
    }

    /// <inheritdoc/>
    public void AddNoise(Tensor offsets, in EmbeddingNoise noise, Tensor y)
    {
        Use(offsets);
        Dense(y);
        Count("add_noise", 2.0 * y.Count, y, y);
    }

    /// <inheritdoc/>
    public void EmbeddingBackward(Tensor ids, Tensor dy, Tensor dTable)
    {
        F32(dTable, dTable.Rows, dy.Columns);
        Dense(dy);
        Ints(ids, dy.Rows);
        Count("embedding_backward", dy.Count, dy, dy, dy);
    }

    /// <inheritdoc/>
    public void RmsNorm(Tensor x, Tensor weight, float eps, Tensor y, Tensor rstd)
    {
        Strided(y, x.Rows, x.Columns);
        Like(x, y);
        F32(weight, x.Columns);
        F32(rstd, x.Rows);
        Count("rms_norm", 4.0 * x.Count, x, y);
    }

    /// <inheritdoc/>
    public void AddRmsNorm(Tensor x, Tensor branch, Tensor weight, float eps, Tensor sum, Tensor y, Tensor rstd)
    {
        Same(x, branch);
        Same(x, sum);
        Strided(y, x.Rows, x.Columns);
        Like(x, y);
        F32(weight, x.Columns);
        F32(rstd, x.Rows);
        Count("add_rms_norm", 5.0 * x.Count, x, branch, sum, y);
    }

    /// <inheritdoc/>
    public void RmsNormBackward(Tensor x, Tensor weight, Tensor rstd, Tensor dy, Tensor dx, Tensor dWeight)
    {
        Strided(dy, x.Rows, x.Columns);
        Like(x, dy);
        Same(x, dx);
        F32(weight, x.Columns);
        F32(rstd, x.Rows);
        if (!dWeight.IsNone) F32(dWeight, x.Columns);
        Count("rms_norm_backward", 8.0 * x.Count, x, dy, dx, dx);
    }

    /// <inheritdoc/>
    public void Linear(Tensor x, in LinearWeight w, Tensor y)
    {
        Weight(w);
        Strided(x, x.Rows, w.In);
        if (y.DType != DType.F32) Like(x, y);
        Act(y, x.Rows, w.Out);
        Count("linear", 2.0 * x.Rows * w.In * w.Out, w.Bytes, x, y);
    }

    /// <inheritdoc/>
    public void LinearBackwardInput(Tensor dy, in LinearWeight w, bool accumulate, Tensor dx)
    {
        Weight(w);
        Act(dy, dx.Rows, w.Out);
        Strided(dx, dy.Rows, w.In);
        Like(dy, dx);
        Count("linear_backward_input", 2.0 * dy.Rows * w.In * w.Out, w.Bytes, dy, dx);
    }

    /// <inheritdoc/>
    public void LinearBackwardWeight(Tensor x, Tensor dy, Tensor dW, Tensor dBias)
    {
        Act(x, dy.Rows, x.Columns);
        Dense(dy);
        Like(x, dy);
        F32(dW, dy.Columns, x.Columns);
        if (!dBias.IsNone) F32(dBias, dy.Columns);
        Count("linear_backward_weight", 2.0 * x.Rows * x.Columns * dy.Columns, x, dy, dW, dW);
    }

    /// <inheritdoc/>
    public void LoraForward(Tensor x, Tensor a, Tensor b, float scaling, in Dropout dropout, Tensor xa, Tensor y)
    {
        LoraShapes(x, a, b, xa, y);
        if (a.IsNone) Count("lora", 2.0 * xa.Count * y.Columns, xa, b, y, y);
        else Count("lora", 2.0 * x.Rows * a.Rows * (a.Columns + y.Columns), x, a, b, y, y);
    }

    /// <inheritdoc/>
    public void LoraBackward(
        Tensor x, Tensor a, Tensor b, float scaling, in Dropout dropout, Tensor xa, Tensor dy, Tensor dxa, Tensor dA,
        Tensor dB, Tensor dx)
    {
        _together++;
        Same(xa, dxa);
        Same(b, dB);
        Act(xa, dy.Rows, a.Rows);
        F32(b, dy.Columns, a.Rows);
        if (!dx.IsNone) Strided(dx, dy.Rows, a.Columns);
        Count(
            "lora_backward", 2.0 * dy.Rows * a.Rows * (2.0 * dy.Columns + (dx.IsNone ? 0.0 : 1.0) * a.Columns), dy, a,
            b, dB);
        if (!dA.IsNone) LoraBackwardA(x, dropout, dxa, dA);
        End();
    }

    /// <inheritdoc/>
    public void LoraBackwardA(Tensor x, in Dropout dropout, Tensor dxa, Tensor dA)
    {
        Strided(x, dxa.Rows, dA.Columns);
        F32(dA, dxa.Columns, dA.Columns);
        Act(dxa, x.Rows, dxa.Columns);
        Like(x, dxa);
        Count("lora_backward", 2.0 * x.Rows * dA.Count, x, dA);
    }

    /// <inheritdoc/>
    public void Drop(Tensor x, in Dropout dropout, bool rest, bool accumulate, Tensor y)
    {
        Same(x, y);
        Count("dropout", x.Count, x, y);
    }

    /// <inheritdoc/>
    public void DoraScale(
        in LinearWeight w, Tensor a, Tensor b, float scaling, Tensor magnitude, Tensor norm, Tensor scale)
    {
        Weight(w);
        F32(a, a.Rows, w.In);
        F32(b, w.Out, a.Rows);
        F32(magnitude, w.Out);
        F32(norm, w.Out);
        F32(scale, w.Out);
        Count("dora_scale", 2.0 * w.In * w.Out * (a.Rows + 1), w.Bytes, a, b, scale);
    }

    /// <inheritdoc/>
    public void DoraForward(Tensor u, Tensor scale, Tensor bias, bool accumulate, Tensor y)
    {
        Same(u, y);
        F32(scale, u.Columns);
        if (!bias.IsNone) F32(bias, u.Columns);
        Count("dora", 2.0 * u.Count, u, y);
    }

    /// <inheritdoc/>
    public void DoraBackward(Tensor dy, Tensor u, Tensor scale, Tensor norm, Tensor du, Tensor dMagnitude)
    {
        Same(dy, u);
        Same(dy, du);
        F32(scale, u.Columns);
        Same(scale, norm);
        Same(scale, dMagnitude);
        Count("dora_backward", 3.0 * dy.Count, dy, u, du);
    }

    /// <inheritdoc/>
    public void LoraLinear(Tensor x, in AdaptedLinear p)
    {
        _together++;
        Linear(x, p.W, p.Y);
        if (!p.B.IsNone) LoraForward(x, p.A, p.B, p.Scaling, p.Dropout, p.Xa, p.Y);
        if (!p.Residual.IsNone) Add(p.Residual, p.Y);
        End();
    }

    /// <inheritdoc/>
    public void LinearGroup(Tensor x, ReadOnlySpan<AdaptedLinear> group)
    {
        _together++;
        Use(group);
        foreach (ref readonly var p in group) LoraLinear(x, p);
        End();
    }

    /// <inheritdoc/>
    public void LinearGroupBackward(Tensor x, ReadOnlySpan<AdaptedLinear> group, Tensor dx)
    {
        _together++;
        Use(x);
        Use(group);
        GroupedOps.OneByOne(this, x, group, dx);
        End();
    }

    /// <inheritdoc/>
    public void RopeTable(Tensor positions, Tensor invFreq, float attentionFactor, Tensor cos, Tensor sin)
    {
        Ints(positions, cos.Rows);
        F32(invFreq, cos.Columns);
        Same(cos, sin);
        Count("rope_table", 2.0 * cos.Count, cos, sin);
    }

    /// <inheritdoc/>
    public void Rope(Tensor x, Tensor cos, Tensor sin, int headDim, bool inverse)
    {
        Tables(x, cos, sin, headDim);
        Count("rope", 3.0 * x.Count, x, x);
    }

    /// <inheritdoc/>
    public void Attention(Tensor q, Tensor k, Tensor v, Tensor offsets, in AttentionShape s, Tensor o, Tensor lse)
    {
        Use(offsets);
        AttentionShapes(q, k, v, s, o);
        F32(lse, q.Rows, s.NumHeads);
        Count("attention", AttentionFlops(q.Rows, offsets, s, 4), q, k, v, o);
    }

    /// <inheritdoc/>
    public void AttentionBackward(
        Tensor q,
        Tensor k,
        Tensor v,
        Tensor o,
        Tensor lse,
        Tensor dO,
        Tensor offsets,
        in AttentionShape s,
        Tensor delta,
        Tensor dq,
        Tensor dk,
        Tensor dv,
        Tensor cos = default, Tensor sin = default)
    {
        Use(offsets);
        if (!cos.IsNone) Tables(q, cos, sin, s.HeadDim);
        AttentionShapes(q, k, v, s, o);
        Alike(o, dO);
        Same(lse, delta);
        Same(q, dq);
        Same(k, dk);
        Same(v, dv);
        Count("attention_backward", AttentionFlops(q.Rows, offsets, s, 10), q, k, v, o, dO, dq, dk, dv);
    }

    /// <inheritdoc/>
    public void AttentionMaterialized(
        Tensor q, Tensor k, Tensor v, Tensor offsets, in AttentionShape s, Tensor scores, Tensor o)
    {
        Use(offsets);
        Use(scores);
        AttentionShapes(q, k, v, s, o);
        Count("attention_materialized", AttentionFlops(q.Rows, offsets, s, 8), q, k, v, o);
    }

    /// <inheritdoc/>
    public void CachedAttention(Tensor q, Tensor kCache, Tensor vCache, int past, in AttentionShape s, Tensor o)
    {
        Act(q, q.Rows, s.NumHeads * s.HeadDim);
        Strided(o, q.Rows, q.Columns);
        Like(q, o);
        Same(kCache, vCache);
        Like(q, kCache);
        Require(past + q.Rows <= kCache.Rows, "cache capacity");
        Count("cached_attention", 4.0 * q.Count * (past + q.Rows), q, kCache, vCache, o);
    }

    /// <inheritdoc/>
    public void SwiGlu(Tensor gate, Tensor up, Tensor y)
    {
        Same(gate, up);
        Strided(y, gate.Rows, gate.Columns);
        Like(gate, y);
        Count("swiglu", 6.0 * y.Count, gate, up, y);
    }
    /// <inheritdoc/>
    public void SwiGluBackward(Tensor gate, Tensor up, Tensor dy, Tensor dGate, Tensor dUp, Tensor y = default)
    {
        Same(gate, up);
        if (!y.IsNone) Alike(dy, y);
        Strided(dy, gate.Rows, gate.Columns);
        Like(gate, dy);
        Same(gate, dGate);
        Same(gate, dUp);
        Count("swiglu_backward", 12.0 * gate.Count, gate, up, dy, dGate, dUp);
    }

    /// <inheritdoc/>
    public bool SwiGluGroupBackward(in AdaptedLinear down, in AdaptedLinear gate, in AdaptedLinear up, Tensor dAct)
    {
        _within = "down_swiglu_backward";
        _together++;
        Use([down, gate, up]); // the gradients of B of gate and up may be added here
        GroupedOps.OneByOne(this, down, gate, up, dAct);
        _within = null;
        End();
        return false;
    }

    /// <inheritdoc/>
    public void LinearCrossEntropy(
        Tensor hidden, in LinearWeight head, Tensor labels, float gradScale, Tensor logits, Tensor losses,
        Tensor dHidden, Tensor dHead, Tensor weights = default, float labelSmoothing = 0)
    {
        HeadShapes(hidden, head, logits);
        Ints(labels, hidden.Rows);
        if (!weights.IsNone) F32(weights, hidden.Rows);
        F32(losses, hidden.Rows);
        if (!dHidden.IsNone) Same(hidden, dHidden);
        if (!dHead.IsNone) F32(dHead, head.Out, head.In);
        int products = 1 + (dHidden.IsNone ? 0 : 1) + (dHead.IsNone ? 0 : 1);
        Count("linear_cross_entropy", 2.0 * products * hidden.Rows * head.In * head.Out, head.Bytes * products, hidden);
    }

    /// <inheritdoc/>
    public void CandidateScores(
        Tensor hidden, in LinearWeight head, Tensor candidates, Tensor logits, Tensor scores, Tensor lse)
    {
        HeadShapes(hidden, head, logits);
        Ints(candidates, candidates.Rows);
        F32(scores, hidden.Rows, candidates.Rows);
        F32(lse, hidden.Rows);
        Count("candidate_scores", 2.0 * hidden.Rows * head.In * head.Out, head.Bytes, hidden);
    }

    /// <inheritdoc/>
    public double GlobalNorm(ReadOnlySpan<Tensor> tensors)
    {
        _together++;
        foreach (var t in tensors) Count("global_norm", 2.0 * t.Count, t);
        End();
        return 0;
    }

    /// <inheritdoc/>
    public void AdamW(ReadOnlySpan<ParameterSlot> slots, in AdamWStep step)
    {
        _together++;
        foreach (var s in slots)
        {
            Same(s.Weight, s.Grad);
            Same(s.Weight, s.M);
            Same(s.Weight, s.V);
            Count("adamw", 12.0 * s.Weight.Count, s.Weight, s.Weight, s.Grad, s.M, s.M, s.V, s.V);
        }
        End();
    }

    /// <inheritdoc/>
    public bool AllFinite(Tensor x) { Count("all_finite", 0, x); return true; }
    /// <inheritdoc/>
    public void Quantize(Tensor src, in LinearWeight dst)
    {
        Weight(dst);
        Require(src.Rows == dst.Out && src.Columns == dst.In, "quantize shape");
        Count("quantize", src.Count * 2.0, dst.Bytes, src);
    }

    /// <inheritdoc/>
    public void Dequantize(in LinearWeight src, Tensor dst)
    {
        Weight(src);
        F32(dst, src.Out, src.In);
        Count("dequantize", dst.Count, src.Bytes, dst);
    }

    private void Count(string op, double flops, params ReadOnlySpan<Tensor> tensors) => Count(op, flops, 0, tensors);

    private void Count(string op, double flops, long bytes, params ReadOnlySpan<Tensor> tensors)
    {
        foreach (var t in tensors)
        {
            memory.Use(t);
            bytes += t.Bytes;
        }
        op = _within ?? op;
        if (!_counts.TryGetValue(op, out var c)) _counts[op] = c = new OpCount();
        c.Calls++;
        c.Flops += flops;
        c.Bytes += bytes;
        if (_together == 0) memory.EndOp();
    }

    // An op of several parts has come to its end.
    private void End()
    {
        if (--_together == 0) memory.EndOp();
    }
}
