using System.Globalization;
using Headroom.Core;
using Headroom.Inference.Bases;
using Headroom.Training.Events;
using Headroom.Training.Recipes;

namespace Headroom.Training.Runs;

/// <summary>
/// Whether a resume is the run it goes on with: what changes numbers must be the same, and what differs is named with
/// both values.
/// </summary>
internal static class RunChecks
{
    /// <summary>Refuses a recipe that differs from that of a run or duel in a key that changes numbers.</summary>
    /// <exception cref="HeadroomException">It does.</exception>
    public static void SameRecipe(RunFolder folder, IReadOnlyDictionary<string, string> before, Recipe recipe)
    {
        var differences = RecipeIdentity.Differences(before, RecipeIdentity.Values(recipe), Identity.Numbers).ToList();
        if (differences.Count > 0)
            throw new HeadroomException(
                $"The recipe is not the one that {folder.Path} was started with: {ValueDifferences.Named(differences)}.",
                $"Resume with that one, which {folder.Recipe} holds, or start a new run under another --name.");
    }

    /// <summary>Whether the keys that set the length of a run are others than at its start.</summary>
    public static bool MayBeLonger(RunManifest before, Recipe recipe) =>
        RecipeIdentity.Differences(before.Recipe, RecipeIdentity.Values(recipe), Identity.MayRise).Any();

    /// <summary>
    /// Refuses rows, a configuration or a precision and storage that are not those of the run, and a shorter run.
    /// </summary>
    /// <exception cref="HeadroomException">One of them differs.</exception>
    public static void SameInputs(RunFolder folder, RunManifest before, RunManifest now)
    {
        foreach (string split in now.Data.Keys.Where(s => before.Data[s] != now.Data[s]))
            throw OtherRows(folder, before, now, split);
        ConfigIdentity.CheckSame(folder.Path, before.Config, now.Config, ToDo("base model"));
        if (ValueDifferences.Find(before.Resolved, now.Resolved).ToList() is { Count: > 0 } resolved)
            throw new HeadroomException(
                $"The run in {folder.Path} was started otherwise: {ValueDifferences.Named(resolved)}.",
                "The numbers would be others: resume with the same device and precision, or start a new run under "
                    + "another --name."
            );
        if (now.TotalSteps < before.TotalSteps)
            throw new HeadroomException(
                $"The run in {folder.Path} has {before.TotalSteps} updates and would now have {now.TotalSteps}: it "
                    + $"may be made longer, not shorter.",
                "Raise training.max_steps or num_train_epochs, or leave them as they were.");
    }

    /// <summary>Refuses other base weights.</summary>
    /// <exception cref="HeadroomException">They are others.</exception>
    public static void SameBase(RunFolder folder, string before, string now)
    {
        if (before != now)
            throw new HeadroomException(
                $"The base model is not the one that {folder.Path} was started with: its weights have SHA-256 "
                    + $"{now[..12]}..., not {before[..Math.Min(12, before.Length)]}....",
                ToDo("base model"));
    }

    /// <summary>
    /// Refuses a checkpoint that belongs to other rows or another configuration than the run's; needed where the
    /// manifest is gone.
    /// </summary>
    /// <exception cref="HeadroomException">One differs.</exception>
    public static void SameHashes(RunFolder folder, IReadOnlyDictionary<string, string>? checkpoint, RunManifest now)
    {
        foreach (var (what, hash) in checkpoint ?? new Dictionary<string, string>())
            if (now.Hashes.GetValueOrDefault(what) != hash)
                throw new HeadroomException(
                    $"The checkpoint in {folder.Path} was made with other "
                        + $"{what switch { "config" => "configuration of the base", "resolved" => "device, precision or storage", _ => what + " rows" }}.",
                    "Resume with what the run was started with, or start a new run under another --name.");
    }

    /// <summary>What differs and may: every other key of the recipe, the device's name, the version.</summary>
    public static IReadOnlyList<ChangedValue> Changes(RunManifest? before, RunManifest now)
    {
        if (before == null) return [];
        var changes = RecipeIdentity
            .Differences(before.Recipe, now.Recipe, Identity.None, Identity.MayRise, Identity.Rows, Identity.Resolved)
            .ToList();
        void Add(string key, string old, string current)
        {
            if (old != current) changes.Add((key, old, current));
        }
        Add("name", before.Name, now.Name);
        Add("device", before.Device, now.Device);
        Add("driver", before.Driver ?? "none", now.Driver ?? "none");
        Add("headroom", before.Headroom, now.Headroom);
        Add("total_steps", Text(before.TotalSteps), Text(now.TotalSteps));
        return [.. changes.DistinctBy(c => c.Key).Select(c => new ChangedValue(c.Key, c.Old, c.New))];
    }

    private static HeadroomException OtherRows(RunFolder folder, RunManifest before, RunManifest now, string split)
    {
        var (old, current) = (before.Data[split], now.Data[split]);
        var keys = RecipeIdentity.Differences(before.Recipe, now.Recipe, Identity.Rows).ToList();
        string how =
            old.Rows != current.Rows
                ? $"there are {current.Rows}, not {old.Rows}"
                : $"{Text(old.Rows)} rows as before, but other texts, labels or order";
        return new(
            $"The {split} rows are not those that {folder.Path} was started with: "
                + $"{how}{(keys.Count > 0 ? $" ({ValueDifferences.Named(keys)})" : "")}.",
            ToDo("data"));
    }

    private static string ToDo(string what) => $"Resume with the same {what}, or start a new run under another --name.";

    private static string Text(int value) => value.ToString(CultureInfo.InvariantCulture);
}
