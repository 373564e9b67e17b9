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
    public static PlannedModel Fit(
        ModelConfig config,
        ModelSettings settings,
        BatchLimits limits,
        long workspace,
        long? budget,
        IDevice? device = null,
        long? expanded = null,
        string allowed = "are allowed",
        bool flags = false, int leastLength = 2)
    {
        var made = new Dictionary<(ModelSettings, BatchLimits), PlannedModel>();
        PlannedModel Plan(ModelSettings s, BatchLimits l) => made.TryGetValue((s, l), out var known)
            ? known
            : made[(s, l)] = PlannedModel.Make(config, s, l, workspace, device);
        var fitted = Recompute(
            config.NumHiddenLayers, settings, budget, n => Plan(settings with { RecomputeLayers = n }, limits),
            (full, bytes) => Refuse(full, bytes, allowed, flags, leastLength, Plan));
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

    // A run with one or more changes, and their names.
    private sealed record Trial(ModelSettings Settings, BatchLimits Limits, string Words = "")
    {
        public Trial With(string word) => this with { Words = Words.Length == 0 ? word : $"{Words}, {word}" };
    }

    private static HeadroomException Refuse(
        PlannedModel full, long budget, string allowed, bool flags, int leastLength,
        Func<ModelSettings, BatchLimits, PlannedModel> planner)
    {
        var (settings, limits, plan) = (full.Settings, full.Limits, full.Plan);
        string biggest = string.Join(
            ", ",
            plan.Rows()
                .OrderByDescending(r => r.Bytes)
                .Take(3)
                .Select(r => $"{r.Category} ({r.Phase}) {r.Bytes >> 20} MiB")
        );
        var now = new Trial(settings, limits);
        int rows = limits.TrainSequences,
            length = rows > 0 ? Part(limits.TrainTokens, 1, rows) : 0,
            evalRows = limits.EvalTokens > 0 && !flags ? limits.EvalSequences : 0;
        int rank = settings.Lora is { } lora ? lora.RankPattern.Values.Append(lora.R).Max() : 0;
        bool wide = !flags && settings.LinearStorage is not (WeightStorage.NF4 or WeightStorage.NF4Double);

        // Rows of evaluation are a key of their own in a recipe; a plan without one has one number for both.
        Trial Train(Trial t, int n) => (t with
        {
            Limits = (flags ? Eval(t, n) : t).Limits with
            {
                TrainSequences = n,
                TrainTokens = Part(t.Limits.TrainTokens, n, rows),
                TrainLabels = Part(t.Limits.TrainLabels, n, rows),
            },
        }).With(flags ? $"--rows {n}" : $"per_device_train_batch_size {n}");
        Trial Eval(Trial t, int n) =>
            (
                t with
                {
                    Limits = t.Limits with
                    {
                        EvalSequences = n,
                        EvalTokens = Part(t.Limits.EvalTokens, n, limits.EvalSequences),
                    },
                }
            ).With($"per_device_eval_batch_size {n}");
        Trial Length(Trial t, int n) => (t with
        {
            Limits = t.Limits with
            {
                TrainTokens = t.Limits.TrainSequences * n,
                TrainLabels = Math.Min(t.Limits.TrainLabels, t.Limits.TrainSequences * n),
                EvalTokens = Math.Min(t.Limits.EvalTokens, t.Limits.EvalSequences * n),
            },
        }).With(flags ? $"--length {n}" : $"max_seq_length {n}");
        Trial Rank(Trial t, int n)
        {
            var l = t.Settings.Lora!;
            bool cap = l.RankPattern.Values.Any(r => r > n);
            var changed = l with
            {
                R = Math.Min(l.R, n),
                RankPattern = l.RankPattern.ToDictionary(p => p.Key, p => Math.Min(p.Value, n)),
            };
            string own = flags ? $"--r {n}" : $"r {n}",
                capped = $"no rank of rank_pattern above {n}";
            return (t with { Settings = t.Settings with { Lora = changed } }).With(
                !cap ? own
                : l.R > n ? $"{own} with {capped}"
                : capped
            );
        }
        Trial FourBit(Trial t) =>
            (t with { Settings = t.Settings with { LinearStorage = WeightStorage.NF4Double } }).With(
                $"load_in_4bit{(settings.LinearStorage == WeightStorage.Int8 ? " in place of load_in_8bit" : "")} "
                    + $"with bnb_4bit_use_double_quant"
            );

        // Of each kind the smallest change that fits.
        string? First(IEnumerable<Trial> trials, string more = "") =>
            trials
                .Select(t => (t.Words, planner(t.Settings, t.Limits).Plan.TotalBytes))
                .Where(t => t.TotalBytes <= budget)
                .Select(t => $"{t.Words}{more} ({UpMiB(t.TotalBytes)} MiB)")
                .FirstOrDefault();
        int[] lengths = [.. Enumerable.Range(1, 3).Select(halvings => length >> halvings).Where(n => n >= leastLength)];
        string? train = First(Halves(rows, 1).Select(n => Train(now, n))),
            eval = First(Halves(evalRows, 1).Select(n => Eval(now, n)));
        string? both = train != null || eval != null || rows < 2 || evalRows < 2 ? null
                : First(
                    Halves(Math.Max(rows, evalRows), 1)
                        .Where(n => n < Math.Min(rows, evalRows))
                        .Select(n => Eval(Train(now, n), n)),
                    " together"
                );
        string?[] changes =
        [
            train, eval, both, First(lengths.Select(n => Length(now, n))),
            First(Halves(rank, 4).Select(n => Rank(now, n))), wide ? First([FourBit(now)]) : null];
        string[] fits = [.. changes.OfType<string>()];
        string todo =
            fits.Length > 0 ? (fits.Length > 1 ? "Any of these fits: " : "This fits: ") + string.Join("; ", fits) + "."
            : First(Together()) is { } together ? $"No single change fits, but these do together: {together}."
            : $"No change of batch, length or rank fits, not even together; the static part alone takes "
                + $"{plan.StaticBytes >> 20} MiB. Choose a smaller model.";
        return new HeadroomException(
            $"{UpMiB(plan.TotalBytes)} MiB are needed even with full recompute, "
                + $"{(budget < 1 << 20 ? Units.Bytes(budget) : $"{budget >> 20} MiB")} {allowed}; the biggest rows: "
                + $"{biggest}.",
            todo);

        // From the smallest batch and rank on, one more change at a time.
        IEnumerable<Trial> Together()
        {
            var t = now;
            if (rows > 1) t = Train(t, 1);
            if (evalRows > 1) t = Eval(t, 1);
            if (rank > 4) yield return t = Rank(t, 4);
            if (wide) yield return t = FourBit(t);
            if (lengths.Length > 0) yield return Length(t, lengths[^1]);
        }
    }

    // The share of n of all rows in a number of all their tokens.
    private static int Part(int tokens, int n, int rows) => (int)(((long)tokens * n + rows - 1) / rows);

    // What is needed is rounded up: that many MiB are enough.
    private static long UpMiB(long bytes) => (bytes + (1 << 20) - 1) >> 20;

    // Half of a number, a quarter and so on, down to the least.
    private static IEnumerable<int> Halves(int number, int least)
    {
        while (number > least) yield return number = Math.Max(least, number / 2);
    }
}
