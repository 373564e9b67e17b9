namespace Headroom.Tokenizers.Chat;

/// <summary>What of a message a character comes from.</summary>
internal enum Origin : byte
{
    /// <summary>Of a message that no assistant wrote.</summary>
    Other,
    /// <summary>An assistant's content.</summary>
    Content,
    /// <summary>What an assistant thought: a field of its own, or content up to the last &lt;/think&gt;.</summary>
    Reasoning,
    /// <summary>Names and arguments of the tools that an assistant calls.</summary>
    Call,
}

/// <summary>A stretch of a text that comes from one part of one message.</summary>
/// <param name="Start">First character (UTF-16).</param>
/// <param name="End">Behind the last.</param>
/// <param name="Message">Index of the message.</param>
/// <param name="Origin">Which part.</param>
internal readonly record struct Mark(int Start, int End, int Message, Origin Origin);

/// <summary>
/// Where the strings of a rendering come from. A template works on plain strings, which are known here by reference:
/// each one with marks is an instance of its own. An operation makes its result from what it was given by
/// <see cref="Cut"/> and <see cref="TextBuilder"/>, which carry the marks along; one that does not is refused
/// (<see cref="JinjaInterpreter"/>), so that none is lost without a word.
/// </summary>
internal sealed class Provenance
{
    private readonly Dictionary<string, Mark[]> _marks = new(ReferenceEqualityComparer.Instance);

    /// <summary>A text as an instance of its own, with its marks.</summary>
    public string Add(string text, params Mark[] marks)
    {
        if (text.Length == 0) return ""; // one instance for all, and nothing to mark
        string own = new(text.AsSpan());
        _marks.Add(own, marks);
        return own;
    }

    /// <summary>Whether the marks of this instance are known, be there some or none.</summary>
    public bool Knows(string text) => text.Length == 0 || _marks.ContainsKey(text);

    /// <summary>The marks of a string, in order.</summary>
    public IReadOnlyList<Mark> Of(string text) => _marks.GetValueOrDefault(text) ?? [];

    /// <summary>A part of a string with the marks of that part.</summary>
    public string Cut(string text, int from, int to)
    {
        if (from == 0 && to == text.Length || !_marks.TryGetValue(text, out var marks)) return text[from..to];
        return Add(text[from..to], [.. Within(marks, from, to, -from)]);
    }

    /// <summary>Marks of a part of a text, moved.</summary>
    public static IEnumerable<Mark> Within(IEnumerable<Mark> marks, int from, int to, int by)
    {
        foreach (var m in marks)
            if (m.Start < to && m.End > from)
                yield return m with { Start = Math.Max(m.Start, from) + by, End = Math.Min(m.End, to) + by };
    }

    /// <summary>
    /// What a character by character change made of a string: the same marks where its length stayed; where not, one
    /// that covers all covers all, and anything else is refused.
    /// </summary>
    public string Changed(string text, string made, string name)
    {
        if (ReferenceEquals(text, made) || !_marks.TryGetValue(text, out var marks)) return made;
        bool same = text.EnumerateRunes().Select(r => r.Utf16SequenceLength)
            .SequenceEqual(made.EnumerateRunes().Select(r => r.Utf16SequenceLength));
        if (same || marks.Length == 0) return Add(made, marks);
        return marks is [{ Start: 0 } all] && all.End == text.Length
            ? Add(made, all with { End = made.Length })
            : throw new JinjaFault($"{name} of a message's text that changes its length cannot be followed");
    }
}
