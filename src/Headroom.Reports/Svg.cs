using System.Globalization;
using System.Text;
using Headroom.Training.Intervals;
using Headroom.Training.Tasks;

namespace Headroom.Reports;

/// <summary>One run's line in a chart; colours are numbers that the page's style resolves for light and dark.</summary>
internal sealed record Curve(
    string Name, int Colour, IReadOnlyList<(double X, double Y)> Raw, IReadOnlyList<(double X, double Y)> Smooth,
    IReadOnlyList<(double X, double Y)> Points);

/// <summary>Inline charts: drawn at 480 units so that text stays readable on a phone.</summary>
internal static class Svg
{
    public const int Colours = 12;
    private const double Width = 480;

    /// <summary>Lines over steps, from zero.</summary>
    public static string Lines(string title, string unit, IReadOnlyList<Curve> curves)
    {
        const double left = 54, top = 22, right = Width - 14, bottom = 226;
        var all = curves.SelectMany(c => c.Raw.Concat(c.Smooth).Concat(c.Points)).ToList();
        double[] xs = Ticks(0, all.Max(p => p.X)), ys = Ticks(Math.Min(0, all.Min(p => p.Y)), all.Max(p => p.Y));
        double xEnd = Math.Max(all.Max(p => p.X), 1), y0 = ys[0], y1 = ys[^1];
        var s = Open(268, title);
        foreach (double y in ys)
        {
            s.Append(CultureInfo.InvariantCulture, $"<path class=\"grid\" d=\"M{left} {Y(y):0.#}H{right}\"/>");
            s.Append(
                CultureInfo.InvariantCulture,
                $"<text x=\"{left - 6}\" y=\"{Y(y) + 4:0.#}\" text-anchor=\"end\">{Tick(y, ys)}</text>");
        }
        foreach (double x in xs.Where(x => x <= xEnd))
        {
            s.Append(CultureInfo.InvariantCulture, $"<path class=\"axis\" d=\"M{X(x):0.#} {bottom}v4\"/>");
            s.Append(
                CultureInfo.InvariantCulture,
                $"<text x=\"{X(x):0.#}\" y=\"{bottom + 18}\" text-anchor=\"middle\">{Tick(x, xs)}</text>");
        }
        s.Append(CultureInfo.InvariantCulture, $"<path class=\"axis\" d=\"M{left} {top}V{bottom}H{right}\"/><text "
            + $"x=\"{(left + right) / 2}\" y=\"{bottom + 36}\" text-anchor=\"middle\">step</text><text x=\"4\" "
            + $"y=\"12\">{ReportHtml.Escape(unit)}</text>");
        foreach (var c in curves) Path(c.Raw, $"s{c.Colour} thin");
        foreach (var c in curves) Path(c.Smooth, $"s{c.Colour} line");
        foreach (var c in curves)
            foreach (var (x, y) in c.Points)
                s.Append(CultureInfo.InvariantCulture, $"<circle class=\"f{c.Colour} ring\" cx=\"{X(x):0.#}\" "
                    + $"cy=\"{Y(y):0.#}\" r=\"4.5\"><title>{ReportHtml.Escape(c.Name)}, step {x}: "
                    + $"{y:0.####}</title></circle>");
        return s.Append("</svg>").ToString();

        double X(double x) => left + x / xEnd * (right - left);
        double Y(double y) => bottom - (y - y0) / (y1 - y0) * (bottom - top);
        void Path(IReadOnlyList<(double X, double Y)> points, string css)
        {
            if (points.Count == 0) return;
            s.Append($"<path class=\"{css}\" d=\"");
            char command = 'M';
            foreach (var (x, y) in Thin(points))
            {
                s.Append(CultureInfo.InvariantCulture, $"{command}{X(x):0.#} {Y(y):0.#}");
                command = 'L';
            }
            s.Append("\"/>");
        }
    }

    /// <summary>Horizontal stacked bars with their label above.</summary>
    public static string Stacked(
        string title,
        IReadOnlyList<(string Label, string Value, IReadOnlyList<(int Colour, double Size, string Title)> Parts)> bars)
    {
        double largest = Math.Max(1, bars.Max(b => b.Parts.Sum(p => p.Size))), y = 0;
        var s = Open(bars.Count * 38 + 4, title);
        foreach (var (label, value, parts) in bars)
        {
            s.Append(
                CultureInfo.InvariantCulture,
                $"<text x=\"0\" y=\"{y + 13}\">{ReportHtml.Escape(label)}</text><text x=\"{Width}\" y=\"{y + 13}\" "
                    + $"text-anchor=\"end\">{ReportHtml.Escape(value)}</text>"
            );
            double x = 0;
            foreach (var (colour, size, name) in parts)
            {
                double w = size / largest * Width;
                s.Append(
                    CultureInfo.InvariantCulture,
                    $"<rect class=\"f{colour}\" x=\"{x:0.##}\" y=\"{y + 18}\" width=\"{w:0.##}\" "
                        + $"height=\"13\"><title>{ReportHtml.Escape(name)}</title></rect>"
                );
                x += w;
            }
            y += 38;
        }
        return s.Append("</svg>").ToString();
    }

    /// <summary>A dot with its interval in each row, on a common axis.</summary>
    public static string Intervals(string title, IReadOnlyList<(string Label, int Colour, Interval Value)> rows)
    {
        double[] ticks = Ticks(
            Math.Floor(rows.Min(r => r.Value.Low) * 20) / 20, Math.Min(1, rows.Max(r => r.Value.High)));
        double low = ticks[0], high = ticks[^1], bottom = rows.Count * 36 + 4, y = 0;
        var s = Open(bottom + 22, title);
        foreach (double t in ticks)
        {
            s.Append(CultureInfo.InvariantCulture, $"<path class=\"grid\" d=\"M{X(t):0.#} 0V{bottom}\"/>");
            s.Append(
                CultureInfo.InvariantCulture,
                $"<text x=\"{X(t):0.#}\" y=\"{bottom + 16}\" text-anchor=\"middle\">{Tick(t, ticks)}</text>");
        }
        foreach (var (label, colour, v) in rows)
        {
            string css = colour < 0 ? "n" : colour.ToString(CultureInfo.InvariantCulture);
            s.Append(
                CultureInfo.InvariantCulture,
                $"<text x=\"0\" y=\"{y + 13}\" class=\"over\">{ReportHtml.Escape(label)}</text>");
            s.Append(
                CultureInfo.InvariantCulture,
                $"<path class=\"s{css} line\" d=\"M{X(v.Low):0.#} {y + 24}H{X(v.High):0.#}M{X(v.Low):0.#} "
                    + $"{y + 20}v8M{X(v.High):0.#} {y + 20}v8\"/>"
            );
            s.Append(
                CultureInfo.InvariantCulture,
                $"<circle class=\"f{css}\" cx=\"{X(v.Value):0.#}\" cy=\"{y + 24}\" "
                    + $"r=\"4.5\"><title>{ReportHtml.Escape($"{label}: {Show.I(v)}")}</title></circle>"
            );
            y += 36;
        }
        return s.Append("</svg>").ToString();

        double X(double v) => 16 + (v - low) / (high - low) * (Width - 32);
    }

    /// <summary>Round values that span a range: steps of 1, 2 or 5 times a power of ten, about five of them.</summary>
    internal static double[] Ticks(double low, double high)
    {
        if (!(high > low)) high = low + 1;
        double raw = (high - low) / 5, power = Math.Pow(10, Math.Floor(Math.Log10(raw))), lead = raw / power;
        double step = power * (lead <= 1.001 ? 1 : lead <= 2.001 ? 2 : lead <= 5.001 ? 5 : 10);
        int first = (int)Math.Floor(low / step + 1e-9), last = (int)Math.Ceiling(high / step - 1e-9);
        return Enumerable.Range(first, last - first + 1).Select(i => i * step).ToArray();
    }

    private static string Tick(double v, double[] ticks) => v == 0 ? "0"
            : (
                ticks[1] - ticks[0] is var step && step < 0.001
                    ? v.ToString("0.##e-0", CultureInfo.InvariantCulture)
                    : v.ToString(step >= 1 ? "#,0" : "0.###", CultureInfo.InvariantCulture)
            );

    /// <summary>
    /// Long curves keep the lowest and highest point of each of 400 stretches, so that spikes stay visible.
    /// </summary>
    private static IEnumerable<(double X, double Y)> Thin(IReadOnlyList<(double X, double Y)> points)
    {
        const int parts = 400;
        if (points.Count <= 2 * parts) return points;
        return Enumerable.Range(0, parts).SelectMany(k =>
        {
            var part = points
                .Skip(points.Count * k / parts)
                .Take(points.Count * (k + 1) / parts - points.Count * k / parts)
                .ToList();
            return new[] { part.MinBy(p => p.Y), part.MaxBy(p => p.Y) }.OrderBy(p => p.X);
        });
    }

    private static StringBuilder Open(double height, string title) =>
        new StringBuilder().Append(
            CultureInfo.InvariantCulture,
            $"<svg viewBox=\"0 0 {Width} {height}\" role=\"img\" aria-label=\"{ReportHtml.Escape(title)}\">");
}
