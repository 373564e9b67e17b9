using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace Headroom.Formats.Tokenizers;

/// <summary>Steps from pieces back to text; each takes and gives the list of pieces.</summary>
internal static class Decoders
{
    public static Func<List<string>, List<string>> Replace(Func<string, string> replace) => tokens => tokens.ConvertAll(t => replace(t));

    public static List<string> Fuse(List<string> tokens) => [string.Concat(tokens)];

    public static Func<List<string>, List<string>> Strip(char c, int start, int stop) => tokens => tokens.ConvertAll(t =>
    {
        int a = 0, b = t.Length;
        while (a < b && a < start && t[a] == c) a++;
        while (b > a && t.Length - b < stop && t[b - 1] == c) b--;
        return t[a..b];
    });

    public static Func<List<string>, List<string>> Metaspace(char mark, bool prepended) => tokens =>
    {
        var result = tokens.ConvertAll(t => t.Replace(mark, ' '));
        if (prepended && result.Count > 0 && result[0].StartsWith(' ')) result[0] = result[0][1..];
        return result;
    };

    /// <summary>Runs of byte pieces become the text that their bytes are.</summary>
    public static List<string> ByteFallback(List<string> tokens)
    {
        var result = new List<string>(tokens.Count);
        var bytes = new List<byte>();
        void Flush()
        {
            if (bytes.Count > 0) result.Add(Encoding.UTF8.GetString(bytes.ToArray()));
            bytes.Clear();
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
        piece.Length == 6 && piece.StartsWith("<0x", StringComparison.Ordinal) && piece[5] == '>' && byte.TryParse(piece.AsSpan(3, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out byte b) ? b : null;
}
