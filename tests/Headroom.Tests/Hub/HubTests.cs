using System.Collections.Concurrent;
using System.Text;
using Headroom.Core;
using Headroom.Formats.Gguf;
using Headroom.Formats.Hub;
using Headroom.Formats.HuggingFace;

namespace Headroom.Tests.Hub;

/// <summary>Files by hub name, against a server that behaves like the hub.</summary>
public sealed class HubTests : IDisposable
{
    private const string Token = "hf_secretsecretsecret";
    private readonly FakeHub _hub = new();
    private readonly string _cache = Directory.CreateTempSubdirectory("headroom-hub-").FullName;
    private readonly ConcurrentQueue<string> _said = [];
    private readonly ConcurrentQueue<TimeSpan> _waits = [];
    private readonly byte[] _weights = new byte[300_000];

    public HubTests()
    {
        new Random(1).NextBytes(_weights);
        AddModel("org/model");
    }

    private void AddModel(string id)
    {
        _hub.Files[id + "/config.json"] = "{}"u8.ToArray();
        _hub.Files[id + "/tokenizer.json"] = Encoding.UTF8.GetBytes("{\"tokenizer\": 1}");
        _hub.Files[id + "/model.safetensors"] = _weights;
        _hub.Large.Add(id + "/model.safetensors");
    }

    private HubStore Store(Func<string, string?>? more = null, long piece = 1 << 20) =>
        new(
            HubSettings.FromEnvironment(n =>
                more?.Invoke(n)
                ?? n switch
                {
                    "HF_ENDPOINT" => _hub.Endpoint,
                    "HF_HOME" => _cache,
                    "HF_TOKEN" => Token,
                    "NO_PROXY" => "*",
                    _ => null,
                }
            ),
            _said.Enqueue,
            null,
            (t, _) =>
            {
                _waits.Enqueue(t);
                return Task.CompletedTask;
            },
            piece
        );

    private string Repo(string id = "models--org--model") => Path.Combine(_cache, "hub", id);

    private HubException Fails(Func<HubStore, object?> work, Func<string, string?>? more = null)
    {
        using var store = Store(more);
        var e = Assert.IsType<HubException>(Record.Exception(() => work(store)));
        foreach (string text in (string[])[e.ToString(), e.ToDo, .. _said])
            Assert.DoesNotContain(Token, text, StringComparison.Ordinal);
        return e;
    }

    [Fact]
    public void DownloadsIntoTheSharedLayout()
    {
        using var store = Store();
        string folder = store.Model("org/model");
        Assert.Equal(Path.Combine(Repo(), "snapshots", FakeHub.Commit), folder);
        Assert.Equal(_weights, File.ReadAllBytes(Path.Combine(folder, "model.safetensors")));
        Assert.Equal(FakeHub.Commit, File.ReadAllText(Path.Combine(Repo(), "refs", "main")));
        Assert.Equal(
            $"../../blobs/{FakeHub.Sha256(_weights)}",
            new FileInfo(Path.Combine(folder, "model.safetensors")).LinkTarget);
        Assert.Equal(
            $"../../blobs/{_hub.Etag("org/model/config.json")}",
            new FileInfo(Path.Combine(folder, "config.json")).LinkTarget);
        Assert.True(File.Exists(Path.Combine(Repo(), ".no_exist", FakeHub.Commit, "generation_config.json")));
        Assert.True(File.Exists(Path.Combine(_cache, "hub", "CACHEDIR.TAG")));
        Assert.True(
            File.Exists(Path.Combine(_cache, "hub", ".locks", "models--org--model", FakeHub.Sha256(_weights) + ".lock"))
        );
        Assert.Equal(3, Directory.GetFiles(Path.Combine(Repo(), "blobs")).Length); // nothing unfinished is left
        Assert.All(_hub.Requests.Where(r => r.Storage), r => Assert.Null(r.Authorization));
        Assert.Contains(_hub.Requests, r => r.Storage);
        Assert.All(_hub.Requests.Where(r => !r.Storage), r => Assert.Equal("Bearer " + Token, r.Authorization));
        Assert.All(_hub.Requests, r => Assert.Equal("identity", r.Headers["accept-encoding"]));

        // The second time only the branch is asked for, and only once; at the commit itself nothing is.
        _hub.Requests.Clear();
        Assert.Equal(folder, store.Model("org/model@" + FakeHub.Commit));
        Assert.Empty(_hub.Requests);
        _hub.Intercept = r => r.Path.Contains("/config.json", StringComparison.Ordinal) ? null : FakeHub.Error(500);
        Assert.Equal(folder, store.Model("org/model"));
        Assert.Empty(_waits);
    }

    [Fact]
    public void ASnapshotOfLinksOpensAsAModel()
    {
        foreach (string f in (string[])["config.json", "model.safetensors"])
            _hub.Files["org/real/" + f] = File.ReadAllBytes(Shared.GoldenFile("hf/llama-mha/" + f));
        _hub.Large.Add("org/real/model.safetensors");
        using var store = Store();
        string folder = store.Model("org/real");
        Assert.NotNull(new FileInfo(Path.Combine(folder, "model.safetensors")).LinkTarget);
        using var source = WeightSources.Open(folder);
        Assert.True(source.Has("model.embed_tokens.weight"));
        Assert.Equal(
            BaseHashes.Compute([Shared.GoldenFile("hf/llama-mha/model.safetensors")]), source.Hash);
        Assert.Equal(_hub.Files["org/real/model.safetensors"].Length, store.Config("org/real").WeightBytes);
    }

    [Fact]
    public void FollowsRenamedRepositoriesWithTheSameMethod()
    {
        _hub.Renamed["old/name"] = "org/model";
        using var store = Store();
        Assert.True(File.Exists(Path.Combine(store.Model("old/name"), "model.safetensors")));
        Assert.Contains(_hub.Requests, r =>
            r.Method == "HEAD" && r.Path.StartsWith("/old/name/", StringComparison.Ordinal)
        );
        Assert.Contains(_hub.Requests, r =>
            r.Method == "HEAD" && r.Path.StartsWith("/org/model/", StringComparison.Ordinal) && r.Authorization != null
        );
    }

    [Fact]
    public void ResumesWhereTheConnectionBroke()
    {
        int calls = 0;
        _hub.Intercept = r =>
            r.Storage && Interlocked.Increment(ref calls) == 1
                ? new HubAnswer(200, [], _weights, DropAfter: 120_000)
                : null;
        using var store = Store();
        Assert.Equal(_weights, File.ReadAllBytes(Path.Combine(store.Model("org/model"), "model.safetensors")));
        Assert.Equal([null, "bytes=120000-"], _hub.Requests.Where(r => r.Storage).Select(r => r.Range));
    }

    [Fact]
    public void StartsOverWhenARangeIsIgnored()
    {
        int calls = 0;
        _hub.IgnoreRanges = true;
        _hub.Intercept = r =>
            r.Storage && Interlocked.Increment(ref calls) == 1
                ? new HubAnswer(200, [], _weights, DropAfter: 120_000)
                : null;
        using var store = Store();
        Assert.Equal(_weights, File.ReadAllBytes(Path.Combine(store.Model("org/model"), "model.safetensors")));
        Assert.Equal([null, "bytes=120000-"], _hub.Requests.Where(r => r.Storage).Select(r => r.Range));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void PiecesSideBySide(bool ignored)
    {
        _hub.IgnoreRanges = ignored;
        using var store = Store(piece: 40_000);
        Assert.Equal(_weights, File.ReadAllBytes(Path.Combine(store.Model("org/model"), "model.safetensors")));
        if (!ignored) Assert.Equal(8, _hub.Requests.Where(r => r.Storage).Select(r => r.Range).Distinct().Count());
        Assert.Equal(3, Directory.GetFiles(Path.Combine(Repo(), "blobs")).Length);
    }

    [Fact]
    public void AStoppedDownloadGoesOnWithTheMissingPieces()
    {
        string list = Path.Combine(Repo(), "blobs", FakeHub.Sha256(_weights) + ".headroom.incomplete.pieces");
        _hub.Intercept = r =>
        {
            if (!r.Storage || r.Range!.StartsWith("bytes=0-", StringComparison.Ordinal)) return null;
            // The first piece is whole before another fails.
            Assert.True(
                SpinWait.SpinUntil(
                    () => File.Exists(list) && File.ReadAllText(list).EndsWith("\n0\n", StringComparison.Ordinal),
                    30_000)
            );
            return FakeHub.Error(404);
        };
        using (var store = Store(piece: 100_000)) Assert.ThrowsAny<HeadroomException>(() => store.Model("org/model"));
        _hub.Intercept = _ => null;
        // signed; a request that was under way may still come in
        string[] before = [.. _hub.Requests.Where(r => r.Storage).Select(r => r.Path)];
        using (var store = Store(piece: 100_000))
            Assert.Equal(_weights, File.ReadAllBytes(Path.Combine(store.Model("org/model"), "model.safetensors")));
        Assert.Equal(
            ["bytes=100000-199999", "bytes=200000-299999"],
            _hub.Requests.Where(r => r.Storage && !before.Contains(r.Path)).Select(r => r.Range).Order());
    }

    [Fact]
    public void RefusesAWrongHash()
    {
        byte[] other = [.. _weights];
        other[1000] ^= 1;
        _hub.Intercept = r => r.Storage ? new HubAnswer(200, [], other) : null;
        var e = Fails(s => s.Model("org/model"));
        Assert.Equal((HubFault.Damaged, 1), (e.Fault, e.ExitCode));
        Assert.Contains("hash", e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain(Directory.GetFiles(Path.Combine(Repo(), "blobs")), f =>
            f.Contains(FakeHub.Sha256(_weights), StringComparison.Ordinal)
        );
        Assert.False(File.Exists(Path.Combine(Repo(), "snapshots", FakeHub.Commit, "model.safetensors")));
        // A git blob id is checked too.
        Directory.Delete(Repo(), true);
        _hub.Intercept = r =>
            r.Method == "GET" && r.Path.EndsWith("/tokenizer.json", StringComparison.Ordinal)
                ? new HubAnswer(200, [], Encoding.UTF8.GetBytes("{\"tokenizer\": 2}"))
                : null;
        Assert.Contains("tokenizer.json", Fails(s => s.Model("org/model")).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(200_000)]
    [InlineData(300_001)]
    public void RefusesAWrongSize(int size)
    {
        var body = new byte[size];
        _hub.Intercept = r =>
            r.Storage
                ? r.Range == null
                    ? new HubAnswer(200, [], body)
                    : new HubAnswer(416, [], [])
                : null;
        var e = Fails(s => s.Model("org/model"));
        Assert.Equal(HubFault.Damaged, e.Fault);
        Assert.Contains("300000", e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain(Directory.GetFiles(Path.Combine(Repo(), "blobs")), f =>
            f.Contains(FakeHub.Sha256(_weights), StringComparison.Ordinal)
        );
    }

    [Fact]
    public void AnExpiredAddressIsAskedForAgain()
    {
        _hub.Intercept = r =>
            r.Storage && r.Path.EndsWith("sig=1", StringComparison.Ordinal) ? FakeHub.Error(403) : null;
        using var store = Store();
        Assert.Equal(_weights, File.ReadAllBytes(Path.Combine(store.Model("org/model"), "model.safetensors")));
        Assert.Contains(_hub.Requests, r => r.Storage && r.Path.EndsWith("sig=2", StringComparison.Ordinal));
    }

    public static IEnumerable<ITheoryDataRow> Refusals => new TheoryData<int, string?, string?, HubFault, string>()
    {
            {
                401,
                "GatedRepo",
                null,
                HubFault.Gated,
                "Open the model's page in a browser while signed in, accept the terms, then set HF_TOKEN to a token "
                    + "with read access."
            },
        { 403, "GatedRepo", "Access to model org/model is restricted", HubFault.Gated, "HF_TOKEN" },
        { 401, "RepoNotFound", null, HubFault.RepoNotFound, "Check the spelling org/name; if private, set HF_TOKEN." },
        { 401, null, null, HubFault.RepoNotFound, "Check the spelling org/name; if private, set HF_TOKEN." },
        { 404, "RepoNotFound", null, HubFault.RepoNotFound, "spelling" },
        { 401, null, "Invalid credentials in Authorization header", HubFault.BadToken, "valid token" },
        { 403, null, "Access to this resource is disabled.", HubFault.Disabled, "another repository" },
        { 403, null, null, HubFault.Forbidden, "fine-grained token needs read access" },
        { 404, "RevisionNotFound", null, HubFault.RevisionNotFound, "main" },
        { 404, "EntryNotFound", null, HubFault.EntryNotFound, "file's name" },
        { 429, null, null, HubFault.RateLimited, "HF_TOKEN" },
    };

    [Theory, MemberData(nameof(Refusals))]
    internal void ExplainsRefusals(int status, string? code, string? message, HubFault fault, string todo)
    {
        _hub.Intercept = _ => FakeHub.Error(status, code, message);
        var e = Fails(s => s.Model("org/model"));
        Assert.Equal(fault, e.Fault);
        Assert.Contains(todo, e.ToDo, StringComparison.Ordinal);
        Assert.Contains("org/model", e.Message, StringComparison.Ordinal);
        Assert.Contains("req-77", e.Message, StringComparison.Ordinal);
        Assert.Equal(fault == HubFault.RateLimited ? 1 : 2, e.ExitCode);
        Assert.Equal(fault == HubFault.RateLimited ? 5 : 1, _hub.Requests.Count);
    }

    [Fact]
    public void HonoursRetryAfter()
    {
        int calls = 0;
        _hub.Intercept = _ =>
            Interlocked.Increment(ref calls) switch
            {
                1 => FakeHub.Error(429, null, null, ("Retry-After", "7")),
                2 => FakeHub.Error(503),
                3 => FakeHub.Error(408),
                _ => null,
            };
        using var store = Store();
        store.Model("org/model");
        Assert.Equal([TimeSpan.FromSeconds(7), TimeSpan.FromSeconds(2), TimeSpan.FromSeconds(4)], _waits);
        _hub.Intercept = _ => FakeHub.Error(429, null, null, ("Retry-After", "7200"));
        Assert.Contains("7200", Fails(s => s.Model("org/other")).ToDo, StringComparison.Ordinal);
    }

    [Fact]
    public void OfflineUsesTheCacheAndAsksNothing()
    {
        string? Offline(string n) => n == "HF_HUB_OFFLINE" ? "yes" : null;
        var e = Fails(s => s.Model("org/model"), Offline);
        Assert.Equal(HubFault.Offline, e.Fault);
        Assert.Contains("HF_HUB_OFFLINE", e.ToDo, StringComparison.Ordinal);
        Assert.Contains(Repo(), e.ToDo, StringComparison.Ordinal);
        Assert.Empty(_hub.Requests);
        string folder;
        using (var store = Store()) folder = store.Model("org/model");
        _hub.Requests.Clear();
        using (var store = Store(Offline)) Assert.Equal(folder, store.Model("org/model"));
        Assert.Empty(_hub.Requests);
        File.Delete(Path.Combine(folder, "model.safetensors"));
        Assert.Contains(
            "model.safetensors", Fails(s => s.Model("org/model"), Offline).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(401, "GatedRepo")]
    [InlineData(401, "RepoNotFound")]
    [InlineData(500, null)]
    public void ACachedModelStandsInForAHubThatRefuses(int status, string? code)
    {
        string folder;
        using (var store = Store()) folder = store.Model("org/model");
        _hub.Intercept = _ => FakeHub.Error(status, code);
        _hub.Requests.Clear();
        using (var store = Store(n => n == "HF_TOKEN" ? "" : null)) Assert.Equal(folder, store.Model("org/model"));
        Assert.Single(_hub.Requests);
        Assert.Empty(_waits);
        Assert.Contains(_said, s => s.Contains("copy in the cache", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("RevisionNotFound", HubFault.RevisionNotFound)]
    [InlineData("EntryNotFound", HubFault.EntryNotFound)]
    internal void WhatTheHubDeniesIsNeverAnsweredFromTheCache(string code, HubFault fault)
    {
        using (var store = Store()) store.Model("org/model");
        const string next = "ffffffffffffffffffffffffffffffffffffffff";
        _hub.Intercept = _ => FakeHub.Error(404, code, null, ("X-Repo-Commit", next));
        Assert.Equal(fault, Fails(s => s.Model("org/model")).Fault);
        if (fault != HubFault.EntryNotFound) return;
        Assert.Equal(next, File.ReadAllText(Path.Combine(Repo(), "refs", "main")));
        Assert.True(File.Exists(Path.Combine(Repo(), ".no_exist", next, "config.json")));
    }

    [Fact]
    public void UnreachableIsSaidWithItsCause()
    {
        var e = Fails(s => s.Model("org/model"), n => n == "HF_ENDPOINT" ? "http://127.0.0.1:1" : null);
        Assert.Equal((HubFault.Unreachable, 1), (e.Fault, e.ExitCode));
        Assert.Contains("could not be reached", e.Message, StringComparison.Ordinal);
        Assert.NotNull(e.InnerException);
        Assert.Equal(4, _waits.Count);
    }

    [Fact]
    public void PicklesAreRefused()
    {
        _hub.Files.Remove("org/model/model.safetensors");
        _hub.Files["org/model/pytorch_model.bin"] = [1, 2, 3];
        Assert.Contains("pickles", Fails(s => s.Model("org/model")).Message, StringComparison.Ordinal);
        Assert.DoesNotContain(_hub.Requests, r =>
            r.Method == "GET" && r.Path.EndsWith(".bin", StringComparison.Ordinal)
        );
    }

    [Fact]
    public void ShardsOfAnIndexAndTheRevisionWithASlash()
    {
        _hub.Files.Remove("org/model/model.safetensors");
        foreach (string shard in (string[])["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"])
        {
            _hub.Files["org/model/" + shard] = [.. _weights, (byte)shard[10]];
            _hub.Large.Add("org/model/" + shard);
        }
        _hub.Files["org/model/model.safetensors.index.json"] = Encoding.UTF8.GetBytes(
            "{\"metadata\": {\"total_size\": 600000}, \"weight_map\": {\"a\": \"model-00001-of-00002.safetensors\", "
                + "\"b\": \"model-00002-of-00002.safetensors\"}}"
        );
        using var store = Store();
        Assert.Equal(600_000, store.Config("org/model").WeightBytes);
        Assert.DoesNotContain(_hub.Requests, r => r.Storage);
        string folder = store.Model("org/model@refs/pr/1");
        Assert.True(File.Exists(Path.Combine(folder, "model-00002-of-00002.safetensors")));
        Assert.Equal(FakeHub.Commit, File.ReadAllText(Path.Combine(Repo(), "refs", "refs", "pr", "1")));
        Assert.Contains(_hub.Requests, r => r.Path.Contains("/resolve/refs%2Fpr%2F1/", StringComparison.Ordinal));
    }

    [Fact]
    public void WithoutLinksTheSnapshotHoldsTheFiles()
    {
        string? NoLinks(string n) => n == "HF_HUB_DISABLE_SYMLINKS" ? "1" : null;
        using var store = Store(NoLinks);
        string folder = store.Model("org/model");
        Assert.Null(new FileInfo(Path.Combine(folder, "model.safetensors")).LinkTarget);
        Assert.Empty(Directory.GetFiles(Path.Combine(Repo(), "blobs")));
        Assert.Equal(folder, store.Model("org/model"));
    }

    [Fact]
    public void TwoAtOnceDownloadOnce()
    {
        using HubStore a = Store(), b = Store();
        Parallel.Invoke(() => a.Model("org/model"), () => b.Model("org/model"));
        Assert.Single(_hub.Requests, r => r.Storage);
    }

    [Fact]
    public void SplitsOfADataSet()
    {
        foreach (
            string f in (string[])
                [
                    "README.md", "plain_text/test-00000-of-00001.parquet", "plain_text/train-00000-of-00002.parquet",
                    "plain_text/train-00001-of-00002.parquet", "plain_text/unsupervised-00000-of-00001.parquet"]
        )
            _hub.Files["datasets/stanfordnlp/imdb/" + f] = Encoding.ASCII.GetBytes(f);
        using var store = Store();
        string? test = store.Split("stanfordnlp/imdb", ["test"], true),
            train = store.Split("stanfordnlp/imdb", ["train"], true);
        string folder = Path.Combine(Repo("datasets--stanfordnlp--imdb"), "snapshots", FakeHub.Commit, "plain_text");
        Assert.Equal(Path.Combine(folder, "test-00000-of-00001.parquet"), test);
        Assert.Equal(Path.Combine(folder, "train-*-of-00002.parquet"), train);
        Assert.Equal(2, Directory.GetFiles(folder, Path.GetFileName(train!)).Length);
        Assert.False(File.Exists(Path.Combine(folder, "unsupervised-00000-of-00001.parquet")));
        Assert.Null(store.Split("stanfordnlp/imdb", ["validation"], false));
        Assert.Contains(
            "train-00000", Fails(s => s.Split("stanfordnlp/imdb", ["validation"], true)).ToDo, StringComparison.Ordinal
        );
        _hub.Intercept = _ => FakeHub.Error(503);
        Assert.Equal(train, store.Split("stanfordnlp/imdb", ["train"], true));
    }

    [Theory]
    [
        InlineData("a/b/c"), InlineData("a--b/c"), InlineData("-a/b"), InlineData("a/b."), InlineData("a/b.git"),
        InlineData("a/b c"), InlineData("a/b@x..y"), InlineData("a/b@")]
    public void BadNames(string name) =>
        Assert.Equal(2, Assert.Throws<HeadroomException>(() => HubName.Parse(HubKind.Model, name)).ExitCode);

    [Fact]
    public void LocalPathsWin()
    {
        Directory.CreateDirectory(Path.Combine(_cache, "org", "model"));
        Assert.False(HubName.IsMeant("org/model", _cache));
        Assert.False(HubName.IsMeant("org/modle", _cache)); // a mistyped local path asks no network
        Assert.True(HubName.IsMeant("other/model", _cache));
        Assert.True(HubName.IsMeant("meta-llama/Llama-2-7b-hf@refs/pr/1", _cache));
        foreach (
            string path in (string[])
                ["data/train.jsonl", "../org/x", "/abs/x", "a/b/c", "model", "a/m.gguf", "./model", ".hidden/x"]
        )
            Assert.False(HubName.IsMeant(path, _cache), path);
    }

    [Fact]
    public void SettingsComeFromTheEnvironment()
    {
        File.WriteAllText(Path.Combine(_cache, "token"), " hf_fromfile\r\n");
        HubSettings Of(params (string, string)[] set) =>
            HubSettings.FromEnvironment(n =>
                set.FirstOrDefault(s => s.Item1 == n).Item2 ?? (n == "HOME" ? "/home/u" : null)
            );
        Assert.Equal("/home/u/.cache/huggingface/hub", Of().Cache);
        Assert.Equal("/x/huggingface/hub", Of(("XDG_CACHE_HOME", "/x")).Cache);
        Assert.Equal("/h/hub", Of(("HF_HOME", "/h")).Cache);
        Assert.Equal("/c", Of(("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")).Cache);
        Assert.Equal("/old", Of(("HUGGINGFACE_HUB_CACHE", "/old")).Cache);
        Assert.Equal("hf_fromfile", Of(("HF_HOME", _cache)).Token);
        Assert.Equal("hf_env", Of(("HF_HOME", _cache), ("HF_TOKEN", "hf_env")).Token);
        Assert.Equal("hf_fromfile", Of(("HF_TOKEN_PATH", Path.Combine(_cache, "token"))).Token);
        Assert.False(Of(("HF_TOKEN", "hf_env"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")).HasToken);
        Assert.True(Of(("TRANSFORMERS_OFFLINE", "True")).Offline);
        Assert.False(Of(("HF_HUB_OFFLINE", "0")).Offline);
        Assert.Equal("http://127.0.0.1:9", Of(("HF_ENDPOINT", "http://127.0.0.1:9/")).Endpoint);
        Assert.Equal(3, Of(("HF_HUB_ETAG_TIMEOUT", "3")).EtagTimeout.TotalSeconds);
        var e = Assert.Throws<HeadroomException>(() => Of(("HF_TOKEN", "hf_two words")));
        Assert.DoesNotContain("two words", e.ToString(), StringComparison.Ordinal);
        Assert.Throws<HeadroomException>(() => Of(("HF_ENDPOINT", "ftp://x")));
    }

    public void Dispose()
    {
        _hub.Dispose();
        Directory.Delete(_cache, true);
    }
}
