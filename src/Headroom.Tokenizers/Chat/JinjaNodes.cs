namespace Headroom.Tokenizers.Chat;

/// <summary>An expression.</summary>
internal abstract record Expr;

internal sealed record LiteralExpr(object? Value) : Expr;
internal sealed record NameExpr(string Name) : Expr;
internal sealed record ListExpr(List<Expr> Items, bool Tuple) : Expr;
internal sealed record DictExpr(List<(Expr Key, Expr Value)> Items) : Expr;
internal sealed record AttributeExpr(Expr Target, string Name) : Expr;
internal sealed record ItemExpr(Expr Target, Expr Index) : Expr;
internal sealed record SliceExpr(Expr Target, Expr? Start, Expr? Stop, Expr? Step) : Expr;
internal sealed record CallExpr(Expr Target, Arguments Arguments) : Expr;
internal sealed record FilterExpr(Expr Target, string Name, Arguments Arguments) : Expr;
internal sealed record TestExpr(Expr Target, string Name, Arguments Arguments, bool Not) : Expr;
internal sealed record UnaryExpr(char Op, Expr Value) : Expr;
internal sealed record BinaryExpr(string Op, Expr Left, Expr Right) : Expr;
internal sealed record CompareExpr(Expr First, List<(string Op, Expr Value)> Rest) : Expr;
internal sealed record NotExpr(Expr Value) : Expr;
/// <summary>and / or: the value of the operand that decides, as in Python.</summary>
internal sealed record LogicExpr(bool And, Expr Left, Expr Right) : Expr;
internal sealed record ConditionalExpr(Expr Condition, Expr Then, Expr? Else) : Expr;

/// <summary>Arguments of a call, filter or test.</summary>
internal sealed record Arguments(List<Expr> Positional, List<(string Name, Expr Value)> Named)
{
    public static Arguments None { get; } = new([], []);
}

/// <summary>A statement and the line it stands on.</summary>
internal abstract record Stmt(int Line);

internal sealed record DataStmt(int Line, string Text) : Stmt(Line);
internal sealed record OutputStmt(int Line, Expr Value) : Stmt(Line);
/// <summary>Assigns to names (more than one unpacks), to a namespace attribute, or the text of a block.</summary>
internal sealed record SetStmt(
    int Line, List<string> Names, string? Attribute, Expr? Value, List<Stmt>? Body,
    List<(string Name, Arguments Arguments)> Filters) : Stmt(Line);

internal sealed record IfStmt(int Line, List<(Expr Condition, List<Stmt> Body)> Branches, List<Stmt>? Else)
    : Stmt(Line);

internal sealed record ForStmt(
    int Line, List<string> Names, Expr Source, Expr? Filter, List<Stmt> Body, List<Stmt>? Else) : Stmt(Line);

internal sealed record MacroStmt(int Line, string Name, List<(string Name, Expr? Default)> Parameters, List<Stmt> Body)
    : Stmt(Line);
/// <summary>{% generation %}: marks the assistant's text for training masks; its body is output as it stands.</summary>
internal sealed record GenerationStmt(int Line, List<Stmt> Body) : Stmt(Line);
internal sealed record WithStmt(int Line, List<(string Name, Expr Value)> Values, List<Stmt> Body) : Stmt(Line);

internal sealed record FilterStmt(int Line, List<(string Name, Arguments Arguments)> Filters, List<Stmt> Body)
    : Stmt(Line);
internal sealed record JumpStmt(int Line, bool Break) : Stmt(Line);
