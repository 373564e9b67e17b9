using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks;

namespace Headroom.Training.Data;

/// <summary>
/// Training, validation and test rows, checked: none is empty where asked for, each is one that the task takes, and no
/// text is in two of them.
/// </summary>
internal sealed class DataSplits
{
    /// <summary>Training rows.</summary>
    public IReadOnlyList<DataRow> Train { get; private init; } = [];
    /// <summary>Validation rows; empty when none are asked for.</summary>
    public IReadOnlyList<DataRow> Validation { get; private init; } = [];
    /// <summary>Test rows; empty when none are asked for.</summary>
    public IReadOnlyList<DataRow> Test { get; private init; } = [];
    /// <summary>Rows dropped because their text is also in a later split.</summary>
    public int Dropped { get; private init; }
    /// <summary>
    /// What a user should know of the rows before a run, a line each: rows dropped, texts that nearly are in two
    /// splits, empty columns.
    /// </summary>
    public IReadOnlyList<string> Notes { get; private init; } = [];

    /// <summary>Reads and splits the data of a recipe.</summary>
    public static DataSplits Load(DataOptions data, TaskOptions task, int seed)
    {
        var sources = Sources(data).ToDictionary(s => s.Split, s => s.Source);
        var bad = new List<string>();
        var splits = Split(
            Rows("train")!, Rows("validation"), Rows("test"), data, task, seed);
        return bad.Count == 0 ? splits : splits.With([.. bad, .. splits.Notes]);

        List<DataRow>? Rows(string split)
        {
            if (!sources.TryGetValue(split, out string? source)) return null;
            int count = 0;
            string first = "";
            var rows = Read(source, data, task, data.OnBadRow == BadRows.Error ? null : e =>
            {
                if (count++ == 0) first = e.Message;
            });
            if (count > 0)
                bad.Add(
                    $"{count} of {rows.Count + count} {split} rows cannot be read and are left out; the first: "
                        + $"{first}.");
            return rows;
        }
    }

    /// <summary>Where the rows of each split are: train, and validation and test where they are named.</summary>
    /// <exception cref="HeadroomException">No training rows are named.</exception>
    public static IEnumerable<(string Split, string Source)> Sources(DataOptions data)
    {
        if (string.IsNullOrEmpty(data.Train))
            throw new HeadroomException(
                "data.train is not set", "Name a data file, an aclImdb folder, or embedded:reviews");
        string train = data.Train;
        string? validation = data.Validation, test = data.Test;
        if (train == Reviews.Name)
        {
            train += "/train";
            if (validation == null && data.ValidationFraction == 0) validation = Reviews.Name + "/validation";
            test ??= Reviews.Name + "/test";
        }
        else if (Directory.Exists(Path.Combine(train, "train", "pos")))
        {
            if (Directory.Exists(Path.Combine(train, "test", "pos"))) test ??= Path.Combine(train, "test");
            train = Path.Combine(train, "train");
        }
        yield return ("train", train);
        if (validation != null) yield return ("validation", validation);
        if (test != null) yield return ("test", test);
    }

    private DataSplits With(IReadOnlyList<string> notes) =>
        new() { Train = Train, Validation = Validation, Test = Test, Dropped = Dropped, Notes = notes };

    /// <summary>The rows of one source: a path, or embedded:reviews/train, /validation or /test.</summary>
    /// <param name="source">The source.</param>
    /// <param name="data">Names the fields.</param>
    /// <param name="task">Says which columns hold the texts; null: data.text_field alone.</param>
    /// <param name="bad">Is told of a row that cannot be read and is left out; null: such a row is an error.</param>
    /// <exception cref="HeadroomException">The source cannot be read, or has no such column.</exception>
    public static List<DataRow> Read(
        string source, DataOptions data, TaskOptions? task = null, Action<HeadroomException>? bad = null)
    {
        var type = task == null ? null : TaskTypes.Get(task);
        if (!source.StartsWith(Reviews.Name, StringComparison.Ordinal))
            return
            [
                .. type?.Rows(source, data, task!, bad)
                    ?? DataFiles.Read(
                        source,
                        new()
                        {
                            TextField = data.TextField, LabelField = data.LabelField, Header = data.Header,
                        }
                    ),
            ];
        string[] fields = type?.Fields(data, task!) ?? [data.TextField];
        if (fields.FirstOrDefault(f => f != "text") is { } other && (fields.Length > 1 || other != data.TextField))
            throw new HeadroomException(
                $"{Reviews.Name} has no column '{HeadroomException.Value(other)}'.",
                "Its columns are text, label and tier: write {text} in task.template.");
        var reviews = Reviews.Generate();
        return [.. source[Reviews.Name.Length..] switch
        {
            "/train" => reviews.Train,
            "/validation" => reviews.Validation,
            "" or "/test" => reviews.Test,
                _ => throw new HeadroomException(
                    $"There is no {source}", "Use embedded:reviews/train, /validation or /test"),
        }];
    }

    /// <summary>Splits and checks rows that are already read.</summary>
    public static DataSplits Split(
        List<DataRow> train, List<DataRow>? validation, List<DataRow>? test, DataOptions data, TaskOptions task,
        int seed)
    {
        Check(train, "train", task);
        if (validation != null) Check(validation, "validation", task);
        if (test != null) Check(test, "test", task);
        int all = train.Count;
        if (validation == null && data.ValidationFraction > 0)
            validation = Held("validation", data.ValidationFraction, HeldOut);
        // Of all rows, of which those of the validation are no more here.
        if (test == null && data.TestFraction > 0)
            test = Held("test", Math.Min(1, data.TestFraction * all / train.Count), HeldOutTest);

        var notes = new List<string>();
        foreach (var (name, rows) in new[] { ("train", train), ("validation", validation ?? []), ("test", test ?? []) })
        {
            Empty(rows, name);
            notes.AddRange(OddTexts(rows, name));
        }
        var parts = new Part[] { new("train", train), new("validation", validation ?? []), new("test", test ?? []) };
        int dropped = 0;
        if (data.OnDuplicate != DuplicateTexts.Allow)
            for (int i = 0; i < 2; i++)
                for (int j = i + 1; j < 3; j++)
                    if (parts[j].Rows.Count > 0)
                        dropped += parts[i].Without(parts[j], data.OnDuplicate == DuplicateTexts.Drop, notes);
        train = Take(parts[0].Rows, data.MaxTrainRows, seed, 1);
        validation = Take(parts[1].Rows, data.MaxEvalRows, seed, 2);
        var tests = Take(parts[2].Rows, data.MaxTestRows, seed, 3);
        if (train.Count == 0)
            throw new HeadroomException(
                "No training rows are left", "Every training text is also in an evaluation set");
        if (parts[1].Rows.Count > 0 || data.Validation != null) NeedRows(validation, "validation", task);
        if (test != null) NeedRows(tests, "test", task);
        return new() { Train = train, Validation = validation, Test = tests, Dropped = dropped, Notes = notes };

        List<DataRow> Held(string split, double fraction, uint stream)
        {
            (train, var held) = HoldOut(train, fraction, seed, stream);
            double given = split == "test" ? data.TestFraction : data.ValidationFraction;
            string share = FormattableString.Invariant($"data.{split}_fraction {given} of {all} rows");
            if (held.Count == 0) throw new HeadroomException($"{share} holds out no row.", "Raise it, or set it to 0.");
            return train.Count > 0 ? held
                : throw new HeadroomException($"{share} leaves no training row.", "Lower it.");
        }

        void Empty(List<DataRow> rows, string name)
        {
            if (rows.Count == 0 || rows[0].More == null) return;
            int first = rows.FindIndex(r => r.Texts.Any(string.IsNullOrWhiteSpace));
            if (first >= 0)
                notes.Add(
                    $"{rows.Count(r => r.Texts.Any(string.IsNullOrWhiteSpace))} of {rows.Count} {name} rows have an "
                        + $"empty text among theirs (the first is row {first + 1})."
                );
        }
    }

    // What pandas.read_csv takes for no value (its na_values), but for words of the language in lower case.
    private static readonly HashSet<string> Missing = new(StringComparer.Ordinal)
    {
        "NaN", "nan", "-NaN", "-nan", "NA", "N/A", "n/a", "<NA>", "NULL", "null", "None", "#N/A", "#NA",
    };

    // Texts that a table was probably not meant to hold; they may be meant, so nothing is refused.
    private static IEnumerable<string> OddTexts(List<DataRow> rows, string name)
    {
        int missing = rows.Count(r => Missing.Contains(r.Text)), first = rows.FindIndex(r => Missing.Contains(r.Text));
        if (missing > 0)
            yield return $"{missing} of {rows.Count} {name} texts are a word that tables use for a missing value (the "
                + $"first is row {first + 1}: '{rows[first].Text}'); they are taken as texts.";
        int quoted = rows.Count(r => r.Text is ['"', _, .., '"']);
        if (quoted > rows.Count / 2)
            yield return $"{quoted} of {rows.Count} {name} texts begin and end in quotation marks, which are part of "
                + $"the texts: a .tsv file is read without quoting, a .csv file with it.";
    }

    /// <summary>Identity of a text for the overlap check; see <see cref="TextKey"/>.</summary>
    public static UInt128 Key(string text) => TextKey.Compute(text);

    private static UInt128 Key(DataRow row) => TextKey.Compute([.. row.Texts]);

    private static T[] Each<T>(List<DataRow> rows, Func<DataRow, T> make) =>
        [.. rows.AsParallel().AsOrdered().Select(make)];

    /// <summary>A split while it is checked; the keys of its rows are made once.</summary>
    private sealed class Part(string name, List<DataRow> rows)
    {
        private (UInt128 Full, UInt128 Letters)[]? _keys;

        public List<DataRow> Rows { get; private set; } = rows;
        private (UInt128 Full, UInt128 Letters)[] Keys => _keys ??= Each(Rows, r => TextKey.Both([.. r.Texts]));

        /// <summary>
        /// Drops the rows whose texts are in a later split too, or refuses them; those that differ in signs alone are
        /// noted.
        /// </summary>
        /// <returns>Rows dropped.</returns>
        public int Without(Part later, bool drop, List<string> notes)
        {
            var keys = later.Keys.Select(k => k.Full).ToHashSet();
            int before = Rows.Count, shared = Keys.Count(k => keys.Contains(k.Full));
            if (shared > 0 && !drop)
                throw new HeadroomException($"{shared} of {before} {name} texts are also among the {later.Rows.Count} "
                    + $"{later.Name} texts ({TextKey.Ignores}), "
                    + $"the first in row {Array.FindIndex(Keys, k => keys.Contains(k.Full)) + 1}",
                    "Remove them, or set data.on_duplicate to drop (or allow)");
            if (shared > 0)
            {
                int[] kept = [.. Enumerable.Range(0, before).Where(i => !keys.Contains(Keys[i].Full))];
                notes.Add(
                    $"{shared} of {before} {name} rows were dropped: their texts are also among the {later.Name} "
                        + $"texts ({TextKey.Ignores})."
                );
                (Rows, _keys) = ([.. kept.Select(i => Rows[i])], [.. kept.Select(i => Keys[i])]);
            }
            var letters = later.Keys.Select(k => k.Letters).ToHashSet();
            int near = Array.FindIndex(Keys, k => letters.Contains(k.Letters));
            if (near >= 0)
                notes.Add($"{Keys.Count(k => letters.Contains(k.Letters))} of {Rows.Count} {name} texts differ from a "
                    + $"{later.Name} text in punctuation and symbols alone; "
                    + $"the first: '{HeadroomException.Value(Rows[near].Text)}'.");
            return shared;
        }

        private string Name => name;
    }

    private static void Check(List<DataRow> rows, string name, TaskOptions task)
    {
        if (rows.Count == 0) throw new HeadroomException($"The {name} data holds no rows", "Check the file");
        bool Blank(DataRow r) => r.Texts.All(string.IsNullOrWhiteSpace);
        int empty = rows.Count(Blank);
        if (empty > 0)
            throw new HeadroomException(
                $"{empty} of {rows.Count} {name} rows have an empty text (the first is row "
                    + $"{rows.FindIndex(Blank) + 1})",
                "Drop them from the file");
        TaskTypes.Get(task).CheckRows(rows, name, task);
    }

    private static void NeedRows(List<DataRow> rows, string name, TaskOptions task)
    {
        if (rows.Count == 0)
            throw new HeadroomException(
                $"No {name} rows are left", "Every text of it is also in another split, or the limit is too small");
        TaskTypes.Get(task).CheckEvaluation(rows, name);
    }

    private const uint HeldOut = 0x30000000, HeldOutTest = 0x30000010; // streams of the random numbers

    /// <summary>Holds out a stratified share; equal texts stay together.</summary>
    private static (List<DataRow> Train, List<DataRow> Held) HoldOut(
        List<DataRow> rows, double fraction, int seed, uint stream)
    {
        var random = new PhiloxRandom((ulong)(uint)seed, stream);
        var keys = Each(rows, Key);
        var chosen = new HashSet<UInt128>();
        var indices = Enumerable.Range(0, rows.Count);
        foreach (var group in indices.GroupBy(i => rows[i].Label).OrderBy(g => g.Key, StringComparer.Ordinal))
        {
            var own = group.Select(i => keys[i]).Distinct().ToArray();
            random.Shuffle<UInt128>(own);
            chosen.UnionWith(own.Take((int)Math.Round(own.Length * fraction)));
        }
        var held = indices.ToLookup(i => chosen.Contains(keys[i]), i => rows[i]);
        return ([.. held[false]], [.. held[true]]);
    }

    /// <summary>At most this many rows, stratified and seeded; in file order.</summary>
    public static List<DataRow> Take(List<DataRow> rows, int most, int seed, uint stream)
    {
        if (most <= 0 || rows.Count <= most) return rows;
        var random = new PhiloxRandom((ulong)(uint)seed, 0x30000000 + stream);
        var classes = Enumerable
            .Range(0, rows.Count)
            .GroupBy(i => rows[i].Label)
            .OrderBy(g => g.Key, StringComparer.Ordinal)
            .Select(g => g.ToArray())
            .ToArray();
        var quota = classes.Select(c => (int)((long)c.Length * most / rows.Count)).ToArray();
        foreach (
            int c in Enumerable
                .Range(0, classes.Length)
                .OrderByDescending(c => (long)classes[c].Length * most % rows.Count)
                .Take(most - quota.Sum())
        )
            quota[c]++;
        var chosen = new List<int>();
        for (int c = 0; c < classes.Length; c++)
        {
            random.Shuffle<int>(classes[c]);
            chosen.AddRange(classes[c].Take(quota[c]));
        }
        chosen.Sort();
        return [.. chosen.Select(i => rows[i])];
    }
}
