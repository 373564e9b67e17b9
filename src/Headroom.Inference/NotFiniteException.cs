using Headroom.Core;

namespace Headroom.Inference;

/// <summary>
/// A model whose scores are NaN or infinite: there is no evaluation in them, the largest of such numbers is any. Exit
/// code 1.
/// </summary>
/// <param name="what">One line: what is wrong.</param>
internal sealed class NotFiniteException(string what)
    : HeadroomException(what, "Weights of the model or adapter are NaN or infinite, or its activations overflow: take "
        + "another checkpoint, or with fp16 set training.precision to bf16 or fp32.", 1);
