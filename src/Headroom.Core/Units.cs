using System.Globalization;

namespace Headroom.Core;

/// <summary>Numbers for people.</summary>
internal static class Units
{
    /// <summary>Bytes in binary units.</summary>
    public static string Bytes(long bytes) => bytes switch
    {
        >= 1L << 30 => string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1L << 30):F2} GiB"),
        >= 1L << 20 => string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1L << 20):F1} MiB"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1024.0:F1} KiB"),
    };

    /// <summary>
    /// Parses 24GiB, 512MiB, 1GB or a plain number of bytes, of which less than 1 MiB is a unit forgotten.
    /// </summary>
    /// <exception cref="HeadroomException">It is none of these, or no positive number below 2^63 bytes.</exception>
    public static long Parse(string text)
    {
        string t = text.Trim();
        (string Suffix, double Factor)[] units =
        [
            ("TiB", 1L << 40), ("GiB", 1L << 30), ("MiB", 1L << 20), ("KiB", 1L << 10), ("GB", 1e9), ("MB", 1e6),
            ("G", 1L << 30), ("M", 1L << 20), ("", 1)];
        foreach (var (suffix, factor) in units)
            if (t.EndsWith(suffix, StringComparison.OrdinalIgnoreCase)
                && double.TryParse(t[..^suffix.Length], NumberStyles.Float, CultureInfo.InvariantCulture, out double v)
                && v * factor is >= 1 and < long.MaxValue
            )
                return suffix.Length > 0 || v >= 1 << 20 ? (long)(v * factor)
                    : throw new HeadroomException(
                        $"'{t}' without a unit would be {(long)v} bytes, which is no size.",
                        $"Write the unit, like {t}GiB.");
        throw new HeadroomException($"'{text}' is not a size.", "Write it like 24GiB or 900MiB.");
    }
}
