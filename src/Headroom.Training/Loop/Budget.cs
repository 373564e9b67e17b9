using Headroom.Core;
using Headroom.Models;
using Headroom.Planning;

namespace Headroom.Training;

/// <summary>Chooses as little recompute as a memory budget allows; says what would fit when nothing does.</summary>
public static class Budget
{
    /// <summary>The plan and the number of layers that recompute. Without a budget nothing is recomputed beyond what the settings ask for. Throws <see cref="HeadroomException"/> when it cannot fit.</summary>
    public static (MemoryPlan Plan, int RecomputeLayers) Fit(ModelConfig config, ModelSettings settings, BatchLimits limits, long workspace, long? budget, IDevice? device = null)
    {
        MemoryPlan Plan(ModelSettings s, BatchLimits l) => Engine.MakePlan(config, s, l, workspace, out _, device);
        int layers = config.NumHiddenLayers;
        int given = settings.RecomputeLayers < 0 ? layers : settings.RecomputeLayers;
        var plan = Plan(settings with { RecomputeLayers = given }, limits);
        if (budget is not { } bytes || plan.TotalBytes <= bytes) return (plan, given);
        int low = given, high = layers; // the total falls with the number of recomputed layers
        var full = Plan(settings with { RecomputeLayers = layers }, limits);
        if (full.TotalBytes > bytes) throw Refuse(config, settings with { RecomputeLayers = layers }, limits, full, bytes, Plan);
        while (high - low > 1)
        {
            int mid = (low + high) / 2;
            if (Plan(settings with { RecomputeLayers = mid }, limits).TotalBytes <= bytes) high = mid;
            else low = mid;
        }
        return (Plan(settings with { RecomputeLayers = high }, limits), high);
    }

    private static HeadroomException Refuse(ModelConfig config, ModelSettings settings, BatchLimits limits, MemoryPlan plan, long budget, Func<ModelSettings, BatchLimits, MemoryPlan> planner)
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
        return new HeadroomException($"{plan.TotalBytes >> 20} MiB are needed even with full recompute, {Units.Bytes(budget)} are allowed; the biggest rows: {biggest}.",
            fits.Count > 0 ? "Any of these fits: " + string.Join("; ", fits) + "." : $"No single change fits; the static part alone takes {plan.StaticBytes >> 20} MiB. Choose a smaller model.");
    }
}
