using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;
using Headroom.Core;

namespace Headroom.Formats.Tokenizers;

/// <summary>The Hugging Face tokenizer.json format.</summary>
public static partial class TokenizerJson
{
    private const int MostAdded = 1024; // models add one or two

    private const string OtherFile = "Use the model's tokenizer.model or GGUF file, or a model with a BPE tokenizer (Llama, Mistral, Qwen, DeepSeek, SmolLM families).";

    internal static TokenizerParts Read(JsonElement root)
    {
        var model = Need(root, "model", JsonValueKind.Object);
        string? type = Text(model, "type");
        if (type != "BPE" && !(type == null && model.TryGetProperty("merges", out _)))
            throw new HeadroomException($"The tokenizer is of type {type ?? "unknown"}; only BPE can be read.", OtherFile);
        foreach (string affix in (string[])["continuing_subword_prefix", "end_of_word_suffix"])
            if (Text(model, affix) is { Length: > 0 }) throw new HeadroomException($"The tokenizer uses {affix}, which is not supported.", OtherFile);

        var vocab = new Dictionary<string, int>(StringComparer.Ordinal);
        foreach (var p in Need(model, "vocab", JsonValueKind.Object).EnumerateObject()) vocab[p.Name] = p.Value.GetInt32();
        var added = new List<AddedToken>();
        if (Optional(root, "added_tokens") is { } list)
            foreach (var t in list.EnumerateArray())
            {
                string content = Need(t, "content", JsonValueKind.String).GetString()!;
                bool special = Flag(t, "special") ?? false;
                added.Add(new AddedToken(Need(t, "id", JsonValueKind.Number).GetInt32(), content, Flag(t, "single_word") ?? false, Flag(t, "lstrip") ?? false, Flag(t, "rstrip") ?? false, Flag(t, "normalized") ?? !special, special));
            }
        var ids = new Dictionary<string, int>(vocab, StringComparer.Ordinal);
        foreach (var t in added) ids[t.Content] = t.Id;
        string[] pieces = Vocabulary.ById(ids);

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
                if (blank < 0 || s.IndexOf(' ', blank + 1) >= 0) { if (rank == 0 && s.StartsWith("#version", StringComparison.Ordinal)) continue; throw new FormatException($"merge {rank} is not a pair"); }
                (left, right) = (s[..blank], s[(blank + 1)..]);
            }
            Vocabulary.AddMerge(merges, vocab, left, right, rank++);
        }

        var steps = new List<PreStep>();
        bool byteLevel = false;
        if (Optional(root, "pre_tokenizer") is { } pre) PreTokenizer(pre, steps, ref byteLevel);
        var normalizers = new List<Func<string, string>>();
        if (Optional(root, "normalizer") is { } norm) Normalizer(norm, normalizers);

        int unk = Text(model, "unk_token") is { } u && ids.TryGetValue(u, out int unkId) ? unkId : -1;
        int[] bytes = byteLevel ? Vocabulary.ByteLevelBytes(vocab) : Flag(model, "byte_fallback") == true ? Vocabulary.FallbackBytes(vocab) : Vocabulary.NoBytes();
        if (!byteLevel && Vocabulary.WordStartFits(vocab, merges)) steps.Add(new WordStartStep());

        var decoders = new List<Func<List<string>, List<string>>>();
        bool byteDecode = byteLevel;
        string joint = "";
        if (Optional(root, "decoder") is { } decoder) { byteDecode = false; Decoder(decoder, decoders, ref byteDecode); }
        else if (!byteLevel) joint = " ";

        var parts = new TokenizerParts
        {
            Model = new BpeModel(vocab, merges, bytes, byteLevel, Flag(model, "ignore_merges") ?? false, unk, Flag(model, "fuse_unk") ?? false),
            ByteLevel = byteDecode,
            Pieces = pieces,
            Ids = ids,
            Added = added,
            Normalizer = Normalizers.Chain(normalizers),
            Steps = steps,
            Decoders = decoders,
            Joint = joint,
        };
        if (Optional(root, "post_processor") is { } post) PostProcessor(post, parts);
        return parts;
    }

    private static void Normalizer(JsonElement e, List<Func<string, string>> steps)
    {
        string type = Text(e, "type") ?? "";
        switch (type)
        {
            case "Sequence": foreach (var n in Need(e, "normalizers", JsonValueKind.Array).EnumerateArray()) Normalizer(n, steps); break;
            case "NFC": steps.Add(Nfc.Normalize); break;
            case "Prepend": steps.Add(Normalizers.Prepend(Text(e, "prepend") ?? "")); break;
            case "Replace": steps.Add(Replacement(e)); break;
            case "Strip": steps.Add(Normalizers.Strip(Flag(e, "strip_left") ?? true, Flag(e, "strip_right") ?? true)); break;
            case "Lowercase": steps.Add(Normalizers.Lower); break;
            default: throw new HeadroomException($"The tokenizer has a normalizer of type {type}, which is not supported.", OtherFile);
        }
    }

    private static Func<string, string> Replacement(JsonElement e)
    {
        string content = Text(e, "content") ?? "";
        var (pattern, literal) = Pattern(e);
        if (pattern.Length == 0) return s => s;
        return literal ? Normalizers.Replace(pattern, content) : Normalizers.Replace(SplitStep.Expression(pattern), content);
    }

    private static (string Pattern, bool Literal) Pattern(JsonElement e)
    {
        var p = Need(e, "pattern", null);
        if (p.ValueKind == JsonValueKind.String) return (p.GetString()!, true);
        return Text(p, "String") is { } s ? (s, true) : (Need(p, "Regex", JsonValueKind.String).GetString()!, false);
    }

    private static SplitBehavior Behavior(JsonElement e) =>
        Enum.TryParse<SplitBehavior>(Text(e, "behavior") ?? "Isolated", ignoreCase: true, out var b) ? b : throw new FormatException("unknown split behavior");

    private static void PreTokenizer(JsonElement e, List<PreStep> steps, ref bool byteLevel)
    {
        string type = Text(e, "type") ?? "";
        if (byteLevel && type != "Sequence") throw new HeadroomException($"The tokenizer has a step {type} after its byte-level step, which is not supported.", OtherFile);
        switch (type)
        {
            case "Sequence":
                foreach (var n in Need(e, "pretokenizers", JsonValueKind.Array).EnumerateArray()) PreTokenizer(n, steps, ref byteLevel);
                break;
            case "Split":
                var (pattern, literal) = Pattern(e);
                if (pattern.Length > 0) steps.Add(new RegexStep(SplitStep.Of(pattern, Behavior(e), Flag(e, "invert") ?? false, literal)));
                break;
            case "Digits":
                steps.Add(new RegexStep(SplitStep.Of(Flag(e, "individual_digits") ?? false ? @"\p{N}" : @"\p{N}+")));
                break;
            case "ByteLevel":
                byteLevel = true;
                bool prefix = Flag(e, "add_prefix_space") ?? true, split = Flag(e, "use_regex") ?? true;
                if (prefix || split) steps.Add(new ByteLevelStep(prefix, split));
                break;
            case "Metaspace":
                string mark = Text(e, "replacement") ?? "\u2581";
                if (mark.Length != 1) throw new FormatException("the Metaspace replacement is not one character");
                var scheme = Text(e, "prepend_scheme") switch
                {
                    "first" => PrependScheme.First,
                    "never" => PrependScheme.Never,
                    "always" => PrependScheme.Always,
                    _ => Flag(e, "add_prefix_space") ?? true ? PrependScheme.Always : PrependScheme.Never,
                };
                steps.Add(new MetaspaceStep(mark[0], scheme, Flag(e, "split") ?? true));
                break;
            case "WhitespaceSplit": steps.Add(new RegexStep(SplitStep.Of(@"\s+", SplitBehavior.Removed))); break;
            case "Whitespace": steps.Add(new RegexStep(SplitStep.Of(@"\w+|[^\w\s]+", SplitBehavior.Removed, invert: true))); break;
            case "Punctuation": steps.Add(new RegexStep(SplitStep.Of(@"[!-/:-@\[-`{-~\p{P}]", Behavior(e)))); break;
            default: throw new HeadroomException($"The tokenizer has a pre-tokenizer of type {type}, which is not supported.", OtherFile);
        }
    }

    private static void Decoder(JsonElement e, List<Func<List<string>, List<string>>> steps, ref bool byteLevel)
    {
        string type = Text(e, "type") ?? "";
        switch (type)
        {
            case "Sequence": foreach (var n in Need(e, "decoders", JsonValueKind.Array).EnumerateArray()) Decoder(n, steps, ref byteLevel); break;
            case "ByteLevel": byteLevel = true; break;
            case "ByteFallback": steps.Add(Decoders.ByteFallback); break;
            case "Fuse": steps.Add(Decoders.Fuse); break;
            case "Replace": steps.Add(Decoders.Replace(Replacement(e))); break;
            case "Strip":
                string c = Text(e, "content") ?? " ";
                if (c.Length == 1) steps.Add(Decoders.Strip(c[0], Number(e, "start"), Number(e, "stop")));
                break;
            case "Metaspace":
                string mark = Text(e, "replacement") ?? "\u2581";
                if (mark.Length != 1) throw new FormatException("the Metaspace replacement is not one character");
                steps.Add(Decoders.Metaspace(mark[0], Text(e, "prepend_scheme") is { } s ? s != "never" : Flag(e, "add_prefix_space") ?? true));
                break;
            default: throw new HeadroomException($"The tokenizer has a decoder of type {type}, which is not supported.", OtherFile);
        }
    }

    private static void PostProcessor(JsonElement e, TokenizerParts parts)
    {
        switch (Text(e, "type"))
        {
            case "Sequence":
                foreach (var n in Need(e, "processors", JsonValueKind.Array).EnumerateArray()) PostProcessor(n, parts);
                break;
            case "TemplateProcessing":
                bool before = true;
                foreach (var item in Need(e, "single", JsonValueKind.Array).EnumerateArray())
                {
                    if (Optional(item, "Sequence") != null) { before = false; continue; }
                    string name = Text(Need(item, "SpecialToken", JsonValueKind.Object), "id") ?? "";
                    var to = before ? parts.Prefix : parts.Suffix;
                    if (Optional(e, "special_tokens") is { } special && Optional(special, name) is { } given && Optional(given, "ids") is { } list)
                        foreach (var id in list.EnumerateArray())
                            if (to.Count < MostAdded) to.Add(id.GetInt32());
                            else throw new FormatException($"its template adds more than {MostAdded} tokens");
                    else if (parts.Ids.TryGetValue(name, out int known)) to.Add(known);
                    else throw new FormatException($"its template names the token {name}, which it does not have");
                }
                foreach (int id in parts.Prefix.Concat(parts.Suffix))
                    if ((uint)id >= (uint)parts.Pieces.Length) throw new FormatException($"its template names the id {id}, which it does not have");
                if (parts.Prefix.Count > 0) parts.Bos ??= parts.Prefix[0];
                if (parts.Suffix.Count > 0) parts.Eos ??= parts.Suffix[^1];
                break;
            case "BertProcessing" or "RobertaProcessing":
                if (Pair(e, "cls") is { } cls) { parts.Prefix.Add(cls); parts.Bos ??= cls; }
                if (Pair(e, "sep") is { } sep) { parts.Suffix.Add(sep); parts.Eos ??= sep; }
                break;
        }

        int? Pair(JsonElement from, string name) =>
            Optional(from, name) is { ValueKind: JsonValueKind.Array } a && a.GetArrayLength() == 2 && a[1].GetInt32() is var id && (uint)id < (uint)parts.Pieces.Length ? id : null;
    }

    internal static JsonElement Need(JsonElement e, string name, JsonValueKind? kind)
    {
        if (Optional(e, name) is not { } v) throw new FormatException($"\"{name}\" is missing");
        return kind == null || v.ValueKind == kind ? v : throw new FormatException($"\"{name}\" is a {v.ValueKind.ToString().ToLowerInvariant()}");
    }

    internal static JsonElement? Optional(JsonElement e, string name)
    {
        if (e.ValueKind != JsonValueKind.Object) throw new FormatException($"an object with \"{name}\" was expected");
        return e.TryGetProperty(name, out var v) && v.ValueKind != JsonValueKind.Null ? v : null;
    }

    internal static string? Text(JsonElement e, string name) => Optional(e, name) is { } v ? v.GetString() : null;

    internal static bool? Flag(JsonElement e, string name) => Optional(e, name) is { } v ? v.GetBoolean() : null;

    private static int Number(JsonElement e, string name) => Optional(e, name) is { } v ? v.GetInt32() : 0;
}
