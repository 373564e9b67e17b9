using System.Text.Json.Nodes;

namespace Headroom.Formats.Hub;

/// <summary>
/// One repository at one revision while its files are being resolved (huggingface_hub <c>file_download.py</c>): the
/// first answer fixes the commit, every further file is asked for at that commit, so files of two revisions never mix.
/// </summary>
internal sealed class HubRepository(HubClient client, HubSettings settings, HubName name, Action<string>? say)
{
    private const int MostPages = 1000; // of 1,000 entries; of 100 where a hub is frugal
    private Exception? _cause; // why the hub is not asked any more

    public HubName Name { get; } = name;
    public HubCache Cache { get; } = new(settings, name);
    /// <summary>The commit, once known.</summary>
    public string? Commit { get; private set; } = name.IsCommit ? name.Revision : null;
    /// <summary>True when only the cache is looked at: offline, or after the hub could not be asked.</summary>
    public bool CacheOnly => settings.Offline || _cause != null;
    /// <summary>The folder with the files; the commit must be known.</summary>
    public string Snapshot => Cache.Snapshot(Commit ?? throw new InvalidOperationException("no commit yet"));

    /// <summary>
    /// Where a file is: in the cache (Path), to be downloaded (Remote), or, when it is not required, nowhere. Throws as
    /// section 6 of the hub's rules asks.
    /// </summary>
    public async Task<(string? Path, HubFile? Remote)> Find(string file, bool required, CancellationToken stop)
    {
        if (Commit != null)
        {
            if (Cache.Find(Commit, file) is { } have) return (have, null);
            if (Cache.IsKnownMissing(Commit, file)) return required ? throw NoEntry(file) : default;
        }
        if (settings.Offline) return FromCache(file, required, null);
        if (_cause != null) return FromCache(file, required, _cause);
        bool cached = CachedPath(file) != null;
        try
        {
            Task<HubFile> Ask() => client.Head(Name, Commit ?? Name.Revision, file, stop);
            // Retries are for files that nothing can stand in for.
            var remote = cached
                ? await Ask().ConfigureAwait(false)
                : await client.Retry(Ask, stop).ConfigureAwait(false);
            Fix(remote.Commit);
            if (Cache.Find(remote.Commit, file) is { } path) return (path, null);
            return File.Exists(Cache.Blob(remote.Etag))
                ? (Cache.Link(remote.Etag, remote.Commit, file, isNew: false), null)
                : (null, remote);
        }
        catch (HubException e) when (e.Fault == HubFault.EntryNotFound)
        {
            if (e.Commit != null)
            {
                Fix(e.Commit);
                Cache.MarkMissing(e.Commit, file);
            }
            if (required) throw;
            return default;
        }
        catch (HubException e) when (e.Fault is HubFault.RevisionNotFound or HubFault.Proxy)
        {
            throw;
        }
        catch (Exception e) when (e is HubException || HubClient.IsTransient(e) || e is HttpRequestException)
        {
            if (client.AsHub(e, "") is { Fault: HubFault.Proxy } proxy) throw proxy;
            // A file that was asked for without an answer is not absent, whether or not a model needs it: only the
            // cache may stand in.
            return FromCache(file, required: true, e);
        }
    }

    /// <summary>The metadata of a file again, for a signed address that has expired.</summary>
    public Task<HubFile> Again(string file, CancellationToken stop) => client.Head(Name, Commit!, file, stop);

    /// <summary>
    /// The commit and every path in it: from the API, or from the cache when the hub does not answer.
    /// </summary>
    public async Task<IReadOnlyList<string>> List(CancellationToken stop)
    {
        if (settings.Offline) return ListCached(null);
        try
        {
            bool cached = Cache.ReadRef(Name.Revision) is { } c && Cache.Files(c).Count > 0;
            var first = client.ApiUri($"{Name.ApiPath}/revision/{Uri.EscapeDataString(Name.Revision)}");
            async Task<List<string>> Ask()
            {
                var (answer, _) = await client.Api(Name, first, stop).ConfigureAwait(false);
                if (
                    !(
                        (answer as JsonObject)?["sha"] is JsonValue sha
                        && sha.TryGetValue(out string? commit)
                        && HubName.Commit().IsMatch(commit)
                    )
                )
                    throw HubClient.Damaged(
                        $"The hub names no commit of {Name.Id}.", "If HF_ENDPOINT is set, check that it is a hub.");
                Fix(commit);
                var paths = new List<string>();
                var seen = new HashSet<Uri>();
                for (Uri? page = client.ApiUri($"{Name.ApiPath}/tree/{commit}?recursive=true"); page != null;)
                {
                    if (!seen.Add(page) || seen.Count > MostPages)
                        throw HubClient.Damaged(
                            $"The hub's list of files of {Name.Id} does not end: {seen.Count} pages, each with a next "
                                + $"one.",
                            "If HF_ENDPOINT is set, check that it is a hub.");
                    (var json, page) = await client.Api(Name, page, stop).ConfigureAwait(false);
                    paths.AddRange(Paths(json));
                    if (paths.Count > 100_000)
                        throw HubClient.Damaged(
                            $"{Name.Id} lists more than 100,000 files.", "Download the file you need and give its path."
                        );
                }
                return paths;
            }
            return cached ? await Ask().ConfigureAwait(false) : await client.Retry(Ask, stop).ConfigureAwait(false);
        }
        catch (HubException e) when (e.Fault is HubFault.RevisionNotFound or HubFault.Proxy)
        {
            throw;
        }
        catch (Exception e)
            when (e is HubException or InvalidOperationException
                || HubClient.IsTransient(e)
                || e is HttpRequestException
            )
        {
            return ListCached(e);
        }
    }

    // Of each entry its path, where it is a file.
    private IEnumerable<string> Paths(JsonNode page)
    {
        if (page is not JsonArray entries)
            throw HubClient.Damaged(
                $"The hub's list of files of {Name.Id} is no list.", "If HF_ENDPOINT is set, check that it is a hub.");
        static string? Text(JsonNode? entry, string key) =>
            (entry as JsonObject)?[key] is JsonValue v && v.TryGetValue(out string? text) ? text : null;
        return entries
            .Where(e => Text(e, "type") == "file")
            .Select(e => Text(e, "path"))
            .OfType<string>()
            .Where(IsSafe);
    }

    /// <summary>A path that stays inside the snapshot.</summary>
    public static bool IsSafe(string path) =>
        path.Length is > 0 and < 1024
        && !path.Contains('\\')
        && path.Split('/').All(p => p.Length > 0 && p is not ("." or "..") && !p.Contains('\0'));

    private IReadOnlyList<string> ListCached(Exception? cause)
    {
        string? commit = Cache.ReadRef(Name.Revision);
        var files = commit == null ? [] : Cache.Files(commit);
        if (files.Count == 0) throw NotHere("its list of files", cause);
        Commit = commit;
        Remember(cause);
        return files;
    }

    private string? CachedPath(string file) =>
        Cache.ReadRef(Commit ?? Name.Revision) is { } c ? Cache.Find(c, file) : null;

    private (string?, HubFile?) FromCache(string file, bool required, Exception? cause)
    {
        string? path = CachedPath(file);
        if (path != null)
        {
            Commit ??= Cache.ReadRef(Name.Revision);
            Remember(cause);
            return (path, null);
        }
        return required || Commit == null ? throw NotHere(file, cause) : default;
    }

    private void Remember(Exception? cause)
    {
        if (cause == null || _cause != null) return;
        _cause = cause;
        say?.Invoke(
            $"{Name}: the hub cannot be asked ({cause.Message.Split('\n')[0].TrimEnd('.')}); the copy in the cache is "
                + $"used (commit {Commit![..8]})"
        );
    }

    private HubException NotHere(string file, Exception? cause) => cause switch
    {
        null => new HubException(
            HubFault.Offline, $"{Name} is not in the cache ({file} is missing), and HF_HUB_OFFLINE is set.",
            $"Unset HF_HUB_OFFLINE, or copy the repository to {Cache.Folder}."),
        HubException { Fault: not HubFault.Server } e => e,
        _ => client.AsHub(
            cause is HubException ? new HttpRequestException(cause.Message) : cause,
            $"{file} of {Name} is not in the cache"),
    };

    private HubException NoEntry(string file) =>
        new(
            HubFault.EntryNotFound,
            $"The {(Name.Kind == HubKind.Model ? "model" : "data set")} {Name.Id} has no file {file} in revision "
                + $"'{Name.Revision}'.",
            "Check the file's name, or name another revision: org/name@revision.");

    private void Fix(string commit)
    {
        // Every request after the first asks for this very commit.
        if (Commit != null && Commit != commit)
            throw HubClient.Damaged(
                $"The hub answers with commit {commit[..8]} of {Name.Id} where {Commit[..8]} was asked for.",
                "Run it again; the repository may have changed just now.");
        Commit = commit;
        Cache.WriteRef(Name.Revision, commit);
    }
}
