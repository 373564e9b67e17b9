namespace Headroom.Core;

/// <summary>
/// Writes rows [first, first + count) of something into <paramref name="destination"/>, which holds just them.
/// </summary>
internal delegate void RowReader(int first, int count, Span<byte> destination);

/// <summary>
/// One device: its ops, one reserved arena, and copies to and from it. What only some devices have is asked for through
/// <see cref="IDeviceLimits"/>, <see cref="IKeepsExpandedWeights"/> and <see cref="IReplaysSteps"/>.
/// </summary>
public interface IDevice : IDisposable
{
    /// <summary>Name for reports.</summary>
    string Name { get; }
    /// <summary>cpu or cuda: whose arithmetic it is.</summary>
    string Kind => "cpu";
    /// <summary>The driver with its version, for reports; null where there is none.</summary>
    internal string? DriverVersion => null;
    /// <summary>The ops.</summary>
    internal IOps Ops { get; }
    /// <summary>
    /// Bytes of the device that the process holds beside the arena: the ops' workspace and, on a GPU, context and code.
    /// </summary>
    internal long WorkspaceBytes { get; }
    /// <summary>
    /// The type of activations that precision "auto" means: BF16 on a GPU that has it, F16 on one that has not, F32 on
    /// a CPU, which computes in nothing else.
    /// </summary>
    internal DType PreferredCompute => DType.F32;
    /// <summary>
    /// Reserves the arena of <paramref name="bytes"/>, once; returns its base address (64-byte aligned at least).
    /// Throws <see cref="HeadroomException"/> when the device has not enough free, <paramref name="later"/> counted:
    /// bytes that the plan leaves for what the device makes for itself during the run
    /// (<see cref="StepReplay.Bytes"/>).
    /// </summary>
    internal nint Reserve(long bytes, long later = 0);
    /// <summary>Host to device. Of a weight or an adapter: see <see cref="IKeepsExpandedWeights"/>.</summary>
    internal void Upload(ReadOnlySpan<byte> source, Tensor destination);
    /// <summary>
    /// Fills a tensor with what <paramref name="read"/> gives, piece by piece: each row is asked for once, from several
    /// threads at a time where the device can use them, and nothing of the tensor's size lies between. An exception of
    /// the reader comes out as it is.
    /// </summary>
    internal void Upload(RowReader read, Tensor destination)
    {
        int rowBytes = (int)destination.DType.Bytes(destination.Columns),
            step = Math.Max(1, (1 << 20) / Math.Max(1, rowBytes));
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
    internal void Download(Tensor source, Span<byte> destination);
    /// <summary>The time that the device takes for what it is given. For measurements.</summary>
    internal IClock Clock => WallClock.Instance;
    /// <summary>Bytes in use now, or null where the device has no memory of its own.</summary>
    internal MemoryUse? ReadMemory() => null;
}
