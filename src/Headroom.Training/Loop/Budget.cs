using Headroom.Core;
using Headroom.Inference;
using Headroom.Models;

namespace Headroom.Training.Loop;

/// <summary>
/// Chooses as little recompute as a memory budget allows, and what to do with memory that is left; says what would fit
/// when nothing does.
/// </summary>
internal static class Budget
{
    // What is left of a budget is not worth a row of the plan below this.
    private const long LeastExpanded = 16L << 20;

    // The last layer's activations stay through the loss alone. With 32 layers not to recompute it saves 0.8 % of a
    // step.
    private const int LastLayerShare = 50;

    // Kernels that are loaded at their first use, part of the workspace, and what the driver rounds.
    private const long LeftFree = 64L << 20;

    /// <summary>
    /// Bytes a plan may take of a device, and what a refusal says of them: what is allowed, but no more than the
    /// process could have. A plan counts the whole process, so that is what is free now and what the process holds
    /// beside the arena. Null = no limit: nothing is set, and the device does not say.
    /// </summary>
    /// <param name="allowed">Bytes that the user allows the process; null = no limit.</param>
    /// <param name="device">The device, with its workspace and without an arena.</param>
    public static (long? Bytes, string Words) Resolve(long? allowed, IDevice device)
    {
        if (device.ReadMemory() is not { Total: > 0 } m) return (allowed, "are allowed");
        long could = Math.Max(0, m.Total - m.Used + device.WorkspaceBytes - LeftFree);
        return allowed <= could ? (allowed, "are allowed") : (could, $"are free on {device.Name} for this process");
    }

    /// <summary>
    /// The model planned, with the number of layers that recompute and the bytes of weights that stay expanded; no
    /// candidate is planned twice. Without a budget nothing is recomputed beyond what the settings ask for; of all
    /// layers the last, whose activations are needed at once, is left out where that costs less than a fiftieth. Throws
    /// <see cref="HeadroomException"/> when it cannot fit.
    /// </summary>
    /// <param name="config">The architecture.</param>
    /// <param name="settings">Its settings.</param>
    /// <param name="limits">The largest batches.</param>
    /// <param name="workspace">Bytes of the device beside the arena.</param>
    /// <param name="budget">Bytes the plan may take; null = no limit.</param>
    /// <param name="device">The device, or null for a plan without one.</param>
    /// <param name="expanded">Bytes in which weights may stay expanded, at most; null = what the budget leaves. Only
    /// where the device expands weights, and only as far as the budget allows.</param>
    /// <param name="allowed">What a refusal says of the budget.</param>
    /// <param name="flags">A plan without a recipe: a refusal names the flags of <c>headroom plan</c>, and evaluation
    /// has as many rows as training.</param>
    /// <param name="leastLength">The smallest max_seq_length that is taken.</param>
    /// <param name="longest">Tokens of the longest row where micro-batches have a budget of tokens, else 0.</param>
    public static PlannedModel Fit(
        ModelConfig config,
        ModelSettings settings,
        BatchLimits limits,
        long workspace,
        long? budget,
        IDevice? device = null,
        long? expanded = null,
        string allowed = "are allowed",
        bool flags = false, int leastLength = 2, int longest = 0)
    {
        var made = new Dictionary<(ModelSettings, BatchLimits), PlannedModel>();
        PlannedModel Plan(ModelSettings s, BatchLimits l) => made.TryGetValue((s, l), out var known)
            ? known
            : made[(s, l)] = PlannedModel.Make(config, s, l, workspace, device);
        var fitted = Recompute(
            config.NumHiddenLayers, settings, budget, n => Plan(settings with { RecomputeLayers = n }, limits),
            (full, bytes) => new BudgetRefusal(full, bytes, flags, leastLength, longest, Plan).Make(allowed));
        if (device is not IKeepsExpandedWeights || expanded == 0) return fitted;
        long left = budget is { } bytes ? bytes - fitted.Plan.TotalBytes : expanded ?? 0;
        long most = PlannedModel.ExpandableBytes(config, fitted.Settings);
        long room = Math.Min(Math.Min(left, expanded ?? left), most) >> 20 << 20;
        return room < LeastExpanded ? fitted : Plan(fitted.Settings with { ExpandedBytes = room }, limits);
    }

    private static PlannedModel Recompute(
        int layers, ModelSettings settings, long? budget, Func<int, PlannedModel> planner,
        Func<PlannedModel, long, HeadroomException> refuse)
    {
        int given = settings.RecomputeLayers < 0 ? layers : settings.RecomputeLayers;
        var planned = planner(given);
        if (
            settings.RecomputeLayers < 0
            && planner(layers - 1) is var but
            && planned.Plan.TotalBytes is var all
            && but.Plan.TotalBytes - all <= all / LastLayerShare
        )
            (planned, given) = (but, layers - 1);
        if (budget is not { } bytes || planned.Plan.TotalBytes <= bytes) return planned;
        int low = given, high = layers; // the total falls with the number of recomputed layers
        var full = planner(layers);
        if (full.Plan.TotalBytes > bytes) throw refuse(full, bytes);
        while (high - low > 1)
        {
            int mid = (low + high) / 2;
            if (planner(mid).Plan.TotalBytes <= bytes) high = mid;
            else low = mid;
        }
        return planner(high);
    }
}
