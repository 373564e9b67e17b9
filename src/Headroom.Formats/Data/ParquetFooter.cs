using System.Buffers.Binary;
using Headroom.Core;

namespace Headroom.Formats.Data;

/// <summary>A leaf of the schema.</summary>
/// <param name="Path">Names from below the root.</param>
/// <param name="Type">Physical type: 0 Boolean, 1 int32, 2 int64, 3 int96, 4 float, 5 double, 6 bytes, 7 bytes of a
/// fixed length.</param>
/// <param name="Width">Bytes of a value, at least: of bytes their length field.</param>
/// <param name="MaxDefinition">Definition levels reach from 0 to this.</param>
/// <param name="MaxRepetition">Repetition levels reach from 0 to this.</param>
internal sealed record ParquetLeaf(string[] Path, int Type, int Width, int MaxDefinition, int MaxRepetition)
{
    /// <summary>Whether a row has one value or none.</summary>
    public bool IsFlat => Path.Length == 1 && MaxRepetition == 0;
}

/// <summary>A column of a row group.</summary>
/// <param name="Leaf">Its place in the schema.</param>
/// <param name="Codec">0 none, 1 Snappy, 2 gzip, 3 LZO, 4 Brotli, 5 and 7 LZ4, 6 Zstandard.</param>
/// <param name="Values">Values with nulls.</param>
/// <param name="Start">Where its first page starts.</param>
/// <param name="End">Where its pages end at the latest.</param>
internal sealed record ParquetChunk(ParquetLeaf Leaf, int Codec, long Values, long Start, long End);

/// <summary>
/// What the footer of a Parquet file says, checked in itself and against the file's length, so that Parquet.Net sees
/// footers only that are whole: it believes every number, reads on past the end of a damaged structure, and can loop or
/// reserve memory by what it finds there.
/// </summary>
/// <param name="Leaves">Columns in the order of the file.</param>
/// <param name="Groups">The columns of every row group, in the order of <paramref name="Leaves"/>.</param>
/// <param name="Rows">Rows of every row group.</param>
internal sealed record ParquetFooter(
    IReadOnlyList<ParquetLeaf> Leaves, IReadOnlyList<ParquetChunk[]> Groups, IReadOnlyList<long> Rows)
{
    private const int Deepest = 64;
    // what total_compressed_size leaves out in files of some writers (PARQUET-816)
    private const int DictionaryHeader = 100;

    /// <summary>Reads and checks the footer.</summary>
    /// <param name="file">The file; positioned anywhere.</param>
    /// <param name="name">Its name for messages.</param>
    /// <exception cref="HeadroomException">It is damaged, encrypted, or spread over several files; exit code
    /// 2.</exception>
    public static ParquetFooter Read(Stream file, string name)
    {
        Span<byte> tail = stackalloc byte[8];
        if (file.Length < 12) throw Bad(name, "it has fewer than 12 bytes");
        file.Position = 0;
        file.ReadExactly(tail[..4]);
        bool starts = tail.StartsWith("PAR1"u8);
        file.Position = file.Length - 8;
        file.ReadExactly(tail);
        if (tail[4..].SequenceEqual("PARE"u8))
            throw new HeadroomException($"{name} is encrypted", "Decrypt the file and write it again");
        if (!starts || !tail[4..].SequenceEqual("PAR1"u8)) throw Bad(name, "it does not start and end in PAR1");
        uint length = BinaryPrimitives.ReadUInt32LittleEndian(tail);
        if (length > file.Length - 12 || length > int.MaxValue) throw Bad(name, "its footer is longer than the file");
        var bytes = new byte[length];
        long start = file.Length - 8 - length;
        file.Position = start;
        file.ReadExactly(bytes);
        try { return Checked(ThriftRecord.Read(bytes, bytes.Length, ParquetThrift.FileMetaData, out _), start, name); }
        catch (ThriftException e) { throw Bad(name, $"its footer is damaged: {e.Message}"); }
    }

    /// <summary>The error for a damaged file.</summary>
    public static HeadroomException Bad(string name, string why, Exception? inner = null) =>
        new($"{name}: not readable as Parquet ({why})", "Fetch or write the file again", inner: inner);

    private static void Require(bool condition, string why)
    {
        if (!condition) throw new ThriftException(why);
    }

    private static ParquetFooter Checked(ThriftRecord meta, long start, string name)
    {
        if (meta.Has(8)) throw new HeadroomException($"{name} is encrypted", "Decrypt the file and write it again");
        var leaves = Schema(meta.Records(2));
        var groups = new List<ParquetChunk[]>();
        var rows = new List<long>();
        long total = 0;
        foreach (var g in meta.Records(4))
        {
            long n = g.Number(3)!.Value;
            Require(n >= 0 && n <= int.MaxValue, $"a row group of {n} rows");
            Require(g.Number(2) >= 0, "a row group of less than no bytes");
            var columns = g.Records(1);
            Require(
                columns.Length == leaves.Count,
                $"a row group has {columns.Length} columns where the schema has {leaves.Count}");
            groups.Add(columns.Select((c, i) => Chunk(c, leaves[i], n, start, name)).ToArray());
            rows.Add(n);
            total += n;
        }
        Require(total == meta.Number(3), $"the row groups have {total} rows, the file {meta.Number(3)}");
        return new(leaves, groups, rows);
    }

    private static List<ParquetLeaf> Schema(ThriftRecord[] elements)
    {
        var leaves = new List<ParquetLeaf>();
        Require(elements.Length > 0, "it has no schema");
        int next = 1;
        Children(elements[0], [], 0, 0);
        Require(next == elements.Length, $"{elements.Length - next} columns of the schema have no place in it");
        return leaves;

        void Children(ThriftRecord parent, string[] path, int definition, int repetition)
        {
            Require(path.Length < Deepest, "the schema is nested too deeply");
            Require(
                parent.Number(1) == null && parent.Number(5) is null or >= 0,
                "a group of columns has a type or a negative number of columns");
            for (long i = 0, n = parent.Number(5) ?? 0; i < n; i++)
            {
                Require(next < elements.Length, "the schema lacks columns that it counts");
                var e = elements[next++];
                Require(e.Number(3) is >= 0 and <= 2, "a column is neither required nor optional nor repeated");
                int d = definition + (e.Number(3) == 0 ? 0 : 1), r = repetition + (e.Number(3) == 2 ? 1 : 0);
                Require(e.Number(6) is null or >= 0 and <= 21, "a column has an unknown converted type");
                string[] at = [.. path, e.Text(4)!];
                if (e.Number(1) is { } type)
                {
                    Require(type is >= 0 and <= 7, $"a column has type {type}");
                    Require(e.Number(5) is null or 0, "a column of values has columns of its own");
                    Require(type != 7 || e.Number(2) > 0, "a column of fixed length has no length");
                    Require(
                        Stores(e, (int)type),
                        $"values of column '{string.Join('.', at)}' cannot be stored as type {type}");
                    leaves.Add(
                        new(
                            at,
                            (int)type,
                            type switch
                            {
                                0 => 0,
                                1 or 4 or 6 => 4,
                                3 => 12,
                                7 => (int)e.Number(2)!.Value,
                                _ => 8,
                            },
                            d,
                            r
                        )
                    );
                }
                else
                {
                    Require(e.Number(5) > 0, "a group of columns is empty");
                    Children(e, at, d, r);
                }
            }
        }
    }

    // What a column means against how it is stored (LogicalTypes.md of the format): Parquet.Net takes its memory by the
    // one and fills it by the other.
    private static bool Stores(ThriftRecord element, int type)
    {
        long width = element.Number(2) ?? 0;
        bool converted = element.Number(6) switch
        {
            null => true,
            0 or 4 or 19 or 20 => type == 6 || type == 7 && element.Number(6) == 0, // text, enumeration, JSON, BSON
            5 => type is 1 or 2 or 6 or 7,
            6 or 7 or 11 or 12 or 13 or 15 or 16 or 17 => type == 1,
            8 or 9 or 10 or 14 or 18 => type == 2,
            21 => type == 7 && width == 12,
            _ => false, // map, pair, list
        };
        if (element.Record(10) is not { } logical) return converted;
        return converted
            && (!logical.Has(1) || type is 6 or 7)
            && !logical.Has(2)
            && !logical.Has(3)
            && (!logical.Has(4) || type == 6)
            && (!logical.Has(5) || type is 1 or 2 or 6 or 7)
            && (!logical.Has(6) || type == 1)
            && (!logical.Has(7) || type is 1 or 2)
            && (!logical.Has(8) || type == 2)
            && (!logical.Has(12) || type == 6)
            && (!logical.Has(13) || type == 6)
            && (!logical.Has(10) || type == (logical.Record(10)!.Number(1) == 64 ? 2 : 1))
            && (!logical.Has(14) || type == 7 && width == 16)
            && (!logical.Has(15) || type == 7 && width == 2);
    }

    private static ParquetChunk Chunk(ThriftRecord column, ParquetLeaf leaf, long rows, long footer, string name)
    {
        string path = string.Join('.', leaf.Path);
        if (column.Text(1) is { Length: > 0 })
            throw new HeadroomException($"{name}: column '{path}' lies in another file", "Write the data as one file");
        if (column.Has(8) || column.Record(3) is not { } m)
            throw new HeadroomException(
                $"{name}: column '{path}' is encrypted or has no description",
                "Write the data as one file without encryption");
        Require(m.Number(1) == leaf.Type, $"column '{path}' has two types");
        Require(
            m.Texts(3).AsSpan().SequenceEqual(leaf.Path),
            $"column '{path}' is named {string.Join('.', m.Texts(3))} in a row group");
        Require(m.Number(4) is >= 0 and <= 7, $"column '{path}' is compressed in an unknown way");
        Require(Array.TrueForAll(m.Numbers(2), e => e is >= 0 and <= 9), $"column '{path}' has an unknown encoding");
        long values = m.Number(5)!.Value, size = m.Number(7)!.Value;
        Require(
            values >= 0 && values <= int.MaxValue && (leaf.MaxRepetition > 0 || values == rows),
            $"column '{path}' has {values} values in {rows} rows");
        Require(size >= 0 && m.Number(6) >= 0, $"column '{path}' has less than no bytes");
        // Which of the offsets are there and right differs between writers; pages start at the first, which is where
        // Parquet.Net starts too.
        long start = long.MaxValue;
        foreach (int id in (ReadOnlySpan<int>)[9, 10, 11])
            if (m.Number(id) is { } offset and not 0)
            {
                Require(offset >= 4 && offset <= footer, $"column '{path}' lies outside of the file");
                start = Math.Min(start, offset);
            }
        Require(start != long.MaxValue && size <= footer - start, $"column '{path}' reaches into the footer");
        return new(leaf, (int)m.Number(4)!.Value, values, start, Math.Min(footer, start + size + DictionaryHeader));
    }
}
