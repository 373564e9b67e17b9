namespace Headroom.Core;

/// <summary>
/// A device whose products need quantized weights expanded to the activation type first. It may expand one ahead of its
/// product, with the adapter beside it, and keep it for the next, so whoever writes weights or adapters says so, after
/// they are written and before an op reads them: the loader, the engine, an update.
/// </summary>
internal interface IKeepsExpandedWeights
{
    /// <summary>
    /// Room of the arena, U8, in which expanded frozen weights may stay between products; what is computed does not
    /// change by a bit.
    /// </summary>
    void KeepExpanded(Tensor room);
    /// <summary>Adapters, or other trained tensors, have other values than before.</summary>
    void AdaptersChanged();
    /// <summary>Stored weights have other values than before, and adapters may have.</summary>
    void WeightsChanged();
}
