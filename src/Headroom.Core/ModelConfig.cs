using Headroom.Core.Families;

namespace Headroom.Core;

/// <summary>RoPE scaling of a configuration (transformers <c>modeling_rope_utils.py</c>).</summary>
/// <param name="Type">"default", "linear", "dynamic", "llama3" or "yarn".</param>
/// <param name="Factor">Scaling factor.</param>
/// <param name="LowFreqFactor">llama3: low_freq_factor.</param>
/// <param name="HighFreqFactor">llama3: high_freq_factor.</param>
/// <param name="OriginalMaxPositionEmbeddings">Context before scaling.</param>
/// <param name="BetaFast">yarn: beta_fast.</param>
/// <param name="BetaSlow">yarn: beta_slow.</param>
/// <param name="AttentionFactor">Multiplies cos and sin; null = 1, with yarn <see cref="AttentionScale"/>. Files of
/// Hugging Face have it with yarn only, GGUF with any type.</param>
internal sealed record RopeScaling(
    string Type, double Factor = 1, double LowFreqFactor = 1, double HighFreqFactor = 4,
    int? OriginalMaxPositionEmbeddings = null, double BetaFast = 32, double BetaSlow = 1, double? AttentionFactor = null
)
{
    /// <summary>
    /// What yarn multiplies cos and sin by: 0.1 mscale ln(factor) + 1, and 1 where nothing is stretched (transformers
    /// <c>modeling_rope_utils.py</c>, get_mscale).
    /// </summary>
    public static double AttentionScale(double factor, double mscale = 1) =>
        factor <= 1 ? 1 : 0.1 * mscale * Math.Log(factor) + 1;
}

/// <summary>Architecture of a Llama-class model, in the words of Hugging Face's config.json.</summary>
internal sealed record ModelConfig
{
    /// <summary>model_type: that of one of <see cref="ModelFamilies"/>.</summary>
    public string ModelType { get; init; } = "llama";
    /// <summary>First entry of architectures.</summary>
    public string Architecture { get; init; } = "LlamaForCausalLM";
    /// <summary>vocab_size.</summary>
    public required int VocabSize { get; init; }
    /// <summary>hidden_size.</summary>
    public required int HiddenSize { get; init; }
    /// <summary>intermediate_size.</summary>
    public required int IntermediateSize { get; init; }
    /// <summary>num_hidden_layers.</summary>
    public required int NumHiddenLayers { get; init; }
    /// <summary>num_attention_heads.</summary>
    public required int NumAttentionHeads { get; init; }
    /// <summary>num_key_value_heads.</summary>
    public required int NumKeyValueHeads { get; init; }
    /// <summary>head_dim.</summary>
    public required int HeadDim { get; init; }
    /// <summary>max_position_embeddings.</summary>
    public int MaxPositionEmbeddings { get; init; } = 2048;
    /// <summary>rms_norm_eps.</summary>
    public float RmsNormEps { get; init; } = 1e-6f;
    /// <summary>rope_theta.</summary>
    public double RopeTheta { get; init; } = 10000;
    /// <summary>rope_scaling, or null.</summary>
    public RopeScaling? RopeScaling { get; init; }
    /// <summary>Divisors of the inverse frequencies [d/2] (GGUF's rope_freqs.weight), or null.</summary>
    public float[]? RopeDivisors { get; init; }
    /// <summary>tie_word_embeddings.</summary>
    public bool TieWordEmbeddings { get; init; }
    /// <summary>Biases on q, k and v.</summary>
    public bool AttentionBias { get; init; }
    /// <summary>Bias on o.</summary>
    public bool AttentionOutputBias { get; init; }
    /// <summary>mlp_bias.</summary>
    public bool MlpBias { get; init; }
    /// <summary>Sliding window in positions, the current one included; null = full attention.</summary>
    public int? SlidingWindow { get; init; }
    /// <summary>The first layer that slides (qwen2 max_window_layers); 0 = all.</summary>
    public int FirstSlidingLayer { get; init; }
    /// <summary>
    /// layer_types of newer files: true where the layer slides; null = by <see cref="FirstSlidingLayer"/>.
    /// </summary>
    public bool[]? SlidingLayers { get; init; }
    /// <summary>bos_token_id.</summary>
    public int? BosTokenId { get; init; }
    /// <summary>eos_token_id; one or more.</summary>
    public int[] EosTokenIds { get; init; } = [];
    /// <summary>
    /// What quantization_config says of the linear layers (bitsandbytes NF4, flat or nested); null = not quantized.
    /// </summary>
    public WeightStorage? Quantized { get; init; }
    /// <summary>pad_token_id.</summary>
    public int? PadTokenId { get; init; }

    /// <summary>The family: the table of the model's weights, and its rules.</summary>
    /// <exception cref="HeadroomException">There is none of this <see cref="ModelType"/>.</exception>
    public ModelFamily Family => ModelFamilies.Get(ModelType);

    /// <summary>
    /// Hugging Face names of the tensors that a linear product or a look-up reads: embedding table, projections in
    /// layer order, untied head.
    /// </summary>
    public IEnumerable<string> MatrixNames() => Family.Weights(this).Where(w => !w.IsVector).Select(w => w.Name);

    /// <summary>Hugging Face names of norms and biases.</summary>
    public IEnumerable<string> VectorNames() => Family.Weights(this).Where(w => w.IsVector).Select(w => w.Name);

    /// <summary>Paths of the projections, in layer order: every module that an adapter can sit on.</summary>
    public IEnumerable<string> ProjectionPaths() =>
        Family.Weights(this).Where(w => w.Row.Adaptable && !w.IsBias).Select(w => w.Row.Path(w.Layer));

    /// <summary>Hugging Face name of the embedding table.</summary>
    public string TableName() => Family[WeightRole.Embedding].Weight();

    /// <summary>Hugging Face name of the output head, also where it is the table and no file holds it.</summary>
    public string HeadName() => Family[WeightRole.Head].Weight();

    /// <summary>
    /// Hugging Face name of one projection, that of the first layer's queries: a checkpoint holds all of them in one
    /// way, and is asked about this one.
    /// </summary>
    public string AnyProjectionName() => Family[WeightRole.Query].Weight();

    /// <summary>
    /// Parameters of the projections, of the embedding table with an untied head, and of norms and biases.
    /// </summary>
    public (long Linear, long Embeddings, long Vectors) Parameters
    {
        get
        {
            long Count(Func<WeightKind, bool> kind) => Family.Weights(this).Where(w => kind(w.Kind))
                .Sum(w => w.Shape(this) is var s ? (long)s.Rows * s.Cols : 0);
            return (Count(k => k == WeightKind.Linear), Count(k => k == WeightKind.Embedding),
                Count(k => k is WeightKind.Norm or WeightKind.Bias));
        }
    }

    /// <summary>
    /// Throws when texts of <paramref name="tokens"/> tokens need frequencies that change with the length (dynamic
    /// scaling beyond max_position_embeddings).
    /// </summary>
    public void CheckLength(int tokens)
    {
        if (RopeScaling?.Type == "dynamic" && tokens > MaxPositionEmbeddings)
            throw new HeadroomException(
                $"{tokens} tokens are beyond the model's {MaxPositionEmbeddings} positions, where its dynamic rope "
                    + $"scaling changes with the length; that is not supported.",
                "Use shorter texts: task.max_seq_length.");
    }

    /// <summary>Throws when a LoRA rank is more than any side of the model's matrices.</summary>
    /// <param name="rank">The rank.</param>
    /// <param name="what">What gives it, as the beginning of a sentence: "--r is".</param>
    public void CheckRank(int rank, string what)
    {
        if (rank > Math.Max(HiddenSize, IntermediateSize))
            throw new HeadroomException(
                $"{what} {rank}, more than any side of the model's matrices ({HiddenSize} and {IntermediateSize}).",
                "Give a smaller rank, such as 16.");
    }

    /// <summary>True when the layer uses the sliding window.</summary>
    public bool LayerSlides(int layer) =>
        SlidingWindow is > 0 && (SlidingLayers is { } s ? s[layer] : layer >= FirstSlidingLayer);

    /// <summary>
    /// Inverse frequencies F32 [d/2] with scaling applied, and the factor on cos and sin (1 unless yarn).
    /// </summary>
    public float[] InverseFrequencies(out float attentionFactor)
    {
        int d = HeadDim;
        attentionFactor = 1;
        var inv = new float[d / 2];
        for (int i = 0; i < inv.Length; i++) inv[i] = (float)(1.0 / Math.Pow(RopeTheta, 2.0 * i / d));
        if (RopeDivisors is { } divisors)
            for (int i = 0; i < inv.Length; i++) inv[i] /= divisors[i];
        switch (RopeScaling?.Type)
        {
            // dynamic changes only beyond max_position_embeddings, which CheckLength refuses
            case null or "default" or "dynamic":
                break;
            case "linear":
                for (int i = 0; i < inv.Length; i++) inv[i] /= (float)RopeScaling.Factor;
                attentionFactor = (float)(RopeScaling.AttentionFactor ?? 1);
                break;
            case "llama3":
                double original = RopeScaling.OriginalMaxPositionEmbeddings ?? MaxPositionEmbeddings;
                for (int i = 0; i < inv.Length; i++)
                {
                    double wavelength = 2 * Math.PI / inv[i];
                    if (wavelength < original / RopeScaling.HighFreqFactor) continue;
                    double s = wavelength > original / RopeScaling.LowFreqFactor ? 0
                            : (original / wavelength - RopeScaling.LowFreqFactor)
                                / (RopeScaling.HighFreqFactor - RopeScaling.LowFreqFactor);
                    inv[i] = (float)((1 - s) * inv[i] / RopeScaling.Factor + s * inv[i]);
                }
                break;
            case "yarn":
                double maxpos = RopeScaling.OriginalMaxPositionEmbeddings ?? MaxPositionEmbeddings;
                double Dim(double beta) => d * Math.Log(maxpos / (beta * 2 * Math.PI)) / (2 * Math.Log(RopeTheta));
                double low = Math.Max(Math.Floor(Dim(RopeScaling.BetaFast)), 0),
                    high = Math.Min(Math.Ceiling(Dim(RopeScaling.BetaSlow)), d - 1);
                if (low == high) high += 0.001;
                for (int i = 0; i < inv.Length; i++)
                {
                    double ramp = Math.Clamp((i - low) / (high - low), 0, 1);
                    inv[i] = (float)(inv[i] / RopeScaling.Factor * ramp + inv[i] * (1 - ramp));
                }
                attentionFactor = (float)(RopeScaling.AttentionFactor
                    ?? RopeScaling.AttentionScale(RopeScaling.Factor));
                break;
            default:
                throw new HeadroomException(
                    $"Unknown rope_scaling type '{RopeScaling.Type}'.",
                    "Supported: default, linear, dynamic, llama3, yarn.");
        }
        return inv;
    }
}
