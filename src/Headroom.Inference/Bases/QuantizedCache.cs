using System.Text.RegularExpressions;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Gguf;
using Headroom.Formats.HuggingFace;
using Headroom.Formats.Safetensors;
using Headroom.Inference.Export;

namespace Headroom.Inference.Bases;

/// <summary>
/// Quantized copies of bases, so that the second start reads a quarter: &lt;cache&gt;/quantized/&lt;base
/// hash&gt;-&lt;storage&gt;/ in the layout of a bitsandbytes checkpoint, written whole or not at all after the first
/// load. A copy names the hash of its base; the configuration is always the base's own.
/// Every byte of it is checked against the hashes in its metadata when it is read (<see cref="CopySeal"/>); one that is
/// damaged is thrown away, and the base is read again.
/// </summary>
internal sealed partial class QuantizedCache(string root, long minimumBytes)
{
    /// <summary>Bases below this load fast enough.</summary>
    private const long Worthwhile = 1L << 30;
    private const string WeightsFile = "model.safetensors";
    private readonly string _copies = Path.Combine(root, "quantized");
    private readonly BaseHashes _hashes = new(Path.Combine(root, "hashes"), 0);

    /// <summary>The user's cache, for bases of 1 GiB and more.</summary>
    public static QuantizedCache Default => new(HeadroomCache.Folder, Worthwhile);

    /// <summary>Folder of the copies.</summary>
    public string Folder => _copies;

    /// <summary>
    /// Opens a base, or its quantized copy when the recipe wants that storage, there is one, and the base's hash is
    /// known without reading it.
    /// </summary>
    public IWeightSource Open(string path, QuantizationOptions quantization, Action<string>? say = null)
    {
        var source = WeightSources.Open(path);
        if (source is not CheckpointSource original || !Wanted(original, quantization)) return source;
        if (_hashes.Known(original.Files) is not { } hash)
        {
            if (!BaseHashes.CanTell(original.Files))
                say?.Invoke(
                    $"note: the file system of {path} does not say surely whether a file changed, so the base is "
                        + $"hashed and quantized anew at each start"
                );
            return source;
        }
        string folder = Copy(hash, Storage(quantization));
        if (!Directory.Exists(folder)) return source;
        try
        {
            var copy = new CheckpointSource(folder, original, hash, () =>
            {
                say?.Invoke(
                    $"the quantized copy in {folder} is not what was written; it is thrown away, and the base is read "
                        + $"again"
                );
                Delete(folder);
                return WeightSources.Open(path);
            });
            WeightShapes.CheckAll(copy);
            original.Dispose();
            return copy;
        }
        catch (HeadroomException e)
        {
            say?.Invoke(
                $"the quantized copy in {folder} cannot be used ({e.Message.TrimEnd('.')}); it is thrown away, and "
                    + $"the base is read again"
            );
            Delete(folder);
            return source;
        }
    }

    /// <summary>
    /// Keeps a copy of what was loaded from a full-precision base; does nothing when there is one already or none is
    /// wanted. Never fails a run.
    /// </summary>
    public void Save(Engine engine, IWeightSource source, QuantizationOptions quantization, Action<string>? say = null)
    {
        if (
            source is not CheckpointSource original
            || !Wanted(original, quantization)
            || engine.Settings.LinearStorage != Storage(quantization)
        )
            return;
        if (engine.Initial != null || engine.Model.SavedModules.Any())
            return; // not the base as it is; or a trained table, which is not held in its own type
        // What was loaded has that hash only if the files did not change between the two.
        string hash = original.Hash, folder = Copy(hash, engine.Settings.LinearStorage);
        if (original.Stamp == null || BaseHashes.Stamp(original.Files) != original.Stamp) return;
        _hashes.Remember(original.Files, hash, original.Stamp);
        if (Directory.Exists(folder)) return;
        try
        {
            Directory.CreateDirectory(_copies);
            Temporary.Sweep(_copies); // before the free space is looked at
            long bytes =
                engine.Model.Projections.Sum(p => p.Weight.Bytes)
                + engine.Model.EmbeddingTable.Bytes
                + (engine.Model.Config.TieWordEmbeddings ? 0 : engine.Model.Head.Bytes);
            if (new DriveInfo(_copies).AvailableFreeSpace < 2 * bytes) return;
            using var target = Place(folder);
            if (target == null) return;
            if (bytes > Worthwhile)
                say?.Invoke(
                    $"keeping the quantized base for the next start: {bytes / 1e9:F1} GB in {folder} "
                        + $"(quantization.cache: false turns this off)"
                );
            var metadata = new Dictionary<string, string>(CopySeal.Blank) { [CheckpointSource.BaseHashKey] = hash };
            QuantizedCheckpoint.WriteInto(target.Temporary, engine, source, null, metadata);
            CopySeal.Set(target.Temporary);
            target.Commit();
        }
        catch (Exception e)
            when (e is HeadroomException or IOException or UnauthorizedAccessException or ArgumentException)
        {
            if (!Directory.Exists(folder))
                say?.Invoke($"the quantized base could not be kept: {e.Message}"); // else another process was faster
        }
    }

    // null when another process writes it, or has written it just now.
    private static OutputTarget? Place(string folder)
    {
        try
        {
            return OutputTarget.OfFolder(folder, false, "Choose another cache with HEADROOM_CACHE.", _ => false);
        }
        catch (HeadroomException e) when (e.InnerException == null)
        {
            return null;
        }
    }

    /// <summary>The copies: base hash with storage, bytes, last use.</summary>
    public IReadOnlyList<(string Name, long Bytes, DateTime Written)> List() => !Directory.Exists(_copies) ? []
        : [.. new DirectoryInfo(_copies).EnumerateDirectories().Where(d => CopyName().IsMatch(d.Name))
                    .Select(d => (d.Name, d.EnumerateFiles().Sum(f => f.Length), d.LastWriteTimeUtc))
                    .OrderBy(d => d.Name, StringComparer.Ordinal),
            ];

    /// <summary>
    /// Deletes every copy and remembered hash that the cache wrote: known by its name and by what is in it. A copy that
    /// a living process reads or writes stays, and so does whatever else lies in the folders.
    /// </summary>
    /// <exception cref="HeadroomException">Something cannot be deleted; exit code 1.</exception>
    public CacheCleared Clear()
    {
        var cleared = new CacheCleared([], [], []);
        try
        {
            foreach (string folder in (string[])[_copies, Path.Combine(root, "hashes")])
            {
                if (!Directory.Exists(folder)) continue;
                Temporary.Sweep(folder);
                foreach (
                    var entry in new DirectoryInfo(folder)
                        .EnumerateFileSystemInfos()
                        .OrderBy(e => e.Name, StringComparer.Ordinal)
                        .ToList()
                )
                    ClearEntry(entry, cleared);
                if (!Directory.EnumerateFileSystemEntries(folder).Any()) Directory.Delete(folder);
            }
            return cleared;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new HeadroomException(
                $"{root} cannot be cleared: {e.Message}", "End the runs that use it, then try again.", 1, e);
        }
    }

    private static void ClearEntry(FileSystemInfo entry, CacheCleared cleared)
    {
        if (entry.LinkTarget == null && entry is FileInfo file && IsRememberedHash(file))
        {
            file.Delete();
            cleared.Deleted.Add("hashes/" + file.Name);
        }
        else if (entry is DirectoryInfo folder && IsCopy(folder))
            (ClearCopy(folder.FullName) ? cleared.Deleted : cleared.InUse).Add("quantized/" + folder.Name);
        else if (!Temporary.IsName(entry.Name) && !LockName().IsMatch(entry.Name) && Path.Exists(entry.FullName))
            cleared.Left.Add(entry.FullName);
    }

    private static bool IsRememberedHash(FileInfo file) =>
        file.Directory!.Name == "hashes"
        && BaseHashes.IsHash(file.Name)
        && file.Length == file.Name.Length
        && BaseHashes.IsHash(File.ReadAllText(file.FullName));

    // Its name, no file but its own, and the name of its base in it; a damaged one names none.
    private static bool IsCopy(DirectoryInfo folder)
    {
        if (folder.LinkTarget != null || !CopyName().IsMatch(folder.Name)) return false;
        if (
            folder
                .EnumerateFileSystemInfos()
                .Any(f => f is not FileInfo { LinkTarget: null, Name: "config.json" or WeightsFile })
        )
            return false;
        try
        {
            using var weights = SafetensorsFile.Open(Path.Combine(folder.FullName, WeightsFile));
            return weights.Metadata.GetValueOrDefault(CheckpointSource.BaseHashKey)
                == folder.Name[..folder.Name.IndexOf('-')];
        }
        catch (HeadroomException)
        {
            return true;
        }
    }

    // Its writer holds the lock beside it, and each reader a shared one of the weights (File.OpenHandle), which an
    // exclusive opening runs into.
    private static bool ClearCopy(string folder)
    {
        try
        {
            using var writer = FolderLock.Beside(folder, "The quantized copy");
            string weights = Path.Combine(folder, WeightsFile);
            using (
                File.Exists(weights)
                    ? new FileStream(weights, FileMode.Open, FileAccess.ReadWrite, FileShare.None)
                    : null
            )
                if (!OperatingSystem.IsWindows()) Delete(folder);
            if (OperatingSystem.IsWindows()) Delete(folder); // an open file's folder cannot be renamed there
            return !Directory.Exists(folder);
        }
        catch (Exception e) when (e is IOException || e is HeadroomException { InnerException: null })
        {
            return false;
        }
    }

    private static WeightStorage Storage(QuantizationOptions q) =>
        q.Bnb4bitUseDoubleQuant ?? true ? WeightStorage.NF4Double : WeightStorage.NF4;

    private bool Wanted(CheckpointSource source, QuantizationOptions q) =>
        q.LoadIn4bit
        && source.Config.Quantized == null
        && q.Cache != false
        && (q.Cache == true || source.Stored.Bytes >= minimumBytes);

    private string Copy(string hash, WeightStorage storage) =>
        Path.Combine(_copies, $"{hash}-{(storage == WeightStorage.NF4Double ? "nf4-double" : "nf4")}");

    private static void Delete(string folder)
    {
        try
        {
            // Renamed first: a kill in the middle must not leave half a copy under its name.
            string aside = Temporary.Beside(folder);
            Directory.Move(folder, aside);
            Directory.Delete(aside, true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
        }
    }

    [GeneratedRegex("^[0-9a-f]{64}-nf4(-double)?$")]
    private static partial Regex CopyName();

    [GeneratedRegex(@"^\.[0-9a-f]{64}-nf4(-double)?\.lock(\.json)?$")]
    private static partial Regex LockName();
}

/// <summary>What clearing the cache did.</summary>
/// <param name="Deleted">Copies and remembered hashes that are gone, as paths in the cache.</param>
/// <param name="InUse">Copies that a living process reads or writes, which stay.</param>
/// <param name="Left">What lies in the cache's folders and is not of the cache, as full paths.</param>
internal sealed record CacheCleared(List<string> Deleted, List<string> InUse, List<string> Left);
