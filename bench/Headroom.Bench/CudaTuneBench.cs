using System.Globalization;
using Headroom.Core;
using Headroom.Cuda;
using Headroom.Cuda.Resources;

namespace Headroom.Bench;

/// <summary>
/// The dense products of Llama-2-7B's micro-steps under each of the matrix library's first six choices of algorithm,
/// interleaved: does its first choice cost anything? With --seconds S each runs so long at a stretch, of which the
/// second half counts: a card at its power limit does not run as fast as in a burst.
/// The CSV has the rate of the first, and the speed of each over that of the first.
/// </summary>
public static class CudaTuneBench
{
    public static int Run(string[] args)
    {
        using var device = CudaDevice.Open();
        nint arena = device.Reserve(8L << 30);
        var products = ((CudaOps)device.Ops).Products;
        var random = new PhiloxRandom(1);
        var bits = new ushort[1 << 16];
        for (int i = 0; i < bits.Length; i++)
            bits[i] = (ushort)(BitConverter.SingleToUInt32Bits(random.NextNormal()) >> 16);
        for (long at = 0; at < 2L << 30; at += bits.Length * 2)
            device.Upload(
                System.Runtime.InteropServices.MemoryMarshal.AsBytes(bits.AsSpan()),
                new Tensor(arena + (nint)at, DType.U8, new Shape(bits.Length * 2)));
        long start = arena;
        nint a = arena, b = (nint)(start + (1L << 30)), c = (nint)(start + (4L << 30));
        double seconds = 0;
        if (Array.IndexOf(args, "--seconds") is >= 0 and var option)
        {
            seconds = double.Parse(args[option + 1], CultureInfo.InvariantCulture);
            args = [.. args[..option], .. args[(option + 2)..]];
        }
        int[] rows =
            args.Length > 0
                ? args.Select(x => int.Parse(x, CultureInfo.InvariantCulture)).ToArray()
                : [2048, 4096, 8192];
        var lines = new List<string> { "date,device,product,tflops,first,second,third,fourth,fifth,sixth" };
        foreach (int t in rows)
            foreach (
                var (n, k, transposed, beta) in new (int, int, bool, float)[]
                {
                (4096, 4096, true, 0), (4096, 4160, true, 0), (11008, 4160, true, 0), (4096, 11072, true, 0),
                (4096, 4096, false, 0), (4096, 4096, false, 1), (11008, 4096, false, 0), (4096, 11008, false, 1),
                (4160, 11008, false, 1), (32000, 4096, true, 0),
                }
            )
            {
                if (n == 32000 && t > 2048)
                    continue;
                var best = new double[6];
                Array.Fill(best, double.MaxValue);
                for (int round = 0; round < (seconds > 0 ? 1 : 3); round++)
                    for (int rank = 0; rank < best.Length; rank++)
                    {
                        products.Rank = rank;
                        void Go() =>
                            products.Run(
                                false, transposed, t, n, k, 1, a, k, b, transposed ? k : n, DType.BF16, beta, c, n,
                                n == 32000 ? DType.F32 : DType.BF16);
                        Go();
                        using CudaEvent from = CudaEvent.Create(timed: true), to = CudaEvent.Create(timed: true);
                        int times = seconds > 0 ? Math.Max(10, (int)(seconds / 2 * 7e14 / (2.0 * t * n * k))) : 10;
                        for (int i = 0; seconds > 0 && i < times; i++) Go();
                        from.Record(device.Gpu.Main);
                        for (int i = 0; i < times; i++) Go();
                        to.Record(device.Gpu.Main);
                        best[rank] = Math.Min(best[rank], from.To(to) / times);
                    }
                string product = $"{t}x{n}x{k}{(transposed ? " T" : "")}{(beta > 0 ? " +=" : "")}",
                    rate = (2.0 * t * n * k / best[0] / 1e9).ToString("F1", CultureInfo.InvariantCulture);
                string[] speeds = [.. best.Select(x => (best[0] / x).ToString("F3", CultureInfo.InvariantCulture))];
                Console.WriteLine($"{product,-22} {rate,7} TFLOP/s  {string.Join(" ", speeds)}");
                lines.Add($"{DateTime.UtcNow.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture)},{device.Name},"
                    + $"{product},{rate},{string.Join(",", speeds)}");
            }
        string output = Path.Combine(
            "bench", "results", seconds > 0 ? "cuda-products-sustained.csv" : "cuda-products.csv");
        Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(output))!);
        File.WriteAllLines(output, lines);
        return 0;
    }
}
