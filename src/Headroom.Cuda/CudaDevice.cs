using Headroom.Core;
using Headroom.Cuda.Interop;
using Headroom.Cuda.Resources;

namespace Headroom.Cuda;

/// <summary>How a device is opened.</summary>
/// <param name="Ordinal">Which GPU.</param>
/// <param name="ExpandBytes">Largest piece of a weight that is expanded at a time; a larger weight goes through in
/// pieces of rows.</param>
/// <param name="ScratchBytes">Bytes for dropped inputs and low-rank factors; a larger batch goes through in pieces of
/// rows.</param>
/// <param name="MatmulBytes">Bytes the matrix library may use.</param>
/// <param name="ExpandAhead">Expand the next weights on a second stream, into a ring of twice ExpandBytes, beside the
/// work between products.</param>
/// <param name="Graphs">Replay training micro-steps of a shape that was seen before as CUDA graphs; null = where
/// launching them takes longer than they do.</param>
public sealed record CudaOptions(
    int Ordinal = 0, long ExpandBytes = 88L << 20, long ScratchBytes = 16L << 20, long MatmulBytes = 32L << 20,
    bool ExpandAhead = true, bool? Graphs = null);

/// <summary>An NVIDIA GPU as a device: one arena, one workspace, and <see cref="CudaOps"/> over them.</summary>
internal sealed unsafe class CudaDevice : IDevice, IDeviceLimits, IKeepsExpandedWeights, IReplaysSteps
{
    // Kernels of this project and of the matrix library, loaded at their first use.
    private const long CodeBytes = 32L << 20;
    private const long DefaultContextBytes = 320L << 20;
    // Issuing an op, as the plan counts them, took the host 8 us (one machine with an H100). By the estimate of Replay
    // an op of SmolLM2-135M takes 8.7 us in batches of up to 16 x 512 tokens (replay is 9 % faster), of Qwen2.5-0.5B 33
    // us, of Llama-2-7B at 4 x 512 104 us (nothing gained).
    private const double LaunchBoundSeconds = 20e-6;
    // A graph of SmolLM2-135M, 1,504 ops, took 4 to 8 MiB; the driver gives memory in pieces of 2.
    private const long GraphBytesPerOp = 5 << 10, LeastGraphBytes = 2 << 20;
    private readonly Gpu _gpu;
    private readonly CudaOps _ops;
    private readonly Staging _staging;
    private readonly DeviceMemory _workspace;
    private readonly CudaOptions _options;
    private readonly long _usedBefore;
    private readonly long _overhead;
    private readonly StepGraphs _graphs;
    private EventClock? _clock;
    private DeviceMemory? _arena;

    private CudaDevice(CudaOptions options, long usedBefore)
    {
        _options = options;
        _usedBefore = usedBefore;
        _gpu = new Gpu(options.Ordinal);
        long needed = CudaOps.WorkspaceBytes(options);
        if (Free() is var free && free < needed)
        {
            _gpu.Dispose();
            throw CardMemory.TooFullToOpen(_gpu.Name, free, needed);
        }
        try
        {
            _workspace = DeviceMemory.Allocate(needed);
            _staging = new Staging(_gpu);
            _ops = new CudaOps(_gpu, _staging, _workspace.Value, options);
            Synchronize();
            var use = Memory();
            _overhead =
                (use.Process > _workspace.Bytes ? use.Process - _workspace.Bytes : DefaultContextBytes) + CodeBytes;
            _graphs = new StepGraphs(_gpu, _ops);
        }
        catch
        {
            // Another process took the memory meanwhile: nothing of this one stays on the card.
            _ops?.Dispose();
            _staging?.Dispose();
            _workspace?.Dispose();
            _gpu.Dispose();
            throw;
        }
    }

    /// <summary>Opens the device. Throws <see cref="HeadroomException"/> with the reason when there is none.</summary>
    public static CudaDevice Open(CudaOptions? options = null) =>
        TryOpen(out string why, options)
        ?? throw new HeadroomException(
            why.Split('\n')[0], why.Contains('\n') ? why[(why.IndexOf('\n') + 1)..] : "Run headroom doctor.");

    /// <summary>
    /// Opens the device, or returns null and a reason: one line of what is missing, one line of what to do.
    /// </summary>
    public static CudaDevice? TryOpen(out string why, CudaOptions? options = null)
    {
        options ??= new CudaOptions();
        var report = CudaDoctor.Examine(options.Ordinal);
        if (report.Problem != null)
        {
            why = report.Problem + "\n" + report.Remedy;
            return null;
        }
        why = "";
        try
        {
            return new CudaDevice(options, report.UsedBytes);
        }
        catch (HeadroomException e)
        {
            // The driver says so too where the host has no page-locked memory left, of which the card's figures say
            // nothing.
            if (e is CudaException { Status: Driver.OutOfMemory } full && full.Call != nameof(Driver.cuMemHostAlloc))
                e = CardMemory.TooFullToOpen(
                    report.Gpu, CardMemory.Free(options.Ordinal),
                    CudaOps.WorkspaceBytes(options) + DefaultContextBytes + CodeBytes);
            why = e.Message + "\n" + e.ToDo;
            return null;
        }
        catch (EntryPointNotFoundException e)
        {
            var (problem, remedy) = CudaDoctor.Unusable(e);
            why = problem + "\n" + remedy;
            return null;
        }
    }

    /// <inheritdoc/>
    public string Name => _gpu.Name;
    /// <inheritdoc/>
    public string Kind => "cuda";
    /// <inheritdoc/>
    public string? DriverVersion => _gpu.DriverVersion;
    /// <inheritdoc/>
    public IOps Ops => _ops;
    /// <inheritdoc/>
    public long WorkspaceBytes => _workspace.Bytes + _overhead;
    /// <inheritdoc/>
    public int LargestRank(int widest, DType compute) => _ops.LargestRank(widest, compute);
    /// <inheritdoc/>
    public int LargestHead => FlashKernels.LargestHead;
    /// <inheritdoc/>
    public string? AttentionNotice(int headDim, DType compute) => FlashKernels.Fallback(headDim, compute, Capability);
    /// <summary>
    /// The part of <see cref="WorkspaceBytes"/> that the driver took: context and streams as measured when the device
    /// was opened, and room for code loaded later.
    /// </summary>
    public long OverheadBytes => _overhead;
    /// <summary>Compute capability, as 90.</summary>
    public int Capability => _gpu.Capability;
    /// <inheritdoc/>
    public DType PreferredCompute => _gpu.Capability >= 80 ? DType.BF16 : DType.F16;
    internal Gpu Gpu => _gpu;
    internal StepGraphs Graphs => _graphs;
    /// <summary>Expanded weights that stay, and their bytes; see <see cref="KeepExpanded"/>.</summary>
    internal (int Count, long Bytes) Expanded => _ops.Expanded;
    /// <inheritdoc/>
    public string? Notice => _graphs.Failure;

    /// <inheritdoc/>
    public nint Reserve(long bytes, long later = 0)
    {
        if (_arena != null) throw new InvalidOperationException("the arena is reserved already");
        _gpu.MakeCurrent();
        // code is loaded and records are made during the run, which is no time to find that they do not fit
        long needed = bytes + later + CodeBytes;
        if (Free() is var free && free < needed) throw CardMemory.TooFullForPlan(Name, free, needed);
        try
        {
            _arena = DeviceMemory.Allocate(bytes);
        }
        catch (CudaException e) when (e.Status == Driver.OutOfMemory) // another process was faster
        {
            throw CardMemory.TooFullForPlan(Name, Free(), needed);
        }
        // Nothing reads a buffer before it is written; zeros keep a fault of that kind from depending on what ran
        // before.
        CudaException.Check(
            Driver.cuMemsetD8Async(_arena.Value, 0, (nuint)bytes, _gpu.Main.Value), nameof(Driver.cuMemsetD8Async));
        return _arena.Value;
    }

    private static long Free()
    {
        CudaException.Check(Driver.cuMemGetInfo(out nuint free, out _), nameof(Driver.cuMemGetInfo));
        return (long)free;
    }

    /// <inheritdoc/>
    public void KeepExpanded(Tensor room) => _ops.KeepExpanded(room);

    /// <inheritdoc/>
    public void AdaptersChanged()
    {
        _gpu.MakeCurrent();
        _ops.AdaptersChanged();
    }

    /// <inheritdoc/>
    public void WeightsChanged()
    {
        _gpu.MakeCurrent();
        _ops.WeightsChanged();
    }

    /// <inheritdoc/>
    public void Upload(ReadOnlySpan<byte> source, Tensor destination)
    {
        if (source.Length > destination.Bytes)
            throw new InvalidOperationException("upload is larger than its destination");
        _gpu.MakeCurrent();
        _staging.Upload(source, destination.Address);
    }

    /// <inheritdoc/>
    public void Upload(RowReader read, Tensor destination)
    {
        _gpu.MakeCurrent();
        _staging.Upload(read, destination.Rows, destination.DType.Bytes(destination.Columns), destination.Address);
    }

    /// <inheritdoc/>
    public void Download(Tensor source, Span<byte> destination)
    {
        _gpu.MakeCurrent();
        _staging.Download(source.Address, destination);
    }

    /// <summary>
    /// By default where launching the ops one by one takes longer than they do: a large model gains nothing, and a
    /// graph takes memory. An estimate and not a measurement, because padding changes the rounding, and two runs of a
    /// recipe must be equal.
    /// </summary>
    public StepReplay Replay(double flops, long calls, DType compute)
    {
        // FLOPs of a clock and processor on tensor cores (32-bit: beside them), at 1.5 GHz, of which large products
        // reach 40 % and more.
        double perClock = compute == DType.F32 ? 256 : _gpu.Capability switch { >= 90 => 4096, 80 => 2048, _ => 1024 };
        bool bound = flops / (0.4 * perClock * 1.5e9 * _gpu.Processors) < calls * LaunchBoundSeconds;
        return _options.Graphs ?? bound
            ? new StepReplay(StepGraphs.MostGraphs * Math.Max(LeastGraphBytes, calls * GraphBytesPerOp), bound)
            : default;
    }

    /// <inheritdoc/>
    public StepStart Begin(in StepShape shape, in StepReplay replay, uint dropoutStep, float gradScale)
    {
        _gpu.MakeCurrent();
        return replay.Bytes == 0 || !_ops.Recordable
            ? StepStart.Issue
            : _graphs.Begin(shape, replay, dropoutStep, gradScale);
    }

    /// <inheritdoc/>
    public bool EndRecord(Exception? failure) => _graphs.EndRecord(failure);

    /// <summary>Waits until everything issued is done.</summary>
    public void Synchronize()
    {
        _gpu.MakeCurrent();
        _gpu.Main.Synchronize();
        _gpu.Side.Synchronize();
    }

    /// <summary>
    /// Bytes in use now. The process's own share is the management library's figure; where it gives none (containers
    /// hide process ids), the growth of the device's use since before this device was opened; -1 where that is not
    /// known either.
    /// </summary>
    public MemoryUse Memory()
    {
        _gpu.MakeCurrent();
        long reserved = _workspace.Bytes + (_arena?.Bytes ?? 0);
        if (Driver.cuMemGetInfo(out nuint free, out nuint total) != 0) return new MemoryUse(-1, -1, -1, reserved);
        long process = CardMemory.Listed(_options.Ordinal);
        if (process < 0) process = CardMemory.Growth(_usedBefore, CardMemory.Used(_options.Ordinal));
        return new MemoryUse((long)total, (long)(total - free), process, reserved);
    }

    /// <inheritdoc/>
    public IClock Clock
    {
        get
        {
            _gpu.MakeCurrent();
            return _clock ??= new EventClock(_gpu);
        }
    }

    /// <inheritdoc/>
    public MemoryUse? ReadMemory() => Memory();

    /// <inheritdoc/>
    public void Dispose()
    {
        _gpu.MakeCurrent();
        _ = Driver.cuStreamSynchronize(_gpu.Main.Value);
        _ = Driver.cuStreamSynchronize(_gpu.Side.Value);
        _graphs.Dispose();
        _ops.Dispose();
        _clock?.Dispose();
        _staging.Dispose();
        _arena?.Dispose();
        _workspace.Dispose();
        _gpu.Dispose();
    }

    /// <summary>Two events on the main stream.</summary>
    private sealed class EventClock(Gpu gpu) : IClock, IDisposable
    {
        private readonly CudaEvent _from = CudaEvent.Create(timed: true), _to = CudaEvent.Create(timed: true);

        public long Start()
        {
            _from.Record(gpu.Main);
            return 0;
        }

        public double Stop(long start)
        {
            _to.Record(gpu.Main);
            return _from.To(_to);
        }

        public void Dispose()
        {
            _from.Dispose();
            _to.Dispose();
        }
    }
}
