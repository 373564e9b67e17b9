using System.Text;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats;

namespace Headroom.Tokenizers;

internal static partial class TokenizerJson
{
    private const string Unknown = "<unk>"; // as SentencePiece's trainer calls it

    /// <summary>Writes a trained vocabulary as tokenizer.json, and tokenizer_config.json beside it.</summary>
    /// <param name="path">A folder, or the path of the tokenizer.json to write.</param>
    /// <param name="bpe">The vocabulary.</param>
    /// <param name="bos">The special token that opens a sequence; absent, &lt;s&gt; where the vocabulary has
    /// it.</param>
    /// <param name="eos">The special token that ends a sequence; absent, &lt;/s&gt; where the vocabulary has it, else
    /// its first special token.</param>
    /// <param name="addBos">Whether BOS is put in front; absent, yes for the SentencePiece style only.</param>
    /// <param name="chatTemplate">A chat template (Jinja), if any.</param>
    public static void Write(
        string path, TrainedBpe bpe, string? bos = null, string? eos = null, bool? addBos = null,
        string? chatTemplate = null)
    {
        ArgumentNullException.ThrowIfNull(bpe);
        string file =
            Directory.Exists(path) || !path.EndsWith(".json", StringComparison.OrdinalIgnoreCase)
                ? Path.Combine(path, "tokenizer.json")
                : path;
        string folder = Path.GetDirectoryName(Path.GetFullPath(file))!;
        bos ??= bpe.Specials.Contains("<s>") ? "<s>" : null;
        eos ??= bpe.Specials.Contains("</s>") ? "</s>" : bpe.Specials.Count > 0 ? bpe.Specials[0] : null;
        foreach (string? name in (string?[])[bos, eos])
            if (name != null && !bpe.Specials.Contains(name))
                throw new HeadroomException(
                    $"{name} is not among the special tokens of the vocabulary.",
                    "Train the vocabulary with it, or name another token.");
        bool front = bos != null && (addBos ?? !bpe.ByteLevel);
        OutputFolder.Create(folder, "Give another folder.");
        AtomicFile.WriteText(file, Document(bpe, front ? bos : null).ToJsonString(Indented));
        var config = new JsonObject { ["add_bos_token"] = front, ["add_eos_token"] = false };
        if (bos != null) config["bos_token"] = bos;
        if (eos != null) config["eos_token"] = eos;
        if (!bpe.ByteLevel) config["unk_token"] = Unknown;
        config["clean_up_tokenization_spaces"] = false;
        config["tokenizer_class"] = "PreTrainedTokenizerFast";
        if (chatTemplate != null) config["chat_template"] = chatTemplate;
        AtomicFile.WriteText(Path.Combine(folder, "tokenizer_config.json"), config.ToJsonString(Indented));
    }

    /// <summary>
    /// The tokenizer of a trained vocabulary, before anything of it is written. It encodes as the written one does;
    /// which tokens open and end a sequence is up to the caller.
    /// </summary>
    public static ITokenizer Load(TrainedBpe bpe) =>
        TokenizerLoader.FromBytes(Encoding.UTF8.GetBytes(Document(bpe, null).ToJsonString(Indented)));

    private static JsonObject Document(TrainedBpe bpe, string? bos)
    {
        bool bytes = bpe.ByteLevel;
        return Document(
            bpe.Specials.Select((content, id) => new AddedToken(id, content)),
            bytes ? null : Blanks(prefix: true, oneSpace: false),
            bytes
                ? Sequence("pretokenizers", [Item("Digits", ("individual_digits", true)), ByteLevel(false, true)])
                : null,
            Template(bpe.Pieces, bos == null ? [] : [bpe.Specials.ToList().IndexOf(bos)], []),
            Decoder(bytes, prefix: true),
            Model(bpe.Pieces, bpe.Merges, bytes ? null : Unknown, bytes, wholeWords: false));
    }
}
