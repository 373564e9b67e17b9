using System.Buffers.Binary;
using Headroom.Core;

namespace Headroom.Formats.Gguf;

/// <summary>
/// Float32 values to ggml blocks, byte for byte as llama.cpp's converter writes them (gguf-py <c>quants.py</c>,
/// <c>ggml-quants.c</c> reference functions): codes come from the unrounded float32 scale, the scale is rounded to
/// float16 afterwards.
/// </summary>
internal static class GgmlWriter
{
    /// <summary>Types that can be written.</summary>
    public static IReadOnlyList<GgmlType> Types { get; } =
    [
        GgmlType.F32, GgmlType.F16, GgmlType.BF16, GgmlType.Q8_0, GgmlType.Q4_0, GgmlType.Q4_1, GgmlType.Q5_0,
        GgmlType.Q5_1];

    /// <summary>Quantizes finite values, whole blocks; false when a value or a scale does not fit float16.</summary>
    public static bool TryQuantize(GgmlType type, ReadOnlySpan<float> src, Span<byte> dst)
    {
        var (values, bytes) = type.Block();
        bool fits = true;
        for (int i = 0, at = 0; i < src.Length; i += values, at += bytes)
        {
            var x = src.Slice(i, values);
            var b = dst.Slice(at, bytes);
            switch (type)
            {
                case GgmlType.F32: BinaryPrimitives.WriteSingleLittleEndian(b, x[0]); break;
                case GgmlType.BF16: BinaryPrimitives.WriteUInt16LittleEndian(b, Bf16(x[0])); break;
                case GgmlType.F16: fits &= WriteHalf(b, x[0]); break;
                case GgmlType.Q8_0: fits &= Q80(x, b); break;
                case GgmlType.Q4_0: fits &= Signed(x, b, 8, b[2..], default); break;
                case GgmlType.Q5_0: fits &= Signed(x, b, 16, b[6..], b[2..6]); break;
                case GgmlType.Q4_1: fits &= Shifted(x, b, 15, b[4..], default); break;
                case GgmlType.Q5_1: fits &= Shifted(x, b, 31, b[8..], b[4..8]); break;
                default: throw new NotSupportedException($"{type} is not written");
            }
        }
        return fits;
    }

    /// <summary>Round to nearest even; NaN stays a quiet NaN.</summary>
    public static ushort Bf16(float x)
    {
        uint u = BitConverter.SingleToUInt32Bits(x);
        return float.IsNaN(x) ? (ushort)((u >> 16) | 64) : (ushort)((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
    }

    private static bool WriteHalf(Span<byte> b, float x)
    {
        var h = (Half)x;
        BinaryPrimitives.WriteUInt16LittleEndian(b, BitConverter.HalfToUInt16Bits(h));
        return Half.IsFinite(h);
    }

    private static bool Q80(ReadOnlySpan<float> x, Span<byte> b)
    {
        float max = 0;
        foreach (float v in x) max = MathF.Max(max, MathF.Abs(v));
        float d = max / 127, inverse = d == 0 ? 0 : 1 / d;
        for (int i = 0; i < 32; i++) b[2 + i] = (byte)(sbyte)MathF.Round(x[i] * inverse, MidpointRounding.AwayFromZero);
        return WriteHalf(b, d);
    }

    // Q4_0, Q5_0: the value of largest magnitude (the first of equals) becomes code 0. Product and sum are float32, as
    // in ggml-quants.c without fused multiply-add; gguf-py sums in double, which differs only where x / d is within a
    // rounding of a half.
    private static bool Signed(ReadOnlySpan<float> x, Span<byte> b, int zero, Span<byte> codes, Span<byte> high)
    {
        float extreme = x[0];
        foreach (float v in x) if (MathF.Abs(v) > MathF.Abs(extreme)) extreme = v;
        float d = extreme / -zero, inverse = d == 0 ? 0 : 1 / d;
        Span<int> q = stackalloc int[32];
        for (int i = 0; i < 32; i++) q[i] = Math.Min(2 * zero - 1, (int)(x[i] * inverse + (zero + 0.5f)));
        Pack(q, codes, high);
        return WriteHalf(b, d);
    }

    // Q4_1, Q5_1.
    private static bool Shifted(ReadOnlySpan<float> x, Span<byte> b, int top, Span<byte> codes, Span<byte> high)
    {
        float min = x[0], max = x[0];
        foreach (float v in x)
        {
            if (v < min) min = v;
            if (v > max) max = v;
        }
        float d = (max - min) / top, inverse = d == 0 ? 0 : 1 / d;
        Span<int> q = stackalloc int[32];
        for (int i = 0; i < 32; i++) q[i] = Math.Min(top, (int)((x[i] - min) * inverse + 0.5f));
        Pack(q, codes, high);
        return WriteHalf(b, d) & WriteHalf(b[2..], min);
    }

    private static void Pack(ReadOnlySpan<int> q, Span<byte> codes, Span<byte> high)
    {
        for (int j = 0; j < 16; j++) codes[j] = (byte)((q[j] & 15) | ((q[j + 16] & 15) << 4));
        if (high.IsEmpty) return;
        high.Clear();
        for (int i = 0; i < 32; i++) high[i / 8] |= (byte)((q[i] >> 4) << (i % 8));
    }
}
