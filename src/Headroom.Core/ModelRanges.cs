using System.Globalization;

namespace Headroom.Core;

/// <summary>
/// What the numbers of a configuration may be: the one table of it, for config.json and GGUF alike. A number outside of
/// it is no model's: with rms_norm_eps -1 a norm is NaN, with rope_theta 0 every position is, and neither says so.
/// </summary>
internal static class ModelRanges
{
    private const int MostVocabulary = (1 << 24) - 1,
        MostHidden = (1 << 20) - 1,
        MostIntermediate = (1 << 22) - 1,
        MostLayers = 4095,
        MostHeads = 1 << 16,
        MostHeadDim = 1024;

    /// <summary>Throws for the first number that is out of its range.</summary>
    /// <exception cref="FormatException">It names key, value and range.</exception>
    public static void Check(ModelConfig c)
    {
        Whole("vocab_size", c.VocabSize, MostVocabulary);
        Whole("hidden_size", c.HiddenSize, MostHidden);
        Whole("intermediate_size", c.IntermediateSize, MostIntermediate);
        Whole("num_hidden_layers", c.NumHiddenLayers, MostLayers);
        Whole("num_attention_heads", c.NumAttentionHeads, MostHeads);
        Whole("num_key_value_heads", c.NumKeyValueHeads, c.NumAttentionHeads);
        Whole("head_dim", c.HeadDim, MostHeadDim);
        Whole("max_position_embeddings", c.MaxPositionEmbeddings, int.MaxValue);
        if (c.SlidingWindow is { } window) Need(window >= 0, "sliding_window", window, "must not be negative");
        Need(c.FirstSlidingLayer >= 0, "max_window_layers", c.FirstSlidingLayer, "must not be negative");
        Positive("rms_norm_eps (layer_norm_rms_epsilon in GGUF)", c.RmsNormEps);
        Positive("rope_theta (rope.freq_base in GGUF)", c.RopeTheta);
        if (c.RopeScaling is { } s) Check(s, c.RopeTheta);
    }

    /// <summary>Throws when a count or size is not from 1 to <paramref name="most"/>.</summary>
    /// <exception cref="FormatException">It names key, value and range.</exception>
    public static void Whole(string key, long value, long most = int.MaxValue) =>
        Need(
            value >= 1 && value <= most,
            key,
            value,
            most == int.MaxValue
                ? "must be a positive whole number"
                : string.Create(CultureInfo.InvariantCulture, $"must be from 1 to {most}")
        );

    private static void Check(RopeScaling s, double theta)
    {
        Positive("factor of rope_scaling", s.Factor);
        if (s.OriginalMaxPositionEmbeddings is { } original) Whole("original_max_position_embeddings", original);
        if (s.AttentionFactor is { } attention) Positive("attention_factor", attention);
        if (s.Type == "llama3")
        {
            Positive("low_freq_factor", s.LowFreqFactor);
            Positive("high_freq_factor", s.HighFreqFactor);
            Need(
                s.HighFreqFactor > s.LowFreqFactor, "high_freq_factor", s.HighFreqFactor,
                string.Create(CultureInfo.InvariantCulture, $"must be more than low_freq_factor, {s.LowFreqFactor}"));
        }
        if (s.Type != "yarn") return;
        Positive("beta_fast", s.BetaFast);
        Positive("beta_slow", s.BetaSlow);
        Need(
            theta > 1, "rope_theta", theta,
            "must be more than 1 for a rope_scaling of type yarn, which takes its logarithm");
    }

    private static void Positive(string key, double value) =>
        Need(value > 0 && double.IsFinite(value), key, value, "must be a positive number");

    private static void Need(bool ok, string key, double value, string range)
    {
        if (!ok)
            throw new FormatException(string.Create(CultureInfo.InvariantCulture, $"{key} is {value}, it {range}"));
    }
}
