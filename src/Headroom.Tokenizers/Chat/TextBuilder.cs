using System.Text;

namespace Headroom.Tokenizers.Chat;

/// <summary>A text that is put together, with the marks of its parts where a rendering asks for them.</summary>
/// <param name="marks">Null: nothing is marked.</param>
internal sealed class TextBuilder(Provenance? marks)
{
    private readonly StringBuilder _text = new();
    private readonly List<Mark> _marks = [];
    private bool _known;

    /// <summary>Characters so far.</summary>
    public int Length => _text.Length;

    /// <summary>Marks so far, in order; neighbours of one origin are one.</summary>
    public IReadOnlyList<Mark> Marks => _marks;

    /// <summary>Adds a string with its marks.</summary>
    public TextBuilder Append(string text) => Append(text, 0, text.Length);

    /// <summary>Adds a part of a string with the marks of that part.</summary>
    public TextBuilder Append(string text, int from, int count)
    {
        if (marks != null && text.Length > 0 && marks.Knows(text))
        {
            _known = true; // also where nothing of it is taken: that is decided then
            foreach (var m in Provenance.Within(marks.Of(text), from, from + count, _text.Length - from)) Mark(m);
        }
        _text.Append(text, from, count);
        return this;
    }

    /// <summary>Adds what stands for one character of a string, with that character's mark.</summary>
    public TextBuilder AppendFor(string made, string text, int at)
    {
        if (marks != null && marks.Knows(text))
        {
            _known = true;
            foreach (var m in Provenance.Within(marks.Of(text), at, at + 1, 0))
                Mark(m with { Start = _text.Length, End = _text.Length + made.Length });
        }
        _text.Append(made);
        return this;
    }

    /// <summary>Adds a character that comes from the template.</summary>
    public TextBuilder Append(char c)
    {
        _text.Append(c);
        return this;
    }

    /// <summary>The text; where a part of it had known marks, an instance of its own with them.</summary>
    public override string ToString() =>
        _known ? marks!.Add(_text.ToString(), [.. _marks]) : _text.ToString();

    private void Mark(Mark m)
    {
        if (_marks.Count > 0 && _marks[^1] is var last && last.End == m.Start
            && (last.Message, last.Origin) == (m.Message, m.Origin))
            _marks[^1] = last with { End = m.End };
        else _marks.Add(m);
    }
}
