namespace Headroom.Core;

/// <summary>
/// A device that failed in the middle of its work: nothing on it can be trusted any more, what was saved before can.
/// </summary>
/// <param name="call">The operation or call that failed.</param>
/// <param name="message">One line: what is wrong.</param>
/// <param name="toDo">One line: what to do.</param>
public class DeviceException(string call, string message, string toDo) : HeadroomException(message, toDo, 1)
{
    /// <summary>The operation or call that failed.</summary>
    public string Call { get; } = call;
}

/// <summary>Bytes in use on a device, as the driver and the management library see them; -1 = not known.</summary>
/// <param name="Total">Size of the device's memory.</param>
/// <param name="Used">Used by all processes.</param>
/// <param name="Process">Used by this process.</param>
/// <param name="Reserved">Reserved by this device object: arena and workspace.</param>
internal readonly record struct MemoryUse(long Total, long Used, long Process, long Reserved);
