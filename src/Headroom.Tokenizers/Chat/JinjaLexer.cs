using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Headroom.Core;

namespace Headroom.Tokenizers.Chat;

internal enum JinjaTokenKind : byte
{
    Data, VariableBegin, VariableEnd, BlockBegin, BlockEnd, Name, Text, Integer, Float, Operator, End,
}

/// <summary>One token; of a string literal the text with its escapes resolved.</summary>
internal readonly record struct JinjaToken(JinjaTokenKind Kind, string Text, int Line);

/// <summary>
/// Template text to tokens, with the whitespace rules of Jinja (jinja2 <c>lexer.py</c>) under the settings of
/// transformers'
/// <c>chat_template_utils.py</c>: trim_blocks (the line break after a block tag goes), lstrip_blocks (blanks from the
/// start of a line to a block tag go), no trailing line break.
/// </summary>
internal sealed partial class JinjaLexer
{
    private static readonly string[] Operators =
    [
        "**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=",
        ".", ":", "|", ","];

    private readonly string _source;
    private readonly List<JinjaToken> _tokens = [];
    private int _at, _line = 1, _counted;

    private JinjaLexer(string source)
    {
        source = source.Replace("\r\n", "\n", StringComparison.Ordinal).Replace('\r', '\n');
        _source = source.EndsWith('\n') ? source[..^1] : source;
    }

    /// <summary>All tokens, the last of kind End.</summary>
    public static List<JinjaToken> Read(string source)
    {
        var lexer = new JinjaLexer(source);
        lexer.Run();
        lexer.Add(JinjaTokenKind.End, "");
        return lexer._tokens;
    }

    /// <summary>What Python's str.isspace and the expression \s take for a blank.</summary>
    public static bool IsSpace(char c) => char.IsWhiteSpace(c) || c is >= '\x1c' and <= '\x1f';

    private void Run()
    {
        bool lineStarting = true;
        while (_at < _source.Length)
        {
            int tag = NextTag(_at);
            if (tag < 0)
            {
                Add(JinjaTokenKind.Data, _source[_at..]);
                _at = _source.Length;
                return;
            }
            char kind = _source[tag + 1], sign = Peek(tag + 2);
            int stop = tag;
            if (sign == '-') while (stop > _at && IsSpace(_source[stop - 1])) stop--;
            else if (sign != '+' && kind != '{')
            {
                int start = stop;
                while (start > _at && _source[start - 1] != '\n') start--;
                if ((start > _at || lineStarting) && Blank(start, stop)) stop = start;
            }
            if (stop > _at) Add(JinjaTokenKind.Data, _source[_at..stop]);
            _at = tag + (sign is '-' or '+' ? 3 : 2);
            if (kind == '#') Comment(tag);
            else if (kind == '%' && RawBegin().Match(_source, tag) is { Success: true } raw) Raw(tag, raw);
            else
            {
                Add(kind == '{' ? JinjaTokenKind.VariableBegin : JinjaTokenKind.BlockBegin, "");
                Inside(kind);
            }
            lineStarting = _source[_at - 1] == '\n';
        }
    }

    [GeneratedRegex(@"\G\{%[-+]?\s*raw\s*(-%\}\s*|%\})")]
    private static partial Regex RawBegin();

    [GeneratedRegex(@"\{%([-+]?)\s*endraw\s*(\+%\}|-%\}\s*|%\}\n?)")]
    private static partial Regex RawEnd();

    // What stands between raw and endraw is text, with the rules for blanks of any block tag.
    private void Raw(int tag, Match begin)
    {
        int from = tag + begin.Length;
        var end = RawEnd().Match(_source, from);
        if (!end.Success) throw Bad("raw has no endraw", tag);
        int stop = end.Index;
        if (end.Groups[1].Value == "-") while (stop > from && IsSpace(_source[stop - 1])) stop--;
        else if (end.Groups[1].Value != "+")
        {
            int start = stop;
            while (start > from && _source[start - 1] != '\n') start--;
            if ((start > from || _source[from - 1] == '\n') && Blank(start, stop)) stop = start;
        }
        if (stop > from) Add(JinjaTokenKind.Data, _source[from..stop]);
        _at = end.Index + end.Length;
    }

    private int NextTag(int from)
    {
        while ((from = _source.IndexOf('{', from)) >= 0 && from + 1 < _source.Length)
        {
            if (_source[from + 1] is '{' or '%' or '#') return from;
            from++;
        }
        return -1;
    }

    private bool Blank(int start, int stop)
    {
        for (; start < stop; start++) if (!IsSpace(_source[start])) return false;
        return true;
    }

    private char Peek(int at) => at < _source.Length ? _source[at] : '\0';

    private void Comment(int tag)
    {
        int end = _source.IndexOf("#}", _at, StringComparison.Ordinal);
        if (end < 0) throw Bad("a comment has no end", tag);
        char sign = end > _at ? _source[end - 1] : '\0';
        _at = end + 2;
        AfterTag(sign, trim: true);
    }

    // "-" takes all blanks after the tag, "+" none; else a block tag takes one line break.
    private void AfterTag(char sign, bool trim)
    {
        if (sign == '-') while (_at < _source.Length && IsSpace(_source[_at])) _at++;
        else if (trim && sign != '+' && Peek(_at) == '\n') _at++;
    }

    private void Inside(char kind)
    {
        int tag = _at, open = 0;
        string end = kind == '{' ? "}}" : "%}";
        while (true)
        {
            while (_at < _source.Length && IsSpace(_source[_at])) _at++;
            if (_at >= _source.Length) throw Bad($"a tag has no {end}", tag);
            char c = _source[_at];
            if (open == 0)
            {
                bool signed =
                    (c == '-' || (c == '+' && kind == '%')) && string.CompareOrdinal(_source, _at + 1, end, 0, 2) == 0;
                if (signed || string.CompareOrdinal(_source, _at, end, 0, 2) == 0)
                {
                    Add(kind == '{' ? JinjaTokenKind.VariableEnd : JinjaTokenKind.BlockEnd, "");
                    _at += signed ? 3 : 2;
                    AfterTag(signed ? c : '\0', trim: kind == '%');
                    return;
                }
            }
            if (c is '\'' or '"') Literal(c);
            else if (char.IsAsciiDigit(c)) Number();
            else if (c == '_' || char.IsLetter(c))
            {
                int start = _at;
                while (_at < _source.Length && (_source[_at] == '_' || char.IsLetterOrDigit(_source[_at]))) _at++;
                Add(JinjaTokenKind.Name, _source[start.._at]);
            }
            else
            {
                string op = Array.Find(Operators, o => string.CompareOrdinal(_source, _at, o, 0, o.Length) == 0)
                    ?? throw Bad($"the character '{c}' has no meaning in a tag", _at);
                if (c is '(' or '[' or '{') open++;
                else if (c is ')' or ']' or '}' && open > 0) open--;
                Add(JinjaTokenKind.Operator, op);
                _at += op.Length;
            }
        }
    }

    // jinja2 lexer.py: float_re, integer_re. After a point (a.0.1) stand two indices, no float.
    [GeneratedRegex(
        @"\G([0-9]+_)*[0-9]+((\.([0-9]+_)*[0-9]+)?e[+\-]?([0-9]+_)*[0-9]+|\.([0-9]+_)*[0-9]+)",
        RegexOptions.IgnoreCase | RegexOptions.CultureInvariant)]
    private static partial Regex FloatForm();

    [GeneratedRegex(
        @"\G(0b(_?[01])+|0o(_?[0-7])+|0x(_?[0-9a-f])+|[1-9](_?[0-9])*|0(_?0)*)",
        RegexOptions.IgnoreCase | RegexOptions.CultureInvariant)]
    private static partial Regex IntegerForm();

    private void Number()
    {
        bool real = _at == 0 || _source[_at - 1] != '.';
        var found = real ? FloatForm().Match(_source, _at) : Match.Empty;
        real = found.Success;
        if (!real) found = IntegerForm().Match(_source, _at);
        Add(
            real ? JinjaTokenKind.Float : JinjaTokenKind.Integer, found.Value.Replace("_", "", StringComparison.Ordinal)
        );
        _at += found.Length;
    }

    // Escapes as Python's unicode_escape reads them; an unknown one keeps its backslash.
    private void Literal(char quote)
    {
        int start = _at++;
        var text = new StringBuilder();
        while (true)
        {
            if (_at >= _source.Length) throw Bad("a string has no end", start);
            char c = _source[_at++];
            if (c == quote) break;
            if (c != '\\' || _at >= _source.Length) { text.Append(c); continue; }
            char e = _source[_at++];
            switch (e)
            {
                case 'n': text.Append('\n'); break;
                case 't': text.Append('\t'); break;
                case 'r': text.Append('\r'); break;
                case 'a': text.Append('\a'); break;
                case 'b': text.Append('\b'); break;
                case 'f': text.Append('\f'); break;
                case 'v': text.Append('\v'); break;
                case '\\' or '\'' or '"': text.Append(e); break;
                case '\n': break;
                case 'x': text.Append(Code(2)); break;
                case 'u': text.Append(Code(4)); break;
                case 'U': text.Append(Code(8)); break;
                case 'N': throw Bad("the escape \\N is not supported", _at);
                case >= '0' and <= '7':
                    int value = e - '0';
                    for (int i = 0; i < 2 && Peek(_at) is >= '0' and <= '7'; i++)
                        value = value * 8 + _source[_at++] - '0';
                    text.Append((char)value);
                    break;
                case > '\x7f':
                    // The peer writes it as an escape first, and reads the backslash before that as one of its own.
                    int rune =
                        char.IsHighSurrogate(e) && char.IsLowSurrogate(Peek(_at))
                            ? char.ConvertToUtf32(e, _source[_at++])
                            : e;
                    text.Append(rune < 0x100 ? $"\\x{rune:x2}" : rune < 0x10000 ? $"\\u{rune:x4}" : $"\\U{rune:x8}");
                    break;
                default: text.Append('\\').Append(e); break;
            }
        }
        Add(JinjaTokenKind.Text, text.ToString());
    }

    private string Code(int digits)
    {
        if (
            _at + digits > _source.Length
            || !uint.TryParse(
                _source.AsSpan(_at, digits), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out uint code
            )
            || code > 0x10FFFF
        )
            throw Bad("a string holds a broken escape", _at);
        _at += digits;
        return code is >= 0xD800 and <= 0xDFFF ? ((char)code).ToString() : char.ConvertFromUtf32((int)code);
    }

    private void Add(JinjaTokenKind kind, string text) => _tokens.Add(new JinjaToken(kind, text, LineAt(_at)));

    private int LineAt(int at)
    {
        for (; _counted < at && _counted < _source.Length; _counted++) if (_source[_counted] == '\n') _line++;
        return _line;
    }

    private HeadroomException Bad(string why, int at) => JinjaError.At(LineAt(at), why);
}

/// <summary>Faults of a template.</summary>
internal static class JinjaError
{
    public static HeadroomException At(int line, string why) =>
        new(
            $"The chat template cannot be used, line {line}: {why}.",
            "Use another copy of the model's tokenizer_config.json or chat_template.jinja, or write the prompt out "
                + "with generate."
        );

    public static HeadroomException Unsupported(int line, string what) => At(line, what + " is not supported");
}
