using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Headroom.Core;

namespace Headroom.Tokenizers;

/// <summary>How a split treats what its expression matches.</summary>
internal enum SplitBehavior { Isolated, Removed, MergedWithPrevious, MergedWithNext, Contiguous }

/// <summary>Finds the places at which a text is split or replaced.</summary>
internal abstract class Matcher
{
    /// <summary>Appends the matches, in order and without overlap; one may be empty.</summary>
    public abstract void Find(ReadOnlySpan<char> text, List<(int Start, int End)> matches);

    /// <summary>The matches exchanged for a text; nothing is found in an empty one.</summary>
    /// <exception cref="HeadroomException">A match is empty where that is not allowed, or the text grows without
    /// bound.</exception>
    public string Replace(string text, string by, bool emptyAllowed = true)
    {
        var matches = new List<(int Start, int End)>();
        if (text.Length > 0) Find(text, matches);
        if (matches.Count == 0) return text;
        var result = new StringBuilder(text.Length);
        int done = 0;
        foreach (var (start, end) in matches)
        {
            if (start == end && !emptyAllowed)
                throw new HeadroomException(
                    "The tokenizer has a normalizer that replaces the empty text before a byte-level step, which is "
                        + "not supported.",
                    "Use a model whose tokenizer replaces characters only, or its tokenizer.model / GGUF file.");
            result.Append(text, done, start - done).Append(by);
            done = end;
            Normalizers.Bound(text.Length, result.Length);
        }
        return result.Append(text, done, text.Length - done).ToString();
    }
}

/// <summary>Each place of a fixed text.</summary>
internal sealed class LiteralMatcher(string literal) : Matcher
{
    public override void Find(ReadOnlySpan<char> text, List<(int Start, int End)> matches)
    {
        for (
            int from = 0;
            text[from..].IndexOf(literal, StringComparison.Ordinal) is >= 0 and var hop;
            from += hop + literal.Length
        )
            matches.Add((from + hop, from + hop + literal.Length));
    }
}

/// <summary>Each character of a kind.</summary>
internal sealed class CharMatcher(Func<Rune, bool> fits) : Matcher
{
    public override void Find(ReadOnlySpan<char> text, List<(int Start, int End)> matches)
    {
        int at = 0;
        foreach (var rune in text.EnumerateRunes())
        {
            if (fits(rune)) matches.Add((at, at + rune.Utf16SequenceLength));
            at += rune.Utf16SequenceLength;
        }
    }
}

/// <summary>Runs of word characters and runs of what is neither that nor blank: \w+|[^\w\s]+ in Rust's regex.</summary>
internal sealed class WordMatcher : Matcher
{
    public override void Find(ReadOnlySpan<char> text, List<(int Start, int End)> matches)
    {
        int at = 0, start = 0, last = 0;
        foreach (var rune in text.EnumerateRunes())
        {
            int kind = Rune.IsWhiteSpace(rune) ? 0 : IsWord(rune) ? 1 : 2;
            if (kind != last)
            {
                if (last != 0) matches.Add((start, at));
                (start, last) = (at, kind);
            }
            at += rune.Utf16SequenceLength;
        }
        if (last != 0) matches.Add((start, at));
    }

    /// <summary>
    /// \w of Rust's regex: alphabetic, marks, decimal digits, connectors and joiners (Unicode UTS 18, Annex C).
    /// </summary>
    public static bool IsWord(Rune r)
    {
        if (r.Value is 0x200C or 0x200D) return true;
        return Rune.GetUnicodeCategory(r) switch
        {
            <= UnicodeCategory.LetterNumber => true, // letters, marks, decimal digits, letter numbers
            UnicodeCategory.ConnectorPunctuation => true,
            UnicodeCategory.OtherSymbol => r.Value
                is (>= 0x24B6 and <= 0x24E9)
                    or (>= 0x1F130 and <= 0x1F149)
                    or (>= 0x1F150 and <= 0x1F169)
                    or (>= 0x1F170 and <= 0x1F189),
            _ => false,
        };
    }
}

/// <summary>An expression with the meaning the vocabulary's author gave it (Oniguruma, code points) run by .NET
/// (UTF-16). Texts with characters above U+FFFF are matched through a stand-in of the same category in their
/// place.</summary>
internal sealed class RegexMatcher : Matcher
{
    private const string Contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
    // \w of Oniguruma, read off its library over all characters: letters, marks, decimal and letter numbers,
    // connectors, superscripts and fractions of Latin-1, circled letters.
    private const string Word = @"\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\u00B2\u00B3\u00B9\u00BC-\u00BE\u24B6-\u24E9";
    private static readonly (int, int)[] CircledLetters = [(0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189)];
    private static readonly System.Buffers.SearchValues<char> OptionLetters = System.Buffers.SearchValues.Create(
        "imsxna-d");
    private readonly Regex _regex;
    private readonly List<(int Lo, int Hi, char Proxy)> _astral = [];
    private readonly char[] _proxy = new char[30];

    private static readonly System.Collections.Concurrent.ConcurrentDictionary<string, RegexMatcher> Made = new(
        StringComparer.Ordinal);

    /// <summary>The matcher of a pattern. Compiling one takes milliseconds, so the first few dozen are kept.</summary>
    public static RegexMatcher Make(string pattern)
    {
        if (Made.TryGetValue(pattern, out var made)) return made;
        made = new RegexMatcher(pattern);
        return Made.Count < 128 ? Made.GetOrAdd(pattern, made) : made;
    }

    private RegexMatcher(string pattern)
    {
        string net = Translate(pattern);
        try
        {
            _regex = new Regex(
                net, RegexOptions.CultureInvariant | RegexOptions.Multiline | RegexOptions.Compiled,
                TimeSpan.FromSeconds(10));
        }
        catch (Exception e) when (e is ArgumentException or NotSupportedException)
        {
            throw Unsupported(pattern, e);
        }
    }

    private static HeadroomException Unsupported(string pattern, Exception? inner = null) =>
        new(
            $"The tokenizer splits text by an expression that is not supported here: "
                + $"{HeadroomException.Value(pattern, 200)}",
            "Use a model whose tokenizer splits by a plain expression, or its tokenizer.model / GGUF file.",
            inner: inner);

    // What .NET would read without a complaint, but otherwise than Oniguruma: classes in classes, inline options but i,
    // \G, {,n}. \w and \b go by another set of characters, and where case does not count, the long s is an s (and two
    // letters can be one: that is refused).
    private string Dialect(string pattern)
    {
        var net = new StringBuilder(pattern.Length);
        var groups = new Stack<bool>();
        bool inClass = false, words = false, anyCase = false;
        char before = '\0';
        for (int i = 0; i < pattern.Length; i++)
        {
            char c = pattern[i], next = i + 1 < pattern.Length ? pattern[i + 1] : '\0';
            if (c == '\\')
            {
                i++;
                words |= next is 'w' or 'W' or 'b' or 'B';
                if (Escape(pattern, next, inClass) is { } other) net.Append(other); else net.Append(c).Append(next);
                if (next is 'p' or 'P' && pattern.IndexOf('}', i) is > 0 and var brace)
                {
                    net.Append(pattern, i + 1, brace - i);
                    i = brace;
                }
                before = '\0';
                continue;
            }
            if (ReadsOtherwise(pattern, i, inClass)) throw Unsupported(pattern);
            if (!inClass && c == '[')
            {
                inClass = true;
                net.Append(c);
                if (next == '^') { net.Append(next); i++; }
                if (i + 1 < pattern.Length && pattern[i + 1] == ']') throw Unsupported(pattern);
                continue;
            }
            if (c == ']') inClass = false;
            else if (c == '(' && !inClass)
            {
                groups.Push(anyCase);
                anyCase |= next == '?' && pattern.AsSpan(i + 2).StartsWith("i:");
                if (next == '?' && pattern.AsSpan(i + 2).StartsWith("i)")) throw Unsupported(pattern);
            }
            else if (c == ')' && !inClass && groups.Count > 0) anyCase = groups.Pop();
            if (anyCase && !inClass && CanBeOneLetter(before, c)) throw Unsupported(pattern);
            before = c;
            if (anyCase && c is ('s' or 'S')) net.Append(inClass ? "s\u017F" : "[s\u017F]");
            else net.Append(c);
        }
        if (words) foreach (var (lo, hi) in CircledLetters) _astral.Add((lo, hi, '\u24B6'));
        return net.ToString();
    }

    // A letter behind a backslash by Oniguruma's characters; null = as .NET has it.
    private static string? Escape(string pattern, char letter, bool inClass) => (letter, inClass) switch
    {
        ('w', true) => Word,
        ('w', false) => $"[{Word}]",
        ('W', false) => $"[^{Word}]",
        ('b', false) => $"(?:(?<=[{Word}])(?![{Word}])|(?<![{Word}])(?=[{Word}]))",
        ('B', false) => $"(?:(?<=[{Word}])(?=[{Word}])|(?<![{Word}])(?![{Word}]))",
        ('W', true) or ('G', _) => throw Unsupported(pattern),
        _ => null,
    };

    // A class in a class, {,n} or an inline option but i at a place of the pattern.
    private static bool ReadsOtherwise(string pattern, int at, bool inClass)
    {
        char c = pattern[at], next = at + 1 < pattern.Length ? pattern[at + 1] : '\0';
        if (inClass) return c == '[' || (c == '&' && next == '&');
        return (c, next) == ('{', ',')
            || (c, next) == ('(', '?')
                && pattern.AsSpan(at + 2).IndexOfAnyExcept(OptionLetters) is > 0 and var n
                && pattern[at + 2 + n] is ':' or ')'
                && pattern[(at + 2)..(at + 2 + n)] != "i";
    }

    private static bool CanBeOneLetter(char a, char b) =>
        (char.ToLowerInvariant(a), char.ToLowerInvariant(b)) is ('s', 's' or 't') or ('f', 'f' or 'i' or 'l');

    private string Translate(string pattern)
    {
        // Oniguruma folds the long s too.
        pattern = pattern.Replace(
            Contractions, "(?:'[sS\u017F]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", StringComparison.Ordinal);
        // A run of blanks that ends no line would be tried from each of its blanks.
        if (pattern == @"\s+$") pattern = @"(?<!\s)\s+$";
        pattern = Dialect(pattern);
        var runes = pattern.EnumerateRunes().ToArray();
        var named = new List<(int Lo, int Hi)>();
        for (int i = 0; i < runes.Length; i++)
        {
            int lo = runes[i].Value, hi = lo;
            if (i + 2 < runes.Length && runes[i + 1].Value == '-' && runes[i + 2].Value > lo) hi = runes[i + 2].Value;
            named.Add((lo, hi));
        }
        var used = new HashSet<char>();
        char Free(UnicodeCategory cat)
        {
            char any = '\uFFFD';
            for (int c = 0xFFFD; c >= 0x100; c--)
            {
                if (CharUnicodeInfo.GetUnicodeCategory((char)c) != cat) continue;
                any = (char)c;
                if (!used.Contains(any) && !named.Exists(r => c >= r.Lo && c <= r.Hi)) break;
            }
            used.Add(any);
            return any;
        }
        for (int k = 0; k < 30; k++)
            _proxy[k] = (UnicodeCategory)k == UnicodeCategory.Surrogate ? '\uFFFD' : Free((UnicodeCategory)k);
        var sb = new StringBuilder(pattern.Length);
        for (int i = 0; i < runes.Length; i++)
        {
            if (runes[i].IsBmp) { sb.Append((char)runes[i].Value); continue; }
            int lo = runes[i].Value, hi = lo;
            if (i + 2 < runes.Length && runes[i + 1].Value == '-' && runes[i + 2].Value > lo)
            {
                hi = runes[i + 2].Value;
                i += 2;
            }
            char stand = Free(CharUnicodeInfo.GetUnicodeCategory(lo));
            _astral.Add((lo, hi, stand));
            sb.Append(stand);
        }
        return sb.ToString();
    }

    private char StandIn(Rune rune)
    {
        foreach (var (lo, hi, p) in _astral) if (rune.Value >= lo && rune.Value <= hi) return p;
        return _proxy[(int)CharUnicodeInfo.GetUnicodeCategory(rune.Value)];
    }

    public override void Find(ReadOnlySpan<char> text, List<(int Start, int End)> matches)
    {
        if (text.IndexOfAnyInRange('\uD800', '\uDFFF') < 0)
        {
            Run(text, matches);
            return;
        }
        var chars = new char[text.Length];
        var at = new int[text.Length + 1];
        int n = 0, pos = 0, first = matches.Count;
        foreach (var rune in text.EnumerateRunes())
        {
            at[n] = pos;
            chars[n++] = rune.IsBmp ? (char)rune.Value : StandIn(rune);
            pos += rune.Utf16SequenceLength;
        }
        at[n] = pos;
        Run(chars.AsSpan(0, n), matches);
        for (int i = first; i < matches.Count; i++) matches[i] = (at[matches[i].Start], at[matches[i].End]);
    }

    private void Run(ReadOnlySpan<char> text, List<(int Start, int End)> matches)
    {
        int last = -1;
        foreach (var m in _regex.EnumerateMatches(text))
        {
            // An empty match right after a match is none (onig's find_iter).
            if (m.Length == 0 && m.Index == last) continue;
            matches.Add((m.Index, last = m.Index + m.Length));
        }
    }
}

/// <summary>One splitting step: where it matches, and what becomes of the matches.</summary>
internal sealed class SplitStep(Matcher matcher, SplitBehavior behavior = SplitBehavior.Isolated, bool invert = false)
{
    [ThreadStatic] private static List<(int Start, int End)>? _matches;

    /// <summary>Isolates the matches of an expression.</summary>
    public static SplitStep Make(string pattern) => new(RegexMatcher.Make(pattern));

    /// <summary>Splits text[start..start+length] and appends the parts.</summary>
    public void Split(ReadOnlySpan<char> text, int start, int length, List<(int Start, int Length)> parts)
    {
        if (length == 0) return;
        var matches = _matches ??= [];
        matches.Clear();
        matcher.Find(text.Slice(start, length), matches);
        if (behavior == SplitBehavior.Isolated)
        {
            int done = 0;
            foreach (var (from, to) in matches)
            {
                if (from > done) parts.Add((start + done, from - done));
                if (to > from) parts.Add((start + from, to - from));
                done = to;
            }
            if (length > done) parts.Add((start + done, length - done));
            return;
        }
        foreach (var (from, to) in Pieces(matches, length))
            if (to > from) parts.Add((start + from, to - from));
        matches.Clear();
        if (matches.Capacity > 1 << 16) _matches = null;
    }

    // As tokenizers' NormalizedString::split: pieces that match and pieces that do not take turns, and the behavior
    // says which of them grow together.
    private List<(int Start, int End)> Pieces(List<(int Start, int End)> matches, int length)
    {
        var all = new List<(int Start, int End, bool Match)>(2 * matches.Count + 1);
        int done = 0;
        foreach (var (from, to) in matches)
        {
            if (from > done) all.Add((done, from, invert));
            all.Add((from, to, !invert));
            done = to;
        }
        if (length > done) all.Add((done, length, invert));
        var pieces = new List<(int Start, int End)>(all.Count);
        bool before = false;
        switch (behavior)
        {
            case SplitBehavior.Removed:
                foreach (var (from, to, match) in all) if (!match) pieces.Add((from, to));
                break;
            case SplitBehavior.MergedWithNext:
                for (int i = all.Count - 1; i >= 0; i--)
                {
                    var (from, to, match) = all[i];
                    if (match && !before && pieces.Count > 0) pieces[^1] = (from, pieces[^1].End);
                    else pieces.Add((from, to));
                    before = match;
                }
                pieces.Reverse();
                break;
            default:
                foreach (var (from, to, match) in all)
                {
                    bool joins = behavior == SplitBehavior.Contiguous ? match == before : match && !before;
                    if (joins && pieces.Count > 0) pieces[^1] = (pieces[^1].Start, to);
                    else pieces.Add((from, to));
                    before = match;
                }
                break;
        }
        return pieces;
    }
}

/// <summary>The expressions that vocabularies name rather than carry.</summary>
internal static class KnownSplits
{
    public const string Gpt2 = @"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    private const string Llama3 =
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    private const string Qwen2 =
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    private const string Cased =
        "\\s?[A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293\u0295-\u02AF"
            + "\u0370-\u0373\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C\u038E-\u03A1\u03A3-\u03F5"
            + "\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA"
            + "\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45"
            + "\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE"
            + "\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102"
            + "\u2107\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-\u212D\u212F-\u2134\u2139"
            + "\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4\u2CEB-\u2CEE\u2CF2\u2CF3"
            + "\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E\uAB70-\uABBF\uFB00-\uFB06"
            + "\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A\U00010400-\U0001044F\U000104B0-\U000104D3"
            + "\U000104D8-\U000104FB\U00010C80-\U00010CB2\U00010CC0-\U00010CF2\U000118A0-\U000118DF"
            + "\U0001E900-\U0001E943]+";
    private const string V3Words =
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
            + "?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";

    /// <summary>
    /// Whether a GGUF pre-tokenizer name means that a word which is a piece is not merged (and that BOS is added unless
    /// the file says otherwise).
    /// </summary>
    public static bool WholeWordsFirst(string? pre) => pre is "llama-bpe" or "llama3" or "llama-v3" or "falcon3";

    /// <summary>Whether the tokenizer behind a GGUF pre-tokenizer name composes its text (NFC).</summary>
    public static bool Composed(string? pre) => pre is "qwen2";

    /// <summary>
    /// The expressions of a GGUF pre-tokenizer name, in order; null = llama.cpp's own where a file names none
    /// (<c>llama-vocab.cpp</c>, llm_tokenizer_bpe).
    /// </summary>
    public static string[] ByName(string? pre) => pre switch
    {
        null or "default" =>
        [
            @"[\p{P}\$\+<=>\^~\|]+", @"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
                @"\p{N}+", "[0-9][0-9][0-9]"],
        "gpt-2" or "gpt2" or "phi-2" or "jina-es" or "jina-de" or "olmo" => [Gpt2],
        "llama-bpe" or "llama3" or "llama-v3" or "falcon3" => [Llama3],
        "qwen2" or "deepseek-r1-qwen" or "megrez" => [Qwen2],
        "smollm" or "starcoder" or "refact" or "command-r" => [@"\p{N}", Gpt2],
        "deepseek-llm" =>
        [
            "[\r\n]", Cased, "\\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+", "\\s+$",
                "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+", @"\p{N}"],
        "deepseek-coder" =>
        [
            "[\r\n]", @"\s?\p{L}+", @"\s?\p{P}+", "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+", @"\p{N}"],
        "deepseek-v3" => [@"\p{N}{1,3}", "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+", V3Words],
        _ => throw new HeadroomException(
            $"The GGUF vocabulary names the pre-tokenizer \"{pre}\", which is not known here.",
            "Point the recipe at the model's Hugging Face folder with its tokenizer.json, or use a GGUF with "
                + "pre-tokenizer llama-bpe, qwen2, smollm, gpt-2, deepseek-llm, deepseek-coder or deepseek-v3."
        ),
    };
}
