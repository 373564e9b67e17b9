using System.Text;

namespace Headroom.Tokenizers;

/// <summary>
/// What of a text each token stands for, followed step by step while the text is encoded: stretch by stretch between
/// added tokens, from words to the normalized stretch they were cut from, and from there to the text.
/// </summary>
/// <param name="parts">The vocabulary.</param>
/// <param name="sizes">Bytes that each id stands for and one more; 0 where that was not looked up yet.</param>
/// <param name="ids">Ids so far; grows while a text is encoded.</param>
internal sealed class TokenOffsets(TokenizerParts parts, int[] sizes, List<int> ids)
{
    private readonly List<(int Start, int End)> _offsets = new(ids.Capacity);
    private Places _stretch, _words;

    /// <summary>All places, one an id.</summary>
    public (int Start, int End)[] ToArray() => [.. _offsets];

    /// <summary>An added token at its place.</summary>
    public void Add(int start, int end) => _offsets.Add((start, end));

    /// <summary>From now on, a stretch of the text.</summary>
    /// <param name="from">Where it begins in the text.</param>
    /// <param name="source">The stretch.</param>
    /// <param name="normal">What normalizing made of it.</param>
    public void Stretch(int from, string source, string normal) => _stretch = Normalized(source, normal).Moved(from);

    /// <summary>An added token at its place in the normalized stretch.</summary>
    public void AddNormal(int start, int end) => _offsets.Add((_stretch[start], _stretch.End(end)));

    /// <summary>From now on, words of a part of the normalized stretch.</summary>
    /// <param name="from">Where that begins in the stretch.</param>
    /// <param name="text">The part.</param>
    /// <param name="made">The same as the words point into it: blanks may be marks, and words begin with one.</param>
    public void Words(int from, string text, string made)
    {
        if (made.Length == text.Length)
        {
            _words = new Places(null, from);
            return;
        }
        var places = new int[made.Length + 1];
        for (int i = 0, at = 0; i <= made.Length; i++)
        {
            bool isThere = i < made.Length && at < text.Length && IsSame(text[at], made[i]);
            // Both halves of a character are at its place. What is not in the text was put in front of a word.
            places[i] = isThere && char.IsLowSurrogate(made[i]) ? at - 1 : at;
            if (isThere) at++;
        }
        _words = new Places(places, from);
    }

    /// <summary>Places of the ids that a word gave.</summary>
    public void Word(string made, int start, int length)
    {
        int first = _offsets.Count, count = ids.Count - first;
        if (count == 0) return;
        if (count == 1)
        {
            Put(start, start + length);
            return;
        }
        var word = made.AsSpan(start, length);
        int total = 0;
        bool isUnknown = false;
        for (int i = first; i < ids.Count; i++)
        {
            total += Size(ids[i]);
            isUnknown |= ids[i] == parts.Model.UnknownId;
        }
        if (isUnknown || total != Encoding.UTF8.GetByteCount(word)) Match(word, start, first);
        else Walk(word, start, first);
    }

    private void Put(int start, int end) =>
        _offsets.Add((_stretch[_words[start]], _stretch.End(_words.End(end))));

    // Tokens are bytes of the word, one behind the other. Those that share a character all have it.
    private void Walk(ReadOnlySpan<char> word, int start, int first)
    {
        int at = 0, atByte = 0, done = 0;
        for (int i = first; i < ids.Count; i++)
        {
            int from = at;
            done += Size(ids[i]);
            while (atByte < done)
            {
                var (bytes, width) = Character(word, at);
                if (atByte + bytes > done)
                {
                    Put(start + from, start + at + width);
                    from = -1;
                    break;
                }
                (atByte, at) = (atByte + bytes, at + width);
            }
            if (from >= 0) Put(start + from, start + at);
        }
    }

    private static (int Bytes, int Width) Character(ReadOnlySpan<char> text, int at) => text[at] switch
    {
        < '\u0080' => (1, 1),
        < '\u0800' => (2, 1),
        >= '\uD800' and <= '\uDBFF' => (4, 2),
        _ => (3, 1),
    };

    // Where a token stands for what it does not spell (one for all that is unknown): each piece that is found in the
    // word is at its place, and what is between belongs to the one before.
    private void Match(ReadOnlySpan<char> word, int start, int first)
    {
        var found = new int[ids.Count - first];
        for (int i = 0, at = 0; i < found.Length; i++)
        {
            string piece = Spelled(ids[first + i]);
            int next = ids[first + i] == parts.Model.UnknownId ? -1
                : word[at..].IndexOf(piece, StringComparison.Ordinal);
            found[i] = at + Math.Max(0, next);
            if (next >= 0) at = found[i] + piece.Length;
        }
        for (int i = 0; i < found.Length; i++)
            Put(start + found[i], start + (i + 1 < found.Length ? found[i + 1] : word.Length));
    }

    private string Spelled(int id) => parts.ByteLevel && IsMapped(parts.Pieces[id])
        ? Encoding.UTF8.GetString([.. parts.Pieces[id].Select(c => (byte)ByteAlphabet.ToByte(c))])
        : parts.Pieces[id];

    private int Size(int id)
    {
        if (sizes[id] == 0) sizes[id] = Bytes(parts.Pieces[id]) + 1;
        return sizes[id] - 1;
    }

    private int Bytes(string piece) => parts.ByteLevel && IsMapped(piece) ? piece.Length
        : !parts.ByteLevel && Decoders.ByteOf(piece) != null ? 1 : Encoding.UTF8.GetByteCount(piece);

    private static bool IsMapped(string piece) => piece.All(c => ByteAlphabet.ToByte(c) >= 0);

    private static bool IsSame(char given, char made) => given == made || given == ' ' && made == WordStartStep.Mark;

    private Places Normalized(string source, string normal)
    {
        if (ReferenceEquals(source, normal)) return default;
        int shift = normal.Length - source.Length;
        // Blanks become marks one by one, perhaps with a mark in front.
        bool isPlain = shift is 0 or 1;
        for (int i = 0; isPlain && i < source.Length; i++) isPlain = IsSame(source[i], normal[i + shift]);
        if (isPlain && shift == 0) return default;
        var places = new int[normal.Length + 1];
        places[^1] = source.Length;
        if (isPlain)
            for (int i = 1; i < normal.Length; i++) places[i] = i - (char.IsLowSurrogate(normal[i]) ? 2 : 1);
        else new Normalization(parts.Normalizer!, source, normal, places).Place(0, source.Length, 0, normal.Length);
        return new Places(places, 0);
    }

    /// <summary>From a text that was made to the one that it was made of.</summary>
    /// <param name="at">For each character, and behind the last; null: all stayed.</param>
    /// <param name="from">What is added to that.</param>
    private readonly struct Places(int[]? at, int from)
    {
        private readonly int[]? _at = at;
        private readonly int _from = from;

        /// <summary>Where what a character was made of begins.</summary>
        public int this[int i] => _from + (_at == null ? i : _at[i]);

        /// <summary>Where what the character before was made of ends: behind all of a character that became
        /// several.</summary>
        public int End(int i)
        {
            if (_at == null) return _from + i;
            while (i > 0 && i < _at.Length - 1 && _at[i] == _at[i - 1]) i++;
            return _from + _at[i];
        }

        public Places Moved(int by) => new(_at, _from + by);
    }
}

/// <summary>
/// Places of normalized characters in a text, for any normalizer: a text is halved where its halves normalize to halves
/// of the result, down to a few characters, whose prefixes normalize to about the prefixes of the result. A character
/// that was composed stands for all that it was composed of.
/// </summary>
/// <param name="normalize">The normalizer.</param>
/// <param name="source">The text.</param>
/// <param name="normal">What it made of it.</param>
/// <param name="places">For each character of that, the place to be found.</param>
internal sealed class Normalization(Func<string, string> normalize, string source, string normal, int[] places)
{
    private const int Few = 8, MostTries = 32, MostByPrefixes = 2048;

    // What is put before a text, once for all of it.
    private readonly string _lead = normalize("x") is [.. var lead, 'x'] ? lead : "";

    /// <summary>Finds the places of a part of the result, which comes from a part of the text.</summary>
    public void Place(int from, int to, int first, int end)
    {
        if (source.AsSpan(from, to - from).SequenceEqual(normal.AsSpan(first, end - first)))
            for (int i = first; i < end; i++) places[i] = from + i - first;
        else if (to - from > Few && Halve(from, to, first, end) is var (middle, at))
        {
            Place(from, middle, first, at);
            Place(middle, to, at, end);
        }
        else if (to - from > MostByPrefixes)
        {
            // Marks without end and no letter that could begin a half: about where they are.
            for (int i = first; i < end; i++)
                places[i] = from + (int)((long)(i - first) * (to - from) / (end - first));
        }
        else ByPrefixes(from, to, first, end);
    }

    private (int Source, int Normal)? Halve(int from, int to, int first, int end)
    {
        int half = from + (to - from) / 2;
        for (int m = half; m < Math.Min(to, half + MostTries); m++)
        {
            if (char.IsLowSurrogate(source[m])) continue;
            string left = Of(from, m), right = Of(m, to);
            if (left.Length + right.Length == end - first
                && normal.AsSpan(first, left.Length).SequenceEqual(left)
                && normal.AsSpan(first + left.Length, right.Length).SequenceEqual(right))
                return (m, first + left.Length);
        }
        return null;
    }

    private void ByPrefixes(int from, int to, int first, int end)
    {
        int done = first, last = from;
        for (int next; last < to && done < end; last = next)
        {
            next = last + 1;
            if (next < to && char.IsSurrogatePair(source, last)) next++;
            int length = Math.Min(end, first + Of(from, next).Length);
            for (; done < length; done++) places[done] = last;
        }
        for (; done < end; done++) places[done] = to;
    }

    private string Of(int from, int to)
    {
        string made = normalize(source[from..to]);
        return from > 0 && _lead.Length > 0 && made.StartsWith(_lead, StringComparison.Ordinal)
            ? made[_lead.Length..] : made;
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
