using Headroom.Core;
using Headroom.Models;
using Headroom.Planning;

namespace Headroom.Inference;

/// <summary>
/// A model planned: what it was planned for, every buffer, and what a full training micro-step counts. An
/// <see cref="Engine"/> made of it reserves just that and plans nothing again.
/// </summary>
internal sealed class PlannedModel
{
    private PlannedModel(
        ModelConfig config, ModelSettings settings, BatchLimits limits, MemoryPlan plan, PlanningOps counted,
        StepReplay replay)
    {
        (Config, Settings, Limits, Plan, Replay) = (config, settings, limits, plan, replay);
        (Counts, Flops) = (counted.Counts, counted.Flops);
    }

    /// <summary>The architecture.</summary>
    public ModelConfig Config { get; }
    /// <summary>Storage, adapters, precision and recompute.</summary>
    public ModelSettings Settings { get; }
    /// <summary>The largest batches.</summary>
    public BatchLimits Limits { get; }
    /// <summary>Every buffer; its arena size is what an engine reserves.</summary>
    public MemoryPlan Plan { get; }
    /// <summary>What the ops of a full training micro-step count, by name; empty where none is planned.</summary>
    public IReadOnlyDictionary<string, OpCount> Counts { get; }
    /// <summary>FLOPs of a full training micro-step.</summary>
    public double Flops { get; }
    /// <summary>How the device replays micro-steps; what that takes is in the plan.</summary>
    public StepReplay Replay { get; }

    /// <summary>Runs the model over planning ops and memory.</summary>
    /// <param name="config">The architecture.</param>
    /// <param name="settings">Its settings.</param>
    /// <param name="limits">The largest batches.</param>
    /// <param name="workspaceBytes">Bytes of the device beside the arena.</param>
    /// <param name="device">The device, whose limits are checked and whose records of micro-steps are counted; null for
    /// a plan without one.</param>
    /// <exception cref="HeadroomException">The device does not take such heads or ranks.</exception>
    public static PlannedModel Make(
        ModelConfig config, ModelSettings settings, BatchLimits limits, long workspaceBytes, IDevice? device = null)
    {
        var memory = new PlanningMemory();
        var ops = new PlanningOps(memory);
        var model = new LlamaModel(config, settings, ops, memory);
        ModelLoader.Staging(model, memory);
        if (device is IDeviceLimits most) CheckDevice(model, settings.ComputeType, device.Name, most);
        if (limits.EvalTokens > 0)
        {
            Phases.Losses(
                memory, limits.EvalTokens, limits.EvalSequences, limits.EvalTokens, out var b, out var losses);
            model.Losses(b, losses);
            Phases.Scores(
                memory, limits.EvalTokens, limits.EvalSequences, limits.EvalSequences, limits.Candidates, out b,
                out var c, out var s, out var lse);
            model.Scores(b, c, s, lse);
        }
        if (limits.GenerateTokens > 0)
        {
            memory.BeginPhase(Phases.Generate);
            var cache = new KvCache(model, memory, limits.GenerateTokens);
            Phases.Decode(
                model, memory, Math.Min(limits.PromptTokens, limits.GenerateTokens), out var b, out var logits);
            model.Decode(b, cache, logits);
        }
        model.RefreshAdapters();
        ops.ResetCounts();
        StepReplay replay = default;
        if (limits.TrainTokens > 0)
        {
            Phases.Train(
                memory, limits.TrainTokens, BatchPadding.Sequences(limits), limits.TrainLabels, limits.LabelWeights,
                out var b, out var losses);
            // what is counted is a batch that is not padded
            b = b with { Offsets = b.Offsets.Head(limits.TrainSequences + 1) };
            model.ForwardBackward(b, new Dropout(settings.Lora?.LoraDropout ?? 0, 0, 0, 0), 1, losses);
            if (device is IReplaysSteps replays)
                replay = replays.Replay(ops.Flops, ops.Counts.Values.Sum(c => c.Calls), settings.ComputeType);
        }
        return new PlannedModel(config, settings, limits, memory.Build(workspaceBytes + replay.Bytes), ops, replay);
    }

    private static void CheckDevice(LlamaModel model, DType compute, string name, IDeviceLimits device)
    {
        if (model.Config.HeadDim > device.LargestHead)
            throw new HeadroomException($"The model has heads of {model.Config.HeadDim} elements; {name} "
                + $"takes {device.LargestHead} at most.", "Run with --device cpu.");
        foreach (var p in model.Projections)
            if (device.LargestRank(Math.Max(p.Weight.In, p.Weight.Out), compute) is var most && p.Rank > most)
                throw new HeadroomException(
                    $"{p.Path} has an adapter of rank {p.Rank}; {name} takes {most} at most there.",
                    $"Choose a rank of at most {most}.");
    }

    /// <summary>
    /// Bytes that the frozen weights take in the activation type; see <see cref="LlamaModel.ExpandableBytes"/>.
    /// </summary>
    public static long ExpandableBytes(ModelConfig config, ModelSettings settings)
    {
        var memory = new PlanningMemory();
        return new LlamaModel(config, settings, new PlanningOps(memory), memory).ExpandableBytes;
    }
}
