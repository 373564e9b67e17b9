namespace Headroom.Core.Families;

/// <summary>Qwen2 and 2.5 (transformers <c>modeling_qwen2.py</c>, <c>configuration_qwen2.py</c>).</summary>
internal static class Qwen2Family
{
    public static ModelFamily Family { get; } = new(DecoderRows.Table())
    {
        ModelType = "qwen2",
        Architecture = "Qwen2ForCausalLM",
        GgufArchitecture = "qwen2",
        Models = "Qwen2, Qwen2.5",
        Defaults = new ConfigDefaults(VocabSize: 151936, IntermediateSize: 22016, MaxPositionEmbeddings: 32768,
            NumKeyValueHeads: 32),
        QkvBias = BiasRule.Always,
        Window = WindowRule.BySwitch,
    };
}
