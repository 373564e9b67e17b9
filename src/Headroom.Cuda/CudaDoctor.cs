using System.Runtime.InteropServices;
using Headroom.Cuda.Interop;

namespace Headroom.Cuda;

/// <summary>What was found of the driver and the vendor's libraries, and the first thing that is missing.</summary>
internal sealed class CudaReport
{
    /// <summary>Lines "what: where or version", in the order they were looked for.</summary>
    public IReadOnlyList<(string What, string Found)> Items { get; init; } = [];
    /// <summary>What is missing, one line, or null when everything is there.</summary>
    public string? Problem { get; init; }
    /// <summary>The one thing to do about it.</summary>
    public string Remedy { get; init; } = "";
    /// <summary>Name of the GPU; "" when something is missing.</summary>
    public string Gpu { get; init; } = "";
    /// <summary>
    /// Bytes of the card in use by all processes, and by the driver, when it was looked at; -1 = not known.
    /// </summary>
    public long UsedBytes { get; init; } = -1;
}

/// <summary>
/// Looks for everything the CUDA path needs, without keeping any of it open; for <c>headroom doctor</c> and for opening
/// a device.
/// </summary>
internal static unsafe class CudaDoctor
{
    private const string Wheels = "pip install nvidia-cuda-nvrtc-cu12 nvidia-cublas-cu12 (in a virtual environment)";
    private const string InstallLibraries =
        $"Install them with: {Wheels}, or set HEADROOM_CUDA_PATH to a CUDA 12 or 13 toolkit.";

    /// <summary>
    /// <see cref="Examine"/>, and the device is opened once: a full card, or a matrix library that does not start,
    /// shows only then.
    /// </summary>
    public static CudaReport Try(int ordinal = 0)
    {
        var report = Examine(ordinal);
        if (report.Problem != null) return report;
        using var device = CudaDevice.TryOpen(out string why, new CudaOptions(ordinal));
        string[] lines = why.Split('\n', 2);
        return device != null
            ? report
            : new CudaReport
            {
                Items = report.Items,
                Gpu = report.Gpu,
                UsedBytes = report.UsedBytes,
                Problem = lines[0],
                Remedy = lines[^1],
            };
    }

    /// <summary>Examines the driver, the libraries and one GPU; opens no context.</summary>
    public static CudaReport Examine(int ordinal = 0)
    {
        var items = new List<(string, string)>();
        try
        {
            return Look(ordinal, items);
        }
        catch (EntryPointNotFoundException e)
        {
            var (problem, remedy) = Unusable(e);
            return new CudaReport { Items = items, Problem = problem, Remedy = remedy };
        }
    }

    /// <summary>A library that loads and lacks a function: too old, or another library under that name.</summary>
    internal static (string Problem, string Remedy) Unusable(EntryPointNotFoundException e)
    {
        string[] words = e.Message.Split('\''); // ... an entry point named 'cuInit' in native library 'cuda'.
        string function = words.ElementAtOrDefault(1) ?? e.Message, library = words.ElementAtOrDefault(3) ?? "";
        bool vendors = library is "nvrtc" or "cublasLt";
        return (
            $"{(library is "cuda" || vendors ? NativeLibraries.Find(library) : null) ?? "A library"} has no "
                + $"{function}: it is too old, or not what its name says.",
            vendors ? InstallLibraries : "Install the NVIDIA driver anew, or run with --device cpu.");
    }

    private static CudaReport Look(int ordinal, List<(string, string)> items)
    {
        NativeLibraries.Register();
        var fault = LookAtGpu(ordinal, items, out int driver, out string gpu, out int capability)
            ?? LookForLibraries(items)
            ?? LookAtVersions(items, driver, gpu, capability);
        if (fault is var (problem, remedy)) return new CudaReport { Items = items, Problem = problem, Remedy = remedy };
        var memory = CardMemory.Read(ordinal);
        if (memory is { } m) items.Add(("memory", $"{m.Total / 1048576.0:F0} MiB, {m.Free / 1048576.0:F0} MiB free"));
        return new CudaReport { Items = items, Gpu = gpu, UsedBytes = (long?)memory?.Used ?? -1 };
    }

    private static (string Problem, string Remedy)? LookAtGpu(
        int ordinal, List<(string, string)> items, out int driver, out string gpu, out int capability)
    {
        (driver, gpu, capability) = (0, "", 0);
        if (NativeLibraries.Find("cuda") is not { } library)
            return (
                "No NVIDIA driver: libcuda.so.1 was not found.", "Install the NVIDIA driver, or run with --device cpu.");
        items.Add(("driver library", library));
        int status = Driver.cuInit(0);
        if (status != 0)
            return (
                $"The NVIDIA driver does not start: cuInit: {CudaException.Text(status)}.",
                "Check nvidia-smi, or run with --device cpu.");
        Driver.cuDriverGetVersion(out driver);
        items.Add(("driver's CUDA version", $"{driver / 1000}.{driver % 1000 / 10}"));
        Driver.cuDeviceGetCount(out int count);
        if (ordinal >= count)
            return (
                $"There is no GPU number {ordinal}: the driver shows {count}.",
                "Check nvidia-smi and CUDA_VISIBLE_DEVICES, or run with --device cpu.");
        if (Driver.cuDeviceGet(out int device, ordinal) != 0)
            return ($"GPU {ordinal} cannot be opened.", "Check nvidia-smi.");
        byte* name = stackalloc byte[128];
        _ = Driver.cuDeviceGetName(name, 128, device);
        Driver.cuDeviceGetAttribute(out int major, Driver.ComputeCapabilityMajor, device);
        Driver.cuDeviceGetAttribute(out int minor, Driver.ComputeCapabilityMinor, device);
        (gpu, capability) = (Marshal.PtrToStringUTF8((nint)name) ?? "GPU", major * 10 + minor);
        items.Add(("GPU", $"{gpu}, compute capability {major}.{minor}"));
        return capability >= 75
            ? null
            : (
                $"{gpu} has compute capability {major}.{minor}; 7.5 is the least that is supported.",
                "Use a Turing or newer GPU, or run with --device cpu.");
    }

    private static (string Problem, string Remedy)? LookForLibraries(List<(string, string)> items)
    {
        var missing = new List<string>();
        foreach (
            var (library, what) in new[]
            {
                ("nvrtc", "NVRTC (run-time compiler)"), ("cublasLt", "cuBLASLt (matrix products)"),
            }
        )
        {
            string? where = NativeLibraries.Find(library);
            items.Add((what, where ?? "not found"));
            if (where == null) missing.Add(what);
        }
        items.Add(("NVML (memory telemetry, optional)", NativeLibraries.Find("nvml") ?? "not found"));
        return missing.Count == 0
            ? null
            : ($"{string.Join(" and ", missing)} not found for CUDA 12 or 13.", InstallLibraries);
    }

    private static (string Problem, string Remedy)? LookAtVersions(
        List<(string, string)> items, int driver, string gpu, int capability)
    {
        if (Nvrtc.nvrtcVersion(out int compiler, out int release) != 0)
            return ("NVRTC does not say its version.", InstallLibraries);
        int products = (int)CublasLt.cublasLtGetVersion();
        items.Add(("NVRTC version", $"{compiler}.{release}"));
        items.Add(("cuBLASLt version", products.ToString()));
        return LibraryFault("NVRTC", compiler, driver)
            ?? LibraryFault("cuBLASLt", products / 10000, driver)
            ?? ArchitectureFault($"NVRTC {compiler}.{release}", Architectures(), gpu, capability);
    }

    /// <summary>
    /// Why a driver cannot run what a library of a CUDA gives it, or null: it runs all of its own CUDA's major version,
    /// whatever their minor one, and older ones.
    /// </summary>
    /// <param name="library">The library's name.</param>
    /// <param name="major">Its CUDA's major version.</param>
    /// <param name="driver">The driver's CUDA version, as 12040.</param>
    internal static (string Problem, string Remedy)? LibraryFault(string library, int major, int driver) =>
        major <= driver / 1000
            ? null
            : (
                $"{library} is of CUDA {major}, the driver of CUDA {driver / 1000}.{driver % 1000 / 10}: it does not "
                    + $"run what is newer.",
                driver >= 12000
                    ? $"Install libraries of CUDA 12 with: {Wheels}, or update the NVIDIA driver."
                    : "Update the NVIDIA driver to one of CUDA 12 or later, or run with --device cpu."
            );

    /// <summary>Why a compiler cannot compile for a GPU, or null.</summary>
    /// <param name="compiler">Its name and version.</param>
    /// <param name="known">Architectures that it compiles for, as 90; none = it does not say.</param>
    /// <param name="gpu">The GPU's name.</param>
    /// <param name="capability">Its compute capability, as 90.</param>
    internal static (string Problem, string Remedy)? ArchitectureFault(
        string compiler, ReadOnlySpan<int> known, string gpu, int capability) =>
        known.IsEmpty || known.Contains(capability)
            ? null
            : (
                $"{compiler} does not compile for the {gpu} (sm_{capability}).",
                $"Install a newer one with: pip install --upgrade{Wheels["pip install".Length..]}, or set "
                    + $"HEADROOM_CUDA_PATH to a newer toolkit."
            );

    private static int[] Architectures()
    {
        if (Nvrtc.nvrtcGetNumSupportedArchs(out int count) != 0 || count <= 0) return [];
        var known = new int[count];
        fixed (int* p = known) return Nvrtc.nvrtcGetSupportedArchs(p) == 0 ? known : [];
    }
}
