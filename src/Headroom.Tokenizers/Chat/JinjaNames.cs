using System.Runtime.CompilerServices;

namespace Headroom.Tokenizers.Chat;

/// <summary>A parsed template.</summary>
/// <param name="Body">Its statements.</param>
/// <param name="Hidden">For a body that is a scope of its own: names that are undefined in it until it sets them,
/// whatever the variables say.</param>
internal sealed record JinjaTemplate(List<Stmt> Body, IReadOnlyDictionary<List<Stmt>, string[]> Hidden);

/// <summary>
/// Which names a scope hides. jinja2 decides before a template runs (<c>idtracking.py</c>): a name that a scope sets
/// before it reads it itself, and that no scope around it knows, is undefined until then, also in the loops and macros
/// inside that read it earlier.
/// </summary>
internal sealed class JinjaNames
{
    private readonly Dictionary<List<Stmt>, string[]> _hidden = new(ReferenceEqualityComparer.Instance);

    /// <summary>The names of one scope: known, and hidden at its start.</summary>
    private sealed class Frame(Frame? outer)
    {
        public HashSet<string> Known { get; } = [];
        public HashSet<string> Hidden { get; } = [];
        public HashSet<string> Stored { get; } = [];
        public bool Knows(string name) => Known.Contains(name) || (outer?.Knows(name) ?? false);
        public bool OuterKnows(string name) => outer?.Knows(name) ?? false;

        public Frame Branch()
        {
            var copy = new Frame(outer);
            copy.Known.UnionWith(Known);
            copy.Hidden.UnionWith(Hidden);
            copy.Stored.UnionWith(Stored);
            return copy;
        }
    }

    public static JinjaTemplate Collect(List<Stmt> body)
    {
        var names = new JinjaNames();
        names.Scope(body, null, []);
        return new JinjaTemplate(body, names._hidden);
    }

    private void Scope(List<Stmt> body, Frame? outer, IEnumerable<string> parameters, IEnumerable<Expr>? reads = null)
    {
        var frame = new Frame(outer);
        foreach (string p in parameters) frame.Known.Add(p);
        foreach (var e in reads ?? []) Reads(e, frame);
        Visit(body, frame);
        if (frame.Hidden.Count > 0) _hidden[body] = [.. frame.Hidden];
        Inside(body, frame);
    }

    private static void Read(string name, Frame frame)
    {
        if (!frame.Knows(name)) frame.Known.Add(name);
    }

    private static void Store(string name, Frame frame)
    {
        frame.Stored.Add(name);
        if (frame.Known.Contains(name)) return;
        if (!frame.OuterKnows(name)) frame.Hidden.Add(name);
        frame.Known.Add(name);
    }

    // What the scope itself reads and sets, in order; not what the scopes inside do.
    private static void Visit(List<Stmt> body, Frame frame)
    {
        CheckDepth();
        foreach (var s in body)
            switch (s)
            {
                case OutputStmt o: Reads(o.Value, frame); break;
                case SetStmt set:
                    if (set.Value != null) Reads(set.Value, frame);
                    if (set.Attribute != null) Read(set.Names[0], frame);
                    else foreach (string n in set.Names) Store(n, frame);
                    break;
                case IfStmt branch: Branches(branch.Branches, 0, branch.Else, frame); break;
                case ForStmt loop: Reads(loop.Source, frame); break;
                case MacroStmt macro: Store(macro.Name, frame); break;
                case WithStmt with:
                    foreach (var (_, value) in with.Values) Reads(value, frame);
                    break;
                case FilterStmt filter:
                    foreach (var (_, arguments) in filter.Filters) Reads(arguments, frame);
                    break;
            }
    }

    // Of an if: the body, all elif as one, and else. A name is hidden only if every one of them sets it first.
    private static void Branches(
        List<(Expr Condition, List<Stmt> Body)> branches, int at, List<Stmt>? otherwise, Frame frame)
    {
        Reads(branches[at].Condition, frame);
        Frame body = frame.Branch(), elses = frame.Branch(), last = frame.Branch();
        Visit(branches[at].Body, body);
        // Each elif is an if without branches of its own.
        for (int i = at + 1; at == 0 && i < branches.Count; i++) Branches([branches[i]], 0, null, elses);
        if (otherwise != null) Visit(otherwise, last);
        Frame[] all = [body, elses, last];
        var before = frame.Stored.ToHashSet();
        foreach (var b in all)
        {
            frame.Known.UnionWith(b.Known);
            frame.Hidden.UnionWith(b.Hidden);
            frame.Stored.UnionWith(b.Stored);
        }
        foreach (string name in frame.Stored.Except(before))
            if (!Array.TrueForAll(all, b => b.Stored.Contains(name))) frame.Hidden.Remove(name);
    }

    // A template can nest as deep as its length.
    private static void CheckDepth()
    {
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack()) throw JinjaError.At(1, "it is nested too deeply");
    }

    private void Inside(List<Stmt> body, Frame frame)
    {
        CheckDepth();
        foreach (var s in body)
            switch (s)
            {
                case SetStmt { Body: { } text }: Scope(text, frame, []); break;
                case IfStmt branch:
                    foreach (var (_, then) in branch.Branches) Inside(then, frame);
                    if (branch.Else != null) Inside(branch.Else, frame);
                    break;
                case ForStmt loop:
                    Scope(loop.Body, frame, loop.Names.Append("loop"));
                    if (loop.Else != null) Scope(loop.Else, frame, []);
                    break;
                case MacroStmt macro:
                    Scope(
                        macro.Body, frame, macro.Parameters.Select(p => p.Name),
                        macro.Parameters.Select(p => p.Default).OfType<Expr>());
                    break;
                case GenerationStmt g: Scope(g.Body, frame, []); break;
                case WithStmt with: Scope(with.Body, frame, with.Values.Select(v => v.Name)); break;
                case FilterStmt filter:
                    Scope(filter.Body, frame, [], filter.Filters.SelectMany(f => All(f.Arguments)));
                    break;
            }
    }

    private static IEnumerable<Expr> All(Arguments a) => a.Positional.Concat(a.Named.Select(n => n.Value));

    private static void Reads(Arguments a, Frame frame)
    {
        foreach (var e in All(a)) Reads(e, frame);
    }

    private static void Reads(Expr? e, Frame frame)
    {
        CheckDepth();
        if (e is NameExpr name) Read(name.Name, frame);
        else if (e != null) foreach (var part in Parts(e)) Reads(part, frame);
    }

    private static Expr?[] Parts(Expr e) => e switch
    {
        ListExpr l => [.. l.Items],
        DictExpr d => [.. d.Items.SelectMany(p => new[] { p.Key, p.Value })],
        AttributeExpr a => [a.Target],
        ItemExpr i => [i.Target, i.Index],
        SliceExpr s => [s.Target, s.Start, s.Stop, s.Step],
        CallExpr c => [c.Target, .. All(c.Arguments)],
        FilterExpr f => [f.Target, .. All(f.Arguments)],
        TestExpr t => [t.Target, .. All(t.Arguments)],
        UnaryExpr u => [u.Value],
        BinaryExpr b => [b.Left, b.Right],
        CompareExpr c => [c.First, .. c.Rest.Select(r => r.Value)],
        NotExpr n => [n.Value],
        LogicExpr l => [l.Left, l.Right],
        ConditionalExpr c => [c.Condition, c.Then, c.Else],
        _ => [],
    };
}
