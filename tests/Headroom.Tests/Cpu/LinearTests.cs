using Headroom.Core;
using static Headroom.Tests.Cpu.ElementTestData;

namespace Headroom.Tests.Cpu;

/// <summary>
/// The linear layer over every storage, against plain loops in double precision; ragged sizes make NF4 blocks cross
/// rows.
/// </summary>
public unsafe class LinearTests
{
    public static IEnumerable<ITheoryDataRow> Cases()
    {
        var data = new TheoryData<WeightStorage, int, int, int>();
        // GGUF blocks are never made from float32 by the ops; GgufStorageTests has them.
        foreach (var storage in Enum.GetValues<WeightStorage>().Where(s => s != WeightStorage.Gguf))
            foreach (
                var (t, o, i) in new[]
                {
                (1, 33, 100), (4, 70, 352), (5, 48, 65), (37, 96, 344), (130, 257, 129), (19, 64, 640),
                }
            )
                data.Add(storage, t, o, i);
        return data;
    }

    [Theory, MemberData(nameof(Cases))]
    internal void ForwardInputAndWeightGradients(WeightStorage storage, int tokens, int outs, int ins)
    {
        using var d = new ElementTestData();
        var w = new StoredWeight(d, storage, outs, ins, bias: true);
        Tensor x = d.Normal(tokens, ins), y = d.New(tokens, outs), dy = d.Normal(tokens, outs);
        double[] xs = Doubles(x), g = Doubles(dy), bias = Doubles(w.W.Bias);
        d.Ops.Linear(x, w.W, y);
        var expected = Reference.TimesTransposed(xs, w.Values, tokens, outs, ins);
        for (int i = 0; i < expected.Length; i++) expected[i] += bias[i % outs];
        Reference.Near(expected, y, 2e-6, "y");

        Tensor dx = d.New(tokens, ins);
        d.Ops.LinearBackwardInput(dy, w.W, false, dx);
        var dxs = Reference.TimesTransposed(g, Reference.Transpose(w.Values, outs, ins), tokens, ins, outs);
        Reference.Near(dxs, dx, 2e-6, "dx");
        Tensor more = d.Normal(tokens, ins);
        double[] before = Doubles(more);
        d.Ops.LinearBackwardInput(dy, w.W, true, more);
        Reference.Near(Reference.Plus(before, dxs), more, 2e-6, "dx, accumulated");

        Tensor dw = d.Normal(outs, ins), dBias = d.Normal(outs), dwOnly = d.Clone(dw);
        double[] dw0 = Doubles(dw), dBias0 = Doubles(dBias), gt = Reference.Transpose(g, tokens, outs);
        d.Ops.LinearBackwardWeight(x, dy, dw, dBias);
        Reference.Near(
            Reference.Plus(dw0, Reference.TimesTransposed(gt, Reference.Transpose(xs, tokens, ins), outs, ins, tokens)),
            dw, 2e-6, "dW");
        Reference.Near(
            Reference.Plus(
                dBias0,
                Enumerable.Range(0, outs).Select(o => Enumerable.Range(0, tokens).Sum(t => g[t * outs + o])).ToArray()),
            dBias,
            2e-6,
            "dBias"
        );
        d.Ops.LinearBackwardWeight(x, dy, dwOnly, default);
        Same(dw, dwOnly);
    }

    [Theory]
    [InlineData(WeightStorage.F32)]
    [InlineData(WeightStorage.NF4Double)]
    internal void GradientsMatchDifferences(WeightStorage storage)
    {
        using var d = new ElementTestData();
        const int T = 5, O = 9, I = 22;
        var w = new StoredWeight(d, storage, O, I);
        Tensor x = d.Normal(T, I), dy = d.Normal(T, O), dx = d.New(T, I), dw = d.Zeros(O, I);
        double[] xs = Doubles(x), ws = w.Values, g = Doubles(dy);
        d.Ops.LinearBackwardInput(dy, w.W, false, dx);
        d.Ops.LinearBackwardWeight(x, dy, dw, default);
        Near(Gradient(xs, g, v => Reference.TimesTransposed(v, ws, T, O, I)), dx, 1e-6);
        Near(Gradient(ws, g, v => Reference.TimesTransposed(xs, v, T, O, I)), dw, 1e-6);
    }

    [Theory]
    [InlineData(WeightStorage.F32)]
    [InlineData(WeightStorage.Int8)]
    [InlineData(WeightStorage.NF4)]
    [InlineData(WeightStorage.NF4Double)]
    internal void DequantizedValuesAreTheOnesTheProductUses(WeightStorage storage)
    {
        using var d = new ElementTestData();
        var w = new StoredWeight(d, storage, 70, 352);
        var back = d.New(70, 352);
        d.Ops.Dequantize(w.W, back);
        Near(w.Values, back, 3e-7);
    }

    [Fact]
    public void ResultsDoNotDependOnTheThreads()
    {
        using var one = new ElementTestData(threads: 1);
        using var three = new ElementTestData(threads: 3);
        var w = new StoredWeight(one, WeightStorage.NF4Double, 130, 200);
        Tensor x = one.Normal(70, 200),
            dy = one.Normal(70, 130),
            y1 = one.New(70, 130),
            y3 = one.New(70, 130),
            dx1 = one.New(70, 200),
            dx3 = one.New(70, 200);
        Tensor dw1 = one.Zeros(130, 200), dw3 = one.Zeros(130, 200);
        one.Ops.Linear(x, w.W, y1);
        three.Ops.Linear(x, w.W, y3);
        Same(y1, y3);
        one.Ops.LinearBackwardInput(dy, w.W, false, dx1);
        three.Ops.LinearBackwardInput(dy, w.W, false, dx3);
        Same(dx1, dx3);
        one.Ops.LinearBackwardWeight(x, dy, dw1, default);
        three.Ops.LinearBackwardWeight(x, dy, dw3, default);
        Same(dw1, dw3);
    }
}
