using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text.Json;

namespace Headroom.Formats.Safetensors;

/// <summary>
/// Writes safetensors files: dtype rank descending, then name; header padded to 8 bytes; temporary file, fsync, rename.
/// </summary>
internal static class SafetensorsWriter
{
    private const int Piece = 1 << 24; // elements; a span of bytes holds less than a large array of floats

    /// <summary>Writes float32 tensors that are in memory, without a copy.</summary>
    public static void WriteF32(
        string path, IEnumerable<(string Name, long[] Shape, float[] Values)> tensors,
        IReadOnlyDictionary<string, string>? metadata = null
    ) => Write(path, tensors.Select(t => new SafetensorPart(t.Name, "F32", t.Shape, t.Values.Length * 4L, file =>
        {
            for (int at = 0; at < t.Values.Length; at += Piece)
                file.Write(MemoryMarshal.AsBytes(t.Values.AsSpan(at, Math.Min(Piece, t.Values.Length - at))));
        })), metadata);

    /// <summary>Writes raw tensors that are in memory.</summary>
    public static void Write(
        string path, IEnumerable<(string Name, string DType, long[] Shape, byte[] Data)> tensors,
        IReadOnlyDictionary<string, string>? metadata = null) =>
        Write(
            path,
            tensors.Select(t => new SafetensorPart(t.Name, t.DType, t.Shape, t.Data.Length, file =>
                file.Write(t.Data)
            )),
            metadata
        );

    /// <summary>
    /// Writes tensors one at a time, each when its turn comes; {"format": "pt"} is added to the metadata, as readers of
    /// the Python world require.
    /// </summary>
    public static void Write(
        string path, IEnumerable<SafetensorPart> tensors, IReadOnlyDictionary<string, string>? metadata = null)
    {
        var ordered = tensors
            .OrderByDescending(t => Rank(t.DType))
            .ThenBy(t => t.Name, StringComparer.Ordinal)
            .ToList();
        using var header = new MemoryStream();
        using (var json = new Utf8JsonWriter(header))
        {
            json.WriteStartObject();
            json.WriteStartObject("__metadata__");
            json.WriteString("format", "pt");
            foreach (var (k, v) in metadata ?? new Dictionary<string, string>())
                if (k != "format") json.WriteString(k, v);
            json.WriteEndObject();
            long at = 0;
            foreach (var t in ordered)
            {
                json.WriteStartObject(t.Name);
                json.WriteString("dtype", t.DType);
                json.WriteStartArray("shape");
                foreach (long d in t.Shape) json.WriteNumberValue(d);
                json.WriteEndArray();
                json.WriteStartArray("data_offsets");
                json.WriteNumberValue(at);
                json.WriteNumberValue(at += t.Bytes);
                json.WriteEndArray();
                json.WriteEndObject();
            }
            json.WriteEndObject();
        }
        while (header.Length % 8 != 0) header.WriteByte(0x20);
        AtomicFile.Write(path, file =>
        {
            Span<byte> n = stackalloc byte[8];
            BinaryPrimitives.WriteInt64LittleEndian(n, header.Length);
            file.Write(n);
            header.WriteTo(file);
            foreach (var t in ordered)
            {
                long before = file.Position;
                t.Write(file);
                if (file.Position - before != t.Bytes)
                    throw new InvalidOperationException(
                        $"{t.Name} wrote {file.Position - before} bytes, not {t.Bytes}");
            }
        });
    }

    private static int Rank(string dtype) => Array.IndexOf(
            [
                "BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ",
                "F8_E5M2FNUZ", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64"],
            dtype
        );
}

/// <summary>
/// A tensor to be written: its bytes are asked for when its place in the file is reached, so that a large model never
/// lies in memory twice.
/// </summary>
internal sealed record SafetensorPart(string Name, string DType, long[] Shape, long Bytes, Action<Stream> Write);
