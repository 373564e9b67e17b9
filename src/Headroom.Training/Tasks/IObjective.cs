using Headroom.Inference;
using Headroom.Training.Data;

namespace Headroom.Training.Tasks;

/// <summary>
/// A loss of rows that is a function of the losses of their tokens, such as one that compares two answers. The loss of
/// an update is the mean over its rows.
/// </summary>
internal interface IObjective
{
    /// <summary>
    /// What has to be known of the base before the first step, computed once; also after a resume, the same again.
    /// </summary>
    /// <param name="engine">Loaded.</param>
    /// <param name="rows">Training rows.</param>
    /// <param name="options">Batches and progress.</param>
    /// <exception cref="Core.HeadroomException">The engine's adapters cannot be left out.</exception>
    void Prepare(Engine engine, IRowSource rows, EvaluationOptions options);

    /// <summary>The sum of the losses of a micro-batch's rows, and its derivative by the loss of each label.</summary>
    /// <param name="batch">Rows, with labels in their order.</param>
    /// <param name="losses">-log p of each label.</param>
    /// <param name="weights">To be set.</param>
    double Weigh(MicroBatch batch, ReadOnlySpan<float> losses, Span<float> weights);
}
