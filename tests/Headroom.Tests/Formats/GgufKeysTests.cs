using CsCheck;
using Headroom.Core;
using Headroom.Formats.Gguf;
using Headroom.Formats.HuggingFace;
using Headroom.Inference.Export;

namespace Headroom.Tests.Formats;

/// <summary>
/// Keys of GGUF files as llama.cpp reads them: rope scaling in all its forms, and every other key read or refused.
/// </summary>
public sealed class GgufKeysTests : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly string _plain;

    public GgufKeysTests() => Samples.Gguf(_plain = At("plain.gguf"), "f32");

    private string At(string name) => Path.Combine(_folder.Path, name);

    public void Dispose() => _folder.Dispose();

    private ModelConfig Read(params (string Key, object Value)[] pairs)
    {
        string path = At(Guid.NewGuid().ToString("N") + ".gguf");
        try
        {
            GgufEdit.Rewrite(_plain, path, p => { foreach (var (key, value) in pairs) p[key] = value; });
            using var source = new GgufSource(path);
            return source.Config;
        }
        finally
        {
            File.Delete(path);
        }
    }

    private void Same(float[] due, double attention, ModelConfig c)
    {
        float[] inv = c.InverseFrequencies(out float factor);
        Assert.Equal(attention, factor, 1e-6 * attention);
        for (int i = 0; i < inv.Length; i++) Assert.InRange(inv[i] / due[i], 1 - 1e-6, 1 + 1e-6);
    }

    /// <summary>
    /// A factor without a type is linear; scale_linear where there is no factor; 0 is none; "none" never scales;
    /// attn_factor multiplies cos and sin whatever the type.
    /// </summary>
    [Fact]
    public void LinearScaling()
    {
        float[] plain = Read().InverseFrequencies(out _);
        Gen.Select(Gen.Single[0.25f, 16], Gen.Single[0.5f, 2], Gen.Int[0, 6]).Sample((factor, attention, form) =>
        {
            float[] by = [.. plain.Select(f => f / factor)];
            (string, object) factorKey = ("llama.rope.scaling.factor", factor),
                attentionKey = ("llama.rope.scaling.attn_factor", attention), old = ("llama.rope.scale_linear", factor);
            switch (form)
            {
                case 0: Same(by, 1, Read(factorKey)); break;
                case 1: Same(by, 1, Read(old)); break;
                case 2:
                    Same(by, 1, Read(factorKey,
                    ("llama.rope.scale_linear", factor * 3))); break; // the newer key counts
                case 3:
                    Same(by, attention, Read(("llama.rope.scaling.type", "linear"), factorKey,
                    attentionKey)); break;
                case 4:
                    Same(plain, attention,
                    Read(("llama.rope.scaling.type", "none"), factorKey, attentionKey)); break;
                case 5: Same(plain, attention, Read(attentionKey)); break;
                default:
                    Same(plain, 1, Read(("llama.rope.scaling.factor", 0f),
                    old)); break; // llama.cpp does not look for the old key then
            }
        }, iter: 40, threads: 1);
    }

    [Fact]
    public void YarnWithAFactorOfItsOwn()
    {
        var c = Read(("llama.rope.scaling.type", "yarn"), ("llama.rope.scaling.factor", 4f),
            ("llama.rope.scaling.attn_factor", 0.75f), ("llama.rope.scaling.original_context_length", 32u));
        c.InverseFrequencies(out float factor);
        Assert.Equal(0.75 * (0.1 * Math.Log(4) + 1), factor, 1e-6);
        Assert.Equal(32, c.RopeScaling!.OriginalMaxPositionEmbeddings);
        Read(("llama.rope.scaling.type", "yarn"), ("llama.rope.scaling.factor", 0.5f)).InverseFrequencies(out factor);
        Assert.Equal(1, factor); // nothing is stretched
    }

    /// <summary>
    /// What the exporter writes of a scaling reads back as it; what llama.cpp has no key for is refused, and so is
    /// what config.json cannot say.
    /// </summary>
    [Fact]
    public void ScalingGoesAndComesBack()
    {
        RopeScaling[] all =
        [
            new("linear", 2.5), new("linear", 2.5, AttentionFactor: 1.25), new("linear", 1, AttentionFactor: 0.5),
            new("yarn", 4, OriginalMaxPositionEmbeddings: 16),
            new("yarn", 4, OriginalMaxPositionEmbeddings: 16, AttentionFactor: 1.5)];
        foreach (var s in all)
        {
            var config = Samples.Config() with { RopeScaling = s };
            GgufExporter.Write(new Samples.Weights(config), [], "f32", At("s.gguf"), null);
            using var back = new GgufSource(At("s.gguf"));
            Same(config.InverseFrequencies(out float attention), attention, back.Config);
            if (s is { Type: "linear", AttentionFactor: not null }) Assert.Contains("attn_factor",
                Assert.Throws<HeadroomException>(() => HfConfig.Write(config)).Message, StringComparison.Ordinal);
            else Same(config.InverseFrequencies(out _), attention, HfConfig.Parse(HfConfig.Write(config)));
        }
        var bounds = Samples.Config() with { RopeScaling = new RopeScaling("yarn", 4, BetaFast: 16) };
        Assert.Contains("beta_fast 16",
            Assert.Throws<HeadroomException>(() =>
            GgufExporter.Write(new Samples.Weights(bounds), [], "f32", At("no.gguf"), null)).Message,
            StringComparison.Ordinal);
        Assert.False(File.Exists(At("no.gguf")));
    }

    [Theory]
    [InlineData("gguf-rope-factor-without-type"), InlineData("gguf-rope-scale-linear")]
    public void TheCasesScaleByFour(string name)
    {
        using var source = WeightSources.Open(Shared.CaseFile(name + "/model.gguf"));
        float[] plain = (source.Config with { RopeScaling = null }).InverseFrequencies(out _);
        Same([.. plain.Select(f => f / 4)], 1, source.Config);
    }

    public static TheoryData<string, object, object> Keys => new()
    {
        { "expert_count", 0u, 8u }, { "expert_used_count", 0u, 2u }, { "leading_dense_block_count", 0u, 1u },
        { "use_parallel_residual", false, true }, { "logit_scale", 1f, 0.25f },
        { "residual_scale", 0f, 0.22f }, { "embedding_scale", 1f, 12f }, { "attention.scale", 0.35355338f, 0.0625f },
        { "attn_logit_softcapping", 0f, 50f }, { "final_logit_softcapping", 0f, 30f },
        { "attention.causal", true, false }, { "attention.clamp_kqv", 0f, 8f },
        { "attention.max_alibi_bias", 0f, 8f }, { "attention.sliding_window", 0u, 32u },
        { "attention.sliding_window", 4096u, 63u },
        { "attention.key_length_mla", 0u, 64u },
        { "rope.dimension_sections", new[] { 0, 0, 0, 0 }, new[] { 2, 2, 0, 0 } },
        { "rope.freq_base_swa", 0f, 10000f }, { "rope.scaling.yarn_beta_fast", 32f, 16f },
        { "rope.scaling.yarn_log_multiplier", 0f, 0.1f }, { "rope.scaling.alpha", 0f, 1000f },
        { "attention.temperature_scale", 0f, 0.1f }, { "rope.dimension_count", 8u, 4u },
        { "attention.value_length", 8u, 4u },
        { "swin_norm", false, true }, { "hidden_activation", "silu", "gelu" },
        { "feed_forward_length", new[] { 40, 40 }, new[] { 40, 80 } },
        { "attention.head_count_kv", new[] { 2 }, new[] { 2, 4 } },
    };

    [Theory, MemberData(nameof(Keys))]
    public void EveryOtherKeyIsReadOrRefused(string key, object unused, object used)
    {
        Assert.Equal(Read() with { EosTokenIds = [] }, Read(("llama." + key, unused)) with { EosTokenIds = [] });
        var e = Assert.Throws<HeadroomException>(() => Read(("llama." + key, used)));
        Assert.Contains(key switch
        {
            "rope.dimension_count" => "rotates 4 of 8",
            "attention.value_length" =>
            "values of 4",
            "expert_count" => "8 experts",
            _ => "llama." + key
        }, e.Message, StringComparison.Ordinal);
        Assert.Equal(2, e.ExitCode);
    }

    [Fact]
    public void ValuesOfAnotherTypeAreNamed()
    {
        foreach (string key in (string[])["rope.freq_base", "rope.scaling.factor", "attention.head_count",
            "rope.scale_linear", "block_count"])
            Assert.Contains(key, Assert.Throws<HeadroomException>(() => Read(("llama." + key, "many"))).Message,
                StringComparison.Ordinal);
        Assert.Contains("rope.scaling.type",
            Assert.Throws<HeadroomException>(() => Read(("llama.rope.scaling.type", 1u))).Message,
            StringComparison.Ordinal);
        Assert.Contains("longrope", Assert.Throws<HeadroomException>(() =>
            Read(("llama.rope.scaling.type", "longrope"))).Message, StringComparison.Ordinal);
        foreach (float bad in (float[])[-1, float.NaN, float.PositiveInfinity]) Assert.Throws<HeadroomException>(() =>
            Read(("llama.rope.scaling.factor", bad)));
    }

    [Fact]
    public void UnknownKeysAreShownAndOthersAreNot()
    {
        GgufEdit.Rewrite(_plain, At("u.gguf"), p =>
            (p["llama.flavour"], p["general.note"], p["llama.tensor_data_layout"],
            p["quantize.imatrix.file"]) = ("vanilla", "x", "Meta AI original pth", "y"));
        using var source = new GgufSource(At("u.gguf"));
        Assert.Equal([("llama.flavour", "vanilla")], source.UnknownKeys);
    }

    [Fact]
    public void PartsOfAModelAreRefused() =>
        Assert.Contains("part 2 of 3",
            Assert.Throws<HeadroomException>(() => Read(("split.no", 1u), ("split.count", 3u))).Message,
            StringComparison.Ordinal);

    /// <summary>Tokens that end a turn or a message end a text too.</summary>
    [Fact]
    public void EndsOfTurns() =>
        Assert.Equal([257, 7, 9], Read(("tokenizer.ggml.eot_token_id", 7u),
            ("tokenizer.ggml.eom_token_id", 9u)).EosTokenIds);
}
