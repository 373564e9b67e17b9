using System.Text;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats.BitsAndBytes;
using Headroom.Formats.Gguf;
using Headroom.Formats.HuggingFace;
using Headroom.Formats.Safetensors;
using Headroom.Inference;
using Headroom.Inference.Bases;
using Headroom.Inference.Export;
using Headroom.Models;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;

namespace Headroom.Tests.Golden;

/// <summary>
/// bitsandbytes 4-bit checkpoints as transformers writes them: read without quantizing again, written back equal.
/// </summary>
public sealed class BnbGoldenTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-bnb-").FullName;

    public static TheoryData<string> Models() => ["llama-mha", "qwen2-bias"];

    private static Engine Open(IWeightSource source)
    {
        var device = new CpuDevice(2);
        return new Engine(
            device,
            source,
            BaseSettings.Choose(source, device, new QuantizationOptions()),
            new BatchLimits(EvalTokens: 16, EvalSequences: 1)
        );
    }

    [Theory, MemberData(nameof(Models))]
    public void DequantizedAndWrittenBackBitForBit(string name)
    {
        string folder = Shared.GoldenFile($"bnb-4bit/{name}");
        using var source = WeightSources.Open(folder);
        using var engine = Open(source);
        bool nested = (bool)JsonNode.Parse(source.ConfigJson!)!["quantization_config"]!["bnb_4bit_use_double_quant"]!;
        Assert.Equal(nested ? WeightStorage.NF4Double : WeightStorage.NF4, engine.Settings.LinearStorage);
        Assert.Equal(engine.Settings.LinearStorage, source.Config.Quantized);
        using var golden = SafetensorsFile.Open(Path.Combine(folder, "dequantized-layer0.safetensors"));
        int compared = 0;
        foreach (var p in engine.Model.Projections.Where(p => golden.Tensors.ContainsKey(p.Path + ".weight")))
        {
            float[] expected = golden.ReadF32(p.Path + ".weight"), fromFile = new float[expected.Length];
            source.ReadRows(p.Path + ".weight", 0, p.Weight.Out, fromFile);
            float[] fromDevice = Dequantized(engine, p.Weight);
            for (int i = 0; i < expected.Length; i++)
            {
                Assert.Equal(
                    BitConverter.SingleToUInt32Bits(fromFile[i]), BitConverter.SingleToUInt32Bits(fromDevice[i]));
                Assert.Equal(BitConverter.SingleToUInt32Bits(expected[i]), Bf16(fromDevice[i]));
            }
            compared++;
        }
        Assert.Equal(7, compared);

        string copy = Path.Combine(_folder, "copy");
        QuantizedCheckpoint.Write(engine, source, copy, folder);
        using SafetensorsFile a = SafetensorsFile.Open(Path.Combine(folder, "model.safetensors")),
            b = SafetensorsFile.Open(Path.Combine(copy, "model.safetensors"));
        Assert.Equal(a.Tensors.Keys.Order(), b.Tensors.Keys.Order());
        foreach (var (key, t) in a.Tensors)
        {
            Assert.Equal(
                (t.DType, string.Join(",", t.Shape), t.Begin),
                (b.Tensors[key].DType, string.Join(",", b.Tensors[key].Shape), b.Tensors[key].Begin));
            Assert.True(a.Bytes(key).SequenceEqual(b.Bytes(key)), key);
        }
        Assert.True(
            JsonNode.DeepEquals(
                JsonNode.Parse(source.ConfigJson!), JsonNode.Parse(File.ReadAllText(Path.Combine(copy, "config.json"))))
        );
        Assert.True(File.Exists(Path.Combine(copy, "generation_config.json")));
    }

    [Theory]
    [InlineData("hf/qwen2-bias", true)]
    [InlineData("hf/qwen2-bias", false)]
    [InlineData("families/qwen3", true)]
    public void RoundTripOfAFullPrecisionModel(string model, bool nested)
    {
        using var source = WeightSources.Open(Shared.GoldenFile(model));
        var recipe = new Recipe();
        recipe.Quantization.Bnb4bitUseDoubleQuant = nested;
        var device = new CpuDevice(2);
        using var first = new Engine(
            device,
            source,
            RunSettings.Choose(recipe, source, device) with
            {
                Mode = TrainMode.None,
                Lora = null,
            },
            new BatchLimits(EvalTokens: 16, EvalSequences: 1)
        );
        string folder = Path.Combine(_folder, "quantized");
        QuantizedCheckpoint.Write(first, source, folder);
        Assert.Throws<HeadroomException>(() => QuantizedCheckpoint.Write(first, source, folder));
        Assert.Equal([folder], Directory.GetFileSystemEntries(_folder));
        using var again = WeightSources.Open(folder);
        using var second = Open(again);
        Assert.Equal(first.Settings.LinearStorage, second.Settings.LinearStorage);
        foreach (var (p, q) in first.Model.Projections.Zip(second.Model.Projections))
            foreach (
                var (x, y) in new[]
                {
                (p.Weight.Data, q.Weight.Data), (p.Weight.Absmax, q.Weight.Absmax),
                (p.Weight.NestedAbsmax, q.Weight.NestedAbsmax), (p.Weight.Offset, q.Weight.Offset),
                (p.Weight.Bias, q.Weight.Bias),
                }
            )
                Assert.Equal(Raw(first, x), Raw(second, y));
        Assert.Equal(Raw(first, first.Model.EmbeddingTable.Data), Raw(second, second.Model.EmbeddingTable.Data));
        foreach (var (p, q) in first.Model.Norms.Zip(second.Model.Norms))
            Assert.Equal(Raw(first, p.Weight), Raw(second, q.Weight));
    }

    [Theory]
    [InlineData("llama-mha", true, false, "load_in_4bit")]
    [InlineData("llama-mha", false, true, "bnb_4bit_use_double_quant")]
    [InlineData("qwen2-bias", true, true, "bnb_4bit_use_double_quant")]
    public void ARecipeThatAsksForAnotherStorageIsRefused(string name, bool not4, bool asked, string says)
    {
        using var source = WeightSources.Open(Shared.GoldenFile($"bnb-4bit/{name}"));
        var recipe = new Recipe();
        recipe.Quantization.LoadIn4bit = !not4 || asked;
        if (!not4 || asked) recipe.Quantization.Bnb4bitUseDoubleQuant = name == "qwen2-bias";
        using var device = new CpuDevice(1);
        var e = Assert.Throws<HeadroomException>(() => RunSettings.Choose(recipe, source, device));
        Assert.Contains(says, e.Message, StringComparison.Ordinal);
        Assert.Equal(2, e.ExitCode);
    }

    [Theory]
    [InlineData("\"bnb_4bit_quant_type\": \"nf4\"", "\"bnb_4bit_quant_type\": \"fp4\"", "fp4")]
    [InlineData("\"load_in_8bit\": false", "\"load_in_8bit\": true", "int8")]
    [InlineData("\"quant_method\": \"bitsandbytes\"", "\"quant_method\": \"gptq\"", "gptq")]
    public void OtherQuantizationsAreRefusedByName(string from, string to, string says)
    {
        string text = File.ReadAllText(Shared.GoldenFile("bnb-4bit/llama-mha/config.json"));
        Assert.Contains(
            says,
            Assert
                .Throws<HeadroomException>(() => HfConfig.Parse(text.Replace(from, to, StringComparison.Ordinal)))
                .Message,
            StringComparison.Ordinal
        );
    }

    public static TheoryData<string, string> Spoiled => new()
    {
            { "blocks", "blocks of 128" },
            { "fp4", "fp4" },
            { "no absmax", "absmax is missing" },
            { "component", "no part of" },
            { "two states", "two quantization states" },
            { "nan", "NaN" },
            { "json", "no sound" },
            { "map", "quant_map" },
            { "shape", "packed codes" },
            { "SCB", "int8" },
    };

    [Theory, MemberData(nameof(Spoiled))]
    public void SpoiledFilesAreRefused(string how, string says)
    {
        const string name = "model.layers.0.self_attn.q_proj.weight", state = name + ".quant_state.bitsandbytes__nf4";
        Edit("bnb-4bit/llama-mha", tensors =>
        {
            void State(string from, string to) =>
                tensors[state] = (
                    "U8",
                    null,
                    Encoding.UTF8.GetBytes(
                        Encoding.UTF8.GetString(tensors[state].Data).Replace(from, to, StringComparison.Ordinal))
                );
            switch (how)
            {
                case "blocks": State("\"blocksize\": 64", "\"blocksize\": 128"); break;
                case "json": State("}", ""); break;
                case "shape": State("[128, 128]", "[128, 130]"); break;
                case "fp4":
                    tensors.Remove(state, out var s);
                    tensors[name + ".quant_state.bitsandbytes__fp4"] = s;
                    break;
                case "no absmax": tensors.Remove(name + ".absmax"); break;
                case "component": tensors[name + ".scale"] = ("F32", null, new byte[4]); break;
                case "two states":
                    tensors[name + ".quant_state.bitsandbytes__nf4x"] = tensors[state];
                    tensors[name + ".quant_state.bitsandbytes__nf4"] = tensors[state];
                    tensors[name + ".x.quant_state.bitsandbytes__nf4"] = tensors[state];
                    break;
                case "nan": BitConverter.TryWriteBytes(tensors[name + ".nested_absmax"].Data, float.NaN); break;
                case "map": tensors[name + ".quant_map"].Data[0] ^= 1; break;
                case "SCB": tensors["model.layers.0.self_attn.q_proj.SCB"] = ("F32", null, new byte[512]); break;
            }
        });
        var e = Assert.Throws<HeadroomException>(() => WeightSources.Open(_folder));
        if (how != "two states") Assert.Contains(says, e.Message, StringComparison.Ordinal);
        Assert.Equal(2, e.ExitCode);
    }

    [Fact]
    public void OtherSpellingsOfTheSameCheckpointAreRead()
    {
        const string name = "model.layers.0.self_attn.q_proj.weight", state = name + ".quant_state.bitsandbytes__nf4";
        Edit("bnb-4bit/llama-mha", tensors =>
        {
            var json = JsonNode.Parse(tensors[state].Data)!.AsObject();
            tensors[state] = (
                "U8",
                null,
                Encoding.UTF8.GetBytes(
                    new JsonObject(
                        json.Reverse().Select(p => KeyValuePair.Create(p.Key, p.Value?.DeepClone()))
                    ).ToJsonString(new() { WriteIndented = true })
                )
            );
            tensors[name] = ("U8", [1, tensors[name].Data.Length], tensors[name].Data); // legacy, transposed view
            string other = name.Replace("q_proj", "k_proj");
            tensors[other] = ("F32", [tensors[other].Data.Length / 4, 1], tensors[other].Data); // quant_storage float32
        });
        using IWeightSource a = WeightSources.Open(Shared.GoldenFile("bnb-4bit/llama-mha")),
            b = WeightSources.Open(_folder);
        using Engine x = Open(a), y = Open(b);
        foreach (var (p, q) in x.Model.Projections.Zip(y.Model.Projections))
            Assert.Equal(Raw(x, p.Weight.Data), Raw(y, q.Weight.Data));
    }

    [Fact]
    public void ANestedMapOfOlderTorchIsExpanded()
    {
        const string name = "model.layers.1.mlp.up_proj.weight";
        Edit("bnb-4bit/llama-mha", tensors => tensors[name + ".nested_quant_map"].Data[40] ^= 1);
        using var source = WeightSources.Open(_folder);
        using var engine = Open(source);
        Assert.Equal(WeightStorage.NF4, engine.Settings.LinearStorage);
        foreach (var p in engine.Model.Projections)
        {
            var fromFile = new float[p.Weight.Out * p.Weight.In];
            source.ReadRows(p.Path + ".weight", 0, p.Weight.Out, fromFile);
            Assert.Equal(fromFile, Dequantized(engine, p.Weight));
        }
    }

    [Fact]
    public void AProjectionThatWasSkippedStaysAsItIs()
    {
        const string name = "model.layers.0.mlp.down_proj.weight";
        using var golden = SafetensorsFile.Open(Shared.GoldenFile("bnb-4bit/llama-mha/dequantized-layer0.safetensors"));
        byte[] plain = golden.Bytes(name).ToArray();
        Edit("bnb-4bit/llama-mha", tensors =>
        {
            foreach (string key in tensors.Keys.Where(k => k.StartsWith(name, StringComparison.Ordinal)).ToList())
                tensors.Remove(key);
            tensors[name] = ("BF16", [128, 344], plain);
        });
        using var source = WeightSources.Open(_folder);
        using var engine = Open(source);
        var p = engine.Model.Projections.Single(p => p.Path + ".weight" == name);
        Assert.Equal(WeightStorage.BF16, p.Weight.Storage);
        Assert.Equal(plain, Raw(engine, p.Weight.Data));
        Assert.Equal(WeightStorage.NF4Double, engine.Model.Projections.First().Weight.Storage);
    }

    [Theory]
    [InlineData(0.044064808636903763, "0.04406480863690376")]
    [InlineData(0.1, "0.1")]
    [InlineData(1, "1.0")]
    [InlineData(-12.5, "-12.5")]
    [InlineData(0.0001, "0.0001")]
    [InlineData(0.00001234, "1.234e-05")]
    [InlineData(1e16, "1e+16")]
    [InlineData(123456789, "123456789.0")]
    public void DoublesAreWrittenAsPythonWritesThem(double value, string text) =>
        Assert.Equal(text, BnbTensor.PythonDouble(value));

    /// <summary>A copy of a golden checkpoint with some of its tensors changed.</summary>
    private void Edit(string golden, Action<Dictionary<string, (string DType, long[]? Shape, byte[] Data)>> change)
    {
        string folder = Shared.GoldenFile(golden);
        using var file = SafetensorsFile.Open(Path.Combine(folder, "model.safetensors"));
        var tensors = file.Tensors.ToDictionary(
            t => t.Key, t => (t.Value.DType, (long[]?)t.Value.Shape, file.Bytes(t.Key).ToArray()));
        change(tensors);
        SafetensorsWriter.Write(
            Path.Combine(_folder, "model.safetensors"),
            tensors.Select(t =>
                (
                    t.Key, t.Value.DType,
                    t.Value.Item2 ?? [t.Value.Item3.Length / (SafetensorsFile.Bits(t.Value.DType) / 8)], t.Value.Item3)
            )
        );
        File.Copy(Path.Combine(folder, "config.json"), Path.Combine(_folder, "config.json"));
    }

    private static byte[] Raw(Engine engine, Tensor t)
    {
        var bytes = new byte[t.IsNone ? 0 : t.Bytes];
        if (bytes.Length > 0) engine.Device.Download(t, bytes);
        return bytes;
    }

    private static unsafe float[] Dequantized(Engine engine, LinearWeight w)
    {
        var values = new float[w.Out * w.In];
        fixed (float* p = values)
            engine.Device.Ops.Dequantize(w, new Tensor((nint)p, DType.F32, new Shape(w.Out, w.In)));
        return values;
    }

    private static uint Bf16(float x)
    {
        uint u = BitConverter.SingleToUInt32Bits(x);
        return (u + 0x7FFF + ((u >> 16) & 1)) & 0xFFFF0000;
    }

    public void Dispose() => Directory.Delete(_folder, true);
}
