using Headroom.Core;

namespace Headroom.Models;

/// <summary>A trained tensor: its name in the Hugging Face / PEFT layout, its place, gradient and AdamW moments.</summary>
/// <param name="Name">Module path plus ".lora_A.weight", ".lora_B.weight", ".weight" or ".bias".</param>
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
        if (mode != TrainMode.Adapters) return;
        GradA = WeightAllocation.Train(memory, trained, path + ".lora_A.weight", A, decays: true);
        GradB = WeightAllocation.Train(memory, trained, path + ".lora_B.weight", B, decays: true);
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
    private Tensor GradA { get; }
    private Tensor GradB { get; }
    private Tensor GradWeight { get; }
    private Tensor GradBias { get; }

    /// <summary>Saved x A^T [T, r], or none when not adapted.</summary>
    internal Tensor AllocXa(IMemory memory, MemoryCategory category, DType compute, int tokens) =>
        Rank == 0 ? default : memory.Alloc(category, "lora xa", compute, Shape.Of(tokens, Rank));

    /// <summary>This projection in a forward group.</summary>
    internal AdaptedLinear ForwardPart(in Dropout run, Tensor xa, Tensor y) => new(Weight, A, B, _scaling, Site(run), xa, y);

    /// <summary>This projection in a backward group; the caller frees <see cref="AdaptedLinear.Dxa"/>. Without <paramref name="gradA"/>, <see cref="BackwardA"/> is to follow.</summary>
    internal AdaptedLinear BackwardPart(IMemory memory, in Dropout run, Tensor xa, Tensor dy, bool gradA = true) => new(Weight, A, B, _scaling, Site(run), xa, dy,
        Rank == 0 ? default : memory.Alloc(MemoryCategory.Scratch, "lora dxa", dy.DType, Shape.Of(dy.Rows, Rank)), gradA ? GradA : default, GradB);

    /// <summary>The gradient of A that a part made without it left out.</summary>
    internal void BackwardA(IOps ops, Tensor x, in AdaptedLinear part)
    {
        if (Rank > 0) ops.LoraBackwardA(x, part.Dropout, part.Dxa, GradA);
    }

    internal void Forward(IOps ops, Tensor x, in Dropout run, Tensor xa, Tensor y) => ops.LinearGroup(x, [ForwardPart(run, xa, y)]);

    /// <summary>Only what the backward pass of this projection needs of its forward pass.</summary>
    internal void ForwardInput(IOps ops, Tensor x, in Dropout run, Tensor xa)
    {
        if (Rank > 0) ops.LoraInput(x, A, Site(run), xa);
    }

    /// <summary>Gradient of the base weight and bias, when they are trained.</summary>
    internal void BackwardWeight(IOps ops, Tensor x, Tensor dy)
    {
        if (!GradWeight.IsNone) ops.LinearBackwardWeight(x, dy, GradWeight, GradBias);
    }

    /// <summary>Parameter gradients, and dx (assigned; skipped when none).</summary>
    internal void Backward(IOps ops, IMemory memory, Tensor x, in Dropout run, Tensor xa, Tensor dy, Tensor dx)
    {
        BackwardWeight(ops, x, dy);
        var part = BackwardPart(memory, run, xa, dy);
        ops.LinearGroupBackward(x, [part], dx);
        memory.Free(part.Dxa);
    }

    private Dropout Site(in Dropout run) => run with { P = run.P > 0 ? _dropoutP : 0, Site = _site };
}

/// <summary>Static buffers for weights.</summary>
internal static class WeightAllocation
{
    public static LinearWeight Allocate(IMemory memory, MemoryCategory category, string name, int outFeatures, int inFeatures, ModelSettings settings, WeightStorage asked, bool bias)
    {
        var (storage, type) = settings.StorageOf(name, asked);
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
