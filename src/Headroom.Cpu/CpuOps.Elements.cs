using Headroom.Core;

namespace Headroom.Cpu;

internal sealed unsafe partial class CpuOps
{
    /// <inheritdoc cref="IOps.Zero"/>
    public void Zero(Tensor x)
    {
        using var _ = OpTimer.Op("zero");
        ElementKernels.Zero(_pool, x);
    }
    /// <inheritdoc cref="IOps.ZeroAll"/>
    public void ZeroAll(ReadOnlySpan<Tensor> tensors)
    {
        using var _ = OpTimer.Op("zero");
        foreach (var x in tensors) ElementKernels.Zero(_pool, x);
    }
    /// <inheritdoc cref="IOps.Copy"/>
    public void Copy(Tensor src, Tensor dst)
    {
        using var _ = OpTimer.Op("copy");
        ElementKernels.Copy(_pool, src, dst);
    }
    /// <inheritdoc cref="IOps.Add"/>
    public void Add(Tensor x, Tensor y)
    {
        using var _ = OpTimer.Op("add");
        ElementKernels.Add(_pool, x, y);
    }
    /// <inheritdoc cref="IOps.GatherRows"/>
    public void GatherRows(Tensor x, Tensor rows, Tensor y)
    {
        using var _ = OpTimer.Op("gather");
        ElementKernels.GatherRows(_pool, x, rows, y);
    }
    /// <inheritdoc cref="IOps.ScatterRows"/>
    public void ScatterRows(Tensor y, Tensor rows, Tensor x)
    {
        using var _ = OpTimer.Op("scatter");
        ElementKernels.ScatterRows(_pool, y, rows, x);
    }

    /// <inheritdoc cref="IOps.Embedding"/>
    public void Embedding(Tensor ids, in LinearWeight table, Tensor y)
    {
        using var _ = OpTimer.Op("embedding");
        EmbeddingKernels.Forward(_pool, ids, table, y);
    }
    /// <inheritdoc cref="IOps.AddNoise"/>
    public void AddNoise(Tensor offsets, in EmbeddingNoise noise, Tensor y)
    {
        using var _ = OpTimer.Op("add_noise");
        EmbeddingKernels.AddNoise(_pool, offsets, noise, y);
    }
    /// <inheritdoc cref="IOps.EmbeddingBackward"/>
    public void EmbeddingBackward(Tensor ids, Tensor dy, Tensor dTable)
    {
        using var _ = OpTimer.Op("embedding_backward");
        EmbeddingKernels.Backward(_pool, ids, dy, dTable);
    }

    /// <inheritdoc cref="IOps.RmsNorm"/>
    public void RmsNorm(Tensor x, Tensor weight, float eps, Tensor y, Tensor rstd)
    {
        using var _ = OpTimer.Op("rms_norm");
        RmsNormKernels.Forward(_pool, x, default, weight, eps, default, y, rstd);
    }
    /// <inheritdoc cref="IOps.AddRmsNorm"/>
    public void AddRmsNorm(Tensor x, Tensor branch, Tensor weight, float eps, Tensor sum, Tensor y, Tensor rstd)
    {
        using var _ = OpTimer.Op("add_rms_norm");
        RmsNormKernels.Forward(_pool, x, branch, weight, eps, sum, y, rstd);
    }
    /// <inheritdoc cref="IOps.RmsNormBackward"/>
    public void RmsNormBackward(Tensor x, Tensor weight, Tensor rstd, Tensor dy, Tensor dx, Tensor dWeight)
    {
        using var _ = OpTimer.Op("rms_norm_backward");
        RmsNormKernels.Backward(_pool, x, weight, rstd, dy, dx, dWeight);
    }

    /// <inheritdoc cref="IOps.SwiGlu"/>
    public void SwiGlu(Tensor gate, Tensor up, Tensor y)
    {
        using var _ = OpTimer.Op("swiglu");
        SwiGluKernels.Forward(_pool, gate, up, y);
    }
    /// <inheritdoc cref="IOps.SwiGluBackward"/>
    public void SwiGluBackward(Tensor gate, Tensor up, Tensor dy, Tensor dGate, Tensor dUp, Tensor y = default)
    {
        using var _ = OpTimer.Op("swiglu_backward");
        SwiGluKernels.Backward(_pool, gate, up, dy, dGate, dUp, y);
    }

    /// <inheritdoc cref="IOps.GlobalNorm"/>
    public double GlobalNorm(ReadOnlySpan<Tensor> tensors)
    {
        using var _ = OpTimer.Op("global_norm");
        return OptimizerKernels.GlobalNorm(_pool, tensors);
    }
    /// <inheritdoc cref="IOps.AdamW"/>
    public void AdamW(ReadOnlySpan<ParameterSlot> slots, in AdamWStep step)
    {
        using var _ = OpTimer.Op("adamw");
        OptimizerKernels.AdamW(_pool, slots, step);
    }
    /// <inheritdoc cref="IOps.AllFinite"/>
    public bool AllFinite(Tensor x)
    {
        using var _ = OpTimer.Op("all_finite");
        return ElementKernels.AllFinite(_pool, x);
    }
}
