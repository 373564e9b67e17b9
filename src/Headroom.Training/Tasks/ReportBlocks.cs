using Headroom.Training.Intervals;

namespace Headroom.Training.Tasks;

/// <summary>A part of a section of a report.</summary>
internal abstract record Block;

/// <summary>A paragraph.</summary>
/// <param name="Text">Its text, without markup.</param>
internal sealed record Paragraph(string Text) : Block;

/// <summary>A table.</summary>
/// <param name="Caption">Above it, or null.</param>
/// <param name="Align">A letter a column: l for text, r for numbers.</param>
/// <param name="Columns">Headings.</param>
/// <param name="Rows">Cells, as many as columns in each.</param>
internal sealed record Table(string? Caption, string Align, IReadOnlyList<string> Columns, IReadOnlyList<string[]> Rows)
    : Block;

/// <summary>A chart of a metric with its intervals, a bar a row.</summary>
/// <param name="Title">Above it.</param>
/// <param name="Bars">Each with its name and the colour of its model (<see cref="ReportRow.Colour"/>).</param>
internal sealed record IntervalChart(
    string Title, IReadOnlyList<(string Name, int Colour, Interval Value)> Bars) : Block;

/// <summary>A titled part of the report.</summary>
/// <param name="Title">Title; a section without blocks is left out.</param>
/// <param name="Blocks">What stands in it.</param>
internal sealed record Section(string Title, IReadOnlyList<Block> Blocks);

/// <summary>An evaluation on the test rows, as reports have it.</summary>
/// <param name="Label">The model, or the baseline; unique among the runs of a report.</param>
/// <param name="Group">Runs that differ only in the seed share one.</param>
/// <param name="Colour">Of the model in charts; -1 for a baseline.</param>
/// <param name="Seed">Seed of the run.</param>
/// <param name="Stage">zero-shot, tuned or baseline.</param>
/// <param name="Evaluation">The metrics.</param>
/// <param name="Seconds">What it took.</param>
/// <param name="Score">What models are ranked by; null where nothing has a value.</param>
internal sealed record ReportRow(
    string Label, string Group, int Colour, long? Seed, string Stage, Evaluation Evaluation, double? Seconds,
    Metric? Score)
{
    /// <summary>Label and stage.</summary>
    public string Name => Stage == "baseline" ? $"{Label} (baseline)" : $"{Label} {Stage}";
}
