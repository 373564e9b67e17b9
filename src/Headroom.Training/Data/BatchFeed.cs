using System.Collections.Concurrent;
using Headroom.Core;
using Headroom.Training.Recipes;

namespace Headroom.Training.Data;

/// <summary>
/// Rows by index, encoded when first asked for (on the feed's thread, so that tokenizing never stalls a step).
/// </summary>
internal interface IRowSource
{
    /// <summary>Number of rows.</summary>
    int Count { get; }
    /// <summary>One row.</summary>
    EncodedRow this[int index] { get; }
}

/// <summary>Rows that are already encoded.</summary>
internal sealed class RowList(IReadOnlyList<EncodedRow> rows) : IRowSource
{
    /// <inheritdoc/>
    public int Count => rows.Count;
    /// <inheritdoc/>
    public EncodedRow this[int index] => rows[index];
}

/// <summary>The micro-batches of one optimizer step. Give it back with <see cref="BatchFeed.Recycle"/>.</summary>
internal sealed class Window
{
    internal Window(int batches, int maxTokens, int rows)
    {
        Batches = new MicroBatch[batches];
        for (int i = 0; i < batches; i++) Batches[i] = new MicroBatch(maxTokens, rows);
    }

    internal MicroBatch[] Batches { get; }
    /// <summary>Micro-batches in use; the last window of an epoch may hold fewer.</summary>
    public int Count { get; internal set; }
    /// <summary>The i-th micro-batch.</summary>
    public MicroBatch this[int i] => Batches[i];
    /// <summary>Rows of the whole window.</summary>
    public long Rows { get; internal set; }
    /// <summary>Labelled tokens of the whole window.</summary>
    public long LabelCount { get; internal set; }
    /// <summary>Sum of their weights: the loss's denominator. Their number, where every weight is 1.</summary>
    public double LabelWeight { get; internal set; }
    /// <summary>Tokens of the whole window.</summary>
    public long Tokens { get; internal set; }
}

/// <summary>
/// Packs accumulation windows ahead of the trainer on one background thread, at most two ahead, in recycled buffers.
/// The order of epoch e is a permutation keyed by (seed, e); windows never cross an epoch (transformers
/// <c>trainer.py</c>), so a step number is a data position.
/// </summary>
internal sealed class BatchFeed : IDisposable
{
    private readonly IRowSource _rows;
    private readonly TrainingOptions _options;
    private readonly Batching _batching;
    private readonly BlockingCollection<Window> _ready = new(2), _free = [];
    private readonly CancellationTokenSource _stop = new();
    private readonly Thread _thread;
    private Exception? _fault;

    /// <summary>
    /// Starts packing at optimizer step <paramref name="firstStep"/>, up to <paramref name="totalSteps"/>.
    /// </summary>
    public BatchFeed(IRowSource rows, TrainingOptions options, int maxRowTokens, int firstStep, int totalSteps)
    {
        _rows = rows;
        _options = options;
        _batching = new Batching(rows, options, maxRowTokens);
        int tokens = _batching.MostTokens > 0 ? _batching.MostTokens : _batching.MostRows * maxRowTokens;
        for (int i = 0; i < 3; i++)
            _free.Add(
                new Window(
                    Math.Min(options.GradientAccumulationSteps, _batching.PerEpoch), tokens, _batching.MostSequences)
            ); // an epoch holds no more
        _thread = new Thread(() => Pack(firstStep, totalSteps)) { IsBackground = true, Name = "headroom-feed" };
        _thread.Start();
    }

    /// <summary>Micro-batches an epoch: ceil(rows / batch).</summary>
    public static int BatchesPerEpoch(int rows, TrainingOptions o) =>
        (int)(((long)rows + o.PerDeviceTrainBatchSize - 1) / o.PerDeviceTrainBatchSize);

    /// <summary>All updates: max_steps, or ceil(epochs * updates per epoch).</summary>
    public static int TotalSteps(int rows, int stepsPerEpoch, TrainingOptions o) =>
        o.MaxSteps > 0 ? o.MaxSteps
        : Math.Ceiling(o.NumTrainEpochs * stepsPerEpoch) is var steps && steps <= int.MaxValue ? (int)steps
        : throw new Core.HeadroomException(
            $"num_train_epochs {o.NumTrainEpochs} of {rows} rows are more updates than can be counted.",
            "Set fewer epochs, or max_steps.");

    /// <summary>The order of an epoch.</summary>
    public static int[] Order(IRowSource rows, TrainingOptions o, int epoch)
    {
        int[] order = Enumerable.Range(0, rows.Count).ToArray();
        if (o.TrainSamplingStrategy == SamplingStrategy.Sequential) return order;
        var random = new PhiloxRandom((ulong)(uint)o.Seed, 0x20000000 + (uint)epoch);
        random.Shuffle<int>(order);
        if (o.TrainSamplingStrategy != SamplingStrategy.GroupByLength) return order;
        // transformers trainer_pt_utils.py: sort by length within mega-batches, longest first, and the longest of all
        // to the front.
        int batch = (int)
            Math.Min((long)o.PerDeviceTrainBatchSize * o.GradientAccumulationSteps, Math.Max(1, rows.Count));
        int mega = batch * (int)Math.Max(1, Math.Min(rows.Count / (batch * 4L), 50));
        for (int i = 0; i < order.Length; i += mega)
            Array.Sort(order, i, Math.Min(mega, order.Length - i), Comparer<int>.Create((a, b) =>
                        rows[b].Ids.Length != rows[a].Ids.Length
                            ? rows[b].Ids.Length.CompareTo(rows[a].Ids.Length)
                            : a.CompareTo(b)
                )
            );
        int longest = 0;
        for (int i = 1; i < order.Length; i++)
            if (rows[order[i]].Ids.Length > rows[order[longest]].Ids.Length) longest = i;
        if (order.Length > 0) (order[0], order[longest]) = (order[longest], order[0]);
        return order;
    }

    /// <summary>The next window; throws what the packing thread threw.</summary>
    public Window Next()
    {
        try
        {
            return _ready.Take();
        }
        catch (InvalidOperationException) when (_fault != null)
        {
            throw _fault is HeadroomException h
                ? new HeadroomException(h.Message, h.ToDo, h.ExitCode, h)
                : new InvalidOperationException(_fault.Message, _fault);
        }
    }

    /// <summary>Gives a window's buffers back.</summary>
    public void Recycle(Window window) => _free.Add(window);

    private void Pack(int step, int total)
    {
        try
        {
            int perEpoch = _batching.StepsPerEpoch, epoch = -1;
            int[][] batches = [];
            for (; step < total; step++)
            {
                if (step / perEpoch != epoch) batches = _batching.Epoch(epoch = step / perEpoch);
                var window = _free.Take(_stop.Token);
                int first = step % perEpoch * _options.GradientAccumulationSteps;
                window.Count = Math.Min(_options.GradientAccumulationSteps, batches.Length - first);
                window.LabelCount = window.Tokens = window.Rows = 0;
                window.LabelWeight = 0;
                for (int b = 0; b < window.Count; b++)
                {
                    var batch = window.Batches[b];
                    batch.Clear();
                    foreach (int row in batches[first + b]) batch.Add(_rows[row]);
                    window.Rows += batch.Rows.Count;
                    window.LabelCount += batch.LabelCount;
                    window.LabelWeight += batch.LabelWeight;
                    window.Tokens += batch.Tokens;
                }
                _ready.Add(window, _stop.Token);
            }
        }
        catch (OperationCanceledException)
        {
        }
        catch (Exception e)
        {
            _fault = e;
        }
        finally
        {
            _ready.CompleteAdding();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _stop.Cancel();
        _thread.Join();
        _ready.Dispose();
        _free.Dispose();
        _stop.Dispose();
    }
}
