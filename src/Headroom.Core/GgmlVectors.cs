using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Headroom.Core;

/// <summary>
/// Vector forms of <see cref="GgmlBlocks"/>: 16 codes are made as bytes, widened to float32 and scaled. A product and a
/// sum are two roundings (no fused multiply-add), so the bits are those of the scalar form.
/// </summary>
internal static unsafe class GgmlVectors
{
    /// <summary>
    /// dst[0 .. count) from consecutive blocks of a quantized type; <paramref name="count"/> is whole blocks.
    /// </summary>
    public static void Dequantize(GgmlType type, byte* src, float* dst, long count)
    {
        var (values, bytes) = type.Block();
        byte* end = src + count / values * bytes;
        switch (type)
        {
            case GgmlType.Q4_0: for (; src < end; src += bytes, dst += values) Q40(src, dst); break;
            case GgmlType.Q4_1: for (; src < end; src += bytes, dst += values) Q41(src, dst); break;
            case GgmlType.Q5_0: for (; src < end; src += bytes, dst += values) Q50(src, dst); break;
            case GgmlType.Q5_1: for (; src < end; src += bytes, dst += values) Q51(src, dst); break;
            case GgmlType.Q8_0: for (; src < end; src += bytes, dst += values) Q80(src, dst); break;
            case GgmlType.Q2_K: for (; src < end; src += bytes, dst += values) Q2K(src, dst); break;
            case GgmlType.Q3_K: for (; src < end; src += bytes, dst += values) Q3K(src, dst); break;
            case GgmlType.Q4_K: for (; src < end; src += bytes, dst += values) Q4K(src, dst); break;
            case GgmlType.Q5_K: for (; src < end; src += bytes, dst += values) Q5K(src, dst); break;
            case GgmlType.Q6_K: for (; src < end; src += bytes, dst += values) Q6K(src, dst); break;
            case GgmlType.IQ4_NL:
                for (; src < end; src += bytes, dst += values)
                    Iq4(src + 2, GgmlBlocks.F16(src), dst);
                break;
            case GgmlType.IQ4_XS:
                for (; src < end; src += bytes, dst += values)
                    for (int g = 0; g < 8; g++)
                        Iq4(src + 8 + 16 * g, GgmlBlocks.F16(src) * GgmlBlocks.Iq4Scale(src, g), dst + 32 * g);
                break;
            default: throw new ArgumentOutOfRangeException(nameof(type));
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<float> Floats(Vector128<sbyte> v)
    {
        if (Avx512F.IsSupported) return Vector512.ConvertToSingle(Avx512F.ConvertToVector512Int32(v));
        var (lo, hi) = Vector128.Widen(v);
        var (a, b) = Vector128.Widen(lo);
        var (c, d) = Vector128.Widen(hi);
        return Vector512.ConvertToSingle(Vector512.Create(Vector256.Create(a, b), Vector256.Create(c, d)));
    }

    // y = codes * d.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Scaled(Vector128<byte> codes, float d, float* y) =>
        (Floats(codes.AsSByte()) * Vector512.Create(d)).Store(y);

    // y = codes * d + m, in two roundings.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Shifted(Vector128<byte> codes, float d, float m, float* y)
    {
        var product = Floats(codes.AsSByte()) * Vector512.Create(d);
        (product + Vector512.Create(m)).Store(y);
    }

    private static Vector128<byte> Low => Vector128.Create((byte)15);
    private static Vector128<byte> Pair => Vector128.Create((byte)3);

    private static void Q40(byte* b, float* y)
    {
        float d = GgmlBlocks.F16(b);
        var v = Vector128.Load(b + 2);
        Scaled((v & Low) - Vector128.Create((byte)8), d, y);
        Scaled((v >>> 4) - Vector128.Create((byte)8), d, y + 16);
    }

    private static void Q41(byte* b, float* y)
    {
        float d = GgmlBlocks.F16(b), m = GgmlBlocks.F16(b + 2);
        var v = Vector128.Load(b + 4);
        Shifted(v & Low, d, m, y);
        Shifted(v >>> 4, d, m, y + 16);
    }

    // 16 where the bit is set: byte j of the result is bit j of the 16 at p.
    private static Vector128<byte> Fifth(byte* p)
    {
        var spread = Vector128.Create(Vector64.Create(p[0]), Vector64.Create(p[1]));
        var bit = Vector128.Create((byte)1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128);
        return Vector128.Equals(spread & bit, bit) & Vector128.Create((byte)16);
    }

    private static void Q50(byte* b, float* y)
    {
        float d = GgmlBlocks.F16(b);
        var v = Vector128.Load(b + 6);
        Scaled(((v & Low) | Fifth(b + 2)) - Vector128.Create((byte)16), d, y);
        Scaled(((v >>> 4) | Fifth(b + 4)) - Vector128.Create((byte)16), d, y + 16);
    }

    private static void Q51(byte* b, float* y)
    {
        float d = GgmlBlocks.F16(b), m = GgmlBlocks.F16(b + 2);
        var v = Vector128.Load(b + 8);
        Shifted((v & Low) | Fifth(b + 4), d, m, y);
        Shifted((v >>> 4) | Fifth(b + 6), d, m, y + 16);
    }

    private static void Q80(byte* b, float* y)
    {
        float d = GgmlBlocks.F16(b);
        Scaled(Vector128.Load(b + 2), d, y);
        Scaled(Vector128.Load(b + 18), d, y + 16);
    }

    private static void Q2K(byte* b, float* y)
    {
        float d = GgmlBlocks.F16(b + 80), m = GgmlBlocks.F16(b + 82);
        for (int k = 0; k < 16; k++)
        {
            var v = Vector128.Load(b + 16 + 32 * (k >> 3) + 16 * (k & 1));
            Shifted((v >>> (k & 6)) & Pair, d * (b[k] & 15), -(m * (b[k] >> 4)), y + 16 * k);
        }
    }

    private static void Q3K(byte* b, float* y)
    {
        float d = GgmlBlocks.F16(b + 108);
        for (int k = 0; k < 16; k++)
        {
            var v = Vector128.Load(b + 32 + 32 * (k >> 3) + 16 * (k & 1));
            var bit = Vector128.Create((byte)(1 << (k >> 1)));
            var clear =
                Vector128.Equals(Vector128.Load(b + 16 * (k & 1)) & bit, Vector128<byte>.Zero)
                & Vector128.Create((byte)4);
            Scaled(((v >>> (k & 6)) & Pair) - clear, d * GgmlBlocks.Q3Scale(b + 96, k), y + 16 * k);
        }
    }

    private static void Q4K(byte* b, float* y)
    {
        float d = GgmlBlocks.F16(b), m = GgmlBlocks.F16(b + 2);
        for (int run = 0; run < 4; run++, y += 64)
        {
            Vector128<byte> v0 = Vector128.Load(b + 16 + 32 * run), v1 = Vector128.Load(b + 32 + 32 * run);
            var (s0, m0) = GgmlBlocks.ScaleMin(b + 4, 2 * run);
            var (s1, m1) = GgmlBlocks.ScaleMin(b + 4, 2 * run + 1);
            float d0 = d * s0, n0 = -(m * m0), d1 = d * s1, n1 = -(m * m1);
            Shifted(v0 & Low, d0, n0, y);
            Shifted(v1 & Low, d0, n0, y + 16);
            Shifted(v0 >>> 4, d1, n1, y + 32);
            Shifted(v1 >>> 4, d1, n1, y + 48);
        }
    }

    private static void Q5K(byte* b, float* y)
    {
        float d = GgmlBlocks.F16(b), m = GgmlBlocks.F16(b + 2);
        for (int g = 0; g < 8; g++)
        {
            var (scale, min) = GgmlBlocks.ScaleMin(b + 4, g);
            float dg = d * scale, mg = -(m * min);
            var bit = Vector128.Create((byte)(1 << g));
            for (int l = 0; l < 32; l += 16)
            {
                var high = Vector128.Equals(Vector128.Load(b + 16 + l) & bit, bit) & Vector128.Create((byte)16);
                Shifted(
                    ((Vector128.Load(b + 48 + 32 * (g >> 1) + l) >>> (4 * (g & 1))) & Low) | high, dg, mg,
                    y + 32 * g + l);
            }
        }
    }

    private static void Q6K(byte* b, float* y)
    {
        float d = GgmlBlocks.F16(b + 208);
        var offset = Vector128.Create((byte)32);
        for (int half = 0; half < 2; half++)
            for (int l = 0; l < 32; l += 16)
            {
                byte* low = b + 64 * half + l;
                Vector128<byte> a = Vector128.Load(low),
                    c = Vector128.Load(low + 32),
                    h = Vector128.Load(b + 128 + 32 * half + l);
                byte* scale = b + 192 + 8 * half + l / 16;
                float* out0 = y + 128 * half + l;
                Scaled(((a & Low) | ((h & Pair) << 4)) - offset, d * (sbyte)scale[0], out0);
                Scaled(((c & Low) | (((h >>> 2) & Pair) << 4)) - offset, d * (sbyte)scale[2], out0 + 32);
                Scaled(((a >>> 4) | (((h >>> 4) & Pair) << 4)) - offset, d * (sbyte)scale[4], out0 + 64);
                Scaled(((c >>> 4) | ((h >>> 6) << 4)) - offset, d * (sbyte)scale[6], out0 + 96);
            }
    }

    private static void Iq4(byte* codes, float d, float* y)
    {
        var table = Vector128.Create(GgmlBlocks.Iq4Values).AsByte();
        var v = Vector128.Load(codes);
        Scaled(Vector128.ShuffleNative(table, v & Low), d, y);
        Scaled(Vector128.ShuffleNative(table, v >>> 4), d, y + 16);
    }
}
