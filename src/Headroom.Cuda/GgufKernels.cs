using Headroom.Core;

namespace Headroom.Cuda;

/// <summary>Names of the kernels of gguf.cu, one of each for a block type.</summary>
internal static class GgufKernels
{
    private static readonly Dictionary<GgmlType, string> s_expand = Names("expand_"), s_embed = Names("embed_");

    /// <summary>Expands blocks of the weight's type.</summary>
    public static string Expand(in LinearWeight w) => s_expand[w.BlockType];

    /// <summary>Reads rows of a table of the weight's type.</summary>
    public static string Embed(in LinearWeight w) => s_embed[w.BlockType];

    private static Dictionary<GgmlType, string> Names(string prefix) =>
        Enum.GetValues<GgmlType>().ToDictionary(t => t, t => prefix + t.ToString().ToLowerInvariant());
}
