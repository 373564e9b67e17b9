using Headroom.Core;
using Headroom.Tests.Formats;

namespace Headroom.Cuda.Tests;

/// <summary>
/// GGUF blocks expanded on the GPU: the CPU's bits in float32, products and look-ups in every activation type.
/// </summary>
public class GgufTests
{
    public static IEnumerable<ITheoryDataRow> Types() => (TheoryData<GgmlType>)[.. GgmlSamples.Quantized];

    [Theory, MemberData(nameof(Types))]
    internal void AsOnTheCpu(GgmlType type)
    {
        // A small expansion buffer: the larger weight goes through in pieces.
        using var rig = new Rig(new CudaOptions(ExpandBytes: 256 << 10));
        foreach (var t in new[] { DType.F32, DType.BF16, DType.F16 })
            foreach (var (rows, ins, outs) in new[] { (33, type.Block().Values == 32 ? 352 : 256, 96), (5, 768, 1000) })
            {
                var (cpu, gpu) = rig.Blocks(type, outs, ins);
                Pair full = rig.Empty(DType.F32, outs, ins);
                rig.Cpu.Dequantize(cpu, full.Cpu);
                rig.Gpu.Dequantize(gpu, full.Gpu);
                rig.EqualBits(full, $"{type} values");
                Pair x = rig.Normal(t, rows, ins),
                    y = rig.Empty(t, rows, outs),
                    dy = rig.Normal(t, rows, outs),
                    dx = rig.Empty(t, rows, ins);
                double tol = Rig.Tolerance(t);
                for (int pass = 0; pass < 3; pass++) // the later passes find the weights expanded ahead
                {
                    rig.Cpu.Linear(x.Cpu, cpu, y.Cpu);
                    rig.Gpu.Linear(x.Gpu, gpu, y.Gpu);
                    rig.Close(y, tol, $"{type} y");
                    rig.Cpu.LinearBackwardInput(dy.Cpu, cpu, false, dx.Cpu);
                    rig.Gpu.LinearBackwardInput(dy.Gpu, gpu, false, dx.Gpu);
                    rig.Close(dx, tol, $"{type} dx");
                }
                Pair ids = rig.Ints(0, outs - 1, 3, 3), rowsOf = rig.Empty(t, 4, ins);
                rig.Cpu.Embedding(ids.Cpu, cpu, rowsOf.Cpu);
                rig.Gpu.Embedding(ids.Gpu, gpu, rowsOf.Gpu);
                rig.Close(rowsOf, tol, $"{type} rows");
            }
    }
}
