using System.Collections.Frozen;
using System.Globalization;
using Headroom.Core;

namespace Headroom.Formats.Gguf;

/// <summary>
/// What is known of the keys that a GGUF file holds of its architecture, as llama.cpp reads them for llama, qwen2 and
/// qwen3 (<c>llama-arch.cpp</c>, <c>llama-model.cpp</c>): those that are read, those that change nothing, and those
/// that change the computation, which pass only at the value that means "not used". What is none of these is unknown;
/// <c>headroom inspect</c> shows it.
/// </summary>
internal static class GgufKeys
{
    private static readonly FrozenSet<string> Read = FrozenSet.Create(
        "context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
        "attention.head_count_kv", "attention.key_length", "attention.value_length",
        "attention.layer_norm_rms_epsilon", "rope.dimension_count", "rope.freq_base", "rope.scaling.type",
        "rope.scaling.factor", "rope.scaling.attn_factor", "rope.scaling.original_context_length", "rope.scale_linear");

    // The size of the vocabulary is that of the embedding table; the layout is a note of the first converters;
    // pooling is for embeddings of whole texts.
    private static readonly FrozenSet<string> Harmless = FrozenSet.Create(
        "vocab_size", "tensor_data_layout", "pooling_type", "rope.scaling.finetuned", "attention.layer_norm_epsilon");

    /// <summary>
    /// Keys that change the computation, with the numbers (flags: 0 and 1) at which they are not used; head_dim^-0.5
    /// is NaN here.
    /// </summary>
    private static readonly FrozenDictionary<string, double[]> Changing = new Dictionary<string, double[]>
    {
        ["attention.causal"] = [1],
        ["attention.scale"] = [0, double.NaN],
        // llama.cpp takes 32 and 1 for these architectures, whatever the file says.
        ["rope.scaling.yarn_beta_fast"] = [32],
        ["rope.scaling.yarn_beta_slow"] = [1],
        ["rope.scaling.yarn_log_multiplier"] = [0],
        ["rope.scaling.yarn_ext_factor"] = [-1, 1],
        ["rope.scaling.yarn_attn_factor"] = [1],
        ["logit_scale"] = [0, 1],
        ["residual_scale"] = [0, 1],
        ["embedding_scale"] = [0, 1],
        ["attention.output_scale"] = [0, 1],
        ["attention.value_scale"] = [0, 1],
        ["expert_weights_scale"] = [0, 1],
        ["expert_group_scale"] = [0, 1],
    }.ToFrozenDictionary();

    /// <summary>
    /// Further keys that llama.cpp knows: they belong to other architectures, and pass at 0 and false only.
    /// </summary>
    private static readonly string[] Others =
    [
        "expert", "moe", "leading_dense_block_count", "swiglu_clamp", "use_parallel_residual", "nextn_predict_layers",
        "deepstack", "hidden_activation", "softcapping", "swin_norm", "rescale_every_n_layers", "time_mix",
        "time_decay", "token_shift", "full_attention_interval", "decoder_", "embedding_length_", "features_length",
        "attention.max_alibi_bias", "attention.clamp_kqv", "attention.group_norm", "lora_rank", "relative_buckets",
        "attention.sliding_window", "attention.temperature", "_mla", "_swa", "attention.indexer", "attention.output_",
        "attention.compress", "attention.shared_kv", "attention.recurrent", "hyper_connection", "hash_layer",
        "rope.dimension_sections", "rope.scaling.", "ssm.", "kda.", "wkv.", "posnet.", "convnext.", "classifier.",
        "target_", "norm_before_residual", "shortconv.", "dense_2", "dense_3", "interleave_", "attention.",
    ];

    /// <summary>
    /// Refuses the first key of the architecture that changes the computation and is not at the value that means "not
    /// used".
    /// </summary>
    /// <param name="file">The pairs.</param>
    /// <param name="arch">The architecture, whose name begins the keys.</param>
    /// <param name="name">The file, for the message.</param>
    /// <param name="read">What was read of it.</param>
    /// <exception cref="HeadroomException">There is one; its name and value are in the message.</exception>
    public static void Check(GgufMetadata file, string arch, string name, ModelConfig read)
    {
        foreach (var (key, value) in file)
        {
            if (!key.StartsWith(arch + ".", StringComparison.Ordinal)) continue;
            string own = key[(arch.Length + 1)..];
            if (!IsKnown(own) && !Unused(own, value, read))
                throw new HeadroomException($"{key} of {name} is {Shown(value)}, which changes what the model "
                    + "computes and is not supported.", "Use a model without it.");
        }
    }

    /// <summary>Keys of the architecture that are neither read nor known, with their values.</summary>
    public static IReadOnlyList<(string Key, string Value)> Unknown(GgufMetadata file, string arch) =>
        [.. file.Where(p => p.Key.StartsWith(arch + ".", StringComparison.Ordinal)
            && p.Key[(arch.Length + 1)..] is var own && !IsKnown(own) && !Changing.ContainsKey(own) && !IsOther(own))
            .Select(p => (p.Key, Shown(p.Value)))];

    /// <summary>A value as it is shown to people.</summary>
    public static string Shown(object value)
    {
        string text = value switch
        {
            bool b => b ? "true" : "false",
            Array a => "[" + string.Join(", ", a.Cast<object>().Take(8)) + (a.Length > 8 ? ", ..." : "") + "]",
            IFormattable f => f.ToString(null, CultureInfo.InvariantCulture),
            _ => value.ToString() ?? "",
        };
        return HeadroomException.Value(text, 80);
    }

    private static bool IsKnown(string own) => Read.Contains(own) || Harmless.Contains(own);

    private static bool IsOther(string own) => Others.Any(o => own.Contains(o, StringComparison.Ordinal));

    private static bool Unused(string own, object value, ModelConfig c)
    {
        // llama.cpp has no window for these architectures.
        if (own == "attention.sliding_window")
            return Number(value) is { } w && (w == 0 || w >= c.MaxPositionEmbeddings);
        if (own == "hidden_activation") return value is "silu" or "swish" or "";
        // Converters write what config.json says of yarn as a whole, which is no news where it is yarn's own.
        if (own == "rope.scaling.yarn_attn_factor" && c.RopeScaling is { Type: "yarn" } s
            && Near(Number(value), RopeScaling.AttentionScale(s.Factor))) return true;
        if (Changing.TryGetValue(own, out var unused))
            return unused.Any(u => Near(Number(value), double.IsNaN(u) ? 1 / Math.Sqrt(c.HeadDim) : u));
        return !IsOther(own) || Number(value) == 0 || value is Array { Length: 0 } or ""
            || value is long[] all && all.All(v => v == 0) || value is bool[] flags && !flags.Contains(true);
    }

    // float32 in the file
    private static bool Near(double? value, double due) => value is { } v
        && Math.Abs(v - due) <= 1e-5 * Math.Max(1e-3, Math.Abs(due));

    private static double? Number(object value) =>
        value switch { double d => d, long l => l, ulong u => u, bool b => b ? 1 : 0, _ => null };
}
