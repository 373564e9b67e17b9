using System.Runtime.CompilerServices;

namespace Headroom.Tokenizers.Chat;

internal sealed partial class JinjaInterpreter
{
    /// <summary>Tokens that transformers fills in, beside bos_token and eos_token.</summary>
    internal static readonly string[] SpecialTokenNames =
    [
        "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"];

    // Where no file tells which of them there are, never nothing in their place.
    private static readonly string[] NotKnown = [.. SpecialTokenNames, "additional_special_tokens"];

    private object? Eval(Expr e, JinjaScope scope)
    {
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack()) throw new JinjaFault("it is nested too deeply");
        Charge(Step);
        switch (e)
        {
            case LiteralExpr l: return l.Value;
            case NameExpr n: return Lookup(n.Name, scope);
            case ListExpr list:
                var items = list.Items.Select(i => Eval(i, scope));
                return list.Tuple ? new PyTuple(items) : items.ToList();
            case DictExpr d:
                var dict = new PyDict();
                foreach (var (key, value) in d.Items)
                    dict[
                        Eval(key, scope) as string
                            ?? throw new JinjaFault("a key that is not a string is not supported")
                    ] = Eval(value, scope);
                return dict;
            case AttributeExpr a: return Attribute(Eval(a.Target, scope), a.Name);
            case ItemExpr i: return Item(Eval(i.Target, scope), Eval(i.Index, scope));
            case SliceExpr s:
                return Slice(Eval(s.Target, scope), Part(s.Start, scope), Part(s.Stop, scope), Part(s.Step, scope));
            case CallExpr c: return Call(c, scope);
            case FilterExpr f: return Filter(f.Name, Eval(f.Target, scope), new Args(this, f.Arguments, scope));
            case TestExpr t:
                // Only defined-ness may be asked of an unknown name.
                bool holds =
                    t.Target is NameExpr asked && NotKnown.Contains(asked.Name) && !scope.TryGet(asked.Name, out _)
                        ? Test(t.Name, new Undefined(asked.Name), new Args([]))
                    : Test(t.Name, Eval(t.Target, scope), new Args(this, t.Arguments, scope));
                return holds != t.Not;
            case NotExpr n: return !JinjaValues.Truth(Eval(n.Value, scope));
            case LogicExpr l:
                object? left = Eval(l.Left, scope);
                return JinjaValues.Truth(left) == l.And ? Eval(l.Right, scope) : left;
            case ConditionalExpr c:
                return JinjaValues.Truth(Eval(c.Condition, scope)) ? Eval(c.Then, scope)
                    : c.Else != null ? Eval(c.Else, scope)
                    : new Undefined("the inline if-expression has no else and");
            case UnaryExpr u: return Signed(u.Op, Eval(u.Value, scope));
            case BinaryExpr b: return Binary(b.Op, Eval(b.Left, scope), Eval(b.Right, scope));
            case CompareExpr c:
                object? first = Eval(c.First, scope);
                foreach (var (op, next) in c.Rest)
                {
                    object? second = Eval(next, scope);
                    if (!Compare(op, first, second)) return false;
                    first = second;
                }
                return true;
            default: throw new JinjaFault($"the expression {e.GetType().Name} is not supported");
        }
    }

    private static object Signed(char sign, object? value) => (sign, value) switch
    {
        ('-', long and not long.MinValue and var v) => (object)-v, // else the arms would all be made double
        ('-', long) => throw new JinjaFault("an integer beyond 64 bits is not supported"),
        ('-', double v) => -v,
        ('-', bool v) => v ? -1L : 0L,
        ('+', long v) => v,
        ('+', double v) => v,
        (_, var v) => throw new JinjaFault($"{sign} of {JinjaValues.TypeName(v)}"),
    };

    private object? Lookup(string name, JinjaScope scope)
    {
        if (scope.TryGet(name, out object? v)) return v;
        if (NotKnown.Contains(name)) throw new JinjaFault($"the variable {name} is not supported");
        return
            name
                is "range"
                    or "namespace"
                    or "dict"
                    or "raise_exception"
                    or "strftime_now"
                    or "joiner"
                    or "cycler"
                    or "lipsum"
            ? new BoundMethod(this, name)
            : new Undefined(name);
    }

    // environment.getattr: an attribute of Python's type, then an item of that name. What the sandbox hides
    // (underscores, methods that change a list or dict) is undefined.
    private static object? Attribute(object? target, string name)
    {
        if (target is Undefined u)
            throw new JinjaFault(
                name.StartsWith("__", StringComparison.Ordinal)
                    ? $"{name} of an undefined value is not supported"
                    : $"'{u.Name}' is undefined"
            );
        if (!name.StartsWith('_'))
            switch (target)
            {
                case LoopState loop: return loop.Get(name);
                case PyNamespace ns: return ns.Values.TryGetValue(name, out object? n) ? n : new Undefined(name);
                case PyDict when DictMethods.Contains(name): return new BoundMethod(target, name);
                case string when StringMethods.Contains(name): return new BoundMethod(target, name);
                case List<object?>
                and not PyRange when ListMethods.Contains(name) && !(target is PyTuple && name == "copy"):
                    return new BoundMethod(target, name);
            }
        string[] others = name.StartsWith('_') ? [] : target switch
        {
            string => OtherStringMethods,
            PyDict => ["fromkeys"],
            PyRange => ["start", "stop", "step", "count", "index"],
            PyView => ["isdisjoint", "mapping"],
            PyIterator => ["close", "send", "throw"],
            BoundMacro => ["name", "arguments", "catch_kwargs", "catch_varargs", "caller", "explicit_caller"],
            bool or long =>
            [
                "real", "imag", "numerator", "denominator", "bit_length", "bit_count", "conjugate", "to_bytes",
                    "from_bytes", "as_integer_ratio", "is_integer"],
            double => ["real", "imag", "conjugate", "is_integer", "hex", "fromhex", "as_integer_ratio"],
            _ => [],
        };
        if (others.Contains(name)) throw new JinjaFault($"{name} of {JinjaValues.TypeName(target)} is not supported");
        if (target is PyDict dict && !HiddenDictMethods.Contains(name))
            return dict.TryGetValue(name, out object? d) ? d : new Undefined(name);
        return new Undefined($"{name} of {JinjaValues.TypeName(target)}");
    }

    // environment.getitem
    private object? Item(object? target, object? index)
    {
        switch (target, index)
        {
            case (Undefined u, _): throw new JinjaFault($"'{u.Name}' is undefined");
            case (PyDict dict, string key): return dict.TryGetValue(key, out object? v) ? v : Attribute(dict, key);
            case (PyDict, _): return new Undefined("item");
            case (List<object?> list, long or bool): return At(list, JinjaValues.Whole(index!));
            case (string s, long or bool): return At(_values.Characters(s), JinjaValues.Whole(index!));
            case (not null, string name): return Attribute(target, name);
            default: return new Undefined($"item of {JinjaValues.TypeName(target)}");
        }
    }

    private static object? At(List<object?> list, long i)
    {
        if (i < 0) i += list.Count;
        return i >= 0 && i < list.Count ? list[(int)i] : new Undefined($"item {i}");
    }

    private object? Part(Expr? e, JinjaScope scope) => e == null ? null : Eval(e, scope);

    // Python's rules: negative bounds count from the end, what lies outside is cut off.
    private object Slice(object? target, object? first, object? end, object? stride)
    {
        if (target is not (string or List<object?>))
            throw new JinjaFault($"{JinjaValues.TypeName(target)} cannot be sliced");
        if (new[] { first, end, stride }.Any(p => p is not (null or bool or long)))
            throw new JinjaFault("a slice bound is not an integer");
        static long? Bound(object? v) => v == null ? null : JinjaValues.Whole(v);
        long? start = Bound(first), stop = Bound(end);
        long step = Bound(stride) ?? 1;
        if (step == 0) throw new JinjaFault("a slice has the step 0");
        if (target is PyRange) throw new JinjaFault("a slice of a range is not supported");
        // Without surrogates a character is a code point, and a stretch of them is cut out as one.
        string? plain = step == 1 && target is string text && text.AsSpan().IndexOfAnyInRange('\uD800', '\uDFFF') < 0
            ? text : null;
        var source = plain != null ? [] : target as List<object?> ?? _values.Characters((string)target);
        long n = plain?.Length ?? source.Count, low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
        long Clip(long? v, long absent) => v is not { } x ? absent : Math.Clamp(x < 0 ? x + n : x, low, high);
        long from = Clip(start, step > 0 ? low : high), to = Clip(stop, step > 0 ? high : low);
        if (plain != null)
        {
            to = Math.Max(from, to);
            Charge(to - from);
            return Cut(plain, (int)from, (int)to);
        }
        var picked = new List<object?>();
        step = Math.Clamp(step, -n - 1, n + 1);
        for (long i = from; step > 0 ? i < to : i > to; i += step) picked.Add(source[(int)i]);
        Charge(picked.Count);
        return target is string ? JoinAll("", picked.Select(p => (string)p!))
            : target is PyTuple ? new PyTuple(picked)
            : picked;
    }

    private object Binary(string op, object? a, object? b)
    {
        if (op == "~") return Join(_values.Str(a), _values.Str(b));
        if (a is Undefined ua) throw new JinjaFault($"'{ua.Name}' is undefined");
        if (op == "%" && a is string) throw new JinjaFault("formatting with % is not supported");
        if (b is Undefined ub) throw new JinjaFault($"'{ub.Name}' is undefined");
        switch (op, a, b)
        {
            case ("+", string s, string t): return Join(s, t);
            case ("+", List<object?> l and not PyRange, List<object?> m) when l.GetType() == m.GetType():
                Charge(l.Count + m.Count);
                return l is PyTuple ? new PyTuple(l.Concat(m)) : l.Concat(m).ToList();
            case ("*", string s, long or bool): return Repeat(s, JinjaValues.Whole(b));
            case ("*", long or bool, string s): return Repeat(s, JinjaValues.Whole(a));
            case ("*", List<object?> l and not PyRange, long or bool): return Repeat(l, JinjaValues.Whole(b));
            case ("*", long or bool, List<object?> l and not PyRange): return Repeat(l, JinjaValues.Whole(a));
            case ("-", PyView, _) or ("-", _, PyView): throw new JinjaFault("- of views is not supported");
        }
        if (JinjaValues.Number(a) is not { } x || JinjaValues.Number(b) is not { } y)
            throw new JinjaFault($"{op} of {JinjaValues.TypeName(a)} and {JinjaValues.TypeName(b)}");
        return a is double || b is double ? Real(op, x, y) : Whole(op, JinjaValues.Whole(a!), JinjaValues.Whole(b!));
    }

    // Integers that a double may not hold: Python divides them before it rounds.
    private static bool BeyondDoubles(long i) => i is > 1L << 53 or < -(1L << 53);

    private static object Whole(string op, long i, long j)
    {
        if (op is "/" or "//" or "%" && j == 0) throw new JinjaFault("a division by zero");
        try
        {
            switch (op)
            {
                case "+": return checked(i + j);
                case "-": return checked(i - j);
                case "*": return checked(i * j);
                case "/":
                    if (BeyondDoubles(i) || BeyondDoubles(j))
                        throw new JinjaFault("a division of integers beyond 53 bits is not supported");
                    return (double)i / j;
                case "//": return checked(i / j) - (i % j != 0 && i < 0 != j < 0 ? 1 : 0);
                case "%": return j == -1 ? 0L : (i % j + j) % j;
                default:
                    if (j < 0) return Power(i, j);
                    if (i is 0 or 1) return j == 0 ? 1L : i;
                    if (i == -1) return j % 2 == 0 ? 1L : -1L;
                    long power = 1;
                    for (; j > 0; j--) power = checked(power * i);
                    return power;
            }
        }
        catch (OverflowException)
        {
            throw new JinjaFault("a number beyond 64 bits is not supported");
        }
    }

    // floatobject.c: float_floor_div, float_rem, float_pow.
    private static double Real(string op, double x, double y)
    {
        if (op is "/" or "//" or "%" && y == 0) throw new JinjaFault("a division by zero");
        switch (op)
        {
            case "+": return x + y;
            case "-": return x - y;
            case "*": return x * y;
            case "/": return x / y;
            case "**": return Power(x, y);
        }
        double rest = x % y, quotient = (x - rest) / y;
        if (rest != 0)
        {
            if (y < 0 != rest < 0)
            {
                rest += y;
                quotient -= 1;
            }
        }
        else rest = Math.CopySign(0, y);
        if (op == "%") return rest;
        if (quotient == 0) return Math.CopySign(0, x / y);
        double floor = Math.Floor(quotient);
        return quotient - floor > 0.5 ? floor + 1 : floor;
    }

    private static double Power(double x, double y)
    {
        if (x == 0 && y < 0) throw new JinjaFault("a power of zero with a negative exponent");
        if (x < 0 && !double.IsInfinity(x) && !double.IsInfinity(y) && y != Math.Floor(y))
            throw new JinjaFault("a complex number is not supported");
        double power = Math.Pow(x, y);
        return double.IsInfinity(power) && !double.IsInfinity(x) && !double.IsInfinity(y)
            ? throw new JinjaFault("a power is too large for a float")
            : power;
    }

    private object Repeat(List<object?> l, long n)
    {
        if (n < 0) n = 0;
        if (n > MostText) throw new JinjaFault("a list of that length is not supported");
        Charge(l.Count * n);
        var all = Enumerable.Repeat(l, (int)n).SelectMany(x => x);
        return l is PyTuple ? new PyTuple(all) : all.ToList();
    }

    private string Join(string a, string b)
    {
        Charge(a.Length + (long)b.Length);
        return _marks == null ? a + b : new TextBuilder(_marks).Append(a).Append(b).ToString();
    }

    private string Repeat(string s, long n)
    {
        if (n <= 0 || s.Length == 0) return "";
        if (n > MostText) throw new JinjaFault("a string of that length is not supported");
        Charge(s.Length * n);
        var text = new TextBuilder(_marks);
        for (; n > 0; n--) text.Append(s);
        return text.ToString();
    }

    private bool Compare(string op, object? a, object? b)
    {
        switch (op)
        {
            case "==": return _values.Equal(a, b);
            case "!=": return !_values.Equal(a, b);
            case "in": return Contains(b, a);
            case "not in": return !Contains(b, a);
        }
        return _values.Order(a, b) is { } order
            && op switch
            {
                "<" => order < 0,
                "<=" => order <= 0,
                ">" => order > 0,
                _ => order >= 0,
            };
    }

    private bool Contains(object? container, object? item)
    {
        switch (container)
        {
            case string s:
                if (item is not string part)
                    throw new JinjaFault($"{JinjaValues.TypeName(item)} is looked for in a string");
                Charge(s.Length);
                return s.Contains(part, StringComparison.Ordinal);
            case PyDict dict: return item is string key ? dict.ContainsKey(key) : Hashable(item) && false;
            case PyView { Kind: "keys" } view:
                return item is string k ? view.Dict.ContainsKey(k) : Hashable(item) && false;
            case PyView or PyIterator:
                foreach (object? v in Items(container)) if (_values.Equal(v, item)) return true;
                return false;
            case List<object?> list:
                foreach (object? v in list) if (_values.Equal(v, item)) return true;
                return false;
            case Undefined: return false;
            default: throw new JinjaFault($"nothing can be in {JinjaValues.TypeName(container)}");
        }
    }

    // A list or dict cannot be looked for among keys.
    private static bool Hashable(object? v) =>
        v is not (PyDict or List<object?> and not (PyTuple or PyRange))
        && (v is not PyTuple t || t.TrueForAll(Hashable))
            ? true
        : throw new JinjaFault($"{JinjaValues.TypeName(v)} is looked for among keys");

    private object? Call(CallExpr c, JinjaScope scope)
    {
        object? target = Eval(c.Target, scope);
        if (target is Undefined missing) throw new JinjaFault($"'{missing.Name}' is undefined, and called");
        var args = new Args(this, c.Arguments, scope);
        switch (target)
        {
            case BoundMacro macro: return CallMacro(macro, args);
            case BoundMethod { Target: string s } m: return Followed(m.Name, s, args, StringMethod(s, m.Name, args));
            case BoundMethod { Target: PyDict d } m: return DictMethod(d, m.Name, args);
            case BoundMethod { Target: List<object?> l } m: return ListMethod(l, m.Name, args);
            case BoundMethod { Target: LoopState loop } m: return LoopMethod(loop, m.Name, args);
            case BoundMethod m: return Global(m.Name, args);
            default: throw new JinjaFault($"{JinjaValues.TypeName(target)} is called");
        }
    }
}
