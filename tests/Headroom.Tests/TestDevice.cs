using Headroom.Core;
using Headroom.Cpu;

namespace Headroom.Tests;

/// <summary>The device that the shared model tests run on; the CUDA tests have their own.</summary>
public static class TestDevice
{
    public static IDevice Open() => new CpuDevice();
}
