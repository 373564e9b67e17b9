using System.Security.Cryptography;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tests.Models;
using Headroom.Training.Adapters;

namespace Headroom.Tests.Loop;

/// <summary>
/// A device that keeps weights expanded is told of every change of them and of the adapters, whoever makes it, and of
/// nothing else: what it was told last is what it finds before a pass.
/// </summary>
public unsafe class ChangeNoticeTests
{
    // Keeps what weights and adapters were when it was told of them.
    private sealed class Told : IDevice, IKeepsExpandedWeights
    {
        private readonly CpuDevice _cpu = new(2);
        private LlamaModel? _model;
        private string _weights = "", _adapters = "";
        public int OfAdapters { get; private set; }
        public int OfWeights { get; private set; }
        public bool WroteSince { get; private set; }
        public string Name => _cpu.Name;
        public IOps Ops => _cpu.Ops;
        public long WorkspaceBytes => _cpu.WorkspaceBytes;
        public nint Reserve(long bytes, long later = 0) => _cpu.Reserve(bytes, later);
        public void Download(Tensor source, Span<byte> destination) => _cpu.Download(source, destination);
        public void KeepExpanded(Tensor room) { }
        public void Dispose() => _cpu.Dispose();

        public void Upload(ReadOnlySpan<byte> source, Tensor destination)
        {
            WroteSince |= destination.DType != DType.I32;
            _cpu.Upload(source, destination);
        }

        public void AdaptersChanged()
        {
            OfAdapters++;
            WroteSince = false;
            if (_model != null) _adapters = Adapters(_model);
        }

        public void WeightsChanged()
        {
            OfWeights++;
            AdaptersChanged();
            OfAdapters--;
            if (_model != null) _weights = Weights(_model);
        }

        public void Watch(LlamaModel model)
        {
            _model = model;
            (_weights, _adapters) = (Weights(model), Adapters(model));
        }

        public void Check(string after)
        {
            Assert.True(_weights == Weights(_model!), "no notice of weights after " + after);
            Assert.True(_adapters == Adapters(_model!), "no notice of adapters after " + after);
        }

        private static string Weights(LlamaModel m) => Hash(m.Projections.Select(p => p.Weight)
            .Append(m.EmbeddingTable).Append(m.Head)
            .SelectMany(w => new[] { w.Data, w.Absmax, w.NestedAbsmax, w.Offset, w.Bias }));

        private static string Adapters(LlamaModel m) => Hash(m.Projections.SelectMany(p => new[] { p.A, p.B }));

        private static string Hash(IEnumerable<Tensor> tensors)
        {
            using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
            foreach (var t in tensors)
                if (!t.IsNone) hash.AppendData(new ReadOnlySpan<byte>(t.B, (int)t.Bytes));
            return Convert.ToHexString(hash.GetCurrentHash());
        }
    }

    [Theory]
    [InlineData(WeightStorage.NF4Double)]
    [InlineData(WeightStorage.NF4)]
    [InlineData(WeightStorage.Int8)]
    [InlineData(WeightStorage.BF16)]
    internal void EveryChangeIsSaid(WeightStorage storage)
    {
        var config = TinyModel.Small(1);
        var batch = TinyModel.Batch(TinyModel.Rows(config, [20, 31]));
        var lora = TinyModel.Lora() with
        {
            InitLoraWeights = storage == WeightStorage.NF4 ? "loftq" : "pissa",
            LoftqConfig = new LoftqConfig { LoftqIter = 2 },
        };
        var device = new Told();
        using var source = new RandomSource(config);
        using var engine = new Engine(device, source, new ModelSettings(storage, WeightStorage.BF16,
            TrainMode.Adapters, lora, LogitsChunk: 16), new BatchLimits(batch.Tokens, batch.Sequences, batch.Tokens,
            batch.Tokens, batch.Sequences));
        Assert.Equal(1, device.OfWeights);
        Assert.False(device.WroteSince, "loading goes on after its notice");
        device.Watch(engine.Model);

        void Changes(string what, bool adapters, bool weights, Action change)
        {
            (int a, int w) = (device.OfAdapters, device.OfWeights);
            change();
            device.Check(what);
            Assert.True((device.OfAdapters > a, device.OfWeights > w) == (adapters, weights),
                $"{what}: {device.OfAdapters - a} notices of adapters, {device.OfWeights - w} of weights");
        }
        var projection = engine.Model.Projections.First();
        var ones = Enumerable.Repeat(1f, (int)projection.B.Count).ToArray();
        Changes("a start from the base", true, true, () => AdapterStart.Run(engine, source, 5));
        Changes("a random start", true, false, () => engine.InitializeAdapters(7));
        Changes("a write", true, false, () => engine.Write(projection.B, ones));
        Changes("weights of random numbers", false, true, () => engine.FillRandom(3));
        Changes("a micro-step", false, false, () => engine.MicroStep(batch.Host, default, 1f / batch.LabelCount));
        Changes("an update", true, false, () => engine.Update(new AdamWStep(0.01, 0.9, 0.999, 1e-8, 1, 1)));
        Changes("an evaluation", false, false, () => engine.Losses(batch.Host));
        var values = new float[projection.Weight.Out * projection.Weight.In];
        Changes("a base stored anew", false, true, () => engine.WriteBase(projection, values));
    }
}
