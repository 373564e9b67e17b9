using Headroom.Core;
using Faults = Headroom.Cli.Faults;

namespace Headroom.EndToEnd;

public class FaultsTests
{
    /// <summary>
    /// Threads that work together hand their faults over wrapped; a user is told what a single thread would have said.
    /// </summary>
    [Fact]
    public void WrappedFaultsAreThoseInside()
    {
        var ours = new HeadroomException("Row 3 is odd.", "Mend it.");
        Assert.Same(
            ours,
            Faults.Describe(
                new AggregateException(new AggregateException(new InvalidOperationException("x"), ours))));
        var full = new AggregateException(new OutOfMemoryException());
        Assert.Contains("not enough memory", Faults.Describe(full).Message);
        Assert.Contains(
            "not enough memory", Faults.Describe(new TypeInitializationException("T", new OutOfMemoryException())).Message);
        var file = Faults.Describe(new AggregateException(new IOException("No space left on device : 'x\u001b'")));
        Assert.Equal(("No space left on device : 'x\\u001b'.", 1), (file.Message, file.ExitCode));
        Assert.Contains("fault of Headroom", Faults.Describe(new AggregateException(new KeyNotFoundException())).ToDo);
    }
}
