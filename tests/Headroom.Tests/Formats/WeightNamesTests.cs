using System.Text.Json.Nodes;
using CsCheck;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats.Gguf;
using Headroom.Formats.HuggingFace;
using Headroom.Formats.Safetensors;
using Headroom.Inference;
using Headroom.Inference.Export;
using Headroom.Models;

namespace Headroom.Tests.Formats;

/// <summary>
/// A tensor that nothing in the model claims is named and refused, in every format; buffers that change nothing are
/// left out.
/// </summary>
public sealed class WeightNamesTests : IDisposable
{
    private readonly TempFolder _folder = new();

    private string At(string name) => Path.Combine(_folder.Path, name);

    public void Dispose() => _folder.Dispose();

    /// <summary>
    /// A golden checkpoint with further tensors, and with another configuration where <paramref name="config"/> says
    /// so.
    /// </summary>
    private string Copy(string model, IEnumerable<(string Name, long[] Shape)> more,
        Action<JsonObject>? config = null, Func<string, string>? rename = null)
    {
        using var file = SafetensorsFile.Open(Shared.GoldenFile(model + "/model.safetensors"));
        var json = (JsonObject)JsonNode.Parse(File.ReadAllText(Shared.GoldenFile(model + "/config.json")))!;
        config?.Invoke(json);
        File.WriteAllText(At("config.json"), json.ToJsonString());
        SafetensorsWriter.Write(At("model.safetensors"), file.Tensors.Keys
            .Select(n => (rename?.Invoke(n) ?? n, file.Tensors[n].DType, file.Tensors[n].Shape, file.Bytes(n)
            .ToArray()))
            .Concat(more.Select(m => (m.Name, "F32", m.Shape,
                GgufBuilder.Floats([.. Enumerable.Repeat(3f, (int)m.Shape.Aggregate(1L, (a, b) => a * b))])))));
        return _folder.Path;
    }

    private HeadroomException Refused()
    {
        var e = Assert.Throws<HeadroomException>(() => WeightSources.Open(_folder.Path));
        Assert.Equal(2, e.ExitCode);
        return e;
    }

    [Theory]
    [InlineData("model.layers.1.self_attn.q_proj.bias"), InlineData("model.layers.0.self_attn.q_norm.weight"),
        InlineData("model.layers.2.self_attn.k_norm.weight")]
    [InlineData("model.layers.0.mlp.down_proj.bias"), InlineData("model.layers.3.mlp.up_proj.weight"),
        InlineData("score.weight"), InlineData("model.norm.bias")]
    [InlineData("model.layers.0.self_attn.q_proj.lora_A.weight"), InlineData("model.embed_tokens.weight_scale"),
        InlineData("v_head.summary.weight"), InlineData("model.layers.0.mlp.experts.0.w1.weight")]
    public void IsNamed(string name)
    {
        Copy("hf/llama-mha", [(name, [16])]);
        Assert.Contains(name, Refused().Message, StringComparison.Ordinal);
        // Whoever opens the file past that check meets it in the loader and in the exporters, before anything is read
        // or written.
        using var source = new CheckpointSource(_folder.Path);
        Assert.Equal([name], source.Unclaimed);
        var engine = Assert.Throws<HeadroomException>(() =>
            new Engine(new CpuDevice(1), source,
            new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.None),
            new BatchLimits(EvalTokens: 8, EvalSequences: 1)));
        var merged = new MergedSource(source, null, null, null);
        var gguf = Assert.Throws<HeadroomException>(() => GgufExporter.Write(merged, [], "f32", At("out.gguf"), null));
        var folder = Assert.Throws<HeadroomException>(() =>
            CheckpointExporter.Write(merged, _folder.Path, null, "f32", At("nowhere")));
        Assert.All(new[] { engine, gguf, folder }, e => Assert.Contains(name, e.Message, StringComparison.Ordinal));
        Assert.False(File.Exists(At("out.gguf")));
    }

    [Theory]
    [InlineData("model.layers.0.self_attn.rotary_emb.inv_freq"), InlineData("model.rotary_emb.inv_freq"),
        InlineData("model.layers.1.attn.masked_bias"), InlineData("model.layers.1.attn.bias")]
    [InlineData("model.embed_tokens.position_ids")]
    public void BuffersAreLeftOut(string name)
    {
        using var source = WeightSources.Open(Copy("hf/llama-mha", [(name, [16])]));
        Assert.Empty(source.Unclaimed);
    }

    /// <summary>
    /// Many at once: as many as there are are counted, the first are named; a name that merely resembles one of the
    /// model's is no claim.
    /// </summary>
    [Fact]
    public void AnyNumberOfThem()
    {
        string[] parts = ["self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "input_layernorm", "attn.c_attn",
            "mlp.gate"], ends = [".bias", ".weight_scale", ".g_idx", ".weight2"];
        var gen = Gen.Select(Gen.Int[0, 2], Gen.OneOf(parts), Gen.OneOf(ends), (l, p, e) => $"model.layers.{l}.{p}{e}");
        gen.Array[1, 12].Sample(all =>
        {
            var names = all.ToHashSet();
            Copy("hf/llama-mha", names.Select(n => (n, new long[] { 4 })));
            var e = Refused();
            Assert.StartsWith($"{names.Count} tensor", e.Message, StringComparison.Ordinal);
            Assert.Equal(Math.Min(4, names.Count), names.Count(n => e.Message.Contains(n, StringComparison.Ordinal)));
        }, iter: 20, threads: 1);
    }

    [Fact]
    public void LayersBeyondThoseOfTheConfiguration()
    {
        Copy("hf/llama-mha", [], c => c["num_hidden_layers"] = 2);
        var e = Refused();
        Assert.Contains("model.layers.2.", e.Message, StringComparison.Ordinal);
        Assert.Contains("the configuration 2 layers", e.ToDo, StringComparison.Ordinal);
    }

    [Fact]
    public void MissingOnesAndOthersShapes()
    {
        Copy("hf/llama-mha", [], c => c["num_hidden_layers"] = 4);
        Assert.Contains("no tensor model.layers.3.", Refused().Message, StringComparison.Ordinal);
        Copy("hf/llama-mha", [], c => c["intermediate_size"] = 348);
        Assert.Contains("[344, 128]", Refused().Message, StringComparison.Ordinal);
        Copy("hf/qwen2-bias", [], rename: n => n == "model.layers.1.self_attn.v_proj.bias"
            ? "model.layers.1.self_attn.v_proj.bias2" : n);
        Assert.Contains("v_proj.bias2", Refused().Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(""), InlineData("transformer."), InlineData("base_model.model.model.")]
    public void OtherPrefixes(string prefix)
    {
        Copy("hf/llama-mha", [], rename: n => n.StartsWith("model.", StringComparison.Ordinal) ? prefix
            + n["model.".Length..] : n);
        var e = Refused();
        Assert.Contains(prefix + "embed_tokens.weight", e.Message, StringComparison.Ordinal);
        Assert.Contains("LlamaForCausalLM", e.ToDo, StringComparison.Ordinal);
    }

    /// <summary>A head beside tied embeddings: taken when it is the table, refused when not.</summary>
    [Fact]
    public void AHeadBesideTiedEmbeddings()
    {
        byte[] table;
        long[] shape;
        using (var file = SafetensorsFile.Open(Shared.GoldenFile("hf/llama-gqa-tied/model.safetensors"))) (table,
            shape) = (file.Bytes("model.embed_tokens.weight").ToArray(),
            file.Tensors["model.embed_tokens.weight"].Shape);
        Copy("hf/llama-gqa-tied", [("lm_head.weight", shape)]);
        Assert.Contains("lm_head.weight", Refused().Message, StringComparison.Ordinal);
        byte[] bytes = File.ReadAllBytes(At("model.safetensors"));
        int at = bytes.AsSpan().IndexOf(GgufBuilder.Floats([3, 3, 3, 3, 3, 3, 3, 3]));
        table.CopyTo(bytes, at);
        File.WriteAllBytes(At("model.safetensors"), bytes);
        using var source = WeightSources.Open(_folder.Path);
        Assert.Empty(source.Unclaimed);
    }

    /// <summary>
    /// The statistics of a 4-bit weight are claimed with it; those of none, or of a weight that is none of the
    /// model's, are not.
    /// </summary>
    [Fact]
    public void StatisticsOfFourBitWeights()
    {
        foreach (string model in (string[])["llama-mha",
            "qwen2-bias"]) WeightSources.Open(Shared.GoldenFile("bnb-4bit/" + model)).Dispose();
        Copy("bnb-4bit/llama-mha", [("model.norm.weight.absmax", [4])]);
        Assert.Contains("model.norm.weight.absmax", Refused().Message, StringComparison.Ordinal);
        Copy("bnb-4bit/qwen2-bias", [("model.layers.0.mlp.up_proj.weight.nested_absmax", [4])]); // flat statistics
        Assert.Contains("nested_absmax", Refused().Message, StringComparison.Ordinal);
        Copy("bnb-4bit/llama-mha", [], c => c["num_hidden_layers"] = 2);
        Assert.Contains("absmax", Refused().Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("blk.0.attn_q.bias", 32), InlineData("blk.0.attn_q_norm.weight", 8),
        InlineData("blk.1.attn_norm.weight", 32), InlineData("rope_factors_long.weight", 4),
        InlineData("cls.output.weight", 4)]
    public void OfGguf(string name, int n)
    {
        Samples.Gguf(At("a.gguf"), "f32");
        GgufEdit.Rewrite(At("a.gguf"), At("b.gguf"), _ => { }, GgufEdit.Vector(name, n));
        if (name == "blk.0.attn_q.bias") // the first bias says that there are all three
            Assert.Contains("no tensor blk.0.attn_k.bias",
                Assert.Throws<HeadroomException>(() => WeightSources.Open(At("b.gguf"))).Message,
                StringComparison.Ordinal);
        else
            Assert.Contains(name, Assert.Throws<HeadroomException>(() => WeightSources.Open(At("b.gguf"))).Message,
                StringComparison.Ordinal);
        GgufEdit.Rewrite(At("a.gguf"), At("c.gguf"), _ => { }, GgufEdit.Vector("blk.0.attn_rot_embd.weight", 4),
            GgufEdit.Vector("rope_freqs.weight", 4));
        using var read = WeightSources.Open(At("c.gguf"));
        Assert.Equal([3f, 3f, 3f, 3f], read.Config.RopeDivisors!); // divisors are read, not left out
    }

    /// <summary>Biases of 3.0 under attention_bias false.</summary>
    [Fact]
    public void TheCaseOfTheBiases()
    {
        var e = Assert.Throws<HeadroomException>(() => WeightSources.Open(Shared.CaseFile("base-extra-tensors")));
        Assert.StartsWith("12 tensors", e.Message, StringComparison.Ordinal);
        Assert.Contains("model.layers.0.self_attn.q_proj.bias", e.Message, StringComparison.Ordinal);
        using var source = WeightSources.Any(Shared.CaseFile("base-extra-tensors"));
        Assert.Equal(12, source.Unclaimed.Count);
    }

    /// <summary>
    /// Ids that the table does not have are refused, wherever they come from; nothing behind the table is read.
    /// </summary>
    [Fact]
    public void IdsBeyondTheTable()
    {
        using var source = new Samples.Weights(Samples.Config());
        using var engine = new Engine(new CpuDevice(1), source,
            new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.None),
            new BatchLimits(EvalTokens: 4, EvalSequences: 1, Candidates: 2));
        float[] scores = new float[2], lse = new float[1];
        void Scores(int id, int candidate) =>
            engine.Scores(new HostBatch([1, id, 3, 4], [0, 1, 2, 3], [0, 4], [3], [0]), [2, candidate], scores, lse);
        Scores(259, 259);
        Assert.All(scores, s => Assert.True(float.IsFinite(s)));
        foreach (int bad in (int[])[260, 1 << 30, -1])
        {
            Assert.Contains($"id {bad}", Assert.Throws<HeadroomException>(() => Scores(bad, 1)).Message,
                StringComparison.Ordinal);
            Assert.Contains($"id {bad}", Assert.Throws<HeadroomException>(() => Scores(1, bad)).Message,
                StringComparison.Ordinal);
        }
    }

    /// <summary>Every checkpoint that peers wrote, and ours, still opens.</summary>
    [Fact]
    public void NothingOfSoundFilesIsLeft()
    {
        foreach (string model in (string[])["deepseek-like", "llama-gqa-tied", "llama-mha", "llama3-rope",
            "mistral-window", "qwen2-bias"]) WeightSources.Open(Shared.GoldenFile("hf/" + model)).Dispose();
        WeightSources.Open(Shared.DataFile("models/stories260K/hf")).Dispose();
        WeightSources.Open(Shared.DataFile("models/SmolLM2-135M-Instruct/SmolLM2-135M-Instruct.Q4_1.gguf")).Dispose();
    }
}
