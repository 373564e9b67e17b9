using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Formats.Peft;
using Headroom.Models;
using Headroom.Planning;

namespace Headroom.Inference;

/// <summary>
/// A variable-length micro-batch on the host; see <see cref="BatchTensors"/> for the meaning of the arrays.
/// </summary>
internal readonly ref struct HostBatch(
    ReadOnlySpan<int> ids, ReadOnlySpan<int> positions, ReadOnlySpan<int> offsets, ReadOnlySpan<int> labelRows,
    ReadOnlySpan<int> labels, ReadOnlySpan<float> weights = default)
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
    /// <summary>Weight of each label's loss in training [N]; empty where all are 1.</summary>
    public ReadOnlySpan<float> Weights { get; } = weights;
}

/// <summary>
/// The weights of labels in a loss that is a function of theirs, such as one that compares sequences: weight[i] is its
/// derivative by the loss of label i.
/// </summary>
/// <param name="losses">-log p of each label [N], the probability that of the pass at hand.</param>
/// <param name="weights">To be set [N], of either sign.</param>
internal delegate void LabelWeigher(ReadOnlySpan<float> losses, Span<float> weights);

/// <summary>The largest micro-batch of each phase; a phase of size 0 is not planned.</summary>
/// <param name="TrainTokens">Tokens of a training micro-batch.</param>
/// <param name="TrainSequences">Sequences of a training micro-batch.</param>
/// <param name="TrainLabels">Labelled tokens of a training micro-batch.</param>
/// <param name="EvalTokens">Tokens of an evaluation batch.</param>
/// <param name="EvalSequences">Sequences of an evaluation batch.</param>
/// <param name="Candidates">Label words scored in evaluation.</param>
/// <param name="GenerateTokens">Capacity of the key/value cache.</param>
/// <param name="PromptTokens">Longest chunk of a prompt processed at once in generation.</param>
/// <param name="LabelWeights">Whether labels of a training micro-batch may have weights, by themselves or by a
/// <see cref="LabelWeigher"/>.</param>
internal sealed record BatchLimits(
    int TrainTokens = 0,
    int TrainSequences = 0,
    int TrainLabels = 0,
    int EvalTokens = 0,
    int EvalSequences = 0,
    int Candidates = 2, int GenerateTokens = 0, int PromptTokens = 256, bool LabelWeights = false);

/// <summary>
/// A model on a device: planned, reserved once, loaded; then micro-steps, scores and generation within the plan.
/// </summary>
internal sealed partial class Engine : IDisposable
{
    private readonly IDevice _device;
    private readonly ArenaMemory _memory;
    private readonly nint _arena;
    private readonly PlannedModel _planned;
    private readonly float[] _losses, _weights;
    private readonly Tensor[] _grads;
    private readonly string[] _savedModules;
    private readonly ParameterSlot[] _slots;
    private bool _adaptersChanged = true;
    private readonly int[] _hostBatch;
    private readonly BatchPadding _padding;

    /// <summary>Reserves what was planned, and loads.</summary>
    /// <param name="device">The device it was planned on; an engine owns its device from here on.</param>
    /// <param name="source">Weights of the planned configuration.</param>
    /// <param name="planned">The plan.</param>
    /// <param name="progress">Bytes loaded, and of how many.</param>
    public Engine(IDevice device, IWeightSource source, PlannedModel planned, Action<long, long>? progress = null)
        : this(device, planned)
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

    /// <summary>Plans, reserves and loads.</summary>
    public Engine(
        IDevice device, IWeightSource source, ModelSettings settings, BatchLimits limits,
        Action<long, long>? progress = null)
        : this(device, source, PlanOn(device, source.Config, settings, limits), progress) { }

    /// <summary>Plans and reserves; the weights are left for the caller to set (pretraining).</summary>
    public Engine(IDevice device, ModelConfig config, ModelSettings settings, BatchLimits limits)
        : this(device, PlanOn(device, config, settings, limits)) { }

    private static PlannedModel PlanOn(
        IDevice device, ModelConfig config, ModelSettings settings, BatchLimits limits)
    {
        try
        {
            return PlannedModel.Make(config, settings, limits, device.WorkspaceBytes, device);
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

    /// <summary>Reserves what was planned; the weights are left for the caller to set.</summary>
    /// <param name="device">The device it was planned on; an engine owns its device from here on.</param>
    /// <param name="planned">The plan.</param>
    public Engine(IDevice device, PlannedModel planned)
    {
        _device = device;
        _planned = planned;
        try
        {
            _arena = device.Reserve(Plan.ArenaBytes, planned.Replay.Bytes);
            _memory = new ArenaMemory(Plan, _arena);
            Model = new LlamaModel(planned.Config, planned.Settings, device.Ops, _memory);
            if (!Model.ExpandedRoom.IsNone && device is IKeepsExpandedWeights keeps)
                keeps.KeepExpanded(Model.ExpandedRoom);
        }
        catch
        {
            device.Dispose();
            throw;
        }
        var limits = planned.Limits;
        _losses = new float[Math.Max(1, Math.Max(limits.TrainLabels, limits.EvalTokens))];
        _weights = new float[limits.LabelWeights ? limits.TrainLabels : 0];
        _hostBatch = new int[
            Plan
                .Buffers.Where(b => b.Category == MemoryCategory.Batch && b.DType == DType.I32)
                .Select(b => b.Shape.Count)
                .DefaultIfEmpty()
                .Max()
        ];
        _padding = new BatchPadding(limits, planned.Replay.FewShapes);
        _slots = Model.Trained.Select(t => t.Slot).ToArray();
        _grads = _slots.Select(s => s.Grad).ToArray();
        _savedModules = Model.SavedModules.Select(m => m.Name).ToArray();
        foreach (var s in _slots)
        {
            device.Ops.Zero(s.Weight);
            device.Ops.Zero(s.Grad);
            device.Ops.Zero(s.M);
            device.Ops.Zero(s.V);
        }
    }

    /// <summary>The plan; its arena size is what was reserved.</summary>
    public MemoryPlan Plan => _planned.Plan;
    /// <summary>The model.</summary>
    public LlamaModel Model { get; }
    /// <summary>Its settings.</summary>
    public ModelSettings Settings => _planned.Settings;
    /// <summary>The device.</summary>
    public IDevice Device => _device;
    /// <summary>Ragged batches are padded to few shapes that are replayed, which changes their rounding.</summary>
    public bool PadsBatches => _planned.Replay.FewShapes;

    /// <summary>
    /// What was taken out of the base when the adapters were started (PiSSA, LoftQ of several iterations); it is saved
    /// with them, because they mean nothing without it.
    /// </summary>
    public PeftAdapter? Initial { get; set; }

    /// <summary>
    /// Sets random initial adapter values: A ~ U(-1/sqrt(in), 1/sqrt(in)) (torch <c>nn/init.py</c>) or, with gaussian,
    /// N(0, 1/r^2), B = 0 or, with false, U(-1/sqrt(r), 1/sqrt(r)); DoRA's magnitudes are the norms of the rows. Starts
    /// from the base's weights are another matter (Headroom.Training.AdapterStart).
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
            string init = Settings.Lora!.InitLoraWeights;
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

    /// <summary>
    /// LoRA+ (arXiv 2402.12354): the learning rate of B over that of A. As in PEFT (optimizers/loraplus.py) all vectors
    /// go with B: magnitudes of DoRA, norms and biases; a matrix that is trained whole goes with A.
    /// </summary>
    public void SetLoraPlus(double ratio)
    {
        for (int i = 0; i < _slots.Length; i++)
        {
            bool withB = Model.Trained[i].IsLoraB || _slots[i].Weight.Shape.Rank == 1;
            _slots[i] = _slots[i] with { RateRatio = withB ? ratio : 1 };
        }
    }

    /// <summary>
    /// One training micro-step: gradients +=, returns the sum of token losses, each times its weight. Allocates
    /// nothing.
    /// </summary>
    public double MicroStep(in HostBatch batch, in Dropout dropout, float gradScale)
    {
        RefreshAdapters();
        var (tokens, sequences, labels) = _padding.Pad(batch.Ids.Length, batch.Offsets.Length - 1, batch.Labels.Length);
        bool weighted = !batch.Weights.IsEmpty;
        BeginTraining(tokens, sequences, labels, weighted, out var b, out var losses);
        Fill(batch, b);
        var replays = _device as IReplaysSteps;
        var shape = new StepShape(tokens, sequences, labels, dropout.P, dropout.Seed, weighted);
        var start = replays?.Begin(shape, _planned.Replay, dropout.Step, gradScale) ?? StepStart.Issue;
        if (start == StepStart.Issue || start == StepStart.Record && !Record(replays!, b, dropout, gradScale, losses))
            Model.ForwardBackward(b, dropout, gradScale, losses);
        return SumLosses(losses.Head(batch.Labels.Length), batch.Weights);
    }

    /// <summary>
    /// A training micro-step of a loss that is a function of the labels' losses: gradients += <paramref
    /// name="gradScale"/> * sum(weight * gradient of the label's loss). Between forward and backward pass
    /// <paramref name="weigh"/> is given the losses and sets the weights; those of the batch have no part in it. The
    /// head is passed twice, nothing else, in the planned buffers; a device that replays micro-steps issues this one.
    /// </summary>
    /// <returns>The sum of token losses, without weights.</returns>
    /// <exception cref="HeadroomException">Labels are smoothed: the losses would not be -log p.</exception>
    public double MicroStep(in HostBatch batch, in Dropout dropout, float gradScale, LabelWeigher weigh)
    {
        if (Settings.LabelSmoothing > 0)
            throw new HeadroomException("A loss of whole sequences takes no smoothed labels.",
                "Set training.label_smoothing_factor to 0.");
        RefreshAdapters();
        int labels = batch.Labels.Length;
        BeginTraining(batch.Ids.Length, batch.Offsets.Length - 1, labels, true, out var b, out var losses);
        Fill(batch, b);
        Model.Forward(b, dropout, losses);
        double sum = SumLosses(losses, default);
        var weights = _weights.AsSpan(0, labels);
        weigh(_losses.AsSpan(0, labels), weights);
        _device.Upload(MemoryMarshal.AsBytes(weights), b.Weights);
        Model.Backward(b, dropout, gradScale, losses);
        return sum;
    }

    private void BeginTraining(
        int tokens, int sequences, int labels, bool weighted, out BatchTensors b, out Tensor losses)
    {
        if (weighted && !_planned.Limits.LabelWeights)
            throw new InvalidOperationException("weights of labels were not planned");
        Phases.Train(_memory, tokens, sequences, labels, weighted, out b, out losses);
    }

    // Where a record comes to nothing, the ops that follow take the buffers of this one again.
    private bool Record(IReplaysSteps replays, in BatchTensors b, in Dropout dropout, float gradScale, Tensor losses)
    {
        int taken = _memory.Taken;
        Exception? failure = null;
        try
        {
            Model.ForwardBackward(b, dropout, gradScale, losses);
        }
        catch (Exception e)
        {
            failure = e;
        }
        if (replays.EndRecord(failure)) return true;
        _memory.Taken = taken;
        return false;
    }

    /// <summary>
    /// The part of the arena that phases use, as bytes: free to write between two phases, for measurements.
    /// </summary>
    internal Tensor TemporaryBytes =>
        new(
            _arena + (nint)Plan.StaticBytes, DType.U8,
            new Shape((int)Math.Min(int.MaxValue & ~4095, Plan.ArenaBytes - Plan.StaticBytes)));

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

    /// <summary>Sum of token losses without training and without weights.</summary>
    /// <param name="batch">The batch.</param>
    /// <param name="perLabel">Is given the loss of each label, or empty.</param>
    /// <param name="labelSmoothing">label_smoothing_factor of the losses.</param>
    /// <param name="adapters">False: of the base alone, as where no adapter was loaded.</param>
    /// <exception cref="HeadroomException">As <see cref="CheckBaseAlone"/>, without adapters.</exception>
    public double Losses(
        in HostBatch batch, Span<float> perLabel = default, float labelSmoothing = 0, bool adapters = true)
    {
        if (!adapters) CheckBaseAlone();
        RefreshAdapters();
        Phases.Losses(
            _memory, batch.Ids.Length, batch.Offsets.Length - 1, batch.Labels.Length, out var b, out var losses);
        Fill(batch, b);
        Model.Losses(b, losses, labelSmoothing, adapters);
        double sum = SumLosses(losses, default);
        if (!perLabel.IsEmpty) _losses.AsSpan(0, losses.Rows).CopyTo(perLabel);
        return sum;
    }

    /// <summary>
    /// Refuses what leaves no base to fall back on: modules trained whole stand in place of the base's own, and what
    /// PiSSA or LoftQ started from was taken out of the base.
    /// </summary>
    /// <exception cref="HeadroomException">The base is not there by itself.</exception>
    public void CheckBaseAlone()
    {
        if (_savedModules.Length > 0)
            throw new HeadroomException(
                "The base cannot be run by itself: lora.modules_to_save holds another "
                    + $"{string.Join(", ", _savedModules)} in the place of the base's own.",
                "Leave modules_to_save out.");
        if (Initial != null)
            throw new HeadroomException(
                $"The base cannot be run by itself: the adapters' start ({Settings.Lora!.InitLoraWeights}) was taken "
                    + "out of it.",
                "Set lora.init_lora_weights to true or gaussian.");
    }

    /// <summary>Logits of candidates [N, C] and log-sum-exp [N] at the label rows of the batch.</summary>
    public void Scores(in HostBatch batch, ReadOnlySpan<int> candidates, Span<float> scores, Span<float> logSumExp)
    {
        RefreshAdapters();
        int n = batch.LabelRows.Length;
        CheckIds(candidates);
        Phases.Scores(
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
        _memory.BeginPhase(Phases.Generate);
        return new KvCache(Model, _memory, _planned.Limits.GenerateTokens);
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
        int chunk = Math.Min(_planned.Limits.PromptTokens, _planned.Limits.GenerateTokens);
        Span<int> positions = stackalloc int[Math.Min(chunk, ids.Length)];
        Tensor last = default;
        for (int start = 0; start < ids.Length; start += chunk)
        {
            int n = Math.Min(chunk, ids.Length - start), length = cache.Length;
            _memory.BeginPhase(Phases.Generate);
            cache.Reserve(Model, _memory); // same addresses: the contents stay
            Phases.Decode(Model, _memory, n, out var b, out last);
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

    // Without weights all are 1.
    private double SumLosses(Tensor losses, ReadOnlySpan<float> weights)
    {
        _device.Download(losses, MemoryMarshal.AsBytes(_losses.AsSpan(0, losses.Rows)));
        double sum = 0;
        for (int i = 0; i < losses.Rows; i++) sum += weights.IsEmpty ? _losses[i] : weights[i] * (double)_losses[i];
        return sum;
    }
}
