using Headroom.Training.Intervals;
using Headroom.Training.Tasks;

namespace Headroom.Reports;

/// <summary>The finding, in one sentence.</summary>
internal static class Headline
{
    public static string Write(ReportModel m)
    {
        string finding = m.Duel == null ? OfRun(m) : OfDuel(m);
        return m.Completed ? finding : $"{(m.Running ? "Running" : "Incomplete")}: {Progress(m)}. {finding}";
    }

    /// <summary>The verdict of tests that all compare the same two things, one a seed.</summary>
    public static string Verdict(IReadOnlyList<PairedTest> tests)
    {
        if (tests.Count == 0) return "not compared by a paired test";
        int significant = tests.Count(t => t.Significant);
        if (significant == 0) return $"no significant difference (McNemar {Show.P(tests.Min(t => t.Adjusted))})";
        return significant == tests.Count
            ? $"a significant difference (McNemar {Show.P(tests.Max(t => t.Adjusted))})"
            : $"a significant difference with {significant} of {tests.Count} seeds";
    }

    private static string Progress(ReportModel m)
    {
        string until =
            m.Running
            && m.Runs.Select(r => r.Summary.LastTime).Append(m.Duel?.LastTime).Max(StringComparer.Ordinal) is { } time
                ? $", as of {time}"
                : "";
        if (m.Duel != null)
            return $"{m.Runs.Count(r => r.Summary.Completed)} of {m.Duel.DuelStart!.Runs.Count} runs "
                + $"completed{until}";
        var run = m.Runs[0];
        return $"{(m.Running ? "" : run.Summary.Failed != null ? "failed " : "stopped ")}at step {run.StepsDone} of "
            + $"{run.Summary.TotalSteps?.ToString() ?? "an unknown number"}{until}";
    }

    private static string OfRun(ReportModel m)
    {
        var tuned = m.Quality.FirstOrDefault(q => q.Stage == "tuned");
        var zero = m.Quality.FirstOrDefault(q => q.Stage == "zero-shot");
        var run = m.Runs[0];
        if (tuned == null)
        {
            string loss = run.FinalLoss is { } l ? $"; the smoothed training loss is {Show.N3(l)}" : "";
            return zero == null
                ? $"{run.Label} has no test result{loss}."
                : $"{run.Label} has {Score(m, [zero])} zero-shot and no test of the tuned model yet{loss}.";
        }
        string text = $"{run.Label} reaches {Score(m, [tuned])} after tuning";
        if (zero != null)
            text +=
                $", {Score(m, [zero])} zero-shot; "
                    + $"{Verdict(m.Tests.Where(t => t.Kind == "tuned_vs_zero_shot").ToList())}";
        if (m.Quality.Where(q => q.Stage == "baseline").MaxBy(Rank) is { } best)
            text +=
                $"; the best baseline, {best.Label}, {Score(m, [best])}, "
                    + $"{Verdict(m.Tests.Where(t => t.Second == best).ToList())}";
        return text + ".";
    }

    private static string OfDuel(ReportModel m)
    {
        var models = m
            .Quality.Where(q => q.Stage == "tuned")
            .GroupBy(q => q.Group)
            .OrderByDescending(g => g.Average(q => Rank(q)))
            .Select(g => (Name: g.Key, Rows: g.ToList()))
            .ToList();
        if (models.Count == 0) return "No tuned model has been tested yet.";
        string best = models[0].Name, text = $"{best} reaches {Score(m, models[0].Rows)}";
        bool claims = false, oneSeed = models.All(g => g.Rows.Count == 1);
        string seeds = oneSeed ? "one seed" : "fewer than two seeds in common";
        foreach (var (name, rows) in models.Skip(1))
        {
            var (verdict, ofModels) = Compare(m, best, name);
            claims |= ofModels;
            text +=
                models.Count == 2
                    ? $"; {name} {Score(m, rows)}; "
                        + $"{(ofModels ? "" : $"of these {(oneSeed ? "two " : "")}adapters ({seeds}): ")}{verdict}"
                    : $"; {name} {Score(m, rows)}, to the first {verdict}";
        }
        if (models.Count > 2 && !claims) text += $"; of these {(oneSeed ? $"{models.Count} " : "")}adapters ({seeds})";
        if (models.Count > 1 && !claims) text += $"; {(oneSeed ? "one seed" : "that")} says nothing of the models";
        if (m.Reversals.Count > 0)
            text +=
                m.Reversals.Count == 1
                    ? $"; validation ranks "
                        + $"{(models.Count == 2 ? "them" : $"{m.Reversals[0].First} and {m.Reversals[0].Second}")} "
                        + $"the other way round"
            : $"; validation ranks {m.Reversals.Count} pairs the other way round";
        return text + ".";
    }

    /// <summary>Of the models, where several seeds allow it; else of the adapters.</summary>
    private static (string Verdict, bool OfModels) Compare(ReportModel m, string best, string name)
    {
        bool Pair(string a, string b) => (a, b) == (best, name) || (b, a) == (best, name);
        var tests = m.Tests.Where(t => t.Kind == "tuned_vs_tuned" && Pair(t.First.Group, t.Second.Group)).ToList();
        if (m.Comparisons.FirstOrDefault(c => Pair(c.First, c.Second)) is not { } c) return (Verdict(tests), false);
        string ofAdapters =
            tests.Count == 0
                ? ""
                : $"; of the adapters, {tests.Count(t => t.Significant)} of {tests.Count} pairs differ (McNemar)";
        string who = $"of the models under this recipe ({c.Differences.Count} seeds): ";
        if (c is not { Mean: { } mean, Adjusted: { } p })
            return ($"{who}nothing is claimed, as every seed gives the same difference{ofAdapters}", true);
        if (c.First != best) mean = new Interval(-mean.Value, -mean.High, -mean.Low);
        string figures = $"{Show.I(mean)} in {c.Metric}, t interval over seeds, {Show.P(p)}";
        return (
            $"{who}{(c.Significant == true ? $"a significant difference ({figures})" : $"no significant difference ({figures})")}{ofAdapters}",
            true);
    }

    /// <summary>What a metric is called in tables and sentences.</summary>
    public static string Name(Metric? m) => m == null ? Show.NotMeasured : Show.Short(m.Label, MostLetters);

    private const int MostLetters = 60;

    // The larger the better, whichever way the metric is.
    private static double Rank(ReportRow q) =>
        q.Score is { } s
            ? s.Direction == Direction.Higher
                ? s.Value
                : -s.Value
            : double.MinValue;

    private static string Score(ReportModel m, IReadOnlyList<ReportRow> rows)
    {
        if (rows[0].Score is not { } own)
            return $"{m.Task.Metrics.First(k => k.Name == m.Task.Ranked[^1]).Label} {Show.NotMeasured}";
        string name = Name(own);
        if (rows.Count == 1) return $"{name} {Show.Metric(own)}";
        var scores = rows.Where(r => r.Score is { } s && (s.Name, s.Label) == (own.Name, own.Label))
            .Select(r => r.Score!.Value)
            .ToList();
        var (mean, sd) = Statistics.MeanSd(scores);
        return $"{name} {Show.N3(mean)} ± {Show.N3(sd)} over {scores.Count} seeds";
    }
}
