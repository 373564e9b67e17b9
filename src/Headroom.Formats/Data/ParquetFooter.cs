using System.Buffers.Binary;
using Headroom.Core;

namespace Headroom.Formats.Data;

/// <summary>
/// Looks over the footer of a Parquet file before the library reads it: a structure of the Thrift compact protocol whose lengths and counts must fit its bytes.
/// The library itself believes them, and can loop or reserve memory by a damaged number.
/// </summary>
internal static class ParquetFooter
{
    private const int Deepest = 24;

    /// <summary>Throws <see cref="HeadroomException"/> for a file whose footer is not well formed.</summary>
    public static void Check(string path)
    {
        using var file = File.OpenRead(path);
        Span<byte> tail = stackalloc byte[8];
        if (file.Length < 12) throw Bad(path, "it has fewer than 12 bytes");
        file.Position = file.Length - 8;
        file.ReadExactly(tail);
        if (!tail[4..].SequenceEqual("PAR1"u8)) throw Bad(path, "it does not end in PAR1");
        uint length = BinaryPrimitives.ReadUInt32LittleEndian(tail);
        if (length > file.Length - 12 || length > int.MaxValue) throw Bad(path, "its footer is longer than the file");
        var footer = new byte[length];
        file.Position = file.Length - 8 - length;
        file.ReadExactly(footer);
        int at = 0;
        if (!Struct(footer, ref at, 0)) throw Bad(path, "its footer is damaged");
    }

    private static HeadroomException Bad(string path, string why) => new($"{path}: not readable as Parquet ({why})", "fetch or write the file again");

    private static bool Struct(ReadOnlySpan<byte> b, ref int at, int depth)
    {
        if (depth > Deepest) return false;
        while (at < b.Length)
        {
            byte head = b[at++];
            if (head == 0) return true;
            if (head >> 4 == 0 && !Varint(b, ref at, out _)) return false;
            if (!Value(b, ref at, head & 15, depth, inList: false)) return false;
        }
        return false;
    }

    private static bool Value(ReadOnlySpan<byte> b, ref int at, int type, int depth, bool inList)
    {
        switch (type)
        {
            case 1 or 2: return !inList || Skip(b, ref at, 1);
            case 3: return Skip(b, ref at, 1);
            case 4 or 5 or 6: return Varint(b, ref at, out _);
            case 7: return Skip(b, ref at, 8);
            case 8: return Varint(b, ref at, out ulong n) && Skip(b, ref at, n);
            case 9 or 10:
                if (at >= b.Length) return false;
                byte head = b[at++];
                ulong count = (ulong)head >> 4;
                if (count == 15 && !Varint(b, ref at, out count)) return false;
                if (count > (ulong)(b.Length - at)) return false; // an element takes a byte at least
                for (ulong i = 0; i < count; i++)
                    if (!Value(b, ref at, head & 15, depth + 1, inList: true)) return false;
                return depth <= Deepest;
            case 11:
                if (!Varint(b, ref at, out ulong pairs) || pairs > (ulong)(b.Length - at)) return false;
                if (pairs == 0) return true;
                byte types = b[at++];
                for (ulong i = 0; i < pairs; i++)
                    if (depth > Deepest || !Value(b, ref at, types >> 4, depth + 1, true) || !Value(b, ref at, types & 15, depth + 1, true)) return false;
                return true;
            case 12: return Struct(b, ref at, depth + 1);
            default: return false;
        }
    }

    private static bool Skip(ReadOnlySpan<byte> b, ref int at, ulong n)
    {
        if (n > (ulong)(b.Length - at)) return false;
        at += (int)n;
        return true;
    }

    private static bool Varint(ReadOnlySpan<byte> b, ref int at, out ulong value)
    {
        value = 0;
        for (int shift = 0; shift < 70 && at < b.Length; shift += 7)
        {
            byte x = b[at++];
            value |= shift < 64 ? (ulong)(x & 127) << shift : 0;
            if (x < 128) return true;
        }
        return false;
    }
}
