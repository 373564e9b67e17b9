using Headroom.Core;
using Headroom.Models;

namespace Headroom.Inference;

/// <summary>
/// What each phase holds from its start on, for the host to write and to read: one sequence of calls for the plan and
/// the run.
/// </summary>
internal static class Phases
{
    /// <summary>The phase of generation, which begins with the key/value cache.</summary>
    public const string Generate = "generate";

    /// <summary>A training micro-step, its labels with weights or without; losses F32 [labels].</summary>
    public static void Train(
        IMemory memory, int tokens, int sequences, int labels, bool weighted, out BatchTensors b, out Tensor losses
    ) => WithLosses("train", memory, tokens, sequences, labels, weighted, out b, out losses);

    /// <summary>Losses without training; losses F32 [labels].</summary>
    public static void Losses(
        IMemory memory, int tokens, int sequences, int labels, out BatchTensors b, out Tensor losses) =>
        WithLosses("eval loss", memory, tokens, sequences, labels, false, out b, out losses);

    private static void WithLosses(
        string phase, IMemory memory, int tokens, int sequences, int labels, bool weighted, out BatchTensors b,
        out Tensor losses)
    {
        memory.BeginPhase(phase);
        b = BatchTensors.Alloc(memory, tokens, sequences, labels, weighted);
        losses = memory.Hold(MemoryCategory.Batch, "losses", DType.F32, new Shape(labels));
    }

    /// <summary>
    /// Scores of candidate tokens: candidates <paramref name="c"/> I32 [candidates], scores <paramref name="s"/> F32
    /// [labels, candidates], log-sum-exp <paramref name="lse"/> F32 [labels].
    /// </summary>
    public static void Scores(
        IMemory memory, int tokens, int sequences, int labels, int candidates, out BatchTensors b, out Tensor c,
        out Tensor s, out Tensor lse)
    {
        memory.BeginPhase("eval");
        b = BatchTensors.Alloc(memory, tokens, sequences, labels);
        c = memory.Hold(MemoryCategory.Batch, "candidates", DType.I32, new Shape(candidates));
        s = memory.Hold(MemoryCategory.Batch, "scores", DType.F32, new Shape(labels, candidates));
        lse = memory.Hold(MemoryCategory.Batch, "log-sum-exp", DType.F32, new Shape(labels));
    }

    /// <summary>Behind the cache: one sequence's next tokens, and the logits of the last of them, F32 [1, V].</summary>
    public static void Decode(LlamaModel model, IMemory memory, int tokens, out BatchTensors b, out Tensor logits)
    {
        b = BatchTensors.Alloc(memory, tokens, 1, 0);
        logits = memory.Hold(MemoryCategory.LogitsChunk, "logits", DType.F32, new Shape(1, model.Config.VocabSize));
    }
}
