using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>The CPU, for applications.</summary>
public static class CpuBackend
{
    /// <summary>Opens the CPU as a device.</summary>
    /// <param name="threads">Threads that compute, 0 = one a core.</param>
    public static IDevice Open(int threads = 0) => new CpuDevice(threads);
}
