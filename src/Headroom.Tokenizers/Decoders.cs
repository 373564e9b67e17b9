using System.Globalization;
using System.Text;
using System.Text.Unicode;

namespace Headroom.Tokenizers;

/// <summary>Steps from pieces back to text; each takes and gives the list of pieces.</summary>
internal static class Decoders
{
    public static Func<List<string>, List<string>> Replace(Func<string, string> replace) =>
        tokens => tokens.ConvertAll(t => replace(t));

    public static List<string> Fuse(List<string> tokens) => [string.Concat(tokens)];

    public static Func<List<string>, List<string>> Strip(Rune c, int start, int stop) =>
        tokens =>
            tokens.ConvertAll(t =>
    {
        string s = c.ToString();
        int a = 0, b = t.Length;
        for (int n = 0; n < start && string.CompareOrdinal(t, a, s, 0, s.Length) == 0; n++) a += s.Length;
        for (
            int n = 0;
            n < stop && b - s.Length >= a && string.CompareOrdinal(t, b - s.Length, s, 0, s.Length) == 0;
            n++
        )
            b -= s.Length;
        return t[a..b];
    });

    /// <summary>Marks become blanks; those of the first piece go, where the vocabulary puts one in front.</summary>
    public static Func<List<string>, List<string>> Metaspace(char mark, bool prepended) => tokens =>
    {
        var result = tokens.ConvertAll(t => t.Replace(mark, ' '));
        if (prepended && result.Count > 0) result[0] = tokens[0].Replace(mark.ToString(), "", StringComparison.Ordinal);
        return result;
    };

    /// <summary>
    /// Pieces in the printable alphabet of bytes, joined, as the text that the bytes are; a piece with another
    /// character stands for itself.
    /// </summary>
    public static List<string> ByteLevel(List<string> tokens)
    {
        var bytes = new List<byte>();
        foreach (string t in tokens)
        {
            if (t.All(c => ByteAlphabet.ToByte(c) >= 0)) foreach (char c in t) bytes.Add((byte)ByteAlphabet.ToByte(c));
            else bytes.AddRange(Encoding.UTF8.GetBytes(t));
        }
        return [Encoding.UTF8.GetString(bytes.ToArray())];
    }

    /// <summary>
    /// Every piece but the first gets a blank in front, or loses the prefix of those that go on a word.
    /// </summary>
    public static Func<List<string>, List<string>> WordPiece(string prefix, bool cleanup) => tokens =>
    {
        var result = new List<string>(tokens.Count);
        foreach (string t in tokens)
        {
            string s =
                result.Count == 0 ? t
                : t.StartsWith(prefix, StringComparison.Ordinal) ? t[prefix.Length..]
                : " " + t;
            if (cleanup) foreach (var (from, to) in Cleanup) s = s.Replace(from, to, StringComparison.Ordinal);
            result.Add(s);
        }
        return result;
    };

    // tokenizers wordpiece.rs, cleanup
    private static readonly (string, string)[] Cleanup =
    [
        (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
        (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")];

    /// <summary>The mark of a word's end becomes a blank, at the end of all nothing.</summary>
    public static Func<List<string>, List<string>> WordEnd(string suffix) => tokens =>
    {
        var result = new List<string>(tokens.Count);
        foreach (string t in tokens)
            result.Add(t.Replace(suffix, result.Count == tokens.Count - 1 ? "" : " ", StringComparison.Ordinal));
        return result;
    };

    /// <summary>
    /// Runs of byte pieces become the text that their bytes are; where they are no UTF-8, each becomes U+FFFD.
    /// </summary>
    public static List<string> ByteFallback(List<string> tokens)
    {
        var result = new List<string>(tokens.Count);
        var bytes = new List<byte>();
        void Flush()
        {
            if (bytes.Count == 0) return;
            byte[] run = bytes.ToArray();
            bytes.Clear();
            if (Utf8.IsValid(run)) result.Add(Encoding.UTF8.GetString(run));
            else for (int i = 0; i < run.Length; i++) result.Add("\uFFFD");
        }
        foreach (string t in tokens)
        {
            if (ByteOf(t) is { } b) { bytes.Add(b); continue; }
            Flush();
            result.Add(t);
        }
        Flush();
        return result;
    }

    /// <summary>The byte that a piece such as &lt;0x0A&gt; stands for.</summary>
    public static byte? ByteOf(string piece) =>
        piece.Length == 6
        && piece.StartsWith("<0x", StringComparison.Ordinal)
        && piece[5] == '>'
        && byte.TryParse(piece.AsSpan(3, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out byte b)
            ? b
            : null;
}
