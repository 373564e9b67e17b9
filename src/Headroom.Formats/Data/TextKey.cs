using System.Buffers;
using System.Buffers.Binary;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Headroom.Formats.Text;

namespace Headroom.Formats.Data;

/// <summary>
/// When two texts count as one: equal but for case and spacing. Case is folded in full (Unicode's CaseFolding.txt, C
/// and F: ß = ss, a final sigma is a sigma), the result is composed (NFC), and runs of white space are one blank, and
/// what is not seen is left out. Marks, symbols and punctuation stay: C++ is not C#, and 5 not -5.
/// </summary>
internal static class TextKey
{
    /// <summary>What <see cref="Compute"/> does not look at, for messages.</summary>
    public const string Ignores = "case and spacing ignored";

    private const string Plain = " abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"()-/<>";
    private static readonly SearchValues<char> Folded = SearchValues.Create(Plain);

    /// <summary>
    /// Folds that the platform's mappings of one character to one do not give: F of CaseFolding.txt, and s and i of ſ
    /// and İ.
    /// </summary>
    /// <remarks>Without those that NFC composes again, such as ǰ; Greek with a iota below is a rule in
    /// <see cref="Iota"/>.</remarks>
    private static readonly Dictionary<int, string> Longer = new()
    {
        [0xDF] = "ss",
        [0x1E9E] = "ss",
        [0x17F] = "s",
        [0x130] = "i\u0307",
        [0x149] = "\u02BCn",
        [0x587] = "\u0565\u0582",
        [0x1E9A] = "a\u02BE",
        [0xFB00] = "ff",
        [0xFB01] = "fi",
        [0xFB02] = "fl",
        [0xFB03] = "ffi",
        [0xFB04] = "ffl",
        [0xFB05] = "st",
        [0xFB06] = "st",
        [0xFB13] = "\u0574\u0576",
        [0xFB14] = "\u0574\u0565",
        [0xFB15] = "\u0574\u056B",
        [0xFB16] = "\u057E\u0576",
        [0xFB17] = "\u0574\u056D",
    };

    private static readonly Dictionary<int, char> IotaBelow = new()
    {
        [0x1FB2] = '\u1F70',
        [0x1FB3] = '\u03B1',
        [0x1FB4] = '\u03AC',
        [0x1FB7] = '\u1FB6',
        [0x1FBC] = '\u03B1',
        [0x1FC2] = '\u1F74',
        [0x1FC3] = '\u03B7',
        [0x1FC4] = '\u03AE',
        [0x1FC7] = '\u1FC6',
        [0x1FCC] = '\u03B7',
        [0x1FF2] = '\u1F7C',
        [0x1FF3] = '\u03C9',
        [0x1FF4] = '\u03CE',
        [0x1FF7] = '\u1FF6',
        [0x1FFC] = '\u03C9',
    };

    /// <summary>The identity of texts that belong together: a hash of each one's <see cref="Fold"/>.</summary>
    public static UInt128 Compute(params ReadOnlySpan<string> texts) => Hash(Fold, texts);

    /// <summary>
    /// The same of letters, digits and marks alone: texts that differ in punctuation and symbols only have one.
    /// </summary>
    public static UInt128 OfLetters(params ReadOnlySpan<string> texts) => Hash(static t => Letters(Fold(t)), texts);

    /// <summary><see cref="Compute"/> and <see cref="OfLetters"/>, for which each text is folded once.</summary>
    public static (UInt128 Full, UInt128 Letters) Both(params ReadOnlySpan<string> texts)
    {
        var folded = new string[texts.Length];
        for (int i = 0; i < texts.Length; i++) folded[i] = Fold(texts[i]);
        return (Hash(static t => t, folded), Hash(Letters, folded));
    }

    /// <summary>
    /// The text with case folded, composed, and with one blank for each run of white space (none at its ends).
    /// </summary>
    public static string Fold(string text)
    {
        string composed = Nfc.Normalize(text);
        if (!composed.AsSpan().ContainsAnyExcept(Folded) && !composed.Contains("  ", StringComparison.Ordinal))
            return composed.Trim(' ');
        var folded = new StringBuilder(composed.Length);
        bool blank = false, ascii = true;
        foreach (var rune in composed.EnumerateRunes())
        {
            if (Rune.IsWhiteSpace(rune))
            {
                blank = folded.Length > 0;
                continue;
            }
            if (IsInvisible(rune.Value)) continue;
            if (blank) folded.Append(' ');
            blank = false;
            if (rune.IsAscii)
                folded.Append((char)(char.IsAsciiLetterUpper((char)rune.Value) ? rune.Value | 0x20 : rune.Value));
            else
            {
                ascii = false;
                Append(folded, rune);
            }
        }
        return ascii ? folded.ToString() : Nfc.Normalize(folded.ToString());
    }

    /// <summary>
    /// Characters that are not seen and do not change those beside them: soft hyphen, zero-width space, word joiner,
    /// byte order mark, and the selectors of a variant (a heart in colour or not). Joiners stay: they make other
    /// letters.
    /// </summary>
    private static bool IsInvisible(int c) =>
        c is 0xAD or 0x200B or 0x2060 or 0xFEFF or (>= 0xFE00 and <= 0xFE0F) or (>= 0xE0100 and <= 0xE01EF);

    private static void Append(StringBuilder to, Rune rune)
    {
        if (Longer.TryGetValue(rune.Value, out string? fold)) to.Append(fold);
        else if (Iota(rune.Value) is { } letter) to.Append(letter).Append('\u03B9');
        else
        {
            Span<char> units = stackalloc char[2];
            // By way of the capital: σ and ς have one, and so do µ (the sign) and μ.
            int count = Rune.ToLowerInvariant(Rune.ToUpperInvariant(rune)).EncodeToUtf16(units);
            to.Append(units[..count]);
        }
    }

    /// <summary>
    /// The letter above a iota subscript, small: ᾀ to ᾯ lie in three rows of sixteen, capitals second.
    /// </summary>
    private static char? Iota(int c) =>
        c is >= 0x1F80 and < 0x1FB0
            ? (char)(
                (
                    (c >> 4) switch
                    {
                        0x1F8 => 0x1F00,
                        0x1F9 => 0x1F20,
                        _ => 0x1F60,
                    }
                ) + (c & 7)
            )
        : IotaBelow.TryGetValue(c, out char letter) ? letter
        : null;

    private static string Letters(string folded)
    {
        var kept = new StringBuilder(folded.Length);
        foreach (var rune in folded.EnumerateRunes())
            if (
                Rune.IsLetterOrDigit(rune)
                || Rune.GetUnicodeCategory(rune)
                    is UnicodeCategory.NonSpacingMark
                        or UnicodeCategory.SpacingCombiningMark
            )
                kept.Append(rune.ToString());
        return kept.Length == 0 ? folded : kept.ToString(); // signs alone are their own text
    }

    private static UInt128 Hash(Func<string, string> form, ReadOnlySpan<string> texts)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (string text in texts)
        {
            hash.AppendData(Encoding.UTF8.GetBytes(form(text)));
            if (texts.Length > 1) hash.AppendData([0xFF]); // no byte of UTF-8: where one text ends
        }
        Span<byte> bytes = stackalloc byte[32];
        hash.GetHashAndReset(bytes);
        return BinaryPrimitives.ReadUInt128LittleEndian(bytes);
    }
}
