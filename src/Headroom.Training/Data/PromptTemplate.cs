using System.Text;
using Headroom.Core;
using Headroom.Training.Recipes;

namespace Headroom.Training.Data;

/// <summary>
/// A task's template: plain text and, in braces, columns of the data. {text} is data.text_field, another name is the
/// column of that name; {{ and }} are plain braces, and so is a brace that encloses no name.
/// </summary>
internal sealed class PromptTemplate
{
    private const string Text = "text";

    private PromptTemplate(List<string> literals, List<string> columns)
    {
        Literals = literals;
        Columns = columns;
        Heads = [.. literals.Select(l => l.TrimEnd(' '))];
        Blanks = [.. literals.Zip(Heads, (l, h) => l[h.Length..])];
    }

    /// <summary>The text before each column, and after the last: one more than there are columns.</summary>
    public IReadOnlyList<string> Literals { get; }
    /// <summary>The literals without the blanks at their ends, which belong to the word that follows.</summary>
    public IReadOnlyList<string> Heads { get; }
    /// <summary>Those blanks.</summary>
    public IReadOnlyList<string> Blanks { get; }
    /// <summary>The columns' names as the template spells them, in order.</summary>
    public IReadOnlyList<string> Columns { get; }

    /// <summary>Reads a template.</summary>
    /// <exception cref="HeadroomException">It names no column, or one twice.</exception>
    public static PromptTemplate Parse(string template)
    {
        var literals = new List<string>();
        var columns = new List<string>();
        var literal = new StringBuilder();
        for (int i = 0; i < template.Length; i++)
        {
            char c = template[i];
            if (c is '{' or '}' && i + 1 < template.Length && template[i + 1] == c) literal.Append(template[i++]);
            else if (c == '{' && Name(template, i + 1) is { } name)
            {
                literals.Add(literal.ToString());
                literal.Clear();
                columns.Add(name);
                i += name.Length + 1;
            }
            else literal.Append(c);
        }
        literals.Add(literal.ToString());
        if (columns.Count == 0)
            throw new HeadroomException(
                "task.template has no {text}: it must hold {text} once, or columns of the data such as {premise}.",
                "Write for example \"Review: {text}\\nSentiment:\"; {{ and }} stand for plain braces.");
        if (columns.GroupBy(n => n).FirstOrDefault(g => g.Count() > 1) is { } twice)
            throw new HeadroomException(
                $"task.template must hold {{{HeadroomException.Value(twice.Key)}}} once, not {twice.Count()} times.",
                "Name each column once.");
        return new(literals, columns);
    }

    /// <summary>What stands between a brace and the next, when that closes it on the same line.</summary>
    private static string? Name(string template, int at)
    {
        int end = template.AsSpan(at).IndexOfAny("{}\n\r");
        return end > 0 && template[at + end] == '}' ? template.Substring(at, end) : null;
    }

    /// <summary>The fields of the data that fill the columns, in their order.</summary>
    /// <exception cref="HeadroomException">One of them is the label.</exception>
    public string[] Fields(DataOptions data)
    {
        string[] fields = [.. Columns.Select(c => c == Text ? data.TextField : c)];
        if (fields.Contains(data.LabelField))
            throw new HeadroomException(
                $"task.template holds '{HeadroomException.Value(data.LabelField)}', which is data.label_field.",
                "The prompt must not hold the answer: take it out.");
        return fields;
    }

    /// <summary>The prompt as text, without the blanks at its end, which go with what follows it.</summary>
    public string Fill(IReadOnlyList<string> texts)
    {
        if (texts.Count != Columns.Count)
            throw new HeadroomException(
                $"A row has {texts.Count} texts where task.template has {Columns.Count} columns.",
                "Give a text for each.");
        var all = new StringBuilder();
        for (int i = 0; i < texts.Count; i++) all.Append(Literals[i]).Append(texts[i]);
        return all.Append(Heads[^1]).ToString();
    }
}
