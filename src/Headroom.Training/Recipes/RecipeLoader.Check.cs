using Headroom.Core;

namespace Headroom.Training;

public static partial class RecipeLoader
{
    private static readonly IReadOnlyList<string> Projections = ModelFamilies.Targets;

    /// <summary>Refuses values that cannot be meant, before a file of the run is opened. Call it again after changing options of a loaded recipe.</summary>
    /// <exception cref="HeadroomException">A value is unknown, out of its range, or conflicts with another.</exception>
    public static void Check(Recipe r)
    {
        static void Need(bool ok, string what, string todo)
        {
            if (!ok) throw new HeadroomException(what, todo);
        }
        static void OneOf(string key, string value, params IReadOnlyList<string> known) =>
            Need(known.Contains(value), $"{key} '{value}' is unknown.", $"Use {(known.Count == 1 ? known[0] : string.Join(", ", known.SkipLast(1)) + " or " + known[^1])}.");
        static void AtLeast(string key, long value, long least) => Need(value >= least, $"{key} is {value}.", $"Set it to {least} or more.");
        static void Range(string key, double value, double low, double high, bool openLow = false, bool openHigh = false) =>
            Need((openLow ? value > low : value >= low) && (openHigh ? value < high : value <= high) && double.IsFinite(value), FormattableString.Invariant($"{key} is {value:G7}."),
                double.IsPositiveInfinity(high) ? FormattableString.Invariant($"Set it to {(openLow ? $"a number above {low}" : $"{low} or more")}.")
                : FormattableString.Invariant($"Set it to a number from {low}{(openLow ? " (but not it)" : "")} to {high}{(openHigh ? " (but not it)" : "")}."));

        Need(IsFolderName(r.Name), $"The name '{r.Name}' cannot be a folder's.", "Give a plain name without slashes, such as name: first-run (or --name).");
        foreach (var m in r.Models)
        {
            Need(m.Path.Length > 0, "A model of the recipe has no path.", "Write path: folder or file.gguf below it.");
            Need(m.Name == null || IsFolderName(m.Name), $"The model name '{m.Name}' cannot be a folder's.", "Give a plain name without slashes.");
        }
        foreach (string? path in r.Models.SelectMany(m => new[] { m.Path, m.Tokenizer }).Concat([r.Data.Train, r.Data.Validation, r.Data.Test]))
            Need(path == null || !path.Any(char.IsControl), $"The path '{path}' holds a control character.", "Correct the path.");
        OneOf("device", r.Device, "auto", "cpu", "cuda");
        if (r.Vram != null) Units.Parse(r.Vram);
        if (r.Training.ExpandedWeights is not ("auto" or "none")) Units.Parse(r.Training.ExpandedWeights);
        Need(r.Seeds.Distinct().Count() == r.Seeds.Count, "A seed stands twice in seeds.", "Give each seed once.");

        var q = r.Quantization;
        Need(!(q.LoadIn4bit && q.LoadIn8bit), "quantization: load_in_4bit and load_in_8bit are both true.", "Set one of them to false.");
        Need(q.Bnb4bitQuantType == "nf4", $"quantization.bnb_4bit_quant_type '{q.Bnb4bitQuantType}' is not supported.", "Use nf4.");

        AtLeast("lora.r", r.Lora.R, 1);
        Range("lora.lora_alpha", r.Lora.LoraAlpha, 0, double.PositiveInfinity, openLow: true);
        Range("lora.lora_dropout", r.Lora.LoraDropout, 0, Dropout.MaxP);
        Need(r.Lora.TargetModules.Count > 0, "lora.target_modules is empty.", $"Name one or more of {string.Join(", ", Projections)}.");
        // As in PEFT an entry is the end of a module's path, so self_attn.q_proj and layers.3.mlp.up_proj are entries too.
        foreach (string module in r.Lora.TargetModules.IsPattern ? [] : r.Lora.TargetModules) OneOf("lora.target_modules:", module[(module.LastIndexOf('.') + 1)..], Projections);
        foreach (string module in r.Lora.ExcludeModules.IsPattern ? [] : r.Lora.ExcludeModules)
            OneOf("lora.exclude_modules:", module[(module.LastIndexOf('.') + 1)..], [.. Projections, .. ModelFamilies.Tables.Reverse()]);
        foreach (string module in r.Lora.TargetModules.Concat(r.Lora.ExcludeModules))
            Need(module.Length > 0, "lora.target_modules or lora.exclude_modules holds an empty name.", $"Name one or more of {string.Join(", ", Projections)}.");
        foreach (int layer in r.Lora.LayersToTransform) AtLeast("lora.layers_to_transform", layer, 0);
        // As PEFT: a pattern names layers itself.
        Need(!r.Lora.TargetModules.IsPattern || r.Lora.LayersToTransform.Count + r.Lora.LayersPattern.Count == 0,
            "lora.layers_to_transform and layers_pattern go with a list of target_modules, not with a string.", "Name the layers in the pattern, or the modules in a list.");
        Need(r.Lora.LayersPattern.Count == 0 || r.Lora.LayersToTransform.Count > 0, "lora.layers_pattern is given without layers_to_transform.", "Give the layers, or leave it out.");
        foreach (int rank in r.Lora.RankPattern.Values) AtLeast("lora.rank_pattern", rank, 1);
        foreach (float alpha in r.Lora.AlphaPattern.Values) Range("lora.alpha_pattern", alpha, 0, double.PositiveInfinity, openLow: true);
        if (r.Lora.Targets() is { } rules)
        {
            var paths = Enumerable.Range(0, 256).SelectMany(i => ModelFamilies.All.SelectMany(f => f.Rows)
                .Where(row => row.Adaptable).Select(row => row.Path(i)).Distinct()).ToList();
            Need(!r.Lora.TargetModules.IsPattern || paths.Any(p => (rules with { Exclude = [], ExcludePattern = null }).Matches(p)),
                $"lora.target_modules '{r.Lora.TargetModules[0]}' is no list, and as a regex for a whole path it matches no module.",
                $"Write [{string.Join(", ", Projections)}] or some of them, all-linear, or a regex such as .*(q|v)_proj.");
            _ = (rules.Matches(paths[0]), rules.Rank(paths[0], 1), rules.Alpha(paths[0], 1)); // refuses patterns that are no regex
        }

        Need(AdapterStart.Known(r.Lora.InitLoraWeights), $"lora.init_lora_weights '{r.Lora.InitLoraWeights}' is unknown.", $"Use {string.Join(", ", AdapterStart.Names)}.");
        Need(r.Lora.LoftqConfig.LoftqBits == 4, $"lora.loftq_config.loftq_bits is {r.Lora.LoftqConfig.LoftqBits}.", "Set it to 4.");
        Range("lora.loftq_config.loftq_iter", r.Lora.LoftqConfig.LoftqIter, 1, 100);
        Need(r.Lora.InitLoraWeights != "loftq" || q.LoadIn4bit, "lora.init_lora_weights is loftq, but quantization.load_in_4bit is false.",
            "LoftQ makes up for what 4 bits lose: set load_in_4bit to true, or another init_lora_weights.");

        var t = r.Training;
        AtLeast("training.per_device_train_batch_size", t.PerDeviceTrainBatchSize, 1);
        AtLeast("training.per_device_eval_batch_size", t.PerDeviceEvalBatchSize, 1);
        AtLeast("training.gradient_accumulation_steps", t.GradientAccumulationSteps, 1);
        Range("training.learning_rate", t.LearningRate, 0, double.PositiveInfinity, openLow: true);
        Range("training.weight_decay", t.WeightDecay, 0, double.PositiveInfinity);
        Range("training.adam_beta1", t.AdamBeta1, 0, 1, openHigh: true);
        Range("training.adam_beta2", t.AdamBeta2, 0, 1, openHigh: true);
        Range("training.adam_epsilon", t.AdamEpsilon, 0, double.PositiveInfinity, openLow: true);
        Range("training.max_grad_norm", t.MaxGradNorm, 0, double.PositiveInfinity);
        Range("training.num_train_epochs", t.NumTrainEpochs, 0, 1e6, openLow: true);
        Need(t.MaxSteps is -1 or > 0, $"training.max_steps is {t.MaxSteps}.", "Set it to 1 or more, or to -1 to train by num_train_epochs.");
        OneOf("training.lr_scheduler_type", t.LrSchedulerType, Schedules.Names);
        Schedules.Arguments(t);
        AtLeast("training.warmup_steps", t.WarmupSteps, 0);
        Range("training.warmup_ratio", t.WarmupRatio, 0, 1);
        AtLeast("training.logging_steps", t.LoggingSteps, 0);
        OneOf("training.eval_strategy", t.EvalStrategy, "no", "steps", "epoch");
        AtLeast("training.eval_steps", t.EvalSteps, 1);
        OneOf("training.save_strategy", t.SaveStrategy, "no", "steps", "epoch");
        AtLeast("training.save_steps", t.SaveSteps, 1);
        AtLeast("training.save_total_limit", t.SaveTotalLimit, 0);
        OneOf("training.metric_for_best_model", BestMetric.Plain(t.MetricForBestModel), BestMetric.Names);
        OneOf("training.precision", t.Precision, "auto", "fp32", "bf16", "fp16");
        OneOf("training.train_sampling_strategy", t.TrainSamplingStrategy, "random", "sequential", "group_by_length");

        var d = r.Data;
        Need(d.TextField.Length > 0 && d.LabelField.Length > 0, "data.text_field or data.label_field is empty.", "Name the fields of the data file.");
        Range("data.validation_fraction", d.ValidationFraction, 0, 1, openHigh: true);
        AtLeast("data.max_train_rows", d.MaxTrainRows, 0);
        AtLeast("data.max_eval_rows", d.MaxEvalRows, 0);
        AtLeast("data.max_test_rows", d.MaxTestRows, 0);
        OneOf("data.on_duplicate", d.OnDuplicate, "error", "drop", "allow");

        PromptTemplate.Parse(r.Task.Template).Fields(d);
        OneOf("task.loss", r.Task.Loss, "answer", "all");
        AtLeast("task.max_seq_length", r.Task.MaxSeqLength, 2);
        Need(!r.Task.Replace.ContainsKey(""), "task.replace replaces an empty string.", "Name the characters that are to be replaced.");
    }

    /// <summary>One step of a path, no way out of the folder it is put in.</summary>
    private static bool IsFolderName(string name) =>
        name.Trim().Length > 0 && name is not ("." or "..") && !name.Any(c => c is '/' or '\\' || char.IsControl(c));
}
