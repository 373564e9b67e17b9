using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Tokenizers;
using Headroom.Tokenizers.Chat;

namespace Headroom.Bench;

/// <summary>
/// Conversations to tokens by the chat template of a tokenizer: megabytes of rendered text a second of processor time,
/// rendered alone, tokenized, and with what of them assistants write.
/// </summary>
public static class ChatRowsBench
{
    private const int Rows = 500;

    public static int Run(string[] args)
    {
        double seconds = Array.IndexOf(args, "--seconds") is >= 0 and var i
            ? double.Parse(args[i + 1], CultureInfo.InvariantCulture) : 3;
        var tokenizer = TokenizerLoader.Load(args[0]);
        var template = ChatTemplate.Get(tokenizer);
        foreach (bool accents in (bool[])[false, true])
        {
            var rows = Enumerable.Range(0, Rows).Select(row => Conversation((uint)row, accents)).ToList();
            string name = accents ? "decomposed accents" : "plain words";
            Measure(name + ", rendered", row => template.Render(row, false).Length);
            Measure(name + ", rendered with marks", row => template.RenderMarked(row).Text.Length);
            Measure(name + ", and tokenized", row =>
            {
                string text = template.Render(row, false);
                tokenizer.Encode(text);
                return text.Length;
            });
            Measure(name + ", with marks and places", row =>
            {
                string text = template.RenderMarked(row).Text;
                tokenizer.EncodeWithOffsets(text);
                return text.Length;
            });

            void Measure(string what, Func<JsonArray, int> make)
            {
                foreach (var row in rows) make(row);
                long characters = 0;
                using var process = Process.GetCurrentProcess();
                var before = process.TotalProcessorTime;
                TimeSpan used;
                do
                {
                    foreach (var row in rows) characters += make(row);
                    process.Refresh();
                    used = process.TotalProcessorTime - before;
                }
                while (used.TotalSeconds < seconds);
                Console.WriteLine(
                    string.Create(
                        CultureInfo.InvariantCulture,
                        $"{what,-45} {characters / used.TotalSeconds / 1e6,8:F1} million characters/s"));
            }
        }
        return 0;
    }

    // Four turns of words that are drawn more often the sooner they were made.
    private static JsonArray Conversation(uint row, bool accents)
    {
        string[] syllables = ["ba", "de", "fi", "lo", "mu", "ran", "stel", "ti", "ver", "o", "in", "ken", "sa", "pre"];
        var random = new PhiloxRandom(1, row);
        string Word()
        {
            int rank = random.Next(1 + random.Next(5000));
            string word = "";
            for (; rank > 0 || word.Length == 0; rank /= syllables.Length) word += syllables[rank % syllables.Length];
            return accents && random.Next(3) == 0 ? word + "e\u0301" : word;
        }
        string Text() => string.Join(' ', Enumerable.Range(0, 60).Select(_ => Word())) + ".";
        return new JsonArray(
            [.. Enumerable.Range(0, 4).Select(i => (JsonNode)new JsonObject
            {
                ["role"] = i % 2 == 0 ? "user" : "assistant",
                ["content"] = Text(),
            })]);
    }
}
