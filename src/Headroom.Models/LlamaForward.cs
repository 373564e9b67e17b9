using Headroom.Core;

namespace Headroom.Models;

/// <summary>Keys and values of one sequence, a pair of [capacity, kv * d] buffers a layer.</summary>
internal sealed class KvCache
{
    /// <summary>Reserves the cache in the current phase.</summary>
    public KvCache(LlamaModel model, IMemory memory, int capacity)
    {
        Keys = new Tensor[model.Config.NumHiddenLayers];
        Values = new Tensor[model.Config.NumHiddenLayers];
        Capacity = capacity;
        Reserve(model, memory);
    }

    /// <summary>
    /// Takes its buffers again after a new start of the phase; they come first in it and have the same addresses, so
    /// the contents stay.
    /// </summary>
    public void Reserve(LlamaModel model, IMemory memory)
    {
        int width = model.Config.NumKeyValueHeads * model.Config.HeadDim;
        for (int i = 0; i < Keys.Length; i++)
        {
            Keys[i] = memory.Hold(
                MemoryCategory.KvCache, "key cache", model.Settings.ComputeType, new Shape(Capacity, width));
            Values[i] = memory.Hold(
                MemoryCategory.KvCache, "value cache", model.Settings.ComputeType, new Shape(Capacity, width));
        }
    }

    /// <summary>Longest sequence it can hold.</summary>
    public int Capacity { get; }
    /// <summary>Rows already filled.</summary>
    public int Length { get; set; }
    internal Tensor[] Keys { get; }
    internal Tensor[] Values { get; }
}

internal sealed partial class LlamaModel
{
    private Tensor _cos, _sin, _rstdFinal;
    private (Tensor Picked, Tensor Normed, Tensor Logits) _top; // of the head, between forward and backward

    /// <summary>
    /// The forward pass up to the last residual stream [T, H] (before the final norm). With <paramref name="save"/>,
    /// every layer keeps what its backward pass needs. With a cache, T new rows of one sequence are appended to it.
    /// Without <paramref name="adapters"/> it is the base's; the plan is the same.
    /// </summary>
    private Tensor Trunk(
        in BatchTensors batch, in Dropout dropout, bool save, KvCache? cache, bool adapters = true)
    {
        int tokens = batch.Tokens;
        _cos = Temp32(MemoryCategory.Scratch, "rope cos", tokens, Config.HeadDim / 2);
        _sin = Temp32(MemoryCategory.Scratch, "rope sin", tokens, Config.HeadDim / 2);
        _ops.RopeTable(batch.Positions, InverseFrequencies, _ropeFactor, _cos, _sin);
        var h = Temp(
            save ? MemoryCategory.SavedActivations : MemoryCategory.Scratch, "residual", tokens, Config.HiddenSize);
        _ops.Embedding(batch.Ids, _embedding, h);
        if (save && Settings.NeftuneNoiseAlpha > 0)
            _ops.AddNoise(batch.Offsets, new(Settings.NeftuneNoiseAlpha, dropout.Seed, dropout.Step), h);
        for (int i = 0; i < _layers.Length; i++)
        {
            var next = Temp(
                save ? MemoryCategory.SavedActivations : MemoryCategory.Scratch, "residual", tokens, Config.HiddenSize);
            var s = LayerForward(
                i, new Saved { Input = h }, batch, new LayerPass(dropout, save, save && !Recomputes(i), !adapters),
                cache, next);
            if (save) _saved[i] = s;
            h = next;
        }
        return h;
    }

    /// <summary>
    /// One decoder layer: next = mid + mlp(norm2(mid)), mid = input + attention(norm1(input)). What comes back is what
    /// the layer's backward pass reads, if one follows; a recomputed layer comes in again with it in
    /// <paramref name="known"/> and without <paramref name="next"/>: the output is not made, nor anything else that
    /// only it needs.
    /// </summary>
    private Saved LayerForward(
        int index, in Saved known, in BatchTensors batch, in LayerPass pass, KvCache? cache, Tensor next)
    {
        var (l, kept, tokens, eps) = (_layers[index], pass.Category, known.Input.Rows, Config.RmsNormEps);
        var s = new Saved { Input = known.Input, KeptDown = known.KeptDown };

        // mid = input + o(attention(rope(q), rope(k), v)), without the sum; some families norm each head before rope
        var x = l.Qkv.Input(MemoryCategory.Scratch, "norm output", tokens, pass.Training);
        s.Rstd1 = Rstd(kept, tokens);
        _ops.RmsNorm(s.Input, l.Norm1, eps, x, s.Rstd1);
        s.Q = l.Qkv.Output(0, kept, "q", tokens);
        s.K = cache == null ? l.Qkv.Output(1, kept, "k", tokens) : cache.Keys[index].Slice(cache.Length, tokens);
        s.V = cache == null ? l.Qkv.Output(2, kept, "v", tokens) : cache.Values[index].Slice(cache.Length, tokens);
        s.KeptQkv = l.Qkv.Forward(x, pass, known.KeptQkv, [s.Q, s.K, s.V]);
        var heads = Rotate(l, s.Q, s.K, apart: pass.Keep);
        s.O = l.O.Input(kept, "attention output", tokens, pass.Training);
        s.Lse = cache == null ? Temp32(kept, "log-sum-exp", tokens, Config.NumAttentionHeads) : default;
        if (cache == null) _ops.Attention(heads.Q, heads.K, s.V, batch.Offsets, l.Attention, s.O, s.Lse);
        else _ops.CachedAttention(heads.Q, cache.Keys[index], cache.Values[index], cache.Length, l.Attention, s.O);
        var branch = l.O.Output(0, MemoryCategory.Scratch, "branch output", tokens);
        s.KeptO = l.O.Forward(s.O, pass, known.KeptO, [branch]);

        // next = mid + down(silu(gate) * up)
        x = l.GateUp.Input(MemoryCategory.Scratch, "norm output", tokens, pass.Training);
        (s.Mid, s.Rstd2) = (Temp(kept, "mid residual", tokens, Config.HiddenSize), Rstd(kept, tokens));
        _ops.AddRmsNorm(s.Input, branch, l.Norm2, eps, s.Mid, x, s.Rstd2);
        (s.Gate, s.Up) = (l.GateUp.Output(0, kept, "gate", tokens), l.GateUp.Output(1, kept, "up", tokens));
        s.KeptGateUp = l.GateUp.Forward(x, pass, known.KeptGateUp, [s.Gate, s.Up]);
        if (next.IsNone && !l.Down.KeepsOutput) return s;
        // In place where gate is not needed again, unless room behind the rows speeds up a step whose backward pass
        // needs more memory anyway.
        bool apart = pass.Keep || pass.Training && l.Down.Room(training: true) > 0;
        var act = apart ? l.Down.Input(MemoryCategory.Scratch, "swiglu", tokens, pass.Training) : s.Gate;
        _ops.SwiGlu(s.Gate, s.Up, act);
        s.KeptDown = l.Down.Forward(act, pass, known.KeptDown, [next], residual: s.Mid);
        return s;
    }

    /// <summary>Final norm of the given rows (all rows when none): [N, H].</summary>
    private Tensor FinalHidden(Tensor h, Tensor rows, out Tensor picked)
    {
        picked = h;
        if (!rows.IsNone)
        {
            picked = Temp(MemoryCategory.Scratch, "picked rows", rows.Rows, Config.HiddenSize);
            _ops.GatherRows(h, rows, picked);
        }
        _rstdFinal = Rstd(MemoryCategory.Scratch, picked.Rows);
        var y = Temp(MemoryCategory.Scratch, "final norm output", picked.Rows, Config.HiddenSize);
        _ops.RmsNorm(picked, _finalNorm, Config.RmsNormEps, y, _rstdFinal);
        return y;
    }

    private Tensor LogitsScratch(int rows) =>
        Temp32(
            MemoryCategory.LogitsChunk, "logits chunk", Math.Min(rows, Settings.LogitsRows(Config.VocabSize)),
            Config.VocabSize);

    /// <summary>
    /// Inference: per-label negative log-likelihoods into <paramref name="losses"/> F32 [N], smoothed as
    /// <see cref="IOps.LinearCrossEntropy"/> says; without <paramref name="adapters"/> those of the base alone, but for
    /// the modules that are trained whole (<see cref="SavedModules"/>).
    /// </summary>
    public void Losses(in BatchTensors batch, Tensor losses, float labelSmoothing = 0, bool adapters = true)
    {
        var h = Trunk(batch, default, save: false, null, adapters);
        var y = FinalHidden(h, batch.LabelRows, out _);
        _ops.LinearCrossEntropy(
            y, _head, batch.Labels, 1, LogitsScratch(y.Rows), losses, default, default, default, labelSmoothing);
    }

    /// <summary>
    /// Inference: logits of candidate tokens and the log-sum-exp over the vocabulary at
    /// <see cref="BatchTensors.LabelRows"/>. scores [N, C], lse [N].
    /// </summary>
    public void Scores(in BatchTensors batch, Tensor candidates, Tensor scores, Tensor lse)
    {
        var h = Trunk(batch, default, save: false, null);
        var y = FinalHidden(h, batch.LabelRows, out _);
        _ops.CandidateScores(y, _head, candidates, LogitsScratch(y.Rows), scores, lse);
    }

    /// <summary>Inference: full logits of every row, [T, V].</summary>
    public void Logits(in BatchTensors batch, Tensor logits)
    {
        var h = Trunk(batch, default, save: false, null);
        _ops.Linear(FinalHidden(h, default, out _), _head, logits);
    }

    /// <summary>
    /// Generation: appends the batch (one sequence) to the cache and gives the logits of its last row, [1, V].
    /// </summary>
    public void Decode(in BatchTensors batch, KvCache cache, Tensor logits)
    {
        var h = Trunk(batch, default, save: false, cache);
        cache.Length += batch.Tokens;
        _ops.Linear(FinalHidden(h.Slice(h.Rows - 1, 1), default, out _), _head, logits);
    }

    /// <summary>
    /// Training micro-step: token losses into <paramref name="losses"/> F32 [N] and gradients of every trained tensor,
    /// +=, scaled by
    /// <paramref name="gradScale"/> (1 / labelled tokens of the accumulation window). Dropout masks, and the noise of
    /// embeddings, are a function of <paramref name="dropout"/> alone.
    /// </summary>
    public void ForwardBackward(in BatchTensors batch, in Dropout dropout, float gradScale, Tensor losses)
    {
        Forward(batch, dropout);
        Backward(batch, dropout, gradScale, losses);
    }

    /// <summary>
    /// The first half of <see cref="ForwardBackward"/>, in the same buffers. With <paramref name="losses"/> F32 [N] the
    /// head is passed for them (without smoothing), so that <see cref="BatchTensors.Weights"/> can follow from them
    /// before <see cref="Backward(in BatchTensors, in Dropout, float, Tensor)"/>, which passes it again.
    /// </summary>
    public void Forward(in BatchTensors batch, in Dropout dropout, Tensor losses = default)
    {
        var h = Trunk(batch, dropout, save: true, null);
        var y = FinalHidden(h, batch.LabelRows, out var picked);
        _top = (picked, y, LogitsScratch(y.Rows));
        if (!losses.IsNone)
            _ops.LinearCrossEntropy(y, _head, batch.Labels, 1, _top.Logits, losses, default, default);
    }

    /// <summary>The second half of <see cref="ForwardBackward"/>.</summary>
    public void Backward(in BatchTensors batch, in Dropout dropout, float gradScale, Tensor losses)
    {
        var (picked, y, logits) = _top;
        // y becomes its gradient
        _ops.LinearCrossEntropy(
            y, _head, batch.Labels, gradScale, logits, losses, y, _gradHead, batch.Weights, Settings.LabelSmoothing);
        var dPicked = Temp(MemoryCategory.Scratch, "picked gradient", y.Rows, Config.HiddenSize);
        _ops.Zero(dPicked);
        _ops.RmsNormBackward(picked, _finalNorm, _rstdFinal, y, dPicked, _gradFinalNorm);
        var dh = Temp(MemoryCategory.Scratch, "residual gradient", batch.Tokens, Config.HiddenSize);
        _ops.ScatterRows(dPicked, batch.LabelRows, dh);
        Backward(batch, dropout, dh);
    }
}
