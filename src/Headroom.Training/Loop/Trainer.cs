using System.Diagnostics;
using System.Text.Json.Nodes;
using Headroom.Core;

namespace Headroom.Training;

/// <summary>What one optimizer step gave.</summary>
/// <param name="Step">Number of this update, from 1.</param>
/// <param name="Loss">Sum of token losses / labelled tokens of the window.</param>
/// <param name="GradNorm">L2 norm before clipping.</param>
/// <param name="LearningRate">Learning rate used.</param>
/// <param name="Tokens">Tokens computed.</param>
/// <param name="LabelTokens">Tokens the loss counts.</param>
/// <param name="Skipped">True when the gradient was not finite and the update was left out.</param>
/// <param name="LossScale">fp16: factor that the loss of this step was scaled by.</param>
public readonly record struct StepResult(int Step, double Loss, double GradNorm, double LearningRate, long Tokens, long LabelTokens, bool Skipped, double? LossScale = null);

/// <summary>What a trainer does beside stepping.</summary>
public sealed class TrainerHooks
{
    /// <summary>After each update.</summary>
    public Action<StepResult>? OnStep { get; init; }
    /// <summary>Evaluates; returns the metric for the best model and whether greater is better. Null = no evaluation.</summary>
    public Func<int, (double Metric, bool GreaterIsBetter)>? Evaluate { get; init; }
    /// <summary>After an evaluation that is strictly better than all before it.</summary>
    public Action<int>? OnBest { get; init; }
    /// <summary>After a checkpoint was written.</summary>
    public Action<int, string>? OnCheckpoint { get; init; }
}

/// <summary>
/// The training loop: windows of micro-batches, token-weighted loss, clipping, AdamW, schedule, evaluation and checkpoints, in the order of
/// transformers' Trainer (<c>trainer.py</c>): update -> log -> evaluate -> save.
/// </summary>
public sealed class Trainer
{
    private const int MaxBadSteps = 3; // a single overflow may pass; three in a row do not heal
    private readonly Engine _engine;
    private readonly TrainingOptions _o;
    private readonly IRowSource _rows;
    private readonly int _maxRowTokens;
    private readonly ScheduleArguments _schedule;

    /// <summary>Sets up steps and weight decay; nothing runs yet.</summary>
    public Trainer(Engine engine, TrainingOptions options, IRowSource rows, int maxRowTokens)
    {
        if (rows.Count == 0) throw new HeadroomException("There are no training rows.", "Check data.train and max_train_rows.");
        _engine = engine;
        _o = options;
        _rows = rows;
        _maxRowTokens = maxRowTokens;
        TotalSteps = BatchFeed.TotalSteps(rows.Count, options);
        StepsPerEpoch = BatchFeed.StepsPerEpoch(rows.Count, options);
        WarmupSteps = Schedules.WarmupSteps(options.WarmupSteps, options.WarmupRatio, TotalSteps);
        _schedule = Schedules.Arguments(options);
        engine.SetWeightDecay((float)options.WeightDecay);
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
    /// Runs from <see cref="State"/> to the end, or until <paramref name="stop"/> (then a full checkpoint is written after the update at hand;
    /// <see cref="TrainerHooks.Evaluate"/> may throw <see cref="OperationCanceledException"/>). Returns true when it reached the end. Throws <see cref="HeadroomException"/> (exit code 1) when the loss stays NaN or infinite.
    /// </summary>
    public bool Run(TrainerHooks hooks, string? checkpointRoot, string? baseModel, CancellationToken stop = default)
    {
        using var feed = new BatchFeed(_rows, _o, _maxRowTokens, State.Step, TotalSteps);
        int bad = 0, saved = State.Step;
        if (State.EvaluationDue)
        {
            Evaluate(hooks, stop);
            if (stop.IsCancellationRequested) return Finished;
        }
        while (State.Step < TotalSteps)
        {
            var window = feed.Next();
            var result = Step(window);
            feed.Recycle(window);
            hooks.OnStep?.Invoke(result);
            // Loss scaling backs off when only the gradients overflow; a loss that is not finite it cannot mend.
            bool mendable = State.LossScale is { Exhausted: false } && double.IsFinite(result.Loss);
            bad = result.Skipped && !mendable ? bad + 1 : 0;
            if (bad >= MaxBadSteps) throw NotFinite(checkpointRoot, result.Step);
            if (Due(_o.EvalStrategy, _o.EvalSteps)) Evaluate(hooks, stop);
            bool end = State.Step == TotalSteps || stop.IsCancellationRequested;
            if (checkpointRoot != null && (Due(_o.SaveStrategy, _o.SaveSteps) || end && _o.SaveStrategy != "no" || stop.IsCancellationRequested) && saved != State.Step)
            {
                saved = State.Step;
                string written = Checkpoints.Save(checkpointRoot, _engine, baseModel, State); // not in the call: without a hook its arguments would not be evaluated
                hooks.OnCheckpoint?.Invoke(State.Step, written);
                Checkpoints.Prune(checkpointRoot, _o.SaveTotalLimit, State.BestStep);
            }
            if (stop.IsCancellationRequested) return Finished;
        }
        return true;
    }

    /// <summary>One update over a window; moves <see cref="State"/>.</summary>
    public StepResult Step(Window window)
    {
        double sum = 0;
        long micro = State.MicroSteps;
        LossScale? scaler = _engine.Settings.ComputeType == DType.F16 ? State.LossScale ?? LossScale.Start : null;
        double lossScale = scaler?.Scale ?? 1;
        float scale = (float)(lossScale / Math.Max(1, window.LabelCount));
        for (int i = 0; i < window.Count; i++)
        {
            var dropout = new Dropout(_engine.Settings.Lora?.DropoutP ?? 0, (ulong)(uint)_o.Seed, (uint)micro, 0);
            sum += _engine.MicroStep(window[i].Host, dropout, scale);
            micro++;
        }
        int step = State.Step, updates = step - State.SkippedSteps;
        double lr = _o.LearningRate * Schedules.Factor(_o.LrSchedulerType, updates, WarmupSteps, TotalSteps, _o.LearningRate, _schedule);
        double norm = _engine.GradientNorm() / lossScale;
        double loss = sum / Math.Max(1, window.LabelCount);
        bool skip = !double.IsFinite(norm) || !double.IsFinite(loss);
        if (skip) _engine.ZeroGradients();
        else
        {
            double clip = _o.MaxGradNorm > 0 ? Math.Min(1, _o.MaxGradNorm / (norm + 1e-6)) : 1;
            _engine.Update(new AdamWStep(lr, _o.AdamBeta1, _o.AdamBeta2, _o.AdamEpsilon, updates + 1, (float)(clip / lossScale)));
        }
        State = State with { Step = step + 1, MicroSteps = micro, SkippedSteps = State.SkippedSteps + (skip ? 1 : 0), LossScale = scaler?.After(!skip) };
        return new StepResult(step + 1, loss, norm, lr, window.Tokens, window.LabelCount, skip, scaler?.Scale);
    }

    private bool Finished => State.Step == TotalSteps && !State.EvaluationDue;

    // An evaluation that a stop cuts off is noted in the checkpoint and made up for after the resume: which model is the best must not depend on where a run was stopped.
    private void Evaluate(TrainerHooks hooks, CancellationToken stop)
    {
        State = State with { EvaluationDue = false };
        if (hooks.Evaluate == null) return;
        try
        {
            var (metric, greaterIsBetter) = hooks.Evaluate(State.Step);
            // transformers trainer.py: only a strictly better value replaces the best.
            if (!double.IsFinite(metric) || (State.BestMetric is { } best && !(greaterIsBetter ? metric > best : metric < best))) return;
            State = State with { BestMetric = metric, BestStep = State.Step };
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            State = State with { EvaluationDue = true };
            return;
        }
        hooks.OnBest?.Invoke(State.Step);
    }

    private bool Due(string strategy, int every) => strategy switch
    {
        "steps" => State.Step % Math.Max(1, every) == 0,
        "epoch" => State.Step % StepsPerEpoch == 0 || State.Step == TotalSteps,
        _ => false,
    };

    private static HeadroomException NotFinite(string? root, int step)
    {
        string? last = root == null ? null : Checkpoints.Latest(root);
        return new HeadroomException($"The loss or gradient was NaN or infinite for {MaxBadSteps} updates in a row (last: step {step}).",
            (last == null ? "No checkpoint was written before; " : $"The last good checkpoint is {last}; ") + "lower the learning rate (a recipe can lower max_grad_norm too).", 1);
    }
}
