using Headroom.Core;
using Headroom.Inference;
using Headroom.Training.Data;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks;

namespace Headroom.Training.Loop;

/// <summary>What one optimizer step gave.</summary>
/// <param name="Step">Number of this update, from 1.</param>
/// <param name="Loss">Sum of weighted token losses / sum of the weights of the window; every weight is 1 unless a task
/// says otherwise.</param>
/// <param name="GradNorm">L2 norm before clipping.</param>
/// <param name="LearningRate">Learning rate used.</param>
/// <param name="Tokens">Tokens computed.</param>
/// <param name="LabelTokens">Tokens the loss counts.</param>
/// <param name="Skipped">True when the gradient was not finite and the update was left out.</param>
/// <param name="LossScale">fp16: factor that the loss of this step was scaled by.</param>
internal readonly record struct StepResult(
    int Step, double Loss, double GradNorm, double LearningRate, long Tokens, long LabelTokens, bool Skipped,
    double? LossScale = null);

/// <summary>What a trainer does beside stepping.</summary>
internal sealed class TrainerHooks
{
    /// <summary>After each update.</summary>
    public Action<StepResult>? OnStep { get; init; }
    /// <summary>
    /// Evaluates; returns the metric for the best model and whether greater is better. Null = no evaluation.
    /// </summary>
    public Func<int, (double Metric, bool GreaterIsBetter)>? Evaluate { get; init; }
    /// <summary>After an evaluation that is strictly better than all before it.</summary>
    public Action<int>? OnBest { get; init; }
    /// <summary>After a checkpoint was written.</summary>
    public Action<int, string>? OnCheckpoint { get; init; }
    /// <summary>Before a checkpoint is written; when it throws for a fault of the disk, there is none.</summary>
    public Action? BeforeCheckpoint { get; init; }
    /// <summary>
    /// After a checkpoint that the disk did not take: the step, and what is wrong. The run goes on without it.
    /// </summary>
    public Action<int, string>? OnCheckpointFailed { get; init; }
    /// <summary>Something that the user must know and the run goes on with: the step, and a sentence.</summary>
    public Action<int, string>? OnWarning { get; init; }
}

/// <summary>
/// The training loop: windows of micro-batches, token-weighted loss, clipping, AdamW, schedule, evaluation and
/// checkpoints, in the order of transformers' Trainer (<c>trainer.py</c>): update -> log -> evaluate -> save.
/// </summary>
internal sealed class Trainer
{
    private const int MaxBadSteps = 3; // a single overflow may pass; three in a row do not heal
    private readonly Engine _engine;
    private readonly IObjective? _objective;
    private readonly TrainingOptions _o;
    private readonly IRowSource _rows;
    private readonly int _maxRowTokens;
    private readonly ScheduleArguments _schedule;
    // the last step whose weights are known to give finite numbers: a loss or an evaluation after it was finite
    private int _sound;

    /// <summary>Sets up steps, weight decay and the rates of parameters; nothing runs yet.</summary>
    /// <param name="engine">Loaded.</param>
    /// <param name="options">Of the recipe.</param>
    /// <param name="rows">Training rows.</param>
    /// <param name="maxRowTokens">Tokens of the longest.</param>
    /// <param name="objective">The loss, prepared; null: the weighted mean of token losses.</param>
    public Trainer(
        Engine engine, TrainingOptions options, IRowSource rows, int maxRowTokens, IObjective? objective = null)
    {
        _objective = objective;
        if (rows.Count == 0)
            throw new HeadroomException("There are no training rows.", "Check data.train and max_train_rows.");
        _engine = engine;
        _o = options;
        _rows = rows;
        _maxRowTokens = maxRowTokens;
        var batching = new Batching(rows, options, maxRowTokens);
        TotalSteps = batching.TotalSteps;
        StepsPerEpoch = batching.StepsPerEpoch;
        WarmupSteps = Schedules.WarmupSteps(options.WarmupSteps, options.WarmupRatio, TotalSteps);
        _schedule = Schedules.Arguments(options);
        engine.SetWeightDecay((float)options.WeightDecay);
        engine.SetLoraPlus(options.LoraplusLrRatio);
    }

    /// <summary>All updates of the run.</summary>
    public int TotalSteps { get; }
    /// <summary>Updates an epoch.</summary>
    public int StepsPerEpoch { get; }
    /// <summary>Warm-up updates.</summary>
    public int WarmupSteps { get; }
    /// <summary>Where the run stands.</summary>
    public TrainerState State { get; set; } = new(0, 0, null, 0, "", "");

    /// <summary>
    /// Runs from <see cref="State"/> to the end, or until <paramref name="stop"/> (then a full checkpoint is written
    /// after the update at hand;
    /// <see cref="TrainerHooks.Evaluate"/> may throw <see cref="OperationCanceledException"/>). Returns true when it
    /// reached the end.
    /// </summary>
    /// <remarks>
    /// An update is bad when loss or gradient is NaN or infinite (it is left out then) and backing off the loss scale
    /// does not mend that. While the last update was bad, or its evaluation gave no numbers, nothing is saved. A
    /// checkpoint is called good when a loss or an evaluation of its weights was finite; the newest such one is never
    /// deleted. After the last update one micro-batch is computed once more, since no loss follows it. A checkpoint
    /// that the disk does not take is left out, and said, unless it is the last one.
    /// </remarks>
    /// <exception cref="HeadroomException">Exit code 1: the loss stays NaN or infinite, or is so at the last update; no
    /// update was made at all; the last checkpoint cannot be written.</exception>
    public bool Run(TrainerHooks hooks, string? checkpointRoot, string? baseModel, CancellationToken stop = default)
    {
        using var feed = new BatchFeed(_rows, _o, _maxRowTokens, State.Step, TotalSteps);
        int bad = 0, saved = State.Step;
        // A checkpoint is saved after a finite loss, which is of the weights before its update, and where an
        // evaluation was due, after that gave numbers.
        bool evaluated = hooks.Evaluate != null && !State.EvaluationDue && Due(_o.EvalStrategy, _o.EvalSteps);
        _sound = evaluated ? State.Step : Math.Max(0, State.Step - 1);
        if (State.EvaluationDue)
        {
            Evaluate(hooks, stop);
            if (stop.IsCancellationRequested) return Finished;
        }
        while (State.Step < TotalSteps && !StoppedEarly)
        {
            var window = feed.Next();
            var result = Step(window);
            hooks.OnStep?.Invoke(result);
            if (double.IsFinite(result.Loss)) _sound = result.Step - 1;
            // Loss scaling backs off when only the gradients overflow; a loss that is not finite it cannot mend.
            bool mendable = State.LossScale is { Exhausted: false } && double.IsFinite(result.Loss);
            bad = result.Skipped && !mendable ? bad + 1 : 0;
            if (bad >= MaxBadSteps || bad > 0 && State.Step == TotalSteps)
                throw NotFinite(checkpointRoot, result.Step, bad);
            if (State.Step == TotalSteps && !result.Skipped && !GivesFiniteLoss(window[0]))
                throw NotFinite(checkpointRoot, result.Step, 0);
            feed.Recycle(window);
            bool finite = !Due(_o.EvalStrategy, _o.EvalSteps) || Evaluate(hooks, stop);
            bool end = State.Step == TotalSteps || StoppedEarly || stop.IsCancellationRequested;
            bool due =
                Due(_o.SaveStrategy, _o.SaveSteps)
                || end && _o.SaveStrategy != IntervalStrategy.No
                || stop.IsCancellationRequested;
            if (
                checkpointRoot != null
                && due
                && bad == 0
                && finite
                && saved != State.Step
                && Save(hooks, checkpointRoot, baseModel, end)
            )
                saved = State.Step;
            if (stop.IsCancellationRequested) return Finished;
        }
        if (State.SkippedSteps >= TotalSteps) throw NothingLearned();
        return true;
    }

    /// <summary>
    /// Writes a checkpoint and deletes what is beyond the limit. False when the disk did not take it;
    /// <paramref name="last"/>: that is an error then.
    /// </summary>
    private bool Save(TrainerHooks hooks, string root, string? baseModel, bool last)
    {
        string written;
        try
        {
            hooks.BeforeCheckpoint?.Invoke();
            written = Checkpoints.Save(root, _engine, baseModel, State);
        }
        catch (HeadroomException e) when (DiskFault.Find(e) != null)
        {
            if (DiskFault.IsFull(e) && Freed(root)) return Save(hooks, root, baseModel, last);
            if (last) throw;
            hooks.OnCheckpointFailed?.Invoke(State.Step, e.Message);
            return false;
        }
        hooks.OnCheckpoint?.Invoke(State.Step, written);
        try
        {
            Checkpoints.Prune(root, _o.SaveTotalLimit, State.BestStep, _sound);
        }
        catch (Exception e) when (DiskFault.Find(e) is { } fault)
        {
            hooks.OnWarning?.Invoke(
                State.Step, $"Checkpoints beyond save_total_limit cannot be deleted: {fault.Message}");
        }
        return true;
    }

    // A full disk: what the next save would delete anyway goes before it. The newest and the best stay.
    private bool Freed(string root)
    {
        if (_o.SaveTotalLimit <= 0) return false;
        int before = Checkpoints.All(root).Count;
        try
        {
            Checkpoints.Prune(root, Math.Max(1, _o.SaveTotalLimit - 1), State.BestStep, _sound);
        }
        catch (Exception e) when (DiskFault.Find(e) != null)
        {
        }
        return Checkpoints.All(root).Count < before;
    }

    /// <summary>One update over a window; moves <see cref="State"/>.</summary>
    public StepResult Step(Window window)
    {
        double sum = 0;
        long micro = State.MicroSteps;
        LossScale? scaler = _engine.Settings.ComputeType == DType.F16 ? State.LossScale ?? LossScale.Start : null;
        double lossScale = scaler?.Scale ?? 1;
        // An objective is a mean over rows, the mean of token losses one over their weights.
        double weights = _objective != null ? window.Rows : window.LabelWeight > 0 ? window.LabelWeight : 1;
        for (int i = 0; i < window.Count; i++, micro++)
        {
            var dropout = new Dropout(_engine.Settings.Lora?.LoraDropout ?? 0, (ulong)(uint)_o.Seed, (uint)micro, 0);
            float scale = (float)(lossScale / weights);
            if (_objective == null) sum += _engine.MicroStep(window[i].Host, dropout, scale);
            else
            {
                var batch = window[i];
                double ofRows = 0;
                _engine.MicroStep(
                    batch.Host, dropout, scale, (losses, w) => ofRows = _objective.Weigh(batch, losses, w));
                sum += ofRows;
            }
        }
        int step = State.Step, updates = step - State.SkippedSteps;
        double lr =
            _o.LearningRate
            * Schedules.Factor(_o.LrSchedulerType, updates, WarmupSteps, TotalSteps, _o.LearningRate, _schedule);
        double norm = _engine.GradientNorm() / lossScale;
        double loss = sum / weights;
        bool skip = !double.IsFinite(norm) || !double.IsFinite(loss);
        if (skip) _engine.ZeroGradients();
        else
        {
            double clip = _o.MaxGradNorm > 0 ? Math.Min(1, _o.MaxGradNorm / (norm + 1e-6)) : 1;
            _engine.Update(
                new AdamWStep(lr, _o.AdamBeta1, _o.AdamBeta2, _o.AdamEpsilon, updates + 1, (float)(clip / lossScale)));
        }
        State = State with
        {
            Step = step + 1,
            MicroSteps = micro,
            SkippedSteps = State.SkippedSteps + (skip ? 1 : 0),
            LossScale = scaler?.After(!skip),
        };
        return new StepResult(step + 1, loss, norm, lr, window.Tokens, window.LabelCount, skip, scaler?.Scale);
    }

    private bool Finished => (State.Step == TotalSteps || StoppedEarly) && !State.EvaluationDue;

    /// <summary>
    /// As many evaluations in a row as early_stopping_patience brought nothing better; the run is at its end.
    /// </summary>
    public bool StoppedEarly =>
        _o.EarlyStoppingPatience > 0 && State.EarlyStoppingCounter >= _o.EarlyStoppingPatience;

    // transformers trainer_callback.py, EarlyStoppingCallback: better than the best so far by more than the threshold.
    private void Count(double metric, bool greaterIsBetter)
    {
        bool better = State.BestMetric is not { } best
            || (greaterIsBetter ? metric > best : metric < best)
                && Math.Abs(metric - best) > _o.EarlyStoppingThreshold;
        State = State with { EarlyStoppingCounter = better ? 0 : State.EarlyStoppingCounter + 1 };
    }

    // An evaluation that a stop cuts off is noted in the checkpoint and made up for after the resume: which model is
    // the best must not depend on where a run was stopped. False when it gave no numbers.
    private bool Evaluate(TrainerHooks hooks, CancellationToken stop)
    {
        State = State with { EvaluationDue = false };
        if (hooks.Evaluate == null) return true;
        try
        {
            var (metric, greaterIsBetter) = hooks.Evaluate(State.Step);
            if (!double.IsFinite(metric)) return false;
            _sound = State.Step;
            Count(metric, greaterIsBetter);
            // transformers trainer.py: only a strictly better value replaces the best.
            if (State.BestMetric is { } best && !(greaterIsBetter ? metric > best : metric < best)) return true;
            State = State with { BestMetric = metric, BestStep = State.Step };
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            State = State with { EvaluationDue = true };
            return true;
        }
        hooks.OnBest?.Invoke(State.Step);
        return true;
    }

    // The weights after the last update: its gradients are thrown away.
    private bool GivesFiniteLoss(MicroBatch batch)
    {
        double loss = _engine.MicroStep(
            batch.Host,
            new Dropout(_engine.Settings.Lora?.LoraDropout ?? 0, (ulong)(uint)_o.Seed, (uint)State.MicroSteps, 0), 1);
        _engine.ZeroGradients();
        return double.IsFinite(loss);
    }

    private bool Due(IntervalStrategy strategy, int every) => strategy switch
    {
        IntervalStrategy.Steps => State.Step % Math.Max(1, every) == 0,
        IntervalStrategy.Epoch => State.Step % StepsPerEpoch == 0 || State.Step == TotalSteps,
        _ => false,
    };

    // bad = 0: the weights after the last update give no finite loss, though that before it was one.
    private HeadroomException NotFinite(string? root, int step, int bad)
    {
        string? last = root == null ? null : Checkpoints.All(root).LastOrDefault(c => c.Step <= _sound).Path;
        string updates =
            bad > 1 ? $"for the last {bad} updates (steps {step - bad + 1} to {step})"
            : bad == 1 ? $"at the last update (step {step})"
            : $"after the last update (step {step})";
        return new HeadroomException($"The loss or gradient was NaN or infinite {updates}.",
            (last == null ? "No checkpoint from before is known to be good; " : $"The last good checkpoint is {last}; ")
                + "lower the learning rate (a recipe can lower max_grad_norm too).",
            1
        );
    }

    private HeadroomException NothingLearned() =>
        new(
            $"Not one of {TotalSteps} updates was made: every gradient overflowed while the loss scale was backing "
                + $"off.",
            "Give the run more steps, or set training.precision to bf16 or fp32.",
            1
        );
}
