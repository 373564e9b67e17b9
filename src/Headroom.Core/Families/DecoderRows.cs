namespace Headroom.Core.Families;

/// <summary>Rows that the decoders of Llama's kind share, under the names that most of them use.</summary>
internal static class DecoderRows
{
    private const string Layer = "model.layers.{layer}.", Block = "blk.{layer}.";

    /// <summary>
    /// The table of Llama itself (transformers <c>modeling_llama.py</c>; gguf <c>tensor_mapping.py</c>).
    /// </summary>
    /// <param name="further">Rows that a family has beside these in each layer.</param>
    public static WeightRow[] Table(params WeightRow[] further) =>
    [
        new(WeightRole.Embedding, WeightKind.Embedding, "model.embed_tokens", "token_embd", Vocabulary),
        Linear(WeightRole.Query, "self_attn.q_proj", "attn_q", c => (Queries(c), c.HiddenSize), c => c.AttentionBias)
            with { Rotated = true },
        Linear(WeightRole.Key, "self_attn.k_proj", "attn_k", c => (Keys(c), c.HiddenSize), c => c.AttentionBias)
            with { Rotated = true },
        Linear(WeightRole.Value, "self_attn.v_proj", "attn_v", c => (Keys(c), c.HiddenSize), c => c.AttentionBias),
        Linear(WeightRole.Output, "self_attn.o_proj", "attn_output", c => (c.HiddenSize, Queries(c)),
            c => c.AttentionOutputBias),
        Linear(WeightRole.Gate, "mlp.gate_proj", "ffn_gate", c => (c.IntermediateSize, c.HiddenSize), c => c.MlpBias),
        Linear(WeightRole.Up, "mlp.up_proj", "ffn_up", c => (c.IntermediateSize, c.HiddenSize), c => c.MlpBias),
        Linear(WeightRole.Down, "mlp.down_proj", "ffn_down", c => (c.HiddenSize, c.IntermediateSize), c => c.MlpBias),
        Norm(WeightRole.AttentionNorm, "input_layernorm", "attn_norm", c => c.HiddenSize),
        Norm(WeightRole.MlpNorm, "post_attention_layernorm", "ffn_norm", c => c.HiddenSize),
        .. further,
        new(WeightRole.FinalNorm, WeightKind.Norm, "model.norm", "output_norm", c => (c.HiddenSize, 1)),
        new(WeightRole.Head, WeightKind.Embedding, "lm_head", "output", Vocabulary)
            { Present = c => !c.TieWordEmbeddings },
    ];

    /// <summary>A norm of each layer over <paramref name="size"/> elements.</summary>
    public static WeightRow Norm(WeightRole role, string module, string gguf, Func<ModelConfig, int> size) =>
        new(role, WeightKind.Norm, Layer + module, Block + gguf, c => (size(c), 1));

    private static WeightRow Linear(WeightRole role, string module, string gguf,
        Func<ModelConfig, (int Out, int In)> shape, Func<ModelConfig, bool> bias) =>
        new(role, WeightKind.Linear, Layer + module, Block + gguf, shape) { Bias = bias, Adaptable = true };

    private static (int, int) Vocabulary(ModelConfig c) => (c.VocabSize, c.HiddenSize);

    private static int Queries(ModelConfig c) => c.NumAttentionHeads * c.HeadDim;

    private static int Keys(ModelConfig c) => c.NumKeyValueHeads * c.HeadDim;
}
