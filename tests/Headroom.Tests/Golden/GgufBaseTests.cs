using System.IO.Compression;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats.Gguf;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tokenizers;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;

namespace Headroom.Tests.Golden;

/// <summary>
/// SmolLM2-135M in its own Q4_1 blocks: the logits that transformers gives for the dequantized file, the file's bytes
/// in memory, LoRA over it.
/// </summary>
public class GgufBaseTests
{
    private static string Model => Shared.DataFile("models/SmolLM2-135M-Instruct/SmolLM2-135M-Instruct.Q4_1.gguf");

    private static ModelSettings Settings(IWeightSource source, IDevice device, TrainMode mode)
    {
        var recipe = new Recipe();
        recipe.Quantization.LoadIn4bit = false;
        recipe.Lora.TargetModules = ["q_proj", "v_proj"];
        recipe.Lora.LoraDropout = 0;
        return RunSettings.Choose(recipe, source, device) with { Mode = mode };
    }

    [Fact]
    public void GoldenLogitsInItsOwnBlocks()
    {
        var json = JsonNode.Parse(File.ReadAllText(Shared.GoldenFile("smollm2/inference.json")))!;
        int[] answers = [(int)json["answers"]!["negative"]!, (int)json["answers"]!["positive"]!];
        string template = (string)json["template"]!;
        var rows = json["scores"]!.AsArray().OrderBy(r => (int)r!["tokens"]!).Take(3).ToList();
        var tokenizer = TokenizerLoader.Load(Model);
        using var source = WeightSources.Open(Model);
        var device = TestDevice.Open();
        int longest = rows.Max(r => (int)r!["tokens"]!);
        using var engine = new Engine(
            device,
            source,
            Settings(source, device, TrainMode.None) with
            {
                Lora = null,
            },
            new BatchLimits(EvalTokens: longest, EvalSequences: 1)
        );
        foreach (var row in rows)
        {
            string review = Review((int)row!["row"]!).Replace("<br />", " ", StringComparison.Ordinal);
            // The three parts were encoded one by one, so the blank before the text is a token of its own.
            int[] ids =
            [
                .. template
                    .Split("{text}")
                    .SelectMany(
                        (part, i) => (int[])[.. i == 1 ? tokenizer.Encode(review) : [], .. tokenizer.Encode(part)]),
            ];
            Assert.Equal((int)row["tokens"]!, ids.Length);
            var scores = new float[2];
            var lse = new float[1];
            int last = ids.Length - 1;
            engine.Scores(
                new HostBatch(ids, Enumerable.Range(0, ids.Length).ToArray(), [0, ids.Length], [last], [0]), answers,
                scores, lse);
            Assert.Equal((double)row["logit_negative"]!, scores[0], 2e-3);
            Assert.Equal((double)row["logit_positive"]!, scores[1], 2e-3);
            Assert.Equal((double)row["logsumexp"]!, lse[0], 2e-3);
        }
        // In memory: the file's blocks, norms and rotations, and nothing else (each buffer padded to 256 bytes).
        long file = new FileInfo(Model).Length;
        Assert.InRange(engine.Plan.StaticBytes, file - (4 << 20), file + (1 << 20));
    }

    /// <summary>The same steps as over the dequantized weights in float32, loss by loss, and they learn.</summary>
    [Fact]
    public void LoraSteps()
    {
        using var source = WeightSources.Open(Model);
        int[] ids = TokenizerLoader.Load(Model).Encode("Review: It was a quiet film about rain.\nSentiment: positive");
        int[] positions = Enumerable.Range(0, ids.Length).ToArray(), rows = positions[..^1], labels = ids[1..];
        double[] Losses(Func<ModelSettings, ModelSettings> change)
        {
            var device = TestDevice.Open();
            var settings = change(Settings(source, device, TrainMode.Adapters));
            using var engine = new Engine(device, source, settings, new BatchLimits(ids.Length, 1, labels.Length));
            engine.InitializeAdapters(7);
            var losses = new double[3];
            for (int t = 0; t < losses.Length; t++)
            {
                losses[t] =
                    engine.MicroStep(
                        new HostBatch(ids, positions, [0, ids.Length], rows, labels), default, 1f / labels.Length
                    ) / labels.Length;
                engine.Update(new AdamWStep(1e-2, 0.9, 0.999, 1e-8, t + 1, 1));
            }
            return losses;
        }
        double[] own = Losses(s => s),
            plain = Losses(s => s with { LinearStorage = WeightStorage.F32, EmbeddingStorage = WeightStorage.F32 });
        Assert.Equal(plain, own);
        Assert.True(own[2] < own[0] - 0.1, string.Join(", ", own));
    }

    private static string Review(int row)
    {
        using var stream = new GZipStream(
            File.OpenRead(Shared.DataFile("imdb-test-5k.jsonl.gz")), CompressionMode.Decompress);
        using var reader = new StreamReader(stream);
        for (int i = 0; i < row; i++) reader.ReadLine();
        return (string)JsonNode.Parse(reader.ReadLine()!)!["text"]!;
    }
}
