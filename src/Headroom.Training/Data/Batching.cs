using Headroom.Core;
using Headroom.Training.Recipes;

namespace Headroom.Training.Data;

/// <summary>
/// How the rows of an epoch make micro-batches: so many rows each, or as many as a budget of tokens holds. Either way
/// rows lie one behind the other without padding and never see one another.
/// </summary>
internal sealed class Batching
{
    private const uint Batches = 0x21000000; // stream of the random numbers
    private readonly IRowSource _rows;
    private readonly TrainingOptions _o;
    private readonly int _longest;

    /// <param name="rows">The rows.</param>
    /// <param name="options">Rows or tokens of a micro-batch, accumulation, order and seed.</param>
    /// <param name="longest">The longest row, tokens.</param>
    /// <exception cref="HeadroomException">A row is longer than the budget.</exception>
    public Batching(IRowSource rows, TrainingOptions options, int longest)
    {
        (_rows, _o, _longest) = (rows, options, longest);
        int budget = options.TokensPerDeviceBatch;
        if (budget == 0)
        {
            PerEpoch = BatchFeed.BatchesPerEpoch(rows.Count, options);
            MostRows = Math.Min(options.PerDeviceTrainBatchSize, rows.Count);
            return;
        }
        if (longest > budget)
            throw new HeadroomException(
                $"training.tokens_per_device_batch is {budget}, the longest row has {longest} tokens.",
                "Raise it, or lower task.max_seq_length.");
        // How full each is depends on the lengths alone: any epoch says it for all.
        var first = ByTokens(0);
        PerEpoch = first.Length;
        MostRows = first.Max(b => b.Length);
        MostTokens = first.Max(b => b.Sum(i => rows[i].Ids.Length));
        Filled = first.Sum(b => b.Sum(i => (double)rows[i].Ids.Length)) / ((double)budget * PerEpoch);
    }

    /// <summary>Micro-batches of an epoch.</summary>
    public int PerEpoch { get; }
    /// <summary>Most rows of one.</summary>
    public int MostRows { get; }
    /// <summary>Most sequences of one: rows may hold two each.</summary>
    public int MostSequences => MostRows * (Enumerable.Range(0, _rows.Count).Any(i => _rows[i].Split > 0) ? 2 : 1);
    /// <summary>Most tokens of one, under a budget; 0 without one.</summary>
    public int MostTokens { get; }
    /// <summary>Share of the budget that is used, on average; 0 without one.</summary>
    public double Filled { get; }
    /// <summary>Updates of an epoch: ceil(micro-batches / accumulation).</summary>
    public int StepsPerEpoch =>
        (int)Math.Max(1, ((long)PerEpoch + _o.GradientAccumulationSteps - 1) / _o.GradientAccumulationSteps);
    /// <summary>All updates: max_steps, or ceil(epochs * updates of an epoch).</summary>
    /// <exception cref="HeadroomException">They are more than can be counted.</exception>
    public int TotalSteps => BatchFeed.TotalSteps(_rows.Count, StepsPerEpoch, _o);

    /// <summary>The micro-batches of an epoch, as indices of rows; a function of seed and epoch.</summary>
    public int[][] Epoch(int epoch) =>
        _o.TokensPerDeviceBatch > 0
            ? ByTokens(epoch) : [.. BatchFeed.Order(_rows, _o, epoch).Chunk(_o.PerDeviceTrainBatchSize)];

    private int[][] ByTokens(int epoch)
    {
        int[] order = BatchFeed.Order(_rows, _o, epoch);
        return _o.TrainSamplingStrategy == SamplingStrategy.Sequential ? InOrder(order) : BestFit(order, epoch);
    }

    // As the rows come: a batch ends before the row that does not fit into it.
    private int[][] InOrder(int[] order)
    {
        var batches = new List<int[]>();
        for (int from = 0, to; from < order.Length; from = to)
        {
            int tokens = 0;
            for (to = from; to < order.Length; to++)
            {
                tokens += _rows[order[to]].Ids.Length;
                if (tokens > _o.TokensPerDeviceBatch) break;
            }
            batches.Add(order[from..to]);
        }
        return [.. batches];
    }

    // Best-fit decreasing (Johnson 1973): the longest row first, each into the fullest batch that holds it. Rows of one
    // length come in the order of the epoch, and so do the batches after a shuffle of their own.
    private int[][] BestFit(int[] order, int epoch)
    {
        var byLength = new List<int>[_longest + 1];
        foreach (int row in order) (byLength[_rows[row].Ids.Length] ??= []).Add(row);
        int budget = _o.TokensPerDeviceBatch;
        var open = new Stack<List<int>>[budget + 1]; // batches by the room that is left in them
        var rooms = new SortedSet<int>();
        var batches = new List<List<int>>();
        for (int length = _longest; length >= 0; length--)
            foreach (int row in byLength[length] ?? [])
            {
                int room = rooms.GetViewBetween(length, budget) is { Count: > 0 } fits ? fits.Min : budget;
                List<int> batch;
                if (room < budget || open[budget] is { Count: > 0 })
                {
                    batch = open[room]!.Pop();
                    if (open[room]!.Count == 0) rooms.Remove(room);
                }
                else batches.Add(batch = []);
                batch.Add(row);
                int left = room - length;
                (open[left] ??= new()).Push(batch);
                rooms.Add(left);
            }
        int[][] all = [.. batches.Select(b => b.ToArray())];
        new PhiloxRandom((ulong)(uint)_o.Seed, Batches + (uint)epoch).Shuffle<int[]>(all);
        return all;
    }
}
