using System.Collections.Frozen;
using System.Globalization;
using Headroom.Core.Families;

namespace Headroom.Core;

/// <summary>
/// What a weight does in the decoder: how <c>LlamaModel</c> finds its weights, whatever a family calls them.
/// </summary>
internal enum WeightRole : byte
{
    /// <summary>The embedding table.</summary>
    Embedding,
    /// <summary>Projection to the queries.</summary>
    Query,
    /// <summary>Projection to the keys.</summary>
    Key,
    /// <summary>Projection to the values.</summary>
    Value,
    /// <summary>Projection of the attention's output.</summary>
    Output,
    /// <summary>The gated branch of the MLP, before its activation.</summary>
    Gate,
    /// <summary>The branch of the MLP that is gated.</summary>
    Up,
    /// <summary>Projection back to the residual stream.</summary>
    Down,
    /// <summary>Norm before the attention.</summary>
    AttentionNorm,
    /// <summary>Norm before the MLP.</summary>
    MlpNorm,
    /// <summary>Norm of each head's query, before the rotation.</summary>
    QueryNorm,
    /// <summary>Norm of each head's key, before the rotation.</summary>
    KeyNorm,
    /// <summary>Norm before the head.</summary>
    FinalNorm,
    /// <summary>The output head; the embedding table itself where the two are tied.</summary>
    Head,
}

/// <summary>What a weight is.</summary>
internal enum WeightKind : byte
{
    /// <summary>A table or head [vocabulary, hidden].</summary>
    Embedding,
    /// <summary>A linear layer's matrix [out, in].</summary>
    Linear,
    /// <summary>A norm's weight.</summary>
    Norm,
    /// <summary>A linear layer's bias [out].</summary>
    Bias,
}

/// <summary>One row of a family's table: a module with a weight and, for some, a bias.</summary>
/// <param name="Role">What it does.</param>
/// <param name="Kind">What its weight is.</param>
/// <param name="Module">Path of the module in Hugging Face's classes, with {layer} for the layer's number.</param>
/// <param name="GgufModule">Its name in GGUF, likewise.</param>
/// <param name="Shape">[rows, columns] of its weight; a vector is [n, 1].</param>
internal sealed record WeightRow(
    WeightRole Role, WeightKind Kind, string Module, string GgufModule, Func<ModelConfig, (int Rows, int Cols)> Shape)
{
    private const string LayerMark = "{layer}";

    /// <summary>When a checkpoint holds the weight; null = always.</summary>
    public Func<ModelConfig, bool>? Present { get; init; }

    /// <summary>When the module has a bias; null = never.</summary>
    public Func<ModelConfig, bool>? Bias { get; init; }

    /// <summary>True where a LoRA pair can sit on it.</summary>
    public bool Adaptable { get; init; }

    /// <summary>
    /// True where its rows are rotated by position, so that a family whose GGUF files rotate neighbouring pairs
    /// (<see cref="ModelFamily.GgufRotatesPairs"/>) holds them in another order there.
    /// </summary>
    public bool Rotated { get; init; }

    /// <summary>True where each layer has one.</summary>
    public bool IsPerLayer { get; } = Module.Contains(LayerMark, StringComparison.Ordinal);

    /// <summary>The last part of the module's path, such as q_proj: how target_modules names it.</summary>
    public string Leaf { get; } = Module[(Module.LastIndexOf('.') + 1)..];

    /// <summary>The module's path in a layer.</summary>
    public string Path(int layer = 0) => At(Module, layer);

    /// <summary>Hugging Face name of the weight.</summary>
    public string Weight(int layer = 0) => Path(layer) + ModelWeight.WeightSuffix;

    /// <summary>Hugging Face name of the bias.</summary>
    public string BiasName(int layer = 0) => Path(layer) + ModelWeight.BiasSuffix;

    internal string GgufPath(int layer) => At(GgufModule, layer);

    private static string At(string template, int layer) =>
        template.Replace(LayerMark, layer.ToString(CultureInfo.InvariantCulture), StringComparison.Ordinal);
}

/// <summary>One tensor of a model: a row of its family's table in a layer.</summary>
/// <param name="Row">The row.</param>
/// <param name="Layer">The layer, 0 outside of them.</param>
/// <param name="IsBias">True for the module's bias, false for its weight.</param>
internal readonly record struct ModelWeight(WeightRow Row, int Layer, bool IsBias)
{
    internal const string WeightSuffix = ".weight", BiasSuffix = ".bias";

    /// <summary>Hugging Face name.</summary>
    public string Name => IsBias ? Row.BiasName(Layer) : Row.Weight(Layer);
    /// <summary>Name in GGUF.</summary>
    public string GgufName => Row.GgufPath(Layer) + (IsBias ? BiasSuffix : WeightSuffix);
    /// <summary>What it is.</summary>
    public WeightKind Kind => IsBias ? WeightKind.Bias : Row.Kind;
    /// <summary>True for norms and biases, which files hold with one dimension.</summary>
    public bool IsVector => Kind is WeightKind.Norm or WeightKind.Bias;

    /// <summary>[rows, columns] under a configuration; a vector is [n, 1].</summary>
    public (int Rows, int Cols) Shape(ModelConfig c) => Row.Shape(c) is var s && IsBias ? (s.Rows, 1) : s;
}

/// <summary>Where biases are.</summary>
internal enum BiasRule : byte
{
    /// <summary>Nowhere; the class has no key for them.</summary>
    Never,
    /// <summary>Where config.json's key says so.</summary>
    ByKey,
    /// <summary>Everywhere, whatever config.json says.</summary>
    Always,
}

/// <summary>Whether sliding_window of config.json counts.</summary>
internal enum WindowRule : byte
{
    /// <summary>The class has no window.</summary>
    Never,
    /// <summary>
    /// Where use_sliding_window is true: from layer max_window_layers on, or in the layers of layer_types.
    /// </summary>
    BySwitch,
    /// <summary>In every layer.</summary>
    Always,
}

/// <summary>
/// What a transformers class takes where config.json is silent (<c>configuration_*.py</c>).
/// </summary>
/// <param name="VocabSize">vocab_size.</param>
/// <param name="IntermediateSize">intermediate_size.</param>
/// <param name="MaxPositionEmbeddings">max_position_embeddings.</param>
/// <param name="NumKeyValueHeads">num_key_value_heads; null = one for each head.</param>
/// <param name="HeadDim">head_dim; null = hidden_size / num_attention_heads.</param>
/// <param name="SlidingWindow">sliding_window, where the class has one.</param>
/// <param name="MaxWindowLayers">max_window_layers, where use_sliding_window is a key of the class.</param>
internal sealed record ConfigDefaults(int VocabSize, int IntermediateSize, int MaxPositionEmbeddings,
    int? NumKeyValueHeads = null, int? HeadDim = null, int SlidingWindow = 4096, int MaxWindowLayers = 28)
{
    /// <summary>hidden_size.</summary>
    public int HiddenSize { get; init; } = 4096;
    /// <summary>num_hidden_layers.</summary>
    public int NumHiddenLayers { get; init; } = 32;
    /// <summary>num_attention_heads.</summary>
    public int NumAttentionHeads { get; init; } = 32;
    /// <summary>rms_norm_eps.</summary>
    public double RmsNormEps { get; init; } = 1e-6;
    /// <summary>rope_theta.</summary>
    public double RopeTheta { get; init; } = 10000;
}

/// <summary>
/// A family of models: the one table of its weights and, beside it, its rules. Names that a loader claims, names and
/// row order in GGUF, shapes, parameter counts, modules that an adapter can sit on, and the defaults of config.json
/// all follow from it; a new family is a file in <c>Families</c>, a line in <see cref="ModelFamilies"/> and a test.
/// </summary>
internal sealed class ModelFamily
{
    private readonly FrozenDictionary<string, WeightRow> _byModule;
    private readonly FrozenDictionary<WeightRole, WeightRow> _byRole;

    /// <summary>Makes a family of its table.</summary>
    /// <param name="rows">In the order of a GGUF file: what comes before the layers, a layer's, what comes
    /// after.</param>
    public ModelFamily(params IReadOnlyList<WeightRow> rows)
    {
        Rows = rows;
        _byModule = rows.ToFrozenDictionary(r => r.Module, StringComparer.Ordinal);
        _byRole = rows.ToFrozenDictionary(r => r.Role);
        Targets = [.. rows.Where(r => r.Adaptable).Select(r => r.Leaf)];
    }

    /// <summary>model_type of config.json.</summary>
    public required string ModelType { get; init; }
    /// <summary>The class in architectures of config.json.</summary>
    public required string Architecture { get; init; }
    /// <summary>
    /// general.architecture of GGUF; where several families share one, a file is read as the first of them.
    /// </summary>
    public required string GgufArchitecture { get; init; }
    /// <summary>Models of the family, for messages.</summary>
    public required string Models { get; init; }
    /// <summary>What the class takes where config.json is silent.</summary>
    public required ConfigDefaults Defaults { get; init; }
    /// <summary>
    /// True where llama.cpp rotates neighbouring pairs of a head's elements, and rows of q and k stand in that order in
    /// GGUF (<c>convert_hf_to_gguf.py</c>, permute); false where it rotates halves, as Hugging Face's classes do.
    /// </summary>
    public bool GgufRotatesPairs { get; init; }
    /// <summary>Biases on q, k and v (attention_bias).</summary>
    public BiasRule QkvBias { get; init; }
    /// <summary>Bias on o (attention_bias).</summary>
    public BiasRule OutputBias { get; init; }
    /// <summary>Biases in the MLP (mlp_bias).</summary>
    public BiasRule MlpBias { get; init; }
    /// <summary>The sliding window.</summary>
    public WindowRule Window { get; init; }

    /// <summary>The table.</summary>
    public IReadOnlyList<WeightRow> Rows { get; }
    /// <summary>Names of the modules that a LoRA pair can sit on, as target_modules has them, in order.</summary>
    public IReadOnlyList<string> Targets { get; }
    /// <summary>True where queries and keys are normed, each head by itself, before they are rotated.</summary>
    public bool NormsHeads => _byRole.ContainsKey(WeightRole.QueryNorm);

    /// <summary>The row of a role.</summary>
    /// <exception cref="KeyNotFoundException">The family has none.</exception>
    public WeightRow this[WeightRole role] => _byRole[role];

    /// <summary>Every tensor of a model: the table's order, within a layer weights first, then biases.</summary>
    public IEnumerable<ModelWeight> Weights(ModelConfig c)
    {
        int i = 0;
        for (; i < Rows.Count && !Rows[i].IsPerLayer; i++)
            if (Rows[i].Present?.Invoke(c) ?? true) yield return new ModelWeight(Rows[i], 0, false);
        for (int layer = 0; layer < c.NumHiddenLayers; layer++)
        {
            foreach (var row in Rows)
                if (row.IsPerLayer && (row.Present?.Invoke(c) ?? true)) yield return new ModelWeight(row, layer, false);
            foreach (var row in Rows)
                if (row.IsPerLayer && row.Bias?.Invoke(c) == true) yield return new ModelWeight(row, layer, true);
        }
        for (; i < Rows.Count; i++)
            if (!Rows[i].IsPerLayer && (Rows[i].Present?.Invoke(c) ?? true))
                yield return new ModelWeight(Rows[i], 0, false);
    }

    /// <summary>The tensor of a Hugging Face name, whether a configuration asks for it or not; null for names that the
    /// table does not have.</summary>
    public ModelWeight? Find(string name)
    {
        bool bias = name.EndsWith(ModelWeight.BiasSuffix, StringComparison.Ordinal);
        string suffix = bias ? ModelWeight.BiasSuffix : ModelWeight.WeightSuffix;
        if (!name.EndsWith(suffix, StringComparison.Ordinal)) return null;
        string[] parts = name[..^suffix.Length].Split('.');
        int at = Array.FindIndex(parts, p => p.Length > 0 && p.All(char.IsAsciiDigit)), layer = 0;
        if (at >= 0)
        {
            if (!int.TryParse(parts[at], NumberStyles.None, CultureInfo.InvariantCulture, out layer)) return null;
            parts[at] = "{layer}";
        }
        return _byModule.TryGetValue(string.Join('.', parts), out var row) && (!bias || row.Bias != null)
            ? new ModelWeight(row, layer, bias) : null;
    }
}
