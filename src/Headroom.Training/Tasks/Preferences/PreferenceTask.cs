using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Inference;
using Headroom.Tokenizers;
using Headroom.Training.Data;
using Headroom.Training.Data.Forms;
using Headroom.Training.Intervals;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks.Sequences;

namespace Headroom.Training.Tasks.Preferences;

/// <summary>Preferences of a recipe over a tokenizer.</summary>
internal sealed class PreferenceTask : ITask
{
    private readonly TaskOptions _options;
    private readonly ExampleEncoder _encoder;
    private readonly SequenceFit _fit;
    private readonly PreferenceObjective _objective;

    public PreferenceTask(TaskType type, TaskOptions options, ITokenizer tokenizer)
    {
        (Type, _options) = (type, options);
        _encoder = new ExampleEncoder(options, tokenizer);
        _fit = new SequenceFit(options, Truncation.Right, tokenizer.BosId);
        _objective = new PreferenceObjective(options);
    }

    public TaskType Type { get; }
    public int MaxTokens => _options.MaxSeqLength;
    public int LeastLength => 2;
    public int CutTexts => _fit.Cut;
    public int Candidates => 0;
    public IReadOnlyList<int[]> SharedIds => [];
    public bool WeighsLabels => true;
    public IObjective Objective => _objective;
    public int MostLabels(int longest) => longest;
    public string Describe(string metric) => Type.Metrics.First(m => m.Name == metric).Label;

    public IReadOnlyList<EncodedRow> Encode(DataRow row, bool training)
    {
        var (example, where) = (ExampleRow)row;
        var pair = (Preference)example;
        var first = Fitted(pair.First, where);
        var second = first == null ? null : Fitted(pair.Second, where);
        if (first == null || second == null) return [];
        int split = first.Ids.Length;
        var spans = first.Spans.Concat(second.Spans.Select(s => new LabelSpan(s.Start + split, s.End + split)));
        return [new PairRow([.. first.Ids, .. second.Ids], [.. spans]) { Split = split, Wanted = pair.Wanted }];
    }

    // Only the answer is compared, whatever task.loss says of other tasks.
    private EncodedRow? Fitted(Example example, string where)
    {
        var (ids, answers) = _encoder.Encode(example, where);
        LabelSpan[] spans =
            [.. answers!.Select(s => new LabelSpan(Math.Max(1, s.Start), s.End)).Where(s => s.Start < s.End)];
        if (spans.Length == 0)
            throw new HeadroomException($"{where}: an answer has no tokens", "Drop the row");
        return _fit.Fit(ids, spans, true, where).SingleOrDefault();
    }

    public IReadOnlyList<string> Notes(IReadOnlyList<DataRow>? train, params IReadOnlyList<DataRow>[] others) =>
        [.. _fit.Notes()];

    public Evaluation Evaluate(Engine engine, IRowSource rows, EvaluationOptions o)
    {
        var pairs = Enumerable.Range(0, rows.Count).Select(i => (PairRow)rows[i]).ToList();
        _objective.Prepare(engine, rows, o);
        var scores = PreferenceObjective.Measure(engine, rows, o, adapters: true);
        var losses = _objective.Losses(pairs, scores);
        Metric Mean(MetricKind kind, IEnumerable<double> values)
        {
            double[] v = [.. values];
            return new(kind, v.Average(), () => Statistics.OfMean(v.Length, v.Sum(), v.Sum(x => x * x)));
        }
        var metrics = new List<Metric> { Mean(MetricKind.Loss, losses.Select(l => l.Loss)) };
        if (_options.LossType == PreferenceLossType.Kto)
        {
            List<double> Rewards(bool isWanted) =>
                [.. pairs.Zip(losses).Where(p => p.First.Wanted == isWanted).Select(p => p.Second.RewardFirst)];
            List<double> wanted = Rewards(true), other = Rewards(false);
            if (wanted.Count > 0) metrics.Add(Mean(PreferenceType.Chosen, wanted));
            if (other.Count > 0) metrics.Add(Mean(PreferenceType.Rejected, other));
            if (wanted.Count > 0 && other.Count > 0)
                metrics.Add(new(PreferenceType.Margins, wanted.Average() - other.Average()));
            return new Evaluation { Rows = rows.Count, Metrics = metrics };
        }
        int right = losses.Count(l => l.RewardFirst > l.RewardSecond);
        metrics.Add(Mean(PreferenceType.Chosen, losses.Select(l => l.RewardFirst)));
        metrics.Add(Mean(PreferenceType.Rejected, losses.Select(l => l.RewardSecond)));
        metrics.Add(Mean(PreferenceType.Margins, losses.Select(l => l.RewardFirst - l.RewardSecond)));
        metrics.Add(new(
            PreferenceType.Accuracies, right / (double)losses.Length, () => Statistics.Wilson(right, losses.Length)));
        int wins = scores.Count(s => s.First / s.FirstTokens > s.Second / s.SecondTokens);
        metrics.Add(new(
            PreferenceType.WinRate, wins / (double)scores.Length, () => Statistics.Wilson(wins, scores.Length)));
        return new Evaluation
        {
            Rows = rows.Count,
            Metrics = metrics,
            EachRow = () => losses.Zip(scores, (l, s) => new JsonObject
            {
                ["loss"] = l.Loss,
                ["rewards_chosen"] = l.RewardFirst,
                ["rewards_rejected"] = l.RewardSecond,
                ["logps_chosen"] = s.First,
                ["logps_rejected"] = s.Second,
            }),
        };
    }
}
