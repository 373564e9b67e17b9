using System.Globalization;
using System.Text;

namespace Headroom.Tokenizers.Chat;

internal sealed partial class JinjaInterpreter
{
    /// <summary>
    /// The filters that are built, and the arguments each takes; null = it looks at them itself. Any other is refused
    /// by its name when the template is parsed.
    /// </summary>
    internal static readonly Dictionary<string, string[]?> Filters = new()
    {
        ["abs"] = [],
        ["batch"] = ["linecount", "fill_with"],
        ["capitalize"] = [],
        ["count"] = [],
        ["d"] = ["default_value", "boolean"],
        ["default"] = ["default_value", "boolean"],
        ["dictsort"] = ["case_sensitive", "by", "reverse"],
        ["first"] = [],
        ["float"] = ["default"],
        ["indent"] = ["width", "first", "blank"],
        ["int"] = ["default"],
        ["items"] = [],
        ["join"] = ["d", "attribute"],
        ["last"] = [],
        ["length"] = [],
        ["list"] = [],
        ["lower"] = [],
        ["map"] = null,
        ["max"] = ["case_sensitive", "attribute"],
        ["min"] = ["case_sensitive", "attribute"],
        ["reject"] = null,
        ["rejectattr"] = null,
        ["replace"] = ["old", "new", "count"],
        ["reverse"] = [],
        ["round"] = ["precision", "method"],
        ["safe"] = [],
        ["select"] = null,
        ["selectattr"] = null,
        ["slice"] = ["slices", "fill_with"],
        ["sort"] = ["reverse", "case_sensitive", "attribute"],
        ["string"] = [],
        ["sum"] = ["attribute", "start"],
        ["title"] = [],
        ["tojson"] = ["ensure_ascii", "indent", "separators", "sort_keys"],
        ["trim"] = ["chars"],
        ["unique"] = ["case_sensitive", "attribute"],
        ["upper"] = [],
    };

    /// <summary>The tests that are built, and how many arguments each takes.</summary>
    internal static readonly Dictionary<string, int> Tests = new()
    {
        ["boolean"] = 0,
        ["callable"] = 0,
        ["defined"] = 0,
        ["escaped"] = 0,
        ["even"] = 0,
        ["false"] = 0,
        ["float"] = 0,
        ["integer"] = 0,
        ["iterable"] = 0,
        ["lower"] = 0,
        ["mapping"] = 0,
        ["none"] = 0,
        ["number"] = 0,
        ["odd"] = 0,
        ["sequence"] = 0,
        ["string"] = 0,
        ["true"] = 0,
        ["undefined"] = 0,
        ["upper"] = 0,
        ["divisibleby"] = 1,
        ["in"] = 1,
        ["sameas"] = 1,
        ["eq"] = 1,
        ["equalto"] = 1,
        ["=="] = 1,
        ["ne"] = 1,
        ["!="] = 1,
        ["lt"] = 1,
        ["lessthan"] = 1,
        ["<"] = 1,
        ["le"] = 1,
        ["<="] = 1,
        ["gt"] = 1,
        ["greaterthan"] = 1,
        [">"] = 1,
        ["ge"] = 1,
        [">="] = 1,
    };

    private object? Filter(string name, object? v, Args args) => Followed(name, v, args, Filtered(name, v, args));

    // jinja2 filters.py, each by its name there.
    private object? Filtered(string name, object? v, Args args)
    {
        if (!Filters.TryGetValue(name, out string[]? known))
            throw new JinjaFault($"the filter {name} is not supported");
        if (known != null) args.Done(known);
        switch (name)
        {
            case "trim":
                string text = _values.Str(v);
                Charge(text.Length);
                return Strip(text, Characters(args.Get(0, "chars", null), name), true, true);
            case "tojson": return ToJson(v, args);
            case "length" or "count": return Length(v);
            case "default" or "d":
                return v is Undefined || (JinjaValues.Truth(args.Get(1, "boolean", false)) && !JinjaValues.Truth(v))
                    ? args.Get(0, "default_value", "")
                    : v;
            case "join":
                var joined = Items(v);
                if (args.Get(1, "attribute", null) is { } path) joined = joined.Select(i => Path(i, path));
                return JoinAll(_values.Str(args.Get(0, "d", "")), joined.Select(_values.Str));
            case "upper" or "lower" or "capitalize": return StringMethod(_values.Str(v), name, args);
            case "title":
                string plain = _values.Str(v);
                return _marks?.Changed(plain, TitleWords(plain), name) ?? TitleWords(plain);
            case "replace":
                return Replace(
                    _values.Str(v), _values.Str(args.Get(0, "old")), _values.Str(args.Get(1, "new")),
                    args.Get(2, "count", null) is { } c ? Integer(c, "count") : -1);
            case "string" or "safe": return _values.Str(v);
            case "int": return ToInteger(v, args.Get(0, "default", 0L));
            case "float": return ToFloat(v, args.Get(0, "default", 0.0));
            case "abs": return Absolute(v);
            case "round": return Round(v, args.Get(0, "precision", 0L), args.Get(1, "method", "common"));
            case "indent":
                return IndentLines(
                    v as string ?? throw new JinjaFault($"indent of {JinjaValues.TypeName(v)}"),
                    args.Get(0, "width", 4L), JinjaValues.Truth(args.Get(1, "first", false)),
                    JinjaValues.Truth(args.Get(2, "blank", false)));
            case "map": return new PyIterator(Mapped(v, args));
            case "select" or "reject": return new PyIterator(Selected(v, args, name == "select", 0));
            case "selectattr" or "rejectattr": return new PyIterator(Selected(v, args, name == "selectattr", 1));
            default: return ListFilter(name, v, args);
        }
    }

    private object? ListFilter(string name, object? v, Args args)
    {
        switch (name)
        {
            case "list": return Items(v).ToList();
            case "items": return new PyIterator(Pairs(v));
            case "dictsort": return SortedPairs(v, args);
            case "sort":
                object? key = args.Get(2, "attribute", null);
                object?[] keys = key is string several ? several.Split(',') : [key];
                bool exact = JinjaValues.Truth(args.Get(1, "case_sensitive", false));
                return Sorted(
                    Items(v).ToList(), i => keys.Select(k => Folded(Path(i, k), exact)).ToList(),
                    args.Get(1, "case_sensitive", false), args.Get(0, "reverse", false));
            case "unique":
                return new PyIterator(
                    Unique(v, JinjaValues.Truth(args.Get(0, "case_sensitive", false)), args.Get(1, "attribute", null)));
            case "min" or "max":
                return Extreme(
                    v, name == "max", JinjaValues.Truth(args.Get(0, "case_sensitive", false)),
                    args.Get(1, "attribute", null));
            case "sum":
                object? total = args.Get(1, "start", 0L), of = args.Get(0, "attribute", null);
                if (total is string) throw new JinjaFault("sum of strings");
                foreach (object? item in Items(v)) total = Binary("+", total, of == null ? item : Path(item, of));
                return total;
            case "first":
                foreach (object? item in Items(v)) return item;
                return new Undefined("there is no first item and it");
            case "last":
                if (v is PyIterator) throw new JinjaFault("last of an iterator");
                return Items(v).ToList() is { Count: > 0 } ends
                    ? ends[^1]
                    : new Undefined("there is no last item and it");
            case "reverse":
                var reversed = Items(v).Reverse().ToList();
                return v is string
                    ? JoinAll("", reversed.Select(c => (string)c!))
                    : v is PyIterator ? reversed : new PyIterator(reversed);
            case "batch":
                return new PyIterator(
                    Batches(v, Integer(args.Get(0, "linecount"), "linecount"), args.Get(1, "fill_with", null)));
            case "slice":
                return new PyIterator(
                    Slices(v, Integer(args.Get(0, "slices"), "slices"), args.Get(1, "fill_with", null)));
            default: throw new JinjaFault($"the filter {name} is not supported");
        }
    }

    private static object? ToFloat(object? v, object? fallback)
    {
        if (v is Undefined u) throw new JinjaFault($"'{u.Name}' is undefined");
        double? read = v is string f ? PyText.ToFloat(f) : null;
        // jinja2 computes it where it stands in a template, and then finds no name for it.
        if (read is { } odd && !double.IsFinite(odd))
            throw new JinjaFault("float of a word for what is no number is not supported");
        return JinjaValues.Number(v) ?? read ?? fallback;
    }

    private static object Absolute(object? v) => v switch
    {
        long.MinValue => throw new JinjaFault("a number beyond 64 bits is not supported"),
        long or bool => (object)Math.Abs(JinjaValues.Whole(v)),
        double d => Math.Abs(d),
        _ => throw new JinjaFault($"abs of {JinjaValues.TypeName(v)}"),
    };

    private object? SortedPairs(object? v, Args args)
    {
        int by = args.Get(1, "by", "key") switch
        {
            "key" => 0,
            "value" => 1,
            _ => throw new JinjaFault("dictsort goes by key or by value"),
        };
        var pairs = v is PyDict dict
            ? new PyView(dict, "items").List()
            : throw new JinjaFault($"dictsort of {JinjaValues.TypeName(v)}");
        return Sorted(
            pairs, p => ((PyTuple)p!)[by], args.Get(0, "case_sensitive", false), args.Get(2, "reverse", false));
    }

    private string ToJson(object? v, Args args)
    {
        object? pair = args.Get(2, "separators", null);
        string? item = null, key = null;
        if (pair != null)
            (item, key) =
                pair is List<object?> { Count: 2 } two && two[0] is string first && two[1] is string second
                    ? (first, second)
                    : throw new JinjaFault("separators of tojson are two strings");
        string? indent = args.Get(1, "indent", null) switch
        {
            null => null,
            string s => s,
            bool b => b ? " " : "",
            long n when n <= 64 => new string(' ', (int)Math.Max(0, n)),
            _ => throw new JinjaFault("tojson with this indent is not supported"),
        };
        return _values.Json(
            v, indent, JinjaValues.Truth(args.Get(0, "ensure_ascii", false)),
            JinjaValues.Truth(args.Get(3, "sort_keys", false)), item, key);
    }

    private static long Length(object? v) => v switch
    {
        string s => JinjaValues.Length(s),
        List<object?> l => l.Count,
        PyDict d => d.Count,
        PyView view => view.Dict.Count,
        Undefined => 0L,
        LoopState => throw new JinjaFault("the length of the variable loop is not supported"),
        _ => throw new JinjaFault($"the length of {JinjaValues.TypeName(v)}"),
    };

    // do_title: a word begins after blanks, hyphens and opening brackets.
    private static string TitleWords(string s)
    {
        var text = new StringBuilder(s.Length);
        int from = 0;
        bool Between(char c) => c is '-' or '(' or '{' or '[' or '<' || JinjaLexer.IsSpace(c);
        for (int i = 0; i <= s.Length; i++)
        {
            if (i < s.Length && !Between(s[i])) continue;
            if (i > from)
            {
                int width = Width(s, from);
                text.Append(PyText.Upper(s.Substring(from, width))).Append(PyText.Lower(s[(from + width)..i]));
            }
            if (i < s.Length) text.Append(s[i]);
            from = i + 1;
        }
        return text.ToString();
    }

    private static object? ToInteger(object? v, object? fallback)
    {
        const string large = "an integer beyond 64 bits is not supported";
        try
        {
            switch (v)
            {
                case Undefined u: throw new JinjaFault($"'{u.Name}' is undefined");
                case long or bool: return JinjaValues.Whole(v);
                case double d:
                    if (double.IsInfinity(d)) throw new JinjaFault("an infinite float is no integer");
                    return double.IsNaN(d) ? fallback : Math.Abs(d) < 9.2e18 ? (long)d : throw new JinjaFault(large);
                case string s:
                    if (PyText.ToInteger(s) is { } n) return n;
                    return PyText.ToFloat(s) is { } real && double.IsFinite(real)
                        ? Math.Abs(real) < 9.2e18
                            ? (long)real
                            : throw new JinjaFault(large)
                        : fallback;
                default: return fallback;
            }
        }
        catch (OverflowException)
        {
            throw new JinjaFault(large);
        }
    }

    private static object Round(object? v, object? precision, object? method)
    {
        if (method is not ("common" or "ceil" or "floor"))
            throw new JinjaFault("the method of round is common, ceil or floor");
        if (JinjaValues.Number(v) is not { } x) throw new JinjaFault($"round of {JinjaValues.TypeName(v)}");
        long digits = Integer(precision, "precision");
        if (method is "common" && v is long or bool && digits >= 0) return JinjaValues.Whole(v);
        if (method is "common" && v is not double) throw new JinjaFault("round of an integer to tens is not supported");
        if (method is not "common")
        {
            double scale = digits is >= 0 and <= 22
                ? Math.Pow(10, digits)
                : throw new JinjaFault("round with this precision is not supported");
            if (v is long && Math.Abs(x * scale) > 1L << 53)
                throw new JinjaFault("round of an integer beyond 53 bits is not supported");
            double scaled = method is "ceil" ? Math.Ceiling(x * scale) : Math.Floor(x * scale);
            return double.IsFinite(scaled)
                ? (scaled == 0 ? 0.0 : scaled) / scale
                : throw new JinjaFault("round of what is no number");
        }
        if (!double.IsFinite(x) || digits is < 0 or > 15 || Math.Abs(x) >= 1e15)
            throw new JinjaFault("round of this number is not supported");
        // By the exact decimal value, halves to even, as Python's round.
        string exact = x.ToString(
                "F" + (digits + 30).ToString(CultureInfo.InvariantCulture),
                CultureInfo.InvariantCulture
            ),
            kept = exact[..^30];
        string near = x.ToString("F" + digits.ToString(CultureInfo.InvariantCulture), CultureInfo.InvariantCulture);
        if (
            exact[^30] == '5'
            && exact.AsSpan()[^29..].IndexOfAnyExcept('0') < 0
            && (kept.TrimEnd('.')[^1] - '0') % 2 == 0
        )
            near = kept.TrimEnd('.');
        return double.Parse(near, CultureInfo.InvariantCulture);
    }

    private static IEnumerable<object?> Pairs(object? v)
    {
        if (v is Undefined) yield break;
        foreach (
            object? pair in v is PyDict d
                ? new PyView(d, "items").List()
                : throw new JinjaFault($"items of {JinjaValues.TypeName(v)}")
        )
            yield return pair;
    }

    private static object? Folded(object? key, bool caseSensitive) =>
        key is string s && !caseSensitive ? PyText.Lower(s) : key;

    private List<object?> Sorted(
        List<object?> items, Func<object?, object?> key, object? caseSensitive, object? reverse)
    {
        if (reverse is not (bool or long)) throw new JinjaFault("reverse is not a boolean");
        bool exact = JinjaValues.Truth(caseSensitive), backwards = JinjaValues.Truth(reverse);
        var keyed = items.Select(i => (Key: Folded(key(i), exact), Item: i)).ToList();
        // Stable, and in reverse too. A list of one is never compared.
        int Compare(object? a, object? b) =>
            _values.Order(a, b) ?? throw new JinjaFault("an order with nan is not supported");
        var comparer = Comparer<object?>.Create(Compare);
        for (int i = 1; i < keyed.Count; i++) Compare(keyed[i].Key, keyed[i - 1].Key);
        return (backwards ? keyed.OrderByDescending(p => p.Key, comparer) : keyed.OrderBy(p => p.Key, comparer))
            .Select(p => p.Item)
            .ToList();
    }

    private IEnumerable<object?> Unique(object? v, bool exact, object? attribute)
    {
        var seen = new List<object?>();
        foreach (object? item in Items(v))
        {
            object? key = Folded(Path(item, attribute), exact);
            Hashable(key);
            Charge(seen.Count);
            if (key is Undefined) throw new JinjaFault("unique of undefined values is not supported");
            if (seen.Exists(s => _values.Equal(s, key))) continue;
            seen.Add(key);
            yield return item;
        }
    }

    private object? Extreme(object? v, bool most, bool exact, object? attribute)
    {
        object? best = null, bestKey = null;
        bool any = false;
        foreach (object? item in Items(v))
        {
            object? key = Folded(Path(item, attribute), exact);
            if (any && !(_values.Order(key, bestKey) is { } order && (most ? order > 0 : order < 0))) continue;
            (best, bestKey, any) = (item, key, true);
        }
        return any ? best : new Undefined("there is no item, and its greatest");
    }

    private IEnumerable<object?> Batches(object? v, long size, object? fill)
    {
        var batch = new List<object?>();
        foreach (object? item in Items(v))
        {
            if (batch.Count == size)
            {
                yield return batch;
                batch = [];
            }
            batch.Add(item);
        }
        if (batch.Count == 0) yield break;
        if (fill != null) while (batch.Count < size) { Charge(Step); batch.Add(fill); }
        yield return batch;
    }

    private IEnumerable<object?> Slices(object? v, long slices, object? fill)
    {
        var all = Items(v).ToList();
        if (slices == 0) throw new JinjaFault("a division by zero");
        if (slices < 0) yield break;
        long each = all.Count / slices, more = all.Count % slices;
        for (long i = 0, from = 0; i < slices; i++)
        {
            Charge(Step);
            long size = each + (i < more ? 1 : 0);
            var part = all.GetRange((int)from, (int)size);
            if (fill != null && i >= more) part.Add(fill);
            from += size;
            yield return part;
        }
    }

    // Nothing of what counts as false, whatever it is.
    private IEnumerable<object?> Mapped(object? v, Args args)
    {
        if (!JinjaValues.Truth(v)) yield break;
        if (args.Count == 0 && args.Named.TryGetValue("attribute", out object? attribute))
        {
            args.Done(["attribute", "default"]);
            object? fallback = args.Named.GetValueOrDefault("default");
            foreach (object? item in Items(v)) yield return Path(item, attribute, fallback);
            yield break;
        }
        string mapped = args.Text(0, "filter");
        if (mapped is "safe") throw new JinjaFault("the filter safe in map is not supported");
        foreach (object? item in Items(v)) yield return Filter(mapped, item, args.Skip(1));
    }

    private IEnumerable<object?> Selected(object? v, Args args, bool keep, int attribute)
    {
        if (!JinjaValues.Truth(v)) yield break;
        if (args.Count < attribute) throw new JinjaFault("the name of the attribute is missing");
        foreach (object? item in Items(v))
        {
            object? asked = attribute == 1 ? Path(item, args.Positional[0]) : item;
            bool holds =
                args.Count == attribute
                    ? JinjaValues.Truth(asked)
                    : Test(args.Text(attribute, "test"), asked, args.Skip(attribute + 1));
            if (holds == keep) yield return item;
        }
    }

    // make_attrgetter: an attribute with dots walks down, a number indexes, no attribute is the item itself; what is
    // missing on the way is an error, at the end undefined (or the fallback).
    private object? Path(object? item, object? path, object? fallback = null)
    {
        if (path == null) return item;
        object?[] parts = path is string s
            ? s.Split('.')
                .Select(p =>
                    PyText.All(p, "isdigit")
                        ? PyText.ToInteger(p) ?? throw new JinjaFault("an attribute is no number")
                        : (object?)p
                )
                .ToArray()
            : [path];
        foreach (object? part in parts)
        {
            item = Item(item, part);
            if (fallback != null && item is Undefined) item = fallback;
        }
        return item;
    }

    // do_indent
    private string IndentLines(string s, object? width, bool first, bool blank)
    {
        string pad = width switch
        {
            string w => w,
            long n when n <= 1024 => new string(' ', (int)Math.Max(0, n)),
            bool b => b ? " " : "",
            _ => throw new JinjaFault("indent with this width is not supported"),
        };
        var lines = Lines(Join(s, "\n"), false);
        Charge(s.Length + (long)lines.Count * pad.Length);
        var text = new TextBuilder(_marks);
        for (int i = 0; i < lines.Count; i++)
        {
            string line = (string)lines[i]!;
            if (i > 0) text.Append('\n');
            if (i == 0 ? first : blank || line.Length > 0) text.Append(pad);
            text.Append(line);
        }
        return text.ToString();
    }

    private bool Test(string name, object? v, Args args)
    {
        if (!Tests.TryGetValue(name, out int takes)) throw new JinjaFault($"the test {name} is not supported");
        if (args.Named.Count > 0) throw new JinjaFault("an argument of a test by name is not supported");
        if (args.Count != takes) throw new JinjaFault($"the test {name} takes {takes} arguments");
        object? other = takes > 0 ? args.Positional[0] : null;
        switch (name)
        {
            case "defined": return v is not Undefined;
            case "undefined": return v is Undefined;
            case "none": return v is null;
            case "string": return v is string;
            case "mapping": return v is PyDict;
            case "iterable":
                return v is string or PyDict or List<object?> or Undefined or PyView or PyIterator or LoopState;
            case "sequence": return v is string or PyDict or List<object?> or Undefined;
            case "number": return v is bool or long or double;
            case "integer": return v is long;
            case "float": return v is double;
            case "boolean": return v is bool;
            case "true": return v is true;
            case "false": return v is false;
            case "escaped": return false;
            case "callable": return v is BoundMethod or BoundMacro or Undefined or LoopState;
            case "lower" or "upper": return PyText.AllOfCase(_values.Str(v), name == "lower");
            case "odd": return _values.Equal(Binary("%", v, 2L), 1L);
            case "even": return _values.Equal(Binary("%", v, 2L), 0L);
            case "divisibleby": return _values.Equal(Binary("%", v, other), 0L);
            case "sameas": return Same(v, other);
            case "in": return Contains(other, v);
            case "eq" or "equalto": return Compare("==", v, other);
            case "ne": return Compare("!=", v, other);
            case "lt" or "lessthan": return Compare("<", v, other);
            case "le": return Compare("<=", v, other);
            case "gt" or "greaterthan": return Compare(">", v, other);
            case "ge": return Compare(">=", v, other);
            default: return Compare(name, v, other);
        }
    }

    // Identity. Of equal numbers and strings it hangs on what Python happens to share.
    private static bool Same(object? v, object? other) => (v, other) switch
    {
        (null, null) or (true, true) or (false, false) => true,
        (long a, long b) when a == b && a is < -5 or > 256 => throw new JinjaFault(
            "sameas of equal integers is not supported"),
        (long a, long b) => a == b,
        (string s, string t) when s == t => throw new JinjaFault("sameas of equal strings is not supported"),
        (double d, double e) when d.Equals(e) => throw new JinjaFault("sameas of equal floats is not supported"),
        (PyTuple { Count: 0 }, PyTuple { Count: 0 }) => true,
        _ => ReferenceEquals(v, other),
    };
}
