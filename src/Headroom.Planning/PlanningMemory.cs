using Headroom.Core;

namespace Headroom.Planning;

/// <summary>One planned buffer.</summary>
internal sealed record PlannedBuffer(
    string Phase, MemoryCategory Category, string Name, DType DType, Shape Shape, long Bytes)
{
    /// <summary>
    /// First op of its phase, by number, for which it is alive: the first that has it among its operands, or the
    /// phase's first.
    /// </summary>
    public int Birth { get; set; }
    /// <summary>The op after the last one for which it is alive.</summary>
    public int Death { get; set; }
    /// <summary>Offset from the start of the arena, bytes.</summary>
    public long Offset { get; set; }
}

/// <summary>
/// Records every buffer and, from the ops' uses, its birth and death. Addresses are fake: (ordinal + 1) &lt;&lt; 36,
/// so that a slice of a tensor still names its buffer.
/// </summary>
internal sealed class PlanningMemory : IMemory
{
    /// <summary>
    /// Alignment of every buffer: one AVX-512 cache line on CPU, one 128-bit vector access and more on a GPU.
    /// </summary>
    public const long Alignment = 256;
    private const int AddressShift = 36;
    private readonly List<PlannedBuffer> _all = [];
    private string _phase = "static";
    private int _op;

    /// <summary>All buffers in order of birth.</summary>
    public IReadOnlyList<PlannedBuffer> Buffers => _all;

    /// <inheritdoc/>
    public Tensor Static(MemoryCategory category, string name, DType dtype, Shape shape) =>
        Add("static", category, name, dtype, shape, 0, int.MaxValue);

    /// <inheritdoc/>
    public void BeginPhase(string phase)
    {
        EndPhase();
        if (_all.Any(b => b.Phase == phase)) throw new InvalidOperationException($"phase {phase} was planned already");
        _phase = phase;
        _op = 0;
    }

    /// <inheritdoc/>
    public Tensor Hold(MemoryCategory category, string name, DType dtype, Shape shape) =>
        Add(_phase, category, name, dtype, shape, 0, int.MaxValue);

    /// <inheritdoc/>
    public Tensor Alloc(MemoryCategory category, string name, DType dtype, Shape shape) =>
        Add(_phase, category, name, dtype, shape, int.MaxValue, 0);

    /// <summary>
    /// The op at hand reads or writes a tensor; throws when that was never allocated or is of another phase.
    /// </summary>
    public void Use(Tensor tensor)
    {
        var buffer = Find(tensor);
        if (buffer.Phase != "static" && buffer.Phase != _phase)
            throw new InvalidOperationException($"{buffer.Name} is of the phase {buffer.Phase}");
        buffer.Birth = Math.Min(buffer.Birth, _op);
        buffer.Death = Math.Max(buffer.Death, _op + 1);
    }

    /// <summary>An op has named all its operands: the next one follows it.</summary>
    public void EndOp() => _op++;

    /// <summary>Offsets for every buffer and the size of the arena.</summary>
    public MemoryPlan Build(long workspaceBytes)
    {
        EndPhase();
        long at = 0;
        foreach (var b in _all.Where(b => b.Phase == "static"))
        {
            b.Offset = at;
            at += Align(b.Bytes);
        }
        long peak = 0;
        foreach (var phase in _all.Where(b => b.Phase != "static").GroupBy(b => b.Phase))
            peak = Math.Max(peak, Place(phase.ToList(), at));
        return new MemoryPlan(_all, at, at + peak, workspaceBytes);
    }

    /// <summary>
    /// The lowest of five greedy placements: by size (Pisarchyk and Lee, 2020); what is alive at the peak first, the
    /// oldest or the longest-lived at the bottom, then the rest by size; and by breadth, the most bytes that are ever
    /// alive beside a buffer (the same paper), again the oldest or the longest-lived first. By size alone a peak inside
    /// a layer left gaps of up to 64 MiB in 28 GiB (Llama-2-7B shape); with all five none of 585 training plans is
    /// above what is alive at its peak, which no placement is below: it ends early there. Returns the height.
    /// </summary>
    private static long Place(List<PlannedBuffer> buffers, long start)
    {
        long[] alive = Alive(buffers);
        long least = alive.Max();
        int peak = Array.IndexOf(alive, least);
        bool AtPeak(PlannedBuffer b) => b.Birth <= peak && peak < b.Death;
        long Breadth(PlannedBuffer b)
        {
            long most = 0;
            for (int tick = b.Birth; tick < b.Death; tick++) most = Math.Max(most, alive[tick]);
            return most;
        }
        IEnumerable<PlannedBuffer> PeakFirst(Func<PlannedBuffer, long> key) =>
            Largest(buffers.OrderByDescending(AtPeak).ThenByDescending(b => AtPeak(b) ? key(b) : b.Bytes));
        IEnumerable<PlannedBuffer> WidestFirst(Func<PlannedBuffer, long> key) =>
            Largest(buffers.OrderByDescending(Breadth).ThenByDescending(key));
        IEnumerable<PlannedBuffer>[] orders =
        [
            Largest(buffers.OrderBy(_ => 0)), PeakFirst(Oldest), PeakFirst(Life), WidestFirst(Oldest),
            WidestFirst(Life)];
        long best = long.MaxValue;
        long[] offsets = [];
        foreach (var order in orders)
        {
            long height = InOrder(order, start);
            if (height >= best) continue;
            best = height;
            offsets = [.. buffers.Select(b => b.Offset)];
            if (best == least) break;
        }
        for (int i = 0; i < offsets.Length; i++) buffers[i].Offset = offsets[i];
        return best;

        static long Oldest(PlannedBuffer b) => -b.Birth;
        static long Life(PlannedBuffer b) => b.Death - b.Birth;
        static IEnumerable<PlannedBuffer> Largest(IOrderedEnumerable<PlannedBuffer> before) =>
            before.ThenByDescending(b => b.Bytes).ThenBy(b => b.Birth);
    }

    // Bytes alive at each tick.
    private static long[] Alive(List<PlannedBuffer> buffers)
    {
        var alive = new long[buffers.Max(b => b.Death) + 1];
        foreach (var b in buffers)
            for (int tick = b.Birth; tick < b.Death; tick++) alive[tick] += Align(b.Bytes);
        return alive;
    }

    // Each buffer goes to the lowest gap among the placed ones whose lives overlap.
    private static long InOrder(IEnumerable<PlannedBuffer> ordered, long start)
    {
        var placed = new List<PlannedBuffer>(); // kept sorted by offset
        long height = 0;
        foreach (var b in ordered)
        {
            long offset = start, size = Align(b.Bytes);
            foreach (var p in placed)
            {
                if (p.Birth >= b.Death || b.Birth >= p.Death) continue;
                if (offset + size <= p.Offset) break;
                offset = Math.Max(offset, p.Offset + Align(p.Bytes));
            }
            b.Offset = offset;
            int index = placed.FindIndex(p => p.Offset > offset);
            placed.Insert(index < 0 ? placed.Count : index, b);
            height = Math.Max(height, offset + size - start);
        }
        return height;
    }

    private static long Align(long bytes) => (bytes + Alignment - 1) / Alignment * Alignment;

    private Tensor Add(
        string phase, MemoryCategory category, string name, DType dtype, Shape shape, int birth, int death)
    {
        if (shape.D0 < 0 || shape.D1 < 0 || shape.D2 < 0)
            throw new InvalidOperationException($"{name}: negative shape {shape}");
        long bytes = dtype.Bytes(shape.Count);
        _all.Add(new PlannedBuffer(phase, category, name, dtype, shape, bytes) { Birth = birth, Death = death });
        return new Tensor((nint)((long)_all.Count << AddressShift), dtype, shape);
    }

    private PlannedBuffer Find(Tensor tensor)
    {
        long ordinal = (long)tensor.Address >> AddressShift;
        return ordinal >= 1 && ordinal <= _all.Count ? _all[(int)ordinal - 1]
            : throw new InvalidOperationException("a tensor that was never allocated");
    }

    private void EndPhase()
    {
        foreach (var b in _all)
        {
            if (b.Phase == "static" || b.Phase != _phase) continue;
            if (b.Death == 0) throw new InvalidOperationException($"{b.Name} is planned and no op uses it");
            if (b.Death == int.MaxValue) b.Death = _op + 1;
        }
    }
}
