using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Core.Families;

namespace Headroom.Formats.HuggingFace;

/// <summary>
/// Hugging Face config.json, both the v4 (rope_theta, rope_scaling) and the v5 (rope_parameters) keys.
/// </summary>
internal static class HfConfig
{
    private static readonly string[] RopeTypes = ["default", "linear", "dynamic", "llama3", "yarn"];

    /// <summary>Reads a config.json file.</summary>
    public static ModelConfig Load(string path)
    {
        RegularFile.Check(path);
        if (!File.Exists(path))
            throw new HeadroomException($"There is no {path}.", "A Hugging Face model folder needs config.json.");
        return Parse(SideFile.ReadText(path), path);
    }

    /// <summary>Parses config.json; an architecture that is not supported is refused by name.</summary>
    public static ModelConfig Parse(string text, string path = "config.json")
    {
        JsonObject json;
        try
        {
            json = JsonNode.Parse(text) as JsonObject ?? throw new JsonException("not an object");
            Finite(json, "");
            return Read(json, path);
        }
        catch (Exception e) when (Malformed.Is(e))
        {
            throw new HeadroomException(
                $"{path} is not a valid config.json: {e.Message.Split('\n')[0]}", "Use the model's original file.");
        }
    }

    // JSON has no infinity, but 1e400 is read as one.
    private static void Finite(JsonNode? node, string key)
    {
        if (node is JsonObject all)
            foreach (var (name, value) in all) Finite(value, name);
        else if (node is JsonArray list)
            foreach (var value in list) Finite(value, key);
        else if (node?.GetValueKind() == JsonValueKind.Number && !double.IsFinite(node.GetValue<double>()))
            throw new FormatException($"{key} is not finite");
    }

    private static ModelFamily Family(JsonObject json, string path)
    {
        string? architecture = json["architectures"] is JsonArray { Count: > 0 } a ? (string?)a[0] : null;
        string? type = json.Text("model_type");
        var family = architecture != null ? ModelFamilies.OfArchitecture(architecture)
            : ModelFamilies.All.FirstOrDefault(f => f.ModelType == type);
        if (family == null)
            throw new HeadroomException(
                $"The architecture {architecture ?? type ?? "(none)"} of {path} is not supported.",
                ModelFamilies.SupportedArchitectures);
        if (type != null && type != family.ModelType)
            throw new FormatException($"model_type is {type}, but architectures names {architecture}");
        if (json.Text("hidden_act") is { } act and not ("silu" or "swish"))
            throw new HeadroomException($"The activation {act} (hidden_act) of {path} is not supported.",
                "Supported: silu.");
        return family;
    }

    private static (bool Attention, bool Mlp) Biases(JsonObject json, ModelFamily family, string path)
    {
        // Some classes have no such switches: whoever set them means another model.
        bool bias = json.Flag("attention_bias") ?? false, mlpBias = json.Flag("mlp_bias") ?? false;
        if (bias && family is { QkvBias: BiasRule.Never, OutputBias: BiasRule.Never })
            throw ConfigKeys.NotBuilt("attention_bias", json["attention_bias"], path);
        if (mlpBias && family.MlpBias == BiasRule.Never)
            throw ConfigKeys.NotBuilt("mlp_bias", json["mlp_bias"], path);
        return (bias, mlpBias);
    }

    private static int? Window(JsonObject json, ModelFamily family)
    {
        bool slides = family.Window == WindowRule.Always
            || family.Window == WindowRule.BySwitch && json.Flag("use_sliding_window") == true;
        return !slides ? null : json.Whole("sliding_window")
            ?? (json.ContainsKey("sliding_window") ? null : family.Defaults.SlidingWindow);
    }

    private static bool[]? SlidingLayers(JsonObject json, string path) =>
        json["layer_types"] is JsonArray types ? types.Select(t => (string?)t switch
        {
            "sliding_attention" => true,
            "full_attention" => false,
            var other => throw new HeadroomException(
                $"The layer type {other} of {path} is not supported.",
                "Supported: full_attention, sliding_attention."),
        }).ToArray() : null;

    private static ModelConfig Read(JsonObject json, string path)
    {
        var family = Family(json, path);
        var defaults = family.Defaults;
        double Number(string key, double fallback) => json.Number(key) ?? fallback;
        int Int(string key, int fallback) => json.Whole(key) ?? fallback;
        bool Bool(string key, bool fallback) => json.Flag(key) ?? fallback;
        int hidden = Int("hidden_size", defaults.HiddenSize),
            heads = Int("num_attention_heads", defaults.NumAttentionHeads);
        ModelRanges.Whole("hidden_size", hidden);
        ModelRanges.Whole("num_attention_heads", heads);
        var rope = Rope(json, path);
        if ((rope?.Number("partial_rotary_factor") ?? json.Number("partial_rotary_factor")) is { } part and not 1)
            throw new HeadroomException(
                $"partial_rotary_factor {part} of {path} is not supported.", "Supported: rotations of whole heads.");
        // The class's own number where the key is absent; null means one for each head.
        int kv = Int("num_key_value_heads",
            json.ContainsKey("num_key_value_heads") ? heads : defaults.NumKeyValueHeads ?? heads);
        var (bias, mlpBias) = Biases(json, family, path);
        var config = new ModelConfig
        {
            ModelType = family.ModelType,
            Architecture = family.Architecture,
            VocabSize = Int("vocab_size", defaults.VocabSize),
            HiddenSize = hidden,
            IntermediateSize = Int("intermediate_size", defaults.IntermediateSize),
            NumHiddenLayers = Int("num_hidden_layers", defaults.NumHiddenLayers),
            NumAttentionHeads = heads,
            NumKeyValueHeads = kv,
            HeadDim = Int("head_dim", defaults.HeadDim ?? hidden / heads),
            MaxPositionEmbeddings = Int("max_position_embeddings", defaults.MaxPositionEmbeddings),
            RmsNormEps = (float)Number("rms_norm_eps", defaults.RmsNormEps),
            RopeTheta = rope?.Number("rope_theta") ?? Number("rope_theta", defaults.RopeTheta),
            RopeScaling = Scaling(rope, path),
            TieWordEmbeddings = Bool("tie_word_embeddings", false),
            AttentionBias = family.QkvBias == BiasRule.Always || bias,
            AttentionOutputBias = family.OutputBias == BiasRule.ByKey && bias,
            MlpBias = mlpBias,
            SlidingWindow = Window(json, family),
            FirstSlidingLayer =
                family.Window == WindowRule.BySwitch ? Int("max_window_layers", defaults.MaxWindowLayers) : 0,
            SlidingLayers = SlidingLayers(json, path),
            BosTokenId = TokenIds.One(json, "bos_token_id"),
            EosTokenIds = TokenIds.Many(json, "eos_token_id"),
            PadTokenId = TokenIds.One(json, "pad_token_id"),
            Quantized = Quantization(json["quantization_config"] as JsonObject, path),
        };
        Check(config);
        // A class without a window; other programs take this for one.
        if (family.Window == WindowRule.Never && config.SlidingLayers?.Contains(true) == true)
            throw ConfigKeys.NotBuilt("layer_types", json["layer_types"], path);
        ConfigKeys.Check(json, config, path);
        return config;
    }

    /// <summary>
    /// Keys of a config.json that are neither read nor known to change nothing, with their values as JSON.
    /// </summary>
    /// <param name="text">The text of a file that <see cref="Parse"/> takes.</param>
    public static IReadOnlyList<(string Key, string Value)> Unknown(string text) =>
        ConfigKeys.Unknown((JsonObject)JsonNode.Parse(text)!);

    /// <summary>
    /// Lines for the user on what of a config.json is not applied in training: dropout of the base's own modules.
    /// </summary>
    /// <param name="text">The text of a file that <see cref="Parse"/> takes.</param>
    public static IReadOnlyList<string> Notices(string text) => ConfigKeys.Notices((JsonObject)JsonNode.Parse(text)!);

    /// <summary>
    /// quantization_config (transformers <c>utils/quantization_config.py</c>): bitsandbytes nf4 is read, everything
    /// else is refused by its name.
    /// </summary>
    private static WeightStorage? Quantization(JsonObject? q, string path)
    {
        if (q == null) return null;
        bool Flag(string key) => q.Flag(key) ?? q.Flag("_" + key) ?? false;
        string method = q.Text("quant_method")
            ?? (Flag("load_in_4bit") || Flag("load_in_8bit") ? "bitsandbytes" : "(none)");
        string? bad =
            method != "bitsandbytes" ? method
            : Flag("load_in_8bit") ? "bitsandbytes int8"
            : !Flag("load_in_4bit") ? "bitsandbytes, neither 4 nor 8 bit"
            : q.Text("bnb_4bit_quant_type") is { } type and not "nf4" ? $"bitsandbytes {type}"
            : q["bnb_4bit_quant_type"] == null ? "bitsandbytes fp4"
            : null;
        if (bad != null)
            throw new HeadroomException(
                $"The checkpoint of {path} is quantized with {bad}, which cannot be read.",
                "Use the 16-bit checkpoint, or a bitsandbytes one of type nf4.");
        return Flag("bnb_4bit_use_double_quant") ? WeightStorage.NF4Double : WeightStorage.NF4;
    }

    /// <summary>Throws when sizes are not those of a model.</summary>
    public static void Check(ModelConfig c)
    {
        void Need(bool ok, string what)
        {
            if (!ok) throw new FormatException(what);
        }
        ModelRanges.Check(c);
        Need(
            c.NumAttentionHeads % c.NumKeyValueHeads == 0,
            "num_attention_heads is not a multiple of num_key_value_heads");
        Need(c.HeadDim % 2 == 0, $"head_dim is {c.HeadDim}, it must be even");
        Need(
            c.RopeDivisors == null || c.RopeDivisors.Length == c.HeadDim / 2,
            "rope_freqs.weight does not have head_dim / 2 entries");
        Need(
            c.SlidingLayers == null || c.SlidingLayers.Length == c.NumHiddenLayers,
            "layer_types does not have one entry a layer");
    }

    private static readonly string[] RopeKeys =
    [
        "rope_type", "type", "rope_theta", "partial_rotary_factor", "factor", "original_max_position_embeddings",
        "attention_factor", "beta_fast", "beta_slow",
        "mscale", "mscale_all_dim", "truncate", "low_freq_factor", "high_freq_factor", "finetuned",
    ];

    /// <summary>
    /// The one object that says how positions rotate (transformers <c>modeling_rope_utils.py</c>): rope_scaling, or
    /// rope_parameters of newer files.
    /// </summary>
    private static JsonObject? Rope(JsonObject json, string path)
    {
        JsonObject? Section(string key) => json[key] switch
        {
            null => null,
            JsonObject o => o.Count > 0 ? o : null,
            var other => throw ConfigKeys.NotBuilt(key, other, path),
        };
        JsonObject? scaling = Section("rope_scaling"), parameters = Section("rope_parameters");
        if (scaling != null && parameters != null && !SameRope(scaling, parameters))
            throw new HeadroomException($"rope_scaling and rope_parameters of {path} differ.",
                "Remove the one that is wrong.");
        if (scaling != null && parameters != null)
        {
            scaling = (JsonObject)scaling.DeepClone();
            foreach (string key in BesideScaling) scaling[key] ??= parameters[key]?.DeepClone();
        }
        var rope = scaling ?? parameters;
        string name = scaling != null ? "rope_scaling" : "rope_parameters";
        foreach (var (key, value) in rope ?? [])
            if (!RopeKeys.Contains(key) && !ConfigKeys.Nothing(value))
                throw ConfigKeys.NotBuilt($"{name}.{key}", value, path);
        foreach (var odd in (JsonNode?[])[json["rope_theta"], rope?["rope_theta"]])
            if (odd is not (null or JsonValue)) throw ConfigKeys.NotBuilt("rope_theta", odd, path);
        if (rope?.Number("rope_theta") is { } inner && json.Number("rope_theta") is { } outer && inner != outer)
            throw new HeadroomException($"rope_theta of {path} is {outer}, but {inner} in {name}.",
                "Remove the one that is wrong.");
        return rope;
    }

    // What newer files hold in rope_parameters, and older ones beside rope_scaling.
    private static readonly string[] BesideScaling = ["rope_theta", "partial_rotary_factor"];

    // A file for old and new readers says everything twice: the same numbers, the type under either of its names.
    private static bool SameRope(JsonObject a, JsonObject b)
    {
        JsonNode? Value(JsonObject o, string key) => key == "rope_type" ? o[key] ?? o["type"] : o[key];
        bool Same(string key) => (Value(a, key), Value(b, key)) is var (x, y)
            && (JsonNode.DeepEquals(x, y) || BesideScaling.Contains(key) && (x == null || y == null));
        return a.Concat(b).Select(p => p.Key == "type" ? "rope_type" : p.Key).All(Same);
    }

    private static RopeScaling? Scaling(JsonObject? s, string path)
    {
        string? type = s?.Text("rope_type") ?? s?.Text("type");
        bool Scales(string key) => key is not ("rope_theta" or "partial_rotary_factor" or "finetuned");
        if (type == null && s?.FirstOrDefault(p => p.Value != null && Scales(p.Key)) is { Value: { } value } odd)
            throw new HeadroomException(
                $"The rope scaling of {path} has no rope_type, but {odd.Key} is {JsonValues.Shown(value)}.",
                "Add the rope_type that the model was made with: " + string.Join(", ", RopeTypes) + ".");
        if (s == null || type is null or "default") return null;
        if (!RopeTypes.Contains(type))
            throw new HeadroomException(
                $"The rope scaling '{type}' of {path} is not supported.",
                "Supported: " + string.Join(", ", RopeTypes) + ".");
        double Need(string key) => s.Number(key)
            ?? throw new FormatException($"rope scaling of type {type} has no {key}");
        double factor = Need("factor");
        if (!(factor > 0) || !double.IsFinite(factor))
            throw new FormatException($"the factor of rope scaling is {factor}");
        int? original = s.Whole("original_max_position_embeddings");
        if (type == "llama3")
            return new RopeScaling(type, factor, Need("low_freq_factor"), Need("high_freq_factor"),
                original ?? (int)Need("original_max_position_embeddings"));
        // attention_factor counts with yarn alone.
        if (type != "yarn") return new RopeScaling(type, factor, OriginalMaxPositionEmbeddings: original);
        double? attention = s.Number("attention_factor"), m = s.Number("mscale"), all = s.Number("mscale_all_dim");
        if (attention == null && m is > 0 && all is > 0)
            attention = RopeScaling.AttentionScale(factor, m.Value) / RopeScaling.AttentionScale(factor, all.Value);
        if (s.Flag("truncate") == false)
            throw new HeadroomException(
                $"The yarn scaling of {path} does not truncate its bounds (truncate: false), which is not supported.",
                "Supported: truncate true, the default.");
        double Beta(string key, double fallback) => s.Number(key) is { } b && b != 0 ? b : fallback;
        return new RopeScaling(type, factor, OriginalMaxPositionEmbeddings: original, BetaFast: Beta("beta_fast", 32),
            BetaSlow: Beta("beta_slow", 1), AttentionFactor: attention);
    }

    /// <summary>
    /// Writes a v4 config.json; <paramref name="dtype"/> is torch_dtype. Throws <see cref="HeadroomException"/> for
    /// what config.json cannot say.
    /// </summary>
    public static string Write(ModelConfig c, string dtype = "bfloat16")
    {
        bool bySwitch = c.Family.Window == WindowRule.BySwitch;
        var json = new JsonObject
        {
            ["architectures"] = new JsonArray(c.Architecture),
            ["attention_bias"] = c.AttentionBias,
            ["bos_token_id"] = c.BosTokenId,
            ["eos_token_id"] =
                c.EosTokenIds.Length == 1
                    ? c.EosTokenIds[0]
                    : new JsonArray(c.EosTokenIds.Select(e => (JsonNode)e).ToArray()),
            ["head_dim"] = c.HeadDim,
            ["hidden_act"] = "silu",
            ["hidden_size"] = c.HiddenSize,
            ["initializer_range"] = 0.02,
            ["intermediate_size"] = c.IntermediateSize,
            ["max_position_embeddings"] = c.MaxPositionEmbeddings,
            ["max_window_layers"] = bySwitch ? c.FirstSlidingLayer : null,
            ["mlp_bias"] = c.Family.MlpBias == BiasRule.ByKey ? c.MlpBias : null,
            ["model_type"] = c.ModelType,
            ["num_attention_heads"] = c.NumAttentionHeads,
            ["num_hidden_layers"] = c.NumHiddenLayers,
            ["num_key_value_heads"] = c.NumKeyValueHeads,
            ["rms_norm_eps"] = (double)(decimal)c.RmsNormEps,
            ["rope_theta"] = c.RopeTheta,
            ["tie_word_embeddings"] = c.TieWordEmbeddings,
            ["torch_dtype"] = dtype,
            ["vocab_size"] = c.VocabSize,
        };
        if (c.MlpBias) json["mlp_bias"] = true;
        if (c.PadTokenId is { } pad) json["pad_token_id"] = pad;
        if ((c.RopeDivisors is { } divisors ? Llama3Scaling(c, divisors) : c.RopeScaling) is { } rope)
            json["rope_scaling"] = Scaling(rope);
        if (c.SlidingWindow is { } window)
        {
            json["sliding_window"] = window;
            if (bySwitch) json["use_sliding_window"] = true;
        }
        else if (c.Family.Window == WindowRule.Always) json["sliding_window"] = null;
        if (c.SlidingLayers is { } slides)
            json["layer_types"] = new JsonArray(
                slides.Select(s => (JsonNode)(s ? "sliding_attention" : "full_attention")).ToArray());
        return json.ToJsonString(new JsonSerializerOptions { WriteIndented = true }) + "\n";
    }

    private static JsonObject Scaling(RopeScaling s)
    {
        if (s.Type != "yarn" && s.AttentionFactor is { } scale and not 1)
            throw new HeadroomException($"The rotations are multiplied by {scale} (rope.scaling.attn_factor), which "
                + $"config.json cannot say for scaling of type {s.Type}.", "Export to GGUF.");
        var json = new JsonObject { ["rope_type"] = s.Type, ["factor"] = s.Factor };
        if (s.Type == "llama3")
            (json["low_freq_factor"], json["high_freq_factor"]) = (s.LowFreqFactor, s.HighFreqFactor);
        if (s.Type == "yarn") (json["beta_fast"], json["beta_slow"]) = (s.BetaFast, s.BetaSlow);
        if (s.AttentionFactor is { } factor) json["attention_factor"] = factor;
        if (s.OriginalMaxPositionEmbeddings is { } original) json["original_max_position_embeddings"] = original;
        return json;
    }

    // GGUF holds Llama 3's scaling as divisors; the settings of the models that exist (low 1, high 4, 8192 positions
    // before scaling) are tried against them.
    private static RopeScaling Llama3Scaling(ModelConfig c, float[] divisors)
    {
        var guess = new RopeScaling("llama3", divisors.Max(), 1, 4, 8192);
        float[] plain = (c with { RopeDivisors = null, RopeScaling = null }).InverseFrequencies(out _),
            scaled = (c with { RopeDivisors = null, RopeScaling = guess }).InverseFrequencies(out _);
        for (int i = 0; i < divisors.Length; i++)
            if (Math.Abs(plain[i] / divisors[i] - scaled[i]) > 1e-5 * scaled[i])
                throw new HeadroomException(
                    "The rope_freqs.weight of this GGUF file are not those of a rope_scaling of type llama3 "
                        + "(low_freq_factor 1, high_freq_factor 4, 8192 positions).",
                    "Export from the model's Hugging Face folder, or to GGUF.");
        return guess;
    }
}
