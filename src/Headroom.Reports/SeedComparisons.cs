using Headroom.Training.Intervals;
using Headroom.Training.Tasks;

namespace Headroom.Reports;

/// <summary>Models over seeds, and test against validation.</summary>
internal static class SeedComparisons
{
    /// <summary>
    /// Every two models with two seeds or more in common, by each metric that the task ranks models by; p-values are
    /// adjusted by Holm's method for each of these.
    /// </summary>
    public static IReadOnlyList<SeedComparison> Compare(TaskType task, IReadOnlyList<ReportRow> quality)
    {
        var found = new List<SeedComparison>();
        foreach (var (first, second) in Pairs(quality))
        {
            var pairs = first
                .Join(second, a => a.Seed, b => b.Seed, (a, b) => (Seed: a.Seed!.Value, A: a, B: b))
                .OrderBy(p => p.Seed)
                .ToList();
            if (pairs.Count < 2) continue;
            foreach (string name in task.Ranked)
            {
                // Of one meaning in all of them: the F1 of another class is another metric.
                var metrics = pairs
                    .SelectMany(p => new[] { p.A.Evaluation.Find(name), p.B.Evaluation.Find(name) })
                    .ToList();
                if (metrics.Any(m => m?.Label != metrics[0]?.Label || m == null)) continue;
                var differences = pairs
                    .Select(p => (p.Seed, p.A.Evaluation[name].Value - p.B.Evaluation[name].Value))
                    .ToList();
                var over = Statistics.OverSeeds([.. differences.Select(d => d.Item2)]);
                found.Add(
                    new SeedComparison(
                        pairs[0].A.Group, pairs[0].B.Group, metrics[0]!.Kind, Headline.Name(metrics[0]), differences,
                        over?.Mean, over?.P, null)
                );
            }
        }
        foreach (var metric in found.Where(c => c.P != null).GroupBy(c => c.Kind.Name).ToList())
        {
            var (own, adjusted) = (metric.ToList(), Statistics.Holm([.. metric.Select(c => c.P!.Value)]));
            for (int i = 0; i < own.Count; i++) found[found.IndexOf(own[i])] = own[i] with { Adjusted = adjusted[i] };
        }
        return found;
    }

    /// <summary>
    /// Every two models whose means over all their runs stand the other way round on the validation rows.
    /// </summary>
    public static IReadOnlyList<Reversal> Reversals(
        TaskType task, IReadOnlyList<RunEntry> runs, IReadOnlyList<ReportRow> quality)
    {
        var found = new List<Reversal>();
        foreach (var (first, second) in Pairs(quality))
        {
            if (first.First().Score is not { } metric) continue;
            double? Test(IEnumerable<ReportRow> rows) =>
                Mean(
                    rows.Select(q =>
                        q.Score is { } s && (s.Name, s.Label) == (metric.Name, metric.Label) ? s.Value : (double?)null
                    )
                );
            double? Validation(string group) =>
                Mean(
                    runs.Where(r => r.Group == group && r.Summary.Tuned != null)
                        .Select(r => r.Kept?.Evaluation.Value(metric.Name))
                );
            if (
                Test(first) is { } a
                && Test(second) is { } b
                && Validation(first.Key) is { } x
                && Validation(second.Key) is { } y
                && (a - b) * (x - y) < 0
            )
                found.Add(new Reversal(first.Key, second.Key, Headline.Name(metric), a, b, x, y));
        }
        return found;
    }

    private static IEnumerable<(IGrouping<string, ReportRow> First, IGrouping<string, ReportRow> Second)> Pairs(
        IReadOnlyList<ReportRow> quality)
    {
        var groups = quality.Where(q => q is { Stage: "tuned", Seed: not null }).GroupBy(q => q.Group).ToList();
        for (int i = 0; i < groups.Count; i++)
            for (int j = i + 1; j < groups.Count; j++) yield return (groups[i], groups[j]);
    }

    // Of all or of none: a mean over other runs than the neighbour's would rank runs, not models.
    private static double? Mean(IEnumerable<double?> values) =>
        values.ToList() is var all && all.Count > 0 && all.All(v => v != null) ? all.Average() : null;
}
