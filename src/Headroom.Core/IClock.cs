using System.Diagnostics;

namespace Headroom.Core;

/// <summary>Time of work on a device; one measurement at a time.</summary>
internal interface IClock
{
    /// <summary>Begins; returns what <see cref="Stop"/> wants.</summary>
    long Start();
    /// <summary>Waits for what was issued since <see cref="Start"/>: its milliseconds.</summary>
    double Stop(long start);
    /// <summary>Milliseconds of some work.</summary>
    double Time(Action work)
    {
        long start = Start();
        work();
        return Stop(start);
    }
}

/// <summary>The host's clock, of work that is done when its call returns.</summary>
internal sealed class WallClock : IClock
{
    /// <summary>It has no state.</summary>
    public static readonly WallClock Instance = new();
    /// <inheritdoc/>
    public long Start() => Stopwatch.GetTimestamp();
    /// <inheritdoc/>
    public double Stop(long start) => Stopwatch.GetElapsedTime(start).TotalMilliseconds;
}
