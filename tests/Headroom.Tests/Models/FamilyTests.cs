using Headroom.Core;
using Headroom.Core.Families;
using Headroom.Formats.HuggingFace;
using Headroom.Models;

namespace Headroom.Tests.Models;

/// <summary>The tables of the families: what is derived from them hangs together.</summary>
public class FamilyTests
{
    public static TheoryData<string> Types => [.. ModelFamilies.All.Select(f => f.ModelType)];

    private static ModelConfig Config(string type) =>
        TinyModel.Small(type: type) with { AttentionBias = true, AttentionOutputBias = true, MlpBias = true };

    [Theory, MemberData(nameof(Types))]
    public void EveryTensorIsFoundByItsName(string type)
    {
        var c = Config(type);
        var all = c.Family.Weights(c).ToList();
        Assert.Equal(all, all.Select(w => c.Family.Find(w.Name)!.Value));
        Assert.Equal(all.Count, all.Select(w => w.Name).Distinct().Count());
        Assert.Equal(all.Count, all.Select(w => w.GgufName).Distinct().Count());
        Assert.All(all, w => Assert.InRange(w.GgufName.Length, 1, 63)); // GGUF's longest name
        Assert.Equal(all.Select(w => w.Name).Order(), c.MatrixNames().Concat(c.VectorNames()).Order());
        Assert.All(all, w => Assert.Equal(WeightShapes.Expected(c, w.Name), w.Shape(c)));
        Assert.Null(c.Family.Find("model.layers.0.self_attn.rotary_emb.inv_freq"));
        Assert.Null(c.Family.Find("model.layers.99999999999.self_attn.q_proj.weight"));
        Assert.Null(c.Family.Find("model.norm.bias"));
    }

    /// <summary>Names and shapes that are written down once more, beside the table.</summary>
    [Theory, MemberData(nameof(Types))]
    public void ShapesAreThoseOfTheModel(string type)
    {
        var c = Config(type);
        using var second = new RandomSource(c);
        var all = c.Family.Weights(c).ToList();
        Assert.All(all, w => Assert.Equal(second.ShapeOf(w.Name), w.Shape(c)));
        long Sum(Func<ModelWeight, bool> which) =>
            all.Where(which).Sum(w => second.ShapeOf(w.Name) is var s ? (long)s.Rows * s.Cols : 0);
        Assert.Equal((Sum(w => w.Name.EndsWith("_proj.weight", StringComparison.Ordinal)),
            Sum(w => w.Name is "model.embed_tokens.weight" or "lm_head.weight"), Sum(w => w.IsVector)), c.Parameters);
    }

    [Theory, MemberData(nameof(Types))]
    public void TheModelHasThemAll(string type)
    {
        var c = Config(type);
        using var engine = TinyModel.Open(c, new(WeightStorage.F32, WeightStorage.F32, TrainMode.Full), 8, 1);
        Assert.Equal(c.Family.Weights(c).Select(w => w.Name).Order(), engine.Model.Trained.Select(t => t.Name).Order());
        Assert.Equal(c.ProjectionPaths(), engine.Model.Projections.Select(p => p.Path));
    }

    /// <summary>Published models: parameters as their cards count them.</summary>
    [Theory]
    [InlineData("llama", 32000, 4096, 11008, 32, 32, 32, 128, false, 6_738_415_616)]
    [InlineData("qwen2", 151936, 896, 4864, 24, 14, 2, 64, true, 494_032_768)]
    [InlineData("qwen3", 151936, 1024, 3072, 28, 16, 8, 128, true, 596_049_920)]
    public void Parameters(string type, int vocabulary, int hidden, int inter, int layers, int heads, int kv, int d,
        bool tied, long due)
    {
        var c = new ModelConfig
        {
            ModelType = type,
            VocabSize = vocabulary,
            HiddenSize = hidden,
            IntermediateSize = inter,
            NumHiddenLayers = layers,
            NumAttentionHeads = heads,
            NumKeyValueHeads = kv,
            HeadDim = d,
            TieWordEmbeddings = tied,
            AttentionBias = type == "qwen2",
        };
        var (linear, embeddings, vectors) = c.Parameters;
        Assert.Equal(due, linear + embeddings + vectors);
    }

    [Fact]
    public void AnUnknownTypeIsRefused()
    {
        var e = Assert.Throws<HeadroomException>(() => TinyModel.Small(type: "mamba").Family);
        Assert.Contains("mamba", e.Message, StringComparison.Ordinal);
        Assert.Contains("Qwen3ForCausalLM (Qwen3", e.Message + e.ToDo, StringComparison.Ordinal);
    }
}
