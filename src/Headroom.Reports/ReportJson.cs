using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Training.Intervals;
using Headroom.Training.Tasks;

namespace Headroom.Reports;

/// <summary>results.json: every number of the report, and the curves it draws. What was not measured is null.</summary>
internal static class ReportJson
{
    private static readonly JsonSerializerOptions Options = new()
    {
        WriteIndented = true,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    public static string Render(ReportModel m) => new JsonObject
    {
        ["format"] = 1,
        ["kind"] = m.Duel == null ? "run" : "duel",
        ["name"] = m.Name,
        ["task"] = m.Task.Name,
        ["completed"] = m.Completed,
        ["running"] = m.Running,
        ["headline"] = m.Headline,
        ["notes"] = List(m.Notes, n => n),
        ["duel"] = m.Duel == null ? null : new JsonObject
        {
            ["models"] = List(m.Duel.DuelStart!.Models, x => x),
            ["seeds"] = m.Duel.DuelStart.Seeds is { } seeds ? List(seeds, x => x) : null,
            ["runs"] = List(m.Duel.DuelStart.Runs, x => x),
            ["seconds"] = m.Duel.DuelEnd?.Seconds,
            ["peak_resident_bytes"] = m.Duel.DuelEnd?.PeakResidentBytes,
        },
        ["quality"] = List(m.Quality, q => Quality(m.Task, q)),
        ["seed_spread"] = List(m.Spreads, s => new JsonObject
        {
            ["group"] = s.Group,
            ["stage"] = s.Stage,
            ["metric"] = s.Metric,
            ["mean"] = s.Mean,
            ["sd"] = s.Sd,
            ["values"] = List(s.Values, v => new JsonObject { ["seed"] = v.Seed, ["value"] = v.Value }),
        }),
        ["seed_comparisons"] = List(m.Comparisons, Comparison),
        ["validation_reversals"] = List(m.Reversals, r => new JsonObject
        {
            ["first"] = r.First,
            ["second"] = r.Second,
            ["metric"] = r.Metric,
            ["test"] = new JsonArray(r.TestFirst, r.TestSecond),
            ["validation"] = new JsonArray(r.ValidationFirst, r.ValidationSecond),
        }),
        ["paired_tests"] = List(m.Tests, Paired),
        ["runs"] = List(m.Runs, r => Run(m.Task, r)),
        ["recipes"] = List(m.Recipes, r => new JsonObject { ["of"] = r.Of, ["text"] = r.Text }),
    }.ToJsonString(Options) + "\n";

    private static JsonObject Comparison(SeedComparison c) => new()
    {
        ["first"] = c.First,
        ["second"] = c.Second,
        ["metric"] = c.Metric,
        ["differences"] = List(c.Differences, d => new JsonObject { ["seed"] = d.Seed, ["value"] = d.Difference }),
        ["mean"] = Interval(c.Mean),
        ["p"] = c.P,
        ["p_holm"] = c.Adjusted,
        ["significant"] = c.Significant,
    };

    private static JsonObject Paired(PairedTest t) => new()
    {
        ["kind"] = t.Kind,
        ["first"] = t.First.Name,
        ["second"] = t.Second.Name,
        ["seed"] = t.First.Seed,
        ["rows"] = t.Rows,
        ["only_first_right"] = t.FirstOnly,
        ["only_second_right"] = t.SecondOnly,
        ["p"] = t.P,
        ["p_holm"] = t.Adjusted,
        ["significant"] = t.Significant,
    };

    private static JsonObject Quality(TaskType task, ReportRow q)
    {
        var json = new JsonObject
        {
            ["label"] = q.Label,
            ["group"] = q.Group,
            ["stage"] = q.Stage,
            ["seed"] = q.Seed,
            ["rows"] = q.Evaluation.Rows,
            ["seconds"] = q.Seconds,
        };
        foreach (var (key, value) in task.Json(q.Evaluation)) json[key] = value?.DeepClone();
        json["metrics"] = List(q.Evaluation.Metrics, x => new JsonObject
        {
            ["name"] = x.Name,
            ["label"] = x.Label,
            ["better"] = x.Direction == Direction.Higher ? "higher" : "lower",
            ["value"] = Finite(x.Value),
            ["low"] = x.Low,
            ["high"] = x.High,
        });
        return json;
    }

    private static JsonObject Run(TaskType task, RunEntry r)
    {
        var s = r.Summary;
        return new JsonObject
        {
            ["label"] = r.Label,
            ["group"] = r.Group,
            ["model"] = s.Model,
            ["folder"] = r.Folder,
            ["seed"] = s.Seed,
            ["completed"] = s.Completed,
            ["running"] = s.Running,
            ["last_event"] = s.LastTime,
            ["headroom"] = r.Fact(s => s.Headroom),
            ["command"] = r.Command,
            ["precision"] = r.Fact(s => s.Precision),
            ["driver"] = r.Fact(s => s.Driver),
            ["data_sha256"] = new JsonObject
            {
                ["train"] = r.DataHash("train"),
                ["validation"] = r.DataHash("validation"),
                ["test"] = r.DataHash("test"),
            },
            ["device"] = s.Start?.Device,
            ["architecture"] = s.Start?.Architecture,
            ["started"] = s.Start?.Time,
            ["base_sha256"] = s.Start?.BaseSha256,
            ["adapter_sha256"] = s.End?.AdapterSha256,
            ["resumed_at"] = List(s.Resumed, x => x),
            ["checkpoints"] = s.Checkpoints,
            ["best_step"] = s.End?.BestStep,
            ["cost"] = Cost(r),
            ["memory"] = Memory(s),
            ["curve_statistics"] = Statistics(r),
            ["curves"] = new JsonObject
            {
                ["step"] = List(s.Steps, x => x.Step),
                ["loss"] = List(s.Steps, x => x.Loss),
                ["grad_norm"] = List(s.Steps, x => x.GradNorm),
                ["learning_rate"] = List(s.Steps, x => x.LearningRate),
            },
            ["evaluations"] = List(s.Evals, e =>
            {
                var json = new JsonObject { ["step"] = e.Step, ["split"] = e.Split, ["loss"] = e.Loss };
                foreach (string name in task.Shown) json[name] = e.Evaluation.Value(name);
                return json;
            }),
        };
    }

    private static JsonObject Cost(RunEntry r) => new()
    {
        ["steps"] = r.StepsDone,
        ["total_steps"] = r.Summary.TotalSteps,
        ["skipped_steps"] = r.SkippedSteps,
        ["steps_per_epoch"] = r.Summary.Start?.StepsPerEpoch,
        ["seconds"] = r.Summary.WholeSeconds,
        ["train_seconds"] = r.TrainSeconds,
        ["zero_shot_test_seconds"] = r.Summary.ZeroShot?.Seconds,
        ["tuned_test_seconds"] = r.Summary.Tuned?.Seconds,
        ["tokens"] = r.Tokens,
        ["tokens_per_second"] = r.TokensPerSecond,
        ["label_tokens"] = r.LabelTokens,
        ["effective_batch"] = r.Summary.Start?.EffectiveBatch,
        ["train_rows"] = r.Summary.Start?.TrainRows,
        ["validation_rows"] = r.Summary.Start?.ValidationRows,
        ["test_rows"] = r.Summary.Start?.TestRows,
        ["cut_texts"] = r.Summary.Start?.CutTexts,
        ["parameters"] = r.Summary.Start?.Parameters,
        ["trainable_parameters"] = r.Summary.Start?.TrainableParameters,
        ["trainable_share"] = r.TrainableShare,
        ["trainable_by_module"] = new JsonObject(
            r.TrainableByModule.Select(x => KeyValuePair.Create(x.Key, (JsonNode?)x.Value))),
    };

    private static JsonObject Memory(RunSummary s) => new()
    {
        ["planned_bytes"] = s.Plan?.TotalBytes,
        ["arena_bytes"] = s.Plan?.ArenaBytes,
        ["static_bytes"] = s.Plan?.StaticBytes,
        ["workspace_bytes"] = s.Plan?.WorkspaceBytes,
        ["reserved_bytes"] = s.Reserved,
        ["peak_resident_bytes"] = s.PeakResident,
        ["device_bytes"] = s.PeakDevice,
        ["peak_phase"] = s.Plan?.PeakPhase,
        ["recompute_layers"] = s.Plan?.RecomputeLayers,
        ["layers"] = s.Plan?.Layers,
        ["phases"] = new JsonObject(
            (s.Plan?.Phases ?? Enumerable.Empty<KeyValuePair<string, long>>())
                .Select(x => KeyValuePair.Create(x.Key, (JsonNode?)x.Value))),
        ["rows"] = List(s.Plan?.Rows ?? [], x => new JsonObject
        {
            ["phase"] = x.Phase,
            ["category"] = x.Category,
            ["bytes"] = x.Bytes,
        }),
        ["samples"] = List(s.Memory, x => new JsonObject
        {
            ["when"] = x.When,
            ["reserved_bytes"] = x.ReservedBytes,
            ["device_bytes"] = x.DeviceProcessBytes,
            ["resident_bytes"] = x.ResidentBytes,
            ["peak_resident_bytes"] = x.PeakResidentBytes,
            ["managed_bytes"] = x.ManagedBytes,
        }),
    };

    private static JsonObject Statistics(RunEntry r) => new()
    {
        ["final_loss_smoothed"] = r.FinalLoss,
        ["linearity_r2"] = r.Curve.LinearityR2,
        ["plateau_step"] = r.Curve.PlateauStep,
        ["cliff_step"] = r.Curve.CliffStep,
        ["cliff_share"] = r.Curve.CliffShare,
        ["spikes"] = r.Curve.Spikes == null ? null : List(r.Curve.Spikes, x => x),
        ["gradient_oscillation"] = r.Curve.GradientOscillation,
        ["gradient_reversals"] = r.Curve.GradientReversals,
    };

    private static double? Finite(double value) => double.IsFinite(value) ? value : null;

    private static JsonObject? Interval(Interval? i) =>
        i is { } x
            ? new JsonObject
            {
                ["value"] = x.Value,
                ["low"] = x.Low,
                ["high"] = x.High,
            }
            : null;

    private static JsonArray List<T>(IEnumerable<T> items, Func<T, JsonNode?> of) => new([.. items.Select(of)]);
}
