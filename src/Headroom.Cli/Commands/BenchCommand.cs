using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Cuda;
using Headroom.Formats;
using Headroom.Training;

namespace Headroom.Cli;

/// <summary>
/// headroom bench: whole training steps of any architecture with random weights (step), and loading from files (load).
/// </summary>
internal static class BenchCommand
{
    private const int MostSteps = 100_000; // each has its time kept, and its batch made before where they are ragged
    public static Command Create()
    {
        var model = new Argument<string>("model")
        {
            Description =
                "A config.json, or a model's folder or file (only its configuration is read). Example: headroom bench "
                    + "step models/llama-tiny/config.json --rows 4 --length 128",
        };
        var rows = new Option<int>("--rows")
        {
            Description = "Sequences of a micro-batch.",
            DefaultValueFactory = _ => 4,
        };
        var length = new Option<int>("--length")
        {
            Description = "Tokens of a sequence.",
            DefaultValueFactory = _ => 512,
        };
        var recompute = new Option<int>("--recompute")
        {
            Description = "Layers that recompute; -1 = all.",
            DefaultValueFactory = _ => 0,
        };
        var steps = new Option<int>("--steps") { Description = "Timed steps.", DefaultValueFactory = _ => 5 };
        var rank = new Option<int>("--r")
        {
            Description = "LoRA rank, on all seven projections.",
            DefaultValueFactory = _ => 16,
        };
        var dropout = new Option<float>("--dropout") { Description = "lora_dropout.", DefaultValueFactory = _ => 0.1f };
        var dtype = new Option<string>("--dtype")
        {
            Description = "auto, fp32, bf16 or fp16.",
            DefaultValueFactory = _ => "auto",
        };
        var device = new Option<string>("--device")
        {
            Description = "auto, cpu or cuda.",
            DefaultValueFactory = _ => "auto",
        };
        var answers = new Option<bool>("--answer-only") { Description = "Label only the last token of each sequence." };
        var ragged = new Option<bool>("--ragged")
        {
            Description =
                "Every step a new batch of sequences as long as film reviews are (lognormal around 225 tokens), at "
                    + "most --length.",
        };
        var graphs = new Option<bool?>("--graphs")
        {
            Description =
                "On a GPU, true or false: replay micro-steps as CUDA graphs; default: where launching them takes "
                    + "longer than they do.",
        };
        var expanded = new Option<string>("--expanded")
        {
            Description = "On a GPU, memory in which weights stay expanded, such as 4GiB.",
            DefaultValueFactory = _ => "none",
        };
        var json = new Option<bool>("--json")
        {
            Description = "Print the result as JSON; progress goes to standard error.",
        };
        var step = new Command(
            "step",
            "Time whole QLoRA steps (NF4, double quantization) with random weights and tokens: tokens/s, planned and "
                + "measured bytes, time per op against its floor."
        )
        {
            model, rows, length, recompute, steps, rank, dropout, dtype, device, answers, ragged, graphs, expanded,
            json,
        };
        step.SetAction(p =>
        {
            using var session = new Session(p.GetValue(json));
            int r = p.GetValue(rows), n = p.GetValue(length), count = p.GetValue(steps);
            if (r < 1 || n < 2 || count < 1)
                throw new HeadroomException(
                    $"--rows {r} --length {n} --steps {count} cannot be run.",
                    "Give at least one row of two tokens and one step.");
            if (count > MostSteps) throw new HeadroomException($"--steps is {count}.", $"Give at most {MostSteps}.");
            PreparedRun.BatchTokens(r, n, "--rows or --length");
            if (p.GetValue(rank) < 1 || !(p.GetValue(dropout) is >= 0 and <= Dropout.MaxP))
                throw new HeadroomException(
                    "--r or --dropout cannot be run.",
                    string.Create(
                        CultureInfo.InvariantCulture,
                        $"Give a rank of at least 1 and a dropout from 0 to {Dropout.MaxP}.")
                );
            if (p.GetValue(device) is not ("auto" or "cpu" or "cuda"))
                throw new HeadroomException($"--device {p.GetValue(device)} is unknown.", "Use auto, cpu or cuda.");
            long expandedBytes = p.GetValue(expanded) is var size and not "none" ? Units.Parse(size!) : 0;
            var config = ReadConfig(p.GetValue(model)!);
            int layers = p.GetValue(recompute);
            if (layers < -1 || layers > config.NumHiddenLayers)
                throw new HeadroomException(
                    $"--recompute is {layers}, the model has {config.NumHiddenLayers} layers.",
                    $"Give 0 to {config.NumHiddenLayers}, or -1 for all.");
            config.CheckRank(p.GetValue(rank), "--r is");
            return Run("Give fewer --rows, a smaller --length or --r, or more layers to --recompute.", () =>
            {
                var opened = session.Open(p.GetValue(device)!, p.GetValue(graphs));
                try
                {
                    if (opened is CpuDevice) CommandLine.Refuse(p, "The CPU", graphs, expanded);
                    var compute = RunSettings.ComputeType(
                        Choices.Parse<Precision>("--dtype", p.GetValue(dtype)!), opened, "--dtype");
                    var options = new StepBenchmarkOptions(
                        r,
                        n,
                        layers,
                        compute,
                        count,
                        p.GetValue(rank),
                        p.GetValue(dropout),
                        AnswerOnly: p.GetValue(answers), Ragged: p.GetValue(ragged))
                    { ExpandedBytes = expandedBytes };
                    var result = StepBenchmark.Run(opened, config, options, session.Say, stop: session.Token);
                    if (opened.Notice is { } notice) session.Say(notice);
                    Print(result, opened.Name, r, n, p.GetValue(ragged), p.GetValue(json));
                }
                catch
                {
                    opened.Dispose();
                    throw;
                }
            });
        });
        return new Command("bench", "Measure this machine.") { step, CreateLoad() };
    }

    private static Command CreateLoad()
    {
        var model = new Argument<string>("model")
        {
            Description =
                "A folder with 16- or 32-bit safetensors, or a config.json, of which a checkpoint with random values "
                    + "is made first. Example: headroom bench load models/llama-tiny",
        };
        var work = new Option<string>("--work")
        {
            Description =
                "Folder for what is written and removed again: the quantized copy, and the checkpoint made of a "
                    + "config.json.",
            DefaultValueFactory = _ => Path.GetTempPath(),
        };
        var rounds = new Option<int>("--rounds")
        {
            Description = "Times that everything is done.",
            DefaultValueFactory = _ => 5,
        };
        var device = new Option<string>("--device")
        {
            Description = "auto, cpu or cuda.",
            DefaultValueFactory = _ => "auto",
        };
        var json = new Option<bool>("--json")
        {
            Description = "Print the result as JSON; progress goes to standard error.",
        };
        var load = new Command(
            "load",
            "Time loading into NF4 from the page cache: reading, whole loads with and without the hash beside them, "
                + "the quantized copy and the second start."
        )
        {
            model, work, rounds, device, json,
        };
        load.SetAction(p =>
        {
            using var session = new Session(p.GetValue(json));
            string path = session.Model(p.GetValue(model)!);
            int count = p.GetValue(rounds);
            if (count < 1) throw new HeadroomException($"--rounds {count} cannot be run.", "Give at least one.");
            if (!Directory.Exists(p.GetValue(work)!))
                throw new HeadroomException(
                    $"{p.GetValue(work)} is no folder.", "Give one with room for the checkpoint and its copy.");
            var config = path.EndsWith(".json", StringComparison.OrdinalIgnoreCase) ? ReadConfig(path) : null;
            // one that is not there is refused before gigabytes are written for it
            session.Open(p.GetValue(device)!).Dispose();
            return Run("Give a model of smaller matrices.", () =>
            {
                string? made = null;
                try
                {
                    if (config != null)
                    {
                        path = made = Directory
                            .CreateDirectory(Temporary.Beside(Path.Combine(p.GetValue(work)!, "headroom-bench")))
                            .FullName;
                        session.Say($"writing a checkpoint with random values to {made}");
                        SyntheticCheckpoint.Write(made, config, stop: session.Token);
                        // files that changed just now are not remembered by their hash
                        session.Token.WaitHandle.WaitOne(2500);
                    }
                    var result = LoadBenchmark.Run(
                        path, () => session.Open(p.GetValue(device)!), p.GetValue(work)!, count, session.Say,
                        session.Token);
                    if (!p.GetValue(json)) foreach (string line in result.Lines()) Console.WriteLine(line);
                    else
                        Console.WriteLine(JsonSerializer.Serialize(new
                        {
                            device = result.Device,
                            hash_cost = result.HashCost,
                            weight_bytes = result.WeightBytes,
                            staging_bytes = result.StagingBytes,
                            planned_bytes = result.PlannedBytes,
                            process_bytes = result.Memory?.Process,
                            times = result.Times.Select(t => new
                            {
                                what = t.What,
                                bytes = t.Bytes,
                                median_s = t.Seconds,
                                best_s = t.Best,
                            }),
                        }));
                }
                finally
                {
                    if (made != null) Directory.Delete(made, true);
                }
            });
        });
        return load;
    }

    /// <summary>Runs a benchmark, whose ends before its time are told apart here.</summary>
    /// <param name="smaller">What takes less memory.</param>
    /// <param name="work">The benchmark; it removes what it wrote.</param>
    private static int Run(string smaller, Action work)
    {
        try
        {
            work();
            return 0;
        }
        catch (OperationCanceledException)
        {
            throw new StoppedException("Run it again; nothing was left behind.");
        }
        catch (OutOfMemoryException e)
        {
            throw new HeadroomException("There is not enough memory.", smaller, 1, e);
        }
    }

    private static ModelConfig ReadConfig(string path)
    {
        if (path.EndsWith(".json", StringComparison.OrdinalIgnoreCase))
        {
            if (!File.Exists(path))
                throw new HeadroomException($"{path} does not exist.", "Give a config.json or a model.");
            return HfConfig.Load(path);
        }
        using var source = WeightSources.Open(path);
        return source.Config;
    }

    private static void Print(StepBenchmarkResult x, string device, int rows, int length, bool ragged, bool json)
    {
        if (json)
        {
            Console.WriteLine(JsonSerializer.Serialize(new
            {
                device,
                rows,
                length,
                ragged,
                tokens_per_second = x.TokensPerSecond,
                step_ms = x.StepMilliseconds,
                tflops = x.Tflops,
                product_tflops = x.ProductTflops,
                utilisation = x.Utilisation,
                copy_tbs = x.CopyTbs,
                planned_bytes = x.PlannedBytes,
                process_bytes = x.Memory?.Process,
                device_used_bytes = x.Memory?.Used,
                loss = x.Loss,
                ops = x.Ops.Select(o => new
                {
                    op = o.Op,
                    calls = o.Calls,
                    ms = o.Milliseconds,
                    floor_ms = o.FloorMilliseconds,
                }),
            }));
            return;
        }
        FormattableString lines = $"""
            {device}, {rows} x {(ragged ? "up to " : "")}{length}: {x.TokensPerSecond:F0} tokens/s, {x.StepMilliseconds:F1} ms a step
            {x.Tflops:G3} of {x.ProductTflops:G3} TFLOP/s that a large product reaches here ({x.Utilisation * 100:F0} %); copies run at {x.CopyTbs:F2} TB/s
            planned {x.PlannedBytes / 1048576.0:F0} MiB, {(x.Memory is { Process: >= 0 } m ? string.Create(CultureInfo.InvariantCulture, $"process {m.Process / 1048576.0:F0} MiB") : "process not measured on this device")}
            """;
        Console.WriteLine(lines.ToString(CultureInfo.InvariantCulture));
        if (x.Ops.Count == 0) return;
        Console.WriteLine($"{"op",-24} {"calls",6} {"ms",10} {"floor ms",10}");
        foreach (var o in x.Ops)
            Console.WriteLine(
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"{o.Op,-24} {o.Calls,6} {o.Milliseconds,10:F2} "
                        + $"{(o.FloorMilliseconds > 0 ? o.FloorMilliseconds.ToString("F2", CultureInfo.InvariantCulture) : "-"),10}"
                )
            );
        Console.WriteLine("each op timed alone; the adapters of a group are timed with its products");
    }
}
