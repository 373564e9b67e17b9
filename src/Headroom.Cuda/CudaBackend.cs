using Headroom.Core;

namespace Headroom.Cuda;

/// <summary>NVIDIA GPUs, for applications.</summary>
public static class CudaBackend
{
    /// <summary>Opens a GPU as a device.</summary>
    /// <param name="options">Which GPU and how; null = the first, as it is best.</param>
    /// <exception cref="HeadroomException">There is none, or it cannot be used: what lacks and what to do.</exception>
    public static IDevice Open(CudaOptions? options = null) => CudaDevice.Open(options);

    /// <summary>Opens a GPU as a device where there is one.</summary>
    /// <param name="why">One line of what is missing and one of what to do, where it returns null.</param>
    /// <param name="options">Which GPU and how; null = the first, as it is best.</param>
    public static IDevice? TryOpen(out string why, CudaOptions? options = null) =>
        CudaDevice.TryOpen(out why, options);
}
