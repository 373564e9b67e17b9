using System.Globalization;
using System.Text.Json;
using Headroom.Training.Events;
using Headroom.Training.Runs;
using Headroom.Training.Tasks;

namespace Headroom.Reports;

/// <summary>One "eval" event.</summary>
internal sealed record EvalPoint(int Step, string Split, Evaluation Evaluation)
{
    /// <summary>Mean loss.</summary>
    public double? Loss => Evaluation.Value(MetricKind.Loss.Name);
}

/// <summary>An evaluation on the test rows: of a model ("zero-shot", "tuned") or of a baseline.</summary>
internal sealed record TestResult(string Name, Evaluation Evaluation, double? Seconds);

/// <summary>Everything one events.jsonl tells about a run. What is not in the file is null or empty.</summary>
internal sealed class RunSummary
{
    private DateTime? _last;
    private double _seconds;

    /// <summary>Name of the run's folder.</summary>
    public string Folder { get; private init; } = "";
    /// <summary>The last run_start.</summary>
    public RunStartEvent? Start { get; private set; }
    /// <summary>run_end, or null when the run did not end.</summary>
    public RunEndEvent? End { get; private set; }
    /// <summary>duel_start, when this is a duel's log.</summary>
    public DuelStartEvent? DuelStart { get; private set; }
    /// <summary>duel_end.</summary>
    public DuelEndEvent? DuelEnd { get; private set; }
    /// <summary>What a duel's log is called: one of a single model has its seeds to compare, and no rival.</summary>
    public string Several => DuelStart?.Models is { Count: 1 } ? "set of seeds" : "duel";
    /// <summary>The type of the task, by run_start or duel_start; label words in logs that do not say.</summary>
    public TaskType Task => TaskTypes.OfLog(DuelStart != null ? DuelStart.Task : Start?.Task);
    /// <summary>Updates in order; after a resume the later value of a step counts.</summary>
    public IReadOnlyList<StepEvent> Steps { get; private set; } = [];
    /// <summary>Evaluations in order.</summary>
    public List<EvalPoint> Evals { get; } = [];
    /// <summary>Memory samples in order.</summary>
    public List<MemoryEvent> Memory { get; } = [];
    /// <summary>Baselines.</summary>
    public List<TestResult> Baselines { get; } = [];
    /// <summary>The base model on the test rows.</summary>
    public TestResult? ZeroShot { get; private set; }
    /// <summary>The tuned model on the test rows.</summary>
    public TestResult? Tuned { get; private set; }
    /// <summary>The plan, when run_start carries one.</summary>
    public PlanFields? Plan { get; private set; }
    /// <summary>Steps at which the run was resumed.</summary>
    public List<int> Resumed { get; } = [];
    /// <summary>What of the log could not be used, one sentence for each event.</summary>
    public List<string> Odd { get; } = [];
    /// <summary>
    /// manifest.json of the run's folder, of an earlier version too; null when there is none that can be read.
    /// </summary>
    public RunStartEvent? Manifest { get; private init; }
    /// <summary>Who works on the folder now, in words; null when nobody does.</summary>
    public string? Holder { get; private init; }
    /// <summary>Time of the last event, as it stands there.</summary>
    public string? LastTime { get; private set; }
    /// <summary>failed, when that is how the run ended.</summary>
    public FailedEvent? Failed { get; private set; }
    /// <summary>stopped, when that is how it ended.</summary>
    public StoppedEvent? Stopped { get; private set; }
    /// <summary>Number of checkpoints written.</summary>
    public int Checkpoints { get; private set; }

    /// <summary>
    /// Seconds of all sessions: of run_end, else from the first to the last event of each (null without times).
    /// </summary>
    public double? WholeSeconds => End?.Seconds ?? (_last == null ? null : _seconds);
    /// <summary>Nothing says that the run ended, and a living process holds its folder.</summary>
    public bool Running => !Completed && Holder != null;

    /// <summary>Model as the run names it.</summary>
    public string Model => Start?.Model ?? Folder;
    /// <summary>Seed.</summary>
    public long? Seed => Start?.Seed;
    /// <summary>Updates planned; where the run was made longer, those of the longer one.</summary>
    public long? TotalSteps { get; private set; }
    /// <summary>True when the run says it reached its end.</summary>
    public bool Completed => End?.Completed == true;
    /// <summary>Largest resident size of the process that was seen.</summary>
    public long? PeakResident => Memory.Max(m => m.PeakResidentBytes ?? m.ResidentBytes);
    /// <summary>Most bytes the process held on its GPU at a sample (NVML); null on a CPU.</summary>
    public long? PeakDevice => Memory.Max(m => m.DeviceProcessBytes);
    /// <summary>Bytes reserved, as last reported.</summary>
    public long? Reserved => Memory.LastOrDefault(m => m.ReservedBytes != null)?.ReservedBytes;
    /// <summary>Tokens a second of training: the run's own figure, else null.</summary>
    public double? TokensPerSecond => End?.TokensPerSecond;

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
        var steps = new SortedDictionary<int, StepEvent>();
        foreach (var e in EventLog.Read(files.Events)) run.Add(e, steps);
        run.Steps = [.. steps.Values];
        return run;
    }

    private void Add(LogEvent e, SortedDictionary<int, StepEvent> steps)
    {
        NoteTime(e);
        switch (e)
        {
            case RunStartEvent start:
                Start = start;
                TotalSteps = start.TotalSteps;
                Plan = start.Plan ?? Plan;
                break;
            case MemoryEvent memory: Memory.Add(memory); break;
            case StepEvent step: steps[step.Step] = step; break;
            case EvalEvent eval:
                string split = eval.Split ?? "";
                Evals.RemoveAll(x => x.Step >= eval.Step && x.Split == split);
                Evals.Add(new EvalPoint(eval.Step, split, Read(eval, $"The eval event of step {eval.Step}")));
                break;
            case TestEvent { Stage: TestEvent.ZeroShot } test: ZeroShot = ReadTest(test, TestEvent.ZeroShot); break;
            case TestEvent test: Tuned = ReadTest(test, TestEvent.Tuned); break;
            case BaselineEvent baseline:
                string name = baseline.Name ?? "baseline";
                Baselines.RemoveAll(b => b.Name == name);
                Baselines.Add(new(name, Read(baseline, $"The baseline event \"{name}\""), null));
                break;
            case CheckpointEvent: Checkpoints++; break;
            case ResumedEvent resumed:
                Resumed.Add(resumed.Step);
                TotalSteps = resumed.TotalSteps ?? TotalSteps;
                (End, Failed, Stopped, Tuned) = (null, null, null, null); // the tuned model is always tested anew
                _seconds = resumed.SecondsBefore ?? _seconds; // steps that were lost to a kill took their time too
                break;
            case RunEndEvent end: End = end; break;
            case FailedEvent failed: Failed = failed; break;
            case StoppedEvent stopped: Stopped = stopped; break;
            case DuelStartEvent start: (DuelStart, DuelEnd) = (start, null); break; // one that goes on begins anew
            case DuelEndEvent end: DuelEnd = end; break;
        }
    }

    // Sessions begin with run_start or resumed; what lies between two of them is no part of the run.
    private void NoteTime(LogEvent e)
    {
        if (e.At is not { } time) return;
        if (_last is { } last && e is not (RunStartEvent or ResumedEvent) && time > last)
            _seconds += (time - last).TotalSeconds;
        _last = time;
        LastTime = time.ToString("yyyy-MM-dd HH:mm:ss 'UTC'", CultureInfo.InvariantCulture);
    }

    private static RunStartEvent? ReadManifest(string path)
    {
        const int most = 1 << 20; // ours has a few kilobytes
        try
        {
            return File.Exists(path) && new FileInfo(path).Length <= most
                ? JsonSerializer.Deserialize(File.ReadAllText(path), EventJson.Default.RunStartEvent)
                : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or JsonException)
        {
            return null;
        }
    }

    private TestResult ReadTest(TestEvent e, string name) =>
        new(name, Read(e, $"The test event \"{name}\""), e.Seconds);

    private Evaluation Read(EvaluationEvent e, string which)
    {
        var evaluation = e.Read(Task);
        if (evaluation.Odd != null) Odd.Add($"{which} of events.jsonl is odd: {evaluation.Odd}.");
        return evaluation;
    }
}
