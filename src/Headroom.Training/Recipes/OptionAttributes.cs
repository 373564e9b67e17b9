namespace Headroom.Training;

/// <summary>The values that an option of numbers takes, each of them where it is a list or a map.</summary>
/// <param name="low">Smallest.</param>
/// <param name="high">Largest.</param>
[AttributeUsage(AttributeTargets.Property)]
public sealed class RangeAttribute(double low, double high = double.PositiveInfinity) : Attribute
{
    /// <summary>The smallest value, or what all are larger than.</summary>
    public double Low => low;
    /// <summary>The largest value, or what all are smaller than.</summary>
    public double High => high;
    /// <summary>The value itself has to be larger than <see cref="Low"/>.</summary>
    public bool OpenLow { get; set; }
    /// <summary>The value itself has to be smaller than <see cref="High"/>.</summary>
    public bool OpenHigh { get; set; }

    /// <summary>True for a value in the range; an infinite one or NaN is in none.</summary>
    public bool Holds(double value) =>
        (OpenLow ? value > low : value >= low) && (OpenHigh ? value < high : value <= high) && double.IsFinite(value);

    /// <summary>The range in words: "2 or more", "a number from 0 to 1 (but not it)".</summary>
    public override string ToString() => double.IsPositiveInfinity(high)
        ? FormattableString.Invariant(OpenLow ? $"a number above {low}" : (FormattableString)$"{low} or more")
        : FormattableString.Invariant(
            $"a number from {low}{(OpenLow ? " (but not it)" : "")} to {high}{(OpenHigh ? " (but not it)" : "")}");
}

/// <summary>What TRL, transformers, PEFT, Axolotl, Unsloth, LLaMA-Factory and mlx-lm call an option.</summary>
/// <param name="names">Their names, with blanks between.</param>
[AttributeUsage(AttributeTargets.Property)]
public sealed class AlsoCalledAttribute(string names) : Attribute
{
    /// <summary>Their names.</summary>
    public IReadOnlyList<string> Names { get; } = names.Split(' ');
}
