using Headroom.Core;
using Headroom.Formats.Gguf;
using Headroom.Formats.Safetensors;

namespace Headroom.Tests.Formats;

/// <summary>
/// ggml block types against gguf-py's own bytes and values, bit for bit; the vector forms against the scalar ones.
/// </summary>
public unsafe class GgmlBlockTests
{
    public static IEnumerable<ITheoryDataRow> All() => (TheoryData<GgmlType>)[.. GgmlSamples.Quantized, GgmlType.BF16];
    public static IEnumerable<ITheoryDataRow> Quantized() => (TheoryData<GgmlType>)[.. GgmlSamples.Quantized];

    public static IEnumerable<ITheoryDataRow> Written() =>
        (TheoryData<GgmlType>)[GgmlType.Q4_0, GgmlType.Q4_1, GgmlType.Q5_0, GgmlType.Q5_1, GgmlType.Q8_0, GgmlType.BF16];

    [Theory, MemberData(nameof(All))]
    internal void ValuesAreTheReferences(GgmlType type)
    {
        using var golden = SafetensorsFile.Open(Shared.GoldenFile("gguf/blocks.safetensors"));
        byte[] bytes = golden.Bytes($"{type}.bytes").ToArray();
        Assert.Equal(golden.ReadF32($"{type}.dequant"), Values(type, bytes, scalar: false), Bits);
        Assert.Equal(golden.ReadF32($"{type}.dequant"), Values(type, bytes, scalar: true), Bits);
    }

    [Theory, MemberData(nameof(Written))]
    internal void BytesAreTheReferences(GgmlType type)
    {
        using var golden = SafetensorsFile.Open(Shared.GoldenFile("gguf/blocks.safetensors"));
        byte[] expected = golden.Bytes($"{type}.bytes").ToArray(), actual = new byte[expected.Length];
        Assert.True(GgmlWriter.TryQuantize(type, golden.ReadF32($"{type}.input"), actual));
        Assert.Equal(expected, actual);
    }

    /// <summary>The worked examples of the format description: x_i = (i - 16) / 10.</summary>
    [Fact]
    public void WorkedExamples()
    {
        var x = new float[32];
        for (int i = 0; i < 32; i++) x[i] = (i - 16) / 10f;
        var b = new byte[34];
        Assert.True(GgmlWriter.TryQuantize(GgmlType.Q8_0, x, b));
        Assert.Equal("732281899199A1A9B1B9C0C8D0D8E0E8F0F8000810182028303840474F575F676F77", Convert.ToHexString(b));
        Assert.True(GgmlWriter.TryQuantize(GgmlType.Q4_0, x, b));
        Assert.Equal("6632809191A2A2B3B3C4C4D5D5E6E6F7F7F8", Convert.ToHexString(b.AsSpan(0, 18)));
        byte[] scales = Convert.FromHexString("0182C384CAD41E6825C87F11");
        (int, int)[] due = [(1, 10), (2, 20), (3, 30), (4, 40), (5, 50), (40, 60), (63, 7), (33, 17)];
        fixed (byte* s = scales)
            for (int j = 0; j < 8; j++)
            {
                // d = 1 and code 1 show the scale, code 0 the minimum.
                var block = new byte[144];
                block[1] = block[3] = 0x3C;
                scales.CopyTo(block, 4);
                block[16 + 32 * (j / 2)] = (byte)(1 << (4 * (j % 2)));
                float[] v = Values(GgmlType.Q4_K, block, scalar: false);
                Assert.Equal(due[j].Item1 - due[j].Item2, v[32 * j]);
                Assert.Equal(-due[j].Item2, v[32 * j + 1]);
            }
    }

    [Theory, MemberData(nameof(Quantized))]
    internal void VectorsEqualScalars(GgmlType type)
    {
        byte[] bytes = GgmlSamples.Random(type, 37, new PhiloxRandom(5));
        Assert.Equal(Values(type, bytes, scalar: true), Values(type, bytes, scalar: false), Bits);
    }

    [Fact]
    public void WhatDoesNotFitFloat16IsReported()
    {
        var x = new float[32];
        x[3] = 65504 * 130f;
        Assert.False(GgmlWriter.TryQuantize(GgmlType.F16, x, new byte[64]));
        Assert.False(GgmlWriter.TryQuantize(GgmlType.Q8_0, x, new byte[34]));
        x[3] = 65519;
        Assert.True(GgmlWriter.TryQuantize(GgmlType.F16, x, new byte[64]));
        x[3] = 65520;
        Assert.False(GgmlWriter.TryQuantize(GgmlType.F16, x, new byte[64]));
    }

    private static bool Bits(float a, float b) =>
        BitConverter.SingleToInt32Bits(a) == BitConverter.SingleToInt32Bits(b);

    private static float[] Values(GgmlType type, byte[] bytes, bool scalar)
    {
        var (values, size) = type.Block();
        var result = new float[bytes.Length / size * values];
        fixed (byte* src = bytes)
        fixed (float* dst = result)
            if (scalar) GgmlBlocks.DequantizeScalar(type, src, dst, result.Length);
            else GgmlBlocks.Dequantize(type, src, dst, result.Length);
        return result;
    }
}
