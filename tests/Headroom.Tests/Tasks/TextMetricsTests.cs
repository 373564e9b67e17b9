using Headroom.Training.Intervals;

namespace Headroom.Tests.Tasks;

/// <summary>ROUGE-L and chrF against values of their reference implementations.</summary>
public sealed class TextMetricsTests
{
    /// <summary>
    /// The values of sacrebleu's own tests (test_chrf.py: the cases without white space, effective order), which have a
    /// beta of 3.
    /// </summary>
    [Theory]
    [InlineData("a", "a", 100)]
    [InlineData("", "reference", 0)]
    [InlineData("a b c", "a b c", 100)]
    [InlineData("a b c", "abc", 100)]
    [InlineData("", "c", 0)]
    [InlineData("aa", "ab", 25)]
    [InlineData("abcdefg", "hijklmnop", 0)]
    [InlineData(
        " risk assessment must be made of those who are qualified and expertise in the sector - these are the "
            + "scientists .",
        "risk assessment has to be undertaken by those who are qualified and expert in that area - that is the "
            + "scientists .", 63.361730)]
    [InlineData(
        " Die    Beziehung zwischen  Obama und Netanjahu ist nicht gerade  freundlich. ",
        "Das Verhältnis zwischen Obama und Netanyahu ist nicht gerade freundschaftlich.", 64.1302698)]
    [InlineData(
        "Niemand hat die Absicht, eine Mauer zu errichten", "Niemand hat die Absicht, eine Mauer zu errichten", 100)]
    public void ChrFIsThatOfSacrebleu(string hypothesis, string reference, double score) =>
        Assert.Equal(score, ChrF.Score([.. ChrF.Count(hypothesis, reference).Select(n => (long)n)], 3), 5);

    [Fact]
    public void ChrFOfACorpusPoolsCounts()
    {
        long[] sum = new long[3 * ChrF.Orders];
        foreach (var (h, r) in new[] { ("a", "a"), ("b", "c") })
            foreach (var (i, n) in ChrF.Count(h, r).Index()) sum[i] += n;
        Assert.Equal(50, ChrF.Score(sum), 9); // sacrebleu: ["a", "b"] against ["a", "c"]
    }

    /// <summary>Worked by hand from the definition; the first three as in the documentation of rouge_score and of
    /// torchmetrics.</summary>
    [Theory]
    [InlineData("The quick brown dog jumps on the log.", "The quick brown fox jumps over the lazy dog", 10.0 / 17)]
    [InlineData("My name is John", "Is your name John", 0.5)]
    [InlineData("general kenobi", "general kenobi", 1)]
    [InlineData("a b c d", "d c b a", 0.25)]
    [InlineData("", "x", 0)]
    [InlineData("é ü", "é ü", 0)]
    [InlineData("ten-10 TEN", "ten 10 ten!", 1)]
    public void RougeLIsThatOfRougeScore(string hypothesis, string reference, double score) =>
        Assert.Equal(score, RougeL.Score(hypothesis, reference), 9);

    /// <summary>Against the interval of a mean, where all weights are equal.</summary>
    [Fact]
    public void TheIntervalOfARatioIsThatOfAMeanWhereWeightsAreEqual()
    {
        double[] values = [1, 2, 4, 3, 7, 0.5];
        var ratio = Statistics.OfRatio([.. values.Select(v => (v * 3, 3.0))])!.Value;
        var mean = Statistics.OfMean(6, values.Sum(), values.Sum(v => v * v))!.Value;
        Assert.Equal(mean.Value, ratio.Value, 12);
        Assert.Equal(mean.Low, ratio.Low, 12);
        Assert.Equal(mean.High, ratio.High, 12);
        Assert.Null(Statistics.OfRatio([(1, 1)]));
    }
}
