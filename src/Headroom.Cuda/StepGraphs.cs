using Headroom.Core;
using Headroom.Cuda.Interop;
using Headroom.Cuda.Resources;

namespace Headroom.Cuda;

/// <summary>
/// Micro-steps as CUDA graphs: the first of a shape is issued launch by launch (kernels are loaded, algorithms chosen, the order of weights learned), the
/// second is recorded, later ones are replayed. Between two micro-steps of a shape only the batch, the dropout step and the gradient scale differ; all are
/// in device memory. Whatever fails in recording or replaying turns graphs off for good, and the micro-step is issued launch by launch.
/// </summary>
internal sealed class StepGraphs(Gpu gpu, CudaOps ops) : IDisposable
{
    /// <summary>Device memory that all graphs may take together, counted in the plan.</summary>
    public const long MostBytes = 32L << 20;
    private const int MostGraphs = 32, MostShapes = 1024;
    private const long IdleSteps = 8 * MostGraphs; // a graph that was not used for so long makes room for another

    private sealed class Shape
    {
        public CudaGraph? Graph;
        public long Used, Bytes;
    }

    private readonly Dictionary<StepShape, Shape> _shapes = [];
    private long _steps, _bytes, _largest;
    private int _graphs;

    /// <summary>Micro-steps that were replayed.</summary>
    public long Replays { get; private set; }
    /// <summary>Micro-steps that were recorded.</summary>
    public long Records { get; private set; }
    /// <summary>The most device memory that all graphs took, by the fall of the driver's free bytes.</summary>
    public long PeakBytes { get; private set; }
    /// <summary>Why graphs are off, or null.</summary>
    public string? Failure { get; private set; }
    /// <summary>False issues every micro-step launch by launch; for tests and comparisons.</summary>
    public bool On { get; set; } = true;
    /// <summary>Called while a micro-step is recorded; for tests.</summary>
    public Action? WhileRecording { get; set; }

    /// <summary>Issues a micro-step.</summary>
    public void Run(in StepShape key, uint dropoutStep, float gradScale, Action issue)
    {
        _steps++;
        bool on = On && Failure == null;
        if (on && _shapes.TryGetValue(key, out var shape))
        {
            shape.Used = _steps;
            if (shape.Graph == null && Room()) Record(shape, key.Seed, dropoutStep, gradScale, issue);
            if (shape.Graph != null && Replay(shape.Graph, key.Seed, dropoutStep, gradScale)) return;
        }
        else if (on)
        {
            if (_shapes.Count >= MostShapes)
                foreach (var (k, s) in _shapes)
                    if (s.Graph == null) _shapes.Remove(k);
            _shapes[key] = new Shape { Used = _steps };
        }
        issue();
    }

    private bool Replay(CudaGraph graph, ulong seed, uint dropoutStep, float gradScale)
    {
        try
        {
            ops.BeginStep(seed, dropoutStep, gradScale);
            graph.Launch(gpu.Main);
            Replays++;
            return true;
        }
        catch (CudaException e)
        {
            Fail(e);
            return false;
        }
    }

    private void Record(Shape shape, ulong seed, uint dropoutStep, float gradScale, Action issue)
    {
        nint recorded = 0;
        try
        {
            ops.BeginStep(seed, dropoutStep, gradScale);
            // Relaxed: a library that loads a kernel or asks for memory does not spoil the record.
            CudaException.Check(Driver.cuStreamBeginCapture(gpu.Main.Value, Driver.CaptureRelaxed), nameof(Driver.cuStreamBeginCapture));
            int status;
            try
            {
                gpu.Recording = true;
                issue();
                ops.ParametersChange();
                WhileRecording?.Invoke();
            }
            finally
            {
                gpu.Recording = false;
                status = Driver.cuStreamEndCapture(gpu.Main.Value, out recorded);
            }
            CudaException.Check(status, nameof(Driver.cuStreamEndCapture));
            long before = FreeBytes();
            shape.Graph = CudaGraph.Instantiate(recorded, gpu.Main);
            gpu.Main.Synchronize();
            shape.Bytes = Math.Max(0, before - FreeBytes());
            _bytes += shape.Bytes;
            PeakBytes = Math.Max(PeakBytes, _bytes);
            _largest = Math.Max(_largest, shape.Bytes);
            _graphs++;
            Records++;
            if (_bytes > MostBytes) Drop(shape); // the plan does not count so much: this one goes, and no other comes
        }
        catch (Exception e) // whatever it is, issuing the micro-step shows whether it was recording that failed
        {
            ops.DropStep();
            Fail(e);
        }
        finally
        {
            if (recorded != 0) Driver.cuGraphDestroy(recorded);
        }
    }

    // Another graph fits the counts, perhaps after the one that was idle longest has gone.
    private bool Room()
    {
        if (_graphs < MostGraphs && _bytes + _largest <= MostBytes) return true;
        Shape? idle = null;
        foreach (var s in _shapes.Values)
            if (s.Graph != null && (idle == null || s.Used < idle.Used)) idle = s;
        if (idle == null || _steps - idle.Used < IdleSteps) return false;
        gpu.Main.Synchronize();
        Drop(idle);
        return _bytes + _largest <= MostBytes;
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
        Driver.cuStreamSynchronize(gpu.Main.Value); // a graph may still be running
        Dispose();
    }

    private static long FreeBytes() => Driver.cuMemGetInfo(out nuint free, out _) == 0 ? (long)free : 0;

    public void Dispose()
    {
        foreach (var s in _shapes.Values) s.Graph?.Dispose();
        _shapes.Clear();
        _bytes = _graphs = 0;
    }
}
