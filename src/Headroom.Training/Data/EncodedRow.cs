namespace Headroom.Training;

/// <summary>A row as token ids. Tokens from <paramref name="AnswerStart"/> on are labelled (by position, never by id); the first token of a row is never a target.</summary>
/// <param name="Ids">Prompt and answer.</param>
/// <param name="AnswerStart">Index of the first labelled token, at least 1.</param>
/// <param name="LabelIndex">Index of the label word, -1 when there is none.</param>
/// <param name="Tier">Difficulty tier, or null.</param>
public sealed record EncodedRow(int[] Ids, int AnswerStart, int LabelIndex = -1, string? Tier = null);

/// <summary>Reusable host buffers of one variable-length micro-batch.</summary>
public sealed class MicroBatch(int maxTokens, int maxSequences)
{
    private readonly int[] _ids = new int[maxTokens], _positions = new int[maxTokens], _labelRows = new int[maxTokens], _labels = new int[maxTokens];
    private readonly int[] _offsets = new int[maxSequences + 1];

    /// <summary>Tokens T.</summary>
    public int Tokens { get; private set; }
    /// <summary>Sequences S.</summary>
    public int Sequences { get; private set; }
    /// <summary>Labelled tokens N.</summary>
    public int LabelCount { get; private set; }

    /// <summary>The batch for the engine.</summary>
    public HostBatch Host => new(_ids.AsSpan(0, Tokens), _positions.AsSpan(0, Tokens), _offsets.AsSpan(0, Sequences + 1),
        _labelRows.AsSpan(0, LabelCount), _labels.AsSpan(0, LabelCount));

    /// <summary>Empties it.</summary>
    public void Clear() => Tokens = Sequences = LabelCount = 0;

    /// <summary>Appends a row for training: every token from its answer on is a label.</summary>
    public void Add(EncodedRow row)
    {
        Append(row.Ids);
        int start = Tokens - row.Ids.Length;
        for (int i = Math.Max(1, row.AnswerStart); i < row.Ids.Length; i++)
        {
            _labelRows[LabelCount] = start + i - 1;
            _labels[LabelCount++] = row.Ids[i];
        }
    }

    /// <summary>Appends a row's prompt for scoring: its one label row is the last token of the prompt.</summary>
    public void AddPrompt(EncodedRow row)
    {
        Append(row.Ids.AsSpan(0, row.AnswerStart));
        _labelRows[LabelCount] = Tokens - 1;
        _labels[LabelCount++] = row.Ids.Length > row.AnswerStart ? row.Ids[row.AnswerStart] : 0;
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
