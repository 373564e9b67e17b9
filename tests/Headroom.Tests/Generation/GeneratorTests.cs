using Headroom.Core;
using Headroom.Inference;
using Headroom.Tokenizers;

namespace Headroom.Tests.Generation;

public sealed class GeneratorTests
{
    private static readonly GenerationOptions Greedy = new() { MaxNewTokens = 40 };
    // Temperature makes a random model's text varied: greedy soon repeats itself.
    private static readonly GenerationOptions Sampled = new()
    {
        MaxNewTokens = 60,
        Sampling = new SamplingOptions { Temperature = 1, Seed = 5 },
    };

    [Fact]
    public void ThePrefixOfTheTextBeforeIsReused()
    {
        using var one = ByteModel.Open();
        using var fresh = ByteModel.Open();
        int[] first = one.Tokenizer.Encode("A prompt that is longer than one chunk of thirty-two tokens."),
            second = [.. first, .. one.Tokenizer.Encode(" And a second turn.")];
        var g = one.Run(first, Greedy);
        Assert.Equal(0, g.ReusedTokens);
        var again = one.Run(first, Greedy);
        Assert.Equal(first.Length - 1, again.ReusedTokens); // one token is computed for its logits
        Assert.Equal(g.Ids, again.Ids);
        var longer = one.Run(second, Greedy);
        Assert.Equal(first.Length, longer.ReusedTokens);
        Assert.Equal(fresh.Run(second, Greedy).Ids, longer.Ids);
        // The answer itself is in the cache too, but for its last token.
        int[] whole = [.. second, .. longer.Ids, 65];
        Assert.Equal(second.Length + longer.Ids.Count - 1, one.Run(whole, Greedy).ReusedTokens);
        Assert.Equal(1, one.Run([second[0], 1, 2], Greedy).ReusedTokens);
    }

    [Fact]
    public void PiecesMakeTheTextAndASeedRepeats()
    {
        using var generator = ByteModel.Open();
        int[] prompt = generator.Tokenizer.Encode("Grüße");
        var g = generator.Start(prompt, Sampled);
        string text = "";
        bool more;
        do
        {
            more = g.MoveNext();
            text += g.Piece;
        }
        while (more);
        Assert.Equal((FinishReason.Length, 60), (g.Finish, g.Ids.Count));
        Assert.Equal(g.Text, text);
        Assert.Equal(generator.Tokenizer.Decode([.. prompt, .. g.Ids])["Grüße".Length..], text);
        Assert.Equal(g.Ids, generator.Run(prompt, Sampled).Ids);
        Assert.NotEqual(
            g.Ids, generator.Run(prompt, Sampled with { Sampling = Sampled.Sampling with { Seed = 6 } }).Ids);
    }

    [Fact]
    public void StopStringsThatSpanTokens()
    {
        using var generator = ByteModel.Open();
        int[] prompt = generator.Tokenizer.Encode("Hi");
        string whole = generator.Run(prompt, Sampled).Text;
        for (int at = 0; at + 3 <= whole.Length; at += 5)
        {
            string stop = whole.Substring(at, 3);
            var g = generator.Start(prompt, Sampled with { Stop = ["never there", stop] });
            string shown = "";
            bool more;
            do
            {
                more = g.MoveNext();
                shown += g.Piece;
                Assert.StartsWith(shown, whole); // nothing of a stop string is ever shown
                Assert.DoesNotContain(stop, shown);
            }
            while (more);
            Assert.Equal(FinishReason.Stop, g.Finish);
            Assert.Equal(whole[..whole.IndexOf(stop, StringComparison.Ordinal)], shown);
        }
    }

    [Fact]
    public void StopIdsLimitsAndCancellation()
    {
        using var generator = ByteModel.Open(context: 50);
        int[] prompt = generator.Tokenizer.Encode("Hi");
        var all = generator.Run(prompt, Sampled);
        // 2 + 48 fill the cache, the 49th needs none
        Assert.Equal((FinishReason.Length, 49), (all.Finish, all.Ids.Count));
        int at = all.Ids.ToList().FindIndex(5, i => !all.Ids.Take(5).Contains(i));
        var stopped = generator.Run(prompt, Sampled with { StopIds = [all.Ids[at]] });
        Assert.Equal(FinishReason.Stop, stopped.Finish);
        Assert.Equal(all.Ids.Take(all.Ids.ToList().IndexOf(all.Ids[at])), stopped.Ids);
        using (var ends = ByteModel.Open(50, null, all.Ids[at]))
            Assert.Equal(stopped.Ids, ends.Run(prompt, Sampled).Ids);
        using var cancel = new CancellationTokenSource();
        var g = generator.Start(prompt, Sampled);
        Assert.True(g.MoveNext(cancel.Token));
        cancel.Cancel();
        Assert.False(g.MoveNext(cancel.Token));
        Assert.Equal((FinishReason.Cancelled, 1), (g.Finish, g.Ids.Count));
        var old = generator.Start(prompt, Sampled);
        generator.Start(prompt, Sampled);
        Assert.Throws<InvalidOperationException>(() => old.MoveNext());
        Assert.Contains("context", Assert.Throws<HeadroomException>(() => generator.Run(new int[50], Sampled)).Message);
        Assert.Throws<HeadroomException>(() => generator.Run([], Sampled));
        Assert.Contains(
            "no token -1",
            Assert.Throws<HeadroomException>(() => generator.Run(prompt, Sampled with { StopIds = [-1] })).Message);
        Assert.Contains(
            "no token 2147483647",
            Assert
                .Throws<HeadroomException>(() => generator.Run(prompt, Sampled with { StopIds = [int.MaxValue] }))
                .Message
        );
        Assert.Throws<HeadroomException>(() => generator.Run([260], Sampled));
        Assert.Throws<HeadroomException>(() =>
            generator.Run(prompt, Sampled with { Sampling = new SamplingOptions { TopP = 0 } })
        );
    }

    [Fact]
    public void HalfCharactersWait()
    {
        var tokenizer = new ByteTokenizer();
        var stream = new TextStream(tokenizer, tokenizer.Encode("x"), []);
        var pieces = tokenizer.Encode("aé日😀").Select(stream.Add).ToList();
        Assert.Equal(["a", "", "é", "", "", "日", "", "", "", "😀"], pieces);
        // Bytes that will never be a character come out in the end, as U+FFFD.
        var broken = new TextStream(tokenizer, [], []);
        Assert.Equal("a", broken.Add('a'));
        Assert.Equal("", broken.Add(0xE6));
        Assert.Equal("\uFFFD", broken.End());
        var flood = new TextStream(tokenizer, [], []);
        string text = string.Concat(Enumerable.Range(0, 40).Select(_ => flood.Add(0x80))) + flood.End();
        Assert.Equal(new string('\uFFFD', 40), text);
    }

    [Fact]
    public void AStopStringBegunButNotFinishedIsText()
    {
        var tokenizer = new ByteTokenizer();
        var stream = new TextStream(tokenizer, [], ["END!"]);
        Assert.Equal("xENx ", string.Concat("xENx EN".Select(c => stream.Add(c))));
        Assert.Equal("EN", stream.End());
        Assert.False(stream.Stopped);
    }

    [Fact]
    public void EndTokensOfTheTemplate()
    {
        Assert.Equal(
            ByteTokenizer.EndOfTurn,
            Headroom.Tokenizers.Chat.ChatTemplate.EndToken(ByteTokenizer.ChatMl, new ByteTokenizer()));
        Assert.Equal(
            [2, 257, 259],
            Generator
                .EndIds(Path.GetTempPath(), ByteModel.Config with { EosTokenIds = [2] }, new ByteTokenizer())
                .Order()
        );
        var llama3 = TokenizerLoader.Load(Shared.DataFile("tokenizers/llama3"));
        Assert.Equal(
            "<|eot_id|>",
            llama3.IdToToken(Headroom.Tokenizers.Chat.ChatTemplate.EndToken(llama3.ChatTemplate!, llama3)!.Value));
    }

    [Fact]
    public void Stories260KByTheGenerator()
    {
        string folder = Shared.DataFile("models/stories260K/hf");
        var json = System
            .Text.Json.Nodes.JsonNode.Parse(File.ReadAllText(Shared.DataFile("models/stories260K/golden.json")))!
            .AsObject();
        int[] expected = json.Select(k => k.Value)
            .OfType<System.Text.Json.Nodes.JsonArray>()
            .First(a => a.Count == 257 && a[0] is System.Text.Json.Nodes.JsonValue)
            .Select(v => (int)v!)
            .ToArray();
        using var generator = Generator.Open(TestDevice.Open(), new ModelSource(folder), 300);
        var g = generator.Run(expected[..1], new GenerationOptions { MaxNewTokens = 256 });
        Assert.Equal(expected[1..], g.Ids);
        Assert.StartsWith("Once upon a time", g.Text.TrimStart());
        var half = generator.Run(expected[..100], new GenerationOptions { MaxNewTokens = 30 });
        Assert.Equal(99, half.ReusedTokens);
        Assert.Equal(expected[100..130], half.Ids);
    }
}
