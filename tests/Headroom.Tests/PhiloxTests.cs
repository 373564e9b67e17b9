using Headroom.Core;

namespace Headroom.Tests;

public class PhiloxTests
{
    [Theory] // Known answers of Random123.
    [InlineData(0u, 0u, 0u, 0u, 0u, 0u, 0x6627e8d5u, 0x9b00dbd8u)]
    [InlineData(~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276du, 0x6d5451fdu)]
    [InlineData(0u, 0u, 1u, 0u, 42u, 0u, 0x02933769u, 0xb62c409cu)]
    public void KnownAnswers(uint c0, uint c1, uint c2, uint c3, uint k0, uint k1, uint first, uint last)
    {
        var (x0, _, _, x3) = Philox.Next(c0, c1, c2, c3, k0, k1);
        Assert.Equal((first, last), (x0, x3));
    }

    [Fact]
    public void ResumesAtAnyPosition()
    {
        var a = new PhiloxRandom(7, 1);
        for (int i = 0; i < 6; i++) a.NextUInt();
        var b = new PhiloxRandom(7, 1) { Position = 6 };
        for (int i = 0; i < 9; i++) Assert.Equal(a.NextUInt(), b.NextUInt());
    }
}
