using System.IO.Compression;
using System.Text;
using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Formats.Gguf;
using Headroom.Formats.HuggingFace;
using Headroom.Formats.Peft;
using Headroom.Formats.Safetensors;
using Headroom.Tokenizers;

namespace Headroom.Tests.Formats;

/// <summary>
/// What lies beside a model under a name that promises something else: pointers of Git LFS, files of other sizes, an
/// index left over.
/// </summary>
public sealed class SideFileTests : IDisposable
{
    private const string Pointer =
        "version https://git-lfs.github.com/spec/v1\noid "
            + "sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
    private const string Small =
        """{"architectures": ["LlamaForCausalLM"], "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 4""";
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private string Put(string name, string text)
    {
        string path = Path.Combine(_folder, name);
        File.WriteAllText(path, text);
        return path;
    }

    private static HeadroomException Refused(Action read) => Assert.Throws<HeadroomException>(read);

    [Theory]
    [InlineData("config.json")]
    [InlineData("generation_config.json")]
    [InlineData("model.safetensors")]
    [InlineData("model.safetensors.index.json")]
    [InlineData("model.gguf")]
    [InlineData("tokenizer.json")]
    [InlineData("tokenizer.model")]
    [InlineData("tokenizer_config.json")]
    [InlineData("special_tokens_map.json")]
    [InlineData("chat_template.jinja")]
    [InlineData("adapter_config.json")]
    [InlineData("adapter_model.safetensors")]
    [InlineData("train.jsonl")]
    [InlineData("train.csv")]
    [InlineData("train.tsv.gz")]
    [InlineData("train.parquet")]
    public void AGitLfsPointerIsNamed(string name)
    {
        string vocabulary = """{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}""";
        Put("config.json", Small + "}");
        if (name.StartsWith("adapter_model", StringComparison.Ordinal))
            Put("adapter_config.json", """{"peft_type": "LORA"}""");
        if (name.StartsWith("adapter_config", StringComparison.Ordinal)) Put("adapter_model.safetensors", "x");
        if (name.Contains("token", StringComparison.Ordinal) || name.Contains("template", StringComparison.Ordinal))
            Put("tokenizer.json", vocabulary);
        string path = Put(name, Pointer);
        var e = Refused(() =>
        {
            if (name.StartsWith("train", StringComparison.Ordinal)) _ = DataFiles.Read(path).ToList();
            else if (name.StartsWith("adapter", StringComparison.Ordinal)) PeftAdapter.Load(_folder);
            else if (name.StartsWith("generation", StringComparison.Ordinal)) GenerationConfig.Beside(_folder);
            else if (
                name.Contains("token", StringComparison.Ordinal) || name.Contains("template", StringComparison.Ordinal))
                TokenizerLoader.Load(name == "tokenizer.model" ? path : _folder);
            else WeightSources.Open(name.EndsWith(".gguf", StringComparison.Ordinal) ? path : _folder).Dispose();
        });
        Assert.Contains(name, e.Message);
        Assert.Contains("Git LFS pointer", e.Message);
        Assert.Contains("12,345 bytes", e.Message);
        Assert.Contains("git lfs pull", e.ToDo);
        Assert.Equal(2, e.ExitCode);
    }

    [Fact]
    public void TheCaseOfTheField() =>
        Assert.Contains(
            "Git LFS pointer", Refused(() => WeightSources.Open(Shared.CaseFile("lfs-pointer")).Dispose()).Message);

    [Theory]
    [InlineData("config.json")]
    [InlineData("generation_config.json")]
    [InlineData("model.safetensors.index.json")]
    [InlineData("adapter_config.json")]
    [InlineData("tokenizer_config.json")]
    public void AFileOfThreeGigabytesIsNotRead(string name)
    {
        Put("config.json", Small + "}");
        Put("adapter_model.safetensors", "x");
        Put("tokenizer.json", """{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}""");
        using (var file = File.Create(Path.Combine(_folder, name))) file.SetLength(3L << 30); // a hole: takes no space
        long before = GC.GetAllocatedBytesForCurrentThread(); // tests beside it allocate too
        var e = Refused(() =>
        {
            if (name.StartsWith("adapter", StringComparison.Ordinal)) PeftAdapter.Load(_folder);
            else if (name.StartsWith("generation", StringComparison.Ordinal)) GenerationConfig.Beside(_folder);
            else if (name.StartsWith("tokenizer", StringComparison.Ordinal)) TokenizerLoader.Load(_folder);
            else WeightSources.Open(_folder).Dispose();
        });
        Assert.Contains(name, e.Message);
        Assert.True(GC.GetAllocatedBytesForCurrentThread() - before < 100 << 20);
    }

    [Theory]
    [InlineData("[2, null]")]
    [InlineData("[null]")]
    [InlineData("[2, [3]]")]
    [InlineData("\"2\"")]
    [InlineData("[\"</s>\"]")]
    [InlineData("true")]
    [InlineData("{\"id\": 2}")]
    [InlineData("2.5")]
    [InlineData("-2")]
    [InlineData("[2, -7]")]
    [InlineData("1e300")]
    [InlineData("99999999999")]
    [InlineData("123456789012345678901234567890")]
    public void WhatIsNoTokenIdIsNamed(string value)
    {
        foreach (string key in new[] { "eos_token_id", "bos_token_id", "pad_token_id" })
        {
            var e = Refused(() => HfConfig.Parse($"{Small}, \"{key}\": {value}}}"));
            Assert.Contains(
                $"{key} is {value.Replace(" ", "", StringComparison.Ordinal)}",
                e.Message.Replace(" [", " [", StringComparison.Ordinal));
        }
        Put("generation_config.json", $"{{\"eos_token_id\": {value}}}");
        Assert.Contains("eos_token_id is", Refused(() => GenerationConfig.Beside(_folder)).Message);
    }

    [Fact]
    public void TokenIds()
    {
        Assert.Equal([2, 7], HfConfig.Parse(Small + """, "eos_token_id": [2, 7]}""").EosTokenIds);
        Assert.Equal([2], HfConfig.Parse(Small + """, "eos_token_id": 2.0}""").EosTokenIds);
        Assert.Equal([2], HfConfig.Parse(Small + """, "eos_token_id": [2, -1]}""").EosTokenIds);
        foreach (string none in new[] { "null", "[]", "-1" })
            Assert.Empty(HfConfig.Parse($"{Small}, \"eos_token_id\": {none}}}").EosTokenIds);
        var c = HfConfig.Parse(Small + """, "pad_token_id": -1, "bos_token_id": 1}"""); // as the first conversions of Llama have it
        Assert.Equal((1, (int?)null), (c.BosTokenId, c.PadTokenId));
    }

    [Fact]
    public void TheCaseOfANullAmongIds() =>
        Assert.Contains(
            "eos_token_id is [2,null]",
            Refused(() => HfConfig.Load(Shared.CaseFile("config-eos-null/config.json"))).Message);

    // transformers takes the whole file wherever there is one.
    [Theory]
    [InlineData("""{"metadata": {"total_size": 5}, "weight_map": {"x": "model-00001-of-00002.safetensors"}}""", true)]
    [InlineData("{", true)]
    [InlineData("""{"weight_map": {"only.weight": "model.safetensors"}}""", true)]
    [InlineData("""{"weight_map": {"gone.weight": "model.safetensors"}}""", false)]
    public void AnIndexLeftOverBesideAWholeFile(string index, bool read)
    {
        Put("config.json", Small + "}");
        SafetensorsWriter.WriteF32(Path.Combine(_folder, "model.safetensors"), [("only.weight", [2], [1, 2])]);
        Put("model.safetensors.index.json", index);
        if (!read)
        {
            Assert.Contains("gone.weight", Refused(() => new CheckpointSource(_folder).Dispose()).Message);
            return;
        }
        using var source = new CheckpointSource(_folder);
        Assert.True(source.Has("only.weight"));
        Assert.Null(source.AnnouncedBytes);
        Assert.Single(source.Files);
    }

    [Fact]
    public void APackedFileOfOneEndlessLine()
    {
        string path = Path.Combine(_folder, "bomb.jsonl.gz");
        using (var zip = new GZipStream(File.Create(path), CompressionLevel.Fastest))
        {
            zip.Write(Encoding.UTF8.GetBytes("{\"text\": \""));
            var block = new byte[1 << 20];
            block.AsSpan().Fill((byte)'a');
            for (int i = 0; i < 80; i++) zip.Write(block);
        }
        Assert.Contains("line 1: the line is longer than 64 MiB", Refused(() => DataFiles.Read(path).ToList()).Message);
    }

    /// <summary>
    /// What generation_config.json asks for and is not built is listed; values that change nothing are not.
    /// </summary>
    [Theory]
    [InlineData("{}", "")]
    [InlineData(
        "{\"num_beams\": 1, \"suppress_tokens\": [], \"bad_words_ids\": null, \"typical_p\": 1.0, "
            + "\"forced_eos_token_id\": null, \"transformers_version\": \"5.1\"}",
        "")]
    [InlineData(
        "{\"num_beams\": 4, \"no_repeat_ngram_size\": 2, \"suppress_tokens\": [5], \"temperature\": 0.7}",
        "num_beams 4; no_repeat_ngram_size 2; suppress_tokens [5]")]
    public void GenerationSettingsThatAreNotBuiltAreListed(string json, string listed)
    {
        using var folder = new TempFolder();
        File.WriteAllText(Path.Combine(folder.Path, "generation_config.json"), json);
        Assert.Equal(listed, string.Join("; ", GenerationConfig.Beside(folder.Path).NotFollowed));
    }
}
