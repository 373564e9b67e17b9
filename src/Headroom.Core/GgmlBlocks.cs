using System.Buffers.Binary;

namespace Headroom.Core;

/// <summary>
/// Values of ggml blocks, bit for bit as llama.cpp's reference (<c>ggml-quants.c</c>, gguf-py <c>quants.py</c>): all
/// arithmetic is float32 with a rounding after every operation. Each type has a scalar form here and a vector form in
/// <see cref="GgmlVectors"/>; both give the same bits.
/// </summary>
internal static unsafe class GgmlBlocks
{
    /// <summary>The 16 values of IQ4_NL and IQ4_XS.</summary>
    public static ReadOnlySpan<sbyte> Iq4Values =>
        [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

    /// <summary>
    /// dst[0 .. count) from consecutive blocks; <paramref name="count"/> is whole blocks. Vectorised.
    /// </summary>
    public static void Dequantize(GgmlType type, byte* src, float* dst, long count)
    {
        switch (type)
        {
            case GgmlType.F32: Buffer.MemoryCopy(src, dst, count * 4, count * 4); return;
            case GgmlType.F16 or GgmlType.BF16: DequantizeScalar(type, src, dst, count); return;
        }
        GgmlVectors.Dequantize(type, src, dst, count);
    }

    /// <summary>The same values one by one: the twin that tests compare with.</summary>
    public static void DequantizeScalar(GgmlType type, byte* src, float* dst, long count)
    {
        var (values, bytes) = type.Block();
        for (; count > 0; count -= values, src += bytes, dst += values)
            switch (type)
            {
                case GgmlType.F32:
                    *dst = BinaryPrimitives.ReadSingleLittleEndian(new ReadOnlySpan<byte>(src, 4));
                    break;
                case GgmlType.F16: *dst = F16(src); break;
                case GgmlType.BF16: *dst = BitConverter.UInt32BitsToSingle((uint)(src[0] | (src[1] << 8)) << 16); break;
                case GgmlType.Q8_0: for (int i = 0; i < 32; i++) dst[i] = F16(src) * (sbyte)src[2 + i]; break;
                case GgmlType.Q2_K: Q2K(src, dst); break;
                case GgmlType.Q3_K: Q3K(src, dst); break;
                case GgmlType.Q4_K or GgmlType.Q5_K: Q45K(src, dst, type == GgmlType.Q5_K); break;
                case GgmlType.Q6_K: Q6K(src, dst); break;
                case GgmlType.IQ4_XS: Iq4Xs(src, dst); break;
                default: Small(type, src, dst); break;
            }
    }

    /// <summary>The f16 at <paramref name="p"/>.</summary>
    internal static float F16(byte* p) => (float)BitConverter.UInt16BitsToHalf((ushort)(p[0] | (p[1] << 8)));

    /// <summary>6-bit scale and minimum of group j of a Q4_K or Q5_K block; b points at its 12 scale bytes.</summary>
    internal static (int Scale, int Min) ScaleMin(byte* b, int j) => j < 4
        ? (b[j] & 63, b[j + 4] & 63)
        : ((b[j + 4] & 15) | ((b[j - 4] >> 6) << 4), (b[j + 4] >> 4) | ((b[j] >> 6) << 4));

    /// <summary>Signed 6-bit scale k of 16 of a Q3_K block; s points at its 12 scale bytes.</summary>
    internal static int Q3Scale(byte* s, int k) =>
        ((k < 8 ? s[k] & 15 : s[k - 8] >> 4) | (((s[8 + k % 4] >> (2 * (k / 4))) & 3) << 4)) - 32;

    /// <summary>Signed 6-bit scale of group k of 8 of an IQ4_XS block.</summary>
    internal static int Iq4Scale(byte* b, int k) =>
        (((b[4 + k / 2] >> (4 * (k & 1))) & 15) | ((((b[2] | (b[3] << 8)) >> (2 * k)) & 3) << 4)) - 32;

    // Blocks of 32: [d] [m] [32 high bits] 16 bytes of nibbles; byte j holds values j (low) and j + 16 (high).
    private static void Small(GgmlType type, byte* b, float* y)
    {
        bool min = type is GgmlType.Q4_1 or GgmlType.Q5_1, five = type is GgmlType.Q5_0 or GgmlType.Q5_1;
        float d = F16(b), m = min ? F16(b + 2) : 0;
        byte* high = b + (min ? 4 : 2), codes = high + (five ? 4 : 0);
        for (int i = 0; i < 32; i++)
        {
            int q = i < 16 ? codes[i] & 15 : codes[i - 16] >> 4;
            if (five) q |= ((high[i / 8] >> (i % 8)) & 1) << 4;
            y[i] = type switch
            {
                GgmlType.Q4_0 => (q - 8) * d,
                GgmlType.Q5_0 => (q - 16) * d,
                GgmlType.IQ4_NL => Iq4Values[q] * d,
                _ => q * d + m,
            };
        }
    }

    // scales[16] (low nibble scale, high nibble minimum), codes[64], d, dmin. Half h of 128 values takes 32 bytes, two
    // bits of each for a run of 32.
    private static void Q2K(byte* b, float* y)
    {
        float d = F16(b + 80), m = F16(b + 82);
        for (int i = 0; i < 256; i++)
        {
            int half = i / 128, run = i / 32 % 4, s = b[i / 16];
            y[i] = d * (s & 15) * ((b[16 + 32 * half + i % 32] >> (2 * run)) & 3) - m * (s >> 4);
        }
    }

    // high bits[32] (bit n of byte l: value 32 n + l; clear = minus 4), codes[64] as Q2_K, scales[12], d.
    private static void Q3K(byte* b, float* y)
    {
        float d = F16(b + 108);
        for (int i = 0; i < 256; i++)
        {
            int half = i / 128, run = i / 32 % 4, l = i % 32;
            int q = ((b[32 + 32 * half + l] >> (2 * run)) & 3) - (((b[l] >> (i / 32)) & 1) == 0 ? 4 : 0);
            y[i] = d * Q3Scale(b + 96, i / 16) * q;
        }
    }

    // d, dmin, scales[12], (Q5_K: high bits[32]), codes[128].
    private static void Q45K(byte* b, float* y, bool five)
    {
        float d = F16(b), m = F16(b + 2);
        byte* codes = b + (five ? 48 : 16);
        for (int i = 0; i < 256; i++)
        {
            int g = i / 32, l = i % 32;
            var (scale, min) = ScaleMin(b + 4, g);
            int q = (codes[32 * (g / 2) + l] >> (4 * (g & 1))) & 15;
            if (five) q |= ((b[16 + l] >> g) & 1) << 4;
            y[i] = d * scale * q - m * min;
        }
    }

    // low nibbles[128], high pairs[64], int8 scales[16], d.
    private static void Q6K(byte* b, float* y)
    {
        float d = F16(b + 208);
        for (int i = 0; i < 256; i++)
        {
            int half = i / 128, run = i / 32 % 4, l = i % 32;
            int q =
                (b[64 * half + 32 * (run & 1) + l] >> (4 * (run >> 1))) & 15
                | (((b[128 + 32 * half + l] >> (2 * run)) & 3) << 4);
            y[i] = d * (sbyte)b[192 + i / 16] * (q - 32);
        }
    }

    // d, high scale bits (u16), low scale nibbles[4], codes[128]: 16 bytes a group of 32, nibbles as in the small
    // blocks.
    private static void Iq4Xs(byte* b, float* y)
    {
        float d = F16(b);
        for (int i = 0; i < 256; i++)
        {
            int g = i / 32, l = i % 32, at = b[8 + 16 * g + l % 16];
            y[i] = d * Iq4Scale(b, g) * Iq4Values[l < 16 ? at & 15 : at >> 4];
        }
    }
}
