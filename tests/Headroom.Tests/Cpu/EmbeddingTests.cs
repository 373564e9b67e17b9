using Headroom.Core;
using Headroom.Cpu;
using static Headroom.Tests.Cpu.ElementTestData;

namespace Headroom.Tests.Cpu;

public unsafe class EmbeddingTests
{
    [Theory]
    [InlineData(WeightStorage.F32)]
    [InlineData(WeightStorage.BF16)]
    [InlineData(WeightStorage.F16)]
    [InlineData(WeightStorage.Int8)]
    internal void LooksUpEveryStorage(WeightStorage storage)
    {
        using var d = new ElementTestData();
        const int V = 11, H = 37;
        int[] ids = Enumerable.Range(0, 35).Select(i => i * 7 % V).ToArray();
        Tensor source = d.Normal(V, H), absmax = d.Zeros(V), y = d.New(ids.Length, H);
        var values = new double[V * H];
        Tensor data = d.Raw(
            storage switch
            {
                WeightStorage.F32 => DType.F32,
                WeightStorage.BF16 => DType.BF16,
                WeightStorage.F16 => DType.F16,
                _ => DType.I8,
            },
            V,
            H
        );
        for (int i = 0; i < V; i++) absmax.F[i] = 1 + i;
        for (int i = 0; i < V * H; i++)
        {
            float x = source.F[i];
            switch (storage)
            {
                case WeightStorage.F32: data.F[i] = x; values[i] = x; break;
                case WeightStorage.BF16:
                    ushort bits = (ushort)(BitConverter.SingleToUInt32Bits(x) >> 16);
                    ((ushort*)data.B)[i] = bits;
                    values[i] = BitConverter.UInt32BitsToSingle((uint)bits << 16);
                    break;
                case WeightStorage.F16: ((Half*)data.B)[i] = (Half)x; values[i] = (float)(Half)x; break;
                default:
                    sbyte q = (sbyte)Math.Clamp(x * 50, -127, 127);
                    ((sbyte*)data.B)[i] = q;
                    values[i] = q * (double)absmax.F[i / H] / 127;
                    break;
            }
        }
        d.Ops.Embedding(
            d.Ints(ids), new LinearWeight(storage, V, H, data, storage == WeightStorage.Int8 ? absmax : default), y);
        Near(
            ids.SelectMany(id => values.AsSpan(id * H, H).ToArray()).ToArray(), y,
            storage == WeightStorage.Int8 ? 1e-6 : 0);
    }

    /// <summary>
    /// NEFTune: uniform, of magnitude alpha / sqrt(L * H) of the row's own sequence, a function of seed and step alone.
    /// </summary>
    [Fact]
    public void NoiseIsUniformWithinEachSequence()
    {
        using var d = new ElementTestData();
        const int H = 301;
        const float Alpha = 7;
        int[] lengths = [40, 0, 3, 110], offsets = [0, 40, 40, 43, 153];
        var start = d.Normal(153, H);
        Tensor Run(ulong seed, uint step)
        {
            var y = d.Clone(start);
            d.Ops.AddNoise(d.Ints(offsets), new EmbeddingNoise(Alpha, seed, step), y);
            return y;
        }
        Tensor noisy = Run(5, 9), again = Run(5, 9), other = Run(5, 10);
        Same(noisy, again);
        double[] before = Doubles(start), after = Doubles(noisy), next = Doubles(other);
        for (int s = 0; s < lengths.Length; s++)
        {
            if (lengths[s] == 0) continue;
            double most = Alpha / Math.Sqrt(lengths[s] * H);
            var places = Enumerable.Range(offsets[s] * H, lengths[s] * H);
            double[] u = [.. places.Select(i => (after[i] - before[i]) / most)];
            Assert.All(u, x => Assert.InRange(x, -1.00001, 1.00001));
            // Mean 0 and variance 1/3, within five standard errors.
            double error = 1 / Math.Sqrt(u.Length);
            Assert.InRange(u.Average(), -5 * Math.Sqrt(1 / 3.0) * error, 5 * Math.Sqrt(1 / 3.0) * error);
            Assert.InRange(u.Average(x => x * x) - 1 / 3.0, -1.5 * error, 1.5 * error);
        }
        Assert.True(after.Zip(next).Count(p => p.First == p.Second) < after.Length / 1000);
    }

    [Fact]
    public void BackwardAddsInTokenOrder()
    {
        using var d = new ElementTestData(threads: 3);
        const int V = 5, H = 131, T = 23;
        int[] ids = Enumerable.Range(0, T).Select(i => i * i % V).ToArray();
        Tensor dy = d.Normal(T, H), table = d.Normal(V, H), expected = d.Clone(table);
        for (int t = 0; t < T; t++) ElementKernels.AddRowScalar(dy.F + t * H, expected.F + ids[t] * H, H);
        d.Ops.EmbeddingBackward(d.Ints(ids), dy, table);
        Same(expected, table);
    }

    [Fact]
    public void BackwardMatchesDifferences()
    {
        using var d = new ElementTestData();
        const int V = 6, H = 5;
        int[] ids = [3, 0, 3, 5, 3, 1];
        Tensor dy = d.Normal(ids.Length, H), table = d.Normal(V, H), gradient = d.Normal(V, H);
        double[] before = Doubles(gradient);
        d.Ops.EmbeddingBackward(d.Ints(ids), dy, gradient);
        double[] expected = Gradient(Doubles(table), Doubles(dy), t =>
            ids.SelectMany(id => t.AsSpan(id * H, H).ToArray()).ToArray()
        );
        Near(expected.Zip(before, (a, b) => a + b).ToArray(), gradient, 1e-6);
    }

    [Fact]
    public void GatherAndScatterAreInverse()
    {
        using var d = new ElementTestData();
        int[] rows = [6, 0, 3, 9];
        Tensor x = d.Normal(10, 13), y = d.New(4, 13), back = d.New(10, 13), r = d.Ints(rows);
        d.Ops.GatherRows(x, r, y);
        for (int i = 0; i < 4; i++) Same(x.Slice(rows[i], 1), y.Slice(i, 1));
        d.Ops.ScatterRows(y, r, back);
        for (int i = 0; i < 10; i++) Same(rows.Contains(i) ? x.Slice(i, 1) : d.Zeros(1, 13), back.Slice(i, 1));
    }

    [Fact]
    public void ZeroCopyAddOverManyChunks()
    {
        using var d = new ElementTestData(threads: 3);
        const int N = 200_003;
        Tensor x = d.Normal(N), y = d.Normal(N), copy = d.New(N);
        double[] sum = Doubles(x).Zip(Doubles(y), (a, b) => (double)(float)(a + b)).ToArray();
        d.Ops.Copy(x, copy);
        Same(x, copy);
        d.Ops.Add(x, y);
        Near(sum, y, 0);
        d.Ops.Zero(copy);
        Same(d.Zeros(N), copy);
    }

    [Fact]
    public void ScalarTwinsAreIdentical()
    {
        using var d = new ElementTestData();
        const int N = 53;
        Tensor bytes = d.Normal(N), a = d.New(N), b = d.New(N);
        EmbeddingKernels.WidenInt8((sbyte*)bytes.B, 0.3f, a.F, N);
        EmbeddingKernels.WidenInt8Scalar((sbyte*)bytes.B, 0.3f, b.F, N);
        Same(b, a);
        for (int i = 0; i < N; i++) ((ushort*)bytes.B)[i] &= 0x7F7F;
        EmbeddingKernels.WidenBF16((ushort*)bytes.B, a.F, N);
        EmbeddingKernels.WidenBF16Scalar((ushort*)bytes.B, b.F, N);
        Same(b, a);
    }
}
