using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Headroom.Core;

namespace Headroom.Formats.Tokenizers;

/// <summary>How a split treats what its expression matches.</summary>
internal enum SplitBehavior { Isolated, Removed, MergedWithPrevious, MergedWithNext, Contiguous }

/// <summary>One splitting step: an expression with the meaning the vocabulary's author gave it (Oniguruma, code points) run by .NET (UTF-16).
/// Texts with characters above U+FFFF are matched through a stand-in of the same category in their place.</summary>
internal sealed class SplitStep
{
    private const string Contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
    private readonly Regex _regex;
    private readonly SplitBehavior _behavior;
    private readonly bool _invert;
    private readonly List<(int Lo, int Hi, char Proxy)> _astral = [];
    private readonly char[] _proxy = new char[30];

    private static readonly System.Collections.Concurrent.ConcurrentDictionary<(string, SplitBehavior, bool, bool), SplitStep> Made = new();

    /// <summary>The step for a pattern. Compiling one takes milliseconds, so the first few dozen are kept.</summary>
    public static SplitStep Of(string pattern, SplitBehavior behavior = SplitBehavior.Isolated, bool invert = false, bool literal = false)
    {
        var key = (pattern, behavior, invert, literal);
        if (Made.TryGetValue(key, out var step)) return step;
        step = new SplitStep(pattern, behavior, invert, literal);
        return Made.Count < 64 ? Made.GetOrAdd(key, step) : step;
    }

    private SplitStep(string pattern, SplitBehavior behavior, bool invert, bool literal)
    {
        (_behavior, _invert) = (behavior, invert);
        _regex = Build(pattern, literal ? Regex.Escape(pattern) : Translate(pattern));
    }

    /// <summary>A .NET expression for one of a vocabulary file; it cannot run without end.</summary>
    public static Regex Expression(string pattern) => Build(pattern, pattern);

    private static Regex Build(string pattern, string net)
    {
        try { return new Regex(net, RegexOptions.CultureInvariant | RegexOptions.Multiline | RegexOptions.Compiled, TimeSpan.FromSeconds(10)); }
        catch (Exception e) when (e is ArgumentException or NotSupportedException)
        {
            throw new HeadroomException($"The tokenizer splits text by an expression that is not supported here: {(pattern.Length > 200 ? pattern[..200] + "..." : pattern)}", "Use a model whose tokenizer splits by a plain expression, or its tokenizer.model / GGUF file.", inner: e);
        }
    }

    private string Translate(string pattern)
    {
        // Oniguruma folds the long s too.
        pattern = pattern.Replace(Contractions, "(?:'[sS\u017F]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", StringComparison.Ordinal);
        // A run of blanks that ends no line would be tried from each of its blanks.
        if (pattern == @"\s+$") pattern = @"(?<!\s)\s+$";
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
        for (int k = 0; k < 30; k++) _proxy[k] = (UnicodeCategory)k == UnicodeCategory.Surrogate ? '\uFFFD' : Free((UnicodeCategory)k);
        var sb = new StringBuilder(pattern.Length);
        for (int i = 0; i < runes.Length; i++)
        {
            if (runes[i].IsBmp) { sb.Append((char)runes[i].Value); continue; }
            int lo = runes[i].Value, hi = lo;
            if (i + 2 < runes.Length && runes[i + 1].Value == '-' && runes[i + 2].Value > lo) { hi = runes[i + 2].Value; i += 2; }
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

    /// <summary>Splits text[start..start+length] and appends the parts.</summary>
    public void Split(ReadOnlySpan<char> text, int start, int length, List<(int Start, int Length)> parts)
    {
        var span = text.Slice(start, length);
        if (span.IndexOfAnyInRange('\uD800', '\uDFFF') < 0) { Run(span, start, null, parts); return; }
        var chars = new char[length];
        var at = new int[length + 1];
        int n = 0, pos = 0;
        foreach (var rune in span.EnumerateRunes())
        {
            at[n] = pos;
            chars[n++] = rune.IsBmp ? (char)rune.Value : StandIn(rune);
            pos += rune.Utf16SequenceLength;
        }
        at[n] = pos;
        Run(chars.AsSpan(0, n), start, at, parts);
    }

    private void Run(ReadOnlySpan<char> span, int start, int[]? at, List<(int, int)> parts)
    {
        int done = 0, first = parts.Count;
        bool lastMatch = false, pending = false;
        int pendingFrom = 0;
        void Add(int a, int b)
        {
            if (b <= a) return;
            if (at != null) { a = at[a]; b = at[b]; }
            parts.Add((start + a, b - a));
        }
        void Piece(int a, int b, bool match)
        {
            if (b <= a) return;
            switch (_behavior)
            {
                case SplitBehavior.Isolated: Add(a, b); break;
                case SplitBehavior.Removed: if (!match) Add(a, b); break;
                case SplitBehavior.Contiguous:
                    if (match && lastMatch && parts.Count > first) { var p = parts[^1]; parts.RemoveAt(parts.Count - 1); Add(a, b); parts[^1] = (p.Item1, p.Item2 + parts[^1].Item2); }
                    else Add(a, b);
                    break;
                case SplitBehavior.MergedWithPrevious:
                    if (match && !lastMatch && parts.Count > first) { var p = parts[^1]; parts.RemoveAt(parts.Count - 1); Add(a, b); parts[^1] = (p.Item1, p.Item2 + parts[^1].Item2); }
                    else Add(a, b);
                    break;
                case SplitBehavior.MergedWithNext:
                    if (match) { if (pending) Add(pendingFrom, a); pending = true; pendingFrom = a; }
                    else { Add(pending ? pendingFrom : a, b); pending = false; }
                    break;
            }
            lastMatch = match;
        }
        foreach (var m in _regex.EnumerateMatches(span))
        {
            if (m.Length == 0) continue;
            Piece(done, m.Index, _invert);
            Piece(m.Index, m.Index + m.Length, !_invert);
            done = m.Index + m.Length;
        }
        Piece(done, span.Length, _invert);
        if (pending) Add(pendingFrom, span.Length);
    }
}

/// <summary>The expressions that vocabularies name rather than carry.</summary>
internal static class KnownSplits
{
    public const string Gpt2 = @"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    private const string Llama3 = @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    private const string Qwen2 = @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    private const string Cased = "\\s?[A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293\u0295-\u02AF\u0370-\u0373\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C\u038E-\u03A1\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102\u2107\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-\u212D\u212F-\u2134\u2139\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4\u2CEB-\u2CEE\u2CF2\u2CF3\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E\uAB70-\uABBF\uFB00-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A\U00010400-\U0001044F\U000104B0-\U000104D3\U000104D8-\U000104FB\U00010C80-\U00010CB2\U00010CC0-\U00010CF2\U000118A0-\U000118DF\U0001E900-\U0001E943]+";
    private const string V3Words = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";

    /// <summary>Whether a GGUF pre-tokenizer name means that a word which is a piece is not merged (and that BOS is added unless the file says otherwise).</summary>
    public static bool WholeWordsFirst(string? pre) => pre is "llama-bpe" or "llama3" or "llama-v3" or "falcon3";

    /// <summary>Whether the tokenizer behind a GGUF pre-tokenizer name composes its text (NFC).</summary>
    public static bool Composed(string? pre) => pre is "qwen2";

    /// <summary>The expressions of a GGUF pre-tokenizer name, in order; null = llama.cpp's own where a file names none (<c>llama-vocab.cpp</c>, llm_tokenizer_bpe).</summary>
    public static string[] ByName(string? pre) => pre switch
    {
        null or "default" => [@"[\p{P}\$\+<=>\^~\|]+", @"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)", @"\p{N}+", "[0-9][0-9][0-9]"],
        "gpt-2" or "gpt2" or "phi-2" or "jina-es" or "jina-de" or "olmo" => [Gpt2],
        "llama-bpe" or "llama3" or "llama-v3" or "falcon3" => [Llama3],
        "qwen2" or "deepseek-r1-qwen" or "megrez" => [Qwen2],
        "smollm" or "starcoder" or "refact" or "command-r" => [@"\p{N}", Gpt2],
        "deepseek-llm" => ["[\r\n]", Cased, "\\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+", "\\s+$", "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+", @"\p{N}"],
        "deepseek-coder" => ["[\r\n]", @"\s?\p{L}+", @"\s?\p{P}+", "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+", @"\p{N}"],
        "deepseek-v3" => [@"\p{N}{1,3}", "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+", V3Words],
        _ => throw new HeadroomException($"The GGUF vocabulary names the pre-tokenizer \"{pre}\", which is not known here.", "Point the recipe at the model's Hugging Face folder with its tokenizer.json, or use a GGUF with pre-tokenizer llama-bpe, qwen2, smollm, gpt-2, deepseek-llm, deepseek-coder or deepseek-v3."),
    };
}
