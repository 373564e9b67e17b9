using Headroom.Training.Recipes;

namespace Headroom.Training.Tasks.Preferences;

/// <summary>Log probabilities of the two answers of a row.</summary>
/// <param name="First">Sum over the tokens of the chosen answer (of KTO: of the answer).</param>
/// <param name="FirstTokens">Their number.</param>
/// <param name="Second">Likewise of the rejected answer (of KTO: of an answer to another prompt).</param>
/// <param name="SecondTokens">Their number.</param>
internal readonly record struct PairScore(double First, int FirstTokens, double Second, int SecondTokens);

/// <summary>A row's loss with its derivatives.</summary>
/// <param name="Loss">The loss.</param>
/// <param name="First">Derivative by the first log probability.</param>
/// <param name="Second">Derivative by the second.</param>
/// <param name="RewardFirst">beta * (log p - log p of the base) of the first; of ORPO beta * mean log p.</param>
/// <param name="RewardSecond">Likewise of the second.</param>
internal readonly record struct PairLoss(
    double Loss, double First, double Second, double RewardFirst, double RewardSecond);

/// <summary>The formulas, in double precision, each from its paper (<see cref="PreferenceLossType"/>).</summary>
internal static class PreferenceLoss
{
    /// <summary>Of a pair.</summary>
    /// <param name="o">loss_type, beta, label_smoothing, rpo_alpha.</param>
    /// <param name="p">The model's.</param>
    /// <param name="r">The base's; not looked at by ORPO.</param>
    public static PairLoss Pair(TaskOptions o, PairScore p, PairScore r)
    {
        double beta = o.Beta, c = 1.0 / p.FirstTokens, j = 1.0 / p.SecondTokens;
        var loss = o.LossType switch
        {
            PreferenceLossType.Orpo => Orpo(beta, p, c, j),
            PreferenceLossType.Ipo => Ipo(beta, p, r, c, j),
            PreferenceLossType.SigmoidNorm => Margin(o, p, r, c, j),
            _ => Margin(o, p, r, 1, 1),
        };
        return o.RpoAlpha == 0 ? loss
            : loss with { Loss = loss.Loss - o.RpoAlpha * c * p.First, First = loss.First - o.RpoAlpha * c };
    }

    // A function of beta * (difference of the log ratios), each by its factor.
    private static PairLoss Margin(TaskOptions o, PairScore p, PairScore r, double c, double j)
    {
        double beta = o.Beta, first = beta * c * (p.First - r.First), second = beta * j * (p.Second - r.Second),
            x = first - second, eps = o.LabelSmoothing;
        var (loss, slope) = o.LossType == PreferenceLossType.Hinge
            ? (Math.Max(0, 1 - x), x < 1 ? -1.0 : 0)
            : (-(1 - eps) * LogSigmoid(x) - eps * LogSigmoid(-x), Sigmoid(x) - (1 - eps));
        return new(loss, beta * c * slope, -beta * j * slope, first, second);
    }

    private static PairLoss Ipo(double beta, PairScore p, PairScore r, double c, double j)
    {
        double first = c * (p.First - r.First), second = j * (p.Second - r.Second),
            off = first - second - 1 / (2 * beta);
        return new(off * off, 2 * off * c, -2 * off * j, beta * first, beta * second);
    }

    // -mean log p of the chosen answer - beta * log sigmoid(log odds ratio), odds of mean log probabilities.
    private static PairLoss Orpo(double beta, PairScore p, double c, double j)
    {
        double first = c * p.First, second = j * p.Second,
            ratio = first - second - (LogOneLess(first) - LogOneLess(second)), slope = -beta * Sigmoid(-ratio);
        return new(
            -first - beta * LogSigmoid(ratio), c * (slope / -ExpM1(first) - 1), -j * slope / -ExpM1(second),
            beta * first, beta * second);
    }

    /// <summary>Of one answer, wanted or not.</summary>
    /// <param name="o">beta and the two weights.</param>
    /// <param name="isWanted">Which.</param>
    /// <param name="ratio">log p - log p of the base.</param>
    /// <param name="divergence">The estimate of the divergence from the base, at least 0; a constant.</param>
    public static PairLoss Single(TaskOptions o, bool isWanted, double ratio, double divergence)
    {
        double x = o.Beta * (isWanted ? ratio - divergence : divergence - ratio),
            weight = isWanted ? o.DesirableWeight : o.UndesirableWeight, s = Sigmoid(x);
        return new(
            weight * (1 - s), weight * o.Beta * s * (1 - s) * (isWanted ? -1 : 1), 0, o.Beta * ratio, 0);
    }

    private static double Sigmoid(double x) => x >= 0 ? 1 / (1 + Math.Exp(-x)) : Math.Exp(x) / (1 + Math.Exp(x));

    private static double LogSigmoid(double x) => x >= 0 ? -Log1P(Math.Exp(-x)) : x - Log1P(Math.Exp(x));

    // log(1 - exp(x)) of x < 0, exact near 0 and far from it (Mächler 2012).
    private static double LogOneLess(double x) =>
        x > -0.6931471805599453 ? Math.Log(-ExpM1(x)) : Log1P(-Math.Exp(x));

    // exp(x) - 1 without the loss of digits near 0 (Kahan).
    private static double ExpM1(double x)
    {
        x = Math.Min(x, -1e-300); // a probability of 1 has no odds
        double u = Math.Exp(x);
        return u == 1 ? x : u - 1 == -1 ? -1 : (u - 1) * x / Math.Log(u);
    }

    private static double Log1P(double x)
    {
        double u = 1 + x;
        return u == 1 ? x : Math.Log(u) * x / (u - 1);
    }
}
