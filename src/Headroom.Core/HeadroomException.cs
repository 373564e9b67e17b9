namespace Headroom.Core;

/// <summary>
/// A fault a user can act on: one line of what is wrong, one line of what to do, and the process exit code (2 = bad input, 1 = failed run). Both lines are the same in the
/// library as on the console: sentences of at most 2,048 bytes without a control character, whatever names and values were put into them (<see cref="Printable.Message"/>).
/// </summary>
/// <param name="what">What is wrong.</param>
/// <param name="todo">What to do about it.</param>
/// <param name="exitCode">2 = bad input, nothing was written; 1 = a run that failed or was stopped.</param>
/// <param name="inner">The cause.</param>
public class HeadroomException(string what, string todo, int exitCode = 2, Exception? inner = null) : Exception(Sentence(what), inner)
{
    /// <summary>What to do about it, one line.</summary>
    public string ToDo { get; } = Sentence(todo);
    /// <summary>Process exit code.</summary>
    public int ExitCode { get; } = exitCode;

    /// <summary>One line that ends like a sentence. Its first letter stays as it is: it may be that of a file's name.</summary>
    private static string Sentence(string text)
    {
        text = Printable.Message(text).Trim();
        return text.Length == 0 || text[^1] is '.' or '?' or '!' ? text : text + ".";
    }
}
