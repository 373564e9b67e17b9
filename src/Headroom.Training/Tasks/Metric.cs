using System.Globalization;
using Headroom.Core;
using Headroom.Training.Intervals;

namespace Headroom.Training.Tasks;

/// <summary>Which way a metric is better.</summary>
public enum Direction : byte
{
    /// <summary>More is better, as of an accuracy.</summary>
    Higher,
    /// <summary>Less is better, as of a loss.</summary>
    Lower,
}

/// <summary>A metric that a task has: what a recipe, the log and reports call it, and which way it is better.</summary>
/// <param name="Name">Name, in snake_case.</param>
/// <param name="Direction">Which way it is better.</param>
internal sealed record MetricKind(string Name, Direction Direction)
{
    private const string Prefix = "eval_";

    /// <summary>The mean loss of the labelled tokens, nats; a metric of every task.</summary>
    public static readonly MetricKind Loss = new("loss", Direction.Lower);

    /// <summary>In words, where the name alone is none.</summary>
    public string Label { get; init; } = Name.Replace('_', ' ');
    /// <summary>What an axis of a chart is called.</summary>
    public string Unit { get; init; } = Name.Replace('_', ' ');

    /// <summary>A name without the prefix that transformers takes with and without it: eval_loss is loss.</summary>
    public static string Plain(string name) =>
        name.StartsWith(Prefix, StringComparison.Ordinal) ? name[Prefix.Length..] : name;
}

/// <summary>A metric's value in one evaluation.</summary>
public sealed class Metric
{
    private readonly Lazy<Interval?> _interval;

    /// <param name="kind">The metric.</param>
    /// <param name="value">Its value; NaN is never the best.</param>
    /// <param name="interval">Gives its 95 % interval when it is asked for, since that may take longer than the
    /// evaluation; null = there is none.</param>
    /// <param name="label">In words, where this evaluation has more to say than the kind: "F1 of ' positive'".</param>
    internal Metric(MetricKind kind, double value, Func<Interval?>? interval = null, string? label = null)
    {
        (Kind, Value, Label) = (kind, value, label ?? kind.Label);
        _interval = new(() => interval?.Invoke());
    }

    /// <summary>Name.</summary>
    public string Name => Kind.Name;
    /// <summary>In words.</summary>
    public string Label { get; }
    /// <summary>Value.</summary>
    public double Value { get; }
    /// <summary>Which way it is better.</summary>
    public Direction Direction => Kind.Direction;
    /// <summary>The kind.</summary>
    internal MetricKind Kind { get; }
    /// <summary>95 % interval, or null.</summary>
    public Interval? Interval => _interval.Value;
    /// <summary>Lower end of the interval.</summary>
    public double? Low => Interval?.Low;
    /// <summary>Upper end.</summary>
    public double? High => Interval?.High;

    /// <summary>Name in words and value, on one line.</summary>
    public override string ToString() =>
        string.Create(CultureInfo.InvariantCulture, $"{Printable.Line(Label)} {Value:F4}");
}
