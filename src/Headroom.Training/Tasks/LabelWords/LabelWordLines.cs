using System.Globalization;
using Headroom.Training.Intervals;

namespace Headroom.Training.Tasks.LabelWords;

/// <summary>
/// What headroom eval says of label words: every figure with its 95 % interval, of every class and tier.
/// </summary>
internal static class LabelWordLines
{
    private const int MostLines = 20; // of classes and of tiers on a console; --json has all

    public static IEnumerable<string> Write(string title, LabelWordDetail detail)
    {
        var (m, i, tiers) = (detail.Confusion!, detail.Intervals!, detail.ByTier);
        string average = m.IsBinary ? "" : "macro ";
        yield return $"{title}: {Show.Interval("accuracy", i.Accuracy)}, "
            + $"{Show.Interval(average + "precision", i.Main.Precision)}, "
            + $"{Show.Interval(average + "recall", i.Main.Recall)}, {Show.Interval(m.F1Name, i.Main.F1)}";
        if (!m.IsBinary)
        {
            yield return "  " + Show.Interval("weighted F1", i.Weighted.F1);
            for (int c = 0; c < Math.Min(m.Classes, MostLines); c++)
                yield return $"  {m.Name(c)}: {Show.Interval("precision", i.Classes[c].Precision)}, "
                    + $"{Show.Interval("recall", i.Classes[c].Recall)}, {Show.Interval("F1", i.Classes[c].F1)} on "
                    + $"{m.Gold(c)} rows";
            if (m.Classes > MostLines) yield return $"  and {m.Classes - MostLines} more classes (--json has all)";
        }
        foreach (string undefined in m.Undefined()) yield return $"  {undefined}";
        foreach (var (tier, own) in tiers.Take(MostLines))
            yield return $"  {Show.Interval($"tier {tier}: accuracy", Statistics.Wilson(own.Correct, own.Rows))}, "
                + $"{own.F1Name} {own.Main.F1.ToString("F4", CultureInfo.InvariantCulture)}";
        if (tiers.Count > MostLines) yield return $"  and {tiers.Count - MostLines} more tiers (--json has all)";
    }
}
