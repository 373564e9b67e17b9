using Headroom.Core;
using Headroom.Cpu;
using static Headroom.Tests.Cpu.ElementTestData;

namespace Headroom.Tests.Cpu;

public unsafe class RopeTests
{
    [Theory]
    [InlineData(1, 1, 2)]
    [InlineData(7, 3, 10)]
    [InlineData(33, 9, 64)]
    public void MatchesReferenceAndInverts(int t, int heads, int dim)
    {
        using var d = new ElementTestData();
        int half = dim / 2;
        var positions = d.Ints(Enumerable.Range(0, t).Select(i => i * 37 % 500).ToArray());
        Tensor freq = d.New(half), cos = d.New(t, half), sin = d.New(t, half), x = d.Normal(t, heads * dim);
        for (int i = 0; i < half; i++) freq.F[i] = (float)Math.Pow(10000, -2.0 * i / dim);
        d.Ops.RopeTable(positions, freq, 1.25f, cos, sin);
        double[] before = Doubles(x), expected = new double[before.Length];
        for (int r = 0; r < t; r++)
            for (int h = 0; h < heads; h++)
                for (int i = 0; i < half; i++)
                {
                    double angle = (float)(positions.I[r] * freq.F[i]);
                    Assert.Equal(1.25 * Math.Cos(angle), cos.F[r * half + i], 1e-6);
                    Assert.Equal(1.25 * Math.Sin(angle), sin.F[r * half + i], 1e-6);
                    int a = (r * heads + h) * dim + i, b = a + half;
                    expected[a] = 1.25 * (before[a] * Math.Cos(angle) - before[b] * Math.Sin(angle));
                    expected[b] = 1.25 * (before[b] * Math.Cos(angle) + before[a] * Math.Sin(angle));
                }
        d.Ops.Rope(x, cos, sin, dim, false);
        Near(expected, x, 2e-6);
        d.Ops.Rope(x, cos, sin, dim, true); // The transpose: rotates back and scales by the factor again.
        Near(before.Select(v => v * 1.25 * 1.25).ToArray(), x, 2e-6);
    }

    [Fact]
    public void BackwardMatchesDifferences()
    {
        using var d = new ElementTestData();
        const int T = 4, Heads = 2, Dim = 6, Half = Dim / 2;
        Tensor cos = d.Normal(T, Half),
            sin = d.Normal(T, Half),
            x = d.Normal(T, Heads * Dim),
            dy = d.Normal(T, Heads * Dim),
            dx = d.Clone(dy);
        double[] c = Doubles(cos), s = Doubles(sin);
        double[] Rotate(double[] v)
        {
            var y = new double[v.Length];
            for (int i = 0; i < v.Length; i++)
            {
                int t = i / (Heads * Dim), k = i % Dim, f = t * Half + k % Half;
                y[i] = v[i] * c[f] + (k < Half ? -v[i + Half] : v[i - Half]) * s[f];
            }
            return y;
        }
        double[] before = Doubles(x), gradient = Gradient(before, Doubles(dy), Rotate);
        d.Ops.Rope(x, cos, sin, Dim, false);
        Near(Rotate(before), x, 1e-6);
        d.Ops.Rope(dx, cos, sin, Dim, true);
        Near(gradient, dx, 1e-6);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void ScalarTwinIsIdentical(bool inverse)
    {
        using var d = new ElementTestData();
        Tensor x = d.Normal(2 * 21), y = d.Clone(x), cos = d.Normal(21), sin = d.Normal(21);
        RopeKernels.Head(x.F, cos.F, sin.F, 21, inverse);
        RopeKernels.HeadScalar(y.F, cos.F, sin.F, 21, inverse);
        Same(y, x);
    }
}
