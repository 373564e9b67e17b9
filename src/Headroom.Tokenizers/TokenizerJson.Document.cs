using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Headroom.Tokenizers;

// What a tokenizer.json is made of, whoever writes one: keys and their order as tokenizers has them.
internal static partial class TokenizerJson
{
    private static readonly JsonSerializerOptions Indented = new()
    {
        WriteIndented = true,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        NewLine = "\n",
    };

    private static JsonObject Document(
        IEnumerable<AddedToken> added, JsonNode? normalizer, JsonNode? preTokenizer, JsonNode postProcessor,
        JsonNode decoder, JsonNode model) => new()
        {
            ["version"] = "1.0",
            ["truncation"] = null,
            ["padding"] = null,
            ["added_tokens"] = new JsonArray([.. added.Select(Added)]),
            ["normalizer"] = normalizer,
            ["pre_tokenizer"] = preTokenizer,
            ["post_processor"] = postProcessor,
            ["decoder"] = decoder,
            ["model"] = model,
        };

    private static JsonObject Added(AddedToken t) => new()
    {
        ["id"] = t.Id,
        ["content"] = t.Content,
        ["single_word"] = t.SingleWord,
        ["lstrip"] = t.LStrip,
        ["rstrip"] = t.RStrip,
        ["normalized"] = t.Normalized,
        ["special"] = t.Special,
    };

    private static JsonObject Model(
        IReadOnlyList<string> pieces, IEnumerable<(string Left, string Right)> merges, string? unk, bool byteLevel,
        bool wholeWords)
    {
        var vocab = new JsonObject();
        // Added tokens too: those that the vocabulary lacks are numbered anew behind it by whoever reads the file
        // (added_vocabulary.rs, add_tokens).
        for (int i = 0; i < pieces.Count; i++) vocab.TryAdd(pieces[i], i);
        return new JsonObject
        {
            ["type"] = "BPE",
            ["dropout"] = null,
            ["unk_token"] = unk,
            ["continuing_subword_prefix"] = null,
            ["end_of_word_suffix"] = null,
            ["fuse_unk"] = !byteLevel,
            ["byte_fallback"] = !byteLevel,
            ["ignore_merges"] = wholeWords,
            ["vocab"] = vocab,
            ["merges"] = new JsonArray([.. merges.Select(m => new JsonArray(m.Left, m.Right))]),
        };
    }

    private static JsonObject Item(string type, params (string Key, JsonNode Value)[] values)
    {
        var o = new JsonObject { ["type"] = type };
        foreach (var (key, value) in values) o[key] = value;
        return o;
    }

    private static JsonObject Sequence(string items, JsonObject[] list) =>
        Item("Sequence", (items, new JsonArray([.. list])));

    private static JsonObject Split(string regex) =>
        Item("Split", ("pattern", new JsonObject { ["Regex"] = regex }), ("behavior", "Isolated"), ("invert", false));

    private static JsonObject ByteLevel(bool prefix, bool split) =>
        Item("ByteLevel", ("add_prefix_space", prefix), ("trim_offsets", true), ("use_regex", split));

    private static JsonObject Replace(string kind, string pattern, string content) =>
        Item("Replace", ("pattern", new JsonObject { [kind] = pattern }), ("content", content));

    private static JsonObject Blanks(bool prefix, bool oneSpace) => Sequence("normalizers",
    [
        // Blanks only: a Strip step would take line ends too.
        .. oneSpace ? [Replace("Regex", @"\A +| +\z", ""), Replace("Regex", " {2,}", " ")] : Array.Empty<JsonObject>(),
        .. prefix ? [Item("Prepend", ("prepend", "\u2581"))] : Array.Empty<JsonObject>(),
        Replace("String", " ", "\u2581"),
    ]);

    private static JsonObject Decoder(bool byteLevel, bool prefix) => byteLevel
        ? ByteLevel(true, true)
        : Sequence("decoders",
        [
            Replace("String", "\u2581", " "), Item("ByteFallback"), Item("Fuse"),
            .. prefix ? [Item("Strip", ("content", " "), ("start", 1), ("stop", 0))] : Array.Empty<JsonObject>(),
        ]);

    private static JsonObject Template(IReadOnlyList<string> pieces, List<int> prefix, List<int> suffix)
    {
        var special = new JsonObject();
        foreach (int i in prefix.Concat(suffix).Distinct())
            special[pieces[i]] = new JsonObject
            {
                ["id"] = pieces[i],
                ["ids"] = new JsonArray(i),
                ["tokens"] = new JsonArray(pieces[i]),
            };
        return Item(
            "TemplateProcessing", ("single", new JsonArray(Around("A", 0))),
            ("pair", new JsonArray([.. Around("A", 0), .. Around("B", 1)])), ("special_tokens", special));

        JsonNode[] Around(string sequence, int type) =>
        [
            .. prefix.Select(i => Part("SpecialToken", pieces[i], type)), Part("Sequence", sequence, type),
            .. suffix.Select(i => Part("SpecialToken", pieces[i], type)),
        ];
        static JsonObject Part(string kind, string id, int type) =>
            new() { [kind] = new JsonObject { ["id"] = id, ["type_id"] = type } };
    }
}
