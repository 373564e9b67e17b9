namespace Headroom.Core;

/// <summary>What a micro-step's ops and tensors follow from, but for the values in them.</summary>
/// <param name="Tokens">Tokens T.</param>
/// <param name="Sequences">Sequences S.</param>
/// <param name="Labels">Labelled rows N.</param>
/// <param name="DropoutP">Dropout.P.</param>
/// <param name="Seed">Dropout.Seed.</param>
internal readonly record struct StepShape(int Tokens, int Sequences, int Labels, float DropoutP, ulong Seed);

/// <summary>How a device replays training micro-steps; default: it does not.</summary>
/// <param name="Bytes">Bytes of the device that records may take, 0 = none are made.</param>
/// <param name="FewShapes">Issuing the ops takes longer than they do, so that padding ragged batches to few shapes
/// pays.</param>
internal readonly record struct StepReplay(long Bytes, bool FewShapes);

/// <summary>A device that can record the ops of a training micro-step and replay them.</summary>
internal interface IReplaysSteps
{
    /// <summary>
    /// Whether the device would replay training micro-steps, of which the largest takes so many FLOPs in so many ops.
    /// </summary>
    StepReplay Replay(double flops, long calls, DType compute);
    /// <summary>
    /// Issues a training micro-step. <paramref name="issue"/> calls the same ops on the same tensors for the same
    /// shape, but for Dropout.Step and gradScale, and nothing else of the device: a device may record what it issues
    /// and replay that for a later micro-step without calling it. When the device calls it twice, nothing of the first
    /// time has run.
    /// </summary>
    void MicroStep(in StepShape shape, in StepReplay replay, uint dropoutStep, float gradScale, Action issue);
    /// <summary>
    /// What the user should know about how the device runs since recording or replaying failed; null = nothing.
    /// </summary>
    string? Notice => null;
}
