using Headroom.Core;
using Headroom.Formats.Data;

namespace Headroom.Training.Data;

/// <summary>Rows encoded when first asked for; safe for use from several threads.</summary>
/// <param name="rows">The rows.</param>
/// <param name="encode">Encodes one, for training or for evaluation; from several threads.</param>
/// <param name="training">Which of the two.</param>
internal sealed class EncodedRows(
    IReadOnlyList<DataRow> rows, Func<DataRow, bool, EncodedRow> encode, bool training = true) : IRowSource
{
    private readonly EncodedRow?[] _encoded = new EncodedRow?[rows.Count];

    /// <inheritdoc/>
    public int Count => _encoded.Length;
    /// <inheritdoc/>
    public EncodedRow this[int index] => _encoded[index] ??= encode(rows[index], training);

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
        catch (AggregateException e) when (e.InnerException is HeadroomException h)
        {
            throw new HeadroomException(h.Message, h.ToDo, h.ExitCode, h);
        }
        return longest;
    }
}
