using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Headroom.Cpu;

/// <summary>
/// The 12 x 32 tile of the single-precision product over packed panels. With 512-bit registers 24 accumulators, two
/// loads and one broadcast a step fill the register file; with 256 bits the tile is four blocks of 6 x 16, with 128
/// bits eight of 6 x 8. Written out because the JIT keeps only named locals in registers. Every version adds the terms
/// in the order of k with fused multiply-adds, so all agree bit for bit.
/// </summary>
internal static unsafe class GemmTile
{
    /// <summary>Rows of a tile.</summary>
    public const int MR = 12;
    /// <summary>Columns of a tile.</summary>
    public const int NR = 32;

    /// <summary>
    /// tile[i, j] = sum over k of a[k, i] * b[k, j], written to <paramref name="c"/> with row stride
    /// <paramref name="ldc"/>: assigned or +=, times alpha. Only the first <paramref name="columns"/> columns (rounded
    /// up to 16) are needed.
    /// </summary>
    public static void Multiply(
        int kc, float* a, float* b, float* c, long ldc, float alpha, bool accumulate, int columns = NR)
    {
        if (Vector512.IsHardwareAccelerated)
        {
            if (columns > 16) Vector(kc, a, b, c, ldc, alpha, accumulate);
            else VectorHalf(kc, a, b, c, ldc, alpha, accumulate);
        }
        else if (Vector256.IsHardwareAccelerated)
            Vector256Tile(kc, a, b, c, ldc, alpha, accumulate, columns);
        else if (Vector128.IsHardwareAccelerated)
            Vector128Tile(kc, a, b, c, ldc, alpha, accumulate, columns);
        else Scalar(kc, a, b, c, ldc, alpha, accumulate);
    }

    /// <summary>The scalar twin: the same order of operations, element by element.</summary>
    public static void Scalar(int kc, float* a, float* b, float* c, long ldc, float alpha, bool accumulate)
    {
        for (int i = 0; i < MR; i++)
            for (int j = 0; j < NR; j++)
            {
                float sum = 0;
                for (int k = 0; k < kc; k++) sum = MathF.FusedMultiplyAdd(a[k * MR + i], b[k * NR + j], sum);
                float* at = c + i * ldc + j;
                *at = accumulate ? MathF.FusedMultiplyAdd(sum, alpha, *at) : sum * alpha;
            }
    }

    /// <summary>256-bit registers: blocks of 6 x 16.</summary>
    public static void Vector256Tile(
        int kc, float* a, float* b, float* c, long ldc, float alpha, bool accumulate, int columns)
    {
        for (int j = 0; j < columns; j += 16)
            for (int i = 0; i < MR; i += 6)
                Block<Vector256<float>, Lanes256>(kc, a + i, b + j, c + i * ldc + j, ldc, alpha, accumulate);
    }

    /// <summary>128-bit registers: blocks of 6 x 8.</summary>
    public static void Vector128Tile(
        int kc, float* a, float* b, float* c, long ldc, float alpha, bool accumulate, int columns)
    {
        for (int j = 0; j < columns; j += 8)
            for (int i = 0; i < MR; i += 6)
                Block<Vector128<float>, Lanes128>(kc, a + i, b + j, c + i * ldc + j, ldc, alpha, accumulate);
    }

    /// <summary>512-bit registers, the whole tile.</summary>
    // Long: one tile, a local for each register that holds it; the JIT keeps no array of them in registers.
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Vector(int kc, float* a, float* b, float* c, long ldc, float alpha, bool accumulate)
    {
        Prefetch(c, ldc);
        Vector512<float> c0_0 = Vector512<float>.Zero, c0_1 = Vector512<float>.Zero;
        Vector512<float> c1_0 = Vector512<float>.Zero, c1_1 = Vector512<float>.Zero;
        Vector512<float> c2_0 = Vector512<float>.Zero, c2_1 = Vector512<float>.Zero;
        Vector512<float> c3_0 = Vector512<float>.Zero, c3_1 = Vector512<float>.Zero;
        Vector512<float> c4_0 = Vector512<float>.Zero, c4_1 = Vector512<float>.Zero;
        Vector512<float> c5_0 = Vector512<float>.Zero, c5_1 = Vector512<float>.Zero;
        Vector512<float> c6_0 = Vector512<float>.Zero, c6_1 = Vector512<float>.Zero;
        Vector512<float> c7_0 = Vector512<float>.Zero, c7_1 = Vector512<float>.Zero;
        Vector512<float> c8_0 = Vector512<float>.Zero, c8_1 = Vector512<float>.Zero;
        Vector512<float> c9_0 = Vector512<float>.Zero, c9_1 = Vector512<float>.Zero;
        Vector512<float> c10_0 = Vector512<float>.Zero, c10_1 = Vector512<float>.Zero;
        Vector512<float> c11_0 = Vector512<float>.Zero, c11_1 = Vector512<float>.Zero;
        for (int k = 0; k < kc; k++)
        {
            var b0 = Vector512.Load(b);
            var b1 = Vector512.Load(b + 16);
            var a0 = Vector512.Create(a[0]);
            c0_0 = Vector512.FusedMultiplyAdd(a0, b0, c0_0);
            c0_1 = Vector512.FusedMultiplyAdd(a0, b1, c0_1);
            var a1 = Vector512.Create(a[1]);
            c1_0 = Vector512.FusedMultiplyAdd(a1, b0, c1_0);
            c1_1 = Vector512.FusedMultiplyAdd(a1, b1, c1_1);
            var a2 = Vector512.Create(a[2]);
            c2_0 = Vector512.FusedMultiplyAdd(a2, b0, c2_0);
            c2_1 = Vector512.FusedMultiplyAdd(a2, b1, c2_1);
            var a3 = Vector512.Create(a[3]);
            c3_0 = Vector512.FusedMultiplyAdd(a3, b0, c3_0);
            c3_1 = Vector512.FusedMultiplyAdd(a3, b1, c3_1);
            var a4 = Vector512.Create(a[4]);
            c4_0 = Vector512.FusedMultiplyAdd(a4, b0, c4_0);
            c4_1 = Vector512.FusedMultiplyAdd(a4, b1, c4_1);
            var a5 = Vector512.Create(a[5]);
            c5_0 = Vector512.FusedMultiplyAdd(a5, b0, c5_0);
            c5_1 = Vector512.FusedMultiplyAdd(a5, b1, c5_1);
            var a6 = Vector512.Create(a[6]);
            c6_0 = Vector512.FusedMultiplyAdd(a6, b0, c6_0);
            c6_1 = Vector512.FusedMultiplyAdd(a6, b1, c6_1);
            var a7 = Vector512.Create(a[7]);
            c7_0 = Vector512.FusedMultiplyAdd(a7, b0, c7_0);
            c7_1 = Vector512.FusedMultiplyAdd(a7, b1, c7_1);
            var a8 = Vector512.Create(a[8]);
            c8_0 = Vector512.FusedMultiplyAdd(a8, b0, c8_0);
            c8_1 = Vector512.FusedMultiplyAdd(a8, b1, c8_1);
            var a9 = Vector512.Create(a[9]);
            c9_0 = Vector512.FusedMultiplyAdd(a9, b0, c9_0);
            c9_1 = Vector512.FusedMultiplyAdd(a9, b1, c9_1);
            var a10 = Vector512.Create(a[10]);
            c10_0 = Vector512.FusedMultiplyAdd(a10, b0, c10_0);
            c10_1 = Vector512.FusedMultiplyAdd(a10, b1, c10_1);
            var a11 = Vector512.Create(a[11]);
            c11_0 = Vector512.FusedMultiplyAdd(a11, b0, c11_0);
            c11_1 = Vector512.FusedMultiplyAdd(a11, b1, c11_1);
            a += MR;
            b += NR;
        }
        var s = Vector512.Create(alpha);
        Store(c, c0_0, s, accumulate);
        Store(c + 16, c0_1, s, accumulate);
        Store(c + ldc, c1_0, s, accumulate);
        Store(c + ldc + 16, c1_1, s, accumulate);
        Store(c + 2 * ldc, c2_0, s, accumulate);
        Store(c + 2 * ldc + 16, c2_1, s, accumulate);
        Store(c + 3 * ldc, c3_0, s, accumulate);
        Store(c + 3 * ldc + 16, c3_1, s, accumulate);
        Store(c + 4 * ldc, c4_0, s, accumulate);
        Store(c + 4 * ldc + 16, c4_1, s, accumulate);
        Store(c + 5 * ldc, c5_0, s, accumulate);
        Store(c + 5 * ldc + 16, c5_1, s, accumulate);
        Store(c + 6 * ldc, c6_0, s, accumulate);
        Store(c + 6 * ldc + 16, c6_1, s, accumulate);
        Store(c + 7 * ldc, c7_0, s, accumulate);
        Store(c + 7 * ldc + 16, c7_1, s, accumulate);
        Store(c + 8 * ldc, c8_0, s, accumulate);
        Store(c + 8 * ldc + 16, c8_1, s, accumulate);
        Store(c + 9 * ldc, c9_0, s, accumulate);
        Store(c + 9 * ldc + 16, c9_1, s, accumulate);
        Store(c + 10 * ldc, c10_0, s, accumulate);
        Store(c + 10 * ldc + 16, c10_1, s, accumulate);
        Store(c + 11 * ldc, c11_0, s, accumulate);
        Store(c + 11 * ldc + 16, c11_1, s, accumulate);
    }

    /// <summary>512-bit registers, the first 16 columns (the rank of an adapter is seldom more).</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void VectorHalf(int kc, float* a, float* b, float* c, long ldc, float alpha, bool accumulate)
    {
        Prefetch(c, ldc);
        Vector512<float> c0_0 = Vector512<float>.Zero;
        Vector512<float> c1_0 = Vector512<float>.Zero;
        Vector512<float> c2_0 = Vector512<float>.Zero;
        Vector512<float> c3_0 = Vector512<float>.Zero;
        Vector512<float> c4_0 = Vector512<float>.Zero;
        Vector512<float> c5_0 = Vector512<float>.Zero;
        Vector512<float> c6_0 = Vector512<float>.Zero;
        Vector512<float> c7_0 = Vector512<float>.Zero;
        Vector512<float> c8_0 = Vector512<float>.Zero;
        Vector512<float> c9_0 = Vector512<float>.Zero;
        Vector512<float> c10_0 = Vector512<float>.Zero;
        Vector512<float> c11_0 = Vector512<float>.Zero;
        for (int k = 0; k < kc; k++)
        {
            var b0 = Vector512.Load(b);
            var a0 = Vector512.Create(a[0]);
            c0_0 = Vector512.FusedMultiplyAdd(a0, b0, c0_0);
            var a1 = Vector512.Create(a[1]);
            c1_0 = Vector512.FusedMultiplyAdd(a1, b0, c1_0);
            var a2 = Vector512.Create(a[2]);
            c2_0 = Vector512.FusedMultiplyAdd(a2, b0, c2_0);
            var a3 = Vector512.Create(a[3]);
            c3_0 = Vector512.FusedMultiplyAdd(a3, b0, c3_0);
            var a4 = Vector512.Create(a[4]);
            c4_0 = Vector512.FusedMultiplyAdd(a4, b0, c4_0);
            var a5 = Vector512.Create(a[5]);
            c5_0 = Vector512.FusedMultiplyAdd(a5, b0, c5_0);
            var a6 = Vector512.Create(a[6]);
            c6_0 = Vector512.FusedMultiplyAdd(a6, b0, c6_0);
            var a7 = Vector512.Create(a[7]);
            c7_0 = Vector512.FusedMultiplyAdd(a7, b0, c7_0);
            var a8 = Vector512.Create(a[8]);
            c8_0 = Vector512.FusedMultiplyAdd(a8, b0, c8_0);
            var a9 = Vector512.Create(a[9]);
            c9_0 = Vector512.FusedMultiplyAdd(a9, b0, c9_0);
            var a10 = Vector512.Create(a[10]);
            c10_0 = Vector512.FusedMultiplyAdd(a10, b0, c10_0);
            var a11 = Vector512.Create(a[11]);
            c11_0 = Vector512.FusedMultiplyAdd(a11, b0, c11_0);
            a += MR;
            b += NR;
        }
        var s = Vector512.Create(alpha);
        Store(c, c0_0, s, accumulate);
        Store(c + ldc, c1_0, s, accumulate);
        Store(c + 2 * ldc, c2_0, s, accumulate);
        Store(c + 3 * ldc, c3_0, s, accumulate);
        Store(c + 4 * ldc, c4_0, s, accumulate);
        Store(c + 5 * ldc, c5_0, s, accumulate);
        Store(c + 6 * ldc, c6_0, s, accumulate);
        Store(c + 7 * ldc, c7_0, s, accumulate);
        Store(c + 8 * ldc, c8_0, s, accumulate);
        Store(c + 9 * ldc, c9_0, s, accumulate);
        Store(c + 10 * ldc, c10_0, s, accumulate);
        Store(c + 11 * ldc, c11_0, s, accumulate);
    }

    /// <summary>6 rows of two registers.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Block<V, L>(int kc, float* a, float* b, float* c, long ldc, float alpha, bool accumulate)
        where V : struct
        where L : ILanes<V>
    {
        V c0_0 = default, c0_1 = default;
        V c1_0 = default, c1_1 = default;
        V c2_0 = default, c2_1 = default;
        V c3_0 = default, c3_1 = default;
        V c4_0 = default, c4_1 = default;
        V c5_0 = default, c5_1 = default;
        for (int k = 0; k < kc; k++)
        {
            var b0 = L.Load(b);
            var b1 = L.Load(b + L.Count);
            var a0 = L.Create(a[0]);
            c0_0 = L.FusedMultiplyAdd(a0, b0, c0_0);
            c0_1 = L.FusedMultiplyAdd(a0, b1, c0_1);
            var a1 = L.Create(a[1]);
            c1_0 = L.FusedMultiplyAdd(a1, b0, c1_0);
            c1_1 = L.FusedMultiplyAdd(a1, b1, c1_1);
            var a2 = L.Create(a[2]);
            c2_0 = L.FusedMultiplyAdd(a2, b0, c2_0);
            c2_1 = L.FusedMultiplyAdd(a2, b1, c2_1);
            var a3 = L.Create(a[3]);
            c3_0 = L.FusedMultiplyAdd(a3, b0, c3_0);
            c3_1 = L.FusedMultiplyAdd(a3, b1, c3_1);
            var a4 = L.Create(a[4]);
            c4_0 = L.FusedMultiplyAdd(a4, b0, c4_0);
            c4_1 = L.FusedMultiplyAdd(a4, b1, c4_1);
            var a5 = L.Create(a[5]);
            c5_0 = L.FusedMultiplyAdd(a5, b0, c5_0);
            c5_1 = L.FusedMultiplyAdd(a5, b1, c5_1);
            a += MR;
            b += NR;
        }
        var s = L.Create(alpha);
        L.Store(c, c0_0, s, accumulate);
        L.Store(c + L.Count, c0_1, s, accumulate);
        L.Store(c + ldc, c1_0, s, accumulate);
        L.Store(c + ldc + L.Count, c1_1, s, accumulate);
        L.Store(c + 2 * ldc, c2_0, s, accumulate);
        L.Store(c + 2 * ldc + L.Count, c2_1, s, accumulate);
        L.Store(c + 3 * ldc, c3_0, s, accumulate);
        L.Store(c + 3 * ldc + L.Count, c3_1, s, accumulate);
        L.Store(c + 4 * ldc, c4_0, s, accumulate);
        L.Store(c + 4 * ldc + L.Count, c4_1, s, accumulate);
        L.Store(c + 5 * ldc, c5_0, s, accumulate);
        L.Store(c + 5 * ldc + L.Count, c5_1, s, accumulate);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Store(float* c, Vector512<float> x, Vector512<float> alpha, bool accumulate) =>
        (accumulate ? Vector512.FusedMultiplyAdd(x, alpha, Vector512.Load(c)) : x * alpha).Store(c);

    /// <summary>What the blocks of narrow registers need of them.</summary>
    private interface ILanes<V>
    {
        /// <summary>Values in a register.</summary>
        static abstract int Count { get; }
        static abstract V Load(float* x);
        static abstract V Create(float x);
        static abstract V FusedMultiplyAdd(V a, V b, V c);
        static abstract void Store(float* c, V x, V alpha, bool accumulate);
    }

    private readonly struct Lanes256 : ILanes<Vector256<float>>
    {
        public static int Count => 8;
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static Vector256<float> Load(float* x) => Vector256.Load(x);
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static Vector256<float> Create(float x) => Vector256.Create(x);
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static Vector256<float> FusedMultiplyAdd(Vector256<float> a, Vector256<float> b, Vector256<float> c) =>
            Vector256.FusedMultiplyAdd(a, b, c);
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static void Store(float* c, Vector256<float> x, Vector256<float> alpha, bool accumulate) =>
            (accumulate ? Vector256.FusedMultiplyAdd(x, alpha, Vector256.Load(c)) : x * alpha).Store(c);
    }

    private readonly struct Lanes128 : ILanes<Vector128<float>>
    {
        public static int Count => 4;
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static Vector128<float> Load(float* x) => Vector128.Load(x);
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static Vector128<float> Create(float x) => Vector128.Create(x);
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static Vector128<float> FusedMultiplyAdd(Vector128<float> a, Vector128<float> b, Vector128<float> c) =>
            Vector128.FusedMultiplyAdd(a, b, c);
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public static void Store(float* c, Vector128<float> x, Vector128<float> alpha, bool accumulate) =>
            (accumulate ? Vector128.FusedMultiplyAdd(x, alpha, Vector128.Load(c)) : x * alpha).Store(c);
    }

    // The rows of C come from far away; asked for here they arrive while the products run.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Prefetch(float* c, long ldc)
    {
        if (!Sse.IsSupported) return;
        for (int i = 0; i < MR; i++, c += ldc)
        {
            Sse.Prefetch0(c);
            Sse.Prefetch0(c + 31);
        }
    }
}
