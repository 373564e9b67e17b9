using Headroom.Core;
using static Headroom.Tests.Cpu.ElementTestData;

namespace Headroom.Tests.Cpu;

/// <summary>
/// DoRA's ops against their formulas in double precision; whole layers with DoRA are in the model's gradient tests.
/// </summary>
public unsafe class DoraTests
{
    public static IEnumerable<ITheoryDataRow> Cases()
    {
        var data = new TheoryData<WeightStorage, int, int, int>();
        foreach (var storage in Enum.GetValues<WeightStorage>().Where(s => s != WeightStorage.Gguf))
            foreach (var (o, i, r) in new[] { (33, 100, 3), (5, 65, 4), (19, 5000, 16) }) data.Add(storage, o, i, r);
        return data;
    }

    [Theory, MemberData(nameof(Cases))]
    internal void ScaleIsMagnitudeOverTheNormOfTheAdaptedRow(WeightStorage storage, int outs, int ins, int r)
    {
        using var d = new ElementTestData();
        var w = new StoredWeight(d, storage, outs, ins, bias: true);
        Tensor a = d.Normal(r, ins), b = d.Normal(outs, r), m = d.Normal(outs), norm = d.New(outs), scale = d.New(outs);
        d.Ops.DoraScale(w.W, a, b, 0.5f, m, norm, scale);
        double[] delta = Reference.TimesTransposed(Doubles(b), Reference.Transpose(Doubles(a), r, ins), outs, ins, r),
            expected = new double[outs];
        for (int i = 0; i < delta.Length; i++) expected[i / ins] += Math.Pow(w.Values[i] + 0.5 * delta[i], 2);
        for (int o = 0; o < outs; o++) expected[o] = Math.Sqrt(expected[o]);
        Reference.Near(expected, norm, 1e-6, "norm");
        Reference.Near(Doubles(m).Zip(expected, (x, n) => x / n).ToArray(), scale, 1e-6, "scale");
    }

    /// <summary>A row of zeros has no direction: it must not turn into NaN.</summary>
    [Fact]
    public void ARowOfZerosStaysFinite()
    {
        using var d = new ElementTestData();
        var w = new LinearWeight(WeightStorage.F32, 2, 8, d.Zeros(2, 8));
        Tensor m = d.Normal(2), norm = d.New(2), scale = d.New(2);
        d.Ops.DoraScale(w, d.Normal(3, 8), d.Zeros(2, 3), 2, m, norm, scale);
        Assert.Equal([1f, 1f], Floats(norm).ToArray());
        Same(m, scale);
    }

    [Theory]
    [InlineData(5, 3)]
    [InlineData(70, 130)]
    public void ForwardAndBackward(int t, int n)
    {
        using var d = new ElementTestData();
        Tensor u = d.Normal(t, n),
            scale = d.Normal(n),
            bias = d.Normal(n),
            y = d.New(t, n),
            dy = d.Normal(t, n),
            norm = d.Normal(n),
            du = d.New(t, n),
            dm = d.Normal(n);
        double[] us = Doubles(u),
            c = Doubles(scale),
            b = Doubles(bias),
            g = Doubles(dy),
            ns = Doubles(norm),
            dms = Doubles(dm);
        d.Ops.DoraForward(u, scale, bias, false, y);
        var ys = us.Select((v, i) => v * c[i % n] + b[i % n]).ToArray();
        Reference.Near(ys, y, 1e-6, "y");
        d.Ops.DoraForward(u, scale, default, true, y);
        Reference.Near(ys.Select((v, i) => v + us[i] * c[i % n]).ToArray(), y, 1e-6, "y, accumulated");
        d.Ops.DoraBackward(dy, u, scale, norm, du, dm);
        Reference.Near(g.Select((v, i) => v * c[i % n]).ToArray(), du, 1e-6, "du");
        for (int i = 0; i < g.Length; i++) dms[i % n] += g[i] * us[i] / ns[i % n];
        Reference.Near(dms, dm, 2e-6, "dm");
        d.Ops.DoraBackward(dy, u, scale, norm, dy, dm);
        Same(du, dy); // in place
        Tensor fresh = d.New(t, n);
        d.Ops.DoraForward(u, scale, bias, false, fresh);
        d.Ops.DoraForward(u, scale, bias, false, u);
        Same(fresh, u);
    }

    [Theory]
    [InlineData(0f, 3, 5)]
    [InlineData(0.3f, 3, 5)]
    [InlineData(0.1f, 40, 1001)]
    public void DropAndItsRest(float p, int t, int n)
    {
        using var d = new ElementTestData();
        var dropout = new Dropout(p, 0x123456789ABCDEF0, 7, 11);
        Tensor x = d.Normal(t, n), dropped = d.New(t, n), rest = d.New(t, n), sum = d.Normal(t, n);
        double[] xs = Doubles(x), mask = Reference.Mask(dropout, t * n), before = Doubles(sum);
        d.Ops.Drop(x, dropout, false, false, dropped);
        Reference.Near(xs.Zip(mask, (v, m) => v * m).ToArray(), dropped, 1e-6, "drop");
        d.Ops.Drop(x, dropout, true, false, rest);
        Reference.Near(xs.Zip(mask, (v, m) => v - v * m).ToArray(), rest, 1e-6, "rest");
        d.Ops.Drop(x, dropout, true, true, sum);
        d.Ops.Drop(x, dropout, false, true, sum);
        Reference.Near(Reference.Plus(before, xs), sum, 2e-6, "drop and rest make the whole");
        d.Ops.Drop(x, dropout, true, false, x);
        Same(rest, x);
    }
}
