using System.Diagnostics;
using System.Globalization;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats.Gguf;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tokenizers;
using Headroom.Tokenizers.Chat;

namespace Headroom.Bench;

/// <summary>
/// Generation on CPU: greedy tokens a second of a model in each storage, and the bytes of weight a second that products
/// of a few rows read.
/// </summary>
public static class DecodeBench
{
    public static int Run(string[] args)
    {
        int Option(string name, int fallback) =>
            Array.IndexOf(args, name) is >= 0 and var i
                ? int.Parse(args[i + 1], CultureInfo.InvariantCulture)
                : fallback;
        int tokens = Option("--tokens", 32), repeats = Option("--repeats", 5);
        string file = Path.Combine("bench", "results", "cpu-decode.csv");
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        if (!File.Exists(file)) File.WriteAllText(file, "date,device,what,storage,rows,figure,unit\n");
        void Row(string what, WeightStorage storage, int rows, double figure, string unit)
        {
            Console.WriteLine(
                string.Create(
                    CultureInfo.InvariantCulture, $"{what,-40} {storage,-10} {rows,3} rows {figure,8:F1} {unit}")
            );
            File.AppendAllText(
                file,
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"{DateTime.UtcNow:yyyy-MM-dd},\"CPU, {Environment.ProcessorCount} threads, "
                        + $"{StepBench.CpuName()}\",{what},{storage},{rows},{figure:F1},{unit}\n"
                )
            );
        }
        WeightStorage[] storages = [WeightStorage.F32, WeightStorage.BF16, WeightStorage.NF4Double];
        foreach (var storage in storages)
        {
            using var source = WeightSources.Open(args[0]);
            var settings = new ModelSettings(
                storage, storage == WeightStorage.F32 ? WeightStorage.F32 : WeightStorage.BF16, TrainMode.None);
            var engine = new Engine(new CpuDevice(), source, settings, new BatchLimits(GenerateTokens: 512));
            using var generator = new Generator(engine, TokenizerLoader.Load(args[0]), []);
            int[] prompt = generator.Tokenizer.EncodePrompt("The history of bread begins");
            double best = 0;
            for (int i = 0; i < repeats; i++)
                best = Math.Max(
                    best, generator.Run(prompt, new GenerationOptions { MaxNewTokens = tokens }).TokensPerSecond);
            Row("decode " + Path.GetFileName(args[0]), storage, 1, best, "tokens/s");
        }
        foreach (var storage in storages)
            foreach (int rows in (int[])[1, 2, 4, 8, 9, 16])
                Row("linear 4096 x "
                    + "4096", storage, rows, Product(storage, rows, 4096, 4096, repeats * 4), "GB/s of weight");
        return 0;
    }

    // Bytes of the weight a second, best of several; above RowProduct.MaxRows this is the packed product.
    private static unsafe double Product(WeightStorage storage, int rows, int outs, int ins, int repeats)
    {
        using var device = new CpuDevice();
        nint at = device.Reserve(512L << 20);
        Tensor Take(DType type, Shape shape)
        {
            var t = new Tensor(at, type, shape);
            at += (nint)((t.Bytes + 255) / 256 * 256);
            return t;
        }
        int blocks = LinearWeight.Blocks((long)outs * ins, 64);
        var source = Take(DType.F32, new Shape(outs, ins));
        var random = new PhiloxRandom(1);
        for (long i = 0; i < source.Count; i++) source.F[i] = random.NextFloat() - 0.5f;
        var w = storage == WeightStorage.NF4Double
                ? new LinearWeight(
                    storage, outs, ins, Take(DType.U4, new Shape(outs, ins)), Take(DType.U8, new Shape(blocks)),
                    Take(DType.F32, new Shape(LinearWeight.Blocks(blocks, 256))), Take(DType.F32, new Shape(1)))
                : new LinearWeight(
                    storage, outs, ins,
                    Take(storage == WeightStorage.F32 ? DType.F32 : DType.BF16, new Shape(outs, ins))
                );
        device.Ops.Quantize(source, w);
        Tensor x = Take(DType.F32, new Shape(rows, ins)), y = Take(DType.F32, new Shape(rows, outs));
        for (long i = 0; i < x.Count; i++) x.F[i] = random.NextFloat() - 0.5f;
        double best = double.MaxValue;
        for (int i = 0; i < repeats; i++)
        {
            long start = Stopwatch.GetTimestamp();
            device.Ops.Linear(x, w, y);
            best = Math.Min(best, Stopwatch.GetElapsedTime(start).TotalSeconds);
        }
        return w.Bytes / best / 1e9;
    }
}
