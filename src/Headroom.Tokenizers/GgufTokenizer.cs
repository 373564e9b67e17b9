using Headroom.Core;
using Headroom.Formats.Gguf;
using Headroom.Formats.Text;

namespace Headroom.Tokenizers;

/// <summary>The tokenizer inside a GGUF file.</summary>
internal static class GgufTokenizer
{
    private const string Needs =
        "Use the model's Hugging Face folder with its tokenizer.json, or a complete GGUF file.";

    public static TokenizerParts Read(GgufMetadata file)
    {
        string? model = file.Text("tokenizer.ggml.model");
        if (model is not ("llama" or "gpt2"))
            throw new HeadroomException(
                model == null
                    ? "The GGUF file holds no tokenizer."
                    : $"The GGUF tokenizer is of type {model}; llama (SentencePiece BPE) and gpt2 (byte-level BPE) "
                        + $"can be read.",
                Needs
            );
        string[] tokens = Need<string[]>(file, "tokenizer.ggml.tokens");
        if (tokens.Length == 0) throw new FormatException("its vocabulary is empty");
        long[]? types = Get<long[]>(file, "tokenizer.ggml.token_type");
        if (types != null && types.Length != tokens.Length)
            throw new FormatException($"it has {tokens.Length} tokens and {types.Length} token types");
        var kinds = new PieceKind[tokens.Length];
        for (int i = 0; i < kinds.Length; i++)
            kinds[i] = types != null && Enum.IsDefined((PieceKind)types[i]) ? (PieceKind)types[i] : PieceKind.Normal;
        foreach (string key in (string[])["lowercase", "strip_accents"])
            if (file.Flag("tokenizer.ggml.normalizer." + key) == true)
                throw new HeadroomException(
                    $"The GGUF tokenizer changes its text (tokenizer.ggml.normalizer.{key}), which is not supported.",
                    Needs);
        var notices = new List<string>();
        if (file.GetValueOrDefault("tokenizer.ggml.suppress_tokens") is long[] { Length: > 0 } never)
            notices.Add($"tokenizer.ggml.suppress_tokens is not applied: the {never.Length} tokens that llama.cpp "
                + "would never generate can come up");
        var parts = model == "llama" ? Scored(file, tokens, kinds) : ByteLevel(file, tokens, kinds, notices);
        bool addBos = file.Flag("tokenizer.ggml.add_bos_token") ?? (model == "llama" || parts.Model.WholeWords);
        parts.Prefix.Clear();
        if (addBos && parts.Bos is { } bos) parts.Prefix.Add(bos);
        if (file.Flag("tokenizer.ggml.add_eos_token") == true && parts.Eos is { } eos) parts.Suffix.Add(eos);
        parts.ChatTemplate = file.Text("tokenizer.chat_template");
        parts.Notices = notices;
        parts.SpecialTokens = [];
        foreach (
            var (key, name) in new[]
            {
                ("unknown", "unk_token"), ("padding", "pad_token"), ("seperator", "sep_token"), ("cls", "cls_token"),
                ("mask", "mask_token"),
            }
        ) // "seperator" is how the format spells it
            if (file.Int($"tokenizer.ggml.{key}_token_id") is { } id && (ulong)id < (ulong)parts.Pieces.Length)
                parts.SpecialTokens[name] = parts.Pieces[id];
        return parts;
    }

    // Of type llama: SentencePiece.
    private static TokenizerParts Scored(GgufMetadata file, string[] tokens, PieceKind[] kinds)
    {
        float[] scores = Need<float[]>(file, "tokenizer.ggml.scores");
        if (scores.Length != tokens.Length)
            throw new FormatException($"it has {tokens.Length} tokens and {scores.Length} scores");
        var pieces = new List<(string, float, PieceKind)>(tokens.Length);
        for (int i = 0; i < tokens.Length; i++) pieces.Add((tokens[i], scores[i], kinds[i]));
        return SentencePieceModel.Build(
            pieces, file.Flag("tokenizer.ggml.add_space_prefix") ?? true,
            oneSpace: file.Flag("tokenizer.ggml.remove_extra_whitespaces") ?? false,
            Id(file, "unknown_token_id", tokens.Length) ?? 0, Id(file, "bos_token_id", tokens.Length) ?? 1,
            Id(file, "eos_token_id", tokens.Length) ?? 2);
    }

    // Of type gpt2.
    private static TokenizerParts ByteLevel(
        GgufMetadata file, string[] tokens, PieceKind[] kinds, List<string> notices)
    {
        (string? pre, string? unnamed) = GgufPre.Find(file);
        if (unnamed != null) notices.Add(unnamed);
        string[] splits = KnownSplits.ByName(pre);
        string[] lines = Need<string[]>(file, "tokenizer.ggml.merges");
        var vocab = new Dictionary<string, int>(StringComparer.Ordinal);
        var ids = new Dictionary<string, int>(StringComparer.Ordinal);
        var added = new List<AddedToken>();
        for (int i = 0; i < tokens.Length; i++)
        {
            ids.TryAdd(tokens[i], i);
            switch (kinds[i])
            {
                case PieceKind.Control or PieceKind.Unknown: added.Add(new AddedToken(i, tokens[i])); break;
                case PieceKind.UserDefined: added.Add(new AddedToken(i, tokens[i], Special: false)); break;
                case PieceKind.Unused: break;
                default: vocab.TryAdd(tokens[i], i); break;
            }
        }
        // Some files count special tokens among the merged pieces, and the byte alphabet too.
        foreach (char c in ByteAlphabet.Chars)
            if (ids.TryGetValue(c.ToString(), out int id))
                vocab.TryAdd(c.ToString(), id);
        var steps = new List<PreStep>();
        if (file.Flag("tokenizer.ggml.add_space_prefix") == true)
            steps.Add(new ByteLevelStep(prefix: true, split: false));
        foreach (string s in splits) steps.Add(new CutStep(SplitStep.Make(s)));
        return new TokenizerParts
        {
            Model = new BpeModel(
                vocab, Merges(lines, vocab), Vocabulary.ByteLevelBytes(vocab), byteLevel: true,
                KnownSplits.WholeWordsFirst(pre), unk: -1, fuseUnk: false),
            ByteLevel = true,
            Pieces = tokens,
            Ids = ids,
            Added = added,
            Normalizer = KnownSplits.Composed(pre) ? Nfc.Normalize : null,
            Steps = steps,
            Bos = Id(file, "bos_token_id", tokens.Length) is { } bos and >= 0 ? bos : null,
            Eos = Id(file, "eos_token_id", tokens.Length) is { } eos and >= 0 ? eos : null,
        };
    }

    private static Dictionary<ulong, (int, int)> Merges(string[] lines, Dictionary<string, int> vocab)
    {
        var merges = new Dictionary<ulong, (int, int)>();
        for (int i = 0; i < lines.Length; i++)
        {
            int blank = lines[i].IndexOf(' ', Math.Min(1, lines[i].Length));
            if (blank < 0) throw new FormatException($"merge {i} is not a pair");
            Vocabulary.AddMerge(merges, vocab, lines[i][..blank], lines[i][(blank + 1)..], i, last: false);
        }
        return merges;
    }

    // Null when the file has none, -1 when it has one that is not in the vocabulary.
    private static int? Id(GgufMetadata file, string key, int vocabSize) =>
        file.Int("tokenizer.ggml." + key) is { } v ? v >= 0 && v < vocabSize ? (int)v : -1 : null;

    private static T Need<T>(GgufMetadata file, string key) where T : class =>
        Get<T>(file, key) ?? throw new HeadroomException($"The GGUF file holds no {key}.", Needs);

    private static T? Get<T>(GgufMetadata file, string key) where T : class
    {
        if (!file.TryGetValue(key, out object? v)) return null;
        return v as T ?? throw new FormatException($"{key} is not of the right type");
    }
}
