using System.Diagnostics;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Tokenizers;

namespace Headroom.Training;

/// <summary>How a duel ended.</summary>
/// <param name="Completed">False when it was stopped and can be resumed.</param>
/// <param name="Runs">Each run: model, seed, folder and result (null when it was complete before a resume).</param>
public sealed record DuelResult(bool Completed, IReadOnlyList<(string Model, int Seed, string Folder, RunResult? Result)> Runs);

/// <summary>Two or more base models under one recipe: the recipes are equal but for the model (and the seed, when there are several), because there is only one.</summary>
public static class DuelRun
{
    /// <summary>Runs every model with every seed, one after the other; <paramref name="host"/> gives the host of a folder.</summary>
    public static DuelResult Run(Recipe recipe, string recipeText, string folder, bool resume, Func<string, bool, RunHost> host, CancellationToken stop)
    {
        if (recipe.Models.Count < 2) throw new HeadroomException($"A duel takes two or more models, the recipe names {recipe.Models.Count}.", "Add models, or use headroom train.");
        int[] seeds = recipe.Seeds.Count > 0 ? [.. recipe.Seeds] : [recipe.Training.Seed];
        string[] names = [.. recipe.Models.Select(TrainRun.ModelName)];
        if (names.Select(Plain).Distinct().Count() < names.Length) throw new HeadroomException("Two models of the duel have one name.", "Give each model a name of its own (name: beside path:; signs other than letters, digits, point, - and _ do not count).");
        if (seeds.Distinct().Count() < seeds.Length) throw new HeadroomException("A seed stands twice in seeds.", "Give each seed once.");
        if (!resume && Directory.Exists(folder) && Directory.EnumerateFileSystemEntries(folder).Any())
            throw new HeadroomException($"The run folder {folder} exists already.", "Go on with --resume, or give another --name.");
        if (resume && !File.Exists(Path.Combine(folder, "events.jsonl"))) throw RunsBeside.None("duel", folder, RunsBeside.OfDuel(recipeText));
        // What is wrong with the last model is said before the first is trained; the rows that are read and encoded for it serve the runs of the first seed.
        var one = RecipeLoader.Copy(recipe);
        one.Training.Seed = seeds[0];
        var data = DataSplits.Load(one.Data, one.Task, seeds[0]);
        var encoded = new Dictionary<ModelOptions, RunRows>();
        var notes = new List<(string Model, string Text)>();
        foreach (var m in recipe.Models)
        {
            var h = host(folder, false);
            using var prepared = PreparedRun.Of(one, m, h.OpenDevice, h.BudgetBytes, h.Progress, rows: encoded[m] = RunRows.Of(one, m, data));
            prepared.Device.Dispose();
            notes.AddRange(prepared.Notes.Select(n => (TrainRun.ModelName(m), n)));
        }
        foreach (var note in notes.GroupBy(n => n.Text))
            host(folder, false).Say($"note{(note.Count() == names.Length ? "" : " on " + string.Join(", ", note.Select(n => n.Model)))}: {note.Key}");
        static string Plain(string model) => string.Concat(model.Select(c => char.IsLetterOrDigit(c) || c is '.' or '-' or '_' ? c : '_'));
        string Folder(string model, int seed) => seeds.Length == 1 ? Plain(model) : $"{Plain(model)}-seed{seed}";
        OutputFolder.Create(folder, "Give another folder with --runs.");
        var clock = Stopwatch.StartNew();
        using var log = new EventLog(Path.Combine(folder, "events.jsonl"));
        var plan = seeds.SelectMany(s => recipe.Models.Select(m => (Model: m, Name: TrainRun.ModelName(m), Seed: s))).ToArray();
        log.Write("duel_start", new()
        {
            ["name"] = recipe.Name, ["models"] = new JsonArray([.. names.Select(n => (JsonNode)n)]), ["seeds"] = new JsonArray([.. seeds.Select(s => (JsonNode)s)]), ["recipe"] = recipeText,
            ["runs"] = new JsonArray([.. plan.Select(p => (JsonNode)Folder(p.Name, p.Seed))]),
        });
        var runs = new List<(string, int, string, RunResult?)>();
        try
        {
            if (data.Test.Count > 0)
                log.Write("baseline", RunEvents.Baseline(BagOfWords.Name, BagOfWords.Run(data.Train, data.Validation, data.Test, recipe.Task.Labels, recipe.Training.Seed, stop)));
        }
        catch (OperationCanceledException)
        {
            return new DuelResult(false, runs);
        }
        (int Seed, DataSplits Data) split = (seeds[0], data);
        foreach (var (model, name, seed) in plan)
        {
            encoded.Remove(model, out var rows); // one run needs them, and they may be large
            string own = Path.Combine(folder, Folder(name, seed));
            bool started = resume && File.Exists(Path.Combine(own, "events.jsonl"));
            if (started && EventLog.Read(Path.Combine(own, "events.jsonl")).Any(e => (string?)e["event"] == "run_end"))
            {
                runs.Add((name, seed, own, null));
                continue;
            }
            // A run that was stopped before its first checkpoint starts again.
            if (started && Checkpoints.Latest(Path.Combine(own, "checkpoints")) == null)
            {
                Directory.Delete(own, true);
                started = false;
            }
            one = RecipeLoader.Copy(recipe);
            one.Models = [model];
            one.Name = $"{recipe.Name}/{Folder(name, seed)}";
            one.Training.Seed = seed;
            one.Seeds = [];
            if (split.Seed != seed) split = (seed, DataSplits.Load(one.Data, one.Task, seed));
            var result = TrainRun.Run(one, recipeText, model, host(own, started), stop, rows ?? RunRows.Of(one, model, split.Data));
            runs.Add((name, seed, own, result));
            if (!result.Completed) return new DuelResult(false, runs);
        }
        var (_, peak) = ProcessMemory.Read();
        log.Write("duel_end", new() { ["seconds"] = clock.Elapsed.TotalSeconds, ["peak_resident_bytes"] = peak });
        return new DuelResult(true, runs);
    }
}
