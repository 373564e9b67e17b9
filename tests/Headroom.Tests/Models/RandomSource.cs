using Headroom.Core;

namespace Headroom.Tests.Models;

/// <summary>
/// A checkpoint of random weights (norms around 1, biases small), each keyed by its name; kept so that a reference can
/// read the same values.
/// </summary>
internal sealed class RandomSource(ModelConfig config, ulong seed = 1) : IWeightSource
{
    private readonly Dictionary<string, float[]> _values = [];

    /// <inheritdoc/>
    public ModelConfig Config => config;
    /// <inheritdoc/>
    public string Hash => "random";
    /// <inheritdoc/>
    public bool Has(string hfName) => true;
    /// <inheritdoc/>
    public DType SourceDType(string hfName) => DType.F32;
    /// <inheritdoc/>
    public void Dispose() { }

    /// <inheritdoc/>
    public (int Rows, int Cols) ShapeOf(string hfName)
    {
        int h = config.HiddenSize,
            q = config.NumAttentionHeads * config.HeadDim,
            kv = config.NumKeyValueHeads * config.HeadDim,
            inter = config.IntermediateSize;
        string[] parts = hfName.Split('.');
        var (o, i) = parts[^2] switch
        {
            "embed_tokens" or "lm_head" => (config.VocabSize, h),
            "q_proj" => (q, h),
            "k_proj" or "v_proj" => (kv, h),
            "o_proj" => (h, q),
            "gate_proj" or "up_proj" => (inter, h),
            "down_proj" => (h, inter),
            "q_norm" or "k_norm" => (config.HeadDim, 1),
            _ => (h, 1),
        };
        return parts[^1] == "bias" ? (o, 1) : (o, i);
    }

    /// <inheritdoc/>
    public void ReadRows(string hfName, int firstRow, int rowCount, Span<float> destination)
    {
        int columns = ShapeOf(hfName).Cols;
        Values(hfName).AsSpan(firstRow * columns, rowCount * columns).CopyTo(destination);
    }

    /// <summary>All values of a tensor.</summary>
    public float[] Values(string name)
    {
        if (_values.TryGetValue(name, out float[]? values)) return values;
        var (rows, columns) = ShapeOf(name);
        uint stream = name.Aggregate(17u, (hash, c) => hash * 31 + c);
        var random = new PhiloxRandom(seed, stream);
        bool norm = name.Contains("norm", StringComparison.Ordinal);
        float scale =
            norm || name.EndsWith("bias", StringComparison.Ordinal) ? 0.2f
            : name.Contains("embed", StringComparison.Ordinal) ? 1
            : 1 / MathF.Sqrt(columns);
        values = new float[rows * columns];
        for (int i = 0; i < values.Length; i++) values[i] = random.NextNormal() * scale + (norm ? 1 : 0);
        return _values[name] = values;
    }
}
