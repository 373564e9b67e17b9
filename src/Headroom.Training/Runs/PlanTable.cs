using System.Globalization;
using System.Text;
using Headroom.Core;
using Headroom.Planning;

namespace Headroom.Training;

/// <summary>The plan as a table of plain lines, the same for <c>headroom plan</c> and before a run.</summary>
public static class PlanTable
{
    /// <summary>A line for each phase and category (bytes at that phase's peak), then the phases, the recompute policy and the total.</summary>
    public static string Text(MemoryPlan plan, int recompute, int layers)
    {
        var s = new StringBuilder();
        void Line(string text) => s.Append(text).Append('\n');
        Line($"{"phase",-10} {"row",-18} {"buffers",8} {"bytes",16}");
        foreach (var row in plan.Rows()) Line(string.Create(CultureInfo.InvariantCulture, $"{row.Phase,-10} {row.Category,-18} {row.Buffers,8} {row.Bytes,16:N0}  {Units.Bytes(row.Bytes)}"));
        foreach (string phase in plan.Phases) Line($"phase {phase}: {Units.Bytes(plan.PhaseBytes(phase))} beyond {Units.Bytes(plan.StaticBytes)} static{(phase == plan.PeakPhase ? "  <- peak" : "")}");
        Line($"recompute: {recompute} of {layers} layers");
        s.Append(CultureInfo.InvariantCulture, $"total: {plan.TotalBytes:N0} bytes ({Units.Bytes(plan.TotalBytes)}), the .NET runtime not counted");
        return s.ToString();
    }
}
