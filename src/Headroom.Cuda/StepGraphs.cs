using System.Runtime.ExceptionServices;
using Headroom.Core;
using Headroom.Cuda.Interop;
using Headroom.Cuda.Resources;

namespace Headroom.Cuda;

/// <summary>
/// Micro-steps as CUDA graphs: the first of a shape is issued launch by launch (kernels are loaded, algorithms chosen,
/// the order of weights learned), the second is recorded, later ones are replayed. Between two micro-steps of a shape
/// only the batch, the dropout step and the gradient scale differ; all are in device memory. Whatever fails in
/// recording or replaying turns graphs off for good, and the micro-step is issued launch by launch.
/// </summary>
internal sealed class StepGraphs(Gpu gpu, CudaOps ops) : IDisposable
{
    /// <summary>
    /// Graphs at a time: the common ones of the sizes that ragged batches are padded to; others are issued.
    /// </summary>
    public const int MostGraphs = 16;
    private const int MostShapes = 1024;
    private const long IdleSteps = 16 * MostGraphs; // a graph that was not used for so long makes room for another

    private sealed class Shape
    {
        public CudaGraph? Graph;
        public long Used, Bytes;
    }

    private readonly record struct Step(
        Shape Shape, StepShape Key, StepReplay Replay, uint DropoutStep, float GradScale);

    private readonly Dictionary<StepShape, Shape> _shapes = [];
    private readonly List<long> _sizes = [];
    private long _steps, _bytes, _weights;
    private int _graphs;
    private bool _full;
    private Step _recording;
    private long _began;

    /// <summary>Micro-steps that were replayed.</summary>
    public long Replays { get; private set; }
    /// <summary>Micro-steps that were recorded.</summary>
    public long Records { get; private set; }
    /// <summary>Device memory that each record took.</summary>
    public IReadOnlyList<long> Sizes => _sizes;
    /// <summary>Time that recording took.</summary>
    public TimeSpan RecordTime { get; private set; }
    /// <summary>The most device memory that all graphs took, by the fall of the driver's free bytes.</summary>
    public long PeakBytes { get; private set; }
    /// <summary>Why graphs are off, or null.</summary>
    public string? Failure { get; private set; }
    /// <summary>False issues every micro-step launch by launch; for tests and comparisons.</summary>
    public bool On { get; set; } = true;
    /// <summary>Called while a micro-step is recorded; for tests.</summary>
    public Action? WhileRecording { get; set; }
    /// <summary>Records expand weights ahead as those of large models do; for tests.</summary>
    public bool Ahead { get; set; }

    /// <inheritdoc cref="IReplaysSteps.Begin"/>
    public StepStart Begin(in StepShape key, in StepReplay replay, uint dropoutStep, float gradScale)
    {
        _steps++;
        bool on = On && Failure == null;
        if (_weights != ops.Weights)
        {
            if (_graphs > 0) gpu.Main.Synchronize();
            Dispose();
            _weights = ops.Weights;
        }
        if (on && _shapes.TryGetValue(key, out var shape))
        {
            shape.Used = _steps;
            if (shape.Graph == null && Room(replay.Bytes))
                return BeginRecord(new Step(shape, key, replay, dropoutStep, gradScale))
                    ? StepStart.Record
                    : StepStart.Issue;
            if (shape.Graph != null && Replay(shape.Graph, key, dropoutStep, gradScale)) return StepStart.Replayed;
        }
        else if (on)
        {
            if (_shapes.Count >= MostShapes)
                foreach (var (k, s) in _shapes)
                    if (s.Graph == null) _shapes.Remove(k);
            _shapes[key] = new Shape { Used = _steps };
        }
        return StepStart.Issue;
    }

    private bool Replay(CudaGraph graph, in StepShape key, uint dropoutStep, float gradScale)
    {
        try
        {
            ops.BeginStep(key.Seed, dropoutStep, gradScale);
            graph.Launch(gpu.Main);
            gpu.IssuedReplay(key.Tokens);
            Replays++;
            return true;
        }
        catch (CudaException e)
        {
            Fail(e);
            return false;
        }
    }

    private bool BeginRecord(in Step step)
    {
        _began = System.Diagnostics.Stopwatch.GetTimestamp();
        try
        {
            ops.BeginStep(step.Key.Seed, step.DropoutStep, step.GradScale);
            // Relaxed: a library that loads a kernel or asks for memory does not spoil the record.
            CudaException.Check(
                Driver.cuStreamBeginCapture(gpu.Main.Value, Driver.CaptureRelaxed), nameof(Driver.cuStreamBeginCapture)
            );
        }
        catch (CudaException e)
        {
            ops.DropStep();
            Fail(e);
            return false;
        }
        _recording = step;
        gpu.Recording = true;
        ops.ExpandsAhead = Ahead || !step.Replay.FewShapes;
        return true;
    }

    /// <inheritdoc cref="IReplaysSteps.EndRecord"/>
    public bool EndRecord(Exception? failure)
    {
        var step = _recording;
        nint recorded = 0;
        try
        {
            int status;
            try
            {
                if (failure == null)
                {
                    ops.AdaptersChanged();
                    WhileRecording?.Invoke();
                }
            }
            finally
            {
                gpu.Recording = false;
                ops.ExpandsAhead = true;
                status = Driver.cuStreamEndCapture(gpu.Main.Value, out recorded);
            }
            if (failure != null) ExceptionDispatchInfo.Throw(failure);
            CudaException.Check(status, nameof(Driver.cuStreamEndCapture));
            Keep(step.Shape, recorded, step.Replay.Bytes);
        }
        catch (Exception e) // whatever it is, issuing the micro-step shows whether it was recording that failed
        {
            ops.DropStep();
            Fail(e);
        }
        finally
        {
            if (recorded != 0) _ = Driver.cuGraphDestroy(recorded);
            RecordTime += System.Diagnostics.Stopwatch.GetElapsedTime(_began);
        }
        return step.Shape.Graph != null && Replay(step.Shape.Graph, step.Key, step.DropoutStep, step.GradScale);
    }

    private void Keep(Shape shape, nint recorded, long most)
    {
        long before = FreeBytes();
        shape.Graph = CudaGraph.Instantiate(recorded, gpu.Main);
        gpu.Main.Synchronize();
        shape.Bytes = Math.Max(0, before - FreeBytes());
        _sizes.Add(shape.Bytes);
        _bytes += shape.Bytes;
        PeakBytes = Math.Max(PeakBytes, _bytes);
        _graphs++;
        Records++;
        if (_bytes <= most) return;
        string took = $"{shape.Bytes / 1048576.0:F0} MiB";
        Drop(shape); // the plan does not count so much
        _full = true;
        if (_graphs == 0)
            Failure =
                $"CUDA graphs are off, micro-steps are issued launch by launch: one took {took} of the device "
                    + $"where the plan counts {most / 1048576.0:F0} MiB.";
    }

    // Another graph fits the counts, perhaps after the one that was idle longest has gone.
    private bool Room(long most)
    {
        if (!_full && _graphs < MostGraphs && _bytes + _bytes / Math.Max(1, _graphs) <= most) return true;
        Shape? idle = null;
        foreach (var s in _shapes.Values)
            if (s.Graph != null && (idle == null || s.Used < idle.Used)) idle = s;
        if (idle == null || _steps - idle.Used < IdleSteps) return false;
        gpu.Main.Synchronize();
        Drop(idle);
        _full = false;
        return true;
    }

    private void Drop(Shape shape)
    {
        shape.Graph!.Dispose();
        shape.Graph = null;
        _bytes -= shape.Bytes;
        _graphs--;
    }

    private void Fail(Exception e)
    {
        Failure = $"CUDA graphs are off, micro-steps are issued launch by launch: {e.Message}";
        _ = Driver.cuStreamSynchronize(gpu.Main.Value); // a graph may still be running
        Dispose();
    }

    private static long FreeBytes() => Driver.cuMemGetInfo(out nuint free, out _) == 0 ? (long)free : 0;

    public void Dispose()
    {
        foreach (var s in _shapes.Values)
        {
            s.Graph?.Dispose();
            s.Graph = null;
        }
        _shapes.Clear();
        _bytes = _graphs = 0;
    }
}
