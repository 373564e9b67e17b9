using System.Text.Json.Nodes;
using Headroom.Training;
using Headroom.Training.Events;

namespace Headroom.Tests.Formats;

public sealed class EventLogTests : IDisposable
{
    private readonly string _path = Path.GetTempFileName();

    /// <summary>A line that a kill cut off is lost; the event that is appended next is not.</summary>
    [Fact]
    public void AppendsAfterALineThatWasCutOff()
    {
        File.WriteAllText(_path, "{\"event\":\"step\",\"step\":1}\n{\"event\":\"st");
        using (var log = new EventLog(_path)) log.Write("step", new JsonObject { ["step"] = 2 });
        using (var log = new EventLog(_path)) log.Write("step", new JsonObject { ["step"] = 3 });
        Assert.Equal([1, 2, 3], EventLog.Read(_path).Select(e => (int)e["step"]!));
        Assert.Equal(4, File.ReadLines(_path).Count());
    }

    public void Dispose() => File.Delete(_path);
}
