using Headroom.Training.Loop;

namespace Headroom.Tests;

/// <summary>
/// Dynamic loss scaling, torch <c>amp/grad_scaler.py</c>: 65536, halved by an overflow, doubled after 2,000 good
/// updates.
/// </summary>
public class LossScaleTests
{
    [Fact]
    public void HalvesAtOnceAndDoublesAfterTwoThousand()
    {
        var s = LossScale.Start;
        Assert.Equal((65536.0, 0), (s.Scale, s.GoodSteps));
        s = s.After(false);
        Assert.Equal((32768.0, 0), (s.Scale, s.GoodSteps));
        for (int i = 1; i < 2000; i++)
        {
            s = s.After(true);
            Assert.Equal((32768.0, i), (s.Scale, s.GoodSteps));
        }
        s = s.After(true);
        Assert.Equal((65536.0, 0), (s.Scale, s.GoodSteps));
    }

    [Fact]
    public void AnOverflowStartsTheCountAgain()
    {
        var s = LossScale.Start;
        for (int i = 0; i < 1999; i++) s = s.After(true);
        s = s.After(false);
        Assert.Equal((32768.0, 0), (s.Scale, s.GoodSteps));
        for (int i = 0; i < 1999; i++) s = s.After(true);
        Assert.Equal(32768.0, s.Scale);
    }

    [Fact]
    public void StopsGrowingBeforeInfinityAndSaysWhenItIsExhausted()
    {
        var s = new LossScale(float.MaxValue, 1999).After(true);
        Assert.Equal(((double)float.MaxValue, 0), (s.Scale, s.GoodSteps));
        s = LossScale.Start;
        int halvings = 0;
        for (; !s.Exhausted; halvings++) s = s.After(false);
        Assert.Equal(27, halvings); // 65536 / 2^27 is the first below 1 / 1024
    }
}
