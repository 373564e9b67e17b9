using Headroom.Training.Events;
using Headroom.Training.Intervals;

namespace Headroom.Reports;

/// <summary>
/// How a loss curve and its gradient norms behaved; each statistic is named for what it is. Null = too few steps.
/// </summary>
/// <param name="LinearityR2">R² of a straight line through loss over step. A healthy curve is convex, so this is not a
/// goal.</param>
/// <param name="PlateauStep">First step from which the smoothed loss stays within 5 % of the whole fall above its final
/// level; null when only the last tenth does.</param>
/// <param name="CliffStep">Step of the steepest fall, when half of the whole fall happens within a tenth of the
/// run.</param>
/// <param name="CliffShare">Largest share of the whole fall within a tenth of the run.</param>
/// <param name="Spikes">Steps whose loss is above the median of the 15 before by more than 5 scaled median
/// deviations.</param>
/// <param name="GradientOscillation">Mean |g(t) - g(t-1)| divided by mean g.</param>
/// <param name="GradientReversals">Share of neighbouring changes of the norm that change direction (2/3 is pure
/// noise).</param>
internal sealed record CurveStatistics(
    double? LinearityR2, int? PlateauStep, int? CliffStep, double? CliffShare, IReadOnlyList<int>? Spikes,
    double? GradientOscillation, double? GradientReversals)
{
    private const int MinimumSteps = 10;
    private const int SpikeWindow = 15;

    /// <summary>Of a run's steps; steps without a finite value are left out.</summary>
    public static CurveStatistics Compute(IReadOnlyList<StepEvent> steps)
    {
        var loss = steps
            .Where(s => s.Loss is { } l && double.IsFinite(l))
            .Select(s => (s.Step, Value: s.Loss!.Value))
            .ToArray();
        double[] norms = steps
            .Where(s => s.GradNorm is { } g && double.IsFinite(g))
            .Select(s => s.GradNorm!.Value)
            .ToArray();
        var (oscillation, reversals) = Oscillation(norms);
        if (loss.Length < MinimumSteps)
            return new CurveStatistics(null, null, null, null, null, oscillation, reversals);
        double[] y = loss.Select(l => l.Value).ToArray(), smooth = Smooth(y);
        int tenth = Math.Max(2, y.Length / 10);
        double start = y.Take(Math.Max(1, y.Length / 20)).Average(),
            end = y.TakeLast(tenth).Average(),
            fall = start - end;
        int? plateau = null, cliff = null;
        double? share = null;
        if (fall > 0)
        {
            int last = Array.FindLastIndex(smooth, v => v > end + 0.05 * fall);
            if (last + 1 < y.Length - tenth) plateau = loss[last + 1].Step;
            int at = 0;
            double drop = 0;
            for (int i = 0; i + tenth < smooth.Length; i++)
                if (smooth[i] - smooth[i + tenth] is var d && d > drop) (at, drop) = (i, d);
            share = Math.Min(1, drop / fall);
            if (share >= 0.5) cliff = loss[at].Step;
        }
        return new CurveStatistics(Linearity(loss), plateau, cliff, share, Spike(loss), oscillation, reversals);
    }

    /// <summary>Exponential moving average over about a twentieth of the run, without the bias of its start.</summary>
    public static double[] Smooth(IReadOnlyList<double> values)
    {
        double keep = 1 - 2.0 / (Math.Clamp(values.Count / 20.0, 3, 100) + 1), sum = 0, weight = 0;
        var result = new double[values.Count];
        for (int i = 0; i < result.Length; i++)
        {
            sum = keep * sum + (1 - keep) * values[i];
            weight = keep * weight + 1 - keep;
            result[i] = sum / weight;
        }
        return result;
    }

    private static double? Linearity((int Step, double Value)[] points)
    {
        double mx = points.Average(p => (double)p.Step), my = points.Average(p => p.Value), xy = 0, xx = 0, yy = 0;
        foreach (var (step, value) in points)
        {
            xy += (step - mx) * (value - my);
            xx += (step - mx) * (step - mx);
            yy += (value - my) * (value - my);
        }
        return xx == 0 || yy == 0 ? null : xy * xy / (xx * yy);
    }

    private static List<int> Spike((int Step, double Value)[] points)
    {
        var found = new List<int>();
        for (int i = MinimumSteps; i < points.Length; i++)
        {
            double[] before = points[Math.Max(0, i - SpikeWindow)..i].Select(p => p.Value).Order().ToArray();
            double median = Statistics.Quantile(before, 0.5);
            double mad = Statistics.Quantile(before.Select(v => Math.Abs(v - median)).Order().ToArray(), 0.5);
            if (points[i].Value > median + 5 * Math.Max(1.4826 * mad, 1e-3 * Math.Abs(median)))
                found.Add(points[i].Step);
        }
        return found;
    }

    private static (double? Oscillation, double? Reversals) Oscillation(double[] g)
    {
        if (g.Length < MinimumSteps) return (null, null);
        double change = 0;
        int turns = 0;
        for (int i = 1; i < g.Length; i++)
        {
            change += Math.Abs(g[i] - g[i - 1]);
            if (i > 1 && (g[i] - g[i - 1]) * (g[i - 1] - g[i - 2]) < 0) turns++;
        }
        double mean = g.Average();
        return (mean == 0 ? null : change / (g.Length - 1) / mean, turns / (double)(g.Length - 2));
    }
}
