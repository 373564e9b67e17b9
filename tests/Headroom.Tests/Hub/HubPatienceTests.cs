using System.Collections.Concurrent;
using System.Diagnostics;
using System.Text;
using Headroom.Core;
using Headroom.Formats.Hub;
using Headroom.Formats.Safetensors;

namespace Headroom.Tests.Hub;

/// <summary>
/// A hub that stalls, drips, breaks off and never ends: every read has its bound, and a time-out is never told as a
/// stop.
/// </summary>
public sealed class HubPatienceTests : IDisposable
{
    private static readonly TimeSpan Limit = TimeSpan.FromMilliseconds(100), Drip = TimeSpan.FromMilliseconds(10);
    private readonly FakeHub _hub = new();
    private readonly string _cache = Directory.CreateTempSubdirectory("headroom-hub-").FullName;
    private readonly ConcurrentQueue<TimeSpan> _waits = [];
    private readonly byte[] _weights = Weights();
    private readonly Stopwatch _clock = Stopwatch.StartNew();

    public HubPatienceTests()
    {
        const string config =
            """{"architectures": ["LlamaForCausalLM"], "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 4}""";
        _hub.Files["org/model/config.json"] = Encoding.UTF8.GetBytes(config);
        _hub.Files["org/model/tokenizer.json"] = "{}"u8.ToArray();
        _hub.Files["org/model/model.safetensors"] = _weights;
        _hub.Large.Add("org/model/model.safetensors");
        _hub.Files["datasets/org/data/train.jsonl"] = "{}"u8.ToArray();
    }

    public void Dispose()
    {
        _hub.Dispose();
        Directory.Delete(_cache, true);
    }

    private static byte[] Weights()
    {
        byte[] header = Encoding.UTF8.GetBytes("""{"w":{"dtype":"F32","shape":[50000],"data_offsets":[0,200000]}}""");
        return [.. BitConverter.GetBytes((long)header.Length), .. header, .. new byte[200_000]];
    }

    // Where metadata is answered at once, its time-out is long enough for a busy machine.
    private HubStore Store(TimeSpan? metadata = null) => new(
            new HubSettings
            {
                Endpoint = _hub.Endpoint,
                Cache = _cache,
                EtagTimeout = metadata ?? TimeSpan.FromSeconds(5),
                DownloadTimeout = Limit,
            },
            null,
            null,
            (t, _) =>
    {
        _waits.Enqueue(t);
        return Task.CompletedTask;
    }, 1 << 20);

    private HubException Fails(Func<HubStore, object?> work, TimeSpan? metadata = null)
    {
        using var store = Store(metadata);
        var e = Assert.IsType<HubException>(Record.Exception(() => work(store)));
        Assert.True(_clock.Elapsed < TimeSpan.FromSeconds(60), $"{_clock.Elapsed}");
        Assert.DoesNotContain("stopped", e.Message, StringComparison.Ordinal);
        Assert.Equal(1, e.ExitCode);
        return e;
    }

    private string Outline() => Path.Combine(_cache, "outline");

    private HubAnswer Stalled(int after, byte[]? body = null) => new(200, [], body ?? _weights, StallAfter: after);

    [Theory]
    [InlineData(0)]
    [InlineData(50)]
    public void AStalledShardEndsAPlan(int after)
    {
        _hub.Intercept = r => r.Storage ? Stalled(after) : null;
        var e = Fails(s => s.Outline("org/model", Outline()));
        Assert.Equal(HubFault.Unreachable, e.Fault);
        Assert.Contains("model.safetensors", e.Message, StringComparison.Ordinal);
        Assert.Contains("no data for 0.1 s", e.Message, StringComparison.Ordinal);
        Assert.Equal(HubClient.Attempts, _hub.Requests.Count(r => r.Storage));
    }

    [Fact]
    public void AShardThatDripsEndsAPlan()
    {
        _hub.Intercept = r => r.Storage ? new HubAnswer(200, [], _weights, Drip: Drip) : null;
        Assert.Contains("only", Fails(s => s.Outline("org/model", Outline())).Message, StringComparison.Ordinal);
        Assert.Equal(HubClient.Attempts, _hub.Requests.Count(r => r.Storage));
    }

    [Fact]
    public void AStallThatEndsIsForgiven()
    {
        int calls = 0;
        _hub.Intercept = r => r.Storage && Interlocked.Increment(ref calls) <= 2 ? Stalled(20) : null;
        using var store = Store();
        using var file = SafetensorsFile.Open(
            Path.Combine(store.Outline("org/model", Outline()), "model.safetensors"));
        Assert.Equal([50000], file.Tensors["w"].Shape);
    }

    [Fact]
    public void ADownloadThatDripsOrStallsEnds()
    {
        _hub.Intercept = r => r.Storage ? new HubAnswer(200, [], _weights, Drip: Drip) : null;
        Assert.Contains("only", Fails(s => s.Model("org/model")).Message, StringComparison.Ordinal);
        Assert.Equal(HubClient.Attempts, _hub.Requests.Count(r => r.Storage));
        _hub.Intercept = r => r.Storage ? Stalled(0) : null;
        Assert.Contains("no data", Fails(s => s.Model("org/model")).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void AServerThatBreaksOffAfterEachByteIsGivenUp()
    {
        _hub.Intercept = r =>
            !r.Storage
                ? null
                : new HubAnswer(
                    206, [("Content-Range", $"bytes {From(r)}-{_weights.Length - 1}/{_weights.Length}")],
                    _weights[From(r)..], DropAfter: 1);
        Assert.Equal(HubFault.Unreachable, Fails(s => s.Model("org/model")).Fault);
        Assert.InRange(_hub.Requests.Count(r => r.Storage), HubClient.Attempts, 2 * HubClient.Attempts);
        static int From(HubRequest r) => r.Range == null ? 0 : int.Parse(r.Range["bytes=".Length..].Split('-')[0]);
    }

    [Theory]
    [InlineData("/api/datasets/org/data/revision", false)]
    [InlineData("/api/datasets/org/data/tree", false)]
    [InlineData("/api/datasets/org/data/tree", true)]
    public void ASlowListIsNoStop(string path, bool drip)
    {
        byte[] body = Encoding.UTF8.GetBytes("[" + new string(' ', 5000) + "]");
        _hub.Intercept = r => !r.Path.StartsWith(path, StringComparison.Ordinal) ? null
            : drip ? new HubAnswer(200, [], body, Drip: Drip) : Stalled(10, body);
        var e = Fails(s => s.Split("org/data", ["train"], true), 2 * Limit);
        Assert.Equal(HubFault.Unreachable, e.Fault);
        Assert.Contains(drip ? "only" : "no data for", e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void PagesWithoutEnd(bool circle)
    {
        int page = 0;
        _hub.Intercept = r => !r.Path.Contains("/tree/", StringComparison.Ordinal) ? null
                : new HubAnswer(
                    200,
                    [
                        (
                            "Link",
                            $"<{_hub.Endpoint}/api/datasets/org/data/tree/x?page={(circle ? 1 : ++page)}>; rel=\"next\""
                        ),
                    ],
                    "[]"u8.ToArray()
                );
        var e = Fails(s => s.Split("org/data", ["train"], true));
        Assert.Equal(HubFault.Damaged, e.Fault);
        Assert.Contains("does not end", e.Message, StringComparison.Ordinal);
        Assert.InRange(_hub.Requests.Count, 2, 1010);
    }

    [Theory]
    [InlineData("[1, {\"type\": 3}, {\"type\": \"file\", \"path\": [1]}, null]", "no split")]
    [InlineData("{\"error\": 1}", "is no list")]
    [InlineData("<html>", "is no JSON")]
    public void ListsThatAreNone(string body, string says)
    {
        _hub.Intercept = r =>
            r.Path.Contains("/tree/", StringComparison.Ordinal)
                ? new HubAnswer(200, [], Encoding.UTF8.GetBytes(body))
                : null;
        using var store = Store();
        Assert.Contains(
            says, Assert.Throws<HubException>(() => store.Split("org/data", ["train"], true)).Message,
            StringComparison.Ordinal);
    }

    [Fact]
    public void APageOfAnySizeIsNotRead()
    {
        _hub.Intercept = r =>
            r.Path.Contains("/tree/", StringComparison.Ordinal) ? new HubAnswer(200, [], new byte[20 << 20]) : null;
        Assert.Contains(
            "more than 16 MiB", Fails(s => s.Split("org/data", ["train"], true)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void AnAnswerThatDoesNotBeginEnds()
    {
        // takes connections, says nothing
        using var deaf = new System.Net.Sockets.TcpListener(System.Net.IPAddress.Loopback, 0);
        deaf.Start();
        string at = $"http://127.0.0.1:{((System.Net.IPEndPoint)deaf.LocalEndpoint).Port}";
        using var store = new HubStore(
            new HubSettings
            {
                Endpoint = at,
                Cache = _cache,
                EtagTimeout = Limit,
                DownloadTimeout = Limit,
            },
            null,
            null,
            (_, _) => Task.CompletedTask,
            1 << 20
        );
        foreach (
            var work in new Action[] { () => store.Model("org/model"), () => store.Split("org/data", ["train"], true) })
        {
            var e = Assert.Throws<HubException>(work);
            Assert.Equal(HubFault.Unreachable, e.Fault);
            Assert.Contains("no answer within 0.1 s", e.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void WaitsAndTriesAreBounded()
    {
        _hub.Intercept = _ => FakeHub.Error(429, null, null, ("Retry-After", "300"));
        Assert.Equal(HubFault.RateLimited, Fails(s => s.Model("org/model")).Fault);
        Assert.Equal(HubClient.Attempts - 1, _waits.Count);
        foreach (string huge in new[] { "301", "999999999", "Wed, 21 Oct 2099 07:28:00 GMT" })
        {
            _waits.Clear();
            _hub.Intercept = _ => FakeHub.Error(503, null, null, ("Retry-After", huge));
            Assert.Equal(1, Fails(s => s.Model("org/model")).ExitCode);
            Assert.Empty(_waits);
        }
        foreach (string odd in new[] { "-5", "soon", "99999999999999999999", "Wed, 21 Oct 1999 07:28:00 GMT" })
        {
            _waits.Clear();
            _hub.Intercept = _ => FakeHub.Error(503, null, null, ("Retry-After", odd));
            Fails(s => s.Model("org/model"));
            Assert.Equal(HubClient.Attempts - 1, _waits.Count);
        }
    }

    // Else a model would go on without its tokenizer, or its index be taken for absent.
    [Theory]
    [InlineData("generation_config.json")]
    [InlineData("tokenizer.json")]
    [InlineData("model.safetensors")]
    public void AFileThatIsNotAnsweredIsNotAbsent(string file)
    {
        _hub.Intercept = r =>
            r.Method == "HEAD" && r.Path.EndsWith("/" + file, StringComparison.Ordinal) ? FakeHub.Error(503) : null;
        Assert.Contains(file, Fails(s => s.Model("org/model")).Message, StringComparison.Ordinal);
        _hub.Intercept = _ => null;
        using var store = Store();
        store.Model("org/model");
        _hub.Intercept = _ => FakeHub.Error(503);
        // the cache stands in
        Assert.True(File.Exists(Path.Combine(store.Model("org/model"), file)) || file == "generation_config.json");
    }

    [Fact]
    public void RedirectsInCirclesEnd()
    {
        _hub.Intercept = r => new HubAnswer(302, [("Location", r.Path + "x")], []);
        foreach (
            var work in new Func<HubStore, object?>[]
            {
                s => s.Model("org/model"), s => s.Split("org/data", ["train"], true),
            }
        )
            Assert.Contains("in circles", Fails(work).Message, StringComparison.Ordinal);
        _hub.Intercept = r => r.Storage ? new HubAnswer(302, [("Location", r.Path + "x")], []) : null;
        Assert.Contains("in circles", Fails(s => s.Outline("org/model", Outline())).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void AStopIsAStop()
    {
        using var stop = new CancellationTokenSource();
        _hub.Intercept = r => r.Storage ? Stalled(10) : null;
        // the usual time-outs
        using var store = new HubStore(new HubSettings { Endpoint = _hub.Endpoint, Cache = _cache });
        stop.CancelAfter(300);
        foreach (
            var work in new Action[]
            {
                () => store.Outline("org/model", Outline(), stop.Token), () => store.Model("org/model", stop.Token),
            }
        )
            Assert.Contains("stopped", Assert.Throws<HeadroomException>(work).Message, StringComparison.Ordinal);
        Assert.True(_clock.Elapsed < TimeSpan.FromSeconds(9), $"{_clock.Elapsed}");
    }

    [Fact]
    public void ASideFileOfAnySizeIsNotDownloaded()
    {
        _hub.Intercept = r => r.Method == "HEAD" && r.Path.EndsWith("/config.json", StringComparison.Ordinal)
                ? new HubAnswer(
                    200, [("X-Repo-Commit", FakeHub.Commit), ("ETag", "\"abc\""), ("X-Linked-Size", "3221225472")], [])
                : null;
        Assert.Contains("3,221,225,472 bytes", Fails(s => s.Config("org/model")).Message, StringComparison.Ordinal);
        Assert.DoesNotContain(_hub.Requests, r => r.Method == "GET");
    }

    [Fact]
    public void AnIndexLeftOverBesideAWholeFileIsNotFollowed()
    {
        _hub.Files["org/model/model.safetensors.index.json"] = Encoding.UTF8.GetBytes(
            """{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"""
        );
        using var store = Store();
        Assert.True(File.Exists(Path.Combine(store.Model("org/model"), "model.safetensors")));
        Assert.Equal(_weights.Length, store.Config("org/model").WeightBytes);
    }
}
