namespace Headroom.Core;

/// <summary>
/// A fault a user can act on: one line of what is wrong, one line of what to do, and the process exit code (2 = bad
/// input, 1 = failed run). Both lines are the same in the library as on the console: sentences without a control
/// character, together of less than 2 KB, whatever names and values of a file were put into them
/// (<see cref="Printable.Message"/>).
/// </summary>
/// <param name="what">What is wrong.</param>
/// <param name="todo">What to do about it.</param>
/// <param name="exitCode">2 = bad input, nothing was written; 1 = a run that failed or was stopped.</param>
/// <param name="inner">The cause.</param>
public class HeadroomException(string what, string todo, int exitCode = 2, Exception? inner = null)
    : Exception(Sentence(what, MostWhat), inner)
{
    private const int MostWhat = 1200, MostToDo = 800;

    /// <summary>What to do about it, one line.</summary>
    public string ToDo { get; } = Sentence(todo, MostToDo);
    /// <summary>Process exit code.</summary>
    public int ExitCode { get; } = exitCode;

    /// <summary>
    /// A value of a file as messages show it: without control characters, and a long one cut with an ellipsis.
    /// </summary>
    /// <param name="text">The value.</param>
    /// <param name="most">Characters shown at most.</param>
    public static string Value(string text, int most = 60) =>
        Printable.Line(
            text.Length > most ? text[..(char.IsHighSurrogate(text[most - 2]) ? most - 2 : most - 1)] + "…" : text);

    /// <summary>Names as messages list them: each as <see cref="Value"/>, and of many the first.</summary>
    public static string List(IEnumerable<string> names)
    {
        var all = names.ToList();
        var shown = all.Take(12).Select(n => Value(n, 40));
        return string.Join(", ", all.Count <= 12 ? shown : shown.Append($"… ({all.Count} in all)"));
    }

    /// <summary>
    /// One line that ends like a sentence. Its first letter stays as it is: it may be that of a file's name.
    /// </summary>
    private static string Sentence(string text, int mostBytes)
    {
        text = Printable.Message(text, mostBytes).Trim();
        return text.Length == 0 || text[^1] is '.' or '?' or '!' ? text : text + ".";
    }
}
