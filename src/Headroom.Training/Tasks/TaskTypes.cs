using System.Collections.Concurrent;
using Headroom.Core;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks.LabelWords;
using Headroom.Training.Tasks.Preferences;
using Headroom.Training.Tasks.Sequences;

namespace Headroom.Training.Tasks;

/// <summary>Where tasks are made: every type that task.type can name.</summary>
internal static class TaskTypes
{
    /// <summary>The value of task.type that goes by the columns of the training rows.</summary>
    public const string Auto = "auto";

    private static readonly ConcurrentDictionary<string, TaskType> Types = new(StringComparer.Ordinal);

    // A line for each, in the order in which columns are asked about.
    private static readonly TaskType[] Own =
    [
        new PreferenceType(), new ConversationType(), new CompletionType(), new InstructionType(),
        new LabelWordsType(), new TextType(),
    ];

    static TaskTypes() => Array.ForEach(Own, Add);

    /// <summary>All names, in order.</summary>
    public static IReadOnlyList<string> Names => [.. Types.Keys.Order(StringComparer.Ordinal)];

    /// <summary>Adds a type of the caller's own, for recipes and reports of this process.</summary>
    /// <exception cref="ArgumentException">Another has its name, or its metrics lack the loss or that of the best
    /// model, or name one twice.</exception>
    public static void Add(TaskType type)
    {
        string[] names = [.. type.Metrics.Select(m => m.Name)];
        if (names.Distinct().Count() < names.Length)
            throw new ArgumentException($"{type.Name} has two metrics of one name", nameof(type));
        foreach (string needed in (string[])[MetricKind.Loss.Name, type.BestMetric])
            if (!names.Contains(needed))
                throw new ArgumentException($"{type.Name} has no metric {needed}", nameof(type));
        if (!Types.TryAdd(type.Name, type))
            throw new ArgumentException($"there is a task type {type.Name}", nameof(type));
    }

    /// <summary>
    /// The type that task.type names; label words where it is <see cref="Auto"/> and no data was looked at
    /// (<see cref="TaskChoice"/>).
    /// </summary>
    /// <exception cref="HeadroomException">There is none.</exception>
    public static TaskType Get(TaskOptions task) => Find(task.Type == Auto ? LabelWordsType.TypeName : task.Type)
        ?? throw new HeadroomException($"task.type '{HeadroomException.Value(task.Type)}' is unknown.",
            $"Use {Choices.List([Auto, .. Names])}.");

    /// <summary>
    /// The type whose rows have these columns, with what they are to it in words; null when that is none.
    /// </summary>
    public static (TaskType Type, string Words)? Recognize(IReadOnlyCollection<string> columns, DataOptions data)
    {
        foreach (var type in Own)
            if (type.Recognize(columns, data) is { } words) return (type, words);
        return null;
    }

    /// <summary>A type by its name, or null.</summary>
    public static TaskType? Find(string name) => Types.GetValueOrDefault(name);

    /// <summary>
    /// The type whose evaluations a log holds; one that this version does not know is read by its metrics alone. A log
    /// that names none is of label words.
    /// </summary>
    public static TaskType OfLog(string? name) =>
        name == null ? Find(LabelWordsType.TypeName)! : Find(name) ?? new Unknown(name);

    private sealed class Unknown(string name) : TaskType
    {
        public override string Name => name;
        public override IReadOnlyList<MetricKind> Metrics => [MetricKind.Loss];
        public override string BestMetric => MetricKind.Loss.Name;
        public override ITask Make(Recipe recipe, Tokenizers.ITokenizer tokenizer) =>
            throw new InvalidOperationException($"there is no task type {name}");
    }
}
