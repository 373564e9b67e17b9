using Headroom.Core;

namespace Headroom.Formats.Hub;

/// <summary>
/// Where the hub is, where its cache lies and who asks: the environment variables that huggingface_hub reads
/// (<c>constants.py</c>, <c>utils/_auth.py</c>), so that one cache and one token serve .NET and Python alike.
/// </summary>
internal sealed class HubSettings
{
    /// <summary>Endpoint when HF_ENDPOINT is not set.</summary>
    public const string DefaultEndpoint = "https://huggingface.co";

    /// <summary>Base address of every request, without a closing slash (HF_ENDPOINT).</summary>
    public string Endpoint { get; init; } = DefaultEndpoint;
    /// <summary>Folder of the cache (HF_HUB_CACHE, else $HF_HOME/hub).</summary>
    public required string Cache { get; init; }
    /// <summary>No request is made (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE).</summary>
    public bool Offline { get; init; }
    /// <summary>Longest wait for the answer to a metadata request.</summary>
    public TimeSpan EtagTimeout { get; init; } = TimeSpan.FromSeconds(10);
    /// <summary>Longest silence while a file is read.</summary>
    public TimeSpan DownloadTimeout { get; init; } = TimeSpan.FromSeconds(10);
    /// <summary>Snapshots hold files in place of links (HF_HUB_DISABLE_SYMLINKS).</summary>
    public bool DisableSymlinks { get; init; }
    /// <summary>
    /// The bearer token, or null. Not public and in no message: it goes into one request header and nowhere else.
    /// </summary>
    internal string? Token { get; init; }
    /// <summary>True when a token is there.</summary>
    public bool HasToken => Token != null;

    /// <summary>Reads the process's environment, or <paramref name="get"/> in its place.</summary>
    /// <exception cref="HeadroomException">A variable has a value that cannot be used.</exception>
    // Long: a list of variables, each with what it takes.
    public static HubSettings FromEnvironment(Func<string, string?>? get = null)
    {
        get ??= Environment.GetEnvironmentVariable;
        string? Text(params string[] names) =>
            names.Select(get).FirstOrDefault(v => !string.IsNullOrWhiteSpace(v))?.Trim();
        bool Flag(params string[] names) =>
            names.Any(n => get(n)?.Trim().ToUpperInvariant() is "1" or "ON" or "YES" or "TRUE");
        string profile = Text("HOME") ?? Environment.GetFolderPath(Environment.SpecialFolder.UserProfile);
        string Whole(string path) =>
            Path.GetFullPath(
                path == "~" || path.StartsWith("~/", StringComparison.Ordinal) ? profile + path[1..] : path);
        string home = Whole(
            Text("HF_HOME") ?? Path.Combine(Text("XDG_CACHE_HOME") ?? Path.Combine(profile, ".cache"), "huggingface"));
        string endpoint = (Text("HF_ENDPOINT") ?? DefaultEndpoint).TrimEnd('/');
        if (!Uri.TryCreate(endpoint, UriKind.Absolute, out var uri) || uri.Scheme is not ("http" or "https"))
            throw new HeadroomException(
                $"HF_ENDPOINT is '{endpoint}', which is no http or https address.",
                "Unset it, or set it to the hub's address.");
        return new HubSettings
        {
            Endpoint = endpoint,
            Cache = Whole(Text("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE") ?? Path.Combine(home, "hub")),
            Offline = Flag("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
            EtagTimeout = Seconds("HF_HUB_ETAG_TIMEOUT"),
            DownloadTimeout = Seconds("HF_HUB_DOWNLOAD_TIMEOUT"),
            DisableSymlinks = Flag("HF_HUB_DISABLE_SYMLINKS"),
            Token = Flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") ? null : FindToken(),
        };

        TimeSpan Seconds(string name)
        {
            if (Text(name) is not { } text) return TimeSpan.FromSeconds(10);
            return
                int.TryParse(text, System.Globalization.CultureInfo.InvariantCulture, out int s)
                && s is > 0 and <= 86400
                ? TimeSpan.FromSeconds(s)
                : throw new HeadroomException(
                    $"{name} is '{text}', which is no number of seconds.",
                    "Unset it, or set it to a whole number such as 10.");
        }

        string? FindToken()
        {
            string? token = Text("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN");
            string from = "HF_TOKEN", file = Whole(Text("HF_TOKEN_PATH") ?? Path.Combine(home, "token"));
            if (token == null && File.Exists(file))
            {
                from = file;
                try
                {
                    token = File.ReadAllText(file);
                }
                catch (Exception e) when (e is IOException or UnauthorizedAccessException)
                {
                    return null; // as without a token; a gated model then says what is missing
                }
            }
            token = token?.Replace("\r", "").Replace("\n", "").Trim();
            if (string.IsNullOrEmpty(token)) return null;
            // What is no header value must not reach the HTTP stack, whose complaint would show it.
            return token.All(c => c is > ' ' and <= '~') ? token
                : throw new HeadroomException(
                    $"The token in {from} holds characters that no token has.",
                    "Set it to the token as the hub shows it.");
        }
    }
}
