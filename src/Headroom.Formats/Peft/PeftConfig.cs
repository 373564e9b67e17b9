using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;

namespace Headroom.Formats.Peft;

/// <summary>adapter_config.json as PEFT reads and writes it (<c>tuners/lora/config.py</c>).</summary>
internal static class PeftConfig
{
    private const int MostShown = 80; // characters of a value in a message
    private const int MostRank = 1 << 16;

    // These change the numbers: an adapter that uses one is refused by its name.
    private static readonly string[] Unsupported =
    [
        "lora_bias", "fan_in_fan_out", "use_qalora", "use_bdlora", "trainable_token_indices", "target_parameters",
        "layer_replication", "alora_invocation_tokens", "arrow_config", "kasa_config", "velora_config",
        "monteclora_config", "megatron_config"];

    // These say how the adapter was made or where it is to be found; they do not change what it computes.
    private static readonly string[] Harmless =
    [
        "auto_mapping", "corda_config", "eva_config", "inference_mode", "loftq_config", "lora_ga_config",
        "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config"];

    private static readonly string[] Known =
    [
        "peft_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora",
        "modules_to_save", "bias", "target_modules", "exclude_modules", "init_lora_weights", "layers_to_transform",
        "layers_pattern", "rank_pattern", "alpha_pattern", "task_type", "ensure_weight_tying"];

    // Initializations that take the adapter's start out of the base: over the original base such an adapter is wrong
    // unless it was converted when saved (then the key is true).
    private static readonly string[] ChangesBase = ["pissa", "olora", "corda", "lora_ga"];

    // These leave the base as it is (PEFT lora/layer.py, update_layer), or are met elsewhere (loftq).
    private static readonly string[] KeepsBase = ["true", "false", "gaussian", "eva", "orthogonal", "mica", "loftq"];

    // What a task's model ends in (PEFT peft_types.py, TaskType).
    private static readonly Dictionary<string, string> OtherTasks = new()
    {
        ["SEQ_CLS"] = "a classification head (score or classifier)",
        ["TOKEN_CLS"] = "a classification head (classifier)",
        ["QUESTION_ANS"] = "a head that marks answers (qa_outputs)",
        ["SEQ_2_SEQ_LM"] = "the decoder of an encoder-decoder model",
        ["FEATURE_EXTRACTION"] = "no head at all",
    };

    /// <summary>What the file says, PEFT's defaults where it is silent, and its base_model_name_or_path.</summary>
    /// <param name="json">The file.</param>
    /// <param name="hasInitial">True when what an initialization took out of the base is at hand.</param>
    /// <param name="warn">Takes what is odd.</param>
    public static (LoraConfig Lora, string? BaseModel) Read(
        JsonObject json, Predicate<string> hasInitial, Action<string>? warn)
    {
        string? type = json.Text("peft_type");
        if (type != "LORA")
            throw new HeadroomException(
                $"The adapter's peft_type is {type ?? "not given"}.", "Only LORA adapters can be read.");
        Task(Text(json["task_type"]), json["task_type"]);
        foreach (string key in Unsupported)
            // {} is a variant with its defaults
            if (Used(json[key]) || key.EndsWith("_config", StringComparison.Ordinal) && json[key] is JsonObject)
                throw new HeadroomException(
                    $"The adapter uses {key}, which is not supported.", "Train it without that option.");
        if (json.Text("bias") is { } bias and not "none")
            throw new HeadroomException(
                $"The adapter uses bias: {bias}, which is not supported.", "Train it with bias: none.");
        string? how = Text(json["init_lora_weights"]);
        string start = how ?? (json.Flag("init_lora_weights") == false ? "false" : "true");
        bool changes = how != null && ChangesBase.Any(c => how.StartsWith(c, StringComparison.OrdinalIgnoreCase));
        if (changes && !hasInitial(how!))
            throw new HeadroomException(
                $"The adapter uses init_lora_weights: {how}, which changes the base weights.",
                "Save it converted to plain LoRA (PEFT: path_initial_model_for_weight_conversion).");
        if (how != null && !changes && !KeepsBase.Contains(how, StringComparer.OrdinalIgnoreCase))
            throw new HeadroomException(
                $"The adapter uses init_lora_weights: {HeadroomException.Value(how, MostShown)}, which is not known "
                    + $"and may have changed the base weights.",
                "Save it as plain LoRA over the base itself, with init_lora_weights: true.");
        foreach (var (key, value) in json)
            if (Used(value) && !Known.Contains(key) && !Harmless.Contains(key) && !Unsupported.Contains(key))
                Unknown(key, value!, warn);

        var lora = new LoraConfig
        {
            R = json.Whole("r") ?? 8,
            LoraAlpha = (float?)json.Number("lora_alpha") ?? 8,
            LoraDropout = (float?)json.Number("lora_dropout") ?? 0,
            UseRslora = json.Flag("use_rslora") ?? false,
            UseDora = json.Flag("use_dora") ?? false,
            ModulesToSave = List(json, "modules_to_save", false),
            EnsureWeightTying = json.Flag("ensure_weight_tying") ?? false,
            InitLoraWeights = start,
            LoftqConfig = new() { LoftqIter = (json["loftq_config"] as JsonObject)?.Whole("loftq_iter") ?? 1 },
            TargetModules = Modules(json, "target_modules"),
            ExcludeModules = Text(json["exclude_modules"]) == "" ? [] : Modules(json, "exclude_modules"),
            LayersToTransform = json["layers_to_transform"] switch
            {
                null => [],
                JsonArray many => many.Select(l => JsonValues.Whole("layers_to_transform", l)).ToList(),
                { } one => [JsonValues.Whole("layers_to_transform", one)],
            },
            LayersPattern = Text(json["layers_pattern"]) is { Length: > 0 } p
                ? [p]
                : List(json, "layers_pattern", true),
            RankPattern = Pairs(json, "rank_pattern", JsonValues.Whole),
            AlphaPattern = Pairs(json, "alpha_pattern", (k, v) => (float)JsonValues.Number(k, v)),
        };
        Check(lora);
        return (lora, json.Text("base_model_name_or_path"));
    }

    private static void Check(LoraConfig lora)
    {
        if (lora.R is < 1 or > MostRank) throw new FormatException($"r is {lora.R}");
        if (!float.IsFinite(lora.LoraAlpha)) throw new FormatException($"lora_alpha is {lora.LoraAlpha}");
        if (lora.LoraDropout is not (>= 0 and < 1)) throw new FormatException($"lora_dropout is {lora.LoraDropout}");
        if (lora.RankPattern.Values.Any(r => r is < 1 or > MostRank))
            throw new FormatException("rank_pattern holds a rank that is not positive");
        if (lora.AlphaPattern.Values.Any(v => !float.IsFinite(v)))
            throw new FormatException("alpha_pattern holds a value that is not finite");
    }

    /// <summary>The file's keys in their order, as PEFT writes them for inference.</summary>
    public static JsonObject Write(LoraConfig lora, string? baseModel)
    {
        static JsonArray? List<T>(IReadOnlyCollection<T> items) =>
            items.Count > 0 ? new JsonArray([.. items.Select(i => JsonValue.Create(i))]) : null;
        static JsonNode? Modules(ModuleNames names) => names.IsPattern ? names[0] : List(names);
        static JsonObject Pairs<T>(Dictionary<string, T> pairs) =>
            new(pairs.Select(p => KeyValuePair.Create(p.Key, (JsonNode?)JsonValue.Create(p.Value))));
        var json = new JsonObject
        {
            ["alpha_pattern"] = Pairs(lora.AlphaPattern),
            ["auto_mapping"] = null,
            ["base_model_name_or_path"] = baseModel,
            ["bias"] = "none",
            ["fan_in_fan_out"] = false,
            ["inference_mode"] = true,
            ["init_lora_weights"] =
                bool.TryParse(lora.InitLoraWeights, out bool usual) ? usual : lora.InitLoraWeights,
            ["layers_pattern"] = List(lora.LayersPattern),
            ["layers_to_transform"] = List(lora.LayersToTransform),
            ["loftq_config"] = lora.InitLoraWeights == "loftq"
                ? new JsonObject
                {
                    ["loftq_bits"] = lora.LoftqConfig.LoftqBits,
                    ["loftq_iter"] = lora.LoftqConfig.LoftqIter,
                }
                : new JsonObject(),
            ["lora_alpha"] = lora.LoraAlpha,
            ["lora_dropout"] = lora.LoraDropout,
            ["modules_to_save"] = List(lora.ModulesToSave),
            ["peft_type"] = "LORA",
            ["r"] = lora.R,
            ["rank_pattern"] = Pairs(lora.RankPattern),
            ["revision"] = null,
            ["target_modules"] = Modules(lora.TargetModules),
            ["task_type"] = "CAUSAL_LM",
            ["use_dora"] = lora.UseDora,
            ["use_rslora"] = lora.UseRslora,
        };
        // Readers before PEFT 0.14 stop at keys they do not know: only what is used is written beyond the old set.
        if (lora.EnsureWeightTying) json["ensure_weight_tying"] = true;
        if (lora.ExcludeModules.Count > 0) json["exclude_modules"] = Modules(lora.ExcludeModules);
        return new(json.OrderBy(p => p.Key, StringComparer.Ordinal)
            .Select(p => KeyValuePair.Create(p.Key, p.Value?.DeepClone())));
    }

    private static void Task(string? type, JsonNode? value)
    {
        if (value == null || type == "CAUSAL_LM") return;
        string ends =
            type != null && OtherTasks.TryGetValue(type, out string? known)
                ? $": its model ends in {known}"
                : ", which is not known";
        throw new HeadroomException(
            $"The adapter's task_type is {type ?? value.ToJsonString()}{ends}.",
            "Only adapters of causal language models (task_type CAUSAL_LM) can be read.");
    }

    // Keys of newer versions of PEFT, which itself ignores them with a warning. What someone switched on or filled in
    // may change what the adapter computes; a number or a word may be the default of an option that is off.
    private static void Unknown(string key, JsonNode value, Action<string>? warn)
    {
        string text = JsonValues.Shown(value);
        if (value is JsonValue v && v.GetValueKind() is JsonValueKind.Number or JsonValueKind.String)
        {
            warn?.Invoke($"warning: adapter_config.json has {key}: {text}, which is not known; it is ignored");
            return;
        }
        throw new HeadroomException(
            $"The adapter uses {key}: {text}, which is not known.",
            "A newer PEFT wrote it; train it without that option, or use a newer Headroom.");
    }

    private static bool Used(JsonNode? v) => v switch
    {
        null => false,
        JsonArray a => a.Count > 0,
        JsonObject o => o.Count > 0,
        JsonValue x when x.TryGetValue(out bool b) => b,
        JsonValue x when x.TryGetValue(out string? s) => s.Length > 0,
        _ => true,
    };

    private static string? Text(JsonNode? v) => v is JsonValue x && x.TryGetValue(out string? s) ? s : null;

    // A list of names; null and, where it is read elsewhere, a text are none.
    private static List<string> List(JsonObject json, string key, bool orText) => json[key] switch
    {
        null => [],
        JsonArray a => a.Select(i =>
                Text(i) ?? throw new FormatException($"{key} holds {JsonValues.Shown(i)}, which is no name")
            )
            .ToList(),
        var v when orText && Text(v) != null => [],
        _ => throw new FormatException($"{key} is no list of names"),
    };

    private static ModuleNames Modules(JsonObject json, string key) =>
        Text(json[key]) is { } pattern ? ModuleNames.Parse(pattern) : [.. List(json, key, false)];

    private static Dictionary<string, T> Pairs<T>(
        JsonObject json, string key, Func<string, JsonNode?, T> read) =>
        json[key] switch
        {
            null => [],
            JsonObject o => o.ToDictionary(p => p.Key, p => read($"{key}.{p.Key}", p.Value)),
            _ => throw new FormatException($"{key} is no map"),
        };
}
