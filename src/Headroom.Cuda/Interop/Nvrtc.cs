using System.Runtime.InteropServices;

namespace Headroom.Cuda.Interop;

/// <summary>The run-time compiler; names as in nvrtc.h.</summary>
internal static unsafe partial class Nvrtc
{
    private const string Lib = "nvrtc";

    [LibraryImport(Lib)] public static partial int nvrtcVersion(out int major, out int minor);
    [LibraryImport(Lib)] public static partial int nvrtcGetNumSupportedArchs(out int count);
    [LibraryImport(Lib)] public static partial int nvrtcGetSupportedArchs(int* architectures);
    [LibraryImport(Lib, StringMarshalling = StringMarshalling.Utf8)]
    public static partial int nvrtcCreateProgram(
        out nint program, string source, string name, int headers, nint headerSources, nint headerNames);
    [LibraryImport(Lib)] public static partial int nvrtcDestroyProgram(ref nint program);
    [LibraryImport(Lib)] public static partial int nvrtcCompileProgram(nint program, int count, byte** options);
    [LibraryImport(Lib)] public static partial int nvrtcGetCUBINSize(nint program, out nuint bytes);
    [LibraryImport(Lib)] public static partial int nvrtcGetCUBIN(nint program, byte* cubin);
    [LibraryImport(Lib)] public static partial int nvrtcGetProgramLogSize(nint program, out nuint bytes);
    [LibraryImport(Lib)] public static partial int nvrtcGetProgramLog(nint program, byte* log);
}
