using Headroom.Core;

namespace Headroom.Training.Measure;

/// <summary>A device whose ops can be timed one by one.</summary>
/// <param name="inner">The device.</param>
/// <param name="time">Runs some work and gives its milliseconds; null = the device's own clock.</param>
public sealed class TimedDevice(IDevice inner, Func<Action, double>? time = null) : IDevice
{
    /// <summary>The timed ops.</summary>
    public TimedOps Timed { get; } = new(inner.Ops, time ?? inner.Time);
    /// <summary>On, every op is timed.</summary>
    public bool Timing { set => Timed.On = value; }
    /// <inheritdoc/>
    public string Name => inner.Name;
    /// <inheritdoc/>
    public IOps Ops => Timed;
    /// <inheritdoc/>
    public long WorkspaceBytes => inner.WorkspaceBytes;
    /// <inheritdoc/>
    public DType PreferredCompute => inner.PreferredCompute;
    /// <inheritdoc/>
    public bool ExpandsWeights => inner.ExpandsWeights;
    /// <inheritdoc/>
    public int LargestRank(int widest, DType compute) => inner.LargestRank(widest, compute);
    /// <inheritdoc/>
    public int LargestHead => inner.LargestHead;
    /// <inheritdoc/>
    public string? AttentionNotice(int headDim, DType compute) => inner.AttentionNotice(headDim, compute);
    /// <inheritdoc/>
    public void KeepExpanded(Tensor room) => inner.KeepExpanded(room);
    /// <inheritdoc/>
    public nint Reserve(long bytes, long later = 0) => inner.Reserve(bytes, later);
    /// <inheritdoc/>
    public void Upload(ReadOnlySpan<byte> source, Tensor destination) => inner.Upload(source, destination);
    /// <inheritdoc/>
    public void Upload(RowReader read, Tensor destination) => inner.Upload(read, destination);
    /// <inheritdoc/>
    public void Download(Tensor source, Span<byte> destination) => inner.Download(source, destination);
    /// <inheritdoc/>
    public double Time(Action work) => inner.Time(work);
    /// <inheritdoc/>
    public StepReplay Replay(double flops, long calls, DType compute) => inner.Replay(flops, calls, compute);
    /// <inheritdoc/>
    public void MicroStep(in StepShape shape, in StepReplay replay, uint dropoutStep, float gradScale, Action issue)
    {
        if (Timed.On) issue();
        else inner.MicroStep(shape, replay, dropoutStep, gradScale, issue);
    }
    /// <inheritdoc/>
    public string? Notice => inner.Notice;
    /// <inheritdoc/>
    public MemoryUse? ReadMemory() => inner.ReadMemory();
    /// <inheritdoc/>
    public void Dispose() => inner.Dispose();
}
