using Headroom.Core;
using Headroom.Formats.Gguf;
using Headroom.Formats.Peft;
using Headroom.Inference;
using Headroom.Inference.Bases;
using Headroom.Models;
using Headroom.Training.Adapters;
using Headroom.Training.Data;
using Headroom.Training.Events;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks;

namespace Headroom.Training.Runs;

/// <summary>Where a run lives, what it may use, and who listens.</summary>
/// <param name="Folder">Run folder; must not exist unless resumed.</param>
/// <param name="Resume">Go on from the latest checkpoint.</param>
/// <param name="OpenDevice">Opens the device.</param>
/// <param name="BudgetBytes">Memory the plan may take; null = no limit.</param>
/// <param name="Say">A line for the user.</param>
/// <param name="Progress">What is being done, done and total of it, and a figure such as the loss; called
/// often.</param>
public sealed record RunHost(
    string Folder, bool Resume, Func<IDevice> OpenDevice, long? BudgetBytes, Action<string> Say,
    Action<string, long, long, string> Progress)
{
    /// <summary>
    /// Called before the run folder is written, and disposed of when the run has ended: in between a stop is obeyed by
    /// the run, which finishes its update and saves.
    /// </summary>
    public Func<IDisposable>? Hold { get; init; }
    /// <summary>
    /// The command line that the run was asked for with, for its manifest; empty where there was none.
    /// </summary>
    public IReadOnlyList<string> Command { get; init; } = [];
}

/// <summary>How a run ended.</summary>
/// <param name="Completed">False when it was stopped and can be resumed.</param>
/// <param name="Step">Updates done.</param>
/// <param name="AdapterHash">SHA-256 of the trained tensors.</param>
public sealed record RunResult(bool Completed, int Step, string AdapterHash)
{
    /// <summary>The base on the test rows, when there are any and this process scored them.</summary>
    internal Evaluation? ZeroShot { get; init; }
    /// <summary>The adapter on the test rows, likewise.</summary>
    internal Evaluation? Tuned { get; init; }
    /// <summary>The test rows; null when the run was finished before and they were not read.</summary>
    internal DataSplits? Test { get; init; }
    /// <summary>The run had reached its end before; nothing was done.</summary>
    public bool WasFinished { get; init; }
    /// <summary>
    /// Metrics of the base on the test rows, from the log when it was scored before a resume; empty where there are
    /// none.
    /// </summary>
    public IReadOnlyList<Metric> ZeroShotMetrics { get; init; } = [];
    /// <summary>Metrics of the adapter on the test rows, likewise.</summary>
    public IReadOnlyList<Metric> TunedMetrics { get; init; } = [];

    /// <summary>Metrics of a test event, of one that an older version wrote too.</summary>
    internal static IReadOnlyList<Metric> Logged(TaskType type, TestEvent? test) => test?.Read(type).Metrics ?? [];
}

/// <summary>
/// One model under one recipe, from files to a <see cref="RunFolder"/>. Everything that can be refused is refused
/// before a file of the folder is written; a run that is resumed goes on as if it had never ended, or says what
/// differs.
/// </summary>
public static class TrainRun
{
    /// <summary>Runs to the end, or to <paramref name="stop"/>.</summary>
    /// <param name="recipe">What to train.</param>
    /// <param name="recipeText">Its text as it was given; null or empty where it was built in code.</param>
    /// <param name="model">The base.</param>
    /// <param name="host">Folder, device and listeners.</param>
    /// <param name="stop">Ends the run with a checkpoint.</param>
    /// <exception cref="HeadroomException">Something cannot be used, the folder is another's, or a resume is not the
    /// run it goes on with.</exception>
    public static RunResult Run(
        Recipe recipe, string? recipeText, ModelOptions model, RunHost host, CancellationToken stop) =>
        Run(recipe, recipeText, model, host, null, stop);

    // With the rows of recipe and model, when they were read before.
    internal static RunResult Run(
        Recipe recipe, string? recipeText, ModelOptions model, RunHost host, RunRows? rows, CancellationToken stop)
    {
        TaskChoice.ByData(recipe);
        GivenAdapter.Apply(recipe);
        var folder = new RunFolder(host.Folder);
        if (host.Resume && !folder.HasRun) throw RunsBeside.None("run", host.Folder, RunsBeside.OfRecipe(recipe));
        using var held = folder.Lock(host.Say);
        if (host.Resume) Checkpoints.Restore(folder.Checkpoints);
        var start = host.Resume ? folder.Resume(recipe) : folder.Begin();
        if (start.IsFinished && !RunChecks.MayBeLonger(start.Before!, recipe))
        {
            if (rows != null) CheckFinished(folder, start.Before!, model, rows);
            return Finished(folder, start, host, recipe.Task);
        }
        using var prepared = PreparedRun.Prepare(
            recipe, model, host.OpenDevice, host.BudgetBytes, host.Progress, hash: true, rows, host.Say);
        RunManifest manifest;
        try
        {
            manifest = ManifestOf(recipe, model, host, prepared, start.Before);
            if (start.Before != null) RunChecks.SameInputs(folder, start.Before, manifest);
            if (start.IsFinished && manifest.TotalSteps == start.Before!.TotalSteps)
            {
                prepared.Device.Dispose();
                return Finished(folder, start, host, recipe.Task);
            }
        }
        catch
        {
            prepared.Device.Dispose();
            throw;
        }
        return Train(recipe, recipeText, model, host, folder, start, prepared, manifest, stop);
    }

    private static RunResult Train(
        Recipe recipe,
        string? recipeText,
        ModelOptions model,
        RunHost host,
        RunFolder folder,
        RunStart start,
        PreparedRun prepared,
        RunManifest manifest,
        CancellationToken stop)
    {
        var (source, rows) = (prepared.Source, prepared.Rows);
        var resumed = start.Checkpoint == null ? null : PeftAdapter.Load(start.Checkpoint);
        using var engine = new Engine(
            prepared.Device, AdapterBase.Subtract(source, resumed), prepared.Planned,
            (d, t) => host.Progress("loading", d, t, ""))
        {
            Initial = resumed?.Initial,
        };
        manifest = manifest with
        {
            BaseHash = source.Hash,
            Resolved = Resolved(prepared.Settings, engine.Device, engine.PadsBatches),
        };
        if (start.Before is { } before)
        {
            RunChecks.SameBase(folder, before.BaseHash, manifest.BaseHash);
            RunChecks.SameInputs(folder, before, manifest);
        }
        QuantizedCache.Default.Save(engine, source, recipe.Quantization, host.Say);
        var trainer = new Trainer(engine, recipe.Training, rows.Train, prepared.Longest, rows.Task.Objective)
        {
            State = new TrainerState(0, 0, null, 0, manifest.RecipeHash, manifest.BaseHash, Hashes: manifest.Hashes),
        };
        if (start.Checkpoint is { } from)
        {
            var state = Checkpoints.Load(from, engine, manifest.RecipeHash, manifest.BaseHash);
            RunChecks.SameHashes(folder, state.Hashes, manifest);
            trainer.State = state with { Hashes = manifest.Hashes };
            // A later best comes again, but not where the run was made longer: then the rates of all further steps
            // differ. Without load_best_model_at_end best/ is never read back, and written at the end whatever is in
            // it.
            int comesAgain =
                start.Before is { } same && same.TotalSteps != manifest.TotalSteps ? int.MaxValue : state.Step;
            if (
                recipe.Training.LoadBestModelAtEnd
                && state.BestMetric != null
                && folder.RestoreBest(state.BestStep, comesAgain, start.Log) is { } line
            )
                host.Say(line);
        }
        else if (recipe.Lora.Adapter is { } given) GivenAdapter.Start(engine, source, given, host.Say);
        else
            AdapterStart.Run(engine, source, (ulong)(uint)recipe.Training.Seed, (d, t) =>
                host.Progress("adapters", d, t, "")
            );
        rows.Task.Objective?.Prepare(
            engine, rows.Train,
            new(recipe.Training.PerDeviceEvalBatchSize, prepared.Limits.EvalTokens,
                Progress: (d, n) => host.Progress("reference", d, n, "")));
        using var hold = host.Hold?.Invoke();
        folder.Write(manifest, recipe, recipeText);
        return new TrainLoop(recipe, model, host, folder, start, prepared, engine, trainer, manifest, stop).Run();
    }

    private static RunManifest ManifestOf(
        Recipe recipe, ModelOptions model, RunHost host, PreparedRun prepared, RunManifest? before) =>
        new()
        {
            Name = recipe.Name,
            Model = ModelName(model),
            ModelPath = Path.GetFullPath(model.Path),
            ModelHub = model.HubId,
            Tokenizer = model.Tokenizer == null ? null : Path.GetFullPath(model.Tokenizer),
            BaseHash = before?.BaseHash ?? "",
            Config = ConfigIdentity.List(prepared.Source.Config),
            RecipeHash = RecipeIdentity.Hash(recipe),
            Recipe = RecipeIdentity.Values(recipe),
            // Whether batches are padded is known when the engine is there.
            Resolved = Resolved(
                prepared.Settings, prepared.Device, before?.Resolved.ContainsKey("padded_batches") ?? false),
            Device = prepared.Device.Name,
            Driver = prepared.Device.DriverVersion,
            Data = prepared.Rows.Identities,
            Seed = recipe.Training.Seed,
            TotalSteps = prepared.Batching.TotalSteps,
            // Of the start, also after a resume: the log says what changed then.
            Headroom = before?.Headroom ?? Product.Version,
            Command = before?.Command ?? host.Command,
            Created = before?.Created ?? DateTime.UtcNow,
        };

    private static SortedDictionary<string, string> Resolved(ModelSettings settings, IDevice device, bool padded)
    {
        var resolved = new SortedDictionary<string, string>(StringComparer.Ordinal)
        {
            ["device"] = device.Kind,
            ["precision"] = settings.ComputeType switch
            {
                DType.BF16 => "bf16",
                DType.F16 => "fp16",
                _ => "fp32",
            },
            ["linear_storage"] = settings.LinearStorage.ToString(),
        };
        if (padded) resolved["padded_batches"] = "true";
        if (settings.Lora?.Adapter is { } given) resolved["adapter_sha256"] = GivenAdapter.Hash(given);
        return resolved;
    }

    // A duel compares runs, so those that were complete before must be of its data and bases.
    private static void CheckFinished(RunFolder folder, RunManifest before, ModelOptions model, RunRows rows)
    {
        using var source = WeightSources.Open(model.Path);
        RunChecks.SameInputs(
            folder,
            before,
            before with
            {
                Data = rows.Identities,
                Config = ConfigIdentity.List(source.Config),
            }
        );
        RunChecks.SameBase(folder, before.BaseHash, source.Hash);
    }

    private static RunResult Finished(RunFolder folder, RunStart start, RunHost host, TaskOptions task)
    {
        var (log, end) = (start.Log, start.Log.End!);
        if (log.Best.Count > 0 && folder.RestoreBest(log.Best[^1].Step, log.Best[^1].Step, log) is { } line)
            host.Say(line);
        int steps = end.Steps ?? start.Before!.TotalSteps;
        host.Say(
            $"the run in {folder.Path} is finished: {steps} updates, adapter in {folder.Best}; nothing was changed (a "
                + $"larger training.max_steps would go on with it)"
        );
        var type = TaskTypes.Get(task);
        return new RunResult(true, steps, end.AdapterSha256 ?? "")
        {
            WasFinished = true,
            ZeroShotMetrics = RunResult.Logged(type, log.Tests.GetValueOrDefault(TestEvent.ZeroShot)),
            TunedMetrics = RunResult.Logged(type, log.Tests.GetValueOrDefault(TestEvent.Tuned)),
        };
    }

    /// <summary>Name of a model in reports.</summary>
    public static string ModelName(ModelOptions m) =>
        m.Name ?? Path.GetFileNameWithoutExtension(Path.TrimEndingDirectorySeparator(m.Path));
}
