using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Tokenizers;
using Headroom.Tokenizers.Chat;
using Headroom.Training.Data;
using Headroom.Training.Data.Forms;
using Headroom.Training.Recipes;

namespace Headroom.Training.Tasks.Sequences;

/// <summary>A task that learns texts token by token; measured by loss and perplexity.</summary>
internal abstract class SequenceType : TaskType
{
    public override IReadOnlyList<MetricKind> Metrics => SequenceEvaluation.Kinds;
    public override string BestMetric => MetricKind.Loss.Name;
    public override IReadOnlyList<string> Shown =>
        [SequenceEvaluation.Perplexity.Name, Answers.ExactMatch.Name, Answers.RougeL.Name, Answers.ChrF.Name];
    public override IReadOnlyList<string> Ranked => [Answers.ExactMatch.Name, MetricKind.Loss.Name];
    public override IReadOnlyList<string> Keys =>
        ["data.columns", "task.loss", "task.truncation", "task.chat_template", "task.answer_tokens"];

    /// <summary>Columns without which a record is not of this form.</summary>
    protected abstract string[] Needed { get; }
    /// <summary>Columns that it may have.</summary>
    protected virtual string[] More => [];
    /// <summary>The truncation where task.truncation is null.</summary>
    protected virtual Truncation UsualTruncation => Truncation.Right;

    /// <summary>A record as an example.</summary>
    /// <exception cref="HeadroomException">It is none.</exception>
    protected abstract Example ReadRow(ColumnReader row);

    /// <summary>A record up to where the model answers.</summary>
    /// <exception cref="HeadroomException">It has no such part.</exception>
    public abstract Example ReadPrompt(ColumnReader row);

    /// <summary>A conversation whose next turn is the model's, as a row of this form begins.</summary>
    public abstract Example PromptOf(IReadOnlyList<ChatMessage> messages);

    public override string? Recognize(IReadOnlyCollection<string> columns, DataOptions data)
    {
        string[] needed = [.. Needed.Select(data.Column)];
        return needed.All(columns.Contains)
            ? $"{Name} ({string.Join(", ", needed.Concat(More.Select(data.Column).Where(columns.Contains)))})" : null;
    }

    public override IEnumerable<DataRow> Rows(
        string path, DataOptions data, TaskOptions task, Action<HeadroomException>? bad)
    {
        var options = new DataRecordOptions
        {
            Header = data.Header,
            Columns = [.. Needed.Concat(More).Select(data.Column)],
            OnBadRow = bad,
        };
        foreach (var record in DataFiles.Records(path, options))
        {
            ExampleRow row;
            try
            {
                row = new ExampleRow(ReadRow(new ColumnReader(record, data)), record.Where);
            }
            catch (HeadroomException e) when (bad != null)
            {
                bad(e);
                continue;
            }
            yield return row;
        }
    }

    public override void Check(Recipe recipe)
    {
        if (recipe.Data.Train.StartsWith(Reviews.Name, StringComparison.Ordinal) && Name != TextType.TypeName)
            throw new HeadroomException(
                $"The task {Name} does not go with {Reviews.Name}, whose rows are texts with a label.",
                "Name a data file, or the task label_words or text.");
        var known = Needed.Concat(More).ToList();
        foreach (string column in recipe.Data.Columns.Keys)
            if (!known.Contains(column))
                throw new HeadroomException(
                    $"data.columns names '{HeadroomException.Value(column)}', which the task {Name} does not have.",
                    $"Its columns are {HeadroomException.List(known)}.");
        if (recipe.Task.Truncation == Truncation.Windows && UsualTruncation != Truncation.Windows)
            throw new HeadroomException(
                $"task.truncation is windows, which would part the answers of the task {Name}.",
                "Use right, left or drop.");
        if (recipe.Task.Stride > 0 && (recipe.Task.Truncation ?? UsualTruncation) != Truncation.Windows)
            throw new HeadroomException("task.stride goes with windows alone.", "Leave it out.");
        string best = BestOf(recipe.Training);
        if (recipe.Task.AnswerTokens == 0 && best != MetricKind.Loss.Name && best != SequenceEvaluation.Perplexity.Name)
            throw new HeadroomException(
                $"training.metric_for_best_model is {best}, which needs answers of the model.",
                "Set task.answer_tokens to the tokens that an answer may have.");
        if (recipe.Task.Stride > recipe.Task.MaxSeqLength / 2)
            throw new HeadroomException(
                $"task.stride {recipe.Task.Stride} is more than half of task.max_seq_length "
                    + $"{recipe.Task.MaxSeqLength}.",
                "Windows have that many tokens in common: lower it.");
    }

    public override Evaluation Read(Evaluation logged, JsonObject fields) =>
        AnswerDetail.Read(fields) is { } answers ? logged with { Detail = answers } : logged;

    public override IReadOnlyList<Section> Sections(IReadOnlyList<ReportRow> rows) => [AnswerDetail.Section(rows)];

    public override ITask Make(Recipe recipe, ITokenizer tokenizer) =>
        new SequenceTask(
            this, recipe.Task, tokenizer, UsualTruncation, new ExampleEncoder(recipe.Task, tokenizer).Encode);

    public override IPrompts Prompts(Recipe recipe, ITokenizer tokenizer) =>
        new SequencePrompts(this, new ExampleEncoder(recipe.Task, tokenizer));
}

/// <summary>Tokens of an example before they are cut.</summary>
/// <param name="Ids">Tokens.</param>
/// <param name="Answers">Tokens of answers; null where all is one text that is learned as it is.</param>
internal sealed record SequenceTokens(int[] Ids, IReadOnlyList<LabelSpan>? Answers);
