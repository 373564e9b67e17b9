using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Headroom.Cpu;

/// <summary>
/// The 12 x 32 tile of the single-precision product over packed panels: 24 accumulators, two loads and one broadcast a step fill the 32 AVX-512
/// registers. Written out because the JIT keeps only named locals in registers.
/// </summary>
internal static unsafe class GemmTile
{
    /// <summary>Rows of a tile.</summary>
    public const int MR = 12;
    /// <summary>Columns of a tile.</summary>
    public const int NR = 32;

    /// <summary>tile[i, j] = sum over k of a[k, i] * b[k, j], written to <paramref name="c"/> with row stride <paramref name="ldc"/>: assigned or +=, times alpha.</summary>
    public static void Multiply(int kc, float* a, float* b, float* c, long ldc, float alpha, bool accumulate)
    {
        if (Vector512.IsHardwareAccelerated) Vector(kc, a, b, c, ldc, alpha, accumulate);
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

    /// <summary>The AVX-512 tile.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Vector(int kc, float* a, float* b, float* c, long ldc, float alpha, bool accumulate)
    {
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
        Store(c, c0_0, c0_1, s, accumulate);
        Store(c + 1 * ldc, c1_0, c1_1, s, accumulate);
        Store(c + 2 * ldc, c2_0, c2_1, s, accumulate);
        Store(c + 3 * ldc, c3_0, c3_1, s, accumulate);
        Store(c + 4 * ldc, c4_0, c4_1, s, accumulate);
        Store(c + 5 * ldc, c5_0, c5_1, s, accumulate);
        Store(c + 6 * ldc, c6_0, c6_1, s, accumulate);
        Store(c + 7 * ldc, c7_0, c7_1, s, accumulate);
        Store(c + 8 * ldc, c8_0, c8_1, s, accumulate);
        Store(c + 9 * ldc, c9_0, c9_1, s, accumulate);
        Store(c + 10 * ldc, c10_0, c10_1, s, accumulate);
        Store(c + 11 * ldc, c11_0, c11_1, s, accumulate);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Store(float* c, Vector512<float> x0, Vector512<float> x1, Vector512<float> alpha, bool accumulate)
    {
        if (accumulate)
        {
            Vector512.FusedMultiplyAdd(x0, alpha, Vector512.Load(c)).Store(c);
            Vector512.FusedMultiplyAdd(x1, alpha, Vector512.Load(c + 16)).Store(c + 16);
        }
        else
        {
            (x0 * alpha).Store(c);
            (x1 * alpha).Store(c + 16);
        }
    }
}
