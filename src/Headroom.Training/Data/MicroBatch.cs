using Headroom.Inference;

namespace Headroom.Training.Data;

/// <summary>Reusable host buffers of one variable-length micro-batch.</summary>
internal sealed class MicroBatch(int maxTokens, int maxSequences)
{
    private readonly int[] _ids = new int[maxTokens],
        _positions = new int[maxTokens],
        _labelRows = new int[maxTokens],
        _labels = new int[maxTokens];
    private readonly int[] _offsets = new int[maxSequences + 1];
    private readonly float[] _weights = new float[maxTokens];
    private readonly List<(int Start, int End)> _parts = [];

    /// <summary>Tokens T.</summary>
    public int Tokens { get; private set; }
    /// <summary>Sequences S.</summary>
    public int Sequences { get; private set; }
    /// <summary>Labelled tokens N.</summary>
    public int LabelCount { get; private set; }
    /// <summary>Sum of the labelled tokens' weights: their number, where every weight is 1.</summary>
    public double LabelWeight { get; private set; }

    /// <summary>The batch for the engine, with every labelled token whatever its weight.</summary>
    public HostBatch Host => With(0, LabelCount);

    /// <summary>
    /// How many passes a training step takes: the engine scales the gradient of a whole batch, so the labels of each
    /// weight have one of their own, over the same tokens. One where all weights are equal.
    /// </summary>
    public int Parts
    {
        get
        {
            if (_parts.Count == 0) Divide();
            return _parts.Count;
        }
    }

    /// <summary>The batch with the labels of one weight.</summary>
    /// <param name="part">From 0 to <see cref="Parts"/> - 1.</param>
    /// <param name="weight">Their weight.</param>
    public HostBatch Part(int part, out float weight)
    {
        if (_parts.Count == 0) Divide();
        var (start, end) = _parts[part];
        weight = start < end ? _weights[start] : 1;
        return With(start, end);
    }

    /// <summary>Empties it.</summary>
    public void Clear()
    {
        Tokens = Sequences = LabelCount = 0;
        LabelWeight = 0;
        _parts.Clear();
    }

    /// <summary>Appends a row for training: every token of its spans is a label, but for the row's first.</summary>
    public void Add(EncodedRow row)
    {
        Append(row.Ids);
        _parts.Clear();
        int start = Tokens - row.Ids.Length;
        foreach (var span in row.Spans)
            for (int i = Math.Max(1, span.Start); i < span.End; i++)
            {
                _labelRows[LabelCount] = start + i - 1;
                _weights[LabelCount] = span.Weight;
                _labels[LabelCount++] = row.Ids[i];
                LabelWeight += span.Weight;
            }
    }

    /// <summary>Appends the beginning of a row for scoring: its one label row is its last token.</summary>
    /// <param name="ids">At least one token.</param>
    /// <param name="next">The token that follows; its loss can be asked for.</param>
    public void AddPrompt(ReadOnlySpan<int> ids, int next)
    {
        Append(ids);
        _parts.Clear();
        _labelRows[LabelCount] = Tokens - 1;
        _weights[LabelCount] = 1;
        _labels[LabelCount++] = next;
        LabelWeight++;
    }

    private HostBatch With(int from, int to) =>
        new(
            _ids.AsSpan(0, Tokens), _positions.AsSpan(0, Tokens), _offsets.AsSpan(0, Sequences + 1),
            _labelRows.AsSpan(from, to - from), _labels.AsSpan(from, to - from));

    // Labels of one weight go together, each group in the order of the rows; where there is one weight nothing moves.
    private void Divide()
    {
        var weights = _weights.AsSpan(0, LabelCount);
        if (LabelCount > 0 && weights.IndexOfAnyExcept(weights[0]) >= 0)
        {
            int[] order = [.. Enumerable.Range(0, LabelCount).OrderByDescending(i => _weights[i])]; // stable
            Order(_labelRows, order);
            Order(_labels, order);
            Order(_weights, order);
        }
        for (int start = 0, end; start < LabelCount; start = end)
        {
            int other = weights[start..].IndexOfAnyExcept(weights[start]);
            _parts.Add((start, end = other < 0 ? LabelCount : start + other));
        }
        if (_parts.Count == 0) _parts.Add((0, 0));
    }

    private static void Order<T>(T[] values, int[] order)
    {
        T[] ordered = [.. order.Select(i => values[i])];
        ordered.CopyTo(values, 0);
    }

    private void Append(ReadOnlySpan<int> ids)
    {
        ids.CopyTo(_ids.AsSpan(Tokens));
        for (int i = 0; i < ids.Length; i++) _positions[Tokens + i] = i;
        _offsets[Sequences++] = Tokens;
        Tokens += ids.Length;
        _offsets[Sequences] = Tokens;
    }
}
