using System.Collections;
using System.Globalization;
using System.Reflection;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using System.Xml.Linq;
using Headroom.Core;
using Headroom.Inference;
using Headroom.Training.Recipes;

namespace Headroom.Tests.Recipes;

/// <summary>
/// docs/recipe.md and docs/recipe.schema.json, made of the options themselves: their types, defaults, attributes and
/// summaries.
/// </summary>
internal static partial class RecipeReference
{
    private static readonly Dictionary<string, string> Summaries = new[]
        {
            typeof(Recipe), typeof(QuantizationOptions), typeof(LoraConfig),
        }
        .SelectMany(t => XDocument.Load(Path.ChangeExtension(t.Assembly.Location, ".xml")).Descendants("member"))
        .DistinctBy(m => (string)m.Attribute("name")!) // generated code is in several
        .ToDictionary(m => (string)m.Attribute("name")!, m => m.Element("summary") is { } s ? Plain(s) : "");

    private const string Preface = """
        # Recipe reference

        Every key of a recipe. This page is made of the option types, from `src/Headroom.Training/Recipes/Recipe.cs` on
        (`HEADROOM_WRITE_REFERENCE=1` with the test `RecipeReferenceTests` writes it anew). Names follow transformers'
        TrainingArguments and PEFT's LoraConfig; the last column has the names of TRL, Axolotl, Unsloth, LLaMA-Factory
        and mlx-lm, for which the error of an unknown key names ours. `--set training.learning_rate=1e-4` overrides a key
        on the command line. Paths are relative to the recipe.

        On resume: *fixed* keys have to be what they were, since they change numbers; those marked *rows* or *result* may
        be written otherwise as long as the encoded rows, or what `auto` and null come to, are the same; *may rise* can
        only grow; the rest is free.

        An editor completes and checks a recipe by `recipe.schema.json` with this line on top of it, the path as it is
        from there:

            # yaml-language-server: $schema=../docs/recipe.schema.json

        """;

    /// <summary>The page.</summary>
    public static string Markdown()
    {
        var text = new StringBuilder(Preface.ReplaceLineEndings("\n"));
        Section(text, typeof(Recipe), new Recipe(), "", "Run", "The run itself.");
        return text.ToString();
    }

    private static void Section(StringBuilder text, Type type, object defaults, string path, string title, string what)
    {
        text.Append(
            CultureInfo.InvariantCulture,
            $"\n## {title}\n{what}\n\n| key | default | values | meaning | on resume | elsewhere |\n");
        text.Append("| --- | --- | --- | --- | --- | --- |\n");
        var below = new List<(string Key, PropertyInfo Property)>();
        foreach (var (key, property) in RecipeLoader.Keys(type))
        {
            if (Below(property) != null)
            {
                below.Add((key, property));
                continue;
            }
            string[] cells =
            [
                $"`{path}{key}`",
                Shown(property, property.GetValue(defaults)),
                Values(property),
                Cell(Summary(property)),
                Resume(property),
                property.GetCustomAttribute<AlsoCalledAttribute>() is { } a
                    ? string.Join(", ", a.Names.Select(n => $"`{n}`"))
                    : "",
            ];
            text.Append(CultureInfo.InvariantCulture, $"| {string.Join(" | ", cells)} |\n");
        }
        foreach (var (key, property) in below)
        {
            var of = Below(property)!;
            bool list = property.PropertyType != of;
            Section(
                text, of, Activator.CreateInstance(of)!, path + key + (list ? "[]." : "."), path + key,
                Summary(property));
        }
    }

    /// <summary>The JSON schema (draft 2020-12).</summary>
    public static string Schema()
    {
        var root = Node(typeof(Recipe), new Recipe());
        root.Insert(0, "$schema", "https://json-schema.org/draft/2020-12/schema");
        root.Insert(1, "title", "Headroom recipe");
        var options = new JsonSerializerOptions
        {
            WriteIndented = true,
            Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        };
        return root.ToJsonString(options) + "\n";
    }

    private static JsonObject Node(Type type, object defaults)
    {
        var properties = new JsonObject();
        foreach (var (key, property) in RecipeLoader.Keys(type))
        {
            JsonObject node;
            if (Below(property) is { } of)
            {
                node = Node(of, Activator.CreateInstance(of)!);
                if (property.PropertyType != of) node = new JsonObject { ["type"] = "array", ["items"] = node };
            }
            else node = Value(property, property.GetValue(defaults));
            node.Insert(0, "description", Summary(property));
            properties[key] = node;
        }
        return new JsonObject { ["type"] = "object", ["additionalProperties"] = false, ["properties"] = properties };
    }

    private static JsonObject Value(PropertyInfo property, object? value)
    {
        var type = property.PropertyType;
        var one = Scalar(property, Element(type));
        JsonObject node;
        if (typeof(IDictionary).IsAssignableFrom(type))
            node = new JsonObject { ["type"] = "object", ["additionalProperties"] = one };
        else if (!typeof(IList).IsAssignableFrom(type)) node = one;
        else
        {
            node = new JsonObject { ["type"] = "array", ["items"] = one };
            if (type == typeof(ModuleNames) || property.IsDefined(typeof(OneOrMoreAttribute)))
                node = new JsonObject { ["anyOf"] = new JsonArray(node, one.DeepClone()) };
        }
        node["default"] = JsonSerializer.SerializeToNode(value);
        return node;
    }

    private static JsonObject Scalar(PropertyInfo property, Type type)
    {
        bool nullable = Nullable.GetUnderlyingType(type) != null
            || type == typeof(string)
                && new NullabilityInfoContext().Create(property).WriteState == NullabilityState.Nullable;
        var plain = Nullable.GetUnderlyingType(type) ?? type;
        string[] kinds = plain == typeof(bool) ? ["boolean"] : plain == typeof(int) ? ["integer"]
            : plain.IsEnum ? ["string"]
            : plain == typeof(string)
                ? property.Name == nameof(LoraConfig.InitLoraWeights) ? ["string", "boolean"]
                    : ["string"]
            : ["number"];
        if (typeof(IDictionary).IsAssignableFrom(property.PropertyType) && plain == typeof(string))
            kinds = ["string", "number", "boolean"];
        if (nullable) kinds = [.. kinds, "null"];
        var node = new JsonObject
        {
            ["type"] = kinds.Length == 1 ? kinds[0] : new JsonArray([.. kinds.Select(k => (JsonNode)k)]),
        };
        if (plain.IsEnum) node["enum"] = new JsonArray([.. Choices.Words(plain).Select(n => (JsonNode)n)]);
        if (property.GetCustomAttribute<RangeAttribute>() is { } range)
        {
            node[range.OpenLow ? "exclusiveMinimum" : "minimum"] = range.Low;
            if (double.IsFinite(range.High)) node[range.OpenHigh ? "exclusiveMaximum" : "maximum"] = range.High;
        }
        return node;
    }

    private static Type? Below(PropertyInfo p) => p.PropertyType == typeof(List<ModelOptions>) ? typeof(ModelOptions)
        : RecipeLoader.IsSection(p.PropertyType) ? p.PropertyType : null;

    private static Type Element(Type type) => type == typeof(ModuleNames) ? typeof(string)
        : typeof(IDictionary).IsAssignableFrom(type) ? type.GetGenericArguments()[1]
        : typeof(IList).IsAssignableFrom(type) ? type.GetGenericArguments()[0] : type;

    private static string Values(PropertyInfo p)
    {
        var type = Element(p.PropertyType);
        string one =
            (Nullable.GetUnderlyingType(type) ?? type) is { IsEnum: true } choice
                ? string.Join(", ", Choices.Words(choice).Select(n => $"`{n}`"))
            : p.GetCustomAttribute<RangeAttribute>() is { } range ? range.ToString()
            : (Nullable.GetUnderlyingType(type) ?? type) == typeof(bool) ? "true, false"
            : type == typeof(string) ? "text"
            : "a number";
        return typeof(IDictionary).IsAssignableFrom(p.PropertyType) ? $"map to {one}"
            : p.PropertyType != type ? $"list: {one}"
            : one;
    }

    private static string Shown(PropertyInfo p, object? value)
    {
        if (value is IList { Count: 0 } or IDictionary { Count: 0 } or "") return "";
        string json = JsonSerializer.Serialize(
            value, new JsonSerializerOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping });
        if (value is float f) json = f.ToString(CultureInfo.InvariantCulture);
        return $"`{Cell(value is string or Enum && !json.Contains('\\', StringComparison.Ordinal) ? json.Trim('"') : json)}`";
    }

    private static string Resume(PropertyInfo p) => p.GetCustomAttribute<IdentityAttribute>()!.Role switch
    {
        Identity.Numbers => "fixed",
        Identity.Rows => "rows",
        Identity.Resolved => "result",
        Identity.MayRise => "may rise",
        _ => "free",
    };

    private static string Summary(PropertyInfo p) => Summaries[$"P:{p.DeclaringType!.FullName}.{p.Name}"];

    private static string Cell(string text) =>
        text.Replace("|", "\\|", StringComparison.Ordinal).Replace("\n", "\\n", StringComparison.Ordinal);

    private static string Plain(XElement element)
    {
        string text = string.Concat(element.Nodes().Select(n => n switch
        {
            XElement { Name.LocalName: "see" } see => Name((string)see.Attribute("cref")!),
            XElement other => $"`{other.Value}`",
            _ => n.ToString(SaveOptions.DisableFormatting),
        }));
        return Blanks().Replace(System.Net.WebUtility.HtmlDecode(text), " ").Trim();
    }

    // A reference to an option says its key.
    private static string Name(string cref) => RecipeLoader.Key(cref[(cref.LastIndexOf('.') + 1)..]);

    [GeneratedRegex(@"\s+")]
    private static partial Regex Blanks();
}
