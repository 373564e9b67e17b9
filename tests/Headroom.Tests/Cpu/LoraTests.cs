using Headroom.Core;
using static Headroom.Tests.Cpu.ElementTestData;

namespace Headroom.Tests.Cpu;

/// <summary>
/// The LoRA pair, dropout included, against its formula in double precision and central differences of it.
/// </summary>
public unsafe class LoraTests
{
    private const float Scaling = 1.5f;

    private static double[] Apply(
        double[] x, double[] a, double[] b, double[] mask, double scaling, int t, int r, int ins, int outs)
    {
        var dropped = x.Zip(mask, (v, m) => v * m).ToArray();
        var xa = Reference.TimesTransposed(dropped, a, t, r, ins);
        return Reference.TimesTransposed(xa, b, t, outs, r).Select(v => v * scaling).ToArray();
    }

    [Theory]
    [InlineData(0f, 5, 3, 21, 13)]
    [InlineData(0.1f, 5, 3, 21, 13)]
    [InlineData(0.5f, 7, 4, 66, 35)]
    public void ForwardAndGradientsMatchDifferences(float p, int t, int r, int ins, int outs)
    {
        using var d = new ElementTestData();
        var dropout = new Dropout(p, 0x123456789ABCDEF0, 7, 11);
        Tensor x = d.Normal(t, ins),
            a = d.Normal(r, ins),
            b = d.Normal(outs, r),
            xa = d.New(t, r),
            y = d.Normal(t, outs),
            dy = d.Normal(t, outs);
        Tensor dxa = d.New(t, r), dA = d.Normal(r, ins), dB = d.Normal(outs, r), dx = d.Normal(t, ins);
        double[] xs = Doubles(x),
            ai = Doubles(a),
            bi = Doubles(b),
            g = Doubles(dy),
            y0 = Doubles(y),
            dA0 = Doubles(dA),
            dB0 = Doubles(dB),
            dx0 = Doubles(dx);
        double[] mask = Reference.Mask(dropout, t * ins);
        if (p > 0) Assert.InRange(mask.Count(m => m == 0), 1, mask.Length - 1);
        d.Ops.LoraForward(x, a, b, Scaling, dropout, xa, y);
        Reference.Near(Reference.Plus(y0, Apply(xs, ai, bi, mask, Scaling, t, r, ins, outs)), y, 1e-6, "y");
        var again = d.New(t, outs);
        y0.Select(v => (float)v).ToArray().CopyTo(Floats(again));
        d.Ops.LoraForward(x, default, b, Scaling, dropout, xa, again); // xa is known
        Same(y, again);
        d.Ops.LoraBackward(x, a, b, Scaling, dropout, xa, dy, dxa, dA, dB, dx);
        Reference.Near(
            Reference.Plus(dA0, Gradient(ai, g, v => Apply(xs, v, bi, mask, Scaling, t, r, ins, outs))), dA, 1e-6, "dA"
        );
        Reference.Near(
            Reference.Plus(dB0, Gradient(bi, g, v => Apply(xs, ai, v, mask, Scaling, t, r, ins, outs))), dB, 1e-6, "dB"
        );
        Reference.Near(
            Reference.Plus(dx0, Gradient(xs, g, v => Apply(v, ai, bi, mask, Scaling, t, r, ins, outs))), dx, 1e-6, "dx"
        );
    }

    [Theory]
    [InlineData(0f)]
    [InlineData(0.1f)]
    public void LargerSizesMatchTheFormula(float p)
    {
        using var d = new ElementTestData();
        const int T = 75, R = 16, I = 353, O = 130;
        var dropout = new Dropout(p, 42, 3, 5);
        Tensor x = d.Normal(T, I),
            a = d.Normal(R, I),
            b = d.Normal(O, R),
            xa = d.New(T, R),
            y = d.Zeros(T, O),
            dy = d.Normal(T, O);
        Tensor dxa = d.New(T, R), dA = d.Zeros(R, I), dB = d.Zeros(O, R), dx = d.Zeros(T, I);
        double[] mask = Reference.Mask(dropout, T * I),
            dropped = Doubles(x).Zip(mask, (v, m) => v * m).ToArray(),
            g = Doubles(dy),
            ai = Doubles(a),
            bi = Doubles(b);
        var xas = Reference.TimesTransposed(dropped, ai, T, R, I);
        var dxas = Reference
            .TimesTransposed(g, Reference.Transpose(bi, O, R), T, R, O)
            .Select(v => v * Scaling)
            .ToArray();
        d.Ops.LoraForward(x, a, b, Scaling, dropout, xa, y);
        d.Ops.LoraBackward(x, a, b, Scaling, dropout, xa, dy, dxa, dA, dB, dx);
        Reference.Near(xas, xa, 2e-6, "xa");
        Reference.Near(Reference.TimesTransposed(xas, bi, T, O, R).Select(v => v * Scaling).ToArray(), y, 2e-6, "y");
        Reference.Near(dxas, dxa, 2e-6, "dxa");
        Reference.Near(
            Reference.TimesTransposed(Reference.Transpose(dxas, T, R), Reference.Transpose(dropped, T, I), R, I, T), dA,
            3e-6, "dA");
        Reference.Near(
            Reference
                .TimesTransposed(Reference.Transpose(g, T, O), Reference.Transpose(xas, T, R), O, R, T)
                .Select(v => v * Scaling)
                .ToArray(),
            dB,
            3e-6,
            "dB"
        );
        Reference.Near(
            Reference
                .TimesTransposed(dxas, Reference.Transpose(ai, R, I), T, I, R)
                .Zip(mask, (v, m) => v * m)
                .ToArray(),
            dx,
            3e-6,
            "dx"
        );
        Tensor noInput = d.Zeros(R, I), noInputB = d.Zeros(O, R);
        // the first layer: no gradient of its input
        d.Ops.LoraBackward(x, a, b, Scaling, dropout, xa, dy, dxa, noInput, noInputB, default);
        Same(dA, noInput);
        Same(dB, noInputB);
    }

    [Fact]
    public void MaskKeepsTheRightShareAndChangesWithEveryKey()
    {
        const int N = 40_000;
        var dropout = new Dropout(0.1f, 1, 2, 3);
        double[] mask = Reference.Mask(dropout, N);
        Assert.InRange(mask.Count(m => m == 0) / (double)N, 0.09, 0.11);
        Assert.InRange(mask.Average(), 0.99, 1.01); // inverted dropout keeps the mean
        foreach (var other in new[] { dropout with { Seed = 2 }, dropout with { Step = 3 }, dropout with { Site = 4 } })
            Assert.NotEqual(mask, Reference.Mask(other, N));
    }
}
