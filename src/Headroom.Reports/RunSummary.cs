using System.Globalization;
using System.Text.Json.Nodes;
using Headroom.Formats;
using Headroom.Inference;
using Headroom.Training;
using Headroom.Training.Events;
using Headroom.Training.Loop;
using Headroom.Training.Runs;
using Headroom.Training.Tasks;

namespace Headroom.Reports;

/// <summary>One "step" event.</summary>
public sealed record StepPoint(
    int Step, double? Loss, double? GradNorm, double? LearningRate, double? Seconds, bool Skipped)
{
    /// <summary>Tokens of the update.</summary>
    public long? Tokens { get; init; }
    /// <summary>Tokens with a label.</summary>
    public long? LabelTokens { get; init; }
}

/// <summary>One "eval" event.</summary>
public sealed record EvalPoint(int Step, string Split, Evaluation Evaluation)
{
    /// <summary>Mean loss.</summary>
    public double? Loss => Evaluation.Value(MetricKind.Loss.Name);
}

/// <summary>An evaluation on the test rows: of a model ("zero-shot", "tuned") or of a baseline.</summary>
public sealed record TestResult(string Name, Evaluation Evaluation, double? Seconds);

/// <summary>One "memory" event.</summary>
public sealed record MemorySample(
    string When, long? Reserved, long? Resident, long? PeakResident, long? Managed, long? Device);

/// <summary>The plan a run started with.</summary>
public sealed record PlanSummary(
    long? Total, long? Arena, long? Static, long? Workspace, string? PeakPhase, int? RecomputeLayers, int? Layers,
    IReadOnlyList<(string Phase, long Bytes)> Phases, IReadOnlyList<(string Phase, string Category, long Bytes)> Rows);

/// <summary>Everything one events.jsonl tells about a run. What is not in the file is null or empty.</summary>
public sealed class RunSummary
{
    private DateTime? _last;
    private double _seconds;

    /// <summary>Name of the run's folder.</summary>
    public string Folder { get; private init; } = "";
    /// <summary>Fields of the last run_start event.</summary>
    public JsonObject Start { get; private set; } = [];
    /// <summary>Fields of run_end, or null when the run did not end.</summary>
    public JsonObject? End { get; private set; }
    /// <summary>Fields of duel_start, when this is a duel's log.</summary>
    public JsonObject? DuelStart { get; private set; }
    /// <summary>Fields of duel_end.</summary>
    public JsonObject? DuelEnd { get; private set; }
    /// <summary>The type of the task, by run_start or duel_start; label words in logs that do not say.</summary>
    public TaskType Task => TaskTypes.OfLog((DuelStart ?? Start).Text("task"));
    /// <summary>Updates in order; after a resume the later value of a step counts.</summary>
    public IReadOnlyList<StepPoint> Steps { get; private set; } = [];
    /// <summary>Evaluations in order.</summary>
    public List<EvalPoint> Evals { get; } = [];
    /// <summary>Memory samples in order.</summary>
    public List<MemorySample> Memory { get; } = [];
    /// <summary>Baselines.</summary>
    public List<TestResult> Baselines { get; } = [];
    /// <summary>The base model on the test rows.</summary>
    public TestResult? ZeroShot { get; private set; }
    /// <summary>The tuned model on the test rows.</summary>
    public TestResult? Tuned { get; private set; }
    /// <summary>The plan, when run_start carries one.</summary>
    public PlanSummary? Plan { get; private set; }
    /// <summary>Steps at which the run was resumed.</summary>
    public List<int> Resumed { get; } = [];
    /// <summary>What of the log could not be used, one sentence for each event.</summary>
    public List<string> Odd { get; } = [];
    /// <summary>manifest.json of the run's folder; empty when there is none that can be read.</summary>
    public JsonObject Manifest { get; private init; } = [];
    /// <summary>Who works on the folder now, in words; null when nobody does.</summary>
    public string? Holder { get; private init; }
    /// <summary>Time of the last event, as it stands there.</summary>
    public string? LastTime { get; private set; }
    /// <summary>Fields of failed, when that is how the run ended.</summary>
    public JsonObject? Failed { get; private set; }
    /// <summary>Fields of stopped, when that is how it ended.</summary>
    public JsonObject? Stopped { get; private set; }
    /// <summary>Number of checkpoints written.</summary>
    public int Checkpoints { get; private set; }

    /// <summary>
    /// Seconds of all sessions: of run_end, else from the first to the last event of each (null without times).
    /// </summary>
    public double? WholeSeconds => End.Number("seconds") ?? (_last == null ? null : _seconds);
    /// <summary>Nothing says that the run ended, and a living process holds its folder.</summary>
    public bool Running => !Completed && Holder != null;

    /// <summary>Model as the run names it.</summary>
    public string Model => Start.Text("model") ?? Folder;
    /// <summary>Seed.</summary>
    public long? Seed => Start.Long("seed");
    /// <summary>Updates planned; where the run was made longer, those of the longer one.</summary>
    public long? TotalSteps { get; private set; }
    /// <summary>True when the run says it reached its end.</summary>
    public bool Completed => End.Flag("completed") == true;
    /// <summary>Largest resident size of the process that was seen.</summary>
    public long? PeakResident => Memory.Max(m => m.PeakResident ?? m.Resident);
    /// <summary>Most bytes the process held on its GPU at a sample (NVML); null on a CPU.</summary>
    public long? PeakDevice => Memory.Max(m => m.Device);
    /// <summary>Bytes reserved, as last reported.</summary>
    public long? Reserved => Memory.LastOrDefault(m => m.Reserved != null)?.Reserved;
    /// <summary>Tokens a second of training: the run's own figure, else null.</summary>
    public double? TokensPerSecond => End.Number("tokens_per_second");

    /// <summary>Reads events.jsonl of a run's folder; a half-written run gives what it has.</summary>
    public static RunSummary Read(string folder)
    {
        var files = new RunFolder(folder);
        var run = new RunSummary
        {
            Folder = Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder))),
            Manifest = ReadManifest(files.Manifest),
            Holder = files.Holder,
        };
        var steps = new SortedDictionary<int, StepPoint>();
        foreach (var e in EventLog.Read(files.Events)) run.Add(e, steps);
        run.Steps = [.. steps.Values];
        return run;
    }

    private void Add(JsonObject e, SortedDictionary<int, StepPoint> steps)
    {
        int step = (int)(e.Long("step") ?? 0);
        NoteTime(e);
        switch (e.Text("event"))
        {
            case "run_start":
                Start = e;
                TotalSteps = e.Long("total_steps");
                Plan = e["plan"] is JsonObject plan ? ReadPlan(plan) : Plan;
                break;
            case "memory":
                Memory.Add(
                    new MemorySample(
                        e.Text("when") ?? "", e.Long("reserved_bytes"), e.Long("resident_bytes"),
                        e.Long("peak_resident_bytes"), e.Long("managed_bytes"), e.Long("device_process_bytes"))
                );
                break;
            case "step":
                steps[step] = new StepPoint(
                    step, e.Number("loss"), e.Number("grad_norm"), e.Number("learning_rate"), e.Number("seconds"),
                    e.Flag("skipped") == true)
                {
                    Tokens = e.Long("tokens"),
                    LabelTokens = e.Long("label_tokens"),
                };
                break;
            case "eval":
                string split = e.Text("split") ?? "";
                Evals.RemoveAll(x => x.Step >= step && x.Split == split);
                Evals.Add(ReadEval(e, step, split));
                break;
            case "test" when e.Text("stage") == "zero-shot": ZeroShot = ReadTest(e, "zero-shot"); break;
            case "test": Tuned = ReadTest(e, "tuned"); break;
            case "baseline":
                var baseline = ReadTest(e, e.Text("name") ?? "baseline");
                Baselines.RemoveAll(b => b.Name == baseline.Name);
                Baselines.Add(baseline);
                break;
            case "checkpoint": Checkpoints++; break;
            case "resumed":
                Resumed.Add(step);
                TotalSteps = e.Long("total_steps") ?? TotalSteps;
                (End, Failed, Stopped, Tuned) = (null, null, null, null); // the tuned model is always tested anew
                _seconds = e.Number("seconds_before") ?? _seconds; // steps that were lost to a kill took their time too
                break;
            case "run_end": End = e; break;
            case "failed": Failed = e; break;
            case "stopped": Stopped = e; break;
            case "duel_start": (DuelStart, DuelEnd) = (e, null); break; // a duel that goes on begins its log anew
            case "duel_end": DuelEnd = e; break;
        }
    }

    // Sessions begin with run_start or resumed; what lies between two of them is no part of the run.
    private void NoteTime(JsonObject e)
    {
        if (
            !DateTime.TryParse(
                e.Text("time"), CultureInfo.InvariantCulture,
                DateTimeStyles.AdjustToUniversal | DateTimeStyles.AssumeUniversal, out var time)
        )
            return;
        if (_last is { } last && e.Text("event") is not ("run_start" or "resumed") && time > last)
            _seconds += (time - last).TotalSeconds;
        _last = time;
        LastTime = time.ToString("yyyy-MM-dd HH:mm:ss 'UTC'", CultureInfo.InvariantCulture);
    }

    private static JsonObject ReadManifest(string path)
    {
        const int most = 1 << 20; // ours has a few kilobytes
        try
        {
            return
                File.Exists(path)
                && new FileInfo(path).Length <= most
                && JsonNode.Parse(File.ReadAllText(path), null, new() { AllowDuplicateProperties = false })
                    is JsonObject o
                ? o
                : [];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or System.Text.Json.JsonException)
        {
            return [];
        }
    }

    private TestResult ReadTest(JsonObject e, string name)
    {
        var evaluation = Task.Read(e);
        if (evaluation.Odd != null)
            Odd.Add($"The {e.Text("event")} event \"{name}\" of events.jsonl is odd: {evaluation.Odd}.");
        return new TestResult(name, evaluation, e.Number("seconds"));
    }

    private EvalPoint ReadEval(JsonObject e, int step, string split)
    {
        var evaluation = Task.Read(e);
        if (evaluation.Odd != null) Odd.Add($"The eval event of step {step} of events.jsonl is odd: {evaluation.Odd}.");
        return new EvalPoint(step, split, evaluation);
    }

    private static PlanSummary ReadPlan(JsonObject p) =>
        new(
            p.Long("total_bytes"),
            p.Long("arena_bytes"),
            p.Long("static_bytes"),
            p.Long("workspace_bytes"),
            p.Text("peak_phase"),
            (int?)p.Long("recompute_layers"),
            (int?)p.Long("layers"),
            p["phases"] is JsonObject phases ? phases.Select(x => (x.Key, phases.Long(x.Key) ?? 0)).ToList() : [],
            p["rows"] is JsonArray rows
                ? rows.OfType<JsonObject>()
                    .Select(r => (r.Text("phase") ?? "static", r.Text("category") ?? "other", r.Long("bytes") ?? 0))
                    .ToList()
                : []
        );
}
