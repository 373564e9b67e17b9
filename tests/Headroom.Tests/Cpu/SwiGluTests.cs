using Headroom.Core;
using Headroom.Cpu;
using static Headroom.Tests.Cpu.ElementTestData;

namespace Headroom.Tests.Cpu;

public unsafe class SwiGluTests
{
    private static double Silu(double x) => x / (1 + Math.Exp(-x));

    [Theory]
    [InlineData(1, 1)]
    [InlineData(5, 13)]
    [InlineData(17, 1536)]
    public void ForwardMatchesReference(int t, int n)
    {
        using var d = new ElementTestData();
        Tensor g = d.Normal(t, n), u = d.Normal(t, n), y = d.New(t, n);
        g.F[0] = -200;
        if (n > 4) { g.F[1] = 200; g.F[2] = -88.5f; g.F[3] = -50; g.F[4] = 0; }
        double[] expected = Doubles(g).Zip(Doubles(u), (a, b) => Silu(a) * b).ToArray();
        d.Ops.SwiGlu(g, u, y);
        Near(expected, y, 1e-6);
        d.Ops.SwiGlu(g, u, g);
        Same(y, g);
    }

    [Theory]
    [InlineData(1, 3)]
    [InlineData(3, 21)]
    public void BackwardMatchesDifferences(int t, int n)
    {
        using var d = new ElementTestData();
        Tensor g = d.Normal(t, n), u = d.Normal(t, n), dy = d.Normal(t, n), dg = d.New(t, n), du = d.New(t, n);
        double[] gs = Doubles(g), us = Doubles(u), dys = Doubles(dy);
        d.Ops.SwiGluBackward(g, u, dy, dg, du);
        Near(Gradient(gs, dys, v => v.Zip(us, (a, b) => Silu(a) * b).ToArray()), dg);
        Near(Gradient(us, dys, v => gs.Zip(v, (a, b) => Silu(a) * b).ToArray()), du);
        d.Ops.SwiGluBackward(g, u, dy, g, u);
        Same(dg, g);
        Same(du, u);
    }

    [Fact]
    public void ScalarTwinIsIdenticalAndNaNComesThrough()
    {
        using var d = new ElementTestData();
        const int N = 77;
        Tensor g = d.Normal(N),
            u = d.Normal(N),
            dy = d.Normal(N),
            a = d.New(N),
            b = d.New(N),
            a2 = d.New(N),
            b2 = d.New(N);
        SwiGluKernels.Row(g.F, u.F, a.F, N);
        SwiGluKernels.RowScalar(g.F, u.F, b.F, N);
        Same(b, a);
        SwiGluKernels.RowBackward(g.F, u.F, dy.F, a.F, a2.F, N);
        SwiGluKernels.RowBackwardScalar(g.F, u.F, dy.F, b.F, b2.F, N);
        Same(b, a);
        Same(b2, a2);
        g.F[3] = float.NaN;
        SwiGluKernels.Row(g.F, u.F, a.F, N);
        Assert.True(float.IsNaN(a.F[3]));
    }

    [Fact]
    public void ExpIsAccurate()
    {
        for (float x = -86.9f; x < 87.9f; x += 0.0137f)
            Assert.Equal(1.0, VectorMath.Exp(x) / Math.Exp(x), 3e-7);
        Assert.Equal(0f, VectorMath.Exp(float.NegativeInfinity));
        Assert.Equal(1f, VectorMath.Exp(0f));
    }
}
