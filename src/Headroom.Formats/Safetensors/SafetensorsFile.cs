using System.Buffers.Binary;
using System.IO.MemoryMappedFiles;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Text;
using System.Text.Json;
using Headroom.Core;
using Headroom.Formats.Gguf;
using Microsoft.Win32.SafeHandles;

namespace Headroom.Formats.Safetensors;

/// <summary>One tensor of a safetensors file: dtype name, shape, and byte range in the data buffer.</summary>
internal sealed record SafetensorInfo(string Name, string DType, long[] Shape, long Begin, long End)
{
    /// <summary>Number of elements.</summary>
    public long Count => Shape.Aggregate(1L, (a, b) => a * b);
}

/// <summary>
/// A memory-mapped safetensors file, validated as the reference reader does (huggingface/safetensors <c>tensor.rs</c>)
/// and stricter: duplicate keys are refused. Nothing is allocated from numbers of the file before they are checked
/// against its length.
/// </summary>
internal sealed unsafe class SafetensorsFile : IDisposable
{
    internal const long MaxHeader = 100_000_000;
    private const int Piece = 1 << 24; // elements that are widened at a time: a span of bytes holds less than 2 GiB
    private readonly SafeFileHandle? _handle;
    private readonly MemoryMappedFile? _map;
    private readonly MemoryMappedViewAccessor? _view;
    private readonly byte* _data;
    private readonly long _dataAt;

    private SafetensorsFile(string path)
    {
        Path = path;
        if (!File.Exists(path))
            throw new HeadroomException($"There is no file {path}.", "Check the path of the model.");
        RegularFile.Check(path);
        _handle = File.OpenHandle(path);
        try
        {
            long length = RandomAccess.GetLength(_handle);
            GitLfs.Refuse(path);
            if (length < 8) throw Bad("HeaderTooSmall: the file has fewer than 8 bytes");
            _map = MemoryMappedFile.CreateFromFile(
                _handle, null, 0, MemoryMappedFileAccess.Read, HandleInheritability.None, leaveOpen: true);
            _view = _map.CreateViewAccessor(0, 0, MemoryMappedFileAccess.Read);
            byte* start = null;
            _view.SafeMemoryMappedViewHandle.AcquirePointer(ref start);
            ulong n = BinaryPrimitives.ReadUInt64LittleEndian(new ReadOnlySpan<byte>(start, 8));
            if (n > MaxHeader) throw Bad($"HeaderTooLarge: {n} header bytes");
            if (8 + (long)n > length) throw Bad("InvalidHeaderLength: the header is longer than the file");
            (Tensors, Metadata) = Parse(new ReadOnlySpan<byte>(start + 8, (int)n), length - 8 - (long)n, path);
            _dataAt = 8 + (long)n;
            _data = start + _dataAt;
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Opens and validates. Throws <see cref="HeadroomException"/> naming the failed check.</summary>
    public static SafetensorsFile Open(string path) => new(path);

    /// <summary>The file.</summary>
    public string Path { get; }
    /// <summary>Tensors by name.</summary>
    public IReadOnlyDictionary<string, SafetensorInfo> Tensors { get; } = new Dictionary<string, SafetensorInfo>();
    /// <summary>The __metadata__ strings.</summary>
    public IReadOnlyDictionary<string, string> Metadata { get; } = new Dictionary<string, string>();

    /// <summary>Raw bytes of a tensor (at most 2 GiB at a time).</summary>
    public ReadOnlySpan<byte> Bytes(string name, long offset, int count)
    {
        var t = Tensors[name];
        if (offset < 0 || t.Begin + offset + count > t.End) throw new ArgumentOutOfRangeException(nameof(offset));
        return new ReadOnlySpan<byte>(_data + t.Begin + offset, count);
    }

    /// <summary>
    /// Bytes of a tensor from <paramref name="offset"/> on, read from the file and not from the map: no page faults,
    /// and the file's pages are not counted as the process's own. Callable from several threads. Throws
    /// <see cref="HeadroomException"/> when the file has become shorter.
    /// </summary>
    public void Read(string name, long offset, Span<byte> destination)
    {
        var t = Tensors[name];
        if (offset < 0 || t.Begin + offset + destination.Length > t.End)
            throw new ArgumentOutOfRangeException(nameof(offset));
        if (FileRead.Exactly(_handle!, _dataAt + t.Begin + offset, destination) != destination.Length)
            throw Bad($"it ends inside {name}");
    }

    /// <summary>All bytes of a tensor.</summary>
    public ReadOnlySpan<byte> Bytes(string name) =>
        Bytes(name, 0, checked((int)(Tensors[name].End - Tensors[name].Begin)));

    /// <summary>Elements [first, first + destination.Length) as float32; F32, F64, BF16 and F16 tensors.</summary>
    public void ReadF32(string name, long first, Span<float> destination) => ReadF32(name, first, destination, Piece);

    /// <summary>The same in pieces of so many elements.</summary>
    internal void ReadF32(string name, long first, Span<float> destination, int piece)
    {
        do
        {
            int n = Math.Min(piece, destination.Length);
            ReadPiece(name, first, destination[..n]);
            first += n;
            destination = destination[n..];
        }
        while (!destination.IsEmpty);
    }

    private void ReadPiece(string name, long first, Span<float> destination)
    {
        switch (Tensors[name].DType)
        {
            case "F32":
                MemoryMarshal.Cast<byte, float>(Bytes(name, first * 4, destination.Length * 4)).CopyTo(destination);
                break;
            case "BF16":
                var b = MemoryMarshal.Cast<byte, ushort>(Bytes(name, first * 2, destination.Length * 2));
                WidenBf16(b, destination);
                break;
            case "F16":
                var h = MemoryMarshal.Cast<byte, Half>(Bytes(name, first * 2, destination.Length * 2));
                for (int i = 0; i < h.Length; i++) destination[i] = (float)h[i];
                break;
            case "F64":
                var d = MemoryMarshal.Cast<byte, double>(Bytes(name, first * 8, destination.Length * 8));
                for (int i = 0; i < d.Length; i++) destination[i] = (float)d[i];
                break;
            default:
                throw new HeadroomException(
                    $"Tensor {name} of {System.IO.Path.GetFileName(Path)} has dtype {Tensors[name].DType}.",
                    "Only F32, F64, BF16 and F16 can be read as weights.");
        }
    }

    /// <summary>bfloat16 is the upper half of a float32: each value is widened and shifted, 32 at a time.</summary>
    private static void WidenBf16(ReadOnlySpan<ushort> source, Span<float> destination)
    {
        int i = 0;
        ref ushort from = ref MemoryMarshal.GetReference(source);
        ref float to = ref MemoryMarshal.GetReference(destination[..source.Length]);
        if (Vector512.IsHardwareAccelerated)
            for (; i <= source.Length - Vector512<ushort>.Count; i += Vector512<ushort>.Count)
            {
                var (low, high) = Vector512.Widen(Vector512.LoadUnsafe(ref from, (nuint)i));
                (low << 16).AsSingle().StoreUnsafe(ref to, (nuint)i);
                (high << 16).AsSingle().StoreUnsafe(ref to, (nuint)(i + 16));
            }
        else
            for (; i <= source.Length - Vector256<ushort>.Count; i += Vector256<ushort>.Count)
            {
                var (low, high) = Vector256.Widen(Vector256.LoadUnsafe(ref from, (nuint)i));
                (low << 16).AsSingle().StoreUnsafe(ref to, (nuint)i);
                (high << 16).AsSingle().StoreUnsafe(ref to, (nuint)(i + 8));
            }
        for (; i < source.Length; i++) destination[i] = BitConverter.UInt32BitsToSingle((uint)source[i] << 16);
    }

    /// <summary>A whole tensor as float32.</summary>
    public float[] ReadF32(string name)
    {
        if (!Tensors.TryGetValue(name, out var t))
            throw new HeadroomException(
                $"There is no tensor {name} in {System.IO.Path.GetFileName(Path)}.", "Use a complete file.");
        var values = new float[t.Count];
        ReadF32(name, 0, values);
        return values;
    }

    /// <summary>A whole I64 or I32 tensor.</summary>
    public long[] ReadI64(string name) => Tensors[name].DType switch
    {
        "I64" => MemoryMarshal.Cast<byte, long>(Bytes(name)).ToArray(),
        "I32" => Array.ConvertAll(MemoryMarshal.Cast<byte, int>(Bytes(name)).ToArray(), i => (long)i),
        var other => throw new HeadroomException(
            $"Tensor {name} has dtype {other}, not I64.", "Use a file with integer ids."),
    };

    /// <summary>
    /// Checks a header and gives its tensors; <paramref name="dataLength"/> is the length of the data buffer.
    /// </summary>
    public static (Dictionary<string, SafetensorInfo>, Dictionary<string, string>) Parse(
        ReadOnlySpan<byte> header, long dataLength, string path)
    {
        try
        {
            _ = new UTF8Encoding(false, true).GetCharCount(header);
        }
        catch (DecoderFallbackException)
        {
            throw Bad(path, "InvalidHeader: the header is not UTF-8");
        }
        var tensors = new Dictionary<string, SafetensorInfo>();
        var metadata = new Dictionary<string, string>();
        try
        {
            var json = new Utf8JsonReader(header, new JsonReaderOptions { MaxDepth = 8 });
            json.Read();
            if (json.TokenType != JsonTokenType.StartObject) throw new JsonException("not an object");
            bool sawMetadata = false;
            while (json.Read() && json.TokenType == JsonTokenType.PropertyName)
            {
                string name = json.GetString()!;
                json.Read();
                if (name == "__metadata__")
                {
                    if (sawMetadata) throw new JsonException("__metadata__ twice");
                    sawMetadata = true;
                    ReadMetadata(ref json, metadata);
                }
                else if (!tensors.TryAdd(name, ReadEntry(ref json, name))) throw new JsonException($"{name} twice");
            }
            while (json.Read()) { }
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or FormatException)
        {
            throw Bad(path, "InvalidHeaderDeserialization: " + e.Message.Split('.')[0]);
        }
        Check(tensors.Values, dataLength, path);
        return (tensors, metadata);
    }

    private static void ReadMetadata(ref Utf8JsonReader json, Dictionary<string, string> metadata)
    {
        if (json.TokenType != JsonTokenType.StartObject) throw new JsonException("__metadata__ is not an object");
        while (json.Read() && json.TokenType == JsonTokenType.PropertyName)
        {
            string key = json.GetString()!;
            json.Read();
            if (json.TokenType != JsonTokenType.String)
                throw new JsonException("__metadata__ holds something that is not a string");
            if (!metadata.TryAdd(key, json.GetString()!)) throw new JsonException($"{key} twice");
        }
    }

    private static SafetensorInfo ReadEntry(ref Utf8JsonReader json, string name)
    {
        if (json.TokenType != JsonTokenType.StartObject) throw new JsonException($"{name} is not an object");
        string? dtype = null;
        long[]? shape = null, offsets = null;
        while (json.Read() && json.TokenType == JsonTokenType.PropertyName)
        {
            string key = json.GetString()!;
            json.Read();
            switch (key)
            {
                case "dtype" when dtype == null: dtype = json.GetString(); break;
                case "shape" when shape == null: shape = ReadNumbers(ref json, 16); break;
                case "data_offsets" when offsets == null: offsets = ReadNumbers(ref json, 2); break;
                default: throw new JsonException($"{name}: key {key} is unknown or repeated");
            }
        }
        if (dtype == null || shape == null || offsets is not { Length: 2 })
            throw new JsonException($"{name} is incomplete");
        if (Bits(dtype) == 0) throw new JsonException($"{name} has the unknown dtype {dtype}");
        return new SafetensorInfo(name, dtype, shape, offsets[0], offsets[1]);
    }

    private static long[] ReadNumbers(ref Utf8JsonReader json, int most)
    {
        if (json.TokenType != JsonTokenType.StartArray) throw new JsonException("an array is due");
        var numbers = new List<long>();
        while (json.Read() && json.TokenType != JsonTokenType.EndArray)
        {
            ulong value = json.GetUInt64();
            numbers.Add((long)value); // beyond 2^63 no file can hold it; the checks below take it as unsigned again
            if (numbers.Count > most) throw new JsonException("too many numbers");
        }
        return [.. numbers];
    }

    private static void Check(IEnumerable<SafetensorInfo> tensors, long dataLength, string path)
    {
        long at = 0;
        foreach (var t in tensors.OrderBy(t => (ulong)t.Begin).ThenBy(t => (ulong)t.End))
        {
            if (t.Begin != at || t.End < t.Begin) throw Bad(path, $"InvalidOffset({t.Name}): overlap or hole");
            UInt128 bits = 1;
            foreach (long d in t.Shape)
            {
                bits *= (ulong)d;
                if (bits > ulong.MaxValue) throw Bad(path, $"ValidationOverflow({t.Name})");
            }
            bits *= (uint)Bits(t.DType);
            if (bits > ulong.MaxValue) throw Bad(path, $"ValidationOverflow({t.Name})");
            if (bits % 8 != 0) throw Bad(path, $"MisalignedSlice({t.Name})");
            if ((UInt128)(ulong)(t.End - t.Begin) != bits / 8)
                throw Bad(path, $"TensorInvalidInfo({t.Name}): size against shape and dtype");
            at = t.End;
        }
        if (at != dataLength)
            throw Bad(path, $"MetadataIncompleteBuffer: {dataLength} data bytes where the header says {at}");
    }

    /// <summary>Bits of an element, 0 when the dtype is unknown.</summary>
    public static int Bits(string dtype) => dtype switch
    {
        "F4" => 4,
        "F6_E2M3" or "F6_E3M2" => 6,
        "BOOL" or "U8" or "I8" or "F8_E5M2" or "F8_E4M3" or "F8_E8M0" or "F8_E4M3FNUZ" or "F8_E5M2FNUZ" => 8,
        "I16" or "U16" or "F16" or "BF16" => 16,
        "I32" or "U32" or "F32" => 32,
        "C64" or "F64" or "I64" or "U64" => 64,
        _ => 0,
    };

    private HeadroomException Bad(string why) => Bad(Path, why);

    private static HeadroomException Bad(string path, string why) =>
        new(
            $"{System.IO.Path.GetFileName(path)} is not a valid safetensors file: {why}.",
            "The file is damaged or incomplete; download or copy it again.");

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_view is { SafeMemoryMappedViewHandle.IsClosed: false })
        {
            _view.SafeMemoryMappedViewHandle.ReleasePointer();
            _view.Dispose();
        }
        _map?.Dispose();
        _handle?.Dispose();
    }
}
