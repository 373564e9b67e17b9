using System.Security.Cryptography;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Inference.Bases;
using Headroom.Training.Events;
using Headroom.Training.Recipes;

namespace Headroom.Training.Runs;

/// <summary>
/// The folder of a run: <c>manifest.json</c> (what was trained on what), <c>recipe.yaml</c> (the recipe as it was
/// understood) and <c>recipe.original.yaml</c> (the text that was given), <c>events.jsonl</c> (and
/// <c>events-cut.jsonl</c>: what a resume took out of it), <c>checkpoints/</c>, <c>best/</c>, and while a process works
/// in it its lock. Nobody else puts these paths together. A duel's folder is one too, of which only recipe, log and
/// lock are used.
/// </summary>
/// <param name="path">The folder; need not be there.</param>
internal sealed partial class RunFolder(string path)
{
    private const string EventsName = "events.jsonl",
        BestName = "best",
        CheckpointsName = "checkpoints";

    /// <summary>The folder.</summary>
    public string Path { get; } = path;
    /// <summary>What was trained on what.</summary>
    public string Manifest => At(RunManifest.FileName);
    /// <summary>The recipe as it was understood: running or resuming it is the same run.</summary>
    public string Recipe => At("recipe.yaml");
    /// <summary>The recipe's text as it was given.</summary>
    public string OriginalRecipe => At("recipe.original.yaml");
    /// <summary>The log.</summary>
    public string Events => At(EventsName);
    /// <summary>What resumes took out of the log: events of steps that were made again.</summary>
    public string CutEvents => At("events-cut.jsonl");
    /// <summary>The checkpoints.</summary>
    public string Checkpoints => At(CheckpointsName);
    /// <summary>The adapter of the best evaluation, or at the end of a run without one the last.</summary>
    public string Best => At(BestName);
    /// <summary>The report.</summary>
    public string Report => At("report.html");

    private string At(string name) => System.IO.Path.Combine(Path, name);

    /// <summary>
    /// True when there is nothing in the folder (but what a lock, or a kill in the middle of the first file, leaves
    /// there), or no folder.
    /// </summary>
    public bool IsEmpty => !Directory.Exists(Path)
        || Directory
            .EnumerateFileSystemEntries(Path)
            .Select(e => System.IO.Path.GetFileName(e))
            .All(n => FolderLock.IsOwn(n) || Temporary.IsName(n));

    /// <summary>True when a run was begun here.</summary>
    public bool HasRun => File.Exists(Events) || File.Exists(Recipe);

    /// <summary>Who trains in the folder now, in words; null when nobody does.</summary>
    public string? Holder => FolderLock.HolderOf(Path);

    /// <summary>
    /// Lets this process alone change the folder, which is made when it is missing. To be taken before anything in it
    /// is read.
    /// </summary>
    /// <param name="say">Is told where the file system knows no locks.</param>
    /// <exception cref="HeadroomException">Another process trains in it, which is named; or it cannot be
    /// written.</exception>
    public FolderLock Lock(Action<string>? say = null) =>
        FolderLock.Take(Path, "The run folder", "Wait until that has ended, or stop it; or give another --name.", say);

    /// <summary>The manifest; null when there is none.</summary>
    /// <exception cref="HeadroomException">It is damaged.</exception>
    public RunManifest? ReadManifest() => RunManifest.Read(Manifest);

    /// <summary>
    /// Writes the recipe as it was understood, the text it was given as (when there is one), and the manifest.
    /// </summary>
    /// <exception cref="HeadroomException">The folder cannot be written.</exception>
    public void Write(RunManifest manifest, Recipe recipe, string? given)
    {
        WriteRecipe(recipe, given);
        manifest.Write(Manifest);
    }

    /// <summary>
    /// Writes the recipe, of a duel too. What was given first stays: a resume with other spacing or comments gives
    /// nothing new.
    /// </summary>
    public void WriteRecipe(Recipe recipe, string? given)
    {
        OutputFolder.Create(Path, "Give another folder with --runs.");
        // first: with it the folder is a run's, which a kill leaves to be resumed
        AtomicFile.WriteText(Recipe, RecipeWriter.Write(recipe));
        if (!string.IsNullOrEmpty(given) && !File.Exists(OriginalRecipe)) AtomicFile.WriteText(OriginalRecipe, given);
    }

    /// <summary>
    /// The recipe of the duel that begins the log, as <see cref="RecipeIdentity.Values"/>; null when it holds none.
    /// </summary>
    internal IReadOnlyDictionary<string, string>? DuelValues() => !File.Exists(Events) ? null
        : (EventLog.Read(Events).FirstOrDefault() as DuelStartEvent)?.RecipeValues;

    /// <summary>Hashes of the files of an adapter's folder, by their path in it.</summary>
    internal static SortedDictionary<string, string> FilesOf(string folder)
    {
        var files = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach (string file in Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories))
        {
            using var content = File.OpenRead(file);
            files[System.IO.Path.GetRelativePath(folder, file).Replace('\\', '/')] = Convert.ToHexStringLower(
                SHA256.HashData(content));
        }
        return files;
    }
}
