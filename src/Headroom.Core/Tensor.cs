namespace Headroom.Core;

/// <summary>
/// Element types of buffers. <see cref="U4"/> is two codes a byte, high nibble first (bitsandbytes packing).
/// </summary>
internal enum DType : byte
{
    /// <summary>IEEE-754 single precision, 4 bytes.</summary>
    F32,
    /// <summary>bfloat16, 2 bytes.</summary>
    BF16,
    /// <summary>IEEE-754 half precision, 2 bytes.</summary>
    F16,
    /// <summary>32-bit signed integer, 4 bytes.</summary>
    I32,
    /// <summary>8-bit signed integer.</summary>
    I8,
    /// <summary>8-bit unsigned integer.</summary>
    U8,
    /// <summary>Packed 4-bit codes, half a byte an element.</summary>
    U4,
}

/// <summary>Sizes of <see cref="DType"/>.</summary>
internal static class DTypes
{
    /// <summary>
    /// Bytes that <paramref name="count"/> elements take; an odd 4-bit count is rounded up to a whole byte.
    /// </summary>
    public static long Bytes(this DType dtype, long count) => dtype switch
    {
        DType.F32 or DType.I32 => count * 4,
        DType.BF16 or DType.F16 => count * 2,
        DType.U4 => (count + 1) / 2,
        _ => count,
    };
}

/// <summary>Shape of up to three dimensions, row-major; trailing dimensions are contiguous.</summary>
internal readonly record struct Shape
{
    private Shape(int rank, int d0, int d1, int d2) => (Rank, D0, D1, D2) = (rank, d0, d1, d2);

    /// <summary>A vector.</summary>
    public Shape(int d0) : this(1, d0, 1, 1) { }
    /// <summary>A matrix [rows, columns].</summary>
    public Shape(int d0, int d1) : this(2, d0, d1, 1) { }
    /// <summary>A rank-3 block.</summary>
    public Shape(int d0, int d1, int d2) : this(3, d0, d1, d2) { }

    /// <summary>Number of dimensions.</summary>
    public int Rank { get; }
    /// <summary>First dimension.</summary>
    public int D0 { get; init; }
    /// <summary>Second dimension, or 1.</summary>
    public int D1 { get; init; }
    /// <summary>Third dimension, or 1.</summary>
    public int D2 { get; init; }
    /// <summary>Number of elements.</summary>
    public long Count => (long)D0 * D1 * D2;
    /// <inheritdoc/>
    public override string ToString() =>
        Rank switch
        {
            1 => $"[{D0}]",
            2 => $"[{D0}, {D1}]",
            _ => $"[{D0}, {D1}, {D2}]",
        };
}

/// <summary>
/// A place in memory (host or device), a dtype and a shape. It owns nothing; <c>default</c> means "absent".
/// </summary>
/// <param name="Address">Where the first element lies.</param>
/// <param name="DType">Type of the elements.</param>
/// <param name="Shape">Rows and columns.</param>
/// <param name="Gap">Elements between the end of a row and the start of the next: 0 unless the tensor is the first
/// columns of wider rows.</param>
internal readonly record struct Tensor(nint Address, DType DType, Shape Shape, int Gap = 0)
{
    /// <summary>True for <c>default</c>: an optional tensor that was not given.</summary>
    public bool IsNone => Address == 0;
    /// <summary>Rows: the first dimension.</summary>
    public int Rows => Shape.D0;
    /// <summary>Columns: the product of all dimensions but the first.</summary>
    public int Columns => Shape.D1 * Shape.D2;
    /// <summary>Elements from the start of a row to the start of the next.</summary>
    public int Stride => Columns + Gap;
    /// <summary>Number of elements.</summary>
    public long Count => Shape.Count;
    /// <summary>Bytes that the rows take, gaps included.</summary>
    public long Bytes => DType.Bytes((long)Rows * Stride);
    /// <summary>The first <paramref name="rows"/> rows of the same memory.</summary>
    public Tensor Head(int rows) => this with { Shape = Shape with { D0 = rows } };
    /// <summary><paramref name="count"/> rows from <paramref name="start"/> on, of the same memory.</summary>
    public Tensor Slice(int start, int count) =>
        this with { Address = Address + (nint)DType.Bytes((long)start * Stride), Shape = Shape with { D0 = count } };
    /// <summary>The first columns of every row of a matrix, of the same memory.</summary>
    public Tensor FirstColumns(int columns) =>
        this with { Shape = new Shape(Rows, columns), Gap = Stride - columns };
    /// <summary>Pointer to float32 elements (host memory only).</summary>
    public unsafe float* F => (float*)Address;
    /// <summary>Pointer to int32 elements (host memory only).</summary>
    public unsafe int* I => (int*)Address;
    /// <summary>Pointer to bytes (host memory only).</summary>
    public unsafe byte* B => (byte*)Address;
}
