using System.Text;

namespace Headroom.Tokenizers;

/// <summary>A trained vocabulary: pieces by id and the merges in order of rank.</summary>
/// <param name="Pieces">Pieces by id: specials, then the alphabet, then what the merges make.</param>
/// <param name="Merges">Pairs of pieces, first merged first.</param>
/// <param name="Specials">Special tokens, at ids 0, 1, ...</param>
/// <param name="ByteLevel">Byte-level; otherwise SentencePiece style.</param>
internal sealed record TrainedBpe(
    IReadOnlyList<string> Pieces, IReadOnlyList<(string Left, string Right)> Merges, IReadOnlyList<string> Specials,
    bool ByteLevel);

/// <summary>Learns byte pair vocabularies. The same texts in the same order always give the same vocabulary.</summary>
internal static class BpeTrainer
{
    private const int LongestPiece = 32;

    /// <summary>
    /// Learns a byte-level vocabulary: every text can be written with it. Words are cut as GPT-2 cuts them, digits
    /// stand alone.
    /// </summary>
    /// <param name="texts">The texts to learn from.</param>
    /// <param name="vocabSize">Pieces in all; fewer come out where the texts have no pair that occurs twice.</param>
    /// <param name="specials">Special tokens; they get the first ids.</param>
    public static TrainedBpe TrainByteLevel(IEnumerable<string> texts, int vocabSize, string[] specials)
    {
        var pieces = new List<string>(specials.Distinct(StringComparer.Ordinal));
        int special = pieces.Count;
        if (vocabSize < special + 256)
            throw new ArgumentOutOfRangeException(
                nameof(vocabSize),
                $"A byte-level vocabulary with {special} special tokens needs at least {special + 256} pieces.");
        var idOf = new int[256];
        foreach (char c in ByteAlphabet.Chars.Order())
        {
            idOf[ByteAlphabet.ToByte(c)] = pieces.Count;
            pieces.Add(c.ToString());
        }
        PreStep[] steps = [new CutStep(SplitStep.Make(@"\p{N}")), new CutStep(SplitStep.Make(KnownSplits.Gpt2))];
        var words = new Dictionary<string, long>(StringComparer.Ordinal);
        var find = words.GetAlternateLookup<ReadOnlySpan<char>>();
        List<(int Start, int Length)> a = [], b = [];
        foreach (string text in texts)
        {
            a.Clear();
            a.Add((0, text.Length));
            foreach (var step in steps)
            {
                b.Clear();
                step.Apply(text, a, b, true);
                (a, b) = (b, a);
            }
            foreach (var (start, length) in a) Count(find, text.AsSpan(start, length));
        }
        var symbols = words
            .OrderBy(w => w.Key, StringComparer.Ordinal)
            .Select(w => (Encoding.UTF8.GetBytes(w.Key).Select(x => idOf[x]).ToArray(), w.Value))
            .ToList();
        var merges = Learn(symbols, pieces, vocabSize, _ => true);
        return new TrainedBpe(pieces, merges, pieces[..special], true);
    }

    /// <summary>
    /// Learns a vocabulary in the style of Llama's SentencePiece models: &lt;unk&gt;, &lt;s&gt;, &lt;/s&gt;, other
    /// specials, the 256 byte pieces, the characters of the texts, then what the merges make. Blanks become U+2581,
    /// which starts a word; digits stand alone; characters outside the vocabulary are written in bytes.
    /// </summary>
    /// <param name="texts">The texts to learn from.</param>
    /// <param name="vocabSize">Pieces in all; fewer come out where the texts have no pair that occurs twice.</param>
    /// <param name="specials">Special tokens besides &lt;unk&gt;, &lt;s&gt; and &lt;/s&gt;.</param>
    /// <param name="coverage">Share of the characters of the texts that get a piece of their own, commonest
    /// first.</param>
    public static TrainedBpe TrainSentencePieceStyle(
        IEnumerable<string> texts, int vocabSize, string[]? specials = null, double coverage = 0.9999)
    {
        var pieces = new List<string> { "<unk>", "<s>", "</s>" };
        foreach (string s in specials ?? []) if (!pieces.Contains(s)) pieces.Add(s);
        int special = pieces.Count;
        if (vocabSize < special + 257)
            throw new ArgumentOutOfRangeException(
                nameof(vocabSize),
                $"A vocabulary with {special} special tokens and byte fallback needs at least {special + 257} pieces.");
        for (int i = 0; i < 256; i++) pieces.Add(Vocabulary.BytePiece(i));
        var words = new Dictionary<string, long>(StringComparer.Ordinal);
        var find = words.GetAlternateLookup<ReadOnlySpan<char>>();
        foreach (string text in texts)
            foreach (string line in text.Split('\n'))
            {
                if (line.Length == 0) continue;
                string s = WordStartStep.Mark + line.Replace(' ', WordStartStep.Mark);
                for (int from = 0; from < s.Length;)
                {
                    int at = from;
                    while (at < s.Length && s[at] == WordStartStep.Mark) at++;
                    int next = s.IndexOf(WordStartStep.Mark, at);
                    at = next < 0 ? s.Length : next;
                    Count(find, s.AsSpan(from, at - from));
                    from = at;
                }
            }
        var runes = new Dictionary<int, long>();
        foreach (var (word, n) in words)
            foreach (var r in word.EnumerateRunes())
                if (r.Value >= ' ' && r.Value != 0xFFFD)
                    runes[r.Value] = runes.GetValueOrDefault(r.Value) + n;
        runes[WordStartStep.Mark] = Math.Max(1, runes.GetValueOrDefault(WordStartStep.Mark));
        long all = runes.Values.Sum(), covered = 0;
        var idOf = new Dictionary<int, int> { [WordStartStep.Mark] = pieces.Count };
        pieces.Add(WordStartStep.Mark.ToString());
        foreach (var (r, n) in runes.OrderByDescending(p => p.Value).ThenBy(p => p.Key))
        {
            if (pieces.Count >= vocabSize || covered >= coverage * all) break;
            covered += n;
            if (r == WordStartStep.Mark) continue;
            idOf[r] = pieces.Count;
            pieces.Add(char.ConvertFromUtf32(r));
        }
        var alone = idOf.Where(p => Rune.IsNumber(new Rune(p.Key))).Select(p => p.Value).ToHashSet();
        // A character without a piece ends a run: nothing is learnt across it.
        var symbols = new List<(int[], long)>();
        var run = new List<int>();
        foreach (var (word, n) in words.OrderBy(w => w.Key, StringComparer.Ordinal))
        {
            foreach (var r in word.EnumerateRunes())
            {
                if (idOf.TryGetValue(r.Value, out int id)) { run.Add(id); continue; }
                if (run.Count > 1) symbols.Add((run.ToArray(), n));
                run.Clear();
            }
            if (run.Count > 1) symbols.Add((run.ToArray(), n));
            run.Clear();
        }
        var merges = Learn(symbols, pieces, vocabSize, id => !alone.Contains(id));
        return new TrainedBpe(pieces, merges, pieces[..special], false);
    }

    private static void Count(
        Dictionary<string, long>.AlternateLookup<ReadOnlySpan<char>> words, ReadOnlySpan<char> word)
    {
        words.TryGetValue(word, out long n);
        words[word] = n + 1;
    }

    /// <summary>
    /// Merges the commonest pair, equal counts by the smaller ids, until the vocabulary is full or no pair occurs
    /// twice.
    /// </summary>
    private static List<(string, string)> Learn(
        List<(int[] Symbols, long Count)> words, List<string> pieces, int vocabSize, Func<int, bool> mayMerge)
    {
        var pairs = new PairCounts(mayMerge);
        var taken = new HashSet<string>(pieces, StringComparer.Ordinal);
        var lengths = new int[words.Count];
        var merges = new List<(string, string)>();
        for (int w = 0; w < words.Count; w++)
        {
            lengths[w] = words[w].Symbols.Length;
            pairs.Add(words[w].Symbols, words[w].Count, w);
        }
        while (pieces.Count < vocabSize && pairs.Next(out ulong pair))
        {
            int left = (int)(pair >> 32), right = (int)(uint)pair;
            string piece = pieces[left] + pieces[right];
            // A piece that is there already is not made twice: ids stay one to one.
            if (piece.Length > LongestPiece || !taken.Add(piece)) { pairs.Refuse(pair); continue; }
            int id = pieces.Count;
            pieces.Add(piece);
            merges.Add((pieces[left], pieces[right]));
            foreach (int w in pairs.Words(pair))
            {
                var symbols = words[w].Symbols.AsSpan(0, lengths[w]);
                if (!Holds(symbols, left, right)) continue;
                pairs.Remove(symbols, words[w].Count);
                lengths[w] = Merge(symbols, left, right, id);
                pairs.Add(symbols[..lengths[w]], words[w].Count, w);
            }
            pairs.Merged(pair);
        }
        return merges;
    }

    private static bool Holds(ReadOnlySpan<int> symbols, int left, int right)
    {
        for (int i = 0; i + 1 < symbols.Length; i++)
            if (symbols[i] == left && symbols[i + 1] == right)
                return true;
        return false;
    }

    // In place; what is left of the symbols.
    private static int Merge(Span<int> symbols, int left, int right, int id)
    {
        int to = 0;
        for (int i = 0; i < symbols.Length; i++)
            if (i + 1 < symbols.Length && symbols[i] == left && symbols[i + 1] == right) { symbols[to++] = id; i++; }
            else symbols[to++] = symbols[i];
        return to;
    }

    // How often each pair occurs, in which words, and the commonest. A pair enters the queue with every count it comes
    // to have; of these the last is true.
    private sealed class PairCounts(Func<int, bool> mayMerge)
    {
        private readonly Dictionary<ulong, long> _counts = [];
        private readonly Dictionary<ulong, HashSet<int>> _words = [];
        private readonly PriorityQueue<(ulong Pair, long Count), (long, ulong)> _queue = new();
        private readonly HashSet<ulong> _changed = [];

        public void Add(ReadOnlySpan<int> symbols, long count, int word)
        {
            for (int i = 0; i + 1 < symbols.Length; i++)
            {
                if (!mayMerge(symbols[i]) || !mayMerge(symbols[i + 1])) continue;
                ulong pair = BpeModel.Key(symbols[i], symbols[i + 1]);
                Change(pair, count);
                if (!_words.TryGetValue(pair, out var words)) _words[pair] = words = [];
                words.Add(word);
            }
        }

        // Words of a pair stay noted: it may come back into them.
        public void Remove(ReadOnlySpan<int> symbols, long count)
        {
            for (int i = 0; i + 1 < symbols.Length; i++)
                if (BpeModel.Key(symbols[i], symbols[i + 1]) is var pair && _counts.ContainsKey(pair))
                    Change(pair, -count);
        }

        public bool Next(out ulong pair)
        {
            foreach (ulong changed in _changed)
                if (_counts[changed] is var n && n > 1) _queue.Enqueue((changed, n), (-n, changed));
            _changed.Clear();
            while (_queue.TryDequeue(out var top, out _))
            {
                pair = top.Pair;
                if (_counts.GetValueOrDefault(pair) == top.Count) return true;
            }
            pair = 0;
            return false;
        }

        public HashSet<int> Words(ulong pair) => _words[pair];

        public void Refuse(ulong pair) => _counts.Remove(pair);

        public void Merged(ulong pair)
        {
            _counts.Remove(pair);
            _words.Remove(pair);
            _changed.Remove(pair);
        }

        private void Change(ulong pair, long by)
        {
            _counts[pair] = _counts.GetValueOrDefault(pair) + by;
            _changed.Add(pair);
        }
    }
}
