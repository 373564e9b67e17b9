using Headroom.Core;
using Headroom.Formats.Gguf;
using Headroom.Formats.HuggingFace;

namespace Headroom.Tests.Formats;

/// <summary>
/// Numbers that no model has are refused by their name and value, in config.json and in GGUF alike; the borders are
/// taken.
/// </summary>
public sealed class ModelRangesTests : IDisposable
{
    private readonly string _file = Path.GetTempFileName();

    /// <summary>A small configuration with one key more, or another value of one.</summary>
    private static ModelConfig Config(string more) =>
        HfConfig.Parse(
            "{\"architectures\": [\"LlamaForCausalLM\"]"
                + string.Concat(
                    new[]
                    {
                        ("hidden_size", 64), ("intermediate_size", 128), ("num_hidden_layers", 4),
                        ("num_attention_heads", 4), ("num_key_value_heads", 2), ("vocab_size", 100),
                    }
                        .Where(k => k.Item1 != more.Split('"')[1])
                        .Select(k => $", \"{k.Item1}\": {k.Item2}")
                )
                + more
                + "}"
        );

    [Theory]
    [InlineData(
        ", \"rms_norm_eps\": 0", "rms_norm_eps (layer_norm_rms_epsilon in GGUF) is 0, it must be a positive number")]
    [InlineData(", \"rms_norm_eps\": -1e-5", "rms_norm_eps")]
    [InlineData(", \"rms_norm_eps\": 1e-60", "rms_norm_eps (layer_norm_rms_epsilon in GGUF) "
        + "is 0")] // 0 in float32, in which norms are computed
    [InlineData(", \"rms_norm_eps\": 1e60", "rms_norm_eps")]
    [InlineData(", \"rope_theta\": 0", "rope_theta (rope.freq_base in GGUF) is 0, it must be a positive number")]
    [InlineData(", \"rope_theta\": -10000", "rope_theta")]
    [InlineData(", \"rope_parameters\": {\"rope_theta\": -1, \"rope_type\": \"default\"}", "rope_theta")]
    [InlineData(", \"head_dim\": 0", "head_dim is 0, it must be from 1 to 1024")]
    [InlineData(", \"head_dim\": -2", "head_dim")]
    [InlineData(", \"head_dim\": 15", "head_dim is 15, it must be even")]
    [InlineData(", \"hidden_size\": 0", "hidden_size is 0")]
    [InlineData(", \"num_attention_heads\": 0", "num_attention_heads is 0")]
    [InlineData(", \"num_attention_heads\": -4", "num_attention_heads is -4")]
    [InlineData(", \"num_key_value_heads\": 0", "num_key_value_heads is 0, it must be from 1 to 4")]
    [InlineData(", \"num_key_value_heads\": 8", "num_key_value_heads is 8")]
    [InlineData(", \"num_hidden_layers\": 0", "num_hidden_layers is 0")]
    [InlineData(", \"intermediate_size\": -1", "intermediate_size is -1")]
    [InlineData(", \"vocab_size\": 0", "vocab_size is 0")]
    [InlineData(", \"max_position_embeddings\": 0", "max_position_embeddings is 0, it must be a positive whole number")]
    [InlineData(", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 0}", "factor")]
    [InlineData(
        ", \"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": 4, "
            + "\"original_max_position_embeddings\": 32}",
        "high_freq_factor is 4, it must be more than low_freq_factor, 4")]
    [InlineData(
        ", \"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 0, \"high_freq_factor\": 4, "
            + "\"original_max_position_embeddings\": 32}",
        "low_freq_factor is 0")]
    [InlineData(
        ", \"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4, "
            + "\"original_max_position_embeddings\": 0}",
        "original_max_position_embeddings is 0")]
    [InlineData(", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, \"beta_fast\": -2}", "beta_fast is -2")]
    [InlineData(
        ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, \"attention_factor\": -1}", "attention_factor is -1")]
    [InlineData(
        ", \"rope_theta\": 1, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4}",
        "rope_theta is 1, it must be more than 1")]
    public void OfAConfiguration(string more, string says)
    {
        var e = Assert.Throws<HeadroomException>(() => Config(more));
        Assert.Contains(says, e.Message, StringComparison.Ordinal);
        Assert.Equal(2, e.ExitCode);
    }

    [Fact]
    public void TheBordersAreTaken()
    {
        Assert.Equal(float.Epsilon, Config(", \"rms_norm_eps\": 1.4e-45").RmsNormEps);
        Assert.Equal(0.5, Config(", \"rope_theta\": 0.5").RopeTheta);
        Assert.Equal(1024, Config(", \"head_dim\": 1024").HeadDim);
        Assert.Equal(2, Config(", \"head_dim\": 2").HeadDim);
    }

    [Theory]
    [InlineData("llama.attention.layer_norm_rms_epsilon", 0, "layer_norm_rms_epsilon")]
    [InlineData("llama.attention.layer_norm_rms_epsilon", -1e-5, "layer_norm_rms_epsilon")]
    [InlineData("llama.attention.layer_norm_rms_epsilon", double.NaN, "layer_norm_rms_epsilon")]
    [InlineData("llama.rope.freq_base", 0, "rope.freq_base")]
    [InlineData("llama.rope.freq_base", -1, "rope.freq_base")]
    [InlineData("llama.rope.freq_base", double.PositiveInfinity, "rope.freq_base")]
    [InlineData("llama.attention.head_count", 0, "llama.attention.head_count")]
    [InlineData("llama.attention.head_count_kv", 0, "llama.attention.head_count_kv")]
    [InlineData("llama.attention.head_count_kv", 8, "num_key_value_heads is 8")]
    [InlineData("llama.attention.key_length", 15, "head_dim is 15")]
    [InlineData("llama.block_count", 0, "llama.block_count")]
    [InlineData("llama.context_length", 0, "llama.context_length")]
    public void OfGguf(string key, double value, string says)
    {
        var b = new GgufBuilder().Text("general.architecture", "llama");
        foreach (
            var (name, usual) in new[]
            {
                ("context_length", 64), ("embedding_length", 64), ("feed_forward_length", 128), ("block_count", 1),
                ("attention.head_count", 4),
            }
        )
            if (key != "llama." + name)
                b.U32("llama." + name, (uint)usual);
        if (!key.EndsWith("epsilon", StringComparison.Ordinal)) b.F32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
        if (key.EndsWith("epsilon", StringComparison.Ordinal) || key.EndsWith("base", StringComparison.Ordinal))
            b.F32(key, (float)value);
        else b.U32(key, (uint)value);
        File.WriteAllBytes(
            _file, b.Tensor("token_embd.weight", [64, 8], 0, GgufBuilder.Floats(new float[64 * 8])).Build());
        var e = Assert.Throws<HeadroomException>(() => new GgufSource(_file).Dispose());
        Assert.Contains(says, e.Message, StringComparison.Ordinal);
        Assert.Equal(2, e.ExitCode);
    }

    public void Dispose() => File.Delete(_file);
}
