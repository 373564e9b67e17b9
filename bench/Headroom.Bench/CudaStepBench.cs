using System.Globalization;
using Headroom.Cuda;
using Headroom.Formats;
using Headroom.Training;

namespace Headroom.Bench;

/// <summary>
/// Whole QLoRA steps on a GPU over any config.json with random weights: NF4 with double quantization, r 16 on all seven projections, dropout 0.1,
/// random tokens, every token labelled. Cases: CONFIG:ROWSxLENGTH:RECOMPUTED_LAYERS (-1 = all). --dora and --dropout P change the adapters.
/// </summary>
public static class CudaStepBench
{
    public static int Run(string[] args)
    {
        string output = Option(args, "--out") ?? Path.Combine("bench", "results", "cuda-step.csv");
        int steps = int.Parse(Option(args, "--steps") ?? "5", CultureInfo.InvariantCulture);
        bool profile = args.Contains("--profile"), ahead = !args.Contains("--no-ahead");
        long expand = long.Parse(Option(args, "--expand") ?? "88", CultureInfo.InvariantCulture) << 20;
        Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(output))!);
        if (!File.Exists(output))
            File.WriteAllText(output, "date,device,model,rows,length,recompute_layers,tokens_per_s,step_ms,tflops,planned_mib,process_mib,loss\n");
        var adapters = (Dora: args.Contains("--dora"), Dropout: float.Parse(Option(args, "--dropout") ?? "0.1", CultureInfo.InvariantCulture));
        foreach (string spec in args.Where(a => a.Contains(':')))
        {
            string[] p = spec.Split(':');
            int[] shape = p[1].Split('x').Select(s => int.Parse(s, CultureInfo.InvariantCulture)).ToArray();
            Case(p[0], shape[0], shape[1], int.Parse(p[2], CultureInfo.InvariantCulture), steps, profile, new CudaOptions(ExpandAhead: ahead, ExpandBytes: expand), adapters, output);
        }
        return 0;
    }

    private static void Case(string model, int rows, int length, int recompute, int steps, bool profile, CudaOptions options, (bool Dora, float Dropout) adapters, string output)
    {
        var device = CudaDevice.Open(options);
        double mib = 1024.0 * 1024;
        long overhead = device.OverheadBytes;
        var r = StepBenchmark.Run(device, HfConfig.Load(model), new StepBenchmarkOptions(rows, length, recompute, device.Preferred16Bit, steps, DropoutP: adapters.Dropout) { UseDora = adapters.Dora });
        string name = Path.GetFileName(Path.GetDirectoryName(Path.GetFullPath(model))) ?? model; // the folder of config.json
        if (adapters != (false, 0.1f)) name += string.Create(CultureInfo.InvariantCulture, $" {(adapters.Dora ? "DoRA" : "LoRA")} dropout {adapters.Dropout}");
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{name} {rows}x{length} recompute {recompute}: {r.TokensPerSecond:F0} tokens/s, {r.StepMilliseconds:F1} ms, {r.Tflops:F0} of {r.ProductTflops:F0} TFLOP/s, plan {r.PlannedBytes / mib:F0} MiB of which context and code {overhead / mib:F0}, process {r.Memory?.Process / mib:F0} MiB, loss {r.Loss:F4}"));
        File.AppendAllText(output, string.Create(CultureInfo.InvariantCulture,
            $"{DateTime.UtcNow:yyyy-MM-dd},{device.Name},{name},{rows},{length},{recompute},{r.TokensPerSecond:F0},{r.StepMilliseconds:F2},{r.Tflops:F1},{r.PlannedBytes / mib:F0},{r.Memory?.Process / mib:F0},{r.Loss:F4}\n"));
        if (!profile) return;
        foreach (var o in r.Ops) Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"  {o.Milliseconds,8:F2} ms {o.FloorMilliseconds,8:F2} floor {o.Calls,5} x {o.Op}"));
    }

    private static string? Option(string[] args, string name) => Array.IndexOf(args, name) is >= 0 and var i ? args[i + 1] : null;
}
