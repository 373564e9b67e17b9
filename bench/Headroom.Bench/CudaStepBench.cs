using System.Diagnostics;
using System.Globalization;
using Headroom.Core;
using Headroom.Cuda;
using Headroom.Formats;
using Headroom.Models;
using Headroom.Planning;
using Headroom.Training;

namespace Headroom.Bench;

/// <summary>
/// Whole QLoRA steps on a GPU over any config.json with random weights: NF4 with double quantization, r 16 on all seven projections, dropout 0.1,
/// random tokens, every token labelled. Cases: CONFIG:ROWSxLENGTH:RECOMPUTED_LAYERS (-1 = all).
/// </summary>
public static class CudaStepBench
{
    private static readonly string[] All = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

    public static int Run(string[] args)
    {
        string output = Option(args, "--out") ?? Path.Combine("bench", "results", "cuda-step.csv");
        int steps = int.Parse(Option(args, "--steps") ?? "5", CultureInfo.InvariantCulture);
        bool profile = args.Contains("--profile"), ahead = !args.Contains("--no-ahead");
        long expand = long.Parse(Option(args, "--expand") ?? "88", CultureInfo.InvariantCulture) << 20;
        Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(output))!);
        if (!File.Exists(output))
            File.WriteAllText(output, "date,device,model,rows,length,recompute_layers,tokens_per_s,step_ms,tflops,planned_mib,process_mib,launches_per_step,loss\n");
        foreach (string spec in args.Where(a => a.Contains(':')))
        {
            string[] p = spec.Split(':');
            int[] shape = p[1].Split('x').Select(s => int.Parse(s, CultureInfo.InvariantCulture)).ToArray();
            Case(p[0], shape[0], shape[1], int.Parse(p[2], CultureInfo.InvariantCulture), steps, profile, new CudaOptions(ExpandAhead: ahead, ExpandBytes: expand), output);
        }
        return 0;
    }

    private static void Case(string model, int rows, int length, int recompute, int steps, bool profile, CudaOptions options, string output)
    {
        var config = HfConfig.Load(model);
        var device = CudaDevice.Open(options);
        int tokens = rows * length;
        var settings = new ModelSettings(WeightStorage.NF4Double, WeightStorage.BF16, TrainMode.Adapters,
            new LoraSettings(16, 32, 0.1f, All), recompute, Math.Min(tokens, 1024), device.Preferred16Bit);
        var limits = new BatchLimits(tokens, rows, tokens);
        Engine.MakePlan(config, settings, limits, device.WorkspaceBytes, out PlanningOps counted);
        using var engine = new Engine(device, config, settings, limits);
        engine.FillRandom(1);
        engine.InitializeAdapters(1);
        var random = new PhiloxRandom(1);
        var batch = new MicroBatch(tokens, rows);
        for (int r = 0; r < rows; r++) batch.Add(new EncodedRow(Enumerable.Range(0, length).Select(_ => random.Next(config.VocabSize)).ToArray(), 1));
        var times = new List<double>();
        double loss = 0;
        long launches = 0;
        for (int s = 0; s < steps + 3; s++)
        {
            long before = device.Gpu.Launches, start = Stopwatch.GetTimestamp();
            loss = engine.MicroStep(batch.Host, new Dropout(0.1f, 1, (uint)s, 0), 1f / batch.LabelCount) / batch.LabelCount;
            double norm = engine.GradientNorm();
            engine.Update(new AdamWStep(1e-4, 0.9, 0.999, 1e-8, s + 1, (float)Math.Min(1, 1 / (norm + 1e-6))));
            device.Synchronize();
            if (s >= 3) times.Add(Stopwatch.GetElapsedTime(start).TotalMilliseconds);
            launches = device.Gpu.Launches - before;
        }
        var use = device.MemoryUse();
        times.Sort();
        double ms = times[times.Count / 2], mib = 1024.0 * 1024;
        string name = Path.GetFileName(Path.GetDirectoryName(Path.GetFullPath(model))) ?? model; // the folder of config.json
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{name} {rows}x{length} recompute {recompute}: {tokens / ms * 1000:F0} tokens/s, {ms:F1} ms, {counted.Flops / ms / 1e9:F0} TFLOP/s counted, plan {engine.Plan.TotalBytes / mib:F0} MiB, process {use.Process / mib:F0} MiB, {launches} launches, loss {loss:F4}"));
        File.AppendAllText(output, string.Create(CultureInfo.InvariantCulture,
            $"{DateTime.UtcNow:yyyy-MM-dd},{device.Name},{name},{rows},{length},{recompute},{tokens / ms * 1000:F0},{ms:F2},{counted.Flops / ms / 1e9:F1},{engine.Plan.TotalBytes / mib:F0},{use.Process / mib:F0},{launches},{loss:F4}\n"));
        if (!profile) return;
        device.Gpu.Profile = new Dictionary<string, (int, double)>();
        engine.MicroStep(batch.Host, new Dropout(0.1f, 1, 99, 0), 1f / batch.LabelCount);
        foreach (var (what, (count, time)) in device.Gpu.Profile.OrderByDescending(e => e.Value.Item2).Take(24))
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"  {time,8:F2} ms {count,5} x {what}"));
        device.Gpu.Profile = null;
    }

    private static string? Option(string[] args, string name) => Array.IndexOf(args, name) is >= 0 and var i ? args[i + 1] : null;
}
