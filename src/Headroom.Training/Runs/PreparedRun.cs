using Headroom.Core;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Planning;
using Headroom.Training.Data;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;

namespace Headroom.Training.Runs;

/// <summary>
/// Everything of a run that is known before a weight is read: rows, token ids, the largest batches, settings and the
/// plan. <c>headroom plan</c> stops here,
/// <c>headroom train</c> goes on, so both speak of the same bytes.
/// </summary>
internal sealed class PreparedRun : IDisposable
{
    private PreparedRun() { }

    /// <summary>Rows, tokenizer and token ids.</summary>
    public required RunRows Rows { get; init; }
    /// <summary>The base model, opened and not yet read.</summary>
    public required OpenModel Model { get; init; }
    /// <summary>Its base.</summary>
    public IWeightSource Source => Model.Source;
    /// <summary>Where the run takes place; the engine that is made on it owns it.</summary>
    public required IDevice Device { get; init; }
    /// <summary>Encoded training rows.</summary>
    public EncodedRows Train => Rows.Train;
    /// <summary>Longest row, tokens.</summary>
    public int Longest => Rows.Longest;
    /// <summary>How training rows make micro-batches.</summary>
    public required Batching Batching { get; init; }
    /// <summary>The model planned: what the run's engine is made of.</summary>
    public required PlannedModel Planned { get; init; }
    /// <summary>The largest batches.</summary>
    public BatchLimits Limits => Planned.Limits;
    /// <summary>Storage, adapters, precision and recompute.</summary>
    public ModelSettings Settings => Planned.Settings;
    /// <summary>The plan that a run reserves.</summary>
    public MemoryPlan Plan => Planned.Plan;
    /// <summary>
    /// What is odd about the run but no error, a sentence or two each; to be said before step 1: how base and tokenizer
    /// were read where their files were not clear, where the device takes a slower way, and what <see cref="RunNotes"/>
    /// finds.
    /// </summary>
    public required IReadOnlyList<string> Notes { get; init; }

    /// <summary>
    /// Reads and encodes the rows, opens the device and plans. Throws <see cref="HeadroomException"/> for whatever is
    /// wrong with recipe, data, tokenizer or model, or when nothing fits the budget.
    /// </summary>
    /// <param name="recipe">The recipe.</param>
    /// <param name="model">Its base.</param>
    /// <param name="openDevice">Opens the device.</param>
    /// <param name="budgetBytes">Memory the plan may take, of what the device has free; null = all of that.</param>
    /// <param name="progress">What is being done, done and total of it.</param>
    /// <param name="hash">Begin with the base's hash at once, beside the tokenizing: a run needs it, and it may take
    /// longer than the weights.</param>
    /// <param name="rows">The rows, when they were read before.</param>
    /// <param name="say">Is told of a quantized copy that cannot be used.</param>
    public static PreparedRun Prepare(
        Recipe recipe,
        ModelOptions model,
        Func<IDevice> openDevice,
        long? budgetBytes,
        Action<string, long, long, string> progress,
        bool hash = false,
        RunRows? rows = null,
        Action<string>? say = null)
    {
        rows ??= RunRows.Read(recipe, model);
        var opened = OpenModel.Open(rows.Base, say);
        var source = opened.Source;
        IDevice? device = null;
        try
        {
            if (hash) source.BeginHash();
            CheckVocabulary(rows, source.Config);
            progress("tokenizing", 0, rows.Data.Train.Count, "");
            CheckRecipe(recipe, rows, source.Config);
            var batching = new Batching(rows.Train, recipe.Training, rows.Longest);
            var limits = LargestBatches(recipe.Training, rows, batching);
            device = openDevice();
            var settings = RunSettings.Choose(recipe, source, device);
            long? expanded = recipe.Training.ExpandedWeights switch
            {
                "auto" => budgetBytes == null ? 0 : null,
                "none" => 0,
                var size => Units.Parse(size),
            };
            // Without a budget the card's free memory is one, of which nothing is taken that the step does not need.
            var (budget, words) = Budget.Resolve(budgetBytes, device);
            var planned = Budget.Fit(
                source.Config, settings, limits, device.WorkspaceBytes, budget, device, expanded, words,
                leastLength: rows.Task.LeastLength, longest: batching.MostTokens > 0 ? rows.Longest : 0);
            return new PreparedRun
            {
                Rows = rows,
                Model = opened,
                Device = device,
                Batching = batching,
                Planned = planned,
                Notes =
                [
                    .. opened.Notices,
                    .. Slower(device, source.Config, planned.Settings),
                    .. RunNotes.Find(recipe, rows, batching, source.Config),
                ],
            };
        }
        catch
        {
            device?.Dispose();
            opened.Dispose();
            throw;
        }
    }

    private static void CheckVocabulary(RunRows rows, ModelConfig config)
    {
        if (rows.Tokenizer.VocabSize > config.VocabSize)
            throw new HeadroomException(
                $"The tokenizer has {rows.Tokenizer.VocabSize} ids, the model only {config.VocabSize}.",
                "Give the tokenizer that belongs to the model.");
    }

    private static void CheckRecipe(Recipe recipe, RunRows rows, ModelConfig config)
    {
        config.CheckLength(rows.LongestSequence + rows.Task.AnswerTokens);
        config.CheckRank(recipe.Lora.R, "lora.r is");
        foreach (var (pattern, rank) in recipe.Lora.RankPattern)
            config.CheckRank(rank, $"lora.rank_pattern gives {pattern} the rank");
        CheckPatterns(recipe.Lora, config);
        if (recipe.Training.EvalStrategy is not IntervalStrategy.No and var strategy && rows.Data.Validation.Count == 0)
            throw new HeadroomException(
                $"training.eval_strategy is {strategy.Word()}, but there are no validation rows.",
                "Set data.validation or data.validation_fraction, or eval_strategy to no.");
    }

    // No batch holds more rows than there are.
    private static BatchLimits LargestBatches(TrainingOptions o, RunRows rows, Batching batching)
    {
        int others = Math.Max(rows.Validation.Count, rows.Test.Count),
            trainRows = batching.MostRows,
            each = rows.Train.SequencesOfRow,
            evalRows = Math.Min(o.PerDeviceEvalBatchSize, Math.Max(1, others));
        int trainTokens = batching.MostTokens > 0 ? batching.MostTokens : BatchTokens(
                trainRows, rows.Longest, "training.per_device_train_batch_size, or task.max_seq_length"),
            evalTokens = others == 0 && rows.Task.Objective == null
                ? 0
                : BatchTokens(evalRows, rows.Longest, "training.per_device_eval_batch_size, or task.max_seq_length");
        return new BatchLimits(
            trainTokens, batching.MostSequences,
            Math.Min(trainTokens, trainRows * rows.Task.MostLabels(rows.Longest)), evalTokens,
            evalRows * each, Math.Max(1, rows.Task.Candidates),
            GenerateTokens: others > 0 && rows.Task.AnswerTokens > 0 ? rows.Longest + rows.Task.AnswerTokens : 0,
            LabelWeights: rows.Task.WeighsLabels);
    }

    private static string[] Slower(IDevice device, ModelConfig config, ModelSettings settings) =>
        (device as IDeviceLimits)?.AttentionNotice(config.HeadDim, settings.ComputeType) is { } slower ? [slower] : [];

    // A pattern that no adapted module answers to is a slip of the pen: the run would go on without it. (PEFT takes it,
    // so an adapter that was made elsewhere may hold one.)
    internal static void CheckPatterns(LoraConfig lora, ModelConfig config)
    {
        string[] adapted = [.. config.ProjectionPaths().Where(lora.Adapts)];
        if (adapted.Length == 0) return; // the model refuses target_modules that match nothing
        foreach (var (name, key) in lora.Unmatched(adapted))
            throw new HeadroomException(
                $"lora.{name}: '{key}' matches no module that is adapted.",
                "Give the end of a module's path, such as q_proj or layers.0.mlp.up_proj, or a regex for it; "
                    + "target_modules must name the module too."
            );
    }

    /// <summary>
    /// Tokens of the largest batch; refuses one that no device holds before a number of it overflows.
    /// <paramref name="smaller"/>: what makes it smaller.
    /// </summary>
    public static int BatchTokens(int rows, int longest, string smaller) =>
        (long)rows * longest is var tokens && tokens <= 1 << 24
            ? (int)tokens
            : throw new HeadroomException(
                $"A batch of {rows} rows of {longest} tokens is too large.", $"Set a smaller {smaller}.");

    /// <summary>Closes the weights. The device belongs to whoever made an engine on it.</summary>
    public void Dispose() => Model.Dispose();
}
