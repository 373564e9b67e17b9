using System.Reflection;
using Headroom.Core;
using Headroom.Inference.Bases;
using Headroom.Training.Data;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks.LabelWords;

namespace Headroom.Tests.Runs;

/// <summary>
/// What makes two runs the same: keys that change numbers, the base as it is understood, and the encoded rows; nothing
/// else.
/// </summary>
public class IdentityTests
{
    private const string Old = """
        name: old
        models:
          - path: models/a
        quantization: { load_in_4bit: true, bnb_4bit_use_double_quant: false }
        lora: { r: 4, lora_alpha: 8, lora_dropout: 0.1, target_modules: [q_proj, v_proj], rank_pattern: { q_proj: 2, v_proj: 3 } }
        data: { train: a.jsonl, max_train_rows: 100 }
        task: { template: "T: {text}\nA:", labels: { x: " no", y: " yes" } }
        training: { learning_rate: 3e-4, warmup_ratio: 0.1, max_steps: 20, seed: 7, logging_steps: 5, save_steps: 3, eval_strategy: steps, eval_steps: 5 }
        """;

    private static IEnumerable<(Type Type, PropertyInfo Property)> Options(Type type) =>
        type.GetProperties()
            .SelectMany(p =>
                p.PropertyType == typeof(List<ModelOptions>) ? Options(typeof(ModelOptions))
                : RecipeLoader.IsSection(p.PropertyType) ? Options(p.PropertyType)
                : [(type, p)]
            );

    [Fact]
    public void EveryOptionSaysWhatItHasToDoWithTheNumbers()
    {
        var options = Options(typeof(Recipe)).ToList();
        Assert.True(options.Count > 60);
        Assert.All(options, o =>
            Assert.True(
                o.Property.IsDefined(typeof(IdentityAttribute)), $"{o.Type.Name}.{o.Property.Name} has no [Identity]")
        );
    }

    /// <summary>
    /// A recipe of the past keeps its hash, whatever keys are added: it is written down here. Never change it.
    /// </summary>
    [Fact]
    public void AnOldRecipeKeepsItsHash()
    {
        Assert.Equal(
            "249da70707cba29e0b2d95e1bd23f07d241b2f772f29103124c7d23cc5995c5b",
            RecipeIdentity.Hash(RecipeLoader.Parse(Old)));
        Assert.Equal(
            Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData([])),
            RecipeIdentity.Hash(new Recipe()));
    }

    [Theory]
    [
        InlineData("training.learning_rate=1e-4", true), InlineData("training.seed=8", true),
        InlineData("training.per_device_train_batch_size=4", true)]
    [InlineData("lora.rank_pattern={ v_proj: 3, q_proj: 2 }", true)] // the first that matches counts
    [InlineData("lora.target_modules=all-linear", true), InlineData("lora.target_modules=[v_proj, q_proj]", true)]
    [
        InlineData("name=new", false), InlineData("training.logging_steps=1", false),
        InlineData("training.save_steps=1", false), InlineData("training.save_total_limit=1", false)]
    [
        InlineData("training.per_device_eval_batch_size=2", false), InlineData("vram=6GiB", false),
        InlineData("training.gradient_checkpointing=true", false)]
    [
        InlineData("training.expanded_weights=none", false), InlineData("data.train=b.jsonl", false),
        InlineData("training.max_steps=30", false), InlineData("lora.r=4", false)]
    public void OnlyWhatChangesNumbersChangesTheHash(string set, bool changes) =>
        Assert.Equal(
            changes, RecipeIdentity.Hash(RecipeLoader.Parse(Old, [set])) != RecipeIdentity.Hash(RecipeLoader.Parse(Old))
        );

    [Fact]
    public void DifferencesAreNamedWithBothValues()
    {
        var old = RecipeIdentity.Values(RecipeLoader.Parse(Old));
        var now = RecipeIdentity.Values(
            RecipeLoader.Parse(
                Old, ["training.learning_rate=5e-5", "lora.r=8", "training.save_steps=9", "training.max_steps=40"])
        );
        Assert.Equal(
            [("lora.r", "4", "8"), ("training.learning_rate", "0.0003", "default")],
            RecipeIdentity.Differences(old, now, Identity.Numbers));
        Assert.Equal([("training.save_steps", "3", "9")], RecipeIdentity.Differences(old, now, Identity.None));
        Assert.Equal([("training.max_steps", "20", "40")], RecipeIdentity.Differences(old, now, Identity.MayRise));
    }

    /// <summary>
    /// What is written is read back as the same recipe, all of it, whatever stands in its texts, maps and numbers.
    /// </summary>
    [Fact]
    public void WhatIsWrittenIsReadBackAsTheSameRecipe()
    {
        int seed = Random.Shared.Next();
        TestContext.Current.TestOutputHelper?.WriteLine($"seed {seed}");
        var random = new Random(seed);
        for (int i = 0; i < 300; i++)
        {
            var recipe = RandomRecipe(random);
            string text = RecipeWriter.Write(recipe);
            Recipe read;
            try
            {
                read = RecipeLoader.Parse(text);
            }
            catch (HeadroomException e)
            {
                throw new InvalidOperationException($"{e.Message} {e.ToDo}\n{text}", e);
            }
            Assert.Equal(RecipeIdentity.Values(recipe), RecipeIdentity.Values(read));
            Assert.Equal(RecipeIdentity.Hash(recipe), RecipeIdentity.Hash(read));
            Assert.Equal(text, RecipeWriter.Write(read));
        }
    }

    private static string Odd(Random random)
    {
        string[] parts =
        [
            "a", " ", "  ", "\n", "\t", "\"", "'", "\\", ":", "#", "- ", "{", "}", "[", "%", "&", "*", "!", "|", ">",
            "null", "~", "true", "1e3", "é", "ß", "ดี", "😀", "\u00A0", "\u200D",
            "\u2028", "\u0085", "\uFEFF", "\r", "\u0001", "\uE000", "{text}", "yes", ","];
        return string.Concat(Enumerable.Range(0, random.Next(1, 12)).Select(_ => parts[random.Next(parts.Length)]));
    }

    private static Recipe RandomRecipe(Random random)
    {
        bool Coin() => random.Next(2) == 0;
        string[] modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
        var r = new Recipe
        {
            Name = "n" + random.Next(100),
            Vram = Coin() ? "6.5GiB" : null,
            Device = Coin() ? DeviceChoice.Cpu : DeviceChoice.Auto,
            Seeds = Coin() ? [1, -2] : [],
        };
        r.Models =
        [
            .. Enumerable
                .Range(0, random.Next(1, 3))
                .Select(i => new ModelOptions
                {
                    Path = $"/m o/{i}'\"ü", Name = Coin() ? $"m:{i} #x" : null, Tokenizer = Coin() ? "/t" : null,
                }),
        ];
        r.Quantization = new()
        {
            LoadIn4bit = Coin(),
            Bnb4bitUseDoubleQuant = Coin() ? Coin() : null,
            Cache = Coin() ? Coin() : null,
        };
        r.Lora.LoraAlpha = random.NextSingle() + float.Epsilon;
        r.Lora.LoraDropout = random.NextSingle() / 2;
        r.Lora.TargetModules = random.Next(3) switch
        {
            0 => ModuleNames.Parse(".*(q|v)_proj"),
            1 => ["q_proj"],
            _ => [.. modules],
        };
        if (Coin()) r.Lora.ExcludeModules = Coin() ? ModuleNames.Parse(@".*\.0\..*") : ["k_proj"];
        if (Coin())
            r.Lora.RankPattern = new() { [@"^model\.layers\.(0|1): #q_proj"] = 3, ["'v\"_proj"] = random.Next(1, 9) };
        if (Coin()) r.Lora.AlphaPattern = new() { [new string('x', 1500)] = random.NextSingle() + 0.1f };
        if (!r.Lora.TargetModules.IsPattern && Coin())
            (r.Lora.LayersToTransform, r.Lora.LayersPattern) = ([0, 3], Coin() ? ["layers"] : []);
        r.Lora.InitLoraWeights = Coin() ? "gaussian" : "true";
        r.Training.LearningRate = random.NextDouble() * Math.Pow(10, -random.Next(8)) + double.Epsilon;
        r.Training.WeightDecay = random.NextDouble() / 3;
        r.Training.AdamEpsilon = Math.Pow(10, -random.Next(4, 300));
        r.Training.NumTrainEpochs = random.NextDouble() * 10 + 0.001;
        r.Training.GradientCheckpointing = Coin() ? Coin() : null;
        r.Training.CudaGraphs = Coin() ? Coin() : null;
        r.Training.Seed = random.Next(int.MinValue, int.MaxValue);
        r.Data = new()
        {
            Train = "/data/" + random.Next(),
            Validation = Coin() ? "/v" : null,
            Test = Coin() ? "embedded:reviews" : null,
            TextField = "t" + random.Next(9),
            ValidationFraction = random.NextDouble(),
        };
        string Around() =>
            // braces name columns there
            Odd(random).Replace("{", "", StringComparison.Ordinal).Replace("}", "", StringComparison.Ordinal);
        r.Task.Template = Around() + "{text}" + Around();
        r.Task.Labels = [];
        for (int i = random.Next(2, 5); i > 0; i--) r.Task.Labels[Odd(random) + i] = Odd(random);
        if (Coin()) r.Task.Replace = new() { [Odd(random)] = Odd(random), ["<br />"] = "" };
        return r;
    }

    private static readonly ModelConfig Config = new()
    {
        VocabSize = 100,
        HiddenSize = 8,
        IntermediateSize = 16,
        NumHiddenLayers = 2,
        NumAttentionHeads = 2,
        NumKeyValueHeads = 1,
        HeadDim = 4,
    };

    public static TheoryData<string, bool> Configurations() => new()
    {
            { "theta", true },
            { "eps", true },
            { "window", true },
            { "scaling", true },
            { "scaled attention", true },
            { "divisors", true },
            { "tie", true },
            { "bias", true },
            { "mlp", true },
            { "heads", true },
            { "same", false },
            { "tokens", false },
            { "default scaling", false },
            { "no layer slides", false },
            { "positions", false },
    };

    [Theory, MemberData(nameof(Configurations))]
    public void AConfigurationIsAnotherWhereItsMathsIs(string change, bool another)
    {
        var changed = change switch
        {
            "theta" => Config with { RopeTheta = 500 },
            "eps" => Config with { RmsNormEps = 1e-5f },
            "window" => Config with { SlidingWindow = 16 },
            "scaling" => Config with { RopeScaling = new("linear", 2) },
            "scaled attention" => Config with { RopeScaling = new("linear", 2, AttentionFactor: 1.5) },
            "divisors" => Config with { RopeDivisors = [1, 2] },
            "tie" => Config with { TieWordEmbeddings = true },
            "bias" => Config with { AttentionBias = true },
            "mlp" => Config with { MlpBias = true },
            "heads" => Config with { NumKeyValueHeads = 2 },
            "tokens" => Config with { BosTokenId = 1, EosTokenIds = [2, 3], PadTokenId = 0, Architecture = "X" },
            "default scaling" => Config with { RopeScaling = new("default") },
            "no layer slides" => Config with { SlidingWindow = 16, FirstSlidingLayer = 2 },
            "positions" => Config with { MaxPositionEmbeddings = 4096 },
            _ => Config with { },
        };
        Assert.Equal(
            another,
            ConfigIdentity.Hash(ConfigIdentity.List(changed)) != ConfigIdentity.Hash(ConfigIdentity.List(Config)));
    }

    /// <summary>
    /// A field that is added to the configuration is put either into the identity or on the list of those that change
    /// nothing.
    /// </summary>
    [Fact]
    public void EveryFieldOfAConfigurationIsAccountedFor()
    {
        string[] known =
        [
            .. ConfigIdentity.Harmless,
            nameof(ModelConfig.VocabSize),
            nameof(ModelConfig.HiddenSize),
            nameof(ModelConfig.IntermediateSize),
            nameof(ModelConfig.NumHiddenLayers),
            nameof(ModelConfig.NumAttentionHeads),
            nameof(ModelConfig.NumKeyValueHeads),
            nameof(ModelConfig.HeadDim),
            nameof(ModelConfig.MaxPositionEmbeddings),
            nameof(ModelConfig.RmsNormEps),
            nameof(ModelConfig.RopeTheta),
            nameof(ModelConfig.RopeScaling),
            nameof(ModelConfig.RopeDivisors),
            nameof(ModelConfig.TieWordEmbeddings),
            nameof(ModelConfig.AttentionBias),
            nameof(ModelConfig.AttentionOutputBias), nameof(ModelConfig.MlpBias), nameof(ModelConfig.SlidingWindow),
        ];
        Assert.Empty(typeof(ModelConfig).GetProperties().Select(p => p.Name).Except(known));
        Assert.Equal(
            [
                "Type", "Factor", "LowFreqFactor", "HighFreqFactor", "OriginalMaxPositionEmbeddings", "BetaFast",
                "BetaSlow", "AttentionFactor"],
            typeof(RopeScaling).GetProperties().Where(p => p.Name != "EqualityContract").Select(p => p.Name));
    }

    [Fact]
    public void RowsAreTheSameByWhatIsTrained()
    {
        int[][] answers = [[7], [8]];
        LabelWordRow[] rows = [new([1, 2, 7], 2, 0), new([1, 3, 8], 2, 1, "hard")];
        string Of(params LabelWordRow[] r) => RowsHash.Compute(new RowList(r), answers);
        Assert.Equal("", Of());
        // of manifests that are there: never change it
        Assert.Equal("98e1e46530ffd0eb85c0356dbbe6a13bfeb09f053db1e2dd5a0664aefad8e0cc", Of(rows));
        Assert.Equal(Of(rows), Of(rows[0], new LabelWordRow([1, 3, 8], 2, 1))); // a tier is no more than a name
        Assert.NotEqual(Of(rows), Of(rows[1], rows[0]));
        Assert.NotEqual(Of(rows), Of(rows[0]));
        Assert.NotEqual(Of(rows), Of(rows[0], rows[1] with { Ids = [1, 3, 7] }));
        Assert.NotEqual(Of(rows), Of(rows[0], rows[1] with { LabelIndex = 0 }));
        Assert.NotEqual(Of(rows), Of(rows[0], rows[1] with { AnswerStart = 1 }));
        Assert.NotEqual(
            Of(new LabelWordRow([1, 2], 1, 0), new LabelWordRow([3], 1, 0)),
            Of(new LabelWordRow([1], 1, 0), new LabelWordRow([2, 3], 1, 0)));
        Assert.NotEqual(
            RowsHash.Compute(new RowList(rows), answers), RowsHash.Compute(new RowList(rows), [[7], [8], [9]]));
    }
}
