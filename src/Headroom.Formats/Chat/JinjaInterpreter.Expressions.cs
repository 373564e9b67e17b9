using System.Runtime.CompilerServices;
using System.Text;

namespace Headroom.Formats.Chat;

internal sealed partial class JinjaInterpreter
{
    /// <summary>Tokens that transformers fills in, beside bos_token and eos_token.</summary>
    internal static readonly string[] SpecialTokenNames = ["pad_token", "unk_token", "sep_token", "cls_token", "mask_token"];

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
                foreach (var (key, value) in d.Items) dict[Eval(key, scope) as string ?? throw new JinjaFault("a key that is not a string is not supported")] = Eval(value, scope);
                return dict;
            case AttributeExpr a: return Attribute(Eval(a.Target, scope), a.Name);
            case ItemExpr i: return Item(Eval(i.Target, scope), Eval(i.Index, scope));
            case SliceExpr s: return Slice(Eval(s.Target, scope), Bound(s.Start, scope), Bound(s.Stop, scope), Bound(s.Step, scope) ?? 1);
            case CallExpr c: return Call(c, scope);
            case FilterExpr f: return Filter(f.Name, Eval(f.Target, scope), new Args(this, f.Arguments, scope));
            case TestExpr t:
                // Only defined-ness may be asked of an unknown name.
                bool holds = t.Target is NameExpr asked && NotKnown.Contains(asked.Name) && !scope.TryGet(asked.Name, out _) ? Test(t.Name, new Undefined(asked.Name), new Args([]))
                    : Test(t.Name, Eval(t.Target, scope), new Args(this, t.Arguments, scope));
                return holds != t.Not;
            case NotExpr n: return !JinjaValues.Truth(Eval(n.Value, scope));
            case LogicExpr l:
                object? left = Eval(l.Left, scope);
                return JinjaValues.Truth(left) == l.And ? Eval(l.Right, scope) : left;
            case ConditionalExpr c:
                return JinjaValues.Truth(Eval(c.Condition, scope)) ? Eval(c.Then, scope) : c.Else != null ? Eval(c.Else, scope) : new Undefined("the inline if-expression has no else and");
            case UnaryExpr u:
                return (u.Op, Eval(u.Value, scope)) switch
                {
                    ('-', long and not long.MinValue and var v) => (object)-v,
                    ('-', double v) => -v,
                    ('-', bool v) => v ? -1L : 0L,
                    ('+', long v) => v,
                    ('+', double v) => v,
                    (_, var v) => throw new JinjaFault($"{u.Op} of {JinjaValues.TypeName(v)}"),
                };
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

    private object? Lookup(string name, JinjaScope scope)
    {
        if (scope.TryGet(name, out object? v)) return v;
        if (NotKnown.Contains(name)) throw new JinjaFault($"the variable {name} is not supported");
        return name is "range" or "namespace" or "dict" or "raise_exception" or "strftime_now" or "joiner" or "cycler" or "lipsum" ? new BoundMethod(this, name) : new Undefined(name);
    }

    private static object? Attribute(object? target, string name)
    {
        switch (target)
        {
            case Undefined u: throw new JinjaFault($"'{u.Name}' is undefined");
            case LoopState loop: return loop.Get(name);
            case PyNamespace ns: return ns.Values.TryGetValue(name, out object? n) ? n : new Undefined(name);
            case PyDict when DictMethods.Contains(name): return new BoundMethod(target, name);
            case PyDict dict: return dict.TryGetValue(name, out object? d) ? d : new Undefined(name);
            case string when StringMethods.Contains(name): return new BoundMethod(target, name);
            case List<object?> when name is "index" or "count": return new BoundMethod(target, name);
            default: return new Undefined($"{name} of {JinjaValues.TypeName(target)}");
        }
    }

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

    private long? Bound(Expr? e, JinjaScope scope) => e == null ? null : Eval(e, scope) switch
    {
        null => null,
        bool b => b ? 1 : 0,
        long l => l,
        var v => throw new JinjaFault($"a slice bound is {JinjaValues.TypeName(v)}"),
    };

    // Python's rules: negative bounds count from the end, what lies outside is cut off.
    private object Slice(object? target, long? start, long? stop, long step)
    {
        if (step == 0) throw new JinjaFault("a slice has the step 0");
        var source = target switch
        {
            string s => _values.Characters(s),
            List<object?> l => l,
            _ => throw new JinjaFault($"{JinjaValues.TypeName(target)} cannot be sliced"),
        };
        long n = source.Count, low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
        long Clip(long? v, long absent) => v is not { } x ? absent : Math.Clamp(x < 0 ? x + n : x, low, high);
        long from = Clip(start, step > 0 ? low : high), to = Clip(stop, step > 0 ? high : low);
        var picked = new List<object?>();
        step = Math.Clamp(step, -n - 1, n + 1);
        for (long i = from; step > 0 ? i < to : i > to; i += step) picked.Add(source[(int)i]);
        Charge(picked.Count);
        return target is string ? string.Concat(picked.Select(p => (string)p!)) : target is PyTuple ? new PyTuple(picked) : picked;
    }

    private object Binary(string op, object? a, object? b)
    {
        if (op == "~") return Join(_values.Str(a), _values.Str(b));
        if (a is Undefined ua) throw new JinjaFault($"'{ua.Name}' is undefined");
        if (b is Undefined ub) throw new JinjaFault($"'{ub.Name}' is undefined");
        switch (op, a, b)
        {
            case ("+", string s, string t): return Join(s, t);
            case ("+", List<object?> l, List<object?> m) when l is PyTuple == m is PyTuple:
                Charge(l.Count + m.Count);
                return l is PyTuple ? new PyTuple(l.Concat(m)) : l.Concat(m).ToList();
            case ("*", string s, long n): return Repeat(s, n);
            case ("*", long n, string s): return Repeat(s, n);
            case ("%", string, _): throw new JinjaFault("formatting with % is not supported");
        }
        if (JinjaValues.Number(a) is not { } x || JinjaValues.Number(b) is not { } y) throw new JinjaFault($"{op} of {JinjaValues.TypeName(a)} and {JinjaValues.TypeName(b)}");
        if (op is "/" or "//" or "%" && y == 0) throw new JinjaFault("a division by zero");
        bool real = a is double || b is double;
        long i = real ? 0 : JinjaValues.Whole(a!), j = real ? 0 : JinjaValues.Whole(b!);
        try
        {
            switch (op)
            {
                case "+": return real ? x + y : (object)checked(i + j);
                case "-": return real ? x - y : (object)checked(i - j);
                case "*": return real ? x * y : (object)checked(i * j);
                case "/": return x / y;
                case "//": return real ? Math.Floor(x / y) : (object)(checked(i / j) - (i % j != 0 && i < 0 != j < 0 ? 1 : 0));
                case "%": return real ? x - y * Math.Floor(x / y) : (object)(j == -1 ? 0L : (i % j + j) % j);
                default:
                    if (real || j < 0) return Math.Pow(x, y);
                    long power = 1;
                    for (; j > 0; j--)
                    {
                        Charge(Step);
                        power = checked(power * i);
                    }
                    return power;
            }
        }
        catch (OverflowException)
        {
            throw new JinjaFault("a number leaves 64 bits");
        }
    }

    private string Join(string a, string b)
    {
        Charge(a.Length + (long)b.Length);
        return a + b;
    }

    private string Repeat(string s, long n)
    {
        if (n <= 0 || s.Length == 0) return "";
        if (n > MostText) throw new JinjaFault("a string becomes too long");
        Charge(s.Length * n);
        return new StringBuilder(s.Length * (int)n).Insert(0, s, (int)n).ToString();
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
        int order = a is string s && b is string t ? string.CompareOrdinal(s, t)
            : JinjaValues.Number(a) is { } x && JinjaValues.Number(b) is { } y ? double.IsNaN(x) || double.IsNaN(y) ? throw new JinjaFault("a comparison with nan") : x.CompareTo(y)
            : throw new JinjaFault($"{op} between {JinjaValues.TypeName(a)} and {JinjaValues.TypeName(b)}");
        return op switch { "<" => order < 0, "<=" => order <= 0, ">" => order > 0, _ => order >= 0 };
    }

    private bool Contains(object? container, object? item)
    {
        switch (container)
        {
            case string s:
                if (item is not string part) throw new JinjaFault($"{JinjaValues.TypeName(item)} is looked for in a string");
                Charge(s.Length);
                return s.Contains(part, StringComparison.Ordinal);
            case PyDict dict: return item is string key && dict.ContainsKey(key);
            case List<object?> list:
                foreach (object? v in list) if (_values.Equal(v, item)) return true;
                return false;
            case Undefined: return false;
            default: throw new JinjaFault($"nothing can be in {JinjaValues.TypeName(container)}");
        }
    }

    private object? Call(CallExpr c, JinjaScope scope)
    {
        object? target = Eval(c.Target, scope);
        var args = new Args(this, c.Arguments, scope);
        switch (target)
        {
            case BoundMacro macro: return CallMacro(macro, args);
            case BoundMethod { Target: string s } m: return StringMethod(s, m.Name, args);
            case BoundMethod { Target: PyDict d } m: return DictMethod(d, m.Name, args);
            case BoundMethod { Target: List<object?> l } m: return ListMethod(l, m.Name, args);
            case BoundMethod { Target: LoopState loop } m: return LoopMethod(loop, m.Name, args);
            case BoundMethod m: return Global(m.Name, args);
            case Undefined u: throw new JinjaFault(c.Target is AttributeExpr ? $"the method {u.Name} is not supported" : $"the function {u.Name} is not supported");
            default: throw new JinjaFault($"{JinjaValues.TypeName(target)} is called");
        }
    }
}
