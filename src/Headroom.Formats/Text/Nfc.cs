using System.Globalization;
using System.Text;

namespace Headroom.Formats.Text;

/// <summary>Canonical composition (Unicode NFC), which some vocabularies ask for.</summary>
internal static class Nfc
{
    private sealed record Tables(
        Dictionary<int, int[]> Full, Dictionary<(int First, int Second), int> Compose, Dictionary<int, byte> Class,
        bool[] Check);
    private static readonly Lazy<Tables> Data = new(Load);

    private static Tables Load()
    {
        static int Hex(ReadOnlySpan<char> s) => int.Parse(s, NumberStyles.HexNumber, CultureInfo.InvariantCulture);
        char[] blank = [' ', '\n', '\r'];
        var one = new Dictionary<int, int[]>();
        var compose = new Dictionary<(int First, int Second), int>();
        foreach (string item in NfcData.Decompositions.Split(blank, StringSplitOptions.RemoveEmptyEntries))
        {
            int eq = item.IndexOf('=');
            int code = Hex(item.AsSpan(0, eq));
            bool composes = item[^1] != '!';
            int[] to = item[(eq + 1)..].TrimEnd('!').Split('+').Select(x => Hex(x)).ToArray();
            one[code] = to;
            if (composes) compose[(to[0], to[1])] = code;
        }
        var full = new Dictionary<int, int[]>();
        foreach (int code in one.Keys)
        {
            var list = new List<int>();
            void Expand(int c)
            {
                if (one.TryGetValue(c, out var to))
                    foreach (int x in to)
                        Expand(x);
                else
                    list.Add(c);
            }
            Expand(code);
            full[code] = list.ToArray();
        }
        var cls = new Dictionary<int, byte>();
        foreach (string item in NfcData.Classes.Split(blank, StringSplitOptions.RemoveEmptyEntries))
        {
            int eq = item.IndexOf('='), dash = item.IndexOf('-');
            int lo = Hex(item.AsSpan(0, dash > 0 ? dash : eq)),
                hi = dash > 0 ? Hex(item.AsSpan(dash + 1, eq - dash - 1)) : lo;
            for (int c = lo; c <= hi; c++) cls[c] = byte.Parse(item.AsSpan(eq + 1), CultureInfo.InvariantCulture);
        }
        // Characters that can change a text: those that decompose, combine with what stands before, or have a class.
        var check = new bool[0x10000];
        for (int c = 0x1161; c < 0x1176; c++) check[c] = true;
        for (int c = 0x11A8; c < 0x11C3; c++) check[c] = true;
        foreach (int c in full.Keys.Concat(cls.Keys).Concat(compose.Keys.Select(k => k.Second)))
            if (c is >= 0x300 and < 0x10000)
                check[c] = true;
        return new Tables(full, compose, cls, check);
    }

    public static string Normalize(string text)
    {
        // Everything below U+0300 is composed already.
        if (text.AsSpan().IndexOfAnyExceptInRange('\0', '\u02FF') < 0) return text;
        var t = Data.Value;
        bool clean = true;
        foreach (char c in text) if (t.Check[c] || char.IsSurrogate(c)) { clean = false; break; }
        return clean ? text : Text(Compose(t, Decompose(t, text)), text.Length);
    }

    /// <summary>Canonical decomposition (Unicode NFD).</summary>
    public static string Decomposed(string text) =>
        text.AsSpan().IndexOfAnyExceptInRange('\0', '\u00BF') < 0
            ? text
            : Text(Decompose(Data.Value, text), text.Length);

    private static int Class(Tables t, int c) => c < 0x300 ? 0 : t.Class.GetValueOrDefault(c);

    private static List<int> Decompose(Tables t, string text)
    {
        var code = new List<int>(text.Length);
        foreach (var rune in text.EnumerateRunes())
        {
            int c = rune.Value;
            if (c is >= 0xAC00 and <= 0xD7A3)
            {
                int s = c - 0xAC00;
                code.Add(0x1100 + s / 588);
                code.Add(0x1161 + s % 588 / 28);
                if (s % 28 != 0) code.Add(0x11A7 + s % 28);
            }
            else if (t.Full.TryGetValue(c, out var to)) code.AddRange(to);
            else code.Add(c);
        }
        for (int i = 0; i < code.Count;)
        {
            if (Class(t, code[i]) == 0) { i++; continue; }
            int end = i;
            while (end < code.Count && Class(t, code[end]) != 0) end++;
            if (end - i > 1)
            {
                var run = code.GetRange(i, end - i).OrderBy(c => Class(t, c)).ToArray(); // stable
                for (int k = 0; k < run.Length; k++) code[i + k] = run[k];
            }
            i = end;
        }
        return code;
    }

    private static List<int> Compose(Tables t, List<int> code)
    {
        var result = new List<int>(code.Count);
        int starter = -1, last = 0;
        foreach (int c in code)
        {
            int k = Class(t, c);
            if (
                starter >= 0
                && (last < k || (last == 0 && starter == result.Count - 1))
                && Pair(t, result[starter], c) is var p
                && p >= 0
            )
            {
                result[starter] = p;
                continue;
            }
            if (k == 0) { starter = result.Count; last = 0; } else last = k;
            result.Add(c);
        }
        return result;
    }

    private static string Text(List<int> code, int length)
    {
        var sb = new StringBuilder(length);
        foreach (int c in code) if (c < 0x10000) sb.Append((char)c); else sb.Append(char.ConvertFromUtf32(c));
        return sb.ToString();
    }

    private static int Pair(Tables t, int a, int b)
    {
        if (a is >= 0x1100 and < 0x1113 && b is >= 0x1161 and < 0x1176)
            return 0xAC00 + ((a - 0x1100) * 21 + (b - 0x1161)) * 28;
        if (a is >= 0xAC00 and <= 0xD7A3 && (a - 0xAC00) % 28 == 0 && b is > 0x11A7 and < 0x11C3) return a + b - 0x11A7;
        return t.Compose.TryGetValue((a, b), out int c) ? c : -1;
    }
}
