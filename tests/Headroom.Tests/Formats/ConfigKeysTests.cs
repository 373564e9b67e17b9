using System.Text.Json.Nodes;
using CsCheck;
using Headroom.Core;
using Headroom.Formats.Gguf;
using Headroom.Formats.HuggingFace;

namespace Headroom.Tests.Formats;

/// <summary>
/// Keys of config.json that change the computation and are not built: refused by name with their value, unless that
/// says "not used".
/// </summary>
public class ConfigKeysTests
{
    private const int Hidden = 64, Layers = 4;

    private static JsonObject File(string architecture = "LlamaForCausalLM") => new()
    {
        ["architectures"] = new JsonArray(architecture),
        ["hidden_size"] = Hidden,
        ["intermediate_size"] = 128,
        ["num_hidden_layers"] = Layers,
        ["num_attention_heads"] = 4,
        ["num_key_value_heads"] = 2,
        ["vocab_size"] = 100,
        ["rms_norm_eps"] = 1e-5,
        ["max_position_embeddings"] = 512,
    };

    private static string With(JsonObject file, string key, string value)
    {
        file = (JsonObject)file.DeepClone();
        file[key] = JsonNode.Parse(value);
        return file.ToJsonString();
    }

    /// <summary>Key, a value at which it is not used, and one at which it is.</summary>
    public static TheoryData<string, string, string> Keys => new()
    {
        { "no_rope_layers", "[1, 1, 1, 1]", "[1, 1, 1, 0]" },
        { "no_rope_layer_interval", "null", "4" },
        { "residual_multiplier", "1.0", "0.22" },
        { "embedding_multiplier", "1", "12.0" },
        { "attention_multiplier", "0.25", "0.0625" },
        { "logits_scaling", "1.0", "8.0" },
        { "logit_scale", "1.0", "0.0625" },
        { "clip_qkv", "null", "8.0" },
        { "attn_logit_softcapping", "null", "50.0" },
        { "final_logit_softcapping", "null", "30.0" },
        { "query_pre_attn_scalar", "16", "24" },
        { "partial_rotary_factor", "1.0", "0.5" },
        { "rotary_pct", "1", "0.25" },
        { "use_qk_norm", "false", "true" },
        { "qk_layernorm", "false", "true" },
        { "hidden_act", "\"silu\"", "\"gelu\"" },
        { "hidden_activation", "\"silu\"", "\"gelu_pytorch_tanh\"" },
        { "num_experts", "0", "8" },
        { "num_local_experts", "0", "4" },
        { "n_routed_experts", "null", "64" },
        { "kv_lora_rank", "null", "512" },
        { "rope_interleaved", "false", "true" },
        { "use_mrope", "false", "true" },
        { "rope_local_base_freq", "null", "10000.0" },
        { "rope_scaling", "null", "{\"factor\": 2.0}" },
        { "rope_scaling", "{}", "2.0" },
        { "rope_scaling", "{\"rope_type\": \"default\"}",
        "{\"rope_type\": \"default\", \"mrope_section\": [2, 3, 3]}" },
        { "rope_parameters", "{\"rope_theta\": 10000.0}",
        "{\"full_attention\": {\"rope_theta\": 1e6}, \"sliding_attention\": {\"rope_theta\": 1e4}}" },
        { "layer_types", "[\"full_attention\", \"full_attention\", \"full_attention\", \"full_attention\"]",
        "[\"sliding_attention\", \"full_attention\", \"full_attention\", \"full_attention\"]" },
        { "per_layer_config", "{}", "{\"1\": {\"head_dim\": 8}}" },
        { "parallel_attn", "false", "true" },
        { "use_parallel_residual", "false", "true" },
        { "alibi", "false", "true" },
        { "is_causal", "true", "false" },
        { "sliding_window_pattern", "null", "6" },
        { "attention_chunk_size", "null", "128" },
        { "lm_head_bias", "false", "true" },
        { "qkv_bias", "false", "true" },
        { "v_head_dim", "16", "24" },
        { "scale_emb", "1", "12" },
        { "scale_depth", "2", "1.4" },
        { "dim_model_base", "64", "256" },
    };

    [Theory, MemberData(nameof(Keys))]
    public void PassesWhereItIsNotUsedAndIsNamedWhereItIs(string key, string unused, string used)
    {
        var plain = HfConfig.Parse(File().ToJsonString());
        Assert.Equal(plain, HfConfig.Parse(With(File(), key, unused)) with { SlidingLayers = null });
        var e = Assert.Throws<HeadroomException>(() => HfConfig.Parse(With(File(), key, used), "x/config.json"));
        Assert.Contains(key == "rope_scaling" && used.StartsWith("{\"factor", StringComparison.Ordinal)
            ? "no rope_type" : key, e.Message, StringComparison.Ordinal);
        Assert.Contains("x/config.json", e.Message, StringComparison.Ordinal);
        Assert.Equal(2, e.ExitCode);
    }

    /// <summary>
    /// Any mixture of keys that are not used is the plain model; one that is used among them is found, wherever it
    /// stands.
    /// </summary>
    [Fact]
    public void AnyMixture()
    {
        var all = Keys.Select(k => k.Data)
            .Where(k => k.Item1 is not ("rope_scaling" or "rope_parameters" or "layer_types")).ToArray();
        var plain = HfConfig.Parse(File().ToJsonString());
        Gen.Select(Gen.Shuffle(all, 1, all.Length), Gen.Int[0, all.Length * 2],
            Gen.OneOf("llama", "mistral", "qwen2")).Sample((some, used, type) =>
        {
            var file = File(type switch
            {
                "llama" => "LlamaForCausalLM",
                "mistral" => "MistralForCausalLM",
                _ =>
                "Qwen2ForCausalLM"
            });
            var same = HfConfig.Parse(file.ToJsonString());
            for (int i = 0; i < some.Length; i++) file[some[i].Item1] = JsonNode.Parse(i == used ? some[i].Item3
                : some[i].Item2);
            if (used >= some.Length || some[used].Item1 == "qkv_bias" && type == "qwen2")
                Assert.Equal(same, HfConfig.Parse(file.ToJsonString()) with { SlidingLayers = null });
            else if (some[used].Item1 != "no_rope_layer_interval" || !file.ContainsKey("no_rope_layers"))
                Assert.Contains(some[used].Item1,
                    Assert.Throws<HeadroomException>(() => HfConfig.Parse(file.ToJsonString())).Message,
                    StringComparison.Ordinal);
        }, iter: 300, threads: 1);
        Assert.Equal("llama", plain.ModelType);
    }

    /// <summary>A name that was never heard of, but speaks of the computation.</summary>
    [Theory]
    [InlineData("my_residual_multiplier", "3"), InlineData("layer_rope_theta", "[1e4, 1e6]"),
        InlineData("router_logit_softcapping", "2.5"), InlineData("use_attention_sink", "true")]
    public void NamesThatSpeakOfTheComputation(string key, string value) =>
        Assert.Contains(key, Assert.Throws<HeadroomException>(() => HfConfig.Parse(With(File(), key, value))).Message,
            StringComparison.Ordinal);

    [Fact]
    public void OthersAreShown()
    {
        string text = With(File(), "flavour", "\"vanilla\"");
        HfConfig.Parse(text);
        Assert.Equal([("flavour", "\"vanilla\"")], HfConfig.Unknown(text));
        Assert.Empty(HfConfig.Unknown(With(File(), "_name_or_path", "\"x\"")));
        Assert.Empty(HfConfig.Notices(With(File(), "attention_dropout", "0.0")));
        Assert.Contains("sliding_window is 32", Assert.Single(HfConfig.Notices(With(File(), "sliding_window", "32"))),
            StringComparison.Ordinal);
        Assert.Empty(HfConfig.Notices(With(File("MistralForCausalLM"), "sliding_window", "32")));
        Assert.Contains("attention_dropout is 0.1",
            Assert.Single(HfConfig.Notices(With(File(), "attention_dropout", "0.1"))), StringComparison.Ordinal);
    }

    /// <summary>What the classes of transformers take where a key is absent, or null.</summary>
    [Theory]
    [InlineData("LlamaForCausalLM", false, 64), InlineData("LlamaForCausalLM", true, 64)]
    [InlineData("MistralForCausalLM", false, 8), InlineData("MistralForCausalLM", true, 64)]
    [InlineData("Qwen2ForCausalLM", false, 32), InlineData("Qwen2ForCausalLM", true, 64)]
    public void DefaultsOfTheClasses(string architecture, bool given, int keys)
    {
        var file = new JsonObject { ["architectures"] = new JsonArray(architecture), ["num_attention_heads"] = 64 };
        if (given) file["num_key_value_heads"] = null;
        var c = HfConfig.Parse(file.ToJsonString());
        Assert.Equal((keys, 64, 4096, 32, 1e-6f, 10000.0, false),
            (c.NumKeyValueHeads, c.HeadDim, c.HiddenSize, c.NumHiddenLayers, c.RmsNormEps, c.RopeTheta,
            c.TieWordEmbeddings));
        Assert.Equal(architecture[0] switch
        {
            'L' => (32000, 11008, 2048),
            'M' => (32000, 14336, 131072),
            _ =>
            (151936, 22016, 32768)
        }, (c.VocabSize, c.IntermediateSize, c.MaxPositionEmbeddings));
        Assert.Equal(architecture[0] == 'M' ? 4096 : null, c.SlidingWindow);
    }

    [Theory]
    [InlineData("MistralForCausalLM", "attention_bias"), InlineData("MistralForCausalLM", "mlp_bias"),
        InlineData("Qwen2ForCausalLM", "mlp_bias")]
    public void BiasesThatAClassDoesNotHave(string architecture, string key) =>
        Assert.Contains(key, Assert.Throws<HeadroomException>(() =>
            HfConfig.Parse(With(File(architecture), key, "true"))).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData("hidden_size", "64.5"), InlineData("num_hidden_layers", "1e300"), InlineData("head_dim", "\"16\""),
        InlineData("num_key_value_heads", "[2, 4]"), InlineData("rope_theta", "[1e4, 1e6]")]
    [InlineData("rms_norm_eps", "\"small\""), InlineData("tie_word_embeddings", "\"yes\""),
        InlineData("num_key_value_heads_per_layer", "[2, 2]")]
    public void ValuesOfAnotherKindAreNamed(string key, string value) =>
        Assert.Contains(key + " ", Assert.Throws<HeadroomException>(() =>
            HfConfig.Parse(With(File(), key, value))).Message, StringComparison.Ordinal);

    [Fact]
    public void TwoAnswersToOneQuestionAreRefused()
    {
        var file = File();
        file["rope_scaling"] = JsonNode.Parse("{\"rope_type\": \"linear\", \"factor\": 2}");
        file["rope_parameters"] = JsonNode.Parse("{\"rope_type\": \"linear\", \"factor\": 4, \"rope_theta\": 10000}");
        Assert.Contains("differ", Assert.Throws<HeadroomException>(() => HfConfig.Parse(file.ToJsonString())).Message,
            StringComparison.Ordinal);
        file.Remove("rope_scaling");
        file["rope_theta"] = 500000;
        Assert.Contains("rope_theta",
            Assert.Throws<HeadroomException>(() => HfConfig.Parse(file.ToJsonString())).Message,
            StringComparison.Ordinal);
        file["rope_theta"] = 1e4;
        Assert.Equal(4, HfConfig.Parse(file.ToJsonString()).RopeScaling!.Factor);
    }

    /// <summary>Families that are not built are refused by their own name.</summary>
    [Theory]
    [InlineData("deepseek-v2", "DeepseekV2"), InlineData("gemma2", "Gemma2"), InlineData("gemma3", "Gemma3"),
        InlineData("glm4", "Glm4"), InlineData("gpt-oss", "GptOss")]
    [InlineData("granite", "Granite"), InlineData("mixtral", "Mixtral"), InlineData("olmo2", "Olmo2"),
        InlineData("phi3", "Phi3"), InlineData("phi4-mini", "Phi3")]
    [InlineData("qwen3-moe", "Qwen3Moe"), InlineData("smollm3", "SmolLM3")]
    public void OtherFamilies(string folder, string name) =>
        Assert.Contains(
            name,
            Assert.Throws<HeadroomException>(() => WeightSources.Open(Shared.GoldenFile("families/" + folder))).Message,
            StringComparison.Ordinal);

    /// <summary>
    /// The same files under a name that is built: what is different about them is found by a key or by a tensor.
    /// </summary>
    [Theory]
    [InlineData("deepseek-v2", "kv_lora_rank"), InlineData("gemma2", "layer_types"),
        InlineData("gemma3", "rope_parameters.full_attention"), InlineData("glm4", "partial_rotary_factor")]
    [InlineData("gpt-oss", "truncate"), InlineData("granite", "attention_multiplier"),
        InlineData("mixtral", "num_experts_per_tok"), InlineData("olmo2", "k_norm.weight")]
    [InlineData("phi3", "qkv_proj.weight"), InlineData("phi4-mini", "partial_rotary_factor"),
        InlineData("qwen3", "k_norm.weight"), InlineData("qwen3-moe", "moe")]
    [InlineData("smollm3", "no_rope_layer")]
    public void OtherFamiliesUnderALlamasName(string folder, string says)
    {
        string from = Shared.GoldenFile("families/" + folder);
        using var temp = new TempFolder();
        var file = (JsonObject)JsonNode.Parse(System.IO.File.ReadAllText(Path.Combine(from, "config.json")))!;
        (file["architectures"], file["model_type"]) = (new JsonArray("LlamaForCausalLM"), "llama");
        System.IO.File.WriteAllText(Path.Combine(temp.Path, "config.json"), file.ToJsonString());
        System.IO.File.CreateSymbolicLink(Path.Combine(temp.Path, "model.safetensors"),
            Path.Combine(from, "model.safetensors"));
        var e = Assert.Throws<HeadroomException>(() => WeightSources.Open(temp.Path));
        Assert.Contains(says, e.Message, StringComparison.Ordinal);
    }
}
