namespace Headroom.Core;

/// <summary>What a micro-step's ops and tensors follow from, but for the values in them.</summary>
/// <param name="Tokens">Tokens T.</param>
/// <param name="Sequences">Sequences S.</param>
/// <param name="Labels">Labelled rows N.</param>
/// <param name="DropoutP">Dropout.P.</param>
/// <param name="Seed">Dropout.Seed.</param>
/// <param name="Weighted">Whether labels have weights.</param>
internal readonly record struct StepShape(
    int Tokens, int Sequences, int Labels, float DropoutP, ulong Seed, bool Weighted = false);

/// <summary>How a device replays training micro-steps; default: it does not.</summary>
/// <param name="Bytes">Bytes of the device that records may take, 0 = none are made.</param>
/// <param name="FewShapes">Issuing the ops takes longer than they do, so that padding ragged batches to few shapes
/// pays.</param>
internal readonly record struct StepReplay(long Bytes, bool FewShapes);

/// <summary>What whoever begins a micro-step does next.</summary>
internal enum StepStart : byte
{
    /// <summary>Issues its ops.</summary>
    Issue,
    /// <summary>Issues its ops, which do not run but are recorded, then calls <see cref="IReplaysSteps.EndRecord"/>.
    /// </summary>
    Record,
    /// <summary>Nothing: a record of it was replayed.</summary>
    Replayed,
}

/// <summary>
/// A device that can record the ops of a training micro-step and replay them for a later one of the same
/// <see cref="StepShape"/>: they are the same ops on the same tensors, but for Dropout.Step and the gradient scale.
/// </summary>
internal interface IReplaysSteps
{
    /// <summary>
    /// Whether the device would replay training micro-steps, of which the largest takes so many FLOPs in so many ops.
    /// </summary>
    StepReplay Replay(double flops, long calls, DType compute);
    /// <summary>Begins a training micro-step.</summary>
    StepStart Begin(in StepShape shape, in StepReplay replay, uint dropoutStep, float gradScale);
    /// <summary>
    /// Ends a record and runs it: true when the micro-step has run; false when the record came to nothing, so that its
    /// ops have to be issued again.
    /// </summary>
    /// <param name="failure">What issuing the ops threw, or null. If it was not recording that failed, issuing them
    /// again shows it.</param>
    bool EndRecord(Exception? failure);
    /// <summary>
    /// What the user should know about how the device runs since recording or replaying failed; null = nothing.
    /// </summary>
    string? Notice => null;
}
