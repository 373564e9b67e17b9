using Headroom.Training.Tasks;

namespace Headroom.Reports;

/// <summary>Plan against measured.</summary>
internal static class MemoryTables
{
    public static Section Build(ReportModel m)
    {
        var blocks = new List<Block>();
        if (m.Runs.Count == 0) return new("Memory", blocks);
        blocks.Add(
            new Paragraph(
                "MiB. Planned and reserved are the arena and the workspace of the ops. Resident memory is the "
                    + "process's on the host: on a CPU it holds the reserved bytes and the runtime, on a GPU the "
                    + "reserved bytes are on the device and not in it."
            )
        );
        blocks.Add(
            ReportDocument.Compare(
                "Plan against measured",
                m.Runs,
                null,
                [
                    ("planned total", "", r => Show.MiB(r.Summary.Plan?.TotalBytes)),
                    ("of it arena", "", r => Show.MiB(r.Summary.Plan?.ArenaBytes)),
                    ("of it workspace of the ops", "", r => Show.MiB(r.Summary.Plan?.WorkspaceBytes)),
                    ("reserved, as the run reports it", "", r => Show.MiB(r.Summary.Reserved)),
                    ("reserved minus planned", "", r => Show.MiB(r.Summary.Reserved - r.Summary.Plan?.TotalBytes)),
                    ("peak resident of the process", "", r => Show.MiB(r.Summary.PeakResident)),
                    ("resident beyond the reserved", "", r =>
                        r.OnCpu ? Show.MiB(r.Summary.PeakResident - r.Summary.Reserved) : "reserved on the device"
                    ),
                    ("device memory of the process", "", r => r.OnCpu ? "no device" : Show.MiB(r.Summary.PeakDevice)),
                    ("device memory minus planned", "", r =>
                        r.OnCpu ? "no device" : Show.MiB(r.Summary.PeakDevice - r.Summary.Plan?.TotalBytes)
                    ),
                    ("measured phase by phase", "", _ => Show.NotMeasured),
                    ("peak phase as planned", "", r => Show.Or(r.Summary.Plan?.PeakPhase)),
                    ("recompute layers", "", r =>
                        r.Summary.Plan is { RecomputeLayers: { } n } p
                            ? $"{n} of {(p.Layers is { } l ? Show.Count(l) : "unknown")}"
                            : Show.NotMeasured
                    ),
                ]
            )
        );
        var planned = m.Groups.Where(r => r.Summary.Plan is { Phases.Count: > 0 }).ToList();
        if (planned.Count > 0) blocks.AddRange(Phases(planned));
        if (m.Runs.Any(r => r.Summary.Memory.Count > 0))
            blocks.Add(
                new Table(
                    "Samples while running, MiB",
                    "llrrrrr",
                    ["run", "when", "reserved", "on the device", "resident", "peak resident", "managed heap"],
                    m.Runs.SelectMany(r =>
                            r.Summary.Memory.Select(s =>
                                new[]
                                {
                                    r.Label, s.When, Show.MiB(s.ReservedBytes),
                                    r.OnCpu ? "no device" : Show.MiB(s.DeviceProcessBytes),
                                    Show.MiB(s.ResidentBytes), Show.MiB(s.PeakResidentBytes), Show.MiB(s.ManagedBytes),
                                }
                            )
                        )
                        .ToList()
                )
            );
        return new("Memory", blocks);
    }

    private static IEnumerable<Block> Phases(List<RunEntry> runs)
    {
        var categories = runs.SelectMany(r => r.Summary.Plan!.Rows.Select(x => x.Category)).Distinct().ToList();
        if (runs.Any(r => r.Summary.Plan!.Phases.Any(p => Gaps(r, p) > 0))) categories.Add("gaps");
        var bars = runs.SelectMany(r => r.Summary.Plan!.Phases.Select(p =>
        {
            var parts = r
                .Summary.Plan.Rows.Where(x => x.Phase == "static" || x.Phase == p.Key)
                .Append(new() { Phase = p.Key, Category = "gaps", Bytes = Gaps(r, p) })
                .Where(x => x.Bytes > 0)
                .OrderBy(x => categories.IndexOf(x.Category))
                .Select(x =>
                    (
                        categories.IndexOf(x.Category) % Svg.Colours, (double)x.Bytes,
                        $"{x.Category}: {Show.InMiB(x.Bytes)}")
                )
                .ToList();
            string label = runs.Count > 1 ? $"{r.Group}: {p.Key}" : p.Key,
                peak = p.Key == r.Summary.Plan.PeakPhase ? ", the peak" : "";
            return (label, $"{Show.InMiB(parts.Sum(x => x.Item2))}{peak}", (IReadOnlyList<(int, double, string)>)parts);
        })).ToList();
        yield return new Figures([
            new Figure(
                "Planned bytes at the peak of each phase, by category",
                Svg.Stacked("Planned bytes by phase and category", bars),
                categories.Select((c, i) => (i % Svg.Colours, c)).ToList()),
        ]);
        yield return PhaseTable(runs);
    }

    private static Table PhaseTable(List<RunEntry> runs)
    {
        var keys = runs.SelectMany(r => r.Summary.Plan!.Rows.Select(x => (x.Phase, x.Category))).Distinct().ToList();
        var rows = new List<string[]>();
        foreach (string phase in keys.Select(k => k.Phase).Distinct().OrderBy(p => p != "static"))
        {
            foreach (var key in keys.Where(k => k.Phase == phase))
                rows.Add([
                    phase,
                    key.Category,
                    .. runs.Select(r =>
                        r
                            .Summary.Plan!.Rows.Where(x => (x.Phase, x.Category) == key)
                            .Select(x => (double?)x.Bytes)
                            .FirstOrDefault()
                            is { } b
                            ? Show.MiB(b)
                            : "none"
                    ),
                ]);
            if (phase != "static")
                rows.Add([
                    phase,
                    "all of the phase, with gaps",
                    .. runs.Select(r =>
                        r
                            .Summary.Plan!.Phases.Where(p => p.Key == phase)
                            .Select(p => (double?)p.Value)
                            .FirstOrDefault()
                            is { } b
                            ? Show.MiB(b) + (r.Summary.Plan!.PeakPhase == phase ? " (peak)" : "")
                            : "none"
                    ),
                ]);
        }
        return new Table(
            "Planned bytes by phase and category, MiB; static ones live as long as the model",
            "ll" + new string('r', runs.Count), ["phase", "category", .. runs.Select(r => r.Group)], rows);
    }

    // Buffers are placed at aligned offsets: a phase reaches a little higher than the sum of what is alive in it.
    private static long Gaps(RunEntry r, KeyValuePair<string, long> phase) =>
        Math.Max(0, phase.Value - r.Summary.Plan!.Rows.Where(x => x.Phase == phase.Key).Sum(x => x.Bytes));
}
