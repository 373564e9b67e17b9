namespace Headroom.Core;

/// <summary>
/// Tensor types of GGUF that can be read, with ggml's numbers (llama.cpp <c>ggml.h</c>, <c>ggml-common.h</c>).
/// </summary>
internal enum GgmlType
{
    /// <summary>float32.</summary>
    F32 = 0,
    /// <summary>float16.</summary>
    F16 = 1,
    /// <summary>32 values in 18 bytes: f16 scale, 4-bit codes minus 8.</summary>
    Q4_0 = 2,
    /// <summary>32 values in 20 bytes: f16 scale and minimum, 4-bit codes.</summary>
    Q4_1 = 3,
    /// <summary>32 values in 22 bytes: f16 scale, 5-bit codes minus 16.</summary>
    Q5_0 = 6,
    /// <summary>32 values in 24 bytes: f16 scale and minimum, 5-bit codes.</summary>
    Q5_1 = 7,
    /// <summary>32 values in 34 bytes: f16 scale, int8 codes.</summary>
    Q8_0 = 8,
    /// <summary>256 values in 84 bytes: 2-bit codes, 4-bit scale and minimum for each 16.</summary>
    Q2_K = 10,
    /// <summary>256 values in 110 bytes: 3-bit codes, 6-bit scale for each 16.</summary>
    Q3_K = 11,
    /// <summary>256 values in 144 bytes: 4-bit codes, 6-bit scale and minimum for each 32.</summary>
    Q4_K = 12,
    /// <summary>256 values in 176 bytes: 5-bit codes, 6-bit scale and minimum for each 32.</summary>
    Q5_K = 13,
    /// <summary>256 values in 210 bytes: 6-bit codes, 8-bit scale for each 16.</summary>
    Q6_K = 14,
    /// <summary>32 values in 18 bytes: f16 scale, 4-bit codes of a fixed non-linear table.</summary>
    IQ4_NL = 20,
    /// <summary>256 values in 136 bytes: codes as <see cref="IQ4_NL"/>, 6-bit scale for each 32.</summary>
    IQ4_XS = 23,
    /// <summary>bfloat16.</summary>
    BF16 = 30,
}

/// <summary>Sizes of <see cref="GgmlType"/>.</summary>
internal static class GgmlTypes
{
    /// <summary>Values of the largest block.</summary>
    public const int LargestBlock = 256;

    /// <summary>Values and bytes of one block; a plain type is a block of one.</summary>
    public static (int Values, int Bytes) Block(this GgmlType type) => type switch
    {
        GgmlType.F32 => (1, 4),
        GgmlType.F16 or GgmlType.BF16 => (1, 2),
        GgmlType.Q4_0 or GgmlType.IQ4_NL => (32, 18),
        GgmlType.Q4_1 => (32, 20),
        GgmlType.Q5_0 => (32, 22),
        GgmlType.Q5_1 => (32, 24),
        GgmlType.Q8_0 => (32, 34),
        GgmlType.Q2_K => (256, 84),
        GgmlType.Q3_K => (256, 110),
        GgmlType.Q4_K => (256, 144),
        GgmlType.Q5_K => (256, 176),
        GgmlType.Q6_K => (256, 210),
        GgmlType.IQ4_XS => (256, 136),
        _ => throw new ArgumentOutOfRangeException(nameof(type)),
    };

    /// <summary>
    /// Bytes of a row of <paramref name="columns"/> values, which must be whole blocks: blocks never cross rows.
    /// </summary>
    public static long RowBytes(this GgmlType type, int columns)
    {
        var (values, bytes) = type.Block();
        return (long)(columns / values) * bytes;
    }

    /// <summary>True for F32, F16 and BF16.</summary>
    public static bool IsPlain(this GgmlType type) => type is GgmlType.F32 or GgmlType.F16 or GgmlType.BF16;
}
