using System.Diagnostics;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Formats;

namespace Headroom.Cli;

/// <summary>
/// Ends a process that was told to stop and does not: work obeys a stop between two pieces of it, but a piece may be
/// large, and a thread that reads from a disk that stalls cannot be interrupted. It waits for as long as something
/// would be lost (<see cref="Hold"/>), and a moment longer for work that is unwinding already.
/// </summary>
internal sealed partial class StopWatch
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(1.5),
        Unwinding = TimeSpan.FromSeconds(5),
        Cleaning = TimeSpan.FromSeconds(0.4);
    private readonly Lock _gate = new();
    private readonly List<Action> _clean = [];
    private int _holds, _round;
    private bool _stopped;
    private long _since; // when the work was told to stop, or could first obey

    /// <summary>
    /// The process has been told to stop. <paramref name="endLine"/> ends a line of progress before something is said.
    /// </summary>
    public void Start(Action endLine)
    {
        lock (_gate)
        {
            if (_stopped) return;
            _stopped = true;
            _since = Stopwatch.GetTimestamp();
            int round = ++_round;
            // of its own: the pool's may all be busy
            new Thread(() => Watch(round, endLine)) { IsBackground = true, Name = "stop" }.Start();
        }
    }

    /// <summary>The user goes on: what was stopped has ended.</summary>
    public void Reset()
    {
        lock (_gate) (_stopped, _round) = (false, _round + 1);
    }

    /// <summary>Until it is disposed, the process is not ended.</summary>
    /// <exception cref="HeadroomException">It was told to stop already.</exception>
    public IDisposable Hold()
    {
        lock (_gate)
        {
            if (_stopped) throw new StoppedException("Run it again; nothing was written.");
            _holds++;
            return new Held(this);
        }
    }

    /// <summary>Adds something that is done before the process is ended.</summary>
    public void BeforeLeaving(Action clean)
    {
        lock (_gate) _clean.Add(clean);
    }

    private void Watch(int round, Action endLine)
    {
        bool unwinding = false;
        void Note(object? sender, FirstChanceExceptionEventArgs e) =>
            unwinding |= e.Exception is OperationCanceledException or StoppedException;
        AppDomain.CurrentDomain.FirstChanceException += Note;
        try
        {
            while (true)
            {
                Thread.Sleep(10);
                lock (_gate)
                {
                    if (_round != round) return;
                    if (_holds > 0 || Stopwatch.GetElapsedTime(_since) < (unwinding ? Unwinding : Patience)) continue;
                    Leave(endLine);
                }
            }
        }
        finally
        {
            AppDomain.CurrentDomain.FirstChanceException -= Note;
        }
    }

    private void Leave(Action endLine)
    {
        bool cleaned = false;
        var clean = new Thread(() => // the disk may be what stalls
        {
            Temporary.Abandon();
            FolderLock.Abandon();
            foreach (var c in _clean) c();
            cleaned = true;
        })
        { IsBackground = true };
        clean.Start();
        clean.Join(Cleaning);
        endLine();
        Console.Error.WriteLine("error: Stopped.");
        Console.Error.WriteLine(
            Volatile.Read(ref cleaned)
                ? "  Run it again; nothing was left behind."
                : "  Run it again; what was half written goes with the next write into that folder."
        );
        if (OperatingSystem.IsWindows()) Environment.Exit(1);
        Exit(1); // not exit(3): its handlers, a driver's above all, may wait for what does not end
    }

    private sealed class Held(StopWatch watch) : IDisposable
    {
        public void Dispose()
        {
            lock (watch._gate)
            {
                watch._holds--;
                watch._since = Stopwatch.GetTimestamp();
            }
        }
    }

    [LibraryImport("libc", EntryPoint = "_exit")]
    private static partial void Exit(int code);
}
