using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats.Peft;
using Headroom.Formats.Safetensors;
using Headroom.Inference;
using Headroom.Inference.Export;
using Headroom.Models;
using Headroom.Tests.Models;

namespace Headroom.Tests.Formats;

/// <summary>
/// modules_to_save: what is trained whole is saved under PEFT's names, comes back with equal bits and is merged; a tied
/// head goes its own way.
/// </summary>
public sealed class SavedModulesTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    [Theory]
    [InlineData(false, "lm_head,norm", false)]
    [InlineData(false, "embed_tokens", true)]
    [InlineData(true, "lm_head", false)]
    [InlineData(true, "embed_tokens", false)]
    [InlineData(true, "lm_head,embed_tokens,model.norm", true)]
    public void SavedLoadedMerged(bool tied, string modules, bool dora)
    {
        var config = TinyModel.Small(2) with { TieWordEmbeddings = tied };
        var lora = TinyModel.Lora(dora: dora) with { ModulesToSave = [.. modules.Split(',')] };
        var settings = new ModelSettings(
            WeightStorage.NF4, WeightStorage.BF16, TrainMode.Adapters, lora, LogitsChunk: 16);
        var batch = TinyModel.Batch(TinyModel.Rows(config, [20, 31]));
        using var source = new RandomSource(config);
        using var engine = TinyModel.Open(config, settings, batch.Tokens, batch.Sequences);
        string[] whole = [.. engine.Model.SavedModules.Select(s => s.Name)];
        foreach (string m in modules.Split(','))
            Assert.Contains(whole, n => n.EndsWith(m + ".weight", StringComparison.Ordinal));
        var before = engine.Model.SavedModules.ToDictionary(s => s.Name, s => engine.Read(s.Weight));
        double first = engine.Losses(batch.Host);
        for (int step = 0; step < 3; step++)
        {
            engine.MicroStep(batch.Host, default, 1f / batch.LabelCount);
            engine.Update(new AdamWStep(1e-2, 0.9, 0.999, 1e-8, step + 1, 1));
        }
        double loss = engine.Losses(batch.Host);
        Assert.True(loss < first, $"{loss} after {first}");
        engine.Adapter("tiny", source.Hash).Save(_folder);
        using (var file = SafetensorsFile.Open(Path.Combine(_folder, "adapter_model.safetensors")))
            foreach (string name in whole) Assert.NotEqual(before[name], file.ReadF32("base_model.model." + name));
        Assert.Equal(
            modules.Split(','),
            JsonNode.Parse(File.ReadAllText(Path.Combine(_folder, "adapter_config.json")))!["modules_to_save"]!
                .AsArray()
                .Select(m => (string)m!)
        );

        var adapter = PeftAdapter.Load(_folder, m => Assert.Fail(m));
        using (
            var loaded = new Engine(
                new CpuDevice(2),
                source,
                settings with
                {
                    Mode = TrainMode.None,
                    Lora = adapter.Lora,
                },
                new BatchLimits(0, 0, 0, batch.Tokens, batch.Sequences)
            )
        )
        {
            loaded.LoadAdapter(adapter);
            Assert.Equal(loss, loaded.Losses(batch.Host)); // bit for bit
        }
        using var cpu = new CpuDevice(2);
        using var merged = new MergedSource(source, adapter, WeightStorage.NF4, cpu.Ops);
        Assert.False(merged.Config.TieWordEmbeddings);
        // The base's own table is held in 16 bits where it is not trained; the merged copy is float32.
        using (
            var plain = new Engine(
                new CpuDevice(2), merged,
                new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.None, LogitsChunk: 16),
                new BatchLimits(0, 0, 0, batch.Tokens, batch.Sequences))
        )
            Assert.Equal(loss, plain.Losses(batch.Host), 3e-3 * loss);
    }

    [Theory]
    [InlineData("v_proj")]
    [InlineData("proj")]
    [InlineData("score")]
    [InlineData("")]
    public void OthersAreRefused(string entry)
    {
        var lora = TinyModel.Lora() with { ModulesToSave = ["lm_head", entry] };
        var settings = new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters, lora);
        Assert.Contains(
            $"'{entry}'",
            Assert
                .Throws<HeadroomException>(() =>
                    PlannedModel.Make(TinyModel.Smallest(), settings, new BatchLimits(8, 1, 8), 0)
                )
                .Message
        );
    }

    [Fact]
    public void AnAdapterThatDoesNotFitIsRefused()
    {
        var config = TinyModel.Smallest();
        using var source = new RandomSource(config);
        var settings = new ModelSettings(
            WeightStorage.F32,
            WeightStorage.F32,
            TrainMode.Adapters,
            TinyModel.Lora() with
            {
                ModulesToSave = ["lm_head"],
            }
        );
        using var engine = TinyModel.Open(config, settings, 8, 1);
        var adapter = engine.Adapter("tiny", "x");
        PeftAdapter With(string? remove, string? add, int rows) => new()
        {
            Lora = adapter.Lora,
            Tensors = adapter
                    .Tensors.Where(t => t.Key != remove)
                    .Append(
                        KeyValuePair.Create(
                            add ?? "none", (new long[] { rows, config.HiddenSize }, new float[rows * config.HiddenSize])
                        )
                    )
                    .Where(t => t.Key != "none")
                    .ToDictionary(),
        };
        foreach (
            var wrong in new[]
            {
                With("lm_head.weight", null, 0), With("lm_head.weight", "lm_head.weight", 5),
                With(null, "model.embed_tokens.weight", config.VocabSize),
            }
        )
            Assert.Throws<HeadroomException>(() => engine.LoadAdapter(wrong));
        Assert.Contains(
            "lm_head",
            Assert
                .Throws<HeadroomException>(() =>
                    new MergedSource(source, With("lm_head.weight", "lm_head.weight", 5), null, null)
                )
                .Message
        );
        With("lm_head.weight", null, 0).Save(_folder);
        Assert.Contains("lm_head", Assert.Throws<HeadroomException>(() => PeftAdapter.Load(_folder)).Message);
    }
}
