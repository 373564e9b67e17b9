using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Training.Data;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks.LabelWords;

namespace Headroom.Training.Tasks;

/// <summary>The task of a recipe that leaves it to its data.</summary>
internal static class TaskChoice
{
    /// <summary>
    /// What a recipe says without a look at its data: keys of label words, or data that is known to be labelled texts,
    /// make it label_words. Of others task.type stays auto.
    /// </summary>
    public static void ByRecipe(Recipe recipe)
    {
        if (recipe.Task.Type != TaskTypes.Auto) return;
        string train = recipe.Data.Train;
        string[] own = [.. TaskTypes.Find(LabelWordsType.TypeName)!.Keys.Except(Shared)];
        if (
            train.Length == 0
            || train.StartsWith(Reviews.Name, StringComparison.Ordinal)
            || IsReviewFolder(train)
            || RecipeIdentity.Values(recipe).Keys.Any(own.Contains)
        )
            recipe.Task.Type = LabelWordsType.TypeName;
    }

    // Keys that other tasks take too.
    private static readonly string[] Shared = ["task.loss", "data.text_field"];

    private static bool IsTable(string path) =>
        path.Contains(".csv", StringComparison.OrdinalIgnoreCase)
        || path.Contains(".tsv", StringComparison.OrdinalIgnoreCase);

    private static bool IsReviewFolder(string path) =>
        Directory.Exists(Path.Combine(path, "train", "pos")) || Directory.Exists(Path.Combine(path, "pos"));

    /// <summary>Sets task.type by the columns of the training rows, and checks the recipe as that task's.</summary>
    /// <param name="recipe">Its data is on this machine. Is changed.</param>
    /// <returns>What the rows are, in words; null where the recipe said so itself.</returns>
    /// <exception cref="HeadroomException">The columns are of no task, or the recipe does not go with its
    /// task.</exception>
    public static string? ByData(Recipe recipe)
    {
        if (recipe.Task.Type != TaskTypes.Auto) return null;
        var data = recipe.Data;
        var columns = DataFiles.ColumnNames(data.Train, new DataRecordOptions { Header = data.Header });
        // A table of two columns may have no header; of it, and of a file without rows, the oldest task has more to
        // say.
        bool bare = columns.Count == 0 || columns.Count == 2 && data.Header != true && IsTable(data.Train);
        var known = TaskTypes.Recognize(columns, data);
        if (known == null && bare)
        {
            recipe.Task.Type = LabelWordsType.TypeName;
            RecipeLoader.Check(recipe);
            return null;
        }
        if (known is not { } found)
            throw new HeadroomException(
                $"{data.Train} has the columns {HeadroomException.List(columns)}, which are the form of no task.",
                "Name them in data.columns, such as {prompt: question, completion: answer}, or in data.text_field and "
                    + "data.label_field; forms: messages; prompt, completion; instruction, output; text, label; text.");
        recipe.Task.Type = found.Type.Name;
        RecipeLoader.Check(recipe);
        return found.Words;
    }
}
