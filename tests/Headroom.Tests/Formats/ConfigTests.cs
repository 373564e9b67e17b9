using Headroom.Core;
using Headroom.Formats.HuggingFace;

namespace Headroom.Tests.Formats;

/// <summary>config.json of the supported families, and rope scaling against the published tables.</summary>
public class ConfigTests
{
    /// <summary>Parameter counts as the models' cards give them.</summary>
    [Theory]
    [InlineData("Llama-2-7b-hf", "LlamaForCausalLM", 6_738_415_616)]
    [InlineData("deepseek-llm-7b-base", "LlamaForCausalLM", 6_910_365_696)]
    [InlineData("Llama-3.2-1B", "LlamaForCausalLM", 1_235_814_400)]
    [InlineData("Mistral-7B-v0.1", "MistralForCausalLM", 7_241_732_096)]
    [InlineData("Qwen2.5-0.5B", "Qwen2ForCausalLM", 494_032_768)]
    [InlineData("TinyLlama-1.1B-Chat-v1.0", "LlamaForCausalLM", 1_100_048_384)]
    [InlineData("SmolLM2-135M", "LlamaForCausalLM", 134_515_008)]
    public void PublishedModels(string name, string architecture, long parameters)
    {
        var c = HfConfig.Load(Shared.DataFile($"configs/{name}/config.json"));
        Assert.Equal(architecture, c.Architecture);
        Assert.Equal(parameters, c.Parameters.Linear + c.Parameters.Embeddings + c.Parameters.Vectors);
        Assert.Equal(name.StartsWith("Qwen", StringComparison.Ordinal), c.AttentionBias);
        Assert.Equal(
            name.StartsWith("Mistral", StringComparison.Ordinal),
            Enumerable.Range(0, c.NumHiddenLayers).All(c.LayerSlides));
        Assert.False(
            name.StartsWith("Qwen", StringComparison.Ordinal)
                && Enumerable.Range(0, c.NumHiddenLayers).Any(c.LayerSlides)
        );
        // What is written says the same.
        var back = HfConfig.Parse(HfConfig.Write(c));
        Assert.Equal(
            c with
            {
                EosTokenIds = [],
                SlidingLayers = null,
            },
            back with
            {
                EosTokenIds = [],
                SlidingLayers = null,
            }
        );
        Assert.Equal(c.EosTokenIds, back.EosTokenIds);
    }

    private static string Json(string type, string more = "") =>
        $"{{\"architectures\": [\"{type}\"], \"hidden_size\": 64, \"intermediate_size\": 128, \"num_hidden_layers\": "
            + $"4, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 100{more}}}";

    [Theory]
    [
        InlineData("GPT2LMHeadModel"), InlineData("MixtralForCausalLM"), InlineData("Qwen3MoeForCausalLM"),
        InlineData("Gemma2ForCausalLM"), InlineData("DeepseekV3ForCausalLM")]
    public void OtherArchitecturesAreRefusedByName(string architecture)
    {
        var e = Assert.Throws<HeadroomException>(() => HfConfig.Parse(Json(architecture)));
        Assert.Contains(architecture, e.Message, StringComparison.Ordinal);
        foreach (
            string known in (string[])
                [
                    "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "TinyLlama",
                    "SmolLM2", "DeepSeek-LLM"]
        )
            Assert.Contains(known, e.ToDo, StringComparison.Ordinal);
        Assert.Equal(2, e.ExitCode);
    }

    [Theory]
    [InlineData("LlamaForCausalLM", ", \"hidden_act\": \"gelu\"", "gelu")]
    [InlineData("LlamaForCausalLM", ", \"rope_scaling\": {\"rope_type\": \"longrope\", \"factor\": 4}", "longrope")]
    [InlineData("LlamaForCausalLM", ", \"rope_scaling\": {\"rope_type\": \"linear\"}", "factor")]
    [InlineData("LlamaForCausalLM", ", \"partial_rotary_factor\": 0.5", "partial_rotary_factor")]
    [InlineData(
        "MistralForCausalLM",
        ", \"layer_types\": [\"chunked_attention\", \"full_attention\", \"full_attention\", \"full_attention\"]",
        "chunked_attention")]
    [InlineData("LlamaForCausalLM", ", \"model_type\": \"qwen2\"", "model_type")]
    public void WhatWouldBeComputedWrongIsRefused(string architecture, string more, string says) =>
        Assert.Contains(
            says, Assert.Throws<HeadroomException>(() => HfConfig.Parse(Json(architecture, more))).Message,
            StringComparison.Ordinal);

    /// <summary>Which of four layers slide, and the window; v4 and v5 forms.</summary>
    [Theory]
    [InlineData("MistralForCausalLM", ", \"sliding_window\": 32", "1111", 32)]
    [InlineData("MistralForCausalLM", "", "1111", 4096)]
    [InlineData("MistralForCausalLM", ", \"sliding_window\": null", "0000", 0)]
    [InlineData(
        "MistralForCausalLM",
        ", \"sliding_window\": 32, \"layer_types\": [\"sliding_attention\", \"full_attention\", "
            + "\"sliding_attention\", \"full_attention\"]",
        "1010", 32)]
    [InlineData(
        "Qwen2ForCausalLM", ", \"sliding_window\": 32, \"use_sliding_window\": false, \"max_window_layers\": 0", "0000",
        0)]
    [InlineData("Qwen2ForCausalLM", ", \"sliding_window\": 32", "0000", 0)]
    [InlineData(
        "Qwen2ForCausalLM", ", \"sliding_window\": 32, \"use_sliding_window\": true, \"max_window_layers\": 3", "0001",
        32)]
    [InlineData("Qwen2ForCausalLM", ", \"sliding_window\": 32, \"use_sliding_window\": true", "0000", 32)]
    [InlineData(
        "Qwen2ForCausalLM",
        ", \"sliding_window\": 32, \"use_sliding_window\": true, \"max_window_layers\": 3, \"layer_types\": "
            + "[\"sliding_attention\", \"full_attention\", \"full_attention\", \"full_attention\"]",
        "1000", 32)]
    [InlineData("LlamaForCausalLM", ", \"sliding_window\": 32", "0000", 0)]
    public void SlidingWindows(string architecture, string more, string slides, int window)
    {
        var c = HfConfig.Parse(Json(architecture, more));
        Assert.Equal(slides, string.Concat(Enumerable.Range(0, 4).Select(i => c.LayerSlides(i) ? '1' : '0')));
        Assert.Equal(window, c.SlidingWindow ?? 0);
        var back = HfConfig.Parse(HfConfig.Write(c));
        Assert.Equal(slides, string.Concat(Enumerable.Range(0, 4).Select(i => back.LayerSlides(i) ? '1' : '0')));
    }

    /// <summary>specs: Llama-3.2-1B, v4 and v5 keys.</summary>
    [Theory]
    [InlineData(
        "\"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 32, \"low_freq_factor\": "
            + "1, \"high_freq_factor\": 4, \"original_max_position_embeddings\": 8192}"
    )]
    [InlineData(
        "\"rope_theta\": 500000.0, \"rope_scaling\": {\"type\": \"llama3\", \"factor\": 32.0, \"low_freq_factor\": "
            + "1.0, \"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192}"
    )]
    [InlineData(
        "\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 32, \"low_freq_factor\": 1, \"high_freq_factor\": 4, "
            + "\"original_max_position_embeddings\": 8192}, \"rope_parameters\": {\"rope_theta\": 500000.0, "
            + "\"rope_type\": \"llama3\", "
            + "\"factor\": 32.0, \"low_freq_factor\": 1, \"high_freq_factor\": 4, "
            + "\"original_max_position_embeddings\": 8192}"
    )] // twice the same
    [InlineData(
        "\"rope_parameters\": {\"rope_theta\": 500000.0, \"rope_type\": \"llama3\", \"factor\": 32, "
            + "\"low_freq_factor\": 1, \"high_freq_factor\": 4, \"original_max_position_embeddings\": 8192}"
    )]
    public void Llama3Frequencies(string rope)
    {
        var scaled = HfConfig.Parse(Json("LlamaForCausalLM", ", \"head_dim\": 64, " + rope));
        float[] inv = (scaled with { RopeScaling = null }).InverseFrequencies(out _),
            after = scaled.InverseFrequencies(out float factor);
        Assert.Equal(1, factor);
        foreach (
            var (i, before, due, divisor) in new[]
            {
                (14, 3.211445995e-03, 3.211445995e-03, 1), (15, 2.131119537e-03, 1.290547928e-03, 1.651329),
                (16, 1.414213562e-03, 4.295567966e-04, 3.292262), (17, 9.384738704e-04, 9.708287803e-05, 9.666729),
                (18, 6.227724219e-04, 1.946163818e-05, 32),
            }
        )
        {
            Assert.InRange(inv[i] / before, 1 - 2e-7, 1 + 2e-7);
            Assert.InRange(after[i] / due, 1 - 5e-7, 1 + 5e-7);
            Assert.InRange(inv[i] / after[i] / divisor, 1 - 1e-6, 1 + 1e-6);
        }
        Assert.Equal(inv[0], after[0]);
        Assert.InRange(inv[31] / after[31], 31.9999, 32.0001);
    }

    [Fact]
    public void YarnFrequencies()
    {
        const string head = ", \"head_dim\": 128, \"max_position_embeddings\": 32768, \"rope_theta\": 1000000.0";
        float[] inv = HfConfig.Parse(Json("Qwen2ForCausalLM", head)).InverseFrequencies(out _);
        float[] yarn = HfConfig
            .Parse(
                Json(
                    "Qwen2ForCausalLM",
                    head
                        + ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, "
                        + "\"original_max_position_embeddings\": 32768}"
                )
            )
            .InverseFrequencies(out float factor);
        Assert.Equal(1.1386294f, factor, 1e-6f);
        for (int i = 0; i < 64; i++)
        {
            double ramp = Math.Clamp((i - 23) / 17.0, 0, 1),
                due = inv[i] / 4.0 * ramp + inv[i] * (1 - ramp); // low 23, high 40
            Assert.InRange(yarn[i] / due, 1 - 1e-6, 1 + 1e-6);
        }
        Assert.Equal(inv[23], yarn[23]);
        Assert.NotEqual(inv[24], yarn[24]);
        Assert.Equal(inv[40] / 4, yarn[40]);
        string given = head + ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, \"attention_factor\": 1.5}";
        HfConfig.Parse(Json("Qwen2ForCausalLM", given)).InverseFrequencies(out factor);
        Assert.Equal(1.5f, factor);
    }

    [Fact]
    public void LinearAndDynamicFrequencies()
    {
        float[] inv = HfConfig.Parse(Json("LlamaForCausalLM")).InverseFrequencies(out _);
        var linear = HfConfig.Parse(
            Json("LlamaForCausalLM", ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 8}"));
        Assert.Equal(inv.Select(f => f / 8), linear.InverseFrequencies(out _));
        // Up to max_position_embeddings the base of dynamic scaling is theta itself; beyond, it is refused.
        var dynamic = HfConfig.Parse(
            Json(
                "LlamaForCausalLM",
                ", \"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}, \"max_position_embeddings\": 512")
        );
        Assert.Equal(inv, dynamic.InverseFrequencies(out _));
        dynamic.CheckLength(512);
        Assert.Throws<HeadroomException>(() => dynamic.CheckLength(513));
        linear.CheckLength(1 << 20);
    }
}
