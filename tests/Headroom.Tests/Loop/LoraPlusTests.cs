using Headroom.Core;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tests.Models;
using Headroom.Training.Data;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;

namespace Headroom.Tests.Loop;

/// <summary>LoRA+: which parameters have the other learning rate, and that a resume goes on with it.</summary>
public sealed class LoraPlusTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("headroom").FullName;

    public void Dispose() => Directory.Delete(_root, true);

    private static (Engine, Trainer) Open(double rate, double ratio, int steps)
    {
        var config = TinyModel.Smallest();
        var lora = TinyModel.Lora(0.1f, dora: true) with { ModulesToSave = ["lm_head", "model.norm"] };
        var engine = TinyModel.Open(
            config,
            new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters, lora, 0, LogitsChunk: 8),
            18, 2);
        var options = new TrainingOptions
        {
            PerDeviceTrainBatchSize = 2,
            MaxSteps = steps,
            LearningRate = rate,
            LoraplusLrRatio = ratio,
            WeightDecay = 0.01,
            MaxGradNorm = 0, // the norm is the same, but a clipped gradient would hide which one it is
            Seed = 3,
        };
        return (
            engine,
            new Trainer(engine, options, new RowList(TinyModel.Rows(config, [6, 9, 5, 7])), 9)
            {
                State = new TrainerState(0, 0, null, 0, "recipe", "base"),
            });
    }

    private static Dictionary<string, float[]> Updated(double rate, double ratio)
    {
        var (engine, trainer) = Open(rate, ratio, 1);
        using (engine)
        {
            trainer.Run(new TrainerHooks(), null, null, TestContext.Current.CancellationToken);
            return engine.Model.Trained.ToDictionary(p => p.Name, p => engine.Read(p.Slot.Weight));
        }
    }

    /// <summary>After one update A is what one rate gives, B and the vectors what 16 times that rate gives.</summary>
    [Fact]
    public void BAndVectorsHaveTheOtherRate()
    {
        var (plain, fast, plus) = (Updated(1e-3, 1), Updated(16e-3, 1), Updated(1e-3, 16));
        string[] kinds =
        [
            "lora_A.weight", "lora_B.weight", "lora_magnitude_vector", "lm_head.weight", "norm.weight"];
        foreach (string kind in kinds)
            Assert.Contains(plus.Keys, n => n.EndsWith(kind, StringComparison.Ordinal));
        foreach (var (name, weights) in plus)
        {
            Assert.Contains(kinds, k => name.EndsWith(k, StringComparison.Ordinal));
            bool slow = name.EndsWith("lora_A.weight") || name.EndsWith("lm_head.weight");
            Assert.NotEqual(plain[name], fast[name]);
            Assert.Equal((slow ? plain : fast)[name], weights); // bit for bit
        }
    }

    [Fact]
    public void AResumeGoesOnAsItWould()
    {
        string whole;
        var (engine, trainer) = Open(1e-3, 16, 6);
        using (engine)
        {
            trainer.Run(new TrainerHooks(), null, null, TestContext.Current.CancellationToken);
            whole = Checkpoints.TrainedHash(engine);
        }
        (engine, trainer) = Open(1e-3, 16, 6);
        using (engine)
        using (var stop = new CancellationTokenSource())
            Assert.False(trainer.Run(
                new TrainerHooks { OnStep = s => { if (s.Step == 3) stop.Cancel(); } }, _root, "tiny", stop.Token));
        (engine, trainer) = Open(1e-3, 16, 6);
        using (engine)
        {
            trainer.State = Checkpoints.Load(Checkpoints.Latest(_root)!, engine, "recipe", "base");
            Assert.Equal(3, trainer.State.Step);
            Assert.True(trainer.Run(new TrainerHooks(), null, null, TestContext.Current.CancellationToken));
            Assert.Equal(whole, Checkpoints.TrainedHash(engine));
        }
    }
}
