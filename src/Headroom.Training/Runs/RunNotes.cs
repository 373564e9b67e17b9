using System.Globalization;
using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Training.Data;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks;

namespace Headroom.Training.Runs;

/// <summary>
/// What is odd about a run but no error: said before its first step, by plan, train, duel and eval alike.
/// </summary>
internal static class RunNotes
{
    /// <summary>All notes of a run, a sentence or two each.</summary>
    /// <param name="recipe">The recipe.</param>
    /// <param name="rows">Its rows as the base's tokenizer encodes them.</param>
    /// <param name="batching">How they make micro-batches.</param>
    /// <param name="config">The base.</param>
    public static IReadOnlyList<string> Find(Recipe recipe, RunRows rows, Batching batching, ModelConfig config)
    {
        var data = rows.Data;
        return
        [
            .. data.Notes,
            .. rows.Task.Notes(data.Train, data.Validation, data.Test),
            .. Positions(rows.Longest, config),
            .. Updates(recipe.Training, rows.Train.Count, batching.TotalSteps),
            .. Evaluations(recipe.Training, data, batching.TotalSteps)];
    }

    /// <summary>All notes of an evaluation without a run, likewise.</summary>
    /// <param name="task">The task.</param>
    /// <param name="rows">The rows that are evaluated.</param>
    /// <param name="longest">The longest of them, tokens.</param>
    /// <param name="config">The model.</param>
    public static IReadOnlyList<string> Find(
        ITask task, IReadOnlyList<DataRow> rows, int longest, ModelConfig config) =>
        [.. task.Notes(null, rows), .. Positions(longest, config)];

    // Whether rows go beyond the positions of the base.
    private static IEnumerable<string> Positions(int longest, ModelConfig config) =>
        PlanTable.BeyondPositions($"The longest row has {longest} tokens", longest, config) is { } note ? [note] : [];

    private static IEnumerable<string> Updates(TrainingOptions o, int rows, int total)
    {
        long batch = (long)o.PerDeviceTrainBatchSize * o.GradientAccumulationSteps;
        if (batch > rows && o.TokensPerDeviceBatch == 0)
            yield return $"The effective batch of {o.PerDeviceTrainBatchSize} x {o.GradientAccumulationSteps} = "
                + $"{batch} rows is larger than the {rows} training rows: every update sees them all, once.";
        int warmup = Schedules.WarmupSteps(o.WarmupSteps, o.WarmupRatio, total);
        string updates = total == 1 ? "one update" : $"{total} updates";
        if (o.LrSchedulerType == SchedulerType.Constant && warmup > 0)
            yield return "lr_scheduler_type constant has no warm-up: the recipe's is left out (constant_with_warmup "
                + "has one).";
        else if (warmup >= total && warmup > 0)
        {
            double most = Schedules.Factor(
                o.LrSchedulerType, total - 1, warmup, total, o.LearningRate, Schedules.Arguments(o));
            yield return string.Create(
                CultureInfo.InvariantCulture,
                $"The warm-up of {warmup} is as long as the run of {updates} or longer: the learning rate ends at "
                    + $"{most:P0} of {o.LearningRate:G4} and never falls."
            );
        }
        if (o.LrSchedulerType != SchedulerType.WarmupStableDecay) yield break;
        var a = Schedules.Arguments(o);
        long stages = (long)warmup + (a.NumStableSteps ?? 0) + a.NumDecaySteps;
        if (stages > total)
            yield return $"Warm-up, stable part and decay of warmup_stable_decay are {stages} updates, the run has "
                + $"{updates}: it does not reach its end as written.";
        else if (a.NumStableSteps != null && stages < total)
            yield return $"Warm-up, stable part and decay of warmup_stable_decay are {stages} updates, the run has "
                + $"{updates}: the rest is at the smallest rate.";
    }

    private static IEnumerable<string> Evaluations(TrainingOptions o, DataSplits data, int total)
    {
        if (data.Validation.Count == 0)
        {
            if (data.Test.Count == 0)
                yield return "There are no validation rows and no test rows: nothing will be evaluated.";
            yield break;
        }
        if (o.EvalStrategy == IntervalStrategy.No)
            yield return $"The {data.Validation.Count} validation rows will not be used: training.eval_strategy is no.";
        else if (o.EvalStrategy == IntervalStrategy.Steps && o.EvalSteps > total)
            yield return $"training.eval_steps is {o.EvalSteps}, the run has {total} updates: the "
                + $"{data.Validation.Count} validation rows will not be used.";
    }
}
