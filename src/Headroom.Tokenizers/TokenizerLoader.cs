using System.IO.Compression;
using System.Text.Json;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Gguf;

namespace Headroom.Tokenizers;

/// <summary>Opens the tokenizer of a model, whatever file it lies in.</summary>
public static class TokenizerLoader
{
    private const int LargestSettings = (int)SideFile.Largest;

    /// <summary>Loads a tokenizer.</summary>
    /// <param name="path">A tokenizer.json (or tokenizer.json.gz), a SentencePiece tokenizer.model, a GGUF file, or a
    /// folder that holds one of these. Settings beside the file (tokenizer_config.json, special_tokens_map.json,
    /// chat_template.jinja) count too.</param>
    /// <exception cref="HeadroomException">There is no such file, it is damaged, or it is of a kind that cannot be
    /// read.</exception>
    public static ITokenizer Load(string path) => LoadBpe(path);

    internal static BpeTokenizer LoadBpe(string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        string file = Directory.Exists(path) ? Inside(path) : path;
        if (!File.Exists(file))
            throw new HeadroomException(
                $"There is no tokenizer at {path}.",
                "Give the path of a tokenizer.json, a tokenizer.model, a GGUF file, or a folder with one of these.");
        string name = Path.GetFileName(file), now = name;
        try
        {
            TokenizerParts parts;
            if (IsGguf(file))
            {
                using var gguf = new GgufFile(file);
                parts = GgufTokenizer.Read(gguf.Metadata);
            }
            else
            {
                parts = Read(ReadAll(file, SideFile.LargestTokenizer));
                Settings(Path.GetDirectoryName(Path.GetFullPath(file))!, parts, ref now);
            }
            now = name;
            return new BpeTokenizer(parts);
        }
        catch (Exception e) when (IsBadFile(e))
        {
            throw Bad(now, e);
        }
    }

    /// <summary>A tokenizer from the bytes of a tokenizer.json or a tokenizer.model alone.</summary>
    internal static BpeTokenizer FromBytes(byte[] data)
    {
        try
        {
            return new BpeTokenizer(Read(data));
        }
        catch (Exception e) when (IsBadFile(e))
        {
            throw Bad("", e);
        }
    }

    /// <summary>A tokenizer from GGUF metadata.</summary>
    internal static BpeTokenizer FromGguf(GgufFile file)
    {
        try
        {
            return new BpeTokenizer(GgufTokenizer.Read(file.Metadata));
        }
        catch (Exception e) when (IsBadFile(e))
        {
            throw Bad(Path.GetFileName(file.Path), e);
        }
    }

    private static TokenizerParts Read(byte[] data)
    {
        int first = 0;
        while (
            first < data.Length
            && data[first] is (byte)' ' or (byte)'\n' or (byte)'\r' or (byte)'\t' or 0xEF or 0xBB or 0xBF
        )
            first++;
        if (first == data.Length) throw new FormatException("it is empty");
        if (data[first] != (byte)'{') return SentencePieceModel.Read(data);
        using var json = JsonDocument.Parse(data.AsMemory(first));
        return TokenizerJson.Read(json.RootElement);
    }

    private static bool IsBadFile(Exception e) =>
        Malformed.Is(e) || e is IOException or UnauthorizedAccessException;

    private static HeadroomException Bad(string name, Exception e) =>
        new(
            $"{name} cannot be read: {e.Message.TrimEnd('.')}.",
            "The file is damaged, incomplete or of another kind; download or copy it again.", inner: e);

    private static string Inside(string folder)
    {
        foreach (string name in (string[])["tokenizer.json", "tokenizer.json.gz", "tokenizer.model"])
            if (Path.Combine(folder, name) is var p && File.Exists(p)) return p;
        string[] gguf = Directory.GetFiles(folder, "*.gguf");
        if (gguf.Length == 1) return gguf[0];
        throw new HeadroomException(
            gguf.Length == 0
                ? $"There is no tokenizer in {folder}."
                : $"There are {gguf.Length} GGUF files and no tokenizer.json in {folder}.",
            "Put the model's tokenizer.json or tokenizer.model there, or give the path of the file that holds the "
                + "tokenizer."
        );
    }

    private static bool IsGguf(string file)
    {
        RegularFile.Check(file);
        if (file.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase)) return true;
        Span<byte> magic = stackalloc byte[4];
        using var s = File.OpenRead(file);
        return s.ReadAtLeast(magic, 4, throwOnEndOfStream: false) == 4 && magic.SequenceEqual("GGUF"u8);
    }

    private static byte[] ReadAll(string file, int most)
    {
        RegularFile.Check(file);
        using var stream = File.OpenRead(file);
        Span<byte> magic = stackalloc byte[2];
        bool packed =
            stream.ReadAtLeast(magic, 2, throwOnEndOfStream: false) == 2 && magic[0] == 0x1F && magic[1] == 0x8B;
        stream.Position = 0;
        using Stream source = packed ? new GZipStream(stream, CompressionMode.Decompress) : stream;
        using var all = new MemoryStream();
        var block = new byte[1 << 16];
        for (int n; (n = source.Read(block)) > 0;)
        {
            if (all.Length + n > most) throw new InvalidDataException($"it holds more than {most >> 20} MiB");
            all.Write(block, 0, n);
        }
        GitLfs.Refuse(file, all.GetBuffer().AsSpan(0, (int)all.Length));
        return all.ToArray();
    }

    /// <summary>Reads what lies beside the tokenizer file.</summary>
    private static void Settings(string folder, TokenizerParts parts, ref string now)
    {
        bool? addBos = null, addEos = null;
        int? bos = null, eos = null;
        if (Open(folder, "tokenizer_config.json", ref now) is { } config)
            using (config)
            {
                var root = config.RootElement;
                AddMissing(root, parts);
                (addBos, addEos) = (
                    TokenizerJson.Flag(root, "add_bos_token"), TokenizerJson.Flag(root, "add_eos_token"));
                (bos, eos) = (Named(root, "bos_token", parts), Named(root, "eos_token", parts));
                parts.ChatTemplate = Template(root) ?? parts.ChatTemplate;
                SpecialTokens(root, parts);
            }
        if (Open(folder, "special_tokens_map.json", ref now) is { } map)
            using (map)
            {
                bos ??= Named(map.RootElement, "bos_token", parts);
                eos ??= Named(map.RootElement, "eos_token", parts);
                SpecialTokens(map.RootElement, parts);
            }
        if (Open(folder, "config.json", ref now) is { } model)
            using (model)
            {
                bos ??= parts.Bos ?? Id(model.RootElement, "bos_token_id", parts);
                eos ??= parts.Eos ?? Id(model.RootElement, "eos_token_id", parts);
            }
        string jinja = Path.Combine(folder, "chat_template.jinja");
        RegularFile.Check(jinja);
        // A file of its own wins over tokenizer_config.json (transformers tokenization_utils_base.py, from_pretrained).
        if (File.Exists(jinja)) parts.ChatTemplate = SideFile.ReadText(jinja);

        int? Fallback(string name) => parts.Added.Find(t => t.Special && t.Content == name)?.Id;
        int? oldBos = parts.Bos, oldEos = parts.Eos;
        parts.Bos = bos ?? oldBos ?? Fallback("<s>");
        parts.Eos = eos ?? oldEos ?? Fallback("</s>");
        if (addBos == false) parts.Prefix.RemoveAll(id => id == parts.Bos || id == oldBos);
        else if (addBos == true && parts.Bos is { } b && !parts.Prefix.Contains(b)) parts.Prefix.Insert(0, b);
        if (addEos == false) parts.Suffix.RemoveAll(id => id == parts.Eos || id == oldEos);
        else if (addEos == true && parts.Eos is { } e && !parts.Suffix.Contains(e)) parts.Suffix.Add(e);
    }

    private static JsonDocument? Open(string folder, string name, ref string now)
    {
        string file = Path.Combine(folder, name);
        if (!File.Exists(file)) return null;
        now = name;
        var json = JsonDocument.Parse(ReadAll(file, LargestSettings));
        if (json.RootElement.ValueKind == JsonValueKind.Object) return json;
        string kind = JsonKinds.Named(json.RootElement.ValueKind);
        json.Dispose();
        throw new FormatException($"it holds {kind} where an object is expected");
    }

    private static int? Named(JsonElement root, string key, TokenizerParts parts)
    {
        if (TokenizerJson.Optional(root, key) is not { } v) return null;
        string? name = v.ValueKind == JsonValueKind.Object ? TokenizerJson.Text(v, "content") : v.GetString();
        return name != null && parts.Ids.TryGetValue(name, out int id) ? id : null;
    }

    private static int? Id(JsonElement root, string key, TokenizerParts parts)
    {
        if (TokenizerJson.Optional(root, key) is not { } v) return null;
        if (v.ValueKind == JsonValueKind.Array) { if (v.GetArrayLength() == 0) return null; v = v[0]; }
        return v.TryGetInt32(out int id) && (uint)id < (uint)parts.Pieces.Length ? id : null;
    }

    // special_tokens_map of transformers (tokenization_utils_base.py): every *_token with a text, those that only this
    // model has (image_token, ...) too, and the list of additional ones. The first file that names one counts.
    private static void SpecialTokens(JsonElement root, TokenizerParts parts)
    {
        if (root.ValueKind != JsonValueKind.Object) return;
        var all = parts.SpecialTokens ??= [];
        parts.AdditionalSpecialTokens ??= [];
        static string? Text(JsonElement v) =>
            v.ValueKind switch
            {
                JsonValueKind.String => v.GetString(),
                JsonValueKind.Object => TokenizerJson.Text(v, "content"),
                _ => null,
            };
        void Add(string name, JsonElement v)
        {
            if (
                name is not ("bos_token" or "eos_token")
                && name.EndsWith("_token", StringComparison.Ordinal)
                && Text(v) is { } text
            )
                all.TryAdd(name, text);
        }
        foreach (var p in root.EnumerateObject()) Add(p.Name, p.Value);
        if (TokenizerJson.Optional(root, "extra_special_tokens") is { ValueKind: JsonValueKind.Object } extra)
            foreach (var p in extra.EnumerateObject()) Add(p.Name, p.Value);
        if (
            TokenizerJson.Optional(root, "additional_special_tokens") is { ValueKind: JsonValueKind.Array } more
            && parts.AdditionalSpecialTokens.Count == 0
        )
            parts.AdditionalSpecialTokens = [.. more.EnumerateArray().Select(Text).OfType<string>()];
        // What the class of the tokenizer fills in when the file does not say (tokenization_llama.py,
        // tokenization_qwen2.py); a null in the file is an answer.
        string kind = TokenizerJson.Text(root, "tokenizer_class") ?? "";
        foreach (var (prefix, name, text) in new[]
            {
                ("LlamaTokenizer", "unk_token", "<unk>"), ("CodeLlamaTokenizer", "unk_token", "<unk>"),
                ("Qwen2Tokenizer", "unk_token", "<|endoftext|>"), ("Qwen2Tokenizer", "pad_token", "<|endoftext|>"),
            }
        )
            if (kind.StartsWith(prefix, StringComparison.Ordinal) && !root.TryGetProperty(name, out _))
                all.TryAdd(name, text);
    }

    private static string? Template(JsonElement root)
    {
        if (TokenizerJson.Optional(root, "chat_template") is not { } t) return null;
        if (t.ValueKind == JsonValueKind.String) return t.GetString();
        if (t.ValueKind != JsonValueKind.Array) return null;
        foreach (var item in t.EnumerateArray())
            if (TokenizerJson.Text(item, "name") == "default")
                return TokenizerJson.Text(item, "template");
        return null;
    }

    /// <summary>Tokens that only tokenizer_config.json names (it lists ids by their decimal spelling).</summary>
    private static void AddMissing(JsonElement root, TokenizerParts parts)
    {
        if (TokenizerJson.Optional(root, "added_tokens_decoder") is not { ValueKind: JsonValueKind.Object } list)
            return;
        var known = parts.Added.Select(t => t.Content).ToHashSet(StringComparer.Ordinal);
        bool grown = false;
        foreach (var p in list.EnumerateObject())
        {
            string? content = TokenizerJson.Text(p.Value, "content");
            if (string.IsNullOrEmpty(content) || known.Contains(content)) continue;
            if (
                !int.TryParse(
                    p.Name, System.Globalization.NumberStyles.None, System.Globalization.CultureInfo.InvariantCulture,
                    out int id)
            )
                throw new FormatException($"the added token {content} has the id {p.Name}");
            bool special = TokenizerJson.Flag(p.Value, "special") ?? false;
            parts.Added.Add(
                new AddedToken(
                    id, content, TokenizerJson.Flag(p.Value, "single_word") ?? false,
                    TokenizerJson.Flag(p.Value, "lstrip") ?? false, TokenizerJson.Flag(p.Value, "rstrip") ?? false,
                    TokenizerJson.Flag(p.Value, "normalized") ?? false, special)
            );
            if (parts.Ids.TryAdd(content, id)) grown = true;
        }
        if (!grown) return;
        var before = parts.Pieces;
        parts.Pieces = Vocabulary.ById(parts.Ids);
        // Pieces that share a spelling keep their own id.
        for (int i = 0; i < before.Length && i < parts.Pieces.Length; i++)
            if (parts.Pieces[i].Length == 0)
                parts.Pieces[i] = before[i];
    }
}
