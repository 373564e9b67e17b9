using Headroom.Cpu;

namespace Headroom.Tests.Cpu;

public sealed unsafe class WorkerPoolTests
{
    private struct Job
    {
        public int* Seen;
        public int Threads, Wrong;
    }

    private static void Part(void* context, int part, int worker)
    {
        var j = (Job*)context;
        if (worker < 0 || worker >= j->Threads) Interlocked.Increment(ref j->Wrong);
        Interlocked.Increment(ref j->Seen[part]);
    }

    /// <summary>
    /// Many short calls, back to back and after pauses in which the workers fall asleep: every part runs exactly once.
    /// </summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(7)]
    public void EveryPartRunsOnce(int threads)
    {
        using var pool = new WorkerPool(threads);
        int* seen = stackalloc int[200];
        for (int round = 0; round < 3000; round++)
        {
            int parts = round * 31 % 200;
            new Span<int>(seen, 200).Clear();
            var job = new Job { Seen = seen, Threads = threads };
            pool.Run(&Part, &job, parts);
            Assert.Equal(0, job.Wrong);
            for (int i = 0; i < 200; i++) Assert.Equal(i < parts ? 1 : 0, seen[i]);
            if (round % 500 == 0) Thread.Sleep(5);
        }
    }
}
