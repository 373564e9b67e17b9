using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Gguf;

namespace Headroom.Tokenizers;

internal static partial class TokenizerJson
{
    /// <summary>
    /// Writes the tokenizer of a GGUF file as tokenizer.json and tokenizer_config.json, and reads it back: a tokenizer
    /// that does not give the same ids on
    /// <see cref="GgufVocabulary.Probes"/> is refused.
    /// </summary>
    public static void WriteFromGguf(string folder, GgufFile file)
    {
        var tokenizer = new BpeTokenizer(GgufTokenizer.Read(file.Metadata));
        var parts = tokenizer.Parts;
        var options = new JsonSerializerOptions
        {
            WriteIndented = true,
            Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        };
        AtomicFile.WriteText(
            Path.Combine(folder, "tokenizer.json"), Document(parts, file.Metadata).ToJsonString(options) + "\n");
        string? Name(int? id) => id is { } i ? parts.Pieces[i] : null;
        var config = new JsonObject
        {
            ["add_bos_token"] = tokenizer.AddBos,
            ["add_eos_token"] = tokenizer.AddEos,
            ["bos_token"] = Name(parts.Bos),
            ["eos_token"] = Name(parts.Eos),
            ["clean_up_tokenization_spaces"] = false,
            ["tokenizer_class"] = "PreTrainedTokenizerFast",
        };
        if (parts.Model.UnknownId >= 0) config["unk_token"] = parts.Pieces[parts.Model.UnknownId];
        if (parts.ChatTemplate != null) config["chat_template"] = parts.ChatTemplate;
        AtomicFile.WriteText(Path.Combine(folder, "tokenizer_config.json"), config.ToJsonString(options) + "\n");
        var back = TokenizerLoader.Load(folder);
        foreach (string p in GgufVocabulary.Probes)
            if (!tokenizer.Encode(p, true).AsSpan().SequenceEqual(back.Encode(p, true)))
                throw new HeadroomException(
                    $"The tokenizer of {Path.GetFileName(file.Path)} does not survive as tokenizer.json (it differs "
                        + $"on {JsonSerializer.Serialize(p)}).",
                    "Export to GGUF, or from the model's Hugging Face folder.", 1);
    }

    private static JsonObject Document(TokenizerParts parts, GgufMetadata gguf)
    {
        bool bytes = parts.ByteLevel;
        var vocab = new JsonObject();
        // Added tokens too: those that the vocabulary lacks are numbered anew behind it by whoever reads the file
        // (added_vocabulary.rs, add_tokens).
        for (int i = 0; i < parts.Pieces.Length; i++) vocab.TryAdd(parts.Pieces[i], i);
        string? pre = bytes ? GgufPre.Find(gguf).Pre : null;
        string? unk = parts.Model.UnknownId >= 0 ? parts.Pieces[parts.Model.UnknownId] : null;
        bool prefix = gguf.Flag("tokenizer.ggml.add_space_prefix") ?? !bytes;
        return new JsonObject
        {
            ["version"] = "1.0",
            ["truncation"] = null,
            ["padding"] = null,
            ["added_tokens"] = new JsonArray(parts.Added.OrderBy(t => t.Id).Select(t => (JsonNode)new JsonObject
            {
                ["id"] = t.Id,
                ["content"] = t.Content,
                ["single_word"] = t.SingleWord,
                ["lstrip"] = t.LStrip,
                ["rstrip"] = t.RStrip,
                ["normalized"] = t.Normalized,
                ["special"] = t.Special,
            }).ToArray()),
            ["normalizer"] = bytes
                ? KnownSplits.Composed(pre)
                    ? Item("NFC")
                    : null
                : Blanks(prefix, gguf.Flag("tokenizer.ggml.remove_extra_whitespaces") ?? false),
            ["pre_tokenizer"] = bytes
                ? Sequence(
                    "pretokenizers",
                    [
                        .. KnownSplits
                            .ByName(pre)
                            .Select(s =>
                                Item(
                                    "Split", ("pattern", new JsonObject { ["Regex"] = s }), ("behavior", "Isolated"),
                                    ("invert", false))
                            ),
                        Item("ByteLevel", ("add_prefix_space", prefix), ("trim_offsets", true), ("use_regex", false)),
                    ]
                )
                : null,
            ["post_processor"] = Template(parts),
            ["decoder"] = bytes
                ? Item("ByteLevel", ("add_prefix_space", true), ("trim_offsets", true), ("use_regex", true))
                : Sequence(
                    "decoders",
                    [
                        Item("Replace", ("pattern", new JsonObject { ["String"] = "\u2581" }), ("content", " ")),
                        Item("ByteFallback"),
                        Item("Fuse"),
                        .. prefix
                            ? [Item("Strip", ("content", " "), ("start", 1), ("stop", 0))]
                            : Array.Empty<JsonObject>(),
                    ]
                ),
            ["model"] = new JsonObject
            {
                ["type"] = "BPE",
                ["dropout"] = null,
                ["unk_token"] = unk,
                ["continuing_subword_prefix"] = null,
                ["end_of_word_suffix"] = null,
                ["fuse_unk"] = !bytes,
                ["byte_fallback"] = !bytes,
                ["ignore_merges"] = parts.Model.WholeWords,
                ["vocab"] = vocab,
                ["merges"] = new JsonArray(
                    parts
                        .Model.Merges.Select(m => (JsonNode)new JsonArray(parts.Pieces[m.Left], parts.Pieces[m.Right]))
                        .ToArray()
                ),
            },
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

    private static JsonObject Blanks(bool prefix, bool oneSpace)
    {
        var steps = new List<JsonObject>();
        if (oneSpace)
        {
            // Blanks only: a Strip step would take line ends too.
            steps.Add(Item("Replace", ("pattern", new JsonObject { ["Regex"] = @"\A +| +\z" }), ("content", "")));
            steps.Add(Item("Replace", ("pattern", new JsonObject { ["Regex"] = " {2,}" }), ("content", " ")));
        }
        if (prefix) steps.Add(Item("Prepend", ("prepend", "\u2581")));
        steps.Add(Item("Replace", ("pattern", new JsonObject { ["String"] = " " }), ("content", "\u2581")));
        return Sequence("normalizers", [.. steps]);
    }

    private static JsonObject Template(TokenizerParts parts)
    {
        var special = new JsonObject();
        JsonObject Part(string kind, string id, int type) =>
            new()
            {
                [kind] = new JsonObject { ["id"] = id, ["type_id"] = type },
            };
        JsonNode[] Around(string sequence, int type) =>
        [
                .. parts.Prefix.Select(i => Part("SpecialToken", parts.Pieces[i], type)),
                Part("Sequence", sequence, type),
                .. parts.Suffix.Select(i => Part("SpecialToken", parts.Pieces[i], type)),
        ];
        foreach (int i in parts.Prefix.Concat(parts.Suffix).Distinct())
            special[parts.Pieces[i]] = new JsonObject
            {
                ["id"] = parts.Pieces[i],
                ["ids"] = new JsonArray(i),
                ["tokens"] = new JsonArray(parts.Pieces[i]),
            };
        return Item(
            "TemplateProcessing", ("single", new JsonArray(Around("A", 0))),
            ("pair", new JsonArray([.. Around("A", 0), .. Around("B", 1)])), ("special_tokens", special));
    }
}
