using Headroom.Core;
using Headroom.Models;
using Headroom.Planning;
using Headroom.Training;

namespace Headroom.Tests.Models;

/// <summary>Lifetimes that follow from what each op reads and writes, beside those that the model writes down.</summary>
public class LifetimeTests
{
    private static readonly BatchLimits[] Batches =
    [
        new(64, 1, 63, 64, 1, 2, 40, 16), // one row
        new(2048, 4, 2044, 2048, 4, 3, 512), // every token labelled
        new(1000, 7, 7, 300, 7), // only answers
    ];

    /// <summary>Every kind of plan: architectures, what is trained, recompute, types of activations, sizes of batches.</summary>
    public static IEnumerable<(string Name, ModelConfig Config, ModelSettings Settings, BatchLimits Limits)> Shapes()
    {
        (string, ModelConfig)[] configs =
        [
            ("smallest", TinyModel.Smallest(tied: true, bias: true, window: 5)),
            ("small", TinyModel.Small()),
            ("135m", new ModelConfig { VocabSize = 49152, HiddenSize = 576, IntermediateSize = 1536, NumHiddenLayers = 6, NumAttentionHeads = 9, NumKeyValueHeads = 3, HeadDim = 64, RmsNormEps = 1e-5f, TieWordEmbeddings = true }),
            ("7b", new ModelConfig { VocabSize = 32000, HiddenSize = 4096, IntermediateSize = 11008, NumHiddenLayers = 8, NumAttentionHeads = 32, NumKeyValueHeads = 32, HeadDim = 128, RmsNormEps = 1e-5f }),
        ];
        LoraSettings[] adapters =
        [
            TinyModel.Lora(0.1f), TinyModel.Lora(0, r: 16), TinyModel.Lora(0, dora: true), TinyModel.Lora(0.1f, dora: true),
            new(8, 16, 0.05f, ["q_proj", "v_proj"]), new(8, 16, 0.05f, ["k_proj", "o_proj", "up_proj", "down_proj"]) { UseDora = true, ModulesToSave = ["lm_head", "norm"] },
        ];
        foreach (var (name, config) in configs)
            foreach (var compute in new[] { DType.F32, DType.BF16 })
                for (int b = 0; b < Batches.Length; b++)
                {
                    int layers = config.NumHiddenLayers;
                    foreach (int recompute in new[] { 0, 1, layers - 1, -1 }.Distinct())
                    {
                        for (int a = 0; a < adapters.Length; a++)
                            yield return ($"{name} {compute} batch {b} recompute {recompute} adapter {a}", config,
                                new ModelSettings(WeightStorage.NF4Double, WeightStorage.BF16, TrainMode.Adapters, adapters[a], recompute, ComputeType: compute), Batches[b]);
                        if (compute == DType.F32)
                            yield return ($"{name} {compute} batch {b} recompute {recompute} full", config, new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.Full, null, recompute, 32), Batches[b]);
                    }
                    yield return ($"{name} {compute} batch {b} inference", config,
                        new ModelSettings(WeightStorage.Int8, WeightStorage.BF16, TrainMode.None, TinyModel.Lora(0.1f, dora: b == 1), ComputeType: compute), Batches[b] with { TrainTokens = 0 });
                }
    }

    [Fact]
    public void WhatIsInferredIsNoMoreThanWhatIsWritten()
    {
        int shapes = 0, fewer = 0;
        var worse = new List<string>();
        foreach (var (name, config, settings, limits) in Shapes())
        {
            var written = Engine.MakePlan(config, settings, limits, 0, out _, null, fromUse: false);
            var inferred = Engine.MakePlan(config, settings, limits, 0, out _, null, fromUse: true);
            shapes++;
            Assert.Equal(written.StaticBytes, inferred.StaticBytes);
            foreach (var (w, i) in written.Buffers.Zip(inferred.Buffers))
            {
                Assert.Equal((w.Phase, w.Name, w.Bytes), (i.Phase, i.Name, i.Bytes));
                if (w.Phase == "static" || w.Held) continue;
                if (i.Birth < w.Birth || i.Death > w.Death) worse.Add($"{name}: {w.Name} of {w.Phase} [{w.Birth}, {w.Death}) inferred [{i.Birth}, {i.Death})");
            }
            if (inferred.ArenaBytes > written.ArenaBytes) worse.Add($"{name}: {inferred.ArenaBytes} against {written.ArenaBytes}");
            foreach (string phase in written.Phases)
                if ((inferred.PhaseBytes(phase) + 255) / 256 > (written.PhaseBytes(phase) + 255) / 256) worse.Add($"{name}: {phase} {inferred.PhaseBytes(phase)} against {written.PhaseBytes(phase)}");
            if (inferred.ArenaBytes < written.ArenaBytes) fewer++;
        }
        Assert.True(worse.Count == 0, $"{shapes} shapes, {fewer} with fewer bytes, {worse.Count} worse\n" + string.Join('\n', worse.Take(40)));
        Assert.Equal((609, 303), (shapes, fewer));
    }
}
