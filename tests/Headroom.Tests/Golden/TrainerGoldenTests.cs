using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats.Gguf;
using Headroom.Formats.Peft;
using Headroom.Formats.Safetensors;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Training.Data;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;

namespace Headroom.Tests.Golden;

/// <summary>
/// A whole run of the Hugging Face Trainer: unequal rows, accumulation with short last windows, warm-up, clipping.
/// </summary>
public class TrainerGoldenTests
{
    [Fact]
    public void WholeRunMatchesHuggingFaceTrainer()
    {
        var json = JsonNode.Parse(File.ReadAllText(Shared.GoldenFile("trainer.json")))!;
        using var after = SafetensorsFile.Open(Shared.GoldenFile("trainer-adapter-after.safetensors"));
        using var source = WeightSources.Open(Shared.GoldenFile("hf/" + (string)json["model"]!));
        var adapter = PeftAdapter.Load(Shared.GoldenFile((string)json["adapter"]!));
        var rows = json["rows"]!.AsArray().Select(r =>
        {
            int[] ids = r!["input_ids"]!.AsArray().Select(i => (int)i!).ToArray(),
                labels = r["labels"]!.AsArray().Select(i => (int)i!).ToArray();
            int first = Array.FindIndex(labels, l => l != -100);
            for (int i = first; i < ids.Length; i++) Assert.Equal(ids[i], labels[i]);
            return new EncodedRow(ids, Math.Max(1, first));
        }).ToList();
        int longest = rows.Max(r => r.Ids.Length);
        var args = json["args"]!;
        Assert.Equal("sequential", (string)args["sampler"]!);
        var options = new TrainingOptions
        {
            PerDeviceTrainBatchSize = (int)args["per_device_train_batch_size"]!,
            GradientAccumulationSteps = (int)args["gradient_accumulation_steps"]!,
            NumTrainEpochs = (double)args["num_train_epochs"]!,
            LearningRate = (double)args["learning_rate"]!,
            WeightDecay = (double)args["weight_decay"]!,
            MaxGradNorm = (double)args["max_grad_norm"]!,
            LrSchedulerType = Choices.Parse<SchedulerType>("lr_scheduler_type", (string)args["lr_scheduler_type"]!),
            WarmupSteps = (int)args["warmup_steps"]!,
            TrainSamplingStrategy = SamplingStrategy.Sequential,
        };
        int tokens = options.PerDeviceTrainBatchSize * longest;
        var settings = new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters,
            adapter.Lora with { LoraDropout = 0 });
        using var engine = new Engine(
            new CpuDevice(), source, settings, new BatchLimits(tokens, options.PerDeviceTrainBatchSize, tokens));
        engine.LoadAdapter(adapter);
        var trainer = new Trainer(engine, options, new RowList(rows), longest);
        var log = json["log"]!.AsArray();
        Assert.Equal((int)json["global_step"]!, trainer.TotalSteps);
        var steps = new List<StepResult>();
        trainer.Run(new TrainerHooks { OnStep = steps.Add }, null, null, TestContext.Current.CancellationToken);
        Assert.Equal(trainer.TotalSteps, steps.Count);
        foreach (var s in steps)
        {
            var expected = log[s.Step - 1]!;
            Assert.Equal((int)expected["step"]!, s.Step);
            Near((double)expected["loss"]!, s.Loss, 1e-4);
            Near((double)expected["grad_norm"]!, s.GradNorm, 1e-4);
            Near((double)expected["learning_rate"]!, s.LearningRate, 1e-9);
        }
        foreach (var p in engine.Model.Trained)
            ModelGoldenTests.CompareTensor(
                after, "base_model.model." + p.Name.Replace(".weight", ".default.weight"), engine.Read(p.Slot.Weight),
                absolute: 1e-4f);
    }

    private static void Near(double expected, double actual, double relative) =>
        Assert.True(Math.Abs(expected - actual) <= relative * Math.Abs(expected), $"{actual} against {expected}");
}
