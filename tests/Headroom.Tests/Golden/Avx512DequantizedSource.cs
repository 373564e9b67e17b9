using Headroom.Core;
using Headroom.Cpu;

namespace Headroom.Tests.Golden;

/// <summary>
/// A checkpoint whose projections are NF4 double-quantized and read back as the AVX-512 kernel of bitsandbytes 0.50
/// reads them on CPU (<c>cpu_ops.cpp</c>, dequantizeBlockwise4bitCpu). That kernel takes absmax[row * (in / 64) +
/// column / 64], with in / 64 rounded down, where blocks run over the flattened weight; when in is a multiple of 16 and
/// not of 64 the two differ, and nearly every value gets another block's absmax. Its scalar, CUDA and PyTorch kernels
/// (and ours) use the flattened index. Ground truth made on such a machine carries the fault.
/// </summary>
internal sealed unsafe class Avx512DequantizedSource(IWeightSource inner) : IWeightSource
{
    private const int Block = 64, Vector = 16;
    private readonly Dictionary<string, float[]> _read = [];

    /// <summary>
    /// True when the AVX-512 kernel of bitsandbytes takes the wrong absmax for a weight of this many columns.
    /// </summary>
    public static bool Affects(int columns) => columns % Vector == 0 && columns % Block != 0;

    /// <inheritdoc/>
    public ModelConfig Config => inner.Config;
    /// <inheritdoc/>
    public string Hash => inner.Hash;
    /// <inheritdoc/>
    public bool Has(string hfName) => inner.Has(hfName);
    /// <inheritdoc/>
    public (int Rows, int Cols) ShapeOf(string hfName) => inner.ShapeOf(hfName);
    /// <inheritdoc/>
    public DType SourceDType(string hfName) => DType.F32;
    /// <inheritdoc/>
    public void Dispose() => inner.Dispose();

    /// <inheritdoc/>
    public void ReadRows(string hfName, int firstRow, int rowCount, Span<float> destination)
    {
        if (!hfName.EndsWith("_proj.weight", StringComparison.Ordinal))
        {
            inner.ReadRows(hfName, firstRow, rowCount, destination);
            return;
        }
        int columns = inner.ShapeOf(hfName).Cols;
        if (!_read.TryGetValue(hfName, out float[]? values)) _read[hfName] = values = Requantize(hfName);
        values.AsSpan(firstRow * columns, rowCount * columns).CopyTo(destination);
    }

    private float[] Requantize(string name)
    {
        var (rows, columns) = inner.ShapeOf(name);
        int count = rows * columns,
            blocks = LinearWeight.Blocks(count, Block),
            groups = LinearWeight.Blocks(blocks, 256);
        var values = new float[count];
        inner.ReadRows(name, 0, rows, values);
        byte[] codes = new byte[(count + 1) / 2], absmax = new byte[blocks];
        float[] nested = new float[groups], offset = new float[1];
        using var cpu = new CpuOps(1);
        fixed (float* v = values, n = nested, o = offset)
        fixed (byte* c = codes, a = absmax)
        {
            var w = new LinearWeight(
                WeightStorage.NF4Double, rows, columns, new Tensor((nint)c, DType.U4, new Shape(rows, columns)),
                new Tensor((nint)a, DType.U8, new Shape(blocks)), new Tensor((nint)n, DType.F32, new Shape(groups)),
                new Tensor((nint)o, DType.F32, new Shape(1)));
            var x = new Tensor((nint)v, DType.F32, new Shape(rows, columns));
            cpu.Quantize(x, w);
            cpu.Dequantize(w, x);
        }
        if (!Affects(columns)) return values;
        float[] map = Nf4.DynamicMap();
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < columns; i++)
            {
                int at = r * columns + i, block = r * (columns / Block) + i / Block;
                int code = at % 2 == 0 ? codes[at / 2] >> 4 : codes[at / 2] & 15;
                values[at] = Nf4.Codes[code] * (map[absmax[block]] * nested[block / 256] + offset[0]);
            }
        return values;
    }
}
