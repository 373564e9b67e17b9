using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Formats.Tokenizers;

namespace Headroom.Training;

/// <summary>
/// Turns rows into token ids by template and label words. Prefix plus text, suffix and answer are tokenized apart, so that only the text's ids are ever cut:
/// the suffix and the answer always stay, and the cut does not depend on the label. Safe for use from several threads.
/// </summary>
public sealed class TaskEncoder
{
    private readonly ITokenizer _tokenizer;
    private readonly TaskOptions _task;
    private readonly Dictionary<string, int> _index = new(StringComparer.Ordinal);
    private readonly string _lead;
    private readonly int[] _prefixIds, _suffix;
    private readonly int _budget;
    private readonly bool _bare;
    private int _cut;

    /// <summary>Checks the task against the tokenizer.</summary>
    public TaskEncoder(ITokenizer tokenizer, TaskOptions task)
    {
        _tokenizer = tokenizer;
        _task = task;
        int at = task.Template.IndexOf("{text}", StringComparison.Ordinal);
        if (at < 0 || task.Template.IndexOf("{text}", at + 1, StringComparison.Ordinal) >= 0)
            throw new HeadroomException("task.template must hold {text} once", "for example \"Review: {text}\\nSentiment:\"");
        if (task.Labels.Count < 2) throw new HeadroomException($"task.labels holds {task.Labels.Count} label words", "give a word for each of at least two label values");
        if (task.Loss is not ("answer" or "all")) throw new HeadroomException($"task.loss is '{task.Loss}'", "use answer or all");
        // A blank before the text belongs to its first word, as it does when the whole prompt is tokenized at once.
        string prefix = task.Template[..at], head = prefix.TrimEnd(' ');
        _lead = prefix[head.Length..];
        _bare = prefix.Length == 0;
        string suffix = task.Template[(at + 6)..];
        int[] lead = tokenizer.AddBos && tokenizer.BosId is { } bos ? [bos] : [];
        _prefixIds = [.. lead, .. tokenizer.Encode(head)];
        _suffix = suffix.Length == 0 ? [] : After("x", suffix);
        Answers = [.. task.Labels.Values.Select(w => After(suffix.Length == 0 ? "x" : suffix, w))];
        LabelValues = [.. task.Labels.Keys];
        LabelWords = [.. task.Labels.Values];
        for (int i = 0; i < LabelValues.Length; i++)
        {
            if (Answers[i].Length == 0) throw new HeadroomException($"the label word of '{LabelValues[i]}' has no tokens", "give each label a word, with a space before it");
            _index.Add(LabelValues[i], i);
        }
        Candidates = [.. Answers.Select(a => a[0])];
        for (int i = 0; i < Candidates.Length; i++)
            for (int j = 0; j < i; j++)
                if (Candidates[i] == Candidates[j])
                    throw new HeadroomException($"label words '{LabelWords[j]}' and '{LabelWords[i]}' begin with the same token", "choose label words that differ in their first token");
        _budget = task.MaxSeqLength - _prefixIds.Length - _suffix.Length - Answers.Max(a => a.Length);
        if (_budget < 1)
            throw new HeadroomException($"max_seq_length {task.MaxSeqLength} leaves no room for text: the template and answer take {task.MaxSeqLength - _budget} tokens, so answers would be cut away",
                "raise task.max_seq_length or shorten the template");
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
    /// <summary>The smallest max_seq_length that leaves a text one token.</summary>
    public int LeastLength => _task.MaxSeqLength - _budget + 1;
    /// <summary>Texts cut so far.</summary>
    public int CutTexts => _cut;

    /// <summary>Index of a label value; an unknown one is an error.</summary>
    public int LabelIndex(string label) => _index.TryGetValue(label, out int i) ? i
        : throw new HeadroomException($"label '{label}' has no label word", $"add it to task.labels (there: {string.Join(", ", LabelValues)})");

    /// <summary>Ids of the prompt around a text, cut as in training.</summary>
    public int[] Prompt(string text)
    {
        foreach (var (from, to) in _task.Replace) text = text.Replace(from, to, StringComparison.Ordinal);
        var ids = Text(text);
        if (ids.Length > _budget)
        {
            Interlocked.Increment(ref _cut);
            ids = ids[.._budget];
        }
        return [.. _prefixIds, .. ids, .. _suffix];
    }

    /// <summary>A row with its answer. For training under loss all, every token but the first is labelled; otherwise the answer is.</summary>
    public EncodedRow Encode(DataRow row, bool training = true)
    {
        int label = LabelIndex(row.Label);
        int[] prompt = Prompt(row.Text);
        return new([.. prompt, .. Answers[label]], training && _task.Loss == "all" ? 1 : prompt.Length, label, row.Tier);
    }

    private ReadOnlySpan<int> Text(string text) => _bare ? _tokenizer.Encode(text) : After("x", _lead + text);

    /// <summary>Ids of a text as they follow a context (some tokenizers put a space before whatever comes first).</summary>
    private int[] After(string context, string text)
    {
        int[] head = _tokenizer.Encode(context), whole = _tokenizer.Encode(context + text);
        return whole.AsSpan().StartsWith(head) ? whole[head.Length..] : _tokenizer.Encode(text);
    }
}

/// <summary>Rows encoded when first asked for; safe for use from several threads.</summary>
public sealed class EncodedRows(IReadOnlyList<DataRow> rows, TaskEncoder encoder, bool training = true) : IRowSource
{
    private readonly EncodedRow?[] _encoded = new EncodedRow?[rows.Count];

    /// <inheritdoc/>
    public int Count => _encoded.Length;
    /// <inheritdoc/>
    public EncodedRow this[int index] => _encoded[index] ??= encoder.Encode(rows[index], training);

    /// <summary>Encodes all rows on all cores.</summary>
    /// <returns>The longest row, tokens.</returns>
    public int EncodeAll()
    {
        int longest = 0;
        try
        {
            Parallel.For(0, Count, () => 0, (i, _, most) => Math.Max(most, this[i].Ids.Length), most =>
            {
                lock (_encoded) longest = Math.Max(longest, most);
            });
        }
        catch (AggregateException e) when (e.InnerException is HeadroomException h) { throw new HeadroomException(h.Message, h.ToDo, h.ExitCode, h); }
        return longest;
    }
}
