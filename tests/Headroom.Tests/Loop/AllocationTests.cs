using Headroom.Core;
using Headroom.Cpu;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tests.Models;
using Headroom.Training.Data;

namespace Headroom.Tests.Loop;

/// <summary>
/// Once warm, a micro-step, an update, an evaluation batch and a decode step take nothing from the collector, and a
/// phase is allocated once.
/// </summary>
public class AllocationTests
{
    private const int Tokens = 48;

    private static Engine Open(IDevice device, bool dora = false, int recompute = 1) => new(
        device, new RandomSource(TinyModel.Small()),
        new ModelSettings(
            WeightStorage.NF4Double, WeightStorage.F32, TrainMode.Adapters,
            TinyModel.Lora(0.1f) with { UseDora = dora }, recompute, LogitsChunk: 32),
        new BatchLimits(Tokens, 3, Tokens, Tokens, 3, Candidates: 2, GenerateTokens: 32, PromptTokens: 8));

    private static MicroBatch Batch(bool answers = false)
    {
        var batch = new MicroBatch(Tokens, 3);
        foreach (int n in new[] { 20, 16, 12 })
            batch.Add(
                new EncodedRow([.. Enumerable.Range(0, n).Select(i => (7 * i + n) % 200)], answers ? n - 1 : 1));
        return batch;
    }

    [Theory, InlineData(false, 1), InlineData(true, 1), InlineData(false, 2)]
    public void WarmWorkTakesNothingFromTheCollector(bool dora, int threads)
    {
        using var engine = Open(new CpuDevice(threads), dora);
        engine.InitializeAdapters(1);
        MicroBatch batch = Batch(), answers = Batch(answers: true);
        float[] scores = new float[2 * answers.LabelCount], lse = new float[answers.LabelCount],
            logits = new float[engine.Model.Config.VocabSize];
        int[] candidates = [3, 5], prompt = [1, 2, 3], one = [4];
        uint step = 0;
        void Train()
        {
            for (int i = 0; i < 2; i++) engine.MicroStep(batch.Host, new Dropout(0.1f, 1, step++, 0), 1e-2f);
            double norm = engine.GradientNorm();
            engine.Update(new AdamWStep(1e-4, 0.9, 0.999, 1e-8, (int)step, (float)(1 / (1 + norm))));
        }
        void Evaluate()
        {
            engine.Losses(batch.Host);
            engine.Scores(answers.Host, candidates, scores, lse);
        }
        Assert.Equal(0, Warm(Train));
        Assert.Equal(0, Warm(Evaluate));
        var cache = engine.StartGeneration();
        engine.Decode(ref cache, prompt, logits);
        Assert.Equal(0, Warm(() => engine.Decode(ref cache, one, logits)));
    }

    // Bytes of the third call.
    private static long Warm(Action work)
    {
        work();
        work();
        long before = GC.GetAllocatedBytesForCurrentThread();
        work();
        return GC.GetAllocatedBytesForCurrentThread() - before;
    }

    // A device whose record of a micro-step comes to nothing: it is issued again.
    private sealed class Twice : IDevice, IReplaysSteps
    {
        private readonly CpuDevice _cpu = new(1);
        public string Name => _cpu.Name;
        public IOps Ops => _cpu.Ops;
        public long WorkspaceBytes => _cpu.WorkspaceBytes;
        public nint Reserve(long bytes, long later = 0) => _cpu.Reserve(bytes, later);
        public void Upload(ReadOnlySpan<byte> source, Tensor destination) => _cpu.Upload(source, destination);
        public void Download(Tensor source, Span<byte> destination) => _cpu.Download(source, destination);
        public void Dispose() => _cpu.Dispose();
        public Action? Between { get; set; }

        public StepReplay Replay(double flops, long calls, DType compute) => default;

        public StepStart Begin(in StepShape shape, in StepReplay replay, uint dropoutStep, float gradScale) =>
            StepStart.Record;

        public bool EndRecord(Exception? failure)
        {
            Between!();
            return false;
        }
    }

    [Theory, InlineData(0), InlineData(-1)]
    public void AMicroStepThatIsIssuedTwiceTakesTheSameBuffers(int recompute)
    {
        var twice = new Twice();
        using Engine a = Open(twice, recompute: recompute), b = Open(new CpuDevice(1), recompute: recompute);
        twice.Between = a.ZeroGradients; // nothing of the first time has run
        a.InitializeAdapters(1);
        b.InitializeAdapters(1);
        var dropout = new Dropout(0.1f, 1, 3, 0);
        Assert.Equal(b.MicroStep(Batch().Host, dropout, 1), a.MicroStep(Batch().Host, dropout, 1));
        Assert.Equal(TinyModel.Gradients(b), TinyModel.Gradients(a));
    }
}
