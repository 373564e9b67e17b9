using System.Text.RegularExpressions;
using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Tokenizers;
using Headroom.Training.Data;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks.LabelWords;

namespace Headroom.Tests.Data;

/// <summary>
/// Rows to prompt and answer: only the text is ever cut, and what would make labels meaningless is refused.
/// </summary>
public partial class LabelWordEncoderTests
{
    /// <summary>
    /// A word with the blank before it is a token, everything else a token a character; ids in order of appearance.
    /// </summary>
    private sealed partial class WordTokenizer(bool bos = false) : ITokenizer
    {
        private readonly List<string> _pieces = ["<s>"];

        public int VocabSize => 10_000;
        public int? BosId => 0;
        public int? EosId => null;
        public bool AddBos => bos;
        public bool AddEos => false;
        public string? ChatTemplate => null;

        public int[] Encode(string text, bool addSpecial = false) => Piece().Matches(text).Select(m =>
        {
            int at = _pieces.IndexOf(m.Value);
            if (at >= 0) return at;
            _pieces.Add(m.Value);
            return _pieces.Count - 1;
        }).ToArray();

        public string Decode(ReadOnlySpan<int> ids) => string.Concat(ids.ToArray().Select(i => _pieces[i]));
        public string IdToToken(int id) => _pieces[id];
        public int? TokenToId(string token) => _pieces.IndexOf(token);

        [GeneratedRegex(@" ?\w+|.|\n")]
        private static partial Regex Piece();
    }

    private static LabelWordEncoder Encoder(WordTokenizer t, int most = 64, Action<TaskOptions>? change = null)
    {
        var task = new TaskOptions { MaxSeqLength = most };
        change?.Invoke(task);
        return new LabelWordEncoder(t, task);
    }

    private static void Refuses(Action<TaskOptions> change, string why)
    {
        var e = Assert.Throws<HeadroomException>(() => Encoder(new WordTokenizer(), 64, change));
        Assert.Equal(2, e.ExitCode);
        Assert.Contains(why, e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void PromptAnswerAndLabels(bool bos)
    {
        var t = new WordTokenizer(bos);
        var encoder = Encoder(t, change: o => o.Replace = new() { ["<br />"] = " " });
        var row = encoder.Encode(new DataRow("a fine<br />film", "1", "mixed"));
        Assert.Equal((bos ? "<s>" : "") + "Review: a fine film\nSentiment: positive", t.Decode(row.Ids));
        Assert.Equal((row.Ids.Length - 1, 1, "mixed"), (row.AnswerStart, row.LabelIndex, row.Tier));
        Assert.Equal(encoder.Candidates[1], row.Ids[^1]);
        Assert.Equal(row.Ids[..^1], encoder.Prompt("a fine<br />film"));
        var all = Encoder(t, change: o => o.Loss = LossTokens.All);
        Assert.Equal(1, all.Encode(new DataRow("a", "0")).AnswerStart);
        Assert.Equal(
            all.Encode(new DataRow("a", "0")).Ids.Length - 1,
            all.Encode(new DataRow("a", "0"), training: false).AnswerStart); // evaluation scores the answer
    }

    [Fact]
    public void OnlyTheTextIsCut()
    {
        var t = new WordTokenizer();
        var encoder = Encoder(t, most: 12);
        string text = string.Join(' ', Enumerable.Range(0, 100).Select(i => $"w{i}"));
        var negative = encoder.Encode(new DataRow(text, "0"));
        var positive = encoder.Encode(new DataRow(text, "1"));
        Assert.Equal(12, negative.Ids.Length);
        Assert.Equal(negative.Ids[..^1], positive.Ids[..^1]); // the cut does not tell the label
        Assert.StartsWith("Review: w0 w1", t.Decode(negative.Ids), StringComparison.Ordinal);
        Assert.EndsWith("\nSentiment: negative", t.Decode(negative.Ids), StringComparison.Ordinal);
        Assert.Equal(2, encoder.CutTexts);
        encoder.Encode(new DataRow("short", "1"));
        Assert.Equal(2, encoder.CutTexts);
    }

    [Fact]
    public void RefusesWhatWouldCutTheAnswerAway()
    {
        // Review : \n Sentiment : and the answer are six tokens: at six nothing of the text is left.
        var e = Assert.Throws<HeadroomException>(() => Encoder(new WordTokenizer(), most: 6));
        Assert.Equal(2, e.ExitCode);
        Assert.Contains(
            "max_seq_length 6 leaves no room for text: the template and answer take 6 tokens, so answers would be cut "
                + "away",
            e.Message, StringComparison.Ordinal);
        Encoder(new WordTokenizer(), most: 7);
        Refuses(
            o => o.Labels = new() { ["0"] = " negative", ["1"] = string.Concat(Enumerable.Repeat(" very", 70)) },
            "answers would be cut away"); // the longest answer counts
    }

    [Fact]
    public void RefusesTasksThatCannotBeScored()
    {
        Refuses(o => o.Template = "Review", "must hold {text} once");
        Refuses(o => o.Template = "{text} {text}", "must hold {text} once");
        Refuses(o => o.Template = "{{text}}", "must hold {text} once"); // plain braces
        Refuses(o => o.Labels = new() { ["0"] = " negative" }, "holds 1 label words");
        Refuses(o => o.Labels = new() { ["0"] = " negative", ["1"] = "" }, "label word of '1' has no tokens");
        Refuses(o => o.Labels = new() { ["0"] = " not good", ["1"] = " not bad" }, "begin with the same token");
        var e = Assert.Throws<HeadroomException>(() =>
            Encoder(new WordTokenizer()).Encode(new DataRow("a", "neutral"))
        );
        Assert.Contains("Label 'neutral' has no label word", e.Message, StringComparison.Ordinal);
        Assert.Contains("0, 1", e.ToDo, StringComparison.Ordinal);
    }

    [Fact]
    public void EncodesAllRowsOnceAndReportsTheFirstFault()
    {
        var t = new WordTokenizer();
        var encoder = Encoder(t, most: 20);
        for (int i = 0; i < 30; i++) t.Encode($" w{i}"); // ids are given before threads ask for them
        var rows = Enumerable
            .Range(0, 30)
            .Select(i => new DataRow(
                string.Join(' ', Enumerable.Range(0, i + 1).Select(k => $"w{k}")),
                (i % 2).ToString(System.Globalization.CultureInfo.InvariantCulture)))
            .ToList();
        var encoded = new EncodedRows(rows, encoder.Encode);
        Assert.Equal(20, encoded.EncodeAll());
        Assert.Same(encoded[3], encoded[3]);
        Assert.Equal(7, encoded[0].Ids.Length);
        rows.Add(new DataRow("w0", "maybe"));
        Assert.Contains(
            "'maybe'",
            Assert.Throws<HeadroomException>(() => new EncodedRows(rows, encoder.Encode).EncodeAll()).Message,
            StringComparison.Ordinal);
    }

    /// <summary>
    /// The tokenizer of a base of the repository: llama-tiny is SentencePiece's, deepseek-tiny byte-level.
    /// </summary>
    private static ITokenizer Tiny(string model)
    {
        for (var d = new DirectoryInfo(AppContext.BaseDirectory); d != null; d = d.Parent)
            if (Directory.Exists(Path.Combine(d.FullName, "models", model)))
                return TokenizerLoader.Load(Path.Combine(d.FullName, "models", model));
        throw new DirectoryNotFoundException(model);
    }

    /// <summary>Blanks at the template's end belong to the label words: both spellings are one task.</summary>
    [Theory]
    [InlineData("Review: {text}\nSentiment:", " positive", "Review: {text}\nSentiment: ", "positive")]
    [InlineData("{text}", " positive", "{text} ", "positive")]
    [InlineData("Review: {text}:", "  positive", "Review: {text}:  ", "positive")]
    [InlineData("Review: {text}:", "  positive", "Review: {text}: ", " positive")]
    [InlineData("Review: {text} ->", " positive", "Review: {text} -> ", "positive")]
    public void BlanksAtTheEndGoToTheLabelWords(string template, string word, string blankTemplate, string bareWord)
    {
        foreach (string model in new[] { "deepseek-tiny", "llama-tiny" })
        {
            var tokenizer = Tiny(model);
            LabelWordEncoder Of(string t, string w) =>
                new(
                    tokenizer,
                    new TaskOptions
                    {
                        Template = t,
                        Labels = new()
                        {
                            ["0"] = w.Replace("positive", "negative", StringComparison.Ordinal),
                            ["1"] = w,
                        },
                    }
                );
            LabelWordEncoder a = Of(template, word),
                b = Of(blankTemplate, bareWord);
            foreach (string text in new[] { "a fine film", "a fine film ", "Good.", "so  so" })
                Assert.Equal(a.Encode(new DataRow(text, "1")).Ids, b.Encode(new DataRow(text, "1")).Ids);
            Assert.Equal(a.Candidates, b.Candidates);
            Assert.All(a.Candidates, c => Assert.NotEmpty(tokenizer.Decode([c]).Trim()));
            Assert.Equal(
                template.Contains("text}:", StringComparison.Ordinal) && bareWord[0] == ' ' ? 1 : 0,
                b.Check([new DataRow("a fine film", "1")]).Count);
        }
    }

    /// <summary>
    /// The ids of a row are those of its joined text, or <see cref="LabelWordEncoder.Check"/> says so with the first
    /// that differs.
    /// </summary>
    [Theory]
    [InlineData("Review: {text}\nSentiment:", " good", " bad")]
    [InlineData("Review: {text}\nSentiment:\n", "good", "bad")]
    [InlineData("Review:\n{text}\nSentiment:\t", "good", "bad")]
    [InlineData("{text} => ", "good", "bad")]
    [InlineData("{text}", "good", "bad")]
    [InlineData("{text}", " good", " bad")]
    [InlineData("[{text}]", "good", "bad")]
    [InlineData("Is it good? {text} Answer", "good", "bad")]
    [InlineData("a {text} b\u00A0", "good", "bad")]
    public void IdsAreThoseOfTheJoinedTextOrItIsSaid(string template, string good, string bad)
    {
        string[] texts =
        [
            "fine", "fine ", " fine", "fine.", "fine!\n", "Ünïcödé 😀", "a\tb", "  ", "x", "12",
            "so so so so so so so so so so so so so so so so so so so so so so so so so so so so so so"];
        foreach (var tokenizer in new[] { "deepseek-tiny", "llama-tiny" }.Select(Tiny))
        {
            var encoder = new LabelWordEncoder(
                tokenizer,
                new TaskOptions
                {
                    Template = template,
                    Labels = new() { ["0"] = bad, ["1"] = good },
                    MaxSeqLength = 64,
                }
            );
            int different = 0;
            foreach (string text in texts)
            {
                int[] bos = tokenizer.AddBos ? [tokenizer.BosId!.Value] : [];
                var differs = new[] { ("0", bad), ("1", good) }.Any(l =>
                    !encoder
                        .Encode(new DataRow(text, l.Item1))
                        .Ids.AsSpan()
                        .SequenceEqual(
                            (int[])
                                [
                                    .. bos,
                                    .. tokenizer.Encode(
                                        template.Replace("{text}", text, StringComparison.Ordinal) + l.Item2),
                                ]
                        )
                );
                bool cut = encoder.Encode(new DataRow(text, "1")).Ids.Length == 64;
                if (differs && !cut) different++;
                var notes = encoder.Check([new DataRow(text, "1")]);
                if (!cut) Assert.Equal(differs ? 1 : 0, notes.Count);
                if (differs && !cut)
                    Assert.Contains(
                        "1 of 1 rows checked do not have the tokens of their joined text", notes[0],
                        StringComparison.Ordinal);
            }
            var all = encoder.Check([.. texts.Select(t => new DataRow(t, "1"))]);
            Assert.Equal(different > 0, all.Any(n => n.Contains("rows checked do not have", StringComparison.Ordinal)));
        }
    }

    [Fact]
    public void ADifferenceShowsBothListsOfTokens()
    {
        var encoder = Encoder(new WordTokenizer(), change: o =>
            (o.Template, o.Labels) = ("{text} Answer", new() { ["0"] = "no", ["1"] = "yes" })
        );
        var note = Assert.Single(encoder.Check([new DataRow("a film", "1"), new DataRow("a play", "0")]));
        Assert.StartsWith(
            "2 of 2 rows checked do not have the tokens of their joined text", note, StringComparison.Ordinal);
        Assert.Contains(
            "'a film Answerno' is ['a' ' film' ' Answer' 'no'] in the run and ['a' ' film' ' Answerno'] as one text",
            note, StringComparison.Ordinal);
    }

    [Fact]
    public void SeveralTextsAreFilledInAndTheLongestIsCut()
    {
        var t = new WordTokenizer();
        var encoder = Encoder(t, most: 16, change: o => o.Template = "{{p}} {premise}\nThus: {hypothesis}. True?");
        DataRow Row(int a, int b) =>
            new(string.Join(' ', Enumerable.Range(0, a).Select(i => $"a{i}")), "1")
            {
                More = [string.Join(' ', Enumerable.Range(0, b).Select(i => $"b{i}"))],
            };
        Assert.Equal("{p} a0\nThus: b0. True? positive", t.Decode(encoder.Encode(Row(1, 1)).Ids));
        Assert.Equal(0, encoder.CutTexts);
        // Ten tokens are the template and the answer: six are left for both.
        foreach (
            var (a, b, keepA, keepB) in new[]
            {
                (9, 2, 4, 2), (2, 9, 2, 4), (9, 9, 3, 3), (100, 5, 3, 3), (3, 3, 3, 3), (6, 1, 5, 1), (4, 3, 3, 3),
            }
        )
        {
            var row = encoder.Encode(Row(a, b));
            Assert.Equal(t.Decode(encoder.Encode(Row(keepA, keepB)).Ids), t.Decode(row.Ids));
            Assert.InRange(row.Ids.Length, 1, 16);
        }
        Assert.Contains(
            "A row has 1 texts where task.template has 2 columns",
            Assert.Throws<HeadroomException>(() => encoder.Prompt("one")).Message, StringComparison.Ordinal);
        Refuses(o => o.Template = "{a} {b} {a}", "must hold {a} once");
        Assert.Equal(
            "{\"x\": \"a\"} positive",
            t.Decode(Encoder(t, change: o => o.Template = "{\"x\": \"{text}\"}").Encode(new DataRow("a", "1")).Ids)
        ); // braces without a name are plain
    }
}
