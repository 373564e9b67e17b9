using System.IO.Compression;
using System.Text;
using System.Text.Json;

namespace Headroom.Fuzz;

/// <summary>Random texts: letters of the world, marks, blanks, controls, emoji, long repeats, and mutated pieces of
/// real texts. Characters are those of Unicode 8 or earlier: the peers' tables are of different ages.</summary>
internal sealed class Texts
{
    private static readonly (int Low, int High)[] Blocks =
    [
        (0x20, 0x7E), (0x20, 0x7E), (0x20, 0x7E), (0x61, 0x7A), (0x61, 0x65), (0x41, 0x5A), (0x30, 0x39), (0xA0, 0xFF),
        (0x100, 0x17F), (0x1C4, 0x1CC), (0x250, 0x2AF), (0x300, 0x36F), (0x391, 0x3A1), (0x3A3, 0x3FF), (0x400, 0x4FF),
        (0x5D0, 0x5EA), (0x621, 0x652), (0x660, 0x669), (0x905, 0x939), (0x93C, 0x94D), (0x958, 0x96F), (0xE01, 0xE3A),
        (0xE40, 0xE5B), (0xF40, 0xF47), (0xF71, 0xF84), (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x1F00, 0x1F15),
        (0x2000, 0x200A), (0x200B, 0x200F), (0x2010, 0x2027), (0x2028, 0x202F), (0x2030, 0x205E), (0x2070, 0x2071),
        (0x2074, 0x208E), (0x20A0, 0x20B9), (0x20D0, 0x20F0), (0x2100, 0x218A), (0x2190, 0x23F3), (0x2460, 0x24FF),
        (0x2581, 0x2581), (0x25A0, 0x26FF), (0x2C60, 0x2C7F), (0x3000, 0x303F), (0x3041, 0x3096), (0x3099, 0x30FF),
        (0x3105, 0x312D), (0x3131, 0x318E), (0x4E00, 0x4EFF), (0x9FA0, 0x9FA5), (0xAC00, 0xACFF), (0xD7A0, 0xD7A3),
        (0xE000, 0xE010), (0xF900, 0xF91F), (0xFB00, 0xFB06), (0xFB1D, 0xFB36), (0xFE00, 0xFE0F), (0xFE20, 0xFE23),
        (0xFF01, 0xFF5E), (0xFFFC, 0xFFFD), (0xFEFF, 0xFEFF), (0x10300, 0x1031E), (0x10400, 0x1044F),
        (0x1D165, 0x1D172), (0x1D400, 0x1D454), (0x1D7CE, 0x1D7FF), (0x1F130, 0x1F149), (0x1F300, 0x1F320),
        (0x1F3FB, 0x1F3FF), (0x1F600, 0x1F640),
        (0x20000, 0x2001F), (0x2F800, 0x2F80F), (0xE0100, 0xE0105), (0xF0000, 0xF0003), (0x100000, 0x100003)];

    private static readonly string[] Bits =
    [
        "", " ", "  ", "    ", "\n", "\n\n", "\r\n", "\r", "\t", "\u000b", "\u000c", "\u0085", "\u00a0", "\u3000",
        "\u2028", "\u200b", "\u200d", "\u0000", "\u0001", "\u001c", "\u001f", "\u007f", "'s", "'S", "'\u017f", "'ll",
        "'LL", "'re", "'ve", "I'm", "don't", "a", "ab", "abc", "aaaa", "hello", "Hello", " world", "The", " the", "1",
        "12", "123", "1234", "3.14", "-", "--", "_", "__", ".", ",", "!", "?", "...", "!?", "(", ")", "[", "]", "{",
        "}", "<", ">", "/", "\\", "\"", "'", "`", "~", "@", "#", "$", "%", "^", "&", "*", "+", "=", "|", ":", ";",
        "\u2581", "\u2581\u2581", "\u2581a", "\u0130", "\u0131", "\u00df", "\u03a3", "\u03c2", "\u01c5", "\ufb03",
        "\u212b", "\u1e9b\u0323", "e\u0301", "\u00e9", "n\u0303", "a\u0323\u0302", "\u1100\u1161\u11a8", "\u0958",
        "\u0e33", "\U0001F469\u200D\U0001F469\u200D\U0001F467", "\U0001F44D\U0001F3FD", "\u2764\ufe0f", "\U0001F600",
        "\U00010400", "\U0001D400", "\u5317\u4eac", "\u3053\u3093\u306b\u3061\u306f", "\uc548\ub155",
        "\u041f\u0440\u0438\u0432\u0435\u0442", "\u0645\u0631\u062d\u0628\u0627", "<s>", "</s>", "<unk>",
        "<|im_start|>", "<|im_end|>", "<|end|>", "[INST]", "<0x41>", "<0x0A>", "<tok>", "tok", "\u00fc", "\u0120"];

    private readonly List<string> _real = [];

    /// <param name="shared">Where real texts lie; without them the texts are random only.</param>
    public Texts(string shared)
    {
        foreach (string file in Find(Path.Combine(shared, "data"), "golden.inp"))
            _real.AddRange(File.ReadAllText(file).Split("\n__ggml_vocab_test__\n"));
        foreach (string file in Find(Path.Combine(shared, "data"), "imdb-5k.jsonl.gz"))
        {
            using var reader = new StreamReader(new GZipStream(File.OpenRead(file), CompressionMode.Decompress));
            for (int i = 0; i < 500 && reader.ReadLine() is { } line; i++)
                if (JsonDocument.Parse(line).RootElement.TryGetProperty("text", out var text))
                    _real.Add(text.GetString()!);
        }
        foreach (string file in Find(Path.Combine(shared, "data"), "rt-polarity.*"))
            _real.AddRange(File.ReadLines(file, Encoding.Latin1).Take(200));
    }

    private static string[] Find(string folder, string pattern) =>
        Directory.Exists(folder)
            ? Directory.GetFiles(folder, pattern, SearchOption.AllDirectories).Order(StringComparer.Ordinal).ToArray()
            : [];

    /// <summary>One character.</summary>
    public static string Character(Dice dice)
    {
        var (low, high) = dice.From(Blocks);
        return char.ConvertFromUtf32(dice.Between(low, high));
    }

    /// <summary>A text; letters of own come often.</summary>
    public string Next(Dice dice, IReadOnlyList<string> own)
    {
        var text = new StringBuilder();
        switch (dice.To(10))
        {
            case 0: return "";
            case 1 when _real.Count > 0: return Mutated(dice, Slice(dice, dice.From(_real)));
            case 2 when _real.Count > 0: return Slice(dice, dice.From(_real));
            case 3:
                string bit = dice.Coin() ? dice.From(Bits) : dice.From(own);
                for (int n = dice.Between(1, dice.One(20) ? 400 : 70); n > 0; n--) text.Append(bit);
                return text.ToString();
            case 4 or 5 or 6:
                for (int n = dice.Between(1, 24); n > 0; n--)
                    text.Append(dice.One(8) ? dice.From(Bits) : dice.From(own));
                return text.ToString();
            default:
                for (int n = dice.Between(1, 12); n > 0; n--)
                    text.Append(
                        dice.To(4) switch
                        {
                            0 => dice.From(own),
                            1 => Character(dice),
                            _ => dice.From(Bits),
                        }
                    );
                return text.ToString();
        }
    }

    private static string Slice(Dice dice, string text)
    {
        if (text.Length == 0) return text;
        int from = dice.To(text.Length), length = Math.Min(text.Length - from, dice.Between(1, 120));
        return Whole(text.Substring(from, length));
    }

    private static string Mutated(Dice dice, string text)
    {
        var runes = text.EnumerateRunes().Select(r => r.ToString()).ToList();
        for (int n = dice.Between(1, 4); n > 0; n--)
        {
            int at = dice.To(runes.Count + 1);
            if (at < runes.Count && dice.Coin()) runes.RemoveAt(at);
            else runes.Insert(at, dice.Coin() ? dice.From(Bits) : Character(dice));
        }
        return string.Concat(runes);
    }

    /// <summary>Without halves of surrogate pairs, which no other side can be sent.</summary>
    public static string Whole(string text)
    {
        var whole = new StringBuilder(text.Length);
        foreach (var rune in text.EnumerateRunes()) whole.Append(rune.ToString());
        return whole.ToString();
    }
}
