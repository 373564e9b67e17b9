using System.Text.Json;
using Headroom.Tokenizers;

namespace Headroom.Tests.Tokenizers;

/// <summary>Ids against what the models' own tokenizers give.</summary>
public sealed class TokenizerGoldenTests
{
    private const string Data = "tokenizers/";

    private static string[] Inputs(string folder) =>
        File.ReadAllText(Shared.DataFile(Data + folder + "/golden.inp")).Split("\n__ggml_vocab_test__\n");

    // Both files end in their separator: the 47th text is empty and has no ids.
    private static int[][] Outputs(string folder) =>
        File.ReadAllText(Shared.DataFile(Data + folder + "/golden.out")).Split('\n')
            .Select(l => l.Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(int.Parse).ToArray()).ToArray();

    private static IEnumerable<(string Text, int[] Ids)> Reviews(string folder) =>
        File.ReadAllText(Shared.DataFile(Data + folder + "/golden-imdb.jsonl"))
            .Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(l =>
        {
            using var j = JsonDocument.Parse(l);
            return (
                j.RootElement.GetProperty("text").GetString()!,
                j.RootElement.GetProperty("ids").EnumerateArray().Select(x => x.GetInt32()).ToArray());
        });

    [Theory]
    [InlineData("llama2", "tokenizer.json")]
    [InlineData("llama2", "tokenizer.model")]
    [InlineData("deepseek-llm-7b", "tokenizer.json")]
    [InlineData("deepseek-llm-7b", "ggml-vocab-deepseek-llm.gguf")]
    [InlineData("llama3", "tokenizer.json.gz")]
    [InlineData("qwen3", "tokenizer.json.gz")]
    public void The47TextsOfLlamaCpp(string folder, string file)
    {
        var t = TokenizerLoader.Load(Shared.DataFile(Data + folder + "/" + file));
        string[] texts = Inputs(folder);
        int[][] ids = Outputs(folder);
        Assert.Equal(47, texts.Length);
        Assert.Equal(47, ids.Length);
        var wrong = new List<string>();
        for (int i = 0; i < 47; i++)
        {
            var got = t.Encode(texts[i]);
            if (!got.AsSpan().SequenceEqual(ids[i]))
                wrong.Add(
                    $"{i} {JsonSerializer.Serialize(texts[i])}: {string.Join(' ', got)} instead of "
                        + $"{string.Join(' ', ids[i])}"
                );
            if (t.Decode(got) != texts[i])
                wrong.Add(
                    $"{i} {JsonSerializer.Serialize(texts[i])}: back as {JsonSerializer.Serialize(t.Decode(got))}");
        }
        Assert.True(wrong.Count == 0, string.Join('\n', wrong));
    }

    [Theory]
    [InlineData("llama2", "tokenizer.json")]
    [InlineData("llama2", "tokenizer.model")]
    [InlineData("deepseek-llm-7b", "tokenizer.json")]
    [InlineData("deepseek-llm-7b", "ggml-vocab-deepseek-llm.gguf")]
    public void Reviews40(string folder, string file)
    {
        var t = TokenizerLoader.Load(Shared.DataFile(Data + folder + "/" + file));
        int n = 0;
        foreach (var (text, ids) in Reviews(folder))
        {
            Assert.Equal(ids, t.Encode(text));
            Assert.Equal(text, t.Decode(ids));
            n++;
        }
        Assert.Equal(40, n);
    }
}
