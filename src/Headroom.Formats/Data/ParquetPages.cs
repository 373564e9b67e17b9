using Headroom.Core;

namespace Headroom.Formats.Data;

/// <summary>
/// Follows the page headers of a column as Parquet.Net will, and checks every number in them: the pages lie inside the
/// column and hold as many values as it claims, sizes fit what the compression can do, and what a compressed page says
/// of its own size is checked before anything is reserved for it.
/// </summary>
internal static class ParquetPages
{
    private const int Window = 1024; // a header with short statistics; others get more

    /// <summary>Checks the pages of a column.</summary>
    /// <returns>Where its last page ends.</returns>
    /// <exception cref="HeadroomException">A page is damaged or of a kind that is not read; exit code 2.</exception>
    // Long: one pass over the pages; what a page must be depends on those before it.
    public static long Check(Stream file, ParquetChunk chunk, string name)
    {
        string column = string.Join('.', chunk.Leaf.Path);
        long at = chunk.Start, seen = 0;
        bool dictionary = false;
        try
        {
            while (seen < chunk.Values)
            {
                var page = Header(file, at, chunk.End, out int header);
                at += header;
                long size = page.Number(3)!.Value, unpacked = page.Number(2)!.Value;
                Require(size >= 0 && size <= chunk.End - at, "a page reaches beyond its column");
                Require(
                    unpacked >= 0 && unpacked <= Most(chunk.Codec, size), $"{size} bytes cannot unpack to {unpacked}");
                Require(chunk.Codec != 0 || size == unpacked, "an uncompressed page has two sizes");
                long levels = 0;
                bool packed = chunk.Codec != 0;
                if (page.Number(1) == 2)
                {
                    Require(!dictionary && seen == 0, "a dictionary is not the first page");
                    var d = page.Record(7) ?? throw new ThriftException("a dictionary has no header of its own");
                    Require(
                        d.Number(1) is >= 0 && (chunk.Leaf.Width == 0 || d.Number(1) <= unpacked / chunk.Leaf.Width),
                        $"a dictionary of {d.Number(1)} values in {unpacked} bytes");
                    Require(d.Number(2) is 0 or 2, "a dictionary is not plain");
                    dictionary = true;
                }
                else
                {
                    bool second = page.Number(1) == 3;
                    var d = page.Record(second ? 8 : 5)
                        ?? throw new ThriftException("a page has no header of its kind");
                    Require(second || page.Number(1) == 0, $"a page has type {page.Number(1)}");
                    long n = d.Number(1)!.Value, encoding = d.Number(second ? 4 : 2)!.Value;
                    Require(n >= 0 && n <= chunk.Values - seen, $"its pages hold more than its {chunk.Values} values");
                    Require(
                        Encodes(encoding, chunk.Leaf.Type), $"encoding {encoding} of type {chunk.Leaf.Type} is not read"
                    );
                    Require(encoding is not (2 or 8) || dictionary, "a page refers to a dictionary that is not there");
                    if (second)
                    {
                        long definition = d.Number(5)!.Value, repetition = d.Number(6)!.Value;
                        Require(
                            d.Number(2) is >= 0 && d.Number(2) <= n && d.Number(3) is >= 0 && d.Number(3) <= n,
                            "a page has more nulls or rows than values");
                        Require(
                            definition >= 0 && repetition >= 0 && definition + repetition <= Math.Min(size, unpacked),
                            "the levels of a page are longer than the page");
                        Require(
                            (repetition == 0 || chunk.Leaf.MaxRepetition > 0)
                                && (chunk.Leaf.MaxDefinition > 0 || definition == 0 && d.Number(2) == 0),
                            "a page has levels that its column does not have");
                        levels = repetition + definition;
                        packed &= d.Number(7) != 0;
                    }
                    else
                        Require(
                            (chunk.Leaf.MaxDefinition == 0 || d.Number(3) == 3)
                                && (chunk.Leaf.MaxRepetition == 0 || d.Number(4) == 3),
                            $"levels in encoding {d.Number(3)} are not read");
                    seen += n;
                }
                if (packed && Claim(file, at + levels, size - levels, chunk.Codec) is { } claim)
                    Require(claim >= 0 && claim <= Most(chunk.Codec, size), $"{size} bytes cannot unpack to {claim}");
                at += size;
            }
        }
        catch (ThriftException e) { throw ParquetFooter.Bad(name, $"column '{column}' is damaged: {e.Message}"); }
        return at;
    }

    private static void Require(bool condition, string why)
    {
        if (!condition) throw new ThriftException(why);
    }

    // Which encoding holds values of which type (Encodings.md of the format). Parquet.Net does not ask: run lengths of
    // a column of texts would go over references to strings.
    private static bool Encodes(long encoding, int type) => encoding switch
    {
        0 => true,
        2 or 8 => type != 0,
        3 => type == 0,
        5 => type is 1 or 2,
        6 => type == 6,
        7 => type is 6 or 7,
        9 => type is 1 or 2 or 4 or 5 or 7,
        _ => false,
    };

    private static ThriftRecord Header(Stream file, long at, long end, out int length)
    {
        for (int window = Window; ; window *= 8)
        {
            int n = (int)Math.Min(Math.Min(window, Array.MaxLength), end - at);
            var bytes = new byte[n];
            file.Position = at;
            file.ReadExactly(bytes);
            try { return ThriftRecord.Read(bytes, n, ParquetThrift.PageHeader, out length); }
            // statistics with long texts
            catch (ThriftException e) when (e.TooShort && n < end - at && window < 1 << 26) { }
        }
    }

    // The most that bytes of a codec can unpack to. Snappy: three bytes copy 64; gzip: 1,032 for one; LZ4: 255 for one;
    // Zstandard: a block of 128 KiB from four bytes; Brotli has no bound of its own and is held to the same.
    private static long Most(int codec, long bytes) =>
        64
        + bytes
            * codec switch
            {
                0 => 1,
                1 => 22,
                2 => 1032,
                5 or 7 => 255,
                _ => 1 << 15,
            };

    // What the compressed bytes say that they unpack to, for the codecs whose library reserves that much: Snappy's
    // varint, Zstandard's frame header (RFC 8878, 3.1.1.1).
    private static long? Claim(Stream file, long at, long size, int codec)
    {
        if (codec is not (1 or 6) || size == 0) return null;
        Span<byte> b = stackalloc byte[18];
        b = b[..(int)Math.Min(18, size)];
        file.Position = at;
        file.ReadExactly(b);
        if (codec == 1)
        {
            long n = 0;
            for (int i = 0; i < 5 && i < b.Length; i++)
            {
                n |= (long)(b[i] & 127) << (7 * i);
                if (b[i] < 128) return n;
            }
            return -1;
        }
        if (b.Length < 6 || !b.StartsWith((ReadOnlySpan<byte>)[0x28, 0xB5, 0x2F, 0xFD])) return -1;
        bool single = (b[4] & 32) != 0;
        int id = (b[4] & 3) switch
        {
            3 => 4,
            var k => k,
        },
            bytes = (b[4] >> 6) switch
            {
                0 => single ? 1 : 0,
                1 => 2,
                2 => 4,
                _ => 8,
            },
            from = 5 + (single ? 0 : 1) + id;
        if (from + bytes > b.Length) return -1;
        ulong content = 0;
        for (int i = 0; i < bytes; i++) content |= (ulong)b[from + i] << (8 * i);
        if (bytes == 2) content += 256;
        return content > long.MaxValue ? -1 : (long)content;
    }
}

/// <summary>
/// A file of which a stretch is open for reading: everything else, the end of the file too, is an error and never the 0
/// or -1 that Parquet.Net takes for data. Reading is synchronous, so that work on it stays on its thread.
/// </summary>
internal sealed class ParquetStream(Stream file) : Stream
{
    private long _first, _end = file.Length;

    /// <summary>Opens bytes <paramref name="first"/> to <paramref name="end"/> alone.</summary>
    public void Open(long first, long end) => (_first, _end) = (first, end);

    public override int Read(Span<byte> buffer)
    {
        if (buffer.Length == 0) return 0;
        Check();
        return file.Read(buffer[..(int)Math.Min(buffer.Length, _end - file.Position)]);
    }

    public override int ReadByte()
    {
        Check();
        return file.ReadByte();
    }

    private void Check()
    {
        if (file.Position < _first || file.Position >= _end) throw new EndOfStreamException("a page ends too early");
    }

    public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

    public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) =>
        ValueTask.FromResult(Read(buffer.Span));

    public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        Task.FromResult(Read(buffer.AsSpan(offset, count)));
    public override bool CanRead => true;
    public override bool CanSeek => true;
    public override bool CanWrite => false;
    public override long Length => file.Length;
    public override long Position { get => file.Position; set => file.Position = value; }
    public override long Seek(long offset, SeekOrigin origin) => file.Seek(offset, origin);
    public override void Flush() { }
    public override void SetLength(long value) => throw new NotSupportedException();
    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();
}
