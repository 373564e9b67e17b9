using Headroom.Core;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tests.Models;
using Headroom.Training.Data;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks.LabelWords;

namespace Headroom.Tests.Loop;

/// <summary>NaN in a run: what is saved, what is kept, what is called good, and what is no score.</summary>
public sealed class NotFiniteTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("headroom-nan-").FullName;

    private static Engine Open() => TinyModel.Open(TinyModel.Smallest(),
            new ModelSettings(
                WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters, TinyModel.Lora(), 0, LogitsChunk: 8),
            18,
            2
        );

    private static void Spoil(Engine engine, float value = float.NaN)
    {
        var a = engine.Model.Projections.First().A;
        float[] values = engine.Read(a);
        values[0] = value;
        engine.Write(a, values);
    }

    private static Trainer Trainer(Engine engine, int steps, int limit) => new(engine, new TrainingOptions
    {
        PerDeviceTrainBatchSize = 2,
        GradientAccumulationSteps = 1,
        MaxSteps = steps,
        LearningRate = 1e-3,
        EvalStrategy = IntervalStrategy.Steps,
        EvalSteps = 1,
        SaveStrategy = IntervalStrategy.Steps,
        SaveSteps = 1,
        SaveTotalLimit = limit,
        Seed = 3,
    },
            new RowList(TinyModel.Rows(TinyModel.Smallest(), [6, 9, 5, 7])),
            9
        )
    {
        State = new TrainerState(0, 0, null, 0, "recipe", "base"),
    };

    /// <summary>
    /// The weights become NaN after the save of step 3: three bad updates end a long run, one bad last update ends a
    /// run of four steps.
    /// </summary>
    [
        Theory, InlineData(20, 0, "for the last 3 updates (steps 4 to 6)"), InlineData(20, 1, "steps 4 to 6"),
        InlineData(4, 0, "at the last update (step 4)"), InlineData(5, 1, "for the last 2 updates (steps 4 to 5)")]
    public void NothingIsSavedDuringABadStreakAndTheLastSoundCheckpointIsNamed(int steps, int limit, string says)
    {
        using var engine = Open();
        var trainer = Trainer(engine, steps, limit);
        var bad = new List<int>();
        var e = Assert.Throws<HeadroomException>(() => trainer.Run(new TrainerHooks
        {
            OnStep = s => { if (s.Skipped) bad.Add(s.Step); },
            Evaluate = s => (s == 1 ? 1 : 0.5, true), // the best is at step 1
            OnCheckpoint = (s, _) => { if (s == 3) Spoil(engine); },
        }, _root, "tiny", TestContext.Current.CancellationToken));
        Assert.Equal(1, e.ExitCode);
        Assert.Contains(says, e.Message, StringComparison.Ordinal);
        Assert.Contains(
            $"The last good checkpoint is {Path.Combine(_root, "checkpoint-3")};", e.ToDo, StringComparison.Ordinal);
        Assert.Equal(Enumerable.Range(4, bad.Count), bad);
        // the best and the last sound one
        Assert.Equal(limit == 1 ? [1, 3] : [1, 2, 3], Checkpoints.All(_root).Select(c => c.Step));
        using var again = Open();
        Checkpoints.Load(Checkpoints.Latest(_root)!, again, "recipe", "base");
        Assert.All(again.Model.Trained, t => Assert.True(Finite.All(again.Read(t.Slot.Weight)), t.Name));
    }

    [Fact]
    public void AStopDuringABadStreakSavesNothing()
    {
        using var engine = Open();
        using var stop = new CancellationTokenSource();
        var trainer = Trainer(engine, 20, 0);
        Assert.False(trainer.Run(new TrainerHooks
        {
            OnStep = s => { if (s.Skipped) stop.Cancel(); },
            OnCheckpoint = (s, _) => { if (s == 2) Spoil(engine); },
        }, _root, "tiny", stop.Token));
        Assert.Equal(3, trainer.State.Step);
        Assert.Equal([1, 2], Checkpoints.All(_root).Select(c => c.Step));
    }

    /// <summary>
    /// A stop in the middle of a bad streak: the resumed run makes its updates again, so it counts them as the run
    /// that was not stopped does, and knows the same checkpoint to be good. Without an evaluation nothing tells of
    /// the weights of step 3 but the loss after them.
    /// </summary>
    [Theory, InlineData(4, true, 3), InlineData(5, true, 3), InlineData(5, false, 2)]
    public void ABadStreakIsTheSameAfterAResume(int stopAt, bool evaluates, int good)
    {
        string whole = Path.Combine(_root, "whole"), root = Path.Combine(_root, "stopped");
        TrainerHooks Hooks(Engine engine, Action<StepResult>? onStep = null) => new()
        {
            OnStep = onStep,
            Evaluate = evaluates ? s => (s == 1 ? 1 : s <= 3 ? 0.5 : double.NaN, true) : null,
            OnCheckpoint = (s, _) => { if (s == 3) Spoil(engine); },
        };
        HeadroomException due;
        using (var engine = Open())
        {
            var trainer = Trainer(engine, 20, 0);
            due = Assert.Throws<HeadroomException>(() =>
                trainer.Run(Hooks(engine), whole, "tiny", TestContext.Current.CancellationToken));
        }
        using (var engine = Open())
        using (var stop = new CancellationTokenSource())
        {
            var hooks = Hooks(engine, s => { if (s.Step == stopAt) stop.Cancel(); });
            Assert.False(Trainer(engine, 20, 0).Run(hooks, root, "tiny", stop.Token));
        }
        using var again = Open();
        var resumed = Trainer(again, 20, 0);
        resumed.State = Checkpoints.Load(Checkpoints.Latest(root)!, again, "recipe", "base");
        Assert.Equal(3, resumed.State.Step);
        Spoil(again);
        var made = new List<int>();
        var e = Assert.Throws<HeadroomException>(() =>
            resumed.Run(Hooks(again, s => made.Add(s.Step)), root, "tiny", TestContext.Current.CancellationToken));
        Assert.Equal([4, 5, 6], made);
        Assert.Contains("for the last 3 updates (steps 4 to 6)", e.Message, StringComparison.Ordinal);
        string last = Path.Combine(root, $"checkpoint-{good}");
        Assert.Contains($"The last good checkpoint is {last};", e.ToDo, StringComparison.Ordinal);
        Assert.Equal((due.Message, due.ToDo), (e.Message, e.ToDo.Replace(root, whole, StringComparison.Ordinal)));
    }

    /// <summary>An update that is bad alone is left out, and the run goes on from the weights before it.</summary>
    [Fact]
    public void OneBadUpdateIsLeftOut()
    {
        using var engine = Open();
        float[]? before = null;
        var trainer = Trainer(engine, 5, 0);
        Assert.True(trainer.Run(new TrainerHooks
        {
            OnStep = s => { if (s.Skipped) engine.Write(engine.Model.Projections.First().A, before!); },
            OnCheckpoint = (s, _) =>
            {
                if (s != 2) return;
                before = engine.Read(engine.Model.Projections.First().A);
                Spoil(engine, float.PositiveInfinity);
            },
        }, _root, "tiny", TestContext.Current.CancellationToken));
        Assert.Equal([1, 2, 4, 5], Checkpoints.All(_root).Select(c => c.Step));
        Assert.Equal(1, trainer.State.SkippedSteps);
    }

    [Theory, InlineData(float.NaN), InlineData(float.PositiveInfinity)]
    public void ScoresThatAreNoNumbersAreNoPrediction(float value)
    {
        using var engine = Open();
        var rows = new RowList([
            .. TinyModel.Rows(TinyModel.Smallest(), [6, 9, 5, 7]).Select(r => new LabelWordRow(r.Ids, 1, 1)),
        ]);
        Assert.Equal(4, LabelWordEvaluator.Run(engine, rows, ["no", "yes"], [1, 2], 2, 18).Predicted.Length);
        Spoil(engine, value);
        var e = Assert.Throws<NotFiniteException>(() =>
            LabelWordEvaluator.Run(engine, rows, ["no", "yes"], [1, 2], 2, 18)
        );
        Assert.Equal(
            ("The scores of 4 of 4 rows are NaN or infinite (the first is row 1), so there is no accuracy.", 1),
            (e.Message, e.ExitCode));
    }

    /// <summary>An evaluation that is not finite is never the best, whichever way is better.</summary>
    [Theory, InlineData(true), InlineData(false)]
    public void AnEvaluationThatIsNotFiniteIsNeverTheBest(bool greater)
    {
        using var engine = Open();
        var trainer = Trainer(engine, 4, 0);
        double[] metric = [0, greater ? double.PositiveInfinity : double.NegativeInfinity, double.NaN, 0.5, double.NaN];
        var best = new List<int>();
        trainer.Run(
            new TrainerHooks { Evaluate = s => (metric[s], greater), OnBest = best.Add }, null, null,
            TestContext.Current.CancellationToken);
        Assert.Equal([3], best);
        Assert.Equal((0.5, 3), (trainer.State.BestMetric, trainer.State.BestStep));
    }

    [Fact]
    public void FiniteLooksAtEveryValue()
    {
        for (int n = 0; n < 40; n++)
        {
            var values = Enumerable.Range(0, n).Select(i => i % 2 == 0 ? float.MaxValue : -float.MaxValue).ToArray();
            Assert.True(Finite.All(values));
            for (int i = 0; i < n; i++)
                foreach (float bad in (float[])[float.NaN, float.PositiveInfinity, float.NegativeInfinity])
                {
                    float kept = values[i];
                    values[i] = bad;
                    Assert.False(Finite.All(values), $"{bad} at {i} of {n}");
                    values[i] = kept;
                }
        }
    }

    public void Dispose() => Directory.Delete(_root, true);
}
