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
    private bool _weighted;

    /// <summary>Tokens T.</summary>
    public int Tokens { get; private set; }
    /// <summary>Sequences S.</summary>
    public int Sequences { get; private set; }
    /// <summary>Labelled tokens N.</summary>
    public int LabelCount { get; private set; }
    /// <summary>Sum of the labelled tokens' weights: their number, where every weight is 1.</summary>
    public double LabelWeight { get; private set; }

    /// <summary>The batch for the engine; without weights where all are 1.</summary>
    public HostBatch Host =>
        new(
            _ids.AsSpan(0, Tokens), _positions.AsSpan(0, Tokens), _offsets.AsSpan(0, Sequences + 1),
            _labelRows.AsSpan(0, LabelCount), _labels.AsSpan(0, LabelCount),
            _weighted ? _weights.AsSpan(0, LabelCount) : default);

    /// <summary>The rows in it, in order; those of <see cref="AddPrompt"/> are none.</summary>
    public IReadOnlyList<EncodedRow> Rows => _rows;

    private readonly List<EncodedRow> _rows = [];

    /// <summary>Empties it.</summary>
    public void Clear()
    {
        _rows.Clear();
        Tokens = Sequences = LabelCount = 0;
        LabelWeight = 0;
        _weighted = false;
    }

    /// <summary>Appends a row for training: every token of its spans is a label, but for the row's first.</summary>
    public void Add(EncodedRow row)
    {
        int start = Tokens;
        if (row.Split > 0) Append(row.Ids.AsSpan(0, row.Split));
        Append(row.Ids.AsSpan(row.Split));
        _rows.Add(row);
        foreach (var span in row.Spans)
        {
            _weighted |= span.Weight != 1;
            for (int i = Math.Max(1, span.Start); i < span.End; i++)
            {
                _labelRows[LabelCount] = start + i - 1;
                _weights[LabelCount] = span.Weight;
                _labels[LabelCount++] = row.Ids[i];
                LabelWeight += span.Weight;
            }
        }
    }

    /// <summary>Appends the beginning of a row for scoring: its one label row is its last token.</summary>
    /// <param name="ids">At least one token.</param>
    /// <param name="next">The token that follows; its loss can be asked for.</param>
    public void AddPrompt(ReadOnlySpan<int> ids, int next)
    {
        Append(ids);
        _labelRows[LabelCount] = Tokens - 1;
        _weights[LabelCount] = 1;
        _labels[LabelCount++] = next;
        LabelWeight++;
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
