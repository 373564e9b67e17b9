using System.Buffers;
using System.Text;

namespace Headroom.Tokenizers;

/// <summary>A token that is found in the text as it stands, before the model sees the rest.</summary>
internal sealed record AddedToken(
    int Id, string Content, bool SingleWord = false, bool LStrip = false, bool RStrip = false, bool Normalized = false,
    bool Special = true);

/// <summary>Finds added tokens: the leftmost, of these the longest.</summary>
internal sealed class AddedTokens
{
    private readonly Dictionary<ulong, int> _next = [];
    private readonly List<AddedToken?> _end = [null];
    private readonly SearchValues<char> _first;

    public AddedTokens(IEnumerable<(string Pattern, AddedToken Token)> tokens)
    {
        var first = new HashSet<char>();
        foreach (var (pattern, token) in tokens)
        {
            if (pattern.Length == 0) continue;
            first.Add(pattern[0]);
            int node = 0;
            foreach (char c in pattern)
            {
                ulong key = ((ulong)(uint)node << 16) | c;
                if (!_next.TryGetValue(key, out int to))
                {
                    _next[key] = to = _end.Count;
                    _end.Add(null);
                }
                node = to;
            }
            _end[node] = token;
        }
        _first = SearchValues.Create(first.ToArray());
    }

    public bool IsEmpty => _next.Count == 0;

    /// <summary>
    /// The next token from <paramref name="at"/> on, which moves behind its spelling; start and stop include the blanks
    /// that it takes along. As in tokenizers (added_vocabulary.rs, find_matches), blanks taken along do not hide a
    /// token that is spelled in them.
    /// </summary>
    /// <param name="text">The text.</param>
    /// <param name="at">Where to look on.</param>
    /// <param name="done">End of what is taken already; blanks before it are not taken again.</param>
    /// <param name="start">Where the token begins.</param>
    /// <param name="stop">Where the rest begins.</param>
    public AddedToken? Find(ReadOnlySpan<char> text, ref int at, int done, out int start, out int stop)
    {
        while (at < text.Length)
        {
            int hop = text[at..].IndexOfAny(_first);
            if (hop < 0) break;
            at += hop;
            int node = 0, end = 0;
            AddedToken? found = null;
            for (int i = at; i < text.Length && _next.TryGetValue(((ulong)(uint)node << 16) | text[i], out node); i++)
                if (_end[node] is { } token) (found, end) = (token, i + 1);
            if (found == null) { at++; continue; }
            (start, stop) = (at, end);
            at = end;
            if (found.SingleWord && (WordEnds(text[..start]) || WordStarts(text[stop..]))) continue;
            if (found.LStrip)
            {
                while (start > 0 && char.IsWhiteSpace(text[start - 1])) start--;
                start = Math.Max(start, done);
            }
            if (found.RStrip) while (stop < text.Length && char.IsWhiteSpace(text[stop])) stop++;
            if (start < stop) return found;
        }
        at = start = stop = text.Length;
        return null;
    }

    private static bool WordEnds(ReadOnlySpan<char> text) =>
        Rune.DecodeLastFromUtf16(text, out var rune, out _) == OperationStatus.Done && WordMatcher.IsWord(rune);

    private static bool WordStarts(ReadOnlySpan<char> text) =>
        Rune.DecodeFromUtf16(text, out var rune, out _) == OperationStatus.Done && WordMatcher.IsWord(rune);
}
