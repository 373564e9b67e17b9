using System.Runtime.InteropServices;
using Headroom.Core;

namespace Headroom.Cuda.Tests;

/// <summary>Products over every storage, LoRA with dropout, quantization bits.</summary>
public class LinearTests
{
    public static IEnumerable<ITheoryDataRow> Storages
    {
        get
        {
            var data = new TheoryData<WeightStorage, DType>();
            foreach (var s in Enum.GetValues<WeightStorage>().Where(s => s != WeightStorage.Gguf))
                foreach (var t in new[] { DType.F32, DType.BF16, DType.F16 }) data.Add(s, t);
            return data;
        }
    }

    [Theory, MemberData(nameof(Storages))]
    internal void Linear(WeightStorage storage, DType t)
    {
        // A small expansion buffer: the larger weights go through in pieces.
        using var rig = new Rig(new CudaOptions(ExpandBytes: 256 << 10));
        double tol = Rig.Tolerance(t);
        foreach (var (rows, ins, outs) in new[] { (33, 64, 96), (1, 352, 128), (70, 512, 1000), (5, 200, 24) })
        {
            var (cpu, gpu) = rig.Weight(storage, outs, ins, bias: rows == 33);
            Pair x = rig.Normal(t, rows, ins),
                y = rig.Empty(t, rows, outs),
                dy = rig.Normal(t, rows, outs),
                dx = rig.Empty(t, rows, ins);
            for (int pass = 0; pass < 3; pass++) // the later passes find the weights expanded ahead
            {
                rig.Cpu.Linear(x.Cpu, cpu, y.Cpu);
                rig.Gpu.Linear(x.Gpu, gpu, y.Gpu);
                rig.Close(y, tol, $"y {rows}x{ins}x{outs}");
                rig.Cpu.LinearBackwardInput(dy.Cpu, cpu, false, dx.Cpu);
                rig.Gpu.LinearBackwardInput(dy.Gpu, gpu, false, dx.Gpu);
                rig.Close(dx, tol, "dx");
                rig.Cpu.LinearBackwardInput(dy.Cpu, cpu, true, dx.Cpu);
                rig.Gpu.LinearBackwardInput(dy.Gpu, gpu, true, dx.Gpu);
                rig.Close(dx, tol, "dx +=");
            }
            Pair dw = rig.Normal(DType.F32, outs, ins),
                db = rig.Normal(DType.F32, outs),
                full = rig.Empty(DType.F32, outs, ins);
            rig.Cpu.LinearBackwardWeight(x.Cpu, dy.Cpu, dw.Cpu, db.Cpu);
            rig.Gpu.LinearBackwardWeight(x.Gpu, dy.Gpu, dw.Gpu, db.Gpu);
            rig.Close(dw, 2e-5, "dw"); rig.Close(db, 2e-5, "db");
            rig.Cpu.Dequantize(cpu, full.Cpu); rig.Gpu.Dequantize(gpu, full.Gpu); rig.EqualBits(full, "dequantized");
        }
    }

    public static IEnumerable<ITheoryDataRow> Loras
    {
        get
        {
            var data = new TheoryData<DType, int, float, bool>();
            foreach (var t in new[] { DType.F32, DType.BF16, DType.F16 })
                foreach (int r in new[] { 4, 16, 32, 64 })
                    foreach (float p in new[] { 0f, 0.1f })
                        foreach (bool fused in t == DType.F32 ? new[] { false } : [false, true])
                            data.Add(t, r, p, fused);
            return data;
        }
    }

    [Theory, MemberData(nameof(Loras))]
    internal void Lora(DType t, int r, float p, bool fused)
    {
        using var rig = new Rig(new CudaOptions(ExpandBytes: 1 << 20, ScratchBytes: 1 << 20));
        ((CudaOps)rig.Gpu).FusedKernels = fused;
        double tol = Rig.Tolerance(t);
        foreach (var (rows, ins, outs) in new[] { (37, 64, 128), (300, 576, 1536), (64, 1024, 64) })
        {
            Pair x = rig.Normal(t, rows, ins),
                a = rig.Normal(DType.F32, r, ins, 0.1f),
                b = rig.Normal(DType.F32, outs, r, 0.1f);
            Pair xa = rig.Empty(t, rows, r), y = rig.Normal(t, rows, outs);
            var d = new Dropout(p, 0x123456789AB, 7, 19);
            rig.Cpu.LoraForward(x.Cpu, a.Cpu, b.Cpu, 2, d, xa.Cpu, y.Cpu);
            rig.Gpu.LoraForward(x.Gpu, a.Gpu, b.Gpu, 2, d, xa.Gpu, y.Gpu);
            rig.Close(xa, tol, "xa"); rig.Close(y, tol, "y");
            Pair dy = rig.Normal(t, rows, outs),
                dxa = rig.Empty(t, rows, r),
                dA = rig.Normal(DType.F32, r, ins),
                dB = rig.Normal(DType.F32, outs, r),
                dx = rig.Normal(t, rows, ins);
            rig.Cpu.LoraBackward(x.Cpu, a.Cpu, b.Cpu, 2, d, xa.Cpu, dy.Cpu, dxa.Cpu, dA.Cpu, dB.Cpu, dx.Cpu);
            rig.Gpu.LoraBackward(x.Gpu, a.Gpu, b.Gpu, 2, d, xa.Gpu, dy.Gpu, dxa.Gpu, dA.Gpu, dB.Gpu, dx.Gpu);
            rig.Close(dxa, tol, "dxa"); rig.Close(dA, tol, "dA"); rig.Close(dB, tol, "dB"); rig.Close(dx, tol, "dx");
        }
    }

    /// <summary>
    /// A group whose input has room for every xa: norm or swiglu, then base weights and adapters in one product each.
    /// </summary>
    [
        Theory, InlineData(DType.BF16, 16, 3), InlineData(DType.BF16, 16, 2), InlineData(DType.F16, 32, 3),
        InlineData(DType.BF16, 64, 1), InlineData(DType.F16, 16, 1)]
    internal void GroupWithRoomForItsAdapters(DType t, int r, int count)
    {
        using var rig = new Rig(new CudaOptions(ExpandBytes: 1 << 20));
        double tol = Rig.Tolerance(t);
        foreach (var (rows, ins) in new[] { (37, 128), (300, 576), (64, 1024), (4300, 256) })
            foreach (
                var storage in new[]
                {
                WeightStorage.NF4Double, WeightStorage.NF4, WeightStorage.Int8,
                t == DType.BF16 ? WeightStorage.BF16 : WeightStorage.F16,
                }
            )
            {
                int pad = (count * r + 63) / 64 * 64;
                Pair raw = rig.Normal(t, rows, ins),
                    norm = rig.Normal(DType.F32, ins),
                    rstd = rig.Empty(DType.F32, rows),
                    x = rig.Empty(t, rows, ins),
                    wide = rig.Empty(t, rows, ins + pad);
                var first = wide.Gpu.FirstColumns(ins);
                rig.Cpu.RmsNorm(raw.Cpu, norm.Cpu, 1e-5f, x.Cpu, rstd.Cpu);
                if (count == 1)
                {
                    rig.Cpu.SwiGlu(raw.Cpu, raw.Cpu, x.Cpu);
                    rig.Gpu.SwiGlu(raw.Gpu, raw.Gpu, first);
                }
                else rig.Gpu.RmsNorm(raw.Gpu, norm.Gpu, 1e-5f, first, rstd.Gpu);
                List<AdaptedLinear> cpu = [], gpu = [];
                List<(Pair Xa, Pair Y)> outputs = [];
                for (int i = 0; i < count; i++)
                {
                    int outs = i == 0 ? 192 : 64;
                    var w = rig.Weight(storage, outs, ins);
                    Pair a = rig.Normal(DType.F32, r, ins, 0.1f),
                        b = rig.Normal(DType.F32, outs, r, 0.1f),
                        xa = rig.Empty(t, rows, r),
                        y = rig.Empty(t, rows, outs);
                    var d = new Dropout(0.1f, 77, 5, (uint)i);
                    cpu.Add(new AdaptedLinear(w.Cpu, a.Cpu, b.Cpu, 2, d, xa.Cpu, y.Cpu));
                    gpu.Add(new AdaptedLinear(w.Gpu, a.Gpu, b.Gpu, 2, d, xa.Gpu, y.Gpu));
                    outputs.Add((xa, y));
                }
                rig.Cpu.LinearGroup(x.Cpu, cpu.ToArray());
                for (int pass = 0; pass < 2; pass++) // the second finds the weights expanded ahead
                {
                    rig.Gpu.LinearGroup(first, gpu.ToArray());
                    for (int i = 0; i < count; i++)
                    {
                        rig.Close(outputs[i].Xa, tol, $"xa {i} {storage} {rows}x{ins}");
                        rig.Close(outputs[i].Y, tol, $"y {i} {storage} {rows}x{ins}");
                    }
                }
                // A recomputed layer knows every xa already.
                float[][] before = [.. outputs.Select(o => rig.Pull(o.Y.Gpu))];
                foreach (var o in outputs) rig.Gpu.Zero(o.Y.Gpu);
                rig.Gpu.LinearGroup(first, [.. gpu.Select(p => p with { A = default })]);
                for (int i = 0; i < count; i++) Assert.Equal(before[i], rig.Pull(outputs[i].Y.Gpu));
                Pair[] residuals = [.. outputs.Select(o => rig.Normal(t, rows, o.Y.Cpu.Columns))];
                rig.Cpu.LinearGroup(x.Cpu, [.. cpu.Select((p, i) => p with { Residual = residuals[i].Cpu })]);
                rig.Gpu.LinearGroup(first, [.. gpu.Select((p, i) => p with { Residual = residuals[i].Gpu })]);
                for (int i = 0; i < count; i++) rig.Close(outputs[i].Y, tol, $"y {i} with a residual {storage} "
                    + $"{rows}x{ins}");
                rig.Rewind();
            }
    }

    /// <summary>
    /// Gradients of a group whose dx has room for every dxa, and what reads such rows: the norm's and swiglu's
    /// gradients, the gradient of A.
    /// </summary>
    [
        Theory, InlineData(DType.BF16, 16, 3, true), InlineData(DType.BF16, 16, 2, true),
        InlineData(DType.F16, 32, 3, true), InlineData(DType.BF16, 64, 1, true), InlineData(DType.F16, 16, 1, true),
        InlineData(DType.BF16, 16, 2, false)]
    internal void GroupGradientsWithRoomForTheAdapters(DType t, int r, int count, bool fused)
    {
        using var rig = new Rig(new CudaOptions(ExpandBytes: 1 << 20));
        ((CudaOps)rig.Gpu).FusedKernels = fused;
        double tol = Rig.Tolerance(t);
        foreach (var (rows, ins) in new[] { (37, 128), (300, 576), (4300, 256) })
            foreach (
                var storage in new[]
                {
                WeightStorage.NF4Double, WeightStorage.NF4, WeightStorage.Int8,
                t == DType.BF16 ? WeightStorage.BF16 : WeightStorage.F16,
                }
            )
            {
                int pad = (count * r + 63) / 64 * 64;
                Pair x = rig.Normal(t, rows, ins), dx = rig.Empty(t, rows, ins), wide = rig.Empty(t, rows, ins + pad);
                var first = wide.Gpu.FirstColumns(ins);
                List<AdaptedLinear> cpu = [], gpu = [];
                List<(Pair Dxa, Pair DA, Pair DB)> outputs = [];
                for (int i = 0; i < count; i++)
                {
                    int outs = i == 0 ? 192 : 64;
                    var w = rig.Weight(storage, outs, ins);
                    Pair a = rig.Normal(DType.F32, r, ins, 0.1f),
                        b = rig.Normal(DType.F32, outs, r, 0.1f),
                        xa = rig.Normal(t, rows, r),
                        dy = rig.Normal(t, rows, outs),
                        dxa = rig.Empty(t, rows, r);
                    Pair dA = rig.Normal(DType.F32, r, ins), dB = rig.Normal(DType.F32, outs, r);
                    var d = new Dropout(0.1f, 77, 5, (uint)i);
                    cpu.Add(new AdaptedLinear(w.Cpu, a.Cpu, b.Cpu, 2, d, xa.Cpu, dy.Cpu, dxa.Cpu, dA.Cpu, dB.Cpu));
                    gpu.Add(
                        new AdaptedLinear(
                            w.Gpu, a.Gpu, b.Gpu, 2, d, xa.Gpu, dy.Gpu, dxa.Gpu, count == 1 ? default : dA.Gpu, dB.Gpu)
                    );
                    outputs.Add((dxa, dA, dB));
                }
                rig.Cpu.LinearGroupBackward(x.Cpu, cpu.ToArray(), dx.Cpu);
                rig.Gpu.LinearGroupBackward(x.Gpu, gpu.ToArray(), first);
                rig.CloseColumns(dx, wide.Gpu, tol, $"dx {storage} {rows}x{ins}");
                if (count == 1) // swiglu's gradient in place; A's gradient reads the rows that it leaves
                {
                    Pair gate = rig.Normal(t, rows, ins),
                        up = rig.Normal(t, rows, ins),
                        dGate = rig.Empty(t, rows, ins),
                        dUp = rig.Empty(t, rows, ins);
                    rig.Gpu.SwiGluBackward(gate.Gpu, up.Gpu, first, dGate.Gpu, dUp.Gpu, first);
                    rig.Cpu.SwiGluBackward(gate.Cpu, up.Cpu, dx.Cpu, dGate.Cpu, dUp.Cpu, dx.Cpu);
                    rig.Close(dGate, tol, "dGate"); rig.Close(dUp, tol, "dUp");
                    rig.CloseColumns(dx, wide.Gpu, tol, "swiglu");
                    Pair ones = rig.Normal(DType.F32, r, ins);
                    rig.Cpu.LoraBackwardA(dx.Cpu, cpu[0].Dropout, cpu[0].Dxa, ones.Cpu);
                    rig.Gpu.LoraBackwardA(first, gpu[0].Dropout, gpu[0].Dxa, ones.Gpu);
                    rig.Close(ones, tol, "dA of an x whose rows lie apart");
                }
                else
                {
                    Pair norm = rig.Normal(DType.F32, ins),
                        rstd = rig.Of(DType.F32, [.. Enumerable.Repeat(0.7f, rows)], rows),
                        sum = rig.Normal(t, rows, ins),
                        dNorm = rig.Normal(DType.F32, ins);
                    rig.Cpu.RmsNormBackward(x.Cpu, norm.Cpu, rstd.Cpu, dx.Cpu, sum.Cpu, dNorm.Cpu);
                    rig.Gpu.RmsNormBackward(x.Gpu, norm.Gpu, rstd.Gpu, first, sum.Gpu, dNorm.Gpu);
                    rig.Close(sum, tol, "gradient through the norm"); rig.Close(dNorm, tol, "gradient of the norm");
                }
                foreach (var (dxa, dA, dB) in outputs)
                {
                    string what = $"{storage} {rows}x{ins}";
                    rig.Close(dxa, tol, "dxa " + what); rig.Close(dB, tol, "dB " + what);
                    if (count > 1) rig.Close(dA, tol, "dA " + what);
                }
                rig.Rewind();
            }
    }

    /// <summary>
    /// A group whose gradients of every A and of x come from one launch: those of the CPU, and the same bits again.
    /// </summary>
    [
        Theory, InlineData(DType.BF16, 1, 0.1f, true), InlineData(DType.BF16, 2, 0.1f, true),
        InlineData(DType.BF16, 3, 0.1f, true), InlineData(DType.F16, 3, 0.1f, true),
        InlineData(DType.BF16, 3, 0f, true), InlineData(DType.BF16, 2, 0.1f, false),
        InlineData(DType.F16, 3, 0.1f, false), InlineData(DType.F16, 1, 0f, true)]
    internal void GradientsOfAAndOfXTogether(DType t, int count, float drop, bool room)
    {
        using var rig = new Rig(new CudaOptions(ExpandBytes: 1 << 20));
        double tol = Rig.Tolerance(t);
        const int r = 16;
        // ragged tiles, blocks that are not full; rows for one block and for many
        foreach (var (rows, ins) in new[] { (5, 64), (49, 2112), (300, 576), (4300, 192), (2048, 1024) })
        {
            int pad = room ? 64 : 0;
            Pair x = rig.Normal(t, rows, ins),
                wideX = rig.Empty(t, rows, ins + pad),
                dx = rig.Empty(t, rows, ins),
                wide = rig.Empty(t, rows, ins + pad);
            Pair one = rig.Of(DType.F32, [.. Enumerable.Repeat(1f, ins)], ins), rstd = rig.Empty(DType.F32, rows);
            rig.Gpu.RmsNorm(x.Gpu, one.Gpu, 1e-5f, wideX.Gpu.FirstColumns(ins), rstd.Gpu);
            var normed = rig.Empty(t, rows, ins);
            rig.Cpu.RmsNorm(x.Cpu, one.Cpu, 1e-5f, normed.Cpu, rstd.Cpu);
            List<AdaptedLinear> cpu = [], gpu = [];
            List<Pair> sums = [], dxas = [];
            for (int i = 0; i < count; i++)
            {
                int outs = i == 0 ? 192 : 64;
                var w = rig.Weight(WeightStorage.NF4Double, outs, ins);
                Pair a = rig.Normal(DType.F32, r, ins, 0.1f),
                    b = rig.Normal(DType.F32, outs, r, 0.1f),
                    xa = rig.Normal(t, rows, r),
                    dy = rig.Normal(t, rows, outs),
                    dxa = rig.Empty(t, rows, r);
                Pair dA = rig.Normal(DType.F32, r, ins), dB = rig.Normal(DType.F32, outs, r);
                var d = new Dropout(drop, 77, 5, (uint)i);
                cpu.Add(new AdaptedLinear(w.Cpu, a.Cpu, b.Cpu, 2, d, xa.Cpu, dy.Cpu, dxa.Cpu, dA.Cpu, dB.Cpu));
                gpu.Add(new AdaptedLinear(w.Gpu, a.Gpu, b.Gpu, 2, d, xa.Gpu, dy.Gpu, dxa.Gpu, dA.Gpu, dB.Gpu));
                sums.AddRange([dA, dB]);
                dxas.Add(dxa);
            }
            List<float[]> first = [];
            for (int pass = 0; pass < 2; pass++)
            {
                foreach (var p in sums) rig.Push(p);
                rig.Gpu.LinearGroupBackward(
                    wideX.Gpu.FirstColumns(ins), gpu.ToArray(), wide.Gpu.FirstColumns(ins));
                float[][] results =
                [
                    .. sums.Select(p => rig.Pull(p.Gpu)),
                    [.. rig.Pull(wide.Gpu).Where((_, i) => i % (ins + pad) < ins)],
                ];
                if (pass == 0) first.AddRange(results);
                else
                    for (int i = 0; i < results.Length; i++)
                        Assert.True(
                            MemoryMarshal
                                .AsBytes(results[i].AsSpan())
                                .SequenceEqual(MemoryMarshal.AsBytes(first[i].AsSpan())),
                            $"result {i} of {rows}x{ins} differs from run to run"
                        );
            }
            rig.Cpu.LinearGroupBackward(normed.Cpu, cpu.ToArray(), dx.Cpu);
            rig.CloseColumns(dx, wide.Gpu, tol, $"dx {rows}x{ins}");
            foreach (var p in sums) rig.Close(p, tol, $"dA or dB {rows}x{ins}");
            foreach (var p in dxas) rig.Close(p, tol, $"dxa {rows}x{ins}");
            rig.Rewind();
        }
    }

    /// <summary>
    /// An MLP's gradient from down's output to gate's and up's, in one launch behind the product where the adapters'
    /// rank is 16: that of the CPU, and the same bits again.
    /// </summary>
    [
        Theory,
        InlineData(DType.BF16, 16, 0.1f, true),
        InlineData(DType.F16, 16, 0.1f, true),
        InlineData(DType.BF16, 16, 0f, true),
        InlineData(DType.BF16, 16, 0.1f, false),
        InlineData(DType.F16, 16, 0f, false),
        InlineData(DType.BF16, 32, 0.1f, true), InlineData(DType.F32, 16, 0.1f, false)]
    internal void GradientsThroughSwiGlu(DType t, int r, float drop, bool room)
    {
        using var rig = new Rig(new CudaOptions(ExpandBytes: 1 << 20));
        double tol = Rig.Tolerance(t);
        foreach (
            var (rows, hidden, inter) in new[]
            {
                (5, 64, 64), (49, 64, 2112), (300, 192, 576), (4300, 64, 192), (2048, 256, 1024),
            }
        ) // ragged tiles, blocks that are not full; rows for one warp and for many
        {
            Pair dy = rig.Normal(t, rows, hidden),
                gateY = rig.Normal(t, rows, inter),
                upY = rig.Normal(t, rows, inter),
                act = rig.Empty(t, rows, inter),
                wide = rig.Empty(t, rows, inter + (room ? 64 : 0));
            List<Pair> sums = [];
            (AdaptedLinear Cpu, AdaptedLinear Gpu) Part(int outs, int ins, Pair y, uint site)
            {
                var w = rig.Weight(WeightStorage.NF4Double, outs, ins);
                Pair a = rig.Normal(DType.F32, r, ins, 0.1f),
                    b = rig.Normal(DType.F32, outs, r, 0.1f),
                    xa = rig.Normal(t, rows, r),
                    dxa = rig.Empty(t, rows, r),
                    dA = rig.Normal(DType.F32, r, ins),
                    dB = rig.Normal(DType.F32, outs, r);
                sums.AddRange([dA, dB]);
                var d = new Dropout(drop, 77, 5, site);
                return (
                    new(w.Cpu, a.Cpu, b.Cpu, 2, d, xa.Cpu, y.Cpu, dxa.Cpu, dA.Cpu, dB.Cpu),
                    new(w.Gpu, a.Gpu, b.Gpu, 2, d, xa.Gpu, y.Gpu, dxa.Gpu, dA.Gpu, dB.Gpu));
            }
            var down = Part(hidden, inter, dy, 1);
            var gate = Part(inter, hidden, gateY, 2);
            var up = Part(inter, hidden, upY, 3);
            List<float[]> first = [];
            bool added = false;
            for (int pass = 0; pass < 2; pass++)
            {
                foreach (var p in (Pair[])[.. sums, gateY, upY]) rig.Push(p);
                added = rig.Gpu.SwiGluGroupBackward(down.Gpu, gate.Gpu, up.Gpu, wide.Gpu.FirstColumns(inter));
                float[][] results = [.. sums.Select(p => rig.Pull(p.Gpu)), rig.Pull(gateY.Gpu), rig.Pull(upY.Gpu)];
                if (pass == 0) first.AddRange(results);
                else
                    for (int i = 0; i < results.Length; i++)
                        Assert.True(
                            MemoryMarshal
                                .AsBytes(results[i].AsSpan())
                                .SequenceEqual(MemoryMarshal.AsBytes(first[i].AsSpan())),
                            $"result {i} of {rows}x{inter} differs from run to run"
                        );
            }
            Assert.Equal(r == 16 && t != DType.F32 && rig.Device.Gpu.Capability >= 80, added);
            Assert.False(rig.Cpu.SwiGluGroupBackward(down.Cpu, gate.Cpu, up.Cpu, act.Cpu));
            if (added)
            {
                Tensor none = rig.Empty(DType.F32, rows, r).Cpu;
                foreach (var p in new[] { gate.Cpu, up.Cpu })
                    rig.Cpu.LoraBackward(
                        default, p.A, p.B, p.Scaling, default, p.Xa, p.Y, none, default, p.DB, default);
            }
            rig.Close(gateY, tol, $"dGate {rows}x{inter}"); rig.Close(upY, tol, $"dUp {rows}x{inter}");
            string[] names = ["down A", "down B", "gate A", "gate B", "up A", "up B"];
            for (int i = 0; i < sums.Count; i++) rig.Close(sums[i], tol, $"gradient of {names[i]} {rows}x{inter}");
            rig.Rewind();
        }
    }

    /// <summary>
    /// The weight is one, so the product shows the mask itself: the GPU's must be the CPU's, element for element.
    /// </summary>
    [Theory, InlineData(false), InlineData(true)]
    public void DropoutMaskIsTheCpus(bool fused)
    {
        using var rig = new Rig();
        ((CudaOps)rig.Gpu).FusedKernels = fused;
        int n = 192, r = 16;
        var ones = Enumerable.Repeat(1f, n * r).ToArray();
        Pair x = rig.Of(DType.BF16, new float[5 * n], 5, n),
            a = rig.Of(DType.F32, ones, r, n),
            b = rig.Of(DType.F32, ones, n, r),
            xa = rig.Of(DType.BF16, new float[5 * r], 5, r);
        Pair dy = rig.Of(DType.BF16, Enumerable.Repeat(1f, 5 * n).ToArray(), 5, n),
            dxa = rig.Empty(DType.BF16, 5, r),
            dA = rig.Of(DType.F32, new float[r * n], r, n),
            dB = rig.Of(DType.F32, new float[r * n], n, r),
            dx = rig.Of(DType.BF16, new float[5 * n], 5, n);
        var d = new Dropout(0.5f, 99, 3, 4);
        rig.Cpu.LoraBackward(x.Cpu, a.Cpu, b.Cpu, 1, d, xa.Cpu, dy.Cpu, dxa.Cpu, dA.Cpu, dB.Cpu, dx.Cpu);
        rig.Gpu.LoraBackward(x.Gpu, a.Gpu, b.Gpu, 1, d, xa.Gpu, dy.Gpu, dxa.Gpu, dA.Gpu, dB.Gpu, dx.Gpu);
        rig.Close(dx, 0, "mask");
    }

    /// <summary>
    /// The blocks of a large weight are more than the scratch holds: an eighth of a GiB of statistics at 352 M
    /// elements.
    /// </summary>
    [Fact]
    public void StatisticsOfALargeWeightNeedNoScratch()
    {
        using var rig = new Rig(new CudaOptions(ScratchBytes: 4 << 10));
        rig.Weight(WeightStorage.NF4Double, 576, 1536);
    }

    [Theory, InlineData(3, 64), InlineData(5, 7), InlineData(100, 1000), InlineData(576, 1536), InlineData(1, 1)]
    public void QuantizedBitsAreTheCpus(int outs, int ins)
    {
        using var rig = new Rig();
        foreach (var s in Enum.GetValues<WeightStorage>().Where(s => s != WeightStorage.Gguf)) rig.Weight(s, outs, ins);
    }
}
