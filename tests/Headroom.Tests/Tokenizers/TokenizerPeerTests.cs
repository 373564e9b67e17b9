using System.Text;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Tokenizers;

namespace Headroom.Tests.Tokenizers;

/// <summary>
/// Differences from Hugging Face's library (tokenizers 0.23.2) that eng/fuzz found, or members of their kinds: the ids
/// and texts that it gives, or what is refused by name.
/// </summary>
public sealed class TokenizerPeerTests
{
    private static readonly string[] Pieces =
    [
        "<unk>", "\u2581", "a", "b", "c", "\u00E9", " ", "-", "1", "ab", "abc", "\u2581a", "\n", "A", "x", "aa",
        "\u2581\u2581"];

    /// <summary>A small vocabulary with the given parts; of the model the keys given, and "more" pieces.</summary>
    private static BpeTokenizer Load(string parts)
    {
        var root = JsonNode.Parse(parts)!.AsObject();
        var given = root["model"]?.AsObject() ?? [];
        var vocab = new JsonObject(Pieces.Select((p, i) => KeyValuePair.Create(p, (JsonNode?)i)));
        foreach (var (piece, id) in given["more"]?.AsObject() ?? []) vocab[piece] = id!.DeepClone();
        var model = new JsonObject
        {
            ["type"] = "BPE",
            ["unk_token"] = "<unk>",
            ["vocab"] = vocab,
            ["merges"] = JsonNode.Parse("""[["a","b"],["ab","c"],["\u2581","a"],["a","a"],["\u2581","\u2581"]]"""),
        };
        foreach (var (key, value) in given) if (key != "more") model[key] = value?.DeepClone();
        root["model"] = model;
        return TokenizerLoader.FromBytes(Encoding.UTF8.GetBytes(root.ToJsonString()));
    }

    [Theory]
    // merges that stand twice count by the last
    [InlineData("{\"model\":{\"merges\":[[\"a\",\"b\"],[\"ab\",\"c\"],[\"a\",\"a\"],[\"a\",\"b\"]]}}",
        "aab", "15 3", "15 3", "aa b")]
    // a character left out joins its neighbours
    [InlineData("{\"model\":{\"unk_token\":null}}",
        "\u2581q\u2581a", "1 11", "1 11", "\u2581 \u2581a")]
    // bytes do not end a run of unknowns
    [InlineData("{\"model\":{\"byte_fallback\":true,\"more\":{\"<0xC3>\":17,\"<0xA8>\":18}}}",
        "q\u00E8z", "17 18 0 0", "17 18 0 0", "<0xC3> <0xA8> <unk> <unk>")]
    // unknowns fuse over bytes
    [InlineData("{\"model\":{\"fuse_unk\":true,\"byte_fallback\":true,\"more\":{\"<0xC3>\":17,\"<0xA8>\":18}}}",
        "q\u00E8za", "17 18 0 2", "17 18 0 2", "<0xC3> <0xA8> <unk> a")]
    // a whole text that is a piece
    [InlineData("{\"model\":{\"ignore_merges\":true,\"more\":{\"b\u2581a\":17}}}",
        "b\u2581a", "17", "17", "b\u2581a")]
    // empty matches cut
    [InlineData(
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?=b)\"},\"behavior\":\"Isolated\","
            + "\"invert\":false}}",
        "aab", "15 3", "15 3", "aa b")]
    // contiguous
    [InlineData(
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Contiguous\","
            + "\"invert\":false}}",
        "aaabb", "15 2 3 3", "15 2 3 3", "aa a b b")]
    // merged with previous
    [InlineData(
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"-\"},\"behavior\":\"MergedWithPrevious\","
            + "\"invert\":false}}",
        "a--b-c", "2 7 7 3 7 4", "2 7 7 3 7 4", "a - - b - c")]
    // merged with next, inverted
    [InlineData(
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a-b]+\"},\"behavior\":\"MergedWithNext\","
            + "\"invert\":true}}",
        "1ab--c", "8 9 7 7 4", "8 9 7 7 4", "1 ab - - c")]
    // word characters are marks and fractions too
    [InlineData(
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\w+\"},\"behavior\":\"Removed\","
            + "\"invert\":false}}",
        "a\u00BD-\u00B2\u00E9\u0301b-", "7 7", "7 7", "- -")]
    // word boundary
    [InlineData("{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\b\"},\"content\":\"-\"}}",
        "a b", "7 2 7 6 7 3 7", "7 2 7 6 7 3 7", "- a -   - b -")]
    // the long s is an s
    [InlineData(
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"'(?:[dm]|ll|(?i:s))\"},"
            + "\"behavior\":\"Removed\",\"invert\":false}}",
        "a'\u017Fb'Sc", "2 3 4", "2 3 4", "a b c")]
    // Whitespace takes circled letters for words
    [InlineData("{\"pre_tokenizer\":{\"type\":\"Whitespace\"}}",
        "a\u24B6b\u200Dc - a", "2 0 3 0 4 7 2", "2 0 3 0 4 7 2", "a <unk> b <unk> c - a")]
    // BertPreTokenizer
    [InlineData("{\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}}",
        "ab-c a", "9 7 4 2", "9 7 4 2", "ab - c a")]
    // FixedLength
    [InlineData("{\"pre_tokenizer\":{\"type\":\"FixedLength\",\"length\":2}}",
        "abcaa\uD83D\uDE00b", "9 4 2 2 0 3", "9 4 2 2 0 3", "ab c a a <unk> b")]
    // CharDelimiterSplit
    [InlineData("{\"pre_tokenizer\":{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"-\"}}",
        "a-b-c", "2 3 4", "2 3 4", "a b c")]
    // Metaspace first behind a split
    [InlineData(
        "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},"
            + "{\"type\":\"Metaspace\",\"replacement\":\"\u2581\",\"prepend_scheme\":\"first\",\"split\":true}]}}",
        " a a", "2 2", "2 2", "a a")]
    // NFD
    [InlineData("{\"normalizer\":{\"type\":\"NFD\"}}",
        "\u00E9", "0 0", "0 0", "<unk> <unk>")]
    // StripAccents
    [InlineData(
        "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFD\"},{\"type\":\"StripAccents\"}]},"
            + "\"model\":{\"more\":{\"e\":17}}}",
        "\u00E9a", "17 2", "17 2", "e a")]
    // Lowercase of the dotted I
    [InlineData("{\"normalizer\":{\"type\":\"Lowercase\"},\"model\":{\"more\":{\"i\":17,\"\u0307\":18}}}",
        "\u0130A", "17 18 2", "17 18 2", "i \u0307 a")]
    // Replace by an expression, above U+FFFF
    [InlineData("{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"[^a-c]\"},\"content\":\"-\"}}",
        "a\uD83D\uDE00b", "2 7 3", "2 7 3", "a - b")]
    // a token in the blanks that another takes
    [InlineData(
        "{\"added_tokens\":[{\"id\":17,\"content\":\"<t>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":true,"
            + "\"normalized\":false,\"special\":false},{\"id\":12,\"content\":\"\\n\",\"single_word\":false,"
            + "\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":false}]}",
        "a<t> \nb", "2 17 12 3", "2 17 12 3", "a <t> \n b")]
    // a token of blanks alone is found once
    [InlineData(
        "{\"added_tokens\":[{\"id\":12,\"content\":\"\\n\",\"single_word\":false,\"lstrip\":true,\"rstrip\":true,"
            + "\"normalized\":false,\"special\":false}]}",
        "a\n\nb", "2 12 3", "2 12 3", "a \n b")]
    // single word beside a mark
    [InlineData(
        "{\"added_tokens\":[{\"id\":9,\"content\":\"ab\",\"single_word\":true,\"lstrip\":false,\"rstrip\":false,"
            + "\"normalized\":false,\"special\":false}]}",
        "ab ab\u0301 \u200Dab -ab", "9 6 9 0 6 0 9 6 7 9", "9 6 9 0 6 0 9 6 7 9", "ab   ab <unk>   <unk> ab   - ab")]
    // processors
    [InlineData(
        "{\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
            + "\"trim_offsets\":true,\"use_regex\":true},{\"type\":\"TemplateProcessing\","
            + "\"single\":[{\"SpecialToken\":{\"id\":\"A\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\","
            + "\"type_id\":0}},{\"SpecialToken\":{\"id\":\"x\",\"type_id\":0}}],\"pair\":[{\"Sequence\":{\"id\":\"A\","
            + "\"type_id\":0}},{\"Sequence\":{\"id\":\"B\",\"type_id\":0}}],\"special_tokens\":{\"A\":{\"id\":\"A\","
            + "\"ids\":[13],\"tokens\":[\"A\"]},\"x\":{\"id\":\"x\",\"ids\":[14],\"tokens\":[\"x\"]}}}]}}",
        "ab", "13 9 14", "13 9 14", "A ab x")]
    // no decoder: blanks between pieces
    [InlineData("{}",
        "ab\u00E9", "9 5", "9 5", "ab \u00E9")]
    // Metaspace decoder: the first piece loses its marks
    [InlineData(
        "{\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"\u2581\",\"prepend_scheme\":\"always\","
            + "\"split\":true}}",
        "\u2581\u2581\u2581a", "16 11", "16 11", " a")]
    // bytes that are no UTF-8
    [InlineData(
        "{\"decoder\":{\"type\":\"ByteFallback\"},\"model\":{\"byte_fallback\":true,\"more\":{\"<0xC3>\":17,"
            + "\"<0xA8>\":18,\"<0xE4>\":19}}}",
        "a\u00E8b", "2 17 18 3", "2 17 19 3", "a\uFFFD\uFFFDb")]
    // a decoder behind ByteLevel
    [InlineData(
        "{\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
            + "\"trim_offsets\":true,\"use_regex\":true},{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},"
            + "\"content\":\"-\"}]}}",
        "ab", "9", "9", "-b")]
    // WordPiece decoder
    [InlineData("{\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"\u2581\",\"cleanup\":true}}",
        "a\u2581ab-", "2 1 9 7", "2 1 9 7", "a ab -")]
    // BPEDecoder
    [InlineData("{\"decoder\":{\"type\":\"BPEDecoder\",\"suffix\":\"-\"}}",
        "a-b-", "2 7 3 7", "2 7 3 7", "a b")]
    // Strip decoder
    [InlineData("{\"decoder\":{\"type\":\"Strip\",\"content\":\"a\",\"start\":1,\"stop\":0}}",
        "aab", "2 9", "2 9", "b")]
    // a normalized added token is decoded as it is spelled then
    [InlineData(
        "{\"added_tokens\":[{\"id\":17,\"content\":\"tok\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
            + "\"normalized\":true,\"special\":false}],\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"\u2581\"},"
            + "\"decoder\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\u2581\"},\"content\":\" \"}}",
        "tok", "17", "17", " tok")]
    public void AsThere(string parts, string text, string ids, string decoded, string back)
    {
        var tokenizer = Load(parts);
        Assert.Equal(ids, string.Join(' ', tokenizer.Encode(text, true)));
        Assert.Equal(back, tokenizer.Decode(decoded.Split(' ').Select(int.Parse).ToArray()));
    }

    [Theory]
    [InlineData("{\"normalizer\":{\"type\":\"NFKC\"}}", "NFKC")]
    [InlineData("{\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}}", "UnicodeScripts")]
    [InlineData("{\"decoder\":{\"type\":\"CTC\"}}", "CTC")]
    [InlineData(
        "{\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\"}}", "Prepend"
    )]
    [InlineData("{\"post_processor\":{\"type\":\"Unheard\"}}", "Unheard")]
    [InlineData("{\"model\":{\"end_of_word_suffix\":\"</w>\"}}", "end_of_word_suffix")]
    [InlineData(
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[[:alpha:]]+\"},\"behavior\":\"Isolated\","
            + "\"invert\":false}}",
        "[[:alpha:]]+")]
    [InlineData(
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a-z&&[^b]]\"},\"behavior\":\"Isolated\","
            + "\"invert\":false}}",
        "[a-z&&[^b]]")]
    [InlineData(
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?m).\"},\"behavior\":\"Isolated\","
            + "\"invert\":false}}",
        "(?m).")]
    [InlineData(
        "{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"},"
            + "\"normalizer\":{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":false}}",
        "prepend_scheme first")]
    [InlineData(
        "{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[],\"pair\":[],\"special_tokens\":{}}}",
        "the text once")]
    [InlineData("{\"added_tokens\":[{\"id\":30,\"content\":\"<t>\"}]}", "has the id 30, where its place is 17")]
    [InlineData(
        "{\"added_tokens\":[{\"id\":17,\"content\":\"<T>\",\"normalized\":true},{\"id\":18,\"content\":\"<t>\","
            + "\"normalized\":true}],\"normalizer\":{\"type\":\"Lowercase\"}}",
        "the same as another")]
    [InlineData("{\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"x\",14],\"cls\":[\"y\",99]}}", "99")]
    public void RefusedByName(string parts, string says) =>
        Assert.Contains(says, Assert.Throws<HeadroomException>(() => Load(parts)).Message);

    [Fact]
    public void AnEmptyMatchBeforeBytesIsRefused()
    {
        var tokenizer = Load(
            "{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(?=[A-Z])\"},\"content\":\"-\"},"
            + "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}}");
        Assert.Equal([10], tokenizer.Encode("abc"));
        Assert.Contains(
            "before a byte-level step", Assert.Throws<HeadroomException>(() => tokenizer.Encode("aA")).Message);
    }

    [Fact]
    public void AnUnknownTokenThatIsNoPieceFailsWhereItIsNeeded()
    {
        var tokenizer = Load("{\"model\":{\"unk_token\":\"<none>\"}}");
        Assert.Equal([10], tokenizer.Encode("abc"));
        Assert.Contains("unk_token", Assert.Throws<HeadroomException>(() => tokenizer.Encode("abcz")).Message);
    }
}
