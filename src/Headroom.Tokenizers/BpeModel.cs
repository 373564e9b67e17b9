using System.Buffers;
using System.Collections.Concurrent;
using System.Text;
using Headroom.Core;

namespace Headroom.Tokenizers;

/// <summary>
/// Byte pair encoding of one word: symbols are merged by rank, equal ranks from the left. Short words by a scan, long
/// ones by a heap, so a word of any length costs n log n.
/// </summary>
internal sealed class BpeModel
{
    private const int CacheWord = 32, CacheEntries = 1 << 16, ScanLimit = 48;
    private readonly Dictionary<ulong, (int Rank, int Id)> _merges;
    private readonly Dictionary<string, int> _vocab;
    private readonly Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> _find;
    private readonly ConcurrentDictionary<string, int[]> _cache = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, int[]>.AlternateLookup<ReadOnlySpan<char>> _cached;
    private readonly int[] _bytes;
    private readonly bool _byteLevel, _ignoreMerges, _fuseUnk;
    private readonly int _unk;
    private int _entries;

    /// <summary>In the place of an id: an unknown token is named that the vocabulary does not have.</summary>
    public const int Missing = -2;

    /// <param name="vocab">Pieces that text can become.</param>
    /// <param name="merges">(left id, right id) to (rank, id).</param>
    /// <param name="bytes">Id for each byte, or -1: the alphabet when byteLevel, else the fallback tokens.</param>
    /// <param name="byteLevel">Symbols are bytes; otherwise code points.</param>
    /// <param name="ignoreMerges">A word that is a whole piece is that piece.</param>
    /// <param name="unk">Id for what cannot be written, -1 to leave it out, or <see cref="Missing"/>.</param>
    /// <param name="fuseUnk">Neighbouring unknowns become one.</param>
    public BpeModel(
        Dictionary<string, int> vocab, Dictionary<ulong, (int, int)> merges, int[] bytes, bool byteLevel,
        bool ignoreMerges, int unk, bool fuseUnk)
    {
        (_vocab, _merges, _bytes, _byteLevel, _ignoreMerges, _unk, _fuseUnk) = (
            vocab, merges, bytes, byteLevel, ignoreMerges, unk, fuseUnk);
        _find = vocab.GetAlternateLookup<ReadOnlySpan<char>>();
        _cached = _cache.GetAlternateLookup<ReadOnlySpan<char>>();
    }

    /// <summary>Merges (left, right, result) by rank.</summary>
    public IEnumerable<(int Left, int Right, int Id)> Merges =>
        _merges
            .OrderBy(m => m.Value.Rank)
            .ThenBy(m => m.Value.Id)
            .Select(m => ((int)(m.Key >> 32), (int)(uint)m.Key, m.Value.Id));

    /// <summary>Id of each byte, or -1: the alphabet of a byte-level model, else the fallback tokens.</summary>
    public IReadOnlyList<int> ByteIds => _bytes;

    /// <summary>Id for what cannot be written, or -1.</summary>
    public int UnknownId => _unk;

    /// <summary>A word that is a whole piece is that piece.</summary>
    public bool WholeWords => _ignoreMerges;

    public static ulong Key(int left, int right) => ((ulong)(uint)left << 32) | (uint)right;

    public void Encode(ReadOnlySpan<char> word, List<int> output)
    {
        if (word.IsEmpty) return;
        if (word.Length > CacheWord) { Compute(word, output); return; }
        if (_cached.TryGetValue(word, out var hit)) { output.AddRange(hit.AsSpan()); return; }
        int from = output.Count;
        Compute(word, output);
        if (_entries >= CacheEntries) return;
        var ids = new int[output.Count - from];
        output.CopyTo(from, ids, 0, ids.Length);
        if (_cached.TryAdd(word, ids)) Interlocked.Increment(ref _entries);
    }

    private void Compute(ReadOnlySpan<char> word, List<int> output)
    {
        if (_ignoreMerges)
        {
            if (_byteLevel)
            {
                if (_find.TryGetValue(ByteAlphabet.ToMapped(word), out int whole)) { output.Add(whole); return; }
            }
            else if (_find.TryGetValue(word, out int whole)) { output.Add(whole); return; }
        }
        int max = word.Length * 3 + 1;
        int[]? rented = null;
        Span<int> ids = max <= 256 ? stackalloc int[256] : (rented = ArrayPool<int>.Shared.Rent(max));
        int n = _byteLevel ? Bytes(word, ids) : Runes(word, ids);
        if (n <= ScanLimit) Scan(ids[..n], output); else Heap(ids[..n], output);
        if (rented != null) ArrayPool<int>.Shared.Return(rented);
    }

    private int Bytes(ReadOnlySpan<char> word, Span<int> ids)
    {
        int n = 0;
        bool unknown = false;
        Span<byte> b = stackalloc byte[4];
        foreach (var rune in word.EnumerateRunes())
        {
            int len = rune.EncodeToUtf8(b);
            for (int i = 0; i < len; i++)
            {
                int id = _bytes[b[i]];
                if (id >= 0) Known(id, ids, ref n, ref unknown); else Unknown(ids, ref n, ref unknown);
            }
        }
        if (unknown) ids[n++] = _unk;
        return n;
    }

    private int Runes(ReadOnlySpan<char> word, Span<int> ids)
    {
        int n = 0;
        bool unknown = false;
        Span<byte> b = stackalloc byte[4];
        while (!word.IsEmpty)
        {
            Rune.DecodeFromUtf16(word, out var rune, out int used);
            if (_find.TryGetValue(word[..used], out int id)) Known(id, ids, ref n, ref unknown);
            else
            {
                int len = rune.EncodeToUtf8(b);
                bool all = true;
                for (int i = 0; i < len; i++) all &= _bytes[b[i]] >= 0;
                // Bytes do not end a run of unknowns: tokenizers (bpe/model.rs, merge_word) writes it after them.
                if (all) for (int i = 0; i < len; i++) ids[n++] = _bytes[b[i]];
                else Unknown(ids, ref n, ref unknown);
            }
            word = word[used..];
        }
        if (unknown) ids[n++] = _unk;
        return n;
    }

    private void Known(int id, Span<int> ids, ref int n, ref bool unknown)
    {
        if (unknown) ids[n++] = _unk;
        unknown = false;
        ids[n++] = id;
    }

    private void Unknown(Span<int> ids, ref int n, ref bool unknown)
    {
        if (_unk == Missing)
            throw new HeadroomException(
                "A text holds a character that the vocabulary cannot write, and the tokenizer's unk_token is not in "
                    + "the vocabulary.",
                "Use another copy of the model's tokenizer.json.");
        if (_unk < 0) return;
        if (unknown && !_fuseUnk) ids[n++] = _unk;
        unknown = true;
    }

    private int Rank(int left, int right, out int id)
    {
        if (_merges.TryGetValue(Key(left, right), out var m)) { id = m.Id; return m.Rank; }
        id = -1;
        return int.MaxValue;
    }

    private void Scan(Span<int> ids, List<int> output)
    {
        Span<int> rank = stackalloc int[ScanLimit], into = stackalloc int[ScanLimit];
        int n = ids.Length;
        for (int i = 0; i + 1 < n; i++) rank[i] = Rank(ids[i], ids[i + 1], out into[i]);
        while (n > 1)
        {
            int best = 0;
            for (int i = 1; i + 1 < n; i++) if (rank[i] < rank[best]) best = i;
            if (rank[best] == int.MaxValue) break;
            ids[best] = into[best];
            ids[(best + 2)..n].CopyTo(ids[(best + 1)..]);
            rank[(best + 1)..n].CopyTo(rank[best..]);
            into[(best + 1)..n].CopyTo(into[best..]);
            n--;
            if (best > 0) rank[best - 1] = Rank(ids[best - 1], ids[best], out into[best - 1]);
            if (best + 1 < n) rank[best] = Rank(ids[best], ids[best + 1], out into[best]);
        }
        output.AddRange(ids[..n]);
    }

    private void Heap(Span<int> ids, List<int> output)
    {
        int n = ids.Length;
        var next = new int[n];
        var prev = new int[n];
        var first = new List<((int At, int Left, int Right), ulong)>(n);
        for (int i = 0; i < n; i++)
        {
            next[i] = i + 1 < n ? i + 1 : -1;
            prev[i] = i - 1;
            if (i + 1 < n && Rank(ids[i], ids[i + 1], out _) is var r && r != int.MaxValue)
                first.Add(((i, ids[i], ids[i + 1]), Key(r, i)));
        }
        var heap = new PriorityQueue<(int At, int Left, int Right), ulong>(first);
        while (heap.TryDequeue(out var e, out _))
        {
            int at = e.At, right = next[at];
            if (ids[at] != e.Left || right < 0 || ids[right] != e.Right) continue;
            Rank(e.Left, e.Right, out int id);
            ids[at] = id;
            ids[right] = -1;
            next[at] = next[right];
            if (next[at] >= 0)
            {
                prev[next[at]] = at;
                if (Rank(id, ids[next[at]], out _) is var r && r != int.MaxValue)
                    heap.Enqueue((at, id, ids[next[at]]), Key(r, at));
            }
            int p = prev[at];
            if (p >= 0 && Rank(ids[p], id, out _) is var q && q != int.MaxValue)
                heap.Enqueue((p, ids[p], id), Key(q, p));
        }
        for (int i = 0; i >= 0 && n > 0; i = next[i]) output.Add(ids[i]);
    }
}

/// <summary>The printable alphabet in which byte-level vocabularies spell their bytes.</summary>
internal static class ByteAlphabet
{
    /// <summary>Character of each byte.</summary>
    public static readonly char[] Chars = Make();
    private static readonly short[] Back = MakeBack();

    private static char[] Make()
    {
        var map = new char[256];
        int extra = 0;
        for (int b = 0; b < 256; b++)
            map[b] = b is (>= '!' and <= '~') or (>= 0xA1 and <= 0xAC) or (>= 0xAE and <= 0xFF)
                ? (char)b
                : (char)(256 + extra++);
        return map;
    }

    private static short[] MakeBack()
    {
        var back = new short[324];
        Array.Fill(back, (short)-1);
        for (int b = 0; b < 256; b++) back[Chars[b]] = (short)b;
        return back;
    }

    /// <summary>The byte of a character, or -1.</summary>
    public static int ToByte(char c) => c < Back.Length ? Back[c] : -1;

    /// <summary>A text in the alphabet.</summary>
    public static string ToMapped(ReadOnlySpan<char> text)
    {
        bool plain = true;
        foreach (char c in text) if (c is < '!' or > '~') { plain = false; break; }
        if (plain) return text.ToString();
        var sb = new StringBuilder(text.Length + 8);
        Span<byte> b = stackalloc byte[4];
        foreach (var rune in text.EnumerateRunes())
        {
            int len = rune.EncodeToUtf8(b);
            for (int i = 0; i < len; i++) sb.Append(Chars[b[i]]);
        }
        return sb.ToString();
    }
}
