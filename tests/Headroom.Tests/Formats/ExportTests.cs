using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats.Gguf;
using Headroom.Formats.HuggingFace;
using Headroom.Formats.Peft;
using Headroom.Formats.Safetensors;
using Headroom.Inference;
using Headroom.Inference.Export;
using Headroom.Models;
using Headroom.Tokenizers;

namespace Headroom.Tests.Formats;

/// <summary>Merged weights against PEFT, GGUF and safetensors files against what was put in.</summary>
public sealed class ExportTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public static TheoryData<string> Models()
    {
        var data = new TheoryData<string>();
        string root = Path.Combine(Shared.Golden, "hf");
        if (Directory.Exists(root))
            foreach (string d in Directory.GetDirectories(root).Order())
                data.Add(Path.GetFileName(d));
        else data.Add("llama-mha");
        return data;
    }

    private string At(string name) => Path.Combine(_folder.Path, name);

    private static (IWeightSource Base, PeftAdapter Adapter) Open(string model) =>
        (
            WeightSources.Open(Shared.GoldenFile($"hf/{model}")),
            PeftAdapter.Load(Shared.GoldenFile($"hf/{model}/adapter")));

    private static float[] Read(IWeightSource s, string name)
    {
        var (rows, cols) = s.ShapeOf(name);
        var values = new float[rows * cols];
        s.ReadRows(name, 0, rows, values);
        return values;
    }

    [Theory, MemberData(nameof(Models))]
    public void MergedIsPefts(string model)
    {
        var (source, adapter) = Open(model);
        using (source)
        {
            using var golden = SafetensorsFile.Open(Shared.GoldenFile($"hf/{model}/golden.safetensors"));
            using var merged = new MergedSource(source, adapter, null, null);
            int n = 0;
            foreach (string key in golden.Tensors.Keys.Where(k => k.StartsWith("merged.", StringComparison.Ordinal)))
            {
                float[] due = golden.ReadF32(key), actual = Read(merged, key["merged.".Length..]);
                for (int i = 0; i < due.Length; i++)
                    Assert.True(MathF.Abs(due[i] - actual[i]) <= 1e-6f, $"{key}[{i}]: {actual[i]} against {due[i]}");
                n++;
            }
            Assert.Equal(7, n);
        }
    }

    /// <summary>
    /// A module with an alpha or a rank of its own (alpha_pattern, rank_pattern) is merged with its own scaling: B A
    /// alpha / r.
    /// </summary>
    [Theory, InlineData(false), InlineData(true)]
    public void PatternsHoldInTheMerge(bool rslora)
    {
        var (source, plain) = Open("llama-mha");
        using (source)
        {
            var tensors = plain.Tensors.ToDictionary();
            foreach (string key in tensors.Keys.Where(k => k.Contains(".v_proj.", StringComparison.Ordinal)).ToList())
            {
                // Half the rank: the first rows of A, the first columns of B.
                var (shape, values) = tensors[key];
                int half = plain.Lora.R / 2;
                tensors[key] = key.Contains(".lora_A.", StringComparison.Ordinal)
                    ? ([half, shape[1]], values[..(half * (int)shape[1])])
                    : ([shape[0], half], values.Where((_, i) => i % plain.Lora.R < half).ToArray());
            }
            var adapter = new PeftAdapter
            {
                Lora = plain.Lora with
                {
                    UseRslora = rslora,
                    RankPattern = new() { ["v_proj"] = plain.Lora.R / 2 },
                    AlphaPattern = new() { ["q_proj"] = 3 * plain.Lora.LoraAlpha },
                },
                Tensors = tensors,
            };
            using MergedSource merged = new(source, adapter, null, null);
            foreach (string module in new[] { "q_proj", "k_proj", "v_proj" })
            {
                string path = "model.layers.1.self_attn." + module;
                float[] w = Read(source, path + ".weight"), m = Read(merged, path + ".weight");
                var (a, b) = (tensors[path + ".lora_A.weight"], tensors[path + ".lora_B.weight"]);
                int r = (int)a.Shape[0], cols = (int)a.Shape[1];
                double scaling = plain.Lora.LoraAlpha * (module == "q_proj" ? 3 : 1) / (rslora ? Math.Sqrt(r) : r);
                Assert.Equal(module == "v_proj" ? plain.Lora.R / 2 : plain.Lora.R, r);
                for (int i = 0; i < w.Length; i++)
                {
                    double delta = 0;
                    for (int k = 0; k < r; k++)
                        delta += (double)b.Values[i / cols * r + k] * a.Values[k * cols + i % cols];
                    Assert.Equal(w[i] + scaling * delta, m[i], 1e-5);
                }
            }
        }
    }

    /// <summary>
    /// As it was trained: the dequantized NF4 base, the same bits that the QLoRA golden was made with, plus the delta.
    /// </summary>
    [Theory, MemberData(nameof(Models))]
    public void MergedIntoTheBaseAsTrained(string model)
    {
        var (source, adapter) = Open(model);
        using (source)
        {
            using var cpu = new CpuDevice(2);
            using MergedSource plain = new(source, null, null, null),
                held = new(source, null, WeightStorage.NF4Double, cpu.Ops),
                merged = new(source, adapter, WeightStorage.NF4Double, cpu.Ops),
                simple = new(source, adapter, null, null);
            const string name = "model.layers.1.mlp.down_proj.weight";
            float[] w = Read(plain, name), q = Read(held, name), m = Read(merged, name), s = Read(simple, name);
            double error = 0, norm = 0;
            for (int i = 0; i < w.Length; i++)
            {
                Assert.Equal(s[i] - w[i], m[i] - q[i], 1e-6);
                error += (q[i] - w[i]) * (double)(q[i] - w[i]);
                norm += (double)w[i] * w[i];
            }
            Assert.InRange(Math.Sqrt(error / norm), 0.02, 0.2); // NF4's error on normal weights is about 0.1
            Assert.Equal(Read(plain, "model.embed_tokens.weight"), Read(held, "model.embed_tokens.weight"));
        }
    }

    /// <summary>Against the definition, over every row, in doubles.</summary>
    [Theory, MemberData(nameof(Models))]
    public void CancellationIsThatOfThePartsAndTheirSum(string model)
    {
        var (source, adapter) = Open(model);
        using (source)
        {
            using MergedSource plain = new(source, null, null, null), merged = new(source, adapter, null, null);
            const string module = "model.layers.1.mlp.down_proj", name = module + ".weight";
            Assert.Equal(1, plain.Cancellation(name));
            float[] w = Read(plain, name),
                m = Read(merged, name),
                a = adapter.Tensors[module + ".lora_A.weight"].Values,
                b = adapter.Tensors[module + ".lora_B.weight"].Values;
            int n = source.ShapeOf(name).Cols, rank = a.Length / n;
            double scaling = adapter.Lora.For(module).Scaling, parts = 0, sums = 0;
            static double Length(IEnumerable<float> values) => Math.Sqrt(values.Sum(v => (double)v * v));
            for (int i = 0; i < w.Length / n; i++)
            {
                double part = Length(w.Skip(i * n).Take(n));
                for (int k = 0; k < rank; k++)
                    part += scaling * Math.Abs(b[i * rank + k]) * Length(a.Skip(k * n).Take(n));
                parts += part * part;
                sums += Math.Pow(Length(m.Skip(i * n).Take(n)), 2);
            }
            double due = Math.Sqrt(parts / sums);
            Assert.Equal(due, merged.Cancellation(name, int.MaxValue), due * 1e-5);
            Assert.True(due > 1);
        }
    }

    [Fact]
    public void AdapterOfAnotherModelIsRefused()
    {
        using var source = WeightSources.Open(Shared.GoldenFile("hf/llama-mha"));
        Assert.Throws<HeadroomException>(() =>
            new MergedSource(source, PeftAdapter.Load(Shared.GoldenFile("hf/llama-gqa-tied/adapter")), null, null)
        );
    }

    [Theory, MemberData(nameof(Models))]
    public void GgufHoldsTheModel(string model)
    {
        var (source, adapter) = Open(model);
        using (source)
        {
            using var merged = new MergedSource(source, adapter, null, null);
            GgufExporter.Write(merged, [], "f32", At("m.gguf"), model);
            using var back = new GgufSource(At("m.gguf"));
            ModelConfig a = source.Config, b = back.Config;
            Assert.Equal(
                (
                    a.VocabSize, a.HiddenSize, a.IntermediateSize, a.NumHiddenLayers, a.NumAttentionHeads,
                    a.NumKeyValueHeads, a.HeadDim, a.TieWordEmbeddings, a.AttentionBias, a.MaxPositionEmbeddings,
                    a.RmsNormEps),
                (
                    b.VocabSize, b.HiddenSize, b.IntermediateSize, b.NumHiddenLayers, b.NumAttentionHeads,
                    b.NumKeyValueHeads, b.HeadDim, b.TieWordEmbeddings, b.AttentionBias, b.MaxPositionEmbeddings,
                    b.RmsNormEps)
            );
            float[] fa = a.InverseFrequencies(out float ka), fb = b.InverseFrequencies(out float kb);
            for (int i = 0; i < fa.Length; i++) Assert.True(MathF.Abs(fa[i] - fb[i]) <= 1e-6f * fa[i]);
            Assert.Equal(ka, kb);
            foreach (string name in a.MatrixNames().Concat(a.VectorNames()))
                Assert.Equal(Read(merged, name), Read(back, name));
            Assert.Equal(a.RopeScaling?.Type == "llama3", back.File.Tensors.ContainsKey("rope_freqs.weight"));
            // The rows in the file: pairs of a head stand side by side for "llama", in halves for "qwen2".
            const string q = "model.layers.0.self_attn.q_proj.weight";
            float[] rows = Read(merged, q), raw = new float[a.HiddenSize];
            int d = a.HeadDim;
            foreach (int j in new[] { 0, 1, d / 2 - 1 })
                foreach (int half in new[] { 0, 1 })
                {
                    back.File.DequantizeRows(
                        "blk.0.attn_q.weight", d + (a.ModelType == "qwen2" ? j + half * d / 2 : 2 * j + half), 1, raw);
                    Assert.Equal(rows.AsSpan((d + j + half * d / 2) * a.HiddenSize, a.HiddenSize).ToArray(), raw);
                }
        }
    }

    [
        Theory, InlineData("f16", GgmlType.F16), InlineData("bf16", GgmlType.BF16), InlineData("q8_0", GgmlType.Q8_0),
        InlineData("q4_0", GgmlType.Q4_0)]
    internal void TypesAndLayout(string type, GgmlType due)
    {
        Samples.Gguf(At("s.gguf"), type);
        using var f = new GgufFile(At("s.gguf"));
        var c = Samples.Config();
        Assert.Equal(due, f.Tensors["blk.0.attn_q.weight"].Type);
        // 40 columns are not whole blocks of 32; norms are always float32; Q4_0's output matrix is one better.
        Assert.Equal(due.IsPlain() ? due : GgmlType.F16, f.Tensors["blk.0.ffn_down.weight"].Type);
        Assert.Equal(due == GgmlType.Q4_0 ? GgmlType.Q8_0 : due, f.Tensors["output.weight"].Type);
        Assert.All(f.Tensors.Values.Where(t => t.Name.Contains("norm")), t => Assert.Equal(GgmlType.F32, t.Type));
        Assert.All(f.Tensors.Values, t => Assert.Equal(0, t.Offset % 32));
        Assert.Equal(0, new FileInfo(At("s.gguf")).Length % 32);
        Assert.Equal(type switch { "f16" => 1, "bf16" => 32, "q8_0" => 7, _ => 2 }, f.Int("general.file_type"));
        Assert.Equal(due.IsPlain() ? null : 2, f.Int("general.quantization_version"));
        using var weights = new Samples.Weights(c);
        var values = new float[32];
        f.DequantizeRows("blk.0.ffn_gate.weight", 7, 1, values);
        float[] asked = Read(weights, "model.layers.0.mlp.gate_proj.weight").AsSpan(7 * 32, 32).ToArray();
        float bound =
            asked.Max(MathF.Abs)
            * due switch
            {
                GgmlType.F16 => 1e-3f,
                GgmlType.BF16 => 5e-3f,
                GgmlType.Q8_0 => 5e-3f,
                _ => 0.14f,
            };
        for (int i = 0; i < 32; i++) Assert.True(MathF.Abs(asked[i] - values[i]) <= bound);
        Assert.Single(Directory.GetFiles(_folder.Path));
    }

    /// <summary>What is a vector is told by its name: a matrix of one column, or of one row, is none.</summary>
    [Theory]
    [InlineData("f32", 0)]
    [InlineData("q8_0", 1e-2)]
    public void AMatrixMayHaveOneColumn(string type, double most)
    {
        using var weights = new Samples.Weights(Samples.Config() with { IntermediateSize = 1 });
        GgufExporter.Write(weights, [], type, At("m.gguf"), null);
        using var copy = WeightSources.Open(At("m.gguf"));
        Assert.Equal(
            ((32, 1), (1, 32)),
            (copy.ShapeOf("model.layers.0.mlp.down_proj.weight"), copy.ShapeOf("model.layers.0.mlp.up_proj.weight")));
        var stored = GgufExporter.Types[type].Type;
        var (error, beyond) = ExportCheck.Weights(
            weights, copy, (n, cols) => GgufExporter.TypeOf(weights.Config, n, stored, cols), GgmlType.F32);
        Assert.Null(beyond);
        Assert.InRange(error, 0, most);
    }

    [Fact]
    public void WhatDoesNotFitLeavesNoFile()
    {
        using var weights = new Samples.Weights(Samples.Config(), 1e5f);
        var e = Assert.Throws<HeadroomException>(() => GgufExporter.Write(weights, [], "f16", At("x.gguf"), null));
        Assert.Contains("too large for F16", e.Message);
        Assert.Empty(Directory.GetFiles(_folder.Path));
    }

    /// <summary>A file is written whose q rows are not in llama.cpp's order: the check must see it.</summary>
    [Fact]
    public void TheCheckSeesAWrongRowOrder()
    {
        string path = Shared.DataFile("models/stories260K/hf");
        using var source = WeightSources.Open(path);
        var words = TokenizerLoader.Load(path);
        var prompts = ExportCheck.Prompts.Select(p => words.Encode(p, true)).ToList();
        GgufExporter.Write(source, GgufVocabulary.Build(path, source.Config.VocabSize), "f32", At("good.gguf"), null);
        GgufExporter.Write(
            new Rotated(source), GgufVocabulary.Build(path, source.Config.VocabSize), "f32", At("bad.gguf"), null);
        var settings = new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.None);
        List<float[]> Logits(IWeightSource s) =>
            ExportCheck.Logits(
                limits => new Engine(new CpuDevice(2), s, settings, limits), s.Config.VocabSize, prompts);
        using IWeightSource good = WeightSources.Open(At("good.gguf")), bad = WeightSources.Open(At("bad.gguf"));
        var reference = Logits(source);
        (double, string?) Weights(IWeightSource s) =>
            ExportCheck.Weights(source, s, (_, _) => GgmlType.F32, GgmlType.F32);
        Assert.Equal((0, null), Weights(good));
        Assert.Equal((double.PositiveInfinity, "model.layers.0.self_attn.q_proj.weight"), Weights(bad));
        var right = ExportCheck.Compare(reference, Logits(good), source.Config.VocabSize);
        Assert.Equal((0f, 1.0), (right.LargestDifference, right.Agreement));
        var wrong = ExportCheck.Compare(reference, Logits(bad), source.Config.VocabSize);
        var (difference, agreement) = ExportCheck.Bounds("q8_0", 0);
        Assert.True(wrong.RelativeDifference > difference && wrong.Agreement < agreement, wrong.ToString());
    }

    /// <summary>
    /// The bounds on stored values are those of the types: what each type rounds passes as its own, and not as the next
    /// better one.
    /// </summary>
    [Fact]
    public void WeightsAreHeldToTheirTypesRounding()
    {
        using var source = WeightSources.Open(Shared.DataFile("models/stories260K/hf"));
        (string Type, double Least, double Most)[] types =
        [
            ("f16", 1e-5, 1e-3), ("bf16", 1e-4, 1e-2), ("q8_0", 1e-3, 1e-2), ("q4_0", 0.05, 0.1)];
        for (int i = 0; i < types.Length; i++)
        {
            var (type, least, most) = types[i];
            var stored = GgufExporter.Types[type].Type;
            GgufExporter.Write(source, [], type, At(type + ".gguf"), null);
            using var copy = WeightSources.Open(At(type + ".gguf"));
            (double Error, string? Beyond) As(GgmlType t) =>
                ExportCheck.Weights(
                    source, copy, (n, cols) => GgufExporter.TypeOf(source.Config, n, t, cols), GgmlType.F32);
            var (error, beyond) = As(stored);
            Assert.Null(beyond);
            Assert.InRange(error, least, most);
            Assert.NotNull(As(i == 0 ? GgmlType.F32 : GgufExporter.Types[types[i - 1].Type].Type).Beyond);
        }
    }

    [Fact]
    public void OnlyFourBitsMayCostWhatAUserAccepts()
    {
        var c = new ExportComparison(100, 3, 0.8, 50, 20);
        Assert.True(ExportCheck.IsLoss("q4_0", c));
        Assert.False(
            ExportCheck.IsLoss("q8_0", c)
                || ExportCheck.IsLoss("f16", c)
                || ExportCheck.IsLoss("q4_0", c with { RelativeDifference = 1.4 })
                || ExportCheck.IsLoss("q4_0", c with { RelativeDifference = double.PositiveInfinity })
        );
    }

    private sealed class Rotated(IWeightSource source) : IWeightSource
    {
        public ModelConfig Config => source.Config;
        public string Hash => source.Hash;
        public bool Has(string hfName) => source.Has(hfName);
        public (int Rows, int Cols) ShapeOf(string hfName) => source.ShapeOf(hfName);
        public DType SourceDType(string hfName) => source.SourceDType(hfName);
        public void Dispose() { }

        public void ReadRows(string hfName, int firstRow, int rowCount, Span<float> destination)
        {
            source.ReadRows(hfName, firstRow, rowCount, destination);
            if (!hfName.Contains("q_proj")) return;
            int cols = ShapeOf(hfName).Cols;
            float[] first = destination[..cols].ToArray();
            destination[cols..].CopyTo(destination);
            first.CopyTo(destination[^cols..]);
        }
    }

    [Fact]
    public void SafetensorsFolderWithShards()
    {
        string path = Shared.DataFile("models/stories260K/hf");
        using var source = WeightSources.Open(path);
        CheckpointExporter.Write(source, path, null, "bf16", _folder.Path, shardBytes: 200_000);
        Assert.True(Directory.GetFiles(_folder.Path, "model-*.safetensors").Length > 2);
        using var back = WeightSources.Open(_folder.Path);
        foreach (string name in source.Config.MatrixNames().Concat(source.Config.VectorNames()))
        {
            float[] due = Read(source, name), actual = Read(back, name);
            for (int i = 0; i < due.Length; i++)
                Assert.Equal(BitConverter.UInt32BitsToSingle((uint)GgmlWriter.Bf16(due[i]) << 16), actual[i]);
        }
        var config = JsonNode.Parse(File.ReadAllText(At("config.json")))!;
        Assert.Equal("bfloat16", (string?)(config["dtype"] ?? config["torch_dtype"]));
        Assert.True(File.Exists(At("generation_config.json")));
        Assert.Equal(
            TokenizerLoader.Load(path).Encode("Once upon a time", true),
            TokenizerLoader.Load(_folder.Path).Encode("Once upon a time", true));
        Assert.Empty(Directory.GetFiles(_folder.Path, "*.tmp*"));
    }

    /// <summary>Scaled rotations survive the way through GGUF's divisors back into config.json.</summary>
    [Fact]
    public void Llama3ScalingComesBack()
    {
        var c = Samples.Config() with
        {
            HiddenSize = 512,
            HeadDim = 128,
            RopeTheta = 500000,
            MaxPositionEmbeddings = 131072,
            RopeScaling = new RopeScaling("llama3", 32, 1, 4, 8192),
        };
        var read = HfConfig.Parse(
            HfConfig.Write(c with { RopeScaling = null, RopeDivisors = GgufExporter.Divisors(c) }));
        Assert.Equal(c.RopeScaling, read.RopeScaling);
        Assert.Throws<HeadroomException>(() =>
            HfConfig.Write(
                c with
                {
                    RopeScaling = null,
                    RopeDivisors = [.. GgufExporter.Divisors(c)!.Select((d, i) => i == 30 ? d * 1.5f : d)],
                }
            )
        );
    }

    [Theory]
    [InlineData("llama2", "tokenizer.json", "default")]
    [InlineData("llama2", "tokenizer.model", "default")]
    [InlineData("llama3", "tokenizer.json.gz", "llama-bpe")]
    [InlineData("qwen3", "tokenizer.json.gz", "qwen2")]
    [InlineData("deepseek-llm-7b", "tokenizer.json", "deepseek-llm")]
    [InlineData("deepseek-llm-7b", "ggml-vocab-deepseek-llm.gguf", "deepseek-llm")]
    public void VocabulariesGiveTheSameIds(string folder, string file, string pre)
    {
        string path = Shared.DataFile($"tokenizers/{folder}/{file}");
        var tokenizer = TokenizerLoader.Load(path);
        GgufExporter.WriteVocabulary("llama", GgufVocabulary.Build(path, tokenizer.VocabSize), At("v.gguf"));
        using (var f = new GgufFile(At("v.gguf"))) Assert.Equal(pre, f.Text("tokenizer.ggml.pre"));
        var back = TokenizerLoader.Load(At("v.gguf"));
        Assert.Equal(
            (tokenizer.VocabSize, tokenizer.BosId, tokenizer.EosId, tokenizer.AddBos, tokenizer.ChatTemplate),
            (back.VocabSize, back.BosId, back.EosId, back.AddBos, back.ChatTemplate));
        string[] texts = File.ReadAllText(Shared.DataFile($"tokenizers/{folder}/golden.inp"))
            .Split("\n__ggml_vocab_test__\n");
        int[][] ids = File.ReadAllText(Shared.DataFile($"tokenizers/{folder}/golden.out"))
            .Split('\n')
            .Select(l => l.Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(int.Parse).ToArray())
            .ToArray();
        for (int i = 0; i < texts.Length; i++) Assert.Equal(ids[i], back.Encode(texts[i]));
    }

    [
        Theory, InlineData("models/SmolLM2-135M-Instruct/SmolLM2-135M-Instruct.Q4_1.gguf"),
        InlineData("tokenizers/deepseek-llm-7b/ggml-vocab-deepseek-llm.gguf")]
    public void GgufTokenizerAsTokenizerJson(string file)
    {
        string path = Shared.DataFile(file);
        using (var f = new GgufFile(path)) TokenizerJson.WriteFromGguf(_folder.Path, f);
        ITokenizer a = TokenizerLoader.Load(path), b = TokenizerLoader.Load(_folder.Path);
        const string text =
            "A story: 1234 caf\u00E9s, \u4E2D\u6587 and it's \U0001F600 <|im_start|>user\n  two  blanks";
        Assert.Equal(a.Encode(text, true), b.Encode(text, true));
        Assert.Equal((a.VocabSize, a.BosId, a.EosId, a.ChatTemplate), (b.VocabSize, b.BosId, b.EosId, b.ChatTemplate));
    }

    [Fact]
    public void SentencePieceThroughGgufToTokenizerJson()
    {
        string path = Shared.DataFile("models/stories260K/hf");
        GgufExporter.WriteVocabulary("llama", GgufVocabulary.Build(path, 512), At("v.gguf"));
        var json = Directory.CreateDirectory(At("json")).FullName;
        using (var f = new GgufFile(At("v.gguf"))) TokenizerJson.WriteFromGguf(json, f);
        Assert.Equal(
            TokenizerLoader.Load(path).Encode("Once upon a  time, na\u00EFve \u4E2D", true),
            TokenizerLoader.Load(json).Encode("Once upon a  time, na\u00EFve \u4E2D", true));
    }

    public void Dispose() => _folder.Dispose();
}
