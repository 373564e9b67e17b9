namespace Headroom.Core.Families;

/// <summary>
/// Mistral (transformers <c>modeling_mistral.py</c>, <c>configuration_mistral.py</c>). GGUF files of it say llama,
/// which has no window; they are read as Llama.
/// </summary>
internal static class MistralFamily
{
    public static ModelFamily Family { get; } = new(DecoderRows.Table())
    {
        ModelType = "mistral",
        Architecture = "MistralForCausalLM",
        GgufArchitecture = "llama",
        Models = "Mistral 7B",
        Defaults = new ConfigDefaults(VocabSize: 32000, IntermediateSize: 14336, MaxPositionEmbeddings: 131072,
            NumKeyValueHeads: 8),
        GgufRotatesPairs = true,
        Window = WindowRule.Always,
    };
}
