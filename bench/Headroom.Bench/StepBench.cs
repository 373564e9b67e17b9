using System.Diagnostics;
using System.Globalization;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats;
using Headroom.Models;
using Headroom.Training;

namespace Headroom.Bench;

/// <summary>Whole QLoRA steps on CPU: 4 x 256 random tokens, every token labelled, r 16 on all seven projections, dropout 0.1.</summary>
public static class StepBench
{
    public static int Run(string[] args)
    {
        int Option(string name, int fallback) => Array.IndexOf(args, name) is >= 0 and var i ? int.Parse(args[i + 1], CultureInfo.InvariantCulture) : fallback;
        int steps = Option("--steps", 5), rows = 4, length = 256, recompute = Option("--recompute", 0);
        using var source = WeightSources.Open(args[0]);
        var settings = new ModelSettings(WeightStorage.NF4Double, WeightStorage.BF16, TrainMode.Adapters,
            new LoraSettings(16, 32, 0.1f, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]), recompute, Option("--chunk", 128));
        using var engine = new Engine(new CpuDevice(), source, settings, new BatchLimits(rows * length, rows, rows * length));
        engine.InitializeAdapters(1);
        var batch = new MicroBatch(rows * length, rows);
        var random = new PhiloxRandom(1);
        for (int r = 0; r < rows; r++) batch.Add(new EncodedRow(Enumerable.Range(0, length).Select(_ => random.Next(source.Config.VocabSize)).ToArray(), 1));
        var times = new List<double>();
        for (int s = 0; s < steps + 2; s++)
        {
            long start = Stopwatch.GetTimestamp();
            double loss = engine.MicroStep(batch.Host, new Dropout(0.1f, 1, (uint)s, 0), 1f / batch.LabelCount) / batch.LabelCount;
            engine.Update(new AdamWStep(1e-4, 0.9, 0.999, 1e-8, s + 1, 1));
            double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
            if (s >= 2) times.Add(seconds);
            Console.WriteLine($"step {s}: loss {loss:F4}, {seconds:F2} s, {rows * length / seconds:F0} tokens/s");
        }
        times.Sort();
        double median = times[times.Count / 2], mib = 1024.0 * 1024;
        long peak = Process.GetCurrentProcess().PeakWorkingSet64;
        Console.WriteLine($"median {rows * length / median:F1} tokens/s; arena {engine.Plan.ArenaBytes / mib:F0} MiB, peak resident {peak / mib:F0} MiB");
        string file = Path.Combine("bench", "results", "cpu-step.csv");
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        if (!File.Exists(file)) File.WriteAllText(file, "date,device,model,rows,length,recompute_layers,tokens_per_s,arena_mib,peak_resident_mib\n");
        File.AppendAllText(file, string.Create(CultureInfo.InvariantCulture,
            $"{DateTime.UtcNow:yyyy-MM-dd},\"{engine.Device.Name}, {CpuName()}\",{Path.GetFileName(args[0])},{rows},{length},{recompute},{rows * length / median:F1},{engine.Plan.ArenaBytes / mib:F0},{peak / mib:F0}\n"));
        return 0;
    }

    public static string CpuName() => File.Exists("/proc/cpuinfo")
        ? File.ReadLines("/proc/cpuinfo").FirstOrDefault(l => l.StartsWith("model name", StringComparison.Ordinal))?.Split(':')[1].Trim() ?? "unknown" : "unknown";
}
