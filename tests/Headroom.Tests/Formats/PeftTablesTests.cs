using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats.HuggingFace;
using Headroom.Formats.Peft;
using Headroom.Inference;
using Headroom.Inference.Bases;
using Headroom.Inference.Export;
using Headroom.Models;
using Headroom.Tests.Models;

namespace Headroom.Tests.Formats;

/// <summary>
/// Embedding tables and heads in PEFT's files, in the forms that PEFT writes: what a base becomes under each is worked
/// out here by hand (the base's tensors replaced, one by one) and must be what the adapter gives, run and merged.
/// </summary>
public sealed class PeftTablesTests : IDisposable
{
    private const string Table = "model.embed_tokens.weight", Head = "lm_head.weight";
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    /// <summary>A source with some tensors replaced and, at will, the head apart from the table.</summary>
    private sealed class Replaced(IWeightSource source, bool tied, Dictionary<string, float[]> tensors) : IWeightSource
    {
        public ModelConfig Config { get; } = source.Config with { TieWordEmbeddings = tied };
        public string Hash => source.Hash;
        public bool Has(string hfName) => tensors.ContainsKey(hfName) || source.Has(hfName);
        public (int Rows, int Cols) ShapeOf(string hfName) => source.ShapeOf(hfName == Head ? Table : hfName);
        public DType SourceDType(string hfName) => DType.F32;
        public void ReadRows(string hfName, int firstRow, int rowCount, Span<float> destination)
        {
            if (!tensors.TryGetValue(hfName, out float[]? own))
                source.ReadRows(hfName, firstRow, rowCount, destination);
            else own.AsSpan(firstRow * ShapeOf(hfName).Cols, destination.Length).CopyTo(destination);
        }
        public void Dispose() { }
    }

    private static readonly ModelSettings Plain = new(WeightStorage.F32, WeightStorage.F32, TrainMode.None);

    private static float[] Logits(IWeightSource source, PeftAdapter? adapter)
    {
        var settings = Plain with { Lora = adapter?.Lora };
        Engine Load(BatchLimits limits)
        {
            var engine = new Engine(new CpuDevice(2), source, settings, limits);
            if (adapter != null) engine.LoadAdapter(adapter);
            return engine;
        }
        return ExportCheck.Logits(Load, source.Config.VocabSize, [[1, 7, 3, 11, 5], [2, 2, 9]])
            .SelectMany(l => l)
            .ToArray();
    }

    private static float[] Values(IWeightSource source, string name)
    {
        var (rows, cols) = source.ShapeOf(name);
        var values = new float[rows * cols];
        source.ReadRows(name, 0, rows, values);
        return values;
    }

    // Run and merged alike, the adapter must be the base with these tensors in the place of its own, under the same
    // pairs.
    private static void Check(
        IWeightSource source, PeftAdapter adapter, bool tied, Dictionary<string, float[]> replaced)
    {
        var pairs = adapter with
        {
            Lora = adapter.Lora with { ModulesToSave = [], EnsureWeightTying = false },
            Tensors = adapter.Tensors.Where(t => t.Key.Contains(".lora_", StringComparison.Ordinal)).ToDictionary(),
        };
        using var byHand = new Replaced(source, tied, replaced);
        float[] expected = Logits(byHand, pairs);
        Assert.NotEqual(expected, Logits(source, pairs));
        Assert.Equal(expected, Logits(source, adapter));
        using var merged = new MergedSource(source, adapter, null, null);
        Assert.Equal(tied, merged.Config.TieWordEmbeddings);
        foreach (string name in new[] { Table, Head })
            Assert.Equal(
                tied || replaced.ContainsKey(name) || source.Config.TieWordEmbeddings
                    ? Values(byHand, tied ? Table : name)
                    : Values(source, name),
                Values(merged, name)
            );
        using var wholly = new MergedSource(byHand, pairs, null, null);
        Assert.Equal(Logits(wholly, null), Logits(merged, null));
    }

    [Theory]
    [InlineData("a")]
    [InlineData("b")]
    public void EnsureWeightTyingAsPeftStoresIt(string form)
    {
        using var source = new CheckpointSource(Shared.CaseFile("peft-ensure-weight-tying/base"));
        var adapter = PeftAdapter.Load(Shared.CaseFile("peft-ensure-weight-tying/" + form), m => Assert.Fail(m));
        Check(source, adapter, true, new() { [Table] = adapter.Tensors[Table].Values });
        Assert.Equal(
            Logits(source, adapter),
            Logits(source, PeftAdapter.Load(Shared.CaseFile("peft-ensure-weight-tying/" + (form == "a" ? "b" : "a")))));
    }

    [Fact]
    public void ResizedEmbeddingsAsPeftStoresThem()
    {
        using var source = new CheckpointSource(Shared.CaseFile("peft-ensure-weight-tying/base"));
        var adapter = PeftAdapter.Load(Shared.CaseFile("peft-resized-embeddings"), m => Assert.Fail(m));
        Check(source, adapter, true, new() { [Table] = adapter.Tensors[Table].Values });
    }

    [Fact]
    public void ClassifierAsPeftStoresIt() =>
        Assert.Contains(
            "SEQ_CLS", Assert.Throws<HeadroomException>(() => PeftAdapter.Load(Shared.CaseFile("peft-seqcls"))).Message
        );

    // What the file holds (e = table, h = head, both = equal ones, two = different ones), listed in modules_to_save,
    // ensure_weight_tying: the result.
    [Theory]
    [InlineData(true, "e", "embed_tokens", true, "tied")]
    [InlineData(true, "both", "embed_tokens,model.embed_tokens", true, "tied")]
    [InlineData(true, "both", "embed_tokens,lm_head", true, "tied")]
    [InlineData(true, "e", "embed_tokens,lm_head", true, "tied")]
    [InlineData(true, "h", "lm_head", true, "tied")]
    [InlineData(true, "both", "", false, "tied")]
    [InlineData(true, "e", "", false, "tied")]
    [InlineData(true, "e", "embed_tokens", false, "e")]
    [InlineData(true, "h", "lm_head", false, "h")]
    [InlineData(true, "two", "embed_tokens,lm_head", false, "eh")]
    [InlineData(true, "two", "embed_tokens", false, "eh")]
    [InlineData(true, "two", "embed_tokens", true, "differ")]
    [InlineData(true, "two", "", false, "differ")]
    [InlineData(false, "two", "", false, "eh")]
    [InlineData(false, "two", "embed_tokens,model.embed_tokens", true, "eh")]
    [InlineData(false, "e", "embed_tokens", true, "e")]
    [InlineData(false, "h", "", false, "h")]
    public void EveryForm(bool tied, string held, string listed, bool ensure, string result)
    {
        using var source = new RandomSource(TinyModel.Small(2) with { TieWordEmbeddings = tied });
        var adapter = PeftAdapter.Load(Write(source, held, listed, ensure), m => Assert.Fail(m));
        if (result == "differ")
        {
            Assert.Contains(
                "differ", Assert.Throws<HeadroomException>(() => AdapterBase.Subtract(source, adapter)).Message);
            Assert.Contains(
                "differ", Assert.Throws<HeadroomException>(() => new MergedSource(source, adapter, null, null)).Message
            );
            return;
        }
        var replaced = new Dictionary<string, float[]>();
        if (result is "tied")
            replaced[Table] = held == "h" ? adapter.Tensors[Head].Values : adapter.Tensors[Table].Values;
        else
        {
            // Where only one of a tied pair was trained, the other stays the base's table.
            replaced[Table] = result.Contains('e') ? adapter.Tensors[Table].Values : Values(source, Table);
            replaced[Head] = result.Contains('h') ? adapter.Tensors[Head].Values : Values(source, tied ? Table : Head);
        }
        Check(source, adapter, result == "tied", replaced);
        string copy = Path.Combine(_folder, "copy");
        adapter.Save(copy);
        Assert.Equal(Logits(source, adapter), Logits(source, PeftAdapter.Load(copy, m => Assert.Fail(m))));
    }

    [Theory]
    [InlineData("")]
    [InlineData("embed_tokens,lm_head")]
    public void AnotherVocabularyIsNamed(string listed)
    {
        var config = TinyModel.Small(2);
        using var larger = new RandomSource(config with { VocabSize = 208 });
        using var source = new RandomSource(config);
        var adapter = PeftAdapter.Load(Write(larger, "both", listed, false));
        foreach (
            var use in new Action[]
            {
                () => AdapterBase.Subtract(source, adapter), () => new MergedSource(source, adapter, null, null),
            }
        )
        {
            var e = Assert.Throws<HeadroomException>(use);
            Assert.Contains("208 rows where the base has 200", e.Message);
            Assert.Contains("resized", e.Message);
            Assert.Contains("resize_token_embeddings(208)", e.ToDo);
        }
    }

    [Fact]
    public void NormsBesideThePairsAreRead()
    {
        const string norm = "model.layers.1.input_layernorm.weight";
        using var source = new RandomSource(TinyModel.Small(2));
        Write(source, "", "", false, (norm, [96]));
        var adapter = PeftAdapter.Load(_folder, m => Assert.Fail(m));
        Assert.Equal(["model.layers.1.input_layernorm"], adapter.Lora.ModulesToSave);
        Assert.False(adapter.Lora.EnsureWeightTying);
        var pairs = adapter with
        {
            Lora = adapter.Lora with { ModulesToSave = [] },
            Tensors = adapter.Tensors.Where(t => t.Key != norm).ToDictionary(),
        };
        using var byHand = new Replaced(
            source, false, new() { [norm] = adapter.Tensors[norm].Values, [Head] = Values(source, Head) });
        Assert.Equal(Logits(byHand, pairs), Logits(source, adapter));
        Assert.NotEqual(Logits(source, pairs), Logits(source, adapter));
    }

    private string Write(
        IWeightSource source, string held, string listed, bool ensure, params (string Name, long[] Shape)[] more)
    {
        var c = source.Config;
        var random = new PhiloxRandom(77);
        float[] Random(long count, float scale) =>
            [.. Enumerable.Range(0, (int)count).Select(_ => random.NextNormal() * scale)];
        var tensors = new Dictionary<string, (long[] Shape, float[] Values)>();
        for (int layer = 0; layer < c.NumHiddenLayers; layer++)
        {
            string q = $"model.layers.{layer}.self_attn.q_proj.lora_";
            tensors[q + "A.weight"] = ([4, c.HiddenSize], Random(4 * c.HiddenSize, 0.2f));
            tensors[q + "B.weight"] = (
                [c.NumAttentionHeads * c.HeadDim, 4], Random(c.NumAttentionHeads * c.HeadDim * 4, 0.2f));
        }
        long[] shape = [c.VocabSize, c.HiddenSize];
        var first = (shape, Random(c.VocabSize * c.HiddenSize, 1));
        if (held is "e" or "both" or "two") tensors[Table] = first;
        if (held is "h" or "both") tensors[Head] = first;
        if (held == "two") tensors[Head] = (shape, Random(c.VocabSize * c.HiddenSize, 1));
        foreach (var (name, dims) in more) tensors[name] = (dims, Random(dims.Aggregate(1L, (a, b) => a * b), 1));
        new PeftAdapter { Lora = new(4, 8, 0, ["q_proj"]), Tensors = tensors }.Save(_folder);
        string path = Path.Combine(_folder, "adapter_config.json");
        var json = JsonNode.Parse(File.ReadAllText(path))!.AsObject();
        json["modules_to_save"] =
            listed.Length == 0 ? null : new JsonArray(listed.Split(',').Select(l => (JsonNode)l).ToArray());
        if (ensure) json["ensure_weight_tying"] = true;
        File.WriteAllText(path, json.ToJsonString());
        return _folder;
    }
}
