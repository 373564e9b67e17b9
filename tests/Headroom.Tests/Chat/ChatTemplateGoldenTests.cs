using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Tokenizers;
using Headroom.Tokenizers.Chat;

namespace Headroom.Tests.Chat;

/// <summary>Templates of real models against the text and ids that transformers gives.</summary>
public sealed class ChatTemplateGoldenTests
{
    [Theory]
    [InlineData("llama3")]
    [InlineData("qwen3")]
    [InlineData("deepseek-v3")]
    [InlineData("smollm2")]
    public void TextAndIds(string model)
    {
        var cases = JsonNode
            .Parse(File.ReadAllText(Shared.GoldenFile("chat-templates.json")))!
            .AsArray()
            .Where(c => (string)c!["tokenizer"]! == model)
            .ToArray();
        Assert.SkipWhen(cases.Length == 0, $"no case of {model} in chat-templates.json");
        var tokenizer = TokenizerLoader.Load(Shared.DataFile("tokenizers/" + model));
        var template = ChatTemplate.Get(tokenizer);
        foreach (var c in cases)
        {
            string text = template.Render(
                c!["messages"]!.AsArray(), (bool)c["add_generation_prompt"]!,
                new JsonObject { ["date_string"] = "26 Jul 2024" });
            Assert.Equal((string)c["text"]!, text);
            int[] ids = c["ids"]!.AsArray().Select(i => (int)i!).ToArray();
            Assert.Equal(ids, tokenizer.Encode(text));
            // Never a second BOS, whatever the tokenizer adds to a plain prompt.
            Assert.Equal(
                tokenizer.AddBos && ids[0] != tokenizer.BosId ? [tokenizer.BosId!.Value, .. ids] : ids,
                tokenizer.EncodePrompt(text));
        }
    }

    [Fact]
    public void GgufCarriesTheTemplate()
    {
        var gguf = TokenizerLoader.Load(
            Shared.DataFile("models/SmolLM2-135M-Instruct/SmolLM2-135M-Instruct.Q4_1.gguf"));
        var json = TokenizerLoader.Load(Shared.DataFile("tokenizers/smollm2"));
        ChatMessage[] messages = [new("user", "Name three colours."), new("assistant", "Red."), new("user", "日本語 😀")];
        string text = ChatTemplate.Get(gguf).Render(messages, true);
        Assert.Equal(ChatTemplate.Get(json).Render(messages, true), text);
        Assert.Equal(json.Encode(text), gguf.Encode(text));
    }

    [Fact]
    public void NoSecondBos()
    {
        var tokenizer = TokenizerLoader.Load(Shared.DataFile("tokenizers/llama2"));
        Assert.True(tokenizer.AddBos);
        int bos = tokenizer.BosId!.Value;
        Assert.Equal([bos, bos], tokenizer.Encode("<s>[INST] Hi "
            + "[/INST]", addSpecial: true)[..2]); // what must not reach the model
        int[] ids = tokenizer.EncodePrompt("<s>[INST] Hi [/INST]");
        Assert.Equal(bos, ids[0]);
        Assert.Equal(1, ids.Count(i => i == bos));
        Assert.Equal(bos, tokenizer.EncodePrompt("Hi")[0]);
        var llama3 = ChatTemplate.Get(TokenizerLoader.Load(Shared.DataFile("tokenizers/llama3")));
        Assert.Equal(1, llama3.Encode([new("user", "Hi")], true).Count(i => i == 128000));
    }

    [Fact]
    public void WhereTheTemplateComesFrom()
    {
        string folder = Directory.CreateTempSubdirectory("headroom-").FullName;
        try
        {
            File.Copy(Shared.DataFile("tokenizers/smollm2/tokenizer.json"), Path.Combine(folder, "tokenizer.json"));
            string config = Path.Combine(folder, "tokenizer_config.json"),
                jinja = Path.Combine(folder, "chat_template.jinja");
            Assert.Null(TokenizerLoader.Load(folder).ChatTemplate);
            File.WriteAllText(config, JsonSerializer.Serialize(new { chat_template = "text" }));
            Assert.Equal("text", TokenizerLoader.Load(folder).ChatTemplate);
            File.WriteAllText(
                config,
                JsonSerializer.Serialize(
                    new
                    {
                        chat_template = new[]
                        {
                            new { name = "tool_use", template = "tools" }, new { name = "default", template = "named" },
                        },
                    }
                )
            );
            Assert.Equal("named", TokenizerLoader.Load(folder).ChatTemplate);
            File.WriteAllText(jinja, "file");
            Assert.Equal("file", TokenizerLoader.Load(folder).ChatTemplate);
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }
}
