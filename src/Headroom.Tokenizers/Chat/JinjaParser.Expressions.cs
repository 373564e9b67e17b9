using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;
using static Headroom.Tokenizers.Chat.JinjaTokenKind;

namespace Headroom.Tokenizers.Chat;

internal sealed partial class JinjaParser
{
    /// <summary>The filter safe where its value is used further; it is not known to the interpreter.</summary>
    private const string SafeInside = "safe inside of an expression";

    private static readonly string[] Comparisons = ["==", "!=", "<", "<=", ">", ">="];

    /// <summary>An expression, or several with commas between them (a tuple).</summary>
    private Expr Tuple(bool conditional = true)
    {
        var first = conditional ? Expression() : Or();
        if (!Is(Operator, ",")) return first;
        var items = new List<Expr> { first };
        while (TakeOp(","))
        {
            if (Now.Kind is BlockEnd or VariableEnd || Is(Operator, ")") || Is(Operator, "=")) break;
            items.Add(conditional ? Expression() : Or());
        }
        return new ListExpr(items, true);
    }

    private Expr Expression()
    {
        CheckDepth();
        var value = Or();
        while (TakeName("if"))
        {
            var condition = Or();
            value = new ConditionalExpr(condition, value, TakeName("else") ? Expression() : null);
        }
        return value;
    }

    private Expr Or()
    {
        var left = And();
        while (TakeName("or")) left = new LogicExpr(false, left, And());
        return left;
    }

    private Expr And()
    {
        var left = Not();
        while (TakeName("and")) left = new LogicExpr(true, left, Not());
        return left;
    }

    private Expr Not()
    {
        CheckDepth();
        return TakeName("not") ? new NotExpr(Not()) : Compare();
    }

    private Expr Compare()
    {
        var first = Sum();
        var rest = new List<(string, Expr)>();
        while (true)
        {
            if (Now.Kind == Operator && Comparisons.Contains(Now.Text)) rest.Add((_tokens[_at++].Text, Sum()));
            else if (TakeName("in")) rest.Add(("in", Sum()));
            else if (Is(Name, "not") && _tokens[_at + 1] is { Kind: Name, Text: "in" })
            {
                _at += 2;
                rest.Add(("not in", Sum()));
            }
            else return rest.Count == 0 ? first : new CompareExpr(first, rest);
        }
    }

    private Expr Sum()
    {
        var left = Concat();
        while (Is(Operator, "+") || Is(Operator, "-")) left = new BinaryExpr(_tokens[_at++].Text, left, Concat());
        return left;
    }

    private Expr Concat()
    {
        var left = Product();
        while (TakeOp("~")) left = new BinaryExpr("~", left, Product());
        return left;
    }

    private Expr Product()
    {
        var left = Power();
        while (Is(Operator, "*") || Is(Operator, "/") || Is(Operator, "//") || Is(Operator, "%"))
            left = new BinaryExpr(_tokens[_at++].Text, left, Power());
        return left;
    }

    private Expr Power()
    {
        var left = Unary(true);
        while (TakeOp("**"))
        {
            var right = Unary(true);
            // jinja2 writes a constant into its program without brackets: -2 ** n is -(2 ** n) there, and (-2) ** n
            // where n is a constant too.
            if (Constant(left) && Negates(left) && !Constant(right))
                throw JinjaError.Unsupported(Now.Line, "a power of a negative constant");
            left = new BinaryExpr("**", left, right);
        }
        return left;
    }

    // One that is nested deeper than the stack allows is taken for none.
    private static bool Constant(Expr e) => RuntimeHelpers.TryEnsureSufficientExecutionStack() && e switch
    {
        LiteralExpr => true,
        UnaryExpr u => Constant(u.Value),
        BinaryExpr b => Constant(b.Left) && Constant(b.Right),
        FilterExpr f => Constant(f.Target),
        _ => false,
    };

    private static bool Negates(Expr e) => RuntimeHelpers.TryEnsureSufficientExecutionStack() && e switch
    {
        UnaryExpr u => u.Op == '-' || Negates(u.Value),
        BinaryExpr b => b.Op == "-" || Negates(b.Left) || Negates(b.Right),
        FilterExpr f => f.Name is "int" or "float" || Negates(f.Target),
        _ => false,
    };

    // Filters and tests bind to the operand, not to a sum: a + b | trim is a + (b | trim).
    private Expr Unary(bool filters)
    {
        CheckDepth();
        Expr value =
            Is(Operator, "-") || Is(Operator, "+") ? new UnaryExpr(_tokens[_at++].Text[0], Unary(false)) : Primary();
        value = Postfix(value);
        return filters ? Filters(value) : value;
    }

    private Expr Primary()
    {
        var t = Now;
        _at++;
        switch (t.Kind)
        {
            case Name:
                return t.Text switch
                {
                    "true" or "True" => new LiteralExpr(true),
                    "false" or "False" => new LiteralExpr(false),
                    "none" or "None" => new LiteralExpr(null),
                    "varargs" or "kwargs" or "caller" when _macros > 0 => throw JinjaError.Unsupported(
                        t.Line, $"{t.Text} of a macro"),
                    _ => new NameExpr(t.Text),
                };
            case Text:
                if (Now.Kind != Text) return new LiteralExpr(t.Text);
                var all = new StringBuilder(t.Text);
                while (Now.Kind == Text) all.Append(_tokens[_at++].Text);
                return new LiteralExpr(all.ToString());
            case JinjaTokenKind.Integer: return Integer(t);
            case Float: return new LiteralExpr(double.Parse(t.Text, NumberStyles.Float, CultureInfo.InvariantCulture));
            case Operator when t.Text == "(":
                if (TakeOp(")")) return new ListExpr([], true);
                var inner = Tuple();
                NeedOp(")");
                return inner;
            case Operator when t.Text == "[":
                var items = new List<Expr>();
                while (!TakeOp("]"))
                {
                    if (items.Count > 0) NeedOp(",");
                    if (TakeOp("]")) break;
                    items.Add(Expression());
                }
                return new ListExpr(items, false);
            case Operator when t.Text == "{":
                var pairs = new List<(Expr, Expr)>();
                while (!TakeOp("}"))
                {
                    if (pairs.Count > 0) NeedOp(",");
                    if (TakeOp("}")) break;
                    var key = Expression();
                    NeedOp(":");
                    pairs.Add((key, Expression()));
                }
                return new DictExpr(pairs);
            default:
                _at--;
                throw Bad($"a value is missing before {Show(t)}");
        }
    }

    private Expr Postfix(Expr value)
    {
        while (true)
        {
            if (TakeOp("."))
            {
                if (Now.Kind == JinjaTokenKind.Integer) value = new ItemExpr(value, Integer(_tokens[_at++]));
                else value = new AttributeExpr(value, NeedName());
            }
            else if (TakeOp("[")) value = Subscript(value);
            else if (Is(Operator, "(")) value = new CallExpr(value, Call());
            else return value;
        }
    }

    private Expr Subscript(Expr target)
    {
        Expr? Part() => Is(Operator, ":") || Is(Operator, "]") ? null : Expression();
        var start = Part();
        if (TakeOp("]"))
            return start == null
                ? throw JinjaError.Unsupported(Now.Line, "an empty subscript")
                : new ItemExpr(target, start);
        if (Is(Operator, ",")) throw JinjaError.Unsupported(Now.Line, "a subscript of several parts");
        NeedOp(":");
        var stop = Part();
        var step = TakeOp(":") ? Part() : null;
        NeedOp("]");
        return new SliceExpr(target, start, stop, step);
    }

    private Arguments Call()
    {
        NeedOp("(");
        var positional = new List<Expr>();
        var named = new List<(string, Expr)>();
        bool first = true;
        while (!TakeOp(")"))
        {
            if (!first) NeedOp(",");
            if (TakeOp(")")) break;
            first = false;
            if (Is(Operator, "*") || Is(Operator, "**"))
                throw JinjaError.Unsupported(Now.Line, "unpacking of arguments (*)");
            if (Now.Kind == Name && _tokens[_at + 1] is { Kind: Operator, Text: "=" })
            {
                string name = NeedName();
                _at++;
                named.Add((name, Expression()));
            }
            else if (named.Count > 0) throw Bad("an argument without a name follows one with a name");
            else positional.Add(Expression());
        }
        return new Arguments(positional, named);
    }

    private Expr Filters(Expr value)
    {
        while (true)
        {
            if (TakeOp("|"))
            {
                string name = Known(NeedName());
                value = new FilterExpr(
                    value, name == "safe" ? SafeInside : name, Is(Operator, "(") ? Call() : Arguments.None);
            }
            else if (TakeName("is")) value = Test(value);
            else if (Is(Operator, "(")) value = new CallExpr(value, Call());
            else return value;
        }
    }

    private TestExpr Test(Expr value)
    {
        bool not = TakeName("not");
        string name = NeedName();
        var arguments = Arguments.None;
        if (Is(Operator, "(")) arguments = Call();
        else if (
            Now.Kind is Text or JinjaTokenKind.Integer or Float
            || Is(Operator, "[")
            || Is(Operator, "{")
            || (Now.Kind == Name && Now.Text is not ("else" or "or" or "and"))
        )
        {
            if (Is(Name, "is")) throw Bad("tests cannot be chained with is");
            arguments = new Arguments([Postfix(Primary())], []);
        }
        if (!JinjaInterpreter.Tests.ContainsKey(name)) throw JinjaError.Unsupported(Now.Line, $"the test {name}");
        return new TestExpr(value, name, arguments, not);
    }
}
