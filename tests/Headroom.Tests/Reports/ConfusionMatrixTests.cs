using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks;
using Headroom.Training.Tasks.LabelWords;

namespace Headroom.Tests.Reports;

public class ConfusionMatrixTests
{
    /// <summary>What eng/golden/classification_reports.py made: 50 tables with scikit-learn's values.</summary>
    private static JsonArray References()
    {
        using var stream = typeof(ConfusionMatrixTests).Assembly.GetManifestResourceStream(
            "classification-reports.json")!;
        return JsonNode.Parse(stream)!.AsArray();
    }

    [Fact]
    public void EveryFigureIsScikitLearns()
    {
        int emptyRows = 0, emptyColumns = 0, absent = 0;
        foreach (var reference in References())
        {
            long[][] counts =
            [
                .. reference!["counts"]!.AsArray().Select(r => r!.AsArray().Select(c => (long)c!).ToArray()),
            ];
            var m = new ConfusionMatrix([.. counts.SelectMany(r => r)]);
            Assert.Equal((double)reference["accuracy"]!, m.Accuracy, 12);
            Same(reference["macro"]!, m.Macro);
            Same(reference["weighted"]!, m.Weighted);
            Same(reference["micro"]!, m.Micro);
            for (int c = 0; c < m.Classes; c++)
            {
                Same(reference["classes"]![c]!, m.ForClass(c));
                Assert.Equal((long)reference["classes"]![c]![3]!, m.Gold(c));
                if (!m.Occurs(c)) absent++;
                else if (m.Gold(c) == 0) emptyRows++;
                else if (m.Predicted(c) == 0) emptyColumns++;
            }
        }
        Assert.True(emptyRows > 5 && emptyColumns > 5 && absent > 5, $"{emptyRows}, {emptyColumns}, {absent}");
        Assert.Equal(50, References().Count);

        static void Same(JsonNode reference, Scores own)
        {
            Assert.Equal((double)reference[0]!, own.Precision, 12);
            Assert.Equal((double)reference[1]!, own.Recall, 12);
            Assert.Equal((double)reference[2]!, own.F1, 12);
        }
    }

    [Fact]
    public void TwoClassesAreNamedByThePositiveOne()
    {
        var p = Of(["bad", " good"], [0, 0, 1, 1, 1], [0, 1, 1, 1, 0]);
        Assert.Equal([1, 1, 1, 2], p.Confusion.Counts);
        Assert.Equal("accuracy 0.6000, F1 of ' good' 0.6667", p.ToEvaluation().Text(["accuracy", "f1"]));
        Assert.Equal((2 / 3.0, 2 / 3.0), (p.Precision, p.Recall));
        Assert.Equal(
            "accuracy 0.5000, macro F1 0.3333",
            Of(["a", "b", "c"], [0, 0, 1, 2], [0, 0, 2, 1]).ToEvaluation().Text(["accuracy", "f1"]));
    }

    [Fact]
    public void WhatHasNoValueIsSaid()
    {
        var m = Of(["a", "b", "c", "d"], [0, 0, 1], [0, 2, 2]).Confusion;
        Assert.Equal(
            [
                "no row has 'd', and none was predicted so: left out of the averages",
                "no row has 'c': its recall counts as 0", "'b' was never predicted: its precision counts as 0"],
            m.Undefined());
        Assert.Equal(2 / 3.0 / 3, m.Macro.F1, 12); // over a, b and c
        Assert.Empty(Of(["a", "b"], [0, 1], [0, 1]).Confusion.Undefined());
        Assert.True(double.IsNaN(Of(["a", "b"], [], []).Accuracy)); // of no rows there is no share
    }

    [Theory]
    [InlineData("loss", 0.25, false, "loss")]
    [InlineData("eval_loss", 0.25, false, "loss")]
    [InlineData("accuracy", 4 / 6.0, true, "accuracy")]
    [InlineData("f1", (2 / 3.0 + 0.8) / 3, true, "macro F1")]
    [InlineData("eval_f1_macro", (2 / 3.0 + 0.8) / 3, true, "macro F1")]
    [InlineData("f1_micro", 4 / 6.0, true, "micro F1")]
    [InlineData("f1_weighted", (2 * 2 / 3.0 + 3 * 0.8) / 6, true, "weighted F1")]
    [InlineData("precision", (0.5 + 1 + 0) / 3, true, "macro precision")]
    [InlineData("recall_weighted", (2 * 1 + 3 * 2 / 3.0) / 6, true, "weighted recall")]
    public void TheMetricOfTheBestModelCountsEveryClass(string name, double value, bool greater, string said)
    {
        // a: 2 of 2 right, called so 4 times; b: 2 of 3; c: never right.
        var p = Of([" a", " b", " c"], [0, 0, 1, 1, 1, 2], [0, 0, 1, 1, 0, 0]);
        var metric = p.ToEvaluation()[MetricKind.Plain(name)];
        Assert.Equal(value, metric.Value, 12);
        Assert.Equal(greater, metric.Direction == Direction.Higher);
        Assert.Equal(said, metric.Label);
        RecipeLoader.Parse("training:\n  metric_for_best_model: " + name);
    }

    [Fact]
    public void BinaryMetricsAreOfThePositiveClass()
    {
        var p = Of([" no", " yes"], [0, 0, 1, 1, 1], [0, 1, 1, 1, 1]);
        var e = p.ToEvaluation();
        Assert.Equal(6 / 7.0, e["f1"].Value, 12);
        Assert.Equal((2 / 3.0 + 6 / 7.0) / 2, e["f1_macro"].Value, 12);
        Assert.Equal("F1 of ' yes'", e["f1"].Label);
        var refused = Assert.Throws<HeadroomException>(() =>
            RecipeLoader.Parse("training:\n  metric_for_best_model: f2")
        );
        Assert.Contains("f1_macro", refused.ToDo);
    }

    [Theory]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(11)]
    public void TheBaselineLearnsEveryClass(int classes)
    {
        // A class is told by its own word, one row in ten lies.
        var random = new Random(1);
        List<DataRow> Rows(int n) => [.. Enumerable.Range(0, n).Select(i =>
        {
            int c = i % classes;
            string word = new((char)('a' + (random.Next(10) == 0 ? random.Next(classes) : c)), 5);
            return new DataRow($"some {word} text {(char)('k' + random.Next(8))}", $"L{c}");
        })];
        var labels = Enumerable.Range(0, classes).ToDictionary(c => $"L{c}", c => $" word{c}");
        var p = BagOfWords.Run(Rows(60 * classes), Rows(10 * classes), Rows(30 * classes), labels, 3);
        Assert.InRange(p.Accuracy, 0.82, 1);
        Assert.InRange(p.Confusion.Macro.F1, 0.8, 1);
        Assert.Equal(labels.Values, p.Labels);
        Assert.Equal(classes == 2, p.Margin != null);
    }

    [Fact]
    public void TheBaselineHoldsOutRowsOfTheWholeFile()
    {
        int[] order = BagOfWords.Order(1000, 3);
        Assert.Equal(Enumerable.Range(0, 1000), order.Order());
        Assert.InRange(order[..100].Count(i => i < 500), 35, 65); // rows of the first of two classes in a sorted file
        Assert.Equal(order, BagOfWords.Order(1000, 3));
        Assert.NotEqual(order, BagOfWords.Order(1000, 4));
    }

    private static Predictions Of(string[] labels, int[] gold, int[] predicted) =>
        new(labels, gold, predicted, null, new string?[gold.Length], 0.25);
}
