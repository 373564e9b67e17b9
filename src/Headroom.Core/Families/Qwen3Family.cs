namespace Headroom.Core.Families;

/// <summary>
/// Qwen3, dense (transformers <c>modeling_qwen3.py</c>, <c>configuration_qwen3.py</c>; llama.cpp <c>qwen3</c>): each
/// head's query and key goes through an RMS norm over head_dim before it is rotated, with one weight for all heads.
/// </summary>
internal static class Qwen3Family
{
    public static ModelFamily Family { get; } = new(DecoderRows.Table(
        DecoderRows.Norm(WeightRole.QueryNorm, "self_attn.q_norm", "attn_q_norm", c => c.HeadDim),
        DecoderRows.Norm(WeightRole.KeyNorm, "self_attn.k_norm", "attn_k_norm", c => c.HeadDim)))
    {
        ModelType = "qwen3",
        Architecture = "Qwen3ForCausalLM",
        GgufArchitecture = "qwen3",
        Models = "Qwen3 without experts",
        Defaults = new ConfigDefaults(VocabSize: 151936, IntermediateSize: 22016, MaxPositionEmbeddings: 32768,
            NumKeyValueHeads: 32, HeadDim: 128),
        QkvBias = BiasRule.ByKey,
        OutputBias = BiasRule.ByKey,
        Window = WindowRule.BySwitch,
    };
}
