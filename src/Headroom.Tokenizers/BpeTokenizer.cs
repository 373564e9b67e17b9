using System.Buffers;
using System.Text;
using System.Text.RegularExpressions;
using Headroom.Core;

namespace Headroom.Tokenizers;

/// <summary>What a vocabulary file says, in the form the tokenizer runs on.</summary>
internal sealed class TokenizerParts
{
    public required BpeModel Model { get; init; }
    public required bool ByteLevel { get; init; }
    /// <summary>
    /// Whether a text is what the bytes of its pieces say; absent, whether the vocabulary is byte-level.
    /// </summary>
    public bool? BytesToText { get; init; }
    /// <summary>Piece by id; empty where an id has none.</summary>
    public required string[] Pieces { get; set; }
    public required Dictionary<string, int> Ids { get; init; }
    public List<AddedToken> Added { get; init; } = [];
    public Func<string, string>? Normalizer { get; init; }
    public List<PreStep> Steps { get; init; } = [];
    /// <summary>Steps of decoding, unless the pieces are byte-level and nothing else is done to them.</summary>
    public List<Func<List<string>, List<string>>> Decoders { get; init; } = [];
    /// <summary>What joins pieces after the decoding steps.</summary>
    public string Joint { get; init; } = "";
    public List<int> Prefix { get; init; } = [];
    public List<int> Suffix { get; init; } = [];
    public int? Bos { get; set; }
    public int? Eos { get; set; }
    public string? ChatTemplate { get; set; }
    /// <summary>unk_token, pad_token and so on, beside BOS and EOS; null = not known.</summary>
    public Dictionary<string, string>? SpecialTokens { get; set; }
    /// <summary>additional_special_tokens; null = not known.</summary>
    public List<string>? AdditionalSpecialTokens { get; set; }
    /// <summary>Lines for the user on how the file was read.</summary>
    public IReadOnlyList<string> Notices { get; set; } = [];
    /// <summary>SentencePiece vocabularies: score and kind of each piece as the file has them; else null.</summary>
    public IReadOnlyList<(string Text, float Score, PieceKind Kind)>? Scored { get; init; }
}

/// <summary>Byte pair encoding of either kind behind normalizer, added tokens and word splitting.</summary>
internal sealed class BpeTokenizer : ITokenizer
{
    private readonly TokenizerParts _parts;
    private readonly AddedTokens _raw, _normalized, _special;
    private readonly Dictionary<int, string> _added = [];
    private readonly int[] _prefix, _suffix;
    private int[]? _sizes;

    public BpeTokenizer(TokenizerParts parts)
    {
        _parts = parts;
        _raw = new AddedTokens(parts.Added.Where(t => !t.Normalized).Select(t => (t.Content, t)));
        string Spelling(AddedToken t) =>
            t.Normalized && parts.Normalizer != null ? parts.Normalizer(t.Content) : t.Content;
        _normalized = new AddedTokens(parts.Added.Where(t => t.Normalized).Select(t => (Spelling(t), t)));
        _special = new AddedTokens(parts.Added.Where(t => t.Special).Select(t => (t.Content, t)));
        foreach (var t in parts.Added) _added[t.Id] = Spelling(t);
        (_prefix, _suffix) = (parts.Prefix.ToArray(), parts.Suffix.ToArray());
        AddBos = BosId is { } b && _prefix.Contains(b);
        AddEos = EosId is { } e && _suffix.Contains(e);
    }

    internal TokenizerParts Parts => _parts;
    public int VocabSize => _parts.Pieces.Length;
    public int? BosId => _parts.Bos;
    public int? EosId => _parts.Eos;
    public bool AddBos { get; }
    public bool AddEos { get; }
    public string? ChatTemplate => _parts.ChatTemplate;
    public IReadOnlyDictionary<string, string>? SpecialTokens => _parts.SpecialTokens;
    public IReadOnlyList<string>? AdditionalSpecialTokens => _parts.AdditionalSpecialTokens;
    public IReadOnlyList<string> Notices => _parts.Notices;

    public string IdToToken(int id) => (uint)id < (uint)_parts.Pieces.Length ? _parts.Pieces[id] : "";

    public int? TokenToId(string token) => _parts.Ids.TryGetValue(token, out int id) ? id : null;

    public int[] Encode(string text, bool addSpecial = false)
    {
        ArgumentNullException.ThrowIfNull(text);
        var run = new Run(text.Length / 3 + 4);
        if (addSpecial) run.Ids.AddRange(_prefix);
        Encode(WellFormed(text), run, null);
        if (addSpecial) run.Ids.AddRange(_suffix);
        return run.Ids.ToArray();
    }

    /// <summary>
    /// Ids as <see cref="Encode(string, bool)"/> gives them, and for each what of the text it stands for (transformers'
    /// offsets_mapping): UTF-16, from the first character to behind the last. Tokens that share a character by bytes
    /// all have it.
    /// </summary>
    internal (int[] Ids, (int Start, int End)[] Offsets) EncodeWithOffsets(string text)
    {
        var run = new Run(text.Length / 3 + 4);
        // Looked up id by id: a value that another thread wrote meanwhile is the same.
        var offsets = new TokenOffsets(_parts, _sizes ??= new int[VocabSize], run.Ids);
        Encode(WellFormed(text), run, offsets);
        return (run.Ids.ToArray(), offsets.ToArray());
    }

    private void Encode(string text, Run run, TokenOffsets? offsets)
    {
        try
        {
            int from = 0, at = 0;
            while (!_raw.IsEmpty && _raw.Find(text, ref at, from, out int start, out int stop) is { } token)
            {
                if (start > from) Normal(text[from..start], from, run, offsets);
                run.Ids.Add(token.Id);
                offsets?.Add(start, stop);
                from = stop;
            }
            if (from < text.Length) Normal(from == 0 ? text : text[from..], from, run, offsets);
        }
        catch (RegexMatchTimeoutException e)
        {
            throw new HeadroomException(
                "The tokenizer's expression took too long on a text.",
                "The tokenizer file asks for a splitting expression of exponential cost; use another copy of the "
                    + "tokenizer, or its GGUF or tokenizer.model file.",
                inner: e);
        }
    }

    /// <summary>The special tokens that are spelled in a part of a text, in order.</summary>
    internal IEnumerable<(int Start, int End, string Token)> Specials(string text, int from, int to)
    {
        for (int at = from, done = from; at < to;)
        {
            if (_special.Find(text.AsSpan(0, to), ref at, done, out int start, out int stop) is not { } token)
                yield break;
            yield return (start, stop, token.Content);
            done = stop;
        }
    }

    private sealed class Run(int capacity)
    {
        public readonly List<int> Ids = new(capacity);
        public List<(int Start, int Length)> A = [], B = [];
    }

    private void Normal(string source, int place, Run run, TokenOffsets? offsets)
    {
        string text = _parts.Normalizer?.Invoke(source) ?? source;
        offsets?.Stretch(place, source, text);
        int from = 0, at = 0;
        while (!_normalized.IsEmpty && _normalized.Find(text, ref at, from, out int start, out int stop) is { } token)
        {
            if (start > from) Words(text[from..start], from, place == 0 && from == 0, run, offsets);
            run.Ids.Add(token.Id);
            offsets?.AddNormal(start, stop);
            from = stop;
        }
        if (from < text.Length)
            Words(from == 0 ? text : text[from..], from, place == 0 && from == 0, run, offsets);
    }

    private void Words(string given, int place, bool atStart, Run run, TokenOffsets? offsets)
    {
        string text = given;
        run.A.Clear();
        run.A.Add((0, text.Length));
        foreach (var step in _parts.Steps)
        {
            run.B.Clear();
            text = step.Apply(text, run.A, run.B, atStart);
            (run.A, run.B) = (run.B, run.A);
        }
        offsets?.Words(place, given, text);
        foreach (var (start, length) in run.A)
        {
            _parts.Model.Encode(text.AsSpan(start, length), run.Ids);
            offsets?.Word(text, start, length);
        }
    }

    public string Decode(ReadOnlySpan<int> ids)
    {
        if (_parts.BytesToText ?? _parts.ByteLevel)
        {
            var bytes = new ArrayBufferWriter<byte>(ids.Length * 4 + 16);
            foreach (int id in ids)
            {
                bool added = _added.TryGetValue(id, out string? piece);
                piece ??= IdToToken(id);
                // An added token is written as it is spelled, not by the bytes that its letters might stand for.
                if (added || !Mapped(piece)) { Encoding.UTF8.GetBytes(piece, bytes); continue; }
                var to = bytes.GetSpan(piece.Length);
                for (int i = 0; i < piece.Length; i++) to[i] = (byte)ByteAlphabet.ToByte(piece[i]);
                bytes.Advance(piece.Length);
            }
            return Encoding.UTF8.GetString(bytes.WrittenSpan);
        }
        var pieces = new List<string>(ids.Length);
        foreach (int id in ids)
            if ((_added.TryGetValue(id, out string? piece) ? piece : IdToToken(id)) is { Length: > 0 } known)
                pieces.Add(known);
        long given = Characters(pieces);
        foreach (var step in _parts.Decoders)
        {
            pieces = step(pieces);
            Normalizers.Bound(given, Characters(pieces));
        }
        return string.Join(_parts.Joint, pieces);
    }

    private static long Characters(List<string> pieces)
    {
        long n = 0;
        foreach (string p in pieces) n += p.Length;
        return n;
    }

    private static bool Mapped(string piece)
    {
        foreach (char c in piece) if (ByteAlphabet.ToByte(c) < 0) return false;
        return true;
    }

    private static string WellFormed(string text)
    {
        int at = text.AsSpan().IndexOfAnyInRange('\uD800', '\uDFFF');
        if (at < 0) return text;
        char[]? fixedUp = null;
        for (; at < text.Length; at++)
        {
            char c = text[at];
            if (!char.IsSurrogate(c)) continue;
            if (char.IsHighSurrogate(c) && at + 1 < text.Length && char.IsLowSurrogate(text[at + 1]))
            {
                at++;
                continue;
            }
            (fixedUp ??= text.ToCharArray())[at] = '\uFFFD';
        }
        return fixedUp == null ? text : new string(fixedUp);
    }
}
