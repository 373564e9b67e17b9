using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Headroom.Core;

namespace Headroom.Inference.Bases;

/// <summary>
/// What of a base's configuration changes numbers, as it was understood: a config.json that was formatted anew is the
/// same, another rope_theta is not. A field that is at the value it has where it is absent is not written, so that one
/// that is read in a later version is in none of the old ones.
/// </summary>
internal static class ConfigIdentity
{
    /// <summary>
    /// Properties of <see cref="ModelConfig"/> that change no number of a training run by themselves: what they stand
    /// for is compared elsewhere, or is only a name.
    /// </summary>
    internal static readonly string[] Harmless =
    [
        nameof(ModelConfig.ModelType), nameof(ModelConfig.Architecture), // names: what they mean is in the fields below
        nameof(ModelConfig.BosTokenId),
        nameof(ModelConfig.EosTokenIds),
        nameof(ModelConfig.PadTokenId), // enter by the rows' ids
        nameof(ModelConfig.Quantized), // enters by the storage of the projections
        nameof(ModelConfig.FirstSlidingLayer), nameof(ModelConfig.SlidingLayers), // enter by the layers that slide
        nameof(ModelConfig.Family), // follows from the model's type; what it changes is in the fields below
        nameof(ModelConfig.Parameters), // follows from the others
    ];

    /// <summary>The fields, by the names of config.json.</summary>
    public static SortedDictionary<string, string> List(ModelConfig c)
    {
        var fields = new SortedDictionary<string, string>(StringComparer.Ordinal)
        {
            ["vocab_size"] = Text(c.VocabSize),
            ["hidden_size"] = Text(c.HiddenSize),
            ["intermediate_size"] = Text(c.IntermediateSize),
            ["num_hidden_layers"] = Text(c.NumHiddenLayers),
            ["num_attention_heads"] = Text(c.NumAttentionHeads),
            ["num_key_value_heads"] = Text(c.NumKeyValueHeads),
            ["head_dim"] = Text(c.HeadDim),
            ["rms_norm_eps"] = Text(c.RmsNormEps),
            ["rope_theta"] = Text(c.RopeTheta),
        };
        void Set(string key, bool isSet, string value = "true")
        {
            if (isSet) fields[key] = value;
        }
        Set("tie_word_embeddings", c.TieWordEmbeddings);
        Set("attention_bias", c.AttentionBias);
        Set("attention_output_bias", c.AttentionOutputBias);
        Set("mlp_bias", c.MlpBias);
        Set("head_norms", c.Family.NormsHeads);
        Set("rope_scaling", c.RopeScaling is { Type: not "default" }, Rope(c));
        Set("rope_divisors", c.RopeDivisors != null, string.Join(' ', (c.RopeDivisors ?? []).Select(d => Text(d))));
        int[] sliding = [.. Enumerable.Range(0, c.NumHiddenLayers).Where(c.LayerSlides)];
        Set(
            "sliding_window", sliding.Length > 0, $"{Text(c.SlidingWindow ?? 0)} in layers {string.Join(' ', sliding)}"
        );
        return fields;
    }

    // dynamic scaling, too, depends on the positions only beyond max_position_embeddings, which are refused.
    private static string Rope(ModelConfig c) => c.RopeScaling is not { } r ? "" : r.Type switch
    {
        "linear" =>
            $"linear {Text(r.Factor)}{(r.AttentionFactor is { } scale and not 1 ? $" attention {Text(scale)}" : "")}",
        "dynamic" => $"dynamic {Text(r.Factor)} over {Text(c.MaxPositionEmbeddings)}",
        _ =>
            $"{r.Type} {Text(r.Factor)} {Text(r.LowFreqFactor)} {Text(r.HighFreqFactor)} {Text(r.BetaFast)} "
                + $"{Text(r.BetaSlow)} "
                + $"{(r.AttentionFactor is { } a ? Text(a) : "-")} over "
                + $"{Text(r.OriginalMaxPositionEmbeddings ?? c.MaxPositionEmbeddings)}",
    };

    private static string Text(IFormattable value) => value.ToString(null, CultureInfo.InvariantCulture);

    /// <summary>Refuses another configuration of the base than that of a run.</summary>
    /// <param name="folder">Of the run.</param>
    /// <param name="before">The configuration that it was started with.</param>
    /// <param name="now">The one that is given.</param>
    /// <param name="toDo">What to do about it.</param>
    /// <exception cref="HeadroomException">They differ.</exception>
    internal static void CheckSame(
        string folder, IReadOnlyDictionary<string, string> before, IReadOnlyDictionary<string, string> now, string toDo)
    {
        if (ValueDifferences.Find(before, now).ToList() is { Count: > 0 } config)
            throw new HeadroomException(
                $"The configuration of the base is not the one that {folder} was started with: "
                    + $"{ValueDifferences.Named(config)}.",
                toDo);
    }

    /// <summary>SHA-256, lower-case hex, over key=value lines in ordinal order.</summary>
    public static string Hash(IReadOnlyDictionary<string, string> fields) =>
        Convert.ToHexStringLower(
            SHA256.HashData(
                Encoding.UTF8.GetBytes(
        string.Concat(fields.OrderBy(f => f.Key, StringComparer.Ordinal).Select(f => $"{f.Key}={f.Value}\n")))));
}
