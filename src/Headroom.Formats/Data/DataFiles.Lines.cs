using System.IO.Compression;
using System.Text;
using Headroom.Core;
using ZstdSharp;

namespace Headroom.Formats.Data;

internal static partial class DataFiles
{
    /// <summary>
    /// A file without LF in its first bytes, but with CR, ends its lines in CR (as old spreadsheets write them).
    /// </summary>
    private const int SearchedForLineEnd = 1 << 20;

    /// <summary>
    /// Lines end in LF alone (a CR before it is dropped): a text may hold U+0085, U+2028 or a lone CR. Only where there
    /// is no LF at all do they end in CR.
    /// </summary>
    // Long: one buffer and its marks, which an iterator cannot hand out by reference.
    private static IEnumerable<(long Number, byte[] Buffer, int Length)> Lines(string path)
    {
        using var file = Open(path);
        byte[] buffer = new byte[1 << 16];
        int start = 0, end = 0, scanned = 0;
        long line = 0;
        byte lineEnd = (byte)'\n';
        while (true)
        {
            int lf = Array.IndexOf(buffer, lineEnd, scanned, end - scanned);
            if (lf < 0)
            {
                scanned = end;
                if (start > 0)
                {
                    Buffer.BlockCopy(buffer, start, buffer, 0, end - start);
                    (scanned, end, start) = (scanned - start, end - start, 0);
                }
                bool first = line == 0 && lineEnd == '\n';
                if (first && end >= SearchedForLineEnd && CarriageReturns()) continue;
                if (end >= LongestLine)
                    throw Bad(
                        path, line + 1, $"the line is longer than {LongestLine >> 20} MiB",
                        "Put one row on each line; this may be a file of another kind");
                if (end == buffer.Length) Array.Resize(ref buffer, buffer.Length * 2);
                int n = file.Read(buffer.AsSpan(end), line + 1);
                if (n > 0) { end += n; continue; }
                file.NeedWhole();
                if (end == start) yield break;
                if (first && CarriageReturns()) continue;
                lf = end;
            }
            line++;
            int skip =
                line == 1
                && lf - start >= 3
                && buffer[start] == 0xEF
                && buffer[start + 1] == 0xBB
                && buffer[start + 2] == 0xBF
                    ? 3
                    : 0;
            if (line == 1 && IsWide(buffer.AsSpan(start, lf - start)))
                throw Bad(path, 1, "it looks like UTF-16 without a byte order mark", "Save the file as UTF-8");
            int length = lf - start - skip;
            if (length > 0 && buffer[start + skip + length - 1] == '\r') length--;
            byte[] copy = new byte[length];
            Buffer.BlockCopy(buffer, start + skip, copy, 0, length);
            yield return (line, copy, length);
            if (lf >= end) yield break;
            start = scanned = lf + 1;
        }

        bool CarriageReturns()
        {
            if (Array.IndexOf(buffer, (byte)'\r', 0, end) < 0) return false;
            lineEnd = (byte)'\r';
            scanned = 0;
            return true;
        }

        // Every other byte of the first four is zero: no text in UTF-8 begins so.
        static bool IsWide(ReadOnlySpan<byte> b) =>
            b.Length >= 4
            && (b[0] == 0 && b[2] == 0 && b[1] != 0 && b[3] != 0 || b[1] == 0 && b[3] == 0 && b[0] != 0 && b[2] != 0);
    }

    private static HeadroomException Unsound(string path, Exception? e)
    {
        string ending = Path.GetExtension(path).ToLowerInvariant();
        return new(
            $"{path} is not a sound {(ending == ".zst" ? "Zstandard" : "gzip")} file",
            $"Fetch it again, or drop {ending} from its name if it is plain text", inner: e);
    }

    private static TextFile Open(string path) => new(path);

    private static string Decode(string path, long line, ReadOnlySpan<byte> bytes)
    {
        try { return Utf8.GetString(bytes); }
        catch (DecoderFallbackException e)
        {
            throw Bad(path, line, $"bytes that are not UTF-8 ({e.Message.Split('.')[0]})", "Convert the file to UTF-8");
        }
    }

    /// <summary>
    /// The bytes of a text file as UTF-8: unpacked when its name ends in .gz or .zst, and converted when a byte order
    /// mark says UTF-16 or UTF-32.
    /// </summary>
    private sealed class TextFile : Stream
    {
        private readonly string _path;
        private readonly Stream _file;
        private readonly Encoding? _wide;
        private readonly Decoder? _decoder;
        private readonly byte[] _ahead = new byte[4], _raw = [];
        private readonly char[] _chars = [];
        private byte[] _text = [];
        private readonly bool _gzip;
        private int _aheadAt;
        private readonly int _aheadCount;
        private int _textAt;
        private long _total;
        private bool _ended;

        public TextFile(string path)
        {
            _path = path;
            var file = new FileStream(
                path, FileMode.Open, FileAccess.Read, FileShare.Read, 1 << 16, FileOptions.SequentialScan);
            _gzip = path.EndsWith(".gz", StringComparison.OrdinalIgnoreCase);
            _file = _gzip ? new GZipStream(file, CompressionMode.Decompress)
                : path.EndsWith(".zst", StringComparison.OrdinalIgnoreCase)
                    ? new DecompressionStream(file, leaveOpen: false)
                : file;
            try
            {
                for (int n; _aheadCount < 4 && (n = Fill(_ahead.AsSpan(_aheadCount))) > 0;) _aheadCount += n;
            }
            catch
            {
                _file.Dispose();
                throw;
            }
            _wide = _ahead.AsSpan(0, _aheadCount) switch
            {
                [0xFF, 0xFE, 0, 0] => new UTF32Encoding(false, true, true),
                [0, 0, 0xFE, 0xFF] => new UTF32Encoding(true, true, true),
                [0xFF, 0xFE, ..] => new UnicodeEncoding(false, true, true),
                [0xFE, 0xFF, ..] => new UnicodeEncoding(true, true, true),
                _ => null,
            };
            if (_wide == null) return;
            _aheadAt = _wide.Preamble.Length;
            _decoder = _wide.GetDecoder();
            _raw = new byte[1 << 15];
            _chars = new char[_wide.GetMaxCharCount(_raw.Length)];
        }

        /// <summary>
        /// As <see cref="Stream.Read(Span{byte})"/>; <paramref name="line"/> is named when the bytes are no text.
        /// </summary>
        public int Read(Span<byte> to, long line)
        {
            if (_decoder == null) return Plain(to);
            while (_textAt == _text.Length)
            {
                if (_ended) return 0;
                int n = Plain(_raw);
                _ended = n == 0;
                try { _text = Utf8.GetBytes(_chars, 0, _decoder.GetChars(_raw, 0, n, _chars, 0, _ended)); }
                catch (ArgumentException e)
                {
                    throw Bad(
                        _path, line, $"bytes that are not {_wide!.WebName.ToUpperInvariant()}",
                        e is DecoderFallbackException ? "Convert the file to UTF-8" : "Repair the file");
                }
                _textAt = 0;
            }
            int copied = Math.Min(to.Length, _text.Length - _textAt);
            _text.AsSpan(_textAt, copied).CopyTo(to);
            _textAt += copied;
            return copied;
        }

        /// <summary>Refuses a gzip file that broke off. Call it where the text ends.</summary>
        public void NeedWhole()
        {
            if (_gzip && !Gzip.IsWhole(_path, _total)) throw Unsound(_path, null);
        }

        private int Plain(Span<byte> to)
        {
            if (_aheadAt == _aheadCount) return Fill(to);
            int n = Math.Min(to.Length, _aheadCount - _aheadAt);
            _ahead.AsSpan(_aheadAt, n).CopyTo(to);
            _aheadAt += n;
            return n;
        }

        private int Fill(Span<byte> to)
        {
            try
            {
                int n = _file.Read(to);
                _total += n;
                return n;
            }
            catch (Exception e) when (e is InvalidDataException or ZstdException or EndOfStreamException)
            {
                throw Unsound(_path, e);
            }
        }

        public override int Read(Span<byte> buffer) => Read(buffer, 1);
        public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count), 1);
        public override bool CanRead => true;
        public override bool CanSeek => false;
        public override bool CanWrite => false;
        public override long Length => throw new NotSupportedException();
        public override long Position
        {
            get => throw new NotSupportedException();
            set => throw new NotSupportedException();
        }
        public override void Flush() { }
        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();
        public override void SetLength(long value) => throw new NotSupportedException();
        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        protected override void Dispose(bool disposing)
        {
            if (disposing) _file.Dispose();
            base.Dispose(disposing);
        }
    }
}
