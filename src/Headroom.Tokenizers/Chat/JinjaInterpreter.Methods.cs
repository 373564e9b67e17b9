using System.Globalization;
using System.Text;

namespace Headroom.Tokenizers.Chat;

internal sealed partial class JinjaInterpreter
{
    private const int MostRange = 100_000; // jinja2 sandbox.py, MAX_RANGE

    private static readonly string[] DictMethods = ["items", "keys", "values", "get", "copy"];
    private static readonly string[] HiddenDictMethods = ["clear", "pop", "popitem", "setdefault", "update"];
    private static readonly string[] ListMethods = ["index", "count", "copy"];
    private static readonly string[] StringMethods =
    [
        "strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "startswith", "endswith", "replace", "upper",
        "lower", "title", "capitalize", "find", "rfind", "index", "rindex", "count", "join", "removeprefix",
        "removesuffix", "isdigit", "isdecimal", "isalpha", "isalnum", "isspace", "isascii", "islower", "isupper",
        "istitle", "partition", "rpartition", "center", "ljust", "rjust", "zfill"];

    private static readonly string[] OtherStringMethods =
    [
        "swapcase", "casefold", "encode", "expandtabs", "format", "format_map", "isidentifier", "isnumeric",
        "isprintable", "maketrans", "translate"];

    // What each takes, by position or (the two with a mark) by name.
    private static readonly Dictionary<string, int> StringArguments = new()
    {
        ["strip"] = 1,
        ["lstrip"] = 1,
        ["rstrip"] = 1,
        ["split"] = 2,
        ["rsplit"] = 2,
        ["splitlines"] = 1,
        ["startswith"] = 1,
        ["endswith"] = 1,
        ["replace"] = 3,
        ["find"] = 1,
        ["rfind"] = 1,
        ["index"] = 1,
        ["rindex"] = 1,
        ["count"] = 1,
        ["join"] = 1,
        ["removeprefix"] = 1,
        ["removesuffix"] = 1,
        ["partition"] = 1,
        ["rpartition"] = 1,
        ["center"] = 2,
        ["ljust"] = 2,
        ["rjust"] = 2,
        ["zfill"] = 1,
    };

    private object? StringMethod(string s, string name, Args args)
    {
        Charge(s.Length);
        int most = StringArguments.GetValueOrDefault(name);
        args.Done(
            name switch
            {
                "split" or "rsplit" => ["sep", "maxsplit"],
                "splitlines" => ["keepends"],
                _ => Enumerable.Repeat("", most),
            }
        );
        switch (name)
        {
            case "strip" or "lstrip" or "rstrip":
                return Strip(s, Characters(args.Get(0, "", null), name), name != "rstrip", name != "lstrip");
            case "split" or "rsplit":
                long max = Integer(args.Get(1, "maxsplit", -1L), "maxsplit");
                return Split(s, args.Get(0, "sep", null), max, name == "rsplit");
            case "splitlines": return Lines(s, JinjaValues.Truth(args.Get(0, "keepends", false)));
            case "startswith" or "endswith":
                object? part = args.Get(0, "prefix");
                return part is PyTuple any ? any.Any(p => Begins(s, name, p)) : Begins(s, name, part);
            case "removeprefix":
                return s.StartsWith(args.Text(0, "prefix"), StringComparison.Ordinal)
                    ? Cut(s, args.Text(0, "prefix").Length, s.Length)
                    : s;
            case "removesuffix":
                string suffix = args.Text(0, "suffix");
                return s.EndsWith(suffix, StringComparison.Ordinal) ? Cut(s, 0, s.Length - suffix.Length) : s;
            case "replace":
                return Replace(
                    s, args.Text(0, "old"), args.Text(1, "new"), Integer(args.Get(2, "count", -1L), "count"));
            case "find" or "rfind" or "index" or "rindex":
                return Find(s, args.Text(0, "sub"), name);
            case "count": return Count(s, args.Text(0, "sub"));
            case "partition" or "rpartition": return Partition(s, args.Text(0, "sep"), name == "rpartition");
            case "center" or "ljust" or "rjust" or "zfill": return Padded(s, name, args);
            case "join":
                return JoinAll(
                    s,
                    Items(args.Get(0, "iterable"))
                        .Select(i => i as string ?? throw new JinjaFault($"join of {JinjaValues.TypeName(i)}"))
                );
            default:
                return name switch
                {
                    "upper" => Changed(PyText.Upper(s)),
                    "lower" => Changed(PyText.Lower(s)),
                    "capitalize" => Changed(PyText.Capitalize(s)),
                    "title" => Changed(PyText.Title(s)),
                    "islower" or "isupper" => PyText.AllOfCase(s, name == "islower"),
                    "istitle" => PyText.IsTitleText(s),
                    _ => PyText.All(s, name),
                };
        }

        string Changed(string made) => _marks?.Changed(s, made, name) ?? made;
    }

    // What is stripped off; null = blanks.
    private static string? Characters(object? v, string name) => v switch
    {
        null => null,
        string set => set,
        _ => throw new JinjaFault($"{name} of {JinjaValues.TypeName(v)}"),
    };

    // startswith and endswith.
    private static bool Begins(string s, string name, object? part) =>
        part is not string p ? throw new JinjaFault($"{name} of {JinjaValues.TypeName(part)}")
        : name == "startswith" ? s.StartsWith(p, StringComparison.Ordinal)
        : s.EndsWith(p, StringComparison.Ordinal);

    // find, rfind, index and rindex: by code points.
    private static long Find(string s, string part, string name)
    {
        int at = name[0] == 'r'
            ? s.LastIndexOf(part, StringComparison.Ordinal)
            : s.IndexOf(part, StringComparison.Ordinal);
        if (at < 0 && name.EndsWith("index", StringComparison.Ordinal))
            throw new JinjaFault("index of a text that is not there");
        return at < 0 ? -1 : JinjaValues.Length(s[..at]);
    }

    private static long Integer(object? v, string name) =>
        v is long or bool
            ? JinjaValues.Whole(v)
            : throw new JinjaFault($"{name} is {JinjaValues.TypeName(v)}, not an integer");

    private PyTuple Partition(string s, string by, bool last)
    {
        if (by.Length == 0) throw new JinjaFault("a string is parted at nothing");
        int at = last ? s.LastIndexOf(by, StringComparison.Ordinal) : s.IndexOf(by, StringComparison.Ordinal);
        return at >= 0 ? new PyTuple([Cut(s, 0, at), Cut(s, at, at + by.Length), Cut(s, at + by.Length, s.Length)])
            : last ? new PyTuple(["", "", s])
            : new PyTuple([s, "", ""]);
    }

    private string Padded(string s, string name, Args args)
    {
        long width = Integer(args.Get(0, "width"), "width"), missing = width - JinjaValues.Length(s);
        string fill =
            name == "zfill"
                ? "0"
                : args.Get(1, "fillchar", " ") as string ?? throw new JinjaFault("fillchar is not a string");
        if (JinjaValues.Length(fill) != 1) throw new JinjaFault("fillchar is not one character");
        if (missing <= 0) return s;
        if (missing > MostText) throw new JinjaFault("a string of that length is not supported");
        Charge(missing);
        // bytes_methods: of an odd number of blanks the larger half stands left when the width is odd.
        long left = name switch { "ljust" => 0, "center" => missing / 2 + (missing & width & 1), _ => missing };
        var text = new TextBuilder(_marks);
        bool signed = name == "zfill" && s.Length > 0 && s[0] is '+' or '-';
        if (signed) text.Append(s, 0, 1);
        for (long i = signed ? missing : left; i > 0; i--) text.Append(fill);
        text.Append(s, signed ? 1 : 0, s.Length - (signed ? 1 : 0));
        for (long i = signed ? 0 : missing - left; i > 0; i--) text.Append(fill);
        return text.ToString();
    }

    private string Strip(string s, string? chars, bool left, bool right)
    {
        bool Goes(string c) => chars == null ? JinjaLexer.IsSpace(c[0]) : chars.Contains(c, StringComparison.Ordinal);
        int a = 0, b = s.Length;
        while (left && a < b && s.Substring(a, Width(s, a)) is var c && Goes(c)) a += c.Length;
        while (right && b > a && s[(b - (b - a > 1 && char.IsSurrogatePair(s, b - 2) ? 2 : 1))..b] is var c && Goes(c))
            b -= c.Length;
        return Cut(s, a, b);
    }

    private static int Width(string s, int at) => at + 1 < s.Length && char.IsSurrogatePair(s[at], s[at + 1]) ? 2 : 1;

    private List<object?> Split(string s, object? separator, long most, bool fromRight)
    {
        Charge(s.Length);
        if (separator is string { Length: 0 }) throw new JinjaFault("a string is split at nothing");
        if (separator is not (null or string))
            throw new JinjaFault($"a string is split at {JinjaValues.TypeName(separator)}");
        return separator is string sep
            ? fromRight
                ? SplitRight(s, sep, most)
                : SplitLeft(s, sep, most)
            : fromRight && most >= 0
                ? WordsRight(s, most)
                : Words(s, most);
    }

    private List<object?> SplitLeft(string s, string sep, long most)
    {
        var parts = new List<object?>();
        int from = 0, found;
        while (most != 0 && (found = s.IndexOf(sep, from, StringComparison.Ordinal)) >= 0)
        {
            parts.Add(Cut(s, from, found));
            from = found + sep.Length;
            most--;
        }
        parts.Add(Cut(s, from, s.Length));
        return parts;
    }

    private List<object?> SplitRight(string s, string sep, long most)
    {
        var parts = new List<object?>();
        int end = s.Length, at;
        while (most != 0 && end > 0 && (at = s[..end].LastIndexOf(sep, StringComparison.Ordinal)) >= 0)
        {
            Charge(end);
            parts.Add(Cut(s, at + sep.Length, end));
            end = at;
            most--;
        }
        parts.Add(Cut(s, 0, end));
        parts.Reverse();
        return parts;
    }

    // At runs of blanks; what is left when no split is left keeps the blanks at its far end.
    private List<object?> Words(string s, long most)
    {
        var parts = new List<object?>();
        for (int i = 0; i < s.Length;)
        {
            while (i < s.Length && JinjaLexer.IsSpace(s[i])) i++;
            if (i == s.Length) break;
            int start = i;
            if (most == 0)
            {
                parts.Add(Cut(s, start, s.Length));
                break;
            }
            while (i < s.Length && !JinjaLexer.IsSpace(s[i])) i++;
            parts.Add(Cut(s, start, i));
            most--;
        }
        return parts;
    }

    private List<object?> WordsRight(string s, long most)
    {
        var parts = new List<object?>();
        for (int i = s.Length; i > 0;)
        {
            while (i > 0 && JinjaLexer.IsSpace(s[i - 1])) i--;
            if (i == 0) break;
            int end = i;
            if (most == 0)
            {
                parts.Add(Cut(s, 0, end));
                break;
            }
            while (i > 0 && !JinjaLexer.IsSpace(s[i - 1])) i--;
            parts.Add(Cut(s, i, end));
            most--;
        }
        parts.Reverse();
        return parts;
    }

    private List<object?> Lines(string s, bool keep)
    {
        var lines = new List<object?>();
        for (int i = 0; i < s.Length;)
        {
            int start = i;
            while (
                i < s.Length
                && s[i]
                    is not ('\n' or '\r' or '\v' or '\f' or (>= '\x1c' and <= '\x1e') or '\x85' or '\u2028' or '\u2029')
            )
                i++;
            int end = i;
            if (i < s.Length) i += s[i] == '\r' && i + 1 < s.Length && s[i + 1] == '\n' ? 2 : 1;
            lines.Add(Cut(s, start, keep ? i : end));
        }
        return lines;
    }

    private string Replace(string s, string old, string by, long most)
    {
        long n = Count(s, old);
        if (most >= 0) n = Math.Min(n, most);
        Charge(s.Length + n * by.Length);
        if (n == 0) return s;
        var text = new TextBuilder(_marks);
        int from = 0;
        for (; n > 0; n--)
        {
            if (old.Length == 0)
            {
                // Before each character, and at the end.
                text.Append(by);
                if (from == s.Length) break;
                int width = Width(s, from);
                text.Append(s, from, width);
                from += width;
                continue;
            }
            int at = s.IndexOf(old, from, StringComparison.Ordinal);
            text.Append(s, from, at - from);
            // What stands in the place of a text comes from where that came from, unless it has a place of its own.
            if (_marks?.Of(by) is { Count: > 0 }) text.Append(by);
            else text.AppendFor(by, s, at);
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
        var text = new TextBuilder(_marks);
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

    private object? DictMethod(PyDict d, string name, Args args)
    {
        Charge(d.Count);
        if (name == "get")
        {
            args.Done(["", ""]);
            object? key = args.Get(0, "key");
            return key is string text
                ? d.TryGetValue(text, out object? v)
                    ? v
                    : args.Get(1, "default", null)
                : Hashable(key)
                    ? args.Get(1, "default", null)
                    : null;
        }
        args.Done([]);
        if (name != "copy") return new PyView(d, name);
        var copy = new PyDict();
        foreach (var (key, value) in d) copy[key] = value;
        return copy;
    }

    private object ListMethod(List<object?> l, string name, Args args)
    {
        args.Done(name == "copy" ? [] : [""]);
        if (name == "copy") return l.ToList();
        object? value = args.Get(0, "value");
        if (name == "count") return (long)l.Count(v => _values.Equal(v, value));
        int at = l.FindIndex(v => _values.Equal(v, value));
        return at >= 0 ? (long)at : throw new JinjaFault("index of a value that is not in the list");
    }

    private object? LoopMethod(LoopState loop, string name, Args args)
    {
        if (name == "cycle")
            return args.Count > 0
                ? args.Positional[loop.Index % args.Count]
                : throw new JinjaFault("loop.cycle has no arguments");
        var now = new PyTuple(args.Positional);
        bool changed = loop.Changed is not PyTuple before || !_values.Equal(now, before);
        loop.Changed = now;
        return changed;
    }

    private object? Global(string name, Args args)
    {
        switch (name)
        {
            case "range":
                if (
                    args.Count is < 1 or > 3
                    || args.Named.Count > 0
                    || args.Positional.Any(p => p is not (long or bool))
                )
                    throw new JinjaFault("range takes one to three integers");
                long Bound(int i) => JinjaValues.Whole(args.Positional[i]!);
                long start = args.Count == 1 ? 0 : Bound(0),
                    stop = Bound(args.Count == 1 ? 0 : 1),
                    step = args.Count == 3 ? Bound(2) : 1;
                if (step == 0) throw new JinjaFault("range has the step 0");
                var numbers = new List<object?>();
                for (Int128 i = start; step > 0 ? i < stop : i > stop; i += step)
                {
                    if (numbers.Count >= MostRange) throw new JinjaFault($"a range has more than {MostRange} numbers");
                    numbers.Add((long)i);
                }
                Charge(numbers.Count);
                return new PyRange(start, stop, step, numbers);
            case "namespace" or "dict":
                var values = name == "dict" ? new PyDict() : null;
                var ns = new PyNamespace();
                values ??= ns.Values;
                if (args.Count > 1) throw new JinjaFault($"{name} takes one argument without a name");
                foreach (object? p in args.Positional)
                    foreach (
                        var (key, value) in p as PyDict
                            ?? throw new JinjaFault($"{name} of {JinjaValues.TypeName(p)} is not supported")
                    )
                        values[key] = value;
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
