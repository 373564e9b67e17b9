using System.Globalization;
using System.Text;
using Headroom.Core;

namespace Headroom.Tokenizers;

/// <summary>The normalizers that vocabularies of this family ask for.</summary>
internal static class Normalizers
{
    public static Func<string, string> Prepend(string prefix) => s => s.Length == 0 ? s : prefix + s;

    // A vocabulary writes a blank as a mark, or a quote as two; a text of line ends may become ten times as long. What
    // asks for more, step upon step, makes gigabytes of a word.
    private const int MostGrowth = 32, AlwaysAllowed = 1 << 16;

    public static Func<string, string> Replace(string from, string to) => s =>
    {
        if (to.Length > from.Length)
            Bound(s.Length, s.Length + (long)s.AsSpan().Count(from) * (to.Length - from.Length));
        return s.Replace(from, to, StringComparison.Ordinal);
    };

    /// <summary>What the matcher finds, exchanged for a text.</summary>
    /// <exception cref="HeadroomException">A match is empty where that is not allowed; thrown by the
    /// function.</exception>
    public static Func<string, string> Replace(Matcher from, string to, bool emptyAllowed = true) =>
        s => from.Replace(s, to, emptyAllowed);

    /// <summary>Throws when so many characters cannot have come of so few.</summary>
    /// <exception cref="HeadroomException">The tokenizer's replacements grow without bound.</exception>
    public static void Bound(long given, long length)
    {
        if (length <= given * MostGrowth + AlwaysAllowed) return;
        throw new HeadroomException(
            string.Create(
                CultureInfo.InvariantCulture, $"The tokenizer's replacements make {length:N0} characters of {given:N0}."
            ),
            "Its normalizer or decoder is not that of a model; use the model's own tokenizer file.");
    }

    public static Func<string, string> Strip(bool left, bool right) =>
        s =>
            left && right ? s.Trim()
            : left ? s.TrimStart()
            : right ? s.TrimEnd()
            : s;

    /// <summary>
    /// Each character by itself (no final sigma); one of them becomes two (Unicode SpecialCasing.txt).
    /// </summary>
    public static string Lower(string s) => s.ToLowerInvariant().Replace("\u0130", "i\u0307", StringComparison.Ordinal);

    /// <summary>Without combining marks.</summary>
    public static string StripAccents(string s)
    {
        if (s.AsSpan().IndexOfAnyExceptInRange('\0', '\u02FF') < 0) return s;
        var sb = new StringBuilder(s.Length);
        foreach (var rune in s.EnumerateRunes())
            if (
                Rune.GetUnicodeCategory(rune)
                is not (
                    UnicodeCategory.NonSpacingMark
                    or UnicodeCategory.SpacingCombiningMark
                    or UnicodeCategory.EnclosingMark
                )
            )
                sb.Append(rune.ToString());
        return sb.ToString();
    }

    /// <summary>Blanks at both ends go, runs of blanks become one.</summary>
    public static string OneSpace(string s)
    {
        if (!s.StartsWith(' ') && !s.EndsWith(' ') && !s.Contains("  ", StringComparison.Ordinal)) return s;
        var sb = new StringBuilder(s.Length);
        foreach (char c in s) if (c != ' ' || (sb.Length > 0 && sb[^1] != ' ')) sb.Append(c);
        if (sb.Length > 0 && sb[^1] == ' ') sb.Length--;
        return sb.ToString();
    }

    public static Func<string, string>? Chain(IReadOnlyList<Func<string, string>> steps)
    {
        if (steps.Count <= 1) return steps.Count == 0 ? null : steps[0];
        return s =>
        {
            long given = s.Length;
            foreach (var step in steps)
            {
                s = step(s);
                Bound(given, s.Length);
            }
            return s;
        };
    }
}
