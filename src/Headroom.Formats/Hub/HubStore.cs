using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Headroom.Core;

namespace Headroom.Formats.Hub;

/// <summary>Models and data sets by name: found in the cache shared with Python users, or downloaded into it.</summary>
internal sealed partial class HubStore : IDisposable
{
    private const string WholeFile = "model.safetensors", IndexFile = "model.safetensors.index.json";
    private const int Connections = 8;
    private const long XetOnly = 50_000_000_000;
    private static readonly string[] TokenizerFiles =
    [
        "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"];
    private static readonly string[] DataEndings =
    [
        ".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz",
    ];
    private readonly HubSettings _settings;
    private readonly HubClient _client;
    private readonly Action<string>? _say;
    private readonly Action<string, long, long, string>? _progress;
    private readonly SemaphoreSlim _connections = new(Connections);
    private readonly long _piece;

    /// <summary>
    /// Opens nothing yet. <paramref name="say"/> takes lines, <paramref name="progress"/> what, MiB done, MiB in all,
    /// and a rate.
    /// </summary>
    public HubStore(
        HubSettings settings, Action<string>? say = null, Action<string, long, long, string>? progress = null)
        : this(settings, say, progress, null, HubDownload.DefaultPiece)
    {
    }

    internal HubStore(
        HubSettings settings, Action<string>? say, Action<string, long, long, string>? progress,
        Func<TimeSpan, CancellationToken, Task>? delay, long piece)
    {
        _settings = settings;
        _say = say;
        _progress = progress;
        _piece = piece;
        _client = new HubClient(settings, say, delay);
    }

    /// <summary>
    /// The snapshot folder of a model, whole: config.json, generation_config.json, tokenizer, safetensors. Pickled
    /// weights (.bin) are never downloaded.
    /// </summary>
    /// <exception cref="HeadroomException">It is not in the cache and cannot be had; the message says why and what to
    /// do.</exception>
    public string Model(string name, CancellationToken stop = default) => Run(async () =>
    {
        var repo = Open(HubKind.Model, name);
        await One(repo, "config.json", true, stop).ConfigureAwait(false);
        var wanted = new List<(string File, bool Required)>();
        if (await Index(repo, stop).ConfigureAwait(false) is { } index)
            wanted.AddRange(Shards(index, repo.Name).Select(s => (s, true)));
        else wanted.Add(("model.safetensors", repo.CacheOnly));
        wanted.Add(("generation_config.json", false));
        wanted.AddRange(TokenizerFiles.Select(f => (f, false)));
        var paths = await Many(repo, wanted, stop).ConfigureAwait(false);
        if (paths[0] == null) throw await NoWeights(repo, stop).ConfigureAwait(false);
        return repo.Snapshot;
    }, stop);

    /// <summary>
    /// config.json of a model, and the bytes of its weights as the hub or the index tells them (null when unknown); no
    /// weights are downloaded.
    /// </summary>
    public (string ConfigPath, long? WeightBytes) Config(string name, CancellationToken stop = default) =>
        Run(
            async () =>
    {
        var repo = Open(HubKind.Model, name);
        string config = (await One(repo, "config.json", true, stop).ConfigureAwait(false))!;
        if (await Index(repo, stop).ConfigureAwait(false) is { } index) return (config, TotalSize(index));
        var (path, remote) = await repo.Find("model.safetensors", false, stop).ConfigureAwait(false);
        return (config, path != null ? FileSize.Measure(path) : remote?.Size);
    }, stop);

    /// <summary>A folder with the tokenizer files of a model.</summary>
    public string Tokenizer(string name, CancellationToken stop = default) => Run(async () =>
    {
        var repo = Open(HubKind.Model, name);
        await One(repo, "config.json", false, stop).ConfigureAwait(false);
        var paths = await Many(repo, [.. TokenizerFiles.Select(f => (f, false))], stop).ConfigureAwait(false);
        if (paths[0] == null && paths[1] == null)
            throw new HubException(
                HubFault.EntryNotFound, $"{repo.Name} has neither tokenizer.json nor tokenizer.model.",
                "Name the repository of the model that the tokenizer belongs to.");
        return repo.Snapshot;
    }, stop);

    /// <summary>
    /// The file of a split, or a pattern with * when it is in several. Splits are told by their names,
    /// train-00000-of-00001.parquet or train.jsonl; null when the data set has none of <paramref name="splits"/> and
    /// <paramref name="required"/> is false.
    /// </summary>
    public string? Split(string name, IReadOnlyList<string> splits, bool required, CancellationToken stop = default) =>
        Run(
            async () =>
    {
        var repo = Open(HubKind.Dataset, name);
        if (
            repo.Commit != null
            && Choose(repo.Cache.Files(repo.Commit), splits, repo.Name) is { Whole: true } known
        )
            return Pattern(repo, known.Files);
        var files = await repo.List(stop).ConfigureAwait(false);
        var chosen = Choose(files, splits, repo.Name);
        if (chosen == null)
        {
            if (!required) return null;
            var have = files
                .Where(f => DataEndings.Any(e => f.EndsWith(e, StringComparison.OrdinalIgnoreCase)))
                .Take(12)
                .ToList();
            throw new HubException(
                HubFault.EntryNotFound,
                $"The data set {repo.Name} has no split {string.Join(" or ", splits)} in a file that can be "
                    + $"read.",
                have.Count > 0
                    ? "Its data files: " + string.Join(", ", have) + ". Download one and give its path."
                    : $"Files ending in {string.Join(", ", DataEndings)} can be read; download and convert it."
            );
        }
        if (!chosen.Value.Whole)
            throw new HubException(
                HubFault.EntryNotFound, $"Some files of split {splits[0]} of {repo.Name} are missing.",
                "Connect to the hub once, or copy the whole data set into the cache.");
        await Many(repo, [.. chosen.Value.Files.Select(f => (f, true))], stop).ConfigureAwait(false);
        return Pattern(repo, chosen.Value.Files);
    }, stop);

    private HubRepository Open(HubKind kind, string name) => new(_client, _settings, HubName.Parse(kind, name), _say);

    // Where there is a whole file, an index beside it is left over (see SafetensorsIndex).
    private async Task<string?> Index(HubRepository repo, CancellationToken stop) =>
        await repo.Find(WholeFile, false, stop).ConfigureAwait(false) is not (null, null)
            ? null
            : await One(repo, IndexFile, false, stop).ConfigureAwait(false);

    // The largest that is read of a file; what would be refused when it is opened is not downloaded first. Null =
    // weights and data.
    private static long? Most(string file) => file switch
    {
        IndexFile => SideFile.LargestIndex,
        "tokenizer.json" or "tokenizer.model" => SideFile.LargestTokenizer,
        _ when file.EndsWith(".json", StringComparison.Ordinal)
                || file.EndsWith(".jinja", StringComparison.Ordinal) => SideFile.Largest,
        _ => null,
    };

    private async Task<string?> One(HubRepository repo, string file, bool required, CancellationToken stop) =>
        (await Many(repo, [(file, required)], stop).ConfigureAwait(false))[0];

    /// <summary>Paths of files, in order; those not in the cache are downloaded side by side.</summary>
    private async Task<string?[]> Many(
        HubRepository repo, IReadOnlyList<(string File, bool Required)> wanted, CancellationToken stop)
    {
        var paths = new string?[wanted.Count];
        var remote = new List<(int Index, HubFile File)>();
        for (int i = 0; i < wanted.Count; i++)
        {
            var (path, file) = await repo.Find(wanted[i].File, wanted[i].Required, stop).ConfigureAwait(false);
            paths[i] = path;
            if (file != null) remote.Add((i, file));
        }
        if (remote.Count == 0) return paths;
        foreach (var (_, f) in remote)
            if (f.Size > Most(f.File))
                throw HubClient.Damaged(
                    $"{f.File} of {repo.Name} has {f.Size:N0} bytes, at most {Most(f.File):N0} are read of such a "
                        + $"file.",
                    "Name another revision, or a copy of the model with its original files.");
        foreach (var (_, f) in remote)
            if (f.Size > XetOnly)
                throw new HubException(
                    HubFault.Damaged,
                    $"{f.File} of {repo.Name} has {f.Size / 1e9:F0} GB: files above 50 GB need the hub's newer "
                        + $"storage protocol (Xet).",
                    "Download the repository with the hub's own tool; Headroom then finds it in the cache.");
        NeedSpace(repo, remote.Sum(r => r.File.Size));
        using var cancel = CancellationTokenSource.CreateLinkedTokenSource(stop);
        using var meter = new HubMeter(repo.Name.ToString(), remote.Sum(r => r.File.Size), _progress);
        var tasks = remote.Select(r => Task.Run(async () =>
        {
            try
            {
                paths[r.Index] = await Fetch(repo, r.File, meter, cancel.Token).ConfigureAwait(false);
            }
            catch
            {
                await cancel.CancelAsync().ConfigureAwait(false);
                throw;
            }
        }, CancellationToken.None)).ToArray();
        try
        {
            await Task.WhenAll(tasks).ConfigureAwait(false);
        }
        catch
        {
            stop.ThrowIfCancellationRequested();
            var faults = tasks.Where(t => t.IsFaulted).SelectMany(t => t.Exception!.InnerExceptions).ToList();
            throw faults.FirstOrDefault(f => f is HeadroomException)
                ?? faults.FirstOrDefault(f => f is not OperationCanceledException)
                ?? faults[0];
        }
        return paths;
    }

    private async Task<string> Fetch(HubRepository repo, HubFile file, HubMeter meter, CancellationToken stop)
    {
        using (await repo.Cache.Lock(file.Etag, _say, stop).ConfigureAwait(false))
        {
            // another process may have had the lock, and the download
            bool isNew = !File.Exists(repo.Cache.Blob(file.Etag));
            if (isNew && repo.Cache.Find(file.Commit, file.File) is { } moved) return moved;
            if (isNew)
            {
                var download = new HubDownload(
                    _client, repo.Cache, repo.Name, _settings.DownloadTimeout, _connections, meter.Add)
                {
                    PieceBytes = _piece,
                };
                try
                {
                    await download.Run(file, () => repo.Again(file.File, stop), stop).ConfigureAwait(false);
                }
                catch (Exception e) when (HubClient.IsTransient(e) && e is not HubException)
                {
                    throw _client.AsHub(e, $"{file.File} of {repo.Name} is not complete");
                }
            }
            else meter.Add(file.Size);
            return repo.Cache.Link(file.Etag, file.Commit, file.File, isNew);
        }
    }

    private static async Task<HubException> NoWeights(HubRepository repo, CancellationToken stop)
    {
        foreach (string pickle in new[] { "pytorch_model.bin", "pytorch_model.bin.index.json" })
            if (await repo.Find(pickle, false, stop).ConfigureAwait(false) is not (null, null))
                return new HubException(
                    HubFault.EntryNotFound,
                    $"The model {repo.Name} offers its weights only as PyTorch pickles (.bin), which can run code "
                        + $"when they are opened.",
                    "Headroom reads safetensors: name a revision or a copy of the model that has them, or convert it.");
        return new HubException(
            HubFault.EntryNotFound,
            $"The model {repo.Name} has no model.safetensors and no model.safetensors.index.json.",
            "Name a model that has safetensors weights; a .gguf file can be given by its path.");
    }

    private static void NeedSpace(HubRepository repo, long bytes)
    {
        long free;
        try
        {
            string folder = repo.Cache.Folder;
            while (!Directory.Exists(folder) && Path.GetDirectoryName(folder) is { } up) folder = up;
            free = new DriveInfo(folder).AvailableFreeSpace;
        }
        catch (Exception e) when (e is IOException or ArgumentException or UnauthorizedAccessException)
        {
            return; // some file systems do not tell
        }
        if (free < bytes)
            throw new HeadroomException(
                $"{repo.Name} takes {bytes / 1e9:F2} GB, of which {free / 1e9:F2} GB are free below "
                    + $"{repo.Cache.Folder}.",
                "Free some space, or set HF_HUB_CACHE to a folder on a larger disk.", 1);
    }

    private static List<string> Shards(string index, HubName name)
    {
        try
        {
            var map =
                JsonNode.Parse(SideFile.ReadText(index, SideFile.LargestIndex))?["weight_map"] as JsonObject
                ?? throw new JsonException();
            var shards = map.Select(kv => (string?)kv.Value ?? "").Distinct().Order(StringComparer.Ordinal).ToList();
            if (
                shards.Count == 0
                || shards.Any(s =>
                    s != Path.GetFileName(s)
                    || !HubRepository.IsSafe(s)
                    || !s.EndsWith(".safetensors", StringComparison.Ordinal)
                )
            )
                throw new JsonException();
            return shards;
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw HubClient.Damaged(
                $"model.safetensors.index.json of {name} names no safetensors shards.",
                "Use another revision of the model.");
        }
    }

    private static long? TotalSize(string index)
    {
        try
        {
            return (long?)
                (double?)JsonNode.Parse(SideFile.ReadText(index, SideFile.LargestIndex))?["metadata"]?["total_size"];
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or FormatException)
        {
            return null;
        }
    }

    /// <summary>The files of the first split that there is; Whole is false when a numbered file is missing.</summary>
    private static (IReadOnlyList<string> Files, bool Whole)? Choose(
        IReadOnlyList<string> files, IReadOnlyList<string> splits, HubName name)
    {
        foreach (string split in splits)
            foreach (string ending in DataEndings)
            {
                var found = files.Select(f => (File: f, Match: SplitFile().Match(f)))
                .Where(f =>
                    f.Match.Success
                    && f.Match.Groups["split"].Value.Equals(split, StringComparison.OrdinalIgnoreCase)
                    && f.Match.Groups["ending"].Value.Equals(ending, StringComparison.OrdinalIgnoreCase)
                )
                    .OrderBy(f => f.File, StringComparer.Ordinal).ToList();
                if (found.Count == 0) continue;
                string[] folders = [.. found.Select(f => f.Match.Groups["folder"].Value).Distinct()];
                if (folders.Length > 1)
                    throw new HubException(
                        HubFault.EntryNotFound,
                        $"The data set {name} has split {split} in several configurations: "
                        + $"{string.Join(", ", folders.Select(f => f.Length == 0 ? "(top)" : f.TrimEnd('/')).Take(8))}.",
                        "Download the file you mean and give its path.");
                int parts = found[0].Match.Groups["of"].Success
                    ? int.Parse(found[0].Match.Groups["of"].Value, System.Globalization.CultureInfo.InvariantCulture)
                    : found.Count;
                return ([.. found.Select(f => f.File)], found.Count == parts);
            }
        return null;
    }

    private static string Pattern(HubRepository repo, IReadOnlyList<string> files)
    {
        string first = Path.Combine([repo.Snapshot, .. files[0].Split('/')]);
        return files.Count == 1 ? first : NumberedPart().Replace(first, "-*-of-", 1);
    }

    private T Run<T>(Func<Task<T>> work, CancellationToken stop)
    {
        try
        {
            return Task.Run(work, CancellationToken.None).GetAwaiter().GetResult();
        }
        catch (OperationCanceledException e) when (stop.IsCancellationRequested)
        {
            throw new HeadroomException("The download was stopped.", "Run it again; what has arrived is kept.", 1, e);
        }
        catch (Exception e) when (e is OperationCanceledException or TimeoutException)
        {
            throw _client.AsHub(e, "The answer did not come in time");
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _client.Dispose();
        _connections.Dispose();
    }

    [GeneratedRegex(
        @"^(?<folder>(?:[^/]+/)*)(?<split>[A-Za-z0-9_]+)(?:-\d{5}-of-(?<of>\d{5}))?(?<ending>(?:\.parquet|\.jsonl?|\.csv|\.tsv|\.txt)(?:\.gz)?)$",
        RegexOptions.IgnoreCase)]
    private static partial Regex SplitFile();
    [GeneratedRegex(@"-\d{5}-of-", RegexOptions.RightToLeft)]
    private static partial Regex NumberedPart();
}

/// <summary>Adds up what arrives over all files, and shows it ten times a second at most.</summary>
internal sealed class HubMeter(string what, long total, Action<string, long, long, string>? show) : IDisposable
{
    private readonly Lock _gate = new();
    private readonly System.Diagnostics.Stopwatch _clock = System.Diagnostics.Stopwatch.StartNew();
    private long _done, _shownAt = -1000;

    public void Add(long bytes)
    {
        lock (_gate)
        {
            _done += bytes;
            if (_clock.ElapsedMilliseconds - _shownAt < 100) return;
            _shownAt = _clock.ElapsedMilliseconds;
            Show();
        }
    }

    private void Show() => show?.Invoke($"downloading {what}, MiB", _done >> 20, (total + (1 << 20) - 1) >> 20,
            string.Create(
                System.Globalization.CultureInfo.InvariantCulture,
                $"{_done / 1e6 / Math.Max(0.1, _clock.Elapsed.TotalSeconds):F1} MB/s")
        );

    public void Dispose()
    {
        lock (_gate) Show();
    }
}
