using System.Globalization;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Peft;
using Headroom.Inference.Bases;
using Headroom.Training.Events;
using Headroom.Training.Recipes;

namespace Headroom.Training.Runs;

/// <summary>Where a run begins or goes on.</summary>
/// <param name="Checkpoint">The newest checkpoint, whole; null = the run begins.</param>
/// <param name="Before">The manifest of what is gone on with, or null.</param>
/// <param name="Log">What the log says.</param>
/// <param name="IsFinished">The run reached its end; whether it is to go on depends on whether it was made
/// longer.</param>
internal sealed record RunStart(string? Checkpoint, RunManifest? Before, RunLog Log, bool IsFinished);

internal sealed partial class RunFolder
{
    /// <summary>Where a new run begins: in an empty folder.</summary>
    /// <exception cref="HeadroomException">There is something in it.</exception>
    internal RunStart Begin() => IsEmpty ? new(null, null, new RunLog(), false)
            : throw new HeadroomException(
                $"The run folder {Path} exists already.", "Go on with --resume, or give another --name.");

    /// <summary>Where a run goes on. Reads every byte of the checkpoint; changes nothing.</summary>
    /// <param name="recipe">Of the resume.</param>
    /// <exception cref="HeadroomException">There is no run, its recipe is another, or what it needs to go on is missing
    /// or damaged.</exception>
    internal RunStart Resume(Recipe recipe)
    {
        if (!HasRun) throw RunsBeside.None("run", Path, RunsBeside.OfRecipe(recipe));
        var before = ReadManifest();
        var log = RunLog.Read(Events);
        if (log.IsDuel)
            throw new HeadroomException(
                $"{Path} holds a duel, or runs of several seeds, not one run.",
                "Go on with headroom duel --resume, or with the same seeds in the recipe.");
        if (before != null) RunChecks.SameRecipe(this, before.Recipe, recipe);
        // A kill while a run is made longer may leave the end that it had before.
        bool finished = before != null && log.End is { } end
            && (end.StoppedEarly == true || end.Steps >= before.TotalSteps);
        if (finished && !RunChecks.MayBeLonger(before!, recipe)) return new(null, before, log, true);
        string? checkpoint = Newest();
        if (checkpoint == null) CheckNothingIsLost(log);
        else Loop.Checkpoints.Verify(checkpoint, RecipeIdentity.Hash(recipe));
        return new(checkpoint, before, log, finished);
    }

    private string? Newest() => Loop.Checkpoints.All(Checkpoints) is [.., var last] ? last.Path : null;

    /// <summary>
    /// Without a checkpoint a run can only begin anew. That loses nothing where none was due yet; where one is gone, or
    /// best/ is from a run that nothing is known of, it would train over what is left.
    /// </summary>
    private void CheckNothingIsLost(RunLog log)
    {
        string[] left = !Directory.Exists(Checkpoints)
            ? []
            :
            [
                .. Directory
                    .GetDirectories(Checkpoints, "checkpoint-*")
                    .Select(d => System.IO.Path.GetFileName(d)!)
            .Where(n => !n.EndsWith(".tmp", StringComparison.Ordinal)).Order(StringComparer.Ordinal)];
        bool strangeBest = Directory.Exists(Best) && log.Best.Count == 0;
        if (left.Length == 0 && !log.HadCheckpoint && log.End == null && !strangeBest) return;
        string has =
            left.Length > 0
                ? $"{Checkpoints} holds {string.Join(", ", left)}, but no whole checkpoint"
                : $"{Checkpoints} holds no checkpoint";
        string why =
            log.Steps > 0
                ? string.Create(CultureInfo.InvariantCulture, $"though its log has {log.Steps} steps")
                : "though there is something of a run";
        throw new HeadroomException($"The run in {Path} cannot go on: {has}, {why}.",
            $"Put the checkpoints back from a copy, or start it anew under another --name; nothing was "
                + $"changed{(Directory.Exists(Best) ? $" and {Best} is kept" : "")}."
        );
    }

    /// <summary>
    /// Saves the adapter of <c>best/</c>. Its hashes are in the log before its files change, and these change one by
    /// one (all but the weights stay what they are): a kill leaves the adapter before or this one, and either is known.
    /// </summary>
    internal void SaveBest(int step, Action<string> save, EventLog log)
    {
        string temporary = Temporary.Beside(Best);
        try
        {
            save(temporary);
        }
        catch
        {
            FileLayer.Current.Discard(temporary);
            throw;
        }
        var files = FilesOf(temporary);
        log.Write(new BestEvent(step, files));
        log.Sync();
        MoveFiles(temporary, Best, files.Keys);
    }

    /// <summary>
    /// Makes <c>best/</c> what the log says was saved there; returns a line that says so, or null when it was right.
    /// </summary>
    /// <param name="bestStep">The best step of the state that the run goes on from.</param>
    /// <param name="step">The step of that state. What was saved after it comes again, so it may stay.</param>
    /// <param name="log">What the log says.</param>
    /// <exception cref="HeadroomException">It is missing or damaged, and no checkpoint of that step was
    /// kept.</exception>
    internal string? RestoreBest(int bestStep, int step, RunLog log)
    {
        bool there = Directory.Exists(Best);
        var known = log
            .Best.Concat(RunLog.Read(CutEvents).Best)
            .Where(b => b.Step == bestStep || b.Step > step)
            .ToList();
        if (
            there
            && (known.Count == 0 ? IsAdapter(Best) : FilesOf(Best) is var now && known.Any(k => Same(k.Files, now)))
        )
            return null;
        string kept = Loop.Checkpoints.Folder(Checkpoints, bestStep);
        if (!Directory.Exists(kept) || Loop.Checkpoints.Damage(kept) != null)
            throw new HeadroomException(
                $"{Best} {(there ? "is not what was saved there" : "is missing")}, and no whole checkpoint of step "
                    + $"{bestStep} was kept to restore it from.",
                "Put it back from a copy, or start the run anew under another --name.");
        CopyAdapter(kept, Best);
        return $"{Best} {(there ? "was damaged" : "was missing")}: restored from {System.IO.Path.GetFileName(kept)}";
    }

    private static bool Same(IReadOnlyDictionary<string, string> a, IReadOnlyDictionary<string, string> b) =>
        a.All(f => b.GetValueOrDefault(f.Key) == f.Value); // a user's note beside them does no harm

    private static bool IsAdapter(string folder)
    {
        try
        {
            PeftAdapter.Load(folder);
            return true;
        }
        catch (HeadroomException)
        {
            return false;
        }
    }

    // The moments and the state are no part of an adapter.
    private static void CopyAdapter(string checkpoint, string to)
    {
        string temporary = Temporary.Beside(to);
        string[] names = [.. FilesOf(checkpoint).Keys.Where(n => !Loop.Checkpoints.IsState(n))];
        try
        {
            foreach (string name in names)
            {
                string target = System.IO.Path.Combine(temporary, name);
                FileLayer.Current.MakeFolder(System.IO.Path.GetDirectoryName(target)!);
                AtomicFile.Copy(System.IO.Path.Combine(checkpoint, name), target);
            }
        }
        catch
        {
            FileLayer.Current.Discard(temporary);
            throw;
        }
        MoveFiles(temporary, to, names);
    }

    private static void MoveFiles(string from, string to, IReadOnlyCollection<string> names)
    {
        foreach (string name in names)
        {
            string target = System.IO.Path.Combine(to, name);
            FileLayer.Current.MakeFolder(System.IO.Path.GetDirectoryName(target)!);
            FileLayer.Current.Move(System.IO.Path.Combine(from, name), target);
        }
        // Folders in it too, such as that of what an initialization took out of the base.
        foreach (
            string folder in names
                .Select(n => System.IO.Path.GetDirectoryName(System.IO.Path.Combine(to, n))!)
                .Append(to)
                .Distinct()
        )
            FileLayer.Current.FlushFolder(folder);
        FileLayer.Current.DeleteFolder(from);
    }
}
