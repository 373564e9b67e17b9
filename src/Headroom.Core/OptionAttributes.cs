namespace Headroom.Core;

/// <summary>The values that an option of numbers takes, each of them where it is a list or a map.</summary>
/// <param name="low">Smallest.</param>
/// <param name="high">Largest.</param>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class RangeAttribute(double low, double high = double.PositiveInfinity) : Attribute
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
internal sealed class AlsoCalledAttribute(string names) : Attribute
{
    /// <summary>Their names.</summary>
    public IReadOnlyList<string> Names { get; } = names.Split(' ');
}

/// <summary>A list whose only entry may stand without brackets.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class OneOrMoreAttribute : Attribute;

/// <summary>
/// What a key of a recipe has to do with the numbers that a run gives, and so whether it may change between a run and
/// its resume.
/// </summary>
internal enum Identity : byte
{
    /// <summary>Changes numbers: part of the recipe's hash; a resume with another value is refused.</summary>
    Numbers,
    /// <summary>
    /// Acts only by the token ids and labels of the rows, which are compared themselves: a file may move, a template
    /// may not change.
    /// </summary>
    Rows,
    /// <summary>
    /// Means something else on another device or base (auto, null): what it came to is compared, see the
    /// manifest of a run.
    /// </summary>
    Resolved,
    /// <summary>The length of the run: may be raised.</summary>
    MayRise,
    /// <summary>Changes no number, or is a path or a name: may change, which the log says.</summary>
    None,
}

/// <summary>
/// Says what an option has to do with the numbers of a run. Every option has one; a test sees to that.
/// </summary>
/// <param name="role">What it has to do with them.</param>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class IdentityAttribute(Identity role) : Attribute
{
    /// <summary>What the option has to do with the numbers of a run.</summary>
    public Identity Role => role;
}
