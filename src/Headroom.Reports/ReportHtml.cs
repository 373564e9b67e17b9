using System.Text;
using Headroom.Core;
using Headroom.Training.Tasks;

namespace Headroom.Reports;

/// <summary>The page: style and charts inside, nothing loaded, no script.</summary>
internal static class ReportHtml
{
    private const string Style = """
        :root{color-scheme:light dark;--bg:#fff;--fg:#1c2127;--dim:#5b6570;--rule:#dde2e7;--soft:#f4f6f8;--warn:#8a4b00;--warnbg:#fff3e0;
        --c0:#0b6bb8;--c1:#d1570b;--c2:#178a5f;--c3:#a8407f;--c4:#b58900;--c5:#5a55c4;--c6:#3aa3c9;--c7:#8c6239;--c8:#c23b3b;--c9:#6c8f1f;--c10:#7d8590;--c11:#c68bd0;--cn:#7d8590}
        @media(prefers-color-scheme:dark){:root{--bg:#14181c;--fg:#e4e8ec;--dim:#9aa5b0;--rule:#323a42;--soft:#1d2329;--warn:#ffc583;--warnbg:#3a2a12;
        --c0:#5eb0f2;--c1:#f49355;--c2:#4cc796;--c3:#e083bd;--c4:#dcb43c;--c5:#9d98f5;--c6:#7ad0ee;--c7:#c39b74;--c8:#f07f7f;--c9:#a9cc5c;--c10:#98a2ad;--c11:#dcb0e4;--cn:#98a2ad}}
        *{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;-webkit-text-size-adjust:100%}
        main{max-width:1040px;margin:0 auto;padding:24px 18px 64px}header p{margin:.3em 0}.kind{color:var(--dim);font-size:.85rem}h1{font-size:1.6rem;margin:0;overflow-wrap:anywhere}
        .headline{font-size:1.15rem;line-height:1.45;margin:.8em 0 0;padding:.7em .9em;border-left:4px solid var(--c0);background:var(--soft);overflow-wrap:anywhere}.headline.warn,.notes{border-color:var(--warn);background:var(--warnbg);color:var(--warn)}
        .notes{margin:.8em 0 0;padding:.6em .9em .6em 2em;font-size:.9rem;overflow-wrap:anywhere}
        h2{font-size:1.2rem;margin:2em 0 .5em;padding-bottom:.2em;border-bottom:1px solid var(--rule)}section>p{margin:.5em 0;color:var(--dim);font-size:.92rem;max-width:75ch}
        .scroll{overflow-x:auto;margin:1em 0}table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}caption{text-align:left;font-weight:600;padding:.2em 0 .4em}caption.short{white-space:nowrap}
        th,td{padding:.3em .8em .3em 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}thead th{border-bottom:2px solid var(--rule);vertical-align:bottom;min-width:3.6em;max-width:16em;overflow-wrap:break-word}td.r,th.r{text-align:right;white-space:nowrap;padding-left:.4em}thead th.r{white-space:normal}
        td.short{white-space:nowrap}td.long{overflow-wrap:anywhere;min-width:11em;max-width:34em}tbody tr:hover{background:var(--soft)}
        .figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:20px 28px;margin:1em 0}.figures.one{max-width:560px;grid-template-columns:1fr}figure{margin:0;min-width:0}figcaption{font-size:.86rem;font-weight:600;margin-bottom:.3em}
        .legend{display:flex;flex-wrap:wrap;gap:.1em 1em;font-weight:400;color:var(--dim)}.legend i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.35em}
        svg{display:block;width:100%;height:auto;overflow:visible}svg text{font-size:12px;fill:var(--dim)}svg path{fill:none}.grid{stroke:var(--rule);stroke-width:1}.axis{stroke:var(--dim);stroke-width:1}.thin{stroke-width:.8;opacity:.4}.line{stroke-width:2;stroke-linejoin:round}.ring{stroke:var(--bg);stroke-width:1.5}.over{paint-order:stroke;stroke:var(--bg);stroke-width:4px}
        h3{font-size:.95rem;margin:1.4em 0 .4em;overflow-wrap:anywhere}pre{background:var(--soft);padding:.8em 1em;overflow-x:auto;font:.82rem/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;margin:0}
        @media print{body{font-size:10pt}main{max-width:none;padding:0}.scroll,pre{overflow:visible}pre{white-space:pre-wrap}table{font-size:7.5pt}figure,tr,.headline{break-inside:avoid}h2,caption{break-after:avoid}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
        """;

    public static string Render(ReportDocument d)
    {
        var s = new StringBuilder(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
                + "content=\"width=device-width, initial-scale=1\">"
        );
        s.Append($"<title>{Escape(d.Title)}</title>\n<style>\n{Style}\n");
        for (int i = 0; i < Svg.Colours; i++)
            s.Append($".s{i}{{stroke:var(--c{i})}}.f{i}{{fill:var(--c{i})}}.b{i}{{background:var(--c{i})}}");
        s.Append(".sn{stroke:var(--cn)}.fn{fill:var(--cn)}\n</style></head>\n<body><main>\n<header>");
        s.Append(
            $"<p class=\"kind\">{Escape(d.Kind)}</p><h1>{Escape(d.Title)}</h1><p "
                + $"class=\"headline{(d.Completed ? "" : " warn")}\">{Escape(d.Headline)}</p>"
        );
        if (d.Notes.Count > 0)
            s.Append($"<ul class=\"notes\">{string.Concat(d.Notes.Select(n => $"<li>{Escape(n)}</li>"))}</ul>");
        s.Append("</header>\n");
        foreach (var section in d.Sections)
        {
            s.Append($"<section><h2>{Escape(section.Title)}</h2>\n");
            foreach (var block in section.Blocks) Add(s, block);
            s.Append("</section>\n");
        }
        return s.Append("</main></body></html>\n").ToString();
    }

    /// <summary>Text for an element or a quoted attribute; control characters are spelled out.</summary>
    public static string Escape(string text) =>
        Printable
            .Lines(text)
            .Replace("&", "&amp;")
            .Replace("<", "&lt;")
            .Replace(">", "&gt;")
            .Replace("\"", "&quot;")
            .Replace("'", "&#39;");

    private static void Add(StringBuilder s, Block block)
    {
        switch (block)
        {
            case Paragraph p: s.Append($"<p>{Escape(p.Text)}</p>\n"); break;
            case Verbatim v:
                s.Append($"<h3>{Escape(v.Caption)}</h3><pre>{Escape(v.Text.ReplaceLineEndings("\n"))}</pre>\n");
                break;
            case Figures f:
                s.Append(f.Items.Count == 1 ? "<div class=\"figures one\">" : "<div class=\"figures\">");
                foreach (var x in f.Items)
                {
                    s.Append($"<figure><figcaption>{Escape(x.Title)}");
                    if (x.Legend.Count > 0)
                        s.Append(
                            $"<div class=\"legend\">{string.Concat(x.Legend.Select(l => $"<span><i class=\"b{l.Colour}\"></i>{Escape(l.Text)}</span>"))}</div>"
                        );
                    s.Append($"</figcaption>{x.Svg}</figure>\n");
                }
                s.Append("</div>\n");
                break;
            case Table t:
                s.Append("<div class=\"scroll\"><table>");
                if (t.Caption != null)
                    s.Append(
                        $"<caption{(t.Caption.Length <= 110 ? " class=\"short\"" : "")}>{Escape(t.Caption)}</caption>"
                    ); // as wide as it needs beside a narrow table
                s.Append("<thead><tr>");
                for (int i = 0; i < t.Columns.Count; i++)
                    s.Append($"<th{(t.Align[i] == 'r' ? " class=\"r\"" : "")}>{Escape(t.Columns[i])}</th>");
                s.Append("</tr></thead><tbody>\n");
                foreach (string[] row in t.Rows)
                {
                    s.Append("<tr>");
                    for (int i = 0; i < row.Length; i++)
                        s.Append(
                            $"<td{(t.Align[i] == 'r' ? " class=\"r\"" : row[i].Length > 28 ? " class=\"long\"" : " class=\"short\"")}>{Escape(row[i])}</td>"
                        );
                    s.Append("</tr>\n");
                }
                s.Append("</tbody></table></div>\n");
                break;
        }
    }
}
