using System.Diagnostics;

namespace Headroom.Cpu;

/// <summary>
/// Fork-join over a fixed set of threads without any allocation per call: work is a static function pointer and a
/// context struct on the caller's stack. Parts are handed out dynamically, so results must not depend on which thread
/// runs a part. A call waits for its parts, not for its threads: a worker that the system holds back takes no part and
/// delays nobody. Idle workers spin for a moment (calls of a training step follow one another within
/// microseconds), then sleep.
/// </summary>
internal sealed unsafe class WorkerPool : IDisposable
{
    private static readonly long SpinTicks = Stopwatch.Frequency / 20_000; // 50 us
    private readonly Thread[] _threads;
    private readonly SemaphoreSlim[] _wake;
    private readonly int[] _asleep;
    private delegate*<void*, int, int, void> _work;
    private void* _context;
    private int _parts, _finished;
    // Number of the call in the high half, parts not yet taken in the low half. Taking a part is one exchange, so a
    // late worker cannot take part in a call that is over.
    private long _ticket;
    private volatile bool _stop;

    /// <summary>Starts <paramref name="threads"/> - 1 background threads; the caller is the last worker.</summary>
    public WorkerPool(int threads)
    {
        Threads = Math.Max(1, threads);
        _threads = new Thread[Threads - 1];
        _wake = new SemaphoreSlim[Threads - 1];
        _asleep = new int[Threads - 1];
        for (int i = 0; i < _threads.Length; i++)
        {
            int worker = i + 1;
            _wake[i] = new SemaphoreSlim(0);
            _threads[i] = new Thread(() => Loop(worker)) { IsBackground = true, Name = $"headroom-{worker}" };
            _threads[i].Start();
        }
    }

    /// <summary>Number of workers, the caller included.</summary>
    public int Threads { get; }

    /// <summary>
    /// Runs work(context, part, worker) for part = 0 .. parts - 1; worker is in [0, Threads). Returns when all are
    /// done. Not reentrant.
    /// </summary>
    public void Run(delegate*<void*, int, int, void> work, void* context, int parts)
    {
        if (parts <= 1 || Threads == 1)
        {
            for (int p = 0; p < parts; p++) work(context, p, 0);
            return;
        }
        _work = work;
        _context = context;
        _parts = parts;
        _finished = 0;
        Interlocked.Exchange(ref _ticket, ((_ticket >> 32) + 1) << 32 | (uint)parts);
        for (int i = 0; i < _asleep.Length && i < parts - 1; i++)
            if (Volatile.Read(ref _asleep[i]) != 0 && Interlocked.Exchange(ref _asleep[i], 0) != 0) _wake[i].Release();
        Drain(0);
        var spin = new SpinWait();
        while (Volatile.Read(ref _finished) != parts) spin.SpinOnce(sleep1Threshold: -1);
    }

    private void Drain(int worker)
    {
        while (true)
        {
            long ticket = Volatile.Read(ref _ticket);
            int left = (int)ticket;
            if (left == 0) return;
            if (Interlocked.CompareExchange(ref _ticket, ticket - 1, ticket) != ticket) continue;
            // The part is ours, so the call cannot end and its fields stay as they are until it is finished.
            _work(_context, _parts - left, worker);
            Interlocked.Increment(ref _finished);
        }
    }

    private void Loop(int worker)
    {
        var wake = _wake[worker - 1];
        ref int asleep = ref _asleep[worker - 1];
        while (!_stop)
        {
            Drain(worker);
            long until = Stopwatch.GetTimestamp() + SpinTicks;
            while (Idle && Stopwatch.GetTimestamp() < until) Thread.SpinWait(8);
            if (!Idle) continue;
            // Say so, then look again: a call that came in between either sees the flag and releases, or is seen here.
            Interlocked.Exchange(ref asleep, 1);
            if (Idle || Interlocked.Exchange(ref asleep, 0) == 0) wake.Wait();
        }
    }

    private bool Idle => (int)Volatile.Read(ref _ticket) == 0 && !_stop;

    /// <summary>Stops the threads.</summary>
    public void Dispose()
    {
        if (_stop) return;
        _stop = true;
        foreach (var wake in _wake) wake.Release();
        foreach (var thread in _threads) thread.Join();
        foreach (var wake in _wake) wake.Dispose();
    }
}
