using Headroom.Training.Events;
using Headroom.Training.Tasks;

namespace Headroom.Reports;

/// <summary>Charts side by side where there is room.</summary>
internal sealed record Figures(IReadOnlyList<Figure> Items) : Block;

/// <summary>A chart with its legend.</summary>
internal sealed record Figure(string Title, string Svg, IReadOnlyList<(int Colour, string Text)> Legend);

/// <summary>Text kept as it is.</summary>
internal sealed record Verbatim(string Caption, string Text) : Block;

/// <summary>The report laid out: what the page and the text have in common.</summary>
internal sealed record ReportDocument(
    string Title, string Kind, string Headline, bool Completed, IReadOnlyList<string> Notes,
    IReadOnlyList<Section> Sections)
{
    public static ReportDocument Build(ReportModel m) =>
        new(
            m.Name,
            m.Duel == null ? "Run" : m.Duel.Several == "duel" ? "Duel" : "Seeds",
            m.Headline,
            m.Completed,
            m.Notes,
            new[] { Quality(m), Seeds(m), Tests(m) }
                .Concat(m.Quality.Count == 0 ? [] : m.Task.Sections(m.Quality))
                .Concat([Curves(m), MemoryTables.Build(m), Cost(m), Provenance(m)])
            .Where(s => s.Blocks.Count > 0).Select(Drawn).ToList());

    // A task names the values of its charts; drawing them is the report's.
    private static Section Drawn(Section s) => s with
    {
        Blocks =
            [
                .. s.Blocks.Select(b =>
                    b is IntervalChart c ? new Figures([new Figure(c.Title, Svg.Intervals(c.Title, c.Bars), [])]) : b
                ),
            ],
    };

    private static Section Quality(ReportModel m)
    {
        if (m.Quality.Count == 0) return new("Quality", [new Paragraph("No test result in the log.")]);
        var own = m.Task.Quality(m.Quality);
        return m.Spreads.Count == 0 ? own : own with { Blocks = [.. own.Blocks, Spreads(m.Spreads)] };
    }

    private static Table Spreads(IReadOnlyList<SeedSpread> spreads) =>
        new(
            "Over seeds: mean ± standard deviation, then each seed",
            "lllrl",
            ["model", "stage", "metric", "mean ± sd", "each seed"],
            spreads
                .Select(s =>
                    new[]
                    {
                        s.Group, s.Stage, s.Metric, $"{Show.N3(s.Mean)} ± {Show.N3(s.Sd)}",
                        string.Join(", ", s.Values.Select(v => $"{Show.N3(v.Value)} (seed {v.Seed})")),
                    }
                )
                .ToList()
        );

    private static Section Seeds(ReportModel m)
    {
        if (m.Comparisons.Count == 0) return new("Models over seeds", []);
        return new("Models over seeds",
        [
                new Paragraph(
                    "What holds of the models under this recipe, as far as the seeds tell: the difference of the two "
                        + "tuned adapters of each seed, its mean, and Student's 95 % "
                        + "interval over the seeds (the paired t-test). The rows are not counted as independent of "
                        + "one another: a seed gives one difference. p-values of a metric "
                        + "are adjusted by Holm's method. No interval is given where every seed gives one and the "
                        + "same difference."
                ),
                new Table(
                    null,
                    "lllrlrrl",
                    [
                        "first", "second", "metric", "seeds", "first less second, by seed", "mean difference",
                        "adjusted p", "at 5 %"],
                    m.Comparisons.Select(c =>
                            new[]
            {
                                c.First,
                                c.Second,
                                c.Metric,
                                Show.Count(c.Differences.Count),
                                string.Join(
                                    ", ", c.Differences.Select(d => $"{Show.Signed(d.Difference)} (seed {d.Seed})")),
                                c.Mean is { } i
                                    ? $"{Show.Signed(i.Value)} [{Show.Signed(i.Low)}, {Show.Signed(i.High)}]"
                                    : "no interval",
                                c.Adjusted is { } p ? Show.PValue(p) : "none",
                                c.Significant switch
                                {
                                    true => $"{(c.FirstIsBetter ? "first" : "second")} is better",
                                    false => "no significant difference", null => "nothing is claimed",
                                },
            }).ToList()),
        ]);
    }

    private static Section Tests(ReportModel m)
    {
        if (!m.Task.ComparesRows) return new("Paired tests", []);
        if (m.Tests.Count == 0)
            return new(
                "Paired tests", [new Paragraph("No two sets of predictions over the same rows: nothing to test.")]);
        return new("Paired tests",
        [
                new Paragraph(
                    $"McNemar's exact test over the rows that only one of the two has right. It compares two adapters "
                        + $"(or one with its base or a baseline) on these rows and says nothing of other seeds. The "
                        + $"p-values are adjusted by Holm's method over the {m.Tests.Count} "
                        + $"{(m.Tests.Count == 1 ? "test" : "tests")} of this table; the headline has the adjusted "
                        + $"ones."
                ),
                new Table(
                    null,
                    "llrrrrrl",
                    ["first", "second", "rows", "only first right", "only second right", "p", "adjusted p", "at 5 %"],
                    m.Tests.Select(t =>
                            new[]
            {
                                t.First.Name,
                                t.Second.Name,
                                Show.Count(t.Rows),
                                Show.Count(t.FirstOnly),
                                Show.Count(t.SecondOnly),
                                Show.PValue(t.P),
                                Show.PValue(t.Adjusted),
                                t.Significant
                                    ? $"{(t.FirstOnly > t.SecondOnly ? "first" : "second")} is better"
                                    : "no significant difference",
            }).ToList()),
        ]);
    }

    private static Section Curves(ReportModel m)
    {
        var runs = m.Runs.Where(r => r.Summary.Steps.Count > 0).ToList();
        if (runs.Count == 0) return new("Curves", [new Paragraph("No step in the log.")]);
        var legend = runs.DistinctBy(r => r.Group).Select(r => (r.Colour % Svg.Colours, r.Group)).ToList();
        var figures = new List<Figure>();
        Add(
            "Training loss (thin: each step, thick: smoothed; dots: validation)", "loss", s => s.Loss, true,
            e => e.Split == "test" ? null : e.Loss);
        Add("Gradient norm (thin: each step, thick: smoothed)", "norm", s => s.GradNorm, true, _ => null);
        Add("Learning rate", "rate", s => s.LearningRate, false, _ => null);
        AddScore(m, Add);
        var blocks = new List<Block> { new Figures(figures) };
        if (m.Runs.Any(r => r.Summary.Evals.Count > 0)) blocks.Add(Evaluations(m));
        blocks.Add(Compare("How the curves behaved", runs, "what it says", Behaviour));
        return new("Curves", blocks);

        void Add(string title, string unit, Func<StepEvent, double?> of, bool smooth, Func<EvalPoint, double?> point)
        {
            var curves = runs.Select(r =>
            {
                var raw = r
                    .Summary.Steps.Where(s => of(s) is { } v && double.IsFinite(v))
                    .Select(s => (X: (double)s.Step, Y: of(s)!.Value))
                    .ToList();
                var smoothed = smooth
                    ? CurveStatistics.Smooth(raw.Select(p => p.Y).ToList()).Select((v, i) => (raw[i].X, v)).ToList()
                    : raw;
                var points = r
                    .Summary.Evals.Where(e => point(e) != null)
                    .Select(e => ((double)e.Step, point(e)!.Value))
                    .ToList();
                return new Curve(r.Label, r.Colour % Svg.Colours, smooth ? raw : [], smoothed, points);
            }).Where(c => c.Raw.Count + c.Smooth.Count + c.Points.Count > 0).ToList();
            if (curves.Count > 0) figures.Add(new Figure(title, Svg.Lines(title, unit, curves), legend));
        }
    }

    private static readonly (string Name, string Means, Func<RunEntry, string> Of)[] Behaviour =
    [
        ("last loss", "smoothed training loss at the last step", r => Show.N3(r.FinalLoss)),
        (
            "linearity", "R² of a straight line through the loss; healthy curves are convex, so high is not better",
            r => Stat(r.Curve.LinearityR2)),
        ("plateau", "first step from which the loss stays within 5 % of its whole fall above the final level", r =>
            r.Curve.Spikes == null ? "too few steps" : Step(r.Curve.PlateauStep)
        ),
        ("cliff", "step of a fall that takes half of the whole fall within a tenth of the run", r =>
            r.Curve.Spikes == null ? "too few steps" : Step(r.Curve.CliffStep)
        ),
        ("steepest tenth", "share of the whole fall within a tenth of the run", r => Stat(r.Curve.CliffShare)),
        ("spikes", "steps whose loss is far above the median of the 15 before", r => r.Curve.Spikes is { } s
                ? s.Count == 0
                    ? "none"
                    : $"{s.Count} (step {string.Join(", ", s.Take(5))}{(s.Count > 5 ? ", ..." : "")})"
                : "too few steps"),
        ("norm oscillation", "mean change of the gradient norm from step to step, divided by its mean", r =>
            Stat(r.Curve.GradientOscillation)
        ),
        ("norm reversals", "share of these changes that turn round; 0.667 is pure noise", r =>
            Stat(r.Curve.GradientReversals)
        ),
        ("skipped steps", "updates left out because of a value that is not finite", r =>
            Show.Count(r.SkippedSteps)
        ),
    ];

    private static string Stat(double? v) => v == null ? "too few steps" : Show.N3(v);

    private static string Step(int? v) => v == null ? "none" : Show.Count(v);

    // Of what models are ranked by, the first that an evaluation has.
    private static void AddScore(
        ReportModel m, Action<string, string, Func<StepEvent, double?>, bool, Func<EvalPoint, double?>> add)
    {
        var kinds = m
            .Task.Ranked.Select(n => m.Task.Metrics.First(k => k.Name == n))
            .Where(k => k != MetricKind.Loss)
            .ToList(); // the loss has a chart
        if (kinds.Count == 0) return;
        string others = string.Concat(kinds.Skip(1).Select(k => $", or {k.Label} where there is none"));
        add(
            $"Validation {InWords(m, kinds[0])}{others}", kinds[0].Unit, _ => null, false,
            e => kinds.Select(k => e.Evaluation.Value(k.Name)).FirstOrDefault(v => v != null));
    }

    private static Table Evaluations(ReportModel m)
    {
        var shown = m.Task.Shown.Select(n => m.Task.Metrics.First(k => k.Name == n)).ToList();
        return new Table(
            "Evaluations while training",
            "lrlr" + new string('r', shown.Count),
            ["run", "step", "split", "loss", .. shown.Select(k => InWords(m, k))],
            m.Runs.SelectMany(r => r.Summary.Evals.Select(e => (string[])
                            [
                                r.Label,
                                Show.Count(e.Step),
                                e.Split,
                                Show.N3(e.Loss),
                                .. shown.Select(k => Show.N3(e.Evaluation.Value(k.Name))),
                            ]
                    )
                )
                .ToList()
        );
    }

    // As the evaluations while training say it, where they say one thing.
    private static string InWords(ReportModel m, MetricKind kind)
    {
        var said = m
            .Runs.SelectMany(r => r.Summary.Evals)
            .Select(e => e.Evaluation.Find(kind.Name))
            .OfType<Metric>()
            .Select(x => x.Label)
            .Distinct()
            .ToList();
        return said.Count == 1 ? Show.Short(said[0], 60) : kind.Label;
    }

    private static Section Cost(ReportModel m)
    {
        var rows = new List<(string, string, Func<RunEntry, string>)>
        {
            ("steps", "", r =>
                $"{Show.Count(r.StepsDone)} of {(r.Summary.TotalSteps is { } n ? Show.Count(n) : "unknown")}"
            ),
            ("whole run, s", "", r => Show.N1(r.Summary.WholeSeconds)),
            ("training, s", "", r => Show.N1(r.TrainSeconds)),
            ("zero-shot test, s", "", r => Show.N1(r.Summary.ZeroShot?.Seconds)),
            ("tuned test, s", "", r => Show.N1(r.Summary.Tuned?.Seconds)),
            ("tokens trained on", "", r => Show.Count(r.Tokens)),
            ("tokens/s", "", r => Show.Count(r.TokensPerSecond)),
            ("label tokens", "", r => Show.Count(r.LabelTokens)),
            ("effective batch", "", r => Show.Count(r.Summary.Start?.EffectiveBatch)),
            ("steps per epoch", "", r => Show.Count(r.Summary.Start?.StepsPerEpoch)),
            ("training rows", "", r => Show.Count(r.Summary.Start?.TrainRows)),
            ("validation rows", "", r => Show.Count(r.Summary.Start?.ValidationRows)),
            ("test rows", "", r => Show.Count(r.Summary.Start?.TestRows)),
            ("parameters", "", r => Show.Count(r.Summary.Start?.Parameters)),
            ("trainable parameters", "", r => Show.Count(r.Summary.Start?.TrainableParameters)),
            ("trainable share", "", r => Show.Percent(r.TrainableShare)),
        };
        foreach (string module in m.Runs.SelectMany(r => r.TrainableByModule.Select(x => x.Key)).Distinct())
            rows.Add(
                ($"trainable in {module}", "", r =>
                    Show.Count(r.TrainableByModule.Where(x => x.Key == module).Sum(x => x.Value))
                )
            );
        var blocks = new List<Block>();
        if (m.Duel != null)
            blocks.Add(
                new Paragraph(
                    $"The whole {m.Duel.Several}: {Show.N1(m.Duel.DuelEnd?.Seconds)} s; peak resident memory of its "
                        + $"process, MiB: {Show.MiB(m.Duel.DuelEnd?.PeakResidentBytes)}."
                )
            );
        if (m.Runs.Count > 0) blocks.Add(Compare(null, m.Runs, null, rows));
        return new("Cost", blocks);
    }

    private static Section Provenance(ReportModel m)
    {
        var blocks = new List<Block>();
        (string, string, Func<RunEntry, string>)[] facts =
        [
            ("run folder", "", r => r.Folder),
            ("completed", "", r => r.Summary.Completed ? "yes" : r.Summary.Running ? "running" : "no"),
            ("started", "", r => Show.Or(r.Summary.Start?.Time)),
            ("last event", "", r => Show.Or(r.Summary.LastTime)),
            ("Headroom", "", r => Recorded(r.Fact(s => s.Headroom))),
            ("command line", "", r => Recorded(r.Command)),
            ("device", "", r => Recorded(r.Fact(s => s.Device))),
            ("driver", "", r => r.OnCpu ? "none" : Recorded(r.Fact(s => s.Driver))),
            ("precision", "", r => Recorded(r.Fact(s => s.Precision))),
            ("training rows sha256", "", r => Recorded(r.DataHash("train"))),
            ("validation rows sha256", "", r => Recorded(r.DataHash("validation"))),
            ("test rows sha256", "", r => Recorded(r.DataHash("test"))),
            ("architecture", "", r => Show.Or(r.Summary.Start?.Architecture)),
            ("seed", "", r => r.Summary.Seed?.ToString() ?? Show.NotMeasured),
            ("base sha256", "", r => Show.Or(r.Summary.Start?.BaseSha256)),
            ("adapter sha256", "", r => r.Summary.End?.AdapterSha256 ?? "no adapter written"),
            ("best step", "", r => r.Summary.End?.BestStep is > 0 and var b ? Show.Count(b) : "the last"),
            ("checkpoints", "", r => Show.Count(r.Summary.Checkpoints)),
            ("resumed at step", "",
                r => r.Summary.Resumed.Count == 0 ? "never" : string.Join(", ", r.Summary.Resumed)),
            ("cut texts", "", r => Show.Count(r.Summary.Start?.CutTexts)),
        ];
        if (m.Runs.Count > 0)
            blocks.Add(Compare(null, m.Runs, null, facts) with { Align = "l" + new string('l', m.Runs.Count) });
        foreach (var (of, text) in m.Recipes) blocks.Add(new Verbatim($"Recipe of {of}", text));
        return new("Provenance", blocks);
    }

    /// <summary>Runs side by side, one column each.</summary>
    internal static Table Compare(
        string? caption, IReadOnlyList<RunEntry> runs, string? lastColumn,
        IReadOnlyList<(string Name, string Means, Func<RunEntry, string> Of)> rows) =>
        new(
            caption,
            "l" + new string('r', runs.Count) + (lastColumn == null ? "" : "l"),
            ["", .. runs.Select(r => r.Label), .. lastColumn == null ? Array.Empty<string>() : [lastColumn]],
            rows.Select(x =>
                    new[] { x.Name }.Concat(runs.Select(x.Of)).Concat(lastColumn == null ? [] : [x.Means]).ToArray()
                )
                .ToList()
        );

    private static string Recorded(string? fact) => fact ?? "not recorded";
}
