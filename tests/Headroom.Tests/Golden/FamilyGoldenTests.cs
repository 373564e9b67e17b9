using Headroom.Core;
using Headroom.Formats.Gguf;
using Headroom.Formats.Peft;
using Headroom.Formats.Safetensors;
using Headroom.Inference;
using Headroom.Inference.Export;
using Headroom.Models;

namespace Headroom.Tests.Golden;

/// <summary>
/// Families beyond the six tiny models against transformers and PEFT (golden README, families): logits, losses,
/// gradients, six AdamW steps, the merged model, greedy tokens.
/// </summary>
public class FamilyGoldenTests
{
    /// <summary>Folders of families that are built; one more is a line here.</summary>
    public static TheoryData<string> Built => ["families/qwen3", "families/qwen3-window"];

    [Theory, MemberData(nameof(Built))]
    public void BaseLogitsAndLoss(string folder) => ModelGoldenTests.Base(folder);

    [Theory, MemberData(nameof(Built))]
    public void LoraSteps(string folder) => ModelGoldenTests.Steps(folder, "lora", WeightStorage.F32, recompute: 0);

    [Theory, MemberData(nameof(Built))]
    public void LoraStepsWithRecompute(string folder) =>
        ModelGoldenTests.Steps(folder, "lora", WeightStorage.F32, recompute: -1);

    /// <summary>The adapter merged into its base gives the logits that PEFT computes with both.</summary>
    [Theory, MemberData(nameof(Built))]
    public void MergedLogits(string folder)
    {
        using var golden = SafetensorsFile.Open(Shared.GoldenFile(folder + "/golden.safetensors"));
        var batch = ModelGoldenTests.Batch(golden, out int rows, out int length);
        using var source = WeightSources.Open(Shared.GoldenFile(folder));
        var adapter = PeftAdapter.Load(Shared.GoldenFile(folder + "/adapter"));
        using var merged = new MergedSource(source, adapter, null, null);
        using var engine = new Engine(TestDevice.Open(), merged,
            new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.None),
            new BatchLimits(0, 0, 0, batch.Tokens, batch.Tokens, source.Config.VocabSize));
        ModelGoldenTests.CompareLogits(engine, batch, golden.ReadF32("lora.logits"), rows, length, 1e-4f);
    }

    /// <summary>Greedy tokens through the key/value cache, and computed anew for each token.</summary>
    [Theory, MemberData(nameof(Built))]
    public void GreedyTokens(string folder)
    {
        using var golden = SafetensorsFile.Open(Shared.GoldenFile(folder + "/golden.safetensors"));
        int[] prompt = Ints(golden, "greedy.prompt"), expected = Ints(golden, "greedy.tokens");
        if (expected.AsSpan().StartsWith(prompt)) expected = expected[prompt.Length..];
        using var source = WeightSources.Open(Shared.GoldenFile(folder));
        Engine Open() => new(TestDevice.Open(), source,
            new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.None),
            new BatchLimits(GenerateTokens: 64));
        using Engine cached = Open(), whole = Open();
        float[] logits = new float[source.Config.VocabSize], anew = new float[logits.Length];
        var text = prompt.ToList();
        var cache = cached.StartGeneration();
        cached.Decode(ref cache, prompt, logits);
        var tokens = new List<int>();
        foreach (int _ in expected)
        {
            tokens.Add(logits.AsSpan().IndexOf(logits.Max()));
            text.Add(tokens[^1]);
            cached.Decode(ref cache, [tokens[^1]], logits);
            var empty = whole.StartGeneration();
            whole.Decode(ref empty, text.ToArray(), anew);
            for (int i = 0; i < logits.Length; i++) Assert.Equal(anew[i], logits[i], 1e-4f);
        }
        Assert.Equal(expected, tokens);
    }

    private static int[] Ints(SafetensorsFile file, string name) => [.. file.ReadI64(name).Select(i => (int)i)];
}
