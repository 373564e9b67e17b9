using System.Globalization;
using System.Text;

namespace Headroom.Core;

/// <summary>
/// Text of others (labels, keys, file names, templates, replies of servers) made fit for a terminal and a log:
/// characters that steer a terminal or turn the direction of writing are spelled out as escapes, such as \u001b, so
/// that what is shown is what is there.
/// </summary>
internal static class Printable
{
    private const string Cut = " ... ";

    /// <summary>One line: breaks and tabs become blanks, other controls escapes.</summary>
    public static string Line(string text) => Clean(text, lines: false);

    /// <summary>Lines: line feeds and tabs stay, other controls (carriage returns too) become escapes.</summary>
    public static string Lines(string text) => Clean(text, lines: true);

    /// <summary>
    /// A line of so many UTF-8 bytes at most: a longer one loses its middle, so that what is wrong and how the sentence
    /// ends both stay.
    /// </summary>
    public static string Message(string text, int mostBytes)
    {
        text = Line(text);
        if (Encoding.UTF8.GetByteCount(text) <= mostBytes) return text;
        int room = mostBytes - Cut.Length, head = 0, tail = text.Length;
        for (int bytes = 0; (bytes += Bytes(text, head)) <= room * 3 / 4;) head += Step(text, head);
        for (int bytes = 0; tail > head; tail -= Step(text, tail - 1))
            if ((bytes += Bytes(text, tail - 1)) > room / 4) break;
        return text[..head] + Cut + text[tail..];
    }

    /// <summary>Whether a character steers a terminal, turns the direction of writing, or is half of a pair.</summary>
    public static bool IsControl(Rune c) =>
        Rune.IsControl(c)
        || c.Value is 0x2028 or 0x2029 or (>= 0x202A and <= 0x202E) or (>= 0x2066 and <= 0x2069) or 0xFEFF;

    /// <summary>
    /// Whether a character shows as itself: Python's <c>str.isprintable</c>, which leaves out controls, marks of
    /// format, what is not assigned, and every blank but the plain one.
    /// </summary>
    public static bool IsPrintable(Rune c) =>
        c.Value == ' '
        || Rune.GetUnicodeCategory(c)
            is not (
                UnicodeCategory.Control
                or UnicodeCategory.Format
                or UnicodeCategory.Surrogate
                or UnicodeCategory.PrivateUse
                or UnicodeCategory.OtherNotAssigned
                or UnicodeCategory.LineSeparator
                or UnicodeCategory.ParagraphSeparator
                or UnicodeCategory.SpaceSeparator
            );

    private static string Clean(string text, bool lines)
    {
        if (!NeedsCleaning(text)) return text;
        var clean = new StringBuilder(text.Length + 16);
        for (int i = 0; i < text.Length;)
        {
            if (!Rune.TryGetRuneAt(text, i, out var rune)) Escape(clean, text[i++]);
            else
            {
                i += rune.Utf16SequenceLength;
                if (!IsControl(rune)) clean.Append(rune.ToString());
                else if (lines && rune.Value is '\n' or '\t') clean.Append((char)rune.Value);
                else if (lines || rune.Value is not ('\n' or '\r' or '\t')) Escape(clean, (char)rune.Value);
                else if (clean.Length > 0 && clean[^1] != ' ') clean.Append(' '); // a break in the middle of a sentence
            }
        }
        return clean.ToString();
    }

    private static bool NeedsCleaning(string text)
    {
        foreach (var rune in text.EnumerateRunes())
            if (IsControl(rune) || rune == Rune.ReplacementChar) return true; // which also stands for half a pair
        return false;
    }

    private static void Escape(StringBuilder clean, char c) =>
        clean.Append("\\u").Append(((int)c).ToString("x4", CultureInfo.InvariantCulture));

    // A pair of surrogates is one step of four bytes, seen from either end.
    private static bool InPair(string text, int at) => char.IsSurrogate(text[at]);

    private static int Step(string text, int at) => InPair(text, at) ? 2 : 1;

    private static int Bytes(string text, int at) =>
        InPair(text, at) ? 4
        : text[at] < 0x80 ? 1
        : text[at] < 0x800 ? 2
        : 3;
}
