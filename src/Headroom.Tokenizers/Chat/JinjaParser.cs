using System.Runtime.CompilerServices;
using Headroom.Core;
using static Headroom.Tokenizers.Chat.JinjaTokenKind;

namespace Headroom.Tokenizers.Chat;

/// <summary>
/// Tokens to statements; precedence and postfix rules are those of jinja2 <c>parser.py</c>. What is not in the subset
/// is refused by name.
/// </summary>
internal sealed partial class JinjaParser
{
    private readonly List<JinjaToken> _tokens;
    private int _at, _loops, _macros;

    private JinjaParser(List<JinjaToken> tokens) => _tokens = tokens;

    /// <summary>Parses a whole template.</summary>
    public static JinjaTemplate Parse(string source)
    {
        var parser = new JinjaParser(JinjaLexer.Read(source));
        var body = parser.Body(out string? end);
        return end == null ? JinjaNames.Collect(body) : throw parser.Bad($"{end} closes nothing");
    }

    private JinjaToken Now => _tokens[_at];

    private bool Is(JinjaTokenKind kind, string text) => Now.Kind == kind && Now.Text == text;

    private bool Take(JinjaTokenKind kind, string text)
    {
        if (!Is(kind, text)) return false;
        _at++;
        return true;
    }

    private bool TakeOp(string op) => Take(Operator, op);
    private bool TakeName(string name) => Take(Name, name);

    private void NeedOp(string op)
    {
        if (!TakeOp(op)) throw Bad($"'{op}' is missing before {Show(Now)}");
    }

    private string NeedName()
    {
        if (Now.Kind != Name) throw Bad($"a name is missing before {Show(Now)}");
        return _tokens[_at++].Text;
    }

    private void BlockEnds()
    {
        if (Now.Kind != BlockEnd) throw Bad($"{Show(Now)} is one too many in a tag");
        _at++;
    }

    private static string Show(JinjaToken t) =>
        t.Kind switch
        {
            BlockEnd => "'%}'",
            VariableEnd => "'}}'",
            End => "the end",
            Text => "a string",
            _ => $"'{(t.Text.Length > 40 ? t.Text[..40] : t.Text)}'",
        };

    private HeadroomException Bad(string why) => JinjaError.At(Now.Line, why);

    // A template can nest as deep as its length: the stack is checked, not a count.
    private void CheckDepth()
    {
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack()) throw Bad("it is nested too deeply");
    }

    /// <summary>
    /// Statements up to a tag that closes or continues an outer one (its name in <paramref name="end"/>, already
    /// taken), or the end of the template (null).
    /// </summary>
    private List<Stmt> Body(out string? end)
    {
        CheckDepth();
        var body = new List<Stmt>();
        while (true)
        {
            var t = Now;
            switch (t.Kind)
            {
                case End:
                    end = null;
                    return body;
                case JinjaTokenKind.Data:
                    _at++;
                    body.Add(new DataStmt(t.Line, t.Text));
                    break;
                case VariableBegin:
                    _at++;
                    var value = Printed(Tuple());
                    if (Now.Kind != VariableEnd) throw Bad($"{Show(Now)} is one too many in an expression");
                    _at++;
                    body.Add(new OutputStmt(t.Line, value));
                    break;
                default:
                    _at++;
                    string tag = NeedName();
                    if (tag is "elif" or "else" || tag.StartsWith("end", StringComparison.Ordinal))
                    {
                        end = tag;
                        return body;
                    }
                    body.Add(Statement(tag, t.Line));
                    break;
            }
        }
    }

    // safe makes a text that escapes what is joined to it; it changes nothing only where it comes last.
    private static Expr Printed(Expr e) => e is FilterExpr { Name: SafeInside } f ? f with { Name = "safe" } : e;

    private List<Stmt> BodyTo(string close)
    {
        var body = Body(out string? end);
        if (end != close) throw Bad(end == null ? $"{close} is missing" : $"{end} stands where {close} should");
        BlockEnds();
        return body;
    }

    private Stmt Statement(string tag, int line)
    {
        switch (tag)
        {
            case "if": return If(line);
            case "for": return For(line);
            case "set": return Set(line);
            case "macro": return Macro(line);
            case "generation":
                BlockEnds();
                return new GenerationStmt(line, Apart(() => BodyTo("endgeneration")));
            case "with": return With(line);
            case "filter":
                var filters = FilterNames(NeedName());
                BlockEnds();
                return new FilterStmt(line, filters, BodyTo("endfilter"));
            case "break" or "continue":
                if (_loops == 0) throw Bad($"{tag} stands outside of a loop");
                BlockEnds();
                return new JumpStmt(line, tag == "break");
            default: throw JinjaError.Unsupported(line, $"the tag {tag}");
        }
    }

    private IfStmt If(int line)
    {
        var branches = new List<(Expr, List<Stmt>)>();
        List<Stmt>? otherwise = null;
        string? end = "elif";
        while (end == "elif")
        {
            var condition = Tuple(conditional: false);
            BlockEnds();
            branches.Add((condition, Body(out end)));
        }
        if (end == "else")
        {
            BlockEnds();
            otherwise = Body(out end);
        }
        if (end != "endif") throw Bad(end == null ? "endif is missing" : $"{end} stands where endif should");
        BlockEnds();
        return new IfStmt(line, branches, otherwise);
    }

    private ForStmt For(int line)
    {
        var names = Targets();
        if (!TakeName("in")) throw Bad("'in' is missing in a for tag");
        var source = Tuple(conditional: false);
        var filter = TakeName("if") ? Expression() : null;
        if (Is(Name, "recursive")) throw JinjaError.Unsupported(line, "a recursive loop");
        BlockEnds();
        _loops++;
        var body = Body(out string? end);
        _loops--;
        List<Stmt>? otherwise = null;
        if (end == "else")
        {
            BlockEnds();
            otherwise = Body(out end);
        }
        if (end != "endfor") throw Bad(end == null ? "endfor is missing" : $"{end} stands where endfor should");
        BlockEnds();
        return new ForStmt(line, names, source, filter, body, otherwise);
    }

    private List<string> Targets()
    {
        bool bracket = TakeOp("(");
        if (Is(Operator, "(") || Is(Operator, ")")) throw JinjaError.Unsupported(Now.Line, "a target of this form");
        var names = new List<string> { NeedName() };
        while (TakeOp(","))
        {
            if (Is(Operator, "(")) throw JinjaError.Unsupported(Now.Line, "a target of this form");
            if (Now.Kind == Name && !Is(Name, "in")) names.Add(NeedName());
        }
        if (bracket)
        {
            NeedOp(")");
            if (Is(Operator, ",")) throw JinjaError.Unsupported(Now.Line, "a target of this form");
        }
        foreach (string n in names)
            if (n is "loop" or "true" or "false" or "none" or "True" or "False" or "None")
                throw Bad($"{n} cannot be assigned to");
        return names;
    }

    private SetStmt Set(int line)
    {
        var names = Targets();
        string? attribute = null;
        if (names.Count == 1 && TakeOp(".")) attribute = NeedName();
        if (TakeOp("="))
        {
            var value = Tuple();
            BlockEnds();
            return new SetStmt(line, names, attribute, value, null, []);
        }
        if (names.Count > 1) throw Bad("'=' is missing in a set tag");
        var filters = TakeOp("|") ? FilterNames(NeedName()) : [];
        BlockEnds();
        return new SetStmt(line, names, attribute, null, BodyTo("endset"), filters);
    }

    private MacroStmt Macro(int line)
    {
        string name = NeedName();
        NeedOp("(");
        var parameters = new List<(string, Expr?)>();
        while (!TakeOp(")"))
        {
            if (parameters.Count > 0) NeedOp(",");
            parameters.Add((NeedName(), TakeOp("=") ? Expression() : null));
        }
        BlockEnds();
        if (parameters.SkipWhile(p => p.Item2 == null).Any(p => p.Item2 == null))
            throw Bad("a parameter without a default follows one with a default");
        _macros++;
        var body = Apart(() => BodyTo("endmacro"));
        _macros--;
        return new MacroStmt(line, name, parameters, body);
    }

    // What is a function of its own in jinja2: a loop around it cannot be left from inside.
    private List<Stmt> Apart(Func<List<Stmt>> body)
    {
        int loops = _loops;
        _loops = 0;
        var inside = body();
        _loops = loops;
        return inside;
    }

    private List<(string, Arguments)> FilterNames(string first)
    {
        var filters = new List<(string, Arguments)> { (Known(first), Is(Operator, "(") ? Call() : Arguments.None) };
        while (TakeOp("|")) filters.Add((Known(NeedName()), Is(Operator, "(") ? Call() : Arguments.None));
        return filters;
    }

    private string Known(string filter) =>
        JinjaInterpreter.Filters.ContainsKey(filter)
            ? filter
            : throw JinjaError.Unsupported(Now.Line, $"the filter {filter}");

    private WithStmt With(int line)
    {
        var values = new List<(string, Expr)>();
        while (Now.Kind != BlockEnd)
        {
            if (values.Count > 0) NeedOp(",");
            string name = NeedName();
            NeedOp("=");
            values.Add((name, Expression()));
        }
        BlockEnds();
        return new WithStmt(line, values, BodyTo("endwith"));
    }

    private static LiteralExpr Integer(JinjaToken t)
    {
        // 0x1f, 0o17, 0b11
        int numberBase =
            t.Text.Length > 1
                ? char.ToLowerInvariant(t.Text[1]) switch
                {
                    'x' => 16,
                    'o' => 8,
                    'b' => 2,
                    _ => 10,
                }
                : 10;
        var value = System.Numerics.BigInteger.Zero;
        foreach (char c in numberBase == 10 ? t.Text : t.Text[2..])
            value = value * numberBase + Convert.ToInt32(c.ToString(), 16);
        return value <= long.MaxValue
            ? new LiteralExpr((long)value)
            : throw JinjaError.Unsupported(t.Line, $"the number {t.Text}, beyond 64 bits,");
    }
}
