using System.Globalization;
using System.Text;
using Headroom.Core;
using Headroom.Models;
using Headroom.Planning;

namespace Headroom.Training.Runs;

/// <summary>The plan as a table of plain lines, the same for <c>headroom plan</c> and before a run.</summary>
internal static class PlanTable
{
    /// <summary>
    /// What a plan is for, in one line: device, type of the activations, rows and tokens of a micro-batch, recompute.
    /// Another device or precision takes other bytes.
    /// </summary>
    /// <param name="device">Its name.</param>
    /// <param name="settings">Settings that were planned, with the recompute that was chosen.</param>
    /// <param name="batch">Rows and tokens, such as "4 rows x 512 tokens".</param>
    /// <param name="layers">Layers of the model.</param>
    public static string Subject(string device, ModelSettings settings, string batch, int layers) =>
        $"planned for {device}: {PrecisionName(settings.ComputeType)}, {batch}, {settings.RecomputeLayers} of "
            + $"{layers} layers recomputed";

    /// <summary>The name of a type of activations in PyTorch's words.</summary>
    public static string PrecisionName(DType type) =>
        type switch
        {
            DType.BF16 => "bfloat16",
            DType.F16 => "float16",
            _ => "float32",
        };

    /// <summary>
    /// What is to be said of rows that are longer than the positions a model knows; null when they are not.
    /// </summary>
    /// <param name="what">What gives the length, as the beginning of a sentence: "--length is 600".</param>
    /// <param name="length">Tokens of the longest row.</param>
    /// <param name="config">The model.</param>
    public static string? BeyondPositions(string what, int length, ModelConfig config) =>
        length <= config.MaxPositionEmbeddings
            ? null
            : $"{what}, beyond the {config.MaxPositionEmbeddings} positions that the model was made for "
                + $"(max_position_embeddings): it fits in this memory, "
            + "but what the model makes of later tokens is not known.";

    /// <summary>
    /// A line for each phase and category (bytes at that phase's peak), then the phases, the recompute policy and the
    /// total.
    /// </summary>
    public static string Text(MemoryPlan plan, int recompute, int layers)
    {
        var s = new StringBuilder();
        void Line(string text) => s.Append(text).Append('\n');
        Line($"{"phase",-10} {"row",-18} {"buffers",8} {"bytes",16}");
        foreach (var row in plan.Rows())
            Line(
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"{row.Phase,-10} {row.Category,-18} {row.Buffers,8} {row.Bytes,16:N0}  "
                        + $"{Units.Bytes(row.Bytes)}"
                )
            );
        foreach (string phase in plan.Phases)
            Line(
                $"phase {phase}: {Units.Bytes(plan.PhaseBytes(phase))} beyond {Units.Bytes(plan.StaticBytes)} "
                    + $"static{(phase == plan.PeakPhase ? "  <- peak" : "")}"
            );
        Line($"recompute: {recompute} of {layers} layers");
        s.Append(
            CultureInfo.InvariantCulture,
            $"total: {plan.TotalBytes:N0} bytes ({Units.Bytes(plan.TotalBytes)}), the .NET runtime not counted");
        return s.ToString();
    }
}
