using System.Runtime.ExceptionServices;

namespace Headroom.Core;

/// <summary>
/// Pieces of work that a few threads of the pool take in turn: copies and reads, which need no fixed order.
/// </summary>
internal static class Lanes
{
    /// <summary>
    /// Threads that together copy at the speed of the memory: half of the processors, at least one, at most
    /// <paramref name="most"/>.
    /// </summary>
    public static int Count(int most) => Math.Clamp((Environment.ProcessorCount + 1) / 2, 1, most);

    /// <summary>
    /// Pieces of at most <paramref name="each"/> that <paramref name="total"/> is cut into, whatever its size.
    /// </summary>
    public static int Pieces(long total, long each) => checked((int)((total + each - 1) / each));

    /// <summary>
    /// Runs work(lane, piece) for every piece in [0, <paramref name="pieces"/>); a lane in [0,
    /// <paramref name="lanes"/>) runs one piece at a time. Returns when all are done. The first exception ends the rest
    /// and comes out as it is.
    /// </summary>
    public static void Run(int lanes, int pieces, Action<int, int> work)
    {
        if (lanes <= 1 || pieces <= 1)
        {
            for (int piece = 0; piece < pieces; piece++) work(0, piece);
            return;
        }
        int next = -1;
        ExceptionDispatchInfo? failed = null;
        Parallel.For(0, Math.Min(lanes, pieces), lane =>
        {
            try
            {
                for (
                    int piece;
                    Volatile.Read(ref failed) == null && (piece = Interlocked.Increment(ref next)) < pieces;

                )
                    work(lane, piece);
            }
            catch (Exception e)
            {
                Interlocked.CompareExchange(ref failed, ExceptionDispatchInfo.Capture(e), null);
            }
        });
        failed?.Throw();
    }
}
