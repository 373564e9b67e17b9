using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using Headroom.Core;
using Headroom.Cuda.Interop;

namespace Headroom.Cuda;

/// <summary>
/// Kernel sources (embedded, or made by <see cref="KernelHeader"/>) to cubins for one architecture. A cubin is cached
/// by the hash of source, options, compiler and driver, so only the first run on a machine compiles.
/// </summary>
internal sealed unsafe class KernelCompiler(string architecture, int driverVersion, CubinCache cache)
{
    private static readonly string Common = Source("common.cuh");

    /// <summary>Number of sources that were compiled, not taken from the cache.</summary>
    public int Compiled { get; private set; }

    /// <summary>The cubin of a file for an activation type; <paramref name="defines"/> as in "-DRANK=16".</summary>
    public byte[] Cubin(string file, DType act, params string[] defines)
    {
        string[] options =
        [
            $"--gpu-architecture={architecture}", "--std=c++17", $"-DACT={KernelConstants.Kind(act)}", .. defines];
        string source = Common + Source(file);
        CheckCompiler(Nvrtc.nvrtcVersion(out int major, out int minor), nameof(Nvrtc.nvrtcVersion));
        string identity = string.Join('\n', [.. options, $"{major}.{minor}", driverVersion.ToString(), source]);
        string key = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(identity)));
        if (cache.Read(key) is { } kept) return kept;
        byte[] cubin = Compile(file, source, options);
        Compiled++;
        cache.Write(key, cubin);
        return cubin;
    }

    private static byte[] Compile(string file, string source, string[] options)
    {
        CheckCompiler(
            Nvrtc.nvrtcCreateProgram(out nint program, source, file, 0, 0, 0), nameof(Nvrtc.nvrtcCreateProgram));
        var arguments = new nint[options.Length];
        try
        {
            for (int i = 0; i < options.Length; i++) arguments[i] = Marshal.StringToCoTaskMemUTF8(options[i]);
            int status;
            fixed (nint* p = arguments) status = Nvrtc.nvrtcCompileProgram(program, options.Length, (byte**)p);
            if (status != 0)
                throw new CudaException(
                    $"nvrtcCompileProgram({file})", $"status {status}: {Log(program)}",
                    "Run headroom doctor: the compiler library must know this GPU.");
            CheckCompiler(Nvrtc.nvrtcGetCUBINSize(program, out nuint size), nameof(Nvrtc.nvrtcGetCUBINSize));
            var cubin = new byte[(int)size];
            fixed (byte* p = cubin) CheckCompiler(Nvrtc.nvrtcGetCUBIN(program, p), nameof(Nvrtc.nvrtcGetCUBIN));
            return cubin;
        }
        finally
        {
            foreach (nint a in arguments) Marshal.FreeCoTaskMem(a);
            Nvrtc.nvrtcDestroyProgram(ref program);
        }
    }

    private static string Log(nint program)
    {
        if (Nvrtc.nvrtcGetProgramLogSize(program, out nuint size) != 0 || size <= 1) return "no log";
        var log = new byte[(int)size];
        fixed (byte* p = log) _ = Nvrtc.nvrtcGetProgramLog(program, p);
        return Encoding.UTF8.GetString(log).TrimEnd('\0', '\n');
    }

    private static void CheckCompiler(int status, string call)
    {
        if (status != 0) throw new CudaException(call, $"NVRTC status {status}", "Run headroom doctor.");
    }

    private static string Source(string file)
    {
        if (KernelHeader.Files.TryGetValue(file, out string? made)) return made;
        using var stream = typeof(KernelCompiler).Assembly.GetManifestResourceStream(file)
            ?? throw new InvalidOperationException($"{file} is not embedded");
        using var reader = new StreamReader(stream);
        var text = new StringBuilder();
        while (reader.ReadLine() is { } line) // #include "name" stands for another source
            text.Append(
                    line.StartsWith("#include \"", StringComparison.Ordinal)
                        ? Source(line[10..].TrimEnd().TrimEnd('"'))
                        : line
                )
                .Append('\n');
        return text.ToString();
    }
}
