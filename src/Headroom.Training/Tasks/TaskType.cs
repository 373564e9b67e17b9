using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Tokenizers;
using Headroom.Training.Data;
using Headroom.Training.Recipes;

namespace Headroom.Training.Tasks;

/// <summary>
/// What is known of a task without a tokenizer: its name in recipes, its metrics, the keys and rows that it takes, and
/// its part of reports. What a type does not say about reports is made of its metrics alone.
/// </summary>
internal abstract class TaskType
{
    /// <summary>Value of task.type, in snake_case.</summary>
    public abstract string Name { get; }
    /// <summary>
    /// Every metric of an evaluation, with <see cref="MetricKind.Loss"/>; training.metric_for_best_model may name any.
    /// </summary>
    public abstract IReadOnlyList<MetricKind> Metrics { get; }
    /// <summary>What training.metric_for_best_model is when a recipe does not say.</summary>
    public abstract string BestMetric { get; }
    /// <summary>
    /// Keys that only some tasks take and this one does, such as task.labels or data.label_field; others are refused.
    /// </summary>
    public virtual IReadOnlyList<string> Keys => [];

    /// <summary>Metrics that lines of the console and tables of evaluations show beside the loss.</summary>
    public virtual IReadOnlyList<string> Shown =>
        [.. Metrics.Select(m => m.Name).Where(n => n != MetricKind.Loss.Name)];
    /// <summary>
    /// Metrics that models are ranked by: the first that has a value, and that differences over seeds are shown of.
    /// </summary>
    public virtual IReadOnlyList<string> Ranked => [BestMetric];
    /// <summary>Metrics whose spread over seeds is shown.</summary>
    public virtual IReadOnlyList<string> Spread => [.. Metrics.Select(m => m.Name)];
    /// <summary>Every row is right or wrong, so that evaluations are compared by McNemar's test.</summary>
    public virtual bool ComparesRows => false;

    /// <summary>Refuses options of a recipe that cannot be meant.</summary>
    /// <exception cref="HeadroomException">One cannot.</exception>
    public virtual void Check(Recipe recipe) { }

    /// <summary>Fields of the data whose texts make a row, one or more.</summary>
    public virtual string[] Fields(DataOptions data, TaskOptions task) => [data.TextField];

    /// <summary>
    /// What rows with these columns are to this task, in words; null when they are none of it. Asked where a recipe
    /// does not say what its task is.
    /// </summary>
    public virtual string? Recognize(IReadOnlyCollection<string> columns, DataOptions data) => null;

    /// <summary>Rows of a file or folder, for a task whose rows are more than texts with a label.</summary>
    /// <param name="path">The file or folder.</param>
    /// <param name="data">Names the columns.</param>
    /// <param name="task">The task's options.</param>
    /// <param name="bad">Is told of a row that cannot be read and is left out; null: such a row is an error.</param>
    /// <exception cref="HeadroomException">It cannot be read; the line or row is named.</exception>
    public virtual IEnumerable<DataRow> Rows(
        string path, DataOptions data, TaskOptions task, Action<HeadroomException>? bad)
    {
        string[] fields = Fields(data, task);
        var options = new DataFileOptions
        {
            TextField = fields[0],
            MoreFields = fields[1..],
            LabelField = data.LabelField,
        };
        return DataFiles.Read(path, options with { Header = data.Header });
    }

    /// <summary>
    /// Refuses rows of a split that cannot be encoded, and puts what is spelled otherwise into the task's own spelling.
    /// </summary>
    /// <param name="rows">At least one; none is without text. May be changed.</param>
    /// <param name="split">train, validation or test.</param>
    /// <param name="task">The task's options.</param>
    /// <exception cref="HeadroomException">A row cannot be; the first is named.</exception>
    public virtual void CheckRows(List<DataRow> rows, string split, TaskOptions task) { }

    /// <summary>Refuses rows that an evaluation would say nothing on.</summary>
    /// <param name="rows">At least one.</param>
    /// <param name="split">validation or test.</param>
    /// <exception cref="HeadroomException">It would not.</exception>
    public virtual void CheckEvaluation(IReadOnlyList<DataRow> rows, string split) { }

    /// <summary>The task of a recipe over a tokenizer.</summary>
    /// <exception cref="HeadroomException">The two do not go together.</exception>
    public abstract ITask Make(Recipe recipe, ITokenizer tokenizer);

    /// <summary>
    /// Prompts without answers, for what is done with a model after its training; null: the task has none.
    /// </summary>
    /// <exception cref="HeadroomException">Recipe and tokenizer do not go together.</exception>
    public virtual IPrompts? Prompts(Recipe recipe, ITokenizer tokenizer) => null;

    /// <summary>
    /// A baseline that needs no language model, fitted on the training rows and evaluated on the test rows; null when
    /// there is none.
    /// </summary>
    public virtual (string Name, Evaluation Evaluation)? Baseline(
        Recipe recipe, DataSplits data, CancellationToken stop) => null;

    /// <summary>An evaluation of a log, of one that was cut or edited too.</summary>
    /// <param name="logged">Rows and metrics, and what of them was odd.</param>
    /// <param name="fields">The whole event, with the fields of the task (<see cref="IEvaluationDetail.Fields"/>) where
    /// it has some.</param>
    public virtual Evaluation Read(Evaluation logged, JsonObject fields) => logged;

    /// <summary>What the report says of quality: before all else, one row an evaluation on the test rows.</summary>
    /// <param name="rows">At least one.</param>
    public virtual Section Quality(IReadOnlyList<ReportRow> rows)
    {
        // Those of a log too that the type does not know.
        var shown = rows.SelectMany(r => r.Evaluation.Metrics).DistinctBy(m => m.Name).ToList();
        string[] names = [.. shown.Select(m => Show.Short(m.Label, MostLetters))];
        var better = shown.Zip(names, (m, n) =>
            $"{n}: {(m.Direction == Direction.Higher ? "higher" : "lower")} is better"
        );
        return new Section(
            "Quality",
            [
                new Paragraph(
                    "Metrics on the test rows with their 95 % intervals, where there is one. "
                        + $"{string.Join("; ", better)}."
                ),
                new Table(
                    null, "llr" + new string('r', shown.Count), ["model", "stage", "rows", .. names],
                    [.. rows.Select(Row)]),
            ]
        );

        string[] Row(ReportRow r) =>
            [
                r.Label,
                r.Stage,
                Show.Count(r.Evaluation.Rows),
                .. shown.Select(m => Show.Metric(r.Evaluation.Find(m.Name))),
            ];
    }

    private const int MostLetters = 60; // of a metric's name in a table

    /// <summary>Further sections of the report, behind those of comparisons.</summary>
    public virtual IReadOnlyList<Section> Sections(IReadOnlyList<ReportRow> rows) => [];

    /// <summary>Fields of the task in results.json, for one evaluation on the test rows.</summary>
    public virtual JsonObject Json(Evaluation evaluation) => [];

    /// <summary>What headroom eval prints.</summary>
    /// <param name="title">What was evaluated on what.</param>
    /// <param name="evaluation">The evaluation.</param>
    public virtual IEnumerable<string> Lines(string title, Evaluation evaluation) =>
        [$"{title}: {string.Join(", ", evaluation.Metrics.Select(Show.Line))}"];

    /// <summary>What headroom eval prints as JSON.</summary>
    public virtual JsonObject EvalJson(Evaluation evaluation) => evaluation.ToJson(true);

    /// <summary>The metric that a recipe's best adapter is chosen by.</summary>
    internal string BestOf(TrainingOptions training) => MetricKind.Plain(training.MetricForBestModel ?? BestMetric);
}
