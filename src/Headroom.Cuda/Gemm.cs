using System.Numerics;
using Headroom.Core;
using Headroom.Cuda.Interop;
using Headroom.Cuda.Resources;

namespace Headroom.Cuda;

/// <summary>
/// Dense products through cuBLASLt, accumulated in float32 (no TF32); reductions that finish in arrival order are
/// excluded. The algorithm is the library's first choice for a shape. Others of its list are up to 7 % faster in a
/// burst, but not on a card at its power limit (bench/results/cuda-products.csv and cuda-products-sustained.csv,
/// Headroom.Bench `tune-cuda`): whole steps gained nothing by timing them.
/// </summary>
internal sealed unsafe class Gemm : IDisposable
{
    private readonly record struct Key(
        bool TransA, bool TransB, int M, int N, int K, int Lda, int Ldb, int Ldc, DType In, DType Out, int Align,
        bool Accumulate);

    private sealed class Plan(
        Key key, LtMatmulDesc desc, LtLayout a, LtLayout b, LtLayout c, CublasLt.Heuristic[] choices) : IDisposable
    {
        public readonly int M = key.N, N = key.M, K = key.K; // row-major again
        public readonly LtMatmulDesc Desc = desc;
        public readonly LtLayout A = a, B = b, C = c;
        public readonly CublasLt.Heuristic[] Choices = choices;
        public CublasLt.Heuristic Choice = choices[0];

        /// <summary>
        /// Takes the algorithm at a place of the library's list, or the first when the list is shorter or that one does
        /// not run.
        /// </summary>
        public void Take(int rank) =>
            Choice = rank < Choices.Length && Choices[rank].State == 0 ? Choices[rank] : Choices[0];

        public void Dispose()
        {
            Desc.Dispose();
            A.Dispose();
            B.Dispose();
            C.Dispose();
        }
    }

    private const int MaxPlans = 8192, Candidates = 6;
    private readonly Gpu _gpu;
    private readonly LtHandle _lt;
    private readonly Dictionary<Key, Plan> _plans = [];
    private readonly nint _workspace;
    private readonly long _workspaceBytes;

    public Gemm(Gpu gpu, nint workspace, long workspaceBytes)
    {
        _gpu = gpu;
        _workspace = workspace;
        _workspaceBytes = workspaceBytes;
        _lt = LtHandle.Create();
    }

    /// <summary>
    /// Row-major C[m, n] = alpha * op(A) op(B) + beta * (C, or what lies at <paramref name="addend"/> in the same
    /// layout); op(A) is [m, k], op(B) [k, n]; ta, tb: stored transposed.
    /// </summary>
    public void Run(
        bool ta, bool tb, int m, int n, int k, float alpha, nint a, int lda, nint b, int ldb, DType input, float beta,
        nint c, int ldc, DType output, nint addend = 0)
    {
        if (m == 0 || n == 0) return;
        if (addend == 0) addend = c;
        // cuBLAS is column-major: the transposed product, operands swapped, gives the same memory.
        nint all = a | b | c | addend;
        int align = 1 << Math.Min(8, BitOperations.TrailingZeroCount((ulong)all | 256));
        var key = new Key(tb, ta, n, m, k, ldb, lda, ldc, input, output, align, beta != 0);
        if (!_plans.TryGetValue(key, out var plan))
        {
            if (_plans.Count >= MaxPlans) Forget(); // ragged batches bring new shapes for ever
            _plans[key] = plan = Make(key);
        }
        if (_gpu.Profile != null)
            IssueTimed(
                $"{Gpu.Product(m, n, k)}{(ta ? " t" : "")}{(tb ? " T" : "")}{(beta != 0 ? " +=" : "")}", plan, alpha, a,
                b, beta, addend, c);
        else Issue(plan, alpha, a, b, beta, addend, c);
    }

    // Apart, so that the closure is made only under a profile.
    private void IssueTimed(string name, Plan plan, float alpha, nint a, nint b, float beta, nint addend, nint c) =>
        _gpu.Timed(name, () => Issue(plan, alpha, a, b, beta, addend, c));

    private void Issue(Plan plan, float alpha, nint a, nint b, float beta, nint addend, nint c)
    {
        int status;
        fixed (CublasLt.Heuristic* h = &plan.Choice)
            status = CublasLt.cublasLtMatmul(
                _lt.Value,
                plan.Desc.Value,
                &alpha,
                b,
                plan.A.Value,
                a,
                plan.B.Value,
                &beta,
                addend,
                plan.C.Value,
                c,
                plan.C.Value,
                h->Algo, _workspace, (nuint)_workspaceBytes, _gpu.Main.Value);
        if (status != 0)
            throw CudaException.OfLt(
                status, $"{nameof(CublasLt.cublasLtMatmul)} of {Gpu.Product(plan.M, plan.N, plan.K)}");
        _gpu.IssuedProduct(plan.M, plan.N, plan.K);
    }

    private Plan Make(in Key k)
    {
        int input = Type(k.In), output = Type(k.Out);
        CudaException.CheckLt(
            CublasLt.cublasLtMatmulDescCreate(out nint d, CublasLt.Compute32F, CublasLt.Real32F),
            nameof(CublasLt.cublasLtMatmulDescCreate));
        var desc = new LtMatmulDesc(d);
        int ta = k.TransA ? 1 : 0, tb = k.TransB ? 1 : 0;
        CudaException.CheckLt(
            CublasLt.cublasLtMatmulDescSetAttribute(d, CublasLt.DescTransA, &ta, 4),
            nameof(CublasLt.cublasLtMatmulDescSetAttribute));
        CudaException.CheckLt(
            CublasLt.cublasLtMatmulDescSetAttribute(d, CublasLt.DescTransB, &tb, 4),
            nameof(CublasLt.cublasLtMatmulDescSetAttribute));
        var a = k.TransA ? Layout(input, k.K, k.M, k.Lda) : Layout(input, k.M, k.K, k.Lda);
        var b = k.TransB ? Layout(input, k.N, k.K, k.Ldb) : Layout(input, k.K, k.N, k.Ldb);
        var c = Layout(output, k.M, k.N, k.Ldc);
        CudaException.CheckLt(
            CublasLt.cublasLtMatmulPreferenceCreate(out nint p), nameof(CublasLt.cublasLtMatmulPreferenceCreate));
        using var preference = new LtPreference(p);
        ulong bytes = (ulong)_workspaceBytes;
        uint mask = 6; // compute-type and output-type reductions: fixed order
        uint align = (uint)k.Align;
        Set(p, CublasLt.PrefMaxWorkspace, &bytes, 8);
        Set(p, CublasLt.PrefReductionMask, &mask, 4);
        Set(p, CublasLt.PrefAlignA, &align, 4);
        Set(p, CublasLt.PrefAlignB, &align, 4);
        Set(p, CublasLt.PrefAlignC, &align, 4);
        Set(p, CublasLt.PrefAlignD, &align, 4);
        var choices = stackalloc CublasLt.Heuristic[Candidates];
        int status = CublasLt.cublasLtMatmulAlgoGetHeuristic(
            _lt.Value, d, a.Value, b.Value, c.Value, c.Value, p, Candidates, choices, out int found);
        if (status != 0 || found == 0 || choices[0].State != 0)
            throw new CudaException(
                "cublasLtMatmulAlgoGetHeuristic", $"status {status}, no algorithm for {k}",
                "Report this shape; CPU runs it.");
        var plan = new Plan(k, desc, a, b, c, [.. new ReadOnlySpan<CublasLt.Heuristic>(choices, found)]);
        if (Rank > 0) plan.Take(Rank);
        return plan;
    }

    private static void Set(nint preference, int attribute, void* value, nuint bytes) =>
        CudaException.CheckLt(
            CublasLt.cublasLtMatmulPreferenceSetAttribute(preference, attribute, value, bytes),
            nameof(CublasLt.cublasLtMatmulPreferenceSetAttribute));

    private static LtLayout Layout(int type, int rows, int columns, int leading)
    {
        CudaException.CheckLt(
            CublasLt.cublasLtMatrixLayoutCreate(out nint l, type, (ulong)rows, (ulong)columns, leading),
            nameof(CublasLt.cublasLtMatrixLayoutCreate));
        return new LtLayout(l);
    }

    private static int Type(DType t) =>
        t switch
        {
            DType.BF16 => CublasLt.Real16BF,
            DType.F16 => CublasLt.Real16F,
            _ => CublasLt.Real32F,
        };

    /// <summary>Which of the library's first six choices is taken, 0 = its first. For measurements.</summary>
    internal int Rank { get; set { field = value; Forget(); } }

    private void Forget()
    {
        foreach (var p in _plans.Values) p.Dispose();
        _plans.Clear();
    }

    public void Dispose()
    {
        Forget();
        _lt.Dispose();
    }
}
