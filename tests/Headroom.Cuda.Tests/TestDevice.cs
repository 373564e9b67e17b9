using Headroom.Core;
using Headroom.Cuda;

namespace Headroom.Tests;

/// <summary>The device that the shared model tests run on: here the GPU, or a skip with the reason.</summary>
public static class TestDevice
{
    public static IDevice Open() => OpenCuda();

    internal static CudaDevice OpenCuda(CudaOptions? options = null)
    {
        var device = CudaDevice.TryOpen(out string why, options ?? new CudaOptions(ExpandBytes: 8L << 20));
        Assert.SkipWhen(device == null, why.Replace('\n', ' '));
        return device!;
    }
}
