using System.Diagnostics;
using Headroom.Core;
using Headroom.Formats.Peft;
using Headroom.Inference;
using Headroom.Inference.Bases;
using Headroom.Training.Data;
using Headroom.Training.Events;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks;

namespace Headroom.Training.Runs;

/// <summary>
/// A prepared run from its first event to its last: zero-shot test, training with evaluations and checkpoints, test;
/// each in the log and told to the host.
/// </summary>
internal sealed class TrainLoop(
    Recipe recipe,
    ModelOptions model,
    RunHost host,
    RunFolder folder,
    RunStart start,
    PreparedRun prepared,
    Engine engine,
    Trainer trainer,
    RunManifest manifest, CancellationToken stop)
{
    private const double MemorySeconds = 5; // between two looks at the device's memory
    private readonly TrainingOptions _o = recipe.Training;
    private readonly RunRows _rows = prepared.Rows;
    private readonly Stopwatch _clock = Stopwatch.StartNew();
    private EventLog _log = null!;
    private Evaluation? _zero, _tuned;
    private long _tokens;
    private double _trainSeconds, _nextMemory, _logged, _last;
    private string? _notice;
    // The last evaluation that gave no numbers, of the run before a resume too.
    private NotFiniteException? _notFinite =
        start.Checkpoint != null && start.Log.EvalFailed is { } why ? new(why) : null;

    /// <summary>Runs to the end, or until it is stopped.</summary>
    public RunResult Run()
    {
        using var log = _log = Open();
        try
        {
            Begin();
            if (start.Checkpoint == null && _rows.Test.Count > 0) _zero = Test(TestEvent.ZeroShot, "zero-shot test");
            _last = _clock.Elapsed.TotalSeconds;
            if (!trainer.Run(Hooks(), folder.Checkpoints, model.BaseName(), stop)) return Stopped();
            if (trainer.StoppedEarly)
                host.Say(
                    $"step {trainer.State.Step}: stopped early, {_o.EarlyStoppingPatience} evaluations in a row brought "
                        + $"nothing better than that of step {trainer.State.BestStep}");
            KeepBest();
            if (_rows.Test.Count > 0) _tuned = Test(TestEvent.Tuned, "test");
            string hash = Checkpoints.TrainedHash(engine);
            log.Write(RunEvents.Memory("end", engine));
            End(hash);
            return Result(true, hash);
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            return Stopped();
        }
        catch (Exception e)
        {
            if (RunFailure.Describe(e, log, trainer.State.Step, folder.Checkpoints) is { } told) throw told;
            throw;
        }
    }

    /// <summary>Seconds that were spent on the run before this process; none on one that begins anew.</summary>
    private double Before => start.Checkpoint == null ? 0 : start.Log.Seconds;

    /// <summary>The log; what is made again was taken out of it before.</summary>
    private EventLog Open()
    {
        if (host.Resume)
            EventLog.Cut(folder.Events, folder.CutEvents, start.Checkpoint == null ? null : trainer.State.Step);
        return new EventLog(folder.Events) { Warn = host.Say };
    }

    /// <summary>The first events, and what the host is told before the work begins.</summary>
    private void Begin()
    {
        if (start.Checkpoint == null) BeginAnew();
        else GoOn();
        _log.Write(RunEvents.Memory("loaded", engine));
        host.Say(PlanTable.Text(engine.Plan, prepared.Settings.RecomputeLayers, engine.Model.Config.NumHiddenLayers));
        foreach (string note in prepared.Notes)
        {
            _log.Write(new NoticeEvent(trainer.State.Step, note));
            host.Say("note: " + note);
        }
        host.Say(
            RunEvents.Describe(
                recipe, TrainRun.ModelName(model), engine, trainer, _rows, prepared.Batching)
        );
    }

    private void BeginAnew()
    {
        if (start.Log.Steps > 0)
            host.Say(
                $"no checkpoint had been written when the run ended: it begins anew; the log of its {start.Log.Steps} "
                    + $"steps is kept in {folder.CutEvents}"
            );
        _log.Write(RunEvents.Start(manifest, File.ReadAllText(folder.Recipe), engine, trainer, _rows, _o));
    }

    private void GoOn()
    {
        int step = trainer.State.Step;
        var changed = RunChecks.Changes(start.Before, manifest with { Headroom = Product.Version });
        _log.Write(new ResumedEvent(step, trainer.TotalSteps, Before, changed, host.Command));
        foreach (var c in changed) host.Say($"changed since the run was started: {c.Key} is {c.New}, was {c.Old}");
        if (start.Before is { } before && trainer.TotalSteps > before.TotalSteps)
            host.Say(
                $"the run is made longer, from {before.TotalSteps} to {trainer.TotalSteps} updates: from step "
                    + $"{step + 1} on the learning rate is that of a run of {trainer.TotalSteps}"
            );
    }

    private TrainerHooks Hooks() => new()
    {
        OnStep = OnStep,
        Evaluate = _rows.Validation.Count == 0 || _o.EvalStrategy == IntervalStrategy.No ? null : Validate,
        // Written at once, so that a later crash leaves the best adapter so far; a resumed run meets the same
        // evaluation and writes the same.
        OnBest = SaveBest,
        BeforeCheckpoint = () => _log.Sync(),
        OnCheckpointFailed = CheckpointFailed,
        OnWarning = (step, text) =>
        {
            _log.Write(new NoticeEvent(step, text));
            host.Say($"WARNING: step {step}: {text}");
        },
        OnCheckpoint = (step, path) =>
        {
            _log.Write(new CheckpointEvent(step, Path.GetRelativePath(host.Folder, path)));
            _last = _clock.Elapsed.TotalSeconds;
        },
    };

    private void CheckpointFailed(int step, string why)
    {
        _log.Write(new CheckpointFailedEvent(step, why));
        host.Say(
            $"WARNING: step {step}: {why} The run goes on without it. Free some space, or a kill costs what was "
                + $"learned since "
            + $"{Checkpoints.Latest(folder.Checkpoints) ?? "the start"}.");
    }

    private void OnStep(StepResult s)
    {
        double now = _clock.Elapsed.TotalSeconds, seconds = now - _last;
        _last = now;
        _tokens += s.Tokens;
        _logged += s.Loss;
        _trainSeconds += seconds;
        _log.Write(RunEvents.Step(s, seconds, trainer.StepsPerEpoch));
        if ((engine.Device as IReplaysSteps)?.Notice is { } said && said != _notice)
        {
            _log.Write(new NoticeEvent(s.Step, said));
            host.Say(_notice = said);
        }
        if (now >= _nextMemory)
        {
            _log.Write(RunEvents.Memory("training", engine, s.Step));
            _nextMemory = now + MemorySeconds;
        }
        if (_o.LoggingSteps > 0 && s.Step % _o.LoggingSteps == 0)
        {
            host.Say(
                $"step {s.Step}: loss {_logged / _o.LoggingSteps:F4}, grad norm {s.GradNorm:F3}, lr {s.LearningRate:G3}"
            );
            _logged = 0;
        }
        host.Progress(
            "training", s.Step, trainer.TotalSteps,
            $"loss {s.Loss:F4}, grad norm {s.GradNorm:F3}, lr {s.LearningRate:G3}, {_tokens / _trainSeconds:F0} "
                + $"tokens/s"
        );
    }

    private (double Metric, bool GreaterIsBetter) Validate(int step)
    {
        double at = _clock.Elapsed.TotalSeconds;
        Evaluation e;
        try
        {
            e = Evaluate("validation", _rows.Validation);
        }
        catch (NotFiniteException why)
        {
            _log.Write(new EvalFailedEvent(step, "validation", why.Message));
            host.Say($"WARNING: step {step}: {why.Message} It is no candidate for the best.");
            _notFinite = why;
            return (double.NaN, true);
        }
        _log.Write(new EvalEvent(_clock.Elapsed.TotalSeconds - at, step, "validation").With(e, rows: false));
        string shown = e.Text(_rows.Task.Type.Shown);
        host.Say(
            $"step {step}: validation loss {e.Value(MetricKind.Loss.Name):F4}{(shown.Length > 0 ? ", " + shown : "")}");
        _last = _clock.Elapsed.TotalSeconds;
        var best = e[_rows.Task.Type.BestOf(_o)];
        return (best.Value, best.Direction == Direction.Higher);
    }

    private Evaluation Test(string stage, string progress)
    {
        double at = _clock.Elapsed.TotalSeconds;
        var e = Evaluate(progress, _rows.Test);
        _log.Write(new TestEvent(_clock.Elapsed.TotalSeconds - at, stage).With(e, rows: true));
        string shown = e.Text(_rows.Task.Type.Shown);
        host.Say($"{stage}: {(shown.Length > 0 ? shown : e[MetricKind.Loss.Name])} on {_rows.Test.Count} test rows");
        return e;
    }

    private Evaluation Evaluate(string what, EncodedRows rows) =>
        _rows.Task.Evaluate(engine, rows, new(_o.PerDeviceEvalBatchSize, prepared.Limits.EvalTokens, Progress: (d, n) =>
    {
        stop.ThrowIfCancellationRequested();
        host.Progress(what, d, n, "");
    }, LabelSmoothing: engine.Settings.LabelSmoothing));

    // At the end of training the engine holds the adapter that best/ does. Where no evaluation gave numbers, none is
    // the best.
    private void KeepBest()
    {
        var state = trainer.State;
        if (_o.LoadBestModelAtEnd && state.BestMetric == null && _notFinite != null) throw _notFinite;
        if (!_o.LoadBestModelAtEnd || state.BestMetric == null) SaveBest(state.Step);
        else if (state.BestStep != state.Step) engine.LoadAdapter(PeftAdapter.Load(folder.Best));
    }

    private void SaveBest(int step) =>
        folder.SaveBest(step, to => engine.Adapter(model.BaseName(), manifest.BaseHash).Save(to), _log);

    private void End(string hash)
    {
        // Over all steps of the log, those before a resume too.
        var steps = EventLog.Read(folder.Events).OfType<StepEvent>().ToList();
        long tokens = steps.Sum(e => e.Tokens ?? 0);
        double seconds = steps.Sum(e => e.Seconds ?? 0);
        _log.Write(new RunEndEvent
        {
            Completed = true,
            StoppedEarly = trainer.StoppedEarly ? true : null,
            Steps = trainer.State.Step,
            Seconds = Before + _clock.Elapsed.TotalSeconds,
            TrainSeconds = seconds,
            Tokens = tokens,
            LabelTokens = steps.Sum(e => e.LabelTokens ?? 0),
            TokensPerSecond = seconds > 0 ? tokens / seconds : null,
            AdapterSha256 = hash,
            BestStep = trainer.State.BestStep,
        });
        _log.Sync();
    }

    private RunResult Stopped()
    {
        _log.Write(new StoppedEvent(trainer.State.Step));
        return Result(false, "");
    }

    private RunResult Result(bool completed, string hash)
    {
        var type = _rows.Task.Type;
        var logged = start.Checkpoint == null ? null : start.Log.Tests.GetValueOrDefault(TestEvent.ZeroShot);
        return new(completed, trainer.State.Step, hash)
        {
            ZeroShot = _zero,
            Tuned = _tuned,
            Test = _rows.Data,
            ZeroShotMetrics = _zero?.Metrics ?? RunResult.Logged(type, logged),
            TunedMetrics = _tuned?.Metrics ?? [],
        };
    }
}
