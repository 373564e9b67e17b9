using System.Text;
using System.Text.RegularExpressions;
using Headroom.Core;
using Headroom.Training.Tasks;

namespace Headroom.Reports;

/// <summary>The report as text: all of it but the charts, which stay in the page.</summary>
internal static partial class ReportMarkdown
{
    public static string Render(ReportDocument d)
    {
        var s = new StringBuilder($"# {Escape(d.Title)}\n\n**{Escape(d.Headline)}**\n");
        if (d.Notes.Count > 0) s.Append('\n').AppendJoin('\n', d.Notes.Select(n => $"- {Escape(n)}")).Append('\n');
        foreach (var section in d.Sections)
        {
            s.Append($"\n## {Escape(section.Title)}\n");
            foreach (var block in section.Blocks) Add(s, block);
        }
        return s.ToString();
    }

    private static void Add(StringBuilder s, Block block)
    {
        switch (block)
        {
            case Paragraph p: s.Append($"\n{Escape(p.Text)}\n"); break;
            case Figures f:
                s.Append($"\nCharts in report.html: {Escape(string.Join("; ", f.Items.Select(x => x.Title)))}.\n");
                break;
            case Verbatim v:
                // The fence is longer than any run of backticks inside.
                string fence = new(
                    '`', Math.Max(3, Backticks().Matches(v.Text).Select(x => x.Length).DefaultIfEmpty().Max() + 1));
                s.Append(
                    $"\n{Escape(v.Caption)}:\n\n{fence}\n{Printable.Lines(v.Text.ReplaceLineEndings("\n")).TrimEnd('\n')}\n{fence}\n"
                );
                break;
            case Table t:
                if (t.Caption != null) s.Append($"\n{Escape(t.Caption)}:\n");
                s.Append(
                    $"\n| {string.Join(" | ", t.Columns.Select(Escape))} "
                        + $"|\n|{string.Concat(t.Align.Select(a => a == 'r' ? " ---: |" : " --- |"))}\n"
                );
                foreach (string[] row in t.Rows) s.Append($"| {string.Join(" | ", row.Select(Escape))} |\n");
                break;
        }
    }

    // A "<" before a blank cannot open a tag and stays readable.
    private static string Escape(string text) =>
        Tag()
            .Replace(
                Printable
                    .Line(text)
                    .Replace("\\", "\\\\")
                    .Replace("&", "&amp;")
                    .Replace("|", "\\|")
                    .Replace("*", "\\*")
                    .Replace("`", "\\`")
                    .Replace("](", "]\\("),
                "&lt;"
            );

    [GeneratedRegex("<(?! )")]
    private static partial Regex Tag();

    [GeneratedRegex("`+")]
    private static partial Regex Backticks();
}
