using System.Text.RegularExpressions;
using Headroom.Core;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tests.Models;

namespace Headroom.Tests.Cpu;

/// <summary>Ops are timed by the names that the plan counts under, the outermost of those within one another.</summary>
public partial class OpTimerTests
{
    // Each reading is a millisecond later.
    private sealed class Ticks : IClock
    {
        private long _now;
        public long Start() => _now++;
        public double Stop(long start) => _now++ - start;
    }

    [GeneratedRegex(
        @"^    public \w+ (\w+)\([^)]*\)\s*\{\s*using var _ = OpTimer\.Op\(""(\w+)""\);", RegexOptions.Multiline)]
    private static partial Regex Scope();

    // The name under which each op of a folder is timed.
    private static Dictionary<string, string> Timed(string project, string files) =>
        Directory.EnumerateFiles(Path.Combine(Shared.Sources, project), files)
            .SelectMany(f => Scope().Matches(File.ReadAllText(f)))
            .ToDictionary(m => m.Groups[1].Value, m => m.Groups[2].Value);

    /// <summary>
    /// An op that opens no scope, or another on another device, or one that is not counted, fails here.
    /// </summary>
    [Fact]
    public void EveryOpOpensItsScope()
    {
        var cpu = Timed("Headroom.Cpu", "CpuOps*.cs");
        var cuda = Timed("Headroom.Cuda", "CudaOps*.cs");
        Assert.Equal(typeof(IOps).GetMethods().Select(m => m.Name).Order(), cpu.Keys.Order());
        Assert.Equal(cpu.OrderBy(o => o.Key, StringComparer.Ordinal), cuda.OrderBy(o => o.Key, StringComparer.Ordinal));
        string planning = string.Concat(Directory.EnumerateFiles(Path.Combine(Shared.Sources, "Headroom.Planning"),
            "PlanningOps*.cs").Select(File.ReadAllText));
        Assert.All(cpu.Values, name => Assert.Matches($@"Count\(\s*""{name}""", planning));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void AStepIsTimedAsItIsCounted(bool dora)
    {
        var config = TinyModel.Small();
        var batch = TinyModel.Batch(TinyModel.Rows(config, [20, 31]));
        var settings = new ModelSettings(
            WeightStorage.NF4Double, WeightStorage.BF16, TrainMode.Adapters, TinyModel.Lora(0.1f, dora: dora), 1);
        using var engine = TinyModel.Open(config, settings, batch.Tokens, batch.Sequences);
        var limits = new BatchLimits(batch.Tokens, batch.Sequences, batch.Tokens);
        var plan = PlannedModel.Make(config, settings, limits, 0);
        var timer = new OpTimer(new Ticks());
        void Step() => engine.MicroStep(batch.Host, new Dropout(0.1f, 7, 0, 0), 0.01f);
        Step();
        Assert.Empty(timer.Times);
        timer.Start();
        try
        {
            Assert.True(OpTimer.IsOn);
            Step();
        }
        finally
        {
            OpTimer.Stop();
        }
        Assert.False(OpTimer.IsOn);
        Assert.All(timer.Times.Keys, name => Assert.Contains(name, plan.Counts.Keys));
        // One reading of the clock at each end of an op, and none within: nothing was timed twice.
        Assert.All(timer.Times, t => Assert.Equal(t.Value.Calls, t.Value.Milliseconds));
        foreach (string op in new[] { "rms_norm", "add_rms_norm", "attention", "attention_backward", "swiglu" })
            Assert.Equal(plan.Counts[op].Calls, timer.Times[op].Calls);
        if (dora) return;
        // q, k and v are one product; o; gate and up; down, which a recomputed layer leaves out
        Assert.Equal(4 * config.NumHiddenLayers + 3, timer.Times["linear"].Calls);
        Assert.Equal(config.NumHiddenLayers, timer.Times["down_swiglu_backward"].Calls);
        var before = timer.Times["linear"];
        Step();
        Assert.Equal(before, timer.Times["linear"]);
        timer.Clear();
        Assert.Empty(timer.Times);
    }
}
