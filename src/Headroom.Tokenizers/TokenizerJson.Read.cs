using System.Text;
using System.Text.Json;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Text;

namespace Headroom.Tokenizers;

/// <summary>The Hugging Face tokenizer.json format.</summary>
internal static partial class TokenizerJson
{
    private const int MostAdded = 1024; // models add one or two

    private const string OtherFile =
        "Use the model's tokenizer.model or GGUF file, or a model with a BPE tokenizer (Llama, Mistral, Qwen, "
            + "DeepSeek, SmolLM families).";

    internal static TokenizerParts Read(JsonElement root)
    {
        var model = Need(root, "model", JsonValueKind.Object);
        string? type = Text(model, "type");
        if (type != "BPE" && !(type == null && model.TryGetProperty("merges", out _)))
            throw new HeadroomException(
                $"The tokenizer is of type {type ?? "unknown"}; only BPE can be read.", OtherFile);
        foreach (string affix in (string[])["continuing_subword_prefix", "end_of_word_suffix"])
            if (Text(model, affix) is { Length: > 0 })
                throw new HeadroomException($"The tokenizer uses {affix}, which is not supported.", OtherFile);

        var vocab = new Dictionary<string, int>(StringComparer.Ordinal);
        foreach (var p in Need(model, "vocab", JsonValueKind.Object).EnumerateObject())
            vocab[p.Name] = p.Value.GetInt32();
        var added = Added(root, vocab);
        var ids = new Dictionary<string, int>(vocab, StringComparer.Ordinal);
        foreach (var t in added) ids[t.Content] = t.Id;
        string[] pieces = Vocabulary.ById(ids);

        var merges = Merges(model, vocab);
        var steps = new List<PreStep>();
        bool byteLevel = false;
        if (Optional(root, "pre_tokenizer") is { } pre) PreTokenizer(pre, steps, ref byteLevel);
        var normalizers = new List<Func<string, string>>();
        bool cuts = false;
        if (Optional(root, "normalizer") is { } norm) Normalizer(norm, byteLevel, normalizers, ref cuts);
        CheckFirst(steps, normalizers.Count, cuts);

        bool wholeWords = Flag(model, "ignore_merges") ?? false;
        int unk = Text(model, "unk_token") is { } u ? vocab.GetValueOrDefault(u, BpeModel.Missing) : -1;
        int[] bytes = BytePieces(byteLevel, Flag(model, "byte_fallback") ?? false, vocab);
        // A whole text that is one piece is looked for before it is cut.
        // A character that is left out could bring two marks together.
        if (!byteLevel && !wholeWords && (unk != -1 || !bytes.Contains(-1)) && Vocabulary.WordStartFits(vocab, merges))
            steps.Add(new WordStartStep());

        var decoders = new List<Func<List<string>, List<string>>>();
        if (Optional(root, "decoder") is { } decoder) Decoder(decoder, decoders);
        bool byteDecode = decoders is [var only] && only == Decoders.ByteLevel;

        var parts = new TokenizerParts
        {
            Model = new BpeModel(vocab, merges, bytes, byteLevel, wholeWords, unk, Flag(model, "fuse_unk") ?? false),
            ByteLevel = byteLevel,
            BytesToText = byteDecode,
            Pieces = pieces,
            Ids = ids,
            Added = added,
            Normalizer = Normalizers.Chain(normalizers),
            Steps = steps,
            Decoders = decoders,
            Joint = Optional(root, "decoder") == null ? " " : "",
        };
        if (Optional(root, "post_processor") is { } post) PostProcessor(post, parts);
        CheckSpellings(parts);
        return parts;
    }

    private static Dictionary<ulong, (int, int)> Merges(JsonElement model, Dictionary<string, int> vocab)
    {
        var merges = new Dictionary<ulong, (int, int)>();
        int rank = 0;
        foreach (var m in Need(model, "merges", JsonValueKind.Array).EnumerateArray())
        {
            string left, right;
            if (m.ValueKind == JsonValueKind.Array)
            {
                if (m.GetArrayLength() != 2) throw new FormatException($"merge {rank} is not a pair");
                (left, right) = (m[0].GetString()!, m[1].GetString()!);
            }
            else
            {
                string s = m.GetString()!;
                int blank = s.IndexOf(' ');
                if (blank < 0 || s.IndexOf(' ', blank + 1) >= 0)
                {
                    if (rank == 0 && s.StartsWith("#version", StringComparison.Ordinal))
                        continue;
                    throw new FormatException($"merge {rank} is not a pair");
                }
                (left, right) = (s[..blank], s[(blank + 1)..]);
            }
            Vocabulary.AddMerge(merges, vocab, left, right, rank++, last: true);
        }
        return merges;
    }

    private static int[] BytePieces(bool byteLevel, bool fallback, Dictionary<string, int> vocab)
    {
        int[] bytes =
            byteLevel ? Vocabulary.ByteLevelBytes(vocab)
            : fallback ? Vocabulary.FallbackBytes(vocab)
            : Vocabulary.NoBytes();
        if (byteLevel && fallback && bytes.Contains(-1))
            throw new HeadroomException(
                "The tokenizer has byte_fallback beside a byte-level step and lacks some of the bytes, which is not "
                    + "supported.",
                OtherFile);
        return bytes;
    }

    // As tokenizers numbers them (added_vocabulary.rs, add_tokens): by the vocabulary, else one after another behind
    // it. A file that says otherwise is not guessed about.
    private static List<AddedToken> Added(JsonElement root, Dictionary<string, int> vocab)
    {
        var added = new List<AddedToken>();
        if (Optional(root, "added_tokens") is not { } list) return added;
        int next = vocab.Count;
        foreach (var t in list.EnumerateArray())
        {
            string content = Need(t, "content", JsonValueKind.String).GetString()!;
            if (content.Length == 0) continue;
            int id = Need(t, "id", JsonValueKind.Number).GetInt32(),
                before = added.FindIndex(o => o.Content == content);
            int due = before >= 0 ? added[before].Id : vocab.TryGetValue(content, out int known) ? known : next++;
            if (id != due)
                throw new FormatException($"the added token \"{content}\" has the id {id}, where its place is {due}");
            bool special = Flag(t, "special") ?? false;
            var token = new AddedToken(
                id, content, Flag(t, "single_word") ?? false, Flag(t, "lstrip") ?? false, Flag(t, "rstrip") ?? false,
                Flag(t, "normalized") ?? !special, special);
            if (before >= 0) added[before] = token; else added.Add(token);
        }
        return added;
    }

    private static void CheckSpellings(TokenizerParts parts)
    {
        var seen = new HashSet<string>(StringComparer.Ordinal);
        foreach (var t in parts.Added.Where(t => t.Normalized))
        {
            string spelling = parts.Normalizer?.Invoke(t.Content) ?? t.Content;
            if (spelling.Length == 0)
                throw new HeadroomException(
                    $"The tokenizer's normalizer leaves nothing of the added token \"{t.Content}\", which is not "
                        + $"supported.",
                    OtherFile);
            if (!seen.Add(spelling))
                throw new HeadroomException(
                    $"The tokenizer's normalizer makes the added token \"{t.Content}\" the same as another, which is "
                        + $"not supported.",
                    OtherFile);
        }
    }

    // tokenizers asks where a part came from in the text as it was given; that is told here for parts that no
    // normalizer has touched, or that nothing has cut yet.
    private static void CheckFirst(List<PreStep> steps, int normalizers, bool cuts)
    {
        int at = steps.FindLastIndex(s => s is MetaspaceStep { Scheme: PrependScheme.First });
        if (at < 0) return;
        string? why =
            cuts ? "after a normalizer that takes text away"
            : at > 0 && (normalizers > 0 || steps[..at].Exists(s => s is MetaspaceStep)) ? "behind other steps"
            : null;
        if (why != null)
            throw new HeadroomException(
                $"The tokenizer has a Metaspace step with prepend_scheme first {why}, which is not supported.",
                OtherFile);
    }

    private static void Normalizer(JsonElement e, bool byteLevel, List<Func<string, string>> steps, ref bool cuts)
    {
        string type = Text(e, "type") ?? "";
        switch (type)
        {
            case "Sequence":
                foreach (var n in Need(e, "normalizers", JsonValueKind.Array).EnumerateArray())
                    Normalizer(n, byteLevel, steps, ref cuts);
                break;
            case "NFC": steps.Add(Nfc.Normalize); break;
            case "NFD": steps.Add(Nfc.Decomposed); break;
            case "StripAccents":
                cuts = true;
                steps.Add(Normalizers.StripAccents);
                break;
            case "Prepend":
                string prefix = Text(e, "prepend") ?? "";
                // tokenizers loses its count of the letters there, and fails at most texts
                if (prefix.Length == 0 && byteLevel)
                    throw new HeadroomException(
                        "The tokenizer has a Prepend normalizer of nothing before a byte-level step, which is not "
                            + "supported.",
                        OtherFile);
                steps.Add(Normalizers.Prepend(prefix));
                break;
            case "Replace":
                var (pattern, literal) = Pattern(e);
                string content = Text(e, "content") ?? "";
                cuts |= !literal || pattern.Length != 1 || content.Length == 0;
                // Where the expression matches the empty text, tokenizers counts the letters that stand there as
                // letters of the bytes behind them.
                steps.Add(literal && pattern.Length > 0 ? Normalizers.Replace(pattern, content)
                    : Normalizers.Replace(RegexMatcher.Make(pattern), content, emptyAllowed: !byteLevel));
                break;
            case "Strip":
                bool left = Flag(e, "strip_left") ?? true;
                cuts |= left;
                steps.Add(Normalizers.Strip(left, Flag(e, "strip_right") ?? true));
                break;
            case "Lowercase": steps.Add(Normalizers.Lower); break;
            default:
                throw new HeadroomException(
                    $"The tokenizer has a normalizer of type {type}, which is not supported.", OtherFile);
        }
    }

    private static (string Pattern, bool Literal) Pattern(JsonElement e)
    {
        var p = Need(e, "pattern", null);
        if (p.ValueKind == JsonValueKind.String) return (p.GetString()!, true);
        return Text(p, "String") is { } s ? (s, true) : (Need(p, "Regex", JsonValueKind.String).GetString()!, false);
    }

    private static SplitBehavior Behavior(JsonElement e) =>
        Enum.TryParse<SplitBehavior>(Text(e, "behavior") ?? "Isolated", ignoreCase: true, out var b)
            ? b
            : throw new FormatException("unknown split behavior");

    private static void PreTokenizer(JsonElement e, List<PreStep> steps, ref bool byteLevel)
    {
        string type = Text(e, "type") ?? "";
        if (byteLevel && type != "Sequence")
            throw new HeadroomException(
                $"The tokenizer has a step {type} after its byte-level step, which is not supported.", OtherFile);
        switch (type)
        {
            case "Sequence":
                foreach (var n in Need(e, "pretokenizers", JsonValueKind.Array).EnumerateArray())
                    PreTokenizer(n, steps, ref byteLevel);
                break;
            case "Split":
                var (pattern, literal) = Pattern(e);
                Cut(
                    literal && pattern.Length > 0 ? new LiteralMatcher(pattern) : RegexMatcher.Make(pattern),
                    Behavior(e), Flag(e, "invert") ?? false);
                break;
            case "Digits":
                bool single = Flag(e, "individual_digits") ?? false;
                Cut(new CharMatcher(Rune.IsNumber), single ? SplitBehavior.Isolated : SplitBehavior.Contiguous);
                break;
            case "CharDelimiterSplit":
                var delimiter = Character(e, "delimiter");
                Cut(new CharMatcher(r => r == delimiter), SplitBehavior.Removed);
                break;
            case "FixedLength":
                int length = Optional(e, "length") != null ? Number(e, "length") : 5;
                if (length <= 0) throw new FormatException("the FixedLength step has the length " + length);
                steps.Add(new FixedLengthStep(length));
                break;
            case "ByteLevel":
                byteLevel = true;
                bool prefix = Flag(e, "add_prefix_space") ?? true, split = Flag(e, "use_regex") ?? true;
                if (prefix || split) steps.Add(new ByteLevelStep(prefix, split));
                break;
            case "Metaspace":
                var scheme = Text(e, "prepend_scheme") switch
                {
                    "first" => PrependScheme.First,
                    "never" => PrependScheme.Never,
                    "always" => PrependScheme.Always,
                    _ => Flag(e, "add_prefix_space") ?? true ? PrependScheme.Always : PrependScheme.Never,
                };
                steps.Add(new MetaspaceStep(MetaspaceMark(e), scheme, Flag(e, "split") ?? true));
                break;
            case "WhitespaceSplit": Cut(new CharMatcher(Rune.IsWhiteSpace), SplitBehavior.Removed); break;
            case "Whitespace": Cut(new WordMatcher(), SplitBehavior.Removed, invert: true); break;
            case "Punctuation": Cut(new CharMatcher(IsPunctuation), Behavior(e)); break;
            case "BertPreTokenizer":
                Cut(new CharMatcher(Rune.IsWhiteSpace), SplitBehavior.Removed);
                Cut(new CharMatcher(IsPunctuation), SplitBehavior.Isolated);
                break;
            default:
                throw new HeadroomException(
                    $"The tokenizer has a pre-tokenizer of type {type}, which is not supported.", OtherFile);
        }

        void Cut(Matcher matcher, SplitBehavior behavior, bool invert = false) =>
            steps.Add(new CutStep(new SplitStep(matcher, behavior, invert)));
    }

    private static char MetaspaceMark(JsonElement e) =>
        (Text(e, "replacement") ?? "\u2581") is [var mark]
            ? mark
            : throw new FormatException("the Metaspace replacement is not one character");

    private static bool IsPunctuation(Rune r) =>
        Rune.IsPunctuation(r)
        || r.Value is (>= '!' and <= '/') or (>= ':' and <= '@') or (>= '[' and <= '`') or (>= '{' and <= '~');

    private static void Decoder(JsonElement e, List<Func<List<string>, List<string>>> steps)
    {
        string type = Text(e, "type") ?? "";
        switch (type)
        {
            case "Sequence":
                foreach (var n in Need(e, "decoders", JsonValueKind.Array).EnumerateArray())
                    Decoder(n, steps);
                break;
            case "ByteLevel": steps.Add(Decoders.ByteLevel); break;
            case "ByteFallback": steps.Add(Decoders.ByteFallback); break;
            case "Fuse": steps.Add(Decoders.Fuse); break;
            case "Replace":
                var (pattern, literal) = Pattern(e);
                string content = Text(e, "content") ?? "";
                var matcher =
                    literal && pattern.Length > 0 ? (Matcher)new LiteralMatcher(pattern) : RegexMatcher.Make(pattern);
                steps.Add(Decoders.Replace(Normalizers.Replace(matcher, content)));
                break;
            case "Strip":
                steps.Add(Decoders.Strip(Character(e, "content"), Number(e, "start"), Number(e, "stop")));
                break;
            case "WordPiece":
                steps.Add(Decoders.WordPiece(Text(e, "prefix") ?? "##", Flag(e, "cleanup") ?? true));
                break;
            case "BPEDecoder":
                steps.Add(
                    Decoders.WordEnd(
                        Text(e, "suffix") is { Length: > 0 } end
                            ? end
                            : throw new FormatException("the BPEDecoder has no suffix")
                    )
                );
                break;
            case "Metaspace":
                bool front = Text(e, "prepend_scheme") is { } scheme
                    ? scheme != "never"
                    : Flag(e, "add_prefix_space") ?? true;
                steps.Add(Decoders.Metaspace(MetaspaceMark(e), front));
                break;
            default:
                throw new HeadroomException(
                    $"The tokenizer has a decoder of type {type}, which is not supported.", OtherFile);
        }
    }

    private static void PostProcessor(JsonElement e, TokenizerParts parts)
    {
        string type = Text(e, "type") ?? "";
        // tokenizers takes the tokens of one for a second text in the next.
        if (type is not ("ByteLevel" or "Sequence") && parts.Prefix.Count + parts.Suffix.Count > 0)
            throw new HeadroomException(
                $"The tokenizer has a post-processor of type {type} behind another that adds tokens, which is not "
                    + $"supported.",
                OtherFile);
        switch (type)
        {
            case "Sequence":
                foreach (var n in Need(e, "processors", JsonValueKind.Array).EnumerateArray()) PostProcessor(n, parts);
                break;
            case "TemplateProcessing":
                Template(e, parts);
                break;
            case "BertProcessing" or "RobertaProcessing":
                int cls = Pair(e, "cls"), sep = Pair(e, "sep");
                parts.Prefix.Add(cls);
                parts.Suffix.Add(sep);
                parts.Bos ??= cls;
                parts.Eos ??= sep;
                break;
            case "ByteLevel": break; // offsets only
            default:
                throw new HeadroomException(
                    $"The tokenizer has a post-processor of type {type}, which is not supported.", OtherFile);
        }

        int Pair(JsonElement from, string name)
        {
            var a = Need(from, name, JsonValueKind.Array);
            if (a.GetArrayLength() != 2) throw new FormatException($"the {name} of its {type} is not a pair");
            int id = a[1].GetInt32();
            return (uint)id < (uint)parts.Pieces.Length
                ? id
                : throw new FormatException($"the {name} of its {type} has the id {id}, which it does not have");
        }
    }

    private static void Template(JsonElement e, TokenizerParts parts)
    {
        List<int> before = [], after = [];
        int texts = 0;
        foreach (var item in Need(e, "single", JsonValueKind.Array).EnumerateArray())
        {
            if (Optional(item, "Sequence") is { } sequence)
            {
                texts += Text(sequence, "id") == "A" ? 1 : 2;
                continue;
            }
            string name = Text(Need(item, "SpecialToken", JsonValueKind.Object), "id") ?? "";
            var to = texts == 0 ? before : after;
            if (
                Optional(e, "special_tokens") is { } special
                && Optional(special, name) is { } given
                && Optional(given, "ids") is { } list
            )
                foreach (var id in list.EnumerateArray())
                    if (to.Count < MostAdded) to.Add(id.GetInt32());
                    else throw new FormatException($"its template adds more than {MostAdded} tokens");
            else if (parts.Ids.TryGetValue(name, out int known)) to.Add(known);
            else throw new FormatException($"its template names the token {name}, which it does not have");
        }
        if (texts != 1)
            throw new HeadroomException(
                "The tokenizer's template does not hold the text once, which is not supported.", OtherFile);
        foreach (int id in before.Concat(after))
            if ((uint)id >= (uint)parts.Pieces.Length)
                throw new FormatException($"its template names the id {id}, which it does not have");
        parts.Prefix.AddRange(before);
        parts.Suffix.AddRange(after);
        if (parts.Prefix.Count > 0) parts.Bos ??= parts.Prefix[0];
        if (parts.Suffix.Count > 0) parts.Eos ??= parts.Suffix[^1];
    }

    internal static JsonElement Need(JsonElement e, string name, JsonValueKind? kind)
    {
        if (Optional(e, name) is not { } v) throw new FormatException($"\"{name}\" is missing");
        return kind == null || v.ValueKind == kind
            ? v
            : throw new FormatException($"\"{name}\" is {JsonKinds.Named(v.ValueKind)}");
    }

    internal static JsonElement? Optional(JsonElement e, string name)
    {
        if (e.ValueKind != JsonValueKind.Object) throw new FormatException($"an object with \"{name}\" was expected");
        return e.TryGetProperty(name, out var v) && v.ValueKind != JsonValueKind.Null ? v : null;
    }

    internal static string? Text(JsonElement e, string name) => Optional(e, name) is { } v ? v.GetString() : null;

    internal static bool? Flag(JsonElement e, string name) => Optional(e, name) is { } v ? v.GetBoolean() : null;

    private static Rune Character(JsonElement e, string name)
    {
        string s = Need(e, name, JsonValueKind.String).GetString()!;
        return
            Rune.DecodeFromUtf16(s, out var rune, out int used) == System.Buffers.OperationStatus.Done
            && used == s.Length
            ? rune
            : throw new FormatException($"its {name} \"{s}\" is not one character");
    }

    private static int Number(JsonElement e, string name) => Optional(e, name) is { } v ? v.GetInt32() : 0;
}
