namespace Headroom.Core;

/// <summary>
/// A checkpoint to read weights from, always under Hugging Face names and in Hugging Face row order, whatever the file
/// format.
/// </summary>
internal interface IWeightSource : IDisposable
{
    /// <summary>The architecture.</summary>
    ModelConfig Config { get; }
    /// <summary>True when the tensor is in the checkpoint.</summary>
    bool Has(string hfName);
    /// <summary>[rows, columns]; a vector is [n, 1].</summary>
    (int Rows, int Cols) ShapeOf(string hfName);
    /// <summary>
    /// Rows as float32. Throws <see cref="HeadroomException"/> when the tensor is missing or has the wrong shape.
    /// </summary>
    void ReadRows(string hfName, int firstRow, int rowCount, Span<float> destination);
    /// <summary>
    /// The type (F32, BF16 or F16) in which <see cref="ReadRaw"/> gives the tensor as it lies in the file; null where
    /// values must be computed.
    /// </summary>
    DType? RawType(string hfName) => null;
    /// <summary>
    /// Rows in the type of <see cref="RawType"/>, without a conversion. May be called from several threads at once.
    /// Throws as <see cref="ReadRows"/> does.
    /// </summary>
    void ReadRaw(string hfName, int firstRow, int rowCount, Span<byte> destination) =>
        throw new NotSupportedException($"{hfName} cannot be read as it lies in the file");
    /// <summary>Lower-case hex SHA-256 over the weights; identifies the base of an adapter.</summary>
    string Hash { get; }
    /// <summary>Starts to compute <see cref="Hash"/> on another thread, beside the loading of the weights.</summary>
    void BeginHash() { }
    /// <summary>
    /// Starts to check, on other threads and beside the loading, that the weights are what was written. The result is
    /// null when they are, or when nothing says what was written; else the source to load again from, which belongs to
    /// this one. Whoever loads weights awaits it before they are used.
    /// </summary>
    Task<IWeightSource?> Verify() => Task.FromResult<IWeightSource?>(null);
    /// <summary>
    /// Element type that loses nothing: BF16 or F16 for 16-bit tensors, else F32. For a tensor that is quantized
    /// already, the type that its makers dequantize it to.
    /// </summary>
    DType SourceDType(string hfName);
    /// <summary>The type that a GGUF file holds the tensor in; null for other formats.</summary>
    GgmlType? BlockType(string hfName) => null;
    /// <summary>
    /// Rows as the file's own blocks, whole rows in Hugging Face order; only where <see cref="BlockType"/> is not null.
    /// </summary>
    void ReadBlocks(string hfName, int firstRow, int rowCount, Span<byte> destination) =>
        throw new NotSupportedException("this checkpoint has no GGUF blocks");
    /// <summary>How the file already holds the tensor quantized, NF4 or NF4Double; null when it does not.</summary>
    WeightStorage? QuantizedAs(string hfName) => null;
    /// <summary>
    /// The codes and statistics of a tensor whose <see cref="QuantizedAs"/> is not null, as they lie in the file; valid
    /// while the source is open.
    /// </summary>
    QuantizedParts ReadQuantized(string hfName) => throw new NotSupportedException($"{hfName} is not quantized");
    /// <summary>The text of the checkpoint's config.json, or null when it has none.</summary>
    string? ConfigJson => null;
    /// <summary>
    /// Tensors of the file, by its own names, that belong to nothing in the model and are not known to be harmless;
    /// see <see cref="WeightNames"/>.
    /// </summary>
    IReadOnlyList<string> Unclaimed => [];
    /// <summary>
    /// Lines for the user on how the checkpoint was read, where that is not as it says or was not sure.
    /// </summary>
    IReadOnlyList<string> Notices => [];
}

/// <summary>A quantized weight as stored: see <see cref="LinearWeight"/> for the meaning of the parts.</summary>
/// <param name="codes">Packed 4-bit codes, high nibble first.</param>
/// <param name="absmax">NF4: float32 [blocks]; NF4Double: 8-bit codes [blocks].</param>
/// <param name="nestedAbsmax">NF4Double: [ceil(blocks / 256)]; else empty.</param>
/// <param name="offset">NF4Double: the mean that was subtracted.</param>
internal readonly ref struct QuantizedParts(
    ReadOnlySpan<byte> codes, ReadOnlySpan<byte> absmax, ReadOnlySpan<float> nestedAbsmax, float offset)
{
    /// <summary>Packed codes.</summary>
    public ReadOnlySpan<byte> Codes { get; } = codes;
    /// <summary>Block statistics.</summary>
    public ReadOnlySpan<byte> Absmax { get; } = absmax;
    /// <summary>Statistics of the statistics.</summary>
    public ReadOnlySpan<float> NestedAbsmax { get; } = nestedAbsmax;
    /// <summary>Mean of absmax.</summary>
    public float Offset { get; } = offset;
}
