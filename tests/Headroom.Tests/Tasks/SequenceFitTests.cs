using Headroom.Training.Data;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks.Sequences;

namespace Headroom.Tests.Tasks;

/// <summary>Rows that are too long: what is cut, what is left out, and that no answer loses a token.</summary>
public sealed class SequenceFitTests
{
    private const int Bos = 1;
    private static readonly int[] Ids = [Bos, 10, 11, 12, 13, 14, 15, 16, 17, 18];

    private static SequenceFit Fit(Truncation how, int length, int stride = 0) =>
        new(new() { MaxSeqLength = length, Truncation = how, Stride = stride }, Truncation.Right, Bos);

    private static IReadOnlyList<EncodedRow> Rows(SequenceFit fit, params (int Start, int End)[] answers) =>
        fit.Fit(Ids, [.. answers.Select(a => new LabelSpan(a.Start, a.End))], true, "row 1");

    [Fact]
    public void ARowThatFitsStays()
    {
        var fit = Fit(Truncation.Right, 10);
        var row = Assert.Single(Rows(fit, (4, 10)));
        Assert.Same(Ids, row.Ids);
        Assert.Empty(fit.Notes());
    }

    [Fact]
    public void TheEndIsCutWhereNothingOfItIsLearned()
    {
        var fit = Fit(Truncation.Right, 6);
        var row = Assert.Single(Rows(fit, (2, 4), (5, 6)));
        Assert.Equal(Ids[..6], row.Ids);
        Assert.Equal([new LabelSpan(2, 4), new LabelSpan(5, 6)], row.Spans);
        Assert.Equal(1, fit.Cut);
        Assert.Contains("no learned token", Assert.Single(fit.Notes()), StringComparison.Ordinal);
    }

    [Fact]
    public void TheBeginningIsCutBehindTheTokenThatOpensARow()
    {
        var fit = Fit(Truncation.Left, 6);
        var row = Assert.Single(Rows(fit, (7, 10)));
        Assert.Equal([Bos, 14, 15, 16, 17, 18], row.Ids);
        Assert.Equal([new LabelSpan(3, 6)], row.Spans);
    }

    [Theory]
    [InlineData(Truncation.Right, 3, 7)]
    [InlineData(Truncation.Right, 7, 10)]
    [InlineData(Truncation.Left, 3, 10)]
    [InlineData(Truncation.Drop, 2, 3)]
    public void ARowThatWouldLoseLearnedTokensIsLeftOut(Truncation how, int start, int end)
    {
        var fit = Fit(how, 6);
        Assert.Empty(Rows(fit, (start, end)));
        string note = Assert.Single(fit.Notes());
        Assert.Contains("1 rows are longer than task.max_seq_length 6", note, StringComparison.Ordinal);
        Assert.Contains("row 1", note, StringComparison.Ordinal);
        Assert.Equal(0, fit.Cut);
    }

    [Theory]
    [InlineData(4, 0)]
    [InlineData(4, 1)]
    [InlineData(5, 2)]
    [InlineData(7, 3)]
    [InlineData(9, 4)]
    public void WindowsLearnEveryTokenOnce(int length, int stride)
    {
        foreach (bool bos in (bool[])[true, false])
        {
            int[] ids = bos ? Ids : Ids[1..];
            var rows = Fit(Truncation.Windows, length, stride).Fit(ids, [new(1, ids.Length)], false, "row 1");
            Assert.All(rows, r => Assert.InRange(r.Ids.Length, 2, length));
            if (bos) Assert.All(rows, r => Assert.Equal(Bos, r.Ids[0]));
            int[] learned = [.. rows.SelectMany(r => r.Spans.SelectMany(s => r.Ids[s.Start..s.End]))];
            Assert.Equal(ids[1..], learned);
        }
    }
}
