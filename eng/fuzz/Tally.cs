using System.Diagnostics;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Headroom.Fuzz;

/// <summary>What came of the cases.</summary>
internal enum Outcome
{
    /// <summary>The same result on both sides.</summary>
    Agreed,
    /// <summary>Both sides fail.</summary>
    BothFail,
    /// <summary>Refused here by the name of what is not supported; the peer has a result.</summary>
    Refused,
    /// <summary>The peer crashed or took too long.</summary>
    NoVerdict,
    Different,
}

/// <summary>Counts outcomes, keeps the differences and prints.</summary>
internal sealed class Tally(string what, string? file, int most)
{
    private static readonly JsonSerializerOptions Pretty = new()
    {
        WriteIndented = true,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };
    private readonly long[] _counts = new long[5];
    private readonly Dictionary<string, long> _reasons = [];
    private readonly Stopwatch _watch = Stopwatch.StartNew();
    private readonly List<JsonObject> _differences = [];

    public long this[Outcome o] => _counts[(int)o];
    public long Agreed => this[Outcome.Agreed] + this[Outcome.BothFail];
    public bool Full => _differences.Count >= most;
    public void Add(Outcome o, long n = 1) => _counts[(int)o] += n;

    /// <summary>Counts a refusal by its reason without the names of the case.</summary>
    public void Refused(string reason, long n = 1)
    {
        Add(Outcome.Refused, n);
        _reasons[reason] = _reasons.GetValueOrDefault(reason) + n;
    }

    public void Difference(JsonObject shown)
    {
        Add(Outcome.Different);
        if (Full) return;
        _differences.Add(shown);
        Console.WriteLine(shown.ToJsonString(Pretty));
        if (file != null) File.AppendAllText(file, shown.ToJsonString() + "\n");
    }

    public void Progress() => Console.WriteLine(Line());

    public string Line()
    {
        double seconds = _watch.Elapsed.TotalSeconds;
        long all = _counts.Sum();
        string judged = $"{this[Outcome.Agreed]:N0} agree, {this[Outcome.BothFail]:N0} fail on both sides";
        string open = $"{this[Outcome.Refused]:N0} refused by name, {this[Outcome.NoVerdict]:N0} without a verdict";
        return $"{what}: {all:N0} cases, {judged}, {open}, {this[Outcome.Different]:N0} different; "
            + $"{all / seconds:N0} a second";
    }

    public void Reasons()
    {
        var text = new StringBuilder();
        foreach (var (reason, n) in _reasons.OrderByDescending(r => r.Value).Take(60))
            text.AppendLine(FormattableString.Invariant($"  {n,9:N0}  {reason}"));
        Console.Write(text);
    }
}
