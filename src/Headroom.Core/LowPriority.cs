using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;

namespace Headroom.Core;

/// <summary>
/// Threads that yield to the rest of the process. .NET's thread priorities do nothing on Linux; there a thread has a
/// nice value of its own (setpriority(2)), and 10 more of it give it about a tenth of a processor that another thread
/// wants.
/// </summary>
internal static partial class LowPriority
{
    private const int Nice = 10, Few = 4;
    private static int s_held;

    /// <summary>
    /// Runs work(0 .. count - 1), one piece a thread, at most as many as there are processors; returns when all are
    /// done. The first exception comes out as it is.
    /// </summary>
    public static void Run(int count, Action<int> work)
    {
        int next = -1;
        ExceptionDispatchInfo? failed = null;
        var threads = new Thread[Math.Min(count, Environment.ProcessorCount)];
        for (int t = 0; t < threads.Length; t++)
        {
            threads[t] = new Thread(() =>
            {
                if (OperatingSystem.IsLinux())
                    // of the calling thread; refused = as before
                    _ = SetPriority(0, 0, Math.Min(19, GetPriority(0, 0) + Nice));
                try
                {
                    for (int i; Volatile.Read(ref failed) == null && (i = Interlocked.Increment(ref next)) < count;)
                        work(i);
                }
                catch (Exception e)
                {
                    Interlocked.CompareExchange(ref failed, ExceptionDispatchInfo.Capture(e), null);
                }
            })
            { IsBackground = true, Priority = ThreadPriority.BelowNormal, Name = "headroom-low" };
            threads[t].Start();
        }
        foreach (var thread in threads) thread.Join();
        failed?.Throw();
    }

    /// <summary>
    /// Until the result is disposed, work of low priority waits at its next <see cref="Step"/>, where
    /// <paramref name="processors"/> are so few that it would be in the way even so: a fork-join waits for its slowest
    /// part. Nothing that waits for such work may be inside.
    /// </summary>
    public static IDisposable Hold(int processors)
    {
        int held = processors <= Few ? 1 : 0;
        Interlocked.Add(ref s_held, held);
        return new Held(held);
    }

    /// <summary>Between two pieces of work: goes on when nothing holds it.</summary>
    public static void Step()
    {
        while (Volatile.Read(ref s_held) > 0) Thread.Sleep(1);
    }

    private sealed class Held(int count) : IDisposable
    {
        private int _count = count;

        public void Dispose() => Interlocked.Add(ref s_held, -Interlocked.Exchange(ref _count, 0));
    }

    [LibraryImport("libc", EntryPoint = "getpriority")]
    private static partial int GetPriority(int which, uint who);
    [LibraryImport("libc", EntryPoint = "setpriority")]
    private static partial int SetPriority(int which, uint who, int value);
}
