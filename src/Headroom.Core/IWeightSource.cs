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
}
