using Headroom.Core;
using Headroom.Formats;
using Headroom.Training.Recipes;

namespace Headroom.Training.Runs;

/// <summary>
/// Runs of one recipe under other names: what is looked for where there is none to resume, because the folder was
/// renamed or another --name was given.
/// </summary>
internal static class RunsBeside
{
    private const int Most = 3; // that are named

    /// <summary>A refusal that says which flag resumes.</summary>
    /// <param name="what">A run, or a duel.</param>
    /// <param name="folder">Where there is none.</param>
    /// <param name="same">Whether a folder holds one of the same recipe.</param>
    public static HeadroomException None(string what, string folder, Func<string, bool> same)
    {
        var found = Folders(folder)
            .Where(same)
            .OrderByDescending(Directory.GetLastWriteTimeUtc)
            .Select(f => Path.GetFileName(f)!)
            .ToList();
        return new HeadroomException($"There is no {what} in {folder} to resume.", found.Count switch
        {
            0 => "Start it without --resume.",
            1 =>
                $"The {what} of this recipe is in {Beside(folder, found[0])}: go on with --name "
                    + $"{Quoted(found[0])} --resume.",
            _ =>
                $"This recipe's are in "
                    + $"{string.Join(", ", found.Take(Most).Select(f => Beside(folder, f)))}{(found.Count > Most ? " and others" : "")}: "
            + $"go on with --name {Quoted(found[0])} --resume, or another's name.",
        });
    }

    /// <summary>
    /// A check for <see cref="None"/>: the folder's manifest is of the same recipe, as far as its keys tell.
    /// </summary>
    public static Func<string, bool> OfRecipe(Recipe recipe)
    {
        var values = RecipeIdentity.Values(recipe);
        return folder =>
            Read(() => new RunFolder(folder).ReadManifest()) is { } manifest && IsSame(manifest.Recipe, values);
    }

    /// <summary>A check for <see cref="None"/>: the folder's log begins with a duel of the same recipe.</summary>
    public static Func<string, bool> OfDuel(Recipe recipe)
    {
        var values = RecipeIdentity.Values(recipe);
        return folder => Read(() => new RunFolder(folder).DuelValues()) is { } of && IsSame(of, values);
    }

    private static bool IsSame(IReadOnlyDictionary<string, string> old, IReadOnlyDictionary<string, string> now) =>
        !RecipeIdentity.Differences(old, now, Identity.Numbers, Identity.Rows, Identity.MayRise).Any();

    private static string[] Folders(string folder) =>
        Read(() => Directory.GetDirectories(Path.GetDirectoryName(Path.GetFullPath(folder))!)) ?? [];

    private static string Beside(string folder, string name) => Path.Combine(Path.GetDirectoryName(folder) ?? "", name);

    private static string Quoted(string name) =>
        name.All(c => char.IsLetterOrDigit(c) || c is '-' or '_' or '.') ? name : $"\"{name}\"";

    /// <summary>Null for what cannot be read or is no such file: it is no run.</summary>
    private static T? Read<T>(Func<T?> read) where T : class
    {
        try
        {
            return read();
        }
        catch (Exception e)
            when (Malformed.Is(e) || e is IOException or UnauthorizedAccessException or HeadroomException)
        {
            return null;
        }
    }
}
