using System.Globalization;
using System.Text;

namespace Headroom.Tokenizers.Chat;

/// <summary>
/// What Python's strings know of Unicode beyond .NET's one-to-one casing (Unicode SpecialCasing.txt,
/// DerivedCoreProperties.txt).
/// </summary>
internal static class PyText
{
    // Upper case of what becomes more than one character, or what .NET leaves.
    private const string UpperForms = """
        DF=53+53 131=49 149=2BC+4E 17F=53 19B=19B 1F0=4A+30C 264=264 390=399+308+301 3B0=3A5+308+301 587=535+552 1E96=48+331 1E97=54+308 1E98=57+30A 1E99=59+30A 1E9A=41+2BE 1F50=3A5+313 1F52=3A5+313+300
        1F54=3A5+313+301 1F56=3A5+313+342 1F80=1F08+399 1F81=1F09+399 1F82=1F0A+399 1F83=1F0B+399 1F84=1F0C+399 1F85=1F0D+399 1F86=1F0E+399 1F87=1F0F+399 1F88=1F08+399 1F89=1F09+399 1F8A=1F0A+399 1F8B=1F0B+399
        1F8C=1F0C+399 1F8D=1F0D+399 1F8E=1F0E+399 1F8F=1F0F+399 1F90=1F28+399 1F91=1F29+399 1F92=1F2A+399 1F93=1F2B+399 1F94=1F2C+399 1F95=1F2D+399 1F96=1F2E+399 1F97=1F2F+399 1F98=1F28+399 1F99=1F29+399
        1F9A=1F2A+399 1F9B=1F2B+399 1F9C=1F2C+399 1F9D=1F2D+399 1F9E=1F2E+399 1F9F=1F2F+399 1FA0=1F68+399 1FA1=1F69+399 1FA2=1F6A+399 1FA3=1F6B+399 1FA4=1F6C+399 1FA5=1F6D+399 1FA6=1F6E+399 1FA7=1F6F+399
        1FA8=1F68+399 1FA9=1F69+399 1FAA=1F6A+399 1FAB=1F6B+399 1FAC=1F6C+399 1FAD=1F6D+399 1FAE=1F6E+399 1FAF=1F6F+399 1FB2=1FBA+399 1FB3=391+399 1FB4=386+399 1FB6=391+342 1FB7=391+342+399 1FBC=391+399
        1FC2=1FCA+399 1FC3=397+399 1FC4=389+399 1FC6=397+342 1FC7=397+342+399 1FCC=397+399 1FD2=399+308+300 1FD3=399+308+301 1FD6=399+342 1FD7=399+308+342 1FE2=3A5+308+300 1FE3=3A5+308+301 1FE4=3A1+313
        1FE6=3A5+342 1FE7=3A5+308+342 1FF2=1FFA+399 1FF3=3A9+399 1FF4=38F+399 1FF6=3A9+342 1FF7=3A9+342+399 1FFC=3A9+399 FB00=46+46 FB01=46+49 FB02=46+4C FB03=46+46+49 FB04=46+46+4C FB05=53+54 FB06=53+54
        FB13=544+546 FB14=544+535 FB15=544+53B FB16=54E+546 FB17=544+53D
        """;

    // Title case where it is not the upper case; Georgian letters (10D0 to 10FF) and the Greek of 1F88 to 1FAF stay by
    // rule.
    private const string TitleForms = """
        DF=53+73 1C4=1C5 1C5=1C5 1C6=1C5 1C7=1C8 1C8=1C8 1C9=1C8 1CA=1CB 1CB=1CB 1CC=1CB 1F1=1F2 1F2=1F2 1F3=1F2 587=535+582 1FB2=1FBA+345 1FB3=1FBC 1FB4=386+345 1FB7=391+342+345 1FBC=1FBC
        1FC2=1FCA+345 1FC3=1FCC 1FC4=389+345 1FC7=397+342+345 1FCC=1FCC 1FF2=1FFA+345 1FF3=1FFC 1FF4=38F+345 1FF7=3A9+342+345 1FFC=1FFC FB00=46+66 FB01=46+69 FB02=46+6C FB03=46+66+69
        FB04=46+66+6C FB05=53+74 FB06=53+74 FB13=544+576 FB14=544+565 FB15=544+56B FB16=54E+576 FB17=544+56D
        """;

    private static readonly Lazy<Dictionary<int, string>> Uppers = new(() => Forms(UpperForms)),
        Titles = new(() => Forms(TitleForms));

    private static readonly (int Low, int High)[] OtherLower =
    [
        (0xAA, 0xAA), (0xBA, 0xBA), (0x2B0, 0x2B8), (0x2C0, 0x2C1), (0x2E0, 0x2E4), (0x345, 0x345), (0x37A, 0x37A),
        (0x1D2C, 0x1D6A), (0x1D78, 0x1D78), (0x1D9B, 0x1DBF), (0x2071, 0x2071), (0x207F, 0x207F), (0x2090, 0x209C),
        (0x2170, 0x217F), (0x24D0, 0x24E9), (0x2C7C, 0x2C7D), (0xA69C, 0xA69D), (0xA770, 0xA770), (0xA7F8, 0xA7F9),
        (0xAB5C, 0xAB5F), (0x10780, 0x10780), (0x10783, 0x107BA)];

    private static readonly (int Low, int High)[] OtherUpper =
    [
        (0x2160, 0x216F), (0x24B6, 0x24CF), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189)];

    private static Dictionary<int, string> Forms(string table)
    {
        static int Hex(string s) => int.Parse(s, NumberStyles.HexNumber, CultureInfo.InvariantCulture);
        return table
            .Split((char[])[' ', '\n', '\r'], StringSplitOptions.RemoveEmptyEntries)
            .Select(item => item.Split('='))
            .ToDictionary(
                p => Hex(p[0]), p => string.Concat(p[1].Split('+').Select(x => char.ConvertFromUtf32(Hex(x)))));
    }

    private static bool Within((int Low, int High)[] ranges, int c) =>
        Array.Exists(ranges, r => c >= r.Low && c <= r.High);

    public static bool IsLower(Rune r) => Rune.IsLower(r) || (r.Value > 127 && Within(OtherLower, r.Value));
    public static bool IsUpper(Rune r) => Rune.IsUpper(r) || (r.Value > 127 && Within(OtherUpper, r.Value));
    public static bool IsTitle(Rune r) => Rune.GetUnicodeCategory(r) == UnicodeCategory.TitlecaseLetter;
    public static bool IsCased(Rune r) => IsLower(r) || IsUpper(r) || IsTitle(r);

    /// <summary>str.upper()</summary>
    public static string Upper(string s)
    {
        if (Ascii.IsValid(s)) return s.ToUpperInvariant();
        var text = new StringBuilder(s.Length + 4);
        foreach (var r in s.EnumerateRunes()) text.Append(Upper(r));
        return text.ToString();
    }

    private static string Upper(Rune r) =>
        r.Value > 127 && Uppers.Value.TryGetValue(r.Value, out string? form) ? form : r.ToString().ToUpperInvariant();

    private static string Title(Rune r)
    {
        if (r.Value < 128) return Rune.ToUpperInvariant(r).ToString();
        if (r.Value is >= 0x10D0 and <= 0x10FF || (r.Value is >= 0x1F80 and <= 0x1FAF && (r.Value & 8) != 0))
            return r.ToString();
        if (r.Value is >= 0x1F80 and <= 0x1FAF) return char.ConvertFromUtf32(r.Value + 8);
        return Titles.Value.TryGetValue(r.Value, out string? form) ? form : Upper(r);
    }

    /// <summary>str.lower()</summary>
    public static string Lower(string s)
    {
        if (Ascii.IsValid(s)) return s.ToLowerInvariant();
        var text = new StringBuilder(s.Length);
        int at = 0;
        foreach (var r in s.EnumerateRunes())
        {
            text.Append(Lower(r, s, at));
            at += r.Utf16SequenceLength;
        }
        return text.ToString();
    }

    private static string Lower(Rune r, string s, int at) => r.Value switch
    {
        0x130 => "i\u0307",
        0x3A3 => FinalSigma(s, at) ? "\u03C2" : "\u03C3",
        _ => r.ToString().ToLowerInvariant(),
    };

    // After a cased letter and before none, case-ignorable characters aside (Unicode 3.13, Final_Sigma).
    private static bool FinalSigma(string s, int at)
    {
        var before = s[..at].EnumerateRunes().Reverse().SkipWhile(Ignorable).Take(1).ToArray();
        var after = s[(at + 1)..].EnumerateRunes().SkipWhile(Ignorable).Take(1).ToArray();
        return before.Length > 0 && IsCased(before[0]) && !(after.Length > 0 && IsCased(after[0]));
    }

    private static bool Ignorable(Rune r) =>
        r.Value
            is '\''
                or '.'
                or ':'
                or '^'
                or '`'
                or 0xA8
                or 0xAD
                or 0xAF
                or 0xB4
                or 0xB7
                or 0xB8
                or 0x387
                or 0x55F
                or 0x5F4
                or 0x2018
                or 0x2019
                or 0x2024
                or 0x2027
                or 0xFE13
                or 0xFE52
                or 0xFE55
                or 0xFF07
                or 0xFF0E
                or 0xFF1A
        || Rune.GetUnicodeCategory(r)
            is UnicodeCategory.NonSpacingMark
                or UnicodeCategory.EnclosingMark
                or UnicodeCategory.Format
                or UnicodeCategory.ModifierLetter
                or UnicodeCategory.ModifierSymbol;

    /// <summary>str.title(): what follows a cased letter in lower case, what does not in title case.</summary>
    public static string Title(string s)
    {
        var text = new StringBuilder(s.Length);
        bool cased = false;
        int at = 0;
        foreach (var r in s.EnumerateRunes())
        {
            text.Append(cased ? Lower(r, s, at) : Title(r));
            cased = IsCased(r);
            at += r.Utf16SequenceLength;
        }
        return text.ToString();
    }

    /// <summary>str.capitalize()</summary>
    public static string Capitalize(string s)
    {
        var text = new StringBuilder(s.Length);
        int at = 0;
        foreach (var r in s.EnumerateRunes())
        {
            text.Append(at == 0 ? Title(r) : Lower(r, s, at));
            at += r.Utf16SequenceLength;
        }
        return text.ToString();
    }

    /// <summary>str.islower() or str.isupper(): at least one cased letter, all of that case.</summary>
    public static bool AllOfCase(string s, bool lower)
    {
        bool any = false;
        foreach (var r in s.EnumerateRunes())
        {
            if (IsTitle(r) || (lower ? IsUpper(r) : IsLower(r))) return false;
            any |= lower ? IsLower(r) : IsUpper(r);
        }
        return any;
    }

    /// <summary>str.istitle()</summary>
    public static bool IsTitleText(string s)
    {
        bool any = false, cased = false;
        foreach (var r in s.EnumerateRunes())
        {
            if (IsUpper(r) || IsTitle(r))
            {
                if (cased) return false;
                any = cased = true;
            }
            else if (IsLower(r))
            {
                if (!cased) return false;
                any = true;
            }
            else cased = false;
        }
        return any;
    }

    /// <summary>The is... methods that ask each character; false for an empty string (isascii: true).</summary>
    public static bool All(string s, string method)
    {
        if (method == "isascii") return Ascii.IsValid(s);
        bool any = false;
        for (int i = 0; i < s.Length; i++)
        {
            if (!Rune.TryGetRuneAt(s, i, out var r)) return false;
            if (!Is(r, s, i, method)) return false;
            any = true;
            i += r.Utf16SequenceLength - 1;
        }
        return any;
    }

    private static bool Is(Rune r, string s, int at, string method) => method switch
    {
        "isalpha" => Rune.IsLetter(r),
        "isdecimal" => Rune.IsDigit(r),
        "isdigit" => CharUnicodeInfo.GetDigitValue(s, at) >= 0,
        "isalnum" => Rune.IsLetter(r)
            || CharUnicodeInfo.GetDigitValue(s, at) >= 0
            || CharUnicodeInfo.GetNumericValue(s, at) != -1,
        _ => JinjaLexer.IsSpace(s[at]),
    };

    /// <summary>Order of strings by code points.</summary>
    public static int Compare(string a, string b)
    {
        int n = Math.Min(a.Length, b.Length);
        for (int i = 0; i < n; i++)
        {
            if (a[i] == b[i]) continue;
            // In UTF-16 the surrogates stand before U+E000 to U+FFFF, by code point behind them.
            bool high = char.IsSurrogate(a[i]), other = char.IsSurrogate(b[i]);
            return high == other ? a[i].CompareTo(b[i]) : high ? 1 : -1;
        }
        return a.Length.CompareTo(b.Length);
    }

    /// <summary>float(s) of a string; null where Python raises ValueError.</summary>
    public static double? ToFloat(string s)
    {
        string t = Plain(s);
        if (
            t.TrimStart('+', '-').ToLowerInvariant() is "inf" or "infinity"
            && t.Length - t.TrimStart('+', '-').Length <= 1
        )
            return t[0] == '-' ? double.NegativeInfinity : double.PositiveInfinity;
        if (t.TrimStart('+', '-').ToLowerInvariant() is "nan" && t.Length <= 4) return double.NaN;
        if (
            !System.Text.RegularExpressions.Regex.IsMatch(
                t, @"\A[+-]?([0-9](_?[0-9])*(\.([0-9](_?[0-9])*)?)?|\.[0-9](_?[0-9])*)([eE][+-]?[0-9](_?[0-9])*)?\z")
        )
            return null;
        return double.Parse(
            t.Replace("_", "", StringComparison.Ordinal), NumberStyles.Float, CultureInfo.InvariantCulture);
    }

    /// <summary>
    /// int(s) of a string in base ten; null where Python raises ValueError. Throws <see cref="OverflowException"/>
    /// beyond 64 bits.
    /// </summary>
    public static long? ToInteger(string s)
    {
        string t = Plain(s);
        return System.Text.RegularExpressions.Regex.IsMatch(t, @"\A[+-]?[0-9](_?[0-9])*\z")
            ? long.Parse(
                t.Replace("_", "", StringComparison.Ordinal), NumberStyles.AllowLeadingSign,
                CultureInfo.InvariantCulture)
            : null;
    }

    // Without blanks around (not those of 0x1C to 0x1F: unicodeobject.c, _PyUnicode_TransformDecimalAndSpaceToASCII),
    // and decimal digits of all scripts as ASCII.
    private static string Plain(string s)
    {
        int a = 0, b = s.Length;
        while (a < b && char.IsWhiteSpace(s[a])) a++;
        while (b > a && char.IsWhiteSpace(s[b - 1])) b--;
        if (Ascii.IsValid(s.AsSpan(a, b - a))) return s[a..b];
        var text = new StringBuilder(b - a);
        foreach (var r in s[a..b].EnumerateRunes())
            text.Append(
                Rune.IsDigit(r) ? ((int)Rune.GetNumericValue(r)).ToString(CultureInfo.InvariantCulture) : r.ToString());
        return text.ToString();
    }
}
