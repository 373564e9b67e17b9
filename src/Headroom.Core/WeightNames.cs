namespace Headroom.Core;

/// <summary>
/// Which tensors of a checkpoint a model claims. One that nobody claims is an error: left out without a word, what is
/// computed would be another model.
/// </summary>
internal static class WeightNames
{
    private const int Named = 4; // tensors that a refusal names

    /// <summary>
    /// Ends of names of tensors that change nothing: buffers that older programs saved beside the weights and that
    /// every reader makes anew (transformers <c>modeling_llama.py</c>: rotary tables, causal masks, position numbers,
    /// a version; llama.cpp <c>llama-arch.cpp</c>: attn_rot_embd). GGUF's rope_freqs.weight is none of them: it
    /// changes the rotations, and is read.
    /// </summary>
    private static readonly string[] Harmless =
    [
        ".rotary_emb.inv_freq", ".rotary_emb.original_inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached",
        ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".position_ids",
        "decoder.version", ".attn_rot_embd.weight",
    ];

    /// <summary>True for a buffer that may be left out.</summary>
    public static bool IsHarmless(string name) => Harmless.Any(h => name.EndsWith(h, StringComparison.Ordinal));

    /// <summary>Those of <paramref name="names"/> that are neither claimed nor harmless, in order.</summary>
    public static IReadOnlyList<string> Unclaimed(IEnumerable<string> names, IReadOnlySet<string> claimed) =>
        [.. names.Where(n => !claimed.Contains(n) && !IsHarmless(n)).Order(StringComparer.Ordinal)];

    /// <summary>
    /// Throws when a tensor of the checkpoint belongs to nothing in the model that its configuration describes.
    /// </summary>
    /// <exception cref="HeadroomException">There are such tensors; the first of them are named.</exception>
    public static void CheckClaimed(IWeightSource source)
    {
        var names = source.Unclaimed;
        if (names.Count == 0) return;
        string which = string.Join(", ", names.Take(Named))
            + (names.Count > Named ? $" and {names.Count - Named} more" : "");
        throw new HeadroomException(
            $"{names.Count} {(names.Count == 1 ? "tensor" : "tensors")} of the checkpoint "
                + $"{(names.Count == 1 ? "belongs" : "belong")} to nothing in the model that its configuration "
                + $"describes: {which}.",
            Advice(source.Config, names));
    }

    private static string Advice(ModelConfig c, IReadOnlyList<string> names)
    {
        var due = c.MatrixNames().Concat(c.VectorNames()).ToHashSet();
        foreach (string prefix in (string[])["", "transformer.", "base_model.model.", "language_model."])
            if (names.Any(n => n.StartsWith(prefix, StringComparison.Ordinal)
                && (due.Contains("model." + n[prefix.Length..]) || due.Contains(n[prefix.Length..]))))
                return $"They are named {names[0]} where model.layers.0... is due: save the model as a causal "
                    + $"language model ({c.Architecture}) again.";
        if (names.Select(Layer).Max() is var layer && layer >= c.NumHiddenLayers)
            return $"The weights have layer {layer}, the configuration {c.NumHiddenLayers} layers: they belong to "
                + "different models.";
        if (names.All(n => n.EndsWith(".bias", StringComparison.Ordinal)))
            return "The configuration says that there are no such biases: use the one that belongs to the weights.";
        return "The configuration belongs to another model, or the model has parts that are not built; left out, it "
            + "would be another model.";
    }

    // The number in model.layers.N. or blk.N.; -1 elsewhere.
    private static int Layer(string name)
    {
        string[] parts = name.Split('.');
        for (int i = 0; i + 1 < parts.Length; i++)
            if (parts[i] is "layers" or "blk" && int.TryParse(parts[i + 1], out int n)) return n;
        return -1;
    }
}
