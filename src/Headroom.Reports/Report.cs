using Headroom.Core;
using Headroom.Formats;
using Headroom.Training.Runs;

namespace Headroom.Reports;

/// <summary>Files of a report.</summary>
/// <param name="Html">One page that needs nothing else.</param>
/// <param name="Markdown">The same without the charts.</param>
/// <param name="Json">Every number.</param>
public sealed record ReportPaths(string Html, string Markdown, string Json);

/// <summary>The report of a run or of a duel.</summary>
public static class Report
{
    /// <summary>
    /// Reads events.jsonl of <paramref name="folder"/> (for a duel also those of its runs) and writes report.html,
    /// report.md and results.json beside it.
    /// </summary>
    public static ReportPaths Write(string folder)
    {
        var files = new RunFolder(folder);
        if (!File.Exists(files.Events))
            throw new HeadroomException($"No events.jsonl in {folder}", "Give the folder of a run or of a duel");
        var model = ReportBuilder.Build(folder);
        var document = ReportDocument.Build(model);
        var paths = PathsOf(folder);
        AtomicFile.WriteText(paths.Html, ReportHtml.Render(document));
        AtomicFile.WriteText(paths.Markdown, ReportMarkdown.Render(document));
        AtomicFile.WriteText(paths.Json, ReportJson.Render(model));
        return paths;
    }

    /// <summary>The files of a report that was written before; null when one of them is not there.</summary>
    public static ReportPaths? Find(string folder) =>
        PathsOf(folder) is var p && new[] { p.Html, p.Markdown, p.Json }.All(File.Exists) ? p : null;

    private static ReportPaths PathsOf(string folder) =>
        new(new RunFolder(folder).Report, Path.Combine(folder, "report.md"), Path.Combine(folder, "results.json"));
}
