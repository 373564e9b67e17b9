using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Cuda.Interop;

namespace Headroom.Cuda;

/// <summary>
/// A call of the driver, the compiler or the matrix library that failed, with the call's name and the vendor's word for
/// the status.
/// </summary>
internal sealed class CudaException(string call, string status, string todo)
    : DeviceException(call, $"{call} failed: {status}.", todo)
{
    /// <summary>The driver's status; 0 = another library's.</summary>
    internal int Status { get; private init; }

    [ThreadStatic] private static Gpu? t_gpu;

    /// <summary>
    /// The device whose work this thread issues: a fault of a kernel shows only at a later call, so the message also
    /// names what was issued before it.
    /// </summary>
    internal static void Watch(Gpu? gpu) => t_gpu = gpu;

    /// <summary>Throws unless a driver status is 0.</summary>
    internal static void Check(int status, string call)
    {
        if (status != 0) throw Make(status, call);
    }

    /// <summary>Throws unless a cuBLASLt status is 0.</summary>
    internal static void CheckLt(int status, string call)
    {
        if (status != 0) throw OfLt(status, call);
    }

    /// <summary>The failure of a driver call.</summary>
    internal static CudaException Make(int status, string call) =>
        new(call, Text(status) + Before(), ToDoFor(status)) { Status = status };

    /// <summary>
    /// The failure of a cuBLASLt call. The library has one status for whatever goes wrong on the device; a fault of an
    /// earlier kernel stays with the context, and any driver call tells it.
    /// </summary>
    internal static CudaException OfLt(int status, string call) =>
        Driver.cuMemGetInfo(out _, out _) is not 0 and var fault
        ? Make(fault, call)
            : new CudaException(
                call, $"cuBLAS status {status}{Before()}",
                "Run headroom doctor; a product that the library cannot do is a fault to report.");

    private static string Before() =>
        t_gpu?.LastOperation is { } last ? $"; the last operation issued before it was {last}" : "";

    /// <summary>Name and text of a driver status.</summary>
    internal static string Text(int status)
    {
        if (Driver.cuGetErrorName(status, out nint name) != 0 || Driver.cuGetErrorString(status, out nint text) != 0)
            return $"status {status}";
        return $"{Marshal.PtrToStringUTF8(name)} ({Marshal.PtrToStringUTF8(text)})";
    }

    private static string ToDoFor(int status) => status == Driver.OutOfMemory
        ? "Another process holds the card's memory, or the plan is larger than the card: see headroom plan."
        : "If it happens again, run headroom doctor.";
}
