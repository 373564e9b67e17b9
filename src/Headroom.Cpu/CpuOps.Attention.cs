using Headroom.Core;

namespace Headroom.Cpu;

public sealed unsafe partial class CpuOps
{
    /// <inheritdoc cref="IOps.RopeTable"/>
    public void RopeTable(Tensor positions, Tensor invFreq, float attentionFactor, Tensor cos, Tensor sin) =>
        RopeKernels.Table(_pool, positions, invFreq, attentionFactor, cos, sin);
    /// <inheritdoc cref="IOps.Rope"/>
    public void Rope(Tensor x, Tensor cos, Tensor sin, int headDim, bool inverse) =>
        RopeKernels.Rotate(_pool, x, cos, sin, headDim, inverse);

    /// <inheritdoc cref="IOps.Attention"/>
    public void Attention(
        Tensor q, Tensor k, Tensor v, Tensor offsets, in AttentionShape shape, Tensor o, Tensor lse
    ) => AttentionForward.Run(_pool, q, k, v, offsets, shape, o, lse);
    /// <inheritdoc cref="IOps.AttentionBackward"/>
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
        Cpu.AttentionBackward.Run(_pool, q, k, v, o, lse, dO, offsets, shape, delta, dq, dk, dv);
        if (cos.IsNone) return;
        Rope(dq, cos, sin, shape.HeadDim, inverse: true);
        Rope(dk, cos, sin, shape.HeadDim, inverse: true);
    }
    /// <inheritdoc cref="IOps.AttentionMaterialized"/>
    public void AttentionMaterialized(
        Tensor q, Tensor k, Tensor v, Tensor offsets, in AttentionShape shape, Tensor scores, Tensor o
    ) => AttentionPlain.Materialized(_pool, q, k, v, offsets, shape, scores, o);
    /// <inheritdoc cref="IOps.CachedAttention"/>
    public void CachedAttention(Tensor q, Tensor kCache, Tensor vCache, int past, in AttentionShape shape, Tensor o) =>
        AttentionPlain.Cached(_pool, q, kCache, vCache, past, shape, o);
}
