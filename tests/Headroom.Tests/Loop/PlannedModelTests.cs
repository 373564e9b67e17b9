using Headroom.Core;
using Headroom.Cpu;
using Headroom.Inference;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;

namespace Headroom.Tests.Loop;

/// <summary>A run plans each candidate once, and its engine is made of the plan that was chosen.</summary>
public sealed class PlannedModelTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-planned-").FullName;

    /// <summary>A CPU that is asked by every plan how it replays a micro-step, and keeps what it was asked.</summary>
    private sealed class Asked : IDevice, IReplaysSteps
    {
        private readonly CpuDevice _cpu = new(1);
        public List<(double Flops, long Calls)> Plans { get; } = [];
        public string Name => _cpu.Name;
        public IOps Ops => _cpu.Ops;
        public long WorkspaceBytes => _cpu.WorkspaceBytes;
        public nint Reserve(long bytes, long later = 0) => _cpu.Reserve(bytes, later);
        public void Upload(ReadOnlySpan<byte> source, Tensor destination) => _cpu.Upload(source, destination);
        public void Download(Tensor source, Span<byte> destination) => _cpu.Download(source, destination);
        public void Dispose() => _cpu.Dispose();

        public StepReplay Replay(double flops, long calls, DType compute)
        {
            Plans.Add((flops, calls));
            return default;
        }

        public StepStart Begin(in StepShape shape, in StepReplay replay, uint dropoutStep, float gradScale) =>
            StepStart.Issue;

        public bool EndRecord(Exception? failure) => false;
    }

    private static Recipe Recipe() => RecipeLoader.Parse($$"""
        name: planned
        models: [ { path: '{{Path.Combine(Shared.Checkout, "models", "llama-tiny")}}' } ]
        data: { train: "embedded:reviews", max_train_rows: 32, max_eval_rows: 8 }
        task: { template: "{text}", labels: { "0": " negative", "1": " positive" } }
        training: { max_steps: 1, per_device_train_batch_size: 8, eval_strategy: "no" }
        """);

    private PreparedRun Prepare(IDevice device, long? budget)
    {
        var recipe = Recipe();
        return PreparedRun.Prepare(recipe, recipe.Models[0], () => device, budget, (_, _, _, _) => { });
    }

    [Fact]
    public void ARunPlansEachCandidateOnceAndItsEngineNone()
    {
        (long All, long Least) totals;
        using (var device = new Asked())
        using (var free = Prepare(device, null))
            totals = Totals(free);
        foreach (long? budget in new long?[] { null, (totals.All + totals.Least) / 2, totals.Least })
        {
            using var alone = new Asked();
            using var prepared = Prepare(alone, budget);
            var trained = new Asked();
            var recipe = Recipe();
            var host = new RunHost(
                Path.Combine(_folder, $"{budget}"), false, () => trained, budget, _ => { }, (_, _, _, _) => { });
            Assert.True(
                TrainRun.Run(recipe, null, recipe.Models[0], host, TestContext.Current.CancellationToken).Completed);
            Assert.Equal(alone.Plans, trained.Plans); // what `headroom plan` plans, and no more
            Assert.Equal(trained.Plans.Distinct(), trained.Plans);
            Assert.InRange(trained.Plans.Count, budget == null ? 1 : 2, 4);
        }
    }

    private static (long All, long Least) Totals(PreparedRun run)
    {
        long Total(int recompute) => PlannedModel.Make(
            run.Planned.Config, run.Settings with { RecomputeLayers = recompute }, run.Limits,
            run.Plan.WorkspaceBytes).Plan.TotalBytes;
        return (Total(0), Total(-1));
    }

    [Fact]
    public void AnEngineReservesThePlanItIsGiven()
    {
        var device = new Asked();
        using var prepared = Prepare(device, null);
        int plans = device.Plans.Count;
        using var engine = new Engine(device, prepared.Source, prepared.Planned);
        Assert.Same(prepared.Plan, engine.Plan);
        Assert.Equal(plans, device.Plans.Count);
    }

    public void Dispose() => Directory.Delete(_folder, true);
}
