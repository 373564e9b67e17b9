using System.Diagnostics;
using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Cuda;
using Headroom.Formats.Hub;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;

namespace Headroom.Cli;

/// <summary>
/// What long commands share: the device, progress lines, and stopping on Ctrl+C, SIGTERM and SIGHUP (see
/// <see cref="StopWatch"/>).
/// </summary>
internal sealed class Session : IDisposable
{
    private CancellationTokenSource _stop = new();
    private bool _waiting, _terminated;
    private Action? _leaving;
    private readonly PosixSignalRegistration[] _signals;
    private readonly bool _terminal = !Console.IsOutputRedirected;
    private readonly TextWriter _out;
    private readonly Stopwatch _since = new();
    private string _what = "";
    private long _shownAt, _first;
    private bool _line, _saidDevice;

    /// <summary>Progress goes to standard output, unless that is the result alone.</summary>
    /// <param name="json">The result is JSON.</param>
    /// <param name="text">The result is the text of a model.</param>
    public Session(bool json, bool text = false)
    {
        _out = json || text ? Console.Error : Console.Out;
        if (json || text && Console.IsErrorRedirected) _terminal = false;
        // A terminal or ssh line that is lost sends SIGHUP; under nohup it is ignored, and the runtime leaves it so.
        PosixSignal[] signals = [PosixSignal.SIGINT, PosixSignal.SIGTERM, PosixSignal.SIGHUP];
        _signals = [.. signals.Select(s => PosixSignalRegistration.Create(s, Stop))];
    }

    private readonly StopWatch _watch = new();

    private HubStore? _hub;

    /// <summary>The hub, for names that are no local path; nothing is asked of the network before it is used.</summary>
    public HubStore Hub => _hub ??= new HubStore(HubSettings.FromEnvironment(), Say, Progress);

    /// <summary>
    /// A model's path: the given one, or for a hub name (org/name, org/name@revision) the folder it was downloaded to.
    /// </summary>
    public string Model(string path) => HubName.IsMeant(path) ? Hub.Model(path, Token) : path;

    /// <summary>Set by Ctrl+C, SIGTERM and SIGHUP.</summary>
    public CancellationToken Token => _stop.Token;

    private void Stop(PosixSignalContext context)
    {
        if (context.Signal != PosixSignal.SIGINT) _terminated = true;
        // the second signal ends the process, and the first one while there is nothing to lose
        context.Cancel = !_stop.IsCancellationRequested && !_waiting;
        if (context.Cancel) _watch.Start(EndLine);
        else _leaving?.Invoke();
        _stop.Cancel();
    }

    /// <summary>
    /// Until it is disposed, the work itself obeys a stop, however long that takes: something would be lost otherwise.
    /// A stop that came before ends the command here.
    /// </summary>
    public IDisposable Hold() => _watch.Hold();

    /// <summary>
    /// What is done before the process ends because its work did not obey a stop; a finally does not run then.
    /// </summary>
    public void BeforeLeaving(Action clean) => _watch.BeforeLeaving(clean);

    /// <summary>
    /// Until it is disposed, a signal ends the process: nothing is running that could be lost. One that came before
    /// ends the command here.
    /// </summary>
    /// <param name="leaving">Is done before a signal ends the process, which runs no finally.</param>
    public IDisposable Waiting(Action? leaving = null)
    {
        _leaving = leaving;
        _waiting = true;
        if (_stop.IsCancellationRequested) throw new StoppedException("Run it again; nothing was written.");
        return new Waits(this);
    }

    private sealed class Waits(Session session) : IDisposable
    {
        public void Dispose()
        {
            session._waiting = false;
            session._leaving = null;
        }
    }

    /// <summary>After Ctrl+C, makes <see cref="Token"/> fresh; false when the process was told to end.</summary>
    public bool Rearm()
    {
        if (_terminated) return false;
        if (_stop.IsCancellationRequested) _stop = new CancellationTokenSource();
        _watch.Reset();
        return true;
    }

    /// <summary>Opens auto, cpu or cuda; <paramref name="graphs"/> as training.cuda_graphs.</summary>
    public IDevice Open(string device, bool? graphs = null)
    {
        if (device is not ("auto" or "cpu" or "cuda"))
            throw new HeadroomException($"--device {device} is unknown.", "Use auto, cpu or cuda.");
        if (device == "cpu") return CpuBackend.Open();
        var gpu = CudaBackend.TryOpen(out string why, new CudaOptions(Graphs: graphs));
        if (gpu != null) return gpu;
        string[] lines = why.Split('\n');
        if (device == "cuda")
            throw new HeadroomException(lines[0], lines.Length > 1 ? lines[1] : "Run with --device cpu.");
        if (!_saidDevice) Say($"device: CPU ({lines[0].TrimEnd('.')})");
        _saidDevice = true;
        return CpuBackend.Open();
    }

    /// <summary>A line of its own.</summary>
    public void Say(string text)
    {
        EndLine();
        _out.WriteLine(Printable.Lines(text));
    }

    /// <summary>
    /// Progress with rate and time left: one line that is rewritten on a terminal, a plain line every few seconds
    /// elsewhere.
    /// </summary>
    public void Progress(string what, long done, long total, string figure)
    {
        if (what != _what)
        {
            EndLine();
            _what = what;
            _first = done;
            _shownAt = long.MinValue;
            _since.Restart();
        }
        double seconds = _since.Elapsed.TotalSeconds;
        long bucket = (long)(seconds / (_terminal ? 0.2 : 10));
        if (bucket == _shownAt && done != total) return;
        if (!_terminal && seconds < 2 && done != total) return;
        if (!_terminal && done == total && seconds < 2) return;
        _shownAt = bucket;
        string left =
            done > _first && done < total
                ? $", {TimeSpan.FromSeconds((total - done) * seconds / (done - _first)):hh\\:mm\\:ss} left"
                : "";
        string text = $"{what} {done}/{total}{left}{(figure.Length > 0 ? ", " + figure : "")}";
        if (!_terminal)
        {
            _out.WriteLine(text);
            return;
        }
        int width = Math.Max(20, Console.WindowWidth - 1);
        _out.Write("\r" + (text.Length > width ? text[..width] : text.PadRight(width)));
        _line = true;
    }

    /// <summary>Ends a line of progress, before something else is written to the terminal.</summary>
    public void EndLine()
    {
        if (_line) _out.WriteLine();
        _line = false;
    }

    /// <summary>A run's host.</summary>
    public RunHost Host(string folder, bool resume, Recipe recipe) =>
        new(
            folder, resume, () => Open(recipe.Device.Word(), recipe.Training.CudaGraphs),
            recipe.Vram == null ? null : Units.Parse(recipe.Vram), Say, Progress)
        {
            Hold = Hold,
            Command = [.. Environment.GetCommandLineArgs().Skip(1)],
        };

    /// <inheritdoc/>
    public void Dispose()
    {
        EndLine();
        _hub?.Dispose();
        foreach (var s in _signals) s.Dispose();
        _stop.Dispose();
    }
}
