using System.Globalization;
using System.Text.Json.Nodes;
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
    public JsonObject? End { get; private set; }
    /// <summary>The last results on the test rows: zero-shot and tuned.</summary>
    public Dictionary<string, JsonObject> Tests { get; } = [];
    /// <summary>Files with their hashes that <c>best/</c> was given, by step, in order.</summary>
    public List<(int Step, SortedDictionary<string, string> Files)> Best { get; } = [];
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
            string kind = (string)e["event"]!;
            if (kind is "run_start" or "resumed")
            {
                log.Seconds =
                    e["seconds_before"] is JsonValue before && before.TryGetValue(out double known)
                        ? known
                        : log.Seconds + Between(first, last);
                first = null;
            }
            if (e["time"] is JsonValue value && value.TryGetValue(out string? written)
                && DateTime.TryParse(
                    written, CultureInfo.InvariantCulture, DateTimeStyles.AdjustToUniversal, out var time)
            )
                (first, last) = (first ?? time, time);
            log.Add(kind, e);
        }
        log.Seconds += Between(first, last);
        return log;
    }

    private static double Between(DateTime? first, DateTime? last) =>
        first is { } f && last is { } l ? Math.Max(0, (l - f).TotalSeconds) : 0;

    private void Add(string kind, JsonObject e)
    {
        switch (kind)
        {
            case "duel_start":
                IsDuel = true;
                break;
            case "step":
                Steps++;
                break;
            case "checkpoint":
                HadCheckpoint = true;
                break;
            case "resumed":
                End = null;
                Tests.Remove("tuned"); // tested anew at the end
                break;
            case "eval_failed":
                EvalFailed =
                    e["error"] is JsonValue error && error.TryGetValue(out string? text)
                        ? text
                        : "The evaluation gave no numbers.";
                break;
            case "run_end":
                End = e;
                break;
            case "test" when e["stage"] is JsonValue stage && stage.TryGetValue(out string? name):
                Tests[name!] = e;
                break;
            case "best"
                when e["step"] is JsonValue step
                    && e["files"] is JsonObject files
                    && files.All(f => f.Value is JsonValue v && v.TryGetValue(out string? _)):
                Best.Add(
                    ((int)step, new(files.ToDictionary(f => f.Key, f => (string)f.Value!), StringComparer.Ordinal)));
                break;
        }
    }
}
