using System.Text.RegularExpressions;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Training.Loop;
using Headroom.Training.Pretraining;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;

namespace Headroom.Tests.Loop;

/// <summary>What a memory budget is spent on: first no recompute, then weights that stay expanded.</summary>
public class BudgetTests
{
    private const long MiB = 1 << 20;

    private static readonly ModelConfig Config = new()
    {
        ModelType = "llama",
        HiddenSize = 512,
        IntermediateSize = 1408,
        VocabSize = 2000,
        NumHiddenLayers = 8,
        NumAttentionHeads = 8,
        NumKeyValueHeads = 8,
        HeadDim = 64,
        RmsNormEps = 1e-5f,
    };
    private static readonly ModelSettings Settings = new(
        WeightStorage.NF4Double, WeightStorage.BF16, TrainMode.Adapters,
        new LoraConfig(16, 32, 0.1f, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]),
        ComputeType: DType.BF16);
    private static readonly BatchLimits Limits = new(1024, 2, 1024);

    // A device of which nothing is asked but its plan.
    private class Planned(IDevice inner, MemoryUse? memory = null, long records = 0)
        : IDevice, IDeviceLimits, IReplaysSteps
    {
        public long Later { get; private set; }
        public MemoryUse? ReadMemory() => memory;
        public StepReplay Replay(double flops, long calls, DType compute) => new(records, false);
        public string Name => inner.Name;
        public IOps Ops => inner.Ops;
        public long WorkspaceBytes => 3 * MiB;
        public int LargestRank(int widest, DType compute) => 341 * 1408 / widest;
        public nint Reserve(long bytes, long later = 0)
        {
            Later = later;
            return inner.Reserve(bytes, later);
        }
        public void Upload(ReadOnlySpan<byte> source, Tensor destination) => inner.Upload(source, destination);
        public void Download(Tensor source, Span<byte> destination) => inner.Download(source, destination);
        public StepStart Begin(in StepShape shape, in StepReplay replay, uint dropoutStep, float gradScale) =>
            StepStart.Issue;

        public bool EndRecord(Exception? failure) => false;
        public void Dispose() => inner.Dispose();
    }

    // One that expands weights.
    private sealed class Expanding(IDevice inner, MemoryUse? memory = null, long records = 0)
        : Planned(inner, memory, records), IKeepsExpandedWeights
    {
        public Tensor Room { get; private set; }
        public void KeepExpanded(Tensor room) => Room = room;
        public void AdaptersChanged() { }
        public void WeightsChanged() { }
    }

    private static (long Total, int Recompute, long Expanded) Fit(
        long? budget, long? expanded = null, bool expands = true)
    {
        using var device = expands ? new Expanding(new CpuDevice()) : new Planned(new CpuDevice());
        var fitted = Budget.Fit(Config, Settings, Limits, device.WorkspaceBytes, budget, device, expanded);
        return (fitted.Plan.TotalBytes, fitted.Settings.RecomputeLayers, fitted.Settings.ExpandedBytes);
    }

    [Fact]
    public void WhatABudgetLeavesHoldsExpandedWeights()
    {
        var (least, recompute, none) = Fit(null);
        Assert.Equal((0, 0L), (recompute, none));
        // Eight layers of 4 x 512 x 512 + 3 x 512 x 1408 weights of two bytes, 64 columns of adapters beside each.
        long all = 2L * 8 * (4 * 512 * 576 + 2 * 1408 * 576 + 512 * (1408 + 64));
        foreach (long left in new[] { 0, 15 * MiB, 16 * MiB, 30 * MiB, 45 * MiB + 5, 80 * MiB, 1000 * MiB })
        {
            long budget = least + left;
            var (total, layers, room) = Fit(budget);
            Assert.Equal(0, layers);
            Assert.True(total <= budget, $"{total} of {budget}");
            if (left < 16 * MiB) Assert.Equal(0, room);
            else if (left < all) Assert.InRange(room, left - MiB, left);
            else Assert.InRange(room, all, all + 2 * MiB);
            Assert.Equal((least + room + 63) / 64 * 64, (total + 63) / 64 * 64);
        }
        Assert.Equal((least, 0, 0L), Fit(least + 100 * MiB, expands: false));
        Assert.Equal((least, 0, 0L), Fit(least + 100 * MiB, 0));
        Assert.Equal(20 * MiB, Fit(least + 100 * MiB, 20 * MiB + 9).Expanded);
        Assert.Equal(20 * MiB, Fit(null, 20 * MiB).Expanded);
        Assert.Equal(30 * MiB, Fit(least + 30 * MiB, 50 * MiB).Expanded);
    }

    /// <summary>
    /// Columns for the adapters are given beside rows of whole groups of 64 elements only: what reads other rows finds
    /// them by octets.
    /// </summary>
    [Theory, InlineData(1408, 64), InlineData(1376, 0), InlineData(172, 0)]
    public void OddWidthsGetNoFurtherColumns(int inter, int more)
    {
        var plan = PlannedModel.Make(Config with { IntermediateSize = inter }, Settings, Limits, 0).Plan;
        Assert.Equal([inter + more], plan.Buffers.Where(b => b.Name == "swiglu").Select(b => b.Shape.D1).Distinct());
        Assert.Equal(
            [512 + 64],
            plan.Buffers.Where(b => b.Name == "norm output").Select(b => b.Shape.D1).Distinct().Where(c => c != 512));
    }

    /// <summary>
    /// A rank that the device's ops have no room for is refused before anything is reserved, by the first projection
    /// that it is too large for.
    /// </summary>
    [Fact]
    public void ARankTooLargeForTheDeviceIsRefused()
    {
        using var device = new Expanding(new CpuDevice());
        ModelSettings Of(int r) => Settings with { Lora = Settings.Lora! with { R = r } };
        PlannedModel.Make(Config, Of(341), Limits, 0, device);
        var e = Assert.Throws<HeadroomException>(() => PlannedModel.Make(Config, Of(342), Limits, 0, device));
        Assert.Contains("mlp.gate_proj has an adapter of rank 342", e.Message);
        Assert.Contains("at most 341.", e.ToDo);
        using var cpu = new CpuDevice();
        int most = cpu.LargestRank(Config.IntermediateSize, DType.F32);
        PlannedModel.Make(Config, Of(most) with { ComputeType = DType.F32 }, Limits, 0, cpu);
        Assert.Throws<HeadroomException>(() =>
            PlannedModel.Make(Config, Of(most + 1) with { ComputeType = DType.F32 }, Limits, 0, cpu)
        );
    }

    /// <summary>
    /// The last layer's activations are needed at once, so they stay unless the logits want that memory.
    /// </summary>
    [Fact]
    public void TheLastLayerIsNotRecomputedWhereThatSavesNothing()
    {
        var limits = new BatchLimits(4096, 8, 4096);
        long Total(ModelConfig config, int layers) =>
            PlannedModel.Make(config, Settings with { RecomputeLayers = layers }, limits, 0).Plan.TotalBytes;
        int Chosen(ModelConfig config) =>
            Budget.Fit(config, Settings with { RecomputeLayers = -1 }, limits, 0, null).Settings.RecomputeLayers;
        Assert.InRange(Total(Config, 7), Total(Config, 8), Total(Config, 8) * 51 / 50);
        Assert.Equal(7, Chosen(Config));
        // a chunk of logits is larger than what a layer's backward pass takes beside its activations
        var wide = Config with { VocabSize = 40000 };
        Assert.True(Total(wide, 7) > Total(wide, 8) * 51 / 50);
        Assert.Equal(8, Chosen(wide));
    }

    [Fact]
    public void RecomputeComesFirstAndIsAsLittleAsTheBudgetAllows()
    {
        long none = Fit(null).Total;
        var (total, layers, room) = Fit(none - 1);
        Assert.InRange(layers, 1, 8);
        Assert.True(total <= none - 1);
        // what a coarse step of recompute leaves may be used too
        Assert.True(room < 16 * MiB || total + MiB > none - 1);
        using var device = new Expanding(new CpuDevice());
        var e = Assert.Throws<HeadroomException>(() =>
            Budget.Fit(Config, Settings, Limits, device.WorkspaceBytes, 10 * MiB, device, allowed: "are free on a card")
        );
        Assert.Contains("10 MiB are free on a card", e.Message);
    }

    /// <summary>
    /// What is allowed is no more than what the process could have: what the card has free, and what the process holds
    /// already.
    /// </summary>
    [Fact]
    public void TheCardsFreeMemoryBoundsABudget()
    {
        using var open = new Expanding(new CpuDevice());
        var least = Budget.Fit(Config, Settings, Limits, open.WorkspaceBytes, null, open, 0).Plan;
        long free = least.ArenaBytes + 40 * MiB + 64 * MiB; // 64 MiB are left free
        using var card = new Expanding(new CpuDevice(), memory: new MemoryUse(1000 * MiB + free, 1000 * MiB, -1, 0));
        var could = Budget.Resolve(null, card);
        Assert.Equal(least.ArenaBytes + 40 * MiB + card.WorkspaceBytes, could.Bytes);
        Assert.Contains("free on", could.Words);
        Assert.Equal(could, Budget.Resolve(1L << 40, card)); // the card is not as free as what is allowed
        Assert.Equal((could.Bytes - MiB, "are allowed"), Budget.Resolve(could.Bytes - MiB, card));
        var fitted = Budget.Fit(
            Config, Settings, Limits, card.WorkspaceBytes, Budget.Resolve(1L << 40, card).Bytes, card);
        Assert.InRange(fitted.Settings.ExpandedBytes, 39 * MiB, 40 * MiB);
        long arena = fitted.Plan.ArenaBytes;
        Assert.True(arena <= free - 64 * MiB, $"an arena of {arena} in {free}");
        using var full = new Expanding(new CpuDevice(), memory: new MemoryUse(1000 * MiB, 990 * MiB, -1, 0));
        Assert.Equal(0, Budget.Resolve(null, full).Bytes);
        foreach (MemoryUse? unknown in new MemoryUse?[] { null, new MemoryUse(-1, -1, -1, 0) })
        {
            using var device = new Expanding(new CpuDevice(), memory: unknown);
            Assert.Equal((null, "are allowed"), Budget.Resolve(null, device));
            Assert.Equal((5 * MiB, "are allowed"), Budget.Resolve(5 * MiB, device));
        }
    }

    [Fact]
    public void AnEngineSaysWhatItsPlanLeavesForRecords()
    {
        var device = new Expanding(new CpuDevice(), records: 7 * MiB);
        using var engine = new Engine(device, Config, Settings with { ComputeType = DType.F32 }, Limits);
        Assert.Equal(7 * MiB, device.Later);
        Assert.Equal(10 * MiB, engine.Plan.WorkspaceBytes);
    }

    [Fact]
    public void AnEngineGivesTheRoomToItsDevice()
    {
        var device = new Expanding(new CpuDevice());
        using var engine = new Engine(
            device,
            Config,
            Settings with
            {
                ComputeType = DType.F32,
                ExpandedBytes = 18 * MiB,
            },
            Limits
        );
        Assert.Equal(18 * MiB, device.Room.Bytes);
        Assert.Equal(0, device.Room.Address % 64);
        Assert.Contains(engine.Plan.Rows(), r => r.Category == MemoryCategory.ExpandedWeights && r.Bytes == 18 * MiB);
        var small = new Expanding(new CpuDevice());
        using var without = new Engine(
            small,
            Config,
            Settings with
            {
                ComputeType = DType.F32,
                ExpandedBytes = MiB - 1,
            },
            Limits
        ); // less than one holds nothing
        Assert.True(small.Room.IsNone && without.Plan.Rows().All(r => r.Category != MemoryCategory.ExpandedWeights));
    }

    private static Dictionary<string, string> Changes(string offer) =>
        Regex
            .Matches(offer, @"(--rows|--length|--r|per_device_\w+|max_seq_length|r|rank_pattern above) (\d+)")
            .ToDictionary(m => m.Groups[1].Value, m => m.Groups[2].Value);

    // The offers of a refusal, each of which is all of a change.
    private static string[] Offers(HeadroomException e)
    {
        Assert.DoesNotContain("smaller model", e.ToDo);
        return e.ToDo[(e.ToDo.IndexOf(':') + 1)..].TrimEnd('.').Split(';');
    }

    /// <summary>
    /// Whoever follows a refusal's advice is not refused again, whatever part of the run is the largest.
    /// </summary>
    [Fact]
    public void EveryChangeThatARefusalOffersFits()
    {
        using var folder = new Formats.TempFolder();
        string model = Path.Combine(folder.Path, "base");
        Pretrainer.Run(
            new PretrainOptions
            {
                HiddenSize = 64,
                IntermediateSize = 64,
                NumHiddenLayers = 2,
                NumAttentionHeads = 2,
                Notes = 40,
                BatchSize = 4,
                VocabSize = 512,
            },
            model,
            new CpuDevice(1),
            _ => { },
            (_, _, _, _) => { },
            default
        );
        var seen = new HashSet<string>();
        foreach (string[] sizes in new string[][]
            {
                [], ["training.per_device_train_batch_size=2", "training.per_device_eval_batch_size=32"],
                ["lora.r=48", "training.per_device_train_batch_size=2"],
                ["lora.rank_pattern={q_proj: 60}", "lora.r=2", "training.per_device_eval_batch_size=1"],
            }
        )
        {
            PreparedRun Prepared(long? budget, params IEnumerable<string> sets)
            {
                var recipe = RecipeLoader.Parse("""
                    data: { train: "embedded:reviews", max_train_rows: 200, max_eval_rows: 64 }
                    task: { template: "Review: {text}\nSentiment:", labels: { "0": " negative", "1": " positive" } }
                    training: { per_device_train_batch_size: 16 }
                    """, [.. sizes, .. sets]);
                var prepared = PreparedRun.Prepare(
                    recipe, new ModelOptions { Path = model }, () => new CpuDevice(1), budget, (_, _, _, _) => { });
                prepared.Device.Dispose();
                return prepared;
            }
            long total;
            using (var all = Prepared(null)) total = all.Plan.TotalBytes;
            for (int part = 97; part >= 25; part -= 8)
            {
                long budget = total * part / 100;
                HeadroomException e;
                try
                {
                    Prepared(budget).Dispose();
                    continue;
                }
                catch (HeadroomException refused)
                {
                    e = refused;
                }
                if (e.ToDo.Contains("smaller model", StringComparison.Ordinal)) break;
                foreach (string offer in Offers(e))
                {
                    var sets = Changes(offer).Select(c => c.Key switch
                    {
                        "r" => "lora.r=" + c.Value,
                        "max_seq_length" => "task.max_seq_length=" + c.Value,
                        "rank_pattern above" => $"lora.rank_pattern={{q_proj: {c.Value}}}",
                        _ => $"training.{c.Key}={c.Value}",
                    }).ToList();
                    if (offer.Contains("load_in_4bit"))
                        sets.AddRange([
                            "quantization.load_in_4bit=true", "quantization.bnb_4bit_use_double_quant=true"]);
                    Assert.NotEmpty(sets);
                    using var fits = Prepared(budget, sets); // throws when it does not
                    Assert.True(fits.Plan.TotalBytes <= budget);
                    seen.UnionWith(Changes(offer).Keys);
                    if (sets.Count > 1) seen.Add("together");
                }
            }
        }
        Assert.Equal(
            [
                "max_seq_length", "per_device_eval_batch_size", "per_device_train_batch_size", "r",
                "rank_pattern above", "together"],
            seen.Order(StringComparer.Ordinal)
        );
    }

    /// <summary>
    /// A rank that is the cause is named as one: the largest of its halves that fits, with larger ranks of rank_pattern
    /// cut to it; a smaller model only where nothing helps.
    /// </summary>
    [Fact]
    public void ARankThatIsTheCauseIsNamed()
    {
        LoraConfig Lora(int r, int? q) =>
            Settings.Lora! with
            {
                R = r,
                RankPattern = q is { } rank ? new() { ["q_proj"] = rank } : [],
            };
        ModelSettings Of(int r, int? q = null) => Settings with { Lora = Lora(r, q) };
        BatchLimits Rows(int n) => new(n * 512, n, n * 511, n * 512, n);
        long Total(ModelSettings s, int rows) =>
            PlannedModel.Make(Config, s with { RecomputeLayers = 8 }, Rows(rows), 0).Plan.TotalBytes;
        string Advice(ModelSettings s, int rows, long budget, bool flags) =>
            Assert.Throws<HeadroomException>(() => Budget.Fit(Config, s, Rows(rows), 0, budget, flags: flags)).ToDo;
        Assert.Contains("; r 64 (", "; " + Advice(Of(256), 2, Total(Of(64), 2), false).Split(": ")[^1]);
        Assert.Contains("--r 64 (", Advice(Of(256), 2, Total(Of(64), 2), true));
        Assert.Contains(
            "r 32 with no rank of rank_pattern above 32 (", Advice(Of(64, 256), 2, Total(Of(32, 32), 2), false));
        Assert.Contains(": no rank of rank_pattern above 32 (", Advice(Of(8, 256), 1, Total(Of(8, 32), 1), false));
        // Rows of a plan without a recipe are those of its evaluation too.
        Assert.Contains("--rows 2 (", Advice(Of(16), 8, Total(Of(16), 2), true));
        long least = Total(Of(4), 1);
        Assert.Contains("do together: --rows 1, --r 4 (", Advice(Of(256), 8, least, true));
        Assert.Contains(
            "do together: per_device_train_batch_size 1, per_device_eval_batch_size 1, r 4 (",
            Advice(Of(256), 8, least, false));
        Assert.Contains("smaller model", Advice(Of(256), 8, MiB, true));
    }

    /// <summary>A pattern that no adapted module answers to would be passed over in silence.</summary>
    [Theory]
    [InlineData("rank_pattern: { nope: 4 }", "lora.rank_pattern: 'nope'")]
    [InlineData("rank_pattern: { q_proj: 4, 'layers.7.*': 8 }", "lora.rank_pattern: 'layers.7.*'")]
    [InlineData("alpha_pattern: { o_proj: 4 }, target_modules: [q_proj]", "lora.alpha_pattern: 'o_proj'")]
    [InlineData("rank_pattern: { '.*1.self_attn.q_proj': 4 }, alpha_pattern: { 'mlp.(up|down)_proj': 4 }", null)]
    public void APatternThatMatchesNothingIsRefused(string lora, string? says)
    {
        var options = RecipeLoader.Parse($"lora: {{ {lora} }}").Lora;
        if (says == null) PreparedRun.CheckPatterns(options, TinyModelConfig);
        else
        {
            var e = Assert.Throws<HeadroomException>(() => PreparedRun.CheckPatterns(options, TinyModelConfig));
            Assert.StartsWith(says, e.Message);
            Assert.Equal(2, e.ExitCode);
        }
    }

    private static ModelConfig TinyModelConfig => Config with { NumHiddenLayers = 2 };
}
