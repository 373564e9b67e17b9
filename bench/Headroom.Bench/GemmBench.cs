using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Cpu;

namespace Headroom.Bench;

/// <summary>
/// Our product against Debian's OpenBLAS (libopenblas0-pthread) on the same cores in the same run, and NF4 against
/// float32. The contenders take turns in blocks with a pause before each, because OpenBLAS's threads spin on for a
/// while after a call. Variables that choose another kernel than the one OpenBLAS takes for this processor are removed
/// first; the kernel's name is printed and recorded.
/// </summary>
public static unsafe partial class GemmBench
{
    [LibraryImport("libopenblas.so.0", EntryPoint = "cblas_sgemm")]
    private static partial void Sgemm(
        int order, int ta, int tb, int m, int n, int k, float alpha, float* a, int lda, float* b, int ldb, float beta,
        float* c, int ldc);
    [LibraryImport("libopenblas.so.0", EntryPoint = "openblas_get_corename")]
    private static partial nint CoreName();
    [LibraryImport("libopenblas.so.0", EntryPoint = "openblas_set_num_threads")]
    private static partial void SetThreads(int threads);
    [LibraryImport("libc", EntryPoint = "unsetenv", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int UnsetVariable(string name);

    public static int Run(string[] args)
    {
        int Option(string name, int fallback) =>
            Array.IndexOf(args, name) is >= 0 and var i
                ? int.Parse(args[i + 1], CultureInfo.InvariantCulture)
                : fallback;
        int rounds = Option("--rounds", 5);
        foreach (string name in new[] { "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_NUM_THREADS" })
            UnsetVariable(name);
        var ops = new CpuOps(Option("--threads", 0));
        SetThreads(ops.Threads);
        string kernel = Marshal.PtrToStringUTF8(CoreName()) ?? "?";
        Console.WriteLine($"{ops.Threads} threads, OpenBLAS kernel {kernel}; best (median) GFLOP/s");
        var lines = new List<string>
        {
            "date,device,m,k,n,openblas_kernel,openblas_best,openblas_median,headroom_best,headroom_median,ratio_best,"
                + "ratio_median,nf4_best,nf4_median,nf4_to_f32_best",
        };
        foreach (var (m, k, n) in new[] { (512, 2048, 2048), (2048, 4096, 4096), (512, 4096, 4096), (1024, 576, 1536) })
        {
            Tensor New(DType t, int rows, int cols) =>
                new(
                    (nint)NativeMemory.AlignedAlloc((nuint)t.Bytes((long)rows * cols) + 64, 64), t, new Shape(rows, cols)
                );
            Tensor x = New(DType.F32, m, k), y = New(DType.F32, m, n), w = New(DType.F32, n, k);
            var random = new PhiloxRandom(3);
            for (long i = 0; i < x.Count; i++) x.F[i] = random.NextNormal();
            for (long i = 0; i < w.Count; i++) w.F[i] = random.NextNormal();
            int blocks = LinearWeight.Blocks(w.Count, 64);
            var f32 = new LinearWeight(WeightStorage.F32, n, k, w);
            var nf4 = new LinearWeight(
                WeightStorage.NF4Double, n, k, New(DType.U4, n, k), New(DType.U8, blocks, 1),
                New(DType.F32, blocks / 256 + 1, 1), New(DType.F32, 1, 1));
            ops.Quantize(w, nf4);
            int calls = (int)Math.Clamp(6e10 / (2.0 * m * n * k), 3, 30);
            var rates = new List<double>[3];
            for (int i = 0; i < 3; i++) rates[i] = [];
            for (int round = 0; round <= rounds; round++)
                for (int contender = 0; contender < 3; contender++)
                {
                    Thread.Sleep(200);
                    for (int call = 0; call <= calls; call++)
                    {
                        long start = Stopwatch.GetTimestamp();
                        if (contender == 0) Sgemm(101, 111, 112, m, n, k, 1, x.F, k, w.F, k, 0, y.F, n);
                        else ops.Linear(x, contender == 1 ? f32 : nf4, y);
                        double rate = 2.0 * m * n * k / Stopwatch.GetElapsedTime(start).TotalSeconds / 1e9;
                        if (round > 0 && call > 0) rates[contender].Add(rate);
                    }
                }
            double Best(int i) => rates[i].Max();
            double Median(int i) => rates[i].Order().ElementAt(rates[i].Count / 2);
            Console.WriteLine(
                $"{m} x {k} x {n}: OpenBLAS {Best(0):F0} ({Median(0):F0}), ours {Best(1):F0} ({Median(1):F0}) = "
                    + $"{Best(1) / Best(0):P0} ({Median(1) / Median(0):P0}); "
                + $"NF4 {Best(2):F0} ({Median(2):F0}) = {Best(2) / Best(1):P0} of ours in float32");
            lines.Add(string.Create(CultureInfo.InvariantCulture,
                    $"{DateTime.UtcNow:yyyy-MM-dd},\"CPU, {ops.Threads} threads, "
                        + $"{StepBench.CpuName()}\",{m},{k},{n},{kernel},{Best(0):F1},{Median(0):F1},{Best(1):F1},"
                        + $"{Median(1):F1},{Best(1) / Best(0):F3},{Median(1) / Median(0):F3},{Best(2):F1},"
                        + $"{Median(2):F1},{Best(2) / Best(1):F3}"
                )
            );
            foreach (var t in new[] { x, y, w, nf4.Data, nf4.Absmax, nf4.NestedAbsmax, nf4.Offset })
                NativeMemory.AlignedFree((void*)t.Address);
        }
        ops.Dispose();
        Directory.CreateDirectory(Path.Combine("bench", "results"));
        File.WriteAllLines(Path.Combine("bench", "results", "cpu-gemm.csv"), lines);
        return 0;
    }
}
