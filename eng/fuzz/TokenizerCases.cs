using System.IO.Compression;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Headroom.Fuzz;

/// <summary>
/// Random tokenizer.json files over all components of the format, and real ones with changed settings.
/// </summary>
internal sealed class TokenizerCases
{
    private static readonly JsonSerializerOptions Relaxed = new()
    {
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    private static readonly string[] Regexes =
    [
        @"\s+", @"\s", @"\w+", @"\W", @"\w+|[^\w\s]+", @"\p{L}+", @"\p{N}{1,3}", @"\p{P}",
        @" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", "[\r\n]", @"\s+$", "[a-c]", "a|ab", "x*", "(?=[A-Z])",
        @"\d", @"\b", "^a", "a$", ".", "[^a]", "(?i:hello|'s)", @"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+",
        @"'(?i:[sdmt]|ll|ve|re)| ?\p{L}+", "(?i:ss)",
        @"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\s+",
        "(?<!a)b", "(?i:k)", "[\u4E00-\u9FA5\u3040-\u309F]+",
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        @"[\p{L}\p{M}]+", " {2,}", @"\A +| +\z", "[[:alpha:]]+", @"\p{Han}+", @"\h", "a++", "[a-z&&[^b]]", @"\p{S}",
        @"\p{Lu}\p{Ll}*", "(a)(b)", "\U0001F600|\U0001F601", @"[^\x00-\x7F]", @"(?s).+", @"(?m).", @"\R", @"\X"];

    private static readonly string[] Literals =
    [
        " ", "  ", "a", "ab", "-", "\u2581", ".", "\n", "\u00e9", "\U0001F600", "e", "A", "''", "\\s"];
    private static readonly string[] Behaviors =
    [
        "Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"];
    private static readonly string[] Alphabet =
    [
        "a", "b", "c", "d", "e", "h", "l", "o", "w", "r", "t", "s", "i", "n", "A", "B", "T", "H", "0", "1", "2", "3",
        ".", ",", "'", "-", "!", "<", ">", "\u2581", "\n", "\t", "\u00e9", "\u0301", "\u00fc", "\u00df", "\u4eac",
        "\u5317", "\u0905", "\u1100", "\u1161", "\uac00", "\u3053", "\U0001F600", "\U00010400", "\u03c3", "\u0130"];

    private readonly List<(string Name, JsonObject Json)> _real = [];
    private static readonly string[] ByteChars = MakeByteChars();

    public TokenizerCases(string shared)
    {
        string folder = Path.Combine(shared, "data", "tokenizers");
        if (!Directory.Exists(folder)) return;
        foreach (
            string file in Directory
                .GetFiles(folder, "tokenizer.json*", SearchOption.AllDirectories)
                .Order(StringComparer.Ordinal)
        )
        {
            using Stream source = file.EndsWith(".gz", StringComparison.Ordinal)
                ? new GZipStream(File.OpenRead(file), CompressionMode.Decompress)
                : File.OpenRead(file);
            _real.Add((Path.GetFileName(Path.GetDirectoryName(file)!), JsonNode.Parse(source)!.AsObject()));
        }
    }

    /// <summary>
    /// The printable characters that byte-level vocabularies write bytes with (GPT-2 encoder.py, bytes_to_unicode).
    /// </summary>
    private static string[] MakeByteChars()
    {
        int extra = 0;
        return Enumerable
            .Range(0, 256)
            .Select(b =>
                ((char)(b is (>= 33 and <= 126) or (>= 161 and <= 172) or >= 174 ? b : 256 + extra++)).ToString()
            )
            .ToArray();
    }

    /// <summary>A tokenizer.json, the letters that its texts should hold, and how many texts it is worth.</summary>
    public (JsonObject Json, List<string> Own, int Texts) Next(Dice dice)
    {
        if (_real.Count > 0 && dice.One(150))
        {
            var (_, json) = dice.From(_real);
            return (
                Changed(dice, json), ["a", "b", "\u00e9", "\u4eac", " ", "1", "\u2581", .. Contents(json).Take(20)],
                1500);
        }
        return Random(dice);
    }

    private static IEnumerable<string> Contents(JsonObject json) =>
        json["added_tokens"]?.AsArray().Select(t => (string)t!["content"]!) ?? [];

    private static JsonObject Item(string type, params (string Key, JsonNode? Value)[] values)
    {
        var o = new JsonObject { ["type"] = type };
        foreach (var (key, value) in values) o[key] = value;
        return o;
    }

    // A real vocabulary, now and then with one part exchanged. The model is shared, so that the file is not copied for
    // nothing.
    private static JsonObject Changed(Dice dice, JsonObject real)
    {
        var json = real.DeepClone().AsObject();
        if (dice.Coin()) return json;
        bool bytes = json["decoder"]!.ToJsonString().Contains("ByteLevel", StringComparison.Ordinal);
        for (int n = dice.Between(1, 2); n > 0; n--)
            switch (dice.To(7))
            {
                case 0: json["normalizer"] = Normalizer(dice, 1); break;
                case 1: json["pre_tokenizer"] = bytes ? BytePre(dice) : Pre(dice, 1); break;
                case 2: json["decoder"] = Decoder(dice, 1, bytes); break;
                case 3: json["model"]!["ignore_merges"] = dice.Coin(); break;
                case 4: json["model"]!["fuse_unk"] = dice.Coin(); break;
                case 5:
                    foreach (var t in json["added_tokens"]!.AsArray())
                        if (dice.One(4)) t![dice.Pick("lstrip", "rstrip", "single_word", "normalized")] = dice.Coin();
                    break;
                default: if (!bytes) json["model"]!["byte_fallback"] = dice.Coin(); break;
            }
        return json;
    }

    private static (JsonObject, List<string>, int) Random(Dice dice)
    {
        bool bytes = dice.Coin();
        var vocab = new Dictionary<string, int>(StringComparer.Ordinal);
        var merges = new List<(string, string)>();
        void Add(string piece) => vocab.TryAdd(piece, vocab.Count);
        if (dice.Coin()) foreach (string s in (string[])["<unk>", "<s>", "</s>"]) if (!dice.One(5)) Add(s);
        bool fallback = !bytes && dice.Coin();
        if (fallback) for (int b = 0; b < 256; b++) if (dice.To(100) > 0 || dice.Coin()) Add($"<0x{b:X2}>");
        List<string> letters;
        if (bytes)
        {
            bool holes = dice.One(6);
            foreach (string c in ByteChars) if (!holes || !dice.One(40)) Add(c);
            letters = Enumerable.Range(0, dice.Between(3, 12)).Select(_ => dice.From(Alphabet)).ToList();
            letters.Add(" ");
        }
        else
        {
            letters = Enumerable.Range(0, dice.Between(2, 25)).Select(_ => dice.From(Alphabet)).ToList();
            if (dice.Coin()) letters.Add("\u2581");
            foreach (string c in letters) Add(c);
            letters.Add(" ");
        }
        var joined = bytes
            ? letters
                .SelectMany(l => Encoding.UTF8.GetBytes(l).Select(b => ByteChars[b]))
                .Where(vocab.ContainsKey)
                .Distinct()
                .ToList()
            : letters.Where(vocab.ContainsKey).Distinct().ToList();
        for (int n = dice.To(40); n > 0 && joined.Count > 0; n--)
        {
            string left = dice.From(joined), right = dice.From(joined);
            if (left.Length + right.Length > 10) continue;
            merges.Add((left, right));
            Add(left + right);
            joined.Add(left + right);
        }
        if (dice.One(8))
            for (int n = dice.To(5); n > 0; n--)
                Add(dice.From(letters) + dice.From(letters) + dice.From(letters));
        var own = letters.Concat(joined.Where(_ => !bytes)).ToList();
        var added = Added(dice, vocab, letters);
        own.AddRange(added.Select(t => (string)t!["content"]!));
        if (own.Count == 0) own.Add("a");
        var json = new JsonObject
        {
            ["version"] = "1.0",
            ["truncation"] = dice.One(10)
                ? Item("", ("direction", "Right"), ("max_length", 4), ("strategy", "LongestFirst"), ("stride", 0))
                : null,
            ["padding"] = dice.One(10)
                ? new JsonObject
                {
                    ["strategy"] = new JsonObject { ["Fixed"] = 8 },
                    ["direction"] = "Right",
                    ["pad_to_multiple_of"] = null,
                    ["pad_id"] = 0,
                    ["pad_type_id"] = 0,
                    ["pad_token"] = "<s>",
                }
                : null,
            ["added_tokens"] = added,
            ["normalizer"] = dice.Coin() ? Normalizer(dice, 2) : null,
            ["pre_tokenizer"] = bytes ? BytePre(dice) : dice.To(3) > 0 ? Pre(dice, 2) : null,
            ["post_processor"] = dice.Coin() ? Post(dice, vocab, added) : null,
            ["decoder"] = dice.One(6) ? null : Decoder(dice, 2, bytes),
            ["model"] = Model(dice, vocab, merges, fallback, joined),
        };
        if (json["truncation"] is JsonObject cut) cut.Remove("type");
        return (json, own, 64);
    }

    private static JsonObject Model(
        Dice dice, Dictionary<string, int> vocab, List<(string Left, string Right)> merges, bool fallback,
        List<string> joined)
    {
        if (dice.One(60)) return OtherModel(dice, vocab);
        var model = new JsonObject
        {
            ["type"] = "BPE",
            ["dropout"] = null,
            ["unk_token"] = dice.Pick<string?>(
                null, vocab.ContainsKey("<unk>") ? "<unk>" : null, vocab.ContainsKey("<unk>") ? "<unk>" : null,
                dice.One(10) ? "<none>" : null, dice.One(4) && joined.Count > 0 ? dice.From(joined) : null),
            ["continuing_subword_prefix"] = dice.One(60) ? "##" : dice.One(4) ? "" : null,
            ["end_of_word_suffix"] = dice.One(60) ? "</w>" : dice.One(4) ? "" : null,
            ["fuse_unk"] = dice.Coin(),
            ["byte_fallback"] = fallback ? !dice.One(4) : dice.One(10),
            ["ignore_merges"] = dice.One(3),
            ["vocab"] = new JsonObject(vocab.Select(p => KeyValuePair.Create(p.Key, (JsonNode?)p.Value))),
        };
        bool pairs = dice.Coin() || merges.Exists(m => m.Left.Contains(' ') || m.Right.Contains(' '));
        model["merges"] = new JsonArray(
            merges.Select(m => pairs ? (JsonNode)new JsonArray(m.Left, m.Right) : $"{m.Left} {m.Right}").ToArray());
        return model;
    }

    private static JsonObject OtherModel(Dice dice, Dictionary<string, int> vocab)
    {
        var pieces = new JsonObject(
            vocab
                .Append(KeyValuePair.Create("[UNK]", vocab.Count))
                .Select(p => KeyValuePair.Create(p.Key, (JsonNode?)p.Value))
        );
        return dice.To(3) switch
        {
            0 => Item("WordLevel", ("vocab", pieces), ("unk_token", "[UNK]")),
            1 => Item(
                "WordPiece", ("unk_token", "[UNK]"), ("continuing_subword_prefix", "##"),
                ("max_input_chars_per_word", 100), ("vocab", pieces)),
            _ => Item(
                "Unigram",
                ("unk_id", 0),
                (
                    "vocab",
                    new JsonArray(
                        vocab.Keys.Prepend("<unk>").Distinct().Select(k => (JsonNode)new JsonArray(k, -1.5)).ToArray())
                ),
                ("byte_fallback", false)
            ),
        };
    }

    // Ids as the library numbers them: that of the vocabulary, or the next free one.
    private static JsonArray Added(Dice dice, Dictionary<string, int> vocab, List<string> letters)
    {
        var list = new JsonArray();
        int next = vocab.Count;
        string[] pool =
        [
            "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<tok>", "tok", "[INST]", "<s", "\n", "  ", "hello",
            "Hello", "\u00fc", "ab", "<0x41>", "'s", "\u2581", "\U0001F600", "The"];
        var seen = new HashSet<string>();
        for (int n = dice.Coin() ? dice.To(6) : 0; n > 0; n--)
        {
            string content = dice.To(4) switch
            {
                0 => string.Concat(Enumerable.Range(0, dice.Between(1, 3)).Select(_ => dice.From(letters))),
                _ => dice.From(pool),
            };
            if (!seen.Add(content)) continue;
            bool special = dice.Coin();
            list.Add(new JsonObject
            {
                ["id"] = vocab.TryGetValue(content, out int known) ? known : next++,
                ["content"] = content,
                ["single_word"] = dice.One(4),
                ["lstrip"] = dice.One(4),
                ["rstrip"] = dice.One(4),
                ["normalized"] = dice.One(5) ? special : !special,
                ["special"] = special,
            });
        }
        return list;
    }

    private static JsonObject Pattern(Dice dice) =>
        dice.Coin()
            ? new JsonObject { ["String"] = dice.From(Literals) }
            : new JsonObject { ["Regex"] = dice.From(Regexes) };

    private static JsonArray Several(Dice dice, Func<JsonObject> make) =>
        new(Enumerable.Range(0, dice.Between(0, 3)).Select(_ => (JsonNode)make()).ToArray());

    private static JsonObject Normalizer(Dice dice, int depth) => dice.To(depth > 0 ? 18 : 14) switch
    {
        0 => Item("NFC"),
        1 => Item("NFD"),
        2 => dice.One(6) ? Item(dice.Pick("NFKC", "NFKD")) : Item("NFC"),
        3 or 4 => Item("Lowercase"),
        5 or 6 => Item("Strip", ("strip_left", dice.Coin()), ("strip_right", dice.Coin())),
        7 => Item("StripAccents"),
        8 or 9 => Item("Prepend", ("prepend", dice.Pick("\u2581", " ", "ab", dice.One(40) ? "" : "a"))),
        10 or 11 or 12 => Item(
            "Replace", ("pattern", Pattern(dice)), ("content", dice.Pick("\u2581", "", "a", "bc", " "))),
        13 => dice.To(4) switch
        {
            0 => Item("Nmt"),
            1 => Item(
                "BertNormalizer", ("clean_text", true), ("handle_chinese_chars", dice.Coin()),
                ("strip_accents", null), ("lowercase", dice.Coin())),
            2 => Item("ByteLevel"),
            _ => Item("Prepend", ("prepend", "\u2581")),
        },
        _ => Item("Sequence", ("normalizers", Several(dice, () => Normalizer(dice, depth - 1)))),
    };

    private static JsonObject Bytes(Dice dice) =>
        Item("ByteLevel", ("add_prefix_space", dice.Coin()), ("trim_offsets", dice.Coin()), ("use_regex", dice.Coin()));

    private static JsonObject BytePre(Dice dice)
    {
        if (dice.Coin()) return Bytes(dice);
        var list = Several(dice, () => Pre(dice, 0));
        list.Add((JsonNode)Bytes(dice));
        if (dice.One(20)) list.Add((JsonNode)Pre(dice, 0));
        return Item("Sequence", ("pretokenizers", list));
    }

    private static JsonObject Pre(Dice dice, int depth) => dice.To(depth > 0 ? 17 : 14) switch
    {
        0 or 1 => Item(
            "Metaspace", ("replacement", dice.Pick("\u2581", "\u2581", "\u2581", "_", "a")),
            ("prepend_scheme", dice.Pick("first", "always", "never")), ("split", dice.Coin())),
        2 or 3 or 4 => Item(
            "Split", ("pattern", Pattern(dice)), ("behavior", dice.From(Behaviors)), ("invert", dice.One(3))),
        5 => Item("Digits", ("individual_digits", dice.Coin())),
        6 => Item("Whitespace"),
        7 => Item("WhitespaceSplit"),
        8 => Item("Punctuation", ("behavior", dice.From(Behaviors))),
        9 => Item("BertPreTokenizer"),
        10 => Item("CharDelimiterSplit", ("delimiter", dice.Pick(" ", "a", "-"))),
        11 => dice.One(8) ? Item("UnicodeScripts") : Item("FixedLength", ("length", dice.Between(1, 5))),
        12 => Item("BertPreTokenizer"),
        13 => Item("Punctuation"),
        _ => Item("Sequence", ("pretokenizers", Several(dice, () => Pre(dice, depth - 1)))),
    };

    private static JsonNode Post(Dice dice, Dictionary<string, int> vocab, JsonArray added, int depth = 1)
    {
        var known = vocab.ToList();
        (string, int) Token() =>
            added.Count > 0 && dice.Coin() && dice.From(added.ToList()) is { } t
                ? ((string)t["content"]!, (int)t["id"]!)
            : dice.From(known) is var p ? (p.Key, p.Value)
            : default;
        switch (dice.To(depth > 0 ? 8 : 6))
        {
            case 0:
                return Item(
                    "ByteLevel", ("add_prefix_space", dice.Coin()), ("trim_offsets", dice.Coin()),
                    ("use_regex", dice.Coin()));
            case 1:
                var (sep, cls) = (Token(), Token());
                return Item(
                    "BertProcessing", ("sep", new JsonArray(sep.Item1, sep.Item2)),
                    ("cls", new JsonArray(cls.Item1, cls.Item2)));
            case 2:
                var (end, open) = (Token(), Token());
                return Item(
                    "RobertaProcessing", ("sep", new JsonArray(end.Item1, end.Item2)),
                    ("cls", new JsonArray(open.Item1, open.Item2)), ("trim_offsets", true),
                    ("add_prefix_space", dice.Coin()));
            case 3 or 4 or 5:
                var special = new JsonObject();
                JsonNode Special()
                {
                    var (text, id) = Token();
                    special[text] = new JsonObject
                    {
                        ["id"] = text,
                        ["ids"] = new JsonArray(id),
                        ["tokens"] = new JsonArray(text),
                    };
                    return new JsonObject { ["SpecialToken"] = new JsonObject { ["id"] = text, ["type_id"] = 0 } };
                }
                JsonNode Sequence(string name) =>
                    new JsonObject
                    {
                        ["Sequence"] = new JsonObject { ["id"] = name, ["type_id"] = 0 },
                    };
                var single = new JsonArray();
                for (int n = dice.To(3); n > 0; n--) single.Add(Special());
                if (!dice.One(200)) single.Add(Sequence("A"));
                if (dice.One(200)) single.Add(Sequence("A"));
                for (int n = dice.To(3); n > 0; n--) single.Add(Special());
                return Item(
                    "TemplateProcessing", ("single", single), ("pair", new JsonArray(Sequence("A"), Sequence("B"))),
                    ("special_tokens", special));
            default:
                return Item(
                    "Sequence",
                    (
                        "processors",
                        new JsonArray(
                            Enumerable.Range(0, dice.To(4)).Select(_ => Post(dice, vocab, added, 0)).ToArray())
                    )
                );
        }
    }

    private static JsonObject Decoder(Dice dice, int depth, bool bytes)
    {
        if (bytes && dice.Coin()) return Bytes(dice);
        return dice.To(depth > 0 ? 14 : 10) switch
        {
            0 => Bytes(dice),
            1 => Item("ByteFallback"),
            2 => Item("Fuse"),
            3 => Item(
                "Strip", ("content", dice.Pick(" ", "a", "\u2581")), ("start", dice.To(3)),
                ("stop", dice.One(200) ? 1 : 0)),
            4 or 5 => Item("Replace", ("pattern", Pattern(dice)), ("content", dice.Pick(" ", "", "a"))),
            6 or 7 => Item(
                "Metaspace", ("replacement", dice.Pick("\u2581", "_")),
                ("prepend_scheme", dice.Pick("first", "always", "never")), ("split", dice.Coin())),
            8 => Item("WordPiece", ("prefix", "##"), ("cleanup", dice.Coin())),
            9 => dice.To(8) > 0
                ? Item("BPEDecoder", ("suffix", dice.Pick("</w>", "a")))
                : Item("CTC", ("pad_token", "<pad>"), ("word_delimiter_token", "|"), ("cleanup", true)),
            _ => Item("Sequence", ("decoders", Several(dice, () => Decoder(dice, depth - 1, bytes)))),
        };
    }

    /// <summary>As one line of text.</summary>
    public static string Write(JsonObject json) => json.ToJsonString(Relaxed);
}
