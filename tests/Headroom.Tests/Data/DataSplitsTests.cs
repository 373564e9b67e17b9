using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Training.Data;
using Headroom.Training.Recipes;

namespace Headroom.Tests.Data;

/// <summary>
/// Splits: stratified, seeded, disjoint, and refused with counts when an evaluation on them would mean nothing.
/// </summary>
public class DataSplitsTests
{
    private static readonly TaskOptions Task = new();

    /// <summary>Of every ten rows three are positive.</summary>
    private static List<DataRow> Rows(string kind, int count) =>
        Enumerable.Range(0, count).Select(i => new DataRow($"{kind} text {i}", i % 10 < 3 ? "1" : "0")).ToList();

    private static HeadroomException Refuses(
        List<DataRow> train, List<DataRow>? validation, List<DataRow>? test, DataOptions? data, string why)
    {
        var e = Assert.Throws<HeadroomException>(() =>
            DataSplits.Split(train, validation, test, data ?? new DataOptions(), Task, 1)
        );
        Assert.Equal(2, e.ExitCode);
        Assert.Contains(why, e.Message, StringComparison.Ordinal);
        Assert.NotEmpty(e.ToDo);
        return e;
    }

    /// <summary>Each a share of all rows, apart from one another, texts together.</summary>
    [Fact]
    public void TestRowsAreHeldOutToo()
    {
        var data = new DataOptions { ValidationFraction = 0.2, TestFraction = 0.1 };
        var s = DataSplits.Split(Rows("a", 500), null, null, data, Task, 1);
        Assert.Equal((350, 100, 50), (s.Train.Count, s.Validation.Count, s.Test.Count));
        Assert.Equal(15, s.Test.Count(r => r.Label == "1"));
        Assert.Equal(500, s.Train.Concat(s.Validation).Concat(s.Test).Select(r => r.Text).Distinct().Count());
        var only = DataSplits.Split(Rows("a", 500), null, null, new() { ValidationFraction = 0.2 }, Task, 1);
        Assert.Equal(only.Validation, s.Validation); // what is held out of one does not hang on the other
        var e = Assert.Throws<HeadroomException>(() =>
            DataSplits.Split(Rows("a", 10), null, null, new() { TestFraction = 0.01 }, Task, 1));
        Assert.Contains("data.test_fraction 0.01 of 10 rows holds out no row", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void HoldOutIsStratifiedSeededAndDisjoint()
    {
        var data = new DataOptions { ValidationFraction = 0.2 };
        DataSplits Run(int seed) => DataSplits.Split(Rows("a", 500), null, Rows("b", 50), data, Task, seed);
        var s = Run(1);
        Assert.Equal((400, 100, 50, 0), (s.Train.Count, s.Validation.Count, s.Test.Count, s.Dropped));
        Assert.Equal(30, s.Validation.Count(r => r.Label == "1"));
        Assert.Equal(120, s.Train.Count(r => r.Label == "1"));
        Assert.Empty(s.Train.Select(r => r.Text).Intersect(s.Validation.Select(r => r.Text)));
        Assert.Equal(
            Rows("a", 500).Select(r => r.Text).Order(StringComparer.Ordinal),
            s.Train.Concat(s.Validation).Select(r => r.Text).Order(StringComparer.Ordinal));
        Assert.Equal(s.Validation, Run(1).Validation);
        Assert.NotEqual(s.Validation, Run(2).Validation);
    }

    [Fact]
    public void EqualTextsStayTogetherInTheHoldOut()
    {
        var rows = Rows("a", 100)
            .SelectMany(r => new[] { r, r with { Text = r.Text.ToUpperInvariant() + " " } })
            .ToList();
        var s = DataSplits.Split(rows, null, null, new DataOptions { ValidationFraction = 0.3 }, Task, 5);
        Assert.Equal((140, 60), (s.Train.Count, s.Validation.Count));
        Assert.Empty(
            s.Train.Select(r => DataSplits.Key(r.Text)).Intersect(s.Validation.Select(r => DataSplits.Key(r.Text))));
    }

    [Fact]
    public void LimitsAreStratifiedSeededAndInFileOrder()
    {
        var rows = Rows("a", 1000);
        var some = DataSplits.Take(rows, 101, 7, 1);
        Assert.Equal(101, some.Count);
        Assert.InRange(some.Count(r => r.Label == "1"), 30, 31);
        Assert.Equal(some, DataSplits.Take(rows, 101, 7, 1));
        Assert.NotEqual(some, DataSplits.Take(rows, 101, 8, 1));
        Assert.NotEqual(some.Select(r => r.Text), rows.Take(101).Select(r => r.Text));
        var at = some.Select(r => rows.IndexOf(r)).ToList();
        Assert.Equal(at.Order(), at);
        Assert.Same(rows, DataSplits.Take(rows, 0, 7, 1));
        Assert.Same(rows, DataSplits.Take(rows, 1000, 7, 1));
    }

    [Fact]
    public void DuplicatesAcrossSplitsAreCountedDroppedOrAllowed()
    {
        List<DataRow> train = Rows("a", 40), test = Rows("b", 20);
        for (int i = 0; i < 3; i++)
            test.Add(
                train[i] with
                {
                    Text = "  " + train[i].Text.ToUpperInvariant().Replace(" ", "\u00A0\t ", StringComparison.Ordinal),
                }
            );
        var e = Refuses(train, null, test, null, "3 of 40 train texts are also among the 23 test texts");
        Assert.Contains("on_duplicate", e.ToDo, StringComparison.Ordinal);
        Refuses(
            Rows("a", 40), [.. Rows("c", 10), train[5]], Rows("b", 20), null,
            "1 of 40 train texts are also among the 11 validation texts");
        var dropping = new DataOptions { OnDuplicate = DuplicateTexts.Drop };
        var dropped = DataSplits.Split(train, null, test, dropping, Task, 1);
        // the later split keeps its rows
        Assert.Equal((37, 23, 3), (dropped.Train.Count, dropped.Test.Count, dropped.Dropped));
        Assert.Equal(
            40, DataSplits.Split(train, null, test, new DataOptions { OnDuplicate = DuplicateTexts.Allow }, Task, 1).Train.Count);
        Refuses(train[..5], null, train, dropping, "No training rows are left");
        Assert.Contains("case and spacing ignored", e.Message, StringComparison.Ordinal);
        Assert.Equal(
            "3 of 40 train rows were dropped: their texts are also among the test texts (case and spacing ignored).",
            Assert.Single(dropped.Notes));
    }

    /// <summary>
    /// Texts that differ in a sign, a mark or an emoji are two texts: no error, no row lost; a note where letters are
    /// all that is equal.
    /// </summary>
    [Theory]
    [InlineData("emoji", true)]
    [InlineData("hindi", false)]
    [InlineData("plusminus", true)]
    [InlineData("thai", false)]
    public void TextsThatDifferInSignsAloneAreNoLeak(string name, bool noted)
    {
        List<DataRow> Rows(string part) => [.. DataFiles.Read(Shared.CaseFile($"overlap-key/{part}_{name}.jsonl"))];
        foreach (var how in new[] { DuplicateTexts.Error, DuplicateTexts.Drop })
        {
            var s = DataSplits.Split(Rows("train"), null, Rows("test"), new DataOptions { OnDuplicate = how }, Task, 1);
            Assert.Equal((Rows("train").Count, 0), (s.Train.Count, s.Dropped));
            Assert.Equal(
                noted,
                s.Notes.Any(n =>
                    n.Contains("differ from a test text in punctuation and symbols alone", StringComparison.Ordinal)
                )
            );
        }
    }

    /// <summary>
    /// Of a pair of texts both count: one premise with two hypotheses is two rows, and a hypothesis is not what a
    /// premise ends in.
    /// </summary>
    [Fact]
    public void SeveralTextsOfARowAreComparedTogether()
    {
        static DataRow Pair(string a, string b, string label) => new(a, label) { More = [b] };
        List<DataRow> train =
        [
            Pair("A man eats", "He is hungry", "1"), Pair("A man eats", "He sleeps", "0"), Pair("ab", "c", "1")];
        List<DataRow> test =
        [
            Pair("A MAN  eats", "he is hungry", "1"), Pair("a man eats", "He runs", "0"), Pair("a", "bc", "0")];
        Refuses(train, null, test, null, "1 of 3 train texts are also among the 3 test texts");
        Assert.Equal(
            2, DataSplits.Split(train, null, test, new DataOptions { OnDuplicate = DuplicateTexts.Drop }, Task, 1).Train.Count);
        train[0] = Pair(" ", "He is hungry", "1");
        Assert.Contains(
            "1 of 3 train rows have an empty text among theirs (the first is row 1).",
            DataSplits.Split(train, null, test, new DataOptions(), Task, 1).Notes);
        train[0] = Pair(" ", "", "1");
        Refuses(train, null, test, null, "1 of 3 train rows have an empty text (the first is row 1)");
    }

    [Theory]
    [InlineData("1.0", "0.0")]
    [InlineData("True", "False")]
    [InlineData("true", "false")]
    [InlineData("1", " 0 ")]
    [InlineData("+1", "-0")]
    public void LabelsThatAreTheSameNumberAreTheSameLabel(string one, string zero)
    {
        List<DataRow> Rows(string kind) =>
            [.. Enumerable.Range(0, 20).Select(i => new DataRow($"{kind} {i}", i % 2 == 0 ? one : zero))];
        var s = DataSplits.Split(Rows("a"), null, Rows("b"), new DataOptions { ValidationFraction = 0.2 }, Task, 1);
        Assert.Equal(
            ["0", "1"],
            s.Train.Concat(s.Validation).Concat(s.Test).Select(r => r.Label).Distinct().Order(StringComparer.Ordinal));
        Assert.Equal(10, s.Test.Count(r => r.Label == "1"));
        // Where the words of the file are the labels, they stay so.
        var spelled = new TaskOptions { Labels = new() { [one] = " yes", [zero] = " no" } };
        Assert.Equal(one, DataSplits.Split(Rows("a"), null, null, new DataOptions(), spelled, 1).Train[0].Label);
    }

    [Theory]
    [InlineData("NaN")]
    [InlineData("2.0")]
    [InlineData("0.5")]
    [InlineData("null")]
    [InlineData("yes")]
    [InlineData("")]
    public void OtherLabelsAreNamedByRow(string label) =>
        Refuses(
            [.. Rows("a", 8), new("t", label)], null, null, null,
            label.Length == 0 ? "(row 9 has none)" : $"(row 9: '{label}')");

    [Fact]
    public void TextsWithoutLabelsAndHeadersTakenForRowsAreNamed()
    {
        Refuses([new("a", ""), new("b", "")], null, null, null, "The train data has texts but no labels");
        Assert.Contains(
            "if that row is a header",
            Refuses([new("Satz", "Stimmung"), .. Rows("a", 8)], null, null, null, "(row 1: 'Stimmung')").ToDo,
            StringComparison.Ordinal);
        string novel = string.Concat(Enumerable.Repeat("長い text\n", 2000));
        var e = Refuses([.. Rows("a", 8), new("t", novel)], null, null, null, "row 9");
        Assert.InRange(
            System.Text.Encoding.UTF8.GetByteCount(e.Message) + System.Text.Encoding.UTF8.GetByteCount(e.ToDo), 1, 2000
        );
    }

    [Fact]
    public void EvaluationSetsNeedBothClasses()
    {
        var positive = Enumerable.Range(0, 12).Select(i => new DataRow($"p {i}", "1")).ToList();
        Refuses(Rows("a", 40), null, positive, null, "All 12 test rows have the label '1'");
        Refuses(Rows("a", 40), positive, Rows("b", 20), null, "All 12 validation rows have the label '1'");
        Refuses(positive, null, Rows("b", 20), new DataOptions { ValidationFraction = 0.5 }, "All 6 validation rows");
        Refuses(Rows("a", 40), null, Rows("b", 20), new DataOptions { MaxTestRows = 1 }, "test rows have the label");
        // training on one class is the user's affair
        Assert.Equal(12, DataSplits.Split(positive, null, Rows("b", 20), new DataOptions(), Task, 1).Train.Count);
    }

    [Fact]
    public void EmptyDataEmptyTextsAndUnknownLabels()
    {
        Refuses([], null, null, null, "The train data holds no rows");
        Refuses(Rows("a", 40), [], null, null, "The validation data holds no rows");
        Refuses(Rows("a", 40), null, [], null, "The test data holds no rows");
        Refuses(
            [.. Rows("a", 4), new(" \t", "1"), new("", "0")], null, null, null,
            "2 of 6 train rows have an empty text (the first is row 5)");
        var e = Refuses(
            Rows("a", 40), null, [.. Rows("b", 20), new("c", "neutral"), new("d", "2")], null,
            "2 of 22 test rows have a label without a label word (row 21: 'neutral')");
        Assert.Contains("0, 1", e.ToDo, StringComparison.Ordinal);
        Refuses(Rows("a", 40), null, null, new DataOptions { ValidationFraction = 1 }, "validation_fraction");
    }

    [Fact]
    public void AnAclImdbFolderBringsItsOfficialTestSplit()
    {
        string root = Directory.CreateTempSubdirectory("headroom-acl").FullName;
        try
        {
            foreach (string part in new[] { "train", "test" })
                foreach (string side in new[] { "neg", "pos" })
                {
                    Directory.CreateDirectory(Path.Combine(root, part, side));
                    for (int i = 0; i < 4; i++)
                        File.WriteAllText(Path.Combine(root, part, side, $"{i}_5.txt"), $"{part} {side} {i}");
                }
            var s = DataSplits.Load(new DataOptions { Train = root }, Task, 1);
            Assert.Equal((8, 0, 8), (s.Train.Count, s.Validation.Count, s.Test.Count));
            Assert.All(s.Test, r => Assert.StartsWith("test", r.Text, StringComparison.Ordinal));
            Assert.Equal((4, 4), (s.Train.Count(r => r.Label == "1"), s.Test.Count(r => r.Label == "0")));
        }
        finally
        {
            Directory.Delete(root, true);
        }
        Assert.Contains(
            "data.train is not set",
            Assert.Throws<HeadroomException>(() => DataSplits.Load(new DataOptions(), Task, 1)).Message,
            StringComparison.Ordinal);
    }

    /// <summary>
    /// Words for a missing value, and texts in quotation marks, may be meant: they are said, with the first row.
    /// </summary>
    [Fact]
    public void OddTextsAreSaid()
    {
        static List<DataRow> Rows(params string[] texts) =>
            [
                .. texts.Select(
                    (t, i) => new DataRow(t, (i % 2).ToString(System.Globalization.CultureInfo.InvariantCulture))),
            ];
        var notes = DataSplits.Split(Rows("good", "NaN", "bad", "NULL"), null, null, new DataOptions(), Task, 1).Notes;
        Assert.Equal(
            "2 of 4 train texts are a word that tables use for a missing value (the first is row 2: 'NaN'); they are "
                + "taken as texts.",
            Assert.Single(notes));
        notes = DataSplits
            .Split(Rows("\"good\"", "\"bad\"", "so \"so\""), null, null, new DataOptions(), Task, 1)
            .Notes;
        Assert.StartsWith("2 of 3 train texts begin and end in quotation marks", Assert.Single(notes));
        Assert.Empty(
            DataSplits.Split(Rows("good", "none of it", "\"bad\" film"), null, null, new DataOptions(), Task, 1).Notes);
    }
}
