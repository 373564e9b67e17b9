using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Tokenizers;
using Headroom.Training.Adapters;
using Headroom.Training.Data.Forms;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks.Sequences;

namespace Headroom.Training.Tasks.Preferences;

/// <summary>
/// Preferences: a chosen and a rejected answer to a prompt (TRL's form; the prompt may be what both begin with), or
/// answers with a label that says whether they are wanted (KTO).
/// </summary>
internal sealed class PreferenceType : TaskType
{
    /// <summary>What a chosen answer gained over the base, beta * log ratio, mean.</summary>
    public static readonly MetricKind Chosen = new("rewards_chosen", Direction.Higher);
    /// <summary>The same of rejected ones.</summary>
    public static readonly MetricKind Rejected = new("rewards_rejected", Direction.Lower);
    /// <summary>Chosen less rejected.</summary>
    public static readonly MetricKind Margins = new("rewards_margins", Direction.Higher);
    /// <summary>Share of pairs whose chosen answer gained more over the base than the rejected one.</summary>
    public static readonly MetricKind Accuracies = new("rewards_accuracies", Direction.Higher);
    /// <summary>Share of pairs whose chosen answer the model itself gives the higher probability a token.</summary>
    public static readonly MetricKind WinRate = new("win_rate", Direction.Higher);

    public override string Name => "preference";
    public override IReadOnlyList<MetricKind> Metrics =>
        [MetricKind.Loss, Chosen, Rejected, Margins, Accuracies, WinRate];
    public override string BestMetric => MetricKind.Loss.Name;
    public override IReadOnlyList<string> Shown => [WinRate.Name, Accuracies.Name, Margins.Name];
    public override IReadOnlyList<string> Ranked => [WinRate.Name, MetricKind.Loss.Name];
    public override IReadOnlyList<string> Keys =>
    [
        "data.columns", "data.label_field", "task.chat_template", "task.truncation", "task.train_on_reasoning",
        "task.loss_type", "task.beta", "task.label_smoothing", "task.rpo_alpha", "task.desirable_weight",
        "task.undesirable_weight",
    ];

    /// <summary>What the answers answer.</summary>
    internal const string Prompt = "prompt";
    private const string ChosenColumn = "chosen", RejectedColumn = "rejected",
        Completion = "completion", Label = "label";

    public override string? Recognize(IReadOnlyCollection<string> columns, DataOptions data)
    {
        bool Has(string column) => columns.Contains(data.Column(column));
        string[] found =
            Has(ChosenColumn) && Has(RejectedColumn) ? [Prompt, ChosenColumn, RejectedColumn]
            : Has(Prompt) && Has(Completion) && Has(Label) ? [Prompt, Completion, Label] : [];
        return found.Length == 0 ? null : $"{Name} ({string.Join(", ", found.Where(Has).Select(data.Column))})";
    }

    public override void Check(Recipe recipe)
    {
        var (task, kind) = (recipe.Task, recipe.Task.LossType);
        void Refuse(bool when, string what, string todo)
        {
            if (when) throw new HeadroomException(what, todo);
        }
        Refuse(
            task.LabelSmoothing > 0 && kind is not (PreferenceLossType.Sigmoid or PreferenceLossType.SigmoidNorm),
            $"task.label_smoothing does not go with the loss {kind.Word()}.", "Leave it out, or use sigmoid.");
        Refuse(
            task.RpoAlpha > 0 && kind == PreferenceLossType.Kto, "task.rpo_alpha does not go with the loss kto.",
            "Leave it out.");
        Refuse(
            (task.DesirableWeight, task.UndesirableWeight) != (1, 1) && kind != PreferenceLossType.Kto,
            $"task.desirable_weight and undesirable_weight do not go with the loss {kind.Word()}.", "They are kto's.");
        Refuse(
            recipe.Training.LabelSmoothingFactor > 0, "training.label_smoothing_factor does not go with preferences.",
            "Leave it out; task.label_smoothing is that of pairs.");
        Refuse(
            task.Truncation == Truncation.Windows, "task.truncation is windows, which would part the answers.",
            "Use right, left or drop.");
        bool needsBase = kind != PreferenceLossType.Orpo;
        Refuse(
            needsBase && recipe.Lora.ModulesToSave.Count > 0,
            $"The loss {kind.Word()} compares with the base, which lora.modules_to_save would replace in part.",
            "Leave modules_to_save out, or use orpo.");
        Refuse(
            needsBase && AdapterStart.TakesWeights(recipe.Lora.InitLoraWeights),
            $"The loss {kind.Word()} compares with the base, out of which lora.init_lora_weights "
                + $"{recipe.Lora.InitLoraWeights} takes a part.",
            "Use another start, or orpo.");
        Refuse(
            kind == PreferenceLossType.Kto && recipe.Training.PerDeviceTrainBatchSize < 2
                && recipe.Training.TokensPerDeviceBatch == 0,
            "The loss kto needs two rows of a micro-batch or more: one of them measures how far the model has moved.",
            "Raise training.per_device_train_batch_size.");
    }

    public override IEnumerable<DataRow> Rows(
        string path, DataOptions data, TaskOptions task, Action<HeadroomException>? bad)
    {
        bool kto = task.LossType == PreferenceLossType.Kto;
        var rows = new List<ExampleRow>();
        var options = new DataRecordOptions { Header = data.Header, OnBadRow = bad };
        foreach (var record in DataFiles.Records(path, options))
            try
            {
                foreach (var example in Read(new ColumnReader(record, data), kto))
                    rows.Add(new ExampleRow(example, record.Where));
            }
            catch (HeadroomException e) when (bad != null)
            {
                bad(e);
            }
        if (!kto) return rows;
        if (rows.Count < 2)
            throw new HeadroomException($"{path} has {rows.Count} answers; kto needs two or more.", "Give more rows.");
        // How far the model has moved is measured on each prompt with the next row's answer (TRL's KL data).
        return rows.Select((r, i) => r with
        {
            Example = ((Preference)r.Example).WithOther((Preference)rows[(i + 1) % rows.Count].Example),
        });
    }

    private static IEnumerable<Preference> Read(ColumnReader row, bool kto)
    {
        if (row.Find(ChosenColumn) == null && row.Find(Completion) != null)
        {
            if (!kto)
                throw row.Bad(
                    "an answer with a label and no other to compare it with",
                    "Set task.loss_type to kto, or give chosen and rejected");
            yield return new Preference(Answer(row, Completion), null!, IsWanted(row));
            yield break;
        }
        var pair = PreferenceReader.Read(row, Prompt, ChosenColumn, RejectedColumn);
        if (!kto) yield return pair;
        else
        {
            yield return pair with { Wanted = true };
            yield return new Preference(pair.Second, pair.First, false);
        }
    }

    private static Example Answer(ColumnReader row, string column) =>
        row.HoldsList(Prompt) || row.HoldsList(column)
            ? ConversationReader.ReadPair(row, Prompt, column)
            : new Completion(row.OptionalText(Prompt), row.Text(column));

    private static bool IsWanted(ColumnReader row) =>
        row.Need(Label).ToJsonString().Trim('"').ToLowerInvariant() switch
        {
            "true" or "1" => true,
            "false" or "0" => false,
            var other => throw row.Bad(
                $"'label' is {HeadroomException.Value(other)}", "Give true for answers that are wanted, else false"),
        };

    public override ITask Make(Recipe recipe, ITokenizer tokenizer) =>
        new PreferenceTask(this, recipe.Task, tokenizer);

    public override IPrompts Prompts(Recipe recipe, ITokenizer tokenizer) =>
        new PreferencePrompts(new ExampleEncoder(recipe.Task, tokenizer));
}
