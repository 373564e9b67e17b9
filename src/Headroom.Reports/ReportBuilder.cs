using Headroom.Core;
using Headroom.Training.Intervals;
using Headroom.Training.Runs;
using Headroom.Training.Tasks;

namespace Headroom.Reports;

/// <summary>Reads the logs and does the statistics.</summary>
internal static class ReportBuilder
{
    public static ReportModel Build(string folder)
    {
        var top = RunSummary.Read(folder);
        var notes = new List<string>();
        bool isDuel = top.DuelStart != null;
        if (!isDuel && top.Start == null)
            throw new HeadroomException(
                $"events.jsonl in {folder} has no run_start event", "Give the folder of a run or of a duel");
        var read = isDuel ? ReadRuns(folder, top, notes) : [(top.Folder, top)];
        var runs = Label(read);
        var task = top.Task;
        var quality = runs.SelectMany(r => new[] { (r, T: r.Summary.ZeroShot), (r, T: r.Summary.Tuned) })
            .Where(x => x.T != null)
            .Select(x => Row(task, x.r.Label, x.r.Group, x.r.Colour % Svg.Colours, x.r.Summary.Seed, x.T!.Name, x.T))
            .ToList();
        quality.AddRange(Baselines(task, isDuel ? top : null, runs));
        foreach (var run in runs.Where(r => !r.Summary.Completed)) notes.Add(State(run));
        notes.AddRange(
            runs.Where(r => r.Summary.End?.StoppedEarly == true).Select(r =>
                $"{r.Label} stopped early, at step {Show.Count(r.StepsDone)} of at most "
                    + $"{(r.Summary.TotalSteps is { } n ? Show.Count(n) : "an unknown number")}: as many evaluations in a "
                    + "row as early_stopping_patience says brought nothing better."));
        if (isDuel && top.DuelEnd == null)
            notes.Add(
                top.Holder is { } holder
                    ? $"The {top.Several} is running ({holder}): these figures are of what it has done so far."
                    : $"The {top.Several} has no duel_end event: it was stopped."
            );
        var reversals = SeedComparisons.Reversals(task, runs, quality);
        notes.AddRange(
            reversals.Select(r =>
                $"Validation ranks {r.First} and {r.Second} the other way round: {r.Metric} "
                    + $"{Show.N3(r.ValidationFirst)} and {Show.N3(r.ValidationSecond)} on the "
                + $"validation rows (of the adapters that were kept), {Show.N3(r.TestFirst)} and "
                + $"{Show.N3(r.TestSecond)} on the test rows."
            )
        );
        notes.AddRange((isDuel ? runs.Select(r => r.Summary).Prepend(top) : [top]).SelectMany(Oddities));
        var model = new ReportModel
        {
            Task = task,
            Name = (isDuel ? top.DuelStart!.Name : top.Start!.Name) ?? top.Folder,
            Duel = isDuel ? top : null,
            Runs = runs,
            Quality = quality,
            Spreads = Spread(task, quality),
            Tests = PairedTests(task, quality, notes),
            Comparisons = SeedComparisons.Compare(task, quality),
            Reversals = reversals,
            Notes = notes,
            Recipes = Recipes(isDuel ? top : null, runs),
            Completed =
                runs.Count > 0
                && runs.Count == (isDuel ? top.DuelStart!.Runs.Count : 1)
                && runs.All(r => r.Summary.Completed)
                && (!isDuel || top.DuelEnd != null),
        };
        model.Headline = Headline.Write(model);
        return model;
    }

    private static List<(string Folder, RunSummary Summary)> ReadRuns(
        string folder, RunSummary duel, List<string> notes)
    {
        var read = new List<(string, RunSummary)>();
        foreach (string relative in duel.DuelStart!.Runs)
        {
            string path = Path.Combine(folder, relative);
            if (File.Exists(new RunFolder(path).Events)) read.Add((relative, RunSummary.Read(path)));
            else notes.Add($"Run {relative} has no events.jsonl: not started, or removed.");
        }
        return read;
    }

    private static List<RunEntry> Label(List<(string Folder, RunSummary Summary)> read)
    {
        // The same model twice with one seed (another device, say) is told apart by the folder.
        var groups = read.Select(r =>
                read.Count(o => o.Summary.Model == r.Summary.Model && o.Summary.Seed == r.Summary.Seed) > 1
                    ? $"{r.Summary.Model} ({r.Folder})"
                    : r.Summary.Model
            )
            .ToList();
        var order = groups.Distinct().ToList();
        return read.Select(
                (r, i) =>
                    new RunEntry(
                        groups.Count(g => g == groups[i]) > 1 ? $"{groups[i]}, seed {r.Summary.Seed}" : groups[i],
                        groups[i], order.IndexOf(groups[i]), r.Folder, r.Summary,
                        CurveStatistics.Compute(r.Summary.Steps))
            )
            .ToList();
    }

    private static IEnumerable<ReportRow> Baselines(TaskType task, RunSummary? duel, List<RunEntry> runs)
    {
        // Runs over the same rows repeat the same baselines: shown once.
        var found = new List<(TestResult Result, string? Of)>();
        foreach (
            var (summary, of) in runs.Select(r => (r.Summary, (string?)r.Label))
                .Prepend((duel!, null))
                .Where(x => x.Item1 != null)
        )
            foreach (var b in summary.Baselines)
                if (!found.Any(f => f.Result.Name == b.Name && Same(f.Result.Evaluation, b.Evaluation)))
                    found.Add((b, of));
        return found.Select(f =>
        {
            string name =
                f.Of != null && found.Count(o => o.Result.Name == f.Result.Name) > 1
                    ? $"{f.Result.Name}, rows of {f.Of}"
                    : f.Result.Name;
            return Row(task, name, name, -1, null, "baseline", f.Result);
        });
    }

    private static bool Same(Evaluation a, Evaluation b) =>
        a.Metrics.Select(m => (m.Name, m.Value)).SequenceEqual(b.Metrics.Select(m => (m.Name, m.Value)))
        && Same(a.Outcomes?.Rows, b.Outcomes?.Rows) && (a.Outcomes?.Right ?? []).SequenceEqual(b.Outcomes?.Right ?? []);

    private static bool Same(int[]? a, int[]? b) => a == null ? b == null : b != null && a.AsSpan().SequenceEqual(b);

    private static ReportRow Row(
        TaskType task, string label, string group, int colour, long? seed, string stage, TestResult t) =>
        new(
            label, group, colour, seed, stage, t.Evaluation, t.Seconds,
            task.Ranked.Select(t.Evaluation.Find).FirstOrDefault(m => m != null));

    private static List<SeedSpread> Spread(TaskType task, List<ReportRow> quality)
    {
        var spreads = new List<SeedSpread>();
        foreach (
            var group in quality
                .Where(q => q.Stage != "baseline")
                .GroupBy(q => (q.Group, q.Stage))
                .Where(g => g.Count() > 1)
        )
            foreach (string name in task.Spread)
            {
                var values = group
                    .Where(q => q.Evaluation.Value(name) != null)
                    .Select(q => (q.Seed, Value: q.Evaluation.Value(name)!.Value))
                    .ToList();
                if (values.Count < 2) continue;
                var (mean, sd) = Statistics.MeanSd(values.Select(v => v.Value).ToList());
                spreads.Add(new SeedSpread(group.Key.Group, group.Key.Stage, name, values, mean, sd));
            }
        return spreads;
    }

    private static List<PairedTest> PairedTests(TaskType task, List<ReportRow> quality, List<string> notes)
    {
        var tests = new List<PairedTest>();
        if (!task.ComparesRows) return tests;
        var tuned = quality.Where(q => q.Stage == "tuned").ToList();
        for (int i = 0; i < tuned.Count; i++)
            for (int j = i + 1; j < tuned.Count; j++)
            {
                var (a, b) = (tuned[i], tuned[j]);
                // Models are compared seed by seed; only where they have no seed in common, every run against every
                // run.
                bool shareSeeds = tuned
                    .Where(q => q.Group == a.Group)
                    .Select(q => q.Seed)
                    .Intersect(tuned.Where(q => q.Group == b.Group).Select(q => q.Seed))
                    .Any();
                if (a.Group == b.Group || shareSeeds && a.Seed != b.Seed) continue;
                if (!Add("tuned_vs_tuned", a, b))
                    notes.Add(
                        $"{a.Name} and {b.Name} have no paired test: their test rows differ, or the log has no "
                            + $"predictions."
                    );
            }
        foreach (var t in tuned)
        {
            foreach (var zero in quality.Where(q => q.Stage == "zero-shot" && q.Label == t.Label))
                Add("tuned_vs_zero_shot", t, zero);
            foreach (var baseline in quality.Where(q => q.Stage == "baseline")) Add("tuned_vs_baseline", t, baseline);
        }
        double[] adjusted = Statistics.Holm(tests.Select(t => t.P).ToArray());
        return tests.Select((t, i) => t with { Adjusted = adjusted[i] }).ToList();

        bool Add(string kind, ReportRow a, ReportRow b)
        {
            if (
                a.Evaluation.Outcomes is not { } first
                || b.Evaluation.Outcomes is not { } second
                || !Same(first.Rows, second.Rows)
            )
                return false;
            var (x, y) = Statistics.Discordant(first.Right, second.Right);
            tests.Add(new PairedTest(kind, a, b, first.Right.Length, x, y, Statistics.McNemarExact(x, y), 1));
            return true;
        }
    }

    private static string State(RunEntry run)
    {
        var s = run.Summary;
        string steps =
            $"{(run.StepsDone == 0 ? "no step" : $"step {Show.Count(run.StepsDone)}")} of "
                + $"{(s.TotalSteps is { } n ? Show.Count(n) : "an unknown number")}";
        string until = s.LastTime == null ? "" : $", as of {s.LastTime}";
        if (s.Running)
            return $"{run.Label} is running ({s.Holder}): {steps}{until}. Everything here is of what it has done so "
                + $"far.";
        string how =
            s.Failed is { } failed
                ? $"It failed: "
                    + $"{Printable.Message(failed.Error ?? "no reason is given", MostReason).TrimEnd('.')}."
            : s.Stopped != null ? "It was stopped and can be resumed."
            : "Its log ends without a word: it was killed, or runs on another machine.";
        return $"{run.Label} is incomplete: {steps}{until}, "
            + $"{(s.Tuned == null ? "the tuned model was not tested" : "the tuned model was tested")}. {how}";
    }

    private const int MostReason = 500; // bytes
    private const int MostOddities = 5; // of one log; a wholly odd one would fill the page

    private static IEnumerable<string> Oddities(RunSummary s)
    {
        var odd = s.Odd.Select(o => $"{s.Folder}: {o}").ToList();
        return odd.Count <= MostOddities
            ? odd
            : odd.Take(MostOddities)
                .Append($"{s.Folder}: {Show.Count(odd.Count - MostOddities)} more events of events.jsonl are odd.");
    }

    private static List<(string Of, string Text)> Recipes(RunSummary? duel, List<RunEntry> runs)
    {
        var found = runs.Where(r => r.Summary.Start?.Recipe != null)
            .GroupBy(r => r.Summary.Start!.Recipe!)
            .Select(g => (string.Join("; ", g.Select(r => r.Label)), g.Key))
            .ToList();
        if (duel?.DuelStart?.Recipe is { } own && found.All(f => f.Key != own))
            found.Insert(0, ($"the {duel.Several}", own));
        return found;
    }
}
