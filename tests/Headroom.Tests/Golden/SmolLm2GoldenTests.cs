using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Formats.Gguf;
using Headroom.Formats.Peft;
using Headroom.Formats.Safetensors;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tokenizers;
using Headroom.Training.Data;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks.LabelWords;

namespace Headroom.Tests.Golden;

/// <summary>
/// SmolLM2-135M-Instruct on real reviews against transformers, PEFT and bitsandbytes (golden README): a real model, end
/// to end from text.
/// </summary>
public class SmolLm2GoldenTests
{
    private const int Longest = 512;
    private static readonly string[] Keys = ["logit_negative", "logit_positive"];

    [Fact]
    public void FullPrecisionScoresAndLikelihoods()
    {
        var json = Json("inference.json");
        var rows = Rows("imdb-test-5k.jsonl.gz");
        var prompt = new Prompt(json);
        int vocab;
        using var engine = Open(WeightStorage.F32, TrainMode.None, null, out vocab);
        int[] all = Enumerable.Range(0, vocab).ToArray();
        float[] scores = new float[(long)Longest * vocab], lse = new float[Longest];
        foreach (var expected in json["scores"]!.AsArray())
        {
            var row = rows[(int)expected!["row"]!];
            Assert.Equal((string)expected["id"]!, row.Id);
            int[] ids = prompt.Ids(row), at = Enumerable.Range(0, ids.Length).ToArray();
            Assert.Equal((int)expected["tokens"]!, ids.Length);
            engine.Scores(new HostBatch(ids, at, [0, ids.Length], at, at), all, scores, lse);
            var last = scores.AsSpan((ids.Length - 1) * vocab, vocab).ToArray();
            for (int c = 0; c < 2; c++)
                Near((float)expected[Keys[c]]!, last[prompt.Answers[c]], 2e-3, $"row {expected["row"]} {Keys[c]}");
            Near((float)expected["logsumexp"]!, lse[ids.Length - 1], 2e-3, $"row {expected["row"]} log-sum-exp");
            int[] best = all.OrderByDescending(v => last[v]).Take(5).ToArray(),
                top = expected["top5"]!.AsArray().Select(v => (int)v!).ToArray();
            // Two logits closer than twice the tolerance may change places; nothing else may.
            for (int k = 0; k < 5; k++)
                Assert.True(
                    best[k] == top[k] || Math.Abs(last[best[k]] - last[top[k]]) <= 4e-3,
                    $"row {expected["row"]}: top 5 {string.Join(",", best)}, not {string.Join(",", top)}");
            double nll = 0;
            for (int t = 0; t + 1 < ids.Length; t++) nll += lse[t] - (double)scores[(long)t * vocab + ids[t + 1]];
            double mean = (double)expected["mean_nll"]!;
            Near(mean, nll / (ids.Length - 1), 1e-5 * mean, $"row {expected["row"]} mean negative log-likelihood");
        }
    }

    [Fact]
    public void QuantizedScoresAndEightQloraSteps()
    {
        var json = Json("qlora-8-steps.json");
        var prompt = new Prompt(Json("inference.json"));
        var adapter = PeftAdapter.Load(Shared.GoldenFile("smollm2/adapter"));
        using var grads = SafetensorsFile.Open(Shared.GoldenFile("smollm2/qlora-step0-grads.safetensors"));
        var settings = adapter.Lora with { LoraDropout = 0 };
        using var engine = Open(WeightStorage.NF4Double, TrainMode.Adapters, settings, out _);

        var test = Rows("imdb-test-5k.jsonl.gz"); // B = 0 until the adapter is loaded: the scores are the bare base's
        float[] scores = new float[2], lse = new float[1];
        var batch = new MicroBatch(Longest, 1);
        foreach (var expected in json["nf4_scores"]!.AsArray())
        {
            batch.Clear();
            var row = prompt.Encode(test[(int)expected!["row"]!]);
            batch.AddPrompt(row.Ids.AsSpan(0, row.Spans[0].Start), row.Ids[^1]);
            engine.Scores(batch.Host, prompt.Answers, scores, lse);
            for (int c = 0; c < 2; c++)
                Near((float)expected[Keys[c]]!, scores[c], 5e-3, $"row {expected["row"]} {Keys[c]} with NF4");
        }

        engine.LoadAdapter(adapter);
        var args = json["args"]!;
        var train = Rows("imdb-train-10k.jsonl.gz");
        var steps = json["steps"]!.AsArray();
        engine.SetWeightDecay((float)args["weight_decay"]!);
        double clip = (double)args["max_grad_norm"]!, baseLr = (double)args["learning_rate"]!;
        int accumulation = (int)args["gradient_accumulation_steps"]!;
        for (int t = 0; t < steps.Count; t++)
        {
            var rows = steps[t]!["rows"]!.AsArray();
            Assert.Equal(accumulation, rows.Count); // one labelled token a row
            double loss = 0;
            foreach (var r in rows)
            {
                batch.Clear();
                batch.Add(prompt.Encode(train[(int)r!]));
                Assert.Equal(1, batch.LabelCount);
                loss += engine.MicroStep(batch.Host, default, 1f / accumulation) / accumulation;
            }
            double expected = (double)steps[t]!["loss"]!,
                norm = engine.GradientNorm(),
                expectedNorm = (double)steps[t]!["grad_norm"]!;
            Near(expected, loss, 1e-3 * expected, $"loss of step {t}");
            Near(expectedNorm, norm, 1e-3 * expectedNorm, $"gradient norm of step {t}");
            if (t == 0) CompareGradients(engine, grads);
            var schedule = Choices.Parse<SchedulerType>("lr_scheduler_type", (string)args["lr_scheduler_type"]!);
            double lr = baseLr * Schedules.Factor(schedule, t, (int)args["warmup_steps"]!, steps.Count);
            Near((double)steps[t]!["lr"]!, lr, 1e-12, $"learning rate of step {t}");
            engine.Update(new AdamWStep(lr, 0.9, 0.999, 1e-8, t + 1, (float)Math.Min(1, clip / (norm + 1e-6))));
        }
    }

    private static void CompareGradients(Engine engine, SafetensorsFile grads)
    {
        int compared = 0;
        foreach (var p in engine.Model.Trained)
        {
            string key = $"grad.base_model.model.{p.Name.Replace(".weight", ".default.weight")}";
            if (!grads.Tensors.ContainsKey(key)) key = key["grad.".Length..];
            if (!grads.Tensors.ContainsKey(key)) continue;
            ModelGoldenTests.CompareTensor(grads, key, engine.Read(p.Slot.Grad), relative: 1e-3f);
            compared++;
        }
        Assert.Equal(grads.Tensors.Count, compared);
    }

    private static JsonNode Json(string name) =>
        JsonNode.Parse(File.ReadAllText(Shared.GoldenFile("smollm2/" + name)))!;

    private static List<DataRow> Rows(string name) => DataFiles.Read(Shared.DataFile(name)).ToList();

    private static string Gguf => Shared.DataFile("models/SmolLM2-135M-Instruct/SmolLM2-135M-Instruct.Q4_1.gguf");

    /// <summary>
    /// The reference's prompt: "Review: " with its blank, the text and the suffix tokenized apart. (Our
    /// <see cref="LabelWordEncoder"/> lets the blank go with the text's first word, as in the whole string, so it is
    /// not used here.)
    /// </summary>
    private sealed class Prompt
    {
        private readonly ITokenizer _tokenizer = TokenizerLoader.Load(Gguf);
        private readonly int[] _prefix, _suffix;

        public Prompt(JsonNode inference)
        {
            string[] parts = ((string)inference["template"]!).Split("{text}");
            _prefix = _tokenizer.Encode(parts[0]);
            _suffix = _tokenizer.Encode(parts[1]);
            Answers = [(int)inference["answers"]!["negative"]!, (int)inference["answers"]!["positive"]!];
            Assert.Equal<int[]>(Answers, [.. _tokenizer.Encode(" negative"), .. _tokenizer.Encode(" positive")]);
        }

        public int[] Answers { get; }

        public int[] Ids(DataRow row)
        {
            int[] text = _tokenizer.Encode(row.Text.Replace("<br />", " ", StringComparison.Ordinal));
            return [.. _prefix, .. text.Take(Longest - 1 - _prefix.Length - _suffix.Length), .. _suffix];
        }

        public EncodedRow Encode(DataRow row)
        {
            int[] ids = Ids(row);
            return new EncodedRow(
                [.. ids, Answers[int.Parse(row.Label, System.Globalization.CultureInfo.InvariantCulture)]], ids.Length);
        }
    }

    private static Engine Open(WeightStorage storage, TrainMode mode, LoraConfig? lora, out int vocab)
    {
        using var source = WeightSources.Open(Gguf);
        vocab = source.Config.VocabSize;
        bool scores = mode == TrainMode.None; // every logit of every position: the whole likelihood in one pass
        var limits = scores ? new BatchLimits(EvalTokens: Longest, EvalSequences: Longest, Candidates: vocab)
            : new BatchLimits(Longest, 1, 1, Longest, 1);
        return new Engine(TestDevice.Open(), source, new ModelSettings(storage, WeightStorage.F32, mode, lora), limits);
    }

    private static void Near(double expected, double actual, double tolerance, string what) =>
        Assert.True(Math.Abs(expected - actual) <= tolerance, $"{what}: {actual} against {expected}");
}
