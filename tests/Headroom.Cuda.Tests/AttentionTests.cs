using Headroom.Core;

namespace Headroom.Cuda.Tests;

/// <summary>Attention, forward and backward, over ragged packed sequences, grouped queries, sliding windows.</summary>
public class AttentionTests
{
    /// <summary>
    /// Which kernels: one warp a row; tensor cores of any card; Hopper's warpgroup products (on other cards the same as
    /// tensor cores).
    /// </summary>
    public enum Kernels { Rows, TensorCore, Hopper }

    public static IEnumerable<ITheoryDataRow> Cases
    {
        get
        {
            var data = new TheoryData<DType, int, Kernels>();
            foreach (int d in new[] { 16, 20, 24, 64, 128 })
                foreach (var t in new[] { DType.F32, DType.BF16, DType.F16 })
                    foreach (
                        var kernels in t == DType.F32 || d < 64
                            ? new[] { Kernels.Rows }
                            : [Kernels.Rows, Kernels.TensorCore, Kernels.Hopper]
                    )
                        data.Add(t, d, kernels);
            return data;
        }
    }

    private static void Choose(Rig rig, Kernels kernels)
    {
        var ops = (CudaOps)rig.Gpu;
        ops.FusedKernels = kernels != Kernels.Rows;
        ops.HopperKernels = kernels == Kernels.Hopper;
    }

    [Theory, MemberData(nameof(Cases))]
    internal void ForwardAndBackward(DType t, int d, Kernels kernels)
    {
        using var rig = new Rig();
        Choose(rig, kernels);
        double tol = Rig.Tolerance(t);
        foreach (
            var (heads, kv, window, lengths) in new[]
            {
                (4, 4, 0, new[] { 64, 1, 130, 63, 65 }), (6, 2, 0, [200]), (4, 1, 24, [90, 7, 150]), (2, 2, 100, [400]),
                (9, 3, 150, [257, 128, 333]),
            }
        )
        {
            var s = new AttentionShape(heads, kv, d, window);
            int rows = lengths.Sum(), at = 0;
            Pair offsets = rig.Ints([0, .. lengths.Select(l => at += l)]);
            Pair q = rig.Normal(t, rows, heads * d),
                k = rig.Normal(t, rows, kv * d),
                v = rig.Normal(t, rows, kv * d),
                o = rig.Empty(t, rows, heads * d),
                lse = rig.Empty(DType.F32, rows, heads);
            rig.Cpu.Attention(q.Cpu, k.Cpu, v.Cpu, offsets.Cpu, s, o.Cpu, lse.Cpu);
            rig.Gpu.Attention(q.Gpu, k.Gpu, v.Gpu, offsets.Gpu, s, o.Gpu, lse.Gpu);
            string what = $"heads {heads}/{kv} d {d} window {window} rows {rows}";
            rig.Close(o, tol, "o " + what); rig.Close(lse, tol, "lse " + what);
            Pair g = rig.Normal(t, rows, heads * d),
                delta = rig.Empty(DType.F32, rows, heads),
                dq = rig.Empty(t, rows, heads * d),
                dk = rig.Empty(t, rows, kv * d),
                dv = rig.Empty(t, rows, kv * d);
            rig.Push(o); // equal inputs on both sides
            rig.Push(lse);
            rig.Cpu.AttentionBackward(
                q.Cpu, k.Cpu, v.Cpu, o.Cpu, lse.Cpu, g.Cpu, offsets.Cpu, s, delta.Cpu, dq.Cpu, dk.Cpu, dv.Cpu);
            rig.Gpu.AttentionBackward(
                q.Gpu, k.Gpu, v.Gpu, o.Gpu, lse.Gpu, g.Gpu, offsets.Gpu, s, delta.Gpu, dq.Gpu, dk.Gpu, dv.Gpu);
            rig.Close(dq, tol, "dq " + what); rig.Close(dk, tol, "dk " + what); rig.Close(dv, tol, "dv " + what);
            RowsApart(rig, q, k, v, offsets, s, lse, g, delta, what);
            // With the tables, the gradients before the rotation.
            Pair cos = rig.Normal(DType.F32, rows, d / 2), sin = rig.Normal(DType.F32, rows, d / 2);
            rig.Cpu.AttentionBackward(
                q.Cpu, k.Cpu, v.Cpu, o.Cpu, lse.Cpu, g.Cpu, offsets.Cpu, s, delta.Cpu, dq.Cpu, dk.Cpu, dv.Cpu, cos.Cpu,
                sin.Cpu);
            rig.Gpu.AttentionBackward(
                q.Gpu, k.Gpu, v.Gpu, o.Gpu, lse.Gpu, g.Gpu, offsets.Gpu, s, delta.Gpu, dq.Gpu, dk.Gpu, dv.Gpu, cos.Gpu,
                sin.Gpu);
            rig.Close(dq, tol, "rotated dq " + what);
            rig.Close(dk, tol, "rotated dk " + what);
            rig.Close(dv, tol, "dv " + what);
            if (lengths.Length > 1) continue;
            Pair scores = rig.Empty(DType.F32, rows, rows), plain = rig.Empty(t, rows, heads * d);
            rig.Cpu.AttentionMaterialized(q.Cpu, k.Cpu, v.Cpu, offsets.Cpu, s, scores.Cpu, plain.Cpu);
            rig.Gpu.AttentionMaterialized(q.Gpu, k.Gpu, v.Gpu, offsets.Gpu, s, scores.Gpu, plain.Gpu);
            rig.Close(plain, tol, "plain " + what);
            int n = 5, past = rows - n;
            Pair c = rig.Empty(t, n, heads * d);
            rig.Cpu.CachedAttention(q.Cpu.Slice(past, n), k.Cpu, v.Cpu, past, s, c.Cpu);
            rig.Gpu.CachedAttention(q.Gpu.Slice(past, n), k.Gpu, v.Gpu, past, s, c.Gpu);
            rig.Close(c, tol, "cached " + what);
        }
    }

    // Where rows of o and dO lie apart the results are the same bits, and what lies between is left as it was.
    private static void RowsApart(
        Rig rig, Pair q, Pair k, Pair v, Pair offsets, in AttentionShape s, Pair lse, Pair g, Pair delta, string what)
    {
        DType t = q.Gpu.DType;
        if (t == DType.F32) return;
        int rows = q.Gpu.Rows, width = s.NumHeads * s.HeadDim, wide = width + 64;
        Pair o = rig.Empty(t, rows, width),
            dq = rig.Empty(t, rows, width),
            dk = rig.Empty(t, rows, k.Gpu.Columns),
            dv = rig.Empty(t, rows, k.Gpu.Columns);
        float[] Wide(float[] values) =>
            [
                .. Enumerable
                    .Range(0, rows * wide)
                    .Select(i => i % wide < width ? values[i / wide * width + i % wide] : float.NaN),
            ];
        float[] Narrow(Pair p) => [.. rig.Pull(p.Gpu).Where((_, i) => i % wide < width)];
        rig.Gpu.Attention(q.Gpu, k.Gpu, v.Gpu, offsets.Gpu, s, o.Gpu, lse.Gpu);
        rig.Gpu.AttentionBackward(
            q.Gpu, k.Gpu, v.Gpu, o.Gpu, lse.Gpu, g.Gpu, offsets.Gpu, s, delta.Gpu, dq.Gpu, dk.Gpu, dv.Gpu);
        float[][] narrow = [rig.Pull(o.Gpu), rig.Pull(dq.Gpu), rig.Pull(dk.Gpu), rig.Pull(dv.Gpu)];
        Pair oWide = rig.Of(t, Wide(new float[rows * width]), rows, wide),
            gWide = rig.Of(t, Wide(rig.Pull(g.Gpu)), rows, wide);
        rig.Gpu.Attention(q.Gpu, k.Gpu, v.Gpu, offsets.Gpu, s, oWide.Gpu.FirstColumns(width), lse.Gpu);
        rig.Gpu.AttentionBackward(
            q.Gpu, k.Gpu, v.Gpu, oWide.Gpu.FirstColumns(width), lse.Gpu, gWide.Gpu.FirstColumns(width), offsets.Gpu, s,
            delta.Gpu, dq.Gpu, dk.Gpu, dv.Gpu);
        float[][] padded = [Narrow(oWide), rig.Pull(dq.Gpu), rig.Pull(dk.Gpu), rig.Pull(dv.Gpu)];
        for (int n = 0; n < narrow.Length; n++)
            for (int i = 0; i < narrow[n].Length; i++)
                Assert.True(
                    BitConverter.SingleToInt32Bits(narrow[n][i]) == BitConverter.SingleToInt32Bits(padded[n][i]),
                    $"output {n} of {what}, element {i}: {narrow[n][i]} and {padded[n][i]}");
        Assert.All(rig.Pull(oWide.Gpu).Where((_, i) => i % wide >= width), x => Assert.True(float.IsNaN(x)));
        int count = Math.Min(5, rows), past = rows - count;
        Pair c = rig.Empty(t, count, width), cWide = rig.Empty(t, count, wide);
        rig.Gpu.CachedAttention(q.Gpu.Slice(past, count), k.Gpu, v.Gpu, past, s, c.Gpu);
        rig.Gpu.CachedAttention(q.Gpu.Slice(past, count), k.Gpu, v.Gpu, past, s, cWide.Gpu.FirstColumns(width));
        Assert.Equal(rig.Pull(c.Gpu), Narrow(cWide));
    }

    /// <summary>
    /// Rows of other sequences and rows past the last one may hold anything, NaN too: they have no weight. Two runs
    /// give equal bits.
    /// </summary>
    [Theory]
    [
        InlineData(DType.BF16, 128, Kernels.TensorCore), InlineData(DType.F16, 64, Kernels.TensorCore),
        InlineData(DType.BF16, 128, Kernels.Hopper), InlineData(DType.F16, 64, Kernels.Hopper)]
    internal void RowsOutsideASequenceHaveNoWeight(DType t, int d, Kernels kernels)
    {
        using var rig = new Rig();
        Choose(rig, kernels);
        int[] lengths = [50, 200, 129];
        int heads = 4, kv = 2, poisoned = 1, rows = lengths.Sum() + 40, at = 0;
        var s = new AttentionShape(heads, kv, d, 0);
        int[] starts = [0, .. lengths.Select(l => at += l)];
        Pair offsets = rig.Ints(starts);
        Pair Input(int columns)
        {
            var values = new float[rows * columns];
            for (int i = 0; i < values.Length; i++)
            {
                int row = i / columns;
                values[i] =
                    row >= at || (row >= starts[poisoned] && row < starts[poisoned + 1])
                        ? float.NaN
                        : rig.Random.NextNormal();
            }
            return rig.Of(t, values, rows, columns);
        }
        Pair q = Input(heads * d),
            k = Input(kv * d),
            v = Input(kv * d),
            g = Input(heads * d),
            delta = rig.Empty(DType.F32, rows, heads);
        Pair[] results =
        [
            rig.Empty(t, rows, heads * d), rig.Empty(DType.F32, rows, heads), rig.Empty(t, rows, heads * d),
            rig.Empty(t, rows, kv * d), rig.Empty(t, rows, kv * d)];
        float[][] Run()
        {
            rig.Gpu.Attention(q.Gpu, k.Gpu, v.Gpu, offsets.Gpu, s, results[0].Gpu, results[1].Gpu);
            rig.Gpu.AttentionBackward(
                q.Gpu, k.Gpu, v.Gpu, results[0].Gpu, results[1].Gpu, g.Gpu, offsets.Gpu, s, delta.Gpu, results[2].Gpu,
                results[3].Gpu, results[4].Gpu);
            return [.. results.Select(r => rig.Pull(r.Gpu))];
        }
        float[][] first = Run(), second = Run();
        for (int n = 0; n < results.Length; n++)
        {
            int columns = results[n].Gpu.Columns;
            for (int i = 0; i < at * columns; i++)
            {
                bool clean = i / columns < starts[poisoned] || i / columns >= starts[poisoned + 1];
                Assert.True(!clean || float.IsFinite(first[n][i]), $"output {n}, row {i / columns}: {first[n][i]}");
                Assert.Equal(BitConverter.SingleToInt32Bits(first[n][i]), BitConverter.SingleToInt32Bits(second[n][i]));
            }
        }
    }
}
