using System.Diagnostics;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Tokenizers;

namespace Headroom.Training;

/// <summary>Where a run lives, what it may use, and who listens.</summary>
/// <param name="Folder">Run folder; must not exist unless resumed.</param>
/// <param name="Resume">Go on from the latest checkpoint.</param>
/// <param name="OpenDevice">Opens the device.</param>
/// <param name="BudgetBytes">Memory the plan may take; null = no limit.</param>
/// <param name="Say">A line for the user.</param>
/// <param name="Progress">What is being done, done and total of it, and a figure such as the loss; called often.</param>
public sealed record RunHost(string Folder, bool Resume, Func<IDevice> OpenDevice, long? BudgetBytes, Action<string> Say, Action<string, long, long, string> Progress);

/// <summary>How a run ended.</summary>
/// <param name="Completed">False when it was stopped and can be resumed.</param>
/// <param name="Step">Updates done.</param>
/// <param name="ZeroShot">The base on the test rows, when there are any.</param>
/// <param name="Tuned">The adapter on the test rows.</param>
/// <param name="AdapterHash">SHA-256 of the trained tensors.</param>
/// <param name="Test">The test rows.</param>
public sealed record RunResult(bool Completed, int Step, Predictions? ZeroShot, Predictions? Tuned, string AdapterHash, DataSplits Test);

/// <summary>
/// One model under one recipe, from files to a run folder: manifest.json, recipe.yaml, events.jsonl, checkpoints/, best/. Everything that can be
/// refused is refused before the folder is made.
/// </summary>
public static class TrainRun
{
    private const double MemorySeconds = 5; // between two looks at the device's memory
    /// <summary>Runs to the end, or to <paramref name="stop"/>; <paramref name="rows"/> are those of the recipe and the model, when they were read before.</summary>
    public static RunResult Run(Recipe recipe, string recipeText, ModelOptions model, RunHost host, CancellationToken stop, RunRows? rows = null)
    {
        var o = recipe.Training;
        string events = Path.Combine(host.Folder, "events.jsonl"), checkpoints = Path.Combine(host.Folder, "checkpoints"), best = Path.Combine(host.Folder, "best");
        string? from = host.Resume ? Checkpoints.Latest(checkpoints) : null;
        if (!host.Resume && Directory.Exists(host.Folder) && Directory.EnumerateFileSystemEntries(host.Folder).Any())
            throw new HeadroomException($"The run folder {host.Folder} exists already.", "Go on with --resume, or give another --name.");
        // A kill before the first event leaves the recipe alone: that is a run too, which starts anew.
        string recipeHash = RecipeLoader.Hash(recipe);
        if (host.Resume && !File.Exists(events) && !File.Exists(Path.Combine(host.Folder, "recipe.yaml")))
            throw RunsBeside.None("run", host.Folder, RunsBeside.OfRecipe(recipeHash));
        if (from != null) Checkpoints.Verify(from, recipeHash);

        using var prepared = PreparedRun.Of(recipe, model, host.OpenDevice, host.BudgetBytes, host.Progress, hash: true, rows, host.Say);
        var (source, settings, limits, device, longest) = (prepared.Source, prepared.Settings, prepared.Limits, prepared.Device, prepared.Longest);
        rows = prepared.Rows;
        var (data, encoder, tokenizer, train, validation, test) = (rows.Data, rows.Encoder, rows.Tokenizer, rows.Train, rows.Validation, rows.Test);
        var resumed = from == null ? null : PeftAdapter.Load(from);
        using var engine = new Engine(device, AdapterBase.Of(source, resumed), settings, limits, (d, t) => host.Progress("loading", d, t, "")) { Initial = resumed?.Initial };
        string baseHash = source.Hash;
        QuantizedCache.Default.Save(engine, source, recipe.Quantization, host.Say);
        if (from == null) AdapterStart.Run(engine, source, (ulong)(uint)o.Seed, (d, t) => host.Progress("adapters", d, t, ""));
        var trainer = new Trainer(engine, o, train, longest) { State = new TrainerState(0, 0, null, 0, recipeHash, baseHash) };
        if (from != null) trainer.State = Checkpoints.Load(from, engine, recipeHash, baseHash);
        try
        {
            Directory.CreateDirectory(host.Folder);
            AtomicFile.WriteText(Path.Combine(host.Folder, "recipe.yaml"), recipeText);
            AtomicFile.WriteText(Path.Combine(host.Folder, "manifest.json"), new JsonObject
            {
                ["name"] = recipe.Name, ["model"] = ModelName(model), ["model_path"] = model.Path, ["model_hub"] = model.HubId, ["base_sha256"] = baseHash, ["recipe_sha256"] = recipeHash,
                ["seed"] = o.Seed, ["device"] = device.Name, ["created"] = DateTime.UtcNow.ToString("O"),
            }.ToJsonString(new() { WriteIndented = true }) + "\n");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new HeadroomException($"The run folder {host.Folder} cannot be written: {e.Message}", "Give another folder with --runs.");
        }
        if (from == null && host.Resume) File.Delete(events); // it was stopped before its first checkpoint: it starts anew
        using var log = new EventLog(events, from != null ? trainer.State.Step : null);
        if (from != null) log.Write("resumed", new() { ["step"] = trainer.State.Step });
        else log.Write("run_start", RunEvents.Start(recipe, recipeText, ModelName(model), baseHash, engine, trainer, data, encoder));
        foreach (string note in prepared.Notes)
        {
            if (from == null) log.Write("notice", new() { ["at_step"] = 0, ["text"] = note });
            host.Say("note: " + note);
        }
        RunEvents.Memory(log, "loaded", engine);
        host.Say(PlanTable.Text(engine.Plan, settings.RecomputeLayers, engine.Model.Config.NumHiddenLayers));
        host.Say(RunEvents.Describe(recipe, ModelName(model), engine, trainer, data, encoder, train, tokenizer));

        Predictions Evaluate(string what, EncodedRows rows) => Evaluator.Run(engine, rows, encoder, o.PerDeviceEvalBatchSize, limits.EvalTokens, (d, n) =>
        {
            stop.ThrowIfCancellationRequested();
            host.Progress(what, d, n, "");
        });
        var clock = Stopwatch.StartNew();
        Predictions? zero = null, tuned = null;
        long tokens = 0;
        double trainSeconds = 0, nextMemory = 0, logged = 0;
        string? notice = null;
        string hash;
        try
        {
            if (from == null && data.Test.Count > 0)
            {
                double at = clock.Elapsed.TotalSeconds;
                zero = Evaluate("zero-shot test", test);
                log.Write("test", RunEvents.Test("zero-shot", zero, clock.Elapsed.TotalSeconds - at));
                host.Say($"zero-shot: {zero.Text} on {data.Test.Count} test rows");
            }
            double last = clock.Elapsed.TotalSeconds;
            bool done = trainer.Run(new TrainerHooks
            {
                OnStep = s =>
                {
                    double now = clock.Elapsed.TotalSeconds, seconds = now - last;
                    last = now;
                    tokens += s.Tokens;
                    logged += s.Loss;
                    trainSeconds += seconds;
                    log.Write("step", RunEvents.Step(s, seconds, trainer.StepsPerEpoch));
                    if (device.Notice is { } said && said != notice)
                    {
                        log.Write("notice", new() { ["at_step"] = s.Step, ["text"] = said });
                        host.Say(notice = said);
                    }
                    if (now >= nextMemory)
                    {
                        RunEvents.Memory(log, "training", engine, s.Step);
                        nextMemory = now + MemorySeconds;
                    }
                    if (o.LoggingSteps > 0 && s.Step % o.LoggingSteps == 0)
                    {
                        host.Say($"step {s.Step}: loss {logged / o.LoggingSteps:F4}, grad norm {s.GradNorm:F3}, lr {s.LearningRate:G3}");
                        logged = 0;
                    }
                    host.Progress("training", s.Step, trainer.TotalSteps, $"loss {s.Loss:F4}, grad norm {s.GradNorm:F3}, lr {s.LearningRate:G3}, {tokens / trainSeconds:F0} tokens/s");
                },
                Evaluate = data.Validation.Count == 0 || o.EvalStrategy == "no" ? null : step =>
                {
                    double at = clock.Elapsed.TotalSeconds;
                    var p = Evaluate("validation", validation);
                    log.Write("eval", RunEvents.Eval(step, "validation", p, clock.Elapsed.TotalSeconds - at));
                    host.Say($"step {step}: validation loss {p.Loss:F4}, {p.Text}");
                    last = clock.Elapsed.TotalSeconds;
                    return BestMetric.Of(o.MetricForBestModel, p);
                },
                // Written at once, so that a later crash leaves the best adapter so far; a resumed run meets the same evaluation and writes the same.
                OnBest = _ => SaveAdapter(best),
                OnCheckpoint = (step, path) =>
                {
                    log.Write("checkpoint", new() { ["step"] = step, ["path"] = Path.GetRelativePath(host.Folder, path) });
                    last = clock.Elapsed.TotalSeconds;
                },
            }, checkpoints, model.BaseName(), stop);
            if (!done) return Stopped(trainer.State.Step);
            if (o.LoadBestModelAtEnd && trainer.State.BestMetric != null)
            {
                if (trainer.State.BestStep != trainer.State.Step) Checkpoints.LoadAdapter(PeftAdapter.Load(best), engine);
            }
            else SaveAdapter(best);
            if (data.Test.Count > 0)
            {
                double at = clock.Elapsed.TotalSeconds;
                tuned = Evaluate("test", test);
                log.Write("test", RunEvents.Test("tuned", tuned, clock.Elapsed.TotalSeconds - at));
                host.Say($"tuned: {tuned.Text} on {data.Test.Count} test rows");
            }
            hash = Checkpoints.TrainedHash(engine);
        }
        catch (OperationCanceledException)
        {
            return Stopped(trainer.State.Step);
        }
        catch (DeviceException e)
        {
            string? good = Checkpoints.Latest(checkpoints);
            log.Write("failed", new() { ["at_step"] = trainer.State.Step, ["call"] = e.Call, ["error"] = e.Message });
            throw new HeadroomException($"After step {trainer.State.Step}: {e.Message}",
                (good == null ? "No checkpoint was written before: start the run anew. " : $"The last good checkpoint is {good}: go on with --resume. ") + e.ToDo, 1, e);
        }
        RunEvents.Memory(log, "end", engine);
        // Over all steps of the log, those before a resume too.
        var steps = EventLog.Read(events).Where(e => (string?)e["event"] == "step").ToList();
        long Sum(string key) => steps.Sum(e => (long?)e[key] ?? 0);
        double stepSeconds = steps.Sum(e => (double?)e["seconds"] ?? 0);
        log.Write("run_end", new()
        {
            ["completed"] = true, ["steps"] = trainer.State.Step, ["seconds"] = clock.Elapsed.TotalSeconds, ["train_seconds"] = stepSeconds, ["tokens"] = Sum("tokens"),
            ["label_tokens"] = Sum("label_tokens"), ["tokens_per_second"] = stepSeconds > 0 ? Sum("tokens") / stepSeconds : null, ["adapter_sha256"] = hash, ["best_step"] = trainer.State.BestStep,
        });
        return new RunResult(true, trainer.State.Step, zero, tuned, hash, data);

        void SaveAdapter(string to) => Checkpoints.Adapter(engine, model.BaseName(), baseHash).Save(to);

        RunResult Stopped(int step)
        {
            log.Write("stopped", new() { ["at_step"] = step });
            return new RunResult(false, step, zero, null, "", data);
        }
    }

    /// <summary>Name of a model in reports.</summary>
    public static string ModelName(ModelOptions m) => m.Name ?? Path.GetFileNameWithoutExtension(Path.TrimEndingDirectorySeparator(m.Path));
}
