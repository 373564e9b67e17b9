using Headroom.Core;
using Headroom.Formats;

namespace Headroom.Training;

/// <summary>
/// Quantized copies of bases, so that the second start reads a quarter: &lt;cache&gt;/quantized/&lt;base hash&gt;-&lt;storage&gt;/ in the layout of a
/// bitsandbytes checkpoint, written whole or not at all after the first load. A copy names the hash of its base; the configuration is always the base's own.
/// </summary>
public sealed class QuantizedCache(string root, long minimumBytes)
{
    /// <summary>Bases below this load fast enough.</summary>
    private const long Worthwhile = 1L << 30;
    private readonly string _copies = Path.Combine(root, "quantized");
    private readonly BaseHashes _hashes = new(Path.Combine(root, "hashes"), 0);

    /// <summary>The user's cache, for bases of 1 GiB and more.</summary>
    public static QuantizedCache Default => new(HeadroomCache.Folder, Worthwhile);

    /// <summary>Folder of the copies.</summary>
    public string Folder => _copies;

    /// <summary>Opens a base, or its quantized copy when the recipe wants that storage, there is one, and the base's hash is known without reading it.</summary>
    public IWeightSource Open(string path, QuantizationOptions quantization, Action<string>? say = null)
    {
        var source = WeightSources.Open(path);
        if (source is not CheckpointSource original || !Wanted(original, quantization) || _hashes.Known(original.Files) is not { } hash) return source;
        string folder = Copy(hash, Storage(quantization));
        if (!Directory.Exists(folder)) return source;
        try
        {
            var copy = new CheckpointSource(folder, original, hash);
            WeightShapes.CheckAll(copy);
            original.Dispose();
            return copy;
        }
        catch (HeadroomException e)
        {
            say?.Invoke($"the quantized copy in {folder} cannot be used ({e.Message.TrimEnd('.')}); the base is read again");
            Delete(folder);
            return source;
        }
    }

    /// <summary>Keeps a copy of what was loaded from a full-precision base; does nothing when there is one already or none is wanted. Never fails a run.</summary>
    public void Save(Engine engine, IWeightSource source, QuantizationOptions quantization, Action<string>? say = null)
    {
        if (source is not CheckpointSource original || !Wanted(original, quantization) || engine.Settings.LinearStorage != Storage(quantization)) return;
        if (engine.Initial != null || engine.Model.SavedModules.Any()) return; // not the base as it is; or a trained table, which is not held in its own type
        string hash = original.Hash, folder = Copy(hash, engine.Settings.LinearStorage);
        _hashes.Remember(original.Files, hash);
        if (Directory.Exists(folder)) return;
        try
        {
            Directory.CreateDirectory(_copies);
            Temporary.Sweep(_copies); // before the free space is looked at
            long bytes = engine.Model.Projections.Sum(p => p.Weight.Bytes) + engine.Model.EmbeddingTable.Bytes + (engine.Model.Config.TieWordEmbeddings ? 0 : engine.Model.Head.Bytes);
            if (new DriveInfo(_copies).AvailableFreeSpace < 2 * bytes) return;
            if (bytes > Worthwhile) say?.Invoke($"keeping the quantized base for the next start: {bytes / 1e9:F1} GB in {folder} (quantization.cache: false turns this off)");
            QuantizedCheckpoint.Write(engine, source, folder, null, new Dictionary<string, string> { [CheckpointSource.BaseHashKey] = hash });
        }
        catch (Exception e) when (e is HeadroomException or IOException or UnauthorizedAccessException or ArgumentException)
        {
            if (!Directory.Exists(folder)) say?.Invoke($"the quantized base could not be kept: {e.Message}"); // else another process was faster
        }
    }

    /// <summary>The copies: base hash with storage, bytes, last use.</summary>
    public IReadOnlyList<(string Name, long Bytes, DateTime Written)> List() => !Directory.Exists(_copies) ? []
        : [.. new DirectoryInfo(_copies).EnumerateDirectories().Where(d => d.Name[0] != '.').Select(d => (d.Name, d.EnumerateFiles().Sum(f => f.Length), d.LastWriteTimeUtc)).OrderBy(d => d.Name, StringComparer.Ordinal)];

    /// <summary>Deletes every copy and remembered hash.</summary>
    public void Clear()
    {
        try
        {
            if (Directory.Exists(_copies)) Directory.Delete(_copies, true);
            string hashes = Path.Combine(root, "hashes");
            if (Directory.Exists(hashes)) Directory.Delete(hashes, true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new HeadroomException($"{root} cannot be cleared: {e.Message}", "End the runs that use it, then try again.", 1, e);
        }
    }

    private static WeightStorage Storage(QuantizationOptions q) => q.Bnb4bitUseDoubleQuant ?? true ? WeightStorage.NF4Double : WeightStorage.NF4;

    private bool Wanted(CheckpointSource source, QuantizationOptions q) =>
        q.LoadIn4bit && source.Config.Quantized == null && q.Cache != false && (q.Cache == true || source.Stored.Bytes >= minimumBytes);

    private string Copy(string hash, WeightStorage storage) => Path.Combine(_copies, $"{hash}-{(storage == WeightStorage.NF4Double ? "nf4-double" : "nf4")}");

    private static void Delete(string folder)
    {
        try
        {
            Directory.Delete(folder, true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
        }
    }
}
