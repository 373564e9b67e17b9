using System.Text.Json;

namespace Headroom.Formats;

/// <summary>Tells a file that is not what it should be from other faults.</summary>
internal static class Malformed
{
    /// <summary>
    /// True for what parsers of a file's text and readers of its values throw where it is damaged or of another kind:
    /// not JSON, a key that is absent or twice, a value of another kind or out of range.
    /// </summary>
    public static bool Is(Exception e) =>
        e is JsonException
            or FormatException
            or InvalidDataException
            or InvalidOperationException
            or ArgumentException
            or OverflowException
            or KeyNotFoundException;
}
