using System.Buffers;
using System.Globalization;

namespace Headroom.Formats.Tokenizers;

/// <summary>A token that is found in the text as it stands, before the model sees the rest.</summary>
internal sealed record AddedToken(int Id, string Content, bool SingleWord = false, bool LStrip = false, bool RStrip = false, bool Normalized = false, bool Special = true);

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

    /// <summary>The next token at or after from; start and stop include the blanks it takes along, start never below from.</summary>
    public AddedToken? Find(ReadOnlySpan<char> text, int from, out int start, out int stop)
    {
        for (int at = from; at < text.Length; at++)
        {
            int hop = text[at..].IndexOfAny(_first);
            if (hop < 0) break;
            at += hop;
            int node = 0, end = 0;
            AddedToken? found = null;
            for (int i = at; i < text.Length && _next.TryGetValue(((ulong)(uint)node << 16) | text[i], out node); i++)
                if (_end[node] is { } token) (found, end) = (token, i + 1);
            if (found == null) continue;
            if (found.SingleWord && ((at > 0 && Word(text[at - 1])) || (end < text.Length && Word(text[end])))) { at = end - 1; continue; }
            (start, stop) = (at, end);
            if (found.LStrip) while (start > from && char.IsWhiteSpace(text[start - 1])) start--;
            if (found.RStrip) while (stop < text.Length && char.IsWhiteSpace(text[stop])) stop++;
            return found;
        }
        start = stop = text.Length;
        return null;
    }

    private static bool Word(char c) => char.IsLetterOrDigit(c) || CharUnicodeInfo.GetUnicodeCategory(c) is UnicodeCategory.ConnectorPunctuation or UnicodeCategory.NonSpacingMark or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.EnclosingMark;
}
