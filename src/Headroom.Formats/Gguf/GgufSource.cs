using Headroom.Core;
using Headroom.Core.Families;
using Headroom.Formats.HuggingFace;

namespace Headroom.Formats.Gguf;

/// <summary>
/// A GGUF model under Hugging Face names; q and k rows of a family whose files rotate pairs are put back into
/// half-split order.
/// </summary>
internal sealed class GgufSource : IWeightSource
{
    private const string Divisor = "rope_freqs.weight";
    private readonly Lazy<Task<string>> _hash;
    private float[] _row = [];

    /// <summary>Opens the file and reads its configuration.</summary>
    public GgufSource(string path) : this(new GgufFile(path))
    {
    }

    internal GgufSource(GgufFile file)
    {
        File = file;
        _hash = new(() => Task.Run(() => BaseHashes.Default.Get([File.Path])));
        try
        {
            Config = ReadConfig(File);
            HfConfig.Check(Config);
            GgufKeys.Check(File.Metadata, Config.Family.GgufArchitecture, Path.GetFileName(file.Path), Config);
        }
        catch (FormatException e)
        {
            File.Dispose();
            throw new HeadroomException(
                $"{Path.GetFileName(file.Path)}: {e.Message}.", "Use another file of this model.");
        }
        catch
        {
            File.Dispose();
            throw;
        }
    }

    /// <summary>The file (its tokenizer metadata too).</summary>
    public GgufFile File { get; }
    /// <inheritdoc/>
    public ModelConfig Config { get; }

    private static ModelConfig ReadConfig(GgufFile f)
    {
        string arch = f.Text("general.architecture") ?? "(none)";
        var family = ModelFamilies.OfGguf(arch) ?? throw new HeadroomException(
            $"The GGUF architecture {arch} is not supported.", ModelFamilies.SupportedGguf);
        bool Holds(WeightRole role, bool bias) =>
            f.Tensors.ContainsKey(new ModelWeight(family[role], 0, bias).GgufName);
        string file = Path.GetFileName(f.Path);
        if (f.Int("split.count") is { } parts and > 1)
            throw new HeadroomException($"{file} is part {(f.Int("split.no") ?? 0) + 1} of {parts} of a model, which "
                + "cannot be read.", "Join the parts with llama-gguf-split --merge.");
        int? Optional(string key) => Whole(f.Metadata, $"{arch}.{key}");
        int Need(string key) => Optional(key)
            ?? throw new HeadroomException($"{file} has no {arch}.{key}.", "Use a complete GGUF file.");
        int? Token(string key) =>
            f.Int($"tokenizer.ggml.{key}_token_id") is { } v and >= 0 and < int.MaxValue ? (int)v : null;
        if (f.Int($"{arch}.expert_count") is { } experts and > 0)
            throw new HeadroomException($"{file} is a mixture of {experts} experts, which is not supported.",
                "Use a dense model. " + ModelFamilies.SupportedGguf);
        int heads = Need("attention.head_count"), hidden = Need("embedding_length");
        if (!f.Tensors.TryGetValue(new ModelWeight(family[WeightRole.Embedding], 0, false).GgufName, out var embedding))
            throw new HeadroomException($"{file} holds no weights.", "Use a GGUF file with tensors, not a vocabulary.");
        int headDim = Optional("attention.key_length") ?? hidden / heads;
        if (Optional("rope.dimension_count") is { } rotated && rotated != headDim)
            throw new HeadroomException($"{file} rotates {rotated} of {headDim} dimensions of a head, which is not "
                + "supported.", "Use a model whose heads are rotated whole.");
        if (Optional("attention.value_length") is { } length && length != headDim)
            throw new HeadroomException($"{file} has values of {length} elements beside keys of {headDim}, which is "
                + "not supported.", "Use a model whose heads have one size.");
        return new ModelConfig
        {
            ModelType = family.ModelType,
            Architecture = family.Architecture,
            VocabSize = embedding.Rows,
            HiddenSize = hidden,
            IntermediateSize = Need("feed_forward_length"),
            NumHiddenLayers = Need("block_count"),
            NumAttentionHeads = heads,
            NumKeyValueHeads = Optional("attention.head_count_kv") ?? heads,
            HeadDim = headDim,
            MaxPositionEmbeddings = Need("context_length"),
            RmsNormEps = (float)(f.Number($"{arch}.attention.layer_norm_rms_epsilon")
                ?? throw new HeadroomException(
                    $"{Path.GetFileName(f.Path)} has no {arch}.attention.layer_norm_rms_epsilon.",
                    "Use a complete GGUF file.")
            ),
            RopeTheta = Real(f.Metadata, $"{arch}.rope.freq_base") ?? 10000,
            RopeScaling = Scaling(f.Metadata, arch, file, Optional("rope.scaling.original_context_length")),
            RopeDivisors = Divisors(f, headDim),
            TieWordEmbeddings = !Holds(WeightRole.Head, bias: false),
            AttentionBias = Holds(WeightRole.Query, bias: true),
            AttentionOutputBias = Holds(WeightRole.Output, bias: true),
            MlpBias = Holds(WeightRole.Down, bias: true),
            BosTokenId = Token("bos"),
            // Each ends a text in llama.cpp.
            EosTokenIds = [.. new[] { Token("eos"), Token("eot"), Token("eom") }.OfType<int>().Distinct()],
            PadTokenId = Token("padding"),
        };
    }

    // A positive integer, or null where there is none: 0 is how some writers say so. One for each layer is taken when
    // they are all the same.
    private static int? Whole(GgufMetadata file, string key) => file.GetValueOrDefault(key) switch
    {
        null => null,
        long v and > 0 and < int.MaxValue => (int)v,
        ulong v and > 0 and < int.MaxValue => (int)v,
        long[] { Length: > 0 } all when all[0] is > 0 and < int.MaxValue && all.All(v => v == all[0]) => (int)all[0],
        long[] => throw new HeadroomException($"{key} differs from layer to layer ({GgufKeys.Shown(file[key])}), "
            + "which is not supported.", "Use a model whose layers are alike."),
        var other => throw new FormatException($"{key} is {GgufKeys.Shown(other)}"),
    };

    // A number, or null where there is none.
    private static double? Real(GgufMetadata file, string key) => file.Number(key)
        ?? (file.TryGetValue(key, out object? other) ? throw new FormatException($"{key} is {GgufKeys.Shown(other)}")
        : null);

    /// <summary>
    /// llama.cpp <c>llama-model.cpp</c>, load_hparams, and <c>llama-context.cpp</c>: a factor without a type is
    /// linear; scale_linear is the factor of files before November 2023; 0 means none; attn_factor multiplies cos and
    /// sin whatever the type, beside what yarn multiplies them by.
    /// </summary>
    private static RopeScaling? Scaling(GgufMetadata f, string arch, string file, int? original)
    {
        string prefix = $"{arch}.rope.scaling.";
        double factor = Real(f, prefix + "factor") ?? Real(f, $"{arch}.rope.scale_linear") ?? 1;
        if (factor == 0) factor = 1;
        double attention = Real(f, prefix + "attn_factor") ?? 1;
        if (!(factor > 0) || !double.IsFinite(factor))
            throw new FormatException($"the factor of its rope scaling is {factor}");
        if (!(attention > 0) || !double.IsFinite(attention))
            throw new FormatException($"{prefix}attn_factor is {attention}");
        string type = f.GetValueOrDefault(prefix + "type") switch
        {
            null => "linear",
            string t => t,
            var other => throw new FormatException($"{prefix}type is {GgufKeys.Shown(other)}"),
        };
        double? scale = attention == 1 ? null : attention;
        switch (type)
        {
            case "none" or "linear":
                if (type == "none") factor = 1;
                return factor == 1 && scale == null ? null : new RopeScaling("linear", factor, AttentionFactor: scale);
            case "yarn":
                return new RopeScaling("yarn", factor, OriginalMaxPositionEmbeddings: original,
                    AttentionFactor: scale * RopeScaling.AttentionScale(factor));
            default:
                throw new HeadroomException($"{file} scales its rotations by '{type}', which is not supported.",
                    "Supported: none, linear, yarn, and the divisors of rope_freqs.weight.");
        }
    }

    // Divisors of the inverse frequencies (Llama 3's scaling): one for each pair of a head.
    private static float[]? Divisors(GgufFile f, int headDim)
    {
        if (!f.Tensors.TryGetValue(Divisor, out var t)) return null;
        if (t.Type != GgmlType.F32 || t.Rows != 1 || t.Columns != headDim / 2)
            throw new FormatException(
                $"rope_freqs.weight is {t.Type} [{t.Rows}, {t.Columns}] where F32 [{headDim / 2}] is due");
        var divisors = new float[t.Columns];
        f.DequantizeRows(t.Name, 0, 1, divisors);
        return divisors.All(d => float.IsFinite(d) && d > 0)
            ? divisors
            : throw new FormatException("rope_freqs.weight holds divisors that are not positive");
    }

    /// <summary>
    /// GGUF name of a Hugging Face tensor; the name itself where the family's table does not have it.
    /// </summary>
    public static string GgufName(ModelConfig c, string hfName) => c.Family.Find(hfName)?.GgufName ?? hfName;

    /// <summary>True for a tensor whose rows stand in another order in GGUF.</summary>
    public static bool IsPermuted(ModelConfig c, string hfName) =>
        c.Family.GgufRotatesPairs && c.Family.Find(hfName)?.Row.Rotated == true;

    /// <inheritdoc/>
    public IReadOnlyList<string> Unclaimed =>
        WeightNames.Unclaimed(File.Tensors.Keys, Config.Family.Weights(Config).Select(w => w.GgufName)
            .Append(Divisor).ToHashSet(StringComparer.Ordinal));

    /// <summary>True when the file holds a vocabulary too.</summary>
    public bool HasTokenizer => File.Metadata.ContainsKey("tokenizer.ggml.tokens");

    /// <summary>
    /// Keys of the architecture that are neither read nor known to change nothing, with their values.
    /// </summary>
    public IReadOnlyList<(string Key, string Value)> UnknownKeys =>
        GgufKeys.Unknown(File.Metadata, Config.Family.GgufArchitecture);

    /// <inheritdoc/>
    public bool Has(string hfName) => File.Tensors.ContainsKey(GgufName(Config, hfName));

    /// <inheritdoc/>
    public (int Rows, int Cols) ShapeOf(string hfName)
    {
        var t = Find(hfName);
        return t.Rows == 1 && WeightShapes.IsVector(Config, hfName) ? (t.Columns, 1) : (t.Rows, t.Columns);
    }

    /// <inheritdoc/>
    public void ReadRows(string hfName, int firstRow, int rowCount, Span<float> destination)
    {
        WeightShapes.Check(this, hfName);
        var t = Find(hfName);
        var (rows, cols) = ShapeOf(hfName);
        bool permuted = Permuted(hfName);
        if (WeightShapes.IsVector(Config, hfName))
        {
            if (_row.Length < rows) _row = new float[rows];
            File.DequantizeRows(t.Name, 0, 1, _row);
            for (int i = 0; i < rowCount; i++) destination[i] = _row[permuted ? GgufRow(firstRow + i) : firstRow + i];
        }
        else if (!permuted) File.DequantizeRows(t.Name, firstRow, rowCount, destination);
        else
            for (int i = 0; i < rowCount; i++)
                File.DequantizeRows(t.Name, GgufRow(firstRow + i), 1, destination.Slice(i * cols, cols));
    }

    /// <inheritdoc/>
    public GgmlType? BlockType(string hfName) => Find(hfName).Type;

    /// <inheritdoc/>
    public void ReadBlocks(string hfName, int firstRow, int rowCount, Span<byte> destination)
    {
        WeightShapes.Check(this, hfName);
        var t = Find(hfName);
        if (!Permuted(hfName)) File.ReadRows(t.Name, firstRow, rowCount, destination);
        else
            for (int i = 0; i < rowCount; i++)
                File.ReadRows(t.Name, GgufRow(firstRow + i), 1, destination[(int)(i * t.RowBytes)..]);
    }

    private bool Permuted(string hfName) => IsPermuted(Config, hfName);

    // Per head of d rows: Hugging Face row j < d/2 is GGUF row 2j, row j + d/2 is 2j + 1.
    private int GgufRow(int row)
    {
        int d = Config.HeadDim, head = row / d, j = row % d;
        return head * d + (j < d / 2 ? 2 * j : 2 * (j - d / 2) + 1);
    }

    /// <inheritdoc/>
    public DType SourceDType(string hfName) =>
        Find(hfName).Type switch
        {
            GgmlType.BF16 => DType.BF16,
            GgmlType.F16 => DType.F16,
            _ => DType.F32,
        };

    /// <inheritdoc/>
    public string Hash => _hash.Value.GetAwaiter().GetResult();

    /// <inheritdoc/>
    public void BeginHash() => _ = _hash.Value;

    private GgufTensor Find(string hfName) => File.Tensors.GetValueOrDefault(GgufName(Config, hfName))
        ?? throw new HeadroomException(
            $"{Path.GetFileName(File.Path)} has no tensor {GgufName(Config, hfName)}.", "Use a complete GGUF file.");

    /// <inheritdoc/>
    public void Dispose() => File.Dispose();
}

/// <summary>Opens whatever a path holds.</summary>
internal static class WeightSources
{
    /// <summary>
    /// A folder with config.json, or a .gguf file. Its tensors are the model's, all of them and no others
    /// (<see cref="WeightShapes.CheckAll"/>).
    /// Throws <see cref="HeadroomException"/>.
    /// </summary>
    public static IWeightSource Open(string path)
    {
        var source = Any(path);
        try
        {
            WeightShapes.CheckAll(source);
            return source;
        }
        catch
        {
            source.Dispose();
            throw;
        }
    }

    /// <summary>
    /// As <see cref="Open"/>, but what the tensors are is left to the caller: for showing what a file holds.
    /// </summary>
    public static IWeightSource Any(string path)
    {
        if (Directory.Exists(path)) return new CheckpointSource(path);
        if (path.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase)) return new GgufSource(path);
        if (path.EndsWith(".safetensors", StringComparison.OrdinalIgnoreCase) && File.Exists(path))
            return new CheckpointSource(Path.GetDirectoryName(Path.GetFullPath(path))!);
        throw new HeadroomException(
            $"There is no model at {path}.",
            "Give a Hugging Face folder (config.json, model.safetensors) or a .gguf file.");
    }
}
