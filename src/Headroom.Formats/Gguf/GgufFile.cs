using System.Buffers;
using System.Buffers.Binary;
using System.IO.MemoryMappedFiles;
using System.Runtime.InteropServices;
using System.Text;
using Headroom.Core;
using Microsoft.Win32.SafeHandles;

namespace Headroom.Formats;

/// <summary>Tensor types of GGUF that can be read.</summary>
public enum GgmlType
{
    /// <summary>float32.</summary>
    F32 = 0,
    /// <summary>float16.</summary>
    F16 = 1,
    /// <summary>32 values: f16 scale, 4-bit codes minus 8.</summary>
    Q4_0 = 2,
    /// <summary>32 values: f16 scale and minimum, 4-bit codes.</summary>
    Q4_1 = 3,
    /// <summary>32 values: f16 scale, int8 codes.</summary>
    Q8_0 = 8,
    /// <summary>bfloat16.</summary>
    BF16 = 30,
}

/// <summary>One tensor of a GGUF file; Rows x Columns in Hugging Face order (GGUF stores dimensions reversed).</summary>
public sealed record GgufTensor(string Name, GgmlType Type, int Rows, int Columns, long Offset)
{
    /// <summary>(values, bytes) of a block.</summary>
    public (int Values, int Bytes) Block => Type switch
    {
        GgmlType.F32 => (1, 4),
        GgmlType.F16 or GgmlType.BF16 => (1, 2),
        GgmlType.Q4_0 => (32, 18),
        GgmlType.Q4_1 => (32, 20),
        _ => (32, 34),
    };

    /// <summary>Bytes of one row.</summary>
    public long RowBytes => (long)Columns / Block.Values * Block.Bytes;
}

/// <summary>
/// A validated GGUF v2 or v3 file (llama.cpp <c>gguf.cpp</c>, <c>ggml-quants.c</c>), little-endian. The header is parsed from a mapping; tensors are
/// read through the handle, because touched pages of a mapping count as resident memory of the process until it ends.
/// </summary>
public sealed unsafe class GgufFile : IDisposable
{
    private readonly SafeFileHandle _handle;
    private byte* _start; // of the mapping, while the header is parsed
    private readonly long _length;
    private long _at;

    /// <summary>Opens and validates the whole table. Throws <see cref="HeadroomException"/>.</summary>
    public GgufFile(string path)
    {
        Path = path;
        if (!File.Exists(path)) throw new HeadroomException($"There is no file {path}.", "Check the path of the model.");
        _length = FileSize.Of(path);
        if (_length < 24) throw Bad("it has fewer than 24 bytes");
        _handle = File.OpenHandle(path);
        try
        {
            using var map = MemoryMappedFile.CreateFromFile(_handle, null, 0, MemoryMappedFileAccess.Read, HandleInheritability.None, leaveOpen: true);
            using var view = map.CreateViewAccessor(0, 0, MemoryMappedFileAccess.Read);
            view.SafeMemoryMappedViewHandle.AcquirePointer(ref _start);
            try
            {
                Parse();
            }
            finally
            {
                _start = null;
                view.SafeMemoryMappedViewHandle.ReleasePointer();
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The file.</summary>
    public string Path { get; }
    /// <summary>Metadata: numbers as long, ulong, double or bool; strings; arrays as string[], long[], float[] or bool[].</summary>
    public Dictionary<string, object> Metadata { get; } = [];
    /// <summary>Tensors by GGUF name.</summary>
    public Dictionary<string, GgufTensor> Tensors { get; } = [];

    /// <summary>A metadata integer, or null.</summary>
    public long? Int(string key) => Metadata.GetValueOrDefault(key) switch { long l => l, ulong u when u <= long.MaxValue => (long)u, _ => null };
    /// <summary>A metadata number, or null.</summary>
    public double? Number(string key) => Metadata.GetValueOrDefault(key) switch { double d => d, long l => l, ulong u => u, _ => null };
    /// <summary>A metadata string, or null.</summary>
    public string? Text(string key) => Metadata.GetValueOrDefault(key) as string;
    /// <summary>A metadata flag, or null.</summary>
    public bool? Flag(string key) => Metadata.GetValueOrDefault(key) as bool?;

    /// <summary>Rows [first, first + count) as float32.</summary>
    public void DequantizeRows(string name, int first, int count, Span<float> destination)
    {
        var t = Tensors[name];
        if (first < 0 || count < 0 || first + count > t.Rows) throw new ArgumentOutOfRangeException(nameof(first));
        int bytes = checked((int)(count * t.RowBytes));
        byte[] raw = ArrayPool<byte>.Shared.Rent(bytes);
        try
        {
            if (FileRead.Exactly(_handle, t.Offset + first * t.RowBytes, raw.AsSpan(0, bytes)) != bytes) throw Bad($"it ends inside tensor {t.Name}");
            fixed (byte* src = raw)
            fixed (float* dst = destination[..checked(count * t.Columns)])
                Dequantize(t.Type, src, dst, (long)count * t.Columns);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(raw);
        }
    }

    /// <summary>Dequantizes consecutive blocks. All arithmetic is float32, as ggml does it.</summary>
    public static void Dequantize(GgmlType type, byte* src, float* dst, long count)
    {
        switch (type)
        {
            case GgmlType.F32:
                Buffer.MemoryCopy(src, dst, count * 4, count * 4);
                break;
            case GgmlType.F16:
                for (long i = 0; i < count; i++) dst[i] = (float)((Half*)src)[i];
                break;
            case GgmlType.BF16:
                for (long i = 0; i < count; i++) dst[i] = BitConverter.UInt32BitsToSingle((uint)((ushort*)src)[i] << 16);
                break;
            case GgmlType.Q8_0:
                for (; count > 0; count -= 32, src += 34, dst += 32)
                {
                    float d = (float)*(Half*)src;
                    for (int i = 0; i < 32; i++) dst[i] = d * ((sbyte*)src)[2 + i];
                }
                break;
            case GgmlType.Q4_0:
                for (; count > 0; count -= 32, src += 18, dst += 32)
                {
                    float d = (float)*(Half*)src;
                    for (int i = 0; i < 16; i++)
                    {
                        dst[i] = ((src[2 + i] & 15) - 8) * d;
                        dst[i + 16] = ((src[2 + i] >> 4) - 8) * d;
                    }
                }
                break;
            case GgmlType.Q4_1:
                for (; count > 0; count -= 32, src += 20, dst += 32)
                {
                    float d = (float)*(Half*)src, m = (float)*(Half*)(src + 2);
                    for (int i = 0; i < 16; i++)
                    {
                        dst[i] = (src[4 + i] & 15) * d + m;
                        dst[i + 16] = (src[4 + i] >> 4) * d + m;
                    }
                }
                break;
        }
    }

    private void Parse()
    {
        if (!Take(4).SequenceEqual("GGUF"u8)) throw Bad("the magic is not GGUF");
        uint version = U32();
        if (version is not (2 or 3)) throw Bad($"version {version} (2 and 3 can be read)");
        ulong tensors = U64(), pairs = U64();
        // A pair takes at least 13 bytes, a tensor entry at least 32: larger counts cannot be true.
        if (pairs > (ulong)_length / 13 || tensors > (ulong)_length / 24) throw Bad("its counts do not fit its length");
        for (ulong i = 0; i < pairs; i++)
        {
            string key = String();
            if (!Metadata.TryAdd(key, Value(U32(), 0))) throw Bad($"key {key} occurs twice");
        }
        var offsets = new List<(GgufTensor Tensor, ulong Offset)>();
        for (ulong i = 0; i < tensors; i++) offsets.Add(Entry());
        long alignment = Int("general.alignment") ?? 32;
        if (alignment <= 0 || alignment > 1 << 20 || (alignment & (alignment - 1)) != 0) throw Bad($"alignment {alignment}");
        long data = (_at + alignment - 1) / alignment * alignment, expected = 0;
        foreach (var (t, offset) in offsets)
        {
            if (offset != (ulong)expected) throw Bad($"tensor {t.Name} is at offset {offset}, not {expected}");
            long bytes = t.Rows * t.RowBytes;
            if (data + expected + bytes > _length) throw Bad($"it ends inside tensor {t.Name}");
            if (!Tensors.TryAdd(t.Name, t with { Offset = data + expected })) throw Bad($"tensor {t.Name} occurs twice");
            expected += (bytes + alignment - 1) / alignment * alignment;
        }
    }

    private (GgufTensor, ulong) Entry()
    {
        string name = String();
        uint rank = U32();
        if (rank is < 1 or > 4) throw Bad($"tensor {name} has {rank} dimensions");
        Span<ulong> dims = [1, 1, 1, 1];
        for (int d = 0; d < rank; d++)
        {
            dims[d] = U64();
            if (dims[d] is 0 or > int.MaxValue) throw Bad($"tensor {name} has a dimension of {dims[d]}");
        }
        uint type = U32();
        ulong offset = U64();
        if (!Enum.IsDefined((GgmlType)type))
            throw new HeadroomException($"Tensor {name} of {System.IO.Path.GetFileName(Path)} has GGUF type {type}.", "Types that can be read: " + string.Join(", ", Enum.GetNames<GgmlType>()) + ".");
        UInt128 rows = (UInt128)dims[1] * dims[2] * dims[3];
        if (rows > int.MaxValue) throw Bad($"tensor {name} has too many rows");
        var t = new GgufTensor(name, (GgmlType)type, (int)rows, (int)dims[0], 0);
        if (t.Columns % t.Block.Values != 0) throw Bad($"the rows of {name} are not whole blocks");
        if ((UInt128)rows * (ulong)t.RowBytes > (ulong)_length) throw Bad($"it is too short for tensor {name}");
        return (t, offset);
    }

    private object Value(uint type, int depth)
    {
        switch (type)
        {
            case 0: return (long)Take(1)[0];
            case 1: return (long)(sbyte)Take(1)[0];
            case 2: return (long)BinaryPrimitives.ReadUInt16LittleEndian(Take(2));
            case 3: return (long)BinaryPrimitives.ReadInt16LittleEndian(Take(2));
            case 4: return (long)U32();
            case 5: return (long)(int)U32();
            case 6: return (double)BinaryPrimitives.ReadSingleLittleEndian(Take(4));
            case 7: return Take(1)[0] != 0;
            case 8: return String();
            case 10: return U64();
            case 11: return (long)U64();
            case 12: return BinaryPrimitives.ReadDoubleLittleEndian(Take(8));
            case 9 when depth == 0: return Array();
            default: throw Bad($"metadata type {type}");
        }
    }

    private object Array()
    {
        uint type = U32();
        ulong count = U64();
        int size = type switch { 0 or 1 or 7 => 1, 2 or 3 => 2, 4 or 5 or 6 => 4, 8 or 10 or 11 or 12 => 8, _ => throw Bad($"array type {type}") };
        if (count > (ulong)(_length - _at) / (ulong)size) throw Bad("an array is longer than the file");
        int n = (int)count;
        switch (type)
        {
            case 8:
                var strings = new string[n];
                for (int i = 0; i < n; i++) strings[i] = String();
                return strings;
            case 6:
                return MemoryMarshal.Cast<byte, float>(Take((long)n * 4)).ToArray();
            case 7:
                return System.Array.ConvertAll(Take(n).ToArray(), b => b != 0);
            default:
                var numbers = new long[n];
                for (int i = 0; i < n; i++) numbers[i] = Value(type, 1) switch { long l => l, ulong u => (long)u, double d => (long)d, _ => 0 };
                return numbers;
        }
    }

    private string String()
    {
        ulong n = U64();
        if (n > (ulong)(_length - _at)) throw Bad("a string is longer than the file");
        return Encoding.UTF8.GetString(Take((long)n));
    }

    private uint U32() => BinaryPrimitives.ReadUInt32LittleEndian(Take(4));
    private ulong U64() => BinaryPrimitives.ReadUInt64LittleEndian(Take(8));

    private ReadOnlySpan<byte> Take(long n)
    {
        if (n > _length - _at || n > int.MaxValue) throw Bad("it ends inside its header");
        var span = new ReadOnlySpan<byte>(_start + _at, (int)n);
        _at += n;
        return span;
    }

    private HeadroomException Bad(string why) =>
        new($"{System.IO.Path.GetFileName(Path)} is not a valid GGUF file: {why}.", "The file is damaged or incomplete; download or copy it again.");

    /// <inheritdoc/>
    public void Dispose() => _handle.Dispose();
}

/// <summary>Reads at a position.</summary>
internal static class FileRead
{
    /// <summary>Fills the span unless the file ends first; returns the bytes read.</summary>
    public static int Exactly(SafeFileHandle handle, long offset, Span<byte> destination)
    {
        int at = 0;
        while (at < destination.Length)
        {
            int n = RandomAccess.Read(handle, destination[at..], offset + at);
            if (n == 0) break;
            at += n;
        }
        return at;
    }
}
