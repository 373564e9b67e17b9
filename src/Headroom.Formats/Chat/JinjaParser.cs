using System.Globalization;
using System.Runtime.CompilerServices;
using Headroom.Core;
using static Headroom.Formats.Chat.JinjaTokenKind;

namespace Headroom.Formats.Chat;

/// <summary>Tokens to statements; precedence and postfix rules are those of jinja2 <c>parser.py</c>. What is not in the subset is refused by name.</summary>
internal sealed partial class JinjaParser
{
    private readonly List<JinjaToken> _tokens;
    private int _at, _loops;

    private JinjaParser(List<JinjaToken> tokens) => _tokens = tokens;

    /// <summary>Parses a whole template.</summary>
    public static List<Stmt> Parse(string source)
    {
        var parser = new JinjaParser(JinjaLexer.Read(source));
        var body = parser.Body(out string? end);
        return end == null ? body : throw parser.Bad($"{end} closes nothing");
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

    private static string Show(JinjaToken t) => t.Kind switch { BlockEnd => "'%}'", VariableEnd => "'}}'", End => "the end", Text => "a string", _ => $"'{(t.Text.Length > 40 ? t.Text[..40] : t.Text)}'" };

    private HeadroomException Bad(string why) => JinjaError.At(Now.Line, why);

    // A template can nest as deep as its length: the stack is checked, not a count.
    private void CheckDepth()
    {
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack()) throw Bad("it is nested too deeply");
    }

    /// <summary>Statements up to a tag that closes or continues an outer one (its name in <paramref name="end"/>, already taken), or the end of the template (null).</summary>
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
                    var value = Tuple();
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
                return new GenerationStmt(line, BodyTo("endgeneration"));
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
            var condition = Tuple();
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
        var names = new List<string> { NeedName() };
        while (TakeOp(",")) if (Now.Kind == Name && !Is(Name, "in")) names.Add(NeedName());
        if (bracket) NeedOp(")");
        foreach (string n in names) if (n is "loop" or "true" or "false" or "none" or "True" or "False" or "None") throw Bad($"{n} cannot be assigned to");
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
        var filters = new List<(string, Arguments)>();
        while (TakeOp("|")) filters.Add((NeedName(), Is(Operator, "(") ? Call() : Arguments.None));
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
        int loops = _loops;
        _loops = 0;
        var body = BodyTo("endmacro");
        _loops = loops;
        return new MacroStmt(line, name, parameters, body);
    }

    private static LiteralExpr Integer(JinjaToken t) =>
        long.TryParse(t.Text, NumberStyles.None, CultureInfo.InvariantCulture, out long v) ? new LiteralExpr(v) : throw JinjaError.At(t.Line, $"the number {t.Text} is too large");
}
