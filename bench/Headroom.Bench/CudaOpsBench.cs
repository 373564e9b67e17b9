using System.Globalization;
using Headroom.Core;
using Headroom.Cuda;
using Headroom.Cuda.Resources;

namespace Headroom.Bench;

/// <summary>
/// Single ops on a GPU against their floors: copy rate, NF4 expansion, dense products, adapters, attention at
/// Llama-2-7B's shape (32 heads of 128).
/// </summary>
public static class CudaOpsBench
{
    public static int Run(string[] args)
    {
        string output = args.Length > 0 ? args[0] : Path.Combine("bench", "results", "cuda-ops.csv");
        using var device = CudaDevice.Open();
        nint arena = device.Reserve(6L << 30), next = arena;
        Tensor New(DType t, int rows, int columns = 1)
        {
            var x = new Tensor(next, t, new Shape(rows, columns));
            next += (nint)((x.Bytes + 255) & ~255L);
            return x;
        }
        var ops = device.Ops;
        var lines = new List<string> { "date,device,op,ms,rate,unit" };
        void Report(string op, double ms, double rate, string unit)
        {
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{op,-34} {ms,8:F3} ms {rate,8:F2} {unit}"));
            lines.Add(
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"{DateTime.UtcNow:yyyy-MM-dd},{device.Name},{op},{ms:F4},{rate:F3},{unit}")
            );
        }
        double Time(Action action)
        {
            for (int i = 0; i < 3; i++) action();
            var times = new List<double>();
            for (int r = 0; r < 5; r++)
            {
                using CudaEvent a = CudaEvent.Create(timed: true), b = CudaEvent.Create(timed: true);
                a.Record(device.Gpu.Main);
                for (int i = 0; i < 10; i++) action();
                b.Record(device.Gpu.Main);
                times.Add(a.To(b) / 10);
            }
            return times.Order().ElementAt(2);
        }
        void Random(Tensor t, float scale)
        {
            var random = new PhiloxRandom((ulong)t.Address);
            var bits = new ushort[1 << 16];
            for (int i = 0; i < bits.Length; i++)
                bits[i] = (ushort)(BitConverter.SingleToUInt32Bits(random.NextNormal() * scale) >> 16);
            for (long at = 0; at < t.Bytes; at += bits.Length * 2)
            {
                int n = (int)Math.Min(bits.Length * 2, t.Bytes - at);
                device.Upload(
                    System.Runtime.InteropServices.MemoryMarshal.AsBytes(bits.AsSpan())[..n],
                    new Tensor(t.Address + (nint)at, DType.U8, new Shape(n)));
            }
        }

        nint mark = next;
        Tensor big = New(DType.U8, 1 << 30), copy = New(DType.U8, 1 << 30);
        double ms = Time(() => ops.Copy(big, copy));
        double copyRate = 2.0 * (1 << 30) / ms / 1e9;
        Report("copy 1 GiB", ms, copyRate, "TB/s");
        next = mark;

        int o = 11008, h = 4096, blocks = o * h / 64;
        Tensor source = New(DType.F32, o, h), dst = New(DType.BF16, o, h);
        // the upper halves make random floats
        Random(new Tensor(source.Address, DType.BF16, new Shape(o, h * 2)), 0.02f);
        var w = new LinearWeight(
            WeightStorage.NF4Double, o, h, New(DType.U4, o, h), New(DType.U8, blocks),
            New(DType.F32, (blocks + 255) / 256), New(DType.F32, 1));
        Report("NF4 quantize 11008x4096", Time(() => ops.Quantize(source, w)), 0, "");
        ms = Time(() => ((CudaOps)ops).Expand(w, dst));
        Report("NF4 expand 11008x4096", ms, (dst.Bytes + w.Bytes) / ms / 1e9, "TB/s");
        Report("  of the copy rate", ms, (dst.Bytes + w.Bytes) / ms / 1e9 / copyRate * 100, "%");
        foreach (int t in new[] { 2048, 8192 })
        {
            Tensor x = New(DType.BF16, t, h), y = New(DType.BF16, t, o);
            Random(x, 1);
            Random(dst, 0.02f);
            var plain = new LinearWeight(WeightStorage.BF16, o, h, dst);
            ms = Time(() => ops.Linear(x, plain, y));
            Report($"product {t}x{o}x{h}", ms, 2.0 * t * o * h / ms / 1e9, "TFLOP/s");
        }
        // An adapter of rank 16 over 8,192 rows, with and without dropout: xa reads x once, and so does the gradient of
        // A; y += xa B^T reads and writes y beside it.
        const int tokens = 8192, rank = 16;
        foreach (int width in new[] { h, o })
        {
            next = mark;
            Tensor x = New(DType.BF16, tokens, width),
                xa = New(DType.BF16, tokens, rank),
                a = New(DType.F32, rank, width),
                b = New(DType.F32, width, rank);
            Random(x, 1);
            Random(xa, 1);
            ops.Zero(a);
            ops.Zero(b);
            foreach (float p in new[] { 0, 0.1f })
            {
                var drop = new Dropout(p, 1, 2, 3);
                string shape = string.Create(CultureInfo.InvariantCulture, $"{tokens}x{width} dropout {p}");
                ms = Time(() => ((CudaOps)ops).LoraInput(x, a, drop, xa));
                Report("lora xa " + shape, ms, x.Bytes / ms / 1e9, "TB/s");
                ms = Time(() => ops.LoraBackwardA(x, drop, xa, a));
                Report("lora dA " + shape, ms, x.Bytes / ms / 1e9, "TB/s");
                ms = Time(() => ops.LoraForward(x, a, b, 1, drop, xa, x));
                Report("lora xa and y " + shape, ms, 3.0 * x.Bytes / ms / 1e9, "TB/s");
            }
        }
        next = mark;
        foreach (var (batch, length) in new[] { (4, 512), (2, 2048), (1, 4096) })
        {
            next = mark;
            int t = batch * length;
            Tensor[] m = Enumerable.Range(0, 8).Select(_ => New(DType.BF16, t, h)).ToArray();
            Tensor lse = New(DType.F32, t, 32), delta = New(DType.F32, t, 32), offsets = New(DType.I32, batch + 1);
            foreach (var x in m[..4]) Random(x, 1);
            device.Upload(
                System.Runtime.InteropServices.MemoryMarshal.AsBytes(
                    Enumerable.Range(0, batch + 1).Select(i => i * length).ToArray().AsSpan()),
                offsets
            );
            var s = new AttentionShape(32, 32, 128, 0);
            double flops = 2.0 * t * length * h; // causal: half of 4 T L H
            ms = Time(() => ops.Attention(m[0], m[1], m[2], offsets, s, m[4], lse));
            Report($"attention forward {batch}x{length}", ms, flops / ms / 1e9, "TFLOP/s");
            ms = Time(() =>
                ops.AttentionBackward(m[0], m[1], m[2], m[4], lse, m[3], offsets, s, delta, m[5], m[6], m[7])
            );
            Report($"attention backward {batch}x{length}", ms, 2.5 * flops / ms / 1e9, "TFLOP/s");
        }
        Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(output))!);
        File.WriteAllLines(output, lines);
        return 0;
    }
}
