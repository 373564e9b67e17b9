using System.Collections;
using System.Globalization;
using System.Reflection;
using System.Text;
using System.Text.Json;
using Headroom.Core;
using YamlDotNet.Core;
using YamlDotNet.RepresentationModel;

namespace Headroom.Training.Recipes;

/// <summary>
/// YAML to <see cref="Recipe"/>: the keys are the option types' property names in snake_case; nothing is listed a
/// second time.
/// </summary>
public static partial class RecipeLoader
{
    private const int MostBytes = 1 << 20, MostDepth = 32;
    private static readonly JsonSerializerOptions WithFields = new() { IncludeFields = true }; // hub names are fields

    /// <summary>
    /// Loads a recipe and applies overrides such as training.learning_rate=1e-4. Throws <see cref="HeadroomException"/>
    /// with the line for unknown or conflicting keys.
    /// </summary>
    public static Recipe Load(string path, IEnumerable<string>? sets = null) => Parse(ReadText(path), sets, path);

    /// <summary>
    /// Text of a recipe file: UTF-8, or UTF-16 with a byte order mark. A model or a data file given by mistake is not
    /// read whole.
    /// </summary>
    /// <exception cref="HeadroomException">It is not there, cannot be read, is too large or is no text.</exception>
    public static string ReadText(string path)
    {
        if (!File.Exists(path))
            throw new HeadroomException(
                Directory.Exists(path)
                    ? $"{path} is a folder, not a recipe."
                    : $"There is no recipe {(path.Length == 0 ? "with an empty name" : path)}.",
                "Give a YAML file; recipes/ has examples."
            );
        RegularFile.Check(path);
        try
        {
            using var file = File.OpenRead(path);
            byte[] bytes = new byte[MostBytes + 1];
            int length = file.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false);
            if (length > MostBytes)
                throw new HeadroomException(
                    $"{path} is larger than {Units.Bytes(MostBytes)}, so it is no recipe.",
                    "Give a YAML file; recipes/ has examples.");
            using var text = new StreamReader(new MemoryStream(bytes, 0, length), new UTF8Encoding(false, true));
            return text.ReadToEnd();
        }
        catch (DecoderFallbackException)
        {
            throw new HeadroomException(
                $"The recipe {path} is not UTF-8 text.", "Give a YAML file, saved as UTF-8; recipes/ has examples.");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new HeadroomException(
                $"The recipe {path} cannot be read: {e.Message}", "Give a file that can be read.");
        }
    }

    /// <summary>Parses YAML text.</summary>
    public static Recipe Parse(string yaml, IEnumerable<string>? sets = null, string name = "recipe")
    {
        var recipe = new Recipe();
        if (Root(yaml, name) is { } root) Fill(recipe, root, name, "");
        foreach (string set in sets ?? []) Override(recipe, set);
        Check(recipe);
        return recipe;
    }

    /// <summary>The one document of a YAML text, or null when it is empty.</summary>
    private static YamlNode? Root(string yaml, string name)
    {
        try
        {
            // Counted first: the reader of nodes calls itself for every level, and a stack that is full ends the
            // process.
            var parser = new Parser(new StringReader(yaml));
            for (int depth = 0; parser.MoveNext();)
                if ((depth += parser.Current!.NestingIncrease) > MostDepth)
                    throw At(
                        parser.Current.Start.Line, name, $"more than {MostDepth} levels of nesting",
                        "A recipe has sections with keys below them, nothing deeper.");
            var stream = new YamlStream();
            stream.Load(new StringReader(yaml));
            if (stream.Documents.Count > 1)
                throw At(
                    stream.Documents[1].RootNode.Start.Line, name, "a second YAML document begins",
                    "Give each recipe a file of its own.");
            return
                stream.Documents.Count == 0
                || stream.Documents[0].RootNode is YamlScalarNode { Value: null or "", Style: ScalarStyle.Plain }
                ? null
                : stream.Documents[0].RootNode;
        }
        catch (YamlException e)
        {
            throw At(e.Start.Line, name, (e.InnerException?.Message ?? e.Message).TrimEnd('.'), "Mend the YAML there.");
        }
    }

    /// <summary>A recipe of its own with the same values.</summary>
    internal static Recipe Copy(Recipe recipe) =>
        JsonSerializer.Deserialize<Recipe>(JsonSerializer.Serialize(recipe, WithFields), WithFields)!;

    /// <summary>snake_case of a property name, with digits kept in place: LoadIn4bit -> load_in_4bit.</summary>
    public static string Key(string property)
    {
        var key = new StringBuilder();
        for (int i = 0; i < property.Length; i++)
        {
            char c = property[i];
            bool boundary =
                i > 0
                && (
                    char.IsUpper(c)
                    || char.IsDigit(c) && !char.IsDigit(property[i - 1]) && property[i - 1] is not 'a'
                    || char.IsDigit(c) && property[..i].EndsWith("Bnb", StringComparison.Ordinal)
                );
            if (boundary) key.Append('_');
            key.Append(char.ToLowerInvariant(c));
        }
        return key.ToString().Replace("adam_beta_", "adam_beta");
    }

    internal static Dictionary<string, PropertyInfo> Keys(Type type) =>
        type.GetProperties().ToDictionary(p => Key(p.Name));

    private static void Fill(object target, YamlNode node, string name, string path)
    {
        if (node is not YamlMappingNode map)
            throw At(
                node,
                name,
                path.Length == 0 ? "the recipe is no map of keys" : $"'{path.TrimEnd('.')}' needs keys below it",
                path.Length == 0
                    ? "Write key: value pairs; recipes/ has examples."
                    : "Write key: value pairs, indented."
            );
        var keys = Keys(target.GetType());
        foreach (var (keyNode, value) in map.Children)
        {
            string key = Text(keyNode, name, path.TrimEnd('.'));
            if (!keys.TryGetValue(key, out var property))
                throw At(keyNode, name, $"unknown key '{path}{key}'", Unknown(key, keys.Keys));
            Assign(target, property, value, name, path + key);
        }
    }

    internal static bool IsSection(Type type) =>
        type.IsClass && !typeof(IEnumerable).IsAssignableFrom(type); // neither a text nor a list or map

    private static void Assign(object target, PropertyInfo property, YamlNode value, string name, string path)
    {
        var type = property.PropertyType;
        if (IsSection(type)) Fill(property.GetValue(target)!, value, name, path + ".");
        else if (type == typeof(List<ModelOptions>))
        {
            if (value is not YamlSequenceNode models)
                throw At(value, name, $"'{path}' is a list", "Write - path: ... entries.");
            property.SetValue(target, models.Select(m =>
            {
                var model = new ModelOptions();
                Fill(model, m, name, path + ".");
                return model;
            }).ToList());
        }
        else if (type == typeof(ModuleNames) && value is YamlScalarNode)
            property.SetValue(target, ModuleNames.Parse((string)Scalar(typeof(string), false, value, name, path)!));
        else if (typeof(IList).IsAssignableFrom(type))
        {
            var list = (IList)Activator.CreateInstance(type)!;
            bool one = value is YamlScalarNode && property.IsDefined(typeof(OneOrMoreAttribute));
            if (!one && value is not YamlSequenceNode)
                throw At(value, name, $"'{path}' is a list", "Write [a, b] or - entries.");
            foreach (var item in one ? [value] : ((YamlSequenceNode)value).Children)
                list.Add(
                    Scalar(
                        type == typeof(ModuleNames) ? typeof(string) : type.GetGenericArguments()[0], false, item, name,
                        path)
                );
            property.SetValue(target, list);
        }
        else if (typeof(IDictionary).IsAssignableFrom(type))
        {
            if (value is not YamlMappingNode pairs)
                throw At(value, name, $"'{path}' is a map", "Write key: value pairs.");
            var map = (IDictionary)Activator.CreateInstance(type)!;
            foreach (var (key, item) in pairs.Children)
                map[Text(key, name, path)] = Scalar(type.GetGenericArguments()[1], false, item, name, path);
            property.SetValue(target, map);
        }
        else
            property.SetValue(
                target,
                Scalar(
                    type, new NullabilityInfoContext().Create(property).WriteState == NullabilityState.Nullable, value,
                    name, path)
            );
    }

    private static string Text(YamlNode node, string name, string path) =>
        node is YamlScalarNode s
            ? s.Value ?? ""
            : throw At(
                node, name, path.Length == 0 ? "a key is one word" : $"'{path}' takes one value",
                "Write it on one line.");

    private static object? Scalar(Type type, bool nullable, YamlNode node, string name, string path)
    {
        string text = Text(node, name, path);
        bool plain = node is YamlScalarNode { Style: ScalarStyle.Plain or ScalarStyle.Any },
            none = plain && text is "null" or "~" or "Null" or "NULL";
        if (nullable && (none || plain && text.Length == 0)) return null;
        var t = Nullable.GetUnderlyingType(type) ?? type;
        if (none && (t == typeof(string) || t.IsEnum))
            throw At(node, name, $"'{path}' cannot be null", "Give it a value, or leave the key out.");
        if (t == typeof(string)) return text;
        if (t.IsEnum) return Choices.Parse(t, path, text);
        // No thousands separators: 1,5 is not fifteen. No infinities either: no option means one.
        if (t == typeof(bool) && bool.TryParse(text, out bool flag)) return flag;
        if (
            t == typeof(int)
            && int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int whole)
        )
            return whole;
        if (
            t == typeof(double)
            && double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out double number)
            && double.IsFinite(number)
        )
            return number;
        if (
            t == typeof(float)
            && float.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out float single)
            && float.IsFinite(single)
        )
            return single;
        throw At(
            node, name, $"'{path}' cannot be '{text}'",
            $"It takes {(t == typeof(bool) ? "true or false" : t == typeof(int) ? "a whole number" : "a number, with a point: 0.05 or 1e-4")}."
        );
    }

    private static void Override(Recipe recipe, string set)
    {
        int equals = set.IndexOf('=');
        if (equals <= 0)
            throw new HeadroomException(
                $"--set {set} has no {(equals < 0 ? "value" : "key")}.", "Write --set training.learning_rate=1e-4.");
        object target = recipe;
        string path = set[..equals].Trim();
        string[] parts = path.Split('.');
        for (int i = 0; i < parts.Length; i++)
        {
            var keys = Keys(target.GetType());
            if (!keys.TryGetValue(parts[i], out var property))
                throw new HeadroomException($"--set {path}: unknown key '{parts[i]}'.", Unknown(parts[i], keys.Keys));
            if (i + 1 == parts.Length)
                Assign(
                    target, property, Root(set[(equals + 1)..], "--set " + path) ?? new YamlScalarNode(""),
                    "--set " + path, path);
            else if (IsSection(property.PropertyType)) target = property.GetValue(target)!;
            else throw new HeadroomException($"--set {path}: '{parts[i]}' has no keys below it.",
                typeof(System.Collections.IDictionary).IsAssignableFrom(property.PropertyType)
                    ? $"Give all of them: --set '{string.Join('.', parts[..(i + 1)])}={{name: value, name: value}}'."
                    : $"Write --set {string.Join('.', parts[..(i + 1)])}=value.");
        }
    }

    private static HeadroomException At(YamlNode node, string name, string what, string todo) =>
        At(node.Start.Line, name, what, todo);

    private static HeadroomException At(long line, string name, string what, string todo) =>
        new(
            $"{(name.StartsWith("--", StringComparison.Ordinal) ? name : $"{Path.GetFileName(name)}, line {line}")}: "
                + $"{what}.",
            todo);

    /// <summary>
    /// What to do about a key that is none of <paramref name="known"/>: a slip of the pen, a key of another section, or
    /// one from elsewhere.
    /// </summary>
    private static string Unknown(string key, IReadOnlyCollection<string> known)
    {
        if (Near(key, known) is { } near) return $"Did you mean '{near}'?";
        if (AllKeys.FirstOrDefault(k => k.EndsWith("." + key, StringComparison.Ordinal) || k == key) is { } elsewhere)
            return $"It belongs elsewhere: '{elsewhere}'.";
        if (ForeignKeys.Advice(key) is { } advice) return advice;
        if (Near(key, AllKeys.Select(k => k[(k.LastIndexOf('.') + 1)..]).Distinct()) is { } like)
            return $"Did you mean "
                + $"'{AllKeys.First(k => k == like || k.EndsWith("." + like, StringComparison.Ordinal))}'?";
        return $"The keys there are {string.Join(", ", known)}.";
    }

    /// <summary>
    /// Every key of a recipe with its sections, such as training.learning_rate; those of a model as models.path.
    /// </summary>
    internal static readonly string[] AllKeys = [.. Paths(typeof(Recipe), "")];

    private static IEnumerable<string> Paths(Type type, string above) => Keys(type).SelectMany(k =>
                k.Value.PropertyType == typeof(List<ModelOptions>)
                    ? Paths(typeof(ModelOptions), above + k.Key + ".").Prepend(above + k.Key)
                : IsSection(k.Value.PropertyType)
                    ? Paths(k.Value.PropertyType, above + k.Key + ".").Prepend(above + k.Key)
                : [above + k.Key]
            );

    /// <summary>
    /// The key that was meant, when it is one or two letters off (one in three of a short word): a guess further away
    /// sends people astray.
    /// </summary>
    private static string? Near(string key, IEnumerable<string> known) =>
        known
            .Select(k => (Key: k, Off: Distance(key, k)))
            .Where(k => k.Off <= Math.Min(2, k.Key.Length / 3))
            .OrderBy(k => k.Off)
            .FirstOrDefault()
            .Key;

    private static int Distance(string a, string b)
    {
        var row = Enumerable.Range(0, b.Length + 1).ToArray();
        for (int i = 1; i <= a.Length; i++)
        {
            int diagonal = row[0];
            row[0] = i;
            for (int j = 1; j <= b.Length; j++)
                (diagonal, row[j]) = (
                    row[j], Math.Min(Math.Min(row[j], row[j - 1]) + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)));
        }
        return row[b.Length];
    }
}
