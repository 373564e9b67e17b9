using System.Collections;
using System.Globalization;
using System.Reflection;
using Headroom.Core;
using Headroom.Core.Families;
using Headroom.Inference;
using Headroom.Training.Adapters;
using Headroom.Training.Loop;
using Headroom.Training.Tasks;

namespace Headroom.Training.Recipes;

public static partial class RecipeLoader
{
    private static readonly IReadOnlyList<string> Projections = ModelFamilies.Targets;

    /// <summary>
    /// Refuses values that cannot be meant, before a file of the run is opened. Call it again after changing options of
    /// a loaded recipe.
    /// </summary>
    /// <exception cref="HeadroomException">A value is unknown, out of its range, or conflicts with another.</exception>
    public static void Check(Recipe r)
    {
        Need(
            IsFolderName(r.Name), $"The name '{r.Name}' cannot be a folder's.",
            "Give a plain name without slashes, such as name: first-run (or --name).");
        foreach (var m in r.Models)
        {
            Need(m.Path.Length > 0, "A model of the recipe has no path.", "Write path: folder or file.gguf below it.");
            Need(
                m.Name == null || IsFolderName(m.Name), $"The model name '{m.Name}' cannot be a folder's.",
                "Give a plain name without slashes.");
        }
        foreach (
            string? path in r
                .Models.SelectMany(m => new[] { m.Path, m.Tokenizer })
                .Concat([r.Data.Train, r.Data.Validation, r.Data.Test])
        )
            Need(
                path == null || !path.Any(char.IsControl), $"The path '{path}' holds a control character.",
                "Correct the path.");
        Options(r, "");
        if (r.Vram != null) Units.Parse(r.Vram);
        if (r.Training.ExpandedWeights is not ("auto" or "none")) Units.Parse(r.Training.ExpandedWeights);
        Need(r.Seeds.Distinct().Count() == r.Seeds.Count, "A seed stands twice in seeds.", "Give each seed once.");

        var q = r.Quantization;
        Need(
            !(q.LoadIn4bit && q.LoadIn8bit), "quantization: load_in_4bit and load_in_8bit are both true.",
            "Set one of them to false.");
        Need(
            q.Bnb4bitQuantType == "nf4", $"quantization.bnb_4bit_quant_type '{q.Bnb4bitQuantType}' is not supported.",
            "Use nf4.");
        CheckTargets(r.Lora);
        CheckStart(r.Lora, q);

        CheckTraining(r.Training);
        TaskChoice.ByRecipe(r);
        var d = r.Data;
        Need(
            d.TextField.Length > 0 && d.LabelField.Length > 0, "data.text_field or data.label_field is empty.",
            "Name the fields of the data file.");
        if (r.Task.Type == TaskTypes.Auto) return; // what follows is checked when the data has said what its task is
        var type = TaskTypes.Get(r.Task);
        OneOf("training.metric_for_best_model", type.BestOf(r.Training), [.. type.Metrics.Select(m => m.Name)]);

        foreach (string key in RecipeIdentity.Values(r).Keys.Where(k => IsOfSomeTasks(k) && !type.Keys.Contains(k)))
            Need(false, $"The task {type.Name} does not take {key}.", "Leave it out, or name another task.type.");
        type.Check(r);
    }

    private static void CheckTraining(TrainingOptions t)
    {
        Need(
            t.MaxSteps is -1 or > 0, $"training.max_steps is {t.MaxSteps}.",
            "Set it to 1 or more, or to -1 to train by num_train_epochs.");
        Need(
            t.TokensPerDeviceBatch == 0 || t.TrainSamplingStrategy != SamplingStrategy.GroupByLength,
            "training.tokens_per_device_batch does not go with train_sampling_strategy group_by_length.",
            "A budget of tokens puts rows together by their lengths already: leave one of them out.");
        Need(
            t.EarlyStoppingPatience == 0 || t.EvalStrategy != IntervalStrategy.No,
            $"training.early_stopping_patience is {t.EarlyStoppingPatience}, but training.eval_strategy is no.",
            "Set eval_strategy to steps or epoch, and validation rows.");
        Need(
            t.EarlyStoppingPatience == 0 || t.LoadBestModelAtEnd,
            "training.early_stopping_patience goes with load_best_model_at_end, which is false.",
            "Set it to true: the run ends with its best adapter.");
        Schedules.Arguments(t);
    }

    private static void CheckTargets(LoraConfig l)
    {
        Need(
            l.TargetModules.Count > 0, "lora.target_modules is empty.",
            $"Name one or more of {string.Join(", ", Projections)}.");
        // As in PEFT an entry is the end of a module's path, so self_attn.q_proj and layers.3.mlp.up_proj are entries
        // too.
        foreach (string module in l.TargetModules.IsPattern ? [] : l.TargetModules)
            OneOf("lora.target_modules:", module[(module.LastIndexOf('.') + 1)..], [.. Projections]);
        foreach (string module in l.ExcludeModules.IsPattern ? [] : l.ExcludeModules)
            OneOf(
                "lora.exclude_modules:", module[(module.LastIndexOf('.') + 1)..],
                [.. Projections, .. ModelFamilies.Tables.Reverse()]);
        foreach (string module in l.TargetModules.Concat(l.ExcludeModules))
            Need(
                module.Length > 0, "lora.target_modules or lora.exclude_modules holds an empty name.",
                $"Name one or more of {string.Join(", ", Projections)}.");
        // As PEFT: a pattern names layers itself.
        Need(!l.TargetModules.IsPattern || l.LayersToTransform.Count + l.LayersPattern.Count == 0,
            "lora.layers_to_transform and layers_pattern go with a list of target_modules, not with a string.",
            "Name the layers in the pattern, or the modules in a list."
        );
        Need(
            l.LayersPattern.Count == 0 || l.LayersToTransform.Count > 0,
            "lora.layers_pattern is given without layers_to_transform.", "Give the layers, or leave it out.");
        var paths = Enumerable.Range(0, 256).SelectMany(i => ModelFamilies.All.SelectMany(f => f.Rows)
            .Where(row => row.Adaptable).Select(row => row.Path(i)).Distinct());
        Need(
            !l.TargetModules.IsPattern || paths.Any((l with { ExcludeModules = [] }).Adapts),
            $"lora.target_modules '{l.TargetModules[0]}' is no list, and as a regex for a whole path it "
                + $"matches no module.",
            $"Write [{string.Join(", ", Projections)}] or some of them, all-linear, or a regex such as "
                + $".*(q|v)_proj."
        );
        string any = paths.First(); // refuses patterns that are no regex
        _ = (l.Adapts(any), l.RankOf(any), l.AlphaOf(any));
    }

    private static void CheckStart(LoraConfig l, QuantizationOptions quantization)
    {
        Need(
            AdapterStart.Known(l.InitLoraWeights),
            $"lora.init_lora_weights '{l.InitLoraWeights}' is unknown.",
            $"Use {string.Join(", ", AdapterStart.Names)}.");
        Need(
            l.LoftqConfig.LoftqBits == 4, $"lora.loftq_config.loftq_bits is {l.LoftqConfig.LoftqBits}.",
            "Set it to 4.");
        Need(
            l.InitLoraWeights != "loftq" || quantization.LoadIn4bit,
            "lora.init_lora_weights is loftq, but quantization.load_in_4bit is false.",
            "LoftQ makes up for what 4 bits lose: set load_in_4bit to true, or another init_lora_weights.");
    }

    private static void Need(bool ok, string what, string todo)
    {
        if (!ok) throw new HeadroomException(what, todo);
    }

    private static void OneOf(string key, string value, params string[] known) =>
        Need(known.Contains(value), $"{key} '{value}' is unknown.", $"Use {Choices.List(known)}.");

    // Every task has a length; the other keys of the section, and the fields of a row, are those of the tasks that name
    // them.
    private static bool IsOfSomeTasks(string key) =>
        key.StartsWith("task.", StringComparison.Ordinal) && key is not ("task.type" or "task.max_seq_length")
        || key is "data.text_field" or "data.label_field" or "data.columns";

    /// <summary>One step of a path, no way out of the folder it is put in.</summary>
    private static bool IsFolderName(string name) =>
        name.Trim().Length > 0 && name is not ("." or "..") && !name.Any(c => c is '/' or '\\' || char.IsControl(c));

    /// <summary>What every option says of itself: its range.</summary>
    private static void Options(object section, string path)
    {
        foreach (var (key, property) in Keys(section.GetType()))
        {
            object? value = property.GetValue(section);
            if (value == null || property.PropertyType == typeof(List<ModelOptions>)) continue;
            if (IsSection(property.PropertyType)) Options(value, path + key + ".");
            if (property.GetCustomAttribute<RangeAttribute>() is { } range)
                foreach (double number in Numbers(value))
                    if (!range.Holds(number))
                        throw new HeadroomException(
                            FormattableString.Invariant($"{path}{key} is {number:G7}."), $"Set it to {range}.");
        }
    }

    private static IEnumerable<double> Numbers(object value) => value switch
    {
        IDictionary map => map.Values.Cast<object>().Select(v => Convert.ToDouble(v, CultureInfo.InvariantCulture)),
        IList list => list.Cast<object>().Select(v => Convert.ToDouble(v, CultureInfo.InvariantCulture)),
        _ => [Convert.ToDouble(value, CultureInfo.InvariantCulture)],
    };
}
