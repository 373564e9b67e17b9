using System.Buffers;
using System.Buffers.Binary;
using System.IO.MemoryMappedFiles;
using System.Runtime.InteropServices;
using System.Text;
using Headroom.Core;
using Microsoft.Win32.SafeHandles;

namespace Headroom.Formats.Gguf;

/// <summary>
/// One tensor of a GGUF file; Rows x Columns in Hugging Face order (GGUF stores dimensions reversed).
/// </summary>
internal sealed record GgufTensor(string Name, GgmlType Type, int Rows, int Columns, long Offset)
{
    /// <summary>Bytes of one row.</summary>
    public long RowBytes => Type.RowBytes(Columns);
}

/// <summary>
/// A validated GGUF v2 or v3 file (llama.cpp <c>gguf.cpp</c>, <c>ggml-quants.c</c>), little-endian. The header is
/// parsed from a mapping; tensors are read through the handle, because touched pages of a mapping count as resident
/// memory of the process until it ends.
/// </summary>
internal sealed unsafe class GgufFile : IDisposable
{
    private readonly SafeFileHandle? _handle; // none over memory
    private readonly byte* _start; // of the mapping, while the header is parsed; or of the caller's memory
    private readonly long _length;
    private long _at;

    /// <summary>Opens and validates the whole table. Throws <see cref="HeadroomException"/>.</summary>
    public GgufFile(string path)
    {
        Path = path;
        if (!File.Exists(path))
            throw new HeadroomException($"There is no file {path}.", "Check the path of the model.");
        _length = FileSize.Measure(path);
        GitLfs.Refuse(path);
        if (_length < 24) throw Bad("it has fewer than 24 bytes");
        _handle = File.OpenHandle(path);
        try
        {
            using var map = MemoryMappedFile.CreateFromFile(
                _handle, null, 0, MemoryMappedFileAccess.Read, HandleInheritability.None, leaveOpen: true);
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

    /// <summary>The same over bytes that the caller keeps in place; <paramref name="name"/> is for messages.</summary>
    internal GgufFile(byte* start, long length, string name)
    {
        _start = start;
        _length = length;
        Path = name;
        if (_length < 24) throw Bad("it has fewer than 24 bytes");
        Parse();
    }

    /// <summary>The file.</summary>
    public string Path { get; }
    /// <summary>The key/value pairs.</summary>
    public GgufMetadata Metadata { get; } = new();
    /// <summary>Tensors by GGUF name.</summary>
    public Dictionary<string, GgufTensor> Tensors { get; } = [];

    /// <inheritdoc cref="GgufMetadata.Int"/>
    public long? Int(string key) => Metadata.Int(key);
    /// <inheritdoc cref="GgufMetadata.Number"/>
    public double? Number(string key) => Metadata.Number(key);
    /// <inheritdoc cref="GgufMetadata.Text"/>
    public string? Text(string key) => Metadata.Text(key);
    /// <inheritdoc cref="GgufMetadata.Flag"/>
    public bool? Flag(string key) => Metadata.Flag(key);

    /// <summary>Rows [first, first + count) as float32.</summary>
    public void DequantizeRows(string name, int first, int count, Span<float> destination)
    {
        var t = Tensors[name];
        int bytes = checked((int)(count * t.RowBytes));
        byte[] raw = ArrayPool<byte>.Shared.Rent(bytes);
        try
        {
            ReadRows(name, first, count, raw.AsSpan(0, bytes));
            fixed (byte* src = raw)
            fixed (float* dst = destination[..checked(count * t.Columns)])
                GgmlBlocks.Dequantize(t.Type, src, dst, (long)count * t.Columns);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(raw);
        }
    }

    /// <summary>The blocks of rows [first, first + count) into the front of <paramref name="destination"/>.</summary>
    public void ReadRows(string name, int first, int count, Span<byte> destination)
    {
        var t = Tensors[name];
        if (first < 0 || count < 0 || (long)first + count > t.Rows)
            throw new ArgumentOutOfRangeException(nameof(first));
        long at = t.Offset + first * t.RowBytes;
        var part = destination[..checked((int)(count * t.RowBytes))];
        if (_handle == null) new ReadOnlySpan<byte>(_start + at, part.Length).CopyTo(part);
        else if (FileRead.Exactly(_handle, at, part) != part.Length) throw Bad($"it ends inside tensor {name}");
    }

    private void Parse()
    {
        if (!Take(4).SequenceEqual("GGUF"u8)) throw Bad("the magic is not GGUF");
        uint version = U32();
        if (version is not (2 or 3)) throw Bad($"version {version} (2 and 3 can be read)");
        ulong tensors = U64(), pairs = U64();
        // A pair takes at least 13 bytes, a tensor entry at least 32: larger counts cannot be true.
        if (pairs > (ulong)_length / 13 || tensors > (ulong)_length / 32) throw Bad("its counts do not fit its length");
        for (ulong i = 0; i < pairs; i++)
        {
            string key = String();
            if (!Metadata.TryAdd(key, Value(U32(), 0))) throw Bad($"key {key} occurs twice");
        }
        var offsets = new List<(GgufTensor Tensor, ulong Offset)>();
        for (ulong i = 0; i < tensors; i++) offsets.Add(Entry());
        long alignment = Int("general.alignment") ?? 32;
        if (alignment <= 0 || alignment > 1 << 20 || (alignment & (alignment - 1)) != 0)
            throw Bad($"alignment {alignment}");
        long data = (_at + alignment - 1) / alignment * alignment, expected = 0;
        foreach (var (t, offset) in offsets)
        {
            if (offset != (ulong)expected) throw Bad($"tensor {t.Name} is at offset {offset}, not {expected}");
            long bytes = t.Rows * t.RowBytes;
            if (data + expected + bytes > _length) throw Bad($"it ends inside tensor {t.Name}");
            if (!Tensors.TryAdd(t.Name, t with { Offset = data + expected }))
                throw Bad($"tensor {t.Name} occurs twice");
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
            throw new HeadroomException(
                $"Tensor {name} of {System.IO.Path.GetFileName(Path)} has GGUF type {type}.",
                "Types that can be read: " + string.Join(", ", Enum.GetNames<GgmlType>()) + ".");
        UInt128 rows = (UInt128)dims[1] * dims[2] * dims[3];
        if (rows > int.MaxValue) throw Bad($"tensor {name} has too many rows");
        var t = new GgufTensor(name, (GgmlType)type, (int)rows, (int)dims[0], 0);
        if (t.Columns % t.Type.Block().Values != 0) throw Bad($"the rows of {name} are not whole blocks");
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
        int size = type switch
        {
            0 or 1 or 7 => 1,
            2 or 3 => 2,
            4 or 5 or 6 => 4,
            8 or 10 or 11 or 12 => 8,
            _ => throw Bad($"array type {type}"),
        };
        if (count > (ulong)(_length - _at) / (ulong)size || count > int.MaxValue)
            throw Bad("an array is longer than the file");
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
                for (int i = 0; i < n; i++)
                    numbers[i] = Value(type, 1) switch
                    {
                        long l => l,
                        ulong u => (long)u,
                        double d => (long)d,
                        _ => 0,
                    };
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
        new(
            $"{System.IO.Path.GetFileName(Path)} is not a valid GGUF file: {why}.",
            "The file is damaged or incomplete; download or copy it again.");

    /// <inheritdoc/>
    public void Dispose() => _handle?.Dispose();
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
