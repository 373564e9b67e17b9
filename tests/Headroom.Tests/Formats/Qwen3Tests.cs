using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats.Gguf;
using Headroom.Formats.HuggingFace;
using Headroom.Formats.Peft;
using Headroom.Formats.Safetensors;
using Headroom.Inference;
using Headroom.Inference.Export;
using Headroom.Models;

namespace Headroom.Tests.Formats;

/// <summary>Qwen3 in files: configuration, GGUF and PEFT, there and back.</summary>
public sealed class Qwen3Tests : IDisposable
{
    private const string Folder = "families/qwen3", Windowed = "families/qwen3-window";
    private readonly TempFolder _folder = new();

    private string At(string name) => Path.Combine(_folder.Path, name);

    public void Dispose() => _folder.Dispose();

    private static JsonObject Minimal(params (string Key, JsonNode? Value)[] more)
    {
        var json = new JsonObject { ["architectures"] = new JsonArray("Qwen3ForCausalLM"), ["model_type"] = "qwen3" };
        foreach (var (key, value) in more) json[key] = value;
        return json;
    }

    /// <summary>What Qwen3Config takes where the file is silent.</summary>
    [Fact]
    public void DefaultsOfTheClass()
    {
        var c = HfConfig.Parse(Minimal().ToJsonString());
        Assert.Equal((151936, 4096, 22016, 32, 32, 32, 128, 32768),
            (c.VocabSize, c.HiddenSize, c.IntermediateSize, c.NumHiddenLayers, c.NumAttentionHeads, c.NumKeyValueHeads,
            c.HeadDim, c.MaxPositionEmbeddings));
        Assert.Equal((1e-6f, 10000, false, false, false, false, null),
            (c.RmsNormEps, c.RopeTheta, c.TieWordEmbeddings, c.AttentionBias, c.AttentionOutputBias, c.MlpBias,
            c.SlidingWindow));
        Assert.Equal("Qwen3ForCausalLM", c.Architecture);
        Assert.True(c.Family.NormsHeads);
    }

    [Fact]
    public void KeysOfTheClass()
    {
        var c = HfConfig.Parse(Minimal(("attention_bias", true), ("use_sliding_window", true), ("sliding_window", 16),
            ("max_window_layers", 2), ("num_hidden_layers", 3), ("hidden_size", 1024), ("num_attention_heads", 16),
            ("num_key_value_heads", 8))
            .ToJsonString());
        Assert.Equal((true, true, false, 16, 128), (c.AttentionBias, c.AttentionOutputBias, c.MlpBias, c.SlidingWindow,
            c.HeadDim));
        Assert.Equal([false, false, true], Enumerable.Range(0, 3).Select(c.LayerSlides));
        var again = HfConfig.Parse(HfConfig.Write(c));
        Assert.Equal(c with { EosTokenIds = [], SlidingLayers = null },
            again with { EosTokenIds = [], SlidingLayers = null });
    }

    [Theory]
    [InlineData("mlp_bias", "true")]
    [InlineData("num_experts", "8")]
    [InlineData("partial_rotary_factor", "0.5")]
    [InlineData("hidden_act", "\"gelu\"")]
    [InlineData("attention_multiplier", "0.5")]
    [InlineData("qkv_bias", "true")]
    public void OtherMathsIsRefusedByName(string key, string value)
    {
        string file = Minimal((key, JsonNode.Parse(value))).ToJsonString();
        var e = Assert.Throws<HeadroomException>(() => HfConfig.Parse(file));
        Assert.Contains(key, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void ExpertsAreAnotherArchitecture()
    {
        var json = Minimal();
        json["architectures"] = new JsonArray("Qwen3MoeForCausalLM");
        var e = Assert.Throws<HeadroomException>(() => HfConfig.Parse(json.ToJsonString()));
        Assert.Contains("Qwen3MoeForCausalLM", e.Message, StringComparison.Ordinal);
    }

    [Theory, InlineData(Folder), InlineData(Windowed)]
    public void GgufHoldsTheModel(string folder)
    {
        using var source = WeightSources.Open(Shared.GoldenFile(folder));
        GgufExporter.Write(source, [], "f32", At("m.gguf"), "qwen3");
        using var back = new GgufSource(At("m.gguf"));
        ModelConfig a = source.Config, b = back.Config;
        Assert.Equal("qwen3", back.File.Text("general.architecture"));
        Assert.Equal(32, back.File.Int("qwen3.attention.key_length"));
        // GGUF's qwen3 has no window, and the ids of special tokens lie with the vocabulary.
        var due = a with { BosTokenId = null, PadTokenId = null, EosTokenIds = [] };
        due = due with { SlidingLayers = null, SlidingWindow = null, FirstSlidingLayer = 0 };
        Assert.Equal(due, b with { EosTokenIds = due.EosTokenIds });
        foreach (string name in a.MatrixNames().Concat(a.VectorNames()))
            Assert.Equal(Read(source, name), Read(back, name));
        // The file's own rows: halves of a head, as Hugging Face has them, and the norms under llama.cpp's names.
        foreach (var (gguf, hf) in (ReadOnlySpan<(string, string)>)[("blk.1.attn_q.weight", "self_attn.q_proj"),
            ("blk.1.attn_k.weight", "self_attn.k_proj"), ("blk.1.attn_q_norm.weight", "self_attn.q_norm"),
            ("blk.1.attn_k_norm.weight", "self_attn.k_norm")])
        {
            var t = back.File.Tensors[gguf];
            var values = new float[t.Rows * t.Columns];
            back.File.DequantizeRows(gguf, 0, t.Rows, values);
            Assert.Equal(Read(source, $"model.layers.1.{hf}.weight"), values);
        }
        Assert.Empty(back.Unclaimed);
        Assert.Empty(back.UnknownKeys);
    }

    /// <summary>The model read back from GGUF gives the logits of the folder it came from.</summary>
    [Fact]
    public void GgufComputesTheSame()
    {
        using var golden = SafetensorsFile.Open(Shared.GoldenFile(Folder + "/golden.safetensors"));
        var batch = Golden.ModelGoldenTests.Batch(golden, out int rows, out int length);
        using (var source = WeightSources.Open(Shared.GoldenFile(Folder)))
            GgufExporter.Write(source, [], "f32", At("m.gguf"), null);
        using var back = WeightSources.Open(At("m.gguf"));
        using var engine = new Engine(TestDevice.Open(), back,
            new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.None),
            new BatchLimits(0, 0, 0, batch.Tokens, batch.Tokens, back.Config.VocabSize));
        Golden.ModelGoldenTests.CompareLogits(engine, batch, golden.ReadF32("base.logits"), rows, length, 1e-4f);
    }

    [Fact]
    public void AdapterAsPeftWritesIt()
    {
        var adapter = PeftAdapter.Load(Shared.GoldenFile(Folder + "/adapter"));
        using var source = WeightSources.Open(Shared.GoldenFile(Folder));
        var settings = new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters,
            Golden.ModelGoldenTests.Settings(adapter));
        using var engine = new Engine(TestDevice.Open(), source, settings, new BatchLimits(8, 1, 8));
        engine.LoadAdapter(adapter);
        Assert.Equal(adapter.Tensors.Keys.Order(), engine.Model.AdapterTensors.Select(t => t.Name).Order());
        engine.Adapter(null, "").Save(_folder.Path);
        const string weights = "adapter_model.safetensors";
        using SafetensorsFile theirs = SafetensorsFile.Open(Shared.GoldenFile($"{Folder}/adapter/{weights}")),
            ours = SafetensorsFile.Open(At(weights));
        Assert.Equal(theirs.Tensors.Keys.Order(), ours.Tensors.Keys.Order());
        Assert.All(theirs.Tensors.Keys, k => Assert.Equal(theirs.ReadF32(k), ours.ReadF32(k)));
    }

    [Fact]
    public void AModelWithoutItsNormsIsRefused()
    {
        const string gone = "model.layers.1.self_attn.k_norm.weight";
        File.Copy(Shared.GoldenFile(Folder + "/config.json"), At("config.json"));
        using (var file = SafetensorsFile.Open(Shared.GoldenFile(Folder + "/model.safetensors")))
            SafetensorsWriter.Write(At("model.safetensors"), file.Tensors.Keys.Where(k => k != gone)
                .Select(n => (n, file.Tensors[n].DType, file.Tensors[n].Shape, file.Bytes(n).ToArray())));
        Assert.Contains(gone, Assert.Throws<HeadroomException>(() => WeightSources.Open(_folder.Path)).Message,
            StringComparison.Ordinal);
    }

    private static float[] Read(IWeightSource source, string name)
    {
        var (rows, cols) = source.ShapeOf(name);
        var values = new float[rows * cols];
        source.ReadRows(name, 0, rows, values);
        return values;
    }
}
