using System.Globalization;
using Headroom.Inference;
using Headroom.Inference.Bases;
using Headroom.Training.Data;
using Headroom.Training.Events;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;

namespace Headroom.Training.Runs;

/// <summary>What a run says of itself: the events that take more than their fields, and the first lines.</summary>
internal static class RunEvents
{
    public static RunStartEvent Start(
        RunManifest manifest, string recipe, Engine engine, Trainer trainer, RunRows rows, TrainingOptions training)
    {
        var c = engine.Model.Config;
        var plan = engine.Plan;
        return new RunStartEvent
        {
            Name = manifest.Name,
            Model = manifest.Model,
            BaseSha256 = manifest.BaseHash,
            Seed = manifest.Seed,
            Device = manifest.Device,
            Headroom = manifest.Headroom,
            Command = manifest.Command,
            Created = manifest.Created.ToString("O"),
            ModelPath = manifest.ModelPath,
            ModelHub = manifest.ModelHub,
            Tokenizer = manifest.Tokenizer,
            Config = manifest.Config,
            ConfigSha256 = manifest.ConfigHash,
            RecipeSha256 = manifest.RecipeHash,
            RecipeValues = manifest.Recipe,
            Driver = manifest.Driver,
            Precision = manifest.Precision,
            Resolved = manifest.Resolved,
            Data = manifest.Data.ToDictionary(d => d.Key, d => new SplitFields(d.Value.Rows, d.Value.Hash)),
            Task = rows.Task.Type.Name,
            Architecture = c.Architecture,
            Parameters = c.Parameters.Linear + c.Parameters.Embeddings + c.Parameters.Vectors,
            TrainableParameters = engine.Model.Trained.Sum(t => t.Slot.Weight.Count),
            TrainableByModule = ByModule(engine),
            EffectiveBatch = EffectiveBatch(training),
            TotalSteps = trainer.TotalSteps,
            StepsPerEpoch = trainer.StepsPerEpoch,
            TrainRows = rows.Data.Train.Count,
            ValidationRows = rows.Data.Validation.Count,
            TestRows = rows.Data.Test.Count,
            CutTexts = rows.Task.CutTexts,
            Recipe = recipe,
            Plan = new PlanFields
            {
                TotalBytes = plan.TotalBytes,
                ArenaBytes = plan.ArenaBytes,
                StaticBytes = plan.StaticBytes,
                WorkspaceBytes = plan.WorkspaceBytes,
                PeakPhase = plan.PeakPhase,
                RecomputeLayers = engine.Settings.RecomputeLayers,
                Layers = c.NumHiddenLayers,
                Phases = plan.Phases.ToDictionary(p => p, plan.PhaseBytes),
                Rows =
                [
                    .. plan.Rows().Select(r => new PlanRowFields
                    {
                        Phase = r.Phase,
                        Category = r.Category.ToString(),
                        Buffers = r.Buffers,
                        Bytes = r.Bytes,
                    }),
                ],
            },
        };
    }

    public static StepEvent Step(StepResult s, double seconds, int stepsPerEpoch) => new()
    {
        Step = s.Step,
        Epoch = s.Step / (double)stepsPerEpoch,
        Loss = s.Loss,
        GradNorm = s.GradNorm,
        LearningRate = s.LearningRate,
        Tokens = s.Tokens,
        LabelTokens = s.LabelTokens,
        Seconds = seconds,
        Skipped = s.Skipped,
        LossScale = s.LossScale,
    };

    public static MemoryEvent Memory(string when, Engine engine, int? step = null)
    {
        var (resident, peak) = ProcessMemory.Read();
        var device = engine.Device.ReadMemory();
        return new MemoryEvent
        {
            Step = step,
            DeviceTotalBytes = device?.Total,
            DeviceUsedBytes = device?.Used,
            DeviceProcessBytes = device?.Process,
            ArenaBytes = engine.Plan.ArenaBytes,
            When = when,
            ReservedBytes = engine.Plan.TotalBytes,
            ResidentBytes = resident,
            PeakResidentBytes = peak,
            ManagedBytes = GC.GetTotalMemory(false),
        };
    }

    public static string Describe(
        Recipe recipe, string model, Engine engine, Trainer trainer, RunRows rows, Batching batching)
    {
        var (data, task, tokenizer, first) = (rows.Data, rows.Task, rows.Tokenizer, rows.Train[0]);
        var by = ByModule(engine)
            .Select(m => $"{m.Key} {m.Value.ToString("N0", CultureInfo.InvariantCulture)}");
        string shown = tokenizer.Decode(
            first.Ids.AsSpan(0, first.Spans.Count == 0 ? first.Ids.Length : first.Spans[0].Start));
        string answer = string.Join(
            " ... ", first.Spans.Select(l => tokenizer.Decode(first.Ids.AsSpan(l.Start..l.End))));
        if (shown.Length > 200) shown = shown[..120] + " ... " + shown[^70..];
        bool chosen =
            data.Validation.Count > 0
            && recipe.Training is { EvalStrategy: not IntervalStrategy.No, LoadBestModelAtEnd: true };
        string best = chosen
            ? $"\nbest adapter: by {task.Describe(task.Type.BestOf(recipe.Training))} of the validation rows"
            : "";
        return string.Create(CultureInfo.InvariantCulture, $"""
            {model} on {engine.Device.Name}: {data.Train.Count} training, {data.Validation.Count} validation, {data.Test.Count} test rows; {task.CutTexts} texts cut to {task.MaxTokens} tokens
            {Batches(recipe.Training, rows.Train, batching)}, {trainer.TotalSteps} updates, {trainer.WarmupSteps} of them warm-up{best}
            trainable {engine.Model.Trained.Sum(t => t.Slot.Weight.Count):N0}: {string.Join(", ", by)}
            first example, masked: {System.Text.Json.JsonSerializer.Serialize(shown, Relaxed)} learned: {System.Text.Json.JsonSerializer.Serialize(answer, Relaxed)}
            """);
    }

    private static string Batches(TrainingOptions o, EncodedRows train, Batching batching)
    {
        if (o.TokensPerDeviceBatch == 0)
            return $"effective batch {o.PerDeviceTrainBatchSize} x {o.GradientAccumulationSteps} = {EffectiveBatch(o)}";
        double rows = train.Count / (double)batching.PerEpoch * o.GradientAccumulationSteps;
        return string.Create(
            CultureInfo.InvariantCulture,
            $"micro-batches of {o.TokensPerDeviceBatch} tokens, {batching.Filled:P1} filled, x "
                + $"{o.GradientAccumulationSteps}: {rows:F1} rows an update");
    }

    private static readonly System.Text.Json.JsonSerializerOptions Relaxed = new()
    {
        Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    private static Dictionary<string, long> ByModule(Engine engine) =>
        engine
            .Model.Projections.Where(p => p.Rank > 0)
            .Select(p => (p.Path, Count: p.A.Count + p.B.Count + p.Magnitude.Count))
            .Concat(engine.Model.SavedModules.Select(m => (Path: m.Name[..^".weight".Length], m.Weight.Count)))
            .GroupBy(p => p.Path.Split('.')[^1])
            .ToDictionary(g => g.Key, g => g.Sum(p => p.Count));

    private static long EffectiveBatch(TrainingOptions o) =>
        (long)o.PerDeviceTrainBatchSize * o.GradientAccumulationSteps;
}

/// <summary>Resident memory of this process.</summary>
internal static class ProcessMemory
{
    /// <summary>Bytes resident now and at the peak; from /proc where there is one, else from the runtime.</summary>
    public static (long Resident, long Peak) Read()
    {
        long resident = Environment.WorkingSet, peak = resident;
        if (!File.Exists("/proc/self/status")) return (resident, peak);
        foreach (string line in File.ReadLines("/proc/self/status"))
        {
            if (line.StartsWith("VmRSS:", StringComparison.Ordinal)) resident = Kib(line);
            if (line.StartsWith("VmHWM:", StringComparison.Ordinal)) peak = Kib(line);
        }
        return (resident, Math.Max(peak, resident));

        static long Kib(string line) =>
            long.Parse(line.AsSpan(6).Trim().ToString().Split(' ')[0], CultureInfo.InvariantCulture) * 1024;
    }
}
