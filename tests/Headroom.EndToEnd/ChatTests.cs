using System.Text.Json;

namespace Headroom.EndToEnd;

/// <summary>generate and chat from the outside.</summary>
public class ChatTests
{
    private const string Template =
        "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}{% if "
            + "add_generation_prompt %}{{ 'assistant:' }}{% endif %}";

    private static string Model(Cli cli)
    {
        string folder = cli.CopyBase("llama-tiny");
        File.WriteAllText(Path.Combine(folder, "chat_template.jinja"), Template);
        return folder;
    }

    private static JsonElement[] Lines(string text) =>
        text.Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(l => JsonDocument.Parse(l).RootElement)
            .ToArray();

    [Fact]
    public void GenerateRepeatsAndStops()
    {
        using var cli = new Cli();
        string[] common =
        [
            "generate", Cli.Base("llama-tiny"), "--device", "cpu", "--prompt", "The film was", "--max-new-tokens", "12",
        ];
        var first = cli.Run([.. common, "--json"]);
        Assert.Equal((0, ""), (first.Exit, first.Error));
        var json = Lines(first.Out).Single();
        string text = json.GetProperty("text").GetString()!;
        Assert.InRange(json.GetProperty("ids").GetArrayLength(), 1, 12);
        var plain = cli.Run(common);
        Assert.Equal(text + "\n", plain.Out);
        Assert.Contains("tokens/s", plain.Error);
        var (exit, sampled, _) = cli.Run([.. common, "--json", "--temperature", "1", "--top-k", "40", "--seed", "3"]);
        Assert.Equal(0, exit);
        Assert.Equal(
            Lines(sampled)[0].GetProperty("text").GetString(),
            Lines(cli.Run([.. common, "--json", "--temperature", "1", "--top-k", "40", "--seed", "3"]).Out)[0]
                .GetProperty("text")
                .GetString()
        );
        string stop = text.Substring(text.Length / 2, 2);
        var stopped = Lines(cli.Run([.. common, "--json", "--stop", stop]).Out).Single();
        Assert.Equal(text[..text.IndexOf(stop, StringComparison.Ordinal)], stopped.GetProperty("text").GetString());
        Assert.Equal("stop", stopped.GetProperty("finish_reason").GetString());
    }

    [Fact]
    public void ChatByMessagesAndByStandardInput()
    {
        using var cli = new Cli();
        string model = Model(cli);
        string[] common =
        [
            "chat", model, "--device", "cpu", "--max-new-tokens", "6", "--context", "128", "--system", "Be kind.",
            "--json"];
        var (exit, text, error) = cli.Run([.. common, "--message", "Good film?", "--message", "And the music?"]);
        Assert.True(exit == 0, error);
        var turns = Lines(text);
        Assert.Equal(["Good film?", "And the music?"], turns.Select(t => t.GetProperty("message").GetString()));
        Assert.True(
            turns[1].GetProperty("reused_tokens").GetInt32() >= turns[0].GetProperty("prompt_tokens").GetInt32(), text);
        using var p = cli.Start(true, common);
        p.StandardInput.Write("Good film?\nAnd the music?\n\n/reset\nGood film?\n/exit\nnever\n");
        p.StandardInput.Close();
        var piped = Lines(p.StandardOutput.ReadToEnd());
        Assert.True(p.WaitForExit(60_000));
        string[] said = turns.Select(t => t.GetProperty("text").GetString()!).ToArray();
        Assert.Equal([said[0], said[1], said[0]], piped.Select(t => t.GetProperty("text").GetString()));
    }

    [Fact]
    public void BadInput()
    {
        using var cli = new Cli();
        void Refused(string says, params string[] arguments)
        {
            var (exit, _, error) = cli.Run(arguments);
            Assert.True(
                exit == 2
                    && error.Contains(says, StringComparison.OrdinalIgnoreCase)
                    && error.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length == 2,
                $"exit {exit}: {error}"
            );
        }
        string model = Cli.Base("llama-tiny");
        Refused("chat template", "chat", model, "--device", "cpu", "--message", "Hi");
        Refused(
            "context", "chat", Model(cli), "--device", "cpu", "--message",
            string.Concat(Enumerable.Repeat("film ", 200)), "--context", "64");
        Refused("--top-p", "generate", model, "--prompt", "a", "--top-p", "0.9");
        Refused("temperature", "generate", model, "--prompt", "a", "--temperature", "-1");
        File.WriteAllText(Path.Combine(Model(cli), "chat_template.jinja"), "{% include 'x' %}");
        Refused("include", "chat", Path.Combine(cli.Folder, "base"), "--device", "cpu", "--message", "Hi");
    }
}
