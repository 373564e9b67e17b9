using System.Globalization;
using Headroom.Core;
using Headroom.Formats.Hub;
using Headroom.Training.Adapters;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks;
using Headroom.Training.Tasks.LabelWords;

namespace Headroom.Cli;

/// <summary>
/// Recipes as commands take them: loaded, overridden, and with paths relative to the recipe's folder made whole.
/// </summary>
internal static class Recipes
{
    public static (Recipe Recipe, string Text) Load(
        string path, string[] sets, string? device, string? vram, string? name)
    {
        var recipe = RecipeLoader.Load(path, sets);
        if (device != null) recipe.Device = Choices.Parse<DeviceChoice>("device", device);
        if (vram != null) recipe.Vram = vram;
        if (name != null) recipe.Name = name;
        RecipeLoader.Check(recipe);
        RecipeWriter.Resolve(recipe, Path.GetDirectoryName(Path.GetFullPath(path))!);
        return (recipe, RecipeLoader.ReadText(path));
    }

    /// <summary>
    /// Puts local paths in the place of hub names; what is not in the cache is downloaded. A local path that exists
    /// wins.
    /// </summary>
    /// <param name="recipe">Is changed.</param>
    /// <param name="session">Has the hub.</param>
    /// <param name="outlines">A folder for the headers of models that are to be planned only: their weights are not
    /// downloaded. Null = whole models.</param>
    public static void Fetch(Recipe recipe, Session session, string? outlines = null)
    {
        foreach (var m in recipe.Models)
        {
            if (outlines != null && m.Tokenizer == null && HubName.IsMeant(m.Path)) m.Tokenizer = m.Path;
            if (m.Tokenizer != null && HubName.IsMeant(m.Tokenizer))
                m.Tokenizer = session.Hub.Tokenizer(m.TokenizerHub = m.Tokenizer, session.Token);
            if (!HubName.IsMeant(m.Path)) continue;
            var name = HubName.Parse(HubKind.Model, m.Path);
            m.HubId = name.ToString();
            m.Name ??= name.ShortName;
            m.Path =
                outlines == null
                    ? session.Hub.Model(m.Path, session.Token)
                    : session.Hub.Outline(
                        m.Path, Path.Combine(outlines, recipe.Models.IndexOf(m).ToString(CultureInfo.InvariantCulture)),
                        session.Token);
        }
        var d = recipe.Data;
        (string? train, d.TrainHub) = Split(d.Train, "train");
        d.Train = train!;
        (d.Validation, d.ValidationHub) = Split(d.Validation, "validation", "valid", "val", "dev");
        (d.Test, d.TestHub) = Split(d.Test, "test");
        GivenAdapter.Apply(recipe);
        // Label words were there before tasks were told by columns: their output stays as it was.
        if (TaskChoice.ByData(recipe) is { } words && recipe.Task.Type != LabelWordsType.TypeName)
            session.Say($"data.train holds rows of the task {words}");

        (string? Path, string? Hub) Split(string? given, params string[] splits) =>
            given != null && HubName.IsMeant(given)
                ? (session.Hub.Split(given, splits, true, session.Token), given)
                : (given, null);
    }
}
