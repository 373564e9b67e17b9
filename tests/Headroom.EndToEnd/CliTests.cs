namespace Headroom.EndToEnd;

public class CliTests
{
    [Fact]
    public void BinaryIsBuilt() => Assert.True(File.Exists(Path.Combine(AppContext.BaseDirectory, "headroom.dll")));
}
