using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Headroom.Cpu;

/// <summary>
/// The small matrix product under attention: C[m][0..31] = C[m][0..31] * scale[0..31] (or 0) + sum over k of A[m * sm +
/// k * sk] * B[k][0..31]. Terms are added in the order of k with fused multiply-adds in every version, so all versions
/// agree bit for bit.
/// </summary>
internal static unsafe class AttentionTile
{
    /// <summary>Columns of a tile: queries in the transposed blocks.</summary>
    public const int Lanes = 32;

    /// <summary>How a product starts.</summary>
    public enum Start : byte
    {
        /// <summary>From zero.</summary>
        Zero,
        /// <summary>From C.</summary>
        Accumulate,
        /// <summary>From C times the scale of its column.</summary>
        Rescale,
    }

    /// <summary>Any number of rows; 32 columns.</summary>
    public static void Multiply(
        bool simd, int rows, float* a, nint sm, nint sk, int kn, float* b, nint ldb, float* c, nint ldc, Start start,
        float* scale = null)
    {
        for (int m = 0; m < rows; m += 8)
        {
            int n = Math.Min(8, rows - m);
            if (!simd) Scalar(n, a + m * sm, sm, sk, kn, b, ldb, c + m * ldc, ldc, start, scale);
            else if (Vector512.IsHardwareAccelerated)
                Rows512(n, a + m * sm, sm, sk, kn, b, ldb, c + m * ldc, ldc, start, scale);
            else
                for (int j = 0; j < Lanes; j += 16)
                    Rows256(
                        n, a + m * sm, sm, sk, kn, b + j, ldb, c + m * ldc + j, ldc, start,
                        scale == null ? null : scale + j);
        }
    }

    /// <summary>Scalar twin: up to 8 rows.</summary>
    public static void Scalar(
        int rows, float* a, nint sm, nint sk, int kn, float* b, nint ldb, float* c, nint ldc, Start start, float* scale)
    {
        for (int m = 0; m < rows; m++)
            for (int j = 0; j < Lanes; j++)
            {
                float sum =
                    start == Start.Zero ? 0f
                    : start == Start.Accumulate ? c[m * ldc + j]
                    : c[m * ldc + j] * scale[j];
                for (int k = 0; k < kn; k++) sum = MathF.FusedMultiplyAdd(a[m * sm + k * sk], b[k * ldb + j], sum);
                c[m * ldc + j] = sum;
            }
    }

    // Rows past the last one repeat it and are not stored.
    // Long: one tile, a local for each register that holds it; the JIT keeps no array of them in registers.
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Rows512(
        int rows, float* a, nint sm, nint sk, int kn, float* b, nint ldb, float* c, nint ldc, Start start, float* scale)
    {
        float* a0 = a, a1 = rows > 1 ? a0 + sm : a0, a2 = rows > 2 ? a1 + sm : a1, a3 = rows > 3 ? a2 + sm : a2;
        float* a4 = rows > 4 ? a3 + sm : a3,
            a5 = rows > 5 ? a4 + sm : a4,
            a6 = rows > 6 ? a5 + sm : a5,
            a7 = rows > 7 ? a6 + sm : a6;
        Vector512<float> c00 = default,
            c10 = default,
            c20 = default,
            c30 = default,
            c40 = default,
            c50 = default,
            c60 = default,
            c70 = default;
        Vector512<float> c01 = default,
            c11 = default,
            c21 = default,
            c31 = default,
            c41 = default,
            c51 = default,
            c61 = default,
            c71 = default;
        if (start != Start.Zero)
        {
            Vector512<float> s0 = Vector512.Create(1f), s1 = s0;
            if (start == Start.Rescale) { s0 = Vector512.Load(scale); s1 = Vector512.Load(scale + 16); }
            float* p = c;
            c00 = Vector512.Load(p) * s0; c01 = Vector512.Load(p + 16) * s1;
            if (rows > 1) { p += ldc; c10 = Vector512.Load(p) * s0; c11 = Vector512.Load(p + 16) * s1; }
            if (rows > 2) { p += ldc; c20 = Vector512.Load(p) * s0; c21 = Vector512.Load(p + 16) * s1; }
            if (rows > 3) { p += ldc; c30 = Vector512.Load(p) * s0; c31 = Vector512.Load(p + 16) * s1; }
            if (rows > 4) { p += ldc; c40 = Vector512.Load(p) * s0; c41 = Vector512.Load(p + 16) * s1; }
            if (rows > 5) { p += ldc; c50 = Vector512.Load(p) * s0; c51 = Vector512.Load(p + 16) * s1; }
            if (rows > 6) { p += ldc; c60 = Vector512.Load(p) * s0; c61 = Vector512.Load(p + 16) * s1; }
            if (rows > 7) { p += ldc; c70 = Vector512.Load(p) * s0; c71 = Vector512.Load(p + 16) * s1; }
        }
        nint o = 0;
        for (int k = 0; k < kn; k++)
        {
            Vector512<float> b0 = Vector512.Load(b), b1 = Vector512.Load(b + 16);
            b += ldb;
            var v = Vector512.Create(a0[o]);
            c00 = Vector512.FusedMultiplyAdd(v, b0, c00); c01 = Vector512.FusedMultiplyAdd(v, b1, c01);
            v = Vector512.Create(a1[o]);
            c10 = Vector512.FusedMultiplyAdd(v, b0, c10); c11 = Vector512.FusedMultiplyAdd(v, b1, c11);
            v = Vector512.Create(a2[o]);
            c20 = Vector512.FusedMultiplyAdd(v, b0, c20); c21 = Vector512.FusedMultiplyAdd(v, b1, c21);
            v = Vector512.Create(a3[o]);
            c30 = Vector512.FusedMultiplyAdd(v, b0, c30); c31 = Vector512.FusedMultiplyAdd(v, b1, c31);
            v = Vector512.Create(a4[o]);
            c40 = Vector512.FusedMultiplyAdd(v, b0, c40); c41 = Vector512.FusedMultiplyAdd(v, b1, c41);
            v = Vector512.Create(a5[o]);
            c50 = Vector512.FusedMultiplyAdd(v, b0, c50); c51 = Vector512.FusedMultiplyAdd(v, b1, c51);
            v = Vector512.Create(a6[o]);
            c60 = Vector512.FusedMultiplyAdd(v, b0, c60); c61 = Vector512.FusedMultiplyAdd(v, b1, c61);
            v = Vector512.Create(a7[o]);
            c70 = Vector512.FusedMultiplyAdd(v, b0, c70); c71 = Vector512.FusedMultiplyAdd(v, b1, c71);
            o += sk;
        }
        Vector512.Store(c00, c); Vector512.Store(c01, c + 16);
        if (rows > 1) { c += ldc; Vector512.Store(c10, c); Vector512.Store(c11, c + 16); }
        if (rows > 2) { c += ldc; Vector512.Store(c20, c); Vector512.Store(c21, c + 16); }
        if (rows > 3) { c += ldc; Vector512.Store(c30, c); Vector512.Store(c31, c + 16); }
        if (rows > 4) { c += ldc; Vector512.Store(c40, c); Vector512.Store(c41, c + 16); }
        if (rows > 5) { c += ldc; Vector512.Store(c50, c); Vector512.Store(c51, c + 16); }
        if (rows > 6) { c += ldc; Vector512.Store(c60, c); Vector512.Store(c61, c + 16); }
        if (rows > 7) { c += ldc; Vector512.Store(c70, c); Vector512.Store(c71, c + 16); }
    }

    // 16 columns at a time in 256-bit registers, four rows at a time.
    private static void Rows256(
        int rows, float* a, nint sm, nint sk, int kn, float* b, nint ldb, float* c, nint ldc, Start start, float* scale)
    {
        for (int m = 0; m < rows; m += 4)
        {
            float* a0 = a + m * sm,
                a1 = m + 1 < rows ? a0 + sm : a0,
                a2 = m + 2 < rows ? a1 + sm : a1,
                a3 = m + 3 < rows ? a2 + sm : a2;
            float* p0 = c + m * ldc,
                p1 = m + 1 < rows ? p0 + ldc : p0,
                p2 = m + 2 < rows ? p1 + ldc : p1,
                p3 = m + 3 < rows ? p2 + ldc : p2;
            Vector256<float> c00 = default,
                c01 = default,
                c10 = default,
                c11 = default,
                c20 = default,
                c21 = default,
                c30 = default,
                c31 = default;
            if (start != Start.Zero)
            {
                Vector256<float> s0 = Vector256.Create(1f), s1 = s0;
                if (start == Start.Rescale) { s0 = Vector256.Load(scale); s1 = Vector256.Load(scale + 8); }
                c00 = Vector256.Load(p0) * s0; c01 = Vector256.Load(p0 + 8) * s1;
                c10 = Vector256.Load(p1) * s0; c11 = Vector256.Load(p1 + 8) * s1;
                c20 = Vector256.Load(p2) * s0; c21 = Vector256.Load(p2 + 8) * s1;
                c30 = Vector256.Load(p3) * s0; c31 = Vector256.Load(p3 + 8) * s1;
            }
            float* q = b;
            nint o = 0;
            for (int k = 0; k < kn; k++, q += ldb, o += sk)
            {
                Vector256<float> b0 = Vector256.Load(q), b1 = Vector256.Load(q + 8), v = Vector256.Create(a0[o]);
                c00 = Vector256.FusedMultiplyAdd(v, b0, c00); c01 = Vector256.FusedMultiplyAdd(v, b1, c01);
                v = Vector256.Create(a1[o]);
                c10 = Vector256.FusedMultiplyAdd(v, b0, c10); c11 = Vector256.FusedMultiplyAdd(v, b1, c11);
                v = Vector256.Create(a2[o]);
                c20 = Vector256.FusedMultiplyAdd(v, b0, c20); c21 = Vector256.FusedMultiplyAdd(v, b1, c21);
                v = Vector256.Create(a3[o]);
                c30 = Vector256.FusedMultiplyAdd(v, b0, c30); c31 = Vector256.FusedMultiplyAdd(v, b1, c31);
            }
            // Repeated rows hold the same values, so storing them again is harmless.
            Vector256.Store(c30, p3); Vector256.Store(c31, p3 + 8);
            Vector256.Store(c20, p2); Vector256.Store(c21, p2 + 8);
            Vector256.Store(c10, p1); Vector256.Store(c11, p1 + 8);
            Vector256.Store(c00, p0); Vector256.Store(c01, p0 + 8);
        }
    }

    /// <summary>
    /// dst[c][i] = src[i][c] * scale for i &lt; n, 0 for the other lanes; src rows lie <paramref name="ld"/> apart,
    /// <paramref name="d"/> columns.
    /// </summary>
    public static void Pack(float* src, nint ld, int n, int d, float scale, float* dst)
    {
        if (n < Lanes) new Span<float>(dst, d * Lanes).Clear();
        Panels.Transpose(src, ld, n, d, dst, Lanes);
        if (scale == 1f) return;
        for (int i = 0; i < d * Lanes; i += 8) (Vector256.Load(dst + i) * scale).Store(dst + i);
    }

    /// <summary>dst[i][c] = src[c][i] * scale[i] for i &lt; n; src is changed.</summary>
    public static void Unpack(float* src, float* scale, int n, int d, float* dst, nint ld)
    {
        for (int i = 0; i < Lanes; i += 8)
        {
            var s = Vector256.Load(scale + i);
            float* p = src + i;
            for (int c = 0; c < d; c++, p += Lanes) (Vector256.Load(p) * s).Store(p);
        }
        Panels.Transpose(src, Lanes, d, n, dst, (int)ld);
    }

    /// <summary>
    /// Score rows of keys key0 .. key0 + keys - 1: lanes whose query may not see the key become -infinity.
    /// </summary>
    public static void Mask(float* s, int keys, int key0, int query0, int window)
    {
        for (int j = 0; j < keys; j++, s += Lanes)
        {
            // Visible: query >= key and query - key < window.
            int first = key0 + j - query0, last = window > 0 ? first + window - 1 : int.MaxValue;
            for (int i = 0; i < Lanes; i += 8)
            {
                var lane = Vector256.Create(i) + Vector256.Create(0, 1, 2, 3, 4, 5, 6, 7);
                var hidden =
                    Vector256.LessThan(lane, Vector256.Create(first))
                    | Vector256.GreaterThan(lane, Vector256.Create(last));
                Vector256.Store(
                    Vector256.ConditionalSelect(
                        hidden.AsSingle(), Vector256.Create(float.NegativeInfinity), Vector256.Load(s + i)),
                    s + i
                );
            }
        }
    }
}
