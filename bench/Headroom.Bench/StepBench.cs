using System.Diagnostics;
using System.Globalization;
using Headroom.Core;
using Headroom.Core.Families;
using Headroom.Cpu;
using Headroom.Formats.Gguf;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Training.Data;
using Headroom.Training.Runs;

namespace Headroom.Bench;

/// <summary>
/// Whole QLoRA steps on CPU: 4 x 256 random tokens, every token labelled, r 16 on all seven projections, dropout 0.1.
/// </summary>
public static class StepBench
{
    private const double MiB = 1024.0 * 1024;

    public static int Run(string[] args)
    {
        int Option(string name, int fallback) =>
            Array.IndexOf(args, name) is >= 0 and var i
                ? int.Parse(args[i + 1], CultureInfo.InvariantCulture)
                : fallback;
        int steps = Option("--steps", 10),
            warm = 3,
            rows = 4,
            length = 256,
            recompute = Option("--recompute", 0),
            threads = Option("--threads", 0);
        bool profile = args.Contains("--profile");
        using var source = WeightSources.Open(args[0]);
        var settings = new ModelSettings(WeightStorage.NF4Double, WeightStorage.BF16, TrainMode.Adapters,
            new LoraConfig(16, 32, 0.1f, [.. ModelFamilies.Targets]), recompute, Option("--chunk", 0));
        var cpu = new CpuDevice(threads);
        var limits = new BatchLimits(rows * length, rows, rows * length);
        using var engine = new Engine(cpu, source, settings, limits);
        engine.InitializeAdapters(1);
        // A busy machine disturbs processor time less than wall time, when one thread runs.
        var timer = profile ? new OpTimer(threads == 1 ? new ProcessorClock() : WallClock.Instance) : null;
        timer?.Start();
        var batch = new MicroBatch(rows * length, rows);
        var random = new PhiloxRandom(1);
        for (int r = 0; r < rows; r++)
            batch.Add(
                new EncodedRow(
                    Enumerable.Range(0, length).Select(_ => random.Next(source.Config.VocabSize)).ToArray(), 1)
            );
        var times = new List<double>();
        var best = new Dictionary<string, (int Calls, double Milliseconds)>();
        for (int s = 0; s < steps + warm; s++)
        {
            timer?.Clear();
            double cpuStart = Environment.CpuUsage.TotalTime.TotalSeconds;
            long start = Stopwatch.GetTimestamp();
            double loss =
                engine.MicroStep(batch.Host, new Dropout(0.1f, 1, (uint)s, 0), 1f / batch.LabelCount)
                / batch.LabelCount;
            engine.Update(new AdamWStep(1e-4, 0.9, 0.999, 1e-8, s + 1, 1));
            double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds,
                processor = Environment.CpuUsage.TotalTime.TotalSeconds - cpuStart;
            Console.WriteLine(
                $"step {s}: loss {loss:F4}, {seconds:F2} s, {rows * length / seconds:F0} tokens/s ({processor:F2} s "
                    + $"of processor time)"
            );
            if (s < warm) continue;
            times.Add(seconds);
            if (timer == null) continue;
            foreach (var (name, e) in timer.Times)
                if (!best.TryGetValue(name, out var b) || e.Milliseconds < b.Milliseconds) best[name] = e;
        }
        OpTimer.Stop();
        if (profile) PrintProfile(best, times.Min(), source.Config, settings, limits);
        times.Sort();
        double bestRate = rows * length / times[0], median = rows * length / times[times.Count / 2];
        double arena = engine.Plan.ArenaBytes / MiB,
            planned = engine.Plan.TotalBytes / MiB,
            peak = ProcessMemory.Read().Peak / MiB;
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"best {bestRate:F1}, median {median:F1} tokens/s; planned {planned:F0} MiB (arena {arena:F0}), peak "
                    + $"resident {peak:F0} MiB"
            )
        );
        if (profile) return 0;
        string file = Path.Combine("bench", "results", "cpu-step.csv");
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        if (!File.Exists(file))
            File.WriteAllText(
                file,
                "date,device,model,rows,length,recompute_layers,best_tokens_per_s,median_tokens_per_s,planned_mib,"
                    + "peak_resident_mib\n"
            );
        File.AppendAllText(file, string.Create(CultureInfo.InvariantCulture,
                $"{DateTime.UtcNow:yyyy-MM-dd},\"{engine.Device.Name}, "
                    + $"{CpuName()}\",{Path.GetFileName(args[0])},{rows},{length},{recompute},{bestRate:F1},"
                    + $"{median:F1},{planned:F0},{peak:F0}\n"
            )
        );
        return 0;
    }

    // The smallest time of every op over all steps, beside the planned FLOPs: on a busy machine the sum is nearer to
    // the truth than any one step.
    private static void PrintProfile(
        Dictionary<string, (int Calls, double Milliseconds)> best, double step, ModelConfig config,
        ModelSettings settings, BatchLimits limits)
    {
        var planning = PlannedModel.Make(config, settings, limits, 0);
        Console.WriteLine($"{"op",-26}{"calls",7}{"ms",9}{"share",8}{"GFLOP/s",9}");
        double total = best.Values.Sum(b => b.Milliseconds);
        foreach (var (name, b) in best.OrderByDescending(b => b.Value.Milliseconds))
        {
            double flops = OpTimer.Counted(name).Sum(n => planning.Counts.TryGetValue(n, out var c) ? c.Flops : 0);
            Console.WriteLine(
                $"{name,-26}{b.Calls,7}{b.Milliseconds,9:F1}{b.Milliseconds / total,8:P1}"
                    + (flops > 0 ? $"{flops / b.Milliseconds / 1e6,9:F0}" : "")
            );
        }
        Console.WriteLine($"{"sum of the best",-33}{total,9:F1}");
        Console.WriteLine($"{"best step",-33}{step * 1e3,9:F1}");
    }

    private sealed class ProcessorClock : IClock
    {
        public long Start() => Environment.CpuUsage.TotalTime.Ticks;
        public double Stop(long start) => new TimeSpan(Start() - start).TotalMilliseconds;
    }

    public static string CpuName() => File.Exists("/proc/cpuinfo")
            ? File.ReadLines("/proc/cpuinfo")
                .FirstOrDefault(l => l.StartsWith("model name", StringComparison.Ordinal))
                ?.Split(':')[1]
                .Trim()
                ?? "unknown"
            : "unknown";
}
