using System.Runtime.InteropServices;
using Headroom.Cuda.Interop;

namespace Headroom.Cuda;

/// <summary>What was found of the driver and the vendor's libraries, and the first thing that is missing.</summary>
public sealed class CudaReport
{
    /// <summary>Lines "what: where or version", in the order they were looked for.</summary>
    public IReadOnlyList<(string What, string Found)> Items { get; init; } = [];
    /// <summary>What is missing, one line, or null when everything is there.</summary>
    public string? Problem { get; init; }
    /// <summary>The one thing to do about it.</summary>
    public string Remedy { get; init; } = "";
    /// <summary>Bytes of the card in use by all processes when it was looked at.</summary>
    public long UsedBytes { get; init; }
}

/// <summary>Looks for everything the CUDA path needs, without keeping any of it open; for <c>headroom doctor</c> and for opening a device.</summary>
public static unsafe class CudaDoctor
{
    private const string InstallLibraries =
        "Install them with: pip install nvidia-cuda-nvrtc-cu12 nvidia-cublas-cu12 (in a virtual environment), or set HEADROOM_CUDA_PATH to a CUDA 12 or 13 toolkit.";

    /// <summary>Examines the driver, the libraries and one GPU.</summary>
    public static CudaReport Examine(int ordinal = 0)
    {
        var items = new List<(string, string)>();
        CudaReport Stop(string problem, string remedy) => new() { Items = items, Problem = problem, Remedy = remedy };
        NativeLibraries.Register();
        if (NativeLibraries.Find("cuda") is not { } driver)
            return Stop("No NVIDIA driver: libcuda.so.1 was not found.", "Install the NVIDIA driver, or run with --device cpu.");
        items.Add(("driver library", driver));
        int status = Driver.cuInit(0);
        if (status != 0) return Stop($"The NVIDIA driver does not start: cuInit: {CudaException.Text(status)}.", "Check nvidia-smi, or run with --device cpu.");
        Driver.cuDriverGetVersion(out int version);
        items.Add(("driver's CUDA version", $"{version / 1000}.{version % 1000 / 10}"));
        Driver.cuDeviceGetCount(out int count);
        if (ordinal >= count) return Stop($"There is no GPU number {ordinal}: the driver shows {count}.", "Check nvidia-smi and CUDA_VISIBLE_DEVICES, or run with --device cpu.");
        if (Driver.cuDeviceGet(out int device, ordinal) != 0) return Stop($"GPU {ordinal} cannot be opened.", "Check nvidia-smi.");
        byte* name = stackalloc byte[128];
        Driver.cuDeviceGetName(name, 128, device);
        Driver.cuDeviceGetAttribute(out int major, Driver.ComputeCapabilityMajor, device);
        Driver.cuDeviceGetAttribute(out int minor, Driver.ComputeCapabilityMinor, device);
        string gpu = Marshal.PtrToStringUTF8((nint)name) ?? "GPU";
        items.Add(("GPU", $"{gpu}, compute capability {major}.{minor}"));
        if (major * 10 + minor < 75) return Stop($"{gpu} has compute capability {major}.{minor}; 7.5 is the least that is supported.", "Use a Turing or newer GPU, or run with --device cpu.");
        var missing = new List<string>();
        foreach (var (library, what) in new[] { ("nvrtc", "NVRTC (run-time compiler)"), ("cublasLt", "cuBLASLt (matrix products)") })
        {
            string? where = NativeLibraries.Find(library);
            items.Add((what, where ?? "not found"));
            if (where == null) missing.Add(what);
        }
        items.Add(("NVML (memory telemetry, optional)", NativeLibraries.Find("nvml") ?? "not found"));
        if (missing.Count > 0) return Stop($"{string.Join(" and ", missing)} not found for CUDA 12 or 13.", InstallLibraries);
        if (Nvrtc.nvrtcVersion(out int a, out int b) == 0) items.Add(("NVRTC version", $"{a}.{b}"));
        items.Add(("cuBLASLt version", CublasLt.cublasLtGetVersion().ToString()));
        long used = 0;
        if (DeviceMemory(ordinal) is { } m)
        {
            items.Add(("memory", $"{m.Total / 1048576.0:F0} MiB, {m.Free / 1048576.0:F0} MiB free"));
            used = (long)m.Used;
        }
        return new CudaReport { Items = items, UsedBytes = used };
    }

    private static Nvml.Memory? DeviceMemory(int ordinal)
    {
        if (NativeLibraries.Find("nvml") == null || Nvml.nvmlInit() != 0 || Nvml.nvmlDeviceGetHandleByIndex((uint)ordinal, out nint device) != 0) return null;
        return Nvml.nvmlDeviceGetMemoryInfo(device, out var memory) == 0 ? memory : null;
    }

    /// <summary>Bytes of this process on the GPU, or -1 when the library does not say.</summary>
    internal static long ProcessBytes(int ordinal)
    {
        if (NativeLibraries.Find("nvml") == null || Nvml.nvmlInit() != 0 || Nvml.nvmlDeviceGetHandleByIndex((uint)ordinal, out nint device) != 0) return -1;
        uint count = 64;
        Nvml.ProcessInfo* infos = stackalloc Nvml.ProcessInfo[64];
        if (Nvml.nvmlDeviceGetComputeRunningProcesses(device, ref count, infos) != 0) return -1;
        for (int i = 0; i < count; i++)
            if (infos[i].Pid == (uint)Environment.ProcessId && infos[i].UsedBytes < long.MaxValue) return (long)infos[i].UsedBytes;
        return -1;
    }
}
