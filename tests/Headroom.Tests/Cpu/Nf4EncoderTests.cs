using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;
using Headroom.Core;
using Headroom.Cpu;

namespace Headroom.Tests.Cpu;

/// <summary>
/// Every form of the NF4 encoder against a plain count of thresholds, values on and beside each threshold included.
/// </summary>
public sealed unsafe class Nf4EncoderTests
{
    private delegate void Form(float* x, float inverse, byte* codes);

    private static int Code(float x)
    {
        int code = 0;
        for (int i = 0; i < 15; i++) code += x > (Nf4.Codes[i] + Nf4.Codes[i + 1]) / 2 ? 1 : 0;
        return code;
    }

    /// <summary>
    /// Every threshold with its two neighbours, the ends, zeros of both signs, beyond the ends, and random values.
    /// </summary>
    private static float[] Values(int seed)
    {
        var values = new List<float> { 1, -1, 0, -0f, 1.5f, -1.5f, float.Epsilon, -float.Epsilon };
        for (int i = 0; i < 15; i++)
        {
            float t = (Nf4.Codes[i] + Nf4.Codes[i + 1]) / 2;
            values.AddRange([t, MathF.BitIncrement(t), MathF.BitDecrement(t)]);
        }
        var random = new PhiloxRandom((ulong)seed);
        while (values.Count < 64) values.Add(random.NextNormal());
        return [.. values];
    }

    [Theory, InlineData(64), InlineData(32), InlineData(16)]
    public void FormsAgree(int width)
    {
        if (width == 64) Assert.SkipUnless(Avx512F.IsSupported, "no AVX-512 here");
        Form form = width switch
        {
            64 => Nf4Encoder.Encode64,
            32 => Nf4Encoder.Encode32,
            _ => (x, inverse, codes) => Nf4Encoder.Scalar(x, 16, inverse, codes),
        };
        byte* got = stackalloc byte[32];
        for (int seed = 0; seed < 50; seed++)
            foreach (float inverse in new[] { 1f, 0.37f, 3e37f })
                fixed (float* x = Values(seed))
                    for (int at = 0; at + width <= 64; at += width)
                    {
                        form(x + at, inverse, got);
                        for (int i = 0; i < width; i++)
                            Assert.Equal(Code(x[at + i] * inverse), i % 2 == 0 ? got[i / 2] >> 4 : got[i / 2] & 15);
                    }
    }

    [Fact]
    public void LargestMagnitudeAtEveryPlace()
    {
        var random = new PhiloxRandom(4);
        for (int n = 1; n < 80; n++)
        {
            var x = new float[n];
            for (int i = 0; i < n; i++) x[i] = random.NextFloat() - 0.5f;
            for (int at = 0; at < n; at++)
                fixed (float* p = x)
                {
                    float keep = x[at];
                    p[at] = at % 2 == 0 ? -7 : 7;
                    Assert.Equal(7f, Nf4Encoder.AbsMax(p, n));
                    p[at] = keep;
                }
        }
    }

    /// <summary>Every float16 there is.</summary>
    [Fact]
    public void HalvesAreWidenedExactly()
    {
        var x = Enumerable.Range(0, 65536).Select(i => BitConverter.UInt16BitsToHalf((ushort)i)).ToArray();
        var y = new float[65536];
        fixed (Half* from = x)
        fixed (float* to = y) EmbeddingKernels.WidenF16(from, to, 65536);
        for (int i = 0; i < 65536; i++)
            if (Half.IsNaN(x[i])) Assert.True(float.IsNaN(y[i]));
            else Assert.Equal(BitConverter.SingleToUInt32Bits((float)x[i]), BitConverter.SingleToUInt32Bits(y[i]));
    }

    /// <summary>
    /// Codes of statistics: the entry of the map that is nearest to the rounded value, found by trying all.
    /// </summary>
    [Fact]
    public void StatisticsTakeTheNearestEntry()
    {
        float[] map = Nf4.DynamicMap();
        for (int k = -70000; k <= 70000; k += 7)
        {
            float x = Math.Clamp(k / 65000f, -1f, 1f),
                value = (int)((x + 1f) * 0.5f * 65535f + 0.5f) / 65535f * 2f - 1f;
            float nearest = map.Min(m => MathF.Abs(m - value));
            Assert.InRange(MathF.Abs(map[NestedStatistics.Code(k / 65000f)] - value), 0, nearest + 1e-7f);
        }
    }

    [Theory]
    [
        InlineData(DType.BF16, 37, 88), InlineData(DType.F16, 64, 96), InlineData(DType.F32, 5, 7),
        InlineData(DType.BF16, 1, 63)]
    internal void SixteenBitSourcesGiveTheBitsOfTheirValues(DType type, int rows, int cols)
    {
        int n = rows * cols, blocks = LinearWeight.Blocks(n, 64), groups = LinearWeight.Blocks(blocks, 256);
        var random = new PhiloxRandom(9);
        using var cpu = new CpuOps(2);
        byte* memory = (byte*)NativeMemory.AllocZeroed((nuint)(n * 16 + 65536));
        Tensor plain = new((nint)memory, DType.F32, new Shape(rows, cols)),
            narrow = new((nint)(memory + 4 * n), type, new Shape(rows, cols));
        for (int i = 0; i < n; i++)
        {
            float v = random.NextNormal() * (i % 64 == 0 ? 3 : 0.02f);
            if (type == DType.F32) plain.F[i] = narrow.F[i] = v;
            else if (type == DType.F16) plain.F[i] = (float)(((Half*)narrow.Address)[i] = (Half)v);
            else
            {
                ushort bits = (ushort)(BitConverter.SingleToUInt32Bits(v) >> 16);
                ((ushort*)narrow.Address)[i] = bits;
                plain.F[i] = BitConverter.UInt32BitsToSingle((uint)bits << 16);
            }
        }
        byte[] Bits(Tensor source, WeightStorage storage)
        {
            byte* at = memory + 8 * n;
            new Span<byte>(at, n * 8 + 65536).Clear();
            Tensor Take(DType t, int count)
            {
                var taken = new Tensor((nint)at, t, new Shape(count));
                at += (taken.Bytes + 63) / 64 * 64;
                return taken;
            }
            bool nested = storage == WeightStorage.NF4Double;
            cpu.Quantize(
                source,
                new LinearWeight(
                    storage, rows, cols, Take(DType.U4, n), Take(nested ? DType.U8 : DType.F32, blocks),
                    Take(DType.F32, groups), Take(DType.F32, 1))
            );
            return new ReadOnlySpan<byte>(memory + 8 * n, n * 8 + 65536).ToArray();
        }
        foreach (var storage in new[] { WeightStorage.NF4, WeightStorage.NF4Double })
            Assert.Equal(Bits(plain, storage), Bits(narrow, storage));
        // Codes once more by the definition.
        byte[] flat = Bits(narrow, WeightStorage.NF4);
        for (int b = 0; b < blocks; b++)
        {
            int end = Math.Min(n, b * 64 + 64);
            float absmax = Enumerable.Range(b * 64, end - b * 64).Max(i => MathF.Abs(plain.F[i]));
            for (int i = b * 64; i < end; i++)
                Assert.Equal(
                    Code(end - b * 64 < 64 ? plain.F[i] / absmax : plain.F[i] * (1f / absmax)),
                    i % 2 == 0 ? flat[i / 2] >> 4 : flat[i / 2] & 15);
        }
        NativeMemory.Free(memory);
    }
}
