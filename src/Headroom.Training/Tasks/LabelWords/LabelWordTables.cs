using Headroom.Training.Intervals;

namespace Headroom.Training.Tasks.LabelWords;

/// <summary>What the report says of label words: figures of classes, for any number of them.</summary>
internal static class LabelWordTables
{
    private const int MostTiers = 60; // rows of a table; results.json has all
    private const int MostColumns = 24,
        MostCells = 30; // a larger confusion matrix is shown by its largest cells off the diagonal
    private const int ColumnLetters = 14, RowLetters = 48, NumberedLetters = 24, MostWords = 8;

    public static Section Build(IReadOnlyList<ReportRow> rows)
    {
        var of = rows.Select(q => Detail(q).Confusion).OfType<ConfusionMatrix>().DistinctBy(What).ToList();
        string which =
            of.Count != 1 ? "of what the column \"of\" names"
            : of[0].IsBinary ? $"of {What(of[0])}"
            : $"averages over {of[0].Classes} classes";
        var blocks = new List<Block>
        {
            new Paragraph(
                $"Accuracy with Wilson's 95 % interval. F1, precision and recall are {which}: the positive class "
                    + $"where there are two, else the macro average, the plain mean "
                    + $"over the classes. Their 95 % intervals are of a seeded bootstrap over rows "
                    + $"({Show.Count(Statistics.Resamples)} resamples, percentiles); where no resample "
                + "differs, Wilson's."),
        };
        var bars = rows.Where(q => q.Evaluation.Find("accuracy")?.Interval != null)
            .Select(q => (q.Name, q.Colour, q.Evaluation["accuracy"].Interval!.Value))
            .ToList();
        if (bars.Count > 0) blocks.Add(new IntervalChart("Accuracy with 95 % interval", bars));
        blocks.Add(Main(rows, of.Count != 1));
        return new("Quality", blocks);
    }

    public static Section Classes(IReadOnlyList<ReportRow> rows)
    {
        var counted = rows.Where(q => Detail(q).Confusion is { Rows: > 0 }).ToList();
        if (counted.Count == 0) return new("Classes", []);
        var blocks = new List<Block> { ByClass(counted) };
        foreach (
            var same in counted
                .SelectMany(q => Detail(q).Confusion!.Undefined().Select(u => (q.Name, Sentence: u)))
                .GroupBy(u => u.Sentence)
        )
            blocks.Add(new Paragraph($"{string.Join("; ", same.Select(s => s.Name))}: {same.Key}."));
        blocks.AddRange(Confusions(counted));
        return new("Classes", blocks);
    }

    public static Section Tiers(IReadOnlyList<ReportRow> rows)
    {
        var cells = rows.SelectMany(q => Detail(q).ByTier.Select(t => (Quality: q, t.Tier, Counts: t.Confusion)))
            .ToList();
        if (cells.Count == 0) return new("Tiers", []);
        string left =
            cells.Count > MostTiers
                ? $" The first {MostTiers} of {Show.Count(cells.Count)} are shown; results.json has all."
                : "";
        return new("Tiers",
        [
                new Paragraph(
                    "Accuracy in each tier of the test rows, with Wilson's 95 % interval, and F1 of what \"of\" names."
                        + left
                ),
                new Table(
                    null,
                    "lllrrlr",
                    ["model", "stage", "tier", "rows", "accuracy", "of", "F1"],
                    cells
                        .Take(MostTiers)
                        .Select(c =>
                            new[]
                            {
                                c.Quality.Label, c.Quality.Stage, Show.Short(c.Tier, RowLetters),
                                Show.Count(c.Counts.Rows), Show.I(Statistics.Wilson(c.Counts.Correct, c.Counts.Rows)),
                                What(c.Counts), Show.N3(c.Counts.Main.F1),
                            }
                        )
                        .ToList()
                ),
            ]
        );
    }

    /// <summary>What precision, recall and F1 are of: the positive class, or an average.</summary>
    private static string What(ConfusionMatrix? m) =>
        m == null ? Show.NotMeasured
        : m.IsBinary ? Class(m, 1, RowLetters)
        : $"macro over {m.Classes} classes";

    // A word that was cut keeps its number, since two may begin and end alike.
    private static string Class(ConfusionMatrix m, int c, int letters)
    {
        string name = m.Name(c), cut = Show.Short(name, letters);
        return m.Labels == null || cut.Length >= name.Length ? cut : $"{c}: {cut}";
    }

    private static Table Main(IReadOnlyList<ReportRow> rows, bool of) =>
        new(
            null,
            of ? "llrrlrrr" : "llrrrrr",
            ["model", "stage", "rows", "accuracy", .. of ? (string[])["of"] : [], "F1", "precision", "recall"],
            rows.Select(q =>
                    new[]
        {
                        q.Label,
                        q.Stage,
                        Show.Count(q.Evaluation.Rows),
                        Cell(q, "accuracy"),
                        What(Detail(q).Confusion),
                        Cell(q, "f1"),
                        Cell(q, "precision"),
                        Cell(q, "recall"),
        }.Where((_, i) => of || i != 4).ToArray()).ToList());

    private static string Cell(ReportRow row, string metric) => Show.Metric(row.Evaluation.Find(metric));

    private static LabelWordDetail Detail(ReportRow row) => (LabelWordDetail)row.Evaluation.Detail!;

    private static Table ByClass(IReadOnlyList<ReportRow> rows)
    {
        var lines = new List<string[]>();
        foreach (var q in rows)
        {
            var (m, intervals) = (Detail(q).Confusion!, Detail(q).Intervals!);
            for (int c = 0; c < m.Classes; c++)
                lines.Add([
                    q.Label,
                    q.Stage,
                    Class(m, c, RowLetters),
                    Show.Count(m.Gold(c)),
                    Show.Count(m.Predicted(c)),
                    .. m.Occurs(c) ? Scores(intervals.Classes[c]) : ["none", "none", "none"],
                ]);
            lines.Add([
                q.Label,
                q.Stage,
                "macro average",
                Show.Count(m.Rows),
                Show.Count(m.Rows),
                .. Scores(intervals.Macro),
            ]);
            lines.Add([
                q.Label,
                q.Stage,
                "weighted average",
                Show.Count(m.Rows),
                Show.Count(m.Rows),
                .. Scores(intervals.Weighted),
            ]);
        }
        return new Table(
            "By class", "lllrrrrr", ["model", "stage", "class", "gold rows", "predicted", "F1", "precision", "recall"],
            lines);
    }

    private static string[] Scores(ScoreIntervals s) => [Show.I(s.F1), Show.I(s.Precision), Show.I(s.Recall)];

    private static IEnumerable<Block> Confusions(IReadOnlyList<ReportRow> rows)
    {
        // Two classes of one name each fit into a line.
        foreach (
            var same in rows.Where(q => Detail(q).Confusion!.IsBinary)
                .GroupBy(q => (Detail(q).Confusion!.Name(0), Detail(q).Confusion!.Name(1)))
        )
        {
            var m = Detail(same.First()).Confusion!;
            string[] names = [Class(m, 0, ColumnLetters), Class(m, 1, ColumnLetters)];
            yield return new Table(
                "Confusion matrix: gold as predicted",
                "llrrrr",
                ["model", "stage", .. names.SelectMany(g => names.Select(p => $"{g} as {p}"))],
                same.Select(q =>
                        new[] { q.Label, q.Stage }
                            .Concat(Detail(q).Confusion!.Counts.ToArray().Select(c => Show.Count(c)))
                            .ToArray()
                    )
                    .ToList()
            );
        }
        foreach (var q in rows.Where(q => !Detail(q).Confusion!.IsBinary))
            yield return Detail(q).Confusion!.Classes <= MostColumns ? Whole(q) : Largest(q);
    }

    private static Table Whole(ReportRow q)
    {
        var m = Detail(q).Confusion!;
        var classes = Enumerable.Range(0, m.Classes).ToList();
        // Many or long words would stretch the columns: those have the classes' numbers then, which stand before the
        // words of the rows.
        bool numbers = m.Labels == null || m.Classes > MostWords || classes.Any(c => m.Name(c).Length > ColumnLetters);
        string Row(int c) =>
            m.Labels == null ? $"{c}"
            : numbers ? $"{c}: {Show.Short(m.Name(c), NumberedLetters)}"
            : Class(m, c, RowLetters);
        return new Table(
            $"Confusion matrix of {q.Name}: gold labels in rows, predicted ones in columns",
            "l" + new string('r', m.Classes),
            ["gold", .. classes.Select(c => numbers ? $"{c}" : Class(m, c, ColumnLetters))],
            classes.Select(g => classes.Select(p => Show.Count(m[g, p])).Prepend(Row(g)).ToArray()).ToList());
    }

    private static Table Largest(ReportRow q)
    {
        var m = Detail(q).Confusion!;
        var wrong = Enumerable
            .Range(0, m.Classes)
            .SelectMany(g =>
                Enumerable
                    .Range(0, m.Classes)
                    .Where(p => p != g && m[g, p] > 0)
                    .Select(p => (Gold: g, Predicted: p, Rows: m[g, p]))
            )
            .OrderByDescending(x => x.Rows).ThenBy(x => x.Gold).ThenBy(x => x.Predicted).ToList();
        return new Table(
            $"Confusion matrix of {q.Name}: the largest {Math.Min(MostCells, wrong.Count)} of "
                + $"{Show.Count(wrong.Count)} kinds of wrong rows; results.json has all {m.Classes} x {m.Classes}",
            "llr",
            ["gold", "predicted", "rows"],
            wrong
                .Take(MostCells)
                .Select(x =>
                    new[] { Class(m, x.Gold, RowLetters), Class(m, x.Predicted, RowLetters), Show.Count(x.Rows) }
                )
                .ToList()
        );
    }
}
