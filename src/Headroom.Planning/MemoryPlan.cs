using Headroom.Core;

namespace Headroom.Planning;

/// <summary>One row of the plan's table: bytes of a category at the peak of a phase.</summary>
internal sealed record PlanRow(string Phase, MemoryCategory Category, int Buffers, long Bytes);

/// <summary>Every buffer with its offset, and the arena's size in bytes.</summary>
internal sealed class MemoryPlan
{
    internal MemoryPlan(IReadOnlyList<PlannedBuffer> buffers, long staticBytes, long arenaBytes, long workspaceBytes)
    {
        Buffers = buffers;
        StaticBytes = staticBytes;
        ArenaBytes = arenaBytes;
        WorkspaceBytes = workspaceBytes;
    }

    /// <summary>All buffers.</summary>
    internal IReadOnlyList<PlannedBuffer> Buffers { get; }
    /// <summary>Bytes that live as long as the model.</summary>
    public long StaticBytes { get; }
    /// <summary>Size of the one allocation.</summary>
    public long ArenaBytes { get; }
    /// <summary>Bytes the ops hold beside the arena.</summary>
    public long WorkspaceBytes { get; }
    /// <summary>Everything Headroom will reserve: arena and ops workspace. The runtime itself is not in it.</summary>
    public long TotalBytes => ArenaBytes + WorkspaceBytes;

    /// <summary>Peak bytes of a phase beyond the static ones.</summary>
    public long PhaseBytes(string phase) =>
        Buffers.Where(b => b.Phase == phase).Select(b => b.Offset + b.Bytes - StaticBytes).DefaultIfEmpty().Max();

    /// <summary>Names of the phases, in order.</summary>
    public IReadOnlyList<string> Phases => Buffers.Select(b => b.Phase).Where(p => p != "static").Distinct().ToList();

    /// <summary>The phase that sets the peak.</summary>
    public string PeakPhase => Phases.MaxBy(PhaseBytes) ?? "static";

    /// <summary>
    /// Rows: static categories, then for each phase the categories alive at the tick where most bytes are alive.
    /// </summary>
    internal IReadOnlyList<PlanRow> Rows()
    {
        var rows = Buffers.Where(b => b.Phase == "static").GroupBy(b => b.Category)
            .Select(g => new PlanRow("static", g.Key, g.Count(), g.Sum(b => b.Bytes))).ToList();
        foreach (string phase in Phases)
        {
            var buffers = Buffers.Where(b => b.Phase == phase).ToList();
            int tick = buffers
                .Select(b => b.Birth)
                .MaxBy(t => buffers.Where(b => b.Birth <= t && t < b.Death).Sum(b => b.Bytes));
            rows.AddRange(buffers.Where(b => b.Birth <= tick && tick < b.Death).GroupBy(b => b.Category)
                .Select(g => new PlanRow(phase, g.Key, g.Count(), g.Sum(b => b.Bytes))));
        }
        if (WorkspaceBytes > 0) rows.Add(new PlanRow("static", MemoryCategory.Workspace, 1, WorkspaceBytes));
        return rows;
    }
}

/// <summary>Replays a plan over real memory: the n-th buffer of a phase gets the n-th planned offset.</summary>
internal sealed class ArenaMemory : IMemory
{
    private readonly nint _base;
    private readonly PlannedBuffer[] _static;
    private readonly Dictionary<string, PlannedBuffer[]> _phases;
    private PlannedBuffer[] _current = [];
    private int _nextStatic, _next;

    /// <summary>Uses <paramref name="arena"/>, of <see cref="MemoryPlan.ArenaBytes"/> bytes.</summary>
    public ArenaMemory(MemoryPlan plan, nint arena)
    {
        _base = arena;
        _static = plan.Buffers.Where(b => b.Phase == "static").ToArray();
        _phases = plan.Phases.ToDictionary(p => p, p => plan.Buffers.Where(b => b.Phase == p).ToArray());
    }

    /// <inheritdoc/>
    public Tensor Static(MemoryCategory category, string name, DType dtype, Shape shape) =>
        Take(_static, ref _nextStatic, name, dtype, shape);

    /// <inheritdoc/>
    public void BeginPhase(string phase)
    {
        _current = _phases[phase];
        _next = 0;
    }

    /// <summary>
    /// How many buffers of the phase are handed out. Set back, later ones are handed out anew, at the same addresses.
    /// </summary>
    public int Taken { get => _next; set => _next = value; }

    /// <inheritdoc/>
    public Tensor Hold(MemoryCategory category, string name, DType dtype, Shape shape) =>
        Take(_current, ref _next, name, dtype, shape);

    /// <inheritdoc/>
    public Tensor Alloc(MemoryCategory category, string name, DType dtype, Shape shape) =>
        Take(_current, ref _next, name, dtype, shape);

    private Tensor Take(PlannedBuffer[] buffers, ref int next, string name, DType dtype, Shape shape)
    {
        if (next >= buffers.Length) throw new InvalidOperationException($"{name} was not planned");
        var b = buffers[next++];
        if (!ReferenceEquals(b.Name, name) && b.Name != name || b.DType != dtype || dtype.Bytes(shape.Count) > b.Bytes)
            throw new InvalidOperationException($"{name} {shape} does not fit the planned {b.Name} {b.Shape}");
        return new Tensor(_base + (nint)b.Offset, dtype, shape);
    }
}
