using System.Text.Json.Nodes;
using Headroom.Training.Intervals;

namespace Headroom.Training.Tasks.Sequences;

/// <summary>Loss and perplexity of the learned tokens, with intervals over rows.</summary>
internal static class SequenceEvaluation
{
    /// <summary>exp(loss): how many tokens the model is undecided between, on average.</summary>
    public static readonly MetricKind Perplexity = new("perplexity", Direction.Lower);

    /// <summary>Every metric of these tasks.</summary>
    public static IReadOnlyList<MetricKind> Kinds =>
        [MetricKind.Loss, Perplexity, Answers.ExactMatch, Answers.RougeL, Answers.ChrF];

    /// <summary>
    /// Loss = sum(weight * token loss) / sum(weight) over all rows; the interval is that of a ratio of sums over rows
    /// (<see cref="Statistics.OfRatio"/>), perplexity's its exponential.
    /// </summary>
    /// <param name="losses">Of every row.</param>
    /// <param name="answers">Answers of the model; none where it was not asked.</param>
    /// <param name="seed">Of the intervals that are found by drawing rows.</param>
    public static Evaluation Make(IReadOnlyList<RowLoss> losses, IReadOnlyList<Answered> answers, ulong seed)
    {
        double sum = losses.Sum(l => l.Sum), weight = losses.Sum(l => l.Weight), loss = sum / weight;
        var interval = new Lazy<Interval?>(() => Statistics.OfRatio([.. losses.Select(l => (l.Sum, l.Weight))]));
        return new Evaluation
        {
            Rows = losses.Count,
            Detail = answers.Count > 0 ? new AnswerDetail([.. answers.Take(AnswerDetail.Most)]) : null,
            EachRow = () => losses.Select((l, i) => Row(l, answers.Count == losses.Count ? answers[i] : null)),
            Metrics =
            [
                new(MetricKind.Loss, loss, () => interval.Value),
                new(Perplexity, Math.Exp(loss), () => interval.Value is { } i
                    ? new Interval(Math.Exp(i.Value), Math.Exp(i.Low), Math.Exp(i.High)) : null),
                .. answers.Count > 0 ? Answers.Score(answers, seed) : [],
            ],
        };
    }

    private static JsonObject Row(RowLoss loss, Answered? answer)
    {
        var row = new JsonObject
        {
            ["loss"] = loss.Weight > 0 ? loss.Sum / loss.Weight : null,
            ["tokens"] = loss.Weight,
        };
        if (answer == null) return row;
        row["expected"] = answer.Expected;
        row["answer"] = answer.Answer;
        row["exact_match"] = answer.Answer.Trim() == answer.Expected.Trim();
        row["rouge_l"] = Intervals.RougeL.Score(answer.Answer, answer.Expected);
        return row;
    }
}
