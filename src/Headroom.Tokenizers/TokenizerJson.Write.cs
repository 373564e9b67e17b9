using System.Text.Encodings.Web;
using System.Text.Json;
using Headroom.Core;
using Headroom.Formats;

namespace Headroom.Tokenizers;

internal static partial class TokenizerJson
{
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
        AtomicFile.Write(file, f => f.Write(Bytes(w => Tokenizer(w, bpe, front ? bos : null))));
        AtomicFile.Write(Path.Combine(folder, "tokenizer_config.json"), f => f.Write(Bytes(w =>
        {
            w.WriteStartObject();
            w.WriteBoolean("add_bos_token", front);
            w.WriteBoolean("add_eos_token", false);
            if (bos != null) w.WriteString("bos_token", bos);
            if (eos != null) w.WriteString("eos_token", eos);
            if (!bpe.ByteLevel) w.WriteString("unk_token", "<unk>");
            w.WriteBoolean("clean_up_tokenization_spaces", false);
            w.WriteString("tokenizer_class", "PreTrainedTokenizerFast");
            if (chatTemplate != null) w.WriteString("chat_template", chatTemplate);
            w.WriteEndObject();
        })));
    }

    /// <summary>
    /// The tokenizer of a trained vocabulary, before anything of it is written. It encodes as the written one does;
    /// which tokens open and end a sequence is up to the caller.
    /// </summary>
    public static ITokenizer Load(TrainedBpe bpe) => TokenizerLoader.FromBytes(Bytes(w => Tokenizer(w, bpe, null)));

    private static byte[] Bytes(Action<Utf8JsonWriter> write)
    {
        using var stream = new MemoryStream();
        using (
            var w = new Utf8JsonWriter(
                stream,
                new JsonWriterOptions
                {
                    Indented = true,
                    Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
                    NewLine = "\n",
                }
            )
        )
            write(w);
        return stream.ToArray();
    }

    private static void Tokenizer(Utf8JsonWriter w, TrainedBpe bpe, string? bos)
    {
        void Item(string type, params (string Key, object Value)[] values)
        {
            w.WriteStartObject();
            w.WriteString("type", type);
            foreach (var (key, value) in values)
            {
                w.WritePropertyName(key);
                if (value is bool b) w.WriteBooleanValue(b);
                else if (value is int i) w.WriteNumberValue(i);
                else if (key == "pattern")
                {
                    w.WriteStartObject();
                    w.WriteString("String", (string)value);
                    w.WriteEndObject();
                }
                else w.WriteStringValue((string)value);
            }
            w.WriteEndObject();
        }
        void Sequence(string key, string items, Action body)
        {
            w.WriteStartObject(key);
            w.WriteString("type", "Sequence");
            w.WriteStartArray(items);
            body();
            w.WriteEndArray();
            w.WriteEndObject();
        }

        w.WriteStartObject();
        w.WriteString("version", "1.0");
        w.WriteNull("truncation");
        w.WriteNull("padding");
        w.WriteStartArray("added_tokens");
        for (int i = 0; i < bpe.Specials.Count; i++)
        {
            w.WriteStartObject();
            w.WriteNumber("id", i);
            w.WriteString("content", bpe.Specials[i]);
            foreach (string flag in (string[])["single_word", "lstrip", "rstrip", "normalized"])
                w.WriteBoolean(flag, false);
            w.WriteBoolean("special", true);
            w.WriteEndObject();
        }
        w.WriteEndArray();
        if (bpe.ByteLevel)
        {
            w.WriteNull("normalizer");
            Sequence("pre_tokenizer", "pretokenizers", () =>
            {
                Item("Digits", ("individual_digits", true));
                Item("ByteLevel", ("add_prefix_space", false), ("trim_offsets", true), ("use_regex", true));
            });
        }
        else
        {
            Sequence("normalizer", "normalizers", () =>
            {
                Item("Prepend", ("prepend", "\u2581"));
                Item("Replace", ("pattern", " "), ("content", "\u2581"));
            });
            w.WriteNull("pre_tokenizer");
        }

        w.WriteStartObject("post_processor");
        w.WriteString("type", "TemplateProcessing");
        foreach (string form in (string[])["single", "pair"])
        {
            w.WriteStartArray(form);
            for (int part = 0; part < (form == "single" ? 1 : 2); part++)
                foreach (string? id in bos == null ? (string?[])[null] : [bos, null])
                {
                    w.WriteStartObject();
                    w.WriteStartObject(id == null ? "Sequence" : "SpecialToken");
                    w.WriteString("id", id ?? (part == 0 ? "A" : "B"));
                    w.WriteNumber("type_id", part);
                    w.WriteEndObject();
                    w.WriteEndObject();
                }
            w.WriteEndArray();
        }
        w.WriteStartObject("special_tokens");
        if (bos != null)
        {
            w.WriteStartObject(bos);
            w.WriteString("id", bos);
            w.WriteStartArray("ids");
            w.WriteNumberValue(bpe.Specials.ToList().IndexOf(bos));
            w.WriteEndArray();
            w.WriteStartArray("tokens");
            w.WriteStringValue(bos);
            w.WriteEndArray();
            w.WriteEndObject();
        }
        w.WriteEndObject();
        w.WriteEndObject();

        if (bpe.ByteLevel)
        {
            w.WritePropertyName("decoder");
            Item("ByteLevel", ("add_prefix_space", true), ("trim_offsets", true), ("use_regex", true));
        }
        else
            Sequence("decoder", "decoders", () =>
            {
                Item("Replace", ("pattern", "\u2581"), ("content", " "));
                Item("ByteFallback");
                Item("Fuse");
                Item("Strip", ("content", " "), ("start", 1), ("stop", 0));
            });

        w.WriteStartObject("model");
        w.WriteString("type", "BPE");
        w.WriteNull("dropout");
        if (bpe.ByteLevel) w.WriteNull("unk_token"); else w.WriteString("unk_token", "<unk>");
        w.WriteNull("continuing_subword_prefix");
        w.WriteNull("end_of_word_suffix");
        w.WriteBoolean("fuse_unk", !bpe.ByteLevel);
        w.WriteBoolean("byte_fallback", !bpe.ByteLevel);
        w.WriteBoolean("ignore_merges", false);
        w.WriteStartObject("vocab");
        for (int i = 0; i < bpe.Pieces.Count; i++) w.WriteNumber(bpe.Pieces[i], i);
        w.WriteEndObject();
        w.WriteStartArray("merges");
        foreach (var (left, right) in bpe.Merges)
        {
            w.WriteStartArray();
            w.WriteStringValue(left);
            w.WriteStringValue(right);
            w.WriteEndArray();
        }
        w.WriteEndArray();
        w.WriteEndObject();
        w.WriteEndObject();
    }
}
