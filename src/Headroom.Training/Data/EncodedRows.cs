using Headroom.Core;
using Headroom.Formats.Data;

namespace Headroom.Training.Data;

/// <summary>
/// Rows of a split as tokens, encoded on all cores when they are first asked for. A row may become several (windows of
/// a long text) or none (one that is left out); their order stays. Safe for use from several threads.
/// </summary>
internal sealed class EncodedRows : IRowSource
{
    private readonly Lazy<EncodedRow[]> _encoded;

    /// <param name="rows">The rows.</param>
    /// <param name="encode">Encodes one, for training or for evaluation; from several threads.</param>
    /// <param name="training">Which of the two.</param>
    public EncodedRows(
        IReadOnlyList<DataRow> rows, Func<DataRow, bool, IReadOnlyList<EncodedRow>> encode, bool training = true) =>
        _encoded = new(() => Encode(rows, row => encode(row, training)));

    /// <summary>Of rows that each become one.</summary>
    public EncodedRows(IReadOnlyList<DataRow> rows, Func<DataRow, bool, EncodedRow> encode, bool training = true)
        : this(rows, (row, t) => [encode(row, t)], training) { }

    /// <inheritdoc/>
    public int Count => _encoded.Value.Length;
    /// <inheritdoc/>
    public EncodedRow this[int index] => _encoded.Value[index];

    /// <summary>Encodes all.</summary>
    /// <returns>The longest row, tokens.</returns>
    /// <exception cref="HeadroomException">A row cannot be encoded, or none of them is left.</exception>
    public int EncodeAll() => _encoded.Value.Select(r => r.Ids.Length).DefaultIfEmpty().Max();

    /// <summary>Tokens of the longest sequence of all rows.</summary>
    public int LongestSequence => _encoded.Value.Select(r => r.Longest).DefaultIfEmpty().Max();

    /// <summary>Sequences of a row, at most.</summary>
    public int SequencesOfRow => _encoded.Value.Any(r => r.Split > 0) ? 2 : 1;

    private static EncodedRow[] Encode(
        IReadOnlyList<DataRow> rows, Func<DataRow, IReadOnlyList<EncodedRow>> encode)
    {
        var all = new IReadOnlyList<EncodedRow>[rows.Count];
        try
        {
            Parallel.For(0, rows.Count, i => all[i] = encode(rows[i]));
        }
        catch (AggregateException e) when (e.InnerExceptions.OfType<HeadroomException>().FirstOrDefault() is { } h)
        {
            throw new HeadroomException(h.Message, h.ToDo, h.ExitCode, h);
        }
        EncodedRow[] flat = [.. all.SelectMany(r => r)];
        if (rows.Count > 0 && flat.Length == 0)
            throw new HeadroomException(
                $"Not one of {rows.Count} rows fits into task.max_seq_length without losing learned tokens.",
                "Raise task.max_seq_length, or set task.truncation to cut the other end.");
        return flat;
    }
}
