using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Gguf;

namespace Headroom.Tokenizers;

internal static partial class TokenizerJson
{
    /// <summary>
    /// Writes the tokenizer of a GGUF file as tokenizer.json and tokenizer_config.json, and reads it back: a tokenizer
    /// that does not give the same ids on
    /// <see cref="GgufVocabulary.Probes"/> is refused.
    /// </summary>
    public static void WriteFromGguf(string folder, GgufFile file)
    {
        var tokenizer = new BpeTokenizer(GgufTokenizer.Read(file.Metadata));
        var parts = tokenizer.Parts;
        AtomicFile.WriteText(
            Path.Combine(folder, "tokenizer.json"), Document(parts, file.Metadata).ToJsonString(Indented) + "\n");
        string? Name(int? id) => id is { } i ? parts.Pieces[i] : null;
        var config = new JsonObject
        {
            ["add_bos_token"] = tokenizer.AddBos,
            ["add_eos_token"] = tokenizer.AddEos,
            ["bos_token"] = Name(parts.Bos),
            ["eos_token"] = Name(parts.Eos),
            ["clean_up_tokenization_spaces"] = false,
            ["tokenizer_class"] = "PreTrainedTokenizerFast",
        };
        if (parts.Model.UnknownId >= 0) config["unk_token"] = parts.Pieces[parts.Model.UnknownId];
        if (parts.ChatTemplate != null) config["chat_template"] = parts.ChatTemplate;
        AtomicFile.WriteText(Path.Combine(folder, "tokenizer_config.json"), config.ToJsonString(Indented) + "\n");
        var back = TokenizerLoader.Load(folder);
        foreach (string p in GgufVocabulary.Probes)
            if (!tokenizer.Encode(p, true).AsSpan().SequenceEqual(back.Encode(p, true)))
                throw new HeadroomException(
                    $"The tokenizer of {Path.GetFileName(file.Path)} does not survive as tokenizer.json (it differs "
                        + $"on {JsonSerializer.Serialize(p)}).",
                    "Export to GGUF, or from the model's Hugging Face folder.", 1);
    }

    private static JsonObject Document(TokenizerParts parts, GgufMetadata gguf)
    {
        bool bytes = parts.ByteLevel, prefix = gguf.Flag("tokenizer.ggml.add_space_prefix") ?? !bytes;
        string? pre = bytes ? GgufPre.Find(gguf).Pre : null;
        return Document(
            parts.Added.OrderBy(t => t.Id),
            !bytes ? Blanks(prefix, gguf.Flag("tokenizer.ggml.remove_extra_whitespaces") ?? false)
                : KnownSplits.Composed(pre) ? Item("NFC")
                : null,
            bytes
                ? Sequence("pretokenizers", [.. KnownSplits.ByName(pre).Select(Split), ByteLevel(prefix, false)])
                : null,
            Template(parts.Pieces, parts.Prefix, parts.Suffix),
            Decoder(bytes, prefix),
            Model(
                parts.Pieces, parts.Model.Merges.Select(m => (parts.Pieces[m.Left], parts.Pieces[m.Right])),
                parts.Model.UnknownId is >= 0 and var unk ? parts.Pieces[unk] : null, bytes, parts.Model.WholeWords));
    }
}
