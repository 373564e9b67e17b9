namespace Headroom.Core;

/// <summary>
/// Times the ops that one thread issues, by the names that <c>PlanningOps</c> counts under. Every op opens a scope with
/// its name, which costs a look at a static field while nobody measures; an op within another is a part of it.
/// </summary>
/// <param name="clock">The device's clock, or another.</param>
internal sealed class OpTimer(IClock clock)
{
    [ThreadStatic] private static OpTimer? _current;
    private readonly Dictionary<string, (int Calls, double Milliseconds)> _times = [];
    private int _depth;
    private long _start;

    /// <summary>True while this thread's ops are timed: they must be issued one by one.</summary>
    public static bool IsOn => _current != null;

    /// <summary>Calls and milliseconds by op.</summary>
    public IReadOnlyDictionary<string, (int Calls, double Milliseconds)> Times => _times;

    /// <summary>Times what this thread issues from here on.</summary>
    public void Start() => _current = this;

    /// <summary>Times nothing any more.</summary>
    public static void Stop() => _current = null;

    /// <summary>Forgets what was timed.</summary>
    public void Clear() => _times.Clear();

    /// <summary>An op begins; it ends where the scope does.</summary>
    public static Scope Op(string name) => new(_current, name);

    /// <summary>
    /// The counted ops that a timed one stands for: the adapters of a group and the residual are timed with its
    /// products.
    /// </summary>
    public static IReadOnlyList<string> Counted(string op) => op switch
    {
        "linear" => ["linear", "lora", "add"],
        "linear_backward_input" => ["linear_backward_input", "lora_backward"],
        "lora_backward" or "lora" or "add" => [],
        _ => [op],
    };

    private void Begin()
    {
        if (_depth++ == 0) _start = clock.Start();
    }

    private void End(string name)
    {
        if (--_depth > 0) return;
        double ms = clock.Stop(_start);
        var (calls, before) = _times.GetValueOrDefault(name);
        _times[name] = (calls + 1, before + ms);
    }

    /// <summary>An op at work.</summary>
    public readonly ref struct Scope : IDisposable
    {
        private readonly OpTimer? _timer;
        private readonly string _name;

        internal Scope(OpTimer? timer, string name)
        {
            (_timer, _name) = (timer, name);
            timer?.Begin();
        }

        /// <inheritdoc/>
        public void Dispose() => _timer?.End(_name);
    }
}
