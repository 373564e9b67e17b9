using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats.Peft;
using Headroom.Inference;
using Headroom.Inference.Bases;
using Headroom.Inference.Export;
using Headroom.Models;
using Headroom.Tests.Models;
using Headroom.Training.Adapters;
using Headroom.Training.Data;
using Headroom.Training.Loop;

namespace Headroom.Tests.Adapters;

/// <summary>init_lora_weights: what PiSSA and LoftQ promise, and that their base comes back with equal bits.</summary>
public sealed class AdapterStartTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-").FullName;
    private static readonly ModelConfig Config = TinyModel.Small(2);
    private static readonly MicroBatch Batch = TinyModel.Batch(TinyModel.Rows(Config, [20, 31]));

    public void Dispose() => Directory.Delete(_folder, true);

    private static ModelSettings Settings(string init, WeightStorage storage, int rounds = 1, bool dora = false) =>
        new(
            storage,
            WeightStorage.F32,
            TrainMode.Adapters,
            TinyModel.Lora(dora: dora) with
            {
                InitLoraWeights = init,
                LoftqConfig = new() { LoftqIter = rounds },
                UseRslora = true,
            },
            LogitsChunk: 32
        );

    private static Engine Open(IWeightSource source, ModelSettings settings) =>
        new(
            new CpuDevice(2),
            source,
            settings,
            new BatchLimits(
                settings.Mode == TrainMode.None ? 0 : Batch.Tokens, Batch.Sequences, Batch.LabelCount, Batch.Tokens,
                Batch.Sequences)
        );

    private static Engine Started(string init, WeightStorage storage, int rounds = 1, bool dora = false)
    {
        using var source = new RandomSource(Config);
        var engine = Open(source, Settings(init, storage, rounds, dora));
        AdapterStart.Run(engine, source, 5);
        return engine;
    }

    // Relative distance of base + scaling * B A from the checkpoint's weights, over all projections.
    private static double Error(Engine engine)
    {
        using var source = new RandomSource(Config);
        double error = 0, all = 0;
        foreach (var p in engine.Model.Projections)
        {
            var (m, n, r, s) = (p.Weight.Out, p.Weight.In, p.Rank, engine.Settings.Lora!.For(p.Path).Scaling);
            float[] held = new float[m * n],
                w = source.Values(p.Path + ".weight"),
                a = engine.Read(p.A),
                b = engine.Read(p.B);
            engine.ReadBase(p, held);
            for (int i = 0; i < held.Length; i++)
            {
                double v = held[i];
                for (int k = 0; k < r; k++) v += (double)s * b[i / n * r + k] * a[k * n + i % n];
                error += (v - w[i]) * (v - w[i]);
                all += (double)w[i] * w[i];
            }
        }
        return Math.Sqrt(error / all);
    }

    [Theory]
    [InlineData("pissa", false)]
    [InlineData("pissa_niter_8", false)]
    [InlineData("pissa", true)]
    public void PissaLeavesTheModelAsItWas(string init, bool dora)
    {
        using Engine plain = Started("true", WeightStorage.F32), pissa = Started(init, WeightStorage.F32, dora: dora);
        double loss = plain.Losses(Batch.Host);
        Assert.Equal(loss, pissa.Losses(Batch.Host), 1e-5 * loss);
        Assert.Equal(loss, plain.Losses(Batch.Host, adapters: false), 1e-6 * loss); // B is zero
        Assert.Contains(init, Assert.Throws<HeadroomException>(() =>
            pissa.Losses(Batch.Host, adapters: false)).Message); // what is left of the base is not the base
        Assert.InRange(Error(pissa), 0, 1e-6);
        foreach (var p in pissa.Model.Projections)
        {
            // B^T B = A A^T = S / scaling: the singular values are shared out evenly.
            float[] a = pissa.Read(p.A), b = pissa.Read(p.B);
            for (int k = 0; k < p.Rank; k++)
            {
                double aa = Enumerable
                        .Range(0, p.Weight.In)
                        .Sum(j => (double)a[k * p.Weight.In + j] * a[k * p.Weight.In + j]),
                    bb = Enumerable.Range(0, p.Weight.Out).Sum(i => (double)b[i * p.Rank + k] * b[i * p.Rank + k]);
                Assert.Equal(aa, bb, 1e-3 * aa);
            }
        }
    }

    [Fact]
    public void PissaTakesTheLargestPart()
    {
        using Engine pissa = Started("pissa", WeightStorage.F32), niter = Started("pissa_niter_2", WeightStorage.F32);
        double Left(Engine e) => e.Model.Projections.Sum(p =>
        {
            var held = new float[p.Weight.Out * p.Weight.In];
            e.ReadBase(p, held);
            return held.Sum(v => (double)v * v);
        });
        using var plain = Started("true", WeightStorage.F32);
        Assert.True(
            Left(pissa) < Left(niter) && Left(niter) < Left(plain), $"{Left(pissa)} {Left(niter)} {Left(plain)}");
    }

    [Theory]
    [InlineData(WeightStorage.NF4)]
    [InlineData(WeightStorage.NF4Double)]
    internal void LoftqComesNearerWithEveryRound(WeightStorage storage)
    {
        using Engine plain = Started("true", storage),
            pissa = Started("pissa", storage),
            once = Started("loftq", storage),
            five = Started("loftq", storage, 5);
        double[] errors = [Error(plain), Error(once), Error(five)];
        Assert.True(errors[1] < 0.97 * errors[0] && errors[2] < 0.995 * errors[1], string.Join(' ', errors));
        Assert.True(Error(pissa) < errors[0]);
        Assert.Null(once.Initial); // one round leaves the quantized base as it is
        Assert.NotNull(five.Initial);
        foreach (var (p, q) in plain.Model.Projections.Zip(once.Model.Projections))
        {
            float[] a = new float[p.Weight.Out * p.Weight.In], b = new float[a.Length];
            plain.ReadBase(p, a);
            once.ReadBase(q, b);
            Assert.Equal(a, b);
        }
    }

    [Theory]
    [InlineData("pissa", WeightStorage.NF4Double, 1, false)]
    [InlineData("pissa_niter_3", WeightStorage.BF16, 1, true)]
    [InlineData("loftq", WeightStorage.NF4, 3, false)]
    [InlineData("loftq", WeightStorage.NF4, 1, false)]
    internal void SavedLoadedResumedMerged(string init, WeightStorage storage, int rounds, bool dora)
    {
        using var source = new RandomSource(Config);
        using var engine = Started(init, storage, rounds, dora);
        void Step(Engine e, int t)
        {
            e.MicroStep(Batch.Host, default, 1f / Batch.LabelCount);
            e.Update(new AdamWStep(1e-2, 0.9, 0.999, 1e-8, t, 1));
        }
        for (int t = 1; t <= 2; t++) Step(engine, t);
        string checkpoint = Checkpoints.Save(
            _folder, engine, "tiny", new TrainerState(2, 2, null, 0, "recipe", source.Hash));
        var adapter = PeftAdapter.Load(checkpoint, m => Assert.Fail(m));
        Assert.Equal(
            (init, rounds, init != "loftq" || rounds > 1),
            (adapter.Lora.InitLoraWeights, adapter.Lora.LoftqConfig.LoftqIter, adapter.Initial != null));
        double loss = engine.Losses(Batch.Host);
        using (var resumed = Open(AdapterBase.Subtract(source, adapter), Settings(init, storage, rounds, dora)))
        {
            resumed.Initial = adapter.Initial;
            Checkpoints.Load(checkpoint, resumed, "recipe", source.Hash);
            Assert.Equal(loss, resumed.Losses(Batch.Host));
            Step(engine, 3);
            Step(resumed, 3);
            Assert.Equal(Checkpoints.TrainedHash(engine), Checkpoints.TrainedHash(resumed));
            resumed.Adapter("tiny", source.Hash).Save(Path.Combine(_folder, "again"));
            Assert.Equal(adapter.Initial != null, PeftAdapter.Load(Path.Combine(_folder, "again")).Initial != null);
        }
        using var cpu = new CpuDevice(2);
        using var merged = new MergedSource(AdapterBase.Subtract(source, adapter), adapter, storage, cpu.Ops);
        using (
            var whole = Open(
                merged, new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.None, LogitsChunk: 32))
        )
            Assert.Equal(loss, whole.Losses(Batch.Host), 1e-5 * loss);
        // The bound of an export in float32 holds for what was trained, and not for the base that was never rounded.
        List<float[]> Logits(IWeightSource s, ModelSettings settings, PeftAdapter? with) =>
            ExportCheck.Logits(
                limits =>
                {
                    var e = new Engine(new CpuDevice(2), s, settings, limits);
                    if (with != null) e.LoadAdapter(with);
                    return e;
                },
                Config.VocabSize, [[1, 5, 9, 2, 7, 3]]);
        var whole32 = new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.None, LogitsChunk: 32);
        var reference = Logits(
            AdapterBase.Subtract(source, adapter),
            Settings(init, storage, rounds, dora) with
            {
                Mode = TrainMode.None,
                Lora = adapter.Lora,
            },
            adapter
        );
        double bound = ExportCheck.Bounds("f32", ExportCheck.Rounding(merged)).Difference;
        Assert.InRange(
            ExportCheck.Compare(reference, Logits(merged, whole32, null), Config.VocabSize).RelativeDifference, 0, bound
        );
        using (MergedSource unrounded = new(AdapterBase.Subtract(source, adapter), adapter, null, null))
            Assert.True(
                ExportCheck.Compare(reference, Logits(unrounded, whole32, null), Config.VocabSize).RelativeDifference
                    > bound
            );
        if (adapter.Initial == null) return;
        // Over the base itself, in full precision: equal but for what storing the rest of the base lost.
        var plain = adapter.Converted();
        using var converted = Open(
            source,
            new ModelSettings(
                WeightStorage.F32, WeightStorage.F32, TrainMode.None, plain.Lora, LogitsChunk: 32)
        );
        converted.LoadAdapter(plain);
        using MergedSource exact = new(AdapterBase.Subtract(source, adapter), adapter, null, null),
            same = new(source, plain, null, null);
        Assert.Equal(2 * adapter.Lora.R, plain.Lora.R);
        foreach (string name in Config.MatrixNames())
        {
            var (m, n) = source.ShapeOf(name);
            float[] x = new float[m * n], y = new float[m * n];
            exact.ReadRows(name, 0, m, x);
            same.ReadRows(name, 0, m, y);
            for (int i = 0; i < x.Length; i++) Assert.Equal(x[i], y[i], 1e-5);
        }
        Assert.Equal(loss, converted.Losses(Batch.Host), storage == WeightStorage.BF16 ? 1e-3 * loss : 0.1 * loss);
    }

    [Fact]
    public void WithoutItsStartPissaIsRefused()
    {
        using var engine = Started("pissa", WeightStorage.F32);
        engine.Adapter("tiny", "random").Save(_folder);
        Directory.Delete(Path.Combine(_folder, "pissa_init"), true);
        Assert.Contains("pissa", Assert.Throws<HeadroomException>(() => PeftAdapter.Load(_folder)).Message);
        using var other = Started("pissa", WeightStorage.F32);
        var adapter = other.Adapter("tiny", "random");
        adapter.Save(_folder);
        using (
            var wide = Open(
                new RandomSource(Config),
                Settings("pissa", WeightStorage.F32) with
                {
                    Lora = TinyModel.Lora(r: 2),
                }
            )
        )
            wide.Adapter("tiny", "random").Save(Path.Combine(_folder, "pissa_init"));
        Assert.Contains("pairs", Assert.Throws<HeadroomException>(() => PeftAdapter.Load(_folder)).Message);
    }

    [Fact]
    public void ImpossibleStartsAreRefused()
    {
        using var quantized = new QuantizedSource();
        using (var engine = Open(new RandomSource(Config), Settings("pissa", WeightStorage.F32)))
            Assert.Contains(
                "quantized already",
                Assert.Throws<HeadroomException>(() => AdapterStart.Run(engine, quantized, 1)).Message);
        using var wide = Open(
            new RandomSource(Config),
            Settings("pissa", WeightStorage.F32) with
            {
                Lora = TinyModel.Lora(r: 97) with { InitLoraWeights = "pissa" },
            }
        );
        using var source = new RandomSource(Config);
        Assert.Contains("rank 97", Assert.Throws<HeadroomException>(() => AdapterStart.Run(wide, source, 1)).Message);
        foreach (string known in new[] { "true", "false", "gaussian", "pissa", "pissa_niter_16", "loftq" })
            Assert.True(AdapterStart.Known(known));
        foreach (
            string unknown in new[]
            {
                "", "True ", "olora", "pissa_niter_", "pissa_niter_-1", "pissa_niter_x", "pissa2", "eva",
            }
        )
            Assert.False(AdapterStart.Known(unknown), unknown);
    }

    [Fact]
    public void RandomStarts()
    {
        using Engine usual = Started("true", WeightStorage.F32),
            gaussian = Started("gaussian", WeightStorage.F32),
            both = Started("false", WeightStorage.F32);
        foreach (var p in usual.Model.Projections) Assert.All(usual.Read(p.B), v => Assert.Equal(0, v));
        foreach (var p in gaussian.Model.Projections) Assert.All(gaussian.Read(p.B), v => Assert.Equal(0, v));
        float[] a = [.. gaussian.Model.Projections.SelectMany(p => gaussian.Read(p.A))],
            b = [.. both.Model.Projections.SelectMany(p => both.Read(p.B))];
        Assert.Equal(0.25, Math.Sqrt(a.Average(v => (double)v * v)), 0.01); // 1 / r
        Assert.Equal(0.5 / Math.Sqrt(3), Math.Sqrt(b.Average(v => (double)v * v)), 0.01); // uniform to 1 / sqrt(r)
        Assert.All(b, v => Assert.InRange(v, -0.5f, 0.5f));
    }

    private sealed class QuantizedSource : IWeightSource
    {
        private readonly RandomSource _values = new(Config);
        ModelConfig IWeightSource.Config => Config;
        public string Hash => "random";
        public bool Has(string hfName) => true;
        public (int Rows, int Cols) ShapeOf(string hfName) => _values.ShapeOf(hfName);

        public void ReadRows(string hfName, int firstRow, int rowCount, Span<float> destination) =>
            _values.ReadRows(hfName, firstRow, rowCount, destination);
        public DType SourceDType(string hfName) => DType.BF16;
        public WeightStorage? QuantizedAs(string hfName) => WeightStorage.NF4;
        public void Dispose() => _values.Dispose();
    }
}
