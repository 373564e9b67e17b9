using System.Net.Http.Headers;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Headroom.Formats.Hub;

/// <summary>What the hub says about one file of one commit.</summary>
/// <param name="File">Path in the repository.</param>
/// <param name="Commit">40 hex digits.</param>
/// <param name="Etag">Name of the blob: SHA-256 (64 hex digits) or git blob id (40).</param>
/// <param name="Size">Bytes.</param>
/// <param name="Location">Where to download from; maybe another host, maybe for a limited time.</param>
internal sealed record HubFile(string File, string Commit, string Etag, long Size, Uri Location);

/// <summary>
/// Requests to the hub: redirects by hand, so that the token goes to the endpoint's own host only, and one loop of
/// retries (why not the resilience package: docs/dependencies.md).
/// </summary>
internal sealed class HubClient : IDisposable
{
    /// <summary>Tries of one request.</summary>
    public const int Attempts = 5;
    private const int LongestPage = 16 << 20; // a page of the list has 1,000 entries, about 250 KB
    private static readonly TimeSpan LongestWait = TimeSpan.FromMinutes(5);
    private readonly HttpClient _http;
    private readonly HubSettings _settings;
    private readonly Uri _endpoint;
    private readonly Func<TimeSpan, CancellationToken, Task> _delay;
    private readonly Action<string>? _say;

    public HubClient(
        HubSettings settings, Action<string>? say = null, Func<TimeSpan, CancellationToken, Task>? delay = null)
    {
        _settings = settings;
        _say = say;
        _delay = delay ?? Task.Delay;
        _endpoint = new Uri(settings.Endpoint + "/");
        // No automatic decompression: sizes and ranges must be those of the file itself.
        _http = new HttpClient(
            new SocketsHttpHandler
            {
                AllowAutoRedirect = false,
                UseCookies = false,
                ConnectTimeout = settings.EtagTimeout,
                PooledConnectionLifetime = TimeSpan.FromMinutes(5),
            }
        )
        {
            Timeout = Timeout.InfiniteTimeSpan,
        };
        _http.DefaultRequestHeaders.UserAgent.Add(new ProductInfoHeaderValue("headroom", "1"));
    }

    /// <summary>True for an address of the endpoint's own host.</summary>
    public bool IsEndpoint(Uri uri) => uri.Scheme == _endpoint.Scheme && uri.Authority == _endpoint.Authority;

    /// <summary>
    /// The metadata request: HEAD on the resolve address; relative redirects (renamed repositories) are followed,
    /// others are the download address.
    /// </summary>
    public async Task<HubFile> Head(HubName name, string revision, string file, CancellationToken stop)
    {
        var uri = new Uri(_endpoint, name.ResolvePath(revision, file));
        for (int hop = 0; hop < 5; hop++)
        {
            using var response = await Send(HttpMethod.Head, uri, null, _settings.EtagTimeout, stop)
                .ConfigureAwait(false);
            bool redirect = (int)response.StatusCode is >= 300 and < 400;
            string? location = redirect ? Raw(response, "Location") : null;
            if (location != null && IsRelative(location))
            {
                uri = new Uri(uri, location);
                continue;
            }
            if (!response.IsSuccessStatusCode && location == null)
                throw HubException.From(response, name, revision, file);
            string? commit = Raw(response, "X-Repo-Commit"),
                etag = Raw(response, "X-Linked-Etag") ?? Raw(response, "ETag");
            long? size =
                long.TryParse(Raw(response, "X-Linked-Size"), out long linked) ? linked
                : redirect ? null
                : response.Content.Headers.ContentLength;
            etag = etag?.Trim();
            if (etag?.StartsWith("W/", StringComparison.Ordinal) == true) etag = etag[2..];
            etag = etag?.Trim('"');
            if (
                commit == null
                || !HubName.Commit().IsMatch(commit)
                || string.IsNullOrEmpty(etag)
                || size is null or < 0
            )
                throw Damaged(
                    $"The hub's answer for {file} of {name.Id} names no commit, ETag or size.",
                    "If HF_ENDPOINT is set, check that it is a hub; a proxy may have changed the answer.");
            if (
                etag.Length > 128
                || !etag.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' or '.')
                || etag[0] == '.'
            )
                throw Damaged(
                    $"The hub's ETag for {file} of {name.Id} cannot be a file name.",
                    "If HF_ENDPOINT is set, check that it is a hub.");
            return new HubFile(file, commit, etag, size.Value, location == null ? uri : Absolute(uri, location));
        }
        throw Damaged(
            $"The hub redirects {file} of {name.Id} in circles.",
            "If HF_ENDPOINT is set, check it; else try again later.");
    }

    /// <summary>A page of the API as JSON, and the address of the next one.</summary>
    public async Task<(JsonNode Json, Uri? Next)> Api(HubName name, Uri uri, CancellationToken stop)
    {
        for (int hop = 0; hop < 5; hop++)
        {
            using var response = await Send(HttpMethod.Get, uri, null, _settings.EtagTimeout, stop)
                .ConfigureAwait(false);
            if ((int)response.StatusCode is >= 300 and < 400 && Raw(response, "Location") is { } location)
            {
                uri = Absolute(uri, location);
                continue;
            }
            if (!response.IsSuccessStatusCode)
                throw HubException.From(response, name, name.Revision, "its list of files");
            try
            {
                var body = await HubBody
                    .Open(response, _settings.EtagTimeout, HubBody.MetadataRate, stop)
                    .ConfigureAwait(false);
                byte[]? text;
                await using (body.ConfigureAwait(false)) text = await body.ReadAll(LongestPage).ConfigureAwait(false);
                if (text == null)
                    throw Damaged(
                        $"A page of the hub's list of files of {name.Id} has more than {LongestPage >> 20} MiB.",
                        "If HF_ENDPOINT is set, check that it is a hub.");
                return (JsonNode.Parse(text) ?? throw new JsonException(), NextPage(response, uri));
            }
            catch (JsonException)
            {
                throw Damaged(
                    $"The hub's list of files of {name.Id} is no JSON.",
                    "If HF_ENDPOINT is set, check that it is a hub; a proxy may have changed the answer.");
            }
        }
        throw Damaged(
            $"The hub redirects the list of files of {name.Id} in circles.",
            "If HF_ENDPOINT is set, check it; else try again later.");
    }

    /// <summary>Address of an API path.</summary>
    public Uri ApiUri(string path) => new(_endpoint, path);

    /// <summary>
    /// GET of a file or a part of it, headers only; redirects are followed, the token stays with the endpoint's host.
    /// </summary>
    public async Task<HttpResponseMessage> Get(Uri uri, RangeHeaderValue? range, CancellationToken stop)
    {
        for (int hop = 0; hop < 10; hop++)
        {
            var response = await Send(HttpMethod.Get, uri, range, _settings.DownloadTimeout, stop)
                .ConfigureAwait(false);
            if ((int)response.StatusCode is not (>= 300 and < 400) || Raw(response, "Location") is not { } location)
                return response;
            response.Dispose();
            uri = Absolute(uri, location);
        }
        throw Damaged($"{uri.Host} redirects in circles.", "Try again later.");
    }

    /// <summary>
    /// Runs a request again after connection faults, timeouts, 408, 429 and 5xx: 1, 2, 4, 8 s, or as long as
    /// Retry-After asks.
    /// </summary>
    public async Task<T> Retry<T>(Func<Task<T>> request, CancellationToken stop)
    {
        for (int attempt = 1; ; attempt++)
        {
            try
            {
                return await request().ConfigureAwait(false);
            }
            catch (Exception e) when (attempt < Attempts && IsTransient(e) && !stop.IsCancellationRequested)
            {
                await Wait(attempt, e, stop).ConfigureAwait(false);
            }
        }
    }

    /// <summary>
    /// The wait before try <paramref name="attempt"/> + 1; throws when the server asks for more than five minutes.
    /// </summary>
    public async Task Wait(int attempt, Exception cause, CancellationToken stop)
    {
        var wait = TimeSpan.FromSeconds(Math.Pow(2, Math.Min(attempt - 1, 4)));
        if (cause is HubException { RetryAfter: { } asked })
        {
            if (asked > LongestWait) throw cause;
            wait = asked > TimeSpan.Zero ? asked : TimeSpan.Zero;
        }
        if (wait >= TimeSpan.FromSeconds(4))
            _say?.Invoke($"{cause.Message.TrimEnd('.')}; trying again in {wait.TotalSeconds:F0} s");
        await _delay(wait, stop).ConfigureAwait(false);
    }

    /// <summary>Faults that another try may mend.</summary>
    public static bool IsTransient(Exception e) => e is HubException { IsTransient: true } or TimeoutException
        || e
            is HttpRequestException { HttpRequestError: not HttpRequestError.ProxyTunnelError }
                or HttpIOException
                or IOException;

    /// <summary>A network fault in the user's terms; others are returned as they are.</summary>
    public HubException AsHub(Exception e, string what) => e switch
    {
        HubException h => h,
        HttpRequestException { HttpRequestError: HttpRequestError.ProxyTunnelError } => new HubException(
            HubFault.Proxy, $"The proxy refuses the connection to {_endpoint.Host}: {FirstLine(e)}",
            "Check HTTPS_PROXY and NO_PROXY.", e),
        _ => new HubException(
            HubFault.Unreachable,
            $"{what}, and the hub at {_endpoint.Authority} could not be reached: {FirstLine(e)}",
            "Check the network (and HTTPS_PROXY, HF_ENDPOINT), or copy the repository into the cache.", e),
    };

    private async Task<HttpResponseMessage> Send(
        HttpMethod method, Uri uri, RangeHeaderValue? range, TimeSpan timeout, CancellationToken stop)
    {
        using var request = new HttpRequestMessage(method, uri);
        request.Headers.AcceptEncoding.Add(new StringWithQualityHeaderValue("identity"));
        request.Headers.Range = range;
        if (_settings.Token != null && IsEndpoint(uri))
            request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", _settings.Token);
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(stop);
        limit.CancelAfter(timeout);
        try
        {
            return await _http
                .SendAsync(request, HttpCompletionOption.ResponseHeadersRead, limit.Token)
                .ConfigureAwait(false);
        }
        // As in HubBody.Read: what meets its own time-out may find the connection closed under it.
        catch (Exception e)
            when (limit.IsCancellationRequested && e is (OperationCanceledException or ObjectDisposedException))
        {
            stop.ThrowIfCancellationRequested();
            throw new TimeoutException(
                string.Create(
                    System.Globalization.CultureInfo.InvariantCulture, $"no answer within {timeout.TotalSeconds:0.#} s")
            );
        }
    }

    private static bool IsRelative(string location) =>
        !location.StartsWith("//", StringComparison.Ordinal) && !location.Contains("://", StringComparison.Ordinal);

    // On Unix a Uri takes "/path" for a file, so relative and absolute addresses are told apart before.
    private static Uri Absolute(Uri from, string location)
    {
        if (IsRelative(location)) return new Uri(from, location);
        if (location.StartsWith("//", StringComparison.Ordinal)) location = from.Scheme + ":" + location;
        return Uri.TryCreate(location, UriKind.Absolute, out var uri) && uri.Scheme is "http" or "https" && uri != null
            ? uri
            : throw Damaged(
                $"{from.Host} redirects to an address that is none.",
                "If HF_ENDPOINT is set, check it; else try again later.");
    }

    private static Uri? NextPage(HttpResponseMessage response, Uri from)
    {
        foreach (string part in (Raw(response, "Link") ?? "").Split(','))
            if (
                part.Contains("rel=\"next\"", StringComparison.Ordinal)
                && part.IndexOf('<') is >= 0 and var a
                && part.IndexOf('>') is var b
                && b > a
            )
                return Absolute(from, part[(a + 1)..b]);
        return null;
    }

    private static string? Raw(HttpResponseMessage response, string name) =>
        response.Headers.NonValidated.TryGetValues(name, out var v)
        || response.Content.Headers.NonValidated.TryGetValues(name, out v)
            ? v.ToString()
            : null;

    private static string FirstLine(Exception e) => (e.InnerException ?? e).Message.Split('\n')[0].Trim();

    internal static HubException Damaged(string what, string todo) => new(HubFault.Damaged, what, todo);

    public void Dispose() => _http.Dispose();
}
