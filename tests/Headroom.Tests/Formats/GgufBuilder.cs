using System.Text;

namespace Headroom.Tests.Formats;

/// <summary>
/// Writes GGUF files byte by byte from the format's description, so that the reader is tested against it and not
/// against our own writer.
/// </summary>
internal sealed class GgufBuilder
{
    private readonly List<(string Key, uint Type, byte[] Value)> _pairs = [];
    private readonly List<(string Name, ulong[] Dims, uint Type, byte[] Data, ulong? Offset)> _tensors = [];

    public uint Version { get; init; } = 3;
    public string Magic { get; init; } = "GGUF";
    public ulong? TensorCount { get; init; }
    public ulong? PairCount { get; init; }
    public int Alignment { get; init; } = 32;

    public GgufBuilder Raw(string key, uint type, byte[] value)
    {
        _pairs.Add((key, type, value));
        return this;
    }

    public GgufBuilder U32(string key, uint value) => Raw(key, 4, BitConverter.GetBytes(value));
    public GgufBuilder F32(string key, float value) => Raw(key, 6, BitConverter.GetBytes(value));
    public GgufBuilder Text(string key, string value) => Raw(key, 8, String(value));

    /// <summary>A tensor with GGUF dimensions (innermost first).</summary>
    public GgufBuilder Tensor(string name, ulong[] dims, uint type, byte[] data, ulong? offset = null)
    {
        _tensors.Add((name, dims, type, data, offset));
        return this;
    }

    public static byte[] String(string s) =>
        [.. BitConverter.GetBytes((ulong)Encoding.UTF8.GetByteCount(s)), .. Encoding.UTF8.GetBytes(s)];

    public static byte[] Floats(ReadOnlySpan<float> values) =>
        System.Runtime.InteropServices.MemoryMarshal.AsBytes(values).ToArray();

    public byte[] Build()
    {
        var file = new List<byte>();
        void Add(byte[] bytes) => file.AddRange(bytes);
        Add(Encoding.ASCII.GetBytes(Magic));
        Add(BitConverter.GetBytes(Version));
        Add(BitConverter.GetBytes(TensorCount ?? (ulong)_tensors.Count));
        Add(BitConverter.GetBytes(PairCount ?? (ulong)_pairs.Count));
        foreach (var (key, type, value) in _pairs)
        {
            Add(String(key));
            Add(BitConverter.GetBytes(type));
            Add(value);
        }
        ulong at = 0;
        foreach (var (name, dims, type, data, offset) in _tensors)
        {
            Add(String(name));
            Add(BitConverter.GetBytes((uint)dims.Length));
            foreach (ulong d in dims) Add(BitConverter.GetBytes(d));
            Add(BitConverter.GetBytes(type));
            Add(BitConverter.GetBytes(offset ?? at));
            at += (ulong)((data.Length + Alignment - 1) / Alignment * Alignment);
        }
        while (file.Count % Alignment != 0) file.Add(0);
        foreach (var t in _tensors)
        {
            Add(t.Data);
            while (file.Count % Alignment != 0) file.Add(0);
        }
        return [.. file];
    }
}
