using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Cpu;

namespace Headroom.Bench;

/// <summary>Our product against Debian's OpenBLAS on the same cores in the same run (interleaved, medians), and NF4 against float32.</summary>
public static unsafe partial class GemmBench
{
    [LibraryImport("libopenblas.so.0", EntryPoint = "cblas_sgemm")]
    private static partial void Sgemm(int order, int ta, int tb, int m, int n, int k, float alpha, float* a, int lda, float* b, int ldb, float beta, float* c, int ldc);

    public static int Run(string[] args)
    {
        using var device = new CpuDevice();
        var lines = new List<string> { "device,m,k,n,openblas_gflops,headroom_gflops,ratio,nf4_gflops,nf4_to_f32" };
        foreach (var (m, k, n) in new[] { (512, 2048, 2048), (2048, 4096, 4096), (1024, 576, 1536) })
        {
            Tensor New(DType t, int rows, int cols) => new((nint)NativeMemory.AlignedAlloc((nuint)t.Bytes((long)rows * cols) + 64, 64), t, Shape.Of(rows, cols));
            Tensor x = New(DType.F32, m, k), y = New(DType.F32, m, n), w = New(DType.F32, n, k);
            var random = new PhiloxRandom(3);
            for (long i = 0; i < x.Count; i++) x.F[i] = random.NextNormal();
            for (long i = 0; i < w.Count; i++) w.F[i] = random.NextNormal();
            int blocks = LinearWeight.Blocks(w.Count, 64);
            var f32 = new LinearWeight(WeightStorage.F32, n, k, w);
            var nf4 = new LinearWeight(WeightStorage.NF4Double, n, k, New(DType.U4, n, k), New(DType.U8, blocks, 1), New(DType.F32, blocks / 256 + 1, 1), New(DType.F32, 1, 1));
            device.Ops.Quantize(w, nf4);
            List<double> blas = [], ours = [], quantized = [];
            double Time(Action action)
            {
                long start = Stopwatch.GetTimestamp();
                action();
                return 2.0 * m * n * k / Stopwatch.GetElapsedTime(start).TotalSeconds / 1e9;
            }
            for (int r = 0; r < 12; r++)
            {
                bool keep = r >= 3;
                double b = Time(() => Sgemm(101, 111, 112, m, n, k, 1, x.F, k, w.F, k, 0, y.F, n));
                double o = Time(() => device.Ops.Linear(x, f32, y)), q = Time(() => device.Ops.Linear(x, nf4, y));
                if (!keep) continue;
                blas.Add(b);
                ours.Add(o);
                quantized.Add(q);
            }
            double Median(List<double> v) => v.Order().ElementAt(v.Count / 2);
            double mb = Median(blas), mo = Median(ours), mq = Median(quantized);
            Console.WriteLine($"{m} x {k} x {n}: OpenBLAS {mb:F0}, ours {mo:F0} GFLOP/s ({mo / mb:P0}); NF4 {mq:F0} ({mq / mo:P0} of ours in float32)");
            lines.Add(string.Create(CultureInfo.InvariantCulture, $"\"{device.Name}, {StepBench.CpuName()}\",{m},{k},{n},{mb:F1},{mo:F1},{mo / mb:F3},{mq:F1},{mq / mo:F3}"));
        }
        Directory.CreateDirectory(Path.Combine("bench", "results"));
        File.WriteAllLines(Path.Combine("bench", "results", "cpu-gemm.csv"), lines);
        return 0;
    }
}
