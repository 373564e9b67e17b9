namespace Headroom.Core;

/// <summary>A checkpoint to read weights from, always under Hugging Face names and in Hugging Face row order, whatever the file format.</summary>
public interface IWeightSource : IDisposable
{
    /// <summary>The architecture.</summary>
    ModelConfig Config { get; }
    /// <summary>True when the tensor is in the checkpoint.</summary>
    bool Has(string hfName);
    /// <summary>[rows, columns]; a vector is [n, 1].</summary>
    (int Rows, int Cols) ShapeOf(string hfName);
    /// <summary>Rows as float32. Throws <see cref="HeadroomException"/> when the tensor is missing or has the wrong shape.</summary>
    void ReadRows(string hfName, int firstRow, int rowCount, Span<float> destination);
    /// <summary>Lower-case hex SHA-256 over the weights; identifies the base of an adapter.</summary>
    string Hash { get; }
    /// <summary>Element type that loses nothing: BF16 or F16 for 16-bit tensors, else F32.</summary>
    DType SourceDType(string hfName);
    /// <summary>The type that a GGUF file holds the tensor in; null for other formats.</summary>
    GgmlType? BlockType(string hfName) => null;
    /// <summary>Rows as the file's own blocks, whole rows in Hugging Face order; only where <see cref="BlockType"/> is not null.</summary>
    void ReadBlocks(string hfName, int firstRow, int rowCount, Span<byte> destination) => throw new NotSupportedException("this checkpoint has no GGUF blocks");
}
