namespace Headroom.Core;

/// <summary>A fault a user can act on: one line of what is wrong, one line of what to do, and the process exit code (2 = bad input, 1 = failed run).</summary>
public class HeadroomException(string what, string todo, int exitCode = 2, Exception? inner = null) : Exception(what, inner)
{
    /// <summary>What to do about it, one line.</summary>
    public string ToDo { get; } = todo;
    /// <summary>Process exit code.</summary>
    public int ExitCode { get; } = exitCode;
}
