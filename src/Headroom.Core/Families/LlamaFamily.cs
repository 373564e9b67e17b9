namespace Headroom.Core.Families;

/// <summary>Llama (transformers <c>modeling_llama.py</c>, <c>configuration_llama.py</c>).</summary>
internal static class LlamaFamily
{
    public static ModelFamily Family { get; } = new(DecoderRows.Table())
    {
        ModelType = "llama",
        Architecture = "LlamaForCausalLM",
        GgufArchitecture = "llama",
        Models = "Llama 2 and 3, TinyLlama, SmolLM2, DeepSeek-LLM",
        Defaults = new ConfigDefaults(VocabSize: 32000, IntermediateSize: 11008, MaxPositionEmbeddings: 2048),
        GgufRotatesPairs = true,
        QkvBias = BiasRule.ByKey,
        OutputBias = BiasRule.ByKey,
        MlpBias = BiasRule.ByKey,
    };
}
