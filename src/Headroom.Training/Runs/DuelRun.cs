using System.Diagnostics;
using System.Globalization;
using Headroom.Core;
using Headroom.Training.Data;
using Headroom.Training.Events;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks;

namespace Headroom.Training.Runs;

/// <summary>How a duel ended.</summary>
/// <param name="Completed">False when it was stopped and can be resumed.</param>
/// <param name="Runs">Each run: model, seed, folder and result.</param>
public sealed record DuelResult(
    bool Completed, IReadOnlyList<(string Model, int Seed, string Folder, RunResult? Result)> Runs)
{
    /// <summary>The duel had reached its end before; nothing was done.</summary>
    public bool WasFinished { get; init; }
}

/// <summary>
/// Two or more base models under one recipe: the recipes are equal but for the model (and the seed, when there are
/// several), because there is only one. One model with several seeds is the same with nothing to compare it with.
/// </summary>
public static class DuelRun
{
    // One model with several seeds is no duel, but the same work.
    private static string What(Recipe recipe) => recipe.Models.Count == 1 ? "run of several seeds" : "duel";

    private sealed record Planned(ModelOptions Model, string Name, int Seed, RunFolder Folder);

    /// <summary>Runs every model with every seed, one after the other.</summary>
    /// <param name="recipe">Two or more models, or one and seeds.</param>
    /// <param name="recipeText">Its text as it was given; null or empty where it was built in code.</param>
    /// <param name="folder">Of the duel; each run has a folder in it.</param>
    /// <param name="resume">Go on with the duel in it: runs that are complete are checked, the others go on or
    /// begin.</param>
    /// <param name="host">The host of a folder, resumed or not.</param>
    /// <param name="stop">Ends the run at hand with a checkpoint.</param>
    /// <exception cref="HeadroomException">Something cannot be used, the folder is another's, or a resume is not the
    /// duel it goes on with.</exception>
    public static DuelResult Run(
        Recipe recipe, string? recipeText, string folder, bool resume, Func<string, bool, RunHost> host,
        CancellationToken stop)
    {
        int[] seeds = recipe.Seeds.Count > 0 ? [.. recipe.Seeds] : [recipe.Training.Seed];
        Check(recipe, seeds);
        var own = new RunFolder(folder);
        if (resume && !own.HasRun) throw RunsBeside.None(What(recipe), folder, RunsBeside.OfDuel(recipe));
        using var held = own.Lock(host(folder, resume).Say);
        if (resume) CheckSame(own, recipe);
        else own.Begin();
        // What is wrong with the last model is said before the first is trained; the rows that are read and encoded for
        // it serve the runs of the first seed.
        var data = DataSplits.Load(recipe.Data, recipe.Task, seeds[0]);
        var encoded = Look(recipe, seeds[0], data, host(folder, false));
        var plan = seeds.SelectMany(s => recipe.Models.Select(m => (Model: m, Name: TrainRun.ModelName(m), Seed: s)))
            .Select(p => new Planned(
                p.Model, p.Name, p.Seed,
                new RunFolder(Path.Combine(folder, FolderName(recipe, p.Name, p.Seed)))
            ))
            .ToArray();
        (int Seed, DataSplits Data) split = (seeds[0], data);
        RunResult One(Planned p)
        {
            encoded.Remove(p.Model, out var rows); // one run needs them, and they may be large
            var one = RecipeLoader.Copy(recipe);
            one.Models = [p.Model];
            one.Name = $"{recipe.Name}/{Path.GetFileName(p.Folder.Path)}";
            one.Training.Seed = p.Seed;
            one.Seeds = [];
            if (split.Seed != p.Seed) split = (p.Seed, DataSplits.Load(one.Data, one.Task, p.Seed));
            // A folder that its run never wrote to is begun in, whatever became of the duel.
            return TrainRun.Run(
                one, recipeText, p.Model, host(p.Folder.Path, p.Folder.HasRun),
                rows ?? RunRows.Read(one, p.Model, split.Data), stop);
        }
        if (resume && IsFinished(own, plan, recipe))
            return new DuelResult(true, [.. plan.Select(p => (p.Name, p.Seed, p.Folder.Path, (RunResult?)One(p)))])
            {
                WasFinished = true,
            };
        own.WriteRecipe(recipe, recipeText);
        var clock = Stopwatch.StartNew();
        using var log = new EventLog(own.Events);
        log.Write(Start(recipe, File.ReadAllText(own.Recipe), seeds, plan, host(folder, resume).Command));
        var runs = new List<(string, int, string, RunResult?)>();
        try
        {
            if (data.Test.Count > 0 && TaskTypes.Get(recipe.Task).Baseline(recipe, data, stop) is { } baseline)
                log.Write(new BaselineEvent(baseline.Name).With(baseline.Evaluation, rows: true));
        }
        catch (OperationCanceledException)
        {
            return new DuelResult(false, runs);
        }
        foreach (var p in plan)
        {
            var result = One(p);
            runs.Add((p.Name, p.Seed, p.Folder.Path, result));
            if (!result.Completed) return new DuelResult(false, runs);
        }
        var (_, peak) = ProcessMemory.Read();
        log.Write(new DuelEndEvent(clock.Elapsed.TotalSeconds, peak));
        return new DuelResult(true, runs);
    }

    private static void Check(Recipe recipe, int[] seeds)
    {
        TaskChoice.ByData(recipe);
        if (recipe.Lora.Adapter != null && recipe.Models.Count > 1)
            throw new HeadroomException(
                "lora.adapter is of one base; a duel has several.", "Leave it out, or train each model by itself.");
        if (recipe.Models.Count < (recipe.Seeds.Count > 0 ? 1 : 2))
            throw new HeadroomException(
                $"A duel takes two or more models, the recipe names {recipe.Models.Count}.",
                "Add models, or use headroom train.");
        if (recipe.Models.Select(TrainRun.ModelName).Select(Plain).Distinct().Count() < recipe.Models.Count)
            throw new HeadroomException(
                "Two models of the duel have one name.",
                "Give each model a name of its own (name: beside path:; signs other than letters, digits, point, - "
                    + "and _ do not count)."
            );
        if (seeds.Distinct().Count() < seeds.Length)
            throw new HeadroomException("A seed stands twice in seeds.", "Give each seed once.");
    }

    private static string FolderName(Recipe recipe, string model, int seed) =>
        recipe.Models.Count == 1 ? string.Create(CultureInfo.InvariantCulture, $"seed-{seed}")
        : recipe.Seeds.Count <= 1 ? Plain(model)
        : $"{Plain(model)}-seed{seed}";

    private static string Plain(string model) =>
        string.Concat(model.Select(c => char.IsLetterOrDigit(c) || c is '.' or '-' or '_' ? c : '_'));

    // The runs compare themselves with their own manifests; those that have not begun have none.
    private static void CheckSame(RunFolder folder, Recipe recipe)
    {
        // Killed before its first event: it begins now.
        if (!File.Exists(folder.Manifest) && (!File.Exists(folder.Events) || !EventLog.Read(folder.Events).Any()))
            return;
        if (folder.DuelValues() is not { } before)
            throw new HeadroomException(
                $"{folder.Path} holds no {What(recipe)}, or one of an older version.",
                "Give the --name of one, or go on with a single run by headroom train --resume without seeds.");
        RunChecks.SameRecipe(folder, before, recipe);
    }

    private static Dictionary<ModelOptions, RunRows> Look(Recipe recipe, int seed, DataSplits data, RunHost host)
    {
        var one = RecipeLoader.Copy(recipe);
        one.Training.Seed = seed;
        var encoded = new Dictionary<ModelOptions, RunRows>();
        var notes = new List<(string Model, string Text)>();
        foreach (var m in recipe.Models)
        {
            using var prepared = PreparedRun.Prepare(
                one, m, host.OpenDevice, host.BudgetBytes, host.Progress,
                rows: encoded[m] = RunRows.Read(one, m, data));
            prepared.Device.Dispose();
            notes.AddRange(prepared.Notes.Select(n => (TrainRun.ModelName(m), n)));
        }
        foreach (var note in notes.GroupBy(n => n.Text))
            host.Say(
                $"note{(note.Count() == recipe.Models.Count ? "" : " on " + string.Join(", ", note.Select(n => n.Model)))}: {note.Key}"
            );
        return encoded;
    }

    private static bool IsFinished(RunFolder folder, Planned[] plan, Recipe recipe) =>
        File.Exists(folder.Events) && EventLog.Read(folder.Events).LastOrDefault() is DuelEndEvent
        && plan.All(p =>
            p.Folder.ReadManifest() is { } manifest
            && RunLog.Read(p.Folder.Events).End != null
            && !RunChecks.MayBeLonger(manifest, recipe)
        );

    private static DuelStartEvent Start(
        Recipe recipe, string text, int[] seeds, Planned[] plan, IReadOnlyList<string> command) =>
        new()
        {
            Name = recipe.Name,
            Task = recipe.Task.Type,
            Models = [.. recipe.Models.Select(TrainRun.ModelName)],
            Seeds = seeds,
            Recipe = text,
            RecipeValues = RecipeIdentity.Values(recipe),
            Headroom = Product.Version,
            Command = command,
            Runs = [.. plan.Select(p => Path.GetFileName(p.Folder.Path))],
        };
}
