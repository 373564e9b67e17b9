using System.Globalization;
using Headroom.Core;
using Headroom.Training.Intervals;

namespace Headroom.Training.Tasks;

/// <summary>Numbers as text, the same in every culture.</summary>
internal static class Show
{
    /// <summary>What stands for a number that was not measured.</summary>
    public const string NotMeasured = "not measured";

    /// <summary>Three decimals.</summary>
    public static string N3(double? v) => F(v, "0.000");
    /// <summary>A difference, with its sign.</summary>
    public static string Signed(double? v) => F(v, "+0.000;-0.000;0.000");
    /// <summary>One decimal, thousands apart.</summary>
    public static string N1(double? v) => F(v, "#,0.0");
    /// <summary>A whole number, thousands apart.</summary>
    public static string Count(double? v) => F(v, "#,0");
    /// <summary>A share in percent.</summary>
    public static string Percent(double? v) => F(v, "0.###%");
    /// <summary>A value with its interval, three decimals.</summary>
    public static string I(Interval i) => $"{N3(i.Value)} [{N3(i.Low)}, {N3(i.High)}]";
    /// <summary>Bytes as MiB, without the unit.</summary>
    public static string MiB(double? bytes) => bytes is { } b ? N1(b / 1048576) : NotMeasured;
    /// <summary>MiB with the unit, for prose.</summary>
    public static string InMiB(double bytes) => $"{N1(bytes / 1048576)} MiB";
    /// <summary>A p-value in prose.</summary>
    public static string P(double p) => p < 0.001 ? "p < 0.001" : $"p = {F(p, p < 0.01 ? "0.####" : "0.###")}";
    /// <summary>A p-value in a table.</summary>
    public static string PValue(double p) =>
        P(p) is var s && s.StartsWith("p = ", StringComparison.Ordinal) ? s[4..] : s[2..];
    /// <summary>A name that a table can hold: one line, its middle left out where it is long.</summary>
    public static string Short(string text, int most)
    {
        text = Printable.Line(text);
        const string cut = "…";
        int[] at = StringInfo.ParseCombiningCharacters(text); // a cut must not part what is one sign
        if (at.Length <= most) return text;
        int head = most / 2, tail = most - head - cut.Length;
        return text[..at[head]] + cut + text[at[^tail]..];
    }

    /// <summary>A text, or that there is none.</summary>
    public static string Or(string? text) => string.IsNullOrEmpty(text) ? NotMeasured : text;
    /// <summary>A number by a format.</summary>
    public static string F(double? v, string format) =>
        v is { } d && double.IsFinite(d) ? d.ToString(format, CultureInfo.InvariantCulture) : NotMeasured;
    /// <summary>A metric with its interval, where it has one.</summary>
    public static string Metric(Metric? m) => m?.Interval is { } i ? I(i) : N3(m?.Value);
    /// <summary>A metric with its name, and its interval where it has one, four decimals.</summary>
    public static string Line(Metric m) => m.Interval is { } i ? Interval(m.Label, i) : m.ToString();
    /// <summary>A value with its name and interval, four decimals, as the console has it.</summary>
    public static string Interval(string name, Interval v) =>
        string.Create(CultureInfo.InvariantCulture, $"{name} {v.Value:F4} [{v.Low:F4}, {v.High:F4}]");
}
