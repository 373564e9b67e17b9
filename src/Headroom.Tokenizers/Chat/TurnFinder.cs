namespace Headroom.Tokenizers.Chat;

/// <summary>
/// Turns of assistants in a rendered conversation, found by where its characters come from. A turn is what the model
/// would write after the generation prompt: what comes from the message, what the template writes between its parts,
/// and what follows up to the token that ends the turn, with that token. What the template writes before the first part
/// belongs to the turn only where that part is no plain content: it opens a thought or a call there, while an empty
/// thought before an answer or a call is given to the model, not written by it.
/// </summary>
/// <param name="text">The rendered conversation.</param>
/// <param name="marks">Where its characters come from.</param>
/// <param name="prompt">What the template adds as the generation prompt; may be empty.</param>
/// <param name="promptBefore">How long the prompt of a message is, where <paramref name="prompt"/> is not in the text;
/// null where that is not known.</param>
/// <param name="endToken">Start and end of the first token that can end a turn in a part of the text, or null.</param>
internal sealed class TurnFinder(
    string text, IReadOnlyList<Mark> marks, string prompt, Func<int, int?> promptBefore,
    Func<int, int, (int Start, int End)?> endToken)
{
    private readonly List<TurnSpan> _turns = [];
    private readonly List<int> _unclosed = [];

    /// <summary>The turns, and the messages that no token ends.</summary>
    public MarkedText Find()
    {
        for (int i = 0, next; i < marks.Count; i = next)
        {
            next = i + 1;
            if (marks[i].Origin == Origin.Other) continue;
            while (next < marks.Count && marks[next].Origin != Origin.Other && marks[next].Message == marks[i].Message)
                next++;
            Turn(i, next);
        }
        return new(text, _turns, _unclosed);
    }

    // The marks from first to last (exclusive) are of one message, with nothing of another between them.
    private void Turn(int first, int last)
    {
        int message = marks[first].Message,
            before = first == 0 ? 0 : marks[first - 1].End,
            after = last == marks.Count ? text.Length : marks[last].Start,
            start = marks[first].Origin == Origin.Content
                ? marks[first].Start : Opening(message, before, marks[first].Start);
        if (marks[first].Origin == Origin.Call) start = BehindThought(start, marks[first].Start) ?? start;
        for (int i = first; i < last; i++)
        {
            bool reasoning = marks[i].Origin == Origin.Reasoning;
            int end = i + 1 < last ? marks[i + 1].Start : marks[i].End;
            // What closes a thought belongs to it; what opens a call behind it does not.
            if (reasoning)
                end = BehindThought(
                    Math.Max(marks[i].Start, marks[i].End - MessageMarks.ThoughtEnd.Length), end) ?? end;
            Add(message, start, end, reasoning);
            start = end;
        }
        if (endToken(start, after) is { } token) Add(message, start, token.End, _turns[^1].Reasoning);
        else _unclosed.Add(message);
    }

    private void Add(int message, int start, int end, bool reasoning)
    {
        if (start == end) return;
        if (_turns.Count > 0 && _turns[^1] is var t && t.End == start
            && (t.Message, t.Reasoning) == (message, reasoning))
            _turns[^1] = t with { End = end };
        else _turns.Add(new(message, start, end, reasoning));
    }

    // Behind the end of a thought that the template writes, and the blanks there.
    private int? BehindThought(int from, int to)
    {
        int at = text.IndexOf(MessageMarks.ThoughtEnd, from, to - from, StringComparison.Ordinal);
        if (at < 0) return null;
        at += MessageMarks.ThoughtEnd.Length;
        while (at < to && char.IsWhiteSpace(text[at])) at++;
        return at;
    }

    private int Opening(int message, int from, int to)
    {
        int at = prompt.Length == 0 || to == from
            ? -1 : text.LastIndexOf(prompt, to - 1, to - from, StringComparison.Ordinal);
        if (at >= 0) return at + prompt.Length;
        return promptBefore(message) is { } length && length >= from && length <= to ? length : to;
    }
}
