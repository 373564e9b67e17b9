using System.Collections;
using System.Reflection;
using System.Text.Encodings.Web;
using System.Text.Json;
using Headroom.Core;
using Headroom.Inference.Bases;
using Headroom.Training.Tasks;
using Headroom.Training.Tasks.LabelWords;

namespace Headroom.Training.Recipes;

/// <summary>
/// The keys of a recipe that are not at their default, as paths with canonical values: two runs with the same of
/// <see cref="Identity.Numbers"/> are one recipe.
/// </summary>
internal static class RecipeIdentity
{
    private static readonly JsonSerializerOptions Text = new()
    {
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    /// <summary>
    /// Every key whose value differs from the default, in ordinal order: path (training.learning_rate, models[0].path)
    /// to canonical JSON. Maps, whose order counts, are arrays of pairs. A key that is added later is in none of the
    /// old ones.
    /// </summary>
    public static SortedDictionary<string, string> Values(Recipe recipe)
    {
        var values = new SortedDictionary<string, string>(StringComparer.Ordinal);
        // What the task takes is the default there, whether a recipe names it or not.
        var defaults = new Recipe();
        // Label words were the only task once, and no recipe had to name them.
        string task = recipe.Task.Type == TaskTypes.Auto ? LabelWordsType.TypeName : recipe.Task.Type;
        defaults.Task.Type = recipe.Task.Type == TaskTypes.Auto ? TaskTypes.Auto : LabelWordsType.TypeName;
        defaults.Training.MetricForBestModel = TaskTypes.Find(task)?.BestMetric;
        Collect(recipe, defaults, "", values);
        if (recipe.Training.MetricForBestModel == null)
            values.Remove("training." + RecipeLoader.Key(nameof(TrainingOptions.MetricForBestModel)));
        return values;
    }

    /// <summary>
    /// What a key of <see cref="Values"/> has to do with the numbers; <see cref="Identity.Numbers"/> for one that this
    /// version does not know.
    /// </summary>
    public static Identity RoleOf(string key)
    {
        Type type = typeof(Recipe);
        foreach (string part in key.Split('.'))
        {
            string name = part.Split('[')[0];
            if (type.GetProperties().FirstOrDefault(p => RecipeLoader.Key(p.Name) == name) is not { } property)
                return Identity.Numbers;
            if (property.GetCustomAttribute<IdentityAttribute>() is { } marked) return marked.Role;
            type = property.PropertyType == typeof(List<ModelOptions>) ? typeof(ModelOptions) : property.PropertyType;
        }
        return Identity.Numbers;
    }

    /// <summary>
    /// SHA-256, lower-case hex, over the keys of <see cref="Identity.Numbers"/> that are not at their default:
    /// key=value lines in ordinal order.
    /// </summary>
    public static string Hash(Recipe recipe) =>
        ConfigIdentity.Hash(Values(recipe).Where(v => RoleOf(v.Key) == Identity.Numbers).ToDictionary());

    /// <summary>
    /// The keys of some roles in which two sets of <see cref="Values"/> differ, in ordinal order; "default" stands for
    /// a value that is not written.
    /// </summary>
    public static IEnumerable<(string Key, string Old, string New)> Differences(
        IReadOnlyDictionary<string, string> old, IReadOnlyDictionary<string, string> now, params Identity[] roles) =>
        ValueDifferences.Find(old, now).Where(d => roles.Contains(RoleOf(d.Key)));

    private static void Collect(object options, object defaults, string path, SortedDictionary<string, string> values)
    {
        foreach (var property in options.GetType().GetProperties())
        {
            string key = path + RecipeLoader.Key(property.Name);
            object? value = property.GetValue(options), usual = property.GetValue(defaults);
            if (value is List<ModelOptions> models)
                for (int i = 0; i < models.Count; i++) Collect(models[i], new ModelOptions(), $"{key}[{i}].", values);
            else if (RecipeLoader.IsSection(property.PropertyType)) Collect(value!, usual!, key + ".", values);
            else if (Canonical(value) is var text && text != Canonical(usual)) values[key] = text;
        }
    }

    private static string Canonical(object? value) =>
        value is not IDictionary map
            ? JsonSerializer.Serialize(value, Text)
        : JsonSerializer.Serialize(map.Keys.Cast<object>().Select(k => new[] { k, map[k] }), Text);
}
