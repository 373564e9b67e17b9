using Headroom.Core;
using Headroom.Cuda.Resources;

namespace Headroom.Cuda;

/// <summary>
/// Weights in the activation type, just before their product: direct when stored so, else expanded into one of two scratch buffers.
/// A micro-step asks for the same weights in the same order every time, so the one that followed last time is expanded ahead on the second
/// stream, beside the low-rank and element-wise work between two products. Only frozen (NF4, INT8, GGUF) storages are expanded ahead; trained ones may still change.
/// </summary>
internal sealed class WeightExpander : IDisposable
{
    private readonly record struct Panel(nint Data, int Row, int Rows, DType Act);
    private readonly record struct Step(Panel Panel, bool Backward);
    private readonly record struct Job(LinearWeight Weight, Step Step);

    private readonly Gpu _gpu;
    private readonly nint[] _buffers;
    private readonly nint _tables;
    private readonly CudaEvent[] _ready, _done;
    private readonly Panel[] _content = new Panel[2];
    private readonly Dictionary<Step, Job> _next = [];
    private readonly bool _ahead;
    private Step _last;
    private Job _pending;
    private int _current, _pendingBuffer = -1;

    public WeightExpander(Gpu gpu, nint first, nint second, long bytes, nint tables, bool ahead)
    {
        _gpu = gpu;
        _buffers = [first, second];
        _tables = tables;
        _ahead = ahead;
        Bytes = bytes;
        _ready = [CudaEvent.Create(), CudaEvent.Create()];
        _done = [CudaEvent.Create(), CudaEvent.Create()];
    }

    /// <summary>Bytes of one buffer.</summary>
    public long Bytes { get; }

    /// <summary>Rows that are expanded at a time: all, or as many as fit a buffer.</summary>
    public int RowsAtATime(in LinearWeight w, DType act)
    {
        if (IsDirect(w, act)) return w.Out;
        long rows = Bytes / act.Bytes(w.In);
        return rows >= w.Out ? w.Out : (int)Math.Max(8, rows / 8 * 8);
    }

    /// <summary>Address of rows [row, row + rows) in the activation type; call <see cref="Release"/> after the product is issued.</summary>
    public nint Acquire(in LinearWeight w, DType act, int row, int rows, bool backward)
    {
        if (IsDirect(w, act)) return w.Data.Slice(row, rows).Address;
        var step = new Step(new Panel(w.Data.Address, row, rows, act), backward);
        bool frozen = w.Storage is WeightStorage.NF4 or WeightStorage.NF4Double or WeightStorage.Int8 or WeightStorage.Gguf;
        if (frozen && _content[_current] == step.Panel) { } // the last product's weight again: still there
        else if (_pendingBuffer >= 0 && _pending.Step.Panel == step.Panel)
        {
            _current = _pendingBuffer;
            _gpu.Main.Wait(_ready[_current]);
            _pendingBuffer = -1;
        }
        else
        {
            Settle();
            if (_ahead) _current ^= 1;
            Expand(_gpu.Main, w, act, row, rows, _buffers[_current]);
            _content[_current] = frozen ? step.Panel : default;
        }
        if (frozen) _next[_last] = new Job(w, step);
        _last = step;
        return _buffers[_current];
    }

    /// <summary>The product that reads the acquired rows has been issued.</summary>
    public void Release(in LinearWeight w, DType act)
    {
        if (IsDirect(w, act)) return;
        _done[_current].Record(_gpu.Main);
        if (!_ahead || _pendingBuffer >= 0 || !_next.TryGetValue(_last, out var job) || job.Step.Panel == _last.Panel) return;
        // After the product, not beside it: a product fills the card, while the low-rank and element-wise work that follows leaves room.
        _gpu.Side.Wait(_done[_current]);
        int other = _current ^ 1;
        var p = job.Step.Panel;
        Expand(_gpu.Side, job.Weight, p.Act, p.Row, p.Rows, _buffers[other]);
        _ready[other].Record(_gpu.Side);
        _content[other] = p;
        _pending = job;
        _pendingBuffer = other;
    }

    /// <summary>Forgets everything: weights are about to change.</summary>
    public void Reset()
    {
        Settle();
        _next.Clear();
        _content[0] = _content[1] = default;
        _last = default;
    }

    /// <summary>Expands on the main stream into any place.</summary>
    public void ExpandTo(in LinearWeight w, DType act, nint destination) => Expand(_gpu.Main, w, act, 0, w.Out, destination);

    private static bool IsDirect(in LinearWeight w, DType act) =>
        w.Storage == WeightStorage.F32 && act == DType.F32 || w.Storage == WeightStorage.BF16 && act == DType.BF16 || w.Storage == WeightStorage.F16 && act == DType.F16;

    // A wrong guess leaves a buffer half written by the second stream: wait before anything else uses it.
    private void Settle()
    {
        if (_pendingBuffer >= 0) _gpu.Main.Wait(_ready[_pendingBuffer]);
        _pendingBuffer = -1;
    }

    private void Expand(CudaStream stream, in LinearWeight w, DType act, int row, int rows, nint destination)
    {
        long first = (long)row * w.In, n = (long)rows * w.In;
        if (w.Storage is WeightStorage.NF4 or WeightStorage.NF4Double)
        {
            int shift = System.Numerics.BitOperations.Log2((uint)w.BlockSize);
            var kernel = _gpu.Kernel("weights.cu", act, "expand_nf4");
            _gpu.LaunchOn(stream, kernel, (_gpu.Blocks(n, 256 * 8), 1), 256, 0, w.Data, w.Absmax, w.NestedAbsmax, w.Offset, _tables, shift, destination, first, n);
            return;
        }
        if (w.Storage == WeightStorage.Gguf)
        {
            _gpu.LaunchOn(stream, _gpu.Kernel("gguf.cu", act, GgufKernel("expand_", w)), (_gpu.Blocks(n, 256 * 8), 1), 256, 0, w.Data.Slice(row, rows), destination, n);
            return;
        }
        int kind = StorageKind(w.Storage);
        nint absmax = w.Absmax.IsNone ? 0 : w.Absmax.Address + row * 4;
        _gpu.LaunchOn(stream, _gpu.Kernel("weights.cu", act, "expand_plain"), (_gpu.Blocks(n, 256 * 4), 1), 256, 0, w.Data.Slice(row, rows), absmax, kind, destination, n, w.In);
    }

    /// <summary>Name of a kernel of gguf.cu for the weight's block type.</summary>
    public static string GgufKernel(string prefix, in LinearWeight w) => prefix + w.BlockType.ToString().ToLowerInvariant();

    /// <summary>The number by which kernels know a plain storage.</summary>
    public static int StorageKind(WeightStorage s) => s switch { WeightStorage.F32 => 0, WeightStorage.BF16 => 1, WeightStorage.F16 => 2, _ => 3 };

    public void Dispose()
    {
        foreach (var e in _ready) e.Dispose();
        foreach (var e in _done) e.Dispose();
    }
}
