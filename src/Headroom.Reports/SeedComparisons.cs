namespace Headroom.Reports;

/// <summary>Models over seeds, and test against validation.</summary>
internal static class SeedComparisons
{
    /// <summary>
    /// Every two models with two seeds or more in common, by what they are ranked by and by accuracy; p-values are
    /// adjusted by Holm's method for each of these.
    /// </summary>
    public static IReadOnlyList<SeedComparison> Of(IReadOnlyList<QualityRow> quality)
    {
        var found = new List<SeedComparison>();
        foreach (var (first, second) in Pairs(quality))
        {
            var pairs = first.Join(second, a => a.Seed, b => b.Seed, (a, b) => (Seed: a.Seed!.Value, A: a, B: b)).OrderBy(p => p.Seed).ToList();
            if (pairs.Count < 2) continue;
            string score = pairs[0].A.ScoreName;
            if (score != "accuracy" && pairs.All(p => p.A.ScoreName == score && p.B.ScoreName == score)) Add(score, q => q.Score);
            Add("accuracy", q => q.AccuracyValue);

            void Add(string metric, Func<QualityRow, double?> of)
            {
                if (!pairs.All(p => of(p.A) != null && of(p.B) != null)) return;
                var differences = pairs.Select(p => (p.Seed, of(p.A)!.Value - of(p.B)!.Value)).ToList();
                var over = Statistics.OverSeeds([.. differences.Select(d => d.Item2)]);
                found.Add(new SeedComparison(pairs[0].A.Group, pairs[0].B.Group, metric, differences, over?.Mean, over?.P, null));
            }
        }
        foreach (var metric in found.Where(c => c.P != null).GroupBy(c => c.Metric == "accuracy").ToList())
        {
            var (own, adjusted) = (metric.ToList(), Statistics.Holm([.. metric.Select(c => c.P!.Value)]));
            for (int i = 0; i < own.Count; i++) found[found.IndexOf(own[i])] = own[i] with { Adjusted = adjusted[i] };
        }
        return found;
    }

    /// <summary>
    /// Every two models whose means over all their runs stand the other way round on the validation rows.
    /// </summary>
    public static IReadOnlyList<Reversal> Reversals(IReadOnlyList<RunEntry> runs, IReadOnlyList<QualityRow> quality)
    {
        var found = new List<Reversal>();
        foreach (var (first, second) in Pairs(quality))
        {
            string metric = first.First().ScoreName;
            bool accuracy = metric == "accuracy";
            double? Test(IEnumerable<QualityRow> rows) => Mean(rows.Select(q => q.ScoreName == metric ? q.Score : null));
            double? Validation(string group) =>
                Mean(runs.Where(r => r.Group == group && r.Summary.Tuned != null).Select(r => accuracy ? r.Kept?.Accuracy : r.Kept?.F1));
            if (Test(first) is { } a && Test(second) is { } b && Validation(first.Key) is { } x && Validation(second.Key) is { } y && (a - b) * (x - y) < 0)
                found.Add(new Reversal(first.Key, second.Key, metric, a, b, x, y));
        }
        return found;
    }

    private static IEnumerable<(IGrouping<string, QualityRow> First, IGrouping<string, QualityRow> Second)> Pairs(IReadOnlyList<QualityRow> quality)
    {
        var groups = quality.Where(q => q is { Stage: "tuned", Seed: not null }).GroupBy(q => q.Group).ToList();
        for (int i = 0; i < groups.Count; i++)
            for (int j = i + 1; j < groups.Count; j++) yield return (groups[i], groups[j]);
    }

    // Of all or of none: a mean over other runs than the neighbour's would rank runs, not models.
    private static double? Mean(IEnumerable<double?> values) => values.ToList() is var all && all.Count > 0 && all.All(v => v != null) ? all.Average() : null;
}
