namespace Headroom.Core;

/// <summary>Rows of the memory plan.</summary>
public enum MemoryCategory : byte
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
    /// <summary>Quantized weights expanded to the activation type, which stay so between products because there is room (GPU).</summary>
    ExpandedWeights,
    /// <summary>Packing buffers and worker scratch of the ops themselves.</summary>
    Workspace,
}

/// <summary>
/// Where the model's buffers come from. The planning implementation records them, and the planning ops what uses
/// them, from which their lives follow; the arena replays the same sequence of calls and hands out
/// the planned offsets, so a run cannot use what was not planned. Sizes in a run may be smaller than planned (shorter batches), never larger.
/// </summary>
public interface IMemory
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

/// <summary>Writes rows [first, first + count) of something into <paramref name="destination"/>, which holds just them.</summary>
public delegate void RowReader(int first, int count, Span<byte> destination);

/// <summary>What a micro-step's ops and tensors follow from, but for the values in them.</summary>
/// <param name="Tokens">Tokens T.</param>
/// <param name="Sequences">Sequences S.</param>
/// <param name="Labels">Labelled rows N.</param>
/// <param name="DropoutP">Dropout.P.</param>
/// <param name="Seed">Dropout.Seed.</param>
public readonly record struct StepShape(int Tokens, int Sequences, int Labels, float DropoutP, ulong Seed);

/// <summary>How a device replays training micro-steps; default: it does not.</summary>
/// <param name="Bytes">Bytes of the device that records may take, 0 = none are made.</param>
/// <param name="FewShapes">Issuing the ops takes longer than they do, so that padding ragged batches to few shapes pays.</param>
public readonly record struct StepReplay(long Bytes, bool FewShapes);

/// <summary>One device: its ops, one reserved arena, and copies to and from it.</summary>
public interface IDevice : IDisposable
{
    /// <summary>Name for reports.</summary>
    string Name { get; }
    /// <summary>cpu or cuda: whose arithmetic it is.</summary>
    string Kind => "cpu";
    /// <summary>The driver with its version, for reports; null where there is none.</summary>
    string? DriverVersion => null;
    /// <summary>The ops.</summary>
    IOps Ops { get; }
    /// <summary>Bytes of the device that the process holds beside the arena: the ops' workspace and, on a GPU, context and code.</summary>
    long WorkspaceBytes { get; }
    /// <summary>The type of activations that precision "auto" means: BF16 on a GPU that has it, F16 on one that has not, F32 on a CPU, which computes in nothing else.</summary>
    DType PreferredCompute => DType.F32;
    /// <summary>
    /// Reserves the arena of <paramref name="bytes"/>, once; returns its base address (64-byte aligned at least). Throws <see cref="HeadroomException"/> when
    /// the device has not enough free, <paramref name="later"/> counted: bytes that the plan leaves for records of micro-steps, which are made during the run.
    /// </summary>
    nint Reserve(long bytes, long later = 0);
    /// <summary>True when products need quantized weights expanded to the activation type first, which room for them would save.</summary>
    bool ExpandsWeights => false;
    /// <summary>Room of the arena, U8, in which expanded frozen weights may stay between products; what is computed does not change by a bit.</summary>
    void KeepExpanded(Tensor room) { }
    /// <summary>Largest rank of an adapter of a matrix whose wider side has so many elements, in a type of activations.</summary>
    int LargestRank(int widest, DType compute) => int.MaxValue;
    /// <summary>Largest head_dim that attention takes.</summary>
    int LargestHead => int.MaxValue;
    /// <summary>
    /// A line for the user where attention of this size and type takes a slower way than the device has for others;
    /// null = it does not.
    /// </summary>
    string? AttentionNotice(int headDim, DType compute) => null;
    /// <summary>Host to device.</summary>
    void Upload(ReadOnlySpan<byte> source, Tensor destination);
    /// <summary>
    /// Fills a tensor with what <paramref name="read"/> gives, piece by piece: each row is asked for once, from several threads at a time where the
    /// device can use them, and nothing of the tensor's size lies between. An exception of the reader comes out as it is.
    /// </summary>
    void Upload(RowReader read, Tensor destination)
    {
        int rowBytes = (int)destination.DType.Bytes(destination.Columns), step = Math.Max(1, (1 << 20) / Math.Max(1, rowBytes));
        var buffer = new byte[(long)Math.Min(step, destination.Rows) * rowBytes];
        for (int first = 0; first < destination.Rows; first += step)
        {
            int n = Math.Min(step, destination.Rows - first);
            var part = buffer.AsSpan(0, n * rowBytes);
            read(first, n, part);
            Upload(part, destination.Slice(first, n));
        }
    }
    /// <summary>Device to host.</summary>
    void Download(Tensor source, Span<byte> destination);
    /// <summary>Runs work on the device and waits for it: milliseconds that the device took. For measurements.</summary>
    double Time(Action work)
    {
        long start = System.Diagnostics.Stopwatch.GetTimestamp();
        work();
        return System.Diagnostics.Stopwatch.GetElapsedTime(start).TotalMilliseconds;
    }
    /// <summary>Whether the device would replay training micro-steps, of which the largest takes so many FLOPs in so many ops.</summary>
    StepReplay Replay(double flops, long calls, DType compute) => default;
    /// <summary>
    /// Issues a training micro-step. <paramref name="issue"/> calls the same ops on the same tensors for the same shape, but for Dropout.Step and
    /// gradScale, and nothing else of the device: a device may record what it issues and replay that for a later micro-step without calling it. When the
    /// device calls it twice, nothing of the first time has run.
    /// </summary>
    void MicroStep(in StepShape shape, in StepReplay replay, uint dropoutStep, float gradScale, Action issue) => issue();
    /// <summary>What the user should know about how the device runs since something on it failed; null = nothing.</summary>
    string? Notice => null;
    /// <summary>Bytes in use now, or null where the device has no memory of its own.</summary>
    MemoryUse? ReadMemory() => null;
}
