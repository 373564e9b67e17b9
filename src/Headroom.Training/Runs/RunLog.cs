using Headroom.Training.Events;

namespace Headroom.Training.Runs;

/// <summary>What the log of a run says of how far it came.</summary>
internal sealed class RunLog
{
    /// <summary>Steps it holds.</summary>
    public int Steps { get; private set; }
    /// <summary>A checkpoint was written.</summary>
    public bool HadCheckpoint { get; private set; }
    /// <summary>run_end, when nothing was resumed after it.</summary>
    public RunEndEvent? End { get; private set; }
    /// <summary>The last results on the test rows: zero-shot and tuned.</summary>
    public Dictionary<string, TestEvent> Tests { get; } = [];
    /// <summary>Files with their hashes that <c>best/</c> was given, by step, in order.</summary>
    public List<(int Step, IReadOnlyDictionary<string, string> Files)> Best { get; } = [];
    /// <summary>What was wrong with the last evaluation that gave no numbers; null when all did.</summary>
    public string? EvalFailed { get; private set; }
    /// <summary>It is a duel's.</summary>
    public bool IsDuel { get; private set; }
    /// <summary>
    /// Seconds that processes worked on the run, each from its first event to its last, what a resume took out of the
    /// log included.
    /// </summary>
    public double Seconds { get; private set; }

    /// <summary>Reads a log; one that is not there is empty.</summary>
    public static RunLog Read(string path)
    {
        var log = new RunLog();
        if (!File.Exists(path)) return log;
        DateTime? first = null, last = null;
        foreach (var e in EventLog.Read(path))
        {
            if (e is RunStartEvent or ResumedEvent)
            {
                log.Seconds = (e as ResumedEvent)?.SecondsBefore ?? log.Seconds + Between(first, last);
                first = null;
            }
            if (e.At is { } time) (first, last) = (first ?? time, time);
            log.Add(e);
        }
        log.Seconds += Between(first, last);
        return log;
    }

    private static double Between(DateTime? first, DateTime? last) =>
        first is { } f && last is { } l ? Math.Max(0, (l - f).TotalSeconds) : 0;

    private void Add(LogEvent e)
    {
        switch (e)
        {
            case DuelStartEvent:
                IsDuel = true;
                break;
            case StepEvent:
                Steps++;
                break;
            case CheckpointEvent:
                HadCheckpoint = true;
                break;
            case ResumedEvent:
                End = null;
                Tests.Remove(TestEvent.Tuned); // tested anew at the end
                break;
            case EvalFailedEvent failed:
                EvalFailed = failed.Error ?? "The evaluation gave no numbers.";
                break;
            case RunEndEvent end:
                End = end;
                break;
            case TestEvent { Stage: { } stage } test:
                Tests[stage] = test;
                break;
            case BestEvent { Files: { } files } best:
                Best.Add((best.Step, files));
                break;
        }
    }
}
