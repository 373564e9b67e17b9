using Headroom.Core;
using Headroom.Inference;
using Headroom.Models;

namespace Headroom.Training.Loop;

/// <summary>
/// What is said of a run that does not fit even with full recompute: its biggest rows, and of each kind of change the
/// smallest that fits.
/// </summary>
internal sealed class BudgetRefusal
{
    private readonly PlannedModel _full;
    private readonly ModelSettings _settings;
    private readonly BatchLimits _limits;
    private readonly long _budget;
    private readonly bool _flags;
    private readonly Func<ModelSettings, BatchLimits, PlannedModel> _planner;
    // Rows of a batch (of training its tokens under a budget of those) and the least there can be; 0 = evaluation has
    // none of its own; the largest rank, 0 = none.
    private readonly int _rows, _least, _evalRows, _rank;
    private readonly int[] _lengths; // shorter ones
    private readonly bool _wide; // may be stored in 4 bits

    /// <param name="full">The run with full recompute.</param>
    /// <param name="budget">Bytes a plan may take.</param>
    /// <param name="flags">See <see cref="Budget.Fit"/>.</param>
    /// <param name="leastLength">The smallest max_seq_length that is taken.</param>
    /// <param name="longest">See <see cref="Budget.Fit"/>.</param>
    /// <param name="planner">Plans a changed run.</param>
    public BudgetRefusal(
        PlannedModel full, long budget, bool flags, int leastLength, int longest,
        Func<ModelSettings, BatchLimits, PlannedModel> planner)
    {
        (_full, _settings, _limits, _budget, _flags, _planner) =
            (full, full.Settings, full.Limits, budget, flags, planner);
        _least = longest > 0 ? longest : 1;
        _rows = longest > 0 ? _limits.TrainTokens : _limits.TrainSequences;
        _evalRows = _limits.EvalTokens > 0 && !flags ? _limits.EvalSequences : 0;
        _rank = _settings.Lora is { } lora ? lora.RankPattern.Values.Append(lora.R).Max() : 0;
        int length = _rows > 0 && longest == 0 ? Part(_limits.TrainTokens, 1, _rows) : 0;
        _lengths = [.. Enumerable.Range(1, 3).Select(halvings => length >> halvings).Where(n => n >= leastLength)];
        _wide = !flags && _settings.LinearStorage is not (WeightStorage.NF4 or WeightStorage.NF4Double);
    }

    private Trial Now => new(_settings, _limits);

    /// <summary>The refusal.</summary>
    /// <param name="allowed">What it says of the budget.</param>
    public HeadroomException Make(string allowed)
    {
        var plan = _full.Plan;
        var biggest = plan.Rows()
            .OrderByDescending(r => r.Bytes)
            .Take(3)
            .Select(r => $"{r.Category} ({r.Phase}) {r.Bytes >> 20} MiB");
        string[] fits = [.. Changes().OfType<string>()];
        string todo =
            fits.Length > 0 ? (fits.Length > 1 ? "Any of these fits: " : "This fits: ") + string.Join("; ", fits) + "."
            : First(Together()) is { } together ? $"No single change fits, but these do together: {together}."
            : $"No change of batch, length or rank fits, not even together; the static part alone takes "
                + $"{plan.StaticBytes >> 20} MiB. Choose a smaller model.";
        return new HeadroomException(
            $"{UpMiB(plan.TotalBytes)} MiB are needed even with full recompute, "
                + $"{(_budget < 1 << 20 ? Units.Bytes(_budget) : $"{_budget >> 20} MiB")} {allowed}; the biggest rows: "
                + $"{string.Join(", ", biggest)}.",
            todo);
    }

    // Of each kind the smallest change that fits, null where none does.
    private string?[] Changes()
    {
        string? train = First(Halves(_rows, _least).Select(n => Train(Now, n))),
            eval = First(Halves(_evalRows, 1).Select(n => Eval(Now, n)));
        string? both = train != null || eval != null || _least > 1 || _rows < 2 || _evalRows < 2 ? null
                : First(
                    Halves(Math.Max(_rows, _evalRows), 1)
                        .Where(n => n < Math.Min(_rows, _evalRows))
                        .Select(n => Eval(Train(Now, n), n)),
                    " together"
                );
        return
        [
            train, eval, both, First(_lengths.Select(n => Length(Now, n))),
            First(Halves(_rank, 4).Select(n => Rank(Now, n))), _wide ? First([FourBit(Now)]) : null];
    }

    // From the smallest batch and rank on, one more change at a time.
    private IEnumerable<Trial> Together()
    {
        var t = Now;
        if (_rows > _least) t = Train(t, _least);
        if (_evalRows > 1) t = Eval(t, 1);
        if (_rank > 4) yield return t = Rank(t, 4);
        if (_wide) yield return t = FourBit(t);
        if (_lengths.Length > 0) yield return Length(t, _lengths[^1]);
    }

    private string? First(IEnumerable<Trial> trials, string more = "") =>
        trials
            .Select(t => (t.Words, _planner(t.Settings, t.Limits).Plan.TotalBytes))
            .Where(t => t.TotalBytes <= _budget)
            .Select(t => $"{t.Words}{more} ({UpMiB(t.TotalBytes)} MiB)")
            .FirstOrDefault();

    // A run with one or more changes, and their names.
    private sealed record Trial(ModelSettings Settings, BatchLimits Limits, string Words = "")
    {
        public Trial With(string word) => this with { Words = Words.Length == 0 ? word : $"{Words}, {word}" };
    }

    // Rows of evaluation are a key of their own in a recipe; a plan without one has one number for both.
    private Trial Train(Trial t, int n) => (t with
    {
        Limits = (_flags ? Eval(t, n) : t).Limits with
        {
            TrainSequences = _least > 1 ? t.Limits.TrainSequences : n,
            TrainTokens = Part(t.Limits.TrainTokens, n, _rows),
            TrainLabels = Part(t.Limits.TrainLabels, n, _rows),
        },
    }).With(
        _flags ? $"--rows {n}" : _least > 1 ? $"tokens_per_device_batch {n}" : $"per_device_train_batch_size {n}");

    private Trial Eval(Trial t, int n) => (t with
    {
        Limits = t.Limits with
        {
            EvalSequences = n,
            EvalTokens = Part(t.Limits.EvalTokens, n, _limits.EvalSequences),
        },
    }).With($"per_device_eval_batch_size {n}");

    private Trial Length(Trial t, int n) => (t with
    {
        Limits = t.Limits with
        {
            TrainTokens = t.Limits.TrainSequences * n,
            TrainLabels = Math.Min(t.Limits.TrainLabels, t.Limits.TrainSequences * n),
            EvalTokens = Math.Min(t.Limits.EvalTokens, t.Limits.EvalSequences * n),
        },
    }).With(_flags ? $"--length {n}" : $"max_seq_length {n}");

    private Trial Rank(Trial t, int n)
    {
        var l = t.Settings.Lora!;
        bool cap = l.RankPattern.Values.Any(r => r > n);
        var changed = l with
        {
            R = Math.Min(l.R, n),
            RankPattern = l.RankPattern.ToDictionary(p => p.Key, p => Math.Min(p.Value, n)),
        };
        string own = _flags ? $"--r {n}" : $"r {n}",
            capped = $"no rank of rank_pattern above {n}";
        return (t with { Settings = t.Settings with { Lora = changed } }).With(
            !cap ? own
            : l.R > n ? $"{own} with {capped}"
            : capped
        );
    }

    private Trial FourBit(Trial t) =>
        (t with { Settings = t.Settings with { LinearStorage = WeightStorage.NF4Double } }).With(
            $"load_in_4bit{(_settings.LinearStorage == WeightStorage.Int8 ? " in place of load_in_8bit" : "")} "
                + $"with bnb_4bit_use_double_quant"
        );

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
