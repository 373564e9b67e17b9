using Headroom.Core;

namespace Headroom.Formats.Hub;

/// <summary>
/// The shared cache of one repository: blobs/, refs/, snapshots/, .no_exist/ and locks, as huggingface_hub lays them
/// out (<c>file_download.py</c>). Readers look in snapshots/ only: without symbolic links blobs/ may be empty.
/// </summary>
internal sealed class HubCache
{
    private static readonly TimeSpan LockPoll = TimeSpan.FromMilliseconds(100);
    private readonly string _root, _locks;
    private readonly bool _disableSymlinks;
    private bool? _symlinks;

    /// <summary>The cache folder of <paramref name="name"/>; nothing is created.</summary>
    public HubCache(HubSettings settings, HubName name)
    {
        _root = settings.Cache;
        Folder = Path.Combine(settings.Cache, name.FolderName);
        _locks = Path.Combine(settings.Cache, ".locks", name.FolderName);
        _disableSymlinks = settings.DisableSymlinks;
    }

    /// <summary>Folder of the repository.</summary>
    public string Folder { get; }
    /// <summary>Path of a blob.</summary>
    public string Blob(string etag) => Path.Combine(Folder, "blobs", etag);
    /// <summary>Folder of a commit.</summary>
    public string Snapshot(string commit) => Path.Combine(Folder, "snapshots", commit);

    /// <summary>Path of a file of a commit, when it is there.</summary>
    public string? Find(string commit, string file)
    {
        string path = SnapshotFile(commit, file);
        return File.Exists(path) ? path : null;
    }

    /// <summary>The commit that a branch or tag named when it was last asked for; null when it never was.</summary>
    public string? ReadRef(string revision)
    {
        if (HubName.Commit().IsMatch(revision)) return revision;
        string path = Path.Combine([Folder, "refs", .. revision.Split('/')]);
        try
        {
            return File.Exists(path) && File.ReadAllText(path).Trim() is var commit && HubName.Commit().IsMatch(commit)
                ? commit
                : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>Records what a branch or tag names; a commit hash needs no entry.</summary>
    public void WriteRef(string revision, string commit)
    {
        if (HubName.Commit().IsMatch(revision) || ReadRef(revision) == commit) return;
        string path = Path.Combine([Folder, "refs", .. revision.Split('/')]);
        Guard(() =>
        {
            CreateFolder(Path.GetDirectoryName(path)!);
            AtomicFile.WriteText(path, commit);
        });
    }

    /// <summary>True when the file is known to be missing from the commit.</summary>
    public bool IsKnownMissing(string commit, string file) =>
        File.Exists(Path.Combine([Folder, ".no_exist", commit, .. file.Split('/')]));

    /// <summary>Records that the file is missing from the commit.</summary>
    public void MarkMissing(string commit, string file)
    {
        string path = Path.Combine([Folder, ".no_exist", commit, .. file.Split('/')]);
        Guard(() =>
        {
            CreateFolder(Path.GetDirectoryName(path)!);
            using var f = new FileStream(path, FileMode.OpenOrCreate, FileAccess.Write, FileShare.ReadWrite);
        });
    }

    /// <summary>Files of a commit, as paths with forward slashes.</summary>
    public IReadOnlyList<string> Files(string commit)
    {
        string folder = Snapshot(commit);
        return !Directory.Exists(folder) ? []
            :
            [
                .. Directory
                    .EnumerateFiles(folder, "*", SearchOption.AllDirectories)
                    .Select(f => Path.GetRelativePath(folder, f).Replace('\\', '/'))
                    .Order(StringComparer.Ordinal),
            ];
    }

    /// <summary>
    /// Makes a blob appear under its name in a snapshot: a relative link, or where there are none a file (moved when it
    /// was just downloaded, else copied).
    /// </summary>
    public string Link(string etag, string commit, string file, bool isNew)
    {
        string path = SnapshotFile(commit, file), folder = Path.GetDirectoryName(path)!, blob = Blob(etag);
        return Guard(() =>
        {
            CreateFolder(folder);
            if (File.Exists(path)) return path;
            if (new FileInfo(path).LinkTarget != null) File.Delete(path); // a link whose blob is gone
            if (CanLink())
            {
                try
                {
                    File.CreateSymbolicLink(path, Path.GetRelativePath(folder, blob));
                }
                catch (IOException) when (File.Exists(path))
                {
                    // another process was faster
                }
            }
            else if (isNew) File.Move(blob, path, overwrite: true);
            else
            {
                string temporary = Temporary.Beside(path);
                File.Copy(blob, temporary, overwrite: true);
                File.Move(temporary, path, overwrite: true);
            }
            return path;
        });
    }

    /// <summary>
    /// Waits for the lock of a blob; disposing the result frees it. The same advisory lock (flock) that huggingface_hub
    /// takes.
    /// </summary>
    public async Task<IDisposable> Lock(string etag, Action<string>? say, CancellationToken stop)
    {
        string path = Path.Combine(_locks, etag + ".lock");
        Guard(() => CreateFolder(_locks));
        for (int i = 0; ; i++)
        {
            try
            {
                return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (UnauthorizedAccessException e)
            {
                throw Unwritable(e);
            }
            catch (IOException) when (Directory.Exists(_locks))
            {
                if (i == 20)
                    say?.Invoke(
                        $"another process is downloading {etag[..Math.Min(12, etag.Length)]}...; waiting for it");
                await Task.Delay(LockPoll, stop).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Creates a folder of the cache; the first one marks the cache as such for backup tools.</summary>
    public void CreateFolder(string folder)
    {
        bool first = !Directory.Exists(_root);
        Directory.CreateDirectory(folder);
        if (first)
            File.WriteAllText(
                Path.Combine(_root, "CACHEDIR.TAG"),
                "Signature: 8a477f597d28d172789f06886806bc55\n# This file is a cache directory tag; see the Cache "
                    + "Directory Tagging Specification.\n"
            );
    }

    /// <summary>Runs file work; what the file system refuses becomes a message.</summary>
    internal T Guard<T>(Func<T> work)
    {
        try
        {
            return work();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Unwritable(e);
        }
    }

    internal void Guard(Action work) => Guard(() =>
    {
        work();
        return 0;
    });

    private HeadroomException Unwritable(Exception e) =>
        new(
            $"The hub cache {_root} cannot be written: {e.Message}",
            "Free some space, or set HF_HUB_CACHE to another folder.", 1, e);

    private string SnapshotFile(string commit, string file)
    {
        string path = Path.Combine([Snapshot(commit), .. file.Split('/')]);
        return OperatingSystem.IsWindows() && path.Length > 255 && !path.StartsWith(@"\\?\", StringComparison.Ordinal)
            ? @"\\?\" + Path.GetFullPath(path)
            : path;
    }

    /// <summary>Tries once whether the folder takes symbolic links.</summary>
    private bool CanLink()
    {
        if (_disableSymlinks) return false;
        if (_symlinks is { } known) return known;
        string probe = Temporary.Beside(Path.Combine(Folder, "probe"));
        try
        {
            File.CreateSymbolicLink(probe, "probe-target");
            File.Delete(probe);
            _symlinks = true;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or PlatformNotSupportedException)
        {
            _symlinks = false;
        }
        return _symlinks.Value;
    }
}
