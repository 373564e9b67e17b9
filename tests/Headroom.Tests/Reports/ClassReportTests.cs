using System.Text.Json.Nodes;
using Headroom.Formats;
using Headroom.Training.Events;
using Headroom.Training.Tasks.LabelWords;

namespace Headroom.Tests.Reports;

/// <summary>Reports of any number of classes, of odd logs, of runs that live, and what a duel claims.</summary>
public sealed class ClassReportTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-report-").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    // 18 rows of three classes, 7 of them right; 13 lie in the first two classes.
    private static readonly int[] Gold = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2];
    private static readonly int[] Predicted = [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 2, 0, 1, 1, 1, 1];
    private static readonly string[] Words = [" sad", " happy", " calm"];

    [Fact]
    public void ThreeClassesAreCountedWhole()
    {
        Write("", Start(), Test(Gold, Predicted, Words), End());
        var (html, markdown, json) = Report();
        var tuned = json["quality"]![0]!;
        Assert.Equal((18, 7), ((int)tuned["rows"]!, (int)tuned["correct"]!));
        Assert.Equal(7 / 18.0, (double)tuned["accuracy"]!["value"]!, 12);
        // scikit-learn: f1 of 8 / 15, 4 / 14 and 2 / 7.
        Assert.Equal((8 / 15.0 + 4 / 14.0 + 2 / 7.0) / 3, (double)tuned["f1"]!["value"]!, 12);
        Assert.Equal("macro", (string)tuned["classes"]!["average"]!);
        Assert.Equal("[[4,2,0],[4,2,0],[1,4,1]]", tuned["classes"]!["matrix"]!.ToJsonString());
        Assert.Equal(
            [" sad", " happy", " calm"], tuned["classes"]!["by_class"]!.AsArray().Select(c => (string)c!["label"]!));
        Assert.Equal(2 / 7.0, (double)tuned["classes"]!["by_class"]![2]!["f1"]!["value"]!, 12);
        Assert.Null(tuned["confusion"]); // tn, fp, fn and tp are words of two classes
        Assert.StartsWith("tiny reaches macro F1 0.368 [", (string)json["headline"]!);
        Assert.Contains("Confusion matrix of tiny tuned: gold labels in rows, predicted ones in columns", html);
        Assert.Contains("| ' calm' | 1 | 4 | 1 |", markdown);
        Assert.Contains("F1, precision and recall are averages over 3 classes", markdown);
    }

    [Fact]
    public void ALogThatCountedTwoOfThreeClassesIsCountedAnew()
    {
        var test = Test(Gold, Predicted, null);
        (test["confusion"], test["f1"], test["precision"]) = (new JsonArray(4, 2, 4, 3), 0.5, 0.6);
        var eval = new JsonObject
        {
            ["event"] = "eval",
            ["step"] = 5,
            ["split"] = "validation",
            ["rows"] = 18,
            ["accuracy"] = 0.5,
            ["f1"] = 1.0,
            ["confusion"] = new JsonArray(5, 0, 0, 4),
        };
        Write("", Start(), eval, test, End());
        var (_, _, json) = Report();
        Assert.Equal(18, (int)json["quality"]![0]!["rows"]!);
        Assert.Equal((8 / 15.0 + 4 / 14.0 + 2 / 7.0) / 3, (double)json["quality"]![0]!["f1"]!["value"]!, 12);
        Assert.Null(json["runs"]![0]!["evaluations"]![0]!["f1"]); // 1.0 of nine rows
        Assert.Equal(0.5, (double)json["runs"]![0]!["evaluations"]![0]!["accuracy"]!);
        string notes = json["notes"]!.ToJsonString();
        Assert.Contains(
            "The test event \\u0022tuned\\u0022 of events.jsonl is odd: confusion is not what gold and predicted give",
            notes);
        Assert.Contains("The eval event of step 5 of events.jsonl is odd: confusion holds 9 rows, rows says 18", notes);
    }

    [Theory]
    [InlineData("confusion", "\"many\"", "confusion is no table of counts")]
    [InlineData("confusion", "[1, 2]", "confusion is no table of counts")]
    [InlineData("confusion", "[[1, 2], [3]]", "confusion is no table of counts")]
    [InlineData("confusion", "[[1, \"a\"], [0, 1]]", "confusion is no table of counts")]
    [InlineData("confusion", "[[-1, 3], [0, 1]]", "confusion is no table of counts")]
    [InlineData("confusion", "[[0.5, 3], [0, 1]]", "confusion is no table of counts")]
    [InlineData("confusion", "[1e300, 0, 0, 1]", "confusion is no table of counts")]
    [InlineData("confusion", "[null, 0, 0, 1]", "confusion is no table of counts")]
    [InlineData("confusion", "{\"tn\": 1}", "confusion is no table of counts")]
    [InlineData("confusion", "[[1, 0], [0, 1]]", "confusion holds 2 rows, rows says 4")]
    [InlineData("rows", "\"four\"", "rows is no number of rows")]
    [InlineData("rows", "-4", "rows is no number of rows")]
    [InlineData("labels", "[1, 2]", "labels are no words")]
    [InlineData("labels", "[\"a\", \"b\", \"c\"]", "labels has another number of words than there are classes")]
    [InlineData("gold", "[0, 1, 0, 5000000000]", "gold and predicted are not one class number for each row")]
    [InlineData("gold", "[0, 1]", "gold and predicted are not one class number for each row")]
    [InlineData("gold", "\"none\"", "gold and predicted are not one class number for each row")]
    [InlineData("accuracy", "7.5", null)]
    [InlineData("loss", "1e999", null)]
    [InlineData("tiers", "{}", null)]
    public void AnOddEventIsNamedAndLeftOut(string key, string value, string? said)
    {
        var test = new JsonObject
        {
            ["event"] = "test",
            ["stage"] = "tuned",
            ["rows"] = 4,
            ["accuracy"] = 0.75,
            ["f1"] = 0.8,
            ["labels"] = new JsonArray(" no", " yes"),
            ["confusion"] = new JsonArray(1, 1, 0, 2),
        };
        Write("", Start(), End());
        string odd = test.ToJsonString().Replace("\"stage\"", $"\"{key}\":{value},\"stage\"", StringComparison.Ordinal);
        if (test.Remove(key))
            odd = test.ToJsonString().Replace("\"stage\"", $"\"{key}\":{value},\"stage\"", StringComparison.Ordinal);
        File.AppendAllText(Path.Combine(_folder, "events.jsonl"), odd + "\n");
        var (html, _, json) = Report();
        Assert.Single(json["quality"]!.AsArray());
        Assert.DoesNotContain("NaN", html);
        if (said != null)
            Assert.Contains(
                $"The test event \"tuned\" of events.jsonl is odd: {said}",
                string.Join('\n', json["notes"]!.AsArray().Select(n => (string)n!)));
        else Assert.Empty(json["notes"]!.AsArray());
    }

    [Fact]
    public void NoLogIsAFaultOfTheReport()
    {
        // Any value of any event becomes any other; what comes out is a report or two sentences, and never NaN.
        string[] odd =
        [
            "null", "-1", "0", "1e308", "-1e308", "1e999", "2147483648", "9e18", "0.5", "true", "\"\"",
            "\"\\u0000\\u001b[2J\"", "[]", "[[]]", "{}", "[1,2,3,4]", "[null]", "[[1,2],[3,4]]", "\"tuned\""];
        var plan = new JsonObject
        {
            ["total_bytes"] = 3,
            ["phases"] = new JsonObject { ["train"] = 2 },
            ["peak_phase"] = "train",
            ["layers"] = 2,
            ["recompute_layers"] = 1,
            ["rows"] = new JsonArray(new JsonObject { ["phase"] = "train", ["category"] = "Scratch", ["bytes"] = 2 }),
        };
        var start = Start();
        (start["plan"], start["trainable_by_module"], start["data"], start["time"]) = (
            plan, new JsonObject { ["q_proj"] = 3 }, new JsonObject { ["train"] = new JsonObject { ["sha256"] = "a" } },
            "2026-01-02T03:04:00Z");
        List<JsonObject> events =
        [
            start,
            Test(Gold, Predicted, Words),
            new()
            {
                ["event"] = "memory", ["when"] = "end", ["reserved_bytes"] = 3, ["peak_resident_bytes"] = 5,
            },
        ];
        for (int i = 1; i <= 12; i++)
            events.Add(
                new()
                {
                    ["event"] = "step",
                    ["step"] = i,
                    ["loss"] = 1.0 / i,
                    ["grad_norm"] = 1 + i % 2,
                    ["learning_rate"] = 0.1,
                    ["seconds"] = 1,
                    ["tokens"] = 5,
                }
            );
        events.Add(
            new()
            {
                ["event"] = "eval",
                ["step"] = 5,
                ["split"] = "validation",
                ["rows"] = 9,
                ["loss"] = 0.5,
                ["accuracy"] = 0.5,
                ["f1"] = 0.4,
                ["confusion"] = new JsonArray(5, 0, 0, 4),
            }
        );
        events.Add(End());
        string[] lines = [.. events.Select(e => e.ToJsonString())];
        var random = new Random(15);
        for (int round = 0; round < 120; round++)
        {
            string[] mutated = [.. lines];
            for (int change = random.Next(1, 4); change > 0; change--)
            {
                int at = random.Next(mutated.Length);
                var values = System.Text.RegularExpressions.Regex.Matches(
                    mutated[at], @"(?<=[:\[,])(""[^""]*""|[\d.]+|\[[^\[\]]*\])(?=[,\]}])");
                if (values.Count == 0) continue;
                var value = values[random.Next(values.Count)];
                mutated[at] =
                    mutated[at][..value.Index]
                    + odd[random.Next(odd.Length)]
                    + mutated[at][(value.Index + value.Length)..];
            }
            File.WriteAllLines(Path.Combine(_folder, "events.jsonl"), mutated);
            try
            {
                Assert.DoesNotContain("NaN", Report().Html);
            }
            catch (Exception e) when (e is not Core.HeadroomException)
            {
                Assert.Fail($"round {round}: {e}\n{string.Join('\n', mutated.Except(lines))}");
            }
            catch (Core.HeadroomException)
            {
            }
        }
    }

    [Fact]
    public void AKeyThatStandsTwiceSpoilsItsLineOnly()
    {
        Write("", Start(), Test(Gold, Predicted, Words), End());
        File.AppendAllText(
            Path.Combine(_folder, "events.jsonl"),
            "{\"event\":\"eval\",\"step\":1,\"step\":2}\n{\"event\":\"memory\",\"when\":{\"a\":1,"
                + "\"a\":2}}\n[1]\n{\"event\":5}\n\0\0\n"
        );
        Assert.Single(Report().Json["quality"]!.AsArray());
    }

    [Fact]
    public void WordsAreShownAndNeverObeyed()
    {
        string[] words =
        [
            "\u001b[2J red", "<script>alert(1)</script>", " " + new string('x', 300) + "1",
            " " + new string('x', 300) + "2", "a|b*c\u202e"];
        int[] gold = [0, 1, 2, 3, 4, 4], predicted = [0, 1, 2, 2, 4, 3];
        var test = Test(gold, predicted, words);
        test["tiers"] = new JsonArray("<b>easy", "\u0007", "\u0007", "x", "x", "x");
        Write("", Start(), test, End());
        var (html, markdown, json) = Report();
        foreach (string text in new[] { html, markdown })
        {
            Assert.DoesNotContain(text, c => char.IsControl(c) && c != '\n' || c == '\u202e');
            Assert.DoesNotContain("<script", text);
            Assert.DoesNotContain("<b>easy", text);
            Assert.DoesNotContain(new string('x', 100), text);
            string shown = text.Replace("&#39;", "'", StringComparison.Ordinal);
            Assert.Contains("2: ' xx", shown); // words that are cut keep their number
            Assert.Contains("3: ' xx", shown);
        }
        Assert.Equal(words[0], (string)json["quality"]![0]!["classes"]!["labels"]![0]!);
    }

    [Fact]
    public void ManyClassesAreShownByTheirLargestMistakes()
    {
        const int classes = 40;
        int[] gold = [.. Enumerable.Range(0, 800).Select(i => i % classes)],
            predicted = [.. gold.Select((g, i) => i % 7 == 0 ? (g + 1) % classes : g)];
        Write("", Start(), Test(gold, predicted, [.. Enumerable.Range(0, classes).Select(c => $" w{c}")]), End());
        var (_, markdown, json) = Report();
        Assert.Contains("the largest 30 of 40 kinds of wrong rows; results.json has all 40 x 40", markdown);
        Assert.Contains("| ' w39' |", markdown); // by class
        Assert.Equal(classes, json["quality"]![0]!["classes"]!["matrix"]![39]!.AsArray().Count);
    }

    [Fact]
    public void ALivingRunSaysSoAndUntilWhen()
    {
        var step = new JsonObject
        {
            ["event"] = "step",
            ["time"] = "2026-01-02T03:04:05.0000000Z",
            ["step"] = 7,
            ["loss"] = 1.5,
            ["seconds"] = 2,
        };
        var start = Start();
        start["time"] = "2026-01-02T03:04:00Z";
        Write("", start, step);
        using (FolderLock.Take(_folder, "The run folder"))
        {
            var (html, _, json) = Report();
            Assert.StartsWith("Running: at step 7 of 40, as of 2026-01-02 03:04:05 UTC.", (string)json["headline"]!);
            Assert.True((bool)json["running"]!);
            Assert.Contains($"process {Environment.ProcessId}", html);
            Assert.Equal(5, (double)json["runs"]![0]!["cost"]!["seconds"]!, 6); // so far
        }
        var dead = Report().Json;
        Assert.StartsWith("Incomplete: stopped at step 7 of 40.", (string)dead["headline"]!);
        Assert.Contains("Its log ends without a word", (string)dead["notes"]![0]!);
    }

    [Fact]
    public void AFailedRunTellsWhy()
    {
        Write(
            "",
            Start(),
            new()
            {
                ["event"] = "step",
                ["step"] = 3,
                ["loss"] = 1,
            },
            new()
            {
                ["event"] = "failed",
                ["at_step"] = 3,
                ["error"] = "The loss was NaN\u001b[31m",
            }
        );
        var (_, _, json) = Report();
        Assert.StartsWith("Incomplete: failed at step 3 of 40.", (string)json["headline"]!);
        Assert.EndsWith("It failed: The loss was NaN\\u001b[31m.", (string)json["notes"]![0]!);
    }

    [Fact]
    public void SessionsAddUpWithoutTheTimeBetween()
    {
        static JsonObject At(string kind, string time) =>
            new()
            {
                ["event"] = kind,
                ["time"] = $"2026-01-02T{time}Z",
                ["step"] = 4,
            };
        var start = Start();
        start["time"] = "2026-01-02T10:00:00Z";
        Write(
            "", start, At("step", "10:01:00"), At("stopped", "10:01:30"), At("resumed", "12:00:00"),
            At("memory", "12:00:45"));
        Assert.Equal(135, (double)Report().Json["runs"]![0]!["cost"]!["seconds"]!, 6);
        var resumed = At("resumed", "12:00:00");
        resumed["seconds_before"] = 200; // the log of later steps was dropped, their time was not
        Write("", start, At("step", "10:01:00"), resumed, At("memory", "12:00:45"));
        Assert.Equal(245, (double)Report().Json["runs"]![0]!["cost"]!["seconds"]!, 6);
    }

    [Fact]
    public void FactsComeFromTheLogOrTheManifest()
    {
        var start = Start();
        start["precision"] = "bf16";
        start["data"] = new JsonObject { ["train"] = new JsonObject { ["rows"] = 4, ["sha256"] = "a1b2" } };
        Write("", start, Test(Gold, Predicted, Words), End());
        File.WriteAllText(
            Path.Combine(_folder, "manifest.json"),
            """{"headroom": "1.2.3+abc", "command": ["train", "r.yaml"], "driver": "580.1"}"""
        );
        var (_, markdown, json) = Report();
        foreach (
            string row in new[]
            {
                "| Headroom | 1.2.3+abc |", "| command line | train r.yaml |", "| driver | 580.1 |",
                "| precision | bf16 |", "| training rows sha256 | a1b2 |", "| test rows sha256 | not recorded |",
            }
        )
            Assert.Contains(row, markdown);
        Assert.Equal("train r.yaml", (string)json["runs"]![0]!["command"]!);
        File.WriteAllText(Path.Combine(_folder, "manifest.json"), "{\"headroom\": \"1\", \"headroom\": ");
        Assert.Contains("| Headroom | not recorded |", Report().Markdown);
    }

    [Theory]
    [InlineData(10, "no significant difference (McNemar p = 1)")]
    [InlineData(1, "a significant difference (McNemar p < 0.001)")]
    public void OneSeedClaimsNothingOfTheModels(int wrong, string verdict)
    {
        Duel(("alpha", 1, 10, null), ("beta", 1, wrong, null));
        var (_, _, json) = Report();
        Assert.Contains(
            $"; of these two adapters (one seed): {verdict}; one seed says nothing of the models.",
            (string)json["headline"]!);
        Assert.Empty(json["seed_comparisons"]!.AsArray());
    }

    [Fact]
    public void ThreeModelsOfOneSeedClaimNothingEither()
    {
        Duel(("alpha", 1, 10, null), ("beta", 1, 10, null), ("gamma", 1, 1, null));
        Assert.EndsWith(
            "; of these 3 adapters (one seed); one seed says nothing of the models.", (string)Report().Json["headline"]!
        );
    }

    [Fact]
    public void SeedsThatAreNotSharedClaimNothing()
    {
        Duel(("alpha", 1, 10, null), ("alpha", 2, 10, null), ("beta", 3, 1, null));
        Assert.Contains(
            "; of these adapters (fewer than two seeds in common): a significant difference",
            (string)Report().Json["headline"]!);
        Assert.EndsWith("; that says nothing of the models.", (string)Report().Json["headline"]!);
    }

    [Fact]
    public void AClassWithoutARowIsNoOddEvent()
    {
        var test = Test([0, 1, 0, 1], [0, 1, 1, 1], [" a", " b", " c"]);
        test.Remove("labels");
        Write("", Start(), test, End());
        var (_, _, json) = Report();
        Assert.Empty(json["notes"]!.AsArray());
        Assert.Equal(3, json["quality"]![0]!["classes"]!["matrix"]!.AsArray().Count);
    }

    [Fact]
    public void SeveralSeedsGiveAnIntervalOverSeeds()
    {
        // Accuracy less accuracy, seed by seed: 0.04, 0.08, 0.06 of 100 rows. scipy: mean 0.06, t.interval(0.95, 2) =
        // 0.06 -+ 4.30265 * 0.02 / sqrt(3), p = 0.03509.
        Duel(
            ("alpha", 1, 8, null), ("beta", 1, 10, null), ("alpha", 2, 8, null), ("beta", 2, 12, null),
            ("alpha", 3, 8, null), ("beta", 3, 11, null));
        var (_, markdown, json) = Report();
        var accuracy = json["seed_comparisons"]!.AsArray().Single(c => (string)c!["metric"]! == "accuracy")!;
        Assert.Equal(0.06, (double)accuracy["mean"]!["value"]!, 9);
        Assert.Equal(0.06 - 4.302652730 * 0.02 / Math.Sqrt(3), (double)accuracy["mean"]!["low"]!, 8);
        Assert.Equal(0.035098, (double)accuracy["p"]!, 5);
        Assert.Contains(
            "; of the models under this recipe (3 seeds): a significant difference (", (string)json["headline"]!);
        // Rows that only alpha has right: 4, 8 and 6. 2 / 2^n and Holm: 0.0234, 0.0625, 0.125.
        Assert.Contains("; of the adapters, 1 of 3 pairs differ (McNemar).", (string)json["headline"]!);
        Assert.Contains(
            "| alpha | beta | accuracy | 3 | +0.040 (seed 1), +0.080 (seed 2), +0.060 (seed 3) | +0.060 [+0.010, "
                + "+0.110] |",
            markdown);
    }

    [Fact]
    public void RowsOfSeveralSeedsAreNoIndependentRows()
    {
        // Each seed alone differs beyond doubt on its rows, but the seeds contradict one another: 600 pooled rows would
        // be a sure finding for alpha.
        Duel(
            ("alpha", 1, 1, null), ("beta", 1, 25, null), ("alpha", 2, 1, null), ("beta", 2, 25, null),
            ("alpha", 3, 20, null), ("beta", 3, 1, null));
        var (_, _, json) = Report();
        Assert.Contains(
            "; of the models under this recipe (3 seeds): no significant difference (", (string)json["headline"]!);
        Assert.Contains("of the adapters, 3 of 3 pairs differ", (string)json["headline"]!);
        Duel(("alpha", 1, 8, null), ("beta", 1, 10, null), ("alpha", 2, 8, null), ("beta", 2, 10, null));
        Assert.Contains(
            "(2 seeds): nothing is claimed, as every seed gives the same difference", (string)Report().Json["headline"]!
        );
    }

    [Fact]
    public void ValidationThatRanksTheOtherWayIsMentioned()
    {
        Duel(("alpha", 1, 5, 0.7), ("beta", 1, 10, 0.8));
        var (_, _, json) = Report();
        Assert.EndsWith("; validation ranks them the other way round.", (string)json["headline"]!);
        Assert.Contains(
            "Validation ranks alpha and beta the other way round: F1 of ' yes' 0.700 and 0.800 on the validation rows",
            (string)json["notes"]![0]!);
        Duel(("alpha", 1, 5, 0.8), ("beta", 1, 10, 0.7));
        Assert.DoesNotContain("other way", (string)Report().Json["headline"]!);
    }

    private (string Html, string Markdown, JsonObject Json) Report()
    {
        var paths = Headroom.Reports.Report.Write(_folder);
        return (
            File.ReadAllText(paths.Html), File.ReadAllText(paths.Markdown),
            JsonNode.Parse(File.ReadAllText(paths.Json))!.AsObject());
    }

    /// <summary>
    /// Runs of 100 test rows, 50 a label, of which so many of each label are wrong; and the F1 of the kept validation.
    /// </summary>
    private void Duel(params (string Model, int Seed, int Wrong, double? Validation)[] runs)
    {
        foreach (var (model, seed, wrong, validation) in runs)
        {
            int[] gold = [.. Enumerable.Range(0, 100).Select(i => i / 50)],
                predicted = [.. gold.Select((g, i) => i % 50 < wrong ? 1 - g : g)];
            var start = Start();
            (start["model"], start["seed"]) = (model, seed);
            List<JsonObject> events = [start, Test(gold, predicted, [" no", " yes"])];
            if (validation is { } v)
            {
                events.Add(new() { ["event"] = "eval", ["step"] = 10, ["split"] = "validation", ["f1"] = v });
                events.Add(
                    new()
                    {
                        ["event"] = "eval",
                        ["step"] = 20,
                        ["split"] = "validation",
                        ["f1"] = 0.1,
                    }
                ); // not the one that was kept
            }
            var end = End();
            if (validation != null) end["best_step"] = 10;
            Write($"{model}{seed}", [.. events, end]);
        }
        Write(
            "",
            new JsonObject
            {
                ["event"] = "duel_start",
                ["name"] = "d",
                ["runs"] = new JsonArray([.. runs.Select(r => (JsonNode?)$"{r.Model}{r.Seed}")]),
            },
            new() { ["event"] = "duel_end", ["seconds"] = 1 }
        );
    }

    private static JsonObject Start() =>
        new()
        {
            ["event"] = "run_start",
            ["name"] = "n",
            ["model"] = "tiny",
            ["seed"] = 1,
            ["device"] = "GPU of a test",
            ["total_steps"] = 40,
        };

    private static JsonObject End() => new() { ["event"] = "run_end", ["completed"] = true, ["steps"] = 40 };

    private static JsonObject Test(int[] gold, int[] predicted, string[]? words)
    {
        var p = new Predictions(words ?? ["", "", ""], gold, predicted, null, new string?[gold.Length], 0.5);
        var test = new TestEvent(1, TestEvent.Tuned).With(p.ToEvaluation(), rows: true);
        var e = JsonNode.Parse(test.ToLine())!.AsObject();
        if (words == null) e.Remove("labels");
        return e;
    }

    private void Write(string folder, params JsonObject[] events)
    {
        string path = Directory.CreateDirectory(Path.Combine(_folder, folder)).FullName;
        File.WriteAllLines(Path.Combine(path, "events.jsonl"), events.Select(e => e.ToJsonString()));
    }
}
