using Headroom.Core;
using Headroom.Formats.Gguf;
using Headroom.Tokenizers;

namespace Headroom.Inference.Export;

/// <summary>
/// A model as a GGUF file that llama.cpp reads (<c>convert_hf_to_gguf.py</c>): names, row order, types and
/// hyperparameters of the family.
/// </summary>
internal static class GgufExporter
{
    private const int ChunkElements = 1 << 20;

    /// <summary>Types of the large matrices, with llama.cpp's general.file_type.</summary>
    public static IReadOnlyDictionary<string, (GgmlType Type, uint FileType)> Types { get; } =
        new Dictionary<string, (GgmlType, uint)>
        {
            ["f32"] = (GgmlType.F32, 0),
            ["f16"] = (GgmlType.F16, 1),
            ["bf16"] = (GgmlType.BF16, 32),
            ["q8_0"] = (GgmlType.Q8_0, 7),
            ["q4_0"] = (GgmlType.Q4_0, 2),
        };

    /// <summary>Writes the file, streaming rows; it is whole or not there.</summary>
    /// <param name="source">Weights in Hugging Face order.</param>
    /// <param name="vocabulary">tokenizer.* pairs (<see cref="GgufVocabulary"/>).</param>
    /// <param name="type">A key of <see cref="Types"/>.</param>
    /// <param name="path">The file.</param>
    /// <param name="name">general.name.</param>
    /// <param name="progress">Elements done and in all; may throw to stop.</param>
    /// <exception cref="HeadroomException">A weight is not finite or does not fit the type; exit code 2.</exception>
    public static void Write(
        IWeightSource source, IReadOnlyList<KeyValuePair<string, object>> vocabulary, string type, string path,
        string? name, Action<long, long>? progress = null)
    {
        WeightNames.CheckClaimed(source);
        var (ggml, fileType) = Types[type];
        var c = source.Config;
        long total = c.MatrixNames().Sum(n => source.ShapeOf(n) is var s ? (long)s.Rows * s.Cols : 0), done = 0;
        void Step(long n) => progress?.Invoke(done += n, total);
        var entries = new List<GgufEntry>();
        if (Divisors(c) is { } divisors)
            entries.Add(
                new GgufEntry("rope_freqs.weight", GgmlType.F32, 0, divisors.Length, f =>
                    Put(f, "rope_freqs.weight", GgmlType.F32, divisors)
                )
            );
        // The table's order is that of convert_hf_to_gguf.py's files: embedding, layers, norm and head.
        foreach (var weight in c.Family.Weights(c))
        {
            var (hf, gguf) = (weight.Name, weight.GgufName);
            var (rows, cols) = source.ShapeOf(hf);
            if (weight.IsVector)
                entries.Add(new GgufEntry(gguf, GgmlType.F32, 0, rows, f => Vector(source, hf, gguf, rows, f)));
            else
            {
                var t = TypeOf(c, hf, ggml, cols);
                entries.Add(new GgufEntry(gguf, t, rows, cols, f => Matrix(source, hf, gguf, t, rows, cols, f, Step)));
            }
        }
        GgufWriter.Write(path, [.. Hyperparameters(c, fileType, ggml, name), .. vocabulary], entries);
    }

    /// <summary>Writes the tokenizer alone, as llama.cpp's ggml-vocab files.</summary>
    public static void WriteVocabulary(
        string architecture, IReadOnlyList<KeyValuePair<string, object>> vocabulary, string path
    ) => GgufWriter.Write(path, [new("general.architecture", architecture), .. vocabulary], []);

    /// <summary>
    /// The type of one matrix: rows that are not whole blocks fall back to F16; with Q4_0 the output matrix gets the
    /// next better type that is written, Q8_0.
    /// </summary>
    public static GgmlType TypeOf(ModelConfig c, string hfName, GgmlType asked, int columns)
    {
        if (asked.IsPlain()) return asked;
        if (columns % asked.Block().Values != 0) return GgmlType.F16;
        bool output = hfName == (c.TieWordEmbeddings ? c.TableName() : c.HeadName());
        return output ? GgmlType.Q8_0 : asked;
    }

    /// <summary>Divisors of the inverse frequencies that GGUF carries for Llama 3's scaling, or null.</summary>
    public static float[]? Divisors(ModelConfig c)
    {
        if (c.RopeDivisors != null) return c.RopeDivisors;
        if (c.RopeScaling?.Type != "llama3") return null;
        // Divisors by the rule itself, not by the quotient of two rounded frequencies.
        var s = c.RopeScaling;
        double original = s.OriginalMaxPositionEmbeddings ?? c.MaxPositionEmbeddings;
        var divisors = new float[c.HeadDim / 2];
        for (int i = 0; i < divisors.Length; i++)
        {
            double wavelength = 2 * Math.PI * Math.Pow(c.RopeTheta, 2.0 * i / c.HeadDim);
            double smooth = Math.Clamp(
                (original / wavelength - s.LowFreqFactor) / (s.HighFreqFactor - s.LowFreqFactor), 0, 1);
            divisors[i] = (float)(1 / ((1 - smooth) / s.Factor + smooth));
        }
        return divisors;
    }

    private static List<KeyValuePair<string, object>> Hyperparameters(
        ModelConfig c, uint fileType, GgmlType type, string? name)
    {
        string arch = c.Family.GgufArchitecture;
        var pairs = new List<KeyValuePair<string, object>>();
        void Add(string key, object value) => pairs.Add(new(key, value));
        Add("general.architecture", arch);
        if (name != null) Add("general.name", name);
        Add("general.file_type", fileType);
        if (!type.IsPlain()) Add("general.quantization_version", 2u);
        Add($"{arch}.context_length", (uint)c.MaxPositionEmbeddings);
        Add($"{arch}.embedding_length", (uint)c.HiddenSize);
        Add($"{arch}.block_count", (uint)c.NumHiddenLayers);
        Add($"{arch}.feed_forward_length", (uint)c.IntermediateSize);
        Add($"{arch}.attention.head_count", (uint)c.NumAttentionHeads);
        Add($"{arch}.attention.head_count_kv", (uint)c.NumKeyValueHeads);
        Add($"{arch}.attention.layer_norm_rms_epsilon", c.RmsNormEps);
        Add($"{arch}.rope.dimension_count", (uint)c.HeadDim);
        Add($"{arch}.rope.freq_base", (float)c.RopeTheta);
        if (c.HeadDim * c.NumAttentionHeads != c.HiddenSize)
        {
            Add($"{arch}.attention.key_length", (uint)c.HeadDim);
            Add($"{arch}.attention.value_length", (uint)c.HeadDim);
        }
        Add($"{arch}.vocab_size", (uint)c.VocabSize);
        foreach (var (key, value) in Scaling(c)) Add($"{arch}.rope.{key}", value);
        return pairs;
    }

    // As GgufSource reads it: attn_factor comes on top of what yarn multiplies cos and sin by. llama.cpp has no place
    // for other bounds of yarn here.
    private static IEnumerable<(string Key, object Value)> Scaling(ModelConfig c)
    {
        if (c.RopeScaling is not { Type: "linear" or "yarn" } s) yield break;
        yield return ("scaling.type", s.Type);
        yield return ("scaling.factor", (float)s.Factor);
        double own = 1;
        if (s.Type == "yarn")
        {
            if (s.BetaFast != 32 || s.BetaSlow != 1)
                throw new HeadroomException($"The yarn scaling of this model has beta_fast {s.BetaFast} and "
                    + $"beta_slow {s.BetaSlow}; llama.cpp takes 32 and 1 for it.", "Export to safetensors.");
            yield return ("scaling.original_context_length",
                (uint)(s.OriginalMaxPositionEmbeddings ?? c.MaxPositionEmbeddings));
            own = RopeScaling.AttentionScale(s.Factor);
        }
        if (s.AttentionFactor is { } scale && scale != own) yield return ("scaling.attn_factor", (float)(scale / own));
    }

    private static void Vector(IWeightSource source, string hf, string gguf, int n, Stream file)
    {
        var values = new float[n];
        source.ReadRows(hf, 0, n, values);
        Put(
            file, gguf, GgmlType.F32,
            GgufSource.IsPermuted(source.Config, hf) ? Interleave(values, source.Config.HeadDim, 1) : values);
    }

    private static void Matrix(
        IWeightSource source, string hf, string gguf, GgmlType type, int rows, int cols, Stream file, Action<long> step)
    {
        // Permuted rows move inside their head, so whole heads are read at a time.
        bool permuted = GgufSource.IsPermuted(source.Config, hf);
        int unit = permuted ? source.Config.HeadDim : 1, chunk = Math.Max(unit, ChunkElements / cols / unit * unit);
        var values = new float[Math.Min(chunk, rows) * cols];
        for (int first = 0; first < rows; first += chunk)
        {
            int n = Math.Min(chunk, rows - first);
            var part = values.AsSpan(0, n * cols);
            source.ReadRows(hf, first, n, part);
            Put(file, gguf, type, permuted ? Interleave(part, source.Config.HeadDim, cols) : part);
            step((long)n * cols);
        }
    }

    // Half-split to neighbouring pairs, per head of d rows: new row 2j is old row j, new row 2j + 1 is old row j + d/2.
    private static float[] Interleave(ReadOnlySpan<float> rows, int d, int cols)
    {
        var result = new float[rows.Length];
        for (int r = 0; r < rows.Length / cols; r++)
        {
            int head = r / d, j = r % d, from = head * d + (j % 2 == 0 ? j / 2 : j / 2 + d / 2);
            rows.Slice(from * cols, cols).CopyTo(result.AsSpan(r * cols));
        }
        return result;
    }

    private static void Put(Stream file, string name, GgmlType type, ReadOnlySpan<float> values)
    {
        foreach (float v in values)
            if (!float.IsFinite(v))
                throw new HeadroomException(
                    $"{name} holds NaN or infinite values.",
                    "The checkpoint or the adapter is damaged; use another one.");
        var (per, size) = type.Block();
        var bytes = new byte[values.Length / per * size];
        if (!GgmlWriter.TryQuantize(type, values, bytes))
            throw new HeadroomException(
                $"{name} holds values that are too large for {type}, whose scales are float16.",
                "Export with --type bf16 or f32.");
        file.Write(bytes);
    }
}
