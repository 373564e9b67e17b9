using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Cuda.Interop;

namespace Headroom.Cuda;

/// <summary>
/// The ops on an NVIDIA GPU. Activations are F32, BF16 or F16 (the tensors say); statistics, losses, logits and
/// gradients of parameters are F32. Everything is issued on one stream in order; only <see cref="GlobalNorm"/> and
/// <see cref="AllFinite"/>, which give a number to the host, and
/// <see cref="AttentionMaterialized"/>, which takes the sequences' starts from the device, wait. No float atomics:
/// equal runs give equal bits.
/// </summary>
internal sealed unsafe partial class CudaOps : IFusedProjections, IDisposable
{
    private const long MetaBytes = 4L << 20;
    private const int TableFloats = KernelConstants.TablesMiddle + 255;
    // one for each part and 256 columns of lora_outer, for each 32 columns of lora_backward and lora_swiglu
    private const int OuterCounters = 4096;

    private readonly Gpu _gpu;
    private readonly Staging _staging;
    private readonly Gemm _gemm;
    private readonly WeightExpander _weights;
    private readonly nint _scratch, _meta, _tables, _result, _counters;
    private readonly DeviceWord _gradScale;
    private readonly long _scratchBytes;

    internal CudaOps(Gpu gpu, Staging staging, nint workspace, CudaOptions o)
    {
        _gpu = gpu;
        _staging = staging;
        long at = 0;
        nint Take(long bytes)
        {
            nint p = workspace + (nint)at;
            at += Round(bytes);
            return p;
        }
        nint ring = Take((o.ExpandAhead ? 2 : 1) * Round(o.ExpandBytes)), matmul = Take(o.MatmulBytes);
        _scratch = Take(o.ScratchBytes);
        _scratchBytes = o.ScratchBytes;
        _meta = Take(MetaBytes);
        _tables = Take(TableFloats * 4);
        _result = Take(256);
        _counters = Take(OuterCounters * 4);
        CudaException.Check(Driver.cuMemsetD8Async(_counters, 0, OuterCounters * 4, gpu.Main.Value), "zero");
        _gradScale = new DeviceWord(gpu, Take(256));
        _gemm = new Gemm(gpu, matmul, o.MatmulBytes);
        _weights = new WeightExpander(gpu, ring, _tables, o);
        var tables = new float[TableFloats];
        Nf4.Codes.CopyTo(tables, 0);
        float[] map = Nf4.DynamicMap();
        map.CopyTo(tables, KernelConstants.TablesMap);
        for (int i = 0; i + 1 < map.Length; i++)
            tables[KernelConstants.TablesMiddle + i] = (map[i] + map[i + 1]) * 0.5f;
        staging.Upload(MemoryMarshal.AsBytes(tables.AsSpan()), _tables);
    }

    /// <summary>Bytes of device memory the ops hold beside the arena.</summary>
    public static long WorkspaceBytes(CudaOptions o) =>
        (o.ExpandAhead ? 2 : 1) * Round(o.ExpandBytes)
        + Round(o.MatmulBytes)
        + Round(o.ScratchBytes)
        + MetaBytes
        + Round(TableFloats * 4)
        + 2 * 256
        + OuterCounters * 4;

    /// <inheritdoc/>
    public void Dispose()
    {
        _gemm.Dispose();
        _weights.Dispose();
    }

    /// <summary>ceil(2^40 / d): (n * magic) >> 40 is n / d for n below 2^40 / d.</summary>
    internal static long Magic(int d) => d == 0 ? 0 : ((1L << KernelConstants.MagicShift) + d - 1) / d;

    /// <summary>Adapters have other values than before: nothing expanded with them is of use.</summary>
    internal void AdaptersChanged() => _weights.Stale();

    /// <summary>Stored weights have other values than before.</summary>
    internal void WeightsChanged() => _weights.Reset();

    /// <summary>Room for expanded weights that stay.</summary>
    internal void KeepExpanded(Tensor room) => _weights.Keep(room.Address, room.Bytes);

    /// <summary>Changes whenever stored weights do.</summary>
    internal long Weights => _weights.Changes;

    /// <summary>Expanded weights that stay, and their bytes.</summary>
    internal (int Count, long Bytes) Expanded => _weights.Stays;

    /// <summary>False while a test's switch, a profile or timed ops ask for launches one by one.</summary>
    internal bool Recordable => FusedKernels && HopperKernels && _gpu.Profile == null && !OpTimer.IsOn;

    /// <summary>False: weights are expanded when they are asked for, on the main stream.</summary>
    internal bool ExpandsAhead { set => _weights.Ahead = value; }

    /// <summary>
    /// Before a micro-step is recorded or replayed: what changes between micro-steps is on the device, and nothing is
    /// expanded or being expanded. A record ends with <see cref="AdaptersChanged"/>, so that every replay starts and
    /// ends so, and the second stream has joined the main one.
    /// </summary>
    internal void BeginStep(ulong seed, uint dropoutStep, float gradScale)
    {
        _weights.Stale();
        _gradScale.Set(BitConverter.SingleToUInt32Bits(gradScale));
        _gpu.SetDropout(seed, dropoutStep);
    }

    /// <summary>A record came to nothing.</summary>
    internal void DropStep() => _weights.Drop();

    private static long Round(long bytes) => (bytes + 255) & ~255L;

    private nint K(string file, DType act, string name, int size = 0) => _gpu.Kernel(file, act, name, size);

    // The kernels of a file are about to make masks of this dropout.
    private void StepOf(in Dropout d, string file, DType act, int size = 0)
    {
        if (d.P > 0) _gpu.DropoutState(file, act, size).Set(d.Seed, d.Step);
    }

    /// <inheritdoc/>
    public void Zero(Tensor x)
    {
        using var _ = OpTimer.Op("zero");
        _gpu.MakeCurrent();
        CudaException.Check(Driver.cuMemsetD8Async(x.Address, 0, (nuint)x.Bytes, _gpu.Main.Value), "zero");
    }

    /// <inheritdoc/>
    public void Copy(Tensor src, Tensor dst)
    {
        using var _ = OpTimer.Op("copy");
        if (src.Address == dst.Address) return;
        _gpu.MakeCurrent();
        CudaException.Check(
            Driver.cuMemcpyDtoDAsync(dst.Address, src.Address, (nuint)src.Bytes, _gpu.Main.Value), "copy");
    }

    /// <inheritdoc/>
    public void Add(Tensor x, Tensor y)
    {
        using var _ = OpTimer.Op("add");
        _gpu.Launch(K("elements.cu", x.DType, "add"), (_gpu.Blocks(x.Count, 2048), 1), 256, x, y, x.Count);
    }

    /// <inheritdoc/>
    public void GatherRows(Tensor x, Tensor rows, Tensor y)
    {
        using var _ = OpTimer.Op("gather");
        _gpu.Launch(K("elements.cu", x.DType, "gather_rows"), (y.Rows, 1), 256, x, rows, y, y.Columns);
    }

    /// <inheritdoc/>
    public void ScatterRows(Tensor y, Tensor rows, Tensor x)
    {
        using var _ = OpTimer.Op("scatter");
        Zero(x);
        _gpu.Launch(K("elements.cu", x.DType, "scatter_rows"), (y.Rows, 1), 256, y, rows, x, y.Columns);
    }

    /// <inheritdoc/>
    public void Embedding(Tensor ids, in LinearWeight table, Tensor y)
    {
        using var _ = OpTimer.Op("embedding");
        if (table.Storage is WeightStorage.NF4 or WeightStorage.NF4Double)
            throw new NotSupportedException("An embedding table cannot be stored as NF4.");
        if (table.Storage == WeightStorage.Gguf)
        {
            _gpu.Launch(
                K("gguf.cu", y.DType, GgufKernels.Embed(table)), (y.Rows, 1), RowThreads(table.In),
                ids, table.Data, y, table.BlockType.RowBytes(table.In), table.In);
            return;
        }
        _gpu.Launch(
            K("elements.cu", y.DType, "embedding"), (y.Rows, 1), 256, ids, table.Data, table.Absmax,
            KernelConstants.Kind(table.Storage), y, table.In);
    }

    /// <inheritdoc/>
    public void AddNoise(Tensor offsets, in EmbeddingNoise noise, Tensor y)
    {
        using var _ = OpTimer.Op("add_noise");
        _gpu.MakeCurrent();
        _gpu.DropoutState("elements.cu", y.DType, 0).Set(noise.Seed, noise.Step);
        _gpu.Launch(
            K("elements.cu", y.DType, "add_noise"), (y.Rows, 1), 256, y, offsets, offsets.Rows - 1, noise.Alpha,
            (long)EmbeddingNoise.Site, y.Columns);
    }

    /// <inheritdoc/>
    public void EmbeddingBackward(Tensor ids, Tensor dy, Tensor dTable)
    {
        using var _ = OpTimer.Op("embedding_backward");
        _gpu.Launch(
            K("elements.cu", dy.DType, "embedding_backward"), (dy.Rows, 1), 256, ids, dy, dTable, dy.Rows, dy.Columns);
    }

    /// <inheritdoc/>
    public void RmsNorm(Tensor x, Tensor weight, float eps, Tensor y, Tensor rstd)
    {
        using var _ = OpTimer.Op("rms_norm");
        _gpu.Launch(
            K("norm.cu", x.DType, "rms_norm"), (x.Rows, 1), RowThreads(x.Columns), x, weight, eps, y, rstd, x.Columns,
            y.Stride);
    }

    /// <inheritdoc/>
    public void AddRmsNorm(Tensor x, Tensor branch, Tensor weight, float eps, Tensor sum, Tensor y, Tensor rstd)
    {
        using var _ = OpTimer.Op("add_rms_norm");
        _gpu.Launch(
            K("norm.cu", x.DType, "add_rms_norm"), (x.Rows, 1), RowThreads(x.Columns), x, branch, weight, eps, sum, y,
            rstd, x.Columns, y.Stride);
    }

    /// <inheritdoc/>
    public void RmsNormBackward(Tensor x, Tensor weight, Tensor rstd, Tensor dy, Tensor dx, Tensor dWeight)
    {
        using var _ = OpTimer.Op("rms_norm_backward");
        if (!dWeight.IsNone)
            _gpu.Launch(
                K("norm.cu", x.DType, "rms_norm_weight"), ((x.Columns + 63) / 64, 1), 64, x, rstd, dy, dWeight, x.Rows,
                x.Columns, dy.Stride);
        _gpu.Launch(
            K("norm.cu", x.DType, "rms_norm_backward"), (x.Rows, 1), RowThreads(x.Columns), x, weight, rstd, dy, dx,
            x.Columns, dy.Stride);
    }

    // Eight elements a thread, whole warps.
    private static int RowThreads(int columns) => Math.Clamp((columns / 8 + 31) / 32 * 32, 32, 512);

    /// <inheritdoc/>
    public void RopeTable(Tensor positions, Tensor invFreq, float attentionFactor, Tensor cos, Tensor sin)
    {
        using var _ = OpTimer.Op("rope_table");
        _gpu.Launch(
            K("elements.cu", DType.F32, "rope_table"), (cos.Rows, 1), 64, positions, invFreq, attentionFactor, cos, sin,
            cos.Columns);
    }

    /// <inheritdoc/>
    public void Rope(Tensor x, Tensor cos, Tensor sin, int headDim, bool inverse)
    {
        using var _ = OpTimer.Op("rope");
        _gpu.Launch(
            K("elements.cu", x.DType, "rope"), (x.Rows, 1), 256, x, cos, sin, x.Columns / headDim, headDim / 2,
            inverse ? -1f : 1f);
    }
}
