using System.Text.Json.Nodes;
using Headroom.Core;

namespace Headroom.Formats;

/// <summary>adapter_config.json as read, with PEFT's defaults (<c>tuners/lora/config.py</c>).</summary>
internal sealed record PeftConfig(
    int R, float LoraAlpha, float LoraDropout, bool UseRslora, bool UseDora, IReadOnlyList<string> ModulesToSave, string Init, int LoftqIterations, LoraTargets Targets, string? BaseModel)
{
    // These change the numbers: an adapter that uses one is refused by its name.
    private static readonly string[] Unsupported =
    [
        "lora_bias", "fan_in_fan_out", "use_qalora", "use_bdlora", "trainable_token_indices", "target_parameters", "layer_replication",
        "alora_invocation_tokens", "arrow_config", "kasa_config", "velora_config", "monteclora_config",
    ];

    // These say how the adapter was made or where it is to be found; they do not change what it computes.
    private static readonly string[] Harmless =
    [
        "auto_mapping", "corda_config", "ensure_weight_tying", "eva_config", "inference_mode", "loftq_config", "lora_ga_config", "megatron_config", "megatron_core", "peft_version", "qalora_group_size",
        "revision", "runtime_config", "task_type",
    ];

    private static readonly string[] Known =
    [
        "peft_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "modules_to_save", "bias", "target_modules", "exclude_modules",
        "init_lora_weights", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern",
    ];

    // Initializations that take the adapter's start out of the base: over the original base such an adapter is wrong unless it was converted when saved (then the key is true).
    private static readonly string[] ChangesBase = ["pissa", "olora", "corda", "lora_ga"];

    /// <param name="json">The file.</param>
    /// <param name="hasInitial">True when what an initialization took out of the base is at hand.</param>
    /// <param name="warn">Takes what is odd.</param>
    public static PeftConfig Read(JsonObject json, Predicate<string> hasInitial, Action<string>? warn)
    {
        string? type = (string?)json["peft_type"];
        if (type != "LORA") throw new HeadroomException($"The adapter's peft_type is {type ?? "not given"}.", "Only LORA adapters can be read.");
        foreach (string key in Unsupported)
            if (Used(json[key])) throw new HeadroomException($"The adapter uses {key}, which is not supported.", "Train it without that option.");
        if ((string?)json["bias"] is { } bias and not "none") throw new HeadroomException($"The adapter uses bias: {bias}, which is not supported.", "Train it with bias: none.");
        string? how = Text(json["init_lora_weights"]);
        string start = how ?? ((bool?)json["init_lora_weights"] == false ? "false" : "true");
        if (how != null && ChangesBase.Any(c => how.StartsWith(c, StringComparison.OrdinalIgnoreCase)) && !hasInitial(how))
            throw new HeadroomException($"The adapter uses init_lora_weights: {how}, which changes the base weights.", "Save it converted to plain LoRA (PEFT: path_initial_model_for_weight_conversion).");
        foreach (var (key, value) in json)
            if (Used(value) && !Known.Contains(key) && !Harmless.Contains(key) && !Unsupported.Contains(key)) warn?.Invoke($"warning: adapter_config.json has {key}, which is not known; it is ignored");

        int r = (int?)json["r"] ?? 8;
        float alpha = (float?)json["lora_alpha"] ?? 8, dropout = (float?)json["lora_dropout"] ?? 0;
        if (r is < 1 or > 1 << 16) throw new FormatException($"r is {r}");
        if (!float.IsFinite(alpha)) throw new FormatException($"lora_alpha is {alpha}");
        if (dropout is not (>= 0 and < 1)) throw new FormatException($"lora_dropout is {dropout}");
        var targets = new LoraTargets
        {
            Modules = List(json["target_modules"]), Pattern = Text(json["target_modules"]),
            Exclude = List(json["exclude_modules"]), ExcludePattern = Text(json["exclude_modules"]) is { Length: > 0 } e ? e : null,
            Layers = json["layers_to_transform"] switch { null => null, JsonArray many => many.Select(l => (int)l!).ToList(), { } one => [(int)one] },
            LayersPattern = Text(json["layers_pattern"]) is { Length: > 0 } p ? [p] : List(json["layers_pattern"]),
            RankPattern = Pairs(json["rank_pattern"], v => (int)v),
            AlphaPattern = Pairs(json["alpha_pattern"], v => (float)v),
        };
        if (targets.RankPattern.Any(v => v.Value is < 1 or > 1 << 16)) throw new FormatException("rank_pattern holds a rank that is not positive");
        if (targets.AlphaPattern.Any(v => !float.IsFinite(v.Value))) throw new FormatException("alpha_pattern holds a value that is not finite");
        return new PeftConfig(r, alpha, dropout, (bool?)json["use_rslora"] ?? false, (bool?)json["use_dora"] ?? false, List(json["modules_to_save"]), start,
            (int?)(json["loftq_config"] as JsonObject)?["loftq_iter"] ?? 1, targets, (string?)json["base_model_name_or_path"]);
    }

    private static bool Used(JsonNode? v) => v switch
    {
        null => false,
        JsonArray a => a.Count > 0,
        JsonObject o => o.Count > 0,
        JsonValue x when x.TryGetValue(out bool b) => b,
        _ => true,
    };

    private static string? Text(JsonNode? v) => v is JsonValue x && x.TryGetValue(out string? s) ? s : null;

    private static List<string> List(JsonNode? v) => v is JsonArray a ? a.Select(i => (string?)i ?? throw new FormatException("a module name is null")).ToList() : [];

    private static List<KeyValuePair<string, T>> Pairs<T>(JsonNode? v, Func<JsonNode, T> read) =>
        v is JsonObject o ? o.Select(p => KeyValuePair.Create(p.Key, read(p.Value ?? throw new FormatException($"{p.Key} is null")))).ToList() : [];
}
