using System.Reflection;
using System.Runtime.InteropServices;

namespace Headroom.Cuda.Interop;

/// <summary>
/// Finds the vendor's libraries: HEADROOM_CUDA_PATH, CUDA_HOME, /usr/local/cuda, the loader path, then the wheels of an
/// active virtual environment or of the first python3 on PATH. The first folder that has a library wins, but what is
/// newer than the driver only where nothing else is.
/// </summary>
internal static class NativeLibraries
{
    private static readonly Dictionary<string, string[]> Files = new()
    {
        ["cuda"] = ["libcuda.so.1"],
        ["nvrtc"] = ["libnvrtc.so.13", "libnvrtc.so.12"],
        ["cublasLt"] = ["libcublasLt.so.13", "libcublasLt.so.12"],
        ["nvml"] = ["libnvidia-ml.so.1"],
    };

    private static readonly Dictionary<string, (nint Handle, string Where)> Loaded = [];
    private static bool _registered;

    /// <summary>Makes the resolver known to the runtime, once.</summary>
    public static void Register()
    {
        lock (Loaded)
        {
            if (_registered) return;
            NativeLibrary.SetDllImportResolver(typeof(NativeLibraries).Assembly, Resolve);
            _registered = true;
        }
    }

    /// <summary>Loads a library; where it was found, or null when it was not.</summary>
    public static string? Find(string name)
    {
        lock (Loaded)
        {
            if (Loaded.TryGetValue(name, out var hit)) return hit.Where;
            bool ofDriver = name is "cuda" or "nvml";
            foreach (
                var (folder, file) in Candidates(
                    ofDriver ? [""] : Folders(), Files[name], ofDriver ? int.MaxValue : DriverMajor())
            )
            {
                string path = folder.Length == 0 ? file : Path.Combine(folder, file);
                if (folder.Length > 0 && !File.Exists(path)) continue;
                if (!NativeLibrary.TryLoad(path, out nint handle)) continue;
                Loaded[name] = (handle, path);
                return path;
            }
            return null;
        }
    }

    /// <summary>
    /// Where to look for a library, in order: in each folder for each file, those of a CUDA that the driver runs first.
    /// The number at a file's end is its CUDA's.
    /// </summary>
    internal static IEnumerable<(string Folder, string File)> Candidates(
        IEnumerable<string> folders, string[] files, int driverMajor) =>
        folders
            .SelectMany(folder => files.Select(file => (folder, file)))
            .OrderBy(c => int.Parse(c.file[(c.file.LastIndexOf('.') + 1)..]) > driverMajor);

    private static int DriverMajor() =>
        Find("cuda") != null && Driver.cuDriverGetVersion(out int version) == 0 ? version / 1000 : int.MaxValue;

    private static nint Resolve(string name, Assembly assembly, DllImportSearchPath? path)
    {
        if (!Files.ContainsKey(name) || Find(name) == null) return 0;
        lock (Loaded) return Loaded[name].Handle;
    }

    // "" stands for the loader's own path.
    private static IEnumerable<string> Folders()
    {
        foreach (
            string? root in new[]
            {
                Environment.GetEnvironmentVariable("HEADROOM_CUDA_PATH"),
                Environment.GetEnvironmentVariable("CUDA_HOME"), "/usr/local/cuda",
            }
        )
        {
            if (string.IsNullOrEmpty(root)) continue;
            yield return root;
            yield return Path.Combine(root, "lib64");
            yield return Path.Combine(root, "lib");
        }
        yield return "";
        foreach (string folder in Wheels()) yield return folder;
    }

    private static IEnumerable<string> Wheels()
    {
        var roots = new List<string>();
        if (Environment.GetEnvironmentVariable("VIRTUAL_ENV") is { Length: > 0 } venv) roots.Add(venv);
        foreach (
            string dir in (Environment.GetEnvironmentVariable("PATH") ?? "").Split(
                ':', StringSplitOptions.RemoveEmptyEntries)
        )
            if (File.Exists(Path.Combine(dir, "python3")) && Path.GetDirectoryName(dir.TrimEnd('/')) is { } prefix)
                roots.Add(prefix);
        foreach (string root in roots.Distinct())
            foreach (string python in Glob(Path.Combine(root, "lib"), "python3*"))
                foreach (string package in Glob(Path.Combine(python, "site-packages", "nvidia"), "*"))
                    yield return Path.Combine(package, "lib");
    }

    private static string[] Glob(string folder, string pattern) =>
        Directory.Exists(folder) ? [.. Directory.GetDirectories(folder, pattern).Order(StringComparer.Ordinal)] : [];
}
