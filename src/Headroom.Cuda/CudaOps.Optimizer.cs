using System.Runtime.InteropServices;
using Headroom.Core;

namespace Headroom.Cuda;

internal sealed unsafe partial class CudaOps
{
    private const int NormBlocks = 16, TensorsAtATime = 8192;

    private NormEntry[] _norms = [];
    private AdamEntry[] _adams = [];

    // The table of tensors goes to the device each time: a few kilobytes, and no state that could be stale.
    private int NormTable(ReadOnlySpan<Tensor> tensors)
    {
        if (tensors.Length > TensorsAtATime) throw new NotSupportedException("too many tensors for one update");
        if (_norms.Length < tensors.Length) _norms = new NormEntry[tensors.Length];
        for (int i = 0; i < tensors.Length; i++)
            _norms[i] = new NormEntry { X = tensors[i].Address, Count = tensors[i].Count };
        _staging.Upload(MemoryMarshal.AsBytes(_norms.AsSpan(0, tensors.Length)), _meta);
        return tensors.Length;
    }

    /// <inheritdoc/>
    public double GlobalNorm(ReadOnlySpan<Tensor> tensors)
    {
        using var _ = OpTimer.Op("global_norm");
        if (tensors.IsEmpty) return 0;
        _gpu.MakeCurrent();
        int n = NormTable(tensors);
        const int threads = KernelConstants.OptimizerThreads;
        nint partial = _meta + TensorsAtATime * sizeof(NormEntry);
        _gpu.Launch(K("optimizer.cu", DType.F32, "sum_squares"), (NormBlocks, n), threads, _meta, partial);
        _gpu.Launch(K("optimizer.cu", DType.F32, "sum_partials"), (1, 1), threads, partial, n * NormBlocks, _result);
        double result = 0;
        _staging.Download(_result, new Span<byte>(&result, 8));
        return result;
    }

    /// <inheritdoc/>
    public void ZeroAll(ReadOnlySpan<Tensor> tensors)
    {
        using var _ = OpTimer.Op("zero");
        if (tensors.IsEmpty) return;
        _gpu.MakeCurrent();
        _gpu.Launch(K("optimizer.cu", DType.F32, "zero_all"), (NormBlocks, NormTable(tensors)), 256, _meta);
    }

    /// <inheritdoc/>
    public void AdamW(ReadOnlySpan<ParameterSlot> slots, in AdamWStep step)
    {
        using var _ = OpTimer.Op("adamw");
        if (slots.IsEmpty) return;
        if (slots.Length > TensorsAtATime) throw new NotSupportedException("too many tensors for one update");
        _gpu.MakeCurrent();
        double correction = 1.0 - Math.Pow(step.Beta1, step.Step);
        if (_adams.Length < slots.Length) _adams = new AdamEntry[slots.Length];
        for (int i = 0; i < slots.Length; i++)
        {
            ref readonly var s = ref slots[i];
            double rate = step.LearningRate * s.RateRatio;
            _adams[i] = new AdamEntry
            {
                W = s.Weight.Address,
                G = s.Grad.Address,
                M = s.M.Address,
                V = s.V.Address,
                Count = s.Weight.Count,
                Decay = (float)(1.0 - rate * s.WeightDecay),
                Size = (float)(rate / correction),
            };
        }
        _staging.Upload(MemoryMarshal.AsBytes(_adams.AsSpan(0, slots.Length)), _meta);
        var k = new AdamConstants
        {
            Scale = step.GradScale,
            OneMinusBeta1 = (float)(1.0 - step.Beta1),
            Beta2 = (float)step.Beta2,
            OneMinusBeta2 = (float)(1.0 - step.Beta2),
            Root = (float)Math.Sqrt(1.0 - Math.Pow(step.Beta2, step.Step)),
            Eps = (float)step.Epsilon,
        };
        _gpu.Launch(K("optimizer.cu", DType.F32, "adamw"), (64, slots.Length), 256, _meta, Arg.Struct(&k));
    }

    /// <inheritdoc/>
    public bool AllFinite(Tensor x)
    {
        using var _ = OpTimer.Op("all_finite");
        _gpu.MakeCurrent();
        Zero(new Tensor(_result, DType.I32, new Shape(1)));
        _gpu.Launch(
            K("quantize.cu", DType.F32, "all_finite"), (_gpu.Blocks(x.Count, 2048), 1), 256, x,
            KernelConstants.Kind(x.DType), x.Count, _result);
        int bad = 0;
        _staging.Download(_result, new Span<byte>(&bad, 4));
        return bad == 0;
    }
}
