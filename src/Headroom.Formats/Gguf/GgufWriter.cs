using System.Text;
using Headroom.Core;

namespace Headroom.Formats.Gguf;

/// <summary>
/// One tensor about to be written: its GGUF name, type, shape in Hugging Face order, and what writes its blocks.
/// </summary>
/// <param name="Name">GGUF name, at most 63 bytes.</param>
/// <param name="Type">Block type.</param>
/// <param name="Rows">Rows; 0 for a vector.</param>
/// <param name="Columns">Columns, whole blocks.</param>
/// <param name="Write">Writes every row in order.</param>
internal sealed record GgufEntry(string Name, GgmlType Type, int Rows, int Columns, Action<Stream> Write)
{
    /// <summary>Bytes without padding.</summary>
    public long Bytes => Math.Max(1, Rows) * Type.RowBytes(Columns);
}

/// <summary>
/// Writes GGUF v3 (llama.cpp <c>gguf.cpp</c>): header, tensor table, data, tensor by tensor; temporary file, fsync,
/// rename.
/// </summary>
internal static class GgufWriter
{
    private const int Alignment = 32, LongestName = 63;

    /// <summary>Writes the file. Values may be uint, int, float, bool, string, string[], float[] or int[].</summary>
    public static void Write(
        string path, IEnumerable<KeyValuePair<string, object>> metadata, IReadOnlyList<GgufEntry> tensors)
    {
        using var header = new MemoryStream();
        using (var w = new BinaryWriter(header, Encoding.UTF8, leaveOpen: true))
        {
            var pairs = metadata.ToList();
            w.Write("GGUF"u8);
            w.Write(3u);
            w.Write((ulong)tensors.Count);
            w.Write((ulong)pairs.Count);
            foreach (var (key, value) in pairs)
            {
                Text(w, key);
                Value(w, key, value);
            }
            ulong at = 0;
            foreach (var t in tensors)
            {
                if (Encoding.UTF8.GetByteCount(t.Name) > LongestName)
                    throw new HeadroomException(
                        $"The tensor name {t.Name} is longer than GGUF allows ({LongestName} bytes).",
                        "Use a model with the usual tensor names.");
                if (t.Columns % t.Type.Block().Values != 0)
                    throw new InvalidOperationException(
                        $"{t.Name}: {t.Columns} columns are not whole blocks of {t.Type}");
                Text(w, t.Name);
                w.Write(t.Rows == 0 ? 1u : 2u);
                w.Write((ulong)t.Columns); // dimensions are innermost first
                if (t.Rows > 0) w.Write((ulong)t.Rows);
                w.Write((uint)t.Type);
                w.Write(at);
                at += (ulong)Padded(t.Bytes);
            }
        }
        AtomicFile.Write(path, file =>
        {
            header.WriteTo(file);
            Pad(file);
            foreach (var t in tensors)
            {
                long due = file.Position + t.Bytes;
                t.Write(file);
                if (file.Position != due)
                    throw new InvalidOperationException(
                        $"{t.Name} wrote {file.Position - due + t.Bytes} bytes of {t.Bytes}");
                Pad(file);
            }
        });
    }

    private static long Padded(long n) => (n + Alignment - 1) / Alignment * Alignment;

    private static void Pad(Stream file) => file.Write(new byte[Padded(file.Position) - file.Position]);

    private static void Text(BinaryWriter w, string s)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(s);
        w.Write((ulong)bytes.Length);
        w.Write(bytes);
    }

    private static void Value(BinaryWriter w, string key, object value)
    {
        switch (value)
        {
            case uint v: w.Write(4u); w.Write(v); break;
            case int v: w.Write(5u); w.Write(v); break;
            case float v: w.Write(6u); w.Write(v); break;
            case bool v: w.Write(7u); w.Write((byte)(v ? 1 : 0)); break;
            case string v: w.Write(8u); Text(w, v); break;
            case string[] list:
                w.Write(9u); w.Write(8u); w.Write((ulong)list.Length);
                foreach (string s in list) Text(w, s);
                break;
            case float[] list:
                w.Write(9u); w.Write(6u); w.Write((ulong)list.Length);
                foreach (float f in list) w.Write(f);
                break;
            case int[] list:
                w.Write(9u); w.Write(5u); w.Write((ulong)list.Length);
                foreach (int i in list) w.Write(i);
                break;
            default: throw new InvalidOperationException($"{key} is a {value.GetType().Name}");
        }
    }
}
