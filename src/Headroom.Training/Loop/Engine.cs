using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Models;
using Headroom.Planning;

namespace Headroom.Training;

/// <summary>
/// A variable-length micro-batch on the host; see <see cref="BatchTensors"/> for the meaning of the arrays.
/// </summary>
public readonly ref struct HostBatch(
    ReadOnlySpan<int> ids, ReadOnlySpan<int> positions, ReadOnlySpan<int> offsets, ReadOnlySpan<int> labelRows,
    ReadOnlySpan<int> labels)
{
    /// <summary>Token ids [T].</summary>
    public ReadOnlySpan<int> Ids { get; } = ids;
    /// <summary>Positions [T].</summary>
    public ReadOnlySpan<int> Positions { get; } = positions;
    /// <summary>Sequence starts and T [S + 1].</summary>
    public ReadOnlySpan<int> Offsets { get; } = offsets;
    /// <summary>Rows with a labelled next token [N].</summary>
    public ReadOnlySpan<int> LabelRows { get; } = labelRows;
    /// <summary>That next token [N].</summary>
    public ReadOnlySpan<int> Labels { get; } = labels;
}

/// <summary>The largest micro-batch of each phase; a phase of size 0 is not planned.</summary>
/// <param name="TrainTokens">Tokens of a training micro-batch.</param>
/// <param name="TrainSequences">Sequences of a training micro-batch.</param>
/// <param name="TrainLabels">Labelled tokens of a training micro-batch.</param>
/// <param name="EvalTokens">Tokens of an evaluation batch.</param>
/// <param name="EvalSequences">Sequences of an evaluation batch.</param>
/// <param name="Candidates">Label words scored in evaluation.</param>
/// <param name="GenerateTokens">Capacity of the key/value cache.</param>
/// <param name="PromptTokens">Longest chunk of a prompt processed at once in generation.</param>
public sealed record BatchLimits(
    int TrainTokens = 0,
    int TrainSequences = 0,
    int TrainLabels = 0,
    int EvalTokens = 0,
    int EvalSequences = 0,
    int Candidates = 2, int GenerateTokens = 0, int PromptTokens = 256);

/// <summary>
/// A model on a device: planned, reserved once, loaded; then micro-steps, scores and generation within the plan.
/// </summary>
public sealed partial class Engine : IDisposable
{
    private readonly IDevice _device;
    private readonly ArenaMemory _memory;
    private readonly nint _arena;
    private readonly BatchLimits _limits;
    private readonly float[] _losses;
    private readonly Tensor[] _grads;
    private readonly ParameterSlot[] _slots;
    private bool _adaptersChanged = true;
    private readonly int[] _hostBatch;
    private readonly BatchPadding _padding;
    private readonly StepReplay _replay;
    private readonly Action _issue;
    private (int Tokens, int Sequences, int Labels, Dropout Dropout, float GradScale) _step;

    /// <summary>Plans, reserves and loads.</summary>
    public Engine(
        IDevice device, IWeightSource source, ModelSettings settings, BatchLimits limits,
        Action<long, long>? progress = null)
        : this(device, source.Config, settings, limits)
    {
        try
        {
            Load(source, progress);
        }
        catch
        {
            device.Dispose();
            throw;
        }
    }

    // A source that knows what was written is checked beside the loading; where it is damaged, all is loaded again from
    // the one it names.
    private void Load(IWeightSource source, Action<long, long>? progress)
    {
        var check = source.Verify();
        ExceptionDispatchInfo? failed = null;
        try
        {
            ModelLoader.Load(Model, source, _device, _memory, progress);
        }
        catch (HeadroomException e)
        {
            failed = ExceptionDispatchInfo.Capture(e);
        }
        if (check.GetAwaiter().GetResult() is { } sound) ModelLoader.Load(Model, sound, _device, _memory, progress);
        else failed?.Throw();
    }

    /// <summary>Plans and reserves; the weights are left for the caller to set (pretraining).</summary>
    public Engine(IDevice device, ModelConfig config, ModelSettings settings, BatchLimits limits)
    {
        _device = device;
        _limits = limits;
        Settings = settings;
        try
        {
            Plan = MakePlan(config, settings, limits, device.WorkspaceBytes, out var counted, device);
            _replay = Replay(device, counted, settings);
            _arena = device.Reserve(Plan.ArenaBytes, _replay.Bytes);
            _memory = new ArenaMemory(Plan, _arena);
            Model = new LlamaModel(config, settings, device.Ops, _memory);
            if (!Model.ExpandedRoom.IsNone && device is IKeepsExpandedWeights keeps)
                keeps.KeepExpanded(Model.ExpandedRoom);
        }
        catch
        {
            device.Dispose(); // an engine owns its device from here on
            throw;
        }
        _losses = new float[Math.Max(1, Math.Max(limits.TrainLabels, limits.EvalTokens))];
        _hostBatch = new int[
            Plan
                .Buffers.Where(b => b.Category == MemoryCategory.Batch && b.DType == DType.I32)
                .Select(b => b.Shape.Count)
                .DefaultIfEmpty()
                .Max()
        ];
        _padding = new BatchPadding(limits, _replay.FewShapes);
        _issue = Issue;
        _slots = Model.Trained.Select(t => t.Slot).ToArray();
        _grads = _slots.Select(s => s.Grad).ToArray();
        foreach (var s in _slots)
        {
            device.Ops.Zero(s.Weight);
            device.Ops.Zero(s.Grad);
            device.Ops.Zero(s.M);
            device.Ops.Zero(s.V);
        }
    }

    /// <summary>The plan; its arena size is what was reserved.</summary>
    public MemoryPlan Plan { get; }
    /// <summary>The model.</summary>
    public LlamaModel Model { get; }
    /// <summary>Its settings.</summary>
    public ModelSettings Settings { get; }
    /// <summary>The device.</summary>
    public IDevice Device => _device;
    /// <summary>Ragged batches are padded to few shapes that are replayed, which changes their rounding.</summary>
    public bool PadsBatches => _replay.FewShapes;

    /// <summary>
    /// Runs the model over planning ops and memory: the plan, and the op counts of one full training micro-step. With a
    /// <paramref name="device"/>, what it takes to replay micro-steps is counted too.
    /// </summary>
    public static MemoryPlan MakePlan(
        ModelConfig config, ModelSettings settings, BatchLimits limits, long workspaceBytes, out PlanningOps ops,
        IDevice? device = null)
    {
        var memory = new PlanningMemory();
        ops = new PlanningOps(memory);
        var model = new LlamaModel(config, settings, ops, memory);
        ModelLoader.Staging(model, memory);
        if (device is IDeviceLimits most) CheckDevice(model, settings.ComputeType, device.Name, most);
        if (limits.EvalTokens > 0)
        {
            LossesIn(memory, limits.EvalTokens, limits.EvalSequences, limits.EvalTokens, out var b, out var losses);
            model.Losses(b, losses);
            ScoresIn(
                memory, limits.EvalTokens, limits.EvalSequences, limits.EvalSequences, limits.Candidates, out b,
                out var c, out var s, out var lse);
            model.Scores(b, c, s, lse);
        }
        if (limits.GenerateTokens > 0)
        {
            memory.BeginPhase("generate");
            var cache = new KvCache(model, memory, limits.GenerateTokens);
            DecodeIn(model, memory, Math.Min(limits.PromptTokens, limits.GenerateTokens), out var b, out var logits);
            model.Decode(b, cache, logits);
        }
        model.RefreshAdapters();
        ops.ResetCounts();
        if (limits.TrainTokens > 0)
        {
            TrainIn(
                memory, limits.TrainTokens, BatchPadding.Sequences(limits), limits.TrainLabels, out var b,
                out var losses);
            // what is counted is a batch that is not padded
            b = b with { Offsets = b.Offsets.Head(limits.TrainSequences + 1) };
            model.ForwardBackward(b, new Dropout(settings.Lora?.DropoutP ?? 0, 0, 0, 0), 1, losses);
        }
        return memory.Build(workspaceBytes + (device == null ? 0 : Replay(device, ops, settings).Bytes));
    }

    private static void CheckDevice(LlamaModel model, DType compute, string name, IDeviceLimits device)
    {
        if (model.Config.HeadDim > device.LargestHead)
            throw new HeadroomException($"The model has heads of {model.Config.HeadDim} elements; {name} "
                + $"takes {device.LargestHead} at most.", "Run with --device cpu.");
        foreach (var p in model.Projections)
            if (device.LargestRank(Math.Max(p.Weight.In, p.Weight.Out), compute) is var most && p.Rank > most)
                throw new HeadroomException(
                    $"{p.Path} has an adapter of rank {p.Rank}; {name} takes {most} at most there.",
                    $"Choose a rank of at most {most}.");
    }

    /// <summary>
    /// Bytes that the frozen weights take in the activation type; see <see cref="LlamaModel.ExpandableBytes"/>.
    /// </summary>
    public static long ExpandableBytes(ModelConfig config, ModelSettings settings)
    {
        var memory = new PlanningMemory();
        return new LlamaModel(config, settings, new PlanningOps(memory), memory).ExpandableBytes;
    }

    private static StepReplay Replay(IDevice device, PlanningOps counted, ModelSettings settings) =>
        counted.Flops > 0 && device is IReplaysSteps replays
            ? replays.Replay(counted.Flops, counted.Counts.Values.Sum(c => c.Calls), settings.ComputeType)
            : default;

    /// <summary>
    /// What was taken out of the base when the adapters were started (PiSSA, LoftQ of several iterations); it is saved
    /// with them, because they mean nothing without it.
    /// </summary>
    public PeftAdapter? Initial { get; set; }

    /// <summary>
    /// Sets random initial adapter values: A ~ U(-1/sqrt(in), 1/sqrt(in)) (torch <c>nn/init.py</c>) or, with gaussian,
    /// N(0, 1/r^2), B = 0 or, with false, U(-1/sqrt(r), 1/sqrt(r)); DoRA's magnitudes are the norms of the rows. Starts
    /// from the base's weights are those of <see cref="AdapterStart"/>.
    /// </summary>
    public void InitializeAdapters(ulong seed)
    {
        uint stream = 0;
        foreach (var p in Model.Projections)
        {
            stream++;
            if (p.Rank == 0) continue;
            var random = new PhiloxRandom(seed, 0x10000000 + stream);
            var values = new float[p.A.Count];
            string init = Settings.Lora!.Init;
            float bound = 1f / MathF.Sqrt(p.Weight.In);
            for (int i = 0; i < values.Length; i++)
                values[i] = init == "gaussian" ? random.NextNormal() / p.Rank : (2 * random.NextFloat() - 1) * bound;
            Write(p.A, values);
            values = new float[p.B.Count];
            if (init == "false")
                for (int i = 0; i < values.Length; i++) values[i] = (2 * random.NextFloat() - 1) / MathF.Sqrt(p.Rank);
            Write(p.B, values);
            p.StartMagnitude(_device.Ops);
        }
    }

    /// <summary>Random weights in place of a checkpoint's, for benchmarks and tests.</summary>
    public void FillRandom(ulong seed) => ModelLoader.FillRandom(Model, _device, _memory, seed);

    /// <summary>Sets weight decay: zero for norms and biases.</summary>
    public void SetWeightDecay(float weightDecay)
    {
        for (int i = 0; i < _slots.Length; i++)
            _slots[i] = _slots[i] with { WeightDecay = Model.Trained[i].Decays ? weightDecay : 0 };
    }

    /// <summary>One training micro-step: gradients += , returns the sum of token losses. Allocates nothing.</summary>
    public double MicroStep(in HostBatch batch, in Dropout dropout, float gradScale)
    {
        RefreshAdapters();
        var (tokens, sequences, labels) = _padding.Of(batch.Ids.Length, batch.Offsets.Length - 1, batch.Labels.Length);
        TrainIn(_memory, tokens, sequences, labels, out var b, out var losses);
        Fill(batch, b);
        _step = (tokens, sequences, labels, dropout, gradScale);
        if (_device is IReplaysSteps replays)
            replays.MicroStep(
                new StepShape(tokens, sequences, labels, dropout.P, dropout.Seed), _replay, dropout.Step, gradScale,
                _issue);
        else Issue();
        return SumLosses(losses.Head(batch.Labels.Length));
    }

    // The device may call it twice: the phase starts anew, at the same addresses.
    private void Issue()
    {
        TrainIn(_memory, _step.Tokens, _step.Sequences, _step.Labels, out var b, out var losses);
        Model.ForwardBackward(b, _step.Dropout, _step.GradScale, losses);
    }

    /// <summary>
    /// The part of the arena that phases use, as bytes: free to write between two phases, for measurements.
    /// </summary>
    internal Tensor TemporaryBytes =>
        new(
            _arena + (nint)Plan.StaticBytes, DType.U8,
            Shape.Of((int)Math.Min(int.MaxValue & ~4095, Plan.ArenaBytes - Plan.StaticBytes)));

    /// <summary>Gradient norm before clipping.</summary>
    public double GradientNorm() => _device.Ops.GlobalNorm(_grads);

    /// <summary>AdamW over every trained tensor, then gradients = 0.</summary>
    public void Update(in AdamWStep step)
    {
        _device.Ops.AdamW(_slots, step);
        AdaptersChanged();
        ZeroGradients();
    }

    /// <summary>Gradients = 0.</summary>
    public void ZeroGradients()
    {
        _device.Ops.ZeroAll(_grads);
    }

    /// <summary>Sum of token losses without training.</summary>
    public double Losses(in HostBatch batch, Span<float> perLabel = default)
    {
        RefreshAdapters();
        LossesIn(_memory, batch.Ids.Length, batch.Offsets.Length - 1, batch.Labels.Length, out var b, out var losses);
        Fill(batch, b);
        Model.Losses(b, losses);
        double sum = SumLosses(losses);
        if (!perLabel.IsEmpty) _losses.AsSpan(0, losses.Rows).CopyTo(perLabel);
        return sum;
    }

    /// <summary>Logits of candidates [N, C] and log-sum-exp [N] at the label rows of the batch.</summary>
    public void Scores(in HostBatch batch, ReadOnlySpan<int> candidates, Span<float> scores, Span<float> logSumExp)
    {
        RefreshAdapters();
        int n = batch.LabelRows.Length;
        CheckIds(candidates);
        ScoresIn(
            _memory, batch.Ids.Length, batch.Offsets.Length - 1, n, candidates.Length, out var b, out var c, out var s,
            out var lse);
        Fill(batch, b);
        _device.Upload(MemoryMarshal.AsBytes(candidates), c);
        Model.Scores(b, c, s, lse);
        _device.Download(s, MemoryMarshal.AsBytes(scores[..(n * candidates.Length)]));
        _device.Download(lse, MemoryMarshal.AsBytes(logSumExp[..n]));
    }

    /// <summary>Starts generation: an empty cache of the planned capacity.</summary>
    public KvCache StartGeneration()
    {
        _memory.BeginPhase("generate");
        return new KvCache(Model, _memory, _limits.GenerateTokens);
    }

    /// <summary>
    /// Appends tokens to the cache in chunks; logits of the last one into <paramref name="logits"/> [V]. The cache must
    /// come from the last <see cref="StartGeneration"/>.
    /// </summary>
    public void Decode(ref KvCache cache, ReadOnlySpan<int> ids, Span<float> logits)
    {
        if (cache.Length + ids.Length > cache.Capacity)
            throw new HeadroomException("The text is longer than the planned context.", "Raise the context length.");
        RefreshAdapters();
        Span<int> offsets = stackalloc int[2];
        int chunk = Math.Min(_limits.PromptTokens, _limits.GenerateTokens);
        Span<int> positions = stackalloc int[Math.Min(chunk, ids.Length)];
        Tensor last = default;
        for (int start = 0; start < ids.Length; start += chunk)
        {
            int n = Math.Min(chunk, ids.Length - start), length = cache.Length;
            _memory.BeginPhase("generate");
            cache.Reserve(Model, _memory); // same addresses: the contents stay
            DecodeIn(Model, _memory, n, out var b, out last);
            for (int i = 0; i < n; i++) positions[i] = length + i;
            offsets[1] = n;
            Fill(new HostBatch(ids.Slice(start, n), positions[..n], offsets, default, default), b);
            Model.Decode(b, cache, last);
        }
        _device.Download(last, MemoryMarshal.AsBytes(logits[..Model.Config.VocabSize]));
    }

    // What is derived from adapters is due anew: DoRA's norms, and what a device has expanded.
    private void AdaptersChanged()
    {
        _adaptersChanged = true;
        (_device as IKeepsExpandedWeights)?.AdaptersChanged();
    }

    // Before the pass that needs it, outside of what a device may record and replay.
    private void RefreshAdapters()
    {
        if (!_adaptersChanged) return;
        Model.RefreshAdapters();
        _adaptersChanged = false;
    }

    /// <inheritdoc/>
    public void Dispose() => _device.Dispose();

    private static void TrainIn(
        IMemory memory, int tokens, int sequences, int labels, out BatchTensors b, out Tensor losses)
    {
        memory.BeginPhase("train");
        b = BatchTensors.Alloc(memory, tokens, sequences, labels);
        losses = memory.Hold(MemoryCategory.Batch, "losses", DType.F32, Shape.Of(labels));
    }

    private static void LossesIn(
        IMemory memory, int tokens, int sequences, int labels, out BatchTensors b, out Tensor losses)
    {
        memory.BeginPhase("eval loss");
        b = BatchTensors.Alloc(memory, tokens, sequences, labels);
        losses = memory.Hold(MemoryCategory.Batch, "losses", DType.F32, Shape.Of(labels));
    }

    private static void ScoresIn(
        IMemory memory, int tokens, int sequences, int labels, int candidates, out BatchTensors b, out Tensor c,
        out Tensor s, out Tensor lse)
    {
        memory.BeginPhase("eval");
        b = BatchTensors.Alloc(memory, tokens, sequences, labels);
        c = memory.Hold(MemoryCategory.Batch, "candidates", DType.I32, Shape.Of(candidates));
        s = memory.Hold(MemoryCategory.Batch, "scores", DType.F32, Shape.Of(labels, candidates));
        lse = memory.Hold(MemoryCategory.Batch, "log-sum-exp", DType.F32, Shape.Of(labels));
    }

    private static void DecodeIn(LlamaModel model, IMemory memory, int tokens, out BatchTensors b, out Tensor logits)
    {
        b = BatchTensors.Alloc(memory, tokens, 1, 0);
        logits = memory.Hold(MemoryCategory.LogitsChunk, "logits", DType.F32, Shape.Of(1, model.Config.VocabSize));
    }

    // A tokenizer may know more tokens than its model: an id beyond the table would read what lies behind it.
    private void CheckIds(ReadOnlySpan<int> ids)
    {
        int last = Model.Config.VocabSize - 1, at = ids.IndexOfAnyExceptInRange(0, last);
        if (at >= 0) throw new HeadroomException($"The tokenizer gives id {ids[at]}, the model's vocabulary ends at "
            + $"{last}.", "Use the model's own tokenizer.");
    }

    private void Fill(in HostBatch host, in BatchTensors b)
    {
        CheckIds(host.Ids);
        var all = _hostBatch.AsSpan(0, b.All.Rows);
        BatchPadding.Write(host, b, all);
        _device.Upload(MemoryMarshal.AsBytes(all), b.All);
    }

    private double SumLosses(Tensor losses)
    {
        _device.Download(losses, MemoryMarshal.AsBytes(_losses.AsSpan(0, losses.Rows)));
        double sum = 0;
        for (int i = 0; i < losses.Rows; i++) sum += _losses[i];
        return sum;
    }
}
