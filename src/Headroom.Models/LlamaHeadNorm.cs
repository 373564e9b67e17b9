using Headroom.Core;

namespace Headroom.Models;

internal sealed partial class LlamaModel
{
    /// <summary>
    /// Queries and keys as attention reads them: rotated, and in families that do so (transformers
    /// <c>modeling_qwen3.py</c>, q_norm and k_norm) normed before it, each head by itself. The norm's output is
    /// scratch, and what the projections gave stays for the backward pass, which calls this again: that is a pass over
    /// q and k, where keeping both would take their memory twice.
    /// </summary>
    /// <param name="layer">The layer.</param>
    /// <param name="q">What the projection gave, [T, heads * d].</param>
    /// <param name="k">Likewise, [T, key/value heads * d].</param>
    /// <param name="apart">True where <paramref name="q"/> and <paramref name="k"/> must outlive a norm; without a norm
    /// and else they are changed in place.</param>
    private RotatedHeads Rotate(Layer layer, Tensor q, Tensor k, bool apart)
    {
        var heads = new RotatedHeads(q, k);
        if (layer.NormsHeads)
        {
            if (apart)
                heads = new(Temp(MemoryCategory.Scratch, "q norm output", q.Rows, q.Columns),
                    Temp(MemoryCategory.Scratch, "k norm output", k.Rows, k.Columns));
            heads = heads with { RstdQ = HeadRstd("q rstd", q), RstdK = HeadRstd("k rstd", k) };
            _ops.RmsNorm(Heads(q), layer.QueryNorm, Config.RmsNormEps, Heads(heads.Q), heads.RstdQ);
            _ops.RmsNorm(Heads(k), layer.KeyNorm, Config.RmsNormEps, Heads(heads.K), heads.RstdK);
        }
        _ops.Rope(heads.Q, _cos, _sin, Config.HeadDim, inverse: false);
        _ops.Rope(heads.K, _cos, _sin, Config.HeadDim, inverse: false);
        return heads;
    }

    /// <summary>
    /// From the gradients of the norms' outputs to those of what the projections gave, which take the place of
    /// <paramref name="heads"/>.
    /// </summary>
    private (Tensor Dq, Tensor Dk) HeadNormBackward(Layer layer, in Saved s, RotatedHeads heads, Tensor dq, Tensor dk)
    {
        _ops.Zero(heads.Q);
        _ops.Zero(heads.K);
        _ops.RmsNormBackward(Heads(s.Q), layer.QueryNorm, heads.RstdQ, Heads(dq), Heads(heads.Q), layer.GradQueryNorm);
        _ops.RmsNormBackward(Heads(s.K), layer.KeyNorm, heads.RstdK, Heads(dk), Heads(heads.K), layer.GradKeyNorm);
        return (heads.Q, heads.K);
    }

    private Tensor HeadRstd(string name, Tensor x) =>
        _memory.Alloc(MemoryCategory.Scratch, name, DType.F32, new Shape(Heads(x).Rows));

    // [T, heads * d] as rows of one head each, [T * heads, d].
    private Tensor Heads(Tensor x) =>
        x with { Shape = new Shape(checked((int)(x.Count / Config.HeadDim)), Config.HeadDim) };

    /// <summary>Rotated queries and keys.</summary>
    /// <param name="Q">[T, heads * d].</param>
    /// <param name="K">[T, key/value heads * d].</param>
    /// <param name="RstdQ">Of the norm of each head's query, F32 [T * heads], or none.</param>
    /// <param name="RstdK">Of the norm of each head's key, F32 [T * key/value heads], or none.</param>
    private readonly record struct RotatedHeads(Tensor Q, Tensor K, Tensor RstdQ = default, Tensor RstdK = default);
}
