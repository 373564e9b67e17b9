using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;

namespace Headroom.Core;

/// <summary>
/// Threads that yield to the rest of the process. .NET's thread priorities do nothing on Linux; there a thread has a nice value of its own (setpriority(2)),
/// and 10 more of it give it about a tenth of a processor that another thread wants.
/// </summary>
public static partial class LowPriority
{
    private const int Nice = 10;

    /// <summary>Runs work(0 .. count - 1), one piece a thread, at most as many as there are processors; returns when all are done. The first exception comes out as it is.</summary>
    public static void Run(int count, Action<int> work)
    {
        int next = -1;
        ExceptionDispatchInfo? failed = null;
        var threads = new Thread[Math.Min(count, Environment.ProcessorCount)];
        for (int t = 0; t < threads.Length; t++)
        {
            threads[t] = new Thread(() =>
            {
                if (OperatingSystem.IsLinux()) _ = SetPriority(0, 0, Math.Min(19, GetPriority(0, 0) + Nice)); // of the calling thread; refused = as before
                try
                {
                    for (int i; Volatile.Read(ref failed) == null && (i = Interlocked.Increment(ref next)) < count;) work(i);
                }
                catch (Exception e)
                {
                    Interlocked.CompareExchange(ref failed, ExceptionDispatchInfo.Capture(e), null);
                }
            }) { IsBackground = true, Priority = ThreadPriority.BelowNormal, Name = "headroom-low" };
            threads[t].Start();
        }
        foreach (var thread in threads) thread.Join();
        failed?.Throw();
    }

    [LibraryImport("libc", EntryPoint = "getpriority")]
    private static partial int GetPriority(int which, uint who);
    [LibraryImport("libc", EntryPoint = "setpriority")]
    private static partial int SetPriority(int which, uint who, int value);
}
