using Headroom.Core;

namespace Headroom.Models;

/// <summary>A trained tensor: its name in the Hugging Face / PEFT layout, its place, gradient and AdamW moments.</summary>
/// <param name="Name">Module path plus ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector", ".weight" or ".bias".</param>
/// <param name="Slot">Weight, gradient, moments and weight decay (set per run).</param>
/// <param name="Decays">False for norms and biases (transformers <c>trainer.py</c>, parameter groups).</param>
public sealed record TrainedParameter(string Name, ParameterSlot Slot, bool Decays);

/// <summary>What of a model is trained.</summary>
public enum TrainMode : byte
{
    /// <summary>Nothing: inference only, no gradients are reserved.</summary>
    None,
    /// <summary>LoRA adapters over a frozen base.</summary>
    Adapters,
    /// <summary>Every weight (used by pretraining).</summary>
    Full,
}

/// <summary>Adapter settings of a model (PEFT <c>LoraConfig</c>).</summary>
/// <param name="R">Rank.</param>
/// <param name="Alpha">lora_alpha.</param>
/// <param name="DropoutP">lora_dropout.</param>
/// <param name="TargetModules">Projection names, such as q_proj.</param>
/// <param name="UseRsLora">Scale by alpha / sqrt(r) in place of alpha / r.</param>
public sealed record LoraSettings(int R, float Alpha, float DropoutP, IReadOnlyList<string> TargetModules, bool UseRsLora = false)
{
    /// <summary>Scaling of modules without a pattern of their own: alpha / r, or alpha / sqrt(r) with rsLoRA.</summary>
    public float Scaling => Scale(R, Alpha);

    private float Scale(int r, float alpha) => UseRsLora ? alpha / MathF.Sqrt(r) : alpha / r;

    /// <summary>DoRA (PEFT use_dora): rows of W + scaling * B A are scaled to a trained magnitude.</summary>
    public bool UseDora { get; init; }

    /// <summary>init_lora_weights: true, false, gaussian, pissa, pissa_niter_N or loftq.</summary>
    public string Init { get; init; } = "true";

    /// <summary>loftq_iter: rounds of quantization and decomposition.</summary>
    public int LoftqIterations { get; init; } = 1;

    /// <summary>modules_to_save: further modules that are trained whole, in float32, and saved with the adapter: lm_head, embed_tokens and norms, by the end of their path.</summary>
    public IReadOnlyList<string> ModulesToSave { get; init; } = [];

    /// <summary>ensure_weight_tying: where the table and the head of the base are one, what is trained of them stays one. Else it is a copy, and they go separate ways.</summary>
    public bool EnsureWeightTying { get; init; }

    /// <summary>True when a module is trained whole (PEFT <c>utils/other.py</c>, _set_trainable: its path ends with an entry).</summary>
    public bool Saves(string path) => ModulesToSave.Any(m => path.EndsWith(m, StringComparison.Ordinal));

    /// <summary>Finer rules than a list of names; null = <see cref="TargetModules"/> alone.</summary>
    public LoraTargets? Targets { get; init; }

    /// <summary>Rank of a module, 0 when it is not adapted, and its scaling.</summary>
    public (int Rank, float Scaling) For(string path)
    {
        var targets = Targets ?? new LoraTargets { Modules = TargetModules };
        if (!targets.Matches(path)) return (0, 0);
        int r = targets.Rank(path, R);
        return (r, Scale(r, targets.Alpha(path, Alpha)));
    }
}

/// <summary>One linear layer of the model: its frozen (or fully trained) weight and, when targeted, its LoRA pair.</summary>
public sealed class Projection
{
    private readonly uint _site;
    private readonly float _scaling, _dropoutP;
    private readonly Tensor _norm, _scale, _gradMagnitude;

    internal Projection(IMemory memory, List<TrainedParameter> trained, string path, int outFeatures, int inFeatures, ModelSettings settings, bool bias, uint site)
    {
        Path = path;
        _site = site;
        var (mode, lora) = (settings.Mode, settings.Lora);
        Weight = WeightAllocation.Allocate(memory, MemoryCategory.BaseWeights, path + ".weight", outFeatures, inFeatures, settings, settings.LinearStorage, bias);
        if (mode == TrainMode.Full)
        {
            GradWeight = WeightAllocation.Train(memory, trained, path + ".weight", Weight.Data, decays: true);
            if (bias) GradBias = WeightAllocation.Train(memory, trained, path + ".bias", Weight.Bias, decays: false);
        }
        if (lora == null) return;
        (Rank, _scaling) = lora.For(path);
        if (Rank == 0) return;
        _dropoutP = lora.DropoutP;
        A = memory.Static(MemoryCategory.Adapters, path + ".lora_A.weight", DType.F32, Shape.Of(Rank, inFeatures));
        B = memory.Static(MemoryCategory.Adapters, path + ".lora_B.weight", DType.F32, Shape.Of(outFeatures, Rank));
        if (lora.UseDora)
        {
            Magnitude = memory.Static(MemoryCategory.Adapters, path + ".lora_magnitude_vector", DType.F32, Shape.Of(outFeatures));
            _norm = memory.Static(MemoryCategory.Adapters, path + ".dora norm", DType.F32, Shape.Of(outFeatures));
            _scale = memory.Static(MemoryCategory.Adapters, path + ".dora scale", DType.F32, Shape.Of(outFeatures));
        }
        if (mode != TrainMode.Adapters) return;
        GradA = WeightAllocation.Train(memory, trained, path + ".lora_A.weight", A, decays: true);
        GradB = WeightAllocation.Train(memory, trained, path + ".lora_B.weight", B, decays: true);
        if (lora.UseDora) _gradMagnitude = WeightAllocation.Train(memory, trained, path + ".lora_magnitude_vector", Magnitude, decays: true);
    }

    /// <summary>Module path, such as model.layers.0.self_attn.q_proj.</summary>
    public string Path { get; }
    /// <summary>The base weight [out, in].</summary>
    public LinearWeight Weight { get; }
    /// <summary>LoRA rank, 0 when not adapted.</summary>
    public int Rank { get; }
    /// <summary>lora_A [r, in], or none.</summary>
    public Tensor A { get; }
    /// <summary>lora_B [out, r], or none.</summary>
    public Tensor B { get; }
    /// <summary>DoRA's magnitude F32 [out], or none.</summary>
    public Tensor Magnitude { get; }
    private bool IsDora => !Magnitude.IsNone;
    private Tensor GradA { get; }
    private Tensor GradB { get; }
    private Tensor GradWeight { get; }
    private Tensor GradBias { get; }

    internal IEnumerable<(string Name, Tensor Weight)> AdapterTensors
    {
        get
        {
            if (Rank == 0) yield break;
            yield return (Path + ".lora_A.weight", A);
            yield return (Path + ".lora_B.weight", B);
            if (IsDora) yield return (Path + ".lora_magnitude_vector", Magnitude);
        }
    }

    /// <summary>True when the backward pass reads what the forward pass gave before it was scaled, so that a recomputed layer must make it too.</summary>
    internal bool KeepsOutput => IsDora;

    /// <summary>True when this projection's forward pass in training needs its dropped input as a tensor.</summary>
    private bool DropsInput => IsDora && _dropoutP > 0;

    /// <summary>True when a group needs the scratch that <see cref="Forward"/> and <see cref="Backward"/> call dropped.</summary>
    internal static bool NeedsDropped(ReadOnlySpan<Projection> group)
    {
        foreach (var p in group)
            if (p.DropsInput) return true;
        return false;
    }

    /// <summary>What the backward pass needs beside the input: x A^T [T, r] of an adapter and, with DoRA, the output before its scaling [T, out].</summary>
    /// <param name="memory">Where from.</param>
    /// <param name="compute">Type of activations.</param>
    /// <param name="tokens">T.</param>
    /// <param name="keep">Whether the layer keeps its intermediate tensors.</param>
    /// <param name="training">Whether a backward pass follows: x A^T then stays even where the layer is recomputed.</param>
    /// <param name="known">What the first forward pass of a recomputed layer left.</param>
    internal Kept Alloc(IMemory memory, DType compute, int tokens, bool keep, bool training, in Kept known)
    {
        if (Rank == 0) return default;
        var xa = known.IsKnown ? known.Xa : memory.Alloc(training ? MemoryCategory.SavedActivations : MemoryCategory.Scratch, "lora xa", compute, Shape.Of(tokens, Rank));
        // Scaled in place where nothing reads it again.
        bool scaledApart = IsDora && (keep || training && DropsInput);
        return new Kept(xa, scaledApart ? memory.Alloc(keep ? MemoryCategory.SavedActivations : MemoryCategory.Scratch, "dora output", compute, Shape.Of(tokens, Weight.Out)) : default, known.IsKnown);
    }

    /// <summary>norm and scale of DoRA from the weights as they are now: due after every change of A, B or the magnitude, and only then, so once an update.</summary>
    internal void Refresh(IOps ops)
    {
        if (IsDora) ops.DoraScale(Weight, A, B, _scaling, Magnitude, _norm, _scale);
    }

    /// <summary>DoRA's magnitude = the norms of the rows as they are now (PEFT's start: the layer's output does not change).</summary>
    public void StartMagnitude(IOps ops)
    {
        Refresh(ops);
        if (IsDora) ops.Copy(_norm, Magnitude);
        Refresh(ops);
    }

    /// <summary>Outputs of a group over one x. <paramref name="dropped"/> [T, in] is scratch; see <see cref="NeedsDropped"/>.</summary>
    internal static void Forward(IOps ops, Tensor x, in Dropout run, ReadOnlySpan<Pass> group, Tensor dropped)
    {
        if (!dropped.IsNone)
        {
            foreach (ref readonly var p in group) p.Projection.ForwardDropped(ops, x, run, p, dropped);
            return;
        }
        Span<AdaptedLinear> parts = stackalloc AdaptedLinear[group.Length];
        for (int i = 0; i < group.Length; i++) parts[i] = group[i].Projection.Part(group[i], run);
        ops.LinearGroup(x, parts);
        foreach (ref readonly var p in group)
        {
            if (!p.Projection.IsDora || p.Y.IsNone) continue;
            ops.DoraForward(p.Kept.U.IsNone ? p.Y : p.Kept.U, p.Projection._scale, p.Projection.Weight.Bias, false, p.Y);
            if (!p.Residual.IsNone) ops.Add(p.Residual, p.Y);
        }
    }

    // DoRA's output before its scaling is (W + scaling * B A) x, without the bias.
    private AdaptedLinear Part(in Pass p, in Dropout run) => !IsDora ? new(Weight, p.Kept.IsKnown ? default : A, B, _scaling, Site(run), p.Kept.Xa, p.Y, Residual: p.Residual)
        : new(Weight with { Bias = default }, p.Kept.IsKnown ? default : A, B, _scaling, Site(run), p.Kept.Xa, p.Kept.U.IsNone ? p.Y : p.Kept.U);

    // With dropout PEFT scales what the dropped input gives and leaves the base's output of the rest: y = W (x - drop(x)) + bias + scale * (W + scaling * B A) drop(x).
    private void ForwardDropped(IOps ops, Tensor x, in Dropout run, in Pass p, Tensor dropped)
    {
        var part = Part(p, run);
        if (!IsDora)
        {
            ops.LinearGroup(x, [part]);
            return;
        }
        var site = Site(run);
        ops.Drop(x, site, rest: false, accumulate: false, dropped);
        ops.LinearGroup(dropped, [part with { Dropout = default }]);
        if (p.Y.IsNone) return;
        ops.Drop(x, site, rest: true, accumulate: false, dropped);
        ops.Linear(dropped, part.W, p.Y);
        ops.DoraForward(p.Kept.U, _scale, Weight.Bias, true, p.Y);
        if (!p.Residual.IsNone) ops.Add(p.Residual, p.Y);
    }

    /// <summary>
    /// Gradients of a group's adapters, and dx (skipped when none) = the sum over the projections. A pass's Y is the gradient of its output; DoRA overwrites it unless the pass
    /// has a place of its own for that. The parts that come back hold dxa and are to be freed with <see cref="Free"/>.
    /// </summary>
    internal static void Backward(IOps ops, IMemory memory, Tensor x, in Dropout run, ReadOnlySpan<Pass> group, Tensor dx, Tensor dropped, Span<AdaptedLinear> parts)
    {
        for (int i = 0; i < group.Length; i++)
        {
            ref readonly var p = ref group[i];
            parts[i] = p.Projection.BackwardPart(memory, run, p);
            if (p.Projection.IsDora && dropped.IsNone) p.Projection.Unscale(ops, p);
        }
        if (dropped.IsNone)
        {
            ops.LinearGroupBackward(x, parts[..group.Length], dx);
            return;
        }
        for (int i = 0; i < group.Length; i++) group[i].Projection.BackwardDropped(ops, x, group[i], parts[i], dx, i > 0, dropped);
    }

    /// <summary>
    /// From the gradient of down's output (its pass's Y) to those of gate and up, in place of what they gave, and of down's adapter; act [T, I] is scratch, and holds silu(gate) * up afterwards where
    /// down has no adapter that is trained. True when gate's and up's gradients of B have been added, so that <see cref="Backward"/> must leave them out.
    /// </summary>
    internal static bool SwiGluBackward(IOps ops, IMemory memory, in Dropout run, in Pass down, in Pass gate, in Pass up, Tensor act, Tensor dropped)
    {
        AdaptedLinear part;
        bool added = false;
        if (down.Projection.IsDora)
        {
            Span<AdaptedLinear> parts = stackalloc AdaptedLinear[1];
            Backward(ops, memory, default, run, [down with { GradA = false }], act, dropped, parts);
            ops.SwiGluBackward(gate.Y, up.Y, act, gate.Y, up.Y, act);
            part = parts[0];
            ops.LoraBackwardA(act, part.Dropout, part.Dxa, down.Projection.GradA);
        }
        else
        {
            part = down.Projection.BackwardPart(memory, run, down);
            added = ops.SwiGluGroupBackward(part, gate.Projection.OutputPart(run, gate), up.Projection.OutputPart(run, up), act);
        }
        Free(memory, down, part);
        return added;
    }

    // What the gradient of B is made of, where it reads the output's gradient itself.
    private AdaptedLinear OutputPart(in Dropout run, in Pass p) => IsDora ? new(Weight, default, default, 0, default, default, p.Y)
        : new(Weight, A, B, _scaling, Site(run), p.Kept.Xa, p.Y, DB: GradB);

    private AdaptedLinear BackwardPart(IMemory memory, in Dropout run, in Pass p) => new(Weight, A, B, _scaling, Site(run), p.Kept.Xa, IsDora ? p.Scaled : p.Y,
        Rank == 0 ? default : memory.Alloc(MemoryCategory.Scratch, "lora dxa", p.Y.DType, Shape.Of(p.Y.Rows, Rank)), p.GradA ? GradA : default, p.GradB ? GradB : default);

    // From the gradient of DoRA's output to the one of what was scaled.
    private void Unscale(IOps ops, in Pass p) => ops.DoraBackward(p.Y, p.Kept.U, _scale, _norm, p.Scaled, _gradMagnitude);

    private void BackwardDropped(IOps ops, Tensor x, in Pass p, in AdaptedLinear part, Tensor dx, bool accumulate, Tensor dropped)
    {
        if (!IsDora)
        {
            if (!dx.IsNone) ops.LinearBackwardInput(p.Y, Weight, accumulate, dx);
            if (Rank > 0) ops.LoraBackward(x, A, B, _scaling, part.Dropout, part.Xa, p.Y, part.Dxa, part.DA, part.DB, dx);
            return;
        }
        if (!dx.IsNone)
        {
            ops.LinearBackwardInput(p.Y, Weight, false, dropped);
            ops.Drop(dropped, part.Dropout, rest: true, accumulate, dx);
        }
        Unscale(ops, p);
        if (!dx.IsNone) ops.LinearBackwardInput(part.Y, Weight, false, dropped);
        ops.LoraBackward(default, A, B, _scaling, default, part.Xa, part.Y, part.Dxa, default, part.DB, dx.IsNone ? default : dropped);
        if (!part.DA.IsNone) ops.LoraBackwardA(x, part.Dropout, part.Dxa, part.DA);
        if (!dx.IsNone) ops.Drop(dropped, part.Dropout, rest: false, accumulate: true, dx);
    }

    /// <summary>A backward pass over this projection; where the gradient <paramref name="dy"/> must stay as it is, DoRA gets scratch of its own.</summary>
    internal Pass BackwardPass(IMemory memory, in Kept kept, Tensor dy, bool keepDy = false) =>
        new(this, kept, dy, IsDora && keepDy ? memory.Alloc(MemoryCategory.Scratch, "dora gradient", dy.DType, dy.Shape) : dy);

    /// <summary>Frees the scratch of a backward pass.</summary>
    internal static void Free(IMemory memory, in Pass p, in AdaptedLinear part)
    {
        memory.Free(part.Dxa);
        if (p.Scaled != p.Y) memory.Free(p.Scaled);
    }

    /// <summary>Gradient of the base weight and bias, when they are trained.</summary>
    internal void BackwardWeight(IOps ops, Tensor x, Tensor dy)
    {
        if (!GradWeight.IsNone) ops.LinearBackwardWeight(x, dy, GradWeight, GradBias);
    }

    private Dropout Site(in Dropout run) => run with { P = run.P > 0 ? _dropoutP : 0, Site = _site };
}

/// <summary>What an adapter keeps for its backward pass.</summary>
/// <param name="Xa">x A^T [T, r] of the dropped x, or none.</param>
/// <param name="U">DoRA: the output before its scaling [T, out], or none when it is not read again.</param>
/// <param name="IsKnown">Xa is there from the first forward pass of a recomputed layer.</param>
internal readonly record struct Kept(Tensor Xa, Tensor U, bool IsKnown = false)
{
    /// <summary>
    /// After the first forward pass of a recomputed layer: Xa alone stays, T r elements beside the layer's input of T hidden ones, so that neither
    /// swiglu nor a product with A is done again. Without a backward pass (not <paramref name="training"/>) nothing stays.
    /// </summary>
    public Kept AfterForward(IMemory memory, bool training)
    {
        memory.Free(U);
        if (training) return new Kept(Xa, default, !Xa.IsNone);
        memory.Free(Xa);
        return default;
    }

    /// <summary>Frees both.</summary>
    public void Free(IMemory memory)
    {
        memory.Free(Xa);
        memory.Free(U);
    }
}

/// <summary>One projection's way through a group.</summary>
/// <param name="Projection">The projection.</param>
/// <param name="Kept">What its adapter keeps.</param>
/// <param name="Y">Output [T, out], or its gradient; forward: none when only <see cref="Kept"/> is wanted.</param>
/// <param name="Scaled">Backward: where DoRA puts the scaled gradient; Y itself when that is not needed again.</param>
/// <param name="Residual">Forward: what the output is added to, or none.</param>
/// <param name="GradA">Backward: false leaves the gradient of A out, when its x is not there yet.</param>
/// <param name="GradB">Backward: false leaves the gradient of B out, when it has been added already.</param>
internal readonly record struct Pass(Projection Projection, Kept Kept, Tensor Y, Tensor Scaled = default, Tensor Residual = default, bool GradA = true, bool GradB = true);

/// <summary>Static buffers for weights.</summary>
internal static class WeightAllocation
{
    // Stored as the tensor named by "like", when that is another one.
    public static LinearWeight Allocate(IMemory memory, MemoryCategory category, string name, int outFeatures, int inFeatures, ModelSettings settings, WeightStorage asked, bool bias, string? like = null)
    {
        var (storage, type) = settings.StorageOf(like ?? name, asked);
        if (storage == WeightStorage.Gguf && settings.Mode == TrainMode.Full) throw new InvalidOperationException("GGUF blocks cannot be trained");
        long n = (long)outFeatures * inFeatures;
        int blocks = LinearWeight.Blocks(n, 64);
        var dtype = storage switch
        {
            WeightStorage.F32 => DType.F32,
            WeightStorage.BF16 => DType.BF16,
            WeightStorage.F16 => DType.F16,
            WeightStorage.Int8 => DType.I8,
            WeightStorage.Gguf => DType.U8,
            _ => DType.U4,
        };
        int columns = storage == WeightStorage.Gguf ? checked((int)type.RowBytes(inFeatures)) : inFeatures;
        var data = memory.Static(category, name, dtype, Shape.Of(outFeatures, columns));
        Tensor absmax = default, nested = default, offset = default;
        switch (storage)
        {
            case WeightStorage.Int8:
                absmax = memory.Static(category, name + ".absmax", DType.F32, Shape.Of(outFeatures));
                break;
            case WeightStorage.NF4:
                absmax = memory.Static(category, name + ".absmax", DType.F32, Shape.Of(blocks));
                break;
            case WeightStorage.NF4Double:
                absmax = memory.Static(category, name + ".absmax", DType.U8, Shape.Of(blocks));
                nested = memory.Static(category, name + ".nested_absmax", DType.F32, Shape.Of(LinearWeight.Blocks(blocks, 256)));
                offset = memory.Static(category, name + ".nested_offset", DType.F32, Shape.Of(1));
                break;
        }
        var b = bias ? memory.Static(category, name.Replace(".weight", ".bias"), DType.F32, Shape.Of(outFeatures)) : default;
        return new LinearWeight(storage, outFeatures, inFeatures, data, absmax, nested, offset, b, BlockType: type);
    }

    /// <summary>Reserves gradient and moments of a trained tensor and lists it; returns the gradient.</summary>
    public static Tensor Train(IMemory memory, List<TrainedParameter> trained, string name, Tensor weight, bool decays)
    {
        var grad = memory.Static(MemoryCategory.Gradients, name + ".grad", DType.F32, weight.Shape);
        var m = memory.Static(MemoryCategory.OptimizerState, name + ".exp_avg", DType.F32, weight.Shape);
        var v = memory.Static(MemoryCategory.OptimizerState, name + ".exp_avg_sq", DType.F32, weight.Shape);
        trained.Add(new TrainedParameter(name, new ParameterSlot(weight, grad, m, v, 0), decays));
        return grad;
    }
}
