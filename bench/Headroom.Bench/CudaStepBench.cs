using System.Globalization;
using Headroom.Cuda;
using Headroom.Formats.HuggingFace;
using Headroom.Training.Measure;

namespace Headroom.Bench;

/// <summary>
/// Whole QLoRA steps on a GPU over any config.json with random weights: NF4 with double quantization, r 16 on all seven
/// projections, dropout 0.1, random tokens, every token labelled, or with --answers the last one of each row. Cases:
/// CONFIG:ROWSxLENGTH:RECOMPUTED_LAYERS (-1 = all). --ragged: lengths of film reviews, up to LENGTH, every step a new
/// batch. --graphs replays micro-steps of every model, --no-graphs of none. --dora and --dropout P change the
/// adapters. --expanded MIB: so much memory for weights that stay expanded. --chunk ROWS: rows whose logits exist at a
/// time.
/// </summary>
public static class CudaStepBench
{
    public static int Run(string[] args)
    {
        string output = Option(args, "--out") ?? Path.Combine("bench", "results", "cuda-step.csv");
        int steps = int.Parse(Option(args, "--steps") ?? "5", CultureInfo.InvariantCulture);
        bool profile = args.Contains("--profile"),
            kernels = args.Contains("--kernels"),
            ahead = !args.Contains("--no-ahead");
        bool? graphs = args.Contains("--no-graphs") ? false : args.Contains("--graphs") ? true : null;
        long expand = long.Parse(Option(args, "--expand") ?? "88", CultureInfo.InvariantCulture) << 20;
        Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(output))!);
        if (!File.Exists(output))
            File.WriteAllText(
                output,
                "date,device,model,rows,length,recompute_layers,tokens_per_s,step_ms,tflops,planned_mib,process_mib,"
                    + "loss,batch,graphs,expanded_mib\n"
            );
        foreach (string spec in args.Where(a => a.Contains(':')))
        {
            string[] p = spec.Split(':');
            int[] shape = p[1].Split('x').Select(s => int.Parse(s, CultureInfo.InvariantCulture)).ToArray();
            var device = CudaDevice.Open(new CudaOptions(ExpandAhead: ahead, ExpandBytes: expand, Graphs: graphs));
            var options = new StepBenchmarkOptions(
                shape[0], shape[1], int.Parse(p[2], CultureInfo.InvariantCulture), device.PreferredCompute, steps,
                AnswerOnly: args.Contains("--answers"), Ragged: args.Contains("--ragged"),
                DropoutP: float.Parse(Option(args, "--dropout") ?? "0.1", CultureInfo.InvariantCulture))
            {
                UseDora = args.Contains("--dora"),
                ExpandedBytes = long.Parse(Option(args, "--expanded") ?? "0", CultureInfo.InvariantCulture) << 20,
                LogitsChunk = int.Parse(Option(args, "--chunk") ?? "0", CultureInfo.InvariantCulture),
            };
            Case(p[0], device, options, profile, kernels, output);
        }
        return 0;
    }

    private static void Case(
        string model, CudaDevice device, StepBenchmarkOptions o, bool profile, bool kernels, string output)
    {
        double mib = 1024.0 * 1024;
        long overhead = device.OverheadBytes;
        var times = new Dictionary<string, (int Count, double Milliseconds)>();
        var r = StepBenchmark.Run(device, HfConfig.Load(model), o, stepping: on =>
            device.Gpu.Profile = kernels && on ? times : null
        );
        string batch = (o.Ragged ? "ragged" : "full") + (o.AnswerOnly ? " answers" : ""),
            graphs = device.Notice != null ? "failed"
            : device.Graphs.Records > 0 ? "on"
            : "off";
        // the folder of config.json
        string name = Path.GetFileName(Path.GetDirectoryName(Path.GetFullPath(model))) ?? model;
        if ((o.UseDora, o.DropoutP) != (false, 0.1f))
            name += string.Create(
                CultureInfo.InvariantCulture, $" {(o.UseDora ? "DoRA" : "LoRA")} dropout {o.DropoutP}");
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{name} {o.Rows}x{o.Length} recompute {o.RecomputeLayers}, {batch}, graphs {graphs}: "
                    + $"{r.TokensPerSecond:F0} tokens/s, {r.StepMilliseconds:F1} ms, {r.Tflops:F0} of "
                    + $"{r.ProductTflops:F0} TFLOP/s, plan {r.PlannedBytes / mib:F0} MiB of which context and code "
                    + $"{overhead / mib:F0}, process {r.Memory?.Process / mib:F0} MiB, loss "
                    + $"{r.Loss:F4}{(device.Expanded is { Count: > 0 } e ? $", {e.Count} weights stay expanded in {e.Bytes / mib:F0} MiB" : "")}"
            )
        );
        File.AppendAllText(output, string.Create(CultureInfo.InvariantCulture,
                $"{DateTime.UtcNow:yyyy-MM-dd},{device.Name},{name},{o.Rows},{o.Length},{o.RecomputeLayers},"
                    + $"{r.TokensPerSecond:F0},{r.StepMilliseconds:F2},{r.Tflops:F1},{r.PlannedBytes / mib:F0},"
                    + $"{r.Memory?.Process / mib:F0},{r.Loss:F4},{batch},{graphs},{device.Expanded.Bytes / mib:F0}\n"
            )
        );
        if (device.Notice is { } notice) Console.WriteLine("  " + notice);
        if (device.Graphs is { Records: > 0 } g)
            Console.WriteLine(
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"  graphs: {g.Records} recorded, {g.Replays} replayed, {g.PeakBytes / mib:F1} MiB of the device "
                        + $"({string.Join(" ", g.Sizes.Select(b => b >> 20))}), "
                        + $"{g.RecordTime.TotalMilliseconds / Math.Max(1, g.Records):F1} ms a record"
                )
            );
        // Every kernel alone, in one line: the figure above is not a rate then.
        foreach (var (kernel, (count, ms)) in times.OrderByDescending(k => k.Value.Milliseconds).Take(40))
            Console.WriteLine(
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"  {ms / r.MicroSteps,8:F2} ms a step, {ms / count * 1000,8:F1} us x "
                        + $"{(double)count / r.MicroSteps,6:F1} {kernel}"
                )
            );
        if (!profile) return;
        foreach (var x in r.Ops)
            Console.WriteLine(
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"  {x.Milliseconds,8:F2} ms {x.FloorMilliseconds,8:F2} floor {x.Calls,5} x {x.Op}")
            );
    }

    private static string? Option(string[] args, string name) =>
        Array.IndexOf(args, name) is >= 0 and var i ? args[i + 1] : null;
}
