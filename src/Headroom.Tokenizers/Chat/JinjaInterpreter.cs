using System.Runtime.CompilerServices;
using Headroom.Core;

namespace Headroom.Tokenizers.Chat;

/// <summary>
/// Runs a parsed template. Work, text and nesting are bounded, so that a hostile template ends in an error:
/// <see cref="MostWork"/> units (a character or list item handled is one, an evaluation or statement
/// <see cref="Step"/>: two million of them take less than a second), <see cref="MostText"/> characters of output, and
/// the stack that there is.
/// </summary>
internal sealed partial class JinjaInterpreter
{
    private const long MostWork = 32_000_000;
    private const int Step = 16;
    private const int MostText = 32 << 20;

    private readonly TextBuilder _out;
    private readonly Provenance? _marks;
    private readonly DateTimeOffset _now;
    private readonly JinjaValues _values;
    private readonly IReadOnlyDictionary<List<Stmt>, string[]> _hidden;
    private TextBuilder _to;
    private long _work;
    private int _line = 1;

    private enum Flow : byte { Next, Break, Continue }

    private JinjaInterpreter(
        DateTimeOffset now, IReadOnlyDictionary<List<Stmt>, string[]> hidden, Provenance? marks)
    {
        _hidden = hidden;
        _now = now;
        _marks = marks;
        _to = _out = new TextBuilder(marks);
        _values = new JinjaValues(Charge, marks);
    }

    /// <summary>The text that a template makes of its variables.</summary>
    public static string Render(
        JinjaTemplate template, IEnumerable<KeyValuePair<string, object?>> variables, DateTimeOffset now) =>
        Render(template, variables, now, null, out _);

    /// <summary>The same, with the marks of its characters.</summary>
    /// <param name="template">The template.</param>
    /// <param name="variables">Its variables; strings of them that <paramref name="marks"/> knows are followed.</param>
    /// <param name="now">What strftime_now reads.</param>
    /// <param name="marks">Null: nothing is followed.</param>
    /// <param name="found">The marks, in order.</param>
    public static string Render(
        JinjaTemplate template, IEnumerable<KeyValuePair<string, object?>> variables, DateTimeOffset now,
        Provenance? marks, out IReadOnlyList<Mark> found)
    {
        var globals = new JinjaScope(null);
        foreach (var (name, value) in variables) globals.Set(name, value);
        var run = new JinjaInterpreter(now, template.Hidden, marks);
        try
        {
            run.Run(template.Body, run.Within(template.Body, globals));
        }
        catch (JinjaFault e)
        {
            throw JinjaError.At(run._line, e.Message);
        }
        found = run._out.Marks;
        return run._out.ToString();
    }

    /// <summary>The scope of a body.</summary>
    private JinjaScope Within(List<Stmt> body, JinjaScope outer)
    {
        var scope = new JinjaScope(outer);
        if (_hidden.TryGetValue(body, out string[]? names))
            foreach (string name in names)
                scope.Set(name, new Undefined(name));
        return scope;
    }

    private void Charge(long work)
    {
        _work += work;
        if (_work > MostWork) throw new JinjaFault("it does not come to an end within the work that a template may do");
    }

    /// <summary>A part of a string.</summary>
    private string Cut(string s, int from, int to) => _marks?.Cut(s, from, to) ?? s[from..to];

    /// <summary>
    /// Refuses the result of an operation that did not say where its characters come from, though it was given a text
    /// of a message.
    /// </summary>
    private object? Followed(string name, object? given, Args args, object? result)
    {
        if (_marks == null) return result;
        bool IsKnown(object? v) => v is string { Length: > 0 } s && _marks.Knows(s);
        if (!IsKnown(given) && !args.Positional.Any(IsKnown) && !args.Named.Values.Any(IsKnown)) return result;
        bool Lost(object? v) =>
            v is string { Length: > 0 } s && !_marks.Knows(s) && !ReferenceEquals(s, given)
            && !args.Positional.Concat(args.Named.Values).Any(a => ReferenceEquals(a, s));
        return Lost(result) || result is List<object?> list && list.Any(Lost)
            ? throw new JinjaFault($"{name} of a message's text cannot be followed")
            : result;
    }

    private void Write(string text)
    {
        Charge(text.Length);
        if (_to.Length + text.Length > MostText)
            throw new JinjaFault($"it makes more than {MostText >> 20} Mi characters of text");
        _to.Append(text);
    }

    private Flow Run(List<Stmt> body, JinjaScope scope)
    {
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack()) throw new JinjaFault("it is nested too deeply");
        foreach (var s in body)
        {
            Charge(Step);
            _line = s.Line;
            switch (s)
            {
                case DataStmt d:
                    Write(d.Text);
                    break;
                case OutputStmt o:
                    Write(_values.Str(Eval(o.Value, scope)));
                    break;
                case SetStmt set:
                    Set(set, scope);
                    break;
                case IfStmt branch:
                    var chosen = branch.Else;
                    foreach (var (condition, then) in branch.Branches)
                        if (JinjaValues.Truth(Eval(condition, scope)))
                        {
                            chosen = then;
                            break;
                        }
                    if (chosen != null && Run(chosen, scope) is var flow and not Flow.Next) return flow;
                    break;
                case ForStmt loop:
                    if (For(loop, scope) is var after and not Flow.Next) return after;
                    break;
                case MacroStmt macro:
                    scope.Set(macro.Name, new BoundMacro(macro, scope));
                    break;
                case GenerationStmt g:
                    Run(g.Body, Within(g.Body, scope));
                    break;
                case WithStmt with:
                    var own = Within(with.Body, scope);
                    foreach (var (name, value) in with.Values) own.Set(name, Eval(value, scope));
                    if (Run(with.Body, own) is var within and not Flow.Next) return within;
                    break;
                case FilterStmt filter:
                    object? text = Captured(filter.Body, Within(filter.Body, scope));
                    foreach (var (name, arguments) in filter.Filters)
                        text = Filter(name, text, new Args(this, arguments, scope));
                    Write(_values.Str(text));
                    break;
                case JumpStmt jump:
                    return jump.Break ? Flow.Break : Flow.Continue;
            }
        }
        return Flow.Next;
    }

    private string Captured(List<Stmt> body, JinjaScope scope)
    {
        var outer = _to;
        _to = new TextBuilder(_marks);
        try
        {
            Run(body, scope);
            return _to.ToString();
        }
        finally
        {
            _to = outer;
        }
    }

    private void Set(SetStmt set, JinjaScope scope)
    {
        object? value;
        if (set.Body != null)
        {
            value = Captured(set.Body, Within(set.Body, scope));
            foreach (var (name, arguments) in set.Filters)
                value = Filter(name, value, new Args(this, arguments, scope));
        }
        else value = Eval(set.Value!, scope);
        if (set.Attribute != null)
        {
            if (!scope.TryGet(set.Names[0], out object? target) || target is not PyNamespace ns)
                throw new JinjaFault($"{set.Names[0]} is not a namespace");
            ns.Values[set.Attribute] = value;
        }
        else Assign(set.Names, value, scope);
    }

    private void Assign(List<string> names, object? value, JinjaScope scope)
    {
        if (names.Count == 1)
        {
            scope.Set(names[0], value);
            return;
        }
        var items = Items(value).ToList();
        if (items.Count != names.Count)
            throw new JinjaFault($"{items.Count} values are assigned to {names.Count} names");
        for (int i = 0; i < names.Count; i++) scope.Set(names[i], items[i]);
    }

    private Flow For(ForStmt loop, JinjaScope scope)
    {
        object? source = Eval(loop.Source, scope);
        var items = Items(source);
        var state = new LoopState(
            loop.Filter == null ? items : Kept(loop, items, scope), loop.Filter == null ? Sized(source, items) : null);
        bool whole = false;
        while (state.Next(out object? item))
        {
            Charge(Step);
            var inner = Within(loop.Body, scope);
            inner.Set("loop", state);
            Assign(loop.Names, item, inner);
            var flow = Run(loop.Body, inner);
            // jinja2 notes an iteration at its end (compiler.py, visit_For): one that is left early does not keep the
            // else branch from running.
            whole |= flow == Flow.Next;
            if (flow == Flow.Break) break;
        }
        return whole || loop.Else == null ? Flow.Next : Run(loop.Else, Within(loop.Else, scope));
    }

    private IEnumerable<object?> Kept(ForStmt loop, IEnumerable<object?> items, JinjaScope scope)
    {
        foreach (object? item in items)
        {
            var test = new JinjaScope(scope);
            Assign(loop.Names, item, test);
            if (JinjaValues.Truth(Eval(loop.Filter!, test))) yield return item;
        }
    }

    private static int? Sized(object? source, IEnumerable<object?> items) =>
        source is PyIterator ? null : items.Count();

    /// <summary>
    /// What a for loop goes over: items of a list, keys of a mapping, characters of a string, nothing of an undefined
    /// value, what is left of an iterator.
    /// </summary>
    private IEnumerable<object?> Items(object? v)
    {
        switch (v)
        {
            case List<object?> list:
                Charge(list.Count);
                return list;
            case PyDict dict:
                Charge(dict.Count);
                return dict.Keys.Select(k => (object?)k).ToList();
            case PyView view:
                Charge(view.Dict.Count);
                return view.List();
            case PyIterator iterator: return iterator.Rest();
            case string s: return _values.Characters(s);
            case Undefined: return [];
            case LoopState: throw new JinjaFault("going over the variable loop is not supported");
            default: throw new JinjaFault($"{JinjaValues.TypeName(v)} cannot be gone over");
        }
    }

    private string CallMacro(BoundMacro macro, Args args)
    {
        var scope = Within(macro.Macro.Body, macro.Scope);
        var parameters = macro.Macro.Parameters;
        if (args.Count > parameters.Count)
            throw new JinjaFault($"the macro {macro.Macro.Name} takes {parameters.Count} arguments");
        foreach (var (name, _) in parameters.Take(args.Count))
            if (args.Named.ContainsKey(name)) throw new JinjaFault($"the argument {name} is given twice");
        for (int i = 0; i < parameters.Count; i++)
        {
            var (name, fallback) = parameters[i];
            scope.Set(
                name,
                args.Has(i, name) ? args.Get(i, name)
                    : fallback != null ? Eval(fallback, scope)
                    : new Undefined(name)
            );
        }
        args.Done(parameters.Select(p => p.Name));
        int line = _line;
        string text = Captured(macro.Macro.Body, scope);
        _line = line;
        return text;
    }

    /// <summary>Arguments, evaluated.</summary>
    private sealed class Args
    {
        private readonly List<object?> _positional = [];
        private readonly Dictionary<string, object?> _named = [];

        public Args(JinjaInterpreter run, Arguments arguments, JinjaScope scope)
        {
            foreach (var e in arguments.Positional) _positional.Add(run.Eval(e, scope));
            foreach (var (name, e) in arguments.Named)
                if (!_named.TryAdd(name, run.Eval(e, scope)))
                    throw new JinjaFault($"the argument {name} is given twice");
        }

        public Args(IEnumerable<object?> positional) => _positional.AddRange(positional);

        public int Count => _positional.Count;
        public IReadOnlyList<object?> Positional => _positional;
        public IReadOnlyDictionary<string, object?> Named => _named;
        public bool Has(int i, string name) => i < _positional.Count || _named.ContainsKey(name);

        public object? Get(int i, string name) =>
            i < _positional.Count ? _positional[i]
            : _named.TryGetValue(name, out object? v) ? v
            : throw new JinjaFault($"the argument {name} is missing");
        public object? Get(int i, string name, object? fallback) => Has(i, name) ? Get(i, name) : fallback;

        public string Text(int i, string name) =>
            Get(i, name) as string
            ?? throw new JinjaFault($"the argument {name} is {JinjaValues.TypeName(Get(i, name))}, not a string");

        /// <summary>Refuses what the callee does not know.</summary>
        public void Done(IEnumerable<string> names)
        {
            string[] known = names.ToArray();
            if (_positional.Count > known.Length)
                throw new JinjaFault(
                    $"a call with {_positional.Count} arguments, where {known.Length} are known, is not supported");
            foreach (string name in known.Take(_positional.Count))
                if (_named.ContainsKey(name)) throw new JinjaFault($"the argument {name} is given twice");
            foreach (string name in _named.Keys)
                if (!known.Contains(name)) throw new JinjaFault($"the argument {name} is not supported");
        }

        public Args Skip(int n) => new(_positional.Skip(n));
    }

    private static HeadroomException Refused(string message) =>
        new(
            $"The model's chat template refuses these messages: {message.ReplaceLineEndings(" ")}",
            "Change the roles or the order of the messages.");
}
