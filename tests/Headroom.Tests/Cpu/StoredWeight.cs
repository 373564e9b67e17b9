using Headroom.Core;

namespace Headroom.Tests.Cpu;

/// <summary>
/// A random weight in any storage together with the values that storage defines, worked out here from codes and
/// statistics in double precision.
/// </summary>
internal sealed unsafe class StoredWeight
{
    public StoredWeight(ElementTestData d, WeightStorage storage, int outs, int ins, bool bias = false)
    {
        int blocks = LinearWeight.Blocks((long)outs * ins, 64);
        var dtype = storage switch
        {
            WeightStorage.F32 => DType.F32,
            WeightStorage.BF16 => DType.BF16,
            WeightStorage.F16 => DType.F16,
            WeightStorage.Int8 => DType.I8,
            _ => DType.U4,
        };
        var data = d.Raw(dtype, outs, ins);
        Tensor absmax = default, nested = default, offset = default;
        switch (storage)
        {
            case WeightStorage.Int8: absmax = d.Zeros(outs); break;
            case WeightStorage.NF4: absmax = d.Zeros(blocks); break;
            case WeightStorage.NF4Double:
                absmax = d.Raw(DType.U8, blocks);
                nested = d.Zeros(LinearWeight.Blocks(blocks, 256));
                offset = d.Zeros(1);
                break;
        }
        W = new LinearWeight(storage, outs, ins, data, absmax, nested, offset, bias ? d.Normal(outs) : default);
        d.Ops.Quantize(d.Normal(outs, ins), W);
        float[] map = Nf4.DynamicMap();
        Values = new double[outs * ins];
        for (int i = 0; i < Values.Length; i++)
            Values[i] = storage switch
            {
                WeightStorage.F32 => data.F[i],
                WeightStorage.BF16 => BitConverter.UInt32BitsToSingle((uint)((ushort*)data.B)[i] << 16),
                WeightStorage.F16 => (double)((Half*)data.B)[i],
                WeightStorage.Int8 => ((sbyte*)data.B)[i] * (double)absmax.F[i / ins] / 127,
                WeightStorage.NF4 => Code(data, i) * (double)absmax.F[i / 64],
                _ => Code(data, i) * (map[absmax.B[i / 64]] * (double)nested.F[i / 64 / 256] + offset.F[0]),
            };
    }

    public LinearWeight W { get; }
    /// <summary>[out, in], row-major.</summary>
    public double[] Values { get; }

    private static double Code(Tensor data, int i) => Nf4.Codes[i % 2 == 0 ? data.B[i / 2] >> 4 : data.B[i / 2] & 15];
}

/// <summary>Plain loops in double precision: what the ops are compared with.</summary>
internal static class Reference
{
    /// <summary>a [n, k] times b^T, b [m, k].</summary>
    public static double[] TimesTransposed(double[] a, double[] b, int n, int m, int k)
    {
        var c = new double[n * m];
        for (int i = 0; i < n; i++)
            for (int j = 0; j < m; j++)
            {
                double sum = 0;
                for (int l = 0; l < k; l++) sum += a[i * k + l] * b[j * k + l];
                c[i * m + j] = sum;
            }
        return c;
    }

    /// <summary>The matrix [rows, columns] transposed.</summary>
    public static double[] Transpose(double[] a, int rows, int columns)
    {
        var t = new double[a.Length];
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++) t[j * rows + i] = a[i * columns + j];
        return t;
    }

    public static double[] Plus(double[] a, double[] b) => a.Zip(b, (x, y) => x + y).ToArray();

    /// <summary>
    /// 0 or 1 / (1 - p) of every element of [rows, columns], from the definition in <see cref="Dropout"/>, one Philox
    /// call an element.
    /// </summary>
    public static double[] Mask(in Dropout d, int count)
    {
        var mask = new double[count];
        for (int i = 0; i < count; i++)
        {
            var r = Philox.Next((uint)(i / 8), 0, d.Site, d.Step, (uint)d.Seed, (uint)(d.Seed >> 32));
            uint word = (i % 8 / 2) switch
            {
                0 => r.X0,
                1 => r.X1,
                2 => r.X2,
                _ => r.X3,
            },
                bits = (i % 2 == 0 ? word : word >> 16) & 0x7FFF;
            mask[i] = d.P == 0 ? 1 : bits / 32768.0 >= d.P ? 1 / (1 - (double)d.P) : 0;
        }
        return mask;
    }

    /// <summary>Compares relative to the largest expected value, as sums of many products want.</summary>
    public static void Near(double[] expected, Tensor actual, double relative, string what)
    {
        Assert.Equal(expected.Length, actual.Count);
        double largest = expected.Max(Math.Abs), worst = 0;
        float[] values = ElementTestData.Floats(actual).ToArray();
        for (int i = 0; i < expected.Length; i++)
        {
            Assert.True(float.IsFinite(values[i]), $"{what}: [{i}] is {values[i]}");
            worst = Math.Max(worst, Math.Abs(expected[i] - values[i]));
        }
        Assert.True(worst <= relative * largest, $"{what}: differs by {worst}, largest value {largest}");
    }
}
