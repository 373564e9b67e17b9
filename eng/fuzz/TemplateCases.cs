using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Headroom.Fuzz;

/// <summary>
/// Random templates over Jinja's grammar as far as chat templates use it (and a little more), real templates with
/// changes, and variables for them.
/// </summary>
internal sealed class TemplateCases
{
    private static readonly string[] Words =
    [
        "a", "b", "abc", "Hello", "hello world", " x ", "", "  ", "\n", "a\nb\n", "user", "assistant", "system", "tool",
        "1", "12", "-3", "3.5", "1e3", " 7 ", "x,y,z", "a.b.c", "it's", "\"q\"", "<b>&amp;</b>", "%s", "%d-%s", "{}",
        "{0} {k}", "\u00e9", "\u00c9cole", "\u00df", "stra\u00dfe", "\u0130", "\u01c5", "\ufb03", "\u03a3\u03b1\u03c2",
        "\U0001F600", "a\U0001F600b", "\u4f60\u597d", "\u0660\u0661", "\u00b2", "\u00bd", "\u2028", "\u0085", "\u001c",
        "\t", "\u00a0", "e\u0301", "<|im_end|>", "</think>", "<think>r</think>a", "\\", "\\n", "\u200b", "\u00ad",
        "\ue000", "True", "none", "0x1f", "1_000", "inf", "nan", "a-b_c d", "don't stop", "\r\n", "x\ty"];

    private static readonly string[] Names =
    [
        "s", "t", "n", "m", "f", "b", "l", "ls", "ld", "d", "e", "o", "messages", "tools", "missing", "bos_token",
        "add_generation_prompt", "x", "y"];
    private static readonly string[] StrMethods =
    [
        "strip()", "lstrip()", "rstrip()", "strip('x ')", "lstrip('a')", "rstrip('\\n')", "upper()", "lower()",
        "title()", "capitalize()", "split()", "split(',')", "split(' ', 1)", "rsplit('.', 1)", "rsplit(None, 1)",
        "splitlines()", "splitlines(true)", "startswith('a')", "endswith('c')", "startswith(('a', 'H'))",
        "replace('a', 'b')", "replace('a', '', 1)", "replace('', '-')", "find('b')", "rfind('a')", "count('a')",
        "count('')", "isdigit()", "isalpha()", "isalnum()", "isupper()", "islower()", "isspace()", "istitle()",
        "isdecimal()", "isascii()", "removeprefix('a')", "removesuffix('c')", "join(['p', 'q'])", "join('xyz')",
        "center(9)", "ljust(5, '.')", "rjust(5)", "zfill(4)", "partition('.')", "rpartition('.')", "strip(none)",
        "split(none)",
    ];

    private static readonly string[] OddStrMethods =
    [
        "swapcase()", "casefold()", "find('b', 1)", "index('a')", "isnumeric()", "isidentifier()", "isprintable()",
        "format(1)", "format(k=2)", "expandtabs()", "encode()", "translate({})", "startswith('a', 1)", "split('')",
        "format", "nope()", "__class__", "_x",
    ];

    private static readonly string[] StrFilters =
    [
        "upper", "lower", "title", "capitalize", "trim", "trim('x')", "length", "count", "string", "first", "last",
        "list", "reverse | list", "default('d')", "d('d', true)", "replace('a', 'b')", "replace('a', 'b', 1)",
        "indent", "indent(2)", "indent(2, true)", "indent(width=3, blank=true)", "indent('> ')", "tojson",
        "tojson(indent=2)", "tojson(ensure_ascii=true)", "int", "int(7)", "float", "float(1.5)", "join", "join('-')",
        "unique | list", "sort", "sort | join", "batch(2) | list", "slice(2) | list", "select | list", "min", "max",
        "map('upper') | list", "map('upper') | join",
    ];

    private static readonly string[] OddStrFilters =
    [
        "safe", "escape", "e", "reverse", "int(base=16)", "wordcount", "truncate(5)", "center(12)", "striptags",
        "urlencode", "format(1)", "sum", "wordwrap(4)", "filesizeformat", "pprint", "xmlattr", "attr('upper')",
        "random", "round", "abs", "nope", "groupby('a')", "dictsort", "items", "items | list",
    ];

    private static readonly string[] ListFilters =
    [
        "length", "count", "first", "last", "join(',')", "join", "join(', ', attribute='a')", "list",
        "reverse | list", "unique | list", "map('string') | list", "map('int') | join('+')",
        "map(attribute='a') | list", "map(attribute='a', default='z') | list", "select | list", "reject | list",
        "reject('equalto', 1) | list", "selectattr('a') | list", "selectattr('a', 'equalto', 1) | list",
        "rejectattr('a', 'defined') | list", "batch(2) | list", "batch(2, '-') | list", "slice(2) | list", "tojson",
        "tojson(indent=2)", "string", "default([])", "selectattr('a') | first", "tojson(separators=(',', ':'))",
        "map('tojson') | join", "map('default', 'q') | list", "last | default('none')",
    ];

    private static readonly string[] OddListFilters =
    [
        "reverse", "sort", "sort(reverse=true)", "sort(attribute='a')", "sum", "sum(start=2)", "min", "max",
        "select('odd') | list", "groupby('a')", "groupby('a') | list | length", "map('upper')", "select('string')",
        "map('length') | sum", "map('upper') | first", "select | length", "map('string') | length", "random",
        "pprint", "sort | first", "map(attribute='b.c') | list", "map(attribute=0) | list", "dictsort", "items",
    ];

    private static readonly string[] DictFilters =
    [
        "length", "tojson", "tojson(indent=4)", "tojson(sort_keys=true)", "tojson(indent=1, ensure_ascii=true)",
        "items | list", "dictsort", "dictsort(reverse=true)", "list", "first", "last", "string", "join", "sort",
        "default({})", "count", "dictsort(true)",
    ];

    private static readonly string[] OddDictFilters =
    [
        "dictsort(by='value')", "map('upper') | list", "xmlattr", "max", "items", "reverse | list",
    ];

    private static readonly string[] NumFilters =
    [
        "int", "float", "string", "abs", "round", "round(1)", "round(2, 'floor')", "round(method='ceil')",
        "default(1)", "tojson", "upper", "int(3)", "trim",
    ];

    private static readonly string[] OddNumFilters =
    [
        "filesizeformat", "length", "first", "list", "join", "format",
    ];
    private static readonly string[] Tests =
    [
        "defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "integer", "float",
        "boolean", "true", "false", "callable", "lower", "upper", "sameas none", "sameas(true)", "in [1, 2, 'a']",
        "eq 1", "equalto('a')", "ne 2", "escaped", "== 1", "eq(none)",
    ];

    private static readonly string[] OddTests =
    [
        "odd", "even", "divisibleby 2", "divisibleby(3)", "in 'abc'", "lt 3", "gt(1)", "le 1.5", "ge 'a'",
        "greaterthan 0", "lessthan 0", "filter", "test", "nope", "in d", "sameas 1",
    ];

    private readonly List<string> _real = [];
    private readonly List<JsonArray> _conversations = [];
    private Dice _dice = new(0, 0);

    public TemplateCases(string shared)
    {
        string folder = Path.Combine(shared, "data", "tokenizers");
        if (Directory.Exists(folder))
            foreach (
                string file in Directory
                    .GetFiles(folder, "tokenizer_config.json", SearchOption.AllDirectories)
                    .Order(StringComparer.Ordinal)
            )
                if (
                    JsonNode.Parse(File.ReadAllText(file))!["chat_template"] is JsonValue v
                    && v.GetValueKind() == JsonValueKind.String
                )
                    _real.Add((string)v!);
        string golden = Path.Combine(shared, "golden", "chat-templates.json");
        if (File.Exists(golden))
            foreach (var c in JsonNode.Parse(File.ReadAllText(golden))!.AsArray())
                _conversations.Add(c!["messages"]!.AsArray());
    }

    /// <summary>A template and sets of variables for it.</summary>
    public (string Template, List<JsonObject> Variables) Next(Dice dice, int sets)
    {
        _dice = dice;
        string template = _real.Count > 0 && dice.One(6) ? Mutated(dice.From(_real)) : Body(_dice.Between(1, 3), false);
        return (template, Enumerable.Range(0, sets).Select(_ => Sent(Variables())).ToList());
    }

    // As the other side reads them: the number -2.0 is written as -2 here, an integer; 2.0 is put in as text.
    private static JsonObject Sent(JsonObject variables) =>
        JsonNode
            .Parse(
                variables
                    .ToJsonString()
                    .Replace("\"#2.0\"", "2.0", StringComparison.Ordinal)
                    .Replace("\"#1e3\"", "1e3", StringComparison.Ordinal)
            )!
            .AsObject();

    // ---- variables

    private string Word() => _dice.From(Words);

    private JsonNode Scalar() =>
        _dice.To(6) switch
        {
            0 => _dice.Between(-3, 9),
            1 when _dice.One(3) => "#2.0",
            1 => _dice.Pick(0.5, -2.5, 1e16, 3.14159, 1e-7, 100.0, 0.1),
            2 => _dice.Coin(),
            _ => Word(),
        };

    private JsonObject Variables() => new()
    {
        ["messages"] = _conversations.Count > 0 && _dice.Coin() ? _dice.From(_conversations).DeepClone() : Messages(),
        ["tools"] = _dice.Coin()
                ? null
                : new JsonArray(Enumerable.Range(0, _dice.To(3)).Select(_ => (JsonNode)Tool()).ToArray()),
        ["documents"] = null,
        ["add_generation_prompt"] = _dice.Coin(),
        ["bos_token"] = "<s>",
        ["eos_token"] = "</s>",
        ["s"] = Word(),
        ["t"] = Word() + Word(),
        ["n"] = _dice.Pick(0, 1, 2, 3, -1, 7, 100),
        ["m"] = _dice.Between(-5, 5),
        ["f"] = _dice.To(5) switch
        {
            0 => "#2.0",
            1 => "#1e3",
            _ => _dice.Pick(0.5, -1.5, 2.5, 2.5, 1e20, 1e-5, 3.14159, 0.1, 123456.789),
        },
        ["b"] = _dice.Coin(),
        ["l"] = new JsonArray(Enumerable.Range(0, _dice.To(5)).Select(_ => (JsonNode)_dice.Between(-2, 4)).ToArray()),
        ["ls"] = new JsonArray(Enumerable.Range(0, _dice.To(4)).Select(_ => (JsonNode)Word()).ToArray()),
        ["ld"] = new JsonArray(
                Enumerable
                    .Range(0, _dice.To(4))
                    .Select(_ =>
                        (JsonNode)
                            new JsonObject
                            {
                                ["a"] = _dice.One(5) ? Word() : _dice.To(3),
                                ["b"] = new JsonObject { ["c"] = Word() },
                            }
                    )
                    .ToArray()
            ),
        ["d"] = Dict(1),
        ["e"] = new JsonArray(),
        ["o"] = null,
    };

    private JsonObject Dict(int depth)
    {
        var d = new JsonObject();
        for (int n = _dice.To(4); n > 0; n--)
            d[_dice.Pick("a", "b", "k", "B", "items", "\u00e9", "x y", "")] =
                depth > 0 && _dice.One(3) ? Dict(depth - 1)
                : depth > 0 && _dice.One(4) ? new JsonArray(Scalar(), Scalar())
                : Scalar();
        return d;
    }

    private JsonArray Messages()
    {
        var list = new JsonArray();
        for (int n = _dice.To(5); n > 0; n--)
        {
            var m = new JsonObject
            {
                ["role"] = _dice.Pick("user", "assistant", "system", "tool", "user", "assistant"),
                ["content"] =
                    _dice.One(8) ? null
                    : _dice.One(8) ? new JsonArray(new JsonObject { ["type"] = "text", ["text"] = Word() })
                    : Word() + Word(),
            };
            if (_dice.One(6))
                m["tool_calls"] = new JsonArray(
                    new JsonObject
                    {
                        ["type"] = "function",
                        ["function"] = new JsonObject
                        {
                            ["name"] = "f",
                            ["arguments"] = _dice.Coin() ? Dict(1) : "{\"a\": 1}",
                        },
                    }
                );
            if (_dice.One(8))
                m["reasoning_content"] = Word();
            list.Add((JsonNode)m);
        }
        return list;
    }

    private JsonObject Tool() => new()
    {
        ["type"] = "function",
        ["function"] = new JsonObject
        {
            ["name"] = Word(),
            ["description"] = Word(),
            ["parameters"] = new JsonObject
            {
                ["type"] = "object",
                ["properties"] = Dict(1),
                ["required"] = new JsonArray("a"),
            },
        },
    };

    // ---- statements

    private string Sign(bool minusOnly = false) => _dice.To(5) switch { 0 => "-", 1 when !minusOnly => "+", _ => "" };
    private string Tag(string inside) => $"{{%{Sign()} {inside} {Sign()}%}}";

    private string Gap() =>
        _dice.Pick(
            "", "", "", " ", "\n", "  ", "\n  ", "\n\n", "\t", " \n", "x", "a\n", " b ", "\u00e9", "\r\n", "#", "{",
            "}", "%", "{ {", "\u00a0");

    private string Body(int depth, bool loop)
    {
        var text = new StringBuilder();
        for (int n = _dice.Between(1, 2); n > 0; n--) text.Append(Gap()).Append(Statement(depth - 1, loop));
        return text.Append(Gap()).ToString();
    }

    private string Statement(int depth, bool loop)
    {
        if (depth <= 0) return Output();
        switch (_dice.To(26))
        {
            case 0 or 1 or 2:
                string branches = Tag("if " + Bool(2)) + Body(depth, loop);
                if (_dice.One(3)) branches += Tag("elif " + Bool(1)) + Body(depth, loop);
                if (_dice.Coin()) branches += Tag("else") + Body(depth, loop);
                return branches + Tag("endif");
            case 3 or 4 or 5 or 6:
                string names = _dice.Pick("x", "x", "y", "x, y", "(x, y)", "s"),
                    source = names.Contains(',')
                        ? _dice.Pick(
                            "d.items()", "d | items", "ld | map('list')", "[(1, 2), ('a', 'b')]", "d | dictsort", "ls",
                            Any(1))
                        : _dice.Pick(List(1), List(1), "messages", "ls", "d", "range(3)", Any(1));
                string condition = _dice.One(5) ? $" if {Bool(1)}" : "", recursive = _dice.One(60) ? " recursive" : "";
                return Tag($"for {names} in {source}{condition}{recursive}")
                    + Body(depth, true)
                    + (_dice.One(4) ? Tag("else") + Body(depth, loop) : "")
                    + Tag("endfor");
            case 7 or 8 or 9: return Tag($"set {_dice.Pick("x", "y", "s", "n", "l")} = {Any(2)}") + Output();
            case 10: return Tag($"set x, y = {_dice.Pick("1, 2", "[1, 'a']", "'ab'", "l", Any(1))}") + Output();
            case 11:
                return Tag(
                        "set x"
                            + (
                                _dice.Coin()
                                    ? " | " + _dice.Pick("trim", "upper", "length", "indent(2)", "replace('a', 'b')")
                                    : ""
                            )
                    )
                    + Body(depth, loop)
                    + Tag("endset")
                    + Output();
            case 12 or 13:
                return Tag($"set ns = namespace(v={Any(1)}, w=0)")
                    + Tag($"for x in {List(1)}")
                    + Tag($"set ns.v = {_dice.Pick("x", "ns.v ~ x", "loop.index", "ns.w + 1", Any(1))}")
                    + Tag("endfor")
                    + $"{{{{ {_dice.Pick("ns.v", "ns.w", "ns['v']", "ns.nope", "ns.v is defined")} }}}}";
            case 14 or 15:
                string parameters = _dice.Pick("", "a", "a, b='z'", "a, b=n", "a=1, b=2");
                return Tag($"macro mm({parameters})")
                    + Body(depth, false)
                        .Replace(
                            "missing", _dice.Pick("a", "b", "caller()", "varargs", "kwargs"), StringComparison.Ordinal)
                    + Tag("endmacro")
                    + $"{{{{ mm({_dice.Pick("", Any(1), $"{Any(1)}, {Any(1)}", $"b={Any(1)}", $"a={Any(1)}", "1, 2, 3")}) {_dice.Pick("", "| trim", "| upper", "~ 'z'", "| length")} }}}}";
            case 16:
                return _dice.One(3)
                    ? Tag("call(q) mm(1)") + "{{ q }}" + Tag("endcall")
                    : Tag("call mm()") + Body(depth, false) + Tag("endcall");
            case 17: return Tag("raw") + _dice.Pick("{{ x }}", "{% if %}", "a\n  b", " ", "{# c #}") + Tag("endraw");
            case 18: return $"{{#{Sign()} {_dice.Pick("note", "{{ x }}", "a\nb", "")} {Sign()}#}}";
            case 19: return Tag("generation") + Body(depth, loop) + Tag("endgeneration");
            case 20:
                return loop ? Tag($"if {Bool(1)}") + Tag(_dice.Pick("break", "continue")) + Tag("endif") : Output();
            case 21:
                return _dice.One(3)
                    ? Tag($"with z = {Any(1)}") + "{{ z }}" + Tag("endwith")
                    : Tag("filter upper") + Body(depth, loop) + Tag("endfilter");
            case 22:
                return _dice.One(4)
                    ? Tag(
                        _dice.Pick(
                            "include 'a'", "import 'a' as b", "do 1", "autoescape true", "block q", "trans", "debug",
                            "endif", "else", "extends 'a'", "")
                    )
                    : Output();
            case 23 when loop:
                return $"{{{{ loop.{_dice.Pick("index", "index0", "first", "last", "length", "revindex", "revindex0", "previtem", "nextitem", "depth", "depth0", "cycle('a', 'b')", "changed(x)", "nope", "cycle()")} }}}}";
            case 24 when _dice.One(8): return "{{ raise_exception('no') }}";
            default: return Output();
        }
    }

    private string Pick(string[] usual, string[] odd) => _dice.One(14) ? _dice.From(odd) : _dice.From(usual);

    private string Output() => $"{{{{{Sign(true)} {Any(_dice.Between(1, 3))} {Sign(true)}}}}}";

    // ---- expressions

    private string Any(int depth) => _dice.To(9) switch
    {
        0 or 1 or 2 => Str(depth),
        3 => Num(depth),
        4 => Bool(depth),
        5 => List(depth),
        6 => Map(depth),
        7 => depth > 0
            ? $"{Any(depth - 1)} | {_dice.From(_dice.Pick(StrFilters, ListFilters, DictFilters, NumFilters))}"
            : _dice.From(Names),
        _ => depth > 0 && _dice.One(3) ? Wild(depth) : _dice.From(Names),
    };

    // Of any kind at all: many of these are errors, on both sides.
    private string Wild(int depth) => _dice.To(10) switch
    {
        0 =>
            $"{Any(depth - 1)} "
                + $"{_dice.Pick("+", "-", "*", "/", "//", "%", "~", "==", "<", ">=", "in", "not in", "and", "or")} "
                + $"{Any(depth - 1)}",
        1 =>
            $"{_dice.From(Names)}.{_dice.Pick("a", "b", "role", "content", "items", "keys", "nope", "0", "1", "_a", "__len__", "append", "get", "copy", "index", "count", "upper", "real", "update", "values")}",
        2 =>
            $"{_dice.From(Names)}[{_dice.Pick("0", "-1", "'a'", "1:", ":2", "::-1", "'nope'", "n", "m", "none", "1.5", "true", "n:m", "::2", "5:", "'upper'")}]",
        3 => $"({Any(depth - 1)}).{Pick(StrMethods, OddStrMethods)}",
        4 =>
            $"{_dice.From(Names)}.{_dice.Pick("items()", "keys()", "values()", "get('a')", "get('zz', 1)", "append(1)", "index(1)", "count(1)", "pop()", "copy()", "items() | list", "keys() | list", "values() | first")}",
        5 => $"({Any(depth - 1)} if {Bool(depth - 1)}{(_dice.Coin() ? $" else {Any(depth - 1)}" : "")})",
        6 =>
            $"{_dice.Pick("range", "dict", "namespace", "joiner", "cycler", "lipsum", "strftime_now", "nope")}({_dice.Pick("", "3", "1, 4", "0, 10, 3", "5, 0, -2", "a=1", "'%Y-%m-%d'", "d")})",
        7 => $"{Any(depth - 1)} is {(_dice.One(4) ? "not " : "")}{Pick(Tests, OddTests)}",
        8 => $"-{Any(depth - 1)}",
        _ => $"({Any(depth - 1)}, {Any(depth - 1)})",
    };

    private string Literal()
    {
        string w = Word();
        char quote = _dice.Pick('\'', '"');
        var text = new StringBuilder().Append(quote);
        foreach (char c in w)
            if (c == quote || c == '\\') text.Append('\\').Append(c);
            else if (c == '\n') text.Append(_dice.Pick("\\n", "\n"));
            else text.Append(c);
        if (_dice.One(12))
            text.Append(
                _dice.Pick(
                    "\\t", "\\x41", "\\u00e9", "\\q", "\\101", "\\U0001F600", "\\N{DIGIT ONE}", "\\'", "\\\"", "\\x4",
                    "\\a", "\\0")
            );
        return text.Append(quote).ToString();
    }

    private string Str(int depth)
    {
        if (depth <= 0)
            return _dice.To(4) switch
            {
                0 => "s",
                1 => "t",
                2 => _dice.Pick(
                    "eos_token", "(messages | first).role", "messages[0].content", "messages[0]['role']", "x"),
                _ => Literal(),
            };
        return _dice.To(12) switch
        {
            0 or 1 => $"{Str(depth - 1)} {_dice.Pick("~", "+", "~")} {Str(depth - 1)}",
            2 or 3 => $"{Str(depth - 1)} | {Pick(StrFilters, OddStrFilters)}",
            4 or 5 => $"{(depth > 1 ? $"({Str(depth - 1)})" : Str(0))}.{Pick(StrMethods, OddStrMethods)}",
            6 => $"{Str(0)}[{_dice.Pick("0", "-1", "1:", ":-1", "::-1", "n", "1:3", "m:", "::2", "-2:", "100")}]",
            7 => $"({Str(depth - 1)} if {Bool(depth - 1)} else {Str(depth - 1)})",
            8 => !_dice.One(6)
                ? Literal()
                : $"{_dice.Pick("'%s' % s", "'%d|%5.2f' % (n, f)", "'%s %s' % (s, l)", "'%(a)s' % d", "'%05d' % n", "'%x' % 255", "'%-5s|' % s", "'%r' % s", "'%%' % ()", "s % n", "'%c' % 65", "'%e' % f", "'%g' % f", "'%i' % f", "'%s' % (l,)")}",
            9 => !_dice.One(6)
                ? "s"
                : $"{_dice.Pick("'{}-{}'.format(s, n)", "'{0}{1}{0}'.format(s, t)", "'{:>8}|'.format(s)", "'{:05d}'.format(n)", "'{:.2f}'.format(f)", "'{a}'.format(a=s)", "'{!r}'.format(s)", "'{:,}'.format(1234567)", "'{{}}'.format()", "'{:%}'.format(f)", "'{x.y}'.format(x=d)", "'{0[a]}'.format(d)")}",
            10 => $"{Str(depth - 1)} * {_dice.Pick("2", "n", "0", "-1", "m")}",
            _ => $"{Any(depth - 1)} | string",
        };
    }

    private string Num(int depth)
    {
        if (depth <= 0)
            return _dice.To(4) switch
            {
                0 => "n",
                1 => "m",
                2 => "f",
                _ => _dice.Pick(
                    "0", "1", "2", "7", "-3", "1.5", "0.1", "1e3", "10", "1_000", "1e16", "123456789012", "2.0",
                    "0.1e1", "9007199254740993", "4611686018427387904", "0x1f", "0b11", "0o17", "00", "1E5", "1.5e-7"),
            };
        return _dice.To(9) switch
        {
            0 or 1 or 2 =>
                $"{Num(depth - 1)} {_dice.Pick("+", "-", "*", "+", "-", _dice.Pick("/", "//", "%"))} {Num(depth - 1)}",
            3 => $"{_dice.Pick("2", "n", "3", "10", "0.5", "-2", "m")} ** {_dice.Pick("2", "n", "0", "-1", "0.5", "10")}",
            4 => $"{Any(depth - 1)} | length",
            5 => $"({Num(depth - 1)}) | {Pick(NumFilters, OddNumFilters)}",
            6 => $"({Str(depth - 1)}) | int",
            7 => $"-({Num(depth - 1)})",
            _ => $"({Num(depth - 1)})",
        };
    }

    private string Bool(int depth)
    {
        if (depth <= 0)
            return _dice.Pick(
                "b", "true", "false", "add_generation_prompt", "not b", "n", "s", "missing", "l", "True", "none",
                "loop.first");
        return _dice.To(10) switch
        {
            0 => $"{Num(depth - 1)} {_dice.Pick("==", "!=", "<", "<=", ">", ">=")} {Num(depth - 1)}",
            1 => $"{Str(depth - 1)} {_dice.Pick("==", "!=", "<", ">", "in", "not in")} {Str(depth - 1)}",
            2 => $"{Any(depth - 1)} is {(_dice.One(4) ? "not " : "")}{Pick(Tests, OddTests)}",
            3 => $"{Bool(depth - 1)} {_dice.Pick("and", "or")} {Bool(depth - 1)}",
            4 => $"not {Bool(depth - 1)}",
            5 => $"{Any(depth - 1)} {_dice.Pick("in", "not in", "==", "!=")} {Any(depth - 1)}",
            6 =>
                $"{Num(depth - 1)} {_dice.Pick("<", "<=", "==")} {Num(depth - 1)} {_dice.Pick("<", "<=", "!=")} "
                    + $"{Num(depth - 1)}",
            7 => $"({Bool(depth - 1)})",
            8 => $"{_dice.From(Names)} is defined and {Bool(depth - 1)}",
            _ => Bool(0),
        };
    }

    private string List(int depth)
    {
        if (depth <= 0)
            return _dice.Pick(
                "l", "ls", "ld", "e", "messages", "[]", "[1, 2, 3]", "['a', 'B', 'c']", "(1, 2)", "range(3)", "tools",
                "[3, 1, 2]", "[none, 1]", "['a', 1]", "[[1, 2], [3, 4]]", "[{'a': 1}, {'a': 2}, {'b': 3}]");
        return _dice.To(8) switch
        {
            0 or 1 or 2 => $"{List(depth - 1)} | {Pick(ListFilters, OddListFilters)}",
            3 => $"{List(depth - 1)} + {List(depth - 1)}",
            4 => $"{List(0)}[{_dice.Pick("1:", ":-1", "::-1", "0", "-1", "n:", "::2", "1:2")}]",
            5 => $"[{Any(depth - 1)}, {Any(depth - 1)}]",
            6 => $"{Str(0)}.split({_dice.Pick("", "','", "' '", "'a'")})",
            _ => $"{List(0)} * {_dice.Pick("2", "0", "n")}",
        };
    }

    private string Map(int depth)
    {
        if (depth <= 0)
            return _dice.Pick(
                "d", "{}", "{'a': 1}", "{'b': [1, 2.5], 'a': none, 'c': 'x'}", "messages[0]", "dict(a=1)", "{'k': d}",
                "{1: 'a'}", "{none: 1}", "{'a': 1, 'a': 2}");
        return _dice.To(4) switch
        {
            0 or 1 => $"{Map(depth - 1)} | {Pick(DictFilters, OddDictFilters)}",
            2 => $"{{'a': {Any(depth - 1)}, {Literal()}: {Any(depth - 1)}}}",
            _ =>
                $"{Map(0)}.{_dice.Pick("items()", "keys()", "values()", "get('a')", "get('b', 'q')", "a", "items() | list", "keys() | list", "values() | list", "items() | first", "nope", "get('a').b", "items() | length", "keys() | join", "pop('a')", "copy()", "update({})")}",
        };
    }

    // ---- real templates, changed

    private string Mutated(string template)
    {
        for (int n = _dice.To(3); n > 0; n--)
        {
            int at = _dice.To(template.Length + 1), length = Math.Min(template.Length - at, _dice.Between(0, 8));
            template = _dice.To(6) switch
            {
                0 => template.Remove(at, length),
                1 => template.Insert(at, template.Substring(at, length)),
                2 => template.Insert(at, Gap()),
                3 => template.Insert(at, Output()),
                4 when template.IndexOf("{{", at, StringComparison.Ordinal) is >= 0 and var found => template.Insert(
                    found, Statement(1, false)),
                _ => Swapped(template),
            };
        }
        return Texts.Whole(template);
    }

    private string Swapped(string template)
    {
        string[] from =
        [
            "loop.first", "loop.last", "== 'user'", "| trim", "content", "is defined", "is not none", "-%}", "{%-",
            "{{-", "and", "not", "+", "[0]", "strip", "tojson", "messages", "role"];
        string[] to =
        [
            "loop.index0", "loop.last", "!= 'user'", "| upper", "role", "is string", "is none", "%}", "{%", "{{", "or",
            "", "~", "[-1]", "lstrip", "tojson(indent=2)", "messages[1:]", "content"];
        int i = _dice.To(from.Length),
            at = template.IndexOf(from[i], _dice.To(template.Length + 1), StringComparison.Ordinal);
        return at < 0 ? template : template.Remove(at, from[i].Length).Insert(at, to[i]);
    }
}
