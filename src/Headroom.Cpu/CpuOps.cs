using System.Runtime.InteropServices;

namespace Headroom.Cpu;

/// <summary>
/// The ops on the CPU, float32 activations. Every method runs on the worker pool and allocates nothing:
/// scratch comes from one native block, allocated here and sized by <see cref="WorkspaceBytes"/>.
/// </summary>
internal sealed unsafe partial class CpuOps : Core.IOps, IDisposable
{
    /// <summary>Bytes of the packed left operand that all workers share.</summary>
    internal const long SharedBytes = 8L << 20;
    /// <summary>Bytes of scratch that each worker owns (packed right operand, tiles, rows).</summary>
    internal const long WorkerBytes = 1L << 20;

    private readonly WorkerPool _pool;
    private byte* _workspace;

    /// <summary>Starts the workers and allocates the workspace; 0 threads means one a processor.</summary>
    public CpuOps(int threads = 0)
    {
        _pool = new WorkerPool(threads > 0 ? threads : Environment.ProcessorCount);
        nuint bytes = (nuint)WorkspaceBytes(_pool.Threads);
        _workspace = (byte*)NativeMemory.AlignedAlloc(bytes, 4096);
        NativeMemory.Clear(_workspace, bytes);
    }

    /// <summary>Number of workers.</summary>
    public int Threads => _pool.Threads;

    /// <summary>The workers; other partial files run their parts on it.</summary>
    internal WorkerPool Pool => _pool;

    /// <summary>Scratch shared by all workers during one op, <see cref="SharedBytes"/> long.</summary>
    internal byte* Shared => _workspace;

    /// <summary>Scratch of one worker, <see cref="WorkerBytes"/> long, 4096-byte aligned.</summary>
    internal byte* Scratch(int worker) => _workspace + SharedBytes + worker * WorkerBytes;

    /// <summary>Bytes of native memory an instance with this many threads holds.</summary>
    public static long WorkspaceBytes(int threads) => SharedBytes + Math.Max(1, threads) * WorkerBytes;

    /// <summary>Stops the workers and frees the workspace.</summary>
    public void Dispose()
    {
        if (_workspace == null) return;
        _pool.Dispose();
        NativeMemory.AlignedFree(_workspace);
        _workspace = null;
    }
}
