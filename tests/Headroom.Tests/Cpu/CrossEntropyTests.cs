using Headroom.Core;
using static Headroom.Tests.Cpu.ElementTestData;

namespace Headroom.Tests.Cpu;

/// <summary>
/// The fused head and cross-entropy, over several chunks of rows, against -log softmax in double precision and its
/// central differences.
/// </summary>
public unsafe class CrossEntropyTests
{
    private static double[] Losses(
        double[] hidden, double[] head, int[] labels, int h, int v, double smoothing = 0)
    {
        var z = Reference.TimesTransposed(hidden, head, labels.Length, v, h);
        return labels.Select((label, t) =>
        {
            var row = z.AsSpan(t * v, v).ToArray();
            double max = row.Max();
            double lse = max + Math.Log(row.Sum(x => Math.Exp(x - max)));
            return (1 - smoothing) * (lse - row[label]) + smoothing * row.Average(x => lse - x);
        }).ToArray();
    }

    private static int[] Labels(int n, int v) => Enumerable.Range(0, n).Select(i => (i * 7 + 3) % v).ToArray();

    [Theory]
    [InlineData(WeightStorage.F32, 7, 3, 12, 17)]
    [InlineData(WeightStorage.BF16, 11, 4, 20, 35)]
    [InlineData(WeightStorage.NF4Double, 9, 9, 22, 30)]
    [InlineData(WeightStorage.Int8, 5, 8, 13, 19)]
    internal void LossesAndGradientsMatchDifferences(WeightStorage storage, int n, int chunk, int h, int v)
    {
        using var d = new ElementTestData();
        var head = new StoredWeight(d, storage, v, h);
        const float Scale = 0.25f;
        int[] labels = Labels(n, v);
        Tensor hidden = d.Normal(n, h),
            losses = d.New(n),
            dHidden = d.New(n, h),
            dHead = d.Normal(v, h),
            logits = d.New(chunk, v);
        double[] hs = Doubles(hidden),
            ws = head.Values,
            ones = Enumerable.Repeat((double)Scale, n).ToArray(),
            dHead0 = Doubles(dHead);
        d.Ops.LinearCrossEntropy(hidden, head.W, d.Ints(labels), Scale, logits, losses, dHidden, dHead);
        Near(Losses(hs, ws, labels, h, v), losses, 2e-6);
        Near(Gradient(hs, ones, x => Losses(x, ws, labels, h, v)), dHidden, 2e-6);
        Near(Reference.Plus(dHead0, Gradient(ws, ones, x => Losses(hs, x, labels, h, v))), dHead, 2e-6);
    }

    /// <summary>
    /// Weights scale gradients and no losses; smoothed labels are (1 - e) of the loss and e of its mean over the
    /// vocabulary.
    /// </summary>
    [Theory]
    [InlineData(WeightStorage.F32, true, 0f)]
    [InlineData(WeightStorage.NF4Double, false, 0.1f)]
    [InlineData(WeightStorage.F32, true, 0.3f)]
    internal void WeightsAndSmoothingMatchDifferences(WeightStorage storage, bool weighted, float smoothing)
    {
        using var d = new ElementTestData();
        const int N = 7, H = 22, V = 37;
        const float Scale = 0.25f;
        var head = new StoredWeight(d, storage, V, H);
        int[] labels = Labels(N, V);
        float[] factors = [1, 0, -2, 0.5f, 3, 1, 0.1f];
        Tensor weights = weighted ? d.New(N) : default,
            hidden = d.Normal(N, H),
            losses = d.New(N),
            dHidden = d.New(N, H),
            dHead = d.Normal(V, H);
        for (int i = 0; weighted && i < N; i++) weights.F[i] = factors[i];
        double[] hs = Doubles(hidden),
            ws = head.Values,
            dy = [.. factors.Select(f => (double)Scale * (weighted ? f : 1))],
            dHead0 = Doubles(dHead);
        d.Ops.LinearCrossEntropy(
            hidden, head.W, d.Ints(labels), Scale, d.New(3, V), losses, dHidden, dHead, weights, smoothing);
        Near(Losses(hs, ws, labels, H, V, smoothing), losses, 2e-6);
        Near(Gradient(hs, dy, x => Losses(x, ws, labels, H, V, smoothing)), dHidden, 2e-6);
        Near(Reference.Plus(dHead0, Gradient(ws, dy, x => Losses(hs, x, labels, H, V, smoothing))), dHead, 2e-6);
    }

    [Fact]
    public void WeightsOfOneChangeNoBit()
    {
        using var d = new ElementTestData();
        const int N = 9, H = 48, V = 300;
        var head = new StoredWeight(d, WeightStorage.F32, V, H);
        Tensor hidden = d.Normal(N, H), ones = d.New(N);
        for (int i = 0; i < N; i++) ones.F[i] = 1;
        var (losses, dHidden) = Run(default);
        var (weightedLosses, weighted) = Run(ones);
        Same(losses, weightedLosses);
        Same(dHidden, weighted);

        (Tensor, Tensor) Run(Tensor weights)
        {
            Tensor l = d.New(N), dh = d.New(N, H);
            d.Ops.LinearCrossEntropy(
                hidden, head.W, d.Ints(Labels(N, V)), 0.3f, d.New(4, V), l, dh, default, weights);
            return (l, dh);
        }
    }

    [Fact]
    public void ChunksDoNotChangeTheResultAndSkippedOutputsAreSkipped()
    {
        using var d = new ElementTestData();
        const int N = 50, H = 72, V = 300;
        var head = new StoredWeight(d, WeightStorage.F32, V, H);
        var labels = d.Ints(Labels(N, V));
        Tensor hidden = d.Normal(N, H);
        var whole = Run(64);
        foreach (int chunk in new[] { 1, 5, 32, 49 })
        {
            var (losses, dHidden, dHead) = Run(chunk);
            Reference.Near(Doubles(whole.Losses), losses, 2e-6, $"losses in chunks of {chunk}");
            Reference.Near(Doubles(whole.DHidden), dHidden, 2e-6, $"dHidden in chunks of {chunk}");
            Reference.Near(Doubles(whole.DHead), dHead, 2e-6, $"dHead in chunks of {chunk}");
        }
        Tensor lossesOnly = d.New(N), dHiddenOnly = d.New(N, H);
        d.Ops.LinearCrossEntropy(hidden, head.W, labels, 1, d.New(64, V), lossesOnly, default, default);
        Same(whole.Losses, lossesOnly);
        d.Ops.LinearCrossEntropy(hidden, head.W, labels, 1, d.New(64, V), lossesOnly, dHiddenOnly, default);
        Same(whole.DHidden, dHiddenOnly);
        var third = Run(32);
        Tensor inPlace = d.Clone(hidden), dHead3 = d.Zeros(V, H);
        d.Ops.LinearCrossEntropy(inPlace, head.W, labels, 1, d.New(32, V), lossesOnly, inPlace, dHead3);
        Same(third.DHidden, inPlace);
        Same(third.DHead, dHead3);

        (Tensor Losses, Tensor DHidden, Tensor DHead) Run(int chunk)
        {
            Tensor l = d.New(N), dh = d.New(N, H), dw = d.Zeros(V, H);
            d.Ops.LinearCrossEntropy(hidden, head.W, labels, 1, d.New(chunk, V), l, dh, dw);
            return (l, dh, dw);
        }
    }

    [Theory, InlineData(WeightStorage.F32), InlineData(WeightStorage.NF4Double)]
    internal void RowsWithANegativeLabelDoNotCount(WeightStorage storage)
    {
        using var d = new ElementTestData();
        const int N = 7, H = 48, V = 70;
        var head = new StoredWeight(d, storage, V, H);
        Tensor hidden = d.Normal(N, H),
            losses = d.New(N),
            dHidden = d.New(N, H),
            dHead = d.Zeros(V, H),
            fewer = d.New(5),
            dFewer = d.New(5, H),
            dHeadOfFewer = d.Zeros(V, H);
        int[] labels = Labels(N, V);
        d.Ops.LinearCrossEntropy(
            hidden.Head(5), head.W, d.Ints(labels[..5]), 0.5f, d.New(3, V), fewer, dFewer, dHeadOfFewer);
        labels[5] = labels[6] = -1;
        d.Ops.LinearCrossEntropy(hidden, head.W, d.Ints(labels), 0.5f, d.New(3, V), losses, dHidden, dHead);
        Same(fewer, losses.Head(5));
        Same(dFewer, dHidden.Head(5));
        Reference.Near(Doubles(dHeadOfFewer), dHead, 1e-6, "dHead");
        Assert.All(Doubles(losses.Slice(5, 2)).Concat(Doubles(dHidden.Slice(5, 2))), x => Assert.Equal(0, x));
    }

    [Fact]
    public void LargeLogitsDoNotOverflow()
    {
        using var d = new ElementTestData();
        const int V = 40;
        Tensor hidden = d.Zeros(2, 1), data = d.Zeros(V, 1), losses = d.New(2), dHidden = d.New(2, 1);
        hidden.F[0] = 1;
        hidden.F[1] = -1;
        for (int i = 0; i < V; i++) data.F[i] = 1000f * (i - 20);
        d.Ops.LinearCrossEntropy(
            hidden, new LinearWeight(WeightStorage.F32, V, 1, data), d.Ints(V - 1, V - 1), 1, d.New(2, V), losses,
            dHidden, default);
        Assert.Equal(0, losses.F[0], 1e-6);
        Assert.Equal(39_000, losses.F[1], 1e-2);
        Assert.True(float.IsFinite(dHidden.F[1]));
    }

    [Theory]
    [InlineData(WeightStorage.F32)]
    [InlineData(WeightStorage.NF4Double)]
    internal void CandidateScoresMatchTheFullLogits(WeightStorage storage)
    {
        using var d = new ElementTestData();
        const int N = 9, H = 50, V = 77;
        var head = new StoredWeight(d, storage, V, H);
        int[] candidates = [76, 0, 13];
        Tensor hidden = d.Normal(N, H), scores = d.New(N, 3), lse = d.New(N);
        d.Ops.CandidateScores(hidden, head.W, d.Ints(candidates), d.New(4, V), scores, lse);
        var z = Reference.TimesTransposed(Doubles(hidden), head.Values, N, V, H);
        Near(Enumerable.Range(0, N).SelectMany(t => candidates.Select(c => z[t * V + c])).ToArray(), scores, 3e-6);
        Near(
            Enumerable
                .Range(0, N)
                .Select(t => Math.Log(Enumerable.Range(0, V).Sum(v => Math.Exp(z[t * V + v]))))
                .ToArray(),
            lse,
            3e-6
        );
    }
}
