namespace Headroom.Tokenizers;

/// <summary>Turns text into token ids and back. Implementations are safe for use from several threads.</summary>
public interface ITokenizer
{
    /// <summary>Number of ids: one more than the largest id in the vocabulary.</summary>
    int VocabSize { get; }

    /// <summary>Id of the token that opens a sequence, when the tokenizer names one.</summary>
    int? BosId { get; }

    /// <summary>Id of the token that ends a sequence, when the tokenizer names one.</summary>
    int? EosId { get; }

    /// <summary>Whether <see cref="Encode"/> with addSpecial puts <see cref="BosId"/> in front.</summary>
    bool AddBos { get; }

    /// <summary>Whether <see cref="Encode"/> with addSpecial puts <see cref="EosId"/> at the end.</summary>
    bool AddEos { get; }

    /// <summary>The chat template (Jinja text), when the tokenizer carries one.</summary>
    string? ChatTemplate { get; }

    /// <summary>
    /// The other special tokens by the name that transformers gives them (unk_token, pad_token, sep_token, cls_token,
    /// mask_token, image_token, ...); null when no file says which there are.
    /// </summary>
    IReadOnlyDictionary<string, string>? SpecialTokens => null;

    /// <summary>
    /// additional_special_tokens; null when no file says which there are (GGUF has no place for them).
    /// </summary>
    IReadOnlyList<string>? AdditionalSpecialTokens => null;

    /// <summary>
    /// Lines for the user on how the tokenizer's file was read, where it did not say all that is needed.
    /// </summary>
    IReadOnlyList<string> Notices => [];

    /// <summary>Encodes a text. Special tokens written out in the text become their ids.</summary>
    /// <param name="text">Any text; a lone surrogate is read as U+FFFD.</param>
    /// <param name="addSpecial">Add BOS and EOS as <see cref="AddBos"/> and <see cref="AddEos"/> say.</param>
    int[] Encode(string text, bool addSpecial = false);

    /// <summary>Decodes ids; special tokens are written out. Bytes that are not UTF-8 become U+FFFD.</summary>
    string Decode(ReadOnlySpan<int> ids);

    /// <summary>
    /// The piece with this id as the vocabulary spells it; empty for an id inside the range that has no piece.
    /// </summary>
    string IdToToken(int id);

    /// <summary>The id of a piece as the vocabulary spells it, or null.</summary>
    int? TokenToId(string token);
}
