using Headroom.Core;
using Headroom.Cpu;
using static Headroom.Tests.Cpu.ElementTestData;

namespace Headroom.Tests.Cpu;

public unsafe class NormTests
{
    private const float Eps = 1e-5f;

    private static double[] Reference(double[] x, double[] w, int h)
    {
        var y = new double[x.Length];
        for (int t = 0; t < x.Length / h; t++)
        {
            double s = 0;
            for (int i = 0; i < h; i++) s += x[t * h + i] * x[t * h + i];
            double r = 1 / Math.Sqrt(s / h + Eps);
            for (int i = 0; i < h; i++) y[t * h + i] = x[t * h + i] * r * w[i];
        }
        return y;
    }

    [Theory]
    [InlineData(1, 1)]
    [InlineData(3, 7)]
    [InlineData(13, 67)]
    [InlineData(21, 576)]
    public void ForwardMatchesReference(int t, int h)
    {
        using var d = new ElementTestData();
        Tensor x = d.Normal(t, h),
            branch = d.Normal(t, h),
            w = d.Normal(h),
            y = d.New(t, h),
            rstd = d.New(t),
            sum = d.New(t, h);
        d.Ops.RmsNorm(x, w, Eps, y, rstd);
        Near(Reference(Doubles(x), Doubles(w), h), y);
        var own = d.Clone(x);
        d.Ops.RmsNorm(own, w, Eps, own, rstd);
        Same(y, own);
        double[] s = Doubles(x).Zip(Doubles(branch), (a, b) => a + b).ToArray();
        d.Ops.AddRmsNorm(x, branch, w, Eps, sum, y, rstd);
        Near(s, sum);
        Near(Reference(s, Doubles(w), h), y);
        var inPlace = d.Clone(x);
        d.Ops.AddRmsNorm(inPlace, branch, w, Eps, inPlace, y, rstd);
        Same(sum, inPlace);
    }

    [Theory]
    [InlineData(2, 5)]
    [InlineData(5, 19)]
    [InlineData(9, 72)]
    public void BackwardMatchesDifferences(int t, int h)
    {
        using var d = new ElementTestData();
        Tensor x = d.Normal(t, h),
            w = d.Normal(h),
            dy = d.Normal(t, h),
            y = d.New(t, h),
            rstd = d.New(t),
            dx = d.Normal(t, h),
            dw = d.Normal(h);
        double[] dx0 = Doubles(dx), dw0 = Doubles(dw), xs = Doubles(x), ws = Doubles(w), g = Doubles(dy);
        d.Ops.RmsNorm(x, w, Eps, y, rstd);
        var withoutWeight = d.Clone(dx);
        d.Ops.RmsNormBackward(x, w, rstd, dy, withoutWeight, default);
        d.Ops.RmsNormBackward(x, w, rstd, dy, dx, dw);
        Same(withoutWeight, dx);
        Near(Gradient(xs, g, v => Reference(v, ws, h)).Zip(dx0, (a, b) => a + b).ToArray(), dx, 2e-5);
        Near(Gradient(ws, g, v => Reference(xs, v, h)).Zip(dw0, (a, b) => a + b).ToArray(), dw, 2e-5);
    }

    [Fact]
    public void ScalarTwinAgrees()
    {
        using var d = new ElementTestData();
        const int H = 147;
        Tensor x = d.Normal(H),
            w = d.Normal(H),
            dy = d.Normal(H),
            y = d.New(H),
            y2 = d.New(H),
            dx = d.Zeros(H),
            dx2 = d.Zeros(H);
        float r = RmsNormKernels.Row(x.F, w.F, Eps, y.F, H), r2 = RmsNormKernels.RowScalar(x.F, w.F, Eps, y2.F, H);
        Near(Doubles(y2), y, 1e-6);
        RmsNormKernels.RowBackward(x.F, w.F, r, dy.F, dx.F, H);
        RmsNormKernels.RowBackwardScalar(x.F, w.F, r2, dy.F, dx2.F, H);
        Near(Doubles(dx2), dx, 1e-6);
    }

    [Fact]
    public void RowsDoNotDependOnTheBatchOrTheThreads()
    {
        using var one = new ElementTestData(threads: 1);
        using var three = new ElementTestData(threads: 3);
        Tensor x = one.Normal(40, 100),
            w = one.Normal(100),
            y = one.New(40, 100),
            r = one.New(40),
            y2 = one.New(40, 100),
            dy = one.Normal(40, 100);
        one.Ops.RmsNorm(x, w, Eps, y, r);
        for (int t = 0; t < 40; t++) one.Ops.RmsNorm(x.Slice(t, 1), w, Eps, y2.Slice(t, 1), r.Slice(t, 1));
        Same(y, y2);
        Tensor dx = one.Zeros(40, 100), dx3 = one.Zeros(40, 100), dw = one.Zeros(100), dw3 = one.Zeros(100);
        one.Ops.RmsNormBackward(x, w, r, dy, dx, dw);
        three.Ops.RmsNormBackward(x, w, r, dy, dx3, dw3);
        Same(dx, dx3);
        Same(dw, dw3);
    }
}
