using System.Text;

namespace Headroom.Core;

/// <summary>
/// A fault a user can act on: one line of what is wrong, one line of what to do, and the process exit code (2 = bad input, 1 = failed run). Both lines
/// together take less than 2 KB, whatever a file put into them.
/// </summary>
public class HeadroomException(string what, string todo, int exitCode = 2, Exception? inner = null) : Exception(Bound(what, MostWhat), inner)
{
    private const int MostWhat = 1200, MostToDo = 700;

    /// <summary>What to do about it, one line.</summary>
    public string ToDo { get; } = Bound(todo, MostToDo);
    /// <summary>Process exit code.</summary>
    public int ExitCode { get; } = exitCode;

    /// <summary>A value of a file as messages show it: without control characters, and a long one cut with an ellipsis.</summary>
    /// <param name="text">The value.</param>
    /// <param name="most">Characters shown at most.</param>
    public static string Value(string text, int most = 60)
    {
        string shown = text.Length > most ? text[..Whole(text, most - 1)] + "…" : text;
        return shown.Any(Unseen) ? string.Concat(shown.Select(c => Unseen(c) ? c is '\n' or '\r' or '\t' ? ' ' : '?' : c)) : shown;

        // Marks that turn the direction of writing too: they would change how the rest of the line looks.
        static bool Unseen(char c) => char.IsControl(c) || c is '\u2028' or '\u2029' or (>= '\u202A' and <= '\u202E') or (>= '\u2066' and <= '\u2069');
    }

    /// <summary>Names as messages list them: each as <see cref="Value"/>, and of many the first.</summary>
    public static string List(IEnumerable<string> names)
    {
        var all = names.ToList();
        var shown = all.Take(12).Select(n => Value(n, 40));
        return string.Join(", ", all.Count <= 12 ? shown : shown.Append($"… ({all.Count} in all)"));
    }

    /// <summary>At most this many bytes of UTF-8; what is cut ends in an ellipsis.</summary>
    private static string Bound(string text, int most)
    {
        if (text.Length * 3L <= most || Encoding.UTF8.GetByteCount(text) <= most) return text;
        int kept = 0, bytes = 3; // the ellipsis
        foreach (var rune in text.EnumerateRunes())
        {
            if ((bytes += rune.Utf8SequenceLength) > most) break;
            kept += rune.Utf16SequenceLength;
        }
        return text[..kept] + "…";
    }

    private static int Whole(string text, int at) => char.IsHighSurrogate(text[at - 1]) ? at - 1 : at;

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
