using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Cuda.Resources;

namespace Headroom.Cuda;

/// <summary>An adapter's B beside the expanded rows of its weight: further columns [out, <paramref name="Pad"/>] with scaling * B at <paramref name="Column"/> and zeros elsewhere.</summary>
/// <param name="B">Address of lora_B, F32 [out, r]; 0 = no further columns.</param>
/// <param name="R">Rank.</param>
/// <param name="Column">Where B begins among the further columns.</param>
/// <param name="Pad">Number of further columns.</param>
/// <param name="Scaling">LoRA scaling.</param>
internal readonly record struct WeightTail(nint B, int R, int Column, int Pad, float Scaling);

/// <summary>
/// Weights in the activation type, just before their product: direct when stored so, else expanded into one of two scratch buffers.
/// A micro-step asks for the same weights in the same order every time, so the one that followed last time is expanded ahead on the second
/// stream: beside the product before it on a few processors that the product leaves free (see <see cref="Beside"/>), or, where that would not be
/// done in time, after that product. Only frozen (NF4, INT8, GGUF) storages are expanded ahead; trained ones may still change.
/// </summary>
internal sealed unsafe class WeightExpander : IDisposable
{
    private readonly record struct Panel(nint Data, int Row, int Rows, DType Act, WeightTail Tail);
    private readonly record struct Step(Panel Panel, bool Backward);
    private readonly record struct Job(LinearWeight Weight, Step Step);

    /// <summary>The kernel's Tail.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct KernelTail
    {
        public nint B;
        public long Magic;
        public int Pad, Rank, Column, Octets, Rows;
        public float Scale;
    }

    private readonly Gpu _gpu;
    private readonly nint[] _buffers;
    private readonly nint _tables;
    private readonly CudaEvent[] _ready, _done;
    private readonly Panel[] _content = new Panel[2];
    private readonly Dictionary<Step, Job> _next = [];
    private readonly bool _ahead;
    private readonly int _besideTokens;
    private Step _last;
    private Job _pending;
    private int _current, _pendingBuffer = -1;

    public WeightExpander(Gpu gpu, nint first, nint second, nint tables, CudaOptions o)
    {
        _gpu = gpu;
        _buffers = [first, second];
        _tables = tables;
        _ahead = o.ExpandAhead;
        _besideTokens = o.BesideTokens;
        Bytes = o.ExpandBytes;
        _ready = [CudaEvent.Create(), CudaEvent.Create()];
        _done = [CudaEvent.Create(), CudaEvent.Create()];
    }

    /// <summary>Bytes of one buffer.</summary>
    public long Bytes { get; }

    /// <summary>True when a weight of this storage can carry an adapter's columns.</summary>
    public static bool TakesTail(in LinearWeight w) => w.Storage is WeightStorage.NF4 or WeightStorage.NF4Double && w.In % 64 == 0;

    /// <summary>
    /// Processors that products over so many rows leave to the expansion beside them; 0 = none. The time of a product grows with its rows and an expansion's
    /// does not, so their share falls with the rows. A function of the rows alone: a product's algorithm, hence its bits, must not depend on the moment.
    /// </summary>
    public int Beside(int rows)
    {
        if (!_ahead || _besideTokens <= 0 || rows <= 0) return 0;
        int n = (_besideTokens + rows - 1) / rows;
        return n <= _gpu.Processors / 10 ? n : 0;
    }

    /// <summary>Processors for a product with this weight over so many rows.</summary>
    public int ProductProcessors(in LinearWeight w, DType act, int rows) => IsDirect(w, act) || Beside(rows) == 0 ? 0 : _gpu.Processors - Beside(rows);

    /// <summary>Rows that are expanded at a time: all, or as many as fit a buffer.</summary>
    public int RowsAtATime(in LinearWeight w, DType act, in WeightTail tail = default)
    {
        if (IsDirect(w, act)) return w.Out;
        long rows = Bytes / act.Bytes(w.In + tail.Pad);
        return rows >= w.Out ? w.Out : (int)Math.Max(8, rows / 8 * 8);
    }

    /// <summary>Address of rows [row, row + rows) in the activation type, for a product over <paramref name="tokens"/> rows; call <see cref="Release"/> after it is issued.</summary>
    public nint Acquire(in LinearWeight w, DType act, int row, int rows, bool backward, int tokens, in WeightTail tail = default)
    {
        if (IsDirect(w, act)) return w.Data.Slice(row, rows).Address;
        var step = new Step(new Panel(w.Data.Address, row, rows, act, tail), backward);
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
            Expand(_gpu.Main, w, step.Panel, _buffers[_current], 0);
            _content[_current] = frozen ? step.Panel : default;
        }
        if (frozen) _next[_last] = new Job(w, step);
        _last = step;
        if (Beside(tokens) is > 0 and var blocks) ExpandNext(blocks);
        return _buffers[_current];
    }

    /// <summary>The product that reads the acquired rows has been issued.</summary>
    public void Release(in LinearWeight w, DType act)
    {
        if (IsDirect(w, act)) return;
        _done[_current].Record(_gpu.Main);
        if (!_ahead || _pendingBuffer >= 0) return;
        // A product over few rows is too short to hide an expansion; the low-rank and element-wise work that follows it leaves room.
        _gpu.Side.Wait(_done[_current]);
        ExpandNext(0);
    }

    // What followed last time, into the other buffer, once the product that reads that buffer is done. blocks = 0: on every processor.
    private void ExpandNext(int blocks)
    {
        if (_pendingBuffer >= 0 || !_next.TryGetValue(_last, out var job) || job.Step.Panel == _last.Panel) return;
        // The next forward pass may follow an update of B.
        if (_last.Backward && !job.Step.Backward) return;
        int other = _current ^ 1;
        _gpu.Side.Wait(_done[other]);
        Expand(_gpu.Side, job.Weight, job.Step.Panel, _buffers[other], blocks);
        _ready[other].Record(_gpu.Side);
        _content[other] = job.Step.Panel;
        _pending = job;
        _pendingBuffer = other;
    }

    /// <summary>Forgets everything: weights are about to change.</summary>
    public void Reset()
    {
        Stale();
        _next.Clear();
        _last = default;
    }

    /// <summary>Forgets what is expanded, with the adapters' columns: adapters are about to change.</summary>
    public void Stale()
    {
        Settle();
        _content[0] = _content[1] = default;
    }

    /// <summary>Expands on the main stream into any place.</summary>
    public void ExpandTo(in LinearWeight w, DType act, nint destination) => Expand(_gpu.Main, w, new Panel(w.Data.Address, 0, w.Out, act, default), destination, 0);

    private static bool IsDirect(in LinearWeight w, DType act) =>
        w.Storage == WeightStorage.F32 && act == DType.F32 || w.Storage == WeightStorage.BF16 && act == DType.BF16 || w.Storage == WeightStorage.F16 && act == DType.F16;

    // A wrong guess leaves a buffer half written by the second stream: wait before anything else uses it.
    private void Settle()
    {
        if (_pendingBuffer >= 0) _gpu.Main.Wait(_ready[_pendingBuffer]);
        _pendingBuffer = -1;
    }

    private void Expand(CudaStream stream, in LinearWeight w, in Panel p, nint destination, int blocks)
    {
        long first = (long)p.Row * w.In, n = (long)p.Rows * w.In;
        if (w.Storage is WeightStorage.NF4 or WeightStorage.NF4Double)
        {
            int shift = System.Numerics.BitOperations.Log2((uint)w.BlockSize);
            var kernel = _gpu.Kernel("weights.cu", p.Act, "expand_nf4");
            var tail = new KernelTail
            {
                B = p.Tail.Pad == 0 ? 0 : p.Tail.B + (nint)p.Row * p.Tail.R * 4, Magic = CudaOps.Magic(w.In / 8), Pad = p.Tail.Pad, Rank = p.Tail.R, Column = p.Tail.Column,
                Octets = w.In / 8, Rows = p.Rows, Scale = p.Tail.Scaling,
            };
            // One block of 1,024 threads fills a processor that a product left free; small ones spread over the whole card.
            var (grid, threads) = blocks > 0 && _gpu.Profile == null ? (blocks, 1024) : (_gpu.Blocks(n, 256 * 8), 256);
            _gpu.LaunchOn(stream, kernel, (grid, 1), threads, 0, w.Data, w.Absmax, w.NestedAbsmax, w.Offset, _tables, shift, destination, first, n, Arg.Struct(&tail));
            return;
        }
        if (w.Storage == WeightStorage.Gguf)
        {
            _gpu.LaunchOn(stream, _gpu.Kernel("gguf.cu", p.Act, GgufKernel("expand_", w)), (_gpu.Blocks(n, 256 * 8), 1), 256, 0, w.Data.Slice(p.Row, p.Rows), destination, n);
            return;
        }
        int kind = StorageKind(w.Storage);
        nint absmax = w.Absmax.IsNone ? 0 : w.Absmax.Address + p.Row * 4;
        _gpu.LaunchOn(stream, _gpu.Kernel("weights.cu", p.Act, "expand_plain"), (_gpu.Blocks(n, 256 * 4), 1), 256, 0, w.Data.Slice(p.Row, p.Rows), absmax, kind, destination, n, w.In);
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
