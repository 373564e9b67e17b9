using CsCheck;
using Headroom.Core;
using Headroom.Cpu;

namespace Headroom.Tests.Cpu;

/// <summary>Products of a few rows against a plain sum in double precision over the dequantized weight.</summary>
public sealed unsafe class RowProductTests
{
    [Fact]
    public void EqualsThePlainSum() =>
        Gen.Select(Gen.Int[0, 5], Gen.Int[1, 9], Gen.Int[1, 70], Gen.Int[0, 60], Gen.Int[0, 1000]).Sample(
            (kind, rows, outs, width, seed) =>
            {
                WeightStorage[] storages =
                [
                    WeightStorage.F32, WeightStorage.BF16, WeightStorage.F16, WeightStorage.Int8, WeightStorage.NF4,
                        WeightStorage.NF4Double];
                // of whole vectors and blocks; the other widths end in the middle of one
                int[] whole = [64, 128, 192, 576, 1088];
                var storage = storages[kind];
                int ins = width < 30 ? whole[width % 5] : 2 * (width - 29);
                using var device = new CpuDevice(2);
                nint at = device.Reserve(4 << 20);
                Tensor Take(DType type, Shape shape)
                {
                    var t = new Tensor(at, type, shape);
                    at += (nint)((t.Bytes + 255) / 256 * 256);
                    return t;
                }
                int blocks = LinearWeight.Blocks((long)outs * ins, 64);
                Tensor source = Take(DType.F32, new Shape(outs, ins)),
                    plain = Take(DType.F32, new Shape(outs, ins)),
                    x = Take(DType.F32, new Shape(rows, ins)),
                    y = Take(DType.F32, new Shape(rows, outs));
                var data = Take(
                    storage switch
                    {
                        WeightStorage.F32 => DType.F32,
                        WeightStorage.BF16 => DType.BF16,
                        WeightStorage.F16 => DType.F16,
                        WeightStorage.Int8 => DType.I8,
                        _ => DType.U4,
                    },
                    new Shape(outs, ins)
                );
                var absmax = storage switch
                {
                    WeightStorage.Int8 => Take(DType.F32, new Shape(outs)),
                    WeightStorage.NF4 => Take(DType.F32, new Shape(blocks)),
                    WeightStorage.NF4Double => Take(DType.U8, new Shape(blocks)),
                    _ => default,
                };
                bool nested = storage == WeightStorage.NF4Double;
                var w = new LinearWeight(
                    storage, outs, ins, data, absmax,
                    nested ? Take(DType.F32, new Shape(LinearWeight.Blocks(blocks, 256))) : default,
                    nested ? Take(DType.F32, new Shape(1)) : default);
                var random = new PhiloxRandom((ulong)seed);
                for (long i = 0; i < source.Count; i++) source.F[i] = random.NextFloat() - 0.5f;
                for (long i = 0; i < x.Count; i++) x.F[i] = random.NextFloat() - 0.5f;
                device.Ops.Quantize(source, w);
                device.Ops.Dequantize(w, plain);
                device.Ops.Linear(x, w, y);
                for (int m = 0; m < rows; m++)
                    for (int n = 0; n < outs; n++)
                    {
                        double sum = 0, size = 0;
                        for (int k = 0; k < ins; k++)
                        {
                            double term = (double)x.F[m * ins + k] * plain.F[(long)n * ins + k];
                            sum += term;
                            size += Math.Abs(term);
                        }
                        Assert.InRange(y.F[(long)m * outs + n], sum - 1e-6 * (size + 1e-3), sum + 1e-6 * (size + 1e-3));
                    }
            }, iter: 200, threads: 1);
}
