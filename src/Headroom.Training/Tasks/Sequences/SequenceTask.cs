using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Inference;
using Headroom.Tokenizers;
using Headroom.Training.Data;
using Headroom.Training.Data.Forms;
using Headroom.Training.Recipes;

namespace Headroom.Training.Tasks.Sequences;

/// <summary>Texts of a recipe over a tokenizer.</summary>
internal sealed class SequenceTask(
    TaskType type, TaskOptions options, ITokenizer tokenizer, Truncation usual, Func<DataRow, SequenceTokens> encode)
    : ITask
{
    private readonly SequenceFit _fit = new(options, usual, tokenizer.BosId);

    public TaskType Type => type;
    public int MaxTokens => options.MaxSeqLength;
    public int LeastLength => 2 + options.Stride;
    public int CutTexts => _fit.Cut;
    public int Candidates => 0;
    public IReadOnlyList<int[]> SharedIds => [];
    public int MostLabels(int longest) => longest;
    public string Describe(string metric) => type.Metrics.First(m => m.Name == metric).Label;

    public IReadOnlyList<EncodedRow> Encode(DataRow row, bool training)
    {
        var (ids, answers) = encode(row);
        if (ids.Length < 2) throw new HeadroomException($"{Where(row)}: it has {ids.Length} tokens", "Drop the row");
        // What an evaluation measures is what is to be learned, also where training counts the prompts.
        bool all = answers == null || training && options.Loss == LossTokens.All;
        IReadOnlyList<LabelSpan> spans = all ? [new LabelSpan(1, ids.Length)] : answers!;
        return _fit.Fit(ids, spans, answers != null && !all, Where(row), row.Tier);
    }

    public IReadOnlyList<string> Notes(IReadOnlyList<DataRow>? train, params IReadOnlyList<DataRow>[] others) =>
        [.. _fit.Notes()];

    public int AnswerTokens => options.AnswerTokens;

    public Evaluation Evaluate(Engine engine, IRowSource rows, EvaluationOptions o)
    {
        // The loss of the tokens as they are, so that its exponential is a perplexity.
        var losses = RowLosses.Measure(engine, rows, o with { LabelSmoothing = 0 });
        if (options.AnswerTokens == 0) return SequenceEvaluation.Make(losses, [], o.Seed);
        var generator = new Generator(engine, tokenizer, Generator.EndIds(null, engine.Model.Config, tokenizer));
        var answers = Answers.Make(generator, rows, options.AnswerTokens, o.Progress);
        return SequenceEvaluation.Make(losses, answers, o.Seed);
    }

    private static string Where(DataRow row) =>
        row is ExampleRow example ? example.Where : $"row {HeadroomException.Value(row.Id ?? row.Text, 40)}";
}
