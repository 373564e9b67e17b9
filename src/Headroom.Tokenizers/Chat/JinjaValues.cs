using System.Collections;
using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Headroom.Core;

namespace Headroom.Tokenizers.Chat;

/// <summary>A name or attribute that does not exist; prints as nothing, is false, and cannot be used further.</summary>
internal sealed record Undefined(string Name);

/// <summary>A Python tuple; differs from a list in how it prints.</summary>
internal sealed class PyTuple(IEnumerable<object?> items) : List<object?>(items);

/// <summary>A Python dict: keeps the order of insertion.</summary>
internal sealed class PyDict : OrderedDictionary<string, object?>;

/// <summary>namespace(...): the one kind of object a loop can assign to.</summary>
internal sealed class PyNamespace
{
    public PyDict Values { get; } = [];
}

/// <summary>A method of a string or dict that was looked up but not called yet.</summary>
internal sealed record BoundMethod(object Target, string Name);

/// <summary>A macro with the scope it was defined in.</summary>
internal sealed record BoundMacro(MacroStmt Macro, JinjaScope Scope);

/// <summary>range(...): prints as such.</summary>
internal sealed class PyRange(long start, long stop, long step, IEnumerable<object?> numbers) : List<object?>(numbers)
{
    public override string ToString() => step == 1 ? $"range({start}, {stop})" : $"range({start}, {stop}, {step})";
}

/// <summary>keys(), values() or items() of a dict.</summary>
internal sealed record PyView(PyDict Dict, string Kind)
{
    public List<object?> List() => Kind switch
    {
        "keys" => Dict.Keys.Select(k => (object?)k).ToList(),
        "values" => Dict.Values.ToList(),
        _ => Dict.Select(p => (object?)new PyTuple([p.Key, p.Value])).ToList(),
    };
}

/// <summary>A generator or other iterator of Python: gives its items once, is always true and has no length.</summary>
internal sealed class PyIterator(IEnumerable<object?> items)
{
    private readonly IEnumerator<object?> _items = items.GetEnumerator();

    /// <summary>What is left; asking takes it.</summary>
    public IEnumerable<object?> Rest()
    {
        while (_items.MoveNext()) yield return _items.Current;
    }
}

/// <summary>
/// The variable loop; takes its items one by one, and looks ahead only when asked to (jinja2 <c>runtime.py</c>,
/// LoopContext).
/// </summary>
internal sealed class LoopState(IEnumerable<object?> source, int? length)
{
    private IEnumerator<object?> _source = source.GetEnumerator();
    private object? _before = new Undefined("there is no previous item"),
        _now = new Undefined("there is no previous item"),
        _after;
    private bool _peeked;
    private int? _length = length;

    public int Index { get; private set; } = -1;
    public object? Changed { get; set; } = new object();

    /// <summary>Goes on to the next item.</summary>
    public bool Next(out object? item)
    {
        bool any = Peek();
        item = any ? _after : null;
        if (!any) return false;
        _peeked = false;
        Index++;
        (_before, _now) = (_now, item);
        return true;
    }

    private bool Peek()
    {
        if (_peeked) return true;
        if (!_source.MoveNext()) return false;
        _after = _source.Current;
        return _peeked = true;
    }

    private int Length()
    {
        if (_length is { } known) return known;
        var rest = new List<object?>();
        while (_source.MoveNext()) rest.Add(_source.Current);
        _source = rest.GetEnumerator();
        return (_length = rest.Count + Index + 1 + (_peeked ? 1 : 0)).Value;
    }

    public object? Get(string name) => name switch
    {
        "index0" => (long)Index,
        "index" => (long)Index + 1,
        "revindex0" => (long)Length() - Index - 1,
        "revindex" => (long)Length() - Index,
        "first" => Index == 0,
        "last" => !Peek(),
        "length" => (long)Length(),
        "depth" => 1L,
        "depth0" => 0L,
        "previtem" => Index > 0 ? _before : new Undefined("there is no previous item"),
        "nextitem" => Peek() ? _after : new Undefined("there is no next item"),
        "cycle" or "changed" => new BoundMethod(this, name),
        _ => new Undefined("loop." + name),
    };
}

/// <summary>Variables; a name is looked up from the inside out, and set where the set tag stands.</summary>
internal sealed class JinjaScope(JinjaScope? outer)
{
    private readonly Dictionary<string, object?> _values = [];

    public void Set(string name, object? value) => _values[name] = value;

    public bool TryGet(string name, out object? value)
    {
        for (var s = this; s != null; s = s.Outer) if (s._values.TryGetValue(name, out value)) return true;
        value = null;
        return false;
    }

    private JinjaScope? Outer => outer;
}

/// <summary>
/// Python's ideas of truth, equality and text, over long, double, bool, string, <see cref="PyDict"/> and lists.
/// </summary>
internal sealed class JinjaValues(Action<long> charge, Provenance? marks = null)
{
    /// <summary>JSON to values.</summary>
    /// <param name="node">The JSON.</param>
    /// <param name="text">What is made of each text, and of each name of an object; null: they stay.</param>
    public static object? From(JsonNode? node, Func<string, string>? text = null)
    {
        switch (node)
        {
            case null: return null;
            case JsonArray a: return a.Select(n => From(n, text)).ToList();
            case JsonObject o:
                var dict = new PyDict();
                foreach (var (key, value) in o) dict[text?.Invoke(key) ?? key] = From(value, text);
                return dict;
            default:
                var v = node.AsValue();
                if (v.TryGetValue(out bool b)) return b;
                if (v.TryGetValue(out string? s)) return text?.Invoke(s) ?? s;
                if (v.TryGetValue(out long l)) return l;
                if (v.TryGetValue(out int i)) return (long)i;
                if (v.ToJsonString() is var written && !written.AsSpan().ContainsAny(".eE"))
                    throw new HeadroomException(
                        $"The number {written} among the template's variables has more than 64 bits, which is not "
                            + $"supported.",
                        "Give it as a text.");
                return v.GetValue<double>();
        }
    }

    public static bool Truth(object? v) => v switch
    {
        null or Undefined => false,
        bool b => b,
        long l => l != 0,
        double d => d != 0,
        string s => s.Length > 0,
        ICollection c => c.Count > 0,
        PyView view => view.Dict.Count > 0,
        _ => true,
    };

    /// <summary>Python's name of the type, for messages.</summary>
    public static string TypeName(object? v) => v switch
    {
        null => "none",
        Undefined => "an undefined value",
        bool => "a boolean",
        long => "an integer",
        double => "a float",
        string => "a string",
        PyDict => "a mapping",
        PyTuple => "a tuple",
        PyRange => "a range",
        PyView => "a view of a mapping",
        PyIterator => "an iterator",
        LoopState => "the variable loop",
        PyNamespace => "a namespace",
        List<object?> => "a list",
        BoundMethod or BoundMacro => "a function",
        _ => "an object",
    };

    /// <summary>Length in code points, as Python counts.</summary>
    public static int Length(string s)
    {
        int n = s.Length;
        for (int i = 1; i < s.Length; i++) if (char.IsLowSurrogate(s[i]) && char.IsHighSurrogate(s[i - 1])) n--;
        return n;
    }

    /// <summary>Code points, each as a string.</summary>
    public List<object?> Characters(string s)
    {
        charge(s.Length);
        var all = new List<object?>(s.Length);
        for (int i = 0; i < s.Length; i++)
        {
            int n = char.IsHighSurrogate(s[i]) && i + 1 < s.Length && char.IsLowSurrogate(s[i + 1]) ? 2 : 1;
            all.Add(marks?.Cut(s, i, i + n) ?? s.Substring(i, n));
            i += n - 1;
        }
        return all;
    }

    public bool Equal(object? a, object? b)
    {
        charge(8);
        if (Number(a) is not null && Number(b) is not null) return Order(a, b) == 0;
        switch (a, b)
        {
            case (null, null) or (Undefined, Undefined): return true;
            case (string s, string t): return s == t;
            case (List<object?> l, List<object?> m):
                if (l.Count != m.Count || l.GetType() != m.GetType()) return false;
                Deep();
                for (int i = 0; i < l.Count; i++) if (!Equal(l[i], m[i])) return false;
                return true;
            case (PyDict d, PyDict e):
                if (d.Count != e.Count) return false;
                Deep();
                foreach (var (key, value) in d)
                    if (!e.TryGetValue(key, out object? other) || !Equal(value, other))
                        return false;
                return true;
            case (PyView, PyView) or (BoundMethod, BoundMethod):
                throw new JinjaFault($"comparing {TypeName(a)} with {TypeName(b)} is not supported");
            default: return ReferenceEquals(a, b);
        }
    }

    /// <summary>
    /// Which of two comes first (below 0: the first, 0: neither); null where one is not a number. Throws where Python
    /// has no order.
    /// </summary>
    public int? Order(object? a, object? b)
    {
        charge(8);
        if (Number(a) is { } x && Number(b) is { } y)
        {
            if (a is not double && b is not double) return Whole(a!).CompareTo(Whole(b!));
            if (double.IsNaN(x) || double.IsNaN(y)) return null;
            // A whole number that is no double is compared as it is.
            if (a is long l && (double)l == y && Math.Abs(y) < 9.2e18) return l.CompareTo((long)y);
            if (b is long m && (double)m == x && Math.Abs(x) < 9.2e18) return ((long)x).CompareTo(m);
            return x.CompareTo(y);
        }
        if (a is string s && b is string t) return PyText.Compare(s, t);
        if (a is List<object?> k and not PyRange && b is List<object?> n && k.GetType() == n.GetType())
        {
            Deep();
            for (int i = 0; i < k.Count && i < n.Count; i++) if (!Equal(k[i], n[i])) return Order(k[i], n[i]);
            return k.Count.CompareTo(n.Count);
        }
        if (a is Undefined u || (b is Undefined v && (u = v) != null)) throw new JinjaFault($"'{u.Name}' is undefined");
        if (a is PyView && b is PyView) throw new JinjaFault("an order of views is not supported");
        throw new JinjaFault($"no order of {TypeName(a)} and {TypeName(b)}");
    }

    public static double? Number(object? v) => v switch { bool b => b ? 1 : 0, long l => l, double d => d, _ => null };
    public static long Whole(object v) => v is bool b ? b ? 1 : 0 : (long)v;

    /// <summary>str(v).</summary>
    public string Str(object? v)
    {
        if (v is string s) return s;
        if (v is Undefined) return "";
        var text = new TextBuilder(marks);
        Repr(v, text);
        return text.ToString();
    }

    private void Repr(object? v, TextBuilder to)
    {
        charge(8);
        switch (v)
        {
            case null: to.Append("None"); break;
            case Undefined: to.Append("Undefined"); break;
            case bool b: to.Append(b ? "True" : "False"); break;
            case long l: to.Append(l.ToString(CultureInfo.InvariantCulture)); break;
            case double d: to.Append(Float(d, "inf", "nan")); break;
            case string s:
                charge(s.Length);
                Quote(s, to);
                break;
            case PyRange range: to.Append(range.ToString()); break;
            case PyView view:
                to.Append("dict_").Append(view.Kind).Append('(');
                Repr(view.List(), to);
                to.Append(')');
                break;
            case List<object?> list:
                Deep();
                to.Append(list is PyTuple ? '(' : '[');
                for (int i = 0; i < list.Count; i++)
                {
                    if (i > 0) to.Append(", ");
                    Repr(list[i], to);
                }
                if (list is PyTuple && list.Count == 1) to.Append(',');
                to.Append(list is PyTuple ? ')' : ']');
                break;
            case PyDict dict:
                Deep();
                to.Append('{');
                int n = 0;
                foreach (var (key, value) in dict)
                {
                    if (n++ > 0) to.Append(", ");
                    Quote(key, to);
                    to.Append(": ");
                    Repr(value, to);
                }
                to.Append('}');
                break;
            default: throw new JinjaFault($"writing out {TypeName(v)} is not supported");
        }
    }

    // repr of a string: single quotes unless it holds one and no double quote; what cannot be printed is escaped.
    private static void Quote(string s, TextBuilder to)
    {
        char quote = s.Contains('\'') && !s.Contains('"') ? '"' : '\'';
        to.Append(quote);
        int at = 0;
        foreach (var rune in s.EnumerateRunes())
        {
            int c = rune.Value;
            to.AppendFor(
                c == quote || c == '\\' ? $"\\{(char)c}"
                : c == '\n' ? "\\n"
                : c == '\r' ? "\\r"
                : c == '\t' ? "\\t"
                : Printable.IsPrintable(rune) ? rune.ToString()
                : c < 256 ? $"\\x{c:x2}"
                : c < 65536 ? $"\\u{c:x4}"
                : $"\\U{c:x8}", s, at);
            at += rune.Utf16SequenceLength;
        }
        to.Append(quote);
    }

    /// <summary>repr of a float: the shortest digits that read back; an exponent below 1e-4 and from 1e16 on.</summary>
    public static string Float(double d, string infinity, string nan)
    {
        if (double.IsNaN(d)) return nan;
        if (double.IsInfinity(d)) return d > 0 ? infinity : "-" + infinity;
        if (d == 0) return double.IsNegative(d) ? "-0.0" : "0.0";
        // The exponent of the shortest digits, not of the exact value: 1e-07 is stored as 9.99...e-08.
        string[] shortest = Math.Abs(d).ToString("R", CultureInfo.InvariantCulture).Split('E');
        string whole = shortest[0].Split('.')[0], all = shortest[0].Replace(".", "", StringComparison.Ordinal);
        int exponent =
            (
                shortest.Length > 1
                    ? int.Parse(shortest[1], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture)
                    : 0
            )
            + whole.Length
            - 1
            - (all.Length - all.TrimStart('0').Length);
        string digits = all.Trim('0');
        string sign = d < 0 ? "-" : "";
        if (exponent is < -4 or >= 16)
            return $"{sign}{digits[0]}{(digits.Length > 1 ? "." + digits[1..] : "")}e{(exponent < 0 ? '-' : '+')}{Math.Abs(exponent):00}";
        if (exponent < 0) return sign + "0." + new string('0', -exponent - 1) + digits;
        if (digits.Length <= exponent + 1) return sign + digits.PadRight(exponent + 1, '0') + ".0";
        return sign + digits[..(exponent + 1)] + "." + digits[(exponent + 1)..];
    }

    /// <summary>json.dumps with ensure_ascii=False by default, as transformers defines the filter tojson.</summary>
    public string Json(
        object? v, string? indent, bool ascii, bool sort, string? itemSeparator = null, string? keySeparator = null)
    {
        var text = new TextBuilder(marks);
        Json(v, text, indent, 0, ascii, sort, itemSeparator ?? (indent == null ? ", " : ","), keySeparator ?? ": ");
        return text.ToString();
    }

    private void Json(
        object? v, TextBuilder to, string? indent, int depth, bool ascii, bool sort, string comma, string colon)
    {
        charge(8);
        void Line(int d)
        {
            if (indent == null) return;
            charge((long)indent.Length * d);
            to.Append('\n');
            for (; d > 0; d--) to.Append(indent);
        }
        switch (v)
        {
            case null: to.Append("null"); break;
            case bool b: to.Append(b ? "true" : "false"); break;
            case long l: to.Append(l.ToString(CultureInfo.InvariantCulture)); break;
            case double d: to.Append(Float(d, "Infinity", "NaN")); break;
            case string s: JsonText(s, to, ascii); break;
            case PyRange: throw new JinjaFault("a range cannot be written as JSON");
            case List<object?> { Count: 0 }: to.Append("[]"); break;
            case PyDict { Count: 0 }: to.Append("{}"); break;
            case List<object?> list:
                Deep();
                to.Append('[');
                for (int i = 0; i < list.Count; i++)
                {
                    if (i > 0) to.Append(comma);
                    Line(depth + 1);
                    Json(list[i], to, indent, depth + 1, ascii, sort, comma, colon);
                }
                Line(depth);
                to.Append(']');
                break;
            case PyDict dict:
                Deep();
                to.Append('{');
                int n = 0;
                foreach (
                    var (key, value) in sort
                        ? dict.OrderBy(p => p.Key, Comparer<string>.Create(PyText.Compare))
                        : (IEnumerable<KeyValuePair<string, object?>>)dict
                )
                {
                    if (n++ > 0) to.Append(comma);
                    Line(depth + 1);
                    JsonText(key, to, ascii);
                    to.Append(colon);
                    Json(value, to, indent, depth + 1, ascii, sort, comma, colon);
                }
                Line(depth);
                to.Append('}');
                break;
            default: throw new JinjaFault($"{TypeName(v)} cannot be written as JSON");
        }
    }

    private void JsonText(string s, TextBuilder to, bool ascii)
    {
        charge(s.Length);
        to.Append('"');
        int from = 0;
        for (int i = 0; i < s.Length; i++)
        {
            char c = s[i];
            string? escaped = c switch
            {
                '"' => "\\\"",
                '\\' => "\\\\",
                '\n' => "\\n",
                '\r' => "\\r",
                '\t' => "\\t",
                '\b' => "\\b",
                '\f' => "\\f",
                _ => c < ' ' || (ascii && c > '~') ? $"\\u{(int)c:x4}" : null,
            };
            if (escaped == null) continue;
            to.Append(s, from, i - from).AppendFor(escaped, s, i);
            from = i + 1;
        }
        to.Append(s, from, s.Length - from);
        to.Append('"');
    }

    /// <summary>Values can nest as deep as a template builds them.</summary>
    private static void Deep()
    {
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack()) throw new JinjaFault("a value is nested too deeply");
    }
}

/// <summary>A fault inside an expression; the interpreter adds the line.</summary>
internal sealed class JinjaFault(string why) : Exception(why);
