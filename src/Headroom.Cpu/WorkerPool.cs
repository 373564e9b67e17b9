namespace Headroom.Cpu;

/// <summary>
/// Fork-join over a fixed set of threads without any allocation per call: work is a static function pointer and a context struct on the caller's stack.
/// Parts are handed out dynamically, so results must not depend on which thread runs a part.
/// </summary>
public sealed unsafe class WorkerPool : IDisposable
{
    private readonly Thread[] _threads;
    private readonly SemaphoreSlim[] _wake;
    private delegate*<void*, int, int, void> _work;
    private void* _context;
    private int _parts, _next, _active;
    private volatile bool _stop;

    /// <summary>Starts <paramref name="threads"/> - 1 background threads; the caller is the last worker.</summary>
    public WorkerPool(int threads)
    {
        Threads = Math.Max(1, threads);
        _threads = new Thread[Threads - 1];
        _wake = new SemaphoreSlim[Threads - 1];
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

    /// <summary>Runs work(context, part, worker) for part = 0 .. parts - 1; worker is in [0, Threads). Returns when all are done. Not reentrant.</summary>
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
        _next = 0;
        Volatile.Write(ref _active, _threads.Length);
        // Workers spin for a while after a call, then sleep; release is a no-op cost of about 1 us for sleepers.
        foreach (var wake in _wake) wake.Release();
        Drain(0);
        var spin = new SpinWait();
        while (Volatile.Read(ref _active) != 0) spin.SpinOnce(sleep1Threshold: -1);
    }

    private void Drain(int worker)
    {
        int part;
        while ((part = Interlocked.Increment(ref _next) - 1) < _parts) _work(_context, part, worker);
    }

    private void Loop(int worker)
    {
        var wake = _wake[worker - 1];
        while (true)
        {
            wake.Wait();
            if (_stop) return;
            Drain(worker);
            Interlocked.Decrement(ref _active);
        }
    }

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
