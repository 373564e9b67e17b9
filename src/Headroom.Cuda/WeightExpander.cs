using Headroom.Core;
using Headroom.Cuda.Resources;

namespace Headroom.Cuda;

/// <summary>
/// An adapter's B beside the expanded rows of its weight: further columns [out, <paramref name="Pad"/>] with scaling *
/// B at <paramref name="Column"/> and zeros elsewhere.
/// </summary>
/// <param name="B">Address of lora_B, F32 [out, r]; 0 = no further columns.</param>
/// <param name="R">Rank.</param>
/// <param name="Column">Where B begins among the further columns.</param>
/// <param name="Pad">Number of further columns.</param>
/// <param name="Scaling">LoRA scaling.</param>
internal readonly record struct WeightTail(nint B, int R, int Column, int Pad, float Scaling);

/// <summary>
/// Weights in the activation type, just before their product: direct when stored so, else expanded into a ring of
/// scratch memory. A micro-step asks for the same weights in the same order every time, so those that followed last
/// time are expanded ahead on the second stream, as many as the ring holds, beside the low-rank, attention and
/// element-wise work between two products (a product itself fills the card). Only frozen (NF4, INT8, GGUF) storages are
/// expanded ahead; trained ones may still change. Given room (<see cref="Keep"/>), as many of them as it holds are
/// expanded once and stay; of those only the adapters' columns are written anew.
/// </summary>
internal sealed unsafe class WeightExpander : IDisposable
{
    private readonly record struct Panel(nint Data, int Row, int Rows, DType Act, WeightTail Tail);
    private readonly record struct Step(Panel Panel, bool Backward);
    private readonly record struct Job(LinearWeight Weight, Step Step);

    /// <summary>An expanded (or being expanded) weight in the ring.</summary>
    private sealed class Slot : IDisposable
    {
        public readonly CudaEvent Ready = CudaEvent.Create();
        public Job Job;
        public long From, To;

        public void Dispose() => Ready.Dispose();
    }

    /// <summary>An expanded weight in the room for those that stay.</summary>
    private sealed class Kept(nint address)
    {
        public readonly nint Address = address;
        public long Adapters; // the state of the adapters that its columns hold
    }

    private readonly Gpu _gpu;
    private readonly nint _ring, _tables;
    private readonly long _ringBytes;
    private readonly CudaEvent _done = CudaEvent.Create();
    private readonly Slot[] _slots = [new(), new(), new(), new(), new(), new(), new(), new()];
    private readonly Dictionary<Step, Job> _next = [];
    private readonly HashSet<Step> _pauses = [];
    private readonly Dictionary<Panel, Kept> _kept = [];
    private readonly bool _ahead;
    private Step _last;
    private Panel _current;
    private long _currentFrom, _currentTo, _launches;
    private int _oldest, _waiting; // the slots in order of use
    private nint _room;
    private long _roomBytes, _roomUsed, _adapters = 1;
    private bool _isKept; // what is acquired now

    public WeightExpander(Gpu gpu, nint ring, nint tables, CudaOptions o)
    {
        _gpu = gpu;
        _ring = ring;
        _tables = tables;
        _ahead = o.ExpandAhead;
        _ringBytes = (_ahead ? 2 : 1) * o.ExpandBytes;
        Bytes = o.ExpandBytes;
    }

    /// <summary>
    /// Where pieces are expanded to: for others to use on the main stream after <see cref="Stale"/>, until the next
    /// product.
    /// </summary>
    public (nint Address, long Bytes) Ring => (_ring, _ringBytes);

    /// <summary>Bytes of the largest piece.</summary>
    public long Bytes { get; }

    /// <summary>
    /// Whether weights are expanded ahead; off while a graph of short kernels is recorded, where the second stream
    /// costs more than it hides.
    /// </summary>
    public bool Ahead { get; set; } = true;

    /// <summary>
    /// Room in which expanded weights stay from the first backward pass that asks for them, the last layers' first:
    /// what they hold is what expanding them gives, bit for bit.
    /// </summary>
    public void Keep(nint room, long bytes)
    {
        _kept.Clear();
        _roomUsed = 0;
        // Aligned as the ring is: the matrix library's algorithms are chosen by it.
        _room = (room + 255) & ~255;
        _roomBytes = bytes - (_room - room);
    }

    /// <summary>
    /// How often stored weights may have changed: what is recorded before may read a weight that stays from where it
    /// does no more.
    /// </summary>
    public long Changes { get; private set; }

    /// <summary>Weights that stay, and their bytes.</summary>
    public (int Count, long Bytes) Stays => (_kept.Count, _roomUsed);

    /// <summary>True when a weight of this storage can carry an adapter's columns.</summary>
    public static bool TakesTail(in LinearWeight w) =>
        w.Storage is WeightStorage.NF4 or WeightStorage.NF4Double && w.In % 64 == 0;

    /// <summary>Rows that are expanded at a time: all, or as many as fit.</summary>
    public int RowsAtATime(in LinearWeight w, DType act, in WeightTail tail = default)
    {
        if (IsDirect(w, act)) return w.Out;
        long rows = Bytes / act.Bytes(w.In + tail.Pad);
        return rows >= w.Out ? w.Out : (int)Math.Max(8, rows / 8 * 8);
    }

    /// <summary>
    /// Address of rows [row, row + rows) in the activation type; call <see cref="Release"/> after the product is
    /// issued.
    /// </summary>
    public nint Acquire(in LinearWeight w, DType act, int row, int rows, bool backward, in WeightTail tail = default)
    {
        if (IsDirect(w, act)) return w.Data.Slice(row, rows).Address;
        var step = new Step(new Panel(w.Data.Address, row, rows, act, tail), backward);
        bool frozen =
            w.Storage is WeightStorage.NF4 or WeightStorage.NF4Double or WeightStorage.Int8 or WeightStorage.Gguf;
        if (frozen && InRoom(w, step) is { } kept) return kept;
        if (_gpu.Launches != _launches) _pauses.Add(_last); // other work came between that product and this one
        if (frozen && _current == step.Panel) { } // the last product's weight again: still there
        else if (_waiting > 0 && _slots[_oldest].Job.Step.Panel == step.Panel)
        {
            var slot = _slots[_oldest];
            _gpu.Main.Wait(slot.Ready);
            Use(step.Panel, slot.From, slot.To);
            _oldest = (_oldest + 1) % _slots.Length;
            _waiting--;
        }
        else
        {
            Settle();
            Use(frozen ? step.Panel : default, 0, Size(step.Panel, w));
            Expand(_gpu.Main, w, step.Panel, _ring);
        }
        if (frozen) _next[_last] = new Job(w, step);
        _last = step;
        return _ring + (nint)_currentFrom;
    }

    // The address of a weight that stays; outside the ring and the order in which that is filled.
    private nint? InRoom(in LinearWeight w, in Step step)
    {
        if (_room == 0) return null;
        var panel = step.Panel;
        if (!_kept.TryGetValue(panel, out var kept))
        {
            // Only a training step asks for more than one pass. Not while a graph is recorded: the record may come to
            // nothing.
            long size = Size(panel, w);
            if (!step.Backward || _gpu.Recording || _roomUsed + size > _roomBytes) return null;
            Settle(); // it may be among those expanded ahead
            kept = _kept[panel] = new Kept(_room + (nint)_roomUsed);
            _roomUsed += size;
            Expand(_gpu.Main, w, panel, kept.Address);
        }
        else if (kept.Adapters != _adapters && panel.Tail.Pad > 0)
            Expand(_gpu.Main, w, panel, kept.Address, tailOnly: true);
        kept.Adapters = _adapters;
        _isKept = true;
        return kept.Address;
    }

    private void Use(in Panel panel, long from, long to)
    {
        _current = panel;
        _currentFrom = from;
        _currentTo = to;
    }

    /// <summary>The product that reads the acquired rows has been issued.</summary>
    public void Release(in LinearWeight w, DType act)
    {
        if (IsDirect(w, act)) return;
        if (_isKept)
        {
            _isKept = false;
            return;
        }
        // Ahead where other work follows; where the next product follows at once, only its own weight, into whatever
        // that product's start leaves free.
        if (_ahead && Ahead && (_waiting == 0 || _pauses.Contains(_last)))
            ExpandNext(_pauses.Contains(_last) ? _slots.Length - 1 : 1);
        _launches = _gpu.Launches;
    }

    // What followed last time, as far as there is room. Every product that read that room is issued by now: the stream
    // waits for the last one.
    private void ExpandNext(int most)
    {
        var at = _waiting > 0 ? _slots[(_oldest + _waiting - 1) % _slots.Length].Job.Step : _last;
        bool waited = false;
        while (_waiting < most && _next.TryGetValue(at, out var job))
        {
            if (job.Step.Panel == at.Panel || at.Backward && !job.Step.Backward)
                return; // the next forward pass may follow an update of B
            long size = Size(job.Step.Panel, job.Weight);
            if (Place(size) is not (>= 0 and var from)) return;
            if (!waited)
            {
                _done.Record(_gpu.Main);
                _gpu.Side.Wait(_done);
                waited = true;
            }
            var slot = _slots[(_oldest + _waiting++) % _slots.Length];
            slot.Job = job;
            slot.From = from;
            slot.To = from + size;
            if (from < _currentTo && _currentFrom < slot.To) _current = default;
            Expand(_gpu.Side, job.Weight, job.Step.Panel, _ring + (nint)from);
            slot.Ready.Record(_gpu.Side);
            at = job.Step;
        }
    }

    // Where the ring has room behind the newest waiting slot, or -1.
    private long Place(long size)
    {
        if (_waiting == 0) return size <= _ringBytes ? 0 : -1;
        long first = _slots[_oldest].From, end = _slots[(_oldest + _waiting - 1) % _slots.Length].To;
        if (end > first) return end + size <= _ringBytes ? end : size <= first ? 0 : -1;
        return end + size <= first ? end : -1;
    }

    private static long Size(in Panel p, in LinearWeight w) =>
        (p.Act.Bytes((long)p.Rows * (w.In + p.Tail.Pad)) + 255) & ~255L;

    /// <summary>Forgets everything: weights have changed.</summary>
    public void Reset()
    {
        Stale();
        _next.Clear();
        _pauses.Clear();
        _last = default;
        _kept.Clear();
        _roomUsed = 0;
        Changes++;
    }

    /// <summary>Forgets what is expanded, with the adapters' columns: adapters have changed.</summary>
    public void Stale()
    {
        Settle();
        _current = default;
        _adapters++;
    }

    /// <summary>
    /// After a record that came to nothing: none of what was issued in it runs, and its events are not to be waited
    /// for.
    /// </summary>
    public void Drop()
    {
        _waiting = 0;
        _current = default;
        _adapters++;
    }

    /// <summary>Expands on the main stream into any place.</summary>
    public void ExpandTo(in LinearWeight w, DType act, nint destination) =>
        Expand(_gpu.Main, w, new Panel(w.Data.Address, 0, w.Out, act, default), destination);

    /// <summary>
    /// Rows outside the order of a micro-step, which is not learned from them; valid until the next call.
    /// </summary>
    public nint Rows(in LinearWeight w, DType act, int row, int rows)
    {
        if (IsDirect(w, act)) return w.Data.Slice(row, rows).Address;
        Settle();
        _current = default;
        Expand(_gpu.Main, w, new Panel(w.Data.Address, row, rows, act, default), _ring);
        return _ring;
    }

    private static bool IsDirect(in LinearWeight w, DType act) =>
        w.Storage == WeightStorage.F32 && act == DType.F32
        || w.Storage == WeightStorage.BF16 && act == DType.BF16
        || w.Storage == WeightStorage.F16 && act == DType.F16;

    // A wrong guess leaves a part of the ring half written by the second stream: wait before anything else uses it.
    private void Settle()
    {
        if (_waiting > 0) _gpu.Main.Wait(_slots[(_oldest + _waiting - 1) % _slots.Length].Ready);
        _waiting = 0;
    }

    private void Expand(CudaStream stream, in LinearWeight w, in Panel p, nint destination, bool tailOnly = false)
    {
        long first = (long)p.Row * w.In, n = (long)p.Rows * w.In;
        if (w.Storage is WeightStorage.NF4 or WeightStorage.NF4Double)
        {
            int shift = System.Numerics.BitOperations.Log2((uint)w.BlockSize);
            var kernel = _gpu.Kernel("weights.cu", p.Act, "expand_nf4");
            int octets = w.In / 8,
                shift32 = Math.Max(0, System.Numerics.BitOperations.Log2((uint)Math.Max(1, octets)) - 1);
            var tail = new ColumnsBehind
            {
                B = p.Tail.Pad == 0 ? 0 : p.Tail.B + (nint)p.Row * p.Tail.R * 4,
                Magic = octets == 0 ? 0 : (uint)(((1UL << (32 + shift32)) + (ulong)octets - 1) / (ulong)octets),
                Shift = shift32,
                Pad = p.Tail.Pad,
                Rank = p.Tail.R,
                Column = p.Tail.Column,
                Octets = octets,
                Rows = p.Rows,
                Scale = p.Tail.Scaling,
            };
            const int each = KernelConstants.ExpandOctets * 8; // elements of a block, of codes or of the tail
            int main = tailOnly ? 0 : (int)((n + each - 1) / each),
                more = (int)(((long)p.Rows * p.Tail.Pad + each - 1) / each);
            _gpu.LaunchOn(
                stream, kernel, (main + more, 1), KernelConstants.ExpandThreads, 0, w.Data, w.Absmax,
                w.NestedAbsmax, w.Offset, _tables, shift, destination, first, n, Arg.Struct(&tail), main);
            return;
        }
        if (w.Storage == WeightStorage.Gguf)
        {
            _gpu.LaunchOn(
                stream, _gpu.Kernel("gguf.cu", p.Act, GgufKernels.Expand(w)), (_gpu.Blocks(n, 256 * 8), 1), 256, 0,
                w.Data.Slice(p.Row, p.Rows), destination, n);
            return;
        }
        int kind = KernelConstants.Kind(w.Storage);
        nint absmax = w.Absmax.IsNone ? 0 : w.Absmax.Address + p.Row * 4;
        _gpu.LaunchOn(
            stream, _gpu.Kernel("weights.cu", p.Act, "expand_plain"), (_gpu.Blocks(n, 256 * 4), 1), 256, 0,
            w.Data.Slice(p.Row, p.Rows), absmax, kind, destination, n, w.In);
    }

    public void Dispose()
    {
        foreach (var s in _slots) s.Dispose();
        _done.Dispose();
    }
}
