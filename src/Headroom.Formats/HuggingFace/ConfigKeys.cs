using System.Collections.Frozen;
using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Core.Families;

namespace Headroom.Formats.HuggingFace;

/// <summary>
/// What is known of the keys of a config.json: those that are read, those that change nothing, and those that change
/// the computation in a way that is not built, which pass only at the value that means "not used". A key that is none
/// of these is unknown; <c>headroom inspect</c> shows it.
/// </summary>
internal static class ConfigKeys
{
    /// <summary>
    /// True when a value of a key means that it is not used; the whole file and what was read of it decide too.
    /// </summary>
    private delegate bool Unused(JsonNode value, JsonObject file, ModelConfig read);

    /// <summary>Keys that <see cref="HfConfig"/> reads.</summary>
    private static readonly FrozenSet<string> Read = FrozenSet.Create(
        "architectures", "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings",
        "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor",
        "tie_word_embeddings", "attention_bias", "mlp_bias", "sliding_window", "use_sliding_window",
        "max_window_layers", "layer_types", "bos_token_id", "eos_token_id", "pad_token_id", "quantization_config");

    /// <summary>
    /// Keys that change nothing that is computed here: notes on the file, settings of the program that wrote it, of
    /// other tasks, and of generation, which are read from generation_config.json (transformers
    /// <c>configuration_utils.py</c>, <c>generation/configuration_utils.py</c>).
    /// </summary>
    private static readonly FrozenSet<string> Harmless = FrozenSet.Create(
        "transformers_version", "torch_dtype", "dtype", "use_cache", "initializer_range", "pretraining_tp",
        "_name_or_path", "name_or_path", "_commit_hash", "auto_map", "custom_pipelines", "license", "tokenizer_class",
        "is_llama_config", "is_decoder", "tie_encoder_decoder", "torchscript", "use_bfloat16",
        "gradient_checkpointing", "output_hidden_states", "output_attentions", "output_scores", "output_logits",
        "return_dict", "return_dict_in_generate", "use_return_dict", "chunk_size_feed_forward", "finetuning_task",
        "id2label", "label2id", "num_labels", "problem_type", "task_specific_params", "attn_implementation",
        "_attn_implementation", "_attn_implementation_internal", "_attn_implementation_autoset",
        "_flash_attn_2_enabled", "use_flash_attn", "use_flash_attention", "use_flash_attention_2",
        "attention_softmax_in_fp32", "reorder_and_upcast_attn", "unsloth_fixed", "unsloth_version",
        "transformers.js_config", "keys_to_ignore_at_inference", "sep_token_id", "decoder_start_token_id",
        "unk_token_id", "temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff",
        "do_sample", "num_beams", "num_beam_groups", "num_return_sequences", "max_length", "min_length",
        "max_new_tokens", "min_new_tokens", "early_stopping", "length_penalty", "repetition_penalty",
        "diversity_penalty", "encoder_no_repeat_ngram_size", "no_repeat_ngram_size", "bad_words_ids",
        "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty",
        "suppress_tokens", "begin_suppress_tokens", "prefix", "cache_implementation");

    /// <summary>
    /// Dropout of the base's own modules: nothing in inference; in training it is said that it is not applied.
    /// </summary>
    private static readonly FrozenSet<string> Dropouts = FrozenSet.Create(
        "attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "hidden_dropout_prob",
        "attention_probs_dropout_prob", "residual_dropout", "embedding_dropout", "embed_dropout", "resid_dropout",
        "classifier_dropout");

    /// <summary>Keys that change the computation, with the values that say that they are not used.</summary>
    private static readonly FrozenDictionary<string, Unused> Changing = new Dictionary<string, Unused>
    {
        // Granite scales the scores by this in the place of head_dim^-0.5; Gemma takes the root of the other one.
        ["attention_multiplier"] = (v, _, c) => Near(v, 1 / Math.Sqrt(c.HeadDim)),
        ["query_pre_attn_scalar"] = (v, _, c) => Near(v, c.HeadDim),
        ["scale_depth"] = (v, _, c) => Near(v, Math.Sqrt(c.NumHiddenLayers)),
        ["dim_model_base"] = (v, _, c) => Near(v, c.HiddenSize),
        ["scale_emb"] = (v, _, _) => Near(v, 1),
        ["rotary_dim"] = (v, _, c) => Near(v, c.HeadDim),
        ["rotary_pct"] = (v, _, _) => Near(v, 1),
        ["kv_channels"] = (v, _, c) => Near(v, c.HeadDim),
        ["attention_head_dim"] = (v, _, c) => Near(v, c.HeadDim),
        ["qk_head_dim"] = (v, _, c) => Near(v, c.HeadDim),
        ["v_head_dim"] = (v, _, c) => Near(v, c.HeadDim),
        ["hidden_activation"] = (v, _, _) => Silu(v),
        ["activation_function"] = (v, _, _) => Silu(v),
        ["mlp_hidden_act"] = (v, _, _) => Silu(v),
        ["is_causal"] = (v, _, _) => True(v),
        ["use_rope"] = (v, _, _) => True(v),
        ["use_rotary"] = (v, _, _) => True(v),
        ["scale_attn_weights"] = (v, _, _) => True(v),
        ["position_embedding_type"] = (v, _, _) => Text(v) is "rope" or "rotary",
        ["norm_type"] = (v, _, _) => Text(v) is "rms_norm" or "rmsnorm",
        // SmolLM3: 1 = the layer rotates; the interval counts only where the list is absent.
        ["no_rope_layers"] = (v, _, _) => v is JsonArray layers && layers.All(l => Near(l, 1)),
        ["no_rope_layer_interval"] = (v, file, _) => Near(v, 0) || file["no_rope_layers"] is JsonArray,
        ["original_max_position_embeddings"] = (v, _, c) => c.RopeScaling is not { Type: "yarn" or "llama3" } s
            || Near(v, s.OriginalMaxPositionEmbeddings ?? c.MaxPositionEmbeddings),
        ["per_layer_config"] = (v, _, _) => Off(v),
        ["pruned_heads"] = (v, _, _) => Off(v),
        ["is_encoder_decoder"] = (v, _, _) => Off(v),
        ["add_cross_attention"] = (v, _, _) => Off(v),
        ["cross_attention_hidden_size"] = (v, _, _) => Off(v),
        ["attention_chunk_size"] = (v, _, _) => Off(v),
        ["use_bidirectional_attention"] = (v, _, _) => Off(v),
        ["normalize_embedding"] = (v, _, _) => Off(v),
        ["scale_embedding"] = (v, _, _) => Off(v),
        ["scale_attn_by_inverse_layer_idx"] = (v, _, _) => Off(v),
        ["multi_query"] = (v, _, c) => Off(v) || c.NumKeyValueHeads == 1,
        // Qwen2's q, k and v have biases whatever config.json says.
        ["qkv_bias"] = (v, _, c) => Off(v) || c.Family.QkvBias == BiasRule.Always,
        ["use_qkv_bias"] = (v, _, c) => Off(v) || c.Family.QkvBias == BiasRule.Always,
        ["bias"] = (v, _, _) => Off(v),
        ["use_bias"] = (v, _, _) => Off(v),
        ["o_bias"] = (v, _, _) => Off(v),
        ["attn_bias"] = (v, _, _) => Off(v),
        ["attention_out_bias"] = (v, _, _) => Off(v),
        ["attention_output_bias"] = (v, _, _) => Off(v),
        ["lm_head_bias"] = (v, _, _) => Off(v),
    }.ToFrozenDictionary();

    /// <summary>
    /// Parts of names that speak of the computation: such a key passes only at null, false, 0, 1, or empty.
    /// </summary>
    private static readonly string[] Suspicious =
    [
        "multiplier", "softcap", "soft_cap", "logit_cap", "logits_cap", "logit_scal", "logits_scal", "residual_scal",
        "embedding_scal", "attention_scal", "attn_scal", "attn_temperature", "clip_qkv", "clamp", "expert", "moe",
        "kv_lora", "q_lora", "rope", "rotary", "alibi", "sliding", "window", "qk_norm", "q_norm", "k_norm",
        "qk_layernorm", "qk_layer_norm", "post_norm", "sandwich", "parallel_residual", "parallel_attn",
        "attention_sink", "attn_sink", "nope", "mamba", "ssm_", "linear_attn", "mrope", "yarn", "ntk", "per_layer",
        "layer_types", "layers_block_type", "block_configs",
    ];

    /// <summary>
    /// Refuses the first key that changes the computation and is not at the value that means "not used".
    /// </summary>
    /// <exception cref="HeadroomException">There is one; its name and value are in the message.</exception>
    public static void Check(JsonObject file, ModelConfig read, string path)
    {
        foreach (var (key, value) in file)
            if (value != null && !IsKnown(key)
                && !(Changing.TryGetValue(key, out var unused) ? unused(value, file, read) : !Speaks(key)
                || Nothing(value)))
                throw NotBuilt(key, value, path);
    }

    /// <summary>Keys that are neither read nor known, with their values as JSON.</summary>
    public static IReadOnlyList<(string Key, string Value)> Unknown(JsonObject file) =>
        [.. file.Where(p => !IsKnown(p.Key) && !Changing.ContainsKey(p.Key) && !Speaks(p.Key))
            .Select(p => (p.Key, JsonValues.Shown(p.Value)))];

    /// <summary>
    /// Lines for the user on keys that are not applied: dropout of the base's own modules, and a window that Llama's
    /// class does not have.
    /// </summary>
    public static IReadOnlyList<string> Notices(JsonObject file)
    {
        var lines = file.Where(p => Dropouts.Contains(p.Key) && p.Value != null && !Near(p.Value, 0)).Select(p =>
                $"config.json: {p.Key} is {JsonValues.Shown(p.Value)}; transformers would apply it while it trains, "
                    + $"here the base "
                + "has no dropout of its own (lora.lora_dropout is the adapter's)").ToList();
        string? architecture = (file["architectures"] as JsonArray)?.FirstOrDefault() is { } first ? Text(first) : null;
        string? type = file["model_type"] is { } t ? Text(t) : null;
        var family = architecture != null ? ModelFamilies.OfArchitecture(architecture)
            : ModelFamilies.All.FirstOrDefault(f => f.ModelType == type);
        if (family?.Window == WindowRule.Never && file["sliding_window"] is { } window && !Off(window))
            lines.Add(
                $"config.json: sliding_window is {JsonValues.Shown(window)}; {family.Architecture} has no window, "
                + "so every token sees all before it, as in transformers");
        return lines;
    }

    /// <summary>The refusal of a key that is not understood.</summary>
    public static HeadroomException NotBuilt(string key, JsonNode? value, string path) =>
        new(
            $"{key} of {path} is {JsonValues.Shown(value)}, which changes what the model computes and is not "
                + $"supported.",
            "Use a model without it.");

    /// <summary>
    /// True for null, false, 0, 1, an empty text, list or object, "none" and "default": whatever a key means, it is
    /// not used.
    /// </summary>
    public static bool Nothing(JsonNode? value) => value == null || Off(value) || Near(value, 1)
        || Text(value) is "none" or "default";

    private static bool IsKnown(string key) => Read.Contains(key) || Harmless.Contains(key) || Dropouts.Contains(key);

    private static bool Speaks(string key) => Suspicious.Any(s => key.Contains(s, StringComparison.OrdinalIgnoreCase));

    private static bool Off(JsonNode value) => value switch
    {
        JsonArray a => a.Count == 0,
        JsonObject o => o.Count == 0,
        _ => value.GetValueKind() == JsonValueKind.False || Near(value, 0) || Text(value) == "",
    };

    private static bool True(JsonNode value) => value.GetValueKind() == JsonValueKind.True;

    private static bool Silu(JsonNode value) => Text(value) is "silu" or "swish";

    private static string? Text(JsonNode value) => value.GetValueKind() == JsonValueKind.String
        ? value.GetValue<string>() : null;

    // Files hold such numbers as they were printed.
    private static bool Near(JsonNode? value, double due) =>
        value?.GetValueKind() == JsonValueKind.Number
            && Math.Abs(value.GetValue<double>() - due) <= 1e-6 * Math.Max(1e-3, Math.Abs(due));

}
