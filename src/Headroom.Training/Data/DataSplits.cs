using System.Security.Cryptography;
using System.Text;
using Headroom.Core;
using Headroom.Formats.Data;

namespace Headroom.Training;

/// <summary>Training, validation and test rows, checked: none is empty where asked for, evaluation sets hold every class, and no text is in two of them.</summary>
public sealed class DataSplits
{
    /// <summary>Training rows.</summary>
    public IReadOnlyList<DataRow> Train { get; private init; } = [];
    /// <summary>Validation rows; empty when none are asked for.</summary>
    public IReadOnlyList<DataRow> Validation { get; private init; } = [];
    /// <summary>Test rows; empty when none are asked for.</summary>
    public IReadOnlyList<DataRow> Test { get; private init; } = [];
    /// <summary>Rows dropped because their text is also in a later split.</summary>
    public int Dropped { get; private init; }

    /// <summary>Reads and splits the data of a recipe.</summary>
    public static DataSplits Load(DataOptions data, TaskOptions task, int seed)
    {
        if (string.IsNullOrEmpty(data.Train)) throw new HeadroomException("data.train is not set", "name a data file, an aclImdb folder, or embedded:reviews");
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
        return Split(Read(train, data), validation == null ? null : Read(validation, data), test == null ? null : Read(test, data), data, task, seed);
    }

    /// <summary>The rows of one source: a path, or embedded:reviews/train, /validation or /test.</summary>
    public static List<DataRow> Read(string source, DataOptions data)
    {
        if (!source.StartsWith(Reviews.Name, StringComparison.Ordinal))
            return [.. DataFiles.Read(source, new() { TextField = data.TextField, LabelField = data.LabelField })];
        var reviews = Reviews.Generate();
        return [.. source[Reviews.Name.Length..] switch
        {
            "/train" => reviews.Train,
            "/validation" => reviews.Validation,
            "" or "/test" => reviews.Test,
            _ => throw new HeadroomException($"there is no {source}", "use embedded:reviews/train, /validation or /test"),
        }];
    }

    /// <summary>Splits and checks rows that are already read.</summary>
    public static DataSplits Split(List<DataRow> train, List<DataRow>? validation, List<DataRow>? test, DataOptions data, TaskOptions task, int seed)
    {
        if (data.OnDuplicate is not ("error" or "drop" or "allow")) throw new HeadroomException($"data.on_duplicate is '{data.OnDuplicate}'", "use error, drop or allow");
        Check(train, "train", task);
        if (validation != null) Check(validation, "validation", task);
        if (test != null) Check(test, "test", task);
        if (validation == null && data.ValidationFraction > 0)
        {
            int rows = train.Count;
            (train, validation) = HoldOut(train, data.ValidationFraction, seed);
            string share = FormattableString.Invariant($"data.validation_fraction {data.ValidationFraction} of {rows} rows");
            if (validation.Count == 0) throw new HeadroomException($"{share} holds out no row.", "Raise it, or set it to 0.");
            if (train.Count == 0) throw new HeadroomException($"{share} leaves no training row.", "Lower it.");
        }

        var parts = new (string Name, List<DataRow> Rows)[] { ("train", train), ("validation", validation ?? []), ("test", test ?? []) };
        int dropped = 0;
        if (data.OnDuplicate != "allow")
            for (int i = 0; i < 2; i++)
                for (int j = i + 1; j < 3; j++)
                {
                    if (parts[j].Rows.Count == 0) continue;
                    var later = parts[j].Rows.Select(r => Key(r.Text)).ToHashSet();
                    int before = parts[i].Rows.Count;
                    var kept = parts[i].Rows.Where(r => !later.Contains(Key(r.Text))).ToList();
                    int shared = before - kept.Count;
                    if (shared > 0 && data.OnDuplicate == "error")
                        throw new HeadroomException($"{shared} of {before} {parts[i].Name} texts are also among the {parts[j].Rows.Count} {parts[j].Name} texts (letters and digits, case ignored)",
                            "remove them, or set data.on_duplicate to drop (or allow)");
                    parts[i].Rows = kept;
                    dropped += shared;
                }
        train = Take(parts[0].Rows, data.MaxTrainRows, seed, 1);
        validation = Take(parts[1].Rows, data.MaxEvalRows, seed, 2);
        var tests = Take(parts[2].Rows, data.MaxTestRows, seed, 3);
        if (train.Count == 0) throw new HeadroomException("no training rows are left", "every training text is also in an evaluation set");
        if (parts[1].Rows.Count > 0 || data.Validation != null) NeedClasses(validation, "validation");
        if (test != null) NeedClasses(tests, "test");
        return new() { Train = train, Validation = validation, Test = tests, Dropped = dropped };
    }

    /// <summary>Identity of a text for the overlap check: its letters and digits, lower case.</summary>
    public static UInt128 Key(string text)
    {
        var kept = new StringBuilder(text.Length);
        foreach (char c in text)
            if (char.IsLetterOrDigit(c)) kept.Append(char.ToLowerInvariant(c));
        Span<byte> hash = stackalloc byte[32];
        SHA256.HashData(Encoding.UTF8.GetBytes(kept.Length == 0 ? text : kept.ToString()), hash);
        return System.Buffers.Binary.BinaryPrimitives.ReadUInt128LittleEndian(hash);
    }

    private static void Check(List<DataRow> rows, string name, TaskOptions task)
    {
        if (rows.Count == 0) throw new HeadroomException($"the {name} data holds no rows", "check the file");
        int empty = rows.Count(r => string.IsNullOrWhiteSpace(r.Text));
        if (empty > 0) throw new HeadroomException($"{empty} of {rows.Count} {name} rows have an empty text (the first is row {rows.FindIndex(r => string.IsNullOrWhiteSpace(r.Text)) + 1})", "drop them from the file");
        int odd = rows.FindIndex(r => !task.Labels.ContainsKey(r.Label));
        if (odd >= 0)
            throw new HeadroomException($"{rows.Count(r => !task.Labels.ContainsKey(r.Label))} of {rows.Count} {name} rows have a label without a label word (row {odd + 1}: '{rows[odd].Label}')",
                $"add it to task.labels (there: {string.Join(", ", task.Labels.Keys)})");
    }

    private static void NeedClasses(List<DataRow> rows, string name)
    {
        if (rows.Count == 0) throw new HeadroomException($"no {name} rows are left", "every text of it is also in another split, or the limit is too small");
        if (rows.Select(r => r.Label).Distinct().Count() < 2)
            throw new HeadroomException($"all {rows.Count} {name} rows have the label '{rows[0].Label}'", "an evaluation set needs both classes: give another file or take more rows");
    }

    /// <summary>Holds out a stratified share; equal texts stay together.</summary>
    private static (List<DataRow> Train, List<DataRow> Held) HoldOut(List<DataRow> rows, double fraction, int seed)
    {
        if (fraction >= 1) throw new HeadroomException($"data.validation_fraction is {fraction}", "use a share below 1");
        var random = new PhiloxRandom((ulong)(uint)seed, 0x30000000);
        var keys = new HashSet<UInt128>();
        foreach (var group in rows.GroupBy(r => r.Label).OrderBy(g => g.Key, StringComparer.Ordinal))
        {
            var own = group.Select(r => Key(r.Text)).Distinct().ToArray();
            random.Shuffle<UInt128>(own);
            keys.UnionWith(own.Take((int)Math.Round(own.Length * fraction)));
        }
        return (rows.Where(r => !keys.Contains(Key(r.Text))).ToList(), rows.Where(r => keys.Contains(Key(r.Text))).ToList());
    }

    /// <summary>At most this many rows, stratified and seeded; in file order.</summary>
    public static List<DataRow> Take(List<DataRow> rows, int most, int seed, uint stream)
    {
        if (most <= 0 || rows.Count <= most) return rows;
        var random = new PhiloxRandom((ulong)(uint)seed, 0x30000000 + stream);
        var classes = Enumerable.Range(0, rows.Count).GroupBy(i => rows[i].Label).OrderBy(g => g.Key, StringComparer.Ordinal).Select(g => g.ToArray()).ToArray();
        var quota = classes.Select(c => (int)((long)c.Length * most / rows.Count)).ToArray();
        foreach (int c in Enumerable.Range(0, classes.Length).OrderByDescending(c => (long)classes[c].Length * most % rows.Count).Take(most - quota.Sum())) quota[c]++;
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
