using Headroom.Core;

namespace Headroom.Cuda.Tests;

/// <summary>DoRA's ops and dropout as a tensor against the CPU's.</summary>
public class DoraTests
{
    private static readonly (int Rows, int Columns)[] Shapes = [(1, 64), (37, 200), (300, 576), (9, 13), (2100, 1000)];

    [Theory, InlineData(DType.F32), InlineData(DType.BF16), InlineData(DType.F16)]
    internal void Drop(DType t)
    {
        using var rig = new Rig();
        foreach (var (rows, columns) in Shapes)
            foreach (float p in new[] { 0f, 0.3f })
                foreach (var (rest, accumulate) in new[] { (false, false), (true, false), (false, true), (true, true) })
                {
                    var d = new Dropout(p, 0x123456789AB, 7, 19);
                    Pair x = rig.Normal(t, rows, columns),
                        y = accumulate ? rig.Normal(t, rows, columns) : rig.Empty(t, rows, columns);
                    rig.Cpu.Drop(x.Cpu, d, rest, accumulate, y.Cpu); rig.Gpu.Drop(x.Gpu, d, rest, accumulate, y.Gpu);
                    rig.Close(y, Rig.Tolerance(t), $"{(rest ? "rest" : "drop")} {(accumulate ? "+=" : "=")} p {p}");
                    if (accumulate) continue;
                    rig.Cpu.Drop(x.Cpu, d, rest, false, x.Cpu); rig.Gpu.Drop(x.Gpu, d, rest, false, x.Gpu);
                    rig.Close(x, Rig.Tolerance(t), "in place");
                }
    }

    [
        Theory, InlineData(WeightStorage.F32), InlineData(WeightStorage.BF16), InlineData(WeightStorage.F16),
        InlineData(WeightStorage.Int8), InlineData(WeightStorage.NF4), InlineData(WeightStorage.NF4Double)]
    internal void Scale(WeightStorage storage)
    {
        // A small expansion buffer: the larger weights go through in pieces.
        using var rig = new Rig(new CudaOptions(ExpandBytes: 64 << 10));
        foreach (var (outs, ins, r) in new[] { (96, 64, 16), (1000, 512, 4), (13, 200, 3), (130, 1024, 64) })
        {
            var w = rig.Weight(storage, outs, ins, bias: true);
            Pair a = rig.Normal(DType.F32, r, ins, 0.1f),
                b = rig.Normal(DType.F32, outs, r, 0.1f),
                m = rig.Normal(DType.F32, outs),
                norm = rig.Empty(DType.F32, outs),
                scale = rig.Empty(DType.F32, outs);
            rig.Cpu.DoraScale(w.Cpu, a.Cpu, b.Cpu, 1.5f, m.Cpu, norm.Cpu, scale.Cpu);
            rig.Gpu.DoraScale(w.Gpu, a.Gpu, b.Gpu, 1.5f, m.Gpu, norm.Gpu, scale.Gpu);
            rig.Close(norm, 1e-6, "norm"); rig.Close(scale, 1e-6, "scale");
        }
    }

    [Theory, InlineData(DType.F32), InlineData(DType.BF16), InlineData(DType.F16)]
    internal void ForwardAndBackward(DType t)
    {
        using var rig = new Rig(new CudaOptions(ScratchBytes: 1 << 20));
        double tol = Rig.Tolerance(t);
        foreach (var (rows, n) in Shapes)
        {
            Pair u = rig.Normal(t, rows, n),
                scale = rig.Normal(DType.F32, n),
                bias = rig.Normal(DType.F32, n),
                y = rig.Empty(t, rows, n);
            rig.Cpu.DoraForward(u.Cpu, scale.Cpu, bias.Cpu, false, y.Cpu);
            rig.Gpu.DoraForward(u.Gpu, scale.Gpu, bias.Gpu, false, y.Gpu);
            rig.Close(y, tol, "y");
            rig.Cpu.DoraForward(u.Cpu, scale.Cpu, default, true, y.Cpu);
            rig.Gpu.DoraForward(u.Gpu, scale.Gpu, default, true, y.Gpu);
            rig.Close(y, tol, "y +=");
            Pair dy = rig.Normal(t, rows, n),
                norm = rig.Of(DType.F32, Enumerable.Range(0, n).Select(i => 0.5f + i % 7).ToArray(), n),
                du = rig.Empty(t, rows, n),
                dm = rig.Normal(DType.F32, n);
            rig.Cpu.DoraBackward(dy.Cpu, u.Cpu, scale.Cpu, norm.Cpu, du.Cpu, dm.Cpu);
            rig.Gpu.DoraBackward(dy.Gpu, u.Gpu, scale.Gpu, norm.Gpu, du.Gpu, dm.Gpu);
            rig.Close(du, tol, "du"); rig.Close(dm, 2e-5, "dm");
            rig.Cpu.DoraForward(u.Cpu, scale.Cpu, bias.Cpu, false, u.Cpu);
            rig.Gpu.DoraForward(u.Gpu, scale.Gpu, bias.Gpu, false, u.Gpu);
            rig.Close(u, tol, "y in place");
            rig.Cpu.DoraBackward(dy.Cpu, y.Cpu, scale.Cpu, norm.Cpu, dy.Cpu, dm.Cpu);
            rig.Gpu.DoraBackward(dy.Gpu, y.Gpu, scale.Gpu, norm.Gpu, dy.Gpu, dm.Gpu);
            rig.Close(dy, tol, "du in place"); rig.Close(dm, t == DType.F32 ? 2e-5 : tol, "dm again");
        }
    }
}
