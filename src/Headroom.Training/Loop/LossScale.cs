namespace Headroom.Training.Loop;

/// <summary>
/// Dynamic loss scaling for fp16 as a value (torch <c>amp/grad_scaler.py</c>): the loss is multiplied by
/// <see cref="Scale"/> before the backward pass, so that small gradients stay above half precision's smallest number,
/// and the gradients are divided by it before clipping.
/// </summary>
/// <param name="Scale">Factor of the loss.</param>
/// <param name="GoodSteps">Updates with finite gradients since the factor last changed.</param>
internal readonly record struct LossScale(double Scale, int GoodSteps)
{
    /// <summary>Where every run begins.</summary>
    public static LossScale Start => new(65536, 0);
    /// <summary>Factor of growth, and of backing off.</summary>
    public const double Growth = 2, Backoff = 0.5;
    /// <summary>Good updates after which the factor grows.</summary>
    public const int Interval = 2000;
    /// <summary>Below this a smaller factor does not help: the gradients overflow by themselves.</summary>
    public const double Least = 1.0 / 1024;

    /// <summary>True when backing off further is of no use.</summary>
    public bool Exhausted => Scale < Least;

    /// <summary>
    /// The factor after a step whose gradients were all finite, or were not (then the update was left out).
    /// </summary>
    public LossScale After(bool finite)
    {
        if (!finite) return new LossScale(Scale * Backoff, 0);
        if (GoodSteps + 1 < Interval) return this with { GoodSteps = GoodSteps + 1 };
        double grown = Scale * Growth;
        return new LossScale(float.IsFinite((float)grown) ? grown : Scale, 0);
    }
}
