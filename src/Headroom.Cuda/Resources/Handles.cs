using System.Runtime.InteropServices;
using Headroom.Cuda.Interop;

namespace Headroom.Cuda.Resources;

/// <summary>One native resource with one release call.</summary>
internal abstract class CudaHandle : SafeHandle
{
    protected CudaHandle(nint value) : base(0, true) => SetHandle(value);
    public override bool IsInvalid => handle == 0;
    /// <summary>The raw handle; valid while this object is.</summary>
    public nint Value => handle;
}

/// <summary>The device's primary context, retained.</summary>
internal sealed class PrimaryContext : CudaHandle
{
    private readonly int _device;
    private PrimaryContext(nint value, int device) : base(value) => _device = device;

    public static PrimaryContext Retain(int device)
    {
        CudaException.Check(
            Driver.cuDevicePrimaryCtxRetain(out nint c, device), nameof(Driver.cuDevicePrimaryCtxRetain));
        return new PrimaryContext(c, device);
    }

    protected override bool ReleaseHandle() => Driver.cuDevicePrimaryCtxRelease(_device) == 0;
}

/// <summary>A stream that does not wait for the default one.</summary>
internal sealed class CudaStream : CudaHandle
{
    private CudaStream(nint value) : base(value) { }

    public static CudaStream Create()
    {
        CudaException.Check(Driver.cuStreamCreate(out nint s, 1), nameof(Driver.cuStreamCreate));
        return new CudaStream(s);
    }

    public void Synchronize() =>
        CudaException.Check(Driver.cuStreamSynchronize(handle), nameof(Driver.cuStreamSynchronize));

    public void Wait(CudaEvent e) =>
        CudaException.Check(Driver.cuStreamWaitEvent(handle, e.Value, 0), nameof(Driver.cuStreamWaitEvent));
    protected override bool ReleaseHandle() => Driver.cuStreamDestroy(handle) == 0;
}

/// <summary>An event; timed ones serve the benchmarks.</summary>
internal sealed class CudaEvent : CudaHandle
{
    private CudaEvent(nint value) : base(value) { }

    public static CudaEvent Create(bool timed = false)
    {
        CudaException.Check(Driver.cuEventCreate(out nint e, timed ? 0u : 2u), nameof(Driver.cuEventCreate));
        return new CudaEvent(e);
    }

    public void Record(CudaStream stream) =>
        CudaException.Check(Driver.cuEventRecord(handle, stream.Value), nameof(Driver.cuEventRecord));

    /// <summary>
    /// Waits until what was issued before the last <see cref="Record"/> is done; at once when there was none.
    /// </summary>
    public void Synchronize() =>
        CudaException.Check(Driver.cuEventSynchronize(handle), nameof(Driver.cuEventSynchronize));

    /// <summary>Milliseconds from this event to a later one; waits for it.</summary>
    public float To(CudaEvent later)
    {
        CudaException.Check(Driver.cuEventSynchronize(later.Value), nameof(Driver.cuEventSynchronize));
        CudaException.Check(
            Driver.cuEventElapsedTime(out float ms, handle, later.Value), nameof(Driver.cuEventElapsedTime));
        return ms;
    }

    protected override bool ReleaseHandle() => Driver.cuEventDestroy(handle) == 0;
}

/// <summary>Device memory from one cuMemAlloc.</summary>
internal sealed class DeviceMemory : CudaHandle
{
    private DeviceMemory(nint value, long bytes) : base(value) => Bytes = bytes;
    public long Bytes { get; }

    public static DeviceMemory Allocate(long bytes)
    {
        CudaException.Check(Driver.cuMemAlloc(out nint p, (nuint)bytes), $"cuMemAlloc of {bytes / 1048576.0:F0} MiB");
        return new DeviceMemory(p, bytes);
    }

    protected override bool ReleaseHandle() => Driver.cuMemFree(handle) == 0;
}

/// <summary>Page-locked host memory.</summary>
internal sealed class PinnedMemory : CudaHandle
{
    private PinnedMemory(nint value, long bytes) : base(value) => Bytes = bytes;
    public long Bytes { get; }

    public static PinnedMemory Allocate(long bytes)
    {
        CudaException.Check(Driver.cuMemHostAlloc(out nint p, (nuint)bytes, 0), nameof(Driver.cuMemHostAlloc));
        return new PinnedMemory(p, bytes);
    }

    protected override bool ReleaseHandle() => Driver.cuMemFreeHost(handle) == 0;
}

/// <summary>A loaded cubin.</summary>
internal sealed unsafe class CudaModule : CudaHandle
{
    private CudaModule(nint value) : base(value) { }

    public static CudaModule Load(byte[] cubin)
    {
        fixed (byte* p = cubin)
        {
            CudaException.Check(Driver.cuModuleLoadData(out nint m, p), nameof(Driver.cuModuleLoadData));
            return new CudaModule(m);
        }
    }

    public nint Function(string name)
    {
        CudaException.Check(Driver.cuModuleGetFunction(out nint f, handle, name), $"cuModuleGetFunction({name})");
        return f;
    }

    /// <summary>Address of a variable of the module.</summary>
    public nint Global(string name)
    {
        CudaException.Check(Driver.cuModuleGetGlobal(out nint at, out _, handle, name), $"cuModuleGetGlobal({name})");
        return at;
    }

    protected override bool ReleaseHandle() => Driver.cuModuleUnload(handle) == 0;
}

/// <summary>A recorded sequence of work, ready to be issued again.</summary>
internal sealed class CudaGraph : CudaHandle
{
    private CudaGraph(nint value) : base(value) { }

    /// <summary>
    /// Makes a record runnable; it is on the device afterwards, so that its first run takes no memory.
    /// </summary>
    public static CudaGraph Instantiate(nint graph, CudaStream stream)
    {
        CudaException.Check(
            Driver.cuGraphInstantiateWithFlags(out nint e, graph, 0), nameof(Driver.cuGraphInstantiateWithFlags));
        var result = new CudaGraph(e);
        int status = Driver.cuGraphUpload(e, stream.Value);
        if (status == 0) return result;
        result.Dispose();
        CudaException.Check(status, nameof(Driver.cuGraphUpload));
        return result;
    }

    /// <summary>Issues the record on a stream.</summary>
    public void Launch(CudaStream stream) =>
        CudaException.Check(Driver.cuGraphLaunch(handle, stream.Value), nameof(Driver.cuGraphLaunch));

    protected override bool ReleaseHandle() => Driver.cuGraphExecDestroy(handle) == 0;
}

/// <summary>The cuBLASLt library handle.</summary>
internal sealed class LtHandle : CudaHandle
{
    private LtHandle(nint value) : base(value) { }

    public static LtHandle Create()
    {
        CudaException.CheckLt(CublasLt.cublasLtCreate(out nint h), nameof(CublasLt.cublasLtCreate));
        return new LtHandle(h);
    }

    protected override bool ReleaseHandle() => CublasLt.cublasLtDestroy(handle) == 0;
}

/// <summary>A cublasLtMatmulDesc.</summary>
internal sealed class LtMatmulDesc(nint value) : CudaHandle(value)
{
    protected override bool ReleaseHandle() => CublasLt.cublasLtMatmulDescDestroy(handle) == 0;
}

/// <summary>A cublasLtMatrixLayout.</summary>
internal sealed class LtLayout(nint value) : CudaHandle(value)
{
    protected override bool ReleaseHandle() => CublasLt.cublasLtMatrixLayoutDestroy(handle) == 0;
}

/// <summary>A cublasLtMatmulPreference.</summary>
internal sealed class LtPreference(nint value) : CudaHandle(value)
{
    protected override bool ReleaseHandle() => CublasLt.cublasLtMatmulPreferenceDestroy(handle) == 0;
}
