using Headroom.Core;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tests.Models;
using Headroom.Training.Data;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;

namespace Headroom.Tests.Loop;

public sealed class ResumeTests : IDisposable
{
    private const int Cut = 4; // the step whose evaluation is cut off
    private static readonly TrainingOptions Options = new()
    {
        PerDeviceTrainBatchSize = 2,
        GradientAccumulationSteps = 1,
        MaxSteps = 6,
        LearningRate = 1e-2,
        EvalStrategy = IntervalStrategy.Steps,
        EvalSteps = 2,
        SaveStrategy = IntervalStrategy.Steps,
        SaveSteps = 100,
        Seed = 3,
    };
    private readonly string _root = Directory.CreateTempSubdirectory("headroom").FullName;

    private static (Engine, Trainer) Open(bool dora)
    {
        var config = TinyModel.Smallest();
        var rows = TinyModel.Rows(config, [6, 9, 5, 7]);
        var engine = TinyModel.Open(
            config,
            new ModelSettings(
                WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters, TinyModel.Lora(0.1f, dora: dora), 0,
                LogitsChunk: 8),
            18,
            2
        );
        return (
            engine,
            new Trainer(engine, Options, new RowList(rows), 9)
            {
                State = new TrainerState(0, 0, null, 0, "recipe", "base"),
            }
        );
    }

    /// <summary>
    /// A stop while the model is evaluated writes a checkpoint, and the evaluation is made up for: losses, best step
    /// and adapter are those of a run that was never stopped.
    /// </summary>
    [Theory, InlineData(false), InlineData(true)]
    public void AStopInTheMiddleOfAnEvaluationLosesNothing(bool dora)
    {
        var (engine, trainer) = Open(dora);
        var whole = new List<StepResult>();
        var evaluated = new List<int>();
        string hash;
        using (engine)
        {
            // The metric is best at the step that will be cut off.
            Assert.True(
                trainer.Run(
                    new TrainerHooks
                    {
                        OnStep = whole.Add,
                        Evaluate = s =>
                        {
                            evaluated.Add(s);
                            return (Math.Abs(s - Cut), false);
                        },
                    },
                    null,
                    null,
                    TestContext.Current.CancellationToken
                )
            );
            Assert.Equal(Cut, trainer.State.BestStep);
            hash = Checkpoints.TrainedHash(engine);
        }

        var steps = new List<StepResult>();
        var again = new List<int>();
        (engine, trainer) = Open(dora);
        using (engine)
        using (var stop = new CancellationTokenSource())
        {
            Assert.False(trainer.Run(new TrainerHooks
            {
                OnStep = steps.Add,
                Evaluate = s =>
                {
                    if (s == Cut) stop.Cancel();
                    stop.Token.ThrowIfCancellationRequested();
                    again.Add(s);
                    return (Math.Abs(s - Cut), false);
                },
            }, _root, "tiny", stop.Token));
            Assert.Equal(2, trainer.State.BestStep);
        }
        Assert.Equal(["checkpoint-4"], Directory.GetDirectories(_root).Select(Path.GetFileName));
        string left = Path.Combine(_root, "checkpoint-1.tmp"); // as a kill in the middle of a save would leave it
        Directory.CreateDirectory(left);
        (engine, trainer) = Open(dora);
        using (engine)
        {
            var best = new List<int>();
            trainer.State = Checkpoints.Load(Checkpoints.Latest(_root)!, engine, "recipe", "base");
            Assert.Equal(Cut, trainer.State.Step);
            Assert.True(
                trainer.Run(
                    new TrainerHooks
                    {
                        OnStep = steps.Add,
                        OnBest = best.Add,
                        Evaluate = s =>
                        {
                            again.Add(s);
                            return (Math.Abs(s - Cut), false);
                        },
                    },
                    _root,
                    "tiny",
                    TestContext.Current.CancellationToken
                )
            );
            Assert.Equal([Cut], best);
            Assert.Equal(Cut, trainer.State.BestStep);
            Assert.Equal(hash, Checkpoints.TrainedHash(engine));
        }
        Assert.Equal(evaluated, again);
        Assert.Equal(whole, steps);
        Assert.False(Directory.Exists(left));
        Assert.All(Checkpoints.All(_root), c =>
            Assert.True(File.Exists(Path.Combine(c.Path, "optimizer.safetensors")))
        );
    }

    /// <summary>A directory can be flushed, and one that is not there says so.</summary>
    [Fact]
    public void DirectoriesAreFlushed()
    {
        DirectoryFlush.Run(_root);
        if (!OperatingSystem.IsWindows())
            Assert.Throws<IOException>(() => DirectoryFlush.Run(Path.Combine(_root, "none")));
    }

    public void Dispose() => Directory.Delete(_root, true);
}
