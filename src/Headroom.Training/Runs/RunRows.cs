using Headroom.Core;
using Headroom.Inference;
using Headroom.Inference.Bases;
using Headroom.Tokenizers;
using Headroom.Training.Adapters;
using Headroom.Training.Data;
using Headroom.Training.Recipes;
using Headroom.Training.Tasks;

namespace Headroom.Training.Runs;

/// <summary>
/// The rows of a run as one base's tokenizer encodes them. They depend on nothing else of the base, so a duel keeps
/// them from its first look to the run itself.
/// </summary>
internal sealed class RunRows
{
    private int? _longest;
    private Dictionary<string, SplitIdentity>? _identities;

    private RunRows() { }

    /// <summary>Rows of each split.</summary>
    public required DataSplits Data { get; init; }
    /// <summary>The base model.</summary>
    public required ModelSource Base { get; init; }
    /// <summary>Its tokenizer.</summary>
    public ITokenizer Tokenizer => Base.Tokenizer;
    /// <summary>The recipe's task over that tokenizer.</summary>
    public required ITask Task { get; init; }
    /// <summary>Encoded training rows.</summary>
    public required EncodedRows Train { get; init; }
    /// <summary>Encoded validation rows.</summary>
    public required EncodedRows Validation { get; init; }
    /// <summary>Encoded test rows.</summary>
    public required EncodedRows Test { get; init; }

    /// <summary>
    /// Longest row of all splits, tokens. Encodes every row when it is first asked for; throws
    /// <see cref="HeadroomException"/> for one that cannot be.
    /// </summary>
    public int Longest => _longest ??= Math.Max(Train.EncodeAll(), Math.Max(Validation.EncodeAll(), Test.EncodeAll()));

    /// <summary>Tokens of the longest sequence; a row may hold two.</summary>
    public int LongestSequence =>
        Math.Max(Train.LongestSequence, Math.Max(Validation.LongestSequence, Test.LongestSequence));

    /// <summary>
    /// Number and hash of the rows of train, validation and test. Encodes every row when it is first asked for.
    /// </summary>
    public IReadOnlyDictionary<string, SplitIdentity> Identities => _identities ??= new()
    {
        ["train"] = new(Train.Count, RowsHash.Compute(Train, Task.SharedIds)),
        ["validation"] = new(Validation.Count, RowsHash.Compute(Validation, Task.SharedIds)),
        ["test"] = new(Test.Count, RowsHash.Compute(Test, Task.SharedIds)),
    };

    /// <summary>Reads the rows and the tokenizer; nothing is encoded yet.</summary>
    /// <param name="recipe">Names the data, the task and the seed of the splits.</param>
    /// <param name="model">The base.</param>
    /// <param name="data">The rows, when they were read before.</param>
    /// <exception cref="HeadroomException">Data or tokenizer cannot be used.</exception>
    public static RunRows Read(Recipe recipe, ModelOptions model, DataSplits? data = null)
    {
        TaskChoice.ByData(recipe);
        data ??= DataSplits.Load(recipe.Data, recipe.Task, recipe.Training.Seed);
        var source = new ModelSource(model.Path)
        {
            TokenizerPath = model.Tokenizer,
            Quantization = recipe.Quantization,
            OwnWeights = AdapterStart.TakesWeights(recipe.Lora.InitLoraWeights),
        };
        var task = TaskTypes.Get(recipe.Task).Make(recipe, source.Tokenizer);
        return new RunRows
        {
            Data = data,
            Base = source,
            Task = task,
            Train = new(data.Train, task.Encode),
            Validation = new(data.Validation, task.Encode, false),
            Test = new(data.Test, task.Encode, false),
        };
    }
}
