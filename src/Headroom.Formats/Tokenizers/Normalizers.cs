using System.Globalization;
using System.Text;

namespace Headroom.Formats.Tokenizers;

/// <summary>The normalizers that vocabularies of this family ask for.</summary>
internal static class Normalizers
{
    public static Func<string, string> Prepend(string prefix) => s => s.Length == 0 ? s : prefix + s;

    public static Func<string, string> Replace(string from, string to) => s => s.Replace(from, to, StringComparison.Ordinal);

    public static Func<string, string> Replace(Matcher from, string to) => s => from.Replace(s, to);

    public static Func<string, string> Strip(bool left, bool right) => s => left && right ? s.Trim() : left ? s.TrimStart() : right ? s.TrimEnd() : s;

    /// <summary>Each character by itself (no final sigma); one of them becomes two (Unicode SpecialCasing.txt).</summary>
    public static string Lower(string s) => s.ToLowerInvariant().Replace("\u0130", "i\u0307", StringComparison.Ordinal);

    /// <summary>Without combining marks.</summary>
    public static string StripAccents(string s)
    {
        if (s.AsSpan().IndexOfAnyExceptInRange('\0', '\u02FF') < 0) return s;
        var sb = new StringBuilder(s.Length);
        foreach (var rune in s.EnumerateRunes())
            if (Rune.GetUnicodeCategory(rune) is not (UnicodeCategory.NonSpacingMark or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.EnclosingMark)) sb.Append(rune.ToString());
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
            foreach (var step in steps) s = step(s);
            return s;
        };
    }
}
