namespace Headroom.Core;

/// <summary>How the weight of a linear layer (or an embedding table) is stored.</summary>
internal enum WeightStorage : byte
{
    /// <summary>float32.</summary>
    F32,
    /// <summary>bfloat16.</summary>
    BF16,
    /// <summary>float16.</summary>
    F16,
    /// <summary>int8 with one float32 absmax a row: w = q * absmax / 127.</summary>
    Int8,
    /// <summary>NF4 codes with one float32 absmax per block.</summary>
    NF4,
    /// <summary>NF4 codes with double-quantized (nested) statistics, as bitsandbytes stores them.</summary>
    NF4Double,
    /// <summary>Blocks of a GGUF file as they lie there (<see cref="LinearWeight.BlockType"/>); frozen.</summary>
    Gguf,
}

/// <summary>
/// A weight [out, in], row-major, in any storage. NF4 blocks run over the flattened weight and may cross rows;
/// packing and arithmetic are those of bitsandbytes (<c>functional.py</c>, <c>csrc/kernels.cu</c>).
/// </summary>
/// <param name="Storage">The storage kind.</param>
/// <param name="Out">Output features (rows).</param>
/// <param name="In">Input features (columns).</param>
/// <param name="Data">Values or packed codes.</param>
/// <param name="Absmax">NF4: F32 [blocks]; NF4Double: U8 codes [blocks]; Int8: F32 [out]; else none.</param>
/// <param name="NestedAbsmax">NF4Double: F32 [ceil(blocks / 256)].</param>
/// <param name="Offset">NF4Double: F32 [1], the mean that was subtracted from absmax.</param>
/// <param name="Bias">F32 [out], or none.</param>
/// <param name="BlockSize">NF4 block size, 64 by default.</param>
/// <param name="BlockType">Gguf: the block type; Data is U8 [out, bytes of a row], rows are whole blocks.</param>
internal readonly record struct LinearWeight(
    WeightStorage Storage, int Out, int In, Tensor Data, Tensor Absmax = default, Tensor NestedAbsmax = default,
    Tensor Offset = default, Tensor Bias = default, int BlockSize = 64, GgmlType BlockType = GgmlType.F32)
{
    /// <summary>Number of NF4 blocks of <paramref name="count"/> elements.</summary>
    public static int Blocks(long count, int blockSize) => (int)((count + blockSize - 1) / blockSize);
    /// <summary>Bytes of codes and statistics, bias not counted.</summary>
    public long Bytes => Data.Bytes + Absmax.Bytes * (Absmax.IsNone ? 0 : 1)
        + (NestedAbsmax.IsNone ? 0 : NestedAbsmax.Bytes) + (Offset.IsNone ? 0 : 4);
}
