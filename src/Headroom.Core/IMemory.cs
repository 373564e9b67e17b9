namespace Headroom.Core;

/// <summary>Rows of the memory plan.</summary>
internal enum MemoryCategory : byte
{
    /// <summary>Frozen linear weights with their quantization statistics.</summary>
    BaseWeights,
    /// <summary>Embedding table and output head.</summary>
    Embeddings,
    /// <summary>Trained tensors (adapters, or the whole model in full training).</summary>
    Adapters,
    /// <summary>Gradients of trained tensors.</summary>
    Gradients,
    /// <summary>AdamW moments.</summary>
    OptimizerState,
    /// <summary>Token ids, positions, offsets, labels.</summary>
    Batch,
    /// <summary>Activations kept for the backward pass.</summary>
    SavedActivations,
    /// <summary>Short-lived buffers.</summary>
    Scratch,
    /// <summary>Logits of one chunk of rows.</summary>
    LogitsChunk,
    /// <summary>Key/value cache for generation.</summary>
    KvCache,
    /// <summary>
    /// Quantized weights expanded to the activation type, which stay so between products because there is room (GPU).
    /// </summary>
    ExpandedWeights,
    /// <summary>Packing buffers and worker scratch of the ops themselves.</summary>
    Workspace,
}

/// <summary>
/// Where the model's buffers come from. The planning implementation records them, and the planning ops what uses
/// them, from which their lives follow; the arena replays the same sequence of calls and hands out
/// the planned offsets, so a run cannot use what was not planned. Sizes in a run may be smaller than planned (shorter
/// batches), never larger.
/// </summary>
internal interface IMemory
{
    /// <summary>A buffer that lives as long as the model.</summary>
    Tensor Static(MemoryCategory category, string name, DType dtype, Shape shape);
    /// <summary>
    /// Starts a phase ("load", "train", "eval", "generate"): all temporary buffers are dead and the sequence of <see
    /// cref="Hold"/> and <see cref="Alloc"/> starts again.
    /// </summary>
    void BeginPhase(string phase);
    /// <summary>
    /// A buffer that lives as long as its phase: what the host writes before the ops or reads after them, and what a
    /// later start of the phase finds again.
    /// </summary>
    Tensor Hold(MemoryCategory category, string name, DType dtype, Shape shape);
    /// <summary>A temporary buffer, alive from the first op that has it among its operands to the last.</summary>
    Tensor Alloc(MemoryCategory category, string name, DType dtype, Shape shape);
}
