using Headroom.Core;
using Headroom.Cpu;
using static Headroom.Tests.Cpu.ElementTestData;

namespace Headroom.Tests.Cpu;

public unsafe class AdamWTests
{
    [Theory]
    [InlineData(0.1f, new[] { 0.9890000002, 0.9845549418, 0.9797764691 })]
    [InlineData(0f, new[] { 0.9900000002, 0.9865439418, 0.9827500241 })]
    public void WorkedNumbers(float decay, double[] expected)
    {
        using var d = new ElementTestData();
        Tensor p = d.Zeros(11), g = d.Zeros(11), m = d.Zeros(11), v = d.Zeros(11);
        Floats(p).Fill(1);
        float[] grads = [0.5f, -0.2f, 0.1f];
        double[] ms = [0.05, 0.025, 0.0325], vs = [0.00025, 0.00028975, 0.00029946025];
        for (int t = 1; t <= 3; t++)
        {
            Floats(g).Fill(grads[t - 1] * 4);
            d.Ops.AdamW([new ParameterSlot(p, g, m, v, decay)], new AdamWStep(0.01, 0.9, 0.999, 1e-8, t, 0.25f));
            foreach (float x in Floats(p)) Assert.Equal(expected[t - 1], x, 1e-6);
            foreach (float x in Floats(m)) Assert.Equal(ms[t - 1], x, 1e-7);
            foreach (float x in Floats(v)) Assert.Equal(vs[t - 1], x, 1e-8);
        }
    }

    [Fact]
    public void ManySlotsMatchTheScalarTwinWhateverTheThreads()
    {
        using var d = new ElementTestData(threads: 3);
        int[] sizes = [1, 9, 576, 40001, 70000];
        var slots = sizes
            .Select(n => new ParameterSlot(
                d.Normal(n), d.Normal(n), d.Zeros(n), d.Zeros(n), n == 9 ? 0f : 0.01f, n == 576 ? 16 : 1))
            .ToArray();
        var twins = slots
            .Select(s => s with { Weight = d.Clone(s.Weight), M = d.Clone(s.M), V = d.Clone(s.V) })
            .ToArray();
        for (int t = 1; t <= 3; t++)
        {
            var step = new AdamWStep(2e-4, 0.9, 0.999, 1e-8, t, 0.7f);
            d.Ops.AdamW(slots, step);
            foreach (var s in twins)
                OptimizerKernels.UpdateScalar(
                    s.Weight.F, s.Grad.F, s.M.F, s.V.F, (int)s.Weight.Count,
                    new OptimizerKernels.Constants(step, s));
        }
        for (int i = 0; i < sizes.Length; i++)
        {
            Same(twins[i].Weight, slots[i].Weight);
            Same(twins[i].V, slots[i].V);
        }
    }

    [Theory]
    [InlineData(16)]
    [InlineData(0.5)]
    public void ARatioIsAnotherLearningRate(double ratio)
    {
        using var d = new ElementTestData();
        var slot = new ParameterSlot(d.Normal(40001), d.Normal(40001), d.Zeros(40001), d.Zeros(40001), 0.01f, ratio);
        var twin = slot with { Weight = d.Clone(slot.Weight), M = d.Clone(slot.M), V = d.Clone(slot.V), RateRatio = 1 };
        for (int t = 1; t <= 3; t++)
        {
            var step = new AdamWStep(2e-4, 0.9, 0.999, 1e-8, t, 0.7f);
            d.Ops.AdamW([slot], step);
            d.Ops.AdamW([twin], step with { LearningRate = 2e-4 * ratio });
        }
        Same(twin.Weight, slot.Weight);
        Same(twin.V, slot.V);
    }

    [Fact]
    public void GlobalNormIsExactEnoughAndPassesNonFinite()
    {
        using var d = new ElementTestData();
        using var three = new ElementTestData(threads: 3);
        Tensor a = d.Normal(100001), b = d.Normal(7), c = d.Normal(3, 5);
        double expected = Math.Sqrt(new[] { a, b, c }.Sum(t => Doubles(t).Sum(x => x * x)));
        double norm = d.Ops.GlobalNorm([a, b, c]);
        Assert.Equal(expected, norm, 1e-10 * expected);
        Assert.Equal(norm, three.Ops.GlobalNorm([a, b, c]));
        Assert.Equal(OptimizerKernels.SumSquaresScalar(a.F, 1003), OptimizerKernels.SumSquares(a.F, 1003), 1e-9);
        b.F[6] = float.PositiveInfinity;
        Assert.Equal(double.PositiveInfinity, d.Ops.GlobalNorm([a, b, c]));
        b.F[6] = float.NaN;
        Assert.True(double.IsNaN(d.Ops.GlobalNorm([a, b, c])));
    }

    [Fact]
    public void AllFiniteFindsEveryPlace()
    {
        using var d = new ElementTestData();
        var x = d.Normal(65536 + 13);
        Assert.True(d.Ops.AllFinite(x));
        foreach (int at in new[] { 0, 8, 65535, 65536, 65548 })
            foreach (float bad in new[] { float.NaN, float.PositiveInfinity, float.NegativeInfinity })
            {
                float keep = x.F[at];
                x.F[at] = bad;
                Assert.False(d.Ops.AllFinite(x));
                x.F[at] = keep;
            }
        var half = d.Raw(DType.BF16, 9);
        Assert.True(d.Ops.AllFinite(half));
        ((ushort*)half.B)[8] = 0x7F80;
        Assert.False(d.Ops.AllFinite(half));
    }
}
