using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Tokenizers;
using Headroom.Models;
using Headroom.Reports;
using Headroom.Training;

namespace Headroom.Cli;

/// <summary>headroom eval: a base, or a base with an adapter, on the test or validation rows of a recipe.</summary>
internal static class EvalCommand
{
    public static Command Create()
    {
        var recipe = new Argument<string>("recipe") { Description = "A YAML recipe with one model. Example: headroom eval recipes/reviews.yaml --adapter runs/reviews/best" };
        var adapter = new Option<string?>("--adapter") { Description = "Folder of an adapter (PEFT form); absent: the base alone." };
        var split = new Option<string>("--split") { Description = "test or validation", DefaultValueFactory = _ => "test" };
        split.AcceptOnlyFromAmong("test", "validation");
        var set = new Option<string[]>("--set") { Description = "Override a key of the recipe. Repeatable.", DefaultValueFactory = _ => [] };
        var device = new Option<string?>("--device") { Description = "auto, cpu or cuda." };
        var json = new Option<bool>("--json") { Description = "Print the result as JSON; progress goes to standard error." };
        var command = new Command("eval", "Score label words: accuracy, precision, recall, F1 with 95 % intervals, of every class.") { recipe, adapter, split, set, device, json };
        command.SetAction(p => Run(p.GetValue(recipe)!, p.GetValue(adapter), p.GetValue(split)!, p.GetValue(set)!, p.GetValue(device), p.GetValue(json)));
        return command;
    }

    private static int Run(string path, string? adapterFolder, string split, string[] sets, string? deviceName, bool json)
    {
        var (recipe, _) = Recipes.Load(path, sets, deviceName, null, null);
        if (recipe.Models.Count != 1) throw new HeadroomException($"eval takes one model, the recipe names {recipe.Models.Count}.", "Give a recipe with one model.");
        using var session = new Session(json);
        Recipes.Fetch(recipe, session);
        var model = recipe.Models[0];
        var data = DataSplits.Load(recipe.Data, recipe.Task, recipe.Training.Seed);
        var rows = split == "test" ? data.Test : data.Validation;
        if (rows.Count == 0) throw new HeadroomException($"The recipe has no {split} rows.", $"Set data.{split}.");
        var adapter = adapterFolder == null ? null : PeftAdapter.Load(adapterFolder, Console.Error.WriteLine);
        var run = adapterFolder == null ? null : RunFolder.Of(adapterFolder);
        if (run is { } held && !sets.Any(s => s.TrimStart().StartsWith("quantization.", StringComparison.Ordinal)))
        {
            var cache = recipe.Quantization.Cache;
            recipe.Quantization = held.Manifest.Quantization; // the values it was trained on, whatever the recipe says
            recipe.Quantization.Cache = cache;
        }
        using var original = AdapterBase.Open(model.Path, recipe.Quantization, adapter, session.Say);
        var source = AdapterBase.Of(original, adapter);
        adapter?.CheckBase(source, Console.Error.WriteLine);
        if (run is { } of) of.Folder.CheckConfiguration(of.Manifest, original.Config);
        var tokenizer = TokenizerLoader.Load(model.Tokenizer ?? model.Path);
        var encoder = new TaskEncoder(tokenizer, recipe.Task);
        var encoded = new EncodedRows(rows, encoder, false);
        int longest = encoded.EncodeAll(), batch = Math.Min(recipe.Training.PerDeviceEvalBatchSize, rows.Count), tokens = PreparedRun.BatchTokens(batch, longest, "training.per_device_eval_batch_size, or task.max_seq_length");
        var device = session.Open(recipe.Device);
        var settings = RunSettings.Of(recipe, source, device) with
        {
            Mode = TrainMode.None,
            Lora = adapter == null ? null : Checkpoints.SettingsOf(adapter),
        };
        source.Config.CheckLength(longest);
        foreach (string note in source.Notices.Concat(tokenizer.Notices).Concat(Evaluator.Notes(rows, encoder, longest, source.Config))) session.Say("note: " + note);
        using var engine = new Engine(device, source, settings, new BatchLimits(EvalTokens: tokens, EvalSequences: batch, Candidates: encoder.Candidates.Length));
        if (adapter != null) Checkpoints.LoadAdapter(adapter, engine);
        Predictions p;
        try
        {
            p = Evaluator.Run(engine, encoded, encoder, batch, tokens, (d, n) =>
            {
                if (session.Token.IsCancellationRequested) throw new StoppedException("Run it again; nothing was written.");
                session.Progress(split, d, n, "");
            });
        }
        catch (NotFiniteException e) when (json)
        {
            Console.WriteLine(JsonSerializer.Serialize(new { rows = rows.Count, split, error = e.Message, to_do = e.ToDo }));
            throw;
        }
        var m = p.Confusion;
        var figures = Statistics.Intervals(m, (ulong)(uint)recipe.Training.Seed);
        var tiers = Predictions.ByTier(p.Tiers, p.Gold, p.Predicted, m.Classes, m.Labels);
        string title = $"{TrainRun.ModelName(model)}{(adapter == null ? "" : " with " + adapterFolder)} on {rows.Count} {split} rows";
        foreach (string line in Lines(title, m, figures, tiers)) session.Say(Printable.Line(line));
        if (json) Console.WriteLine(Json(p, figures, tiers).ToJsonString());
        return 0;
    }

    private const int MostLines = 20; // of classes and of tiers on a console; --json has all

    private static IEnumerable<string> Lines(string title, ConfusionMatrix m, ConfusionIntervals i, IReadOnlyList<(string Tier, ConfusionMatrix Confusion)> tiers)
    {
        string average = m.IsBinary ? "" : "macro ";
        yield return $"{title}: {Show("accuracy", i.Accuracy)}, {Show(average + "precision", i.Main.Precision)}, {Show(average + "recall", i.Main.Recall)}, {Show(m.F1Name, i.Main.F1)}";
        if (!m.IsBinary)
        {
            yield return "  " + Show("weighted F1", i.Weighted.F1);
            for (int c = 0; c < Math.Min(m.Classes, MostLines); c++)
                yield return $"  {m.Name(c)}: {Show("precision", i.Classes[c].Precision)}, {Show("recall", i.Classes[c].Recall)}, {Show("F1", i.Classes[c].F1)} on {m.Gold(c)} rows";
            if (m.Classes > MostLines) yield return $"  and {m.Classes - MostLines} more classes (--json has all)";
        }
        foreach (string undefined in m.Undefined()) yield return $"  {undefined}";
        foreach (var (tier, own) in tiers.Take(MostLines))
            yield return $"  {Show($"tier {tier}: accuracy", Statistics.Wilson(own.Correct, own.Rows))}, {own.F1Name} {own.Main.F1.ToString("F4", CultureInfo.InvariantCulture)}";
        if (tiers.Count > MostLines) yield return $"  and {tiers.Count - MostLines} more tiers (--json has all)";
    }

    private static string Show(string name, Interval v) => string.Create(CultureInfo.InvariantCulture, $"{name} {v.Value:F4} [{v.Low:F4}, {v.High:F4}]");

    // What precision, recall and f1 are of is said by classes.average.
    private static JsonObject Json(Predictions p, ConfusionIntervals i, IReadOnlyList<(string Tier, ConfusionMatrix Confusion)> tiers)
    {
        var classes = ClassFigures.Json(p.Confusion, i);
        return new JsonObject
        {
            ["rows"] = p.Gold.Length, ["loss"] = double.IsFinite(p.Loss) ? p.Loss : null,
            ["accuracy"] = i.Accuracy.Value, ["accuracy_low"] = i.Accuracy.Low, ["accuracy_high"] = i.Accuracy.High,
            ["precision"] = p.Precision, ["recall"] = p.Recall, ["f1"] = p.F1, ["f1_low"] = i.Main.F1.Low, ["f1_high"] = i.Main.F1.High,
            ["confusion"] = classes["matrix"]!.DeepClone(), ["classes"] = classes,
            ["tiers"] = new JsonArray([.. tiers.Select(t => (JsonNode?)new JsonObject
            {
                ["tier"] = t.Tier, ["rows"] = t.Confusion.Rows, ["accuracy"] = t.Confusion.Accuracy, ["f1"] = t.Confusion.Main.F1,
            })]),
        };
    }
}
