using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Headroom.Core;

namespace Headroom.Cpu;

/// <summary>
/// y = x W^T for a few rows of x (generation): every row of W is read once, from memory into registers, and multiplied
/// with all rows of x there. The speed is that of reading the weight; packing it for the blocked product would read and
/// write it once more. F32, BF16 and NF4 are converted in the registers, other storages through the cache, a row at a
/// time. Values are those of <see cref="WeightRows"/>.
/// </summary>
internal static unsafe class RowProduct
{
    /// <summary>
    /// Up to eight rows this is faster than the packed product, but it sums in another order, and training promises
    /// that packed sequences and the same ones alone give equal losses: so it takes no more rows than the shortest
    /// batches of generation have.
    /// </summary>
    public const int MaxRows = 4;
    private const int RowsPerPart = 32;
    // Rows up to this width are one piece (64 KB, second-level cache), so that every storage is summed in the order of
    // the float32 row.
    private const int Piece = 16384;

    private struct Job
    {
        public Tensor X, Y;
        public LinearWeight W;
    }

    /// <summary>Runs the product. x [M, in], y [M, out], M at most <see cref="MaxRows"/>.</summary>
    public static void Run(WorkerPool pool, Tensor x, in LinearWeight w, Tensor y)
    {
        var job = new Job { X = x, Y = y, W = w };
        pool.Run(&Part, &job, (w.Out + RowsPerPart - 1) / RowsPerPart);
    }

    private static void Part(void* context, int part, int worker)
    {
        ref var j = ref *(Job*)context;
        int first = part * RowsPerPart, end = Math.Min(j.W.Out, first + RowsPerPart);
        // NF4 blocks of whole vectors that end with the row; anything else goes through WeightRows.
        bool nf4 =
            j.W.Storage is WeightStorage.NF4 or WeightStorage.NF4Double
            && j.W.In % j.W.BlockSize == 0
            && j.W.BlockSize % 32 == 0;
        int fused =
            !Avx512F.IsSupported || j.W.In % 32 != 0
                ? 0
                : j.W.Storage switch
                {
                    WeightStorage.F32 => 1,
                    WeightStorage.BF16 => 2,
                    _ => nf4 ? 3 : 0,
                };
        float* sums = stackalloc float[MaxRows], temp = stackalloc float[fused == 0 ? Math.Min(Piece, j.W.In) : 1];
        for (int n = first; n < end; n++)
        {
            for (int m = 0; m < j.X.Rows; m += 2)
            {
                // Two rows of x at a time keep four sums in flight; a weight that was just read is in the first-level
                // cache for the next two.
                bool two = m + 1 < j.X.Rows;
                float* x = j.X.F + (long)m * j.W.In;
                switch (fused)
                {
                    case 1: Fused<F32>(j.W, n, x, two, sums + m); break;
                    case 2: Fused<BF16>(j.W, n, x, two, sums + m); break;
                    case 3: Nf4(j.W, n, x, two, sums + m); break;
                }
            }
            if (fused == 0) Pieces(j, n, temp, sums);
            for (int m = 0; m < j.X.Rows; m++) j.Y.F[(long)m * j.W.Out + n] = sums[m];
        }
    }

    /// <summary>Sixteen weights from memory.</summary>
    private interface ILoad
    {
        static abstract Vector512<float> At(in LinearWeight w, long i);
    }

    private readonly struct F32 : ILoad
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static Vector512<float> At(in LinearWeight w, long i) => Vector512.Load(w.Data.F + i);
    }

    private readonly struct BF16 : ILoad
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static Vector512<float> At(in LinearWeight w, long i) =>
            (Avx512F.ConvertToVector512Int32(Vector256.Load((ushort*)w.Data.Address + i)) << 16).AsSingle();
    }

    private static void Fused<T>(in LinearWeight w, int row, float* x, bool two, float* sums) where T : struct, ILoad
    {
        long at = (long)row * w.In;
        float* x1 = two ? x + w.In : x;
        Vector512<float> a0 = default, a1 = default, b0 = default, b1 = default;
        for (int k = 0; k < w.In; k += 32)
        {
            Vector512<float> v0 = T.At(w, at + k), v1 = T.At(w, at + k + 16);
            a0 = Vector512.FusedMultiplyAdd(v0, Vector512.Load(x + k), a0);
            a1 = Vector512.FusedMultiplyAdd(v1, Vector512.Load(x + k + 16), a1);
            if (!two) continue;
            b0 = Vector512.FusedMultiplyAdd(v0, Vector512.Load(x1 + k), b0);
            b1 = Vector512.FusedMultiplyAdd(v1, Vector512.Load(x1 + k + 16), b1);
        }
        sums[0] = Vector512.Sum(a0 + a1);
        if (two) sums[1] = Vector512.Sum(b0 + b1);
    }

    private static void Nf4(in LinearWeight w, int row, float* x, bool two, float* sums)
    {
        long at = (long)row * w.In, block = at / w.BlockSize;
        float* x1 = two ? x + w.In : x;
        byte* codes = w.Data.B + (at >> 1);
        var table = Vector512.Load(Nf4Tables.Code);
        var shift = Vector512.Create(4u, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0);
        var duplicate = Vector128.Create((byte)0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        Vector512<float> a0 = default, a1 = default, b0 = default, b1 = default;
        for (int k = 0; k < w.In; block++)
        {
            var absmax = Vector512.Create(WeightRows.Absmax(w, block));
            for (int end = k + w.BlockSize; k < end; k += 32, codes += 16)
            {
                // The low four bits of an index are what the permutation looks at: the shifted code needs no mask.
                var pair0 = Ssse3.Shuffle(Vector128.CreateScalarUnsafe(*(ulong*)codes).AsByte(), duplicate);
                var pair1 = Ssse3.Shuffle(Vector128.CreateScalarUnsafe(*(ulong*)(codes + 8)).AsByte(), duplicate);
                var v0 =
                    Avx512F.PermuteVar16x32(
                        table,
                        Avx512F.ShiftRightLogicalVariable(Avx512F.ConvertToVector512UInt32(pair0), shift).AsInt32()
                    ) * absmax;
                var v1 =
                    Avx512F.PermuteVar16x32(
                        table,
                        Avx512F.ShiftRightLogicalVariable(Avx512F.ConvertToVector512UInt32(pair1), shift).AsInt32()
                    ) * absmax;
                a0 = Vector512.FusedMultiplyAdd(v0, Vector512.Load(x + k), a0);
                a1 = Vector512.FusedMultiplyAdd(v1, Vector512.Load(x + k + 16), a1);
                if (!two) continue;
                b0 = Vector512.FusedMultiplyAdd(v0, Vector512.Load(x1 + k), b0);
                b1 = Vector512.FusedMultiplyAdd(v1, Vector512.Load(x1 + k + 16), b1);
            }
        }
        sums[0] = Vector512.Sum(a0 + a1);
        if (two) sums[1] = Vector512.Sum(b0 + b1);
    }

    private static void Pieces(in Job j, int n, float* temp, float* sums)
    {
        for (int m = 0; m < j.X.Rows; m++) sums[m] = 0;
        for (int k = 0; k < j.W.In; k += Piece)
        {
            int count = Math.Min(Piece, j.W.In - k);
            WeightRows.Read(j.W, n, k, count, temp);
            for (int m = 0; m < j.X.Rows; m++) sums[m] += Dot(temp, j.X.F + (long)m * j.W.In + k, count);
        }
    }

    private static float Dot(float* a, float* b, int n)
    {
        var s0 = Vector512<float>.Zero;
        var s1 = Vector512<float>.Zero;
        int i = 0;
        for (; i + 32 <= n; i += 32)
        {
            s0 = Vector512.FusedMultiplyAdd(Vector512.Load(a + i), Vector512.Load(b + i), s0);
            s1 = Vector512.FusedMultiplyAdd(Vector512.Load(a + i + 16), Vector512.Load(b + i + 16), s1);
        }
        float sum = Vector512.Sum(s0 + s1);
        for (; i < n; i++) sum = MathF.FusedMultiplyAdd(a[i], b[i], sum);
        return sum;
    }
}
