using Headroom.Core;

namespace Headroom.Cpu;

internal sealed unsafe partial class CpuOps
{
    /// <inheritdoc cref="IOps.RopeTable"/>
    public void RopeTable(Tensor positions, Tensor invFreq, float attentionFactor, Tensor cos, Tensor sin)
    {
        using var _ = OpTimer.Op("rope_table");
        RopeKernels.Table(_pool, positions, invFreq, attentionFactor, cos, sin);
    }
    /// <inheritdoc cref="IOps.Rope"/>
    public void Rope(Tensor x, Tensor cos, Tensor sin, int headDim, bool inverse)
    {
        using var _ = OpTimer.Op("rope");
        RopeKernels.Rotate(_pool, x, cos, sin, headDim, inverse);
    }

    /// <inheritdoc cref="IOps.Attention"/>
    public void Attention(
        Tensor q, Tensor k, Tensor v, Tensor offsets, in AttentionShape shape, Tensor o, Tensor lse)
    {
        using var _ = OpTimer.Op("attention");
        AttentionForward.Run(_pool, q, k, v, offsets, shape, o, lse);
    }
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
        using var _ = OpTimer.Op("attention_backward");
        Cpu.AttentionBackward.Run(_pool, q, k, v, o, lse, dO, offsets, shape, delta, dq, dk, dv);
        if (cos.IsNone) return;
        Rope(dq, cos, sin, shape.HeadDim, inverse: true);
        Rope(dk, cos, sin, shape.HeadDim, inverse: true);
    }
    /// <inheritdoc cref="IOps.AttentionMaterialized"/>
    public void AttentionMaterialized(
        Tensor q, Tensor k, Tensor v, Tensor offsets, in AttentionShape shape, Tensor scores, Tensor o)
    {
        using var _ = OpTimer.Op("attention_materialized");
        AttentionPlain.Materialized(_pool, q, k, v, offsets, shape, scores, o);
    }
    /// <inheritdoc cref="IOps.CachedAttention"/>
    public void CachedAttention(Tensor q, Tensor kCache, Tensor vCache, int past, in AttentionShape shape, Tensor o)
    {
        using var _ = OpTimer.Op("cached_attention");
        AttentionPlain.Cached(_pool, q, kCache, vCache, past, shape, o);
    }
}
