namespace Headroom.Core;

/// <summary>A fault a user can act on: one line of what is wrong, one line of what to do, and the process exit code (2 = bad input, 1 = failed run).</summary>
public class HeadroomException(string what, string todo, int exitCode = 2, Exception? inner = null) : Exception(what, inner)
{
    /// <summary>What to do about it, one line.</summary>
    public string ToDo { get; } = todo;
    /// <summary>Process exit code.</summary>
    public int ExitCode { get; } = exitCode;

    /// <summary>A message as it is shown to people: one line that begins with a capital (unless its first word is a key, a path or an option) and ends like a sentence.</summary>
    public static string Sentence(string text)
    {
        text = string.Join(' ', text.Split(['\n', '\r'], StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries));
        if (text.Length == 0) return text;
        string first = text.Split(' ', 2)[0];
        if (first.Length < text.Length && char.IsLower(first[0]) && first.All(char.IsLetter)) text = char.ToUpperInvariant(text[0]) + text[1..];
        return text[^1] is '.' or '?' or '!' ? text : text + ".";
    }
}
