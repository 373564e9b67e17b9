using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;

namespace Headroom.Tests.Hub;

/// <summary>One request as it arrived.</summary>
internal sealed record HubRequest(bool Storage, string Method, string Path, IReadOnlyDictionary<string, string> Headers)
{
    public string? Range => Headers.GetValueOrDefault("range");
    public string? Authorization => Headers.GetValueOrDefault("authorization");
}

/// <summary>
/// An answer; DropAfter closes the connection after so many bytes of the body, StallAfter sends nothing more after
/// them, Drip rests after each byte.
/// </summary>
internal sealed record HubAnswer(
    int Status, (string Name, string Value)[] Headers, byte[] Body, int? DropAfter = null, long? Length = null,
    int? StallAfter = null, TimeSpan? Drip = null);

/// <summary>
/// A server on the loopback that behaves like the hub: metadata on HEAD, large files on a second port that stands for
/// the storage host (signed addresses), ranges, error codes in headers, the API's lists in pages. Written over sockets,
/// so that a connection can break half way.
/// </summary>
internal sealed class FakeHub : IDisposable
{
    public const string Commit = "0123456789abcdef0123456789abcdef01234567";
    private readonly TcpListener _hub = new(IPAddress.Loopback, 0), _storage = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource _stop = new();
    private int _signature;
    private long _sent;

    public FakeHub()
    {
        foreach (var (listener, storage) in new[] { (_hub, false), (_storage, true) })
        {
            listener.Start();
            _ = Task.Run(async () =>
            {
                try
                {
                    while (true)
                    {
                        var client = await listener.AcceptTcpClientAsync(_stop.Token);
                        // one that stalls must not take a thread of the pool
                        new Thread(() => Serve(client, storage)) { IsBackground = true }.Start();
                    }
                }
                catch (Exception e) when (e is OperationCanceledException or SocketException or ObjectDisposedException)
                {
                }
            });
        }
    }

    public string Endpoint => $"http://127.0.0.1:{((IPEndPoint)_hub.LocalEndpoint).Port}";
    private string StorageEndpoint => $"http://127.0.0.1:{((IPEndPoint)_storage.LocalEndpoint).Port}";

    /// <summary>Files by "org/name/path", data sets by "datasets/org/name/path".</summary>
    public Dictionary<string, byte[]> Files { get; } = [];
    /// <summary>Files that lie at the storage host.</summary>
    public HashSet<string> Large { get; } = [];
    /// <summary>Old name to new name.</summary>
    public Dictionary<string, string> Renamed { get; } = [];
    /// <summary>Answers in place of the usual ones; null = the usual one.</summary>
    public Func<HubRequest, HubAnswer?> Intercept { get; set; } = _ => null;
    public ConcurrentQueue<HubRequest> Requests { get; } = [];
    public bool IgnoreRanges { get; set; }
    /// <summary>The storage host rests this long after every <see cref="SlowBytes"/> of a connection.</summary>
    public TimeSpan Slow { get; set; }
    public int SlowBytes { get; set; } = 1 << 16;
    /// <summary>Bytes that the storage host has sent.</summary>
    public long Sent => Interlocked.Read(ref _sent);
    public int Heads => Requests.Count(r => r.Method == "HEAD");

    public static string Sha256(byte[] data) => Convert.ToHexStringLower(SHA256.HashData(data));

    public static string GitBlob(byte[] data) =>
        Convert.ToHexStringLower(SHA1.HashData([.. Encoding.ASCII.GetBytes($"blob {data.Length}\0"), .. data]));
    public string Etag(string key) => Large.Contains(key) ? Sha256(Files[key]) : GitBlob(Files[key]);

    public static HubAnswer Error(
        int status, string? code = null, string? message = null, params (string, string)[] more)
    {
        List<(string, string)> headers = [("X-Request-Id", "req-77"), .. more];
        if (code != null) headers.Add(("X-Error-Code", code));
        if (message != null) headers.Add(("X-Error-Message", message));
        return new HubAnswer(status, [.. headers], []);
    }

    private HubAnswer Answer(HubRequest r)
    {
        if (Intercept(r) is { } special) return special;
        if (r.Storage)
        {
            string hash = r.Path.Split('?')[0][1..];
            var file = Files.Values.FirstOrDefault(f => Sha256(f) == hash);
            return file == null ? Error(404) : Part(file, r, []);
        }
        foreach (var (old, now) in Renamed)
            if (r.Path.StartsWith($"/{old}/", StringComparison.Ordinal))
                return new HubAnswer(307, [("Location", r.Path.Replace(old, now))], []);
        if (r.Path.StartsWith("/api/", StringComparison.Ordinal)) return Api(r.Path);
        int at = r.Path.IndexOf("/resolve/", StringComparison.Ordinal);
        if (at < 0) return Error(404, "RepoNotFound");
        string repo = r.Path[1..at],
            rest = r.Path[(at + 9)..],
            revision = Uri.UnescapeDataString(rest[..rest.IndexOf('/')]),
            path = Uri.UnescapeDataString(rest[(rest.IndexOf('/') + 1)..]);
        if (!Files.Keys.Any(k => k.StartsWith(repo + "/", StringComparison.Ordinal))) return Error(401, "RepoNotFound");
        if (revision is not ("main" or Commit or "refs/pr/1")) return Error(404, "RevisionNotFound");
        string key = $"{repo}/{path}";
        if (!Files.TryGetValue(key, out var content))
            return Error(404, "EntryNotFound", null, ("X-Repo-Commit", Commit));
        List<(string, string)> headers = [("X-Repo-Commit", Commit)];
        if (!Large.Contains(key)) return Part(content, r, [.. headers, ("ETag", $"\"{GitBlob(content)}\"")]);
        headers.Add(("X-Linked-Etag", $"\"{Sha256(content)}\""));
        headers.Add(("X-Linked-Size", content.Length.ToString()));
        headers.Add(("Location", $"{StorageEndpoint}/{Sha256(content)}?sig={Interlocked.Increment(ref _signature)}"));
        return new HubAnswer(302, [.. headers], Encoding.ASCII.GetBytes("Found"));
    }

    private HubAnswer Api(string path)
    {
        string[] p = path.Split('?')[0].Split('/'); // "", api, datasets, org, name, tree|revision, rev
        string prefix = (p[2] == "datasets" ? "datasets/" : "") + p[3] + "/" + p[4] + "/";
        var files = Files
            .Keys.Where(k => k.StartsWith(prefix, StringComparison.Ordinal))
            .Select(k => k[prefix.Length..])
            .Order(StringComparer.Ordinal)
            .ToList();
        if (files.Count == 0) return Error(401, "RepoNotFound");
        if (p[5] == "revision") return Json($"{{\"sha\": \"{Commit}\"}}");
        int page = path.Contains("page=2", StringComparison.Ordinal) ? 1 : 0; // two files a page
        string body =
            "["
            + string.Join(
                ",",
                files
                    .Skip(page * 2)
                    .Take(page == 0 ? 2 : 100)
                    .Select(f => $"{{\"type\": \"file\", \"path\": \"{f}\"}}")
                    .Prepend("{\"type\": \"directory\", \"path\": \"x\"}")
            )
            + "]";
        return page == 0 && files.Count > 2
            ? Json(body, ("Link", $"<{Endpoint}{path}&page=2>; rel=\"next\""))
            : Json(body);
    }

    private static HubAnswer Json(string text, params (string, string)[] headers) =>
        new(200, headers, Encoding.UTF8.GetBytes(text));

    private HubAnswer Part(byte[] content, HubRequest r, (string, string)[] headers)
    {
        if (r.Range == null || IgnoreRanges) return new HubAnswer(200, headers, content);
        string[] range = r.Range["bytes=".Length..].Split('-');
        int from = int.Parse(range[0]),
            to = range[1].Length > 0 ? Math.Min(int.Parse(range[1]), content.Length - 1) : content.Length - 1;
        if (from >= content.Length) return new HubAnswer(416, headers, []);
        return new HubAnswer(
            206, [.. headers, ("Content-Range", $"bytes {from}-{to}/{content.Length}")], content[from..(to + 1)]);
    }

    private void Serve(TcpClient client, bool storage)
    {
        using (client)
        {
            try
            {
                var stream = client.GetStream();
                using var reader = new StreamReader(stream, Encoding.ASCII, leaveOpen: true);
                string[] first = (reader.ReadLine() ?? "").Split(' ');
                if (first.Length < 2) return;
                var headers = new Dictionary<string, string>();
                while (reader.ReadLine() is { Length: > 0 } line)
                    headers[line[..line.IndexOf(':')].ToLowerInvariant()] = line[(line.IndexOf(':') + 1)..].Trim();
                var request = new HubRequest(storage, first[0], first[1], headers);
                Requests.Enqueue(request);
                var a = Answer(request);
                var head = new StringBuilder(
                    $"HTTP/1.1 {a.Status} X\r\nConnection: close\r\nContent-Length: {a.Length ?? a.Body.Length}\r\n");
                foreach (var (name, value) in a.Headers) head.Append($"{name}: {value}\r\n");
                stream.Write(Encoding.ASCII.GetBytes(head.Append("\r\n").ToString()));
                int body =
                    request.Method == "HEAD" ? 0 : Math.Min(a.Body.Length, a.DropAfter ?? a.StallAfter ?? int.MaxValue);
                int step = a.Drip != null ? 1 : storage && Slow > TimeSpan.Zero ? SlowBytes : Math.Max(1, body);
                for (int at = 0; at < body; at += step)
                {
                    int n = Math.Min(step, body - at);
                    stream.Write(a.Body, at, n);
                    if (a.Drip is { } rest && _stop.Token.WaitHandle.WaitOne(rest)) return;
                    if (!storage) continue;
                    Interlocked.Add(ref _sent, n);
                    if (at + n < body) Thread.Sleep(Slow);
                }
                stream.Flush();
                if (a.StallAfter != null) _stop.Token.WaitHandle.WaitOne();
            }
            catch (Exception e) when (e is IOException or SocketException)
            {
            }
        }
    }

    public void Dispose()
    {
        _stop.Cancel();
        _hub.Stop();
        _storage.Stop();
    }
}
