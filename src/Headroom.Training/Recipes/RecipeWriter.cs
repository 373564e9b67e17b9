using System.Collections;
using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Headroom.Core;
using Headroom.Formats.Hub;
using Headroom.Training.Data;
using Headroom.Training.Tasks;
using Headroom.Training.Tasks.Sequences;

namespace Headroom.Training.Recipes;

/// <summary>
/// <see cref="Recipe"/> to YAML that <see cref="RecipeLoader"/> reads back as the same recipe. Every key is written, at
/// its default or not, so that the text means the same when a default changes; only null is left out where it is the
/// default. Local paths are absolute; what came from the hub has its name there, with the commit it was resolved to.
/// </summary>
internal static partial class RecipeWriter
{
    private const int LongKey = 128; // above it a key is written with "? ", because YAML's simple keys are short

    /// <summary>The text of a recipe, the overrides it was loaded with included.</summary>
    public static string Write(Recipe recipe)
    {
        var portable = Portable(recipe);
        var text = new StringBuilder(
            "# The recipe as it was understood, with every override; headroom train takes it as it is.\n");
        Section(text, portable, new Recipe(), 0);
        return text.ToString();
    }

    /// <summary>Makes the paths of a recipe absolute; hub names, and the name of the embedded reviews, stay.</summary>
    /// <param name="recipe">Is changed.</param>
    /// <param name="folder">What its paths are relative to.</param>
    public static void Resolve(Recipe recipe, string folder)
    {
        string? Whole(string? p) =>
            string.IsNullOrEmpty(p)
            || p.StartsWith(Reviews.Name, StringComparison.Ordinal)
            || HubName.IsMeant(p, folder)
                ? p
            : Path.GetFullPath(Path.Combine(folder, p));
        foreach (var m in recipe.Models)
        {
            m.Path = Whole(m.Path)!;
            m.Tokenizer = Whole(m.Tokenizer);
        }
        // A run's folder holds the template itself, whatever becomes of its file.
        if (recipe.Task.ChatTemplate is { } template)
            recipe.Task.ChatTemplate = ExampleEncoder.TemplateText(template, folder);
        recipe.Lora.Adapter = Whole(recipe.Lora.Adapter);
        recipe.Data.Train = Whole(recipe.Data.Train) ?? "";
        recipe.Data.Validation = Whole(recipe.Data.Validation);
        recipe.Data.Test = Whole(recipe.Data.Test);
    }

    private static Recipe Portable(Recipe recipe)
    {
        var copy = RecipeLoader.Copy(recipe);
        Resolve(copy, Directory.GetCurrentDirectory());
        TaskChoice.ByRecipe(copy);
        copy.Training.MetricForBestModel ??= TaskTypes.Get(copy.Task).BestMetric; // in words, as every default
        foreach (var m in copy.Models)
        {
            m.Path = Pinned(m.HubId, m.Path)!;
            m.Tokenizer = Pinned(m.TokenizerHub, m.Tokenizer);
        }
        copy.Data.Train = Pinned(copy.Data.TrainHub, copy.Data.Train)!;
        copy.Data.Validation = Pinned(copy.Data.ValidationHub, copy.Data.Validation);
        copy.Data.Test = Pinned(copy.Data.TestHub, copy.Data.Test);
        return copy;
    }

    /// <summary>A hub name at the commit whose snapshot a path lies in; the path where there is no hub name.</summary>
    private static string? Pinned(string? hubName, string? path) => hubName == null || path == null ? path
        : Snapshot().Match(path) is { Success: true } at ? $"{hubName.Split('@')[0]}@{at.Groups[1].Value}" : hubName;

    private static void Section(StringBuilder text, object options, object defaults, int indent)
    {
        foreach (var property in options.GetType().GetProperties())
        {
            object? value = property.GetValue(options), usual = property.GetValue(defaults);
            if (value == null && usual == null) continue;
            text.Append(' ', indent).Append(RecipeLoader.Key(property.Name)).Append(':');
            if (value is List<ModelOptions> models) Models(text, models);
            else if (RecipeLoader.IsSection(property.PropertyType))
            {
                text.Append('\n');
                Section(text, value!, usual!, indent + 2);
            }
            else if (value is IDictionary { Count: > 0 } map) Map(text, map, indent + 2);
            else text.Append(' ').Append(Value(value)).Append('\n');
        }
    }

    private static void Models(StringBuilder text, List<ModelOptions> models)
    {
        text.Append(models.Count == 0 ? " []\n" : "\n");
        foreach (var m in models)
        {
            var one = new StringBuilder();
            Section(one, m, new ModelOptions(), 4);
            text.Append("  - ").Append(one.ToString().AsSpan(4));
        }
    }

    private static void Map(StringBuilder text, IDictionary map, int indent)
    {
        text.Append('\n');
        foreach (DictionaryEntry entry in map)
        {
            string key = Quoted((string)entry.Key);
            text.Append(' ', indent)
                .Append(key.Length > LongKey ? $"? {key}\n{new string(' ', indent)}: " : key + ": ")
                .Append(Value(entry.Value))
                .Append('\n');
        }
    }

    private static string Value(object? value) => value switch
    {
        null => "null",
        string s => Quoted(s),
        Enum choice => Quoted(choice.Word()),
        bool b => b ? "true" : "false",
        ModuleNames { IsPattern: true } pattern => Quoted(pattern[0]),
        IDictionary => "{}",
        IList list => $"[{string.Join(", ", list.Cast<object?>().Select(Value))}]",
        // the shortest text that reads back as the same number
        IFormattable number => number.ToString(null, CultureInfo.InvariantCulture),
        _ => throw new InvalidOperationException($"an option of type {value.GetType().Name} cannot be written"),
    };

    /// <summary>
    /// A double-quoted scalar: everything that is not plainly printable is escaped, so that no reader folds, trims or
    /// refuses it.
    /// </summary>
    private static string Quoted(string s)
    {
        var text = new StringBuilder("\"");
        foreach (var rune in s.EnumerateRunes())
            text.Append(rune.Value switch
            {
                '"' => "\\\"",
                '\\' => "\\\\",
                '\n' => "\\n",
                '\t' => "\\t",
                _ when Printable.IsPrintable(rune) => rune.ToString(),
                <= 0xFFFF => $"\\u{rune.Value:X4}",
                _ => $"\\U{rune.Value:X8}",
            });
        return text.Append('"').ToString();
    }

    [GeneratedRegex(@"[/\\]snapshots[/\\]([0-9a-f]{40})([/\\]|$)")]
    private static partial Regex Snapshot();
}
