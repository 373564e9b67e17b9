using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Training.Data.Forms;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks;

namespace Headroom.Training.Data;

/// <summary>How values are spread.</summary>
/// <param name="Least">Smallest.</param>
/// <param name="Median">Half are smaller.</param>
/// <param name="Mean">Mean.</param>
/// <param name="Most">Largest.</param>
/// <param name="Bins">Values in each of equal parts between the smallest and the largest.</param>
internal sealed record Spread(int Least, int Median, double Mean, int Most, int[] Bins)
{
    private const int Parts = 12;

    /// <summary>Of one value or more.</summary>
    public static Spread Make(IReadOnlyList<int> values)
    {
        int[] sorted = [.. values.Order()];
        int least = sorted[0], most = sorted[^1], parts = Math.Min(Parts, most - least + 1);
        var bins = new int[parts];
        foreach (int v in sorted) bins[(int)((long)(v - least) * parts / (most - least + 1))]++;
        return new(least, sorted[sorted.Length / 2], values.Average(), most, bins);
    }
}

/// <summary>What is in a split, and what is odd about it.</summary>
internal sealed record SplitSummary
{
    /// <summary>train, validation or test.</summary>
    public required string Split { get; init; }
    /// <summary>Rows that can be read.</summary>
    public required int Rows { get; init; }
    /// <summary>What is wrong with each of the others.</summary>
    public required IReadOnlyList<string> Bad { get; init; }
    /// <summary>Lengths in tokens of rows as they are trained; in characters without a tokenizer.</summary>
    public Spread? Lengths { get; init; }
    /// <summary>Tokens of all rows, 0 without a tokenizer.</summary>
    public long Tokens { get; init; }
    /// <summary>Tokens of them that are learned.</summary>
    public long Learned { get; init; }
    /// <summary>Messages by role, of conversations.</summary>
    public required IReadOnlyDictionary<string, int> Roles { get; init; }
    /// <summary>Rows by label, of labelled texts.</summary>
    public required IReadOnlyDictionary<string, int> Labels { get; init; }
    /// <summary>Rows with a message of nothing but blanks.</summary>
    public int EmptyTurns { get; init; }
    /// <summary>Rows with an answer of fewer than <see cref="DataSummary.ShortAnswer"/> characters.</summary>
    public int ShortAnswers { get; init; }
    /// <summary>Rows that say what an earlier one says.</summary>
    public int Repeated { get; init; }
    /// <summary>What the task has to say of them.</summary>
    public required IReadOnlyList<string> Notes { get; init; }
}

/// <summary>What headroom data check finds in the data of a recipe.</summary>
/// <param name="Task">The task.</param>
/// <param name="Splits">Each split that is there.</param>
/// <param name="Shared">Rows of a split that a later one has too, by "train and test".</param>
internal sealed record DataSummary(
    string Task, IReadOnlyList<SplitSummary> Splits, IReadOnlyDictionary<string, int> Shared)
{
    /// <summary>Answers below so many characters are near empty.</summary>
    public const int ShortAnswer = 2;

    /// <summary>Reads and encodes every row.</summary>
    /// <param name="recipe">Its task is resolved.</param>
    /// <param name="make">Makes the task over a tokenizer; null: lengths are in characters.</param>
    /// <exception cref="HeadroomException">A file cannot be read.</exception>
    public static DataSummary Make(Recipe recipe, Func<ITask>? make)
    {
        var splits = new List<SplitSummary>();
        var keys = new List<(string Split, List<UInt128> Keys)>();
        foreach (var (split, source) in DataSplits.Sources(recipe.Data))
        {
            var bad = new List<string>();
            var rows = DataSplits.Read(source, recipe.Data, recipe.Task, e => bad.Add(e.Message));
            keys.Add((split, [.. rows.Select(r => TextKey.Compute([.. r.Texts]))]));
            splits.Add(Look(split, rows, bad, make?.Invoke(), keys[^1].Keys));
        }
        var shared = new Dictionary<string, int>();
        for (int i = 0; i < keys.Count; i++)
            for (int j = i + 1; j < keys.Count; j++)
            {
                var later = keys[j].Keys.ToHashSet();
                shared[$"{keys[i].Split} and {keys[j].Split}"] = keys[i].Keys.Count(later.Contains);
            }
        return new(recipe.Task.Type, splits, shared);
    }

    private static SplitSummary Look(
        string split, List<DataRow> rows, List<string> bad, ITask? task, List<UInt128> keys)
    {
        var conversations = rows.OfType<ExampleRow>().Select(r => r.Example).OfType<Conversation>().ToList();
        var roles = conversations.SelectMany(c => c.Messages).GroupBy(m => (string)m!["role"]!)
            .ToDictionary(g => g.Key, g => g.Count());
        var encoded = task == null || rows.Count == 0 ? null : new EncodedRows(rows, task.Encode);
        encoded?.EncodeAll();
        List<int> lengths = encoded != null
            ? [.. Enumerable.Range(0, encoded.Count).Select(i => encoded[i].Ids.Length)]
            : [.. rows.Select(r => r.Texts.Sum(t => t.Length))];
        return new SplitSummary
        {
            Split = split,
            Rows = rows.Count,
            Bad = bad,
            Lengths = lengths.Count > 0 ? Spread.Make(lengths) : null,
            Tokens = encoded == null ? 0 : lengths.Sum(n => (long)n),
            Learned = encoded == null ? 0 : Enumerable.Range(0, encoded.Count).Sum(i =>
                encoded[i].Spans.Sum(s => (long)(s.End - Math.Max(1, s.Start)))),
            Roles = roles,
            Labels = rows.Where(r => r is not ExampleRow && r.Label.Length > 0).GroupBy(r => r.Label)
                .ToDictionary(g => g.Key, g => g.Count()),
            EmptyTurns = conversations.Count(c => c.Messages.Any(IsEmpty)),
            ShortAnswers = rows.OfType<ExampleRow>().Count(r => Answers(r.Example).Any(a => a.Length < ShortAnswer)),
            Repeated = keys.Count - keys.Distinct().Count(),
            Notes = task?.Notes(null, rows) ?? [],
        };
    }

    private static bool IsEmpty(JsonNode? message) =>
        message!["tool_calls"] == null && string.IsNullOrWhiteSpace(Content(message));

    private static IEnumerable<string> Answers(Example example) => example switch
    {
        Conversation c => c.Messages.Where((m, i) => c.Learned[i] && m!["tool_calls"] == null).Select(Content),
        Completion c => [c.Answer.Trim()],
        Instruction i => [i.Output.Trim()],
        _ => [],
    };

    private static string Content(JsonNode? message) =>
        message!["content"] is { } c && c.GetValueKind() == JsonValueKind.String ? c.GetValue<string>().Trim() : "";
}
