using System.Collections;
using System.Globalization;
using System.Reflection;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Headroom.Core;
using YamlDotNet.Core;
using YamlDotNet.RepresentationModel;

namespace Headroom.Training;

/// <summary>YAML to <see cref="Recipe"/>: the keys are the option types' property names in snake_case; nothing is listed a second time.</summary>
public static class RecipeLoader
{
    /// <summary>Loads a recipe and applies overrides such as training.learning_rate=1e-4. Throws <see cref="HeadroomException"/> with the line for unknown or conflicting keys.</summary>
    public static Recipe Load(string path, IEnumerable<string>? sets = null)
    {
        if (!File.Exists(path)) throw new HeadroomException($"There is no recipe {path}.", "Give a YAML file; recipes/ has examples.");
        return Parse(File.ReadAllText(path), sets, path);
    }

    /// <summary>Parses YAML text.</summary>
    public static Recipe Parse(string yaml, IEnumerable<string>? sets = null, string name = "recipe")
    {
        var recipe = new Recipe();
        try
        {
            var stream = new YamlStream();
            stream.Load(new StringReader(yaml));
            if (stream.Documents.Count > 0) Fill(recipe, stream.Documents[0].RootNode, name, "");
        }
        catch (YamlException e)
        {
            throw new HeadroomException($"{name}, line {e.Start.Line}: {e.InnerException?.Message ?? e.Message}", "Mend the YAML there.");
        }
        foreach (string set in sets ?? []) Override(recipe, set);
        Check(recipe);
        return recipe;
    }

    /// <summary>SHA-256 over every option's value: two recipes with one hash are the same run.</summary>
    public static string Hash(Recipe recipe) => Convert.ToHexStringLower(SHA256.HashData(JsonSerializer.SerializeToUtf8Bytes(recipe)));

    /// <summary>snake_case of a property name, with digits kept in place: LoadIn4bit -> load_in_4bit.</summary>
    public static string Key(string property)
    {
        var key = new StringBuilder();
        for (int i = 0; i < property.Length; i++)
        {
            char c = property[i];
            bool boundary = i > 0 && (char.IsUpper(c) || char.IsDigit(c) && !char.IsDigit(property[i - 1]) && property[i - 1] is not 'a' || char.IsDigit(c) && property[..i].EndsWith("Bnb", StringComparison.Ordinal));
            if (boundary) key.Append('_');
            key.Append(char.ToLowerInvariant(c));
        }
        return key.ToString().Replace("adam_beta_", "adam_beta");
    }

    private static Dictionary<string, PropertyInfo> Keys(Type type) => type.GetProperties().ToDictionary(p => Key(p.Name));

    private static void Fill(object target, YamlNode node, string name, string path)
    {
        if (node is not YamlMappingNode map) throw At(node, name, $"'{path}' needs keys below it", "Write key: value pairs, indented.");
        var keys = Keys(target.GetType());
        foreach (var (keyNode, value) in map.Children)
        {
            string key = ((YamlScalarNode)keyNode).Value ?? "";
            if (!keys.TryGetValue(key, out var property)) throw At(keyNode, name, $"unknown key '{path}{key}'", $"Did you mean '{Nearest(key, keys.Keys)}'?");
            Assign(target, property, value, name, path + key);
        }
    }

    private static void Assign(object target, PropertyInfo property, YamlNode value, string name, string path)
    {
        var type = property.PropertyType;
        if (type.Namespace == typeof(Recipe).Namespace && type.IsClass) Fill(property.GetValue(target)!, value, name, path + ".");
        else if (type == typeof(List<ModelOptions>))
        {
            if (value is not YamlSequenceNode models) throw At(value, name, $"'{path}' is a list", "Write - path: ... entries.");
            property.SetValue(target, models.Select(m =>
            {
                var model = new ModelOptions();
                Fill(model, m, name, path + ".");
                return model;
            }).ToList());
        }
        else if (typeof(IList).IsAssignableFrom(type))
        {
            if (value is not YamlSequenceNode items) throw At(value, name, $"'{path}' is a list", "Write [a, b] or - entries.");
            var list = (IList)Activator.CreateInstance(type)!;
            foreach (var item in items) list.Add(Scalar(type.GetGenericArguments()[0], Text(item, name, path), item, name, path));
            property.SetValue(target, list);
        }
        else if (type == typeof(Dictionary<string, string>))
        {
            if (value is not YamlMappingNode pairs) throw At(value, name, $"'{path}' is a map", "Write key: value pairs.");
            property.SetValue(target, pairs.Children.ToDictionary(p => Text(p.Key, name, path), p => Text(p.Value, name, path)));
        }
        else property.SetValue(target, Scalar(type, Text(value, name, path), value, name, path));
    }

    private static string Text(YamlNode node, string name, string path) =>
        node is YamlScalarNode s ? s.Value ?? "" : throw At(node, name, $"'{path}' takes one value", "Write it on one line.");

    private static object? Scalar(Type type, string text, YamlNode? node, string name, string path)
    {
        var bare = Nullable.GetUnderlyingType(type);
        if ((bare != null || type == typeof(string)) && text is "null" or "~") return null;
        try
        {
            var t = bare ?? type;
            if (t == typeof(bool)) return text.ToLowerInvariant() switch { "true" => true, "false" => false, _ => throw new FormatException() };
            return Convert.ChangeType(text, t, CultureInfo.InvariantCulture);
        }
        catch (Exception e) when (e is FormatException or OverflowException)
        {
            throw At(node, name, $"'{path}' cannot be '{text}'", $"It takes a {(bare ?? type).Name switch { "Boolean" => "true or false", "Int32" => "whole number", "Double" or "Single" => "number", var n => n }}.");
        }
    }

    private static void Override(Recipe recipe, string set)
    {
        int equals = set.IndexOf('=');
        if (equals <= 0) throw new HeadroomException($"--set {set} has no value.", "Write --set training.learning_rate=1e-4.");
        object target = recipe;
        string[] parts = set[..equals].Trim().Split('.');
        for (int i = 0; i < parts.Length; i++)
        {
            var keys = Keys(target.GetType());
            if (!keys.TryGetValue(parts[i], out var property)) throw new HeadroomException($"--set: unknown key '{parts[i]}'.", $"Did you mean '{Nearest(parts[i], keys.Keys)}'?");
            if (i + 1 < parts.Length)
            {
                target = property.GetValue(target) ?? throw new HeadroomException($"--set: '{parts[i]}' has no keys.", "Name a key of a section.");
                continue;
            }
            var stream = new YamlStream();
            stream.Load(new StringReader(set[(equals + 1)..]));
            Assign(target, property, stream.Documents.Count > 0 ? stream.Documents[0].RootNode : new YamlScalarNode(""), "--set", set[..equals]);
        }
    }

    private static void Check(Recipe r)
    {
        static void Need(bool ok, string what, string todo)
        {
            if (!ok) throw new HeadroomException(what, todo);
        }
        Need(!(r.Quantization.LoadIn4bit && r.Quantization.LoadIn8bit), "quantization: load_in_4bit and load_in_8bit are both true.", "Set one of them to false.");
        Need(r.Quantization.Bnb4bitQuantType == "nf4", $"quantization.bnb_4bit_quant_type '{r.Quantization.Bnb4bitQuantType}' is not supported.", "Use nf4.");
        Need(r.Training.Precision is "auto" or "fp32" or "bf16" or "fp16", $"training.precision '{r.Training.Precision}' is unknown.", "Use auto, fp32, bf16 or fp16.");
        Need(Schedules.Names.Contains(r.Training.LrSchedulerType), $"training.lr_scheduler_type '{r.Training.LrSchedulerType}' is unknown.", "Use one of: " + string.Join(", ", Schedules.Names) + ".");
        Need(r.Training is { PerDeviceTrainBatchSize: > 0, PerDeviceEvalBatchSize: > 0, GradientAccumulationSteps: > 0 }, "Batch sizes and gradient_accumulation_steps must be at least 1.", "Set them to 1 or more.");
        Need(r.Training.LearningRate > 0 && double.IsFinite(r.Training.LearningRate), "training.learning_rate must be positive.", "Set it to a number such as 2e-4.");
        Need(r.Lora is { R: > 0, LoraDropout: >= 0 and < 1 }, "lora.r must be at least 1 and lora_dropout in [0, 1).", "Set them so.");
        Need(r.Task.Template.Contains("{text}", StringComparison.Ordinal), "task.template has no {text}.", "Put {text} where the row's text goes.");
        Need(r.Task.Loss is "answer" or "all", $"task.loss '{r.Task.Loss}' is unknown.", "Use answer or all.");
        Need(r.Training.TrainSamplingStrategy is "random" or "sequential" or "group_by_length", $"training.train_sampling_strategy '{r.Training.TrainSamplingStrategy}' is unknown.", "Use random, sequential or group_by_length.");
        Need(r.Device is "auto" or "cpu" or "cuda", $"device '{r.Device}' is unknown.", "Use auto, cpu or cuda.");
    }

    private static HeadroomException At(YamlNode? node, string name, string what, string todo) =>
        new($"{Path.GetFileName(name)}{(node == null ? "" : $", line {node.Start.Line}")}: {what}.", todo);

    private static string Nearest(string key, IEnumerable<string> known) => known.MinBy(k => Distance(key, k))!;

    private static int Distance(string a, string b)
    {
        var row = Enumerable.Range(0, b.Length + 1).ToArray();
        for (int i = 1; i <= a.Length; i++)
        {
            int diagonal = row[0];
            row[0] = i;
            for (int j = 1; j <= b.Length; j++)
                (diagonal, row[j]) = (row[j], Math.Min(Math.Min(row[j], row[j - 1]) + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)));
        }
        return row[b.Length];
    }
}
