using Headroom.Core;

namespace Headroom.Cuda.Tests;

/// <summary>Element-wise ops, norms, rope, loss, optimizer against the CPU's.</summary>
public class OpTests
{
    public static IEnumerable<ITheoryDataRow> Types => (TheoryData<DType>)[DType.F32, DType.BF16, DType.F16];

    [Theory, MemberData(nameof(Types))]
    internal void Elements(DType t)
    {
        using var rig = new Rig();
        double tol = Rig.Tolerance(t);
        foreach (int h in new[] { 64, 37, 1000 })
        {
            Pair x = rig.Normal(t, 13, h), y = rig.Normal(t, 13, h);
            rig.Cpu.Add(x.Cpu, y.Cpu); rig.Gpu.Add(x.Gpu, y.Gpu); rig.Close(y, tol, "add");
            Pair rows = rig.Ints(3, 0, 11, 7), g = rig.Empty(t, 4, h), z = rig.Empty(t, 13, h);
            rig.Cpu.GatherRows(x.Cpu, rows.Cpu, g.Cpu);
            rig.Gpu.GatherRows(x.Gpu, rows.Gpu, g.Gpu);
            rig.Close(g, 1e-9, "gather");
            rig.Cpu.ScatterRows(g.Cpu, rows.Cpu, z.Cpu);
            rig.Gpu.ScatterRows(g.Gpu, rows.Gpu, z.Gpu);
            rig.Close(z, 1e-9, "scatter");
            Pair gate = rig.Normal(t, 13, h),
                up = rig.Normal(t, 13, h),
                act = rig.Empty(t, 13, h),
                dy = rig.Normal(t, 13, h);
            rig.Cpu.SwiGlu(gate.Cpu, up.Cpu, act.Cpu);
            rig.Gpu.SwiGlu(gate.Gpu, up.Gpu, act.Gpu);
            rig.Close(act, tol, "swiglu");
            rig.Cpu.SwiGluBackward(gate.Cpu, up.Cpu, dy.Cpu, gate.Cpu, up.Cpu);
            rig.Gpu.SwiGluBackward(gate.Gpu, up.Gpu, dy.Gpu, gate.Gpu, up.Gpu);
            rig.Close(gate, tol, "dgate"); rig.Close(up, tol, "dup");
            Assert.True(rig.Gpu.AllFinite(x.Gpu));
            rig.Gpu.Zero(x.Gpu);
            Assert.All(rig.Pull(x.Gpu), v => Assert.Equal(0, v));
        }
        Pair bad = rig.Of(DType.F32, [1, 2, float.NaN, 4], 4), inf = rig.Of(DType.F32, [1, float.PositiveInfinity], 2);
        Assert.False(rig.Gpu.AllFinite(bad.Gpu));
        Assert.False(rig.Gpu.AllFinite(inf.Gpu));
    }

    [Theory, MemberData(nameof(Types))]
    internal void Norms(DType t)
    {
        using var rig = new Rig();
        double tol = Rig.Tolerance(t);
        foreach (int h in new[] { 64, 37, 4096 })
        {
            int rows = 9;
            Pair x = rig.Normal(t, rows, h),
                b = rig.Normal(t, rows, h),
                w = rig.Normal(DType.F32, h),
                y = rig.Empty(t, rows, h),
                r = rig.Empty(DType.F32, rows),
                sum = rig.Empty(t, rows, h);
            rig.Cpu.RmsNorm(x.Cpu, w.Cpu, 1e-5f, y.Cpu, r.Cpu); rig.Gpu.RmsNorm(x.Gpu, w.Gpu, 1e-5f, y.Gpu, r.Gpu);
            rig.Close(y, tol, "norm"); rig.Close(r, 1e-5, "rstd");
            float[] apart = rig.Pull(y.Gpu);
            Pair own = rig.Empty(t, rows, h);
            rig.Gpu.Copy(x.Gpu, own.Gpu);
            rig.Gpu.RmsNorm(own.Gpu, w.Gpu, 1e-5f, own.Gpu, r.Gpu);
            Assert.Equal(apart, rig.Pull(own.Gpu));
            Pair dy = rig.Normal(t, rows, h), dx = rig.Normal(t, rows, h), dw = rig.Normal(DType.F32, h);
            rig.Cpu.RmsNormBackward(x.Cpu, w.Cpu, r.Cpu, dy.Cpu, dx.Cpu, dw.Cpu);
            rig.Gpu.RmsNormBackward(x.Gpu, w.Gpu, r.Gpu, dy.Gpu, dx.Gpu, dw.Gpu);
            rig.Close(dx, tol, "dx"); rig.Close(dw, 2e-5, "dw");
            rig.Cpu.AddRmsNorm(x.Cpu, b.Cpu, w.Cpu, 1e-5f, sum.Cpu, y.Cpu, r.Cpu);
            rig.Gpu.AddRmsNorm(x.Gpu, b.Gpu, w.Gpu, 1e-5f, sum.Gpu, y.Gpu, r.Gpu);
            rig.Close(sum, tol, "sum"); rig.Close(y, tol, "norm of sum");
        }
    }

    [Theory, MemberData(nameof(Types))]
    internal void Rope(DType t)
    {
        using var rig = new Rig();
        foreach (int d in new[] { 128, 64, 24 })
        {
            var inv = new float[d / 2];
            for (int i = 0; i < inv.Length; i++) inv[i] = MathF.Pow(10000, -2f * i / d);
            Pair f = rig.Of(DType.F32, inv, d / 2),
                p = rig.Ints(0, 1, 2, 4095, 131071),
                c = rig.Empty(DType.F32, 5, d / 2),
                s = rig.Empty(DType.F32, 5, d / 2),
                x = rig.Normal(t, 5, 3 * d);
            rig.Cpu.RopeTable(p.Cpu, f.Cpu, 1.1f, c.Cpu, s.Cpu); rig.Gpu.RopeTable(p.Gpu, f.Gpu, 1.1f, c.Gpu, s.Gpu);
            rig.Close(c, 1e-6, "cos"); rig.Close(s, 1e-6, "sin");
            foreach (bool inverse in new[] { false, true })
            {
                rig.Cpu.Rope(x.Cpu, c.Cpu, s.Cpu, d, inverse); rig.Gpu.Rope(x.Gpu, c.Gpu, s.Gpu, d, inverse);
                rig.Close(x, Rig.Tolerance(t), "rope");
            }
        }
    }

    [Theory, MemberData(nameof(Types))]
    internal void EmbeddingBothWays(DType t)
    {
        using var rig = new Rig();
        var ids = rig.Ints(5, 0, 5, 31, 5, 2);
        foreach (var storage in new[] { WeightStorage.F32, WeightStorage.BF16, WeightStorage.F16, WeightStorage.Int8 })
        {
            var (cpu, gpu) = rig.Weight(storage, 32, 72);
            var y = rig.Empty(t, 6, 72);
            rig.Cpu.Embedding(ids.Cpu, cpu, y.Cpu); rig.Gpu.Embedding(ids.Gpu, gpu, y.Gpu);
            rig.Close(y, Rig.Tolerance(t), storage.ToString());
        }
        foreach (int h in new[] { 72, 301 })
        {
            Pair noisy = rig.Normal(t, 6, h), offsets = rig.Ints(0, 4, 4, 6);
            var noise = new EmbeddingNoise(9, 0x123456789AB, 7);
            rig.Cpu.AddNoise(offsets.Cpu, noise, noisy.Cpu); rig.Gpu.AddNoise(offsets.Gpu, noise, noisy.Gpu);
            rig.Close(noisy, Rig.Tolerance(t), "noise");
        }
        Pair dy = rig.Normal(t, 6, 72), table = rig.Normal(DType.F32, 32, 72);
        rig.Cpu.EmbeddingBackward(ids.Cpu, dy.Cpu, table.Cpu); rig.Gpu.EmbeddingBackward(ids.Gpu, dy.Gpu, table.Gpu);
        rig.EqualBits(table, "embedding gradient");
    }

    [Theory, MemberData(nameof(Types))]
    internal void Losses(DType t)
    {
        using var rig = new Rig();
        int rows = 11, h = 64, v = 1003;
        var (cpu, gpu) = rig.Weight(WeightStorage.F32, v, h);
        Pair x = rig.Normal(t, rows, h, 3),
            labels = rig.Ints(0, 1, -1, 3, 1002, 5, 6, 500, 8, -1, -1); // negative: not counted
        Pair z = rig.Empty(DType.F32, 4, v),
            losses = rig.Empty(DType.F32, rows),
            dx = rig.Empty(t, rows, h),
            dw = rig.Normal(DType.F32, v, h);
        rig.Cpu.LinearCrossEntropy(x.Cpu, cpu, labels.Cpu, 0.25f, z.Cpu, losses.Cpu, dx.Cpu, dw.Cpu);
        rig.Gpu.LinearCrossEntropy(x.Gpu, gpu, labels.Gpu, 0.25f, z.Gpu, losses.Gpu, dx.Gpu, dw.Gpu);
        double tol = Rig.Tolerance(t);
        rig.Close(losses, tol, "losses"); rig.Close(dx, tol, "dHidden"); rig.Close(dw, tol, "dHead");
        Pair weights = rig.Of(DType.F32, [.. Enumerable.Range(0, rows).Select(i => 0.5f * i - 1)], rows);
        foreach (var (weighted, smoothing) in new[] { (true, 0f), (false, 0.1f), (true, 0.1f) })
        {
            Pair own = rig.Empty(t, rows, h), ownHead = rig.Normal(DType.F32, v, h);
            rig.Cpu.LinearCrossEntropy(x.Cpu, cpu, labels.Cpu, 0.25f, z.Cpu, losses.Cpu, own.Cpu, ownHead.Cpu,
                weighted ? weights.Cpu : default, smoothing);
            rig.Gpu.LinearCrossEntropy(x.Gpu, gpu, labels.Gpu, 0.25f, z.Gpu, losses.Gpu, own.Gpu, ownHead.Gpu,
                weighted ? weights.Gpu : default, smoothing);
            rig.Close(losses, tol, "losses"); rig.Close(own, tol, "dHidden"); rig.Close(ownHead, tol, "dHead");
        }
        Pair c = rig.Ints(7, 1000, 3), s = rig.Empty(DType.F32, rows, 3), lse = rig.Empty(DType.F32, rows);
        rig.Cpu.CandidateScores(x.Cpu, cpu, c.Cpu, z.Cpu, s.Cpu, lse.Cpu);
        rig.Gpu.CandidateScores(x.Gpu, gpu, c.Gpu, z.Gpu, s.Gpu, lse.Gpu);
        rig.Close(s, tol, "scores"); rig.Close(lse, tol, "lse");
        float[] apart = rig.Pull(dx.Gpu);
        // the gradient in the place of hidden
        rig.Gpu.LinearCrossEntropy(x.Gpu, gpu, labels.Gpu, 0.25f, z.Gpu, losses.Gpu, x.Gpu, dw.Gpu);
        Assert.Equal(apart, rig.Pull(x.Gpu));
    }

    [Fact]
    public void NormAndAdamW()
    {
        using var rig = new Rig();
        var slots = Enumerable
            .Range(0, 5)
            .Select(i =>
                (
                    W: rig.Normal(DType.F32, 100 * i + 3, 7), G: rig.Normal(DType.F32, 100 * i + 3, 7),
                    M: rig.Normal(DType.F32, 100 * i + 3, 7), V: rig.Normal(DType.F32, 100 * i + 3, 7), D: i * 0.01f,
                    Ratio: i == 2 ? 16.0 : 1)
            )
            .ToArray();
        unsafe
        {
            foreach (var s in slots)
            {
                for (int i = 0; i < s.V.Cpu.Count; i++) s.V.Cpu.F[i] = MathF.Abs(s.V.Cpu.F[i]);
                rig.Push(s.V);
            }
        }
        double a = rig.Cpu.GlobalNorm(slots.Select(s => s.G.Cpu).ToArray()),
            b = rig.Gpu.GlobalNorm(slots.Select(s => s.G.Gpu).ToArray());
        Assert.Equal(a, b, a * 1e-12);
        var step = new AdamWStep(1e-3, 0.9, 0.999, 1e-8, 3, 0.7f);
        rig.Cpu.AdamW(
            slots.Select(s => new ParameterSlot(s.W.Cpu, s.G.Cpu, s.M.Cpu, s.V.Cpu, s.D, s.Ratio)).ToArray(), step);
        rig.Gpu.AdamW(
            slots.Select(s => new ParameterSlot(s.W.Gpu, s.G.Gpu, s.M.Gpu, s.V.Gpu, s.D, s.Ratio)).ToArray(), step);
        foreach (var s in slots)
        {
            rig.EqualBits(s.W, "weight"); rig.EqualBits(s.M, "m"); rig.EqualBits(s.V, "v");
        }
        rig.Gpu.ZeroAll(slots.Select(s => s.G.Gpu).ToArray());
        Assert.Equal(0, rig.Gpu.GlobalNorm(slots.Select(s => s.G.Gpu).ToArray()));
    }
}
