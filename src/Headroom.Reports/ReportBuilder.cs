using Headroom.Core;

namespace Headroom.Reports;

/// <summary>Reads the logs and does the statistics.</summary>
internal static class ReportBuilder
{
    public static ReportModel Build(string folder)
    {
        var top = RunSummary.Read(folder);
        var notes = new List<string>();
        bool isDuel = top.DuelStart != null;
        if (!isDuel && top.Start.Count == 0)
            throw new HeadroomException($"events.jsonl in {folder} has no run_start event", "give the folder of a run or of a duel");
        var read = isDuel ? ReadRuns(folder, top, notes) : [(top.Folder, top)];
        var runs = Label(read);
        var quality = runs.SelectMany(r => new[] { (r, T: r.Summary.ZeroShot), (r, T: r.Summary.Tuned) }).Where(x => x.T != null)
            .Select(x => Row(x.r.Label, x.r.Group, x.r.Colour, x.r.Summary.Seed, x.T!.Name, x.T)).ToList();
        quality.AddRange(Baselines(isDuel ? top : null, runs));
        foreach (var run in runs.Where(r => !r.Summary.Completed)) notes.Add(Stopped(run));
        if (isDuel && top.DuelEnd == null) notes.Add("The duel has no duel_end event: it is still going, or was stopped.");
        var model = new ReportModel
        {
            Name = (isDuel ? top.DuelStart : top.Start).Text("name") ?? top.Folder,
            Duel = isDuel ? top : null,
            Runs = runs,
            Quality = quality,
            Spreads = Spread(quality),
            Tests = PairedTests(quality, notes),
            Notes = notes,
            Recipes = Recipes(isDuel ? top : null, runs),
            Completed = runs.Count > 0 && runs.Count == (isDuel ? top.DuelStart.Texts("runs").Length : 1) && runs.All(r => r.Summary.Completed) && (!isDuel || top.DuelEnd != null),
        };
        model.Headline = Headline.Of(model);
        return model;
    }

    private static List<(string Folder, RunSummary Summary)> ReadRuns(string folder, RunSummary duel, List<string> notes)
    {
        var read = new List<(string, RunSummary)>();
        foreach (string relative in duel.DuelStart.Texts("runs"))
        {
            string path = Path.Combine(folder, relative);
            if (File.Exists(Path.Combine(path, "events.jsonl"))) read.Add((relative, RunSummary.Read(path)));
            else notes.Add($"Run {relative} has no events.jsonl: not started, or removed.");
        }
        return read;
    }

    private static List<RunEntry> Label(List<(string Folder, RunSummary Summary)> read)
    {
        // The same model twice with one seed (another device, say) is told apart by the folder.
        var groups = read.Select(r => read.Count(o => o.Summary.Model == r.Summary.Model && o.Summary.Seed == r.Summary.Seed) > 1 ? $"{r.Summary.Model} ({r.Folder})" : r.Summary.Model).ToList();
        var order = groups.Distinct().ToList();
        return read.Select((r, i) => new RunEntry(groups.Count(g => g == groups[i]) > 1 ? $"{groups[i]}, seed {r.Summary.Seed}" : groups[i],
            groups[i], order.IndexOf(groups[i]), r.Folder, r.Summary, CurveStatistics.Of(r.Summary.Steps))).ToList();
    }

    private static IEnumerable<QualityRow> Baselines(RunSummary? duel, List<RunEntry> runs)
    {
        // Runs over the same rows repeat the same baselines: shown once.
        var found = new List<(TestResult Result, string? Of)>();
        foreach (var (summary, of) in runs.Select(r => (r.Summary, (string?)r.Label)).Prepend((duel!, null)).Where(x => x.Item1 != null))
            foreach (var b in summary.Baselines)
                if (!found.Any(f => f.Result.Name == b.Name && f.Result.Accuracy == b.Accuracy && f.Result.F1 == b.F1 && Same(f.Result.Gold, b.Gold) && Same(f.Result.Predicted, b.Predicted)))
                    found.Add((b, of));
        return found.Select(f =>
        {
            string name = f.Of != null && found.Count(o => o.Result.Name == f.Result.Name) > 1 ? $"{f.Result.Name}, rows of {f.Of}" : f.Result.Name;
            return Row(name, name, -1, null, "baseline", f.Result);
        });
    }

    private static bool Same(int[]? a, int[]? b) => a == null ? b == null : b != null && a.AsSpan().SequenceEqual(b);

    private static QualityRow Row(string label, string group, int colour, long? seed, string stage, TestResult t)
    {
        int? rows = t.Confusion?.Sum() ?? t.Gold?.Length ?? t.Rows;
        int? correct = t.Confusion is { } c ? c[0] + c[3]
            : t is { Gold: { } gold, Predicted: { } predicted } ? gold.Zip(predicted).Count(x => x.First == x.Second)
            : t.Accuracy is { } a && rows is { } n ? (int)Math.Round(a * n) : null;
        // A fixed seed: the same log gives the same report.
        return new QualityRow(label, group, colour, seed, stage, t with { Rows = rows }, correct, correct is { } k && rows is > 0 and var m ? Statistics.Wilson(k, m) : null,
            t.Confusion != null && rows > 0 ? Statistics.Bootstrap(t.Confusion, 1) : null, Tiers(t));
    }

    private static List<TierCell> Tiers(TestResult t) => t is { Tiers: { } tiers, Gold: { } gold, Predicted: { } predicted }
        ? Enumerable.Range(0, tiers.Length).GroupBy(i => tiers[i] ?? "(none)").OrderBy(g => g.Key, StringComparer.Ordinal)
            .Select(g => new TierCell(g.Key, g.Count(), g.Count(i => gold[i] == predicted[i]))).ToList()
        : [];

    private static List<SeedSpread> Spread(List<QualityRow> quality)
    {
        var metrics = new (string Name, Func<QualityRow, double?> Of)[]
        {
            ("accuracy", q => q.AccuracyValue), ("precision", q => q.Intervals?.Precision.Value ?? q.Result.Precision), ("recall", q => q.Intervals?.Recall.Value ?? q.Result.Recall), ("f1", q => q.F1), ("loss", q => q.Result.Loss),
        };
        var spreads = new List<SeedSpread>();
        foreach (var group in quality.Where(q => q.Stage != "baseline").GroupBy(q => (q.Group, q.Stage)).Where(g => g.Count() > 1))
            foreach (var (name, of) in metrics)
            {
                var values = group.Where(q => of(q) != null).Select(q => (q.Seed, Value: of(q)!.Value)).ToList();
                if (values.Count < 2) continue;
                var (mean, sd) = Statistics.MeanSd(values.Select(v => v.Value).ToList());
                spreads.Add(new SeedSpread(group.Key.Group, group.Key.Stage, name, values, mean, sd));
            }
        return spreads;
    }

    private static List<PairedTest> PairedTests(List<QualityRow> quality, List<string> notes)
    {
        var tests = new List<PairedTest>();
        var tuned = quality.Where(q => q.Stage == "tuned").ToList();
        for (int i = 0; i < tuned.Count; i++)
            for (int j = i + 1; j < tuned.Count; j++)
            {
                var (a, b) = (tuned[i], tuned[j]);
                // Models are compared seed by seed; only where they have no seed in common, every run against every run.
                bool shareSeeds = tuned.Where(q => q.Group == a.Group).Select(q => q.Seed).Intersect(tuned.Where(q => q.Group == b.Group).Select(q => q.Seed)).Any();
                if (a.Group == b.Group || shareSeeds && a.Seed != b.Seed) continue;
                if (!Add("tuned_vs_tuned", a, b)) notes.Add($"{a.Name} and {b.Name} have no paired test: their test rows differ, or the log has no predictions.");
            }
        foreach (var t in tuned)
        {
            foreach (var zero in quality.Where(q => q.Stage == "zero-shot" && q.Label == t.Label)) Add("tuned_vs_zero_shot", t, zero);
            foreach (var baseline in quality.Where(q => q.Stage == "baseline")) Add("tuned_vs_baseline", t, baseline);
        }
        double[] adjusted = Statistics.Holm(tests.Select(t => t.P).ToArray());
        return tests.Select((t, i) => t with { Adjusted = adjusted[i] }).ToList();

        bool Add(string kind, QualityRow a, QualityRow b)
        {
            if (a.Result is not { Gold: { Length: > 0 } gold, Predicted: { } first } || b.Result.Predicted is not { } second || !Same(gold, b.Result.Gold)) return false;
            var (x, y) = Statistics.Discordant(gold, first, second);
            tests.Add(new PairedTest(kind, a, b, gold.Length, x, y, Statistics.McNemarExact(x, y), 1));
            return true;
        }
    }

    private static string Stopped(RunEntry run) =>
        $"{run.Label} is incomplete: {(run.StepsDone == 0 ? "no step" : $"step {run.StepsDone}")} of {run.Summary.TotalSteps?.ToString() ?? "an unknown number"}, {(run.Summary.Tuned == null ? "the tuned model was not tested" : "the tuned model was tested")}.";

    private static List<(string Of, string Text)> Recipes(RunSummary? duel, List<RunEntry> runs)
    {
        var found = runs.Where(r => r.Summary.Start.Text("recipe") != null).GroupBy(r => r.Summary.Start.Text("recipe")!).Select(g => (string.Join("; ", g.Select(r => r.Label)), g.Key)).ToList();
        if (duel?.DuelStart.Text("recipe") is { } own && found.All(f => f.Key != own)) found.Insert(0, ("the duel", own));
        return found;
    }
}
