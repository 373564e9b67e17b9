using Headroom.Core;

namespace Headroom.Models;

/// <summary>Keys and values of one sequence, a pair of [capacity, kv * d] buffers a layer.</summary>
public sealed class KvCache
{
    /// <summary>Reserves the cache in the current phase.</summary>
    public KvCache(LlamaModel model, IMemory memory, int capacity)
    {
        Keys = new Tensor[model.Config.NumHiddenLayers];
        Values = new Tensor[model.Config.NumHiddenLayers];
        Capacity = capacity;
        Reserve(model, memory);
    }

    /// <summary>Takes its buffers again after a new start of the phase; they come first in it and have the same addresses, so the contents stay.</summary>
    public void Reserve(LlamaModel model, IMemory memory)
    {
        int width = model.Config.NumKeyValueHeads * model.Config.HeadDim;
        for (int i = 0; i < Keys.Length; i++)
        {
            Keys[i] = memory.Hold(MemoryCategory.KvCache, "key cache", model.Settings.ComputeType, Shape.Of(Capacity, width));
            Values[i] = memory.Hold(MemoryCategory.KvCache, "value cache", model.Settings.ComputeType, Shape.Of(Capacity, width));
        }
    }

    /// <summary>Longest sequence it can hold.</summary>
    public int Capacity { get; }
    /// <summary>Rows already filled.</summary>
    public int Length { get; set; }
    internal Tensor[] Keys { get; }
    internal Tensor[] Values { get; }
}

public sealed partial class LlamaModel
{
    private Tensor _cos, _sin, _rstdFinal;

    /// <summary>
    /// The forward pass up to the last residual stream [T, H] (before the final norm). With <paramref name="save"/>, every layer keeps what its
    /// backward pass needs; else buffers are freed as soon as they are used. With a cache, T new rows of one sequence are appended to it.
    /// </summary>
    private Tensor Trunk(in BatchTensors batch, in Dropout dropout, bool save, KvCache? cache)
    {
        int tokens = batch.Tokens;
        _cos = Temp32(MemoryCategory.Scratch, "rope cos", tokens, Config.HeadDim / 2);
        _sin = Temp32(MemoryCategory.Scratch, "rope sin", tokens, Config.HeadDim / 2);
        _ops.RopeTable(batch.Positions, InverseFrequencies, _ropeFactor, _cos, _sin);
        var h = Temp(save ? MemoryCategory.SavedActivations : MemoryCategory.Scratch, "residual", tokens, Config.HiddenSize);
        _ops.Embedding(batch.Ids, _embedding, h);
        for (int i = 0; i < _layers.Length; i++)
        {
            bool keepAll = save && !Recomputes(i);
            var next = Temp(save ? MemoryCategory.SavedActivations : MemoryCategory.Scratch, "residual", tokens, Config.HiddenSize);
            var s = LayerForward(i, new Saved { Input = h }, batch, dropout, cache, next, keepAll, training: save);
            if (save) _saved[i] = s;
            else _memory.Free(h);
            h = next;
        }
        return h;
    }

    /// <summary>
    /// One decoder layer: next = mid + mlp(norm2(mid)), mid = input + attention(norm1(input)). With <paramref name="keep"/> the intermediate
    /// tensors stay alive and are returned; else only the input is, and in training what the adapters' first products gave. A recomputed layer comes in
    /// again with those in <paramref name="known"/> and without <paramref name="next"/>: the output is not made, nor anything else that only it needs.
    /// </summary>
    private Saved LayerForward(int index, in Saved known, in BatchTensors batch, in Dropout dropout, KvCache? cache, Tensor next, bool keep, bool training)
    {
        var layer = _layers[index];
        var input = known.Input;
        var kept = keep ? MemoryCategory.SavedActivations : MemoryCategory.Scratch;
        int tokens = input.Rows, hidden = Config.HiddenSize, inter = Config.IntermediateSize;
        int qWidth = Config.NumAttentionHeads * Config.HeadDim, kvWidth = Config.NumKeyValueHeads * Config.HeadDim;
        Saved s = default;
        s.Input = input;

        // Attention block
        s.Rstd1 = _memory.Alloc(kept, "rstd", DType.F32, Shape.Of(tokens));
        s.Q = Temp(kept, "q", tokens, qWidth);
        s.K = cache == null ? Temp(kept, "k", tokens, kvWidth) : cache.Keys[index].Slice(cache.Length, tokens);
        s.V = cache == null ? Temp(kept, "v", tokens, kvWidth) : cache.Values[index].Slice(cache.Length, tokens);
        s.KeptQ = layer.Q.Alloc(_memory, Settings.ComputeType, tokens, keep, training, known.KeptQ);
        s.KeptK = layer.K.Alloc(_memory, Settings.ComputeType, tokens, keep, training, known.KeptK);
        s.KeptV = layer.V.Alloc(_memory, Settings.ComputeType, tokens, keep, training, known.KeptV);
        var dropped = Dropped(training, tokens, hidden, layer.Q, layer.K, layer.V);
        var x = Temp(MemoryCategory.Scratch, "norm output", tokens, hidden + Padding(dropped, layer.Q, layer.K, layer.V));
        _ops.RmsNorm(input, layer.Norm1, Config.RmsNormEps, x, s.Rstd1);
        Projection.Forward(_ops, x, dropout, [new(layer.Q, s.KeptQ, s.Q), new(layer.K, s.KeptK, s.K), new(layer.V, s.KeptV, s.V)], dropped);
        _memory.Free(dropped);
        _memory.Free(x);
        _ops.Rope(s.Q, _cos, _sin, Config.HeadDim, inverse: false);
        _ops.Rope(s.K, _cos, _sin, Config.HeadDim, inverse: false);
        s.O = Temp(kept, "attention output", tokens, qWidth + (training && Projection.NeedsDropped([layer.O]) ? 0 : Padding(default, layer.O)));
        s.Lse = cache == null ? Temp32(kept, "log-sum-exp", tokens, Config.NumAttentionHeads) : default;
        if (cache == null) _ops.Attention(s.Q, s.K, s.V, batch.Offsets, layer.Attention, s.O, s.Lse);
        else _ops.CachedAttention(s.Q, cache.Keys[index], cache.Values[index], cache.Length, layer.Attention, s.O);
        if (!keep)
        {
            _memory.Free(s.Q);
            if (cache == null)
            {
                _memory.Free(s.K);
                _memory.Free(s.V);
            }
            s.KeptQ = s.KeptQ.AfterForward(_memory, training);
            s.KeptK = s.KeptK.AfterForward(_memory, training);
            s.KeptV = s.KeptV.AfterForward(_memory, training);
            _memory.Free(s.Lse);
            _memory.Free(s.Rstd1);
        }
        s.KeptO = layer.O.Alloc(_memory, Settings.ComputeType, tokens, keep, training, known.KeptO);
        var branch = Temp(MemoryCategory.Scratch, "branch output", tokens, hidden);
        dropped = Dropped(training, tokens, qWidth, layer.O);
        Projection.Forward(_ops, s.O, dropout, [new(layer.O, s.KeptO, branch)], dropped);
        _memory.Free(dropped);
        if (!keep)
        {
            _memory.Free(s.O);
            s.KeptO = s.KeptO.AfterForward(_memory, training);
        }

        // MLP block
        s.Mid = Temp(kept, "mid residual", tokens, hidden);
        s.Rstd2 = _memory.Alloc(kept, "rstd", DType.F32, Shape.Of(tokens));
        dropped = Dropped(training, tokens, hidden, layer.Gate, layer.Up);
        x = Temp(MemoryCategory.Scratch, "norm output", tokens, hidden + Padding(dropped, layer.Gate, layer.Up));
        _ops.AddRmsNorm(input, branch, layer.Norm2, Config.RmsNormEps, s.Mid, x, s.Rstd2);
        _memory.Free(branch);
        s.Gate = Temp(kept, "gate", tokens, inter);
        s.Up = Temp(kept, "up", tokens, inter);
        s.KeptGate = layer.Gate.Alloc(_memory, Settings.ComputeType, tokens, keep, training, known.KeptGate);
        s.KeptUp = layer.Up.Alloc(_memory, Settings.ComputeType, tokens, keep, training, known.KeptUp);
        Projection.Forward(_ops, x, dropout, [new(layer.Gate, s.KeptGate, s.Gate), new(layer.Up, s.KeptUp, s.Up)], dropped);
        _memory.Free(dropped);
        _memory.Free(x);
        if (next.IsNone && !layer.Down.KeepsOutput)
        {
            s.KeptDown = known.KeptDown;
            return s;
        }
        // In place where gate is not needed again, unless the padding speeds up a step whose backward pass needs more memory anyway.
        dropped = Dropped(training, tokens, inter, layer.Down);
        int padding = training ? Padding(dropped, layer.Down) : 0;
        bool own = keep || padding > 0;
        var act = own ? Temp(MemoryCategory.Scratch, "swiglu", tokens, inter + padding) : s.Gate;
        _ops.SwiGlu(s.Gate, s.Up, act);
        s.KeptDown = layer.Down.Alloc(_memory, Settings.ComputeType, tokens, keep, training, known.KeptDown);
        Projection.Forward(_ops, act, dropout, [new(layer.Down, s.KeptDown, next, Residual: s.Mid)], dropped);
        _memory.Free(dropped);
        if (own) _memory.Free(act);
        if (keep) return s;
        _memory.Free(s.Gate);
        _memory.Free(s.Up);
        _memory.Free(s.Mid);
        _memory.Free(s.Rstd2);
        return new Saved
        {
            Input = input, KeptQ = s.KeptQ, KeptK = s.KeptK, KeptV = s.KeptV, KeptO = s.KeptO, KeptGate = s.KeptGate.AfterForward(_memory, training),
            KeptUp = s.KeptUp.AfterForward(_memory, training), KeptDown = s.KeptDown.AfterForward(_memory, training),
        };
    }

    // Columns for the xa of a group that shares its input: one 16-bit product then does the base weight and the adapters (see IOps.LinearGroup). None where rows are no whole groups of 64 elements.
    private int Padding(Tensor dropped, params ReadOnlySpan<Projection> group)
    {
        int ranks = 0;
        if (!dropped.IsNone) return 0; // the products then read the dropped input
        foreach (var p in group)
        {
            if (p.Rank == 0 || p.Weight.In % 64 != 0) return 0;
            ranks += p.Rank;
        }
        return Settings.ComputeType == DType.F32 ? 0 : (ranks + 63) / 64 * 64;
    }

    // Scratch of a group whose adapters need the dropped input as a tensor (DoRA with dropout), or none.
    private Tensor Dropped(bool training, int tokens, int columns, params ReadOnlySpan<Projection> group) =>
        training && Projection.NeedsDropped(group) ? Temp(MemoryCategory.Scratch, "dropped input", tokens, columns) : default;

    /// <summary>Final norm of the given rows (all rows when none): [N, H].</summary>
    private Tensor FinalHidden(Tensor h, Tensor rows, out Tensor picked)
    {
        picked = h;
        if (!rows.IsNone)
        {
            picked = Temp(MemoryCategory.Scratch, "picked rows", rows.Rows, Config.HiddenSize);
            _ops.GatherRows(h, rows, picked);
        }
        _rstdFinal = _memory.Alloc(MemoryCategory.Scratch, "rstd final", DType.F32, Shape.Of(picked.Rows));
        var y = Temp(MemoryCategory.Scratch, "final norm output", picked.Rows, Config.HiddenSize);
        _ops.RmsNorm(picked, _finalNorm, Config.RmsNormEps, y, _rstdFinal);
        return y;
    }

    private Tensor LogitsScratch(int rows) =>
        Temp32(MemoryCategory.LogitsChunk, "logits chunk", Math.Min(rows, Settings.LogitsRows(Config.VocabSize)), Config.VocabSize);

    /// <summary>Inference: per-label negative log-likelihoods into <paramref name="losses"/> F32 [N].</summary>
    public void Losses(in BatchTensors batch, Tensor losses)
    {
        var h = Trunk(batch, default, save: false, null);
        var y = FinalHidden(h, batch.LabelRows, out _);
        _ops.LinearCrossEntropy(y, _head, batch.Labels, 1, LogitsScratch(y.Rows), losses, default, default);
    }

    /// <summary>Inference: logits of candidate tokens and the log-sum-exp over the vocabulary at <see cref="BatchTensors.LabelRows"/>. scores [N, C], lse [N].</summary>
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

    /// <summary>Generation: appends the batch (one sequence) to the cache and gives the logits of its last row, [1, V].</summary>
    public void Decode(in BatchTensors batch, KvCache cache, Tensor logits)
    {
        var h = Trunk(batch, default, save: false, cache);
        cache.Length += batch.Tokens;
        _ops.Linear(FinalHidden(h.Slice(h.Rows - 1, 1), default, out _), _head, logits);
    }

    /// <summary>
    /// Training micro-step: token losses into <paramref name="losses"/> F32 [N] and gradients of every trained tensor, +=, scaled by
    /// <paramref name="gradScale"/> (1 / labelled tokens of the accumulation window). Dropout masks are a function of <paramref name="dropout"/> alone.
    /// </summary>
    public void ForwardBackward(in BatchTensors batch, in Dropout dropout, float gradScale, Tensor losses)
    {
        var h = Trunk(batch, dropout, save: true, null);
        var y = FinalHidden(h, batch.LabelRows, out var picked);
        _memory.Free(h);
        var logits = LogitsScratch(y.Rows);
        _ops.LinearCrossEntropy(y, _head, batch.Labels, gradScale, logits, losses, y, _gradHead); // y becomes its gradient
        _memory.Free(logits);
        var dPicked = Temp(MemoryCategory.Scratch, "picked gradient", y.Rows, Config.HiddenSize);
        _ops.Zero(dPicked);
        _ops.RmsNormBackward(picked, _finalNorm, _rstdFinal, y, dPicked, _gradFinalNorm);
        _memory.Free(y);
        _memory.Free(picked);
        _memory.Free(_rstdFinal);
        var dh = Temp(MemoryCategory.Scratch, "residual gradient", batch.Tokens, Config.HiddenSize);
        _ops.ScatterRows(dPicked, batch.LabelRows, dh);
        _memory.Free(dPicked);
        Backward(batch, dropout, dh);
    }
}
