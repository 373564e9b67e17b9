using System.Globalization;
using System.Text;

namespace Headroom.Formats.Chat;

internal sealed partial class JinjaInterpreter
{
    private const int MostRange = 100_000; // jinja2 sandbox.py, MAX_RANGE

    private static readonly string[] DictMethods = ["items", "keys", "values", "get"];
    private static readonly string[] StringMethods =
        ["strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "startswith", "endswith", "replace", "upper", "lower", "title", "capitalize", "find", "count", "join", "isdigit", "removeprefix", "removesuffix"];

    private object? StringMethod(string s, string name, Args args)
    {
        Charge(s.Length);
        switch (name)
        {
            case "strip" or "lstrip" or "rstrip":
                args.Done(["chars"]);
                return Strip(s, args.Get(0, "chars", null) switch { null => null, string set => set, var v => throw new JinjaFault($"{name} of {JinjaValues.TypeName(v)}") }, name != "rstrip", name != "lstrip");
            case "split" or "rsplit":
                args.Done(["sep", "maxsplit"]);
                long most = args.Get(1, "maxsplit", -1L) is long m ? m : throw new JinjaFault("maxsplit is not an integer");
                return Split(s, args.Get(0, "sep", null), most, name == "rsplit");
            case "splitlines":
                args.Done(["keepends"]);
                return Lines(s, JinjaValues.Truth(args.Get(0, "keepends", false)));
            case "startswith" or "endswith":
                args.Done([name == "startswith" ? "prefix" : "suffix"]);
                bool Fits(object? part) => part is string p ? name == "startswith" ? s.StartsWith(p, StringComparison.Ordinal) : s.EndsWith(p, StringComparison.Ordinal) : throw new JinjaFault($"{name} of {JinjaValues.TypeName(part)}");
                return args.Get(0, "prefix") is PyTuple any ? any.Any(Fits) : Fits(args.Get(0, "prefix"));
            case "removeprefix":
                return s.StartsWith(args.Text(0, "prefix"), StringComparison.Ordinal) ? s[args.Text(0, "prefix").Length..] : s;
            case "removesuffix":
                return s.EndsWith(args.Text(0, "suffix"), StringComparison.Ordinal) ? s[..^args.Text(0, "suffix").Length] : s;
            case "replace":
                args.Done(["old", "new", "count"]);
                return Replace(s, args.Text(0, "old"), args.Text(1, "new"), args.Get(2, "count", -1L) is long c ? c : -1);
            case "find":
                args.Done(["sub"]);
                int at = s.IndexOf(args.Text(0, "sub"), StringComparison.Ordinal);
                return at < 0 ? -1L : JinjaValues.Length(s[..at]);
            case "count":
                args.Done(["sub"]);
                return Count(s, args.Text(0, "sub"));
            case "join":
                args.Done(["iterable"]);
                return JoinAll(s, Items(args.Get(0, "iterable")).Select(i => i as string ?? throw new JinjaFault($"join of {JinjaValues.TypeName(i)}")));
            default:
                args.Done([]);
                return name switch
                {
                    "upper" => s.ToUpperInvariant(),
                    "lower" => s.ToLowerInvariant(),
                    "capitalize" => Capitalize(s),
                    "title" => Title(s),
                    _ => s.Length > 0 && s.All(char.IsDigit),
                };
        }
    }

    private static string Strip(string s, string? chars, bool left, bool right)
    {
        bool Goes(char c) => chars == null ? JinjaLexer.IsSpace(c) : chars.Contains(c);
        int a = 0, b = s.Length;
        if (left) while (a < b && Goes(s[a])) a++;
        if (right) while (b > a && Goes(s[b - 1])) b--;
        return s[a..b];
    }

    private List<object?> Split(string s, object? separator, long most, bool fromRight)
    {
        Charge(s.Length);
        var parts = new List<object?>();
        if (separator is string sep)
        {
            if (sep.Length == 0) throw new JinjaFault("a string is split at nothing");
            if (fromRight)
            {
                int end = s.Length, at;
                while (most != 0 && end > 0 && (at = s[..end].LastIndexOf(sep, StringComparison.Ordinal)) >= 0)
                {
                    Charge(end);
                    parts.Insert(0, s[(at + sep.Length)..end]);
                    end = at;
                    most--;
                }
                parts.Insert(0, s[..end]);
                return parts;
            }
            int from = 0, found;
            while (most != 0 && (found = s.IndexOf(sep, from, StringComparison.Ordinal)) >= 0)
            {
                parts.Add(s[from..found]);
                from = found + sep.Length;
                most--;
            }
            parts.Add(s[from..]);
            return parts;
        }
        if (separator != null) throw new JinjaFault($"a string is split at {JinjaValues.TypeName(separator)}");
        if (fromRight && most >= 0) throw new JinjaFault("rsplit at blanks with maxsplit is not supported");
        for (int i = 0; i < s.Length;)
        {
            while (i < s.Length && JinjaLexer.IsSpace(s[i])) i++;
            if (i == s.Length) break;
            int start = i;
            if (most == 0)
            {
                parts.Add(Strip(s[start..], null, false, true));
                break;
            }
            while (i < s.Length && !JinjaLexer.IsSpace(s[i])) i++;
            parts.Add(s[start..i]);
            most--;
        }
        return parts;
    }

    private static List<object?> Lines(string s, bool keep)
    {
        var lines = new List<object?>();
        for (int i = 0; i < s.Length;)
        {
            int start = i;
            while (i < s.Length && s[i] is not ('\n' or '\r' or '\v' or '\f' or (>= '\x1c' and <= '\x1e') or '\x85' or '\u2028' or '\u2029')) i++;
            int end = i;
            if (i < s.Length) i += s[i] == '\r' && i + 1 < s.Length && s[i + 1] == '\n' ? 2 : 1;
            lines.Add(s[start..(keep ? i : end)]);
        }
        return lines;
    }

    private string Replace(string s, string old, string by, long most)
    {
        if (old.Length == 0) throw new JinjaFault("replacing an empty string is not supported");
        long n = Count(s, old);
        if (most >= 0) n = Math.Min(n, most);
        Charge(s.Length + n * by.Length);
        if (n == 0) return s;
        var text = new StringBuilder();
        int from = 0;
        for (; n > 0; n--)
        {
            int at = s.IndexOf(old, from, StringComparison.Ordinal);
            text.Append(s, from, at - from).Append(by);
            from = at + old.Length;
        }
        return text.Append(s, from, s.Length - from).ToString();
    }

    private static long Count(string s, string part)
    {
        if (part.Length == 0) return JinjaValues.Length(s) + 1;
        long n = 0;
        for (int at = 0; (at = s.IndexOf(part, at, StringComparison.Ordinal)) >= 0; at += part.Length) n++;
        return n;
    }

    private string JoinAll(string separator, IEnumerable<string> parts)
    {
        var text = new StringBuilder();
        bool first = true;
        foreach (string p in parts)
        {
            Charge(p.Length + separator.Length);
            if (!first) text.Append(separator);
            first = false;
            text.Append(p);
        }
        return text.ToString();
    }

    private static string Capitalize(string s) => s.Length == 0 ? s : s[..1].ToUpperInvariant() + s[1..].ToLowerInvariant();

    private static string Title(string s)
    {
        var text = new StringBuilder(s.Length);
        bool inWord = false;
        foreach (char c in s)
        {
            text.Append(inWord ? char.ToLowerInvariant(c) : char.ToUpperInvariant(c));
            inWord = char.IsLetter(c);
        }
        return text.ToString();
    }

    private object? DictMethod(PyDict d, string name, Args args)
    {
        Charge(d.Count);
        if (name == "get")
        {
            args.Done(["key", "default"]);
            return args.Get(0, "key") is string key && d.TryGetValue(key, out object? v) ? v : args.Get(1, "default", null);
        }
        args.Done([]);
        return name switch
        {
            "items" => Pairs(d),
            "keys" => d.Keys.Select(k => (object?)k).ToList(),
            _ => d.Values.ToList(),
        };
    }

    private static List<object?> Pairs(PyDict d) => d.Select(p => (object?)new PyTuple([p.Key, p.Value])).ToList();

    private object ListMethod(List<object?> l, string name, Args args)
    {
        args.Done(["value"]);
        if (name == "count") return (long)l.Count(v => _values.Equal(v, args.Get(0, "value")));
        int at = l.FindIndex(v => _values.Equal(v, args.Get(0, "value")));
        return at >= 0 ? (long)at : throw new JinjaFault("index of a value that is not in the list");
    }

    private object? LoopMethod(LoopState loop, string name, Args args)
    {
        if (name == "cycle") return args.Count > 0 ? args.Positional[loop.Index % args.Count] : throw new JinjaFault("loop.cycle has no arguments");
        var now = new PyTuple(args.Positional);
        bool changed = !_values.Equal(now, loop.Changed);
        loop.Changed = now;
        return changed;
    }

    private object? Global(string name, Args args)
    {
        switch (name)
        {
            case "range":
                if (args.Count is < 1 or > 3 || args.Named.Count > 0 || args.Positional.Any(p => p is not long)) throw new JinjaFault("range takes one to three integers");
                long start = args.Count == 1 ? 0 : (long)args.Positional[0]!, stop = (long)args.Positional[args.Count == 1 ? 0 : 1]!, step = args.Count == 3 ? (long)args.Positional[2]! : 1;
                if (step == 0) throw new JinjaFault("range has the step 0");
                var numbers = new List<object?>();
                for (Int128 i = start; step > 0 ? i < stop : i > stop; i += step)
                {
                    if (numbers.Count >= MostRange) throw new JinjaFault($"a range has more than {MostRange} numbers");
                    numbers.Add((long)i);
                }
                Charge(numbers.Count);
                return numbers;
            case "namespace" or "dict":
                var values = name == "dict" ? new PyDict() : null;
                var ns = new PyNamespace();
                values ??= ns.Values;
                foreach (object? p in args.Positional)
                    foreach (var (key, value) in p as PyDict ?? throw new JinjaFault($"{name} of {JinjaValues.TypeName(p)}")) values[key] = value;
                foreach (var (key, value) in args.Named) values[key] = value;
                return name == "dict" ? values : ns;
            case "raise_exception":
                args.Done(["message"]);
                throw Refused(_values.Str(args.Get(0, "message")));
            case "strftime_now":
                args.Done(["format"]);
                return Time(args.Text(0, "format"));
            default: throw new JinjaFault($"the function {name} is not supported");
        }
    }

    // C's strftime in the C locale, which Python follows.
    private string Time(string format)
    {
        var c = CultureInfo.InvariantCulture;
        var text = new StringBuilder();
        for (int i = 0; i < format.Length; i++)
        {
            if (format[i] != '%' || i + 1 == format.Length)
            {
                text.Append(format[i]);
                continue;
            }
            bool bare = format[++i] == '-' && i + 1 < format.Length; // glibc: no padding
            if (bare) i++;
            string? part = format[i] switch
            {
                'd' => _now.Day.ToString("00", c),
                'e' => _now.Day.ToString(c).PadLeft(2),
                'm' => _now.Month.ToString("00", c),
                'b' or 'h' => _now.ToString("MMM", c),
                'B' => _now.ToString("MMMM", c),
                'Y' => _now.Year.ToString(c),
                'y' => (_now.Year % 100).ToString("00", c),
                'H' => _now.Hour.ToString("00", c),
                'I' => _now.ToString("hh", c),
                'M' => _now.Minute.ToString("00", c),
                'S' => _now.Second.ToString("00", c),
                'p' => _now.Hour < 12 ? "AM" : "PM",
                'a' => _now.ToString("ddd", c),
                'A' => _now.ToString("dddd", c),
                'j' => _now.DayOfYear.ToString("000", c),
                'F' => _now.ToString("yyyy-MM-dd", c),
                'T' => _now.ToString("HH:mm:ss", c),
                '%' => "%",
                _ => null,
            };
            if (part == null) throw new JinjaFault($"strftime_now with %{format[i]} is not supported");
            text.Append(bare ? part.TrimStart('0', ' ') is { Length: > 0 } short_ ? short_ : "0" : part);
        }
        return text.ToString();
    }
}
