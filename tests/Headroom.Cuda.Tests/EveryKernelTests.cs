using Headroom.Core;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tests;
using Headroom.Tests.Formats;
using Headroom.Training.Data;

namespace Headroom.Cuda.Tests;

/// <summary>
/// Every kernel of the sources runs at least once, in every activation type it has, on small ragged shapes: what
/// eng/gpu/sanitize.sh puts under compute-sanitizer. Results need only be finite; the other tests know their values.
/// </summary>
public sealed partial class EveryKernelTests : IClassFixture<EveryKernelTests.Held>
{
    /// <summary>
    /// Keeps the device's context alive from one rig to the next: to make one under a sanitizer takes long.
    /// </summary>
    public sealed class Held : IDisposable
    {
        private readonly CudaDevice? _device = CudaDevice.TryOpen(
            out _, new CudaOptions(ExpandBytes: 1 << 20, ScratchBytes: 1 << 20, MatmulBytes: 1 << 20));

        public void Dispose() => _device?.Dispose();
    }

    private static readonly string[] Elements = ["elements.cu", "norm.cu", "loss.cu", "optimizer.cu"],
        Stored = ["weights.cu", "gguf.cu", "quantize.cu"],
        Adapted = ["lora.cu", "lora_outer.cu", "lora_backward.cu", "lora_swiglu.cu"],
        Attended = ["attention_rows.cu", "flash.cu", "flash_hopper.cu", "flash_hopper_backward.cu"],
        Dora = ["dora.cu"];

    public static IEnumerable<ITheoryDataRow> Types => (TheoryData<DType>)[DType.F32, DType.BF16, DType.F16];

    private static Rig Open(long scratch = 4 << 20)
    {
        // A small expansion buffer: the larger weights go through in pieces.
        var rig = new Rig(
            new CudaOptions(ExpandBytes: 32 << 10, ScratchBytes: scratch, MatmulBytes: 4 << 20), alone: true);
        rig.Device.Gpu.Seen = [];
        return rig;
    }

    private static void Finite(Rig rig, params Pair[] results)
    {
        for (int i = 0; i < results.Length; i++)
            Assert.True(
                rig.Gpu.AllFinite(results[i].Gpu),
                $"result {i} ({results[i].Gpu.DType} {results[i].Gpu.Shape}) is not finite");
    }

    private static void Covered(Rig rig, DType t, string[] files, Func<SourceKernel, bool>? of = null)
    {
        var gpu = rig.Device.Gpu;
        var kernels = files.SelectMany(KernelSources.Kernels).Where(of ?? (_ => true));
        List<string> missing = Missing(t, kernels, gpu.Capability, gpu.Hopper, gpu.Launched.ToHashSet(), unable =>
            TestContext.Current.TestOutputHelper?.WriteLine($"not run in {t}: {unable}")
        );
        Assert.True(missing.Count == 0, $"never launched in {t}: {string.Join("; ", missing)}");
    }

    // Those of these kernels that a device can run in this type and did not, compiled for the type (or for float32 when
    // their text knows no type).
    private static List<string> Missing(
        DType t, IEnumerable<SourceKernel> kernels, int capability, bool hopper,
        HashSet<(string File, DType Act, int Size, string Name)> launched, Action<string>? unable = null)
    {
        List<string> missing = [];
        foreach (var k in kernels)
        {
            if (k.Unable(t, capability, hopper) is { } why) unable?.Invoke($"{k}: {why}");
            else if (
                !launched.Contains((k.File, t, k.Size, k.Name))
                && (k.Typed || !launched.Contains((k.File, DType.F32, k.Size, k.Name)))
            )
                missing.Add(k.ToString());
        }
        return missing;
    }

    [Theory, MemberData(nameof(Types))]
    internal void DoraAndDropout(DType t)
    {
        using var rig = Open();
        var g = rig.Gpu;
        foreach (var (rows, n) in new[] { (37, 200), (9, 13), (70, 320) })
        {
            var drop = new Dropout(0.3f, 0x123456789AB, 7, 19);
            Pair x = rig.Normal(t, rows, n),
                y = rig.Empty(t, rows, n),
                u = rig.Normal(t, rows, n),
                scale = rig.Normal(DType.F32, n),
                bias = rig.Normal(DType.F32, n),
                scaled = rig.Empty(t, rows, n);
            g.Drop(x.Gpu, drop, false, false, y.Gpu); g.Drop(x.Gpu, drop, true, true, y.Gpu);
            g.DoraForward(u.Gpu, scale.Gpu, bias.Gpu, false, scaled.Gpu);
            g.DoraForward(u.Gpu, scale.Gpu, default, true, scaled.Gpu);
            Pair dy = rig.Normal(t, rows, n),
                norm = rig.Of(DType.F32, [.. Enumerable.Range(0, n).Select(i => 0.5f + i % 7)], n),
                du = rig.Empty(t, rows, n),
                dm = rig.Normal(DType.F32, n);
            g.DoraBackward(dy.Gpu, u.Gpu, scale.Gpu, norm.Gpu, du.Gpu, dm.Gpu);
            Finite(rig, y, scaled, du, dm);
        }
        foreach (
            var (storage, width) in new[]
            {
                (WeightStorage.F32, 201), (WeightStorage.F32, 200), (WeightStorage.NF4Double, 200),
                (WeightStorage.Int8, 200),
            }
        )
        {
            Pair a = rig.Normal(DType.F32, 3, width, 0.1f),
                b = rig.Normal(DType.F32, 130, 3, 0.1f),
                m = rig.Normal(DType.F32, 130),
                norm = rig.Empty(DType.F32, 130),
                scale = rig.Empty(DType.F32, 130);
            g.DoraScale(rig.Weight(storage, 130, width).Gpu, a.Gpu, b.Gpu, 1.5f, m.Gpu, norm.Gpu, scale.Gpu);
            Finite(rig, norm, scale);
        }
        Covered(rig, t, Dora);
    }

    [Theory, MemberData(nameof(Types))]
    internal void ElementsNormsLossOptimizer(DType t)
    {
        using var rig = Open();
        var g = rig.Gpu;
        const int rows = 13;
        foreach (int h in new[] { 64, 37 })
        {
            Pair x = rig.Normal(t, rows, h),
                y = rig.Normal(t, rows, h),
                sum = rig.Empty(t, rows, h),
                copy = rig.Empty(t, rows, h);
            g.Add(x.Gpu, y.Gpu); g.Copy(x.Gpu, copy.Gpu);
            Pair at = rig.Ints(3, 0, 11, 7), some = rig.Empty(t, 4, h), spread = rig.Empty(t, rows, h);
            g.GatherRows(x.Gpu, at.Gpu, some.Gpu); g.ScatterRows(some.Gpu, at.Gpu, spread.Gpu);
            Pair gate = rig.Normal(t, rows, h),
                up = rig.Normal(t, rows, h),
                act = rig.Empty(t, rows, h),
                dy = rig.Normal(t, rows, h);
            g.SwiGlu(gate.Gpu, up.Gpu, act.Gpu); g.SwiGluBackward(gate.Gpu, up.Gpu, dy.Gpu, gate.Gpu, up.Gpu, dy.Gpu);
            Pair w = rig.Normal(DType.F32, h),
                normed = rig.Empty(t, rows, h),
                rstd = rig.Empty(DType.F32, rows),
                dx = rig.Normal(t, rows, h),
                dw = rig.Normal(DType.F32, h);
            g.RmsNorm(x.Gpu, w.Gpu, 1e-5f, normed.Gpu, rstd.Gpu);
            g.RmsNormBackward(x.Gpu, w.Gpu, rstd.Gpu, dy.Gpu, dx.Gpu, dw.Gpu);
            Finite(rig, y, copy, some, spread, act, gate, up, dy, normed, rstd, dx, dw);
            g.AddRmsNorm(x.Gpu, y.Gpu, w.Gpu, 1e-5f, sum.Gpu, normed.Gpu, rstd.Gpu);
            Finite(rig, sum, normed, rstd);
        }
        foreach (int d in new[] { 64, 24 })
        {
            Pair inv = rig.Of(
                    DType.F32,
                    [.. Enumerable.Range(0, d / 2).Select(i => MathF.Pow(10000, -2f * i / d))],
                    d / 2
                ),
                places = rig.Ints(0, 1, 2, 4095, 131071);
            Pair cos = rig.Empty(DType.F32, 5, d / 2),
                sin = rig.Empty(DType.F32, 5, d / 2),
                x = rig.Normal(t, 5, 3 * d);
            g.RopeTable(places.Gpu, inv.Gpu, 1.1f, cos.Gpu, sin.Gpu);
            g.Rope(x.Gpu, cos.Gpu, sin.Gpu, d, false);
            g.Rope(x.Gpu, cos.Gpu, sin.Gpu, d, true);
            Finite(rig, cos, sin, x);
        }
        var ids = rig.Ints(5, 0, 5, 31, 5, 2);
        Pair dEmbedded = rig.Normal(t, 6, 72), table = rig.Normal(DType.F32, 32, 72);
        g.EmbeddingBackward(ids.Gpu, dEmbedded.Gpu, table.Gpu);
        g.AddNoise(rig.Ints(0, 4, 4, 6).Gpu, new EmbeddingNoise(5, 7, 3), dEmbedded.Gpu);
        foreach (var storage in new[] { WeightStorage.F32, WeightStorage.BF16, WeightStorage.F16, WeightStorage.Int8 })
        {
            var y = rig.Empty(t, 6, 72);
            g.Embedding(ids.Gpu, rig.Weight(storage, 32, 72).Gpu, y.Gpu);
            Finite(rig, y);
        }
        // A bias; a vocabulary that is no multiple of anything; logits in chunks, the last one short.
        var biased = rig.Weight(WeightStorage.F32, 24, 64, bias: true).Gpu;
        Pair hidden = rig.Normal(t, 11, 64),
            outputs = rig.Empty(t, 11, 24),
            dW = rig.Normal(DType.F32, 24, 64),
            dBias = rig.Normal(DType.F32, 24);
        g.Linear(hidden.Gpu, biased, outputs.Gpu); g.LinearBackwardWeight(hidden.Gpu, outputs.Gpu, dW.Gpu, dBias.Gpu);
        var head = rig.Weight(WeightStorage.F32, 301, 64).Gpu;
        Pair labels = rig.Ints(0, 1, -1, 3, 300, 5, 6, 200, 8, -1, -1),
            logits = rig.Empty(DType.F32, 4, 301),
            losses = rig.Empty(DType.F32, 11);
        Pair dHidden = rig.Empty(t, 11, 64), dHead = rig.Normal(DType.F32, 301, 64);
        g.LinearCrossEntropy(hidden.Gpu, head, labels.Gpu, 0.25f, logits.Gpu, losses.Gpu, dHidden.Gpu, dHead.Gpu);
        Pair factors = rig.Normal(DType.F32, 11);
        g.LinearCrossEntropy(
            hidden.Gpu, head, labels.Gpu, 0.25f, logits.Gpu, losses.Gpu, dHidden.Gpu, dHead.Gpu, factors.Gpu, 0.1f);
        Pair words = rig.Ints(7, 300, 3), scores = rig.Empty(DType.F32, 11, 3), lse = rig.Empty(DType.F32, 11);
        g.CandidateScores(hidden.Gpu, head, words.Gpu, logits.Gpu, scores.Gpu, lse.Gpu);
        Finite(rig, dEmbedded, table, outputs, dW, dBias, losses, dHidden, dHead, scores, lse);
        // The general adapters' dropout, over rows with room for a tail.
        ((CudaOps)g).FusedKernels = false;
        Adapter(rig, t, 8, 19, 72, 24, pad: 64);
        var slots = Enumerable
            .Range(0, 3)
            .Select(i =>
                (
                    W: rig.Normal(DType.F32, 50 * i + 3, 7), G: rig.Normal(DType.F32, 50 * i + 3, 7),
                    M: rig.Normal(DType.F32, 50 * i + 3, 7),
                    V: rig.Of(DType.F32, new float[(50 * i + 3) * 7], 50 * i + 3, 7))
            )
            .ToArray();
        var grads = slots.Select(s => s.G.Gpu).ToArray();
        Assert.True(double.IsFinite(g.GlobalNorm(grads)));
        g.AdamW(
            slots.Select(s => new ParameterSlot(s.W.Gpu, s.G.Gpu, s.M.Gpu, s.V.Gpu, 0.01f)).ToArray(),
            new AdamWStep(1e-3, 0.9, 0.999, 1e-8, 3, 0.7f));
        g.ZeroAll(grads);
        foreach (var s in slots) Finite(rig, s.W, s.G, s.M, s.V);
        Covered(rig, t, Elements);
    }

    [Theory, MemberData(nameof(Types))]
    internal void Storages(DType t)
    {
        using var rig = Open();
        var g = rig.Gpu;
        void Products(LinearWeight w, int rows)
        {
            Pair x = rig.Normal(t, rows, w.In),
                y = rig.Empty(t, rows, w.Out),
                dy = rig.Normal(t, rows, w.Out),
                dx = rig.Empty(t, rows, w.In),
                full = rig.Empty(DType.F32, w.Out, w.In);
            for (int pass = 0; pass < 2; pass++) // the second finds the weights expanded ahead
            {
                g.Linear(x.Gpu, w, y.Gpu);
                g.LinearBackwardInput(dy.Gpu, w, false, dx.Gpu);
                g.LinearBackwardInput(dy.Gpu, w, true, dx.Gpu);
            }
            g.Dequantize(w, full.Gpu);
            Finite(rig, y, dx, full);
        }
        foreach (var storage in Enum.GetValues<WeightStorage>().Where(s => s != WeightStorage.Gguf))
        {
            foreach (var (rows, ins, outs) in new[] { (33, 64, 96), (5, 200, 24), (9, 352, 136) })
            {
                var w = rig.Weight(storage, outs, ins).Gpu;
                Products(w, rows);
                g.Quantize(rig.Normal(t, outs, ins).Gpu, w); // from the activation type too
            }
            var odd = rig.Weight(storage, 5, 7).Gpu; // no whole octet
            var values = rig.Empty(t, 5, 7);
            ((CudaOps)g).Expand(odd, values.Gpu);
            Finite(rig, values);
        }
        foreach (var type in GgmlSamples.Quantized)
        {
            int ins = type.Block().Values == 32 ? 96 : 256;
            var w = rig.Blocks(type, 72, ins).Gpu;
            Products(w, 5);
            Pair ids = rig.Ints(0, 71, 3, 3), y = rig.Empty(t, 4, ins);
            g.Embedding(ids.Gpu, w, y.Gpu);
            Finite(rig, y);
        }
        Covered(rig, t, Stored);
    }

    // One adapter alone, with and without the gradient of A in the call; x and dx with "pad" columns of room behind
    // their rows.
    private static void Adapter(Rig rig, DType t, int r, int rows, int ins, int outs, int pad = 0)
    {
        var g = rig.Gpu;
        var drop = new Dropout(0.1f, 0x123456789AB, 7, 19);
        Pair x = rig.Normal(t, rows, ins + pad),
            a = rig.Normal(DType.F32, r, ins, 0.1f),
            b = rig.Normal(DType.F32, outs, r, 0.1f),
            xa = rig.Empty(t, rows, r),
            y = rig.Normal(t, rows, outs);
        Pair dy = rig.Normal(t, rows, outs),
            dxa = rig.Empty(t, rows, r),
            dA = rig.Normal(DType.F32, r, ins),
            dB = rig.Normal(DType.F32, outs, r),
            dx = rig.Normal(t, rows, ins + pad);
        Tensor first = x.Gpu.FirstColumns(ins), dFirst = dx.Gpu.FirstColumns(ins);
        g.LoraForward(first, a.Gpu, b.Gpu, 2, drop, xa.Gpu, y.Gpu);
        g.LoraForward(first, default, b.Gpu, 2, drop, xa.Gpu, y.Gpu);
        foreach (var d in new[] { drop, drop with { P = 0 } })
            g.LoraBackward(first, a.Gpu, b.Gpu, 2, d, xa.Gpu, dy.Gpu, dxa.Gpu, dA.Gpu, dB.Gpu, dFirst);
        g.LoraBackward(default, a.Gpu, b.Gpu, 2, drop, xa.Gpu, dy.Gpu, dxa.Gpu, default, dB.Gpu, default);
        g.LoraBackwardA(first, drop, dxa.Gpu, dA.Gpu);
        Finite(rig, xa, y, dxa, dA, dB, dx);
    }

    // Projections of one x, with room for their adapters or without; with the gradients of A, which then come with that
    // of x, or without.
    private static void Group(
        Rig rig, DType t, int r, int rows, int ins, int count, WeightStorage storage, bool room, bool gradA = true)
    {
        int pad = room ? (count * r + 63) / 64 * 64 : 0;
        Pair x = rig.Normal(t, rows, ins + pad), dx = rig.Empty(t, rows, ins + pad);
        List<AdaptedLinear> forward = [], backward = [];
        // The room is left alone where no dxa comes with the product.
        List<Pair> results =
            !room
            || ((CudaOps)rig.Gpu).FusedKernels && r >= 16 && storage is (WeightStorage.NF4 or WeightStorage.NF4Double)
                ? [dx]
                : [];
        for (int i = 0; i < count; i++)
        {
            int outs = i == 0 ? 192 : 64;
            var w = rig.Weight(storage, outs, ins).Gpu;
            Pair a = rig.Normal(DType.F32, r, ins, 0.1f),
                b = rig.Normal(DType.F32, outs, r, 0.1f),
                xa = rig.Empty(t, rows, r),
                y = rig.Empty(t, rows, outs);
            Pair dy = rig.Normal(t, rows, outs),
                dxa = rig.Empty(t, rows, r),
                dA = rig.Normal(DType.F32, r, ins),
                dB = rig.Normal(DType.F32, outs, r);
            var d = new Dropout(0.1f, 77, 5, (uint)i);
            forward.Add(new AdaptedLinear(w, a.Gpu, b.Gpu, 2, d, xa.Gpu, y.Gpu));
            backward.Add(
                new AdaptedLinear(w, a.Gpu, b.Gpu, 2, d, xa.Gpu, dy.Gpu, dxa.Gpu, gradA ? dA.Gpu : default, dB.Gpu));
            results.AddRange([xa, y, dxa, dA, dB]);
        }
        var first = x.Gpu.FirstColumns(ins);
        rig.Gpu.LinearGroup(first, forward.ToArray());
        rig.Gpu.LinearGroup(first, [.. forward.Select(p => p with { A = default })]);
        rig.Gpu.LinearGroupBackward(first, backward.ToArray(), dx.Gpu.FirstColumns(ins));
        Finite(rig, [.. results]);
    }

    // An MLP's gradient from down's output to gate's and up's, with dropout and without.
    private static void Mlp(Rig rig, DType t, int r, int rows, int hidden, int inter, WeightStorage storage, bool room)
    {
        Pair dAct = rig.Empty(t, rows, inter + (room ? 64 : 0));
        var down = rig.Weight(storage, hidden, inter).Gpu;
        var wide = rig.Weight(storage, inter, hidden).Gpu;
        foreach (float p in new[] { 0.1f, 0 })
        {
            List<Pair> results = [];
            AdaptedLinear Part(in LinearWeight w, Pair y)
            {
                Pair a = rig.Normal(DType.F32, r, w.In, 0.1f),
                    b = rig.Normal(DType.F32, w.Out, r, 0.1f),
                    xa = rig.Normal(t, rows, r),
                    dxa = rig.Empty(t, rows, r),
                    dA = rig.Normal(DType.F32, r, w.In),
                    dB = rig.Normal(DType.F32, w.Out, r);
                results.AddRange([y, dA, dB]);
                return new AdaptedLinear(
                    w, a.Gpu, b.Gpu, 2, new Dropout(p, 77, 5, 1), xa.Gpu, y.Gpu, dxa.Gpu, dA.Gpu, dB.Gpu);
            }
            rig.Gpu.SwiGluGroupBackward(
                Part(down, rig.Normal(t, rows, hidden)), Part(wide, rig.Normal(t, rows, inter)),
                Part(wide, rig.Normal(t, rows, inter)), dAct.Gpu.FirstColumns(inter));
            Finite(rig, [.. results]);
        }
    }

    // Each of these has a theory of its own: a sanitizer is slow, and says more of less. Blocks of more rows are taken
    // for batches that fill the card.
    private static bool OfAnMlp(SourceKernel k) => k.File == "lora_swiglu.cu";

    private static bool OfAFullCard(SourceKernel k) =>
        k.Name.StartsWith("lora_down", StringComparison.Ordinal)
        && !k.Name.StartsWith("lora_down16", StringComparison.Ordinal);

    [Theory, MemberData(nameof(Types))]
    internal void Adapters(DType t)
    {
        using var rig = Open();
        var ops = (CudaOps)rig.Gpu;
        // The general kernels are the same for every rank; the fused ones are made for three.
        foreach (int r in t == DType.F32 ? new[] { 8 } : [8, 16, 32, 64])
        {
            ops.FusedKernels = r > 8;
            Adapter(rig, t, r, 37, 64, 128);
            Adapter(rig, t, r, 300, 320, 64); // rows shared out over blocks, a slab of columns that is not full
            foreach (int count in new[] { 1, 2, 3 })
                foreach (bool room in t == DType.F32 ? new[] { false } : [false, true])
                    foreach (bool gradA in new[] { true, false })
                        Group(rig, t, r, 37, 128, count, WeightStorage.NF4Double, room, gradA);
            // a weight that carries no adapter
            Group(rig, t, r, 70, 64, 2, WeightStorage.Int8, room: t != DType.F32);
        }
        Covered(rig, t, Adapted, k => !OfAFullCard(k) && !OfAnMlp(k));
    }

    [Theory, MemberData(nameof(Types))]
    internal void AdaptersOfAnMlp(DType t)
    {
        using var rig = Open();
        foreach (int r in t == DType.F32 ? new[] { 8 } : [16, 32])
        {
            Mlp(rig, t, r, 37, 64, 192, WeightStorage.NF4Double, room: t != DType.F32);
            // several warps to 32 columns, blocks that are not full
            Mlp(rig, t, r, 150, 64, 64, WeightStorage.Int8, room: false);
        }
        Covered(rig, t, Adapted, OfAnMlp);
    }

    [Theory, InlineData(DType.BF16), InlineData(DType.F16)]
    internal void AdaptersOfAFullCard(DType t)
    {
        using var rig = Open();
        var ops = (CudaOps)rig.Gpu;
        foreach (int tile in new[] { 32, 64 })
        {
            int rows = tile * (rig.Device.Gpu.Processors * 7 / 8 + 1) + 5;
            foreach (int r in new[] { 16, 32, 64 })
            {
                Pair x = rig.Normal(t, rows, 64), a = rig.Normal(DType.F32, r, 64, 0.1f), xa = rig.Empty(t, rows, r);
                ops.LoraInput(x.Gpu, a.Gpu, new Dropout(0.1f, 5, 6, 7), xa.Gpu);
                Finite(rig, xa);
            }
            foreach (int count in new[] { 2, 3 }) Group(rig, t, 16, rows, 64, count, WeightStorage.NF4, room: true);
        }
        Covered(rig, t, Adapted, OfAFullCard);
    }

    [Theory, MemberData(nameof(Types))]
    internal void Attention(DType t)
    {
        using var rig = Open();
        var ops = (CudaOps)rig.Gpu;
        foreach (int d in new[] { 24, 64, 128 })
            foreach (
                var (fused, hopper) in t == DType.F32 || d == 24
                    ? new[] { (false, false) }
                    : [(false, false), (true, false), (true, true)]
            )
                foreach (
                    var (heads, kv, window, lengths) in new[]
                    {
                (2, 2, 0, new[] { 64, 1, 65 }), (6, 2, 0, [70]), (4, 1, 24, [40, 7, 90]), (2, 1, 0, [130, 63]),
                    }
                )
                {
                    (ops.FusedKernels, ops.HopperKernels) = (fused, hopper);
                    var s = new AttentionShape(heads, kv, d, window);
                    int rows = lengths.Sum(), at = 0;
                    Pair offsets = rig.Ints([0, .. lengths.Select(l => at += l)]),
                        q = rig.Normal(t, rows, heads * d),
                        k = rig.Normal(t, rows, kv * d),
                        v = rig.Normal(t, rows, kv * d);
                    Pair o = rig.Empty(t, rows, heads * d),
                        lse = rig.Empty(DType.F32, rows, heads),
                        dO = rig.Normal(t, rows, heads * d),
                        delta = rig.Empty(DType.F32, rows, heads);
                    Pair dq = rig.Empty(t, rows, heads * d),
                        dk = rig.Empty(t, rows, kv * d),
                        dv = rig.Empty(t, rows, kv * d);
                    Pair cos = rig.Normal(DType.F32, rows, d / 2), sin = rig.Normal(DType.F32, rows, d / 2);
                    ops.Attention(q.Gpu, k.Gpu, v.Gpu, offsets.Gpu, s, o.Gpu, lse.Gpu);
                    ops.AttentionBackward(
                        q.Gpu, k.Gpu, v.Gpu, o.Gpu, lse.Gpu, dO.Gpu, offsets.Gpu, s, delta.Gpu, dq.Gpu, dk.Gpu, dv.Gpu);
                    Finite(rig, o, lse, delta, dq, dk, dv);
                    ops.AttentionBackward(
                        q.Gpu, k.Gpu, v.Gpu, o.Gpu, lse.Gpu, dO.Gpu, offsets.Gpu, s, delta.Gpu, dq.Gpu, dk.Gpu,
                        dv.Gpu, cos.Gpu, sin.Gpu);
                    Finite(rig, dq, dk, dv);
                    if (lengths.Length > 1 || fused) continue;
                    const int fresh = 5;
                    Pair scores = rig.Empty(DType.F32, rows, rows),
                        plain = rig.Empty(t, rows, heads * d),
                        cached = rig.Empty(t, fresh, heads * d);
                    ops.AttentionMaterialized(q.Gpu, k.Gpu, v.Gpu, offsets.Gpu, s, scores.Gpu, plain.Gpu);
                    ops.CachedAttention(q.Gpu.Slice(rows - fresh, fresh), k.Gpu, v.Gpu, rows - fresh, s, cached.Gpu);
                    Finite(rig, plain, cached);
                }
        Covered(rig, t, Attended);
    }

    private sealed record Model(
        int HeadDim,
        int Heads,
        int KeyValueHeads,
        WeightStorage Storage,
        int R,
        int Recompute = 0,
        int? Window = null,
        bool? Graphs = null,
        bool Fused = true, bool Hopper = true, TrainMode Mode = TrainMode.Adapters, int Inter = 192)
    {
        public static readonly BatchLimits Limits = new(120, 3, 120, 120, 3, GenerateTokens: 24, PromptTokens: 16);

        public ModelConfig Config => new()
        {
            ModelType = "llama",
            HiddenSize = 128,
            IntermediateSize = Inter,
            VocabSize = 300,
            NumHiddenLayers = 2,
            NumAttentionHeads = Heads,
            NumKeyValueHeads = KeyValueHeads,
            HeadDim = HeadDim,
            RmsNormEps = 1e-5f,
            SlidingWindow = Window,
            AttentionBias = Mode == TrainMode.Full,
        };

        public ModelSettings Settings(DType t) =>
            new(
                Storage,
                Mode == TrainMode.Full ? WeightStorage.F32 : WeightStorage.BF16,
                Mode,
                R == 0
                    ? null
                    : new LoraConfig(
                        R, 2 * R, 0.1f, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]),
                Recompute,
                32,
                t
            );
    }

    private static readonly Model[] Models =
    [
        new(64, 2, 1, WeightStorage.NF4Double, 16, Graphs: true),
        new(128, 1, 1, WeightStorage.NF4, 32, Recompute: -1, Window: 24, Graphs: false),
        new(64, 2, 2, WeightStorage.Int8, 64, Graphs: false, Hopper: false),
        new(128, 2, 1, WeightStorage.BF16, 8, Graphs: false, Fused: false),
        new(64, 2, 1, WeightStorage.F32, 0, Graphs: true, Mode: TrainMode.Full),
        new(64, 2, 1, WeightStorage.NF4, 16, Graphs: false, Inter: 172), // an MLP whose rows are no whole octets
    ];

    /// <summary>A case for each type and model: each has its engine, and its own line in a log.</summary>
    public static IEnumerable<ITheoryDataRow> TypesAndModels =>
        (TheoryData<DType, int>)[
            .. from t in new[] { DType.F32, DType.BF16, DType.F16 }
            from m in Enumerable.Range(0, Models.Length)
            select (t, m),
        ];

    /// <summary>Whole micro-steps, issued, recorded and replayed, with updates, scores and generation.</summary>
    [Theory, MemberData(nameof(TypesAndModels))]
    internal void MicroSteps(DType t, int model)
    {
        var m = Models[model];
        var device = TestDevice.OpenCuda(
            new CudaOptions(ExpandBytes: 1 << 20, ScratchBytes: 1 << 20, MatmulBytes: 4 << 20, Graphs: m.Graphs));
        using var engine = new Engine(device, m.Config, m.Settings(t), Model.Limits);
        var ops = (CudaOps)device.Ops;
        (ops.FusedKernels, ops.HopperKernels) = (m.Fused, m.Hopper);
        engine.FillRandom(5);
        if (m.R > 0) engine.InitializeAdapters(3);
        var random = new PhiloxRandom(8);
        var batch = new MicroBatch(120, 3);
        foreach (int n in new[] { 37, 5, 70 })
            batch.Add(new EncodedRow([.. Enumerable.Range(0, n).Select(_ => random.Next(300))], 1));
        // A recorded step is issued, recorded and replayed; else the first micro-step shows it all, and racecheck takes
        // ten seconds for one.
        int steps = m.Graphs == true ? 2 : 1;
        for (int step = 0; step < steps; step++)
        {
            for (uint micro = 0; micro < steps; micro++)
                Assert.True(
                    double.IsFinite(
                        engine.MicroStep(
                            batch.Host, new Dropout(0.1f, 7, (uint)step * 2 + micro, 0), 0.5f / batch.LabelCount)
                    ),
                    $"loss of {m}"
                );
            Assert.True(double.IsFinite(engine.GradientNorm()), $"gradients of {m}");
            engine.Update(new AdamWStep(1e-3, 0.9, 0.999, 1e-8, step + 1, 1));
        }
        Assert.Null(device.Notice);
        if (m.Graphs == true) Assert.True(device.Graphs.Replays > 0, "no micro-step was replayed");
        Assert.True(double.IsFinite(engine.Losses(batch.Host)));
        var cache = engine.StartGeneration();
        var logits = new float[300];
        engine.Decode(ref cache, [.. Enumerable.Range(1, 19)], logits);
        engine.Decode(ref cache, [5], logits);
        Assert.All(logits, v => Assert.True(float.IsFinite(v)));
    }
}
