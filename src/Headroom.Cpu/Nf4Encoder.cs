using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Headroom.Cpu;

/// <summary>
/// Codes of one NF4 block: the number of thresholds below x / absmax, two a byte, the first in the high half. Every
/// form gives the same bits.
/// </summary>
internal static unsafe class Nf4Encoder
{
    /// <summary>Largest magnitude of finite values.</summary>
    public static float AbsMax(float* x, int n)
    {
        int i = 0;
        var most = Vector256<float>.Zero;
        if (Avx512F.IsSupported)
        {
            var wide = Vector512<float>.Zero;
            for (; i <= n - 16; i += 16) wide = Vector512.MaxNative(wide, Vector512.Abs(Vector512.Load(x + i)));
            most = Vector256.MaxNative(wide.GetLower(), wide.GetUpper());
        }
        for (; i <= n - 8; i += 8) most = Vector256.MaxNative(most, Vector256.Abs(Vector256.Load(x + i)));
        var four = Vector128.MaxNative(most.GetLower(), most.GetUpper());
        var two = Vector128.MaxNative(four, Vector128.Shuffle(four, Vector128.Create(2, 3, 0, 1)));
        float max = MathF.Max(two[0], two[1]);
        for (; i < n; i++) max = MathF.Max(max, MathF.Abs(x[i]));
        return max;
    }

    /// <summary>
    /// Codes of a whole block: x is scaled by the reciprocal of its absmax. <paramref name="n"/> is even.
    /// </summary>
    public static void Encode(float* x, int n, float inverse, byte* codes)
    {
        int i = 0;
        if (Avx512F.IsSupported)
            for (; i <= n - 64; i += 64) Encode64(x + i, inverse, codes + (i >> 1));
        for (; i <= n - 32; i += 32) Encode32(x + i, inverse, codes + (i >> 1));
        Scalar(x + i, n - i, inverse, codes + (i >> 1));
    }

    /// <summary>Scalar twin of <see cref="Encode"/>.</summary>
    public static void Scalar(float* x, int n, float inverse, byte* codes)
    {
        for (int i = 0; i < n; i += 2) codes[i >> 1] = (byte)((Code(x[i] * inverse) << 4) | Code(x[i + 1] * inverse));
    }

    /// <summary>
    /// A partial last block divides (bitsandbytes pads it elsewhere); an odd count is filled up with the code of zero.
    /// </summary>
    public static void Partial(float* x, int n, float divisor, byte* codes)
    {
        for (int i = 0; i < n; i += 2)
            codes[i >> 1] = (byte)((Code(x[i] / divisor) << 4) | (i + 1 < n ? Code(x[i + 1] / divisor) : 7));
    }

    /// <summary>64 values by four steps of bisection each, thresholds looked up in one register.</summary>
    public static void Encode64(float* x, float inverse, byte* codes)
    {
        var scale = Vector512.Create(inverse);
        var table = Vector512.Load(Nf4Tables.Thresholds);
        var words = Vector512
            .Narrow(
                Vector512.Narrow(
                    Bisect(Vector512.Load(x) * scale, table), Bisect(Vector512.Load(x + 16) * scale, table)),
                Vector512.Narrow(
                    Bisect(Vector512.Load(x + 32) * scale, table), Bisect(Vector512.Load(x + 48) * scale, table))
            )
            .AsUInt16();
        var pairs = ((words << 4) | (words >>> 8)) & Vector512.Create((ushort)255);
        Vector512.Narrow(pairs, pairs).GetLower().Store(codes);
    }

    private static Vector512<int> Bisect(Vector512<float> x, Vector512<float> table)
    {
        var c = Vector512.GreaterThan(x, Vector512.Create(Nf4Tables.Thresholds[7])).AsInt32() & Vector512.Create(8);
        c |=
            Vector512.GreaterThan(x, Avx512F.PermuteVar16x32(table, c + Vector512.Create(3))).AsInt32()
            & Vector512.Create(4);
        c |=
            Vector512.GreaterThan(x, Avx512F.PermuteVar16x32(table, c + Vector512.Create(1))).AsInt32()
            & Vector512.Create(2);
        return c | Vector512.GreaterThan(x, Avx512F.PermuteVar16x32(table, c)).AsInt32() & Vector512.Create(1);
    }

    /// <summary>32 values, every threshold compared.</summary>
    public static void Encode32(float* x, float inverse, byte* codes)
    {
        var scale = Vector256.Create(inverse);
        var words = Vector256.Narrow(
            Vector256.Narrow(Count(Vector256.Load(x) * scale), Count(Vector256.Load(x + 8) * scale)),
            Vector256.Narrow(Count(Vector256.Load(x + 16) * scale), Count(Vector256.Load(x + 24) * scale))).AsUInt16();
        var pairs = ((words << 4) | (words >>> 8)) & Vector256.Create((ushort)255);
        Vector256.Narrow(pairs, pairs).GetLower().Store(codes);
    }

    private static Vector256<int> Count(Vector256<float> x)
    {
        var c = Vector256<int>.Zero;
        for (int i = 0; i < 15; i++) c -= Vector256.GreaterThan(x, Vector256.Create(Nf4Tables.Thresholds[i])).AsInt32();
        return c;
    }

    private static int Code(float x)
    {
        int code = 0;
        for (int i = 0; i < 15; i++) code += x > Nf4Tables.Thresholds[i] ? 1 : 0;
        return code;
    }
}
