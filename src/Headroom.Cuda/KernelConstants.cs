using Headroom.Core;

namespace Headroom.Cuda;

/// <summary>
/// The numbers that host code and kernels must agree on. Kernels read them as macros (<see cref="KernelHeader"/>):
/// FlashTile is FLASH_TILE.
/// </summary>
internal static class KernelConstants
{
    /// <summary>Types of elements: ACT of a file, and what a kernel is told of a stored tensor.</summary>
    public const int KindF32 = 0, KindBF16 = 1, KindF16 = 2, KindInt8 = 3;

    /// <summary>Philox4x32: multipliers and rounds.</summary>
    public const uint PhiloxM0 = Philox.M0, PhiloxM1 = Philox.M1;
    /// <inheritdoc cref="PhiloxM0"/>
    public const int PhiloxRounds = Philox.Rounds;

    /// <summary>
    /// The tables of NF4, floats: 16 codes, from TablesMap on the map of nested statistics, from TablesMiddle on what
    /// lies half-way between two of its neighbours.
    /// </summary>
    public const int TablesMap = 16, TablesMiddle = TablesMap + 256;
    /// <summary>log2 of how many blocks share a nested statistic.</summary>
    public const int NestedShift = 8;

    /// <summary>Threads of expand_nf4, and the octets of codes or of further columns that a block takes.</summary>
    public const int ExpandThreads = 256, ExpandOctets = 1024;
    /// <summary>n / d is n * ceil(2^MagicShift / d) >> MagicShift.</summary>
    public const int MagicShift = 40;

    /// <summary>Attention row by row: warps of a block, and the largest head.</summary>
    public const int AttentionWarps = 4, LargestHead = FlashKernels.LargestHead;
    /// <summary>flash.cu: rows of a tile, queries of a step over queries, threads.</summary>
    public const int FlashTile = 64, FlashQueries = 32, FlashThreads = 128;
    /// <summary>
    /// flash_hopper*.cu: rows of a block, keys of a step over keys, queries of a step over queries, tiles of HopperKeys
    /// rows in the ring, threads, the boundary that tiles lie at, the side of a bulk copy's box.
    /// </summary>
    public const int HopperRows = 128, HopperKeys = 128, HopperQueries = 64, HopperSlots = 4, HopperThreads = 384,
        HopperBoundary = 1024, HopperBox = 64;
    /// <summary>A description of a matrix for bulk copies: bytes, and the boundary it lies at.</summary>
    public const int TensorMapBytes = 128, TensorMapBoundary = 64;

    /// <summary>The rank that kernels of several projections at once are made for.</summary>
    public const int LoraGroupRank = 16;
    /// <summary>lora_down: warps of a block, and of ranks above LoraDownFewAbove.</summary>
    public const int LoraDownWarps = 16, LoraDownFewAbove = 32, LoraDownFewWarps = 8;
    /// <summary>lora_up: warps of a block, 32 columns each.</summary>
    public const int LoraUpWarps = 8;
    /// <summary>lora_outer: columns of a block, which has as many threads, rows of a tile, tiles in the ring.</summary>
    public const int LoraOuterColumns = 256, LoraOuterRows = 32, LoraOuterSlots = 4;
    /// <summary>
    /// lora_backward and lora_swiglu, whose warps walk down 32 columns: warps of a block, rows of a tile, tiles in a
    /// warp's ring, bytes of a tile of a matrix.
    /// </summary>
    public const int LoraWalkWarps = 4, LoraWalkRows = 16, LoraWalkSlots = 3, LoraWalkBytes = LoraWalkRows * 32 * 2;
    /// <summary>
    /// Blocks a processor that rows are shared out to: of lora_backward less the number of projections. More of them
    /// measured slower (spills, or more partial sums).
    /// </summary>
    public const int LoraBackwardBlocks = 5, LoraSwigluBlocks = 3;

    /// <summary>dora.cu: rows of a block of dora_scale; columns of one of dora_backward, which has as many threads.
    /// </summary>
    public const int DoraRows = 16, DoraColumns = 256;
    /// <summary>optimizer.cu: threads of a block that sums.</summary>
    public const int OptimizerThreads = 256;

    /// <summary>The kind of an activation type.</summary>
    public static int Kind(DType type) =>
        type switch { DType.BF16 => KindBF16, DType.F16 => KindF16, _ => KindF32 };

    /// <summary>The kind of a storage that is neither NF4 nor GGUF.</summary>
    public static int Kind(WeightStorage storage) => storage switch
    {
        WeightStorage.F32 => KindF32,
        WeightStorage.BF16 => KindBF16,
        WeightStorage.F16 => KindF16,
        _ => KindInt8,
    };
}
