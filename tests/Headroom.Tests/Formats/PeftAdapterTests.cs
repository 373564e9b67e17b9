using System.Buffers.Binary;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats.Peft;
using Headroom.Formats.Safetensors;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tests.Generation;

namespace Headroom.Tests.Formats;

/// <summary>PEFT folders: the rules of its configuration, keys and tensors.</summary>
public sealed class PeftAdapterTests : IDisposable
{
    private const string Q0 = "base_model.model.model.layers.0.self_attn.q_proj",
        V1 = "base_model.model.model.layers.1.self_attn.v_proj";
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private static (string, string, long[], float[]) Tensor(
        string name, long rows, long columns, float first = 0.5f, string dtype = "F32") =>
        (
            name, dtype, [rows, columns],
            Enumerable.Range(0, (int)(rows * columns)).Select(i => first + i * 0.25f).ToArray());

    private static (string, string, long[], float[])[] Pair(string module, int r = 4, int ins = 64, int outs = 64) =>
        [Tensor(module + ".lora_A.weight", r, ins), Tensor(module + ".lora_B.weight", outs, r)];

    // A folder with the least configuration, changed by the caller.
    private string Write(string changes, params (string Name, string DType, long[] Shape, float[] Values)[] tensors)
    {
        var config = JsonNode.Parse("""{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}""")!.AsObject();
        foreach (var (key, value) in JsonNode.Parse(changes)!.AsObject()) config[key] = value?.DeepClone();
        File.WriteAllText(Path.Combine(_folder, "adapter_config.json"), config.ToJsonString());
        var header = new JsonObject();
        var data = new MemoryStream();
        foreach (var (name, dtype, shape, values) in tensors)
        {
            long start = data.Length;
            foreach (float v in values)
            {
                var b = new byte[dtype == "F32" ? 4 : 2];
                if (dtype == "F32") BinaryPrimitives.WriteSingleLittleEndian(b, v);
                else if (dtype == "F16") BinaryPrimitives.WriteHalfLittleEndian(b, (Half)v);
                else BinaryPrimitives.WriteUInt16LittleEndian(b, (ushort)(BitConverter.SingleToUInt32Bits(v) >> 16));
                data.Write(b);
            }
            header[name] = new JsonObject
            {
                ["dtype"] = dtype,
                ["shape"] = new JsonArray(shape.Select(s => (JsonNode)s).ToArray()),
                ["data_offsets"] = new JsonArray(start, data.Length),
            };
        }
        byte[] text = Encoding.UTF8.GetBytes(header.ToJsonString());
        using var file = File.Create(Path.Combine(_folder, "adapter_model.safetensors"));
        file.Write(BitConverter.GetBytes((long)text.Length));
        file.Write(text);
        file.Write(data.ToArray());
        return _folder;
    }

    private string Refused(string changes, params (string, string, long[], float[])[] tensors)
    {
        Write(changes, tensors.Length > 0 ? tensors : Pair(Q0));
        return Assert.Throws<HeadroomException>(() => PeftAdapter.Load(_folder)).Message;
    }

    [Theory]
    [InlineData("""{"use_dora": true}""", "no model.layers.0.self_attn.q_proj.lora_magnitude_vector")]
    [InlineData("""{"lora_bias": true}""", "lora_bias")]
    [InlineData("""{"fan_in_fan_out": true}""", "fan_in_fan_out")]
    [InlineData("""{"bias": "all"}""", "bias: all")]
    [InlineData("""{"modules_to_save": ["lm_head"]}""", "modules_to_save")]
    [InlineData("""{"trainable_token_indices": [1, 2]}""", "trainable_token_indices")]
    [InlineData("""{"target_parameters": ["x"]}""", "target_parameters")]
    [InlineData("""{"layer_replication": [[0, 2]]}""", "layer_replication")]
    [InlineData("""{"use_qalora": true}""", "use_qalora")]
    [InlineData("""{"alora_invocation_tokens": [1]}""", "alora_invocation_tokens")]
    [InlineData("""{"init_lora_weights": "pissa_niter_4"}""", "pissa_niter_4")]
    [InlineData("""{"init_lora_weights": "olora"}""", "olora")]
    [InlineData("""{"init_lora_weights": "new_svd"}""", "new_svd")]
    [InlineData("""{"task_type": "SEQ_CLS"}""", "classification head")]
    [InlineData("""{"task_type": "TOKEN_CLS"}""", "TOKEN_CLS")]
    [InlineData("""{"task_type": "SEQ_2_SEQ_LM"}""", "encoder-decoder")]
    [InlineData("""{"task_type": "FEATURE_EXTRACTION"}""", "no head")]
    [InlineData("""{"task_type": "OTHER"}""", "OTHER")]
    [InlineData("""{"task_type": 3}""", "task_type is 3")]
    [InlineData("""{"use_new_variant": true}""", "use_new_variant: true")]
    [InlineData("""{"new_config": {"scale": 2}}""", "new_config")]
    [InlineData("""{"new_list": [1]}""", "new_list: [1]")]
    [InlineData("""{"arrow_config": {}}""", "arrow_config")]
    [InlineData("""{"megatron_config": {"a": 1}}""", "megatron_config")]
    [InlineData("""{"modules_to_save": "lm_head"}""", "modules_to_save is no list")]
    [InlineData("""{"modules_to_save": ["score"]}""", "classification head")]
    [InlineData("""{"rank_pattern": [1]}""", "rank_pattern is no map")]
    [InlineData("""{"peft_type": "IA3"}""", "IA3")]
    [InlineData("""{"peft_type": null}""", "peft_type")]
    [InlineData("""{"r": 0}""", "damaged")]
    [InlineData("""{"r": "four"}""", "r is \"four\", no whole number")]
    [InlineData("""{"r": "16"}""", "r is \"16\", no whole number")]
    [InlineData("""{"r": 4.5}""", "r is 4.5, no whole number")]
    [InlineData("""{"lora_alpha": "32"}""", "lora_alpha is \"32\", no number")]
    [InlineData("""{"use_dora": "yes"}""", "use_dora is \"yes\", not true or false")]
    [InlineData("""{"base_model_name_or_path": 7}""", "base_model_name_or_path is 7, no text")]
    [InlineData("""{"target_modules": ["q_proj", 3]}""", "target_modules holds 3")]
    [InlineData("""{"rank_pattern": {"q_proj": "2"}}""", "rank_pattern.q_proj is \"2\"")]
    [InlineData("""{"layers_to_transform": [0, null]}""", "layers_to_transform is null")]
    [InlineData("""{"lora_dropout": 1.5}""", "lora_dropout")]
    [InlineData("""{"target_modules": "(["}""", "pattern")]
    [InlineData("""{"target_modules": ["o_proj"]}""", "do not name")]
    [InlineData("""{"r": 8}""", "rank 8")]
    [InlineData("""{"rank_pattern": {"q_proj": 2}}""", "rank 2")]
    [InlineData("""{"alpha_pattern": {"q_proj": 1e39}}""", "not finite")]
    public void OptionsRefusedByName(string changes, string says) => Assert.Contains(says, Refused(changes));

    [Fact]
    public void TensorsRefused()
    {
        Assert.Contains("empty", Assert.Throws<HeadroomException>(() => PeftAdapter.Load(Write("{}"))).Message);
        Assert.Contains(
            "NaN", Refused("{}", Pair(Q0)[0], (Q0 + ".lora_B.weight", "F32", [64, 4], [.. new float[255], float.NaN])));
        Assert.Contains(
            "NaN",
            Refused(
                "{}", Pair(Q0)[0], (Q0 + ".lora_B.weight", "F32", [64, 4], [float.PositiveInfinity, .. new float[255]]))
        );
        Assert.Contains("no model.layers.0.self_attn.q_proj.lora_B.weight", Refused("{}", Pair(Q0)[0]));
        const string M = "model.layers.0.self_attn.q_proj.lora_magnitude_vector";
        (string, string, long[], float[]) Magnitude(params long[] shape) =>
            (
                "base_model.model." + M, "F32", shape,
                [.. Enumerable.Repeat(1f, (int)shape.Aggregate(1L, (x, y) => x * y))]);
        Assert.Contains("use_dora is false", Refused("{}", [.. Pair(Q0), Magnitude(64)]));
        foreach (var wrong in new[] { Magnitude(63), Magnitude(64, 1) }) Assert.Contains(M, Refused("""{"use_dora": true}""", [.. Pair(Q0), wrong]));
        Assert.Contains("lora_A", Refused("""{"use_dora": true}""", Magnitude(64)));
        foreach (
            string name in new[]
            {
                Q0 + ".lora_B.bias", "base_model.model.model.embed_tokens.lora_embedding_A",
                "base_model.model.model.other.weight", Q0 + ".lora_A.default.weight",
                "model.layers.0.self_attn.q_proj.lora_A.weight",
            }
        )
            Assert.Contains(name, Refused("{}", [.. Pair(Q0), Tensor(name, 4, 4)]));
        foreach (var (name, why) in new[]
                 {
                ("score.weight", "classification head (score)"),
                ("classifier.weight", "classification head"),
                ("lm_head.lora_A.weight", "LoRA of the output head"),
                ("model.embed_tokens.lora_embedding_B", "LoRA of the embedding table"),
                ("model.layers.0.self_attn.q_proj.bias", "a bias of the base"),
                 })
            Assert.Contains(why, Refused("""{"target_modules": "all-linear", "modules_to_save": ["score", "classifier"]}""", [.. Pair(Q0), Tensor("base_model.model." + name, 4, 4)]));
        Assert.Contains("F64", Assert.Throws<HeadroomException>(() =>
        {
            Write("{}", Pair(Q0));
            string file = Path.Combine(_folder, "adapter_model.safetensors");
            string text = Encoding
                .Latin1.GetString(File.ReadAllBytes(file))
                .Replace("\"F32\",\"shape\":[4,64]", "\"F64\",\"shape\":[2,64]", StringComparison.Ordinal);
            File.WriteAllBytes(file, Encoding.Latin1.GetBytes(text));
            PeftAdapter.Load(_folder);
        }).Message);
        File.Move(Path.Combine(_folder, "adapter_model.safetensors"), Path.Combine(_folder, "adapter_model.bin"));
        Assert.Contains(
            "pickled adapter_model.bin", Assert.Throws<HeadroomException>(() => PeftAdapter.Load(_folder)).Message);
        File.WriteAllText(Path.Combine(_folder, "adapter_config.json"), "{\"peft_type\":");
        Assert.Contains("safetensors", Assert.Throws<HeadroomException>(() => PeftAdapter.Load(_folder)).Message);
    }

    [Theory]
    [InlineData("F32")]
    [InlineData("F16")]
    [InlineData("BF16")]
    public void TensorTypes(string dtype)
    {
        var a = PeftAdapter.Load(
            Write(
                "{}",
                Pair(Q0)
                    .Select(t => (t.Item1, dtype, t.Item3, t.Item4.Select(v => v > 4 ? 1.5f : v).ToArray()))
                    .ToArray()
            )
        );
        Assert.Equal([0.5f, 0.75f, 1f, 1.25f], a.Tensors["model.layers.0.self_attn.q_proj.lora_A.weight"].Values[..4]);
    }

    [Fact]
    public void WarningsNotErrors()
    {
        var said = new List<string>();
        var a = PeftAdapter.Load(Write("""
            {"new_key": 3, "peft_version": "0.21.2", "auto_mapping": {"a": "b"}, "other_new_key": false, "new_list": [], "new_map": {}, "new_text": "",
            "init_lora_weights": "gaussian", "task_type": "CAUSAL_LM", "arrow_config": null, "layer_replication": [], "target_parameters": []}
            """, Pair(Q0)), said.Add);
        Assert.Contains("new_key", Assert.Single(said));
        a.CheckBase(new Base("any"), said.Add); // no hash recorded
        Assert.Contains("base", said[1]);
    }

    [Fact]
    public void BaseHash()
    {
        var a = PeftAdapter.Load(Write("""{"base_model_name_or_path": "org/base"}""", Pair(Q0)));
        var mine = new PeftAdapter
        {
            Lora = a.Lora,
            Tensors = a.Tensors,
            BaseModel = a.BaseModel,
            BaseHash = "abc",
        };
        mine.Save(_folder);
        var back = PeftAdapter.Load(_folder);
        back.CheckBase(new Base("abc"));
        var e = Assert.Throws<HeadroomException>(() => back.CheckBase(new Base("abd")));
        Assert.Contains("another base", e.Message);
        Assert.Contains("org/base", e.ToDo);
    }

    private sealed class Base(string hash) : IWeightSource
    {
        public ModelConfig Config => ByteModel.Config;
        public string Hash => hash;
        public bool Has(string hfName) => false;
        public (int Rows, int Cols) ShapeOf(string hfName) => (0, 0);
        public void ReadRows(string hfName, int firstRow, int rowCount, Span<float> destination)
        {
        }
        public DType SourceDType(string hfName) => DType.F32;
        public void Dispose()
        {
        }
    }

    [Fact]
    public void RoundTripAsPeftWrites()
    {
        var a = PeftAdapter.Load(Write("""{"use_rslora": true, "lora_dropout": 0.1, "rank_pattern": {"layers.1.*v_proj": 2}, "alpha_pattern": {"v_proj": 3}, "exclude_modules": ["o_proj"], "layers_to_transform": [0, 1], "layers_pattern": "layers"}""",
            [.. Pair(Q0), .. Pair(V1, 2, 64, 32)]));
        string to = Path.Combine(_folder, "copy");
        a.Save(to);
        string text = File.ReadAllText(Path.Combine(to, "adapter_config.json"));
        var keys = JsonNode.Parse(text)!.AsObject().Select(k => k.Key).ToArray();
        Assert.Equal(keys.Order(StringComparer.Ordinal), keys);
        Assert.Contains("\n  \"inference_mode\": true,\n", text);
        Assert.Contains("\"lora_dropout\": 0.1", text);
        var b = PeftAdapter.Load(to, m => Assert.Fail(m));
        Assert.Equal(JsonSerializer.Serialize(a.Lora), JsonSerializer.Serialize(b.Lora));
        Assert.Equal(a.Tensors.Keys.Order(), b.Tensors.Keys.Order());
        foreach (var (key, t) in a.Tensors) Assert.Equal(t.Values, b.Tensors[key].Values);
        using var file = SafetensorsFile.Open(Path.Combine(to, "adapter_model.safetensors"));
        Assert.Equal("pt", file.Metadata["format"]);
        Assert.All(file.Tensors.Keys, k => Assert.StartsWith("base_model.model.model.layers.", k));
    }

    [Theory]
    [InlineData("llama-mha")]
    [InlineData("llama-gqa-tied")]
    public void FilesOfPeftComeBackEqual(string model)
    {
        foreach (string name in new[] { "adapter", "adapter-rslora", "adapter-dora" })
        {
            string from = Shared.GoldenFile($"hf/{model}/{name}");
            var a = PeftAdapter.Load(from, m => Assert.Fail(m));
            a.Save(_folder);
            var b = PeftAdapter.Load(_folder);
            Assert.Equal(name == "adapter-dora", b.Lora.UseDora);
            using (
                SafetensorsFile theirFile = SafetensorsFile.Open(Path.Combine(from, "adapter_model.safetensors")),
                    ourFile = SafetensorsFile.Open(Path.Combine(_folder, "adapter_model.safetensors"))
            )
                Assert.Equal(
                    theirFile.Tensors.Select(t => (t.Key, string.Join(',', t.Value.Shape))).Order(),
                    ourFile.Tensors.Select(t => (t.Key, string.Join(',', t.Value.Shape))).Order());
            foreach (var (key, t) in a.Tensors) Assert.Equal(t.Values, b.Tensors[key].Values);
            JsonObject theirs = JsonNode.Parse(File.ReadAllText(Path.Combine(from, "adapter_config.json")))!.AsObject(),
                ours = JsonNode.Parse(File.ReadAllText(Path.Combine(_folder, "adapter_config.json")))!.AsObject();
            foreach (var (key, value) in ours)
                if (key == "target_modules")
                    Assert.Equal(
                        theirs[key]!.AsArray().Select(m => (string)m!).ToHashSet(),
                        value!.AsArray().Select(m => (string)m!).ToHashSet());
                else if (value is JsonValue v && v.GetValueKind() == JsonValueKind.Number)
                    Assert.Equal((double)theirs[key]!, (double)value, 6);
                else Assert.True(JsonNode.DeepEquals(theirs[key], value), $"{key}: {value} instead of {theirs[key]}");
        }
    }

    [Fact]
    public void Targets()
    {
        const string q = "model.layers.3.self_attn.q_proj", up = "model.layers.12.mlp.up_proj";
        static LoraConfig List(params string[] modules) => new(8, 9, 0, modules);
        static LoraConfig Pattern(string pattern) => new() { TargetModules = ModuleNames.Parse(pattern) };
        Assert.True(List("q_proj").Adapts(q));
        Assert.True(List("self_attn.q_proj").Adapts(q));
        Assert.True(List(q).Adapts(q));
        Assert.False(List("proj", "_proj").Adapts(q)); // whole names only
        Assert.False(List("q_proj").Adapts(up));
        Assert.True(Pattern(@".*\.(q|v)_proj").Adapts(q));
        Assert.False(Pattern("q_proj").Adapts(q)); // the whole path must match
        Assert.True(Pattern("All-Linear").Adapts(up));
        Assert.False((List("q_proj") with { ExcludeModules = ["layers.3.self_attn.q_proj"] }).Adapts(q));
        var lower = ModuleNames.Parse(@"model\.layers\.[0-4]\..*");
        Assert.False((List("q_proj") with { ExcludeModules = lower }).Adapts(q));
        Assert.True((List("up_proj") with { ExcludeModules = lower }).Adapts(up));
        Assert.False((Pattern("all-linear") with { ExcludeModules = ["q_proj"] }).Adapts(q));
        Assert.True((List("q_proj") with { LayersToTransform = [1, 3] }).Adapts(q));
        Assert.False((List("up_proj") with { LayersToTransform = [1, 3] }).Adapts(up));
        Assert.True((List("up_proj") with { LayersToTransform = [] }).Adapts(up)); // none named: all
        Assert.True((List("q_proj") with { LayersToTransform = [3], LayersPattern = ["layers"] }).Adapts(q));
        Assert.False((List("q_proj") with { LayersToTransform = [3], LayersPattern = ["h"] }).Adapts(q));
        var patterns = List("q_proj") with
        {
            RankPattern = new() { ["up_proj"] = 2, [@"layers\.3\..*"] = 16, ["q_proj"] = 32 },
            AlphaPattern = new() { ["q_proj"] = 5 },
        };
        Assert.Equal(
            (2, 16, 8),
            (patterns.RankOf(up), patterns.RankOf(q), patterns.RankOf("model.layers.0.mlp.down_proj")));
        Assert.Equal((5f, 9f), (patterns.AlphaOf(q), patterns.AlphaOf(up)));
        Assert.Equal((16, 5f / 16), patterns.For(q));
        Assert.Equal((16, 5f / 4), (patterns with { UseRslora = true }).For(q));
        Assert.Equal((8, 2f), new LoraConfig(8, 16, 0, ["q_proj"]).For(q));
        Assert.Equal((0, 0f), new LoraConfig(8, 16, 0, ["q_proj"]).For(up));
    }

    [Fact]
    public void RanksByModuleReachTheModel()
    {
        var a = PeftAdapter.Load(Write("""{"rank_pattern": {"layers.1.*v_proj": 2}, "layers_to_transform": [0, 1]}""",
                [
                    .. Pair(Q0),
                    .. Pair(V1, 2, 64, 32),
                    .. Pair(Q0.Replace("layers.0", "layers.1", StringComparison.Ordinal)),
                    .. Pair(V1.Replace("layers.1", "layers.0", StringComparison.Ordinal), 4, 64, 32),
                ]
            )
        );
        var settings = new ModelSettings(
            WeightStorage.F32, WeightStorage.F32, TrainMode.None, a.Lora);
        using var engine = new Engine(
            TestDevice.Open(), ByteModel.Config, settings, new BatchLimits(EvalTokens: 8, EvalSequences: 1));
        engine.LoadAdapter(a);
        Assert.Equal([4, 4, 4, 2], engine.Model.Projections.Where(p => p.Rank > 0).Select(p => p.Rank));
        var saved = engine.Adapter("b", "hash");
        foreach (var (key, t) in a.Tensors) Assert.Equal(t.Values, saved.Tensors[key].Values);
        // A tensor of another shape, a missing one and one too many are refused.
        Assert.Contains(
            "[4, 60]",
            Assert
                .Throws<HeadroomException>(() =>
                    engine.LoadAdapter(
                        With(a, "model.layers.0.self_attn.q_proj.lora_A.weight", ([4, 60], new float[240])))
                )
                .Message
        );
        Assert.Contains(
            "match nothing",
            Assert
                .Throws<HeadroomException>(() =>
                    engine.LoadAdapter(
                        With(a, "model.layers.9.self_attn.q_proj.lora_A.weight", ([4, 64], new float[256])))
                )
                .Message
        );
        Assert.Contains(
            "match no module",
            Assert
                .Throws<HeadroomException>(() =>
                    PlannedModel.Make(
                        ByteModel.Config,
                        settings with
                        {
                            Lora = new LoraConfig(4, 8, 0, ["lm_head"]),
                        },
                        new BatchLimits(EvalTokens: 8, EvalSequences: 1),
                        0
                    )
                )
                .Message
        );
    }

    private static PeftAdapter With(PeftAdapter a, string name, (long[], float[]) tensor) => new()
    {
        Lora = a.Lora,
        Tensors = new Dictionary<string, (long[], float[])>(a.Tensors.ToDictionary()) { [name] = tensor },
    };
}
