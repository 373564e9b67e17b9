namespace Headroom.Reports;

/// <summary>The finding, in one sentence.</summary>
internal static class Headline
{
    public static string Of(ReportModel m)
    {
        string finding = m.Duel == null ? OfRun(m) : OfDuel(m);
        return m.Completed ? finding : $"Incomplete: {Progress(m)}. {finding}";
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
        if (m.Duel != null) return $"{m.Runs.Count(r => r.Summary.Completed)} of {m.Duel.DuelStart.Texts("runs").Length} runs completed";
        var run = m.Runs[0];
        return $"stopped at step {run.StepsDone} of {run.Summary.TotalSteps?.ToString() ?? "an unknown number"}";
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
        foreach (var (name, rows) in models.Skip(1))
        {
            string verdict = Verdict(m.Tests.Where(t => t.Kind == "tuned_vs_tuned" && (t.First.Group, t.Second.Group) is var p && (p == (best, name) || p == (name, best))).ToList());
            text += models.Count == 2 ? $"; {name} {Score(rows)}; {verdict}" : $"; {name} {Score(rows)}, {verdict} to the first";
        }
        return text + ".";
    }

    private static string Score(IReadOnlyList<QualityRow> rows)
    {
        var q = rows[0];
        string metric = q.F1 != null ? "F1" : "accuracy";
        if (rows.Count == 1)
            return q.F1 == null ? $"accuracy {(q.Accuracy is { } a ? Show.I(a) : Show.N3(q.AccuracyValue))}" : $"F1 {(q.Intervals is { } i ? Show.I(i.F1) : Show.N3(q.F1))}";
        var (mean, sd) = Statistics.MeanSd(rows.Where(r => r.Score != null).Select(r => r.Score!.Value).DefaultIfEmpty().ToList());
        return $"{metric} {Show.N3(mean)} ± {Show.N3(sd)} over {rows.Count} seeds";
    }
}

/// <summary>Numbers as text, the same in every culture.</summary>
internal static class Show
{
    public const string NotMeasured = "not measured";

    public static string N3(double? v) => F(v, "0.000");
    public static string N1(double? v) => F(v, "#,0.0");
    public static string Count(double? v) => F(v, "#,0");
    public static string Percent(double? v) => F(v, "0.###%");
    public static string I(Interval i) => $"{N3(i.Value)} [{N3(i.Low)}, {N3(i.High)}]";
    public static string MiB(double? bytes) => bytes is { } b ? N1(b / 1048576) : NotMeasured;
    /// <summary>MiB with the unit, for prose.</summary>
    public static string Mib(double bytes) => $"{N1(bytes / 1048576)} MiB";
    public static string P(double p) => p < 0.001 ? "p < 0.001" : $"p = {F(p, p < 0.01 ? "0.####" : "0.###")}";
    public static string PValue(double p) => P(p) is var s && s.StartsWith("p = ", StringComparison.Ordinal) ? s[4..] : s[2..];
    public static string Or(string? text) => string.IsNullOrEmpty(text) ? NotMeasured : text;
    public static string F(double? v, string format) => v is { } d && double.IsFinite(d) ? d.ToString(format, System.Globalization.CultureInfo.InvariantCulture) : NotMeasured;
}
