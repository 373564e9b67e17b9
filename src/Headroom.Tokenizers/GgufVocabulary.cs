using Headroom.Core;
using Headroom.Formats.Gguf;

namespace Headroom.Tokenizers;

/// <summary>A tokenizer as GGUF metadata (llama.cpp <c>llama-vocab.cpp</c>, gguf-py <c>vocab.py</c>).</summary>
internal static class GgufVocabulary
{
    /// <summary>Names of pre-tokenizers that are tried, the plainer first.</summary>
    private static readonly string[] PreNames = ["gpt-2", "smollm", "llama-bpe", "qwen2", "deepseek-llm",
        "deepseek-coder", "deepseek-v3", "default"];

    /// <summary>
    /// Texts on which the splitting rules differ: contractions, runs of digits and blanks, line ends, scripts, marks,
    /// emoji.
    /// </summary>
    public static IReadOnlyList<string> Probes { get; } =
    [
        "Hello, world!", "It's they'LL we'Ve I'd", "1 22 333 4444 55555 1234567", "a  b   c    d", " leading",
        "trailing  ", "tabs\t\tand\n\nlines\r\n \n  x", "caf\u00E9 na\u00EFve \u00FCber e\u0301",
        "\u4E2D\u6587\u5B57\u7B26 \u65E5\u672C\u8A9E \uD55C\uAD6D\uC5B4",
        "\u041F\u0440\u0438\u0432\u0435\u0442 123\u043C\u0438\u0440",
        "\u0645\u0631\u062D\u0628\u0627 \u0661\u0662\u0663", "\U0001F600\U0001F680 ok \u2764\uFE0F",
        "x=y+1; //comment\nfunc(a,b)[0]!='z'", "...!!! ??--__ @#$%^&*()", "http://a.b/c?d=e&f=1", "$1,234.56 (10%)",
        "<br /><br />A 10/10 movie.", "ABC'def'Ghi \u00A0nbsp", "\n", "   ", "word\n", "\u2581under"];

    /// <summary>
    /// tokenizer.* pairs of the tokenizer at <paramref name="path"/> for a model of <paramref name="vocabSize"/> ids.
    /// The pre-tokenizer is named by behaviour: the first known name whose rules give the same ids on
    /// <see cref="Probes"/>. Throws <see cref="HeadroomException"/> when none does.
    /// </summary>
    public static IReadOnlyList<KeyValuePair<string, object>> Build(string path, int vocabSize, int? pad = null)
    {
        if (path.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase)) return Copy(path);
        var tokenizer = TokenizerLoader.LoadBpe(path);
        var parts = tokenizer.Parts;
        if (tokenizer.VocabSize > vocabSize)
            throw new HeadroomException(
                $"The tokenizer has {tokenizer.VocabSize} ids, the model {vocabSize}.",
                "Give the model its own tokenizer.");
        var pairs = parts.ByteLevel ? ByteLevel(parts, vocabSize) : SentencePiece(parts, vocabSize);
        void Id(string key, int? id) { if (id is >= 0) pairs[$"tokenizer.ggml.{key}_token_id"] = (uint)id; }
        Id("bos", parts.Bos);
        Id("eos", parts.Eos);
        Id("unknown", parts.Model.UnknownId);
        Id("padding", pad);
        pairs["tokenizer.ggml.add_bos_token"] = tokenizer.AddBos;
        pairs["tokenizer.ggml.add_eos_token"] = tokenizer.AddEos;
        if (parts.ChatTemplate is { } template) pairs["tokenizer.chat_template"] = template;
        foreach (
            var form in parts.ByteLevel
                ? PreNames.Select(n => ("tokenizer.ggml.pre", (object)n))
                : [("tokenizer.ggml.add_space_prefix", true), ("tokenizer.ggml.add_space_prefix", false)]
        )
        {
            pairs[form.Item1] = form.Item2;
            if (Same(tokenizer, pairs)) return [.. pairs];
            if (parts.ByteLevel) continue;
            pairs["tokenizer.ggml.remove_extra_whitespaces"] = true;
            if (Same(tokenizer, pairs)) return [.. pairs];
            pairs.Remove("tokenizer.ggml.remove_extra_whitespaces");
        }
        throw new HeadroomException(
            "No rule that llama.cpp knows by name splits text as this tokenizer does, so a GGUF file could not "
                + "hold it.",
            "Export to safetensors; it keeps tokenizer.json as it is.");
    }

    private static bool Same(BpeTokenizer tokenizer, Dictionary<string, object> pairs)
    {
        BpeTokenizer other;
        try
        {
            var read = new GgufMetadata();
            foreach (var (key, value) in pairs)
                read[key] = value switch
                {
                    uint v => (long)v,
                    int[] v => Array.ConvertAll(v, i => (long)i),
                    float v => (double)v,
                    _ => value,
                };
            other = new BpeTokenizer(GgufTokenizer.Read(read));
        }
        catch (FormatException)
        {
            return false;
        }
        return Probes.All(p => tokenizer.Encode(p).AsSpan().SequenceEqual(other.Encode(p)))
            && tokenizer.Encode("a", true).AsSpan().SequenceEqual(other.Encode("a", true));
    }

    private static Dictionary<string, object> Pairs(string model, string pre, string[] tokens, int[] types)
    {
        // Every id of the model needs a token: llama.cpp takes the size of the vocabulary from this list.
        for (int i = 0; i < tokens.Length; i++)
            if (string.IsNullOrEmpty(tokens[i])) (tokens[i], types[i]) = ($"[PAD{i}]", (int)PieceKind.Unused);
        return new()
        {
            ["tokenizer.ggml.model"] = model,
            ["tokenizer.ggml.pre"] = pre,
            ["tokenizer.ggml.tokens"] = tokens,
            ["tokenizer.ggml.token_type"] = types,
        };
    }

    private static (string[] Tokens, int[] Types) Tokens(TokenizerParts parts, int vocabSize)
    {
        var tokens = new string[vocabSize];
        parts.Pieces.CopyTo(tokens, 0);
        var types = new int[vocabSize];
        Array.Fill(types, (int)PieceKind.Normal);
        foreach (var t in parts.Added) types[t.Id] = (int)(t.Special ? PieceKind.Control : PieceKind.UserDefined);
        return (tokens, types);
    }

    private static Dictionary<string, object> ByteLevel(TokenizerParts parts, int vocabSize)
    {
        var (tokens, types) = Tokens(parts, vocabSize);
        string[] merges = parts
            .Model.Merges.Select(m => Spelled(parts.Pieces[m.Left]) + " " + Spelled(parts.Pieces[m.Right]))
            .ToArray();
        var pairs = Pairs("gpt2", "gpt-2", tokens, types);
        pairs["tokenizer.ggml.merges"] = merges;
        return pairs;
    }

    // A blank inside a piece is written as its byte-level spelling.
    private static string Spelled(string piece) => piece.Replace(' ', '\u0120');

    private static Dictionary<string, object> SentencePiece(TokenizerParts parts, int vocabSize)
    {
        var (tokens, types) = Tokens(parts, vocabSize);
        var scores = new float[vocabSize];
        Array.Fill(scores, -10000f);
        if (parts.Scored is { } scored)
            for (int i = 0; i < scored.Count; i++) (types[i], scores[i]) = ((int)scored[i].Kind, scored[i].Score);
        else
        {
            // A tokenizer.json has ranks of merges in place of scores: the earlier a piece can be made, the better its
            // score.
            int rank = 0;
            var made = new Dictionary<int, int>();
            foreach (var (_, _, id) in parts.Model.Merges) made.TryAdd(id, rank++);
            for (int i = 0; i < parts.Pieces.Length; i++) scores[i] = made.TryGetValue(i, out int r) ? -r : -rank;
            foreach (int b in parts.Model.ByteIds) if (b >= 0) (types[b], scores[b]) = ((int)PieceKind.Byte, 0);
            if (parts.Model.UnknownId is >= 0 and var unk) types[unk] = (int)PieceKind.Unknown;
        }
        foreach (var t in parts.Added)
            if (types[t.Id] == (int)PieceKind.UserDefined) scores[t.Id] = -1000;
            else if (types[t.Id] == (int)PieceKind.Control && parts.Scored == null) scores[t.Id] = 0;
        if (parts.Model.UnknownId is >= 0 and var u) types[u] = (int)PieceKind.Unknown;
        var pairs = Pairs("llama", "default", tokens, types);
        pairs["tokenizer.ggml.scores"] = scores;
        return pairs;
    }

    private static List<KeyValuePair<string, object>> Copy(string path)
    {
        using var file = new GgufFile(path);
        var pairs = new List<KeyValuePair<string, object>>();
        foreach (var (key, value) in file.Metadata)
            if (key.StartsWith("tokenizer.", StringComparison.Ordinal))
                pairs.Add(
                    new(
                        key,
                        value switch
                        {
                            long v => (uint)v,
                            double v => (float)v,
                            long[] v => Array.ConvertAll(v, i => (int)i),
                            bool[] v => Array.ConvertAll(v, b => b ? 1 : 0),
                            _ => value,
                        }
                    )
                );
        if (pairs.Count == 0)
            throw new HeadroomException(
                $"{Path.GetFileName(path)} holds no tokenizer.", "Give the model's Hugging Face folder.");
        // What the file did not say, and is known, the copy says.
        if (GgufPre.Find(file.Metadata) is { Pre: { } pre, Notice: not null })
        {
            pairs.RemoveAll(p => p.Key == "tokenizer.ggml.pre");
            pairs.Add(new("tokenizer.ggml.pre", pre));
        }
        return pairs;
    }
}
