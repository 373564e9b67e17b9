using System.Globalization;

namespace Headroom.Formats.Chat;

internal sealed partial class JinjaInterpreter
{
    private object? Filter(string name, object? v, Args args)
    {
        switch (name)
        {
            case "trim":
                args.Done(["chars"]);
                string text = _values.Str(v);
                Charge(text.Length);
                return Strip(text, args.Get(0, "chars", null) as string, true, true);
            case "tojson":
                args.Done(["ensure_ascii", "indent", "separators", "sort_keys"]);
                var pair = args.Get(2, "separators", null) as List<object?>;
                return _values.Json(v, Indent(args.Get(1, "indent", null)), JinjaValues.Truth(args.Get(0, "ensure_ascii", false)), JinjaValues.Truth(args.Get(3, "sort_keys", false)), pair?[0] as string, pair?.ElementAtOrDefault(1) as string);
            case "length" or "count":
                args.Done([]);
                return v switch
                {
                    string s => (long)JinjaValues.Length(s),
                    List<object?> l => (long)l.Count,
                    PyDict d => (long)d.Count,
                    Undefined => 0L,
                    _ => throw new JinjaFault($"the length of {JinjaValues.TypeName(v)}"),
                };
            case "default" or "d":
                args.Done(["default_value", "boolean"]);
                return v is Undefined || (JinjaValues.Truth(args.Get(1, "boolean", false)) && !JinjaValues.Truth(v)) ? args.Get(0, "default_value", "") : v;
            case "join":
                args.Done(["d", "attribute"]);
                var joined = Items(v).AsEnumerable();
                if (args.Get(1, "attribute", null) is { } path) joined = joined.Select(i => Path(i, path));
                return JoinAll(_values.Str(args.Get(0, "d", "")), joined.Select(_values.Str));
            case "upper" or "lower" or "capitalize" or "title":
                args.Done([]);
                return StringMethod(_values.Str(v), name, args);
            case "replace":
                args.Done(["old", "new", "count"]);
                return Replace(_values.Str(v), args.Text(0, "old"), args.Text(1, "new"), args.Get(2, "count", -1L) is long c ? c : -1);
            case "list":
                args.Done([]);
                return Items(v).ToList();
            case "items":
                args.Done([]);
                return v switch { Undefined => [], PyDict d => Pairs(d), _ => throw new JinjaFault($"items of {JinjaValues.TypeName(v)}") };
            case "dictsort":
                args.Done([]);
                return v is PyDict sorted ? Pairs(sorted).OrderBy(p => ((string)((PyTuple)p!)[0]!).ToLowerInvariant(), StringComparer.Ordinal).ToList() : throw new JinjaFault($"dictsort of {JinjaValues.TypeName(v)}");
            case "first" or "last":
                args.Done([]);
                var ends = Items(v);
                return ends.Count == 0 ? new Undefined($"there is no {name} item and it") : ends[name == "first" ? 0 : ^1];
            case "reverse":
                args.Done([]);
                var reversed = Items(v).AsEnumerable().Reverse().ToList();
                return v is string ? string.Concat(reversed) : reversed;
            case "string":
                args.Done([]);
                return _values.Str(v);
            case "safe":
                args.Done([]);
                return v;
            case "int":
                args.Done(["default"]);
                return v switch
                {
                    long or bool => JinjaValues.Whole(v),
                    double d when Math.Abs(d) < 9e18 => (long)d,
                    string s when long.TryParse(s.Trim(), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long n) => n,
                    string s when double.TryParse(s, NumberStyles.Float, CultureInfo.InvariantCulture, out double d) && Math.Abs(d) < 9e18 => (long)d,
                    _ => args.Get(0, "default", 0L),
                };
            case "float":
                args.Done(["default"]);
                return JinjaValues.Number(v) ?? (v is string f && double.TryParse(f, NumberStyles.Float, CultureInfo.InvariantCulture, out double real) ? real : args.Get(0, "default", 0.0));
            case "abs":
                args.Done([]);
                return v switch { long l when l != long.MinValue => (object)Math.Abs(l), double d => Math.Abs(d), _ => throw new JinjaFault($"abs of {JinjaValues.TypeName(v)}") };
            case "indent":
                args.Done(["width", "first", "blank"]);
                return IndentLines(_values.Str(v), args.Get(0, "width", 4L), JinjaValues.Truth(args.Get(1, "first", false)), JinjaValues.Truth(args.Get(2, "blank", false)));
            case "map":
                if (args.Named.TryGetValue("attribute", out object? attribute))
                {
                    args.Done(["attribute", "default"]);
                    bool has = args.Named.TryGetValue("default", out object? fallback);
                    return Items(v).Select(i => Path(i, attribute) is var got && got is Undefined && has ? fallback : got).ToList();
                }
                string mapped = args.Text(0, "filter");
                return Items(v).Select(i => Filter(mapped, i, args.Skip(1))).ToList();
            case "select" or "reject":
                return Items(v).Where(i => (args.Count == 0 ? JinjaValues.Truth(i) : Test(args.Text(0, "test"), i, args.Skip(1))) == (name == "select")).ToList();
            case "selectattr" or "rejectattr":
                object? by = args.Get(0, "attribute");
                return Items(v).Where(i => (args.Count == 1 ? JinjaValues.Truth(Path(i, by)) : Test(args.Text(1, "test"), Path(i, by), args.Skip(2))) == (name == "selectattr")).ToList();
            default: throw new JinjaFault($"the filter {name} is not supported");
        }
    }

    private static int? Indent(object? v) => v switch { null => null, long n and >= 0 and <= 64 => (int)n, _ => throw new JinjaFault("tojson with this indent is not supported") };

    // An attribute with dots walks down; a number indexes.
    private object? Path(object? item, object? path)
    {
        if (path is long i) return Item(item, i);
        foreach (string part in (path as string ?? throw new JinjaFault("an attribute is not a string")).Split('.'))
            item = item is Undefined ? item : long.TryParse(part, NumberStyles.None, CultureInfo.InvariantCulture, out long n) ? Item(item, n) : Item(item, part);
        return item;
    }

    private string IndentLines(string s, object? width, bool first, bool blank)
    {
        string pad = width switch { string w => w, long n and >= 0 and <= 1024 => new string(' ', (int)n), _ => throw new JinjaFault("indent with this width is not supported") };
        var lines = (s + "\n").Split('\n')[..^1];
        Charge(s.Length + (long)lines.Length * pad.Length);
        for (int i = 0; i < lines.Length; i++)
            if ((i > 0 || first) && (blank || i == 0 || lines[i].Length > 0)) lines[i] = pad + lines[i];
        return string.Join('\n', lines);
    }

    private bool Test(string name, object? v, Args args)
    {
        object? Other() => args.Get(0, "other");
        switch (name)
        {
            case "defined": return v is not Undefined;
            case "undefined": return v is Undefined;
            case "none": return v is null;
            case "string": return v is string;
            case "mapping": return v is PyDict;
            case "iterable" or "sequence": return v is string or PyDict or List<object?> or Undefined;
            case "number": return v is bool or long or double;
            case "integer": return v is long;
            case "float": return v is double;
            case "boolean": return v is bool;
            case "true": return v is true;
            case "false": return v is false;
            case "callable": return v is BoundMethod or BoundMacro;
            case "lower": return _values.Str(v) is var l && l.Any(char.IsLower) && !l.Any(char.IsUpper);
            case "upper": return _values.Str(v) is var u && u.Any(char.IsUpper) && !u.Any(char.IsLower);
            case "odd": return JinjaValues.Truth(Compare("==", Binary("%", v, 2L), 1L));
            case "even": return JinjaValues.Truth(Compare("==", Binary("%", v, 2L), 0L));
            case "divisibleby": return Compare("==", Binary("%", v, Other()), 0L);
            case "sameas":
                return (v, Other()) is (null, null) or (true, true) or (false, false) || ReferenceEquals(v, Other()) || (v is long a && Other() is long b && a == b) || (v is string s && Other() is string t && s == t);
            case "in": return Contains(Other(), v);
            case "eq" or "equalto" or "==": return Compare("==", v, Other());
            case "ne" or "!=": return Compare("!=", v, Other());
            case "lt" or "lessthan" or "<": return Compare("<", v, Other());
            case "le" or "<=": return Compare("<=", v, Other());
            case "gt" or "greaterthan" or ">": return Compare(">", v, Other());
            case "ge" or ">=": return Compare(">=", v, Other());
            default: throw new JinjaFault($"the test {name} is not supported");
        }
    }
}
