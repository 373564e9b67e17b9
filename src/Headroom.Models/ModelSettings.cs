using Headroom.Core;

namespace Headroom.Models;

/// <summary>How a model is held and trained on a device.</summary>
/// <param name="LinearStorage">Storage of the seven projections of each layer.</param>
/// <param name="EmbeddingStorage">Storage of the embedding table and an untied head (never NF4).</param>
/// <param name="Mode">What is trained.</param>
/// <param name="Lora">Adapters, or null.</param>
/// <param name="RecomputeLayers">The first so many layers keep only their input and run their forward again in the
/// backward pass; -1 = all (a plan may find that the last need not: Headroom.Training.Budget).</param>
/// <param name="LogitsChunk">Rows whose logits exist at a time; 0 = <see cref="LogitsRows"/> chooses.</param>
/// <param name="ComputeType">Type of activations and their gradients: F32 on CPU; BF16 or F16 also on a GPU.</param>
/// <param name="BlockTypes">The types of a GGUF base's matrices by Hugging Face name, where a storage is
/// <see cref="WeightStorage.Gguf"/>.</param>
internal sealed record ModelSettings(
    WeightStorage LinearStorage, WeightStorage EmbeddingStorage, TrainMode Mode, LoraConfig? Lora = null,
    int RecomputeLayers = 0, int LogitsChunk = 0, DType ComputeType = DType.F32,
    IReadOnlyDictionary<string, GgmlType>? BlockTypes = null)
{
    /// <summary>
    /// Projections in another storage than <see cref="LinearStorage"/>, by the name of their weight: what a 4-bit
    /// checkpoint left as it was.
    /// </summary>
    public IReadOnlyDictionary<string, WeightStorage>? Storages { get; init; }

    /// <summary>label_smoothing_factor of the training loss; 0 = off.</summary>
    public float LabelSmoothing { get; init; }

    /// <summary>neftune_noise_alpha of training passes (<see cref="EmbeddingNoise"/>); 0 = off.</summary>
    public float NeftuneNoiseAlpha { get; init; }

    /// <summary>
    /// Bytes in which a device that expands weights may keep some of them expanded
    /// (<see cref="IKeepsExpandedWeights.KeepExpanded"/>), of which whole MiB are taken; 0 = each is expanded when its
    /// product needs it.
    /// </summary>
    public long ExpandedBytes { get; init; }

    /// <summary>
    /// Rows whose logits exist at a time. The gradient's product [rows, V] [V, hidden] has few tiles: 512 rows of 4,096
    /// columns take an H200 504 us and 1,024 take 496, so 16-bit compute has 1,024, or as many whole 128 as take at
    /// most 256 MiB. A CPU is busy with 128 rows, which are 25 MB of 49,152 tokens.
    /// </summary>
    public int LogitsRows(int vocabulary) =>
        LogitsChunk > 0 ? LogitsChunk
        : ComputeType == DType.F32 ? 128
        : (int)Math.Clamp((256L << 20) / (4L * vocabulary) / 128 * 128, 256, 1024);

    /// <summary>
    /// The storage of one matrix: the checkpoint's own where <see cref="Storages"/> names it, else what was asked for;
    /// a plain type of a GGUF file is held as that type.
    /// </summary>
    internal (WeightStorage Storage, GgmlType BlockType) StorageOf(string name, WeightStorage asked)
    {
        if (Storages != null && Storages.TryGetValue(name, out var own)) return (own, GgmlType.F32);
        if (asked != WeightStorage.Gguf) return (asked, GgmlType.F32);
        if (BlockTypes == null || !BlockTypes.TryGetValue(name, out var type))
            throw new InvalidOperationException($"no block type is given for {name}");
        return type switch
        {
            GgmlType.F32 => (WeightStorage.F32, type),
            GgmlType.F16 => (WeightStorage.F16, type),
            GgmlType.BF16 => (WeightStorage.BF16, type),
            _ => (WeightStorage.Gguf, type),
        };
    }
}

/// <summary>One variable-length micro-batch on the device; I32 tensors.</summary>
/// <param name="Ids">[T] token ids.</param>
/// <param name="Positions">[T] position within the sequence.</param>
/// <param name="Offsets">[S + 1] sequence starts, then T.</param>
/// <param name="LabelRows">[N] rows whose next token is labelled.</param>
/// <param name="Labels">[N] that next token.</param>
/// <param name="Weights">F32 [N] weight of its loss in the gradient; none = 1.</param>
internal readonly record struct BatchTensors(
    Tensor Ids, Tensor Positions, Tensor Offsets, Tensor LabelRows, Tensor Labels, Tensor Weights = default)
{
    /// <summary>Tokens T.</summary>
    public int Tokens => Ids.Rows;
    /// <summary>Labelled rows N.</summary>
    public int LabelCount => LabelRows.IsNone ? 0 : LabelRows.Rows;
    /// <summary>Sequences S.</summary>
    public int Sequences => Offsets.Rows - 1;

    /// <summary>The buffer they all lie in.</summary>
    public Tensor All { get; private init; }

    /// <summary>
    /// Allocates a batch of the given sizes in the current phase: one buffer in which each part begins at a multiple of
    /// 64 bytes, so that a batch is one copy to the device. Labels have weights where <paramref name="weighted"/>.
    /// </summary>
    public static BatchTensors Alloc(IMemory memory, int tokens, int sequences, int labels, bool weighted = false)
    {
        ReadOnlySpan<int> sizes = [tokens, tokens, sequences + 1, labels, labels, weighted ? labels : 0];
        Span<int> starts = stackalloc int[sizes.Length];
        int at = 0;
        for (int i = 0; i < sizes.Length; i++)
        {
            starts[i] = at;
            at += (sizes[i] + 15) & ~15;
        }
        var all = memory.Hold(MemoryCategory.Batch, "batch", DType.I32, new Shape(at));
        return new(
            all.Slice(0, tokens), all.Slice(starts[1], tokens), all.Slice(starts[2], sequences + 1),
            all.Slice(starts[3], labels), all.Slice(starts[4], labels),
            weighted ? new Tensor(all.Slice(starts[5], labels).Address, DType.F32, new Shape(labels)) : default)
        {
            All = all,
        };
    }
}
