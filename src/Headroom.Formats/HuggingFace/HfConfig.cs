using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;

namespace Headroom.Formats;

/// <summary>Hugging Face config.json, both the v4 (rope_theta, rope_scaling) and the v5 (rope_parameters) keys.</summary>
public static class HfConfig
{
    private static readonly Dictionary<string, string> Supported = new()
    {
        ["LlamaForCausalLM"] = "llama",
        ["MistralForCausalLM"] = "mistral",
        ["Qwen2ForCausalLM"] = "qwen2",
    };
    private const string SupportedText = "Supported: LlamaForCausalLM (Llama 2 and 3, TinyLlama, SmolLM2, DeepSeek-LLM), MistralForCausalLM (Mistral 7B), Qwen2ForCausalLM (Qwen2, Qwen2.5).";
    private static readonly string[] RopeTypes = ["default", "linear", "dynamic", "llama3", "yarn"];

    /// <summary>Reads a config.json file.</summary>
    public static ModelConfig Load(string path)
    {
        if (!File.Exists(path)) throw new HeadroomException($"There is no {path}.", "A Hugging Face model folder needs config.json.");
        return Parse(SideFile.ReadText(path), path);
    }

    /// <summary>Parses config.json; an architecture that is not supported is refused by name.</summary>
    public static ModelConfig Parse(string text, string path = "config.json")
    {
        JsonObject json;
        try
        {
            json = JsonNode.Parse(text) as JsonObject ?? throw new JsonException("not an object");
            return Read(json, path);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or FormatException or OverflowException or ArgumentException)
        {
            throw new HeadroomException($"{path} is not a valid config.json: {e.Message.Split('\n')[0]}", "Use the model's original file.");
        }
    }

    private static ModelConfig Read(JsonObject json, string path)
    {
        string? architecture = json["architectures"] is JsonArray { Count: > 0 } a ? (string?)a[0] : null;
        string? type = (string?)json["model_type"];
        architecture ??= Supported.FirstOrDefault(s => s.Value == type).Key ?? type ?? "(none)";
        if (!Supported.TryGetValue(architecture, out string? known))
            throw new HeadroomException($"The architecture {architecture} of {path} is not supported.", SupportedText);
        type ??= known;
        if (type != known) throw new FormatException($"model_type is {type}, but architectures names {architecture}");
        if ((string?)json["hidden_act"] is { } act and not ("silu" or "swish"))
            throw new HeadroomException($"The activation {act} of {path} is not supported.", "Supported: silu.");
        int Int(string key, int fallback) => json[key] is { } n ? (int)n.GetValue<double>() : fallback;
        bool Bool(string key, bool fallback) => json[key] is { } n ? n.GetValue<bool>() : fallback;
        int hidden = Int("hidden_size", 4096), heads = Int("num_attention_heads", 32);
        if (hidden <= 0 || heads <= 0) throw new FormatException("hidden_size and num_attention_heads must be positive");
        var rope = json["rope_parameters"] as JsonObject;
        var scaling = json["rope_scaling"] as JsonObject ?? rope;
        if ((double?)(rope?["partial_rotary_factor"] ?? json["partial_rotary_factor"]) is { } part and not 1)
            throw new HeadroomException($"partial_rotary_factor {part} of {path} is not supported.", "Supported: rotations of whole heads.");
        int kv = Int("num_key_value_heads", type == "mistral" ? 8 : heads);
        bool useWindow = type switch { "mistral" => true, "qwen2" => Bool("use_sliding_window", false), _ => false };
        int? window = useWindow && json["sliding_window"] is { } w ? w.GetValue<int>() : useWindow && !json.ContainsKey("sliding_window") ? 4096 : null;
        var config = new ModelConfig
        {
            ModelType = type,
            Architecture = architecture,
            VocabSize = Int("vocab_size", type == "qwen2" ? 151936 : 32000),
            HiddenSize = hidden,
            IntermediateSize = Int("intermediate_size", type switch { "qwen2" => 22016, "mistral" => 14336, _ => 11008 }),
            NumHiddenLayers = Int("num_hidden_layers", 32),
            NumAttentionHeads = heads,
            NumKeyValueHeads = kv,
            HeadDim = Int("head_dim", hidden / heads),
            MaxPositionEmbeddings = Int("max_position_embeddings", type switch { "qwen2" => 32768, "mistral" => 131072, _ => 2048 }),
            RmsNormEps = (float)((double?)json["rms_norm_eps"] ?? 1e-6),
            RopeTheta = (double?)(rope?["rope_theta"] ?? json["rope_theta"]) ?? 10000,
            RopeScaling = Scaling(scaling, path),
            TieWordEmbeddings = Bool("tie_word_embeddings", false),
            AttentionBias = type == "qwen2" || Bool("attention_bias", false),
            AttentionOutputBias = type != "qwen2" && Bool("attention_bias", false),
            MlpBias = type == "llama" && Bool("mlp_bias", false),
            SlidingWindow = window,
            FirstSlidingLayer = type == "qwen2" ? Int("max_window_layers", 28) : 0,
            SlidingLayers = json["layer_types"] is JsonArray types ? types.Select(t => (string?)t switch
            {
                "sliding_attention" => true,
                "full_attention" => false,
                var other => throw new HeadroomException($"The layer type {other} of {path} is not supported.", "Supported: full_attention, sliding_attention."),
            }).ToArray() : null,
            BosTokenId = TokenIds.One(json, "bos_token_id"),
            EosTokenIds = TokenIds.Many(json, "eos_token_id"),
            PadTokenId = TokenIds.One(json, "pad_token_id"),
            Quantized = Quantization(json["quantization_config"] as JsonObject, path),
        };
        Check(config);
        return config;
    }

    /// <summary>quantization_config (transformers <c>utils/quantization_config.py</c>): bitsandbytes nf4 is read, everything else is refused by its name.</summary>
    private static WeightStorage? Quantization(JsonObject? q, string path)
    {
        if (q == null) return null;
        bool Flag(string key) => (bool?)q[key] ?? (bool?)q["_" + key] ?? false;
        string method = (string?)q["quant_method"] ?? (Flag("load_in_4bit") || Flag("load_in_8bit") ? "bitsandbytes" : "(none)");
        string? bad = method != "bitsandbytes" ? method : Flag("load_in_8bit") ? "bitsandbytes int8" : !Flag("load_in_4bit") ? "bitsandbytes, neither 4 nor 8 bit"
            : (string?)q["bnb_4bit_quant_type"] is { } type and not "nf4" ? $"bitsandbytes {type}" : q["bnb_4bit_quant_type"] == null ? "bitsandbytes fp4" : null;
        if (bad != null) throw new HeadroomException($"The checkpoint of {path} is quantized with {bad}, which cannot be read.", "Use the 16-bit checkpoint, or a bitsandbytes one of type nf4.");
        return Flag("bnb_4bit_use_double_quant") ? WeightStorage.NF4Double : WeightStorage.NF4;
    }

    /// <summary>Throws when sizes are not those of a model.</summary>
    public static void Check(ModelConfig c)
    {
        void Need(bool ok, string what)
        {
            if (!ok) throw new FormatException(what);
        }
        Need(c.VocabSize is > 0 and < 1 << 24, "vocab_size is out of range");
        Need(c.HiddenSize is > 0 and < 1 << 20 && c.IntermediateSize is > 0 and < 1 << 22, "hidden_size or intermediate_size is out of range");
        Need(c.NumHiddenLayers is > 0 and < 4096 && c.NumKeyValueHeads > 0, "num_hidden_layers or num_key_value_heads is out of range");
        Need(c.NumAttentionHeads % c.NumKeyValueHeads == 0, "num_attention_heads is not a multiple of num_key_value_heads");
        Need(c.HeadDim is > 0 and <= 1024 && c.HeadDim % 2 == 0, "head_dim must be even");
        Need(c.RopeDivisors == null || c.RopeDivisors.Length == c.HeadDim / 2, "rope_freqs.weight does not have head_dim / 2 entries");
        Need(c.SlidingLayers == null || c.SlidingLayers.Length == c.NumHiddenLayers, "layer_types does not have one entry a layer");
    }

    private static RopeScaling? Scaling(JsonObject? s, string path)
    {
        string? type = (string?)(s?["rope_type"] ?? s?["type"]);
        if (s == null || type is null or "default") return null;
        if (!RopeTypes.Contains(type)) throw new HeadroomException($"The rope scaling '{type}' of {path} is not supported.", "Supported: " + string.Join(", ", RopeTypes) + ".");
        double factor = (double?)s["factor"] ?? throw new FormatException("rope scaling has no factor");
        if (!(factor > 0) || !double.IsFinite(factor)) throw new FormatException($"the factor of rope scaling is {factor}");
        double? attention = (double?)s["attention_factor"], m = (double?)s["mscale"], all = (double?)s["mscale_all_dim"];
        if (type == "yarn" && attention == null && m is > 0 && all is > 0)
            attention = factor > 1 ? (0.1 * m * Math.Log(factor) + 1) / (0.1 * all * Math.Log(factor) + 1) : 1;
        if (type == "yarn" && (bool?)s["truncate"] == false) throw new HeadroomException($"The yarn scaling of {path} does not truncate its bounds (truncate: false), which is not supported.", "Supported: truncate true, the default.");
        return new RopeScaling(type, factor, (double?)s["low_freq_factor"] ?? 1, (double?)s["high_freq_factor"] ?? 4,
            (int?)s["original_max_position_embeddings"], (double?)s["beta_fast"] ?? 32, (double?)s["beta_slow"] ?? 1, attention);
    }

    /// <summary>Writes a v4 config.json; <paramref name="dtype"/> is torch_dtype. Throws <see cref="HeadroomException"/> for what config.json cannot say.</summary>
    public static string Write(ModelConfig c, string dtype = "bfloat16")
    {
        var json = new JsonObject
        {
            ["architectures"] = new JsonArray(c.Architecture),
            ["attention_bias"] = c.AttentionBias,
            ["bos_token_id"] = c.BosTokenId,
            ["eos_token_id"] = c.EosTokenIds.Length == 1 ? c.EosTokenIds[0] : new JsonArray(c.EosTokenIds.Select(e => (JsonNode)e).ToArray()),
            ["head_dim"] = c.HeadDim,
            ["hidden_act"] = "silu",
            ["hidden_size"] = c.HiddenSize,
            ["initializer_range"] = 0.02,
            ["intermediate_size"] = c.IntermediateSize,
            ["max_position_embeddings"] = c.MaxPositionEmbeddings,
            ["max_window_layers"] = c.ModelType == "qwen2" ? c.FirstSlidingLayer : null,
            ["mlp_bias"] = c.ModelType == "llama" ? c.MlpBias : null,
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
        if ((c.RopeDivisors is { } divisors ? Llama3Scaling(c, divisors) : c.RopeScaling) is { } rope) json["rope_scaling"] = Scaling(rope);
        if (c.SlidingWindow is { } window)
        {
            json["sliding_window"] = window;
            if (c.ModelType == "qwen2") json["use_sliding_window"] = true;
            if (c.ModelType == "qwen2") json["max_window_layers"] = c.FirstSlidingLayer;
        }
        else if (c.ModelType == "mistral") json["sliding_window"] = null;
        if (c.SlidingLayers is { } slides) json["layer_types"] = new JsonArray(slides.Select(s => (JsonNode)(s ? "sliding_attention" : "full_attention")).ToArray());
        return json.ToJsonString(new JsonSerializerOptions { WriteIndented = true }) + "\n";
    }

    private static JsonObject Scaling(RopeScaling s)
    {
        var json = new JsonObject { ["rope_type"] = s.Type, ["factor"] = s.Factor };
        if (s.Type == "llama3") (json["low_freq_factor"], json["high_freq_factor"]) = (s.LowFreqFactor, s.HighFreqFactor);
        if (s.Type == "yarn") (json["beta_fast"], json["beta_slow"]) = (s.BetaFast, s.BetaSlow);
        if (s.AttentionFactor is { } factor) json["attention_factor"] = factor;
        if (s.OriginalMaxPositionEmbeddings is { } original) json["original_max_position_embeddings"] = original;
        return json;
    }

    // GGUF holds Llama 3's scaling as divisors; the settings of the models that exist (low 1, high 4, 8192 positions before scaling) are tried against them.
    private static RopeScaling Llama3Scaling(ModelConfig c, float[] divisors)
    {
        var guess = new RopeScaling("llama3", divisors.Max(), 1, 4, 8192);
        float[] plain = (c with { RopeDivisors = null, RopeScaling = null }).InverseFrequencies(out _), scaled = (c with { RopeDivisors = null, RopeScaling = guess }).InverseFrequencies(out _);
        for (int i = 0; i < divisors.Length; i++)
            if (Math.Abs(plain[i] / divisors[i] - scaled[i]) > 1e-5 * scaled[i])
                throw new HeadroomException("The rope_freqs.weight of this GGUF file are not those of a rope_scaling of type llama3 (low_freq_factor 1, high_freq_factor 4, 8192 positions).", "Export from the model's Hugging Face folder, or to GGUF.");
        return guess;
    }
}
