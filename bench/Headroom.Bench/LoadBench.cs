using System.Globalization;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Cuda;
using Headroom.Formats.HuggingFace;
using Headroom.Training.Measure;

namespace Headroom.Bench;

/// <summary>
/// <see cref="LoadBenchmark"/> with its CSV. Without a model a bf16 one is made in the work folder: of a config.json,
/// or of hidden 2048 and the given size.
/// </summary>
public static class LoadBench
{
    public static int Run(string[] args)
    {
        string Option(string name, string otherwise) =>
            Array.IndexOf(args, name) is >= 0 and var i && i + 1 < args.Length ? args[i + 1] : otherwise;
        string what = args.Length > 0 && !args[0].StartsWith('-') ? args[0] : "512", device = Option("--device", "cpu");
        int rounds = int.Parse(Option("--rounds", "5"), CultureInfo.InvariantCulture);
        string temporary = Directory
            .CreateDirectory(
                Path.Combine(Option("--work", Path.GetTempPath()), $"headroom-bench-load-{Environment.ProcessId}"))
            .FullName;
        try
        {
            string model = Directory.Exists(what) ? what : temporary;
            if (model == temporary)
            {
                var config = File.Exists(what)
                    ? HfConfig.Load(what)
                    : OfSize(int.Parse(what, CultureInfo.InvariantCulture));
                Console.WriteLine($"writing a checkpoint with random values to {model}");
                SyntheticCheckpoint.Write(model, config);
            }
            Thread.Sleep(2500); // files that changed within two seconds are not remembered by their hash
            var result = LoadBenchmark.Run(
                model, () => device == "cuda" ? CudaDevice.Open() : new CpuDevice(), temporary, rounds,
                Console.WriteLine);
            foreach (string line in result.Lines()) Console.WriteLine(line);
            string name =
                device == "cuda"
                    ? $"{result.Device}, {Environment.ProcessorCount} processors ({StepBench.CpuName()})"
                    : $"{result.Device}, {StepBench.CpuName()}";
            string file = Option(
                "--out", Path.Combine("bench", "results", device == "cuda" ? "cuda-load.csv" : "cpu-load.csv"));
            Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(file))!);
            File.WriteAllLines(
                file,
                result
                    .Times.Select(t =>
                        string.Create(
                            CultureInfo.InvariantCulture,
                            $"{DateTime.UtcNow:yyyy-MM-dd},\"{name}\",\"{t.What}\",{t.Bytes},{t.Seconds:F3},"
                                + $"{t.Best:F3},{t.GbPerSecond:F2}"
                        )
                    )
                .Prepend("date,device,what,bytes,median_s,best_s,gb_per_s"));
            return 0;
        }
        finally
        {
            Directory.Delete(temporary, true);
        }
    }

    /// <summary>A Llama of hidden 2048 with as many layers as fit.</summary>
    private static ModelConfig OfSize(int mib)
    {
        const int hidden = 2048, inter = 5632;
        return new ModelConfig
        {
            VocabSize = 8192,
            HiddenSize = hidden,
            IntermediateSize = inter,
            NumHiddenLayers = (int)Math.Max(1, ((long)mib << 20) / ((4L * hidden * hidden + 3L * hidden * inter) * 2)),
            NumAttentionHeads = 16,
            NumKeyValueHeads = 16,
            HeadDim = 128,
            TieWordEmbeddings = true,
        };
    }
}
