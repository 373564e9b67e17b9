using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Tokenizers;
using Headroom.Training.Data;
using Headroom.Training.Recipes;

namespace Headroom.Training.Tasks.LabelWords;

/// <summary>
/// Turns rows into token ids by template and label words. A prompt is tokenized as one text; one that is too long in
/// parts, so that only ids of the texts are ever cut, at the end of the longest: template and answer always stay, and
/// the cut does not depend on the label. Blanks at the end of the template belong to the label words, as the blank
/// before a word does in every tokenizer. Safe for use from several threads.
/// </summary>
internal sealed partial class LabelWordEncoder
{
    private readonly ITokenizer _tokenizer;
    private readonly TaskOptions _task;
    private readonly PromptTemplate _template;
    private readonly Dictionary<string, int> _index = new(StringComparer.Ordinal);
    private readonly int[] _bos, _suffix, _blanks;
    private readonly int[][] _heads;
    private readonly int _budget, _longestAnswer;
    private int _cut;

    /// <summary>Checks the task against the tokenizer.</summary>
    public LabelWordEncoder(ITokenizer tokenizer, TaskOptions task)
    {
        _tokenizer = tokenizer;
        _task = task;
        _template = PromptTemplate.Parse(task.Template);
        if (task.Labels.Count < 2)
            throw new HeadroomException(
                $"task.labels holds {task.Labels.Count} label words",
                "Give a word for each of at least two label values");
        _bos = tokenizer.AddBos && tokenizer.BosId is { } bos ? [bos] : [];
        int columns = _template.Columns.Count;
        _heads = [.. _template.Heads.Take(columns).Select((h, i) => i == 0 ? tokenizer.Encode(h) : After("x", h))];
        string suffix = _template.Heads[columns], blanks = _template.Blanks[columns];
        _suffix = After("x", suffix);
        Answers =
        [
            .. task.Labels.Values.Select(w =>
                w.Length == 0 ? [] : After(suffix.Length == 0 ? "x" : suffix, blanks + w)
            ),
        ];
        LabelValues = [.. task.Labels.Keys];
        LabelWords = [.. task.Labels.Values];
        for (int i = 0; i < LabelValues.Length; i++)
        {
            if (Answers[i].Length == 0)
                throw new HeadroomException(
                    $"The label word of '{HeadroomException.Value(LabelValues[i])}' has no tokens",
                    "Give each label a word, with a space before it");
            _index.Add(LabelValues[i], i);
        }
        _blanks = CommonBlanks();
        if (_blanks.Length > 0) Answers = [.. Answers.Select(a => a[_blanks.Length..])];
        Candidates = [.. Answers.Select(a => a[0])];
        for (int i = 0; i < Candidates.Length; i++)
            for (int j = 0; j < i; j++)
                if (Candidates[i] == Candidates[j])
                    throw new HeadroomException(
                        $"Label words '{HeadroomException.Value(LabelWords[j])}' and "
                            + $"'{HeadroomException.Value(LabelWords[i])}' begin with the same token",
                        "Choose label words that differ in their first token"
                    );
        _longestAnswer = Answers.Max(a => a.Length);
        _budget =
            task.MaxSeqLength
            - _bos.Length
            - _heads.Sum(h => h.Length)
            - _suffix.Length
            - _blanks.Length
            - _longestAnswer;
        if (_budget < columns)
            throw new HeadroomException(
                $"max_seq_length {task.MaxSeqLength} leaves no room for text: the template and answer take "
                    + $"{task.MaxSeqLength - _budget} tokens, so answers would be cut away",
                "Raise task.max_seq_length or shorten the template");
    }

    /// <summary>Token ids of each label word, in the order of the task's labels.</summary>
    public int[][] Answers { get; }
    /// <summary>First token of each label word: what evaluation scores.</summary>
    public int[] Candidates { get; }
    /// <summary>Label values as the data files spell them.</summary>
    public string[] LabelValues { get; }
    /// <summary>Label words.</summary>
    public string[] LabelWords { get; }
    /// <summary>Longest row, tokens.</summary>
    public int MaxTokens => _task.MaxSeqLength;
    /// <summary>The smallest max_seq_length that leaves each text one token.</summary>
    public int LeastLength => _task.MaxSeqLength - _budget + _template.Columns.Count;
    /// <summary>Rows cut so far.</summary>
    public int CutTexts => _cut;

    /// <summary>Index of a label value; an unknown one is an error.</summary>
    public int LabelIndex(string label) => _index.TryGetValue(label, out int i) ? i
            : throw new HeadroomException(
                $"Label '{HeadroomException.Value(label)}' has no label word",
                $"Add it to task.labels (there: {HeadroomException.List(LabelValues)})");

    /// <summary>Ids of the prompt around a text, cut as in training.</summary>
    public int[] Prompt(string text) => Prompt([text]);

    /// <summary>
    /// Ids of the prompt around the texts of a row, one for each column of the template, cut as in training.
    /// </summary>
    /// <exception cref="HeadroomException">There are more or fewer of them than the template's columns.</exception>
    public int[] Prompt(IReadOnlyList<string> texts)
    {
        int[] ids = Fit(texts, out bool cut);
        if (cut) Interlocked.Increment(ref _cut);
        return ids;
    }

    /// <summary>
    /// A row with its answer. For training under loss all, every token but the first is labelled; otherwise the answer
    /// is.
    /// </summary>
    public LabelWordRow Encode(DataRow row, bool training = true)
    {
        int label = LabelIndex(row.Label);
        int[] prompt = Prompt(row.Texts);
        return new(
            [.. prompt, .. Answers[label]], training && _task.Loss == LossTokens.All ? 1 : prompt.Length, label, row.Tier);
    }

    /// <summary>
    /// Blanks that are tokens of their own before every label word (where there are two or more): they tell nothing
    /// apart, so the prompt ends in them.
    /// </summary>
    private int[] CommonBlanks()
    {
        int n = 0;
        while (
            Answers.All(a => a.Length > n + 1 && a[n] == Answers[0][n])
            && string.IsNullOrWhiteSpace(_tokenizer.Decode([Answers[0][n]]))
        )
            n++;
        return Answers[0][..n];
    }

    private int[] Fit(IReadOnlyList<string> texts, out bool cut)
    {
        texts = Replaced(texts);
        string joined = _template.Fill(texts);
        cut = false;
        // A text much longer than tokens usually are is tokenized once, in parts; a short one as a whole. The result is
        // the same in either order.
        bool whole = joined.Length <= 4L * _task.MaxSeqLength;
        if (whole && Whole(joined) is { } ids) return ids;
        int[][] parts = [.. texts.Select(Part)];
        int tokens = parts.Sum(p => p.Length);
        if (tokens <= _budget)
        {
            if (!whole && Whole(joined) is { } late) return late;
        }
        else
        {
            cut = true;
            int[] keep = Shares([.. parts.Select(p => p.Length)], _budget);
            for (int i = 0; i < parts.Length; i++) parts[i] = parts[i][..keep[i]];
        }
        return [.. _bos, .. parts.SelectMany((p, i) => _heads[i].Concat(p)), .. _suffix, .. _blanks];
    }

    private IReadOnlyList<string> Replaced(IReadOnlyList<string> texts)
    {
        if (_task.Replace.Count == 0) return texts;
        return
        [
            .. texts.Select(t =>
                _task.Replace.Aggregate(t, (s, r) => s.Replace(r.Key, r.Value, StringComparison.Ordinal))
            ),
        ];
    }

    /// <summary>Ids of a whole prompt, or null when they are too many.</summary>
    private int[]? Whole(string prompt)
    {
        int[] ids = _tokenizer.Encode(prompt);
        return _bos.Length + ids.Length + _blanks.Length + _longestAnswer <= _task.MaxSeqLength
            ? [.. _bos, .. ids, .. _blanks]
            : null;
    }

    /// <summary>
    /// Ids of a text as they follow the template before it. A blank there belongs to the text's first word.
    /// </summary>
    private int[] Part(string text, int column)
    {
        string head = _template.Heads[column];
        text = _template.Blanks[column] + text;
        return column == 0 && head.Length == 0 ? _tokenizer.Encode(text) : After(head.Length == 0 ? "x" : head, text);
    }

    /// <summary>
    /// How many tokens of each text stay, so that they are <paramref name="budget"/> together: the longest are cut to
    /// one length.
    /// </summary>
    private static int[] Shares(int[] lengths, int budget)
    {
        for (int over = lengths.Sum() - budget; over > 0;)
        {
            int most = lengths.Max(),
                count = lengths.Count(n => n == most),
                next = lengths.Where(n => n < most).DefaultIfEmpty(0).Max();
            int each = (int)Math.Min(most - next, over / count), odd = each < most - next ? over - each * count : 0;
            for (int i = lengths.Length - 1; i >= 0; i--)
                if (lengths[i] == most) lengths[i] -= each + (odd-- > 0 ? 1 : 0);
            over = lengths.Sum() - budget;
        }
        return lengths;
    }

    /// <summary>
    /// Ids of a text as they follow a context (some tokenizers put a space before whatever comes first).
    /// </summary>
    private int[] After(string context, string text)
    {
        if (text.Length == 0) return [];
        int[] head = _tokenizer.Encode(context), whole = _tokenizer.Encode(context + text);
        if (whole.AsSpan().StartsWith(head)) return whole[head.Length..];
        return context == "x" ? _tokenizer.Encode(text) : After("x", text);
    }
}
