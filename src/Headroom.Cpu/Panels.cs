using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Headroom.Cpu;

/// <summary>
/// Moves of small blocks into packed panels: the transposition of four rows, and rows cut into pieces.
/// </summary>
internal static unsafe class Panels
{
    /// <summary>
    /// dst[k * stride + i] = src[i * rowStride + k] for four rows i and <paramref name="n"/> columns k.
    /// </summary>
    public static void Transpose4(float* src, long rowStride, int n, float* dst, int stride)
    {
        int k = 0;
        if (Avx.IsSupported)
        {
            float* s0 = src, s1 = s0 + rowStride, s2 = s1 + rowStride, s3 = s2 + rowStride;
            for (; k + 8 <= n; k += 8)
            {
                Vector256<float> r0 = Vector256.Load(s0 + k),
                    r1 = Vector256.Load(s1 + k),
                    r2 = Vector256.Load(s2 + k),
                    r3 = Vector256.Load(s3 + k);
                // Within each 128-bit half: columns 0, 1 and 2, 3 of the four rows; the halves are four columns apart.
                var a = Avx.UnpackLow(r0, r1).AsDouble();
                var b = Avx.UnpackHigh(r0, r1).AsDouble();
                var c = Avx.UnpackLow(r2, r3).AsDouble();
                var d = Avx.UnpackHigh(r2, r3).AsDouble();
                Vector256<float> c0 = Avx.UnpackLow(a, c).AsSingle(), c1 = Avx.UnpackHigh(a, c).AsSingle();
                Vector256<float> c2 = Avx.UnpackLow(b, d).AsSingle(), c3 = Avx.UnpackHigh(b, d).AsSingle();
                float* at = dst + (long)k * stride;
                c0.GetLower().Store(at);
                c1.GetLower().Store(at + stride);
                c2.GetLower().Store(at + 2 * stride);
                c3.GetLower().Store(at + 3 * stride);
                at += 4 * (long)stride;
                c0.GetUpper().Store(at);
                c1.GetUpper().Store(at + stride);
                c2.GetUpper().Store(at + 2 * stride);
                c3.GetUpper().Store(at + 3 * stride);
            }
        }
        TransposeScalar(src + k, rowStride, 4, n - k, dst + (long)k * stride, stride);
    }

    /// <summary>Scalar twin of <see cref="Transpose4"/>, for any number of rows.</summary>
    public static void TransposeScalar(float* src, long rowStride, int rows, int n, float* dst, int stride)
    {
        for (int i = 0; i < rows; i++)
            for (int k = 0; k < n; k++) dst[(long)k * stride + i] = src[i * rowStride + k];
    }

    /// <summary>Any number of rows, four at a time.</summary>
    public static void Transpose(float* src, long rowStride, int rows, int n, float* dst, int stride)
    {
        int i = 0;
        for (; i + 4 <= rows; i += 4) Transpose4(src + i * rowStride, rowStride, n, dst + i, stride);
        if (i < rows) TransposeScalar(src + i * rowStride, rowStride, rows - i, n, dst + i, stride);
    }

    /// <summary>
    /// dst[k * 12 + i] = src[k * stride + i]: twelve neighbours of each of <paramref name="n"/> rows.
    /// </summary>
    public static void Copy12(float* src, long stride, int n, float* dst)
    {
        for (int k = 0; k < n; k++, src += stride, dst += 12)
        {
            Vector128<float> a = Vector128.Load(src), b = Vector128.Load(src + 4), c = Vector128.Load(src + 8);
            a.Store(dst);
            b.Store(dst + 4);
            c.Store(dst + 8);
        }
    }

    /// <summary>32 columns.</summary>
    public static void Copy32(float* src, float* dst)
    {
        if (Vector512.IsHardwareAccelerated)
        {
            Vector512<float> a = Vector512.Load(src), b = Vector512.Load(src + 16);
            a.Store(dst);
            b.Store(dst + 16);
            return;
        }
        for (int i = 0; i < 32; i += 8) Vector256.Load(src + i).Store(dst + i);
    }
}
