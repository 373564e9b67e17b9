using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Planning;

namespace Headroom.Tests.Models;

/// <summary>Lifetimes follow from what each op reads and writes.</summary>
public unsafe class LifetimeTests
{
    private static readonly BatchLimits[] Batches =
    [
        new(64, 1, 63, 64, 1, 2, 40, 16), // one row
        new(2048, 4, 2044, 2048, 4, 3, 512), // every token labelled
        new(1000, 7, 7, 300, 7), // only answers
    ];

    /// <summary>
    /// Plans of every kind: architectures, what is trained, recompute, activations, sizes of batches.
    /// </summary>
    internal static IEnumerable<(string Name, ModelConfig Config, ModelSettings Settings, BatchLimits Limits)> Shapes()
    {
        (string, ModelConfig)[] configs =
        [
            ("smallest", TinyModel.Smallest(tied: true, bias: true, window: 5)),
            ("small", TinyModel.Small()),
            (
                "135m",
                new ModelConfig
                {
                    VocabSize = 49152, HiddenSize = 576, IntermediateSize = 1536, NumHiddenLayers = 6,
                    NumAttentionHeads = 9, NumKeyValueHeads = 3, HeadDim = 64, RmsNormEps = 1e-5f,
                    TieWordEmbeddings = true,
                }
            ),
            (
                "7b",
                new ModelConfig
                {
                    VocabSize = 32000, HiddenSize = 4096, IntermediateSize = 11008, NumHiddenLayers = 8,
                    NumAttentionHeads = 32, NumKeyValueHeads = 32, HeadDim = 128, RmsNormEps = 1e-5f,
                }
            ),
        ];
        LoraConfig[] adapters =
        [
            TinyModel.Lora(0.1f), TinyModel.Lora(0, r: 16), TinyModel.Lora(0, dora: true),
            TinyModel.Lora(0.1f, dora: true), new(8, 16, 0.05f, ["q_proj", "v_proj"]),
            new(8, 16, 0.05f, ["k_proj", "o_proj", "up_proj", "down_proj"])
                { UseDora = true, ModulesToSave = ["lm_head", "norm"] },
        ];
        foreach (var (name, config) in configs)
            foreach (var compute in new[] { DType.F32, DType.BF16 })
                for (int b = 0; b < Batches.Length; b++)
                {
                    int layers = config.NumHiddenLayers;
                    foreach (int recompute in new[] { 0, 1, layers - 1, -1 }.Distinct())
                    {
                        for (int a = 0; a < adapters.Length; a++)
                            yield return ($"{name} {compute} batch {b} recompute {recompute} adapter {a}", config,
                                new ModelSettings(WeightStorage.NF4Double, WeightStorage.BF16, TrainMode.Adapters,
                                    adapters[a], recompute, ComputeType: compute), Batches[b]);
                        if (compute == DType.F32)
                            yield return ($"{name} {compute} batch {b} recompute {recompute} full", config,
                                new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.Full, null,
                                    recompute, 32), Batches[b]);
                    }
                    yield return (
                        $"{name} {compute} batch {b} inference",
                        config,
                        new ModelSettings(
                            WeightStorage.Int8, WeightStorage.BF16, TrainMode.None, TinyModel.Lora(0.1f, dora: b == 1),
                            ComputeType: compute),
                        Batches[b] with
                        {
                            TrainTokens = 0,
                        }
                    );
                }
    }

    // Arena bytes beside the static ones of some shapes when every buffer was freed by hand.
    private static readonly Dictionary<string, long> FreedByHand = new()
    {
        ["smallest F32 batch 0 recompute 0 full"] = 65_280,
        ["small F32 batch 2 recompute -1 adapter 0"] = 5_519_872,
        ["small F32 batch 0 inference"] = 192_256,
        ["135m F32 batch 1 recompute 0 adapter 0"] = 320_190_720,
        ["135m F32 batch 1 recompute -1 adapter 3"] = 149_913_856,
        ["135m BF16 batch 1 recompute 5 adapter 1"] = 245_103_872,
        ["135m F32 batch 2 recompute 1 full"] = 126_438_144,
        ["7b BF16 batch 1 recompute 0 adapter 1"] = 1_700_380_928,
        ["7b BF16 batch 1 recompute -1 adapter 1"] = 375_775_488,
        ["7b BF16 batch 1 recompute 0 adapter 3"] = 3_088_040_192,
        ["7b BF16 batch 2 recompute 1 adapter 5"] = 1_049_046_272,
        ["7b BF16 batch 1 inference"] = 182_501_632,
        ["7b F32 batch 1 recompute 7 adapter 4"] = 742_711_552,
    };

    /// <summary>
    /// In training no plan is higher than what is alive at its peak, and none takes more than when buffers were freed
    /// by hand.
    /// </summary>
    [Fact]
    public void PlansHaveNoGaps()
    {
        int shapes = 0, compared = 0;
        foreach (var (name, config, settings, limits) in Shapes())
        {
            shapes++;
            var plan = PlannedModel.Make(config, settings, limits, 0).Plan;
            foreach (string phase in plan.Phases)
            {
                long most = Most(plan.Buffers.Where(b => b.Phase == phase).ToList()),
                    height = (plan.PhaseBytes(phase) + 255) / 256 * 256;
                Assert.True(height <= (phase == "train" ? most : most * 1.2),
                    $"{name}: {phase} takes {height} bytes where {most} are alive");
            }
            if (!FreedByHand.TryGetValue(name, out long before)) continue;
            compared++;
            Assert.True(plan.ArenaBytes - plan.StaticBytes <= before,
                $"{name}: {plan.ArenaBytes - plan.StaticBytes} bytes, {before} before");
        }
        Assert.Equal((609, FreedByHand.Count), (shapes, compared));

        static long Most(List<PlannedBuffer> buffers)
        {
            var alive = new long[buffers.Max(b => b.Death)];
            foreach (var b in buffers)
                for (int op = b.Birth; op < b.Death; op++) alive[op] += (b.Bytes + 255) / 256 * 256;
            return alive.Max();
        }
    }

    /// <summary>
    /// A run in the arena is bit for bit the one with a place of its own for every buffer: nothing is read after its
    /// life, or before.
    /// </summary>
    [Theory]
    [InlineData(TrainMode.Adapters, 0, 0.1f, false)]
    [InlineData(TrainMode.Adapters, -1, 0.1f, false)]
    [InlineData(TrainMode.Adapters, 1, 0.1f, true)]
    [InlineData(TrainMode.Adapters, -1, 0f, true)]
    [InlineData(TrainMode.Full, 2, 0f, false)]
    internal void TheArenaChangesNoBit(TrainMode mode, int recompute, float dropout, bool dora)
    {
        var config = TinyModel.Small();
        var settings = new ModelSettings(mode == TrainMode.Full ? WeightStorage.F32 : WeightStorage.NF4Double,
            WeightStorage.F32, mode,
            mode == TrainMode.Full ? null : TinyModel.Lora(dropout, dora: dora), recompute, 32);
        var device = new CpuDevice(2);
        var limits = new BatchLimits(150, 5, 150, 150, 5, GenerateTokens: 50, PromptTokens: 16);
        using var engine = new Engine(device, new RandomSource(config), settings, limits);
        if (mode == TrainMode.Adapters) engine.InitializeAdapters(3);
        engine.Update(new AdamWStep(0.01, 0.9, 0.999, 1e-8, 1, 1));
        using var apart = new ApartMemory(new ArenaMemory(engine.Plan,
            engine.TemporaryBytes.Address - (nint)engine.Plan.StaticBytes));
        var model = new LlamaModel(config, settings, device.Ops, apart); // over the engine's own weights and gradients
        // Smaller batches run in the plan of the largest.
        foreach (int[] lengths in new int[][] { [40, 7, 64], [3, 20] })
        {
            var batch = TinyModel.Batch(TinyModel.Rows(config, lengths));
            int labels = batch.LabelCount;
            var run = new Dropout(dropout, 77, 5, 0);
            float[] expected = new float[labels], losses = new float[labels];
            Poison();
            engine.Losses(batch.Host, expected);
            var b = Batch(batch.Host);
            var t = apart.Hold(MemoryCategory.Batch, "losses", DType.F32, new Shape(labels));
            model.Losses(b, t);
            device.Download(t, MemoryMarshal.AsBytes(losses.AsSpan()));
            Assert.Equal(expected, losses);

            engine.ZeroGradients();
            Poison();
            double sum = engine.MicroStep(batch.Host, run, 0.01f);
            var gradients = TinyModel.Gradients(engine);
            engine.ZeroGradients();
            model.ForwardBackward(b, run, 0.01f, t);
            device.Download(t, MemoryMarshal.AsBytes(losses.AsSpan()));
            double again = 0;
            foreach (float loss in losses) again += loss;
            Assert.Equal(sum, again);
            foreach (var (name, gradient) in TinyModel.Gradients(engine))
                Assert.True(gradients[name].AsSpan().SequenceEqual(gradient), $"{name} differs");
            Assert.Contains(gradients, g => g.Value.Any(v => v != 0));
        }

        var ids = TinyModel.Rows(config, [21])[0].Ids;
        Poison();
        float[] logits = new float[config.VocabSize], own = new float[config.VocabSize];
        var cache = engine.StartGeneration();
        engine.Decode(ref cache, ids, logits);
        var kv = new KvCache(model, apart, 50);
        var last = apart.Hold(MemoryCategory.LogitsChunk, "logits", DType.F32, new Shape(1, config.VocabSize));
        foreach (var (start, n) in new[] { (0, 16), (16, 5) })
            model.Decode(Batch(new HostBatch(ids.AsSpan(start, n), Enumerable.Range(start, n).ToArray(), [0, n],
                default, default)), kv, last);
        device.Download(last, MemoryMarshal.AsBytes(own.AsSpan()));
        Assert.Equal(logits, own);

        void Poison() => new Span<byte>((void*)engine.TemporaryBytes.Address,
            (int)engine.TemporaryBytes.Bytes).Fill(0xff); // NaN

        BatchTensors Batch(in HostBatch host)
        {
            var b = BatchTensors.Alloc(apart, host.Ids.Length, host.Offsets.Length - 1, host.Labels.Length);
            device.Upload(MemoryMarshal.AsBytes(host.Ids), b.Ids);
            device.Upload(MemoryMarshal.AsBytes(host.Positions), b.Positions);
            device.Upload(MemoryMarshal.AsBytes(host.Offsets), b.Offsets);
            device.Upload(MemoryMarshal.AsBytes(host.LabelRows), b.LabelRows);
            device.Upload(MemoryMarshal.AsBytes(host.Labels), b.Labels);
            return b;
        }
    }

    /// <summary>
    /// Every operand of every op counts as a use, all of them at one time; else its buffer might be another's too.
    /// </summary>
    [Fact]
    public void EveryOperandOfEveryOpIsSeen()
    {
        var memory = new PlanningMemory();
        IFusedProjections ops = new PlanningOps(memory);
        var seen = new HashSet<string>();
        const int T = 8, H = 64, V = 32, R = 4;
        var shape = new AttentionShape(4, 2, 16, 0);
        Tensor X(int rows, int columns = 1) =>
            memory.Alloc(MemoryCategory.Scratch, "x", DType.F32, new Shape(rows, columns));
        Tensor I(int n) => memory.Alloc(MemoryCategory.Scratch, "rows", DType.I32, new Shape(n));
        LinearWeight W(int o = H) => new(WeightStorage.NF4Double, o, H,
            memory.Alloc(MemoryCategory.Scratch, "codes", DType.U4, new Shape(o, H)),
            memory.Alloc(MemoryCategory.Scratch, "absmax", DType.U8, new Shape(o)),
            X(1), X(1), X(o));
        LinearWeight Table() => new(WeightStorage.F32, V, H, X(V, H));
        AdaptedLinear Part(bool backward) => new(W(), X(R, H), X(H, R), 1, default, X(T, R), X(T, H),
                backward ? X(T, R) : default,
                backward ? X(R, H) : default,
                backward ? X(H, R) : default,
                backward ? default : X(T, H)
            );
        void Op(string name, Action call)
        {
            Assert.True(seen.Add(name));
            int first = memory.Buffers.Count;
            memory.BeginPhase(name);
            call();
            memory.BeginPhase("after " + name); // throws where a buffer was not used
            Assert.All(memory.Buffers.Skip(first), b => Assert.True((b.Birth, b.Death) == (0, 1),
                $"{name}: a {b.Name} {b.Shape} [{b.Birth}, {b.Death})"));
        }

        Op(nameof(ops.Zero), () => ops.Zero(X(T)));
        Op(nameof(ops.Copy), () => ops.Copy(X(T), X(T)));
        Op(nameof(ops.Add), () => ops.Add(X(T), X(T)));
        Op(nameof(ops.ZeroAll), () => ops.ZeroAll([X(T), X(T)]));
        Op(nameof(ops.GatherRows), () => ops.GatherRows(X(T, H), I(3), X(3, H)));
        Op(nameof(ops.ScatterRows), () => ops.ScatterRows(X(3, H), I(3), X(T, H)));
        Op(nameof(ops.Embedding), () => ops.Embedding(I(T), Table(), X(T, H)));
        Op(nameof(ops.AddNoise), () => ops.AddNoise(I(3), default, X(T, H)));
        Op(nameof(ops.EmbeddingBackward), () => ops.EmbeddingBackward(I(T), X(T, H), X(V, H)));
        Op(nameof(ops.RmsNorm), () => ops.RmsNorm(X(T, H), X(H), 0, X(T, H), X(T)));
        Op(nameof(ops.AddRmsNorm), () => ops.AddRmsNorm(X(T, H), X(T, H), X(H), 0, X(T, H), X(T, H), X(T)));
        Op(nameof(ops.RmsNormBackward), () => ops.RmsNormBackward(X(T, H), X(H), X(T), X(T, H), X(T, H), X(H)));
        Op(nameof(ops.Linear), () => ops.Linear(X(T, H), W(), X(T, H)));
        Op(nameof(ops.LinearBackwardInput), () => ops.LinearBackwardInput(X(T, H), W(), false, X(T, H)));
        Op(nameof(ops.LinearBackwardWeight), () => ops.LinearBackwardWeight(X(T, H), X(T, V), X(V, H), X(V)));
        Op(nameof(ops.LoraForward), () => ops.LoraForward(X(T, H), X(R, H), X(V, R), 1, default, X(T, R), X(T, V)));
        Op(nameof(ops.LoraBackward), () =>
            ops.LoraBackward(X(T, H), X(R, H), X(V, R), 1, default, X(T, R), X(T, V), X(T, R),
                X(R, H), X(V, R), X(T, H)));
        Op(nameof(ops.LoraBackwardA), () => ops.LoraBackwardA(X(T, H), default, X(T, R), X(R, H)));
        Op(nameof(ops.LoraLinear), () => ops.LoraLinear(X(T, H), Part(false)));
        Op(nameof(ops.Drop), () => ops.Drop(X(T, H), default, false, false, X(T, H)));
        Op(nameof(ops.DoraScale), () => ops.DoraScale(W(V), X(R, H), X(V, R), 1, X(V), X(V), X(V)));
        Op(nameof(ops.DoraForward), () => ops.DoraForward(X(T, V), X(V), X(V), false, X(T, V)));
        Op(nameof(ops.DoraBackward), () => ops.DoraBackward(X(T, V), X(T, V), X(V), X(V), X(T, V), X(V)));
        Op(nameof(ops.LinearGroup), () => ops.LinearGroup(X(T, H), [Part(false), Part(false)]));
        Op(nameof(ops.LinearGroupBackward), () => ops.LinearGroupBackward(X(T, H), [Part(true), Part(true)], X(T, H)));
        Op(nameof(ops.RopeTable), () => ops.RopeTable(I(T), X(8), 1, X(T, 8), X(T, 8)));
        Op(nameof(ops.Rope), () => ops.Rope(X(T, H), X(T, 8), X(T, 8), 16, false));
        Op(nameof(ops.Attention), () => ops.Attention(X(T, H), X(T, 32), X(T, 32), I(2), shape, X(T, H), X(T, 4)));
        Op(nameof(ops.AttentionBackward), () =>
            ops.AttentionBackward(X(T, H), X(T, 32), X(T, 32), X(T, H), X(T, 4), X(T, H), I(2), shape,
                X(T, 4), X(T, H), X(T, 32), X(T, 32), X(T, 8), X(T, 8)));
        Op(nameof(ops.AttentionMaterialized), () =>
            ops.AttentionMaterialized(X(T, H), X(T, 32), X(T, 32), I(2), shape, X(T, T), X(T, H)));
        Op(nameof(ops.CachedAttention), () => ops.CachedAttention(X(T, H), X(20, 32), X(20, 32), 3, shape, X(T, H)));
        Op(nameof(ops.SwiGlu), () => ops.SwiGlu(X(T, H), X(T, H), X(T, H)));
        Op(nameof(ops.SwiGluBackward), () => ops.SwiGluBackward(X(T, H), X(T, H), X(T, H), X(T, H), X(T, H), X(T, H)));
        Op(nameof(ops.SwiGluGroupBackward), () => ops.SwiGluGroupBackward(Part(true), Part(true), Part(true), X(T, H)));
        Op(nameof(ops.LinearCrossEntropy), () =>
            ops.LinearCrossEntropy(X(T, H), W(V), I(T), 1, X(4, V), X(T), X(T, H), X(V, H), X(T)));
        Op(nameof(ops.CandidateScores), () => ops.CandidateScores(X(T, H), W(V), I(2), X(4, V), X(T, 2), X(T)));
        Op(nameof(ops.GlobalNorm), () => ops.GlobalNorm([X(T), X(T)]));
        Op(nameof(ops.AdamW), () =>
            ops.AdamW([new(X(T), X(T), X(T), X(T), 0), new(X(T), X(T), X(T), X(T), 0)], default));
        Op(nameof(ops.AllFinite), () => ops.AllFinite(X(T)));
        Op(nameof(ops.Quantize), () => ops.Quantize(X(H, H), W()));
        Op(nameof(ops.Dequantize), () => ops.Dequantize(W(), X(H, H)));
        Assert.Equal(
            typeof(IOps).GetMethods().Concat(typeof(IFusedProjections).GetMethods()).Select(m => m.Name)
                .Except([nameof(ops.Room)]).Order(),
            seen.Order());
    }

    /// <summary>Static buffers where an arena has them; every other one in a place of its own, full of NaN.</summary>
    private sealed class ApartMemory(IMemory statics) : IMemory, IDisposable
    {
        private readonly List<nint> _blocks = [];

        public Tensor Static(MemoryCategory category, string name, DType dtype, Shape shape) =>
            statics.Static(category, name, dtype, shape);
        public void BeginPhase(string phase) { }
        public Tensor Hold(MemoryCategory category, string name, DType dtype, Shape shape) =>
            Alloc(category, name, dtype, shape);

        public Tensor Alloc(MemoryCategory category, string name, DType dtype, Shape shape)
        {
            int bytes = (int)dtype.Bytes(shape.Count) + 256;
            void* p = NativeMemory.AlignedAlloc((nuint)bytes, 256);
            new Span<byte>(p, bytes).Fill(0xff);
            _blocks.Add((nint)p);
            return new Tensor((nint)p, dtype, shape);
        }

        public void Dispose()
        {
            foreach (nint p in _blocks) NativeMemory.AlignedFree((void*)p);
        }
    }
}
