using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;

namespace Headroom.Formats;

/// <summary>A LoRA adapter folder as PEFT writes it: adapter_config.json and adapter_model.safetensors.</summary>
public sealed class PeftAdapter
{
    private const string Prefix = "base_model.model.";

    /// <summary>Rank.</summary>
    public required int R { get; init; }
    /// <summary>lora_alpha.</summary>
    public required float LoraAlpha { get; init; }
    /// <summary>lora_dropout.</summary>
    public float LoraDropout { get; init; }
    /// <summary>alpha / sqrt(r).</summary>
    public bool UseRslora { get; init; }
    /// <summary>Adapted projection names.</summary>
    public required IReadOnlyList<string> TargetModules { get; init; }
    /// <summary>base_model_name_or_path.</summary>
    public string? BaseModel { get; init; }
    /// <summary>SHA-256 of the base weights the adapter belongs to, when recorded.</summary>
    public string? BaseHash { get; init; }
    /// <summary>Tensors by name without PEFT's prefix, such as model.layers.0.self_attn.q_proj.lora_A.weight.</summary>
    public required IReadOnlyDictionary<string, (long[] Shape, float[] Values)> Tensors { get; init; }

    /// <summary>Reads a folder. Refuses pickles, empty or non-finite adapters and options that are not supported.</summary>
    public static PeftAdapter Load(string folder)
    {
        string configPath = Path.Combine(folder, "adapter_config.json"), weights = Path.Combine(folder, "adapter_model.safetensors");
        if (!File.Exists(configPath)) throw new HeadroomException($"There is no adapter_config.json in {folder}.", "Give the folder that PEFT or Headroom wrote.");
        if (!File.Exists(weights))
            throw new HeadroomException($"There is no adapter_model.safetensors in {folder}.", "Pickled adapters (.bin) are not read; save the adapter as safetensors.");
        using var file = SafetensorsFile.Open(weights);
        try
        {
            var json = JsonNode.Parse(File.ReadAllText(configPath)) as JsonObject ?? throw new JsonException("not an object");
            if ((string?)json["peft_type"] != "LORA") throw new HeadroomException($"The adapter's peft_type is {json["peft_type"]}.", "Only LORA adapters can be read.");
            foreach (string option in new[] { "use_dora", "lora_bias", "fan_in_fan_out" })
                if ((bool?)json[option] == true) throw new HeadroomException($"The adapter uses {option}, which is not supported.", "Train it without that option.");
            var tensors = new Dictionary<string, (long[], float[])>();
            foreach (var (name, info) in file.Tensors)
            {
                if (!name.StartsWith(Prefix, StringComparison.Ordinal) || !name.Contains(".lora_"))
                    throw new HeadroomException($"The adapter holds {name}, which is not a LoRA tensor.", "Only LoRA pairs can be read.");
                float[] values = file.ReadF32(name);
                if (values.Any(v => !float.IsFinite(v))) throw new HeadroomException($"The adapter's {name} holds NaN or infinite values.", "The run that wrote it failed; use an earlier checkpoint.");
                tensors[name[Prefix.Length..]] = (info.Shape, values);
            }
            if (tensors.Count == 0) throw new HeadroomException($"The adapter in {folder} is empty.", "Use a complete adapter.");
            var targets = json["target_modules"] is JsonArray list ? list.Select(t => (string)t!).ToList()
                : tensors.Keys.Select(k => k.Split('.')[^3]).Distinct().ToList();
            return new PeftAdapter
            {
                R = (int?)json["r"] ?? 8,
                LoraAlpha = (float?)json["lora_alpha"] ?? 8,
                LoraDropout = (float?)json["lora_dropout"] ?? 0,
                UseRslora = (bool?)json["use_rslora"] ?? false,
                TargetModules = targets,
                BaseModel = (string?)json["base_model_name_or_path"],
                BaseHash = file.Metadata.GetValueOrDefault("base_sha256"),
                Tensors = tensors,
            };
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or FormatException)
        {
            throw new HeadroomException($"adapter_config.json in {folder} is damaged: {e.Message.Split('\n')[0]}", "Use a complete adapter.");
        }
    }

    /// <summary>Writes the folder; each file is whole or not there.</summary>
    public void Save(string folder)
    {
        Directory.CreateDirectory(folder);
        var metadata = BaseHash == null ? null : new Dictionary<string, string> { ["base_sha256"] = BaseHash };
        SafetensorsWriter.WriteF32(Path.Combine(folder, "adapter_model.safetensors"), Tensors.Select(t => (Prefix + t.Key, t.Value.Shape, t.Value.Values)), metadata);
        var json = new JsonObject
        {
            ["alpha_pattern"] = new JsonObject(),
            ["base_model_name_or_path"] = BaseModel,
            ["bias"] = "none",
            ["fan_in_fan_out"] = false,
            ["inference_mode"] = true,
            ["init_lora_weights"] = true,
            ["lora_alpha"] = LoraAlpha,
            ["lora_dropout"] = LoraDropout,
            ["modules_to_save"] = null,
            ["peft_type"] = "LORA",
            ["r"] = R,
            ["rank_pattern"] = new JsonObject(),
            ["target_modules"] = new JsonArray(TargetModules.Select(t => (JsonNode)t).ToArray()),
            ["task_type"] = "CAUSAL_LM",
            ["use_dora"] = false,
            ["use_rslora"] = UseRslora,
        };
        AtomicFile.WriteText(Path.Combine(folder, "adapter_config.json"), json.ToJsonString(new JsonSerializerOptions { WriteIndented = true }) + "\n");
    }
}
