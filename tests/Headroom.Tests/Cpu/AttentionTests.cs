using Headroom.Core;
using Headroom.Cpu;
using static Headroom.Tests.Cpu.ElementTestData;

namespace Headroom.Tests.Cpu;

public unsafe class AttentionTests
{
    private static double[] Reference(
        double[] q, double[] k, double[] v, int[] offsets, AttentionShape s, double[]? lse = null)
    {
        var o = new double[q.Length];
        int d = s.HeadDim, ldq = s.NumHeads * d, ldk = s.NumKeyValueHeads * d;
        for (int seq = 0; seq + 1 < offsets.Length; seq++)
            for (int h = 0; h < s.NumHeads; h++)
                for (int i = offsets[seq]; i < offsets[seq + 1]; i++)
                {
                    int kv = h / (s.NumHeads / s.NumKeyValueHeads) * d;
                    int first = s.SlidingWindow > 0 ? Math.Max(offsets[seq], i - s.SlidingWindow + 1) : offsets[seq];
                    var p = new double[i + 1 - first];
                    for (int j = first; j <= i; j++)
                        for (int c = 0; c < d; c++)
                            p[j - first] += q[i * ldq + h * d + c] * k[j * ldk + kv + c] / Math.Sqrt(d);
                    double max = p.Max(), sum = p.Sum(x => Math.Exp(x - max));
                    if (lse != null) lse[i * s.NumHeads + h] = max + Math.Log(sum);
                    for (int j = first; j <= i; j++)
                        for (int c = 0; c < d; c++)
                            o[i * ldq + h * d + c] += Math.Exp(p[j - first] - max) / sum * v[j * ldk + kv + c];
                }
        return o;
    }

    private sealed class Case : IDisposable
    {
        public readonly ElementTestData D;
        public readonly AttentionShape Shape;
        public readonly int[] Starts;
        public readonly Tensor Q, K, V, O, Lse, Offsets, DO, Delta, DQ, DK, DV;
        public readonly int T, Longest;

        public Case(int heads, int kv, int dim, int window, int threads, params int[] lengths)
        {
            D = new ElementTestData(threads: threads);
            Shape = new AttentionShape(heads, kv, dim, window);
            Starts = new int[lengths.Length + 1];
            for (int i = 0; i < lengths.Length; i++) Starts[i + 1] = Starts[i] + lengths[i];
            T = Starts[^1];
            Longest = lengths.Max();
            (Q, K, V, DO) = (
                D.Normal(T, heads * dim), D.Normal(T, kv * dim), D.Normal(T, kv * dim), D.Normal(T, heads * dim));
            (O, Lse, Delta) = (D.New(T, heads * dim), D.New(T, heads), D.New(T, heads));
            (DQ, DK, DV) = (D.New(T, heads * dim), D.New(T, kv * dim), D.New(T, kv * dim));
            Offsets = D.Ints(Starts);
        }

        public void Forward() => D.Ops.Attention(Q, K, V, Offsets, Shape, O, Lse);
        public void Backward() => D.Ops.AttentionBackward(Q, K, V, O, Lse, DO, Offsets, Shape, Delta, DQ, DK, DV);
        public void Dispose() => D.Dispose();
    }

    [Theory]
    [InlineData(1, 1, 4, 0, new[] { 1 })]
    [InlineData(2, 1, 17, 0, new[] { 5, 1, 33 })]
    [InlineData(6, 2, 40, 0, new[] { 70, 3 })]
    [InlineData(9, 3, 64, 0, new[] { 131, 64, 32 })]
    [InlineData(4, 2, 32, 7, new[] { 90, 6 })]
    [InlineData(2, 2, 16, 64, new[] { 200 })]
    [InlineData(2, 1, 256, 100, new[] { 150 })]
    public void FlashAndMaterialisedMatchReference(int heads, int kv, int dim, int window, int[] lengths)
    {
        using var c = new Case(heads, kv, dim, window, 2, lengths);
        c.Forward();
        var lse = new double[c.T * heads];
        double[] expected = Reference(Doubles(c.Q), Doubles(c.K), Doubles(c.V), c.Starts, c.Shape, lse);
        Near(expected, c.O);
        Near(lse, c.Lse);
        Tensor o = c.D.New(c.T, heads * dim), scores = c.D.New(c.Longest, c.Longest);
        c.D.Ops.AttentionMaterialized(c.Q, c.K, c.V, c.Offsets, c.Shape, scores, o);
        Near(expected, o);
        Near(Doubles(o), c.O, 1e-5);
    }

    [Theory]
    [InlineData(2, 1, 5, 0, new[] { 1, 6 })]
    [InlineData(2, 1, 3, 3, new[] { 40 })]
    [InlineData(1, 1, 33, 0, new[] { 9 })]
    public void BackwardMatchesDifferences(int heads, int kv, int dim, int window, int[] lengths)
    {
        using var c = new Case(heads, kv, dim, window, 2, lengths);
        c.Forward();
        c.Backward();
        double[] q = Doubles(c.Q), k = Doubles(c.K), v = Doubles(c.V), g = Doubles(c.DO);
        Near(Gradient(q, g, x => Reference(x, k, v, c.Starts, c.Shape)), c.DQ, 2e-5);
        Near(Gradient(k, g, x => Reference(q, x, v, c.Starts, c.Shape)), c.DK, 2e-5);
        Near(Gradient(v, g, x => Reference(q, k, x, c.Starts, c.Shape)), c.DV, 2e-5);
    }

    [Theory]
    [InlineData(6, 2, 40, 0, new[] { 70, 3 })]
    [InlineData(9, 3, 64, 0, new[] { 150, 64 })]
    [InlineData(4, 2, 64, 65, new[] { 200 })]
    public void BackwardMatchesAnalyticReference(int heads, int kv, int dim, int window, int[] lengths)
    {
        using var c = new Case(heads, kv, dim, window, 2, lengths);
        c.Forward();
        c.Backward();
        var (dq, dk, dv) = Analytic(c);
        Near(dq, c.DQ, 2e-5);
        Near(dk, c.DK, 2e-5);
        Near(dv, c.DV, 2e-5);
    }

    private static (double[] DQ, double[] DK, double[] DV) Analytic(Case c)
    {
        var s = c.Shape;
        double[] q = Doubles(c.Q),
            k = Doubles(c.K),
            v = Doubles(c.V),
            g = Doubles(c.DO),
            lse = new double[c.T * s.NumHeads];
        double[] o = Reference(q, k, v, c.Starts, s, lse),
            dq = new double[q.Length],
            dk = new double[k.Length],
            dv = new double[v.Length];
        int d = s.HeadDim, ldq = s.NumHeads * d, ldk = s.NumKeyValueHeads * d;
        for (int seq = 0; seq + 1 < c.Starts.Length; seq++)
            for (int h = 0; h < s.NumHeads; h++)
                for (int i = c.Starts[seq]; i < c.Starts[seq + 1]; i++)
                {
                    int a = i * ldq + h * d,
                        first = s.SlidingWindow > 0 ? Math.Max(c.Starts[seq], i - s.SlidingWindow + 1) : c.Starts[seq];
                    double delta = 0;
                    for (int x = 0; x < d; x++) delta += g[a + x] * o[a + x];
                    for (int j = first; j <= i; j++)
                    {
                        int b = j * ldk + h / (s.NumHeads / s.NumKeyValueHeads) * d;
                        double dot = 0, dp = 0;
                        for (int x = 0; x < d; x++) { dot += q[a + x] * k[b + x]; dp += g[a + x] * v[b + x]; }
                        double p = Math.Exp(dot / Math.Sqrt(d) - lse[i * s.NumHeads + h]),
                            ds = p * (dp - delta) / Math.Sqrt(d);
                        for (int x = 0; x < d; x++)
                        {
                            dv[b + x] += p * g[a + x];
                            dk[b + x] += ds * q[a + x];
                            dq[a + x] += ds * k[b + x];
                        }
                    }
                }
        return (dq, dk, dv);
    }

    [Fact]
    public void PackedSequencesEqualOneByOneBitForBitWhateverTheThreads()
    {
        using var c = new Case(6, 2, 48, 0, 3, 37, 1, 130, 64);
        c.Forward();
        c.Backward();
        using var one = new ElementTestData(threads: 1);
        for (int s = 0; s + 1 < c.Starts.Length; s++)
        {
            int from = c.Starts[s], n = c.Starts[s + 1] - from;
            Tensor o = one.New(n, 288),
                lse = one.New(n, 6),
                delta = one.New(n, 6),
                dq = one.New(n, 288),
                dk = one.New(n, 96),
                dv = one.New(n, 96),
                offsets = one.Ints(0, n);
            one.Ops.Attention(c.Q.Slice(from, n), c.K.Slice(from, n), c.V.Slice(from, n), offsets, c.Shape, o, lse);
            Same(o, c.O.Slice(from, n));
            Same(lse, c.Lse.Slice(from, n));
            one.Ops.AttentionBackward(
                c.Q.Slice(from, n), c.K.Slice(from, n), c.V.Slice(from, n), o, lse, c.DO.Slice(from, n), offsets,
                c.Shape, delta, dq, dk, dv);
            Same(dq, c.DQ.Slice(from, n));
            Same(dk, c.DK.Slice(from, n));
            Same(dv, c.DV.Slice(from, n));
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(5)]
    [InlineData(70)]
    public void WindowSeesExactlyItsPositions(int window)
    {
        using var c = new Case(1, 1, 8, window, 2, 160);
        c.Forward();
        using var keep = new ElementTestData();
        var before = keep.Clone(c.O);
        const int Changed = 61;
        for (int i = 0; i < 8; i++) c.V.F[Changed * 8 + i] += 1;
        c.Forward();
        for (int t = 0; t < 160; t++)
        {
            bool sees = t >= Changed && t < Changed + window;
            Assert.Equal(sees, !Floats(before.Slice(t, 1)).SequenceEqual(Floats(c.O.Slice(t, 1))));
        }
    }

    [Theory]
    [InlineData(64, 0)]
    [InlineData(40, 30)]
    public void ScalarTwinAgrees(int dim, int window)
    {
        using var c = new Case(3, 1, dim, window, 2, 77, 20);
        c.Forward();
        c.Backward();
        Tensor o = c.D.New(c.T, 3 * dim),
            lse = c.D.New(c.T, 3),
            delta = c.D.New(c.T, 3),
            dq = c.D.New(c.T, 3 * dim),
            dk = c.D.New(c.T, dim),
            dv = c.D.New(c.T, dim);
        AttentionForward.Run(c.D.Ops.Pool, c.Q, c.K, c.V, c.Offsets, c.Shape, o, lse, simd: false);
        AttentionBackward.Run(
            c.D.Ops.Pool, c.Q, c.K, c.V, o, lse, c.DO, c.Offsets, c.Shape, delta, dq, dk, dv, simd: false);
        Same(o, c.O);
        Same(dq, c.DQ);
        Same(dk, c.DK);
        Same(dv, c.DV);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(21)]
    public void CacheMatchesTheWholeSequence(int window)
    {
        using var c = new Case(6, 3, 40, window, 2, 300);
        c.Forward();
        foreach (var (past, n) in new[] { (0, 40), (40, 1), (41, 5), (46, 33), (79, 8), (87, 1), (298, 2) })
        {
            var o = c.D.New(n, 240);
            c.D.Ops.CachedAttention(c.Q.Slice(past, n), c.K, c.V, past, c.Shape, o);
            Near(Doubles(c.O.Slice(past, n)), o, 1e-5);
        }
    }

    [Fact]
    public void AllocatesNothing()
    {
        using var c = new Case(4, 2, 64, 0, 2, 100, 50);
        c.Forward();
        c.Backward();
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 5; i++) { c.Forward(); c.Backward(); }
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
    }
}
