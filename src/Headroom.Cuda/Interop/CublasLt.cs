using System.Runtime.InteropServices;

namespace Headroom.Cuda.Interop;

/// <summary>The light matrix-product library; names and numbers as in cublasLt.h.</summary>
internal static unsafe partial class CublasLt
{
    private const string Lib = "cublasLt";

    public const int Compute32F = 68;
    public const int Real32F = 0, Real16F = 2, Real16BF = 14;
    public const int DescTransA = 3, DescTransB = 4;
    public const int PrefMaxWorkspace = 1,
        PrefReductionMask = 3,
        PrefAlignA = 5,
        PrefAlignB = 6,
        PrefAlignC = 7,
        PrefAlignD = 8;

    /// <summary>cublasLtMatmulHeuristicResult_t.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct Heuristic
    {
        public fixed ulong Algo[8];
        public nuint WorkspaceBytes;
        public int State;
        public float Waves;
        public fixed int Reserved[4];
    }

    [LibraryImport(Lib)] public static partial nuint cublasLtGetVersion();
    [LibraryImport(Lib)] public static partial int cublasLtCreate(out nint handle);
    [LibraryImport(Lib)] public static partial int cublasLtDestroy(nint handle);

    [LibraryImport(Lib)]
    public static partial int cublasLtMatmulDescCreate(out nint desc, int computeType, int scaleType);
    [LibraryImport(Lib)] public static partial int cublasLtMatmulDescDestroy(nint desc);

    [LibraryImport(Lib)]
    public static partial int cublasLtMatmulDescSetAttribute(nint desc, int attribute, void* value, nuint bytes);

    [LibraryImport(Lib)]
    public static partial int cublasLtMatrixLayoutCreate(
        out nint layout, int type, ulong rows, ulong columns, long leading);
    [LibraryImport(Lib)] public static partial int cublasLtMatrixLayoutDestroy(nint layout);
    [LibraryImport(Lib)] public static partial int cublasLtMatmulPreferenceCreate(out nint preference);
    [LibraryImport(Lib)] public static partial int cublasLtMatmulPreferenceDestroy(nint preference);

    [LibraryImport(Lib)]
    public static partial int cublasLtMatmulPreferenceSetAttribute(
        nint preference, int attribute, void* value, nuint bytes);
    [LibraryImport(Lib)]
    public static partial int cublasLtMatmulAlgoGetHeuristic(
        nint handle, nint desc, nint a, nint b, nint c, nint d, nint preference, int count, Heuristic* results,
        out int found);
    [LibraryImport(Lib)]
    public static partial int cublasLtMatmul(
        nint handle,
        nint desc,
        void* alpha,
        nint a,
        nint aLayout,
        nint b,
        nint bLayout,
        void* beta,
        nint c,
        nint cLayout,
        nint d, nint dLayout, void* algo, nint workspace, nuint workspaceBytes, nint stream);
}
