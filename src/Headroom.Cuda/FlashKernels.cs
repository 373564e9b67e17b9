using Headroom.Core;

namespace Headroom.Cuda;

/// <summary>
/// Which attention the flash kernels compute; the rest falls to one kernel that goes row by row: the same result, in
/// the same memory, but slower.
/// </summary>
internal static class FlashKernels
{
    private const int LeastCapability = 80;
    private static readonly int[] HeadSizes = [64, 128];

    /// <summary>Largest head_dim that any kernel takes.</summary>
    public const int LargestHead = 256;

    /// <summary>The rule in words, for <c>headroom doctor</c>.</summary>
    public static string Rule => $"flash kernels for heads of {string.Join(" and ", HeadSizes)} in bf16 and fp16, "
        + $"from compute capability {LeastCapability / 10}.{LeastCapability % 10} on; "
        + $"else plain kernels, row by row: slower; no head above {LargestHead}";

    /// <summary>True when the flash kernels take heads of <paramref name="headDim"/> elements.</summary>
    /// <param name="headDim">head_dim.</param>
    /// <param name="type">Type of the activations.</param>
    /// <param name="capability">The GPU's compute capability, as 90.</param>
    public static bool Take(int headDim, DType type, int capability) => type != DType.F32
        && capability >= LeastCapability && HeadSizes.Contains(headDim);

    /// <summary>
    /// A line for the user where <see cref="Take"/> is false: why, and what takes their place; else null.
    /// </summary>
    /// <inheritdoc cref="Take"/>
    public static string? Fallback(int headDim, DType type, int capability)
    {
        if (Take(headDim, type, capability)) return null;
        string why = type == DType.F32 ? "computing in fp32"
            : capability < LeastCapability ? $"compute capability {capability / 10}.{capability % 10}"
            : $"a head size (head_dim) of {headDim}; they take {string.Join(" and ", HeadSizes)}";
        return $"attention: the flash kernels are not used, because of {why}. Plain kernels take their place: the "
            + "same result in the same memory, but slower.";
    }
}
