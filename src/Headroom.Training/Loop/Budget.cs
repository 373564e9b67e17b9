using Headroom.Core;
using Headroom.Models;
using Headroom.Planning;

namespace Headroom.Training;

/// <summary>Chooses as little recompute as a memory budget allows, and what to do with memory that is left; says what would fit when nothing does.</summary>
public static class Budget
{
    // What is left of a budget is not worth a row of the plan below this.
    private const long LeastExpanded = 16L << 20;

    // The last layer's activations stay through the loss alone. With 32 layers not to recompute it saves 0.8 % of a step.
    private const int LastLayerShare = 50;

    // Kernels that are loaded at their first use, part of the workspace, and what the driver rounds.
    private const long LeftFree = 64L << 20;

    /// <summary>
    /// Bytes a plan may take of a device, and what a refusal says of them: what is allowed, but no more than the process could have. A plan counts the
    /// whole process, so that is what is free now and what the process holds beside the arena. Null = no limit: nothing is set, and the device does not say.
    /// </summary>
    /// <param name="allowed">Bytes that the user allows the process; null = no limit.</param>
    /// <param name="device">The device, with its workspace and without an arena.</param>
    public static (long? Bytes, string Words) Of(long? allowed, IDevice device)
    {
        if (device.ReadMemory() is not { Total: > 0 } m) return (allowed, "are allowed");
        long could = Math.Max(0, m.Total - m.Used + device.WorkspaceBytes - LeftFree);
        return allowed <= could ? (allowed, "are allowed") : (could, $"are free on {device.Name} for this process");
    }

    /// <summary>
    /// The plan, and the settings with the number of layers that recompute and the bytes of weights that stay expanded. Without a budget nothing is
    /// recomputed beyond what the settings ask for; of all layers the last, whose activations are needed at once, is left out where that costs less than a fiftieth. Throws <see cref="HeadroomException"/> when it cannot fit.
    /// </summary>
    /// <param name="config">The architecture.</param>
    /// <param name="settings">Its settings.</param>
    /// <param name="limits">The largest batches.</param>
    /// <param name="workspace">Bytes of the device beside the arena.</param>
    /// <param name="budget">Bytes the plan may take; null = no limit.</param>
    /// <param name="device">The device, or null for a plan without one.</param>
    /// <param name="expanded">Bytes in which weights may stay expanded, at most; null = what the budget leaves. Only where the device expands weights, and only as far as the budget allows.</param>
    /// <param name="allowed">What a refusal says of the budget.</param>
    public static (MemoryPlan Plan, ModelSettings Settings) Fit(ModelConfig config, ModelSettings settings, BatchLimits limits, long workspace, long? budget, IDevice? device = null, long? expanded = null, string allowed = "are allowed")
    {
        MemoryPlan Plan(ModelSettings s, BatchLimits l) => Engine.MakePlan(config, s, l, workspace, out _, device);
        var (plan, fitted) = Recompute(config, settings, limits, budget, allowed, Plan);
        if (device?.ExpandsWeights != true || expanded == 0) return (plan, fitted);
        long left = budget is { } bytes ? bytes - plan.TotalBytes : expanded ?? 0;
        long room = Math.Min(Math.Min(left, expanded ?? left), Engine.ExpandableBytes(config, fitted)) >> 20 << 20;
        if (room < LeastExpanded) return (plan, fitted);
        fitted = fitted with { ExpandedBytes = room };
        return (Plan(fitted, limits), fitted);
    }

    private static (MemoryPlan Plan, ModelSettings Settings) Recompute(ModelConfig config, ModelSettings settings, BatchLimits limits, long? budget, string allowed, Func<ModelSettings, BatchLimits, MemoryPlan> planner)
    {
        int layers = config.NumHiddenLayers;
        ModelSettings With(int n) => settings with { RecomputeLayers = n };
        int given = settings.RecomputeLayers < 0 ? layers : settings.RecomputeLayers;
        var plan = planner(With(given), limits);
        if (settings.RecomputeLayers < 0 && planner(With(layers - 1), limits) is var but && but.TotalBytes - plan.TotalBytes <= plan.TotalBytes / LastLayerShare) (plan, given) = (but, layers - 1);
        if (budget is not { } bytes || plan.TotalBytes <= bytes) return (plan, With(given));
        int low = given, high = layers; // the total falls with the number of recomputed layers
        var full = planner(With(layers), limits);
        if (full.TotalBytes > bytes) throw Refuse(With(layers), limits, full, bytes, allowed, planner);
        while (high - low > 1)
        {
            int mid = (low + high) / 2;
            if (planner(With(mid), limits).TotalBytes <= bytes) high = mid;
            else low = mid;
        }
        return (planner(With(high), limits), With(high));
    }

    private static HeadroomException Refuse(ModelSettings settings, BatchLimits limits, MemoryPlan plan, long budget, string allowed, Func<ModelSettings, BatchLimits, MemoryPlan> planner)
    {
        string biggest = string.Join(", ", plan.Rows().OrderByDescending(r => r.Bytes).Take(3).Select(r => $"{r.Category} ({r.Phase}) {r.Bytes >> 20} MiB"));
        var changes = new List<(string What, long Bytes)>();
        void Try(string what, ModelSettings s, BatchLimits l) => changes.Add((what, planner(s, l).TotalBytes));
        BatchLimits Part(int rows, int tokens) => limits with
        {
            TrainSequences = rows, TrainTokens = tokens, TrainLabels = Math.Min(limits.TrainLabels, tokens),
            EvalSequences = Math.Min(limits.EvalSequences, rows), EvalTokens = Math.Min(limits.EvalTokens, tokens),
        };
        int rows = limits.TrainSequences, tokens = limits.TrainTokens;
        for (int n = rows / 2; n >= 1; n /= 2) Try($"per_device_train_batch_size {n}", settings, Part(n, tokens / rows * n));
        for (int f = 2; f <= 8; f *= 2) Try($"max_seq_length {tokens / rows / f}", settings, Part(rows, tokens / f));
        if (settings.Lora is { R: > 4 } lora) Try("r 4", settings with { Lora = lora with { R = 4 } }, limits);
        if (settings.LinearStorage is not WeightStorage.NF4Double) Try("load_in_4bit", settings with { LinearStorage = WeightStorage.NF4Double }, limits);
        var fits = changes.Where(c => c.Bytes <= budget).OrderByDescending(c => c.Bytes).Take(3).Select(c => $"{c.What} ({c.Bytes >> 20} MiB)").ToList();
        return new HeadroomException($"{plan.TotalBytes >> 20} MiB are needed even with full recompute, {(budget < 1 << 20 ? Units.Bytes(budget) : $"{budget >> 20} MiB")} {allowed}; the biggest rows: {biggest}.",
            fits.Count > 0 ? "Any of these fits: " + string.Join("; ", fits) + "." : $"No single change fits; the static part alone takes {plan.StaticBytes >> 20} MiB. Choose a smaller model.");
    }
}
