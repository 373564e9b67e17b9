using Headroom.Cuda;

namespace Headroom.Cuda.Tests;

/// <summary>The remembered algorithms of products; no GPU is needed.</summary>
public sealed class ProductChoicesTests : IDisposable
{
    private readonly string _folder = Path.Combine(Path.GetTempPath(), Path.GetRandomFileName());

    public void Dispose()
    {
        if (Directory.Exists(_folder)) Directory.Delete(_folder, recursive: true);
    }

    [Fact]
    public void AChoiceIsTheSameInTheNextRun()
    {
        var first = new ProductChoices("card, library 1", _folder);
        Assert.True(first.Writable);
        Assert.Null(first["4096x4096"]);
        Assert.Equal(3, first.Add("4096x4096", 3));
        Assert.Equal(0, first.Add("4096x11008", 0));
        var second = new ProductChoices("card, library 1", _folder);
        Assert.Equal((3, 0), (second["4096x4096"], second["4096x11008"]));
        Assert.Null(new ProductChoices("card, library 2", _folder)["4096x4096"]);
    }

    [Fact]
    public void WhoeverIsFirstDecides()
    {
        ProductChoices one = new("card", _folder), other = new("card", _folder);
        Assert.Equal(2, one.Add("p", 2));
        Assert.Equal(2, other.Add("p", 5));
        Assert.Equal(2, other["p"]);
    }

    [Fact]
    public async Task AFileThatAnotherProcessHasIsWaitedFor()
    {
        new ProductChoices("card", _folder).Add("p", 4);
        var held = new FileStream(Directory.GetFiles(_folder).Single(), FileMode.Open, FileAccess.ReadWrite, FileShare.None);
        var opened = Task.Run(() => new ProductChoices("card", _folder));
        await Task.WhenAny(opened, Task.Delay(50, TestContext.Current.CancellationToken));
        held.Dispose();
        Assert.Equal(4, (await opened)["p"]);
    }

    [Fact]
    public void DamagedLinesAreNoChoices()
    {
        new ProductChoices("card", _folder).Add("p", 4);
        File.AppendAllText(Directory.GetFiles(_folder).Single(), "q\t-1\nr\tx\nno tab\n\n");
        var again = new ProductChoices("card", _folder);
        Assert.Equal(4, again["p"]);
        Assert.Null(again["q"]);
        Assert.Null(again["r"]);
    }

    [Fact]
    public void WhereNothingCanBeKeptTheFirstChoiceStands()
    {
        File.WriteAllText(_folder, "a file where the folder should be");
        try
        {
            Assert.False(new ProductChoices("card", _folder).Writable);
        }
        finally
        {
            File.Delete(_folder);
        }
    }

    [Fact]
    public void AnotherAlgorithmMustBeClearlyFaster()
    {
        Assert.Equal(0, ProductChoices.Best([1.0, 0.99, 1.2]));
        Assert.Equal(2, ProductChoices.Best([1.0, 0.97, 0.93]));
        Assert.Equal(0, ProductChoices.Best([1.0, double.MaxValue]));
    }
}
