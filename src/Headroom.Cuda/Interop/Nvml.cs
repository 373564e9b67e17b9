using System.Runtime.InteropServices;

namespace Headroom.Cuda.Interop;

/// <summary>The management library: bytes in use, by device and by process; names as in nvml.h.</summary>
internal static unsafe partial class Nvml
{
    private const string Lib = "nvml";

    /// <summary>nvmlMemory_t.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct Memory
    {
        public ulong Total, Free, Used;
    }

    /// <summary>nvmlProcessInfo_t, version 2 and later.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct ProcessInfo
    {
        public uint Pid;
        public ulong UsedBytes;
        public uint GpuInstance, ComputeInstance;
    }

    [LibraryImport(Lib, EntryPoint = "nvmlInit_v2")] public static partial int nvmlInit();

    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetHandleByPciBusId_v2")]
    public static partial int nvmlDeviceGetHandleByPciBusId(byte* id, out nint device);

    [LibraryImport(Lib)]
    public static partial int nvmlDeviceGetMigMode(nint device, out uint current, out uint pending);
    [LibraryImport(Lib)] public static partial int nvmlDeviceGetMemoryInfo(nint device, out Memory memory);
    [LibraryImport(Lib, EntryPoint = "nvmlDeviceGetComputeRunningProcesses_v3")]
    public static partial int nvmlDeviceGetComputeRunningProcesses(nint device, ref uint count, ProcessInfo* infos);
}
