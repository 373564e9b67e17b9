using Headroom.Core;
using Headroom.Cpu;
using Headroom.Inference;
using Headroom.Models;

namespace Headroom.Tests.Models;

/// <summary>
/// What must not change the result: packing, accumulation, recompute; and what must not be more than planned.
/// </summary>
public class ModelIdentityTests
{
    private static ModelSettings Settings(
        float dropout = 0, int recompute = 0, TrainMode mode = TrainMode.Adapters,
        WeightStorage storage = WeightStorage.NF4Double, bool dora = false) =>
        new(
            storage, WeightStorage.F32, mode, mode == TrainMode.Adapters ? TinyModel.Lora(dropout, dora: dora) : null,
            recompute, LogitsChunk: 32);

    [Theory, InlineData("llama"), InlineData("qwen3")]
    public void PackedLossesEqualOneByOneLosses(string type)
    {
        var config = TinyModel.Small(type: type);
        var rows = TinyModel.Rows(config, [40, 7, 64, 23, 90]);
        var packed = TinyModel.Batch(rows);
        using var engine = TinyModel.Open(config, Settings(), packed.Tokens, packed.Sequences);
        float[] together = new float[packed.LabelCount], alone = new float[packed.LabelCount];
        double sum = engine.Losses(packed.Host, together), sums = 0;
        int at = 0;
        foreach (var row in rows)
        {
            var one = TinyModel.Batch([row]);
            sums += engine.Losses(one.Host, alone.AsSpan(at));
            at += one.LabelCount;
        }
        Assert.Equal(alone, together); // bit for bit: a row's arithmetic does not depend on the rows beside it
        Assert.Equal(sums, sum, 1e-12 * sum);
    }

    [Theory]
    [InlineData(TrainMode.Adapters)]
    [InlineData(TrainMode.Full)]
    internal void AccumulationEqualsOneBigBatch(TrainMode mode)
    {
        var config = TinyModel.Small();
        var rows = TinyModel.Rows(config, [40, 7, 64, 23, 90, 12, 31], unlabelled: 3);
        var all = TinyModel.Batch(rows);
        float scale = 1f / all.LabelCount; // the window's labelled tokens, not the micro-batch's
        using var engine = TinyModel.Open(
            config, Settings(mode: mode, storage: WeightStorage.F32), all.Tokens, all.Sequences);
        double loss = engine.MicroStep(all.Host, default, scale);
        var expected = TinyModel.Gradients(engine);
        engine.ZeroGradients();
        double parts = 0;
        foreach (var window in new[] { rows[..1], rows[1..4], rows[4..] })
            parts += engine.MicroStep(TinyModel.Batch(window).Host, default, scale);
        Assert.Equal(loss, parts, 1e-6 * loss);
        foreach (var (name, gradient) in TinyModel.Gradients(engine))
            TinyModel.Near(Array.ConvertAll(expected[name], v => (double)v), gradient, 2e-6, name);
    }

    [Theory]
    [InlineData(-1, TrainMode.Adapters, 0.1f, false)]
    [InlineData(1, TrainMode.Adapters, 0.1f, false)]
    [InlineData(2, TrainMode.Adapters, 0.1f, false)]
    [InlineData(-1, TrainMode.Full, 0.1f, false)]
    [InlineData(-1, TrainMode.Adapters, 0.1f, true)]
    [InlineData(2, TrainMode.Adapters, 0f, true)]
    [InlineData(-1, TrainMode.Adapters, 0.1f, false, "qwen3")]
    [InlineData(2, TrainMode.Adapters, 0.1f, true, "qwen3")]
    [InlineData(1, TrainMode.Full, 0f, false, "qwen3")]
    [InlineData(-1, TrainMode.Adapters, 0.1f, false, "llama", 5f)]
    internal void RecomputeChangesNoBit(
        int layers, TrainMode mode, float dropout, bool dora, string type = "llama", float alpha = 0)
    {
        var config = TinyModel.Small(type: type);
        var batch = TinyModel.Batch(TinyModel.Rows(config, [40, 7, 64]));
        var storage = mode == TrainMode.Full ? WeightStorage.F32 : WeightStorage.NF4Double;
        var (losses, gradients) = Run(0);
        var (recomputedLosses, recomputed) = Run(layers);
        Assert.Equal(losses, recomputedLosses);
        Assert.Equal(gradients.Keys, recomputed.Keys);
        foreach (var (name, gradient) in gradients)
            Assert.True(gradient.AsSpan().SequenceEqual(recomputed[name]), $"{name} differs");
        Assert.Contains(gradients, g => g.Value.Any(v => v != 0));

        (double[], Dictionary<string, float[]>) Run(int recompute)
        {
            using var engine = TinyModel.Open(
                config, Settings(dropout, recompute, mode, storage, dora) with { NeftuneNoiseAlpha = alpha },
                batch.Tokens, batch.Sequences);
            var losses = new double[3];
            for (uint micro = 0; micro < 3; micro++)
                losses[micro] = engine.MicroStep(batch.Host, new Dropout(dropout, 77, micro, 0), 0.01f);
            return (losses, TinyModel.Gradients(engine));
        }
    }

    /// <summary>
    /// Weights of 1 are no weights, by rows or given between forward and backward pass, and what they take of the plan
    /// is their own bytes.
    /// </summary>
    [Theory, InlineData(false), InlineData(true)]
    public void WeightsOfOneChangeNoBit(bool dora)
    {
        var config = TinyModel.Small();
        var batch = TinyModel.Batch(TinyModel.Rows(config, [40, 7, 64]));
        var settings = Settings(0.1f, 1, dora: dora);
        using Engine plain = TinyModel.Open(config, settings, batch.Tokens, batch.Sequences),
            weighted = TinyModel.Open(config, settings, batch.Tokens, batch.Sequences, weights: true);
        long bytes = weighted.Plan.ArenaBytes - plain.Plan.ArenaBytes;
        Assert.InRange(bytes, 0, sizeof(float) * batch.Tokens + 512);
        var dropout = new Dropout(0.1f, 77, 5, 0);
        double loss = plain.MicroStep(batch.Host, dropout, 0.01f);
        var expected = TinyModel.Gradients(plain);
        float[] ones = [.. Enumerable.Repeat(1f, batch.LabelCount)], seen = [];
        var host = batch.Host;
        Same(weighted.MicroStep(host, dropout, 0.01f));
        Same(weighted.MicroStep(
            new(host.Ids, host.Positions, host.Offsets, host.LabelRows, host.Labels, ones), dropout, 0.01f));
        Same(weighted.MicroStep(host, dropout, 0.01f, (losses, weights) =>
        {
            seen = losses.ToArray();
            weights.Fill(1);
        }));
        Assert.Equal(loss, seen.Sum(l => (double)l));

        void Same(double got)
        {
            Assert.Equal(loss, got);
            foreach (var (name, gradient) in TinyModel.Gradients(weighted))
                Assert.True(expected[name].AsSpan().SequenceEqual(gradient), $"{name} differs");
            weighted.ZeroGradients();
        }
    }

    /// <summary>Without adapters the losses are those of the base, bit for bit, and the plan is the same.</summary>
    [Theory]
    [InlineData(false, WeightStorage.NF4Double)]
    [InlineData(true, WeightStorage.NF4Double)]
    [InlineData(false, WeightStorage.F32)]
    [InlineData(true, WeightStorage.F32)]
    internal void TheBaseIsThereByItself(bool dora, WeightStorage storage)
    {
        var config = TinyModel.Small();
        var batch = TinyModel.Batch(TinyModel.Rows(config, [40, 7, 64]));
        using Engine adapted = TinyModel.Open(
                config, Settings(0.1f, storage: storage, dora: dora), batch.Tokens, batch.Sequences),
            plain = TinyModel.Open(
                config, Settings(storage: storage, mode: TrainMode.None), batch.Tokens, batch.Sequences);
        float[] losses = new float[batch.LabelCount], expected = new float[batch.LabelCount];
        double with = adapted.Losses(batch.Host), sum = plain.Losses(batch.Host, expected);
        Assert.Equal(sum, adapted.Losses(batch.Host, losses, adapters: false));
        Assert.Equal(expected, losses);
        Assert.NotEqual(sum, with);
        Assert.Equal(with, adapted.Losses(batch.Host)); // they are as they were
    }

    [Fact]
    public void ABaseThatIsNotThereByItselfIsRefused()
    {
        var config = TinyModel.Small();
        var lora = new LoraConfig(4, 8, 0, ["q_proj"]) { ModulesToSave = ["lm_head", "norm"] };
        using var saved = TinyModel.Open(
            config, new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters, lora), 40, 1);
        var batch = TinyModel.Batch(TinyModel.Rows(config, [40]));
        var e = Assert.Throws<HeadroomException>(() => saved.Losses(batch.Host, adapters: false));
        Assert.Contains("modules_to_save", e.Message);
    }

    [Fact]
    public void RecomputeTakesLessMemory()
    {
        var config = TinyModel.Small(layers: 6);
        long Train(int recompute) =>
            PlannedModel
                .Make(config, Settings(0.1f, recompute), new BatchLimits(200, 4, 200), 0)
                .Plan.PhaseBytes("train");
        long[] bytes = [Train(0), Train(2), Train(4), Train(-1)];
        for (int i = 1; i < bytes.Length; i++) Assert.True(bytes[i] < bytes[i - 1], string.Join(" ", bytes));
    }

    [Theory]
    [InlineData(WeightStorage.F32, TrainMode.Full, 0, false)]
    [InlineData(WeightStorage.NF4Double, TrainMode.Adapters, 0, false)]
    [InlineData(WeightStorage.NF4, TrainMode.Adapters, -1, false)]
    [InlineData(WeightStorage.NF4Double, TrainMode.Adapters, 0, true)]
    [InlineData(WeightStorage.Int8, TrainMode.Adapters, 1, true)]
    [InlineData(WeightStorage.BF16, TrainMode.None, 0, false)]
    [InlineData(WeightStorage.NF4Double, TrainMode.Adapters, 0, false, "qwen3")]
    [InlineData(WeightStorage.NF4Double, TrainMode.Adapters, -1, true, "qwen3")]
    [InlineData(WeightStorage.F32, TrainMode.Full, 1, false, "qwen3")]
    internal void ReservedBytesArePlannedBytes(
        WeightStorage storage, TrainMode mode, int recompute, bool dora, string type = "llama")
    {
        var config = TinyModel.Small(type: type);
        var batch = TinyModel.Batch(TinyModel.Rows(config, [40, 7, 64]));
        using var device = new RecordingDevice(new CpuDevice(2));
        var settings = Settings(0.1f, recompute, mode, storage, dora);
        var limits = new BatchLimits(
            mode == TrainMode.None ? 0 : batch.Tokens, batch.Sequences, batch.LabelCount, batch.Tokens, batch.Sequences,
            2, 50);
        using var source = new RandomSource(config);
        var engine = new Engine(device, source, settings, limits);
        var plan = PlannedModel.Make(config, settings, limits, device.WorkspaceBytes).Plan;
        Assert.Equal([plan.ArenaBytes], device.Reserved);
        Assert.Equal(plan.ArenaBytes + device.WorkspaceBytes, plan.TotalBytes);
        // the end is rounded up to 256 bytes, no more
        Assert.InRange(plan.ArenaBytes - plan.StaticBytes - plan.Phases.Max(plan.PhaseBytes), 0, 255);
        engine.Losses(batch.Host);
        if (mode != TrainMode.None)
            for (uint i = 0; i < 2; i++) engine.MicroStep(batch.Host, new Dropout(0.1f, 1, i, 0), 1);
        var cache = engine.StartGeneration();
        engine.Decode(ref cache, batch.Host.Ids[..20], new float[config.VocabSize]);
        Assert.Single(device.Reserved); // nothing was reserved after the plan
        Assert.True(device.Outside == 0, $"{device.Outside} copies went outside the arena");
    }

    /// <summary>Passes everything on and keeps what was reserved.</summary>
    private sealed class RecordingDevice(IDevice inner) : IDevice
    {
        private nint _base;

        public List<long> Reserved { get; } = [];
        public int Outside { get; private set; }
        public string Name => inner.Name;
        public IOps Ops => inner.Ops;
        public long WorkspaceBytes => inner.WorkspaceBytes;

        public nint Reserve(long bytes, long later = 0)
        {
            Reserved.Add(bytes);
            return _base = inner.Reserve(bytes, later);
        }

        public void Upload(ReadOnlySpan<byte> source, Tensor destination)
        {
            Check(destination, source.Length);
            inner.Upload(source, destination);
        }

        public void Download(Tensor source, Span<byte> destination)
        {
            Check(source, destination.Length);
            inner.Download(source, destination);
        }

        public void Dispose() => inner.Dispose();

        private void Check(Tensor t, long bytes)
        {
            if (t.Address < _base || t.Address + (nint)bytes > _base + (nint)Reserved[0]) Outside++;
        }
    }
}
