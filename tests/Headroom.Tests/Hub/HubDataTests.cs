using Headroom.Formats.Data;
using Headroom.Formats.Hub;
using Parquet.Serialization;

namespace Headroom.Tests.Hub;

/// <summary>A data set by name, from the hub's Parquet files to rows.</summary>
public sealed class HubDataTests : IDisposable
{
    private sealed class Row
    {
        public string text { get; set; } = "";
        public long label { get; set; }
    }

    private readonly FakeHub _hub = new();
    private readonly string _cache = Directory.CreateTempSubdirectory("headroom-hub-").FullName;

    [Fact]
    public async Task ImdbByName()
    {
        foreach (var (split, label) in new (string, long)[] { ("train", 0), ("test", 1), ("unsupervised", -1) })
        {
            using var file = new MemoryStream();
            await ParquetSerializer.SerializeAsync(
                Enumerable
                    .Range(0, 6)
                    .Select(i => new Row { text = $"{split} {i} <br />", label = label < 0 ? -1 : i / 3 }),
                file,
                cancellationToken: TestContext.Current.CancellationToken
            );
            string key = $"datasets/stanfordnlp/imdb/plain_text/{split}-00000-of-00001.parquet";
            _hub.Files[key] = file.ToArray();
            _hub.Large.Add(key);
        }
        using var store = new HubStore(
            HubSettings.FromEnvironment(n =>
                n switch
                {
                    "HF_ENDPOINT" => _hub.Endpoint,
                    "HF_HOME" => _cache,
                    _ => null,
                }
            )
        );
        var train = DataFiles.Read(store.Split("stanfordnlp/imdb", ["train"], true)!).ToList();
        var test = DataFiles.Read(store.Split("stanfordnlp/imdb", ["test"], true)!).ToList();
        Assert.Equal(["0", "0", "0", "1", "1", "1"], train.Select(r => r.Label));
        Assert.Equal("train 4 <br />", train[4].Text);
        Assert.All(test, r => Assert.StartsWith("test", r.Text, StringComparison.Ordinal));
        Assert.DoesNotContain(_hub.Requests, r =>
            r.Method != "GET" && r.Path.Contains("unsupervised", StringComparison.Ordinal)
        );
    }

    public void Dispose()
    {
        _hub.Dispose();
        Directory.Delete(_cache, true);
    }
}
