using System.Text;
using System.Text.Encodings.Web;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Data;

namespace Headroom.Training.Data;

/// <summary>
/// A seeded set of short English movie reviews, written for this project: balanced, in three tiers (explicit, mixed,
/// sarcasm). The splits share no sentence template, and a part of every word list is held out for each, so a test score
/// measures generalization. Nothing is stored: the rows are generated.
/// </summary>
internal static class Reviews
{
    /// <summary>The name a recipe gives as data.train.</summary>
    public const string Name = "embedded:reviews";
    /// <summary>Rows of the training, validation and test part.</summary>
    public const int TrainRows = 6000, ValidationRows = 800, TestRows = 1600;
    /// <summary>Tiers, from easy to hard.</summary>
    public static readonly IReadOnlyList<string> Tiers = ["explicit", "mixed", "sarcasm"];

    private static readonly (string Name, int Rows, ReviewTemplates Templates)[] Parts =
    [
        ("train", TrainRows, ReviewTemplates.Train), ("validation", ValidationRows, ReviewTemplates.Validation),
        ("test", TestRows, ReviewTemplates.Test)];

    /// <summary>All rows; the same seed gives the same rows on every machine.</summary>
    public static (List<DataRow> Train, List<DataRow> Validation, List<DataRow> Test) Generate(int seed = 1)
    {
        var seen = new HashSet<UInt128>();
        return (
            Part(ReviewWords.Train, seed, seen), Part(ReviewWords.Validation, seed, seen),
            Part(ReviewWords.Test, seed, seen));
    }

    /// <summary>Sentence templates of a part: train, validation or test.</summary>
    public static IReadOnlyList<string> Templates(string part) => [.. Parts[Index(part)].Templates.Every];

    /// <summary>
    /// Writes train.jsonl, validation.jsonl and test.jsonl (UTF-8, LF) into a new or empty folder; all three are
    /// complete there, or none.
    /// </summary>
    /// <param name="folder">The folder.</param>
    /// <param name="seed">Seed of the rows.</param>
    /// <param name="overwrite">Whether a folder that holds such files and nothing else may be replaced.</param>
    /// <exception cref="HeadroomException">Something is there, or it cannot be written.</exception>
    public static void Write(string folder, int seed = 1, bool overwrite = false)
    {
        using var target = OutputTarget.OfFolder(folder, overwrite, "Give another folder.", name =>
            Parts.Any(p => name == p.Name + ".jsonl")
        );
        OutputFolder.Create(target.Temporary, "Give another folder.");
        var (train, validation, test) = Generate(seed);
        foreach (var (name, rows) in new[] { ("train", train), ("validation", validation), ("test", test) })
            AtomicFile.WriteText(Path.Combine(target.Temporary, name + ".jsonl"), JsonLines(rows));
        target.Commit();
    }

    /// <summary>Rows as JSON Lines.</summary>
    public static string JsonLines(IEnumerable<DataRow> rows)
    {
        var text = new StringBuilder();
        var encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping;
        foreach (var r in rows)
            text.Append(
                $"{{\"text\":\"{encoder.Encode(r.Text)}\",\"label\":\"{encoder.Encode(r.Label)}\","
                    + $"\"tier\":\"{r.Tier}\",\"id\":\"{r.Id}\"}}\n"
            );
        return text.ToString();
    }

    private static int Index(string part)
    {
        int i = Array.FindIndex(Parts, p => p.Name == part);
        return i >= 0
            ? i
            : throw new HeadroomException($"The review set has no part '{part}'.", "Use train, validation or test.");
    }

    private static List<DataRow> Part(int split, int seed, HashSet<UInt128> seen)
    {
        var (name, count, templates) = Parts[split];
        var random = new PhiloxRandom((ulong)(uint)seed, 0x31000000 + (uint)split);
        var rows = new List<DataRow>(count);
        for (int i = 0; i < count;)
        {
            // Of twenty rows: eleven explicit, five mixed, four sarcasm; labels alternate.
            bool positive = (i & 1) == 1;
            int tier = ((i >> 1) % 20) switch { < 11 => 0, < 16 => 1, _ => 2 };
            string text = new ReviewWriter(random, split).Review(templates, tier, positive);
            int words = text.AsSpan().Count(' ') + 1;
            if (words is < 15 or > 45 || !seen.Add(TextKey.OfLetters(text))) continue;
            rows.Add(new(text, positive ? "1" : "0", Tiers[tier]));
            i++;
        }
        random.Shuffle(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(rows));
        for (int i = 0; i < count; i++) rows[i] = rows[i] with { Id = $"{name}-{i:D5}" };
        return rows;
    }
}

/// <summary>Fills templates; no slot takes a word twice in one text.</summary>
internal sealed class ReviewWriter(PhiloxRandom random, int split)
{
    private readonly HashSet<string> _used = new(StringComparer.Ordinal);

    internal string Review(ReviewTemplates t, int tier, bool positive)
    {
        var parts = new List<string>();
        string[] kind = tier switch { 0 => t.Explicit, 1 => t.Mixed, _ => positive ? t.Understatement : t.Sarcasm };
        bool opening = tier == 0 || random.Next(4) > 0;
        if (opening) parts.Add(Pick(t.Openings));
        int sentences = tier == 1 ? 1 : 2;
        if (!opening) sentences++;
        while (parts.Count < sentences + (opening ? 1 : 0))
        {
            string s = Pick(kind);
            if (!parts.Contains(s)) parts.Add(s);
        }
        return string.Join(' ', parts.Select(p => Fill(p, positive)));
    }

    internal string Pick(string[] from) => from[random.Next(from.Length)];

    /// <summary>A sentence: slots filled, a or an, first letter upper case.</summary>
    internal string Fill(string template, bool positive)
    {
        var text = new StringBuilder();
        for (int i = 0; i < template.Length;)
        {
            if (template[i] != '{') { text.Append(template[i++]); continue; }
            int end = template.IndexOf('}', i);
            string slot = template[(i + 1)..end];
            i = end + 1;
            slot = slot[^1] switch
            {
                '=' => slot[..^1] + (positive ? '+' : '-'),
                '!' => slot[..^1] + (positive ? '-' : '+'),
                _ => slot,
            };
            string word = Word(slot);
            if (
                "aeiou".Contains(word[0])
                && (text.Length == 1 || (text.Length > 2 && text[^3] == ' ' && text[^2] is 'a' or 'A'))
                && text[^1] == ' '
            )
                text.Insert(text.Length - 1, 'n');
            if (text.Length >= 2 && text[^1] == ' ' && text[^2] is '.' or '?')
                word = char.ToUpperInvariant(word[0]) + word[1..];
            text.Append(word);
        }
        text[0] = char.ToUpperInvariant(text[0]);
        return text.ToString();
    }

    private string Word(string slot)
    {
        string[] list = ReviewWords.Lists[slot];
        bool own = random.Next(2) == 0;
        while (true)
        {
            int i = random.Next(list.Length);
            if (!ReviewWords.Allowed(i, split) || (split != ReviewWords.All && own != ReviewWords.IsOwn(i))) continue;
            if (_used.Add(list[i])) return list[i];
            own = random.Next(2) == 0;
        }
    }
}
