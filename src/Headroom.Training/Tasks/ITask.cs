using Headroom.Formats.Data;
using Headroom.Inference;
using Headroom.Training.Data;

namespace Headroom.Training.Tasks;

/// <summary>
/// A task with the options of a recipe over a tokenizer: rows to tokens with labelled spans, and a model to metrics.
/// Encoding is safe from several threads.
/// </summary>
internal interface ITask
{
    /// <summary>Its type.</summary>
    TaskType Type { get; }
    /// <summary>Longest row that is encoded, tokens.</summary>
    int MaxTokens { get; }
    /// <summary>The smallest task.max_seq_length that it takes.</summary>
    int LeastLength { get; }
    /// <summary>Rows that were cut to <see cref="MaxTokens"/> so far.</summary>
    int CutTexts { get; }
    /// <summary>
    /// Tokens whose scores an evaluation asks the engine for at once; 0 when it asks for losses alone.
    /// </summary>
    int Candidates { get; }
    /// <summary>
    /// Tokens of the answers that an evaluation lets the model give, at most, behind the longest row; 0 where it gives
    /// none.
    /// </summary>
    int AnswerTokens => 0;
    /// <summary>
    /// Ids that an evaluation uses with every row, such as those of the label words: a part of the rows' identity.
    /// </summary>
    IReadOnlyList<int[]> SharedIds { get; }

    /// <summary>Whether spans of a training row may have another weight than 1, for the plan.</summary>
    bool WeighsLabels => false;

    /// <summary>
    /// The loss, where it is no mean of token losses; null = it is. Such a task has <see cref="WeighsLabels"/>.
    /// </summary>
    IObjective? Objective => null;

    /// <summary>Most labelled tokens of a training row, for the plan.</summary>
    /// <param name="longest">The longest row, tokens.</param>
    int MostLabels(int longest);

    /// <summary>
    /// Tokens and labelled spans of a row: one, several where a long text is read in windows, or none where the row is
    /// left out, which <see cref="Notes"/> says.
    /// </summary>
    /// <param name="row">A row that <see cref="TaskType.CheckRows"/> has passed.</param>
    /// <param name="training">For training, else for <see cref="Evaluate"/>.</param>
    /// <exception cref="Core.HeadroomException">The row cannot be encoded.</exception>
    IReadOnlyList<EncodedRow> Encode(DataRow row, bool training);

    /// <summary>
    /// What is odd about the rows but no error, a sentence or two each; said before step 1 and before an evaluation,
    /// when all rows are encoded.
    /// </summary>
    /// <param name="train">Training rows; null for an evaluation alone.</param>
    /// <param name="others">Validation and test rows, or those of an evaluation.</param>
    IReadOnlyList<string> Notes(IReadOnlyList<DataRow>? train, params IReadOnlyList<DataRow>[] others);

    /// <summary>A metric of the type in words: "F1 of ' positive'".</summary>
    /// <param name="metric">Its name.</param>
    string Describe(string metric);

    /// <summary>Measures the model of an engine over rows that were encoded for evaluation.</summary>
    /// <returns>Every metric of the type, with the loss.</returns>
    /// <exception cref="NotFiniteException">The model gives NaN or infinite values.</exception>
    Evaluation Evaluate(Engine engine, IRowSource rows, EvaluationOptions options);
}
