using Headroom.Formats.Gguf;

namespace Headroom.Tokenizers;

/// <summary>
/// The pre-tokenizer of a byte-level GGUF vocabulary. Files of converters before May 2024 do not name it: then it is
/// told from the list of merges, where that is one of a known model, for a list was learned from words that its
/// pre-tokenizer had cut.
/// </summary>
internal static class GgufPre
{
    private const string Key = "tokenizer.ggml.pre";

    // Name, the model, number of merges, first and second merge, and what the last one makes.
    private static readonly (string Pre, string Of, int Merges, string First, string Second, string Last)[] Known =
    [
        ("llama-bpe", "Llama 3", 280147, "\u0120 \u0120", "\u0120 \u0120\u0120\u0120", "\u00E9\u0136\u00A6"),
        ("qwen2", "Qwen2", 151387, "\u0120 \u0120", "\u0120\u0120 \u0120\u0120", "\u00E2\u00BD\u0139"),
        ("deepseek-llm", "DeepSeek-LLM", 99757, "\u0120 \u0120", "\u0120 t", "\u00E7\u00B2\u013A\u00E8\u0128\u013E"),
        ("deepseek-v3", "DeepSeek-V3", 127741, "\u0120 t", "\u0120 a", "\u00E5\u00B1\u012D\u00E6\u00AA\u0132"),
        ("smollm", "SmolLM", 48900, "\u0120 t", "\u0120 a", "ectable"),
        ("gpt-2", "GPT-2", 50000, "\u0120 t", "\u0120 a", "\u0120gazed"),
    ];

    /// <summary>
    /// The name, and a line for the user where the file has none; (null, a loud line) where it cannot be told.
    /// </summary>
    /// <param name="file">The file's pairs.</param>
    public static (string? Pre, string? Notice) Find(GgufMetadata file)
    {
        if (file.TryGetValue(Key, out object? named))
            return named is not string pre ? throw new FormatException($"{Key} is not of the right type")
                : pre.Length > 0 ? (pre, null) : Told(file);
        return Told(file);
    }

    private static (string? Pre, string? Notice) Told(GgufMetadata file)
    {
        if (file.Text("tokenizer.ggml.model") != "gpt2") return (null, null); // SentencePiece vocabularies need none
        if (file.GetValueOrDefault("tokenizer.ggml.merges") is string[] { Length: > 2 } merges)
            foreach (var k in Known)
                if (merges.Length == k.Merges && merges[0] == k.First && merges[1] == k.Second
                    && merges[^1].Replace(" ", "", StringComparison.Ordinal) == k.Last)
                    return (k.Pre, $"the GGUF file does not say how its tokenizer cuts words ({Key}); its merges are "
                        + $"{k.Of}'s, so {k.Pre} is taken");
        return (null, $"WARNING: the GGUF file does not say how its tokenizer cuts words ({Key}), and its vocabulary "
            + "is none that is known. Words are cut by llama.cpp's default rules, which may not be those that the "
            + "model was trained with: expect worse results. Convert the model again, or point to its Hugging Face "
            + "folder for the tokenizer.");
    }
}
