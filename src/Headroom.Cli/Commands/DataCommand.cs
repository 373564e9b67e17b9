using System.CommandLine;
using System.Globalization;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using Headroom.Core;
using Headroom.Inference;
using Headroom.Tokenizers;
using Headroom.Training.Data;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks;

namespace Headroom.Cli.Commands;

/// <summary>headroom data: what is in data, how its rows are learned, and the embedded review set as files.</summary>
internal static class DataCommand
{
    private const int MostBad = 5, MostLabels = 20, BarWidth = 40;

    public static Command Create() =>
        new("data", "Look at data before a run, and write the data sets that come with Headroom.")
        {
            Check(), Preview(), ExampleFiles(), ReviewFiles(),
        };

    private static Command ExampleFiles()
    {
        var form = new Argument<string>("form") { Description = string.Join(", ", Orders.Forms.Keys) };
        form.AcceptOnlyFromAmong([.. Orders.Forms.Keys]);
        var output = new Argument<string>("out")
        {
            Description = "Folder to write train.jsonl, validation.jsonl and test.jsonl to. Example: headroom data "
                + "example conversations examples/conversations",
        };
        var seed = CommonOptions.With("--seed", 1, "Seed");
        var overwrite = new Option<bool>("--overwrite") { Description = "Replace the three files of an earlier call." };
        var command = new Command(
            "example", "Write a small data set in one of the forms of rows: orders to a shop, whose answer is JSON.")
        {
            form, output, seed, overwrite,
        };
        command.SetAction(p =>
        {
            string folder = p.GetValue(output)!;
            Orders.Write(p.GetValue(form)!, folder, p.GetValue(seed), p.GetValue(overwrite));
            Console.WriteLine(
                $"{folder}: {Orders.TrainRows} training, {Orders.ValidationRows} validation, "
                    + $"{Orders.TestRows} test rows");
            return 0;
        });
        return command;
    }

    private static Command ReviewFiles()
    {
        var output = new Argument<string>("out")
        {
            Description =
                "Folder to write train.jsonl, validation.jsonl and test.jsonl to. Example: headroom data reviews "
                    + "reviews/ --seed 1",
        };
        var seed = CommonOptions.With("--seed", 1, "Seed");
        var overwrite = new Option<bool>("--overwrite") { Description = "Replace the three files of an earlier call." };
        var json = new Option<bool>("--json") { Description = "Print the result as JSON." };
        var reviews = new Command(
            "reviews", "Write the embedded review set: three tiers, splits that share no sentence template.")
        {
            output, seed, overwrite, json,
        };
        reviews.SetAction(p =>
        {
            string folder = p.GetValue(output)!;
            Reviews.Write(folder, p.GetValue(seed), p.GetValue(overwrite));
            if (p.GetValue(json))
                Console.WriteLine(
                    JsonSerializer.Serialize(
                        new
                        {
                            folder,
                            train = Reviews.TrainRows,
                            validation = Reviews.ValidationRows,
                            test = Reviews.TestRows,
                        }
                    )
                );
            else
                Console.WriteLine(
                    $"{folder}: {Reviews.TrainRows} training, {Reviews.ValidationRows} validation, {Reviews.TestRows} "
                        + $"test rows"
                );
            return 0;
        });
        return reviews;
    }

    private static Command Check()
    {
        var (data, tokenizer, set, json) = Options("check");
        var command = new Command(
            "check",
            "Read every row of a recipe's data or of a data file: forms, counts, lengths, labels, duplicates, and what "
                + "is odd. Ends with exit code 2 when a row cannot be read or splits share rows.")
        {
            data, tokenizer, set, json,
        };
        command.SetAction(p =>
        {
            bool asJson = p.GetValue(json);
            using var session = new Session(asJson);
            var (recipe, model) = Open(p.GetValue(data)!, p.GetValue(tokenizer), p.GetValue(set)!, session);
            var type = TaskTypes.Get(recipe.Task);
            var found = DataSummary.Make(recipe, model == null ? null : () => type.Make(recipe, model));
            if (asJson) Console.WriteLine(JsonSerializer.Serialize(found, Json));
            else foreach (string line in Lines(recipe, found, model != null)) session.Say(line);
            bool leaks = recipe.Data.OnDuplicate == DuplicateTexts.Error && found.Shared.Values.Any(n => n > 0);
            bool bad = recipe.Data.OnBadRow == BadRows.Error && found.Splits.Any(s => s.Bad.Count > 0);
            return leaks || bad || found.Splits.Any(s => s.Rows == 0) ? 2 : 0;
        });
        return command;
    }

    private static Command Preview()
    {
        var (data, tokenizer, set, _) = Options("preview");
        var rows = CommonOptions.With("--rows", 3, "Rows to show");
        var command = new Command(
            "preview",
            "Show the first rows as they are trained: what is learned is in colour on a terminal, in brackets "
                + "elsewhere."
        )
        {
            data, tokenizer, set, rows,
        };
        command.SetAction(p =>
        {
            using var session = new Session(false);
            var (recipe, model) = Open(p.GetValue(data)!, p.GetValue(tokenizer), p.GetValue(set)!, session);
            if (model == null)
                throw new HeadroomException(
                    "There is no tokenizer to render the rows with.",
                    "Give --tokenizer with a model's folder, file or hub name, or a recipe with a model.");
            Show(recipe, model, Math.Max(1, p.GetValue(rows)), session);
            return 0;
        });
        return command;
    }

    private static readonly JsonSerializerOptions Json = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    private static (Argument<string> Data, Option<string?> Tokenizer, Option<string[]> Set, Option<bool> Json) Options(
        string name) =>
        (
            new("data")
            {
                Description =
                    $"A YAML recipe, a data file or folder, or a data set's hub name. Example: headroom data {name} "
                        + "recipes/chat.yaml",
            },
            CommonOptions.Make<string?>(
                "--tokenizer", "Folder, file or hub name of a tokenizer; absent: that of the recipe's model."),
            new("--set")
            {
                Description = "Override a key of the recipe. Repeatable.",
                DefaultValueFactory = _ => [],
            },
            CommonOptions.Json());

    private static (Recipe Recipe, ITokenizer? Tokenizer) Open(
        string data, string? tokenizer, string[] sets, Session session)
    {
        bool isRecipe = Path.GetExtension(data).ToLowerInvariant() is ".yaml" or ".yml";
        var recipe = isRecipe ? Recipes.Load(data, sets, null, null, null).Recipe : OfFile(data, sets);
        var models = recipe.Models;
        if (tokenizer != null) recipe.Models = [new ModelOptions { Path = tokenizer, Tokenizer = tokenizer }];
        using var headers = new Outlines();
        Recipes.Fetch(recipe, session, headers.Folder);
        if (recipe.Models.Count == 0) return (recipe, null);
        if (models.Count > 1 && tokenizer == null)
            session.Say($"note: the recipe names {models.Count} models; rows are shown as the first one has them");
        var source = new ModelSource(recipe.Models[0].Path) { TokenizerPath = recipe.Models[0].Tokenizer };
        return (recipe, source.Tokenizer);
    }

    private static Recipe OfFile(string data, string[] sets)
    {
        var recipe = RecipeLoader.Parse("", [$"data.train={JsonSerializer.Serialize(data, Json)}", .. sets], "--set");
        RecipeWriter.Resolve(recipe, Directory.GetCurrentDirectory());
        return recipe;
    }

    /// <summary>A folder for the headers of models of the hub, whose weights are not needed; gone at the end.</summary>
    private sealed class Outlines : IDisposable
    {
        public string Folder { get; } = Directory.CreateTempSubdirectory("headroom-outline").FullName;
        public void Dispose() => Directory.Delete(Folder, true);
    }

    private static IEnumerable<string> Lines(Recipe recipe, DataSummary found, bool tokens)
    {
        yield return $"task: {found.Task}";
        foreach (var s in found.Splits)
        {
            yield return $"{s.Split}: {Count(s.Rows)} rows"
                + (s.Bad.Count > 0 ? $", {Count(s.Bad.Count)} that cannot be read" : "");
            foreach (string bad in s.Bad.Take(MostBad)) yield return "  " + Printable.Line(bad);
            if (s.Bad.Count > MostBad) yield return $"  and {Count(s.Bad.Count - MostBad)} more";
            if (s.Roles.Count > 0)
                yield return "  messages: " + string.Join(", ", s.Roles.Select(r => $"{r.Key} {Count(r.Value)}"));
            if (s.Labels.Count > 0) yield return "  labels: " + Labels(s.Labels);
            if (s.Tokens > 0)
                yield return string.Create(
                    CultureInfo.InvariantCulture,
                    $"  tokens: {s.Tokens:N0}, learned of them {s.Learned:N0} ({s.Learned / (double)s.Tokens:P1})");
            if (s.Lengths is { } lengths)
                foreach (string line in Histogram(lengths, tokens ? "tokens" : "characters"))
                    yield return "  " + line;
            if (s.EmptyTurns > 0) yield return $"  {Count(s.EmptyTurns)} rows have a message without words";
            if (s.ShortAnswers > 0)
                yield return $"  {Count(s.ShortAnswers)} rows have an answer of fewer than {DataSummary.ShortAnswer} "
                    + "characters";
            if (s.Repeated > 0) yield return $"  {Count(s.Repeated)} rows say what an earlier row says";
            foreach (string note in s.Notes) yield return "  note: " + note;
        }
        foreach (var (splits, rows) in found.Shared)
            yield return rows == 0 ? $"{splits} share no row"
                : $"{splits} share {Count(rows)} rows"
                    + (recipe.Data.OnDuplicate == DuplicateTexts.Error ? ", which a run refuses" : "");
        if (!tokens) yield return "lengths are in characters: no model was named (--tokenizer)";
    }

    private static string Labels(IReadOnlyDictionary<string, int> labels)
    {
        var shown = labels.OrderByDescending(l => l.Value).Take(MostLabels)
            .Select(l => $"{HeadroomException.Value(l.Key, 40)} {Count(l.Value)}");
        return string.Join(", ", shown) + (labels.Count > MostLabels ? $" and {labels.Count - MostLabels} more" : "");
    }

    private static IEnumerable<string> Histogram(Spread s, string unit)
    {
        yield return string.Create(
            CultureInfo.InvariantCulture,
            $"length: {s.Least:N0} to {s.Most:N0} {unit}, median {s.Median:N0}, mean {s.Mean:N1}");
        if (s.Bins.Length < 2) yield break;
        int most = s.Bins.Max(), width = s.Most.ToString("N0", CultureInfo.InvariantCulture).Length;
        for (int i = 0; i < s.Bins.Length; i++)
        {
            // The first value that falls into the part.
            long from = s.Least + ((long)i * (s.Most - s.Least + 1) + s.Bins.Length - 1) / s.Bins.Length;
            int bar = s.Bins[i] == 0 ? 0 : Math.Max(1, (int)((long)s.Bins[i] * BarWidth / most));
            yield return $"  {from.ToString("N0", CultureInfo.InvariantCulture).PadLeft(width)} "
                + $"{new string('#', bar)} {Count(s.Bins[i])}";
        }
    }

    private static void Show(Recipe recipe, ITokenizer tokenizer, int rows, Session session)
    {
        var task = TaskTypes.Get(recipe.Task).Make(recipe, tokenizer);
        bool colour = !Console.IsOutputRedirected && Environment.GetEnvironmentVariable("NO_COLOR") is null or "";
        var (_, source) = DataSplits.Sources(recipe.Data).First();
        var read = DataSplits.Read(
            source, recipe.Data, recipe.Task, recipe.Data.OnBadRow == BadRows.Skip ? _ => { }
        : null);
        TaskTypes.Get(recipe.Task).CheckRows(read, "train", recipe.Task);
        int shown = 0;
        foreach (var row in read.Take(rows))
        {
            shown++;
            var encoded = task.Encode(row, training: true);
            if (encoded.Count == 0) session.Say($"row {shown} is left out: it is too long");
            for (int i = 0; i < encoded.Count; i++)
            {
                long learned = encoded[i].Spans.Sum(s => (long)(s.End - Math.Max(1, s.Start)));
                session.Say($"row {shown}{(encoded.Count > 1 ? $", window {i + 1} of {encoded.Count}" : "")}: "
                    + $"{encoded[i].Ids.Length} tokens, {learned} learned");
                int split = encoded[i].Split;
                if (split > 0) session.Say(Rendered(encoded[i], 0, split, tokenizer, colour) + "\nor:");
                session.Say(Rendered(encoded[i], split, encoded[i].Ids.Length, tokenizer, colour));
            }
        }
    }

    // What is learned between brackets. A tokenizer may decode a piece by itself without its blank, so pieces are what
    // they add to the text before them.
    private static string Rendered(EncodedRow row, int first, int end, ITokenizer tokenizer, bool colour)
    {
        var (on, off) = colour ? (TerminalText.Green, TerminalText.Plain) : ("[", "]");
        var text = new StringBuilder();
        int at = first;
        foreach (var span in row.Spans.Where(s => s.Start >= first && s.End <= end))
        {
            int start = Math.Max(first + 1, span.Start);
            text.Append(Piece(at, start)).Append(on).Append(Piece(start, span.End)).Append(off);
            at = span.End;
        }
        return text.Append(Piece(at, end)).ToString();

        string Piece(int from, int to)
        {
            if (from >= to) return "";
            string before = tokenizer.Decode(row.Ids.AsSpan(first, from - first)),
                with = tokenizer.Decode(row.Ids.AsSpan(first, to - first));
            return Printable.Lines(
                with.StartsWith(before, StringComparison.Ordinal) ? with[before.Length..]
                    : tokenizer.Decode(row.Ids.AsSpan(from, to - from)));
        }
    }

    private static string Count(long n) => n.ToString("N0", CultureInfo.InvariantCulture);
}
