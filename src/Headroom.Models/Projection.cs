using Headroom.Core;

namespace Headroom.Models;

/// <summary>
/// A trained tensor: its name in the Hugging Face / PEFT layout, its place, gradient and AdamW moments.
/// </summary>
/// <param name="Name">Module path plus ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector", ".weight" or
/// ".bias".</param>
/// <param name="Slot">Weight, gradient, moments and weight decay (set per run).</param>
/// <param name="Decays">False for norms and biases (transformers <c>trainer.py</c>, parameter groups).</param>
internal sealed record TrainedParameter(string Name, ParameterSlot Slot, bool Decays)
{
    /// <summary>True for the second factor of an adapter, [out, r].</summary>
    public bool IsLoraB => Name.EndsWith(".lora_B.weight", StringComparison.Ordinal);
}

/// <summary>What of a model is trained.</summary>
internal enum TrainMode : byte
{
    /// <summary>Nothing: inference only, no gradients are reserved.</summary>
    None,
    /// <summary>LoRA adapters over a frozen base.</summary>
    Adapters,
    /// <summary>Every weight (used by pretraining).</summary>
    Full,
}

/// <summary>
/// One linear layer of the model: its frozen (or fully trained) weight and, when targeted, its LoRA pair.
/// </summary>
internal sealed class Projection
{
    private readonly uint _site;
    private readonly float _scaling, _dropoutP;
    private readonly Tensor _norm, _scale, _gradMagnitude;

    internal Projection(
        IMemory memory, List<TrainedParameter> trained, string path, int outFeatures, int inFeatures,
        ModelSettings settings, bool bias, uint site)
    {
        Path = path;
        _site = site;
        var (mode, lora) = (settings.Mode, settings.Lora);
        Weight = WeightAllocation.Allocate(
            memory, MemoryCategory.BaseWeights, path + ".weight", outFeatures, inFeatures, settings,
            settings.LinearStorage, bias);
        if (mode == TrainMode.Full)
        {
            GradWeight = WeightAllocation.Train(memory, trained, path + ".weight", Weight.Data, decays: true);
            if (bias) GradBias = WeightAllocation.Train(memory, trained, path + ".bias", Weight.Bias, decays: false);
        }
        if (lora == null) return;
        (Rank, _scaling) = lora.For(path);
        if (Rank == 0) return;
        _dropoutP = lora.LoraDropout;
        A = memory.Static(MemoryCategory.Adapters, path + ".lora_A.weight", DType.F32, new Shape(Rank, inFeatures));
        B = memory.Static(MemoryCategory.Adapters, path + ".lora_B.weight", DType.F32, new Shape(outFeatures, Rank));
        if (lora.UseDora)
        {
            Magnitude = memory.Static(
                MemoryCategory.Adapters, path + ".lora_magnitude_vector", DType.F32, new Shape(outFeatures));
            _norm = memory.Static(MemoryCategory.Adapters, path + ".dora norm", DType.F32, new Shape(outFeatures));
            _scale = memory.Static(MemoryCategory.Adapters, path + ".dora scale", DType.F32, new Shape(outFeatures));
        }
        if (mode != TrainMode.Adapters) return;
        GradA = WeightAllocation.Train(memory, trained, path + ".lora_A.weight", A, decays: true);
        GradB = WeightAllocation.Train(memory, trained, path + ".lora_B.weight", B, decays: true);
        if (lora.UseDora)
            _gradMagnitude = WeightAllocation.Train(
                memory, trained, path + ".lora_magnitude_vector", Magnitude, decays: true);
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
    internal bool IsDora => !Magnitude.IsNone;
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

    /// <summary>True when this projection's forward pass in training needs its dropped input as a tensor.</summary>
    internal bool DropsInput => IsDora && _dropoutP > 0;

    /// <summary>
    /// What the backward pass needs beside the input: x A^T [T, r] of an adapter, unless it is known, and, with DoRA,
    /// the output before its scaling [T, out].
    /// </summary>
    internal Kept Keep(IMemory memory, DType compute, int tokens, in LayerPass pass, in Kept known)
    {
        if (Rank == 0) return default;
        bool isKnown = !known.Xa.IsNone;
        var category = pass.Training ? MemoryCategory.SavedActivations : MemoryCategory.Scratch;
        var xa = isKnown ? known.Xa : memory.Alloc(category, "lora xa", compute, new Shape(tokens, Rank));
        // Scaled in place where nothing reads it again.
        bool scaledApart = IsDora && (pass.Keep || pass.Training && DropsInput);
        var u = scaledApart
            ? memory.Alloc(pass.Category, "dora output", compute, new Shape(tokens, Weight.Out))
            : default;
        return new Kept(xa, u, isKnown);
    }

    /// <summary>
    /// norm and scale of DoRA from the weights as they are now: due after every change of A, B or the magnitude, and
    /// only then, so once an update.
    /// </summary>
    internal void Refresh(IOps ops)
    {
        if (IsDora) ops.DoraScale(Weight, A, B, _scaling, Magnitude, _norm, _scale);
    }

    /// <summary>
    /// DoRA's magnitude = the norms of the rows as they are now (PEFT's start: the layer's output does not change).
    /// </summary>
    public void StartMagnitude(IOps ops)
    {
        Refresh(ops);
        if (IsDora) ops.Copy(_norm, Magnitude);
        Refresh(ops);
    }

    /// <summary>The base's projection, as where there is no adapter.</summary>
    internal AdaptedLinear BasePart(Tensor y, Tensor residual) =>
        new(Weight, default, default, 0, default, default, y, Residual: residual);

    /// <summary>
    /// The projection as a part of its group's product. DoRA's output before its scaling is (W + scaling * B A) x,
    /// without the bias.
    /// </summary>
    internal AdaptedLinear ForwardPart(in Dropout run, in Kept kept, Tensor y, Tensor residual)
    {
        var a = kept.IsKnown ? default : A;
        return !IsDora ? new(Weight, a, B, _scaling, Site(run), kept.Xa, y, Residual: residual)
            : new(Weight with { Bias = default }, a, B, _scaling, Site(run), kept.Xa, kept.U.IsNone ? y : kept.U);
    }

    /// <summary>DoRA's scaling of what the group's product gave; nothing without DoRA.</summary>
    internal void Scale(IOps ops, in Kept kept, Tensor y, Tensor residual)
    {
        if (!IsDora || y.IsNone) return;
        ops.DoraForward(kept.U.IsNone ? y : kept.U, _scale, Weight.Bias, false, y);
        if (!residual.IsNone) ops.Add(residual, y);
    }

    /// <summary>
    /// With dropout PEFT scales what the dropped input gives and leaves the base's output of the rest: y = W (x -
    /// drop(x)) + bias + scale * (W + scaling * B A) drop(x). dropped [T, in] is scratch.
    /// </summary>
    internal void ForwardDropped(
        IOps ops, Tensor x, in Dropout run, in Kept kept, Tensor y, Tensor residual, Tensor dropped)
    {
        var part = ForwardPart(run, kept, y, residual);
        if (!IsDora)
        {
            ops.LoraLinear(x, part);
            return;
        }
        var site = Site(run);
        ops.Drop(x, site, rest: false, accumulate: false, dropped);
        ops.LoraLinear(dropped, part with { Dropout = default });
        if (y.IsNone) return;
        ops.Drop(x, site, rest: true, accumulate: false, dropped);
        ops.Linear(dropped, part.W, y);
        ops.DoraForward(kept.U, _scale, Weight.Bias, true, y);
        if (!residual.IsNone) ops.Add(residual, y);
    }

    /// <summary>What the gradient of B is made of, where it reads the output's gradient itself.</summary>
    internal AdaptedLinear OutputPart(in Dropout run, in Kept kept, Tensor y) => IsDora
        ? new(Weight, default, default, 0, default, default, y)
        : new(Weight, A, B, _scaling, Site(run), kept.Xa, y, DB: GradB);

    /// <summary>
    /// The projection as a part of its group's gradient; <paramref name="scaled"/> is where DoRA puts the gradient of
    /// what it scaled.
    /// </summary>
    internal AdaptedLinear BackwardPart(IMemory memory, in Dropout run, in Kept kept, Tensor dy, Tensor scaled,
        bool gradA = true, bool gradB = true) => new(Weight, A, B, _scaling, Site(run), kept.Xa, IsDora ? scaled : dy,
        Rank == 0 ? default : memory.Alloc(MemoryCategory.Scratch, "lora dxa", dy.DType, new Shape(dy.Rows, Rank)),
        gradA ? GradA : default, gradB ? GradB : default);

    /// <summary>From the gradient of DoRA's output to the one of what was scaled; nothing without DoRA.</summary>
    internal void Unscale(IOps ops, in Kept kept, Tensor dy, Tensor scaled)
    {
        if (IsDora) ops.DoraBackward(dy, kept.U, _scale, _norm, scaled, _gradMagnitude);
    }

    /// <summary>The gradient of A that a part left out.</summary>
    internal void BackwardA(IOps ops, Tensor x, in AdaptedLinear part) =>
        ops.LoraBackwardA(x, part.Dropout, part.Dxa, GradA);

    /// <summary>
    /// Gradients of one projection of a group whose dropped input is a tensor; dropped [T, in] is scratch.
    /// </summary>
    internal void BackwardDropped(
        IOps ops, Tensor x, in Kept kept, Tensor dy, in AdaptedLinear part, Tensor dx, bool accumulate, Tensor dropped)
    {
        if (!IsDora)
        {
            if (!dx.IsNone) ops.LinearBackwardInput(dy, Weight, accumulate, dx);
            if (Rank > 0)
                ops.LoraBackward(x, A, B, _scaling, part.Dropout, part.Xa, dy, part.Dxa, part.DA, part.DB, dx);
            return;
        }
        if (!dx.IsNone)
        {
            ops.LinearBackwardInput(dy, Weight, false, dropped);
            ops.Drop(dropped, part.Dropout, rest: true, accumulate, dx);
        }
        Unscale(ops, kept, dy, part.Y);
        if (!dx.IsNone) ops.LinearBackwardInput(part.Y, Weight, false, dropped);
        ops.LoraBackward(
            default, A, B, _scaling, default, part.Xa, part.Y, part.Dxa, default, part.DB, dx.IsNone ? default : dropped
        );
        if (!part.DA.IsNone) ops.LoraBackwardA(x, part.Dropout, part.Dxa, part.DA);
        if (!dx.IsNone) ops.Drop(dropped, part.Dropout, rest: false, accumulate: true, dx);
    }

    /// <summary>Gradient of the base weight and bias, when they are trained.</summary>
    internal void BackwardWeight(IOps ops, Tensor x, Tensor dy)
    {
        if (!GradWeight.IsNone) ops.LinearBackwardWeight(x, dy, GradWeight, GradBias);
    }

    private Dropout Site(in Dropout run) => run with { P = run.P > 0 ? _dropoutP : 0, Site = _site };
}

/// <summary>Static buffers for weights.</summary>
internal static class WeightAllocation
{
    // Stored as the tensor named by "like", when that is another one.
    public static LinearWeight Allocate(
        IMemory memory, MemoryCategory category, string name, int outFeatures, int inFeatures, ModelSettings settings,
        WeightStorage asked, bool bias, string? like = null)
    {
        var (storage, type) = settings.StorageOf(like ?? name, asked);
        if (storage == WeightStorage.Gguf && settings.Mode == TrainMode.Full)
            throw new InvalidOperationException("GGUF blocks cannot be trained");
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
        var data = memory.Static(category, name, dtype, new Shape(outFeatures, columns));
        Tensor absmax = default, nested = default, offset = default;
        switch (storage)
        {
            case WeightStorage.Int8:
                absmax = memory.Static(category, name + ".absmax", DType.F32, new Shape(outFeatures));
                break;
            case WeightStorage.NF4:
                absmax = memory.Static(category, name + ".absmax", DType.F32, new Shape(blocks));
                break;
            case WeightStorage.NF4Double:
                absmax = memory.Static(category, name + ".absmax", DType.U8, new Shape(blocks));
                nested = memory.Static(
                    category, name + ".nested_absmax", DType.F32, new Shape(LinearWeight.Blocks(blocks, 256)));
                offset = memory.Static(category, name + ".nested_offset", DType.F32, new Shape(1));
                break;
        }
        var b = bias
            ? memory.Static(category, name.Replace(".weight", ".bias"), DType.F32, new Shape(outFeatures))
            : default;
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
