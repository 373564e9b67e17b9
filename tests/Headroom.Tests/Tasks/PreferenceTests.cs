using Headroom.Core;
using Headroom.Training.Data.Forms;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks;
using Headroom.Training.Tasks.Preferences;

namespace Headroom.Tests.Tasks;

/// <summary>
/// Losses of preferences against the formulas of their papers and central differences, and their rows.
/// </summary>
public sealed class PreferenceTests
{
    private static readonly PairScore Model = new(-12.5, 9, -14.25, 11), Base = new(-13, 9, -13.5, 11);

    private static double Sigmoid(double x) => 1 / (1 + Math.Exp(-x));

    /// <summary>As the papers write them, in the words of this test alone.</summary>
    [Theory]
    [InlineData(PreferenceLossType.Sigmoid, 0, 0)]
    [InlineData(PreferenceLossType.Sigmoid, 0.2, 0)]
    [InlineData(PreferenceLossType.Sigmoid, 0, 0.5)]
    [InlineData(PreferenceLossType.SigmoidNorm, 0.1, 0)]
    [InlineData(PreferenceLossType.Hinge, 0, 0)]
    [InlineData(PreferenceLossType.Ipo, 0, 0)]
    [InlineData(PreferenceLossType.Orpo, 0, 0)]
    [InlineData(PreferenceLossType.Orpo, 0, 1)]
    public void LossesAreThoseOfThePapers(PreferenceLossType type, double smoothing, double sft)
    {
        var o = new TaskOptions { LossType = type, Beta = 0.3, LabelSmoothing = smoothing, RpoAlpha = sft };
        double w = Model.First - Base.First, l = Model.Second - Base.Second;
        double mw = Model.First / 9, ml = Model.Second / 11;
        double odds = Math.Log(Math.Exp(mw) / (1 - Math.Exp(mw))) - Math.Log(Math.Exp(ml) / (1 - Math.Exp(ml)));
        double Dpo(double x) => -(1 - smoothing) * Math.Log(Sigmoid(x)) - smoothing * Math.Log(Sigmoid(-x));
        double expected = type switch
        {
            PreferenceLossType.Sigmoid => Dpo(0.3 * (w - l)),
            PreferenceLossType.SigmoidNorm => Dpo(0.3 * (w / 9 - l / 11)),
            PreferenceLossType.Hinge => Math.Max(0, 1 - 0.3 * (w - l)),
            PreferenceLossType.Ipo => Math.Pow(w / 9 - l / 11 - 1 / (2 * 0.3), 2),
            _ => -mw - 0.3 * Math.Log(Sigmoid(odds)),
        };
        Assert.Equal(expected - sft * mw, PreferenceLoss.Pair(o, Model, Base).Loss, 12);
    }

    [Theory]
    [InlineData(PreferenceLossType.Sigmoid, 0.2)]
    [InlineData(PreferenceLossType.SigmoidNorm, 0)]
    [InlineData(PreferenceLossType.Hinge, 0)]
    [InlineData(PreferenceLossType.Ipo, 0)]
    [InlineData(PreferenceLossType.Orpo, 0)]
    public void DerivativesAreCentralDifferences(PreferenceLossType type, double smoothing)
    {
        var random = new PhiloxRandom(3, (uint)type);
        for (int round = 0; round < 200; round++)
        {
            double Draw(double most) => most * random.NextFloat();
            var o = new TaskOptions
            {
                LossType = type,
                Beta = 0.02 + Draw(1),
                LabelSmoothing = smoothing,
                RpoAlpha = round % 2,
            };
            PairScore p = new(-0.1 - Draw(60), 1 + random.Next(30), -0.1 - Draw(60), 1 + random.Next(30)),
                r = p with { First = p.First + Draw(4) - 2, Second = p.Second + Draw(4) - 2 };
            var loss = PreferenceLoss.Pair(o, p, r);
            const double h = 1e-6;
            double At(double first, double second) => PreferenceLoss.Pair(
                o, p with { First = p.First + first, Second = p.Second + second }, r).Loss;
            double dFirst = (At(h, 0) - At(-h, 0)) / (2 * h), dSecond = (At(0, h) - At(0, -h)) / (2 * h);
            Assert.Equal(dFirst, loss.First, 1e-5 * Math.Max(1, Math.Abs(dFirst)));
            Assert.Equal(dSecond, loss.Second, 1e-5 * Math.Max(1, Math.Abs(dSecond)));
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void KtoIsThatOfItsPaper(bool wanted)
    {
        var o = new TaskOptions
        {
            LossType = PreferenceLossType.Kto,
            Beta = 0.4,
            DesirableWeight = 1.5,
            UndesirableWeight = 0.7,
        };
        const double ratio = 0.9, divergence = 0.35, h = 1e-6;
        double expected = wanted
            ? 1.5 * (1 - Sigmoid(0.4 * (ratio - divergence))) : 0.7 * (1 - Sigmoid(0.4 * (divergence - ratio)));
        var loss = PreferenceLoss.Single(o, wanted, ratio, divergence);
        Assert.Equal(expected, loss.Loss, 12);
        double slope = (PreferenceLoss.Single(o, wanted, ratio + h, divergence).Loss
            - PreferenceLoss.Single(o, wanted, ratio - h, divergence).Loss) / (2 * h);
        Assert.Equal(slope, loss.First, 1e-8);
        Assert.Equal(0, loss.Second);
    }

    /// <summary>Log probabilities that a double rounds to 0 or far below: no NaN, no infinity.</summary>
    [Theory]
    [InlineData(-1e-18, -1e-18)]
    [InlineData(-1e6, -1e-12)]
    [InlineData(0, -5000)]
    public void ExtremeProbabilitiesGiveNumbers(double first, double second)
    {
        foreach (var type in Enum.GetValues<PreferenceLossType>().Where(t => t != PreferenceLossType.Kto))
        {
            var loss = PreferenceLoss.Pair(
                new() { LossType = type }, new(first, 3, second, 4), new(-3, 3, -4, 4));
            Assert.True(double.IsFinite(loss.Loss) && double.IsFinite(loss.First) && double.IsFinite(loss.Second));
        }
    }

    private static List<Preference> Read(string json, PreferenceLossType type = PreferenceLossType.Sigmoid)
    {
        string folder = Directory.CreateTempSubdirectory("headroom-prefs").FullName;
        try
        {
            string path = Path.Combine(folder, "rows.jsonl");
            File.WriteAllText(path, json);
            var rows = TaskTypes.Find("preference")!.Rows(path, new(), new() { LossType = type }, null);
            return [.. rows.Select(r => (Preference)((ExampleRow)r).Example)];
        }
        finally
        {
            Directory.Delete(folder, true);
        }
    }

    [Fact]
    public void PairsOfTextsAndMessages()
    {
        Assert.Equal(
            new Preference(new Completion("a", " b"), new Completion("a", " c")),
            Read("""{"prompt": "a", "chosen": " b", "rejected": " c"}""").Single());
        Assert.Equal(
            new Preference(new Completion("Q: x A:", " yes it"), new Completion("Q: x A:", " yea")),
            Read("""{"chosen": "Q: x A: yes it", "rejected": "Q: x A: yea"}""").Single());
        var implied = Read(
            """{"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}], "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "c"}]}""")
            .Single();
        Assert.Equal([false, true], ((Conversation)implied.First).Learned);
        Assert.Equal("c", (string?)((Conversation)implied.Second).Messages[1]!["content"]);
        Assert.Null(implied.Wanted);
    }

    [Fact]
    public void SingleAnswersHaveTheNextOnesBeside()
    {
        var rows = Read(
            """
            {"prompt": "a", "completion": "1", "label": true}
            {"prompt": "b", "completion": "2", "label": false}
            {"prompt": "c", "completion": "3", "label": "1"}
            """, PreferenceLossType.Kto);
        Assert.Equal([true, false, true], rows.Select(r => r.Wanted));
        Assert.Equal(
            [new Completion("a", "2"), new Completion("b", "3"), new Completion("c", "1")], rows.Select(r => r.Second));
        var parted = Read("""{"prompt": "a", "chosen": "b", "rejected": "c"}""", PreferenceLossType.Kto);
        Assert.Equal([true, false], parted.Select(r => r.Wanted));
    }

    [Theory]
    [InlineData("""{"prompt": "a", "chosen": "b", "rejected": "b"}""", "are the same")]
    [InlineData("""{"prompt": "a", "chosen": "b", "rejected": [{"role": "assistant", "content": "c"}]}""", "a text and")]
    [InlineData("""{"prompt": "a", "chosen": "b"}""", "no column 'rejected'")]
    [InlineData("""{"prompt": "a", "completion": "b", "label": true}""", "no other to compare it with")]
    [InlineData("""{"chosen": "Q: x ", "rejected": "Q: x y"}""", "the beginning of the other")]
    public void BadRowsAreNamed(string json, string says) =>
        Assert.Contains(says, Assert.Throws<HeadroomException>(() => Read(json)).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData("loss_type: ipo, label_smoothing: 0.1", "", "label_smoothing does not go with the loss ipo")]
    [InlineData("loss_type: kto, rpo_alpha: 1", "", "rpo_alpha does not go with the loss kto")]
    [InlineData("desirable_weight: 2", "", "do not go with the loss sigmoid")]
    [InlineData("beta: 0", "", "task.beta is 0")]
    [InlineData("beta: 0.1", "lora: {modules_to_save: [lm_head]}", "modules_to_save would replace")]
    [InlineData("beta: 0.1", "training: {label_smoothing_factor: 0.1}", "does not go with preferences")]
    [InlineData("loss_type: dpo", "", "Use sigmoid")]
    public void WhatDoesNotGoTogetherIsRefused(string task, string more, string says)
    {
        var e = Assert.Throws<HeadroomException>(() => RecipeLoader.Parse(
            $"data: {{train: x.jsonl}}\ntask: {{type: preference, {task}}}\n{more}\n"));
        Assert.Contains(says, e.Message + " " + e.ToDo, StringComparison.Ordinal);
    }
}
