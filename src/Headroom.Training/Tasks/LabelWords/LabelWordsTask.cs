using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Inference;
using Headroom.Tokenizers;
using Headroom.Training.Data;
using Headroom.Training.Recipes;

namespace Headroom.Training.Tasks.LabelWords;

/// <summary>Label words of a recipe over a tokenizer.</summary>
internal sealed class LabelWordsTask : ITask
{
    private readonly TaskOptions _options;
    private readonly LabelWordEncoder _encoder;

    public LabelWordsTask(TaskType type, TaskOptions options, ITokenizer tokenizer)
    {
        Type = type;
        _options = options;
        _encoder = new LabelWordEncoder(tokenizer, options);
    }

    public TaskType Type { get; }
    public int MaxTokens => _encoder.MaxTokens;
    public int LeastLength => _encoder.LeastLength;
    public int CutTexts => _encoder.CutTexts;
    public int Candidates => _encoder.Candidates.Length;
    public IReadOnlyList<int[]> SharedIds => _encoder.Answers;

    public int MostLabels(int longest) =>
        _options.Loss == LossTokens.All ? longest : _encoder.Answers.Max(a => a.Length);

    public IReadOnlyList<EncodedRow> Encode(DataRow row, bool training) => [_encoder.Encode(row, training)];

    public IReadOnlyList<string> Notes(IReadOnlyList<DataRow>? train, params IReadOnlyList<DataRow>[] others) =>
        train == null ? _encoder.Check(others) : [.. _encoder.Check([train, .. others]), .. Classes(train)];

    public string Describe(string metric) =>
        LabelWordMetrics.Describe(metric, _encoder.LabelWords.Length, _encoder.LabelWords);

    public Evaluation Evaluate(Engine engine, IRowSource rows, EvaluationOptions options)
    {
        var evaluation = LabelWordEvaluator
            .Run(
                engine, rows, _encoder.LabelWords, _encoder.Candidates, options.BatchRows, options.MaxTokens,
                options.Progress)
            .ToEvaluation(options.Seed);
        var detail = (LabelWordDetail)evaluation.Detail!;
        return evaluation with
        {
            EachRow = () => detail.Gold!.Select((gold, i) => new JsonObject
            {
                ["label"] = _encoder.LabelValues[gold],
                ["predicted"] = _encoder.LabelValues[detail.Predicted![i]],
                ["right"] = gold == detail.Predicted[i],
                ["tier"] = detail.Tiers?[i],
            }),
        };
    }

    private IEnumerable<string> Classes(IReadOnlyList<DataRow> train)
    {
        var found = train.Select(r => r.Label).Distinct().ToList();
        if (found.Count == 1)
            yield return $"All {train.Count} training rows have the label '{HeadroomException.Value(found[0])}': "
                + $"there is "
                + "nothing to tell apart.";
        else if (_options.Labels.Keys.Except(found).ToList() is { Count: > 0 } absent)
            yield return $"No training row has the label {HeadroomException.List(absent.Select(l => $"'{l}'"))} of "
                + $"task.labels.";
    }
}
