using Headroom.Core;
using Headroom.Formats.BitsAndBytes;
using Headroom.Formats.Safetensors;

namespace Headroom.Formats.HuggingFace;

/// <summary>
/// A Hugging Face folder: config.json and model.safetensors, or shards with model.safetensors.index.json. Weights are
/// 16 or 32 bit, or 4-bit as bitsandbytes writes them; which one is told tensor by tensor, by the presence of a
/// quant_state key.
/// </summary>
internal sealed class CheckpointSource : IWeightSource
{
    private readonly Dictionary<string, SafetensorsFile> _where = [];
    private readonly Dictionary<string, BnbTensor> _quantized = [];
    private readonly List<SafetensorsFile> _files = [];
    private readonly bool _flat;
    private readonly Lazy<Task<string>> _hash;
    private readonly Func<IWeightSource>? _instead;
    private readonly string _folder;
    private Task<IWeightSource?>? _verified;
    private IWeightSource? _replacement;
    private volatile bool _closed;

    /// <summary>Opens and validates every shard.</summary>
    public CheckpointSource(string folder) : this(folder, null, null)
    {
    }

    /// <summary>
    /// Opens a quantized copy in the place of <paramref name="original"/>: its configuration and hash are those of the
    /// original, whose weights hash to
    /// <paramref name="baseHash"/>. The copy must name that hash itself, and be what was written: of the header that is
    /// known at once, of the data after
    /// <see cref="Verify"/>, which opens <paramref name="instead"/> when they are not.
    /// </summary>
    public CheckpointSource(
        string folder, CheckpointSource? original, string? baseHash, Func<IWeightSource>? instead = null)
    {
        (_folder, _instead) = (folder, instead);
        _hash = new(() => baseHash != null ? Task.FromResult(baseHash) : Task.Run(() => BaseHashes.Default.Get(Files)));
        try
        {
            if (baseHash != null && !HeaderIsWhole(folder))
                throw new HeadroomException(
                    $"The quantized copy in {folder} is not what was written.",
                    "Clear the cache: headroom cache --clear.");
            var own = HfConfig.Load(Path.Combine(folder, "config.json"));
            Config = original == null ? own : original.Config with { Quantized = own.Quantized };
            ConfigJson = original?.ConfigJson ?? SideFile.ReadText(Path.Combine(folder, "config.json"));
            var index = SafetensorsIndex.Load(folder);
            AnnouncedBytes = index?.TotalSize;
            foreach (string name in index?.Shards ?? ["model.safetensors"])
            {
                var file = SafetensorsFile.Open(Path.Combine(folder, name));
                _files.Add(file);
                foreach (string tensor in file.Tensors.Keys)
                    if (!_where.TryAdd(tensor, file))
                        throw new HeadroomException(
                            $"{tensor} is in two shards, {Path.GetFileName(_where[tensor].Path)} and {name}.",
                            "The shards belong to different models; download the model again.");
            }
            index?.Check(_where);
            Stamp = BaseHashes.Stamp(Files);
            FindQuantized();
            if (baseHash != null && _files[0].Metadata.GetValueOrDefault(BaseHashKey) != baseHash)
                throw new HeadroomException(
                    $"The quantized copy in {folder} is of another base.", "Clear the cache: headroom cache --clear.");
            _flat = _quantized.Values.Any(q => q.NeedsExpansion);
            if (
                Config.TieWordEmbeddings
                && Has(Config.HeadName())
                && Has(Config.TableName())
                && !SameBytes(Config.HeadName(), Config.TableName())
            )
                throw new HeadroomException(
                    $"config.json ties the embeddings, but {Config.HeadName()} differs from {Config.TableName()}.",
                    "Set tie_word_embeddings to false, or use the original checkpoint.");
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    private void FindQuantized()
    {
        foreach (string key in _where.Keys)
        {
            if (
                key.EndsWith(".SCB", StringComparison.Ordinal)
                || key.EndsWith(".weight_format", StringComparison.Ordinal)
            )
                throw new HeadroomException(
                    $"{key} belongs to a bitsandbytes int8 checkpoint, which cannot be read.",
                    "Use the 16-bit checkpoint (with load_in_8bit: true, if you want 8 bits).");
            if (BnbTensor.OwnerOf(key) is not { } owner) continue;
            if (!BnbTensor.IsComponent(key))
                throw new HeadroomException(
                    $"{key} is no part of a bitsandbytes 4-bit weight.",
                    "The checkpoint is of a kind that cannot be read; use the 16-bit one.");
            if (!key.Contains(BnbTensor.StateKey, StringComparison.Ordinal)) continue;
            if (!_quantized.TryAdd(owner, new BnbTensor(owner, key, _where.GetValueOrDefault)))
                throw new HeadroomException(
                    $"{owner} has two quantization states.", "The checkpoint is damaged; download it again.");
        }
    }

    /// <summary>Key of the metadata in which a quantized copy names the hash of its base.</summary>
    public const string BaseHashKey = "base_sha256";

    /// <summary>The weight files, in the order that the hash takes them.</summary>
    public IReadOnlyList<string> Files => [.. _files.Select(f => f.Path)];

    /// <summary>What the weight files were when they were opened (<see cref="BaseHashes.Stamp"/>).</summary>
    public string? Stamp { get; }

    /// <inheritdoc/>
    public ModelConfig Config { get; }

    /// <inheritdoc/>
    public string ConfigJson { get; }

    /// <inheritdoc/>
    public IReadOnlyList<string> Unclaimed
    {
        get
        {
            var claimed = Config.MatrixNames().Concat(Config.VectorNames()).ToHashSet(StringComparer.Ordinal);
            // A copy of the table: the constructor has compared them.
            if (Config.TieWordEmbeddings) claimed.Add(Config.HeadName());
            foreach (var (name, q) in _quantized)
                if (claimed.Contains(name)) claimed.UnionWith(q.Keys);
            return WeightNames.Unclaimed(_where.Keys, claimed);
        }
    }

    /// <inheritdoc/>
    public IReadOnlyList<string> Notices => HfConfig.Notices(ConfigJson);

    /// <summary>Bytes of all tensors, and the number of files they are in.</summary>
    public (long Bytes, int Files) Stored =>
        (_where.Sum(t => t.Value.Tensors[t.Key].End - t.Value.Tensors[t.Key].Begin), _files.Count);

    /// <summary>total_size of the index, or null.</summary>
    public long? AnnouncedBytes { get; }

    /// <summary>dtypes of the tensors with the bytes of each, largest first.</summary>
    public IReadOnlyList<(string DType, long Bytes)> DTypes =>
        [
            .. _where
                .GroupBy(
                    t => t.Value.Tensors[t.Key].DType, t => t.Value.Tensors[t.Key].End - t.Value.Tensors[t.Key].Begin)
                .Select(g => (g.Key, g.Sum()))
                .OrderByDescending(g => g.Item2),
        ];

    /// <inheritdoc/>
    public bool Has(string hfName) => _where.ContainsKey(hfName);

    /// <inheritdoc/>
    public (int Rows, int Cols) ShapeOf(string hfName)
    {
        if (_quantized.TryGetValue(hfName, out var q)) return (q.Rows, q.Cols);
        var shape = Find(hfName).Tensors[hfName].Shape;
        return shape.Length switch
        {
            1 => ((int)shape[0], 1),
            2 => ((int)shape[0], (int)shape[1]),
            _ => throw new HeadroomException(
                $"{hfName} has {shape.Length} dimensions.",
                "A weight has one or two; use a checkpoint of a supported architecture."),
        };
    }

    /// <inheritdoc/>
    public void ReadRows(string hfName, int firstRow, int rowCount, Span<float> destination)
    {
        WeightShapes.Check(this, hfName);
        var (_, cols) = ShapeOf(hfName);
        if (_quantized.TryGetValue(hfName, out var q)) q.ReadRows(firstRow, rowCount, destination);
        else Find(hfName).ReadF32(hfName, (long)firstRow * cols, destination[..(rowCount * cols)]);
    }

    /// <inheritdoc/>
    public DType? RawType(string hfName) => _quantized.ContainsKey(hfName) ? null
            : Find(hfName).Tensors[hfName].DType switch
            {
                "F32" => DType.F32,
                "BF16" => DType.BF16,
                "F16" => DType.F16,
                _ => null,
            };

    /// <inheritdoc/>
    public void ReadRaw(string hfName, int firstRow, int rowCount, Span<byte> destination)
    {
        WeightShapes.Check(this, hfName);
        long row = RawType(hfName) is { } type
            ? type.Bytes(ShapeOf(hfName).Cols)
            : throw new InvalidOperationException($"{hfName} cannot be read as it lies in the file");
        Find(hfName).Read(hfName, firstRow * row, destination[..checked((int)(rowCount * row))]);
    }

    /// <inheritdoc/>
    public DType SourceDType(string hfName) =>
        _quantized.TryGetValue(hfName, out var q)
            ? q.DType
            : Find(hfName).Tensors[hfName].DType switch
            {
                "BF16" => DType.BF16,
                "F16" => DType.F16,
                _ => DType.F32,
            };

    /// <inheritdoc/>
    public WeightStorage? QuantizedAs(string hfName) =>
        !_quantized.TryGetValue(hfName, out var q) ? null
        : q.IsNested && !_flat ? WeightStorage.NF4Double
        : WeightStorage.NF4;

    /// <inheritdoc/>
    public QuantizedParts ReadQuantized(string hfName)
    {
        WeightShapes.Check(this, hfName);
        return _quantized[hfName].Parts(_flat);
    }

    /// <inheritdoc/>
    public string Hash => _hash.Value.GetAwaiter().GetResult();

    /// <inheritdoc/>
    public void BeginHash() => _ = _hash.Value;

    /// <inheritdoc/>
    public Task<IWeightSource?> Verify() => _instead == null ? Task.FromResult<IWeightSource?>(null)
        : _verified ??= Task.Run(() => CopySeal.DataIsWhole(_folder, () => _closed) ? null : _replacement = _instead());

    private static bool HeaderIsWhole(string folder)
    {
        try
        {
            return CopySeal.HeaderIsWhole(folder);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    private bool SameBytes(string a, string b)
    {
        SafetensorsFile x = _where[a], y = _where[b];
        long bytes = x.Tensors[a].End - x.Tensors[a].Begin;
        if (y.Tensors[b].End - y.Tensors[b].Begin != bytes) return false;
        for (long at = 0; at < bytes; at += 1 << 24)
        {
            int n = (int)Math.Min(1 << 24, bytes - at);
            if (!x.Bytes(a, at, n).SequenceEqual(y.Bytes(b, at, n))) return false;
        }
        return true;
    }

    private SafetensorsFile Find(string hfName) => _where.GetValueOrDefault(hfName)
        ?? throw new HeadroomException(
            $"The checkpoint has no tensor {hfName}.", "It is incomplete, or config.json belongs to another model.");

    /// <inheritdoc/>
    public void Dispose()
    {
        _closed = true;
        foreach (var f in _files) f.Dispose();
        _replacement?.Dispose();
    }
}

/// <summary>Shapes that a configuration asks for, by Hugging Face name.</summary>
internal static class WeightShapes
{
    /// <summary>[rows, columns] that the configuration expects; null for names it does not know.</summary>
    public static (int Rows, int Cols)? Expected(ModelConfig c, string hfName) => c.Family.Find(hfName)?.Shape(c);

    /// <summary>
    /// True for norms and biases, which files hold with one dimension. The table tells, not the shape: a matrix may
    /// have one column.
    /// </summary>
    public static bool IsVector(ModelConfig c, string hfName) => c.Family.Find(hfName)?.IsVector == true;

    /// <summary>
    /// Before a weight is read: every tensor that the configuration asks for is there and has its shape, and there
    /// are no others.
    /// </summary>
    /// <exception cref="HeadroomException">A tensor is missing, of another shape, or belongs to nothing in the
    /// model.</exception>
    public static void CheckAll(IWeightSource source)
    {
        WeightNames.CheckClaimed(source);
        foreach (string name in source.Config.MatrixNames().Concat(source.Config.VectorNames())) Check(source, name);
    }

    /// <summary>Throws when the checkpoint's shape is not the configuration's.</summary>
    public static void Check(IWeightSource source, string hfName)
    {
        var shape = source.ShapeOf(hfName);
        if (Expected(source.Config, hfName) is { } due && due != shape)
            throw new HeadroomException(
                $"{hfName} is [{shape.Rows}, {shape.Cols}] where the configuration asks for [{due.Rows}, {due.Cols}].",
                "The weights and the configuration belong to different models.");
    }
}
