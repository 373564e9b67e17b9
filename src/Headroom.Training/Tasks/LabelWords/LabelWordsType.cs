using System.Globalization;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Tokenizers;
using Headroom.Training.Data;
using Headroom.Training.Recipes;

namespace Headroom.Training.Tasks.LabelWords;

/// <summary>
/// Label words: a row is a prompt by task.template, its answer the word that task.labels has for its label; n classes,
/// scored by the first token of each word.
/// </summary>
internal sealed class LabelWordsType : TaskType
{
    public const string TypeName = "label_words";

    public override string Name => TypeName;
    public override IReadOnlyList<MetricKind> Metrics => LabelWordMetrics.Kinds;
    public override string BestMetric => "f1";
    public override IReadOnlyList<string> Keys =>
        ["task.template", "task.labels", "task.loss", "task.replace", "data.text_field", "data.label_field"];
    public override IReadOnlyList<string> Shown => ["accuracy", "f1"];
    public override IReadOnlyList<string> Ranked => ["f1", "accuracy"];
    public override IReadOnlyList<string> Spread => ["accuracy", "precision", "recall", "f1", "loss"];
    public override bool ComparesRows => true;

    public override string? Recognize(IReadOnlyCollection<string> columns, DataOptions data) =>
        columns.Contains(data.TextField) && columns.Contains(data.LabelField)
            ? $"{Name} ({data.TextField}, {data.LabelField})" : null;

    public override void Check(Recipe recipe)
    {
        PromptTemplate.Parse(recipe.Task.Template).Fields(recipe.Data);
        if (recipe.Task.Replace.ContainsKey(""))
            throw new HeadroomException(
                "task.replace replaces an empty string.", "Name the characters that are to be replaced.");
    }

    public override string[] Fields(DataOptions data, TaskOptions task) =>
        PromptTemplate.Parse(task.Template).Fields(data);

    public override void CheckRows(List<DataRow> rows, string split, TaskOptions task)
    {
        var match = LabelMatch(task);
        int odd = -1, unknown = 0;
        for (int i = 0; i < rows.Count; i++)
        {
            string label = rows[i].Label;
            if (match(label) is not { } key)
            {
                if (unknown++ == 0) odd = i;
            }
            else if (key != label) rows[i] = rows[i] with { Label = key };
        }
        if (odd < 0) return;
        string there = $"(there: {HeadroomException.List(task.Labels.Keys)})";
        if (rows.All(r => r.Label.Length == 0))
            throw new HeadroomException($"The {split} data has texts but no labels",
                "Give a file with labels: .jsonl or .csv with a label column, or lines of text, a tab and the label.");
        if (string.IsNullOrWhiteSpace(rows[odd].Label))
            throw new HeadroomException(
                $"{unknown} of {rows.Count} {split} rows have no label or one without a label word (row {odd + 1} has "
                    + $"none)",
                "Fill it in or drop the row " + there);
        string header = odd == 0 && unknown == 1 && rows.Count > 1
            ? "; if that row is a header, set data.text_field and data.label_field to its names" : "";
        throw new HeadroomException(
            $"{unknown} of {rows.Count} {split} rows have a label without a label word (row {odd + 1}: "
                + $"'{HeadroomException.Value(rows[odd].Label)}')",
            $"Add it to task.labels {there}{header}");
    }

    public override void CheckEvaluation(IReadOnlyList<DataRow> rows, string split)
    {
        if (rows.Select(r => r.Label).Distinct().Count() < 2)
            throw new HeadroomException(
                $"All {rows.Count} {split} rows have the label '{HeadroomException.Value(rows[0].Label)}'",
                "An evaluation set needs both classes: give another file or take more rows");
    }

    public override IPrompts Prompts(Recipe recipe, ITokenizer tokenizer) =>
        new LabelWordPrompts(new LabelWordEncoder(tokenizer, recipe.Task), Fields(recipe.Data, recipe.Task));

    public override ITask Make(Recipe recipe, ITokenizer tokenizer) => new LabelWordsTask(this, recipe.Task, tokenizer);

    public override (string Name, Evaluation Evaluation)? Baseline(
        Recipe recipe, DataSplits data, CancellationToken stop) =>
        (BagOfWords.Name, BagOfWords.Run(data.Train, data.Validation, data.Test, recipe.Task.Labels,
            recipe.Training.Seed, stop).ToEvaluation());

    public override Evaluation Read(Evaluation logged, JsonObject fields) =>
        new LabelWordCounts(logged, LabelWordFields.Read(fields)).ToEvaluation();

    public override Section Quality(IReadOnlyList<ReportRow> rows) => LabelWordTables.Build(rows);

    public override IReadOnlyList<Section> Sections(IReadOnlyList<ReportRow> rows) =>
        [LabelWordTables.Tiers(rows), LabelWordTables.Classes(rows)];

    public override JsonObject Json(Evaluation evaluation) => ClassFigures.Report(evaluation);

    public override IEnumerable<string> Lines(string title, Evaluation evaluation) =>
        LabelWordLines.Write(title, (LabelWordDetail)evaluation.Detail!);

    public override JsonObject EvalJson(Evaluation evaluation) => ClassFigures.Eval(evaluation);

    /// <summary>
    /// The key of task.labels that a label of the data stands for: the same text, or the same number (1 is 1.0), where
    /// true counts as 1 and false as 0 as they do in the programs that write such files; null when there is none.
    /// </summary>
    internal static Func<string, string?> LabelMatch(TaskOptions task)
    {
        var byNumber = task
            .Labels.Keys.Select(k => (Key: k, Number: Number(k)))
            .Where(k => k.Number != null)
            .GroupBy(k => k.Number!.Value)
            .Where(g => g.Count() == 1).ToDictionary(g => g.Key, g => g.Single().Key);
        return label => task.Labels.ContainsKey(label) ? label
            : task.Labels.ContainsKey(label.Trim()) ? label.Trim()
            : Number(label) is { } number && byNumber.TryGetValue(number, out string? key) ? key : null;

        static double? Number(string label) => bool.TryParse(label, out bool flag) ? flag ? 1 : 0
                : double.TryParse(label, NumberStyles.Float, CultureInfo.InvariantCulture, out double n)
                && double.IsFinite(n)
                    ? n
                    : null;
    }
}
