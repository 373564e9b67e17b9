using System.Text;

namespace Headroom.Tokenizers;

/// <summary>
/// What of a text each token stands for. A tokenizer keeps no places while it normalizes and cuts; they are found
/// afterwards, stretch by stretch between added tokens: pieces, as bytes, are what the normalized stretch is made of,
/// one behind the other.
/// </summary>
/// <param name="parts">The vocabulary.</param>
/// <param name="added">Spelling of added tokens.</param>
/// <param name="ids">Ids so far; grows while a text is encoded.</param>
internal sealed class TokenOffsets(TokenizerParts parts, IReadOnlyDictionary<int, string> added, List<int> ids)
{
    private readonly List<(int Start, int End)> _offsets = [];

    /// <summary>All places, one an id.</summary>
    public (int Start, int End)[] ToArray() => [.. _offsets];

    /// <summary>An added token at its place.</summary>
    public void Add(int start, int end) => _offsets.Add((start, end));

    /// <summary>Places of the ids that a stretch of the text gave.</summary>
    public void Align(string text, int from, int to)
    {
        int first = _offsets.Count;
        if (first == ids.Count) return;
        string source = text[from..to], normal = parts.Normalizer?.Invoke(source) ?? source;
        int[] bytes = [.. ids.Skip(first).Select(Bytes)];
        int size = Encoding.UTF8.GetByteCount(normal), total = bytes.Sum(), lead = total - size;
        // A blank that a step of cutting puts in front: one byte, or the three of its mark.
        if (lead is not (0 or 1 or 3) || ids.Skip(first).Any(IsUnknown))
        {
            Match(source, from, first);
            return;
        }
        int[] places = Places(source, normal);
        var at = new Walk(normal);
        for (int i = 0, done = -lead; i < bytes.Length; i++)
        {
            int start = at.Floor(Math.Max(0, done));
            done += bytes[i];
            int end = at.Ceiling(Math.Max(0, done));
            _offsets.Add((from + places[start], from + places[Math.Max(start, end)]));
        }
    }

    // For each character of the normalized stretch (and behind the last) its place in the source.
    private int[] Places(string source, string normal)
    {
        var places = new int[normal.Length + 1];
        places[^1] = source.Length;
        // Blanks become marks one by one, perhaps with a mark in front.
        int shift = normal.Length - source.Length;
        if (shift is 0 or 1 && IsPlain(source, normal.AsSpan(shift)))
        {
            for (int i = 0; i < normal.Length; i++) places[i] = Math.Max(0, i - shift);
            return places;
        }
        // Composed characters: what is between two plain ones changes by itself. Of other changes (runs of blanks that
        // become one) a character is at its place as far as the text goes.
        int at = 0;
        for (int start = 0, end; start < source.Length && at < normal.Length; start = end)
        {
            // A mark goes with the plain letter before it.
            for (end = start + 1; end < source.Length && !char.IsAscii(source[end]);) end++;
            int length = end - start == 1 ? 1 : parts.Normalizer!(source[start..end]).Length;
            for (int i = 0; i < length && at < normal.Length; i++, at++) places[at] = Math.Min(start + i, end - 1);
        }
        for (; at < normal.Length; at++) places[at] = source.Length;
        return places;
    }

    private static bool IsPlain(string source, ReadOnlySpan<char> normal)
    {
        for (int i = 0; i < source.Length; i++)
            if (source[i] != normal[i] && (source[i] != ' ' || normal[i] != WordStartStep.Mark))
                return false;
        return true;
    }

    // Bytes of the normalized text that a token stands for.
    private int Bytes(int id)
    {
        bool isAdded = added.TryGetValue(id, out string? piece);
        piece ??= parts.Pieces[id];
        if (isAdded) return Encoding.UTF8.GetByteCount(piece);
        if (parts.ByteLevel && piece.All(c => ByteAlphabet.ToByte(c) >= 0)) return piece.Length;
        return !parts.ByteLevel && Decoders.ByteOf(piece) != null ? 1 : Encoding.UTF8.GetByteCount(piece);
    }

    // Where a token stands for what it does not spell (one for all that is unknown): each piece that is found in the
    // text is at its place, and what is between belongs to those that are not.
    private void Match(string source, int from, int first)
    {
        int at = 0;
        for (int i = first; i < ids.Count; i++)
        {
            string piece = Spelled(ids[i]);
            int found = piece.Length == 0 ? -1 : source.IndexOf(piece, at, StringComparison.Ordinal);
            bool isNext = found == at || found > at && (i == first || IsUnknown(ids[i - 1]));
            int end = isNext ? found + piece.Length : at;
            if (isNext && found > at && i > first) _offsets[i - 1] = (_offsets[i - 1].Start, from + found);
            _offsets.Add((from + (isNext ? found : at), from + end));
            at = end;
        }
        if (ids.Count > first && IsUnknown(ids[^1])) _offsets[^1] = (_offsets[^1].Start, from + source.Length);
    }

    private string Spelled(int id) => added.TryGetValue(id, out string? piece) ? piece
        : parts.ByteLevel ? Encoding.UTF8.GetString([.. parts.Pieces[id].Select(c => (byte)ByteAlphabet.ToByte(c))])
        : parts.Pieces[id].Replace(WordStartStep.Mark, ' ');

    private bool IsUnknown(int id) => id == parts.Model.UnknownId;

    // From bytes of a text to its characters, forward only.
    private sealed class Walk(string text)
    {
        private int _byte, _char;

        /// <summary>The character that has a byte.</summary>
        public int Floor(int at)
        {
            while (_char < text.Length && _byte + Next(out int width) is var next && next <= at)
                (_byte, _char) = (next, _char + width);
            return _char;
        }

        /// <summary>The first character behind what has the byte before.</summary>
        public int Ceiling(int at)
        {
            int floor = Floor(at);
            if (_byte == at || floor == text.Length) return floor;
            Next(out int width);
            return floor + width;
        }

        private int Next(out int width)
        {
            Rune.DecodeFromUtf16(text.AsSpan(_char), out var rune, out width);
            return rune.Utf8SequenceLength;
        }
    }
}

/// <summary>Tokens of a text with their places.</summary>
internal static class OffsetEncoding
{
    /// <summary>As <see cref="BpeTokenizer.EncodeWithOffsets"/>.</summary>
    /// <exception cref="NotSupportedException">The tokenizer is not one of this library.</exception>
    public static (int[] Ids, (int Start, int End)[] Offsets) EncodeWithOffsets(
        this ITokenizer tokenizer, string text) =>
        tokenizer is BpeTokenizer bpe ? bpe.EncodeWithOffsets(text)
            : throw new NotSupportedException($"{tokenizer.GetType().Name} does not tell where its tokens are");
}
