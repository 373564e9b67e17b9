using System.Globalization;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Inference;
using Headroom.Tokenizers;
using Headroom.Training.Data;
using Headroom.Training.Events;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks;

namespace Headroom.Training.Runs;

/// <summary>The events a run writes, one method a kind.</summary>
internal static class RunEvents
{
    public static JsonObject Start(
        Recipe recipe, string text, string model, string baseHash, Engine engine, Trainer trainer, DataSplits data,
        ITask task)
    {
        var c = engine.Model.Config;
        var plan = engine.Plan;
        return new JsonObject
        {
            ["name"] = recipe.Name,
            ["task"] = task.Type.Name,
            ["model"] = model,
            ["base_sha256"] = baseHash,
            ["seed"] = recipe.Training.Seed,
            ["device"] = engine.Device.Name,
            ["architecture"] = c.Architecture,
            ["parameters"] = c.Parameters.Linear + c.Parameters.Embeddings + c.Parameters.Vectors,
            ["trainable_parameters"] = engine.Model.Trained.Sum(t => t.Slot.Weight.Count),
            ["trainable_by_module"] = ByModule(engine),
            ["effective_batch"] = EffectiveBatch(recipe.Training),
            ["total_steps"] = trainer.TotalSteps,
            ["steps_per_epoch"] = trainer.StepsPerEpoch,
            ["train_rows"] = data.Train.Count,
            ["validation_rows"] = data.Validation.Count,
            ["test_rows"] = data.Test.Count,
            ["cut_texts"] = task.CutTexts,
            ["recipe"] = text,
            ["plan"] = new JsonObject
            {
                ["total_bytes"] = plan.TotalBytes,
                ["arena_bytes"] = plan.ArenaBytes,
                ["static_bytes"] = plan.StaticBytes,
                ["workspace_bytes"] = plan.WorkspaceBytes,
                ["peak_phase"] = plan.PeakPhase,
                ["recompute_layers"] = engine.Settings.RecomputeLayers,
                ["layers"] = c.NumHiddenLayers,
                ["phases"] = new JsonObject(
                    plan.Phases.Select(p => KeyValuePair.Create(p, (JsonNode?)plan.PhaseBytes(p)))),
                ["rows"] = new JsonArray([
                    .. plan.Rows()
                        .Select(r =>
                            (JsonNode)
                                new JsonObject
                                {
                                    ["phase"] = r.Phase, ["category"] = r.Category.ToString(), ["buffers"] = r.Buffers,
                                    ["bytes"] = r.Bytes,
                                }
                        ),
                ]),
            },
        };
    }

    public static JsonObject Step(StepResult s, double seconds, int stepsPerEpoch) => new()
    {
        ["step"] = s.Step,
        ["epoch"] = s.Step / (double)stepsPerEpoch,
        ["loss"] = Finite(s.Loss),
        ["grad_norm"] = Finite(s.GradNorm),
        ["learning_rate"] = s.LearningRate,
        ["tokens"] = s.Tokens,
        ["label_tokens"] = s.LabelTokens,
        ["seconds"] = seconds,
        ["skipped"] = s.Skipped,
        ["loss_scale"] = s.LossScale,
    };

    public static JsonObject Eval(int step, string split, Evaluation evaluation, double seconds)
    {
        var e = evaluation.ToJson(false);
        (e["seconds"], e["step"], e["split"]) = (seconds, step, split);
        return e;
    }

    public static JsonObject Test(string stage, Evaluation evaluation, double seconds)
    {
        var e = evaluation.ToJson(true);
        (e["seconds"], e["stage"]) = (seconds, stage);
        return e;
    }

    public static JsonObject Baseline(string name, Evaluation evaluation)
    {
        var e = evaluation.ToJson(true);
        e["name"] = name;
        return e;
    }

    public static void Memory(EventLog log, string when, Engine engine, int? step = null)
    {
        var (resident, peak) = ProcessMemory.Read();
        var device = engine.Device.ReadMemory();
        log.Write("memory", new()
        {
            ["step"] = step,
            ["device_total_bytes"] = device?.Total,
            ["device_used_bytes"] = device?.Used,
            ["device_process_bytes"] = device?.Process,
            ["arena_bytes"] = engine.Plan.ArenaBytes,
            ["when"] = when,
            ["reserved_bytes"] = engine.Plan.TotalBytes,
            ["resident_bytes"] = resident,
            ["peak_resident_bytes"] = peak,
            ["managed_bytes"] = GC.GetTotalMemory(false),
        });
    }

    public static string Describe(
        Recipe recipe, string model, Engine engine, Trainer trainer, DataSplits data, ITask task, EncodedRows train,
        ITokenizer tokenizer)
    {
        var first = train[0];
        var by = ByModule(engine)
            .Select(m => $"{m.Key} {((long)m.Value!).ToString("N0", CultureInfo.InvariantCulture)}");
        string shown = tokenizer.Decode(
            first.Ids.AsSpan(0, first.Spans.Count == 0 ? first.Ids.Length : first.Spans[0].Start));
        string answer = string.Join(
            " ... ", first.Spans.Select(l => tokenizer.Decode(first.Ids.AsSpan(l.Start..l.End))));
        if (shown.Length > 200) shown = shown[..120] + " ... " + shown[^70..];
        bool chosen =
            data.Validation.Count > 0 && recipe.Training.EvalStrategy != "no" && recipe.Training.LoadBestModelAtEnd;
        string best = chosen
            ? $"\nbest adapter: by {task.Describe(task.Type.BestOf(recipe.Training))} of the validation rows"
            : "";
        return string.Create(CultureInfo.InvariantCulture, $"""
            {model} on {engine.Device.Name}: {data.Train.Count} training, {data.Validation.Count} validation, {data.Test.Count} test rows; {task.CutTexts} texts cut to {task.MaxTokens} tokens
            effective batch {recipe.Training.PerDeviceTrainBatchSize} x {recipe.Training.GradientAccumulationSteps} = {EffectiveBatch(recipe.Training)}, {trainer.TotalSteps} updates, {trainer.WarmupSteps} of them warm-up{best}
            trainable {engine.Model.Trained.Sum(t => t.Slot.Weight.Count):N0}: {string.Join(", ", by)}
            first example, masked: {System.Text.Json.JsonSerializer.Serialize(shown, Relaxed)} learned: {System.Text.Json.JsonSerializer.Serialize(answer, Relaxed)}
            """);
    }

    private static readonly System.Text.Json.JsonSerializerOptions Relaxed = new()
    {
        Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    private static JsonObject ByModule(Engine engine) =>
        new(
            engine
                .Model.Projections.Where(p => p.Rank > 0)
                .Select(p => (p.Path, Count: p.A.Count + p.B.Count + p.Magnitude.Count))
                .Concat(engine.Model.SavedModules.Select(m => (Path: m.Name[..^".weight".Length], m.Weight.Count)))
                .GroupBy(p => p.Path.Split('.')[^1])
        .Select(g => KeyValuePair.Create(g.Key, (JsonNode?)g.Sum(p => p.Count))));

    private static long EffectiveBatch(TrainingOptions o) =>
        (long)o.PerDeviceTrainBatchSize * o.GradientAccumulationSteps;

    private static JsonNode? Finite(double v) => double.IsFinite(v) ? v : null;
}

/// <summary>Resident memory of this process.</summary>
public static class ProcessMemory
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
