using System.Globalization;
using Headroom.Core;
using Headroom.Formats.Hub;
using Headroom.Training;

namespace Headroom.Cli;

/// <summary>Recipes as commands take them: loaded, overridden, and with paths relative to the recipe's folder made whole.</summary>
internal static class Recipes
{
    public static (Recipe Recipe, string Text) Load(string path, string[] sets, string? device, string? vram, string? name)
    {
        var recipe = RecipeLoader.Load(path, sets);
        if (device != null) recipe.Device = device;
        if (vram != null) recipe.Vram = vram;
        if (name != null) recipe.Name = name;
        RecipeLoader.Check(recipe);
        string text = RecipeLoader.ReadText(path);
        if (sets.Length > 0) text = text.TrimEnd() + "\n# overrides:\n" + string.Concat(sets.Select(s => "#   --set " + s + "\n"));
        Resolve(recipe, Path.GetDirectoryName(Path.GetFullPath(path))!);
        return (recipe, text);
    }

    /// <summary>Puts local paths in the place of hub names; what is not in the cache is downloaded. A local path that exists wins (see <see cref="Resolve"/>).</summary>
    /// <param name="recipe">Is changed.</param>
    /// <param name="session">Has the hub.</param>
    /// <param name="outlines">A folder for the headers of models that are to be planned only: their weights are not downloaded. Null = whole models.</param>
    public static void Fetch(Recipe recipe, Session session, string? outlines = null)
    {
        foreach (var m in recipe.Models)
        {
            if (outlines != null && m.Tokenizer == null && HubName.IsMeant(m.Path)) m.Tokenizer = m.Path;
            if (m.Tokenizer != null && HubName.IsMeant(m.Tokenizer)) m.Tokenizer = session.Hub.Tokenizer(m.Tokenizer, session.Token);
            if (!HubName.IsMeant(m.Path)) continue;
            var name = HubName.Parse(HubKind.Model, m.Path);
            m.HubId = name.ToString();
            m.Name ??= name.ShortName;
            m.Path = outlines == null ? session.Hub.Model(m.Path, session.Token) : session.Hub.Outline(m.Path, Path.Combine(outlines, recipe.Models.IndexOf(m).ToString(CultureInfo.InvariantCulture)), session.Token);
        }
        string? Split(string? source, params string[] splits) => source != null && HubName.IsMeant(source) ? session.Hub.Split(source, splits, true, session.Token) : source;
        recipe.Data.Train = Split(recipe.Data.Train, "train")!;
        recipe.Data.Validation = Split(recipe.Data.Validation, "validation", "valid", "val", "dev");
        recipe.Data.Test = Split(recipe.Data.Test, "test");
    }

    /// <summary>Makes the paths of a recipe absolute; hub names stay.</summary>
    public static void Resolve(Recipe recipe, string folder)
    {
        string? Whole(string? p) => string.IsNullOrEmpty(p) || p.StartsWith(Reviews.Name, StringComparison.Ordinal) || HubName.IsMeant(p, folder) ? p : Path.GetFullPath(Path.Combine(folder, p));
        foreach (var m in recipe.Models)
        {
            m.Path = Whole(m.Path)!;
            m.Tokenizer = Whole(m.Tokenizer);
        }
        recipe.Data.Train = Whole(recipe.Data.Train) ?? "";
        recipe.Data.Validation = Whole(recipe.Data.Validation);
        recipe.Data.Test = Whole(recipe.Data.Test);
    }
}
