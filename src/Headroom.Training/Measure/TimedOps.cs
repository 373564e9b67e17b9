using Headroom.Core;
using Headroom.Planning;

namespace Headroom.Training.Measure;

/// <summary>
/// Ops that time every call of the ops they wrap, by the names that <see cref="Planning.PlanningOps"/> counts under. A
/// group's products and adapters are one call.
/// </summary>
/// <param name="ops">The ops that compute.</param>
/// <param name="time">Runs some work and gives its milliseconds.</param>
public sealed class TimedOps(IOps ops, Func<Action, double> time) : IOps
{
    private readonly IOps _ops = ops;
    private readonly Dictionary<string, (int Calls, double Milliseconds)> _times = [];

    /// <summary>Calls and milliseconds by op.</summary>
    public IReadOnlyDictionary<string, (int Calls, double Milliseconds)> Times => _times;

    /// <summary>Off, calls go through untimed.</summary>
    public bool On { get; set; }

    /// <summary>Forgets what was timed.</summary>
    public void Clear() => _times.Clear();

    /// <summary>
    /// The counted ops that a timed one stands for: the adapters of a group and the residual are timed with its
    /// products.
    /// </summary>
    public static IReadOnlyList<string> Counted(string op) => op switch
    {
        "linear" => ["linear", "lora", "add"],
        "linear_backward_input" => ["linear_backward_input", "lora_backward"],
        "lora_backward" or "lora" or "add" => [],
        _ => [op],
    };

    private void Time(string op, Action work)
    {
        if (!On)
        {
            work();
            return;
        }
        double ms = time(work);
        var (calls, before) = _times.GetValueOrDefault(op);
        _times[op] = (calls + 1, before + ms);
    }

    /// <inheritdoc/>
    public void Zero(Tensor x)
    {
        Time("zero", () => _ops.Zero(x));
    }

    /// <inheritdoc/>
    public void Copy(Tensor src, Tensor dst)
    {
        Time("copy", () => _ops.Copy(src, dst));
    }

    /// <inheritdoc/>
    public void Add(Tensor x, Tensor y)
    {
        Time("add", () => _ops.Add(x, y));
    }

    /// <inheritdoc/>
    public void ZeroAll(ReadOnlySpan<Tensor> tensors)
    {
        var tensorsCopy = tensors.ToArray();
        Time("zero", () => _ops.ZeroAll(tensorsCopy));
    }

    /// <inheritdoc/>
    public void GatherRows(Tensor x, Tensor rows, Tensor y)
    {
        Time("gather", () => _ops.GatherRows(x, rows, y));
    }

    /// <inheritdoc/>
    public void ScatterRows(Tensor y, Tensor rows, Tensor x)
    {
        Time("scatter", () => _ops.ScatterRows(y, rows, x));
    }

    /// <inheritdoc/>
    public void Embedding(Tensor ids, in LinearWeight table, Tensor y)
    {
        var tableCopy = table;
        Time("embedding", () => _ops.Embedding(ids, tableCopy, y));
    }

    /// <inheritdoc/>
    public void EmbeddingBackward(Tensor ids, Tensor dy, Tensor dTable)
    {
        Time("embedding_backward", () => _ops.EmbeddingBackward(ids, dy, dTable));
    }

    /// <inheritdoc/>
    public void RmsNorm(Tensor x, Tensor weight, float eps, Tensor y, Tensor rstd)
    {
        Time("rms_norm", () => _ops.RmsNorm(x, weight, eps, y, rstd));
    }

    /// <inheritdoc/>
    public void AddRmsNorm(Tensor x, Tensor branch, Tensor weight, float eps, Tensor sum, Tensor y, Tensor rstd)
    {
        Time("add_rms_norm", () => _ops.AddRmsNorm(x, branch, weight, eps, sum, y, rstd));
    }

    /// <inheritdoc/>
    public void RmsNormBackward(Tensor x, Tensor weight, Tensor rstd, Tensor dy, Tensor dx, Tensor dWeight)
    {
        Time("rms_norm_backward", () => _ops.RmsNormBackward(x, weight, rstd, dy, dx, dWeight));
    }

    /// <inheritdoc/>
    public void Linear(Tensor x, in LinearWeight w, Tensor y)
    {
        var wCopy = w;
        Time("linear", () => _ops.Linear(x, wCopy, y));
    }

    /// <inheritdoc/>
    public void LinearBackwardInput(Tensor dy, in LinearWeight w, bool accumulate, Tensor dx)
    {
        var wCopy = w;
        Time("linear_backward_input", () => _ops.LinearBackwardInput(dy, wCopy, accumulate, dx));
    }

    /// <inheritdoc/>
    public void LinearBackwardWeight(Tensor x, Tensor dy, Tensor dW, Tensor dBias)
    {
        Time("linear_backward_weight", () => _ops.LinearBackwardWeight(x, dy, dW, dBias));
    }

    /// <inheritdoc/>
    public void LoraForward(Tensor x, Tensor a, Tensor b, float scaling, in Dropout dropout, Tensor xa, Tensor y)
    {
        var dropoutCopy = dropout;
        Time("lora", () => _ops.LoraForward(x, a, b, scaling, dropoutCopy, xa, y));
    }

    /// <inheritdoc/>
    public void LoraBackward(
        Tensor x, Tensor a, Tensor b, float scaling, in Dropout dropout, Tensor xa, Tensor dy, Tensor dxa, Tensor dA,
        Tensor dB, Tensor dx)
    {
        var dropoutCopy = dropout;
        Time("lora_backward", () => _ops.LoraBackward(x, a, b, scaling, dropoutCopy, xa, dy, dxa, dA, dB, dx));
    }

    /// <inheritdoc/>
    public void LoraBackwardA(Tensor x, in Dropout dropout, Tensor dxa, Tensor dA)
    {
        var dropoutCopy = dropout;
        Time("lora_backward", () => _ops.LoraBackwardA(x, dropoutCopy, dxa, dA));
    }

    /// <inheritdoc/>
    public void Drop(Tensor x, in Dropout dropout, bool rest, bool accumulate, Tensor y)
    {
        var dropoutCopy = dropout;
        Time("dropout", () => _ops.Drop(x, dropoutCopy, rest, accumulate, y));
    }

    /// <inheritdoc/>
    public void DoraScale(
        in LinearWeight w, Tensor a, Tensor b, float scaling, Tensor magnitude, Tensor norm, Tensor scale)
    {
        var wCopy = w;
        Time("dora_scale", () => _ops.DoraScale(wCopy, a, b, scaling, magnitude, norm, scale));
    }

    /// <inheritdoc/>
    public void DoraForward(Tensor u, Tensor scale, Tensor bias, bool accumulate, Tensor y)
    {
        Time("dora", () => _ops.DoraForward(u, scale, bias, accumulate, y));
    }

    /// <inheritdoc/>
    public void DoraBackward(Tensor dy, Tensor u, Tensor scale, Tensor norm, Tensor du, Tensor dMagnitude)
    {
        Time("dora_backward", () => _ops.DoraBackward(dy, u, scale, norm, du, dMagnitude));
    }

    /// <inheritdoc/>
    public void LinearGroup(Tensor x, ReadOnlySpan<AdaptedLinear> group)
    {
        var groupCopy = group.ToArray();
        Time("linear", () => _ops.LinearGroup(x, groupCopy));
    }

    /// <inheritdoc/>
    public void LinearGroupBackward(Tensor x, ReadOnlySpan<AdaptedLinear> group, Tensor dx)
    {
        var groupCopy = group.ToArray();
        Time("linear_backward_input", () => _ops.LinearGroupBackward(x, groupCopy, dx));
    }

    /// <inheritdoc/>
    public bool SwiGluGroupBackward(in AdaptedLinear down, in AdaptedLinear gate, in AdaptedLinear up, Tensor dAct)
    {
        AdaptedLinear downCopy = down, gateCopy = gate, upCopy = up;
        bool added = false;
        Time("down_swiglu_backward", () => added = _ops.SwiGluGroupBackward(downCopy, gateCopy, upCopy, dAct));
        return added;
    }

    /// <inheritdoc/>
    public void RopeTable(Tensor positions, Tensor invFreq, float attentionFactor, Tensor cos, Tensor sin)
    {
        Time("rope_table", () => _ops.RopeTable(positions, invFreq, attentionFactor, cos, sin));
    }

    /// <inheritdoc/>
    public void Rope(Tensor x, Tensor cos, Tensor sin, int headDim, bool inverse)
    {
        Time("rope", () => _ops.Rope(x, cos, sin, headDim, inverse));
    }

    /// <inheritdoc/>
    public void Attention(Tensor q, Tensor k, Tensor v, Tensor offsets, in AttentionShape shape, Tensor o, Tensor lse)
    {
        var shapeCopy = shape;
        Time("attention", () => _ops.Attention(q, k, v, offsets, shapeCopy, o, lse));
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
        in AttentionShape shape,
        Tensor delta,
        Tensor dq,
        Tensor dk,
        Tensor dv,
        Tensor cos = default, Tensor sin = default)
    {
        var shapeCopy = shape;
        Time("attention_backward", () =>
            _ops.AttentionBackward(q, k, v, o, lse, dO, offsets, shapeCopy, delta, dq, dk, dv, cos, sin)
        );
    }

    /// <inheritdoc/>
    public void AttentionMaterialized(
        Tensor q, Tensor k, Tensor v, Tensor offsets, in AttentionShape shape, Tensor scores, Tensor o)
    {
        var shapeCopy = shape;
        Time("attention_materialized", () => _ops.AttentionMaterialized(q, k, v, offsets, shapeCopy, scores, o));
    }

    /// <inheritdoc/>
    public void CachedAttention(Tensor q, Tensor kCache, Tensor vCache, int past, in AttentionShape shape, Tensor o)
    {
        var shapeCopy = shape;
        Time("cached_attention", () => _ops.CachedAttention(q, kCache, vCache, past, shapeCopy, o));
    }

    /// <inheritdoc/>
    public void SwiGlu(Tensor gate, Tensor up, Tensor y)
    {
        Time("swiglu", () => _ops.SwiGlu(gate, up, y));
    }

    /// <inheritdoc/>
    public void SwiGluBackward(Tensor gate, Tensor up, Tensor dy, Tensor dGate, Tensor dUp, Tensor y = default)
    {
        Time("swiglu_backward", () => _ops.SwiGluBackward(gate, up, dy, dGate, dUp, y));
    }

    /// <inheritdoc/>
    public void LinearCrossEntropy(
        Tensor hidden, in LinearWeight head, Tensor labels, float gradScale, Tensor logits, Tensor losses,
        Tensor dHidden, Tensor dHead)
    {
        var headCopy = head;
        Time("linear_cross_entropy", () =>
            _ops.LinearCrossEntropy(hidden, headCopy, labels, gradScale, logits, losses, dHidden, dHead)
        );
    }

    /// <inheritdoc/>
    public void CandidateScores(
        Tensor hidden, in LinearWeight head, Tensor candidates, Tensor logits, Tensor scores, Tensor lse)
    {
        var headCopy = head;
        Time("candidate_scores", () => _ops.CandidateScores(hidden, headCopy, candidates, logits, scores, lse));
    }

    /// <inheritdoc/>
    public double GlobalNorm(ReadOnlySpan<Tensor> tensors)
    {
        var tensorsCopy = tensors.ToArray();
        double result = 0.0;
        Time("global_norm", () => result = _ops.GlobalNorm(tensorsCopy));
        return result;
    }

    /// <inheritdoc/>
    public void AdamW(ReadOnlySpan<ParameterSlot> slots, in AdamWStep step)
    {
        var slotsCopy = slots.ToArray();
        var stepCopy = step;
        Time("adamw", () => _ops.AdamW(slotsCopy, stepCopy));
    }

    /// <inheritdoc/>
    public bool AllFinite(Tensor x)
    {
        bool result = false;
        Time("all_finite", () => result = _ops.AllFinite(x));
        return result;
    }

    /// <inheritdoc/>
    public void Quantize(Tensor src, in LinearWeight dst)
    {
        var dstCopy = dst;
        Time("quantize", () => _ops.Quantize(src, dstCopy));
    }

    /// <inheritdoc/>
    public void Dequantize(in LinearWeight src, Tensor dst)
    {
        var srcCopy = src;
        Time("dequantize", () => _ops.Dequantize(srcCopy, dst));
    }
}
