using Headroom.Core;

namespace Headroom.Tokenizers;

/// <summary>Common checks and tables of vocabularies.</summary>
internal static class Vocabulary
{
    private const int LongestPiece = 512;

    /// <summary>Pieces by id. Ids must be nearly dense: a file cannot ask for more memory than it has pieces.</summary>
    public static string[] ById(Dictionary<string, int> ids)
    {
        int max = -1;
        long limit = 2L * ids.Count + 65536;
        foreach (var (piece, id) in ids)
        {
            if (id < 0 || id > limit)
                throw new FormatException($"the piece \"{Short(piece)}\" has the id {id}, with {ids.Count} pieces");
            max = Math.Max(max, id);
        }
        if (max < 0) throw new FormatException("the vocabulary is empty");
        var pieces = new string[max + 1];
        Array.Fill(pieces, "");
        foreach (var (piece, id) in ids) pieces[id] = piece;
        return pieces;
    }

    // last: whether a pair that stands twice has the rank of its last line (tokenizers), else of its first (llama.cpp).
    public static void AddMerge(
        Dictionary<ulong, (int, int)> merges, Dictionary<string, int> vocab, string left, string right, int rank,
        bool last)
    {
        if (
            !vocab.TryGetValue(left, out int l)
            || !vocab.TryGetValue(right, out int r)
            || !vocab.TryGetValue(left + right, out int id)
        )
            throw new FormatException(
                $"merge {rank} (\"{Short(left)}\" \"{Short(right)}\") speaks of a piece outside the vocabulary");
        if (last) merges[BpeModel.Key(l, r)] = (rank, id); else merges.TryAdd(BpeModel.Key(l, r), (rank, id));
    }

    /// <summary>
    /// Merges of a SentencePiece vocabulary: any two pieces that join to a piece, best score first, equal scores equal
    /// in rank.
    /// </summary>
    public static Dictionary<ulong, (int, int)> MergesByScore(Dictionary<string, int> vocab, Func<int, float> score)
    {
        var byScore = vocab
            .Where(p => p.Key.Length > 1)
            .OrderByDescending(p => score(p.Value))
            .ThenBy(p => p.Value)
            .ToArray();
        var find = vocab.GetAlternateLookup<ReadOnlySpan<char>>();
        var merges = new Dictionary<ulong, (int, int)>();
        int rank = -1;
        float last = float.NaN;
        foreach (var (piece, id) in byScore)
        {
            if (piece.Length > LongestPiece)
                throw new FormatException($"the piece \"{Short(piece)}\" has {piece.Length} characters");
            float s = score(id);
            if (float.IsNaN(s)) throw new FormatException($"the piece \"{Short(piece)}\" has no score");
            if (s != last) { rank++; last = s; }
            for (int cut = 1; cut < piece.Length; cut++)
                if (find.TryGetValue(piece.AsSpan(0, cut), out int l) && find.TryGetValue(piece.AsSpan(cut), out int r))
                    merges.TryAdd(BpeModel.Key(l, r), (rank, id));
        }
        return merges;
    }

    public static bool WordStartFits(Dictionary<string, int> vocab, Dictionary<ulong, (int Rank, int Id)> merges)
    {
        if (!vocab.ContainsKey(WordStartStep.Mark.ToString())) return false;
        var made = new HashSet<int>(merges.Count);
        foreach (var (_, id) in merges.Values) made.Add(id);
        foreach (var (piece, id) in vocab) if (made.Contains(id) && !WordStartStep.Fits(piece)) return false;
        return true;
    }

    public static int[] NoBytes()
    {
        var bytes = new int[256];
        Array.Fill(bytes, -1);
        return bytes;
    }

    public static int[] ByteLevelBytes(Dictionary<string, int> vocab)
    {
        var bytes = NoBytes();
        for (int b = 0; b < 256; b++)
            if (vocab.TryGetValue(ByteAlphabet.Chars[b].ToString(), out int id))
                bytes[b] = id;
        return bytes;
    }

    public static int[] FallbackBytes(Dictionary<string, int> vocab)
    {
        var bytes = NoBytes();
        for (int b = 0; b < 256; b++) if (vocab.TryGetValue(BytePiece(b), out int id)) bytes[b] = id;
        return bytes;
    }

    public static string BytePiece(int b) => $"<0x{b:X2}>";

    private static string Short(string piece) => HeadroomException.Value(piece, 24);
}
