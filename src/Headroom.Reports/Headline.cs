using System.Globalization;
using Headroom.Core;

namespace Headroom.Reports;

/// <summary>The finding, in one sentence.</summary>
internal static class Headline
{
    public static string Of(ReportModel m)
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
        return significant == tests.Count ? $"a significant difference (McNemar {Show.P(tests.Max(t => t.Adjusted))})" : $"a significant difference with {significant} of {tests.Count} seeds";
    }

    private static string Progress(ReportModel m)
    {
        string until = m.Running && m.Runs.Select(r => r.Summary.LastTime).Append(m.Duel?.LastTime).Max(StringComparer.Ordinal) is { } time ? $", as of {time}" : "";
        if (m.Duel != null) return $"{m.Runs.Count(r => r.Summary.Completed)} of {m.Duel.DuelStart.Texts("runs").Length} runs completed{until}";
        var run = m.Runs[0];
        return $"{(m.Running ? "" : run.Summary.Failed != null ? "failed " : "stopped ")}at step {run.StepsDone} of {run.Summary.TotalSteps?.ToString() ?? "an unknown number"}{until}";
    }

    private static string OfRun(ReportModel m)
    {
        var tuned = m.Quality.FirstOrDefault(q => q.Stage == "tuned");
        var zero = m.Quality.FirstOrDefault(q => q.Stage == "zero-shot");
        var run = m.Runs[0];
        if (tuned == null)
        {
            string loss = run.FinalLoss is { } l ? $"; the smoothed training loss is {Show.N3(l)}" : "";
            return zero == null ? $"{run.Label} has no test result{loss}." : $"{run.Label} has {Score([zero])} zero-shot and no test of the tuned model yet{loss}.";
        }
        string text = $"{run.Label} reaches {Score([tuned])} after tuning";
        if (zero != null) text += $", {Score([zero])} zero-shot; {Verdict(m.Tests.Where(t => t.Kind == "tuned_vs_zero_shot").ToList())}";
        if (m.Quality.Where(q => q.Stage == "baseline").MaxBy(q => q.Score ?? double.MinValue) is { } best)
            text += $"; the best baseline, {best.Label}, {Score([best])}, {Verdict(m.Tests.Where(t => t.Second == best).ToList())}";
        return text + ".";
    }

    private static string OfDuel(ReportModel m)
    {
        var models = m.Quality.Where(q => q.Stage == "tuned").GroupBy(q => q.Group).OrderByDescending(g => g.Average(q => q.Score ?? 0)).Select(g => (Name: g.Key, Rows: g.ToList())).ToList();
        if (models.Count == 0) return "No tuned model has been tested yet.";
        string best = models[0].Name, text = $"{best} reaches {Score(models[0].Rows)}";
        bool claims = false, oneSeed = models.All(g => g.Rows.Count == 1);
        string seeds = oneSeed ? "one seed" : "fewer than two seeds in common";
        foreach (var (name, rows) in models.Skip(1))
        {
            var (verdict, ofModels) = Compare(m, best, name);
            claims |= ofModels;
            text += models.Count == 2 ? $"; {name} {Score(rows)}; {(ofModels ? "" : $"of these {(oneSeed ? "two " : "")}adapters ({seeds}): ")}{verdict}" : $"; {name} {Score(rows)}, to the first {verdict}";
        }
        if (models.Count > 2 && !claims) text += $"; of these {(oneSeed ? $"{models.Count} " : "")}adapters ({seeds})";
        if (models.Count > 1 && !claims) text += $"; {(oneSeed ? "one seed" : "that")} says nothing of the models";
        if (m.Reversals.Count > 0) text += m.Reversals.Count == 1 ? $"; validation ranks {(models.Count == 2 ? "them" : $"{m.Reversals[0].First} and {m.Reversals[0].Second}")} the other way round"
            : $"; validation ranks {m.Reversals.Count} pairs the other way round";
        return text + ".";
    }

    /// <summary>Of the models, where several seeds allow it; else of the adapters.</summary>
    private static (string Verdict, bool OfModels) Compare(ReportModel m, string best, string name)
    {
        bool Pair(string a, string b) => (a, b) == (best, name) || (b, a) == (best, name);
        var tests = m.Tests.Where(t => t.Kind == "tuned_vs_tuned" && Pair(t.First.Group, t.Second.Group)).ToList();
        if (m.Comparisons.FirstOrDefault(c => Pair(c.First, c.Second)) is not { } c) return (Verdict(tests), false);
        string ofAdapters = tests.Count == 0 ? "" : $"; of the adapters, {tests.Count(t => t.Significant)} of {tests.Count} pairs differ (McNemar)";
        string who = $"of the models under this recipe ({c.Differences.Count} seeds): ";
        if (c is not { Mean: { } mean, Adjusted: { } p }) return ($"{who}nothing is claimed, as every seed gives the same difference{ofAdapters}", true);
        if (c.First != best) mean = new Interval(-mean.Value, -mean.High, -mean.Low);
        string figures = $"{Show.I(mean)} in {c.Metric}, t interval over seeds, {Show.P(p)}";
        return ($"{who}{(c.Significant == true ? $"a significant difference ({figures})" : $"no significant difference ({figures})")}{ofAdapters}", true);
    }

    private static string Score(IReadOnlyList<QualityRow> rows)
    {
        var q = rows[0];
        if (rows.Count == 1)
            return $"{q.ScoreName} {(q.F1 == null ? q.Accuracy is { } a ? Show.I(a) : Show.N3(q.AccuracyValue) : q.Intervals is { } i ? Show.I(i.Main.F1) : Show.N3(q.F1))}";
        var scores = rows.Where(r => r.Score != null && r.ScoreName == q.ScoreName).Select(r => r.Score!.Value).ToList();
        if (scores.Count == 0) return $"{q.ScoreName} {Show.NotMeasured}";
        var (mean, sd) = Statistics.MeanSd(scores);
        return $"{q.ScoreName} {Show.N3(mean)} ± {Show.N3(sd)} over {scores.Count} seeds";
    }
}

/// <summary>Numbers as text, the same in every culture.</summary>
internal static class Show
{
    public const string NotMeasured = "not measured";

    public static string N3(double? v) => F(v, "0.000");
    /// <summary>A difference, with its sign.</summary>
    public static string Signed(double? v) => F(v, "+0.000;-0.000;0.000");
    public static string N1(double? v) => F(v, "#,0.0");
    public static string Count(double? v) => F(v, "#,0");
    public static string Percent(double? v) => F(v, "0.###%");
    public static string I(Interval i) => $"{N3(i.Value)} [{N3(i.Low)}, {N3(i.High)}]";
    public static string MiB(double? bytes) => bytes is { } b ? N1(b / 1048576) : NotMeasured;
    /// <summary>MiB with the unit, for prose.</summary>
    public static string Mib(double bytes) => $"{N1(bytes / 1048576)} MiB";
    public static string P(double p) => p < 0.001 ? "p < 0.001" : $"p = {F(p, p < 0.01 ? "0.####" : "0.###")}";
    public static string PValue(double p) => P(p) is var s && s.StartsWith("p = ", StringComparison.Ordinal) ? s[4..] : s[2..];
    /// <summary>A name that a table can hold: one line, its middle left out where it is long.</summary>
    public static string Short(string text, int most)
    {
        text = Printable.Line(text);
        const string cut = "…";
        int[] at = StringInfo.ParseCombiningCharacters(text); // a cut must not part what is one sign
        if (at.Length <= most) return text;
        int head = most / 2, tail = most - head - cut.Length;
        return text[..at[head]] + cut + text[at[^tail]..];
    }

    public static string Or(string? text) => string.IsNullOrEmpty(text) ? NotMeasured : text;
    public static string F(double? v, string format) => v is { } d && double.IsFinite(d) ? d.ToString(format, CultureInfo.InvariantCulture) : NotMeasured;
}
