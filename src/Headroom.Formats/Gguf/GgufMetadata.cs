namespace Headroom.Formats.Gguf;

/// <summary>
/// Key/value pairs of a GGUF file: integers as long (u64: ulong), reals as double, flags, strings; arrays as string[],
/// long[], float[] or bool[].
/// </summary>
internal sealed class GgufMetadata : Dictionary<string, object>
{
    /// <summary>An integer, or null.</summary>
    public long? Int(string key) =>
        this.GetValueOrDefault(key) switch
        {
            long l => l,
            ulong u when u <= long.MaxValue => (long)u,
            _ => null,
        };
    /// <summary>A number, or null.</summary>
    public double? Number(string key) =>
        this.GetValueOrDefault(key) switch
        {
            double d => d,
            long l => l,
            ulong u => u,
            _ => null,
        };
    /// <summary>A string, or null.</summary>
    public string? Text(string key) => this.GetValueOrDefault(key) as string;
    /// <summary>A flag, or null.</summary>
    public bool? Flag(string key) => this.GetValueOrDefault(key) as bool?;
}
