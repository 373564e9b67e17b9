using Headroom.Core;
using Headroom.Cpu;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tests.Models;
using Headroom.Training.Data;

namespace Headroom.Tests.Loop;

/// <summary>Micro-batches that are padded to few shapes: losses and gradients stay those of the batch alone.</summary>
public class BatchPaddingTests
{
    private const int Rows = 6, Longest = 90, Answer = 3;

    /// <summary>A CPU that asks for few shapes, and keeps those it got.</summary>
    private sealed class FewShapes(bool few) : IDevice, IReplaysSteps
    {
        private readonly CpuDevice _cpu = new(2);
        public List<StepShape> Shapes { get; } = [];
        public string Name => _cpu.Name;
        public IOps Ops => _cpu.Ops;
        public long WorkspaceBytes => _cpu.WorkspaceBytes;
        public nint Reserve(long bytes, long later = 0) => _cpu.Reserve(bytes, later);
        public void Upload(ReadOnlySpan<byte> source, Tensor destination) => _cpu.Upload(source, destination);
        public void Download(Tensor source, Span<byte> destination) => _cpu.Download(source, destination);
        public StepReplay Replay(double flops, long calls, DType compute) => new(0, few);
        public void Dispose() => _cpu.Dispose();

        public StepStart Begin(in StepShape shape, in StepReplay replay, uint dropoutStep, float gradScale)
        {
            Shapes.Add(shape);
            return StepStart.Issue;
        }

        public bool EndRecord(Exception? failure) => false;
    }

    private static Engine Open(FewShapes device, bool answers, TrainMode mode)
    {
        bool full = mode == TrainMode.Full;
        var settings = new ModelSettings(
            full ? WeightStorage.F32 : WeightStorage.NF4Double, WeightStorage.F32, mode,
            full ? null : TinyModel.Lora(0.1f), LogitsChunk: 32);
        var engine = new Engine(
            device, new RandomSource(TinyModel.Small()), settings,
            new BatchLimits(
                Rows * Longest, Rows, answers ? Rows * Answer : Rows * Longest, LabelWeights: mode != TrainMode.Full));
        var random = new PhiloxRandom(5);
        engine.InitializeAdapters(3);
        foreach (var p in engine.Model.Projections)
            if (!p.B.IsNone)
                engine.Write(
                    p.B, Enumerable.Range(0, (int)p.B.Count).Select(_ => random.NextNormal() * 0.3f).ToArray());
        return engine;
    }

    private static MicroBatch Batch(PhiloxRandom random, int rows, bool answers, int? length = null)
    {
        var batch = new MicroBatch(Rows * Longest, Rows);
        for (int r = 0; r < rows; r++)
        {
            int n = length ?? 8 + random.Next(Longest - 7);
            batch.Add(
                new EncodedRow(
                    Enumerable.Range(0, n).Select(_ => random.Next(200)).ToArray(),
                    answers ? n - 1 - random.Next(Answer) : 1)
            );
        }
        return batch;
    }

    [Theory]
    [InlineData(true, TrainMode.Adapters)]
    [InlineData(false, TrainMode.Adapters)]
    [InlineData(false, TrainMode.Full)]
    [InlineData(true, TrainMode.Adapters, true)]
    [InlineData(false, TrainMode.Adapters, true)]
    internal void LossesAndGradientsAreThoseOfTheBatch(bool answers, TrainMode mode, bool weighted = false)
    {
        FewShapes few = new(true), own = new(false);
        using Engine a = Open(few, answers, mode), b = Open(own, answers, mode);
        var random = new PhiloxRandom(17);
        int padded = 0;
        foreach (int rows in new[] { Rows, Rows, 2, 1 })
        {
            var batch = Batch(random, rows, answers);
            double[] losses = new Engine[] { a, b }.Select(e =>
            {
                e.ZeroGradients();
                var b = batch.Host;
                float[] weights = weighted ? [.. Enumerable.Range(0, b.Labels.Length).Select(i => 1 + i % 3)] : [];
                return e.MicroStep(
                    new(b.Ids, b.Positions, b.Offsets, b.LabelRows, b.Labels, weights),
                    new Dropout(0.1f, 7, (uint)rows, 0), 0.1f);
            }).ToArray();
            Assert.Equal(losses[1], losses[0], Math.Abs(losses[1]) * 1e-6);
            var (got, wanted) = (TinyModel.Gradients(a), TinyModel.Gradients(b));
            foreach (string name in wanted.Keys)
                TinyModel.Near(wanted[name].Select(x => (double)x).ToArray(), got[name], 1e-5, $"{rows} rows, {name}");
            StepShape shape = few.Shapes[^1], alone = own.Shapes[^1];
            Assert.Equal((batch.Tokens, rows, batch.LabelCount), (alone.Tokens, alone.Sequences, alone.Labels));
            Assert.True(shape.Tokens >= alone.Tokens && shape.Labels >= alone.Labels && shape.Sequences == Rows + 1);
            padded += shape.Tokens - alone.Tokens;
        }
        Assert.True(padded > 0);
    }

    [Theory, InlineData(true), InlineData(false)]
    public void ShapesAreFewAndTheLargestBatchIsLeftAsItIs(bool answers)
    {
        var device = new FewShapes(true);
        using var engine = Open(device, answers, TrainMode.Adapters);
        var random = new PhiloxRandom(3);
        long tokens = 0;
        for (int i = 0; i < 40; i++)
        {
            var batch = Batch(random, Rows, answers);
            tokens += batch.Tokens;
            engine.MicroStep(batch.Host, new Dropout(0.1f, 1, 0, 0), 1);
        }
        Assert.InRange(device.Shapes.Distinct().Count(), 2, Rows * Longest / 64 + 1);
        Assert.All(device.Shapes, s => Assert.True(s.Tokens % 64 == 0 && s.Tokens <= Rows * Longest));
        Assert.InRange(device.Shapes.Sum(s => s.Tokens) - tokens, 1, 40 * 128);
        var full = Batch(random, Rows, answers, Longest);
        engine.MicroStep(full.Host, new Dropout(0.1f, 1, 0, 0), 1);
        Assert.Equal(new StepShape(Rows * Longest, Rows, full.LabelCount, 0.1f, 1), device.Shapes[^1]);
    }
}
