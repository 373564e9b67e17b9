using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats.Gguf;
using Headroom.Inference;
using Headroom.Models;

namespace Headroom.Tests.Golden;

/// <summary>Greedy decoding through the key/value cache.</summary>
public class GenerationGoldenTests
{
    [Fact]
    public void Stories260KTokens()
    {
        var json = JsonNode.Parse(File.ReadAllText(Shared.DataFile("models/stories260K/golden.json")))!.AsObject();
        int[] expected = json.Select(k => k.Value)
            .OfType<JsonArray>()
            .First(a => a.Count == 257 && a[0] is JsonValue)
            .Select(v => (int)v!)
            .ToArray();
        using var engine = Open(Shared.DataFile("models/stories260K/hf"), 300);
        var actual = Greedy(engine, expected[..1], expected.Length - 1, out _);
        Assert.Equal(expected[1..], actual);
    }

    [Fact]
    public void SmolLm2GreedyContinuations()
    {
        var greedy = JsonNode.Parse(File.ReadAllText(Shared.GoldenFile("smollm2/inference.json")))![
            "greedy"]!.AsArray();
        using var engine = Open(Shared.DataFile("models/SmolLM2-135M-Instruct/SmolLM2-135M-Instruct.Q4_1.gguf"), 256);
        foreach (var g in greedy)
        {
            int[] ids = g!["ids"]!.AsArray().Select(v => (int)v!).ToArray(),
                expected = g["greedy"]!.AsArray().Select(v => (int)v!).ToArray();
            double[] gaps = g.AsObject()
                .First(k => k.Key.Contains("gap", StringComparison.Ordinal))
                .Value!.AsArray()
                .Select(v => (double)v!)
                .ToArray();
            int n = 0;
            while (n < gaps.Length && n < expected.Length && n < 24 && gaps[n] > 0.01) n++;
            Assert.Equal(expected[..n], Greedy(engine, ids, n, out _));
        }
    }

    private static Engine Open(string path, int capacity)
    {
        using var source = WeightSources.Open(path);
        return new Engine(
            new CpuDevice(), source, new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.None),
            new BatchLimits(GenerateTokens: capacity));
    }

    private static int[] Greedy(Engine engine, int[] prompt, int count, out float[] logits)
    {
        logits = new float[engine.Model.Config.VocabSize];
        var cache = engine.StartGeneration();
        engine.Decode(ref cache, prompt, logits);
        var tokens = new List<int>();
        for (int i = 0; i < count; i++)
        {
            int best = 0;
            for (int v = 1; v < logits.Length; v++)
                if (logits[v] > logits[best]) best = v;
            tokens.Add(best);
            if (i + 1 < count) engine.Decode(ref cache, [best], logits);
        }
        return [.. tokens];
    }
}
