using Headroom.Core;
using Headroom.Training;

namespace Headroom.Cli;

/// <summary>Recipes as commands take them: loaded, overridden, and with paths relative to the recipe's folder made whole.</summary>
internal static class Recipes
{
    public static (Recipe Recipe, string Text) Load(string path, string[] sets, string? device, string? vram, string? name)
    {
        var recipe = RecipeLoader.Load(path, sets);
        if (device != null) recipe.Device = device is "auto" or "cpu" or "cuda" ? device : throw new HeadroomException($"--device {device} is unknown.", "Use auto, cpu or cuda.");
        if (vram != null) recipe.Vram = vram;
        if (name != null) recipe.Name = name;
        string text = File.ReadAllText(path);
        if (sets.Length > 0) text = text.TrimEnd() + "\n# overrides:\n" + string.Concat(sets.Select(s => "#   --set " + s + "\n"));
        Resolve(recipe, Path.GetDirectoryName(Path.GetFullPath(path))!);
        return (recipe, text);
    }

    /// <summary>Makes the paths of a recipe absolute.</summary>
    public static void Resolve(Recipe recipe, string folder)
    {
        string? Whole(string? p) => string.IsNullOrEmpty(p) || p.StartsWith(Reviews.Name, StringComparison.Ordinal) ? p : Path.GetFullPath(Path.Combine(folder, p));
        foreach (var m in recipe.Models)
        {
            if (m.Path.Length == 0) throw new HeadroomException("A model of the recipe has no path.", "Write path: folder or file.gguf below it.");
            m.Path = Whole(m.Path)!;
            m.Tokenizer = Whole(m.Tokenizer);
        }
        recipe.Data.Train = Whole(recipe.Data.Train) ?? "";
        recipe.Data.Validation = Whole(recipe.Data.Validation);
        recipe.Data.Test = Whole(recipe.Data.Test);
    }
}
